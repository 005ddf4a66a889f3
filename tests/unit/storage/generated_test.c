/* The payloads of the log tools, byte for byte. */
#include "storage/generated.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static void the_head_is_the_offset_in_twenty_digits(void **) {
    uint8_t out[GENERATED_BYTES_MIN];
    generated_fill(42, 0, out);
    assert_memory_equal(out, "felix-record-00000000000000000042-", sizeof out);
    generated_fill(UINT64_MAX, 34, out);
    assert_memory_equal(out, "felix-record-18446744073709551615-", sizeof out);
}

static void bytes_behind_the_head_count_on_from_the_offset(void **) {
    uint8_t out[300];
    generated_fill(252, sizeof out, out); /* 252 mod 251 is 1 */
    assert_int_equal(out[34], 35);
    assert_int_equal(out[254], 255);
    assert_int_equal(out[255], 0);
    assert_int_equal(out[299], (1 + 299) % 256);
}

static void fewer_bytes_than_the_head_become_the_head(void **) {
    assert_int_equal(generated_bytes(0), 34);
    assert_int_equal(generated_bytes(33), 34);
    assert_int_equal(generated_bytes(35), 35);
}

static void every_changed_byte_is_noticed(void **) {
    uint8_t out[100];
    generated_fill(7, sizeof out, out);
    assert_true(generated_is(7, sizeof out, slice_of(out, sizeof out)));
    for (size_t i = 0; i < sizeof out; i++) {
        out[i] ^= 1;
        assert_false(generated_is(7, sizeof out, slice_of(out, sizeof out)));
        out[i] ^= 1;
    }
    assert_false(generated_is(8, sizeof out, slice_of(out, sizeof out)));
    assert_false(generated_is(7, sizeof out - 1, slice_of(out, sizeof out)));
    assert_false(generated_is(7, sizeof out, slice_of(out, sizeof out - 1)));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_head_is_the_offset_in_twenty_digits),
        cmocka_unit_test(bytes_behind_the_head_count_on_from_the_offset),
        cmocka_unit_test(fewer_bytes_than_the_head_become_the_head),
        cmocka_unit_test(every_changed_byte_is_noticed),
    };
    return cmocka_run_group_tests_name("storage/generated", tests, NULL, NULL);
}
