/*
 * Tokens. The first byte chooses what the rest is: a whole token, the claims, or the header; the
 * latter two are signed with a known key, so that the fuzzer gets past the signature.
 *
 * Properties: a signature of ours is never called bad; a token that verifies can be inspected, has
 * the tenant that was asked for, and gives the same principal out of the cache.
 */
#include <stdlib.h>

#include "auth/mint.h"
#include "auth/token.h"
#include "base/check.h"

#define NOW_S INT64_C(1700000000)
#define HEADER "{\"alg\":\"EdDSA\",\"kid\":\"k1\"}"
#define CLAIMS                                                                                     \
    "{\"iss\":\"felix-auth\",\"aud\":\"felix-broker\",\"sub\":\"p\",\"tid\":\"t1\",\"iat\":1,"     \
    "\"exp\":1700000900,\"perms\":[\"stream.publish:stream:t1/*\"]}"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct mint_key key;
static struct auth_keyset *keys;

static void world_open(void) {
    uint8_t seed[ED25519_SEED_BYTES];
    char *jwks = NULL;
    memset(seed, 0x15, sizeof seed);
    INVARIANT(mint_key_from_seed(seed, "k1", &key, NULL) == FELIX_OK);
    INVARIANT(mint_key_jwks(&key, NULL, &jwks, NULL) == FELIX_OK);
    INVARIANT(auth_keyset_parse_jwks(slice_str(jwks), &keys, NULL) == FELIX_OK);
    free(jwks);
}

static void principal_check(const struct principal *p) {
    struct resource r = {
        .tenant = slice_str("t1"), .namespace = slice_str("default"), .name = slice_str("s")};
    INVARIANT(slice_is(p->tenant, "t1"));
    INVARIANT(p->exp_s >= NOW_S - TOKEN_LEEWAY_S);
    (void)principal_allows(p, AUTH_STREAM_PUBLISH, &r);
    (void)principal_allows(p, AUTH_CACHE_READ, &r);
}

static void verified_check(const struct token_offer *offer, struct principal *p) {
    struct token_text text;
    struct token_cache cache;
    struct principal *first = NULL;
    struct principal *second = NULL;

    principal_check(p);
    INVARIANT(token_inspect(offer->token, &text) == FELIX_OK);
    token_text_deinit(&text);

    token_cache_init(&cache);
    INVARIANT(token_cache_verify(&cache, keys, offer, NOW_S, TOKEN_LEEWAY_S, &first) == FELIX_OK);
    INVARIANT(token_cache_verify(&cache, keys, offer, NOW_S, TOKEN_LEEWAY_S, &second) == FELIX_OK);
    token_cache_deinit(&cache);
    INVARIANT(first == second && slice_equal(first->subject, p->subject));
    INVARIANT(first->grants_count == p->grants_count);
    principal_unref(first);
    principal_unref(second);
}

static enum felix_err token_check(struct slice token) {
    struct principal *p = NULL;
    struct token_offer offer = {.tenant = slice_str("t1"), .token = token};
    enum felix_err err = token_verify(keys, &offer, NOW_S, TOKEN_LEEWAY_S, &p);
    INVARIANT((err == FELIX_OK) == (p != NULL));
    if (p != NULL)
        verified_check(&offer, p);
    principal_unref(p);

    struct token_text text;
    if (token_inspect(token, &text) == FELIX_OK)
        token_text_deinit(&text);
    return err;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (keys == NULL)
        world_open();
    if (size == 0)
        return 0;

    struct slice rest = slice_of(data + 1, size - 1);
    if (data[0] != 'c' && data[0] != 'h') {
        (void)token_check(rest);
        return 0;
    }

    char *token = NULL;
    struct token_json json = {.header = data[0] == 'h' ? rest : slice_str(HEADER),
                              .claims = data[0] == 'c' ? rest : slice_str(CLAIMS)};
    INVARIANT(token_sign(&key, &json, &token) == FELIX_OK);
    INVARIANT(token_check(slice_str(token)) != FELIX_BAD_SIGNATURE);
    free(token);
    return 0;
}
