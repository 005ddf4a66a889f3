/* A text that grows past its first block and quotes what must be quoted. */
#include "base/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static void zeroed_text_is_empty_and_may_be_freed(void **) {
    struct text text = {0};
    assert_string_equal(text_str(&text), "");
    text_deinit(&text);
    char *string = text_take(&text);
    assert_string_equal(string, "");
    free(string);
}

static void grows_past_any_block(void **) {
    struct text text = {0};
    for (int i = 0; i < 1000; i++)
        text_printf(&text, "%d,", i);
    assert_int_equal(text.len, 10 * 2 + 90 * 3 + 900 * 4);
    assert_string_equal(text_str(&text) + text.len - 8, "998,999,");
    char long_word[2000];
    memset(long_word, 'x', sizeof long_word - 1);
    long_word[sizeof long_word - 1] = '\0';
    text_reset(&text);
    text_printf(&text, "<%s>", long_word);
    assert_int_equal(text.len, sizeof long_word + 1);
    text_deinit(&text);
}

static void quoted_escapes_quotes_and_controls(void **) {
    struct text text = {0};
    text_quoted(&text, slice_of("a\"b\\c\n\0", 7));
    assert_string_equal(text_str(&text), "\"a\\\"b\\\\c\\u000a\\u0000\"");
    text_deinit(&text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(zeroed_text_is_empty_and_may_be_freed),
        cmocka_unit_test(grows_past_any_block),
        cmocka_unit_test(quoted_escapes_quotes_and_controls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
