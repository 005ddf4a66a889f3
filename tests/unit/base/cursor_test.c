#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/cursor.h"

static const uint8_t golden[] = {0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08,
                                 0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f};

static void integers_are_read_most_significant_byte_first(void **state) {
    (void)state;
    struct reader r = reader_of(slice_of(golden, sizeof golden));
    assert_int_equal(reader_u8(&r), 0x01);
    assert_int_equal(reader_u16(&r), 0x0203);
    assert_int_equal(reader_u32(&r), 0x04050607);
    assert_true(reader_u64(&r) == 0x08090a0b0c0d0e0f);
    assert_int_equal(reader_left(&r), 0);
    assert_false(r.failed);
}

static void what_is_written_reads_back_the_same(void **state) {
    (void)state;
    uint8_t memory[sizeof golden];
    struct writer w = writer_of(memory, sizeof memory);
    writer_u8(&w, 0x01);
    writer_u16(&w, 0x0203);
    writer_u32(&w, 0x04050607);
    writer_u64(&w, 0x08090a0b0c0d0e0f);
    assert_false(w.failed);
    assert_ptr_equal(w.at, w.end);
    assert_memory_equal(memory, golden, sizeof golden);
}

static void taking_all_that_is_left_is_allowed_one_more_is_not(void **state) {
    (void)state;
    struct reader r = reader_of(slice_of(golden, 4));
    assert_int_equal(reader_take(&r, 4).len, 4);
    assert_false(r.failed);
    assert_int_equal(reader_take(&r, 0).len, 0);
    assert_false(r.failed);
    assert_int_equal(reader_take(&r, 1).len, 0);
    assert_true(r.failed);
}

static void a_failed_reader_stays_failed_and_gives_zeros(void **state) {
    (void)state;
    struct reader r = reader_of(slice_of(golden, 3));
    assert_int_equal(reader_u32(&r), 0);
    assert_true(r.failed);
    /* Three bytes are still there, but nothing after a failure can be trusted. */
    assert_int_equal(reader_u8(&r), 0);
    assert_int_equal(reader_u16(&r), 0);
    assert_true(reader_u64(&r) == 0);
    assert_int_equal(reader_take(&r, 0).len, 0);
    assert_true(r.failed);
}

static void each_integer_needs_all_its_bytes(void **state) {
    (void)state;
    for (size_t len = 0; len < 8; len++) {
        struct reader r8 = reader_of(slice_of(golden, len));
        struct reader r16 = r8, r32 = r8, r64 = r8;
        (void)reader_u8(&r8);
        (void)reader_u16(&r16);
        (void)reader_u32(&r32);
        (void)reader_u64(&r64);
        assert_int_equal(r8.failed, len < 1);
        assert_int_equal(r16.failed, len < 2);
        assert_int_equal(r32.failed, len < 4);
        assert_int_equal(r64.failed, len < 8);
    }
}

static void a_length_near_the_end_of_memory_does_not_wrap(void **state) {
    (void)state;
    struct reader r = reader_of(slice_of(golden, sizeof golden));
    (void)reader_u8(&r);
    assert_int_equal(reader_take(&r, SIZE_MAX).len, 0);
    assert_true(r.failed);
    uint8_t memory[4];
    struct writer w = writer_of(memory, sizeof memory);
    assert_null(writer_reserve(&w, SIZE_MAX));
    assert_true(w.failed);
}

static void nothing_is_nothing_to_read(void **state) {
    (void)state;
    struct reader r = reader_of((struct slice){0});
    assert_int_equal(reader_left(&r), 0);
    assert_int_equal(reader_u8(&r), 0);
    assert_true(r.failed);
}

static void a_failed_writer_stays_failed_and_writes_nothing(void **state) {
    (void)state;
    uint8_t memory[] = {0xee, 0xee, 0xee, 0xee};
    struct writer w = writer_of(memory, 3);
    writer_u32(&w, 0x01020304);
    assert_true(w.failed);
    writer_u8(&w, 1);
    writer_u16(&w, 1);
    writer_u64(&w, 1);
    writer_bytes(&w, slice_str("x"));
    assert_null(writer_reserve(&w, 0));
    assert_true(w.failed);
    static const uint8_t untouched[] = {0xee, 0xee, 0xee, 0xee};
    assert_memory_equal(memory, untouched, sizeof memory);
}

static void bytes_fit_to_the_last_one(void **state) {
    (void)state;
    char memory[6] = "......";
    struct writer w = writer_of(memory, 5);
    writer_bytes(&w, (struct slice){0});
    writer_bytes(&w, slice_str("felix"));
    assert_false(w.failed);
    assert_memory_equal(memory, "felix.", 6);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers_are_read_most_significant_byte_first),
        cmocka_unit_test(what_is_written_reads_back_the_same),
        cmocka_unit_test(taking_all_that_is_left_is_allowed_one_more_is_not),
        cmocka_unit_test(a_failed_reader_stays_failed_and_gives_zeros),
        cmocka_unit_test(each_integer_needs_all_its_bytes),
        cmocka_unit_test(a_length_near_the_end_of_memory_does_not_wrap),
        cmocka_unit_test(nothing_is_nothing_to_read),
        cmocka_unit_test(a_failed_writer_stays_failed_and_writes_nothing),
        cmocka_unit_test(bytes_fit_to_the_last_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
