#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/cursor.h"
#include "storage/index.h"
#include "support/memory_disk.h"

#define BASE 100u
#define PATH "/0.index"

/* Base 100, records 100 at byte 32 and 103 at byte 200. The first as the original writes it, the
 * second with our count and checksum. */
static const uint8_t of_original[] = {
    0x46, 0x4c, 0x53, 0x49, 0, 2, 0, 0, 0, 0,   0, 0, 0,   0, 0, 100, 0, 0,   0,
    0,    0,    0,    0,    0, 0, 0, 0, 0, 0,   0, 0, 100, 0, 0, 0,   0, 0,   0,
    0,    32,   0,    0,    0, 0, 0, 0, 0, 103, 0, 0, 0,   0, 0, 0,   0, 200,
};
static const uint8_t of_ours[] = {
    0x46, 0x4c, 0x53, 0x49, 0,    2, 0, 0, 0, 0,   0, 0, 0,   0, 0, 100, 0, 0,   0,
    2,    0x31, 0xe3, 0xf0, 0xa2, 0, 0, 0, 0, 0,   0, 0, 100, 0, 0, 0,   0, 0,   0,
    0,    32,   0,    0,    0,    0, 0, 0, 0, 103, 0, 0, 0,   0, 0, 0,   0, 200,
};

static struct memory_disk memory;
static struct disk disk;
static struct log_index index_;

static int setup(void **state) {
    (void)state;
    memory_disk_init(&memory);
    disk = memory_disk_table(&memory);
    log_index_init(&index_, BASE, 4096);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    log_index_deinit(&index_);
    size_t open = memory_disk_open_handles(&memory);
    memory_disk_deinit(&memory);
    return open != 0;
}

/* Loads the bytes as the file of a segment of `segment_bytes`. */
static bool load(const void *bytes, size_t len, uint64_t segment_bytes) {
    log_index_clear(&index_);
    memory_disk_reset(&memory);
    (void)memory_disk_add_file(&memory, PATH, slice_of(bytes, len), len);
    bool usable = log_index_load(&index_, &disk, PATH, segment_bytes);
    assert_true(usable || index_.count == 0);
    return usable;
}

static void assert_seek(uint64_t offset, uint64_t found, uint64_t position) {
    struct log_index_entry entry = log_index_seek(&index_, offset);
    assert_int_equal(entry.offset, found);
    assert_int_equal(entry.position, position);
}

static void an_entry_is_made_when_the_spacing_is_full(void **state) {
    (void)state;
    index_.spacing_bytes = 100;
    uint64_t position = 32;
    for (uint64_t offset = BASE; offset < BASE + 8; offset++, position += 40)
        log_index_note(&index_, offset, position, 40);
    /* 0, then after 40 + 40 + 40. */
    assert_int_equal(index_.count, 3);
    assert_int_equal(index_.entries[0].offset, 100);
    assert_int_equal(index_.entries[1].offset, 103);
    assert_int_equal(index_.entries[1].position, 32 + 3 * 40);
    assert_int_equal(index_.entries[2].offset, 106);
}

static void a_seek_finds_the_greatest_entry_that_is_not_beyond(void **state) {
    (void)state;
    assert_seek(500, BASE, 32);
    assert_true(load(of_original, sizeof of_original, 1000));
    assert_seek(99, BASE, 32);
    assert_seek(100, 100, 32);
    assert_seek(102, 100, 32);
    assert_seek(103, 103, 200);
    assert_seek(UINT64_MAX, 103, 200);
}

static void a_cut_forgets_what_lies_at_or_beyond_it(void **state) {
    (void)state;
    assert_true(load(of_original, sizeof of_original, 1000));
    log_index_cut(&index_, 104);
    assert_int_equal(index_.count, 2);
    log_index_cut(&index_, 103);
    assert_int_equal(index_.count, 1);
    assert_seek(103, 100, 32);
    log_index_cut(&index_, 0);
    assert_int_equal(index_.count, 0);
}

/* However small the spacing: memory is bounded, and what is left is still true and still even. */
static void a_full_index_keeps_every_second_entry(void **state) {
    (void)state;
    const uint64_t records = 3 * LOG_INDEX_ENTRIES_MAX;
    index_.spacing_bytes = 1;
    for (uint64_t i = 0; i < records; i++)
        log_index_note(&index_, BASE + i, 32 + i * 50, 50);
    assert_in_range(index_.count, LOG_INDEX_ENTRIES_MAX / 2, LOG_INDEX_ENTRIES_MAX);
    assert_true(index_.capacity <= LOG_INDEX_ENTRIES_MAX);
    for (uint32_t i = 0; i < index_.count; i++)
        assert_int_equal(index_.entries[i].position, 32 + (index_.entries[i].offset - BASE) * 50);
    for (uint64_t i = 0; i < records; i += 997)
        assert_in_range(log_index_seek(&index_, BASE + i).offset, BASE + i - (i < 5 ? i : 5),
                        BASE + i);
    assert_int_equal(index_.spacing_bytes, 4 * 50);
}

static void a_file_has_the_bytes_of_the_specification(void **state) {
    (void)state;
    assert_true(load(of_original, sizeof of_original, 1000));
    assert_int_equal(log_index_save(&index_, &disk, PATH), 0);
    const struct memory_file *file = memory_disk_find(&memory, PATH);
    assert_int_equal(file->length, sizeof of_ours);
    assert_memory_equal(file->data, of_ours, sizeof of_ours);
}

static void what_was_saved_is_loaded(void **state) {
    (void)state;
    index_.spacing_bytes = 10;
    for (uint64_t i = 0; i < 1000; i++)
        log_index_note(&index_, BASE + i, 32 + i * 60, 60);
    assert_int_equal(log_index_save(&index_, &disk, PATH), 0);
    struct log_index again;
    log_index_init(&again, BASE, 10);
    assert_true(log_index_load(&again, &disk, PATH, 32 + 1000 * 60));
    assert_int_equal(again.count, index_.count);
    assert_memory_equal(again.entries, index_.entries, again.count * sizeof again.entries[0]);
    log_index_deinit(&again);
}

static void an_index_without_entries_is_usable(void **state) {
    (void)state;
    assert_int_equal(log_index_save(&index_, &disk, PATH), 0);
    assert_true(log_index_load(&index_, &disk, PATH, 32));
    assert_true(load(of_original, 24, 32));
    assert_seek(BASE, BASE, 32);
}

static void an_entry_that_was_cut_short_is_ignored_without_a_count(void **state) {
    (void)state;
    for (size_t len = 24; len <= sizeof of_original; len++) {
        assert_true(load(of_original, len, 1000));
        assert_int_equal(index_.count, (len - 24) / 16);
    }
    for (size_t len = 0; len < 24; len++)
        assert_false(load(of_original, len, 1000));
}

static void every_truncation_of_ours_is_seen(void **state) {
    (void)state;
    assert_true(load(of_ours, sizeof of_ours, 1000));
    for (size_t len = 0; len < sizeof of_ours; len++)
        assert_false(load(of_ours, len, 1000));
    uint8_t longer[sizeof of_ours + 1] = {0};
    memcpy(longer, of_ours, sizeof of_ours);
    assert_false(load(longer, sizeof longer, 1000));
}

static void every_flipped_bit_of_ours_is_seen(void **state) {
    (void)state;
    uint8_t bytes[sizeof of_ours];
    memcpy(bytes, of_ours, sizeof bytes);
    for (size_t bit = 0; bit < sizeof bytes * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_false(load(bytes, sizeof bytes, UINT64_MAX));
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

/* Loads the original's file with its second entry replaced. */
static bool load_with(uint64_t offset, uint64_t position, uint64_t segment_bytes) {
    uint8_t bytes[sizeof of_original];
    memcpy(bytes, of_original, sizeof bytes);
    be64_store(bytes + 40, offset);
    be64_store(bytes + 48, position);
    return load(bytes, sizeof bytes, segment_bytes);
}

static void entries_that_no_records_can_have_are_seen(void **state) {
    (void)state;
    assert_true(load_with(103, 200, 228));
    assert_false(load_with(103, 200, 227)); /* its header would not fit */
    assert_false(load_with(103, UINT64_MAX, 1000));
    assert_true(load_with(101, 60, 1000));
    assert_false(load_with(101, 59, 1000)); /* inside the first one's header */
    assert_false(load_with(102, 87, 1000)); /* two headers take more */
    assert_false(load_with(100, 200, 1000));
    assert_false(load_with(100, 32, 1000));
    assert_false(load_with(99, 200, 1000));
    assert_false(load_with(103, 32, 1000));
    assert_false(load_with(103, 31, 1000));
    assert_false(load_with(UINT64_MAX, 200, 1000));
}

static void a_first_entry_must_suit_the_first_record(void **state) {
    (void)state;
    uint8_t bytes[40];
    memcpy(bytes, of_original, sizeof bytes);
    be64_store(bytes + 32, 33);
    assert_false(load(bytes, sizeof bytes, 1000)); /* the first record is at 32 */
    be64_store(bytes + 32, 31);
    assert_false(load(bytes, sizeof bytes, 1000));
    be64_store(bytes + 24, BASE + 1);
    be64_store(bytes + 32, 60);
    assert_true(load(bytes, sizeof bytes, 1000));
    be64_store(bytes + 24, BASE - 1);
    assert_false(load(bytes, sizeof bytes, 1000));
}

static void another_file_is_not_taken_for_an_index(void **state) {
    (void)state;
    static const struct {
        size_t at;
        uint8_t value;
    } changes[] = {{0, 'X'}, {3, 'G'}, {5, 1}, {5, 3}, {4, 1}, {15, 101}};
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        uint8_t bytes[sizeof of_original];
        memcpy(bytes, of_original, sizeof bytes);
        bytes[changes[i].at] = changes[i].value;
        assert_false(load(bytes, sizeof bytes, 1000));
    }
    memory_disk_reset(&memory);
    assert_false(log_index_load(&index_, &disk, PATH, 1000));
    assert_false(load("", 0, 1000));
}

static void a_file_with_more_entries_than_we_keep_is_thinned(void **state) {
    (void)state;
    const uint64_t entries = 2 * LOG_INDEX_ENTRIES_MAX + 5;
    size_t len = 24 + (size_t)entries * 16;
    uint8_t *bytes = xcalloc(1, len);
    memcpy(bytes, of_original, 24);
    for (uint64_t i = 0; i < entries; i++) {
        be64_store(bytes + 24 + i * 16, BASE + i * 3);
        be64_store(bytes + 32 + i * 16, 32 + i * 100);
    }
    assert_true(load(bytes, len, 32 + entries * 100));
    assert_in_range(index_.count, LOG_INDEX_ENTRIES_MAX / 2, LOG_INDEX_ENTRIES_MAX);
    for (uint32_t i = 0; i < index_.count; i++)
        assert_int_equal(index_.entries[i].position,
                         32 + (index_.entries[i].offset - BASE) / 3 * 100);
    /* The last one of all counts, also when it is left out. */
    be64_store(bytes + len - 8, 32);
    assert_false(load(bytes, len, 32 + entries * 100));
    free(bytes);
}

static void a_file_that_cannot_be_written_is_an_error(void **state) {
    (void)state;
    assert_int_equal(log_index_save(&index_, &disk, "/none/0.index"), -ENOENT);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(an_entry_is_made_when_the_spacing_is_full),
        TEST(a_seek_finds_the_greatest_entry_that_is_not_beyond),
        TEST(a_cut_forgets_what_lies_at_or_beyond_it),
        TEST(a_full_index_keeps_every_second_entry),
        TEST(a_file_has_the_bytes_of_the_specification),
        TEST(what_was_saved_is_loaded),
        TEST(an_index_without_entries_is_usable),
        TEST(an_entry_that_was_cut_short_is_ignored_without_a_count),
        TEST(every_truncation_of_ours_is_seen),
        TEST(every_flipped_bit_of_ours_is_seen),
        TEST(entries_that_no_records_can_have_are_seen),
        TEST(a_first_entry_must_suit_the_first_record),
        TEST(another_file_is_not_taken_for_an_index),
        TEST(a_file_with_more_entries_than_we_keep_is_thinned),
        TEST(a_file_that_cannot_be_written_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
