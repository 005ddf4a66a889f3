#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "auth/file.h"
#include "fixture.h"
#include "wire/json.h"

static const char *const perms[] = {"stream.publish:stream:t1/default/*",
                                    "cache.read:cache:t1/default/*"};

static struct mint_claims claims_good(void) {
    return (struct mint_claims){
        .tenant = "t1", .subject = "p:demo", .ttl_s = 900, .perms = perms, .perms_count = 2};
}

static void x_is(const struct mint_key *key, const char *expected) {
    char text[64] = {0};
    assert_true(base64url_encoded_bytes(sizeof key->x) < sizeof text);
    base64url_encode(slice_of(key->x, sizeof key->x), (uint8_t *)text);
    assert_string_equal(text, expected);
}

static void the_fixed_seeds_have_their_known_public_keys(void **state) {
    struct mint_key key = fixture_key(SEED_CONFORMANCE, "k1");
    x_is(&key, X_CONFORMANCE);
    key = fixture_key(SEED_DEMO, "demo-k1");
    x_is(&key, X_DEMO);
    mint_key_wipe(&key);
    assert_int_equal(key.seed[0], 0);
}

static void generated_keys_differ_and_name_themselves(void **state) {
    struct mint_key a;
    struct mint_key b;
    assert_int_equal(mint_key_generate(NULL, &a, NULL), FELIX_OK);
    assert_int_equal(mint_key_generate(NULL, &b, NULL), FELIX_OK);
    assert_memory_not_equal(a.seed, b.seed, sizeof a.seed);
    assert_string_not_equal(a.kid, b.kid);
    assert_int_equal(strlen(a.kid), 32);
    assert_int_equal(strspn(a.kid, "0123456789abcdef"), 32);
    assert_int_equal(mint_key_generate("mine", &a, NULL), FELIX_OK);
    assert_string_equal(a.kid, "mine");
}

static void a_kid_is_text_of_bounded_length(void **state) {
    struct mint_key key;
    uint8_t seed[ED25519_SEED_BYTES] = {1};
    char kid[257] = {0};
    assert_int_equal(mint_key_from_seed(seed, "", &key, NULL), FELIX_INVALID_ARGUMENT);
    assert_int_equal(mint_key_from_seed(seed, "\xff", &key, NULL), FELIX_INVALID_ARGUMENT);
    memset(kid, 'k', 256);
    assert_int_equal(mint_key_from_seed(seed, kid, &key, NULL), FELIX_INVALID_ARGUMENT);
    kid[255] = 0;
    assert_int_equal(mint_key_from_seed(seed, kid, &key, NULL), FELIX_OK);
}

static void a_key_file_reads_back_and_only_its_owner_may_read_it(void **state) {
    struct mint_key key = fixture_key(SEED_DEMO, "quote\" and \xc3\xa9");
    struct mint_key back;
    struct stat status;
    char *path = fixture_path("key.json");

    mode_t umask_before = umask(0);
    assert_int_equal(mint_key_save(&key, path, NULL), FELIX_OK);
    (void)umask(umask_before);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0600);

    assert_int_equal(mint_key_load(path, &back, NULL), FELIX_OK);
    assert_memory_equal(&back, &key, sizeof key);
    fixture_remove_folder(path);
}

static void a_file_that_was_readable_becomes_private_when_replaced(void **state) {
    struct mint_key key = fixture_key(SEED_DEMO, "k");
    struct stat status;
    char *path = fixture_path("key.json");
    assert_int_equal(auth_file_write(path, slice_str("old"), 0644, NULL), FELIX_OK);
    assert_int_equal(mint_key_save(&key, path, NULL), FELIX_OK);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0600);
    fixture_remove_folder(path);
}

static void a_key_that_cannot_be_written_says_where(void **state) {
    struct mint_key key = fixture_key(SEED_DEMO, "k");
    struct felix_error error = {0};
    assert_int_equal(mint_key_save(&key, "/nonexistent/key.json", &error), FELIX_SYSTEM);
    assert_non_null(strstr(error.text, "/nonexistent/key.json"));
}

static void a_failed_write_leaves_nothing_behind(void **state) {
    struct mint_key key = fixture_key(SEED_DEMO, "k");
    char *path = fixture_path("key.json");
    assert_int_equal(mkdir(path, 0700), 0); /* a rename onto a folder fails */
    assert_int_equal(mint_key_save(&key, path, NULL), FELIX_SYSTEM);
    assert_int_equal(rmdir(path), 0);
    fixture_remove_folder(path);
}

static enum felix_err load_text(const char *text) {
    struct mint_key key;
    char *path = fixture_path("key.json");
    assert_int_equal(auth_file_write(path, slice_str(text), 0600, NULL), FELIX_OK);
    enum felix_err err = mint_key_load(path, &key, NULL);
    fixture_remove_folder(path);
    return err;
}

#define D_DEMO "KioqKioqKioqKioqKioqKioqKioqKioqKioqKioqKio"
#define SECRET(x) "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"k\",\"d\":\"" D_DEMO "\"" x "}"

static void only_a_complete_and_coherent_key_loads(void **state) {
    assert_int_equal(load_text(SECRET("")), FELIX_OK);
    assert_int_equal(load_text(SECRET(",\"x\":\"" X_DEMO "\"")), FELIX_OK);
    assert_int_equal(load_text(SECRET(",\"x\":\"" X_CONFORMANCE "\"")), FELIX_BAD_JSON);
    assert_int_equal(load_text(SECRET(",\"x\":\"AAAA\"")), FELIX_BAD_JSON);
    assert_int_equal(load_text(SECRET(",\"d\":\"" D_DEMO "\"")), FELIX_BAD_JSON);
    assert_int_equal(load_text(JWK("k", X_DEMO)), FELIX_BAD_JSON);
    assert_int_equal(load_text("{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"d\":\"" D_DEMO "\"}"),
                     FELIX_BAD_JSON);
    assert_int_equal(
        load_text("{\"kty\":\"OKP\",\"crv\":\"X25519\",\"kid\":\"k\",\"d\":\"" D_DEMO "\"}"),
        FELIX_BAD_JSON);
    assert_int_equal(load_text(""), FELIX_BAD_JSON);
    assert_int_equal(load_text("{"), FELIX_BAD_JSON);
}

static void a_minted_token_verifies_against_the_exported_keys(void **state) {
    struct mint_key key;
    char *jwks = NULL;
    char *token = NULL;
    struct mint_claims claims = claims_good();
    assert_int_equal(mint_key_generate(NULL, &key, NULL), FELIX_OK);
    assert_int_equal(token_mint(&key, &claims, FIXTURE_NOW_S, &token, NULL), FELIX_OK);

    static const char *const tenants[] = {NULL, "t1"};
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(mint_key_jwks(&key, tenants[i], &jwks, NULL), FELIX_OK);
        assert_null(strstr(jwks, "\"d\""));
        struct auth_keyset *keys = fixture_keyset(jwks);
        assert_int_equal(auth_keyset_tenants(keys), i);
        assert_int_equal(fixture_verify(keys, token), FELIX_OK);
        auth_keyset_unref(keys);
        free(jwks);
    }
    free(token);
}

static void the_public_export_has_the_published_form(void **state) {
    struct mint_key key = fixture_key(SEED_CONFORMANCE, "k1");
    char *jwks = NULL;
    assert_int_equal(mint_key_jwks(&key, NULL, &jwks, NULL), FELIX_OK);
    assert_string_equal(jwks, "{\"keys\":[{\"kty\":\"OKP\",\"kid\":\"k1\",\"alg\":\"EdDSA\","
                              "\"use\":\"sig\",\"crv\":\"Ed25519\",\"x\":\"" X_CONFORMANCE "\"}]}");
    free(jwks);
    assert_int_equal(mint_key_jwks(&key, "a/b", &jwks, NULL), FELIX_INVALID_ARGUMENT);
}

static void a_minted_token_says_what_was_asked(void **state) {
    struct mint_key key = fixture_key(SEED_DEMO, "demo-k1");
    struct mint_claims claims = claims_good();
    struct token_text text;
    char *token = NULL;
    claims.not_before_s = FIXTURE_NOW_S + 10;
    assert_int_equal(token_mint(&key, &claims, FIXTURE_NOW_S, &token, NULL), FELIX_OK);
    assert_int_equal(token_inspect(slice_str(token), &text), FELIX_OK);
    assert_string_equal(text.header, "{\"typ\":\"JWT\",\"alg\":\"EdDSA\",\"kid\":\"demo-k1\"}");
    assert_string_equal(text.claims,
                        "{\"iss\":\"felix-auth\",\"aud\":\"felix-broker\",\"sub\":\"p:demo\","
                        "\"tid\":\"t1\",\"iat\":1700000000,\"exp\":1700000900,\"nbf\":1700000010,"
                        "\"perms\":[\"stream.publish:stream:t1/default/*\","
                        "\"cache.read:cache:t1/default/*\"]}");
    token_text_deinit(&text);
    free(token);
}

static enum felix_err mint(const struct mint_claims *claims) {
    struct mint_key key = fixture_key(SEED_DEMO, "demo-k1");
    struct felix_error error = {0};
    char *token = NULL;
    enum felix_err err = token_mint(&key, claims, FIXTURE_NOW_S, &token, &error);
    assert_int_equal(err == FELIX_OK, token != NULL);
    assert_int_equal(err == FELIX_OK, error.text[0] == 0);
    free(token);
    return err;
}

static void what_no_broker_would_accept_is_not_minted(void **state) {
    static const char *const bad_perms[] = {"stream.publish:*", "stream.eat:*"};
    struct mint_claims claims = claims_good();
    assert_int_equal(mint(&claims), FELIX_OK);

    claims.tenant = "a/b";
    assert_int_equal(mint(&claims), FELIX_INVALID_ARGUMENT);
    claims = claims_good();
    claims.subject = "\xff";
    assert_int_equal(mint(&claims), FELIX_INVALID_ARGUMENT);
    claims = claims_good();
    claims.ttl_s = 0;
    assert_int_equal(mint(&claims), FELIX_INVALID_ARGUMENT);
    claims.ttl_s = MINT_TTL_S_MAX + 1;
    assert_int_equal(mint(&claims), FELIX_INVALID_ARGUMENT);
    claims.ttl_s = MINT_TTL_S_MAX;
    assert_int_equal(mint(&claims), FELIX_OK);
    claims = claims_good();
    claims.perms = bad_perms;
    assert_int_equal(mint(&claims), FELIX_INVALID_ARGUMENT);
    claims = claims_good();
    claims.not_before_s = FIXTURE_NOW_S + 901;
    assert_int_equal(mint(&claims), FELIX_INVALID_ARGUMENT);
}

static void a_token_too_large_for_brokers_is_not_minted(void **state) {
    struct mint_claims claims = claims_good();
    char perm[2048];
    const char *many[8];
    (void)snprintf(perm, sizeof perm, "cache.read:%02000d", 7);
    for (size_t i = 0; i < 8; i++)
        many[i] = perm;
    claims.perms = many;
    claims.perms_count = 5;
    assert_int_equal(mint(&claims), FELIX_OK);
    claims.perms_count = 8;
    assert_int_equal(mint(&claims), FELIX_LIMIT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_fixed_seeds_have_their_known_public_keys),
        cmocka_unit_test(generated_keys_differ_and_name_themselves),
        cmocka_unit_test(a_kid_is_text_of_bounded_length),
        cmocka_unit_test(a_key_file_reads_back_and_only_its_owner_may_read_it),
        cmocka_unit_test(a_file_that_was_readable_becomes_private_when_replaced),
        cmocka_unit_test(a_key_that_cannot_be_written_says_where),
        cmocka_unit_test(a_failed_write_leaves_nothing_behind),
        cmocka_unit_test(only_a_complete_and_coherent_key_loads),
        cmocka_unit_test(a_minted_token_verifies_against_the_exported_keys),
        cmocka_unit_test(the_public_export_has_the_published_form),
        cmocka_unit_test(a_minted_token_says_what_was_asked),
        cmocka_unit_test(what_no_broker_would_accept_is_not_minted),
        cmocka_unit_test(a_token_too_large_for_brokers_is_not_minted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
