#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "vectors.h"
#include "wire/utf8.h"

/* Validates from a block of the exact size, alone and behind seven ASCII bytes. */
static bool valid(const char *text, size_t len) {
    uint8_t *copy = exact_copy(text, len);
    bool alone = utf8_valid(slice_of(copy, len));
    free(copy);
    char longer[64] = "1234567";
    memcpy(longer + 7, text, len);
    copy = exact_copy(longer, len + 7);
    assert_int_equal(utf8_valid(slice_of(copy, len + 7)), alone);
    free(copy);
    return alone;
}

static void characters_of_every_length_are_valid(void **state) {
    assert_true(valid("", 0));
    assert_true(utf8_valid((struct slice){0}));
    assert_true(valid("a\0b", 3));
    assert_true(valid("plain ascii text that is long enough", 36));
    assert_true(valid("\xc3\xa4", 2));
    assert_true(valid("\xe2\x82\xac", 3));
    assert_true(valid("\xed\x9f\xbf", 3));
    assert_true(valid("\xee\x80\x80", 3));
    assert_true(valid("\xf0\x9f\x98\x80", 4));
    assert_true(valid("\xf4\x8f\xbf\xbf", 4));
}

static void overlong_forms_are_invalid(void **state) {
    assert_false(valid("\xc0\x80", 2));
    assert_false(valid("\xc1\xbf", 2));
    assert_false(valid("\xe0\x9f\xbf", 3));
    assert_false(valid("\xf0\x8f\xbf\xbf", 4));
}

static void surrogates_and_values_beyond_unicode_are_invalid(void **state) {
    assert_false(valid("\xed\xa0\x80", 3));
    assert_false(valid("\xed\xbf\xbf", 3));
    assert_false(valid("\xf4\x90\x80\x80", 4));
    assert_false(valid("\xf5\x80\x80\x80", 4));
    assert_false(valid("\xff", 1));
}

static void cut_and_stray_bytes_are_invalid(void **state) {
    assert_false(valid("\x80", 1));
    assert_false(valid("\xc3", 1));
    assert_false(valid("\xe2\x82", 2));
    assert_false(valid("\xf0\x9f\x98", 3));
    assert_false(valid("\xc3\x28", 2));
    assert_false(valid("\xe2\x28\xa1", 3));
    assert_false(valid("\xf0\x9f\x28\x80", 4));
}

static void a_cut_never_splits_a_character(void **state) {
    struct slice text = slice_str("a\xe2\x82\xac\xf0\x9f\x98\x80");
    static const size_t expected[] = {0, 1, 1, 1, 4, 4, 4, 4, 8, 8};
    for (size_t max = 0; max < sizeof expected / sizeof expected[0]; max++)
        assert_int_equal(utf8_cut(text, max), expected[max]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(characters_of_every_length_are_valid),
        cmocka_unit_test(overlong_forms_are_invalid),
        cmocka_unit_test(surrogates_and_values_beyond_unicode_are_invalid),
        cmocka_unit_test(cut_and_stray_bytes_are_invalid),
        cmocka_unit_test(a_cut_never_splits_a_character),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
