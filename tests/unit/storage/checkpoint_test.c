#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "base/check.h"
#include "storage/checkpoint.h"
#include "support/memory_disk.h"

#define PATH "/checkpoint"
#define SLOT_BYTES 512u

static struct memory_disk memory;
static struct disk disk;
static struct checkpoint checkpoint;

static int setup(void **state) {
    (void)state;
    memory_disk_init(&memory);
    disk = memory_disk_table(&memory);
    checkpoint = (struct checkpoint){.disk = &disk, .file = -1};
    return 0;
}

static int teardown(void **state) {
    (void)state;
    checkpoint_close(&checkpoint);
    size_t open = memory_disk_open_handles(&memory);
    memory_disk_deinit(&memory);
    return open == 0 ? 0 : -1;
}

static struct log_mark mark_of(uint64_t n) {
    return (struct log_mark){.offset = n * 10, .segment = n / 3, .position = 32 + n * 100};
}

static void reopen(void) {
    checkpoint_close(&checkpoint);
    assert_int_equal(checkpoint_open(&checkpoint, &disk, "", false), 0);
}

static void assert_holds(uint64_t n) {
    struct log_mark mark = mark_of(n);
    reopen();
    assert_true(checkpoint.valid);
    assert_int_equal(checkpoint.mark.offset, mark.offset);
    assert_int_equal(checkpoint.mark.segment, mark.segment);
    assert_int_equal(checkpoint.mark.position, mark.position);
}

static void a_missing_file_is_no_error_and_no_checkpoint(void **state) {
    (void)state;
    reopen();
    assert_false(checkpoint.valid);
    assert_int_equal(checkpoint.file, -1);
    assert_true(checkpoint_write(&checkpoint, mark_of(1), false) != 0);
}

static void the_mark_that_was_written_last_is_read(void **state) {
    (void)state;
    assert_int_equal(checkpoint_create(&checkpoint, "", mark_of(1)), 0);
    assert_holds(1);
    for (uint64_t n = 2; n < 9; n++) {
        assert_int_equal(checkpoint_write(&checkpoint, mark_of(n), n % 2 == 0), 0);
        assert_holds(n);
        assert_int_equal(checkpoint.clean, n % 2 == 0);
        assert_int_equal(memory_disk_find(&memory, PATH)->length, 2 * SLOT_BYTES);
    }
}

/* Each prefix of the new slot over the old one, as a torn write leaves it. */
static void a_torn_write_leaves_the_one_before(void **state) {
    (void)state;
    assert_int_equal(checkpoint_create(&checkpoint, "", mark_of(1)), 0);
    for (uint64_t n = 2; n < 6; n++) {
        uint8_t before[2 * SLOT_BYTES], after[2 * SLOT_BYTES];
        memory_file_read(memory_disk_find(&memory, PATH), before, sizeof before, 0);
        assert_int_equal(checkpoint_write(&checkpoint, mark_of(n), false), 0);
        memory_file_read(memory_disk_find(&memory, PATH), after, sizeof after, 0);
        size_t slot = memcmp(before, after, SLOT_BYTES) != 0 ? 0 : SLOT_BYTES;
        for (size_t bytes = 1; bytes < SLOT_BYTES; bytes++) {
            memory_file_write(memory_disk_find(&memory, PATH), slice_of(before, sizeof before), 0);
            memory_file_write(memory_disk_find(&memory, PATH), slice_of(after + slot, bytes), slot);
            reopen();
            assert_true(checkpoint.valid);
            assert_true(checkpoint.mark.offset == mark_of(n).offset ||
                        checkpoint.mark.offset == mark_of(n - 1).offset);
        }
        memory_file_write(memory_disk_find(&memory, PATH), slice_of(after, sizeof after), 0);
        assert_holds(n);
    }
}

static void a_file_without_a_good_slot_is_no_checkpoint_and_can_be_replaced(void **state) {
    (void)state;
    (void)memory_disk_add_file(&memory, PATH, slice_str("rubbish"), 7);
    reopen();
    assert_false(checkpoint.valid);
    assert_int_equal(checkpoint_create(&checkpoint, "", mark_of(4)), 0);
    assert_holds(4);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_missing_file_is_no_error_and_no_checkpoint),
        TEST(the_mark_that_was_written_last_is_read),
        TEST(a_torn_write_leaves_the_one_before),
        TEST(a_file_without_a_good_slot_is_no_checkpoint_and_can_be_replaced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
