#include "fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

struct mint_key fixture_key(uint8_t byte, const char *kid) {
    uint8_t seed[ED25519_SEED_BYTES];
    struct mint_key key;
    memset(seed, byte, sizeof seed);
    assert_int_equal(mint_key_from_seed(seed, kid, &key, NULL), FELIX_OK);
    return key;
}

struct auth_keyset *fixture_keyset(const char *json) {
    struct auth_keyset *keys = NULL;
    struct felix_error error = {0};
    if (auth_keyset_parse_jwks(slice_str(json), &keys, &error) != FELIX_OK)
        fail_msg("%s", error.text);
    return keys;
}

char *fixture_sign(const struct mint_key *key, const char *header, const char *claims) {
    char *token = NULL;
    struct token_json json = {.header = slice_str(header), .claims = slice_str(claims)};
    assert_int_equal(token_sign(key, &json, &token), FELIX_OK);
    return token;
}

enum felix_err fixture_verify(const struct auth_keyset *keys, const char *token) {
    struct principal *principal = NULL;
    struct token_offer offer = {.tenant = slice_str("t1"), .token = slice_str(token)};
    enum felix_err err = token_verify(keys, &offer, FIXTURE_NOW_S, TOKEN_LEEWAY_S, &principal);
    assert_int_equal(err == FELIX_OK, principal != NULL);
    principal_unref(principal);
    return err;
}

char *fixture_path(const char *name) {
    char folder[] = "/tmp/felix-auth-XXXXXX";
    char *path = NULL;
    assert_non_null(mkdtemp(folder));
    assert_true(asprintf(&path, "%s/%s", folder, name) > 0);
    return path;
}

void fixture_remove_folder(char *path) {
    (void)unlink(path);
    *strrchr(path, '/') = 0;
    /* Fails when something was left behind, such as a temporary file. */
    assert_int_equal(rmdir(path), 0);
    free(path);
}
