#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "vectors.h"

static const uint8_t plain[FRAME_HEADER_BYTES] = {0x46, 0x4c, 0x58, 0x31, 0, 1, 0, 9, 0, 1, 2, 3};

static enum felix_err decode(const uint8_t bytes[FRAME_HEADER_BYTES], uint32_t max,
                             struct frame_header *ret) {
    return frame_header_decode(slice_of(bytes, FRAME_HEADER_BYTES), max, ret);
}

static void header_fields_are_read_big_endian(void **state) {
    struct frame_header h;
    assert_int_equal(decode(plain, FRAME_MAX_BYTES_DEFAULT, &h), FELIX_OK);
    assert_int_equal(h.flags, 9);
    assert_int_equal(h.body_bytes, 0x010203);
}

static void encoded_header_equals_the_golden_one(void **state) {
    uint8_t out[FRAME_HEADER_BYTES];
    frame_header_encode(out, 9, 0x010203);
    assert_memory_equal(out, plain, sizeof out);
}

static void every_shorter_header_is_incomplete(void **state) {
    for (size_t len = 0; len < FRAME_HEADER_BYTES; len++) {
        struct frame_header h = {.flags = 7};
        uint8_t *copy = exact_copy(plain, len);
        assert_int_equal(frame_header_decode(slice_of(copy, len), UINT32_MAX, &h),
                         FELIX_INCOMPLETE);
        assert_int_equal(h.flags, 7);
        free(copy);
    }
}

static void body_at_the_limit_is_allowed_one_more_is_not(void **state) {
    struct frame_header h;
    assert_int_equal(decode(plain, 0x010203, &h), FELIX_OK);
    assert_int_equal(decode(plain, 0x010202, &h), FELIX_TOO_LARGE);
}

static void wrong_magic_is_reported_before_wrong_version(void **state) {
    struct frame_header h;
    uint8_t bytes[FRAME_HEADER_BYTES];
    memcpy(bytes, plain, sizeof bytes);
    bytes[5] = 2;
    assert_int_equal(decode(bytes, 0, &h), FELIX_BAD_VERSION);
    bytes[3] = '2';
    assert_int_equal(decode(bytes, 0, &h), FELIX_BAD_MAGIC);
}

static void unknown_flags_pass_through(void **state) {
    struct frame_header h;
    uint8_t bytes[FRAME_HEADER_BYTES];
    frame_header_encode(bytes, 0x8040, 5);
    assert_int_equal(decode(bytes, 5, &h), FELIX_OK);
    assert_int_equal(h.flags, 0x8040);
    assert_int_equal(h.body_bytes, 5);
}

static void every_flipped_bit_fails_or_changes_a_field(void **state) {
    for (size_t bit = 0; bit < FRAME_HEADER_BYTES * 8; bit++) {
        uint8_t bytes[FRAME_HEADER_BYTES];
        memcpy(bytes, plain, sizeof bytes);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        struct frame_header h;
        enum felix_err err = decode(bytes, UINT32_MAX, &h);
        if (bit < 32)
            assert_int_equal(err, FELIX_BAD_MAGIC);
        else if (bit < 48)
            assert_int_equal(err, FELIX_BAD_VERSION);
        else
            assert_true(err == FELIX_OK && (h.flags != 9 || h.body_bytes != 0x010203));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(header_fields_are_read_big_endian),
        cmocka_unit_test(encoded_header_equals_the_golden_one),
        cmocka_unit_test(every_shorter_header_is_incomplete),
        cmocka_unit_test(body_at_the_limit_is_allowed_one_more_is_not),
        cmocka_unit_test(wrong_magic_is_reported_before_wrong_version),
        cmocka_unit_test(unknown_flags_pass_through),
        cmocka_unit_test(every_flipped_bit_fails_or_changes_a_field),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
