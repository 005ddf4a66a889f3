#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "auth/file.h"
#include "fixture.h"

static enum felix_err parse(const char *json) {
    struct auth_keyset *keys = NULL;
    enum felix_err err = auth_keyset_parse_jwks(slice_str(json), &keys, NULL);
    assert_int_equal(err == FELIX_OK, keys != NULL);
    auth_keyset_unref(keys);
    return err;
}

static void several_tenants_have_keys_of_their_own(void **state) {
    struct auth_keyset *keys = fixture_keyset("{\"tenants\":{\"t2\":{\"keys\":[" JWK(
        "k2", X_DEMO) "]},"
                      "\"t1\":{\"note\":[1,{}],\"keys\":[" JWK("k1", X_CONFORMANCE) "," JWK(
                          "k3", X_DEMO) "]}},\"version\":1}");
    assert_int_equal(auth_keyset_keys(keys), 3);
    assert_int_equal(auth_keyset_tenants(keys), 2);
    assert_int_equal(auth_keyset_skipped(keys), 0);
    assert_true(auth_keyset_serves(keys, slice_str("t1")));
    assert_true(auth_keyset_serves(keys, slice_str("t2")));
    assert_false(auth_keyset_serves(keys, slice_str("t")));
    assert_false(auth_keyset_serves(keys, slice_str("t11")));
    assert_false(auth_keyset_serves(keys, slice_str("")));
    auth_keyset_unref(keys);
}

static void a_plain_jwks_serves_every_tenant(void **state) {
    struct auth_keyset *keys = fixture_keyset("{\"keys\":[" JWK("k1", X_DEMO) "]}");
    assert_int_equal(auth_keyset_tenants(keys), 0);
    assert_true(auth_keyset_serves(keys, slice_str("whoever")));
    auth_keyset_unref(keys);
}

static void a_key_with_a_tid_serves_that_tenant_only(void **state) {
    struct auth_keyset *keys = fixture_keyset(
        "{\"keys\":[{\"tid\":\"t1\",\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"" X_DEMO "\"}]}");
    assert_true(auth_keyset_serves(keys, slice_str("t1")));
    assert_false(auth_keyset_serves(keys, slice_str("t2")));
    auth_keyset_unref(keys);
}

/* One good key beside the given one; tells whether that one was usable. */
static bool usable(const char *jwk) {
    char json[1024];
    (void)snprintf(json, sizeof json, "{\"keys\":[%s,%s]}", JWK("good", X_DEMO), jwk);
    struct auth_keyset *keys = fixture_keyset(json);
    assert_int_equal(auth_keyset_keys(keys) + auth_keyset_skipped(keys), 2);
    bool both = auth_keyset_keys(keys) == 2;
    auth_keyset_unref(keys);
    return both;
}

#define OKP "\"kty\":\"OKP\",\"crv\":\"Ed25519\""
#define X "\"x\":\"" X_DEMO "\""

static void alg_use_and_kid_may_be_absent_but_not_different(void **state) {
    assert_true(usable("{" OKP "," X "}"));
    assert_true(usable("{" OKP "," X ",\"alg\":\"EdDSA\",\"use\":\"sig\",\"kid\":\"k\"}"));
    assert_true(usable("{" OKP "," X ",\"key_ops\":[\"verify\"],\"x5c\":{}}"));
    assert_false(usable("{" OKP "," X ",\"alg\":\"HS256\"}"));
    assert_false(usable("{" OKP "," X ",\"alg\":\"eddsa\"}"));
    assert_false(usable("{" OKP "," X ",\"use\":\"enc\"}"));
    assert_false(usable("{" OKP "," X ",\"kid\":7}"));
    assert_false(usable("{" OKP "," X ",\"alg\":null}"));
}

static void exotic_keys_are_skipped_and_counted(void **state) {
    assert_false(usable("{\"kty\":\"RSA\",\"n\":\"AQAB\",\"e\":\"AQAB\"}"));
    assert_false(usable("{\"kty\":\"OKP\",\"crv\":\"X25519\"," X "}"));
    assert_false(usable("{\"kty\":\"EC\",\"crv\":\"Ed25519\"," X "}"));
    assert_false(usable("{\"kty\":\"OKP\"," X "}"));
    assert_false(usable("{\"crv\":\"Ed25519\"," X "}"));
    assert_false(usable("{" OKP "}"));
    assert_false(usable("{" OKP ",\"x\":\"\"}"));
    assert_false(usable("{" OKP ",\"x\":\"AAAA\"}"));
    assert_false(usable("{" OKP ",\"x\":\"" X_DEMO "=\"}"));
    assert_false(usable("{" OKP ",\"x\":\"" X_DEMO "AAAA\"}"));
    assert_false(usable("{" OKP ",\"x\":\"GX9rI+FshTLGq8g4-s1ep4m-DHaykgM0A5v6iz02jWE\"}"));
    assert_false(usable("{" OKP "," X "," X "}"));
    assert_false(usable("{" OKP "," X ",\"tid\":\"\"}"));
    assert_false(usable("{}"));
    assert_false(usable("null"));
    assert_false(usable("[[]]"));
}

static void a_tenant_without_a_usable_key_is_an_error(void **state) {
    assert_int_equal(parse("{\"tenants\":{\"t1\":{\"keys\":[" JWK(
                         "k", X_DEMO) "]},"
                                      "\"t2\":{\"keys\":[{\"kty\":\"RSA\"}]}}}"),
                     FELIX_NOT_FOUND);
    assert_int_equal(parse("{\"tenants\":{\"t1\":{\"keys\":[]}}}"), FELIX_NOT_FOUND);
    assert_int_equal(parse("{\"tenants\":{\"t1\":{}}}"), FELIX_NOT_FOUND);
    assert_int_equal(parse("{\"tenants\":{}}"), FELIX_NOT_FOUND);
    assert_int_equal(parse("{\"keys\":[]}"), FELIX_NOT_FOUND);
    assert_int_equal(parse("{\"keys\":[{\"kty\":\"RSA\"}]}"), FELIX_NOT_FOUND);
    assert_int_equal(parse("{\"keys\":[" JWK("k", X_DEMO) ",{\"tid\":\"t2\"}]}"), FELIX_NOT_FOUND);
}

static void what_is_not_a_keyset_is_refused(void **state) {
    static const char *const bad[] = {
        "",
        "{",
        "[]",
        "{}",
        "{\"keys\":{}}",
        "{\"tenants\":[]}",
        "{\"tenants\":{\"t1\":[]}}",
        "{\"tenants\":{\"\":{\"keys\":[" JWK("k", X_DEMO) "]}}}",
        "{\"keys\":[" JWK("k", X_DEMO) "]} x",
        "{\"keys\":[" JWK("k", X_DEMO) "],\"keys\":[" JWK("k", X_DEMO) "]}",
        "{\"keys\":[" JWK("k", X_DEMO) ",]}",
        JWK("k", X_DEMO),
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(parse(bad[i]), FELIX_BAD_JSON);
}

static void a_tenant_may_not_stand_there_twice(void **state) {
    assert_int_equal(parse("{\"tenants\":{\"t1\":{\"keys\":[" JWK(
                         "k", X_DEMO) "]},"
                                      "\"t1\":{\"keys\":[" JWK("k", X_CONFORMANCE) "]}}}"),
                     FELIX_BAD_JSON);
}

static void a_tenant_id_that_cannot_exist_is_refused(void **state) {
    assert_int_equal(parse("{\"tenants\":{\"a/b\":{\"keys\":[" JWK("k", X_DEMO) "]}}}"),
                     FELIX_INVALID_ARGUMENT);
    assert_int_equal(parse("{\"tenants\":{\"*\":{\"keys\":[" JWK("k", X_DEMO) "]}}}"),
                     FELIX_INVALID_ARGUMENT);
}

static void a_key_in_the_wrong_tenant_is_skipped(void **state) {
    assert_int_equal(parse("{\"tenants\":{\"t1\":{\"keys\":[{\"tid\":\"t2\"," OKP "," X "}]}}}"),
                     FELIX_NOT_FOUND);
    assert_int_equal(parse("{\"tenants\":{\"t1\":{\"keys\":[{\"tid\":\"t1\"," OKP "," X "}]}}}"),
                     FELIX_OK);
}

static char *keyset_of(size_t tenants, size_t keys) {
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    (void)fputs("{\"tenants\":{", out);
    for (size_t t = 0; t < tenants; t++) {
        (void)fprintf(out, "%s\"t%zu\":{\"keys\":[", t != 0 ? "," : "", t);
        for (size_t k = 0; k < keys; k++)
            (void)fprintf(out, "%s{%s,%s}", k != 0 ? "," : "", OKP, X);
        (void)fputs("]}", out);
    }
    (void)fputs("}}", out);
    (void)fclose(out);
    return text;
}

static void keys_at_the_cap_are_allowed_one_more_is_not(void **state) {
    char *at = keyset_of(1, AUTH_KEYS_PER_TENANT_MAX);
    char *over = keyset_of(1, AUTH_KEYS_PER_TENANT_MAX + 1);
    assert_int_equal(parse(at), FELIX_OK);
    assert_int_equal(parse(over), FELIX_LIMIT);
    free(at);
    free(over);
}

static void tenants_at_the_cap_are_allowed_one_more_is_not(void **state) {
    char *at = keyset_of(AUTH_TENANTS_MAX, 1);
    char *over = keyset_of(AUTH_TENANTS_MAX + 1, 1);
    assert_in_range(strlen(over), 1, AUTH_KEYSET_BYTES_MAX);
    assert_int_equal(parse(at), FELIX_OK);
    assert_int_equal(parse(over), FELIX_LIMIT);
    free(at);
    free(over);
}

static void a_file_over_the_limit_is_refused(void **state) {
    char *text = malloc(AUTH_KEYSET_BYTES_MAX + 2);
    const char *json = "{\"keys\":[" JWK("k", X_DEMO) "]}";
    memset(text, ' ', AUTH_KEYSET_BYTES_MAX + 1);
    memcpy(text, json, strlen(json));
    text[AUTH_KEYSET_BYTES_MAX + 1] = 0;
    assert_int_equal(parse(text), FELIX_LIMIT);

    char *path = fixture_path("keys.json");
    struct auth_keyset *keys = NULL;
    assert_int_equal(auth_file_write(path, slice_str(text), 0644, NULL), FELIX_OK);
    assert_int_equal(auth_keyset_load_file(path, &keys, NULL), FELIX_LIMIT);

    text[AUTH_KEYSET_BYTES_MAX] = 0;
    assert_int_equal(auth_file_write(path, slice_str(text), 0644, NULL), FELIX_OK);
    assert_int_equal(auth_keyset_load_file(path, &keys, NULL), FELIX_OK);
    auth_keyset_unref(keys);
    fixture_remove_folder(path);
    free(text);
}

static void a_file_that_is_missing_is_named_in_the_error(void **state) {
    struct felix_error error = {0};
    struct auth_keyset *keys = NULL;
    assert_int_equal(auth_keyset_load_file("/nonexistent/keys.json", &keys, &error), FELIX_SYSTEM);
    assert_non_null(strstr(error.text, "/nonexistent/keys.json"));
}

static void each_keyset_has_a_generation_of_its_own(void **state) {
    struct auth_keyset *a = fixture_keyset("{\"keys\":[" JWK("k", X_DEMO) "]}");
    struct auth_keyset *b = fixture_keyset("{\"keys\":[" JWK("k", X_DEMO) "]}");
    assert_true(auth_keyset_generation(a) != auth_keyset_generation(b));
    assert_true(auth_keyset_generation(a) != 0);
    auth_keyset_unref(a);
    auth_keyset_unref(b);
}

static void a_keyset_lives_until_its_last_reference_goes(void **state) {
    struct auth_keyset *keys = fixture_keyset("{\"keys\":[" JWK("k", X_DEMO) "]}");
    assert_ptr_equal(auth_keyset_ref(keys), keys);
    auth_keyset_unref(keys);
    assert_int_equal(auth_keyset_keys(keys), 1);
    auth_keyset_unref(keys);
    auth_keyset_unref(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(several_tenants_have_keys_of_their_own),
        cmocka_unit_test(a_plain_jwks_serves_every_tenant),
        cmocka_unit_test(a_key_with_a_tid_serves_that_tenant_only),
        cmocka_unit_test(alg_use_and_kid_may_be_absent_but_not_different),
        cmocka_unit_test(exotic_keys_are_skipped_and_counted),
        cmocka_unit_test(a_tenant_without_a_usable_key_is_an_error),
        cmocka_unit_test(what_is_not_a_keyset_is_refused),
        cmocka_unit_test(a_tenant_may_not_stand_there_twice),
        cmocka_unit_test(a_tenant_id_that_cannot_exist_is_refused),
        cmocka_unit_test(a_key_in_the_wrong_tenant_is_skipped),
        cmocka_unit_test(keys_at_the_cap_are_allowed_one_more_is_not),
        cmocka_unit_test(tenants_at_the_cap_are_allowed_one_more_is_not),
        cmocka_unit_test(a_file_over_the_limit_is_refused),
        cmocka_unit_test(a_file_that_is_missing_is_named_in_the_error),
        cmocka_unit_test(each_keyset_has_a_generation_of_its_own),
        cmocka_unit_test(a_keyset_lives_until_its_last_reference_goes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
