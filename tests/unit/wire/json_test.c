#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "vectors.h"
#include "wire/json.h"

/* Is `len` bytes of `text` one valid JSON value? Read from a block of the exact size. */
static bool valid_bytes(const char *text, size_t len) {
    uint8_t *copy = exact_copy(text, len);
    struct json j = json_open(slice_of(copy, len));
    bool valid = json_skip(&j) && json_finish(&j);
    free(copy);
    return valid;
}

static bool valid(const char *text) {
    return valid_bytes(text, strlen(text));
}

static bool take_u64(const char *text, uint64_t *ret) {
    struct json j = json_open(slice_str(text));
    return json_take_u64(&j, ret) && json_finish(&j);
}

static bool take_i64(const char *text, int64_t *ret) {
    struct json j = json_open(slice_str(text));
    return json_take_i64(&j, ret) && json_finish(&j);
}

/* Decodes one string; fails the test when it is not valid. */
static void assert_string(const char *text, const char *expected, size_t expected_bytes) {
    struct json j = json_open(slice_str(text));
    struct json_string s;
    assert_true(json_take_string(&j, &s) && json_finish(&j));
    assert_int_equal(s.decoded_bytes, expected_bytes);
    uint8_t *out = malloc(expected_bytes);
    json_string_decode(&s, out);
    assert_int_equal(memcmp(out, expected, expected_bytes), 0);
    free(out);
}

static void values_of_every_kind_are_valid(void **state) {
    static const char *const good[] = {
        "null",
        "true",
        "false",
        "0",
        "-0",
        "-1",
        "10.5",
        "1e5",
        "1E+5",
        "1.25e-7",
        "\"\"",
        "[]",
        "{}",
        "[[]]",
        "[1,2]",
        "{\"a\":1,\"b\":[{}]}",
        " \t\r\n{ \"a\" : [ 1 , 2 ] } \n",
        "{\"a\":1,\"a\":2}",
        "1e999999",
    };
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        assert_true(valid(good[i]));
}

static void broken_values_are_invalid(void **state) {
    static const char *const bad[] = {
        "",          " ",      "nul",     "nulll",    "tru",       "True",       "01",    "-",
        "+1",        ".5",     "1.",      "1.e1",     "1e",        "1e+",        "0x1",   "NaN",
        "[",         "]",      "[1",      "[1,",      "[1,]",      "[,1]",       "[1 2]", "{",
        "}",         "{\"a\"", "{\"a\":", "{\"a\":1", "{\"a\":1,", "{\"a\":1,}", "{a:1}", "{1:1}",
        "{\"a\" 1}", "{,}",    "[}",      "{]",       "'a'",       "\"",         "\"a",   "// c\n1",
        "1 1",       "{} x",   "[] []",   "1,",       ":",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (valid(bad[i]))
            fail_msg("accepted: %s", bad[i]);
}

static void byte_order_mark_and_trailing_text_are_invalid(void **state) {
    assert_false(valid("\xef\xbb\xbf{}"));
    assert_false(valid("{}\xef\xbb\xbf"));
    assert_false(valid("{}{}"));
    assert_false(valid_bytes("{}\0", 3));
    assert_false(valid_bytes("\0{}", 3));
}

static void every_truncation_of_a_document_is_invalid(void **state) {
    const char *text = "{\"a\":[1,-2.5e3,true,null,\"x\\u00e4\\ud83d\\ude00\xc3\xa4\"],\"b\":{}}";
    assert_true(valid(text));
    for (size_t len = 0; len < strlen(text); len++)
        assert_false(valid_bytes(text, len));
}

static void nesting_at_the_limit_is_allowed_one_more_is_not(void **state) {
    char text[600];
    for (size_t depth = JSON_DEPTH_MAX; depth <= JSON_DEPTH_MAX + 1; depth++) {
        memset(text, '[', depth);
        memset(text + depth, ']', depth);
        assert_int_equal(valid_bytes(text, 2 * depth), depth == JSON_DEPTH_MAX);
    }
    memset(text, '[', sizeof text);
    assert_false(valid_bytes(text, sizeof text));
}

static void integers_are_exact_to_their_limits(void **state) {
    uint64_t u;
    int64_t i;
    assert_true(take_u64("18446744073709551615", &u) && u == UINT64_MAX);
    assert_true(take_u64("0", &u) && u == 0);
    assert_true(take_u64(" 9007199254740993 ", &u) && u == 9007199254740993u);
    assert_true(take_i64("9223372036854775807", &i) && i == INT64_MAX);
    assert_true(take_i64("-9223372036854775808", &i) && i == INT64_MIN);
}

static void other_numbers_are_not_integers(void **state) {
    uint64_t u;
    int64_t i;
    static const char *const bad[] = {"18446744073709551616",
                                      "100000000000000000000",
                                      "1.0",
                                      "-1",
                                      "1e2",
                                      "\"1\"",
                                      "null",
                                      "true",
                                      "-0",
                                      "[]",
                                      ""};
    for (size_t n = 0; n < sizeof bad / sizeof bad[0]; n++)
        assert_false(take_u64(bad[n], &u));
    assert_false(take_i64("9223372036854775808", &i));
    assert_false(take_i64("-9223372036854775809", &i));
    assert_false(take_i64("1.5", &i));
}

static void doubles_are_taken_when_finite(void **state) {
    struct json j = json_open(slice_str("[1.5,-2e3,7,1e999]"));
    bool first = true;
    double d;
    assert_true(json_array_begin(&j));
    assert_true(json_element(&j, &first) && json_take_double(&j, &d) && d == 1.5);
    assert_true(json_element(&j, &first) && json_take_double(&j, &d) && d == -2000);
    assert_true(json_element(&j, &first) && json_take_double(&j, &d) && d == 7);
    assert_true(json_element(&j, &first));
    assert_false(json_take_double(&j, &d));
    assert_false(json_finish(&j));
}

static void escapes_are_decoded(void **state) {
    assert_string("\"a\\\"\\\\\\/\\b\\f\\n\\r\\tz\"", "a\"\\/\b\f\n\r\tz", 10);
    assert_string("\"\\u0041\\u00e4\\u20AC\\uFFFF\"", "A\xc3\xa4\xe2\x82\xac\xef\xbf\xbf", 9);
    assert_string("\"\\ud83d\\ude00x\"", "\xf0\x9f\x98\x80x", 5);
    assert_string("\"\\uDBFF\\uDFFF\"", "\xf4\x8f\xbf\xbf", 4);
    assert_string("\"a\\u0000b\"", "a\0b", 3);
    assert_string("\"\"", "", 0);
    assert_string("\"0123456789abcdef0123456789abcdef\\n0123456789abcdef\"",
                  "0123456789abcdef0123456789abcdef\n0123456789abcdef", 49);
}

static void broken_escapes_are_invalid(void **state) {
    static const char *const bad[] = {
        "\"\\",
        "\"\\\"",
        "\"\\x\"",
        "\"\\U0041\"",
        "\"\\u\"",
        "\"\\u004\"",
        "\"\\u004g\"",
        "\"\\ud800\"",
        "\"\\udc00\"",
        "\"\\ud800\\u0041\"",
        "\"\\ud800x\"",
        "\"\\ud800\\ud800\"",
        "\"\\udc00\\ud800\"",
        "\"\\ud800\\ue000\"",
        "\"\\ud800\\udbff\"",
        "\"\\udfff\"",
        "\"\\ud800\\n\"",
        "\"\\ud83d\\ude0\"",
        "\"\\u+041\"",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (valid(bad[i]))
            fail_msg("accepted: %s", bad[i]);
}

static void raw_control_characters_are_invalid_at_every_position(void **state) {
    for (int c = 0; c < 0x20; c++)
        for (size_t at = 1; at < 40; at++) {
            char text[41];
            memset(text, 'x', sizeof text);
            text[0] = text[40] = '"';
            assert_true(valid_bytes(text, sizeof text));
            text[at] = (char)c;
            assert_false(valid_bytes(text, sizeof text));
        }
    assert_true(valid("\"\x7f\""));
}

static void invalid_utf8_is_refused_even_when_skipped(void **state) {
    assert_true(valid("\"\xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80\""));
    static const char *const bad[] = {"\"\xff\"",
                                      "\"\xc3\"",
                                      "\"\xc0\x80\"",
                                      "\"\xed\xa0\x80\"",
                                      "\"\xf4\x90\x80\x80\"",
                                      "\"0123456789abcdef\x80\"",
                                      "{\"\xff\":1}",
                                      "[{\"a\":[\"\xe2\x82\"]}]"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(valid(bad[i]));
}

static void members_are_read_in_order(void **state) {
    struct json j = json_open(slice_str("{\"a\":1,\"\\u0062\":\"x\",\"c\":[true,null]} "));
    struct json_string name;
    struct json_string text;
    bool first = true;
    bool first_element = true;
    bool flag;
    uint64_t n;
    assert_true(json_object_begin(&j));
    assert_true(json_member(&j, &first, &name) && json_string_is(&name, "a"));
    assert_true(json_take_u64(&j, &n) && n == 1);
    assert_true(json_member(&j, &first, &name) && name.escaped && json_string_is(&name, "b"));
    assert_false(json_string_is(&name, "c"));
    assert_true(json_take_string(&j, &text) && json_string_is(&text, "x"));
    assert_true(json_member(&j, &first, &name) && json_array_begin(&j));
    assert_true(json_element(&j, &first_element) && json_take_bool(&j, &flag) && flag);
    assert_true(json_element(&j, &first_element) && json_take_null(&j));
    assert_false(json_element(&j, &first_element));
    assert_false(json_member(&j, &first, &name));
    assert_true(json_finish(&j));
}

static void failure_is_sticky(void **state) {
    struct json j = json_open(slice_str("[1,2]"));
    bool first = true;
    bool flag;
    uint64_t n;
    assert_true(json_array_begin(&j) && json_element(&j, &first));
    assert_false(json_take_bool(&j, &flag));
    assert_true(j.failed);
    assert_false(json_take_u64(&j, &n));
    assert_false(json_element(&j, &first));
    assert_int_equal(json_peek(&j), JSON_INVALID);
    assert_false(json_skip(&j));
    assert_false(json_finish(&j));
}

static void unfinished_container_does_not_finish(void **state) {
    struct json j = json_open(slice_str("[]"));
    assert_true(json_array_begin(&j));
    assert_false(json_finish(&j));
    j = json_open((struct slice){0});
    assert_false(json_finish(&j) && json_skip(&j));
}

static void quoting_escapes_only_what_must_be(void **state) {
    static const char plain[] = "a\"b\\c/\b\f\n\r\t\x01\x1f\x7f\xc3\xa4 0123456789abcdef";
    static const char quoted[] =
        "\"a\\\"b\\\\c/\\b\\f\\n\\r\\t\\u0001\\u001f\x7f\xc3\xa4 0123456789abcdef\"";
    uint8_t out[128];
    struct slice in = slice_str(plain);
    assert_int_equal(json_quoted_bytes(in), sizeof quoted - 1);
    assert_int_equal(json_quote(in, out), sizeof quoted - 1);
    assert_memory_equal(out, quoted, sizeof quoted - 1);
    assert_int_equal(json_quote((struct slice){0}, out), 2);
    assert_int_equal(json_quoted_bytes((struct slice){0}), 2);
}

static void quoted_text_reads_back(void **state) {
    uint8_t plain[128];
    for (size_t i = 0; i < sizeof plain; i++)
        plain[i] = (uint8_t)i;
    for (size_t len = 0; len <= sizeof plain; len++) {
        struct slice in = slice_of(plain, len);
        size_t bytes = json_quoted_bytes(in);
        uint8_t *out = malloc(bytes);
        assert_int_equal(json_quote(in, out), bytes);
        struct json j = json_open(slice_of(out, bytes));
        struct json_string s;
        assert_true(json_take_string(&j, &s) && json_finish(&j) && s.decoded_bytes == len);
        uint8_t again[sizeof plain];
        json_string_decode(&s, again);
        assert_int_equal(memcmp(again, plain, len), 0);
        free(out);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_of_every_kind_are_valid),
        cmocka_unit_test(broken_values_are_invalid),
        cmocka_unit_test(byte_order_mark_and_trailing_text_are_invalid),
        cmocka_unit_test(every_truncation_of_a_document_is_invalid),
        cmocka_unit_test(nesting_at_the_limit_is_allowed_one_more_is_not),
        cmocka_unit_test(integers_are_exact_to_their_limits),
        cmocka_unit_test(other_numbers_are_not_integers),
        cmocka_unit_test(doubles_are_taken_when_finite),
        cmocka_unit_test(escapes_are_decoded),
        cmocka_unit_test(broken_escapes_are_invalid),
        cmocka_unit_test(raw_control_characters_are_invalid_at_every_position),
        cmocka_unit_test(invalid_utf8_is_refused_even_when_skipped),
        cmocka_unit_test(members_are_read_in_order),
        cmocka_unit_test(failure_is_sticky),
        cmocka_unit_test(unfinished_container_does_not_finish),
        cmocka_unit_test(quoting_escapes_only_what_must_be),
        cmocka_unit_test(quoted_text_reads_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
