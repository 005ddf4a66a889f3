#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "vectors.h"
#include "wire/base64.h"

static enum felix_err decode(const char *text) {
    struct slice in = slice_str(text);
    uint8_t *copy = exact_copy(text, in.len);
    size_t bytes = 0;
    enum felix_err err = base64_decoded_bytes(slice_of(copy, in.len), &bytes);
    if (err == FELIX_OK) {
        uint8_t *out = malloc(bytes);
        err = base64_decode(slice_of(copy, in.len), out);
        free(out);
    }
    free(copy);
    return err;
}

static enum felix_err decode_url(const char *text) {
    struct slice in = slice_str(text);
    uint8_t *copy = exact_copy(text, in.len);
    size_t bytes = 0;
    enum felix_err err = base64url_decoded_bytes(slice_of(copy, in.len), &bytes);
    if (err == FELIX_OK) {
        uint8_t *out = malloc(bytes);
        err = base64url_decode(slice_of(copy, in.len), out);
        free(out);
    }
    free(copy);
    return err;
}

static void rfc_4648_examples_hold_both_ways(void **state) {
    static const char *const pairs[][2] = {
        {"", ""},
        {"f", "Zg=="},
        {"fo", "Zm8="},
        {"foo", "Zm9v"},
        {"foob", "Zm9vYg=="},
        {"fooba", "Zm9vYmE="},
        {"foobar", "Zm9vYmFy"},
        {"\xfb\xff", "+/8="},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        struct slice plain = slice_str(pairs[i][0]);
        struct slice text = slice_str(pairs[i][1]);
        uint8_t out[16];
        assert_int_equal(base64_encoded_bytes(plain.len), text.len);
        base64_encode(plain, out);
        assert_true(slice_equal(slice_of(out, text.len), text));
        size_t bytes;
        assert_int_equal(base64_decoded_bytes(text, &bytes), FELIX_OK);
        assert_int_equal(bytes, plain.len);
        assert_int_equal(base64_decode(text, out), FELIX_OK);
        assert_true(slice_equal(slice_of(out, bytes), plain));
    }
}

static void all_bytes_and_lengths_survive_both_forms(void **state) {
    uint8_t plain[256];
    for (size_t i = 0; i < sizeof plain; i++)
        plain[i] = (uint8_t)(i * 37 + 11);
    for (size_t len = 0; len <= sizeof plain; len++) {
        size_t standard_bytes = base64_encoded_bytes(len);
        size_t url_bytes = base64url_encoded_bytes(len);
        uint8_t *standard = malloc(standard_bytes);
        uint8_t *url = malloc(url_bytes);
        base64_encode(slice_of(plain, len), standard);
        base64url_encode(slice_of(plain, len), url);
        size_t bytes;
        assert_int_equal(base64_decoded_bytes(slice_of(standard, standard_bytes), &bytes),
                         FELIX_OK);
        assert_int_equal(bytes, len);
        /* In place, as the message decoder does. */
        assert_int_equal(base64_decode(slice_of(standard, standard_bytes), standard), FELIX_OK);
        assert_int_equal(memcmp(standard, plain, len), 0);
        assert_int_equal(base64url_decoded_bytes(slice_of(url, url_bytes), &bytes), FELIX_OK);
        assert_int_equal(bytes, len);
        assert_int_equal(base64url_decode(slice_of(url, url_bytes), url), FELIX_OK);
        assert_int_equal(memcmp(url, plain, len), 0);
        free(standard);
        free(url);
    }
}

static void each_form_refuses_the_alphabet_of_the_other(void **state) {
    assert_int_equal(decode("-_8="), FELIX_MALFORMED);
    assert_int_equal(decode("ab-d"), FELIX_MALFORMED);
    assert_int_equal(decode_url("+/8"), FELIX_MALFORMED);
    assert_int_equal(decode_url("-_8"), FELIX_OK);
}

static void padding_must_be_exact(void **state) {
    static const char *const bad[] = {
        "Zg",   "Zg=",      "Zm8",   "Zm9vYg", "=",    "==",   "===",   "====",
        "Z===", "Zg==Zg==", "Zg===", "Zm8==",  "Z=g=", "=Zg=", "Zm9v=", "Zm9v===="};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(decode(bad[i]), FELIX_MALFORMED);
    assert_int_equal(decode_url("Zg=="), FELIX_MALFORMED);
    assert_int_equal(decode_url("Zm8="), FELIX_MALFORMED);
    assert_int_equal(decode_url("Z"), FELIX_MALFORMED);
}

static void unused_bits_must_be_zero(void **state) {
    assert_int_equal(decode("Zh=="), FELIX_MALFORMED);
    assert_int_equal(decode("Zo=="), FELIX_MALFORMED);
    assert_int_equal(decode("Zm9="), FELIX_MALFORMED);
    assert_int_equal(decode_url("Zh"), FELIX_MALFORMED);
    assert_int_equal(decode_url("Zm9"), FELIX_MALFORMED);
}

static void whitespace_and_other_characters_are_malformed(void **state) {
    assert_int_equal(decode("Zm9\n"), FELIX_MALFORMED);
    assert_int_equal(decode("Zm9v\n"), FELIX_MALFORMED);
    assert_int_equal(decode("Zm 9"), FELIX_MALFORMED);
    assert_int_equal(decode("Zm9\xff"), FELIX_MALFORMED);
    assert_int_equal(decode("Zm9vZm9*Zm9v"), FELIX_MALFORMED);
}

static void only_the_alphabet_is_accepted(void **state) {
    for (int c = 1; c < 256; c++) {
        char text[5] = {'A', 'A', (char)c, 'A', 0};
        bool common = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
        assert_int_equal(decode(text) == FELIX_OK, common || c == '+' || c == '/');
        assert_int_equal(decode_url(text) == FELIX_OK, common || c == '-' || c == '_');
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rfc_4648_examples_hold_both_ways),
        cmocka_unit_test(all_bytes_and_lengths_survive_both_forms),
        cmocka_unit_test(each_form_refuses_the_alphabet_of_the_other),
        cmocka_unit_test(padding_must_be_exact),
        cmocka_unit_test(unused_bits_must_be_zero),
        cmocka_unit_test(whitespace_and_other_characters_are_malformed),
        cmocka_unit_test(only_the_alphabet_is_accepted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
