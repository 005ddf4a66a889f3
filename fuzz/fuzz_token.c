/*
 * Tokens. The first byte chooses what the rest is: a whole token, the claims, or the header; the
 * latter two are signed with a known key, so that the fuzzer gets past the signature.
 *
 * Signing and verifying cost some hundred times what the rest does. So claims and headers are
 * judged without a signature first, and of those that are refused one in SAMPLE is signed to see
 * that it is refused then too; what is not refused is always signed.
 *
 * Properties: a signature of ours is never called bad; a token that verifies can be inspected, has
 * the tenant that was asked for, and gives the same principal out of the cache.
 */
#include <stdlib.h>

#include "auth/claims.h"
#include "auth/mint.h"
#include "auth/token.h"
#include "base/check.h"
#include "wire/base64.h"

#define SAMPLE 64u
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

/* Chosen by content, so that an input behaves the same each time. */
static bool sampled(struct slice text) {
    uint32_t sum = 0;
    for (size_t i = 0; i < text.len; i++)
        sum = sum * 31 + text.data[i];
    return sum % SAMPLE == 0;
}

static enum felix_err claims_alone(struct slice claims) {
    struct claims_expected expected = {
        .tenant = slice_str("t1"), .now_s = NOW_S, .leeway_s = TOKEN_LEEWAY_S};
    struct principal *p = NULL;
    enum felix_err err = claims_accept(claims, &expected, &p);
    principal_unref(p);
    return err;
}

/* What a token with this header and a signature of the right size, but a wrong one, is refused
 * for: a header that is not ours ends before any key is tried. */
static enum felix_err header_alone(struct slice header) {
    static const uint8_t signature[ED25519_SIGNATURE_BYTES];
    const struct slice parts[] = {header, slice_str(CLAIMS), slice_of(signature, sizeof signature)};
    size_t bytes = 0;
    for (size_t i = 0; i < 3; i++)
        bytes += base64url_encoded_bytes(parts[i].len) + 1;
    uint8_t *token = malloc(bytes);
    uint8_t *at = token;
    for (size_t i = 0; i < 3; i++) {
        base64url_encode(parts[i], at);
        at += base64url_encoded_bytes(parts[i].len);
        *at++ = '.';
    }
    struct token_offer offer = {.tenant = slice_str("t1"), .token = slice_of(token, bytes - 1)};
    struct principal *p = NULL;
    enum felix_err err = token_verify(keys, &offer, NOW_S, TOKEN_LEEWAY_S, &p);
    INVARIANT(p == NULL);
    free(token);
    return err;
}

static enum felix_err signed_check(struct slice header, struct slice claims) {
    struct token_json json = {.header = header, .claims = claims};
    char *token = NULL;
    INVARIANT(token_sign(&key, &json, &token) == FELIX_OK);
    enum felix_err err = token_check(slice_str(token));
    INVARIANT(err != FELIX_BAD_SIGNATURE);
    free(token);
    return err;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (keys == NULL)
        world_open();
    if (size == 0)
        return 0;

    struct slice rest = slice_of(data + 1, size - 1);
    enum felix_err alone;
    switch (data[0]) {
    case 'c':
        alone = claims_alone(rest);
        if (alone == FELIX_OK || sampled(rest)) {
            enum felix_err err = signed_check(slice_str(HEADER), rest);
            INVARIANT(err == alone || size > JWS_PART_BYTES_MAX / 2);
        }
        break;
    case 'h':
        alone = header_alone(rest);
        INVARIANT(alone == FELIX_UNAUTHENTICATED || alone == FELIX_BAD_SIGNATURE);
        if (alone == FELIX_BAD_SIGNATURE)
            INVARIANT(signed_check(rest, slice_str(CLAIMS)) == FELIX_OK);
        else if (sampled(rest))
            INVARIANT(signed_check(rest, slice_str(CLAIMS)) == FELIX_UNAUTHENTICATED);
        break;
    default:
        (void)token_check(rest);
        break;
    }
    return 0;
}
