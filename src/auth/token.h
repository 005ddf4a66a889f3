/*
 * Tokens: is what somebody presents signed for the tenant that they name, and still valid?
 *
 * A token is a compact JWS with `alg` EdDSA over Ed25519. `token_verify` is pure and may be called
 * from any thread; a `token_cache` belongs to one reactor.
 * Source: wire specification, section 6.2; control plane specification, sections 10, 13.1.
 */
#ifndef AUTH_TOKEN_H
#define AUTH_TOKEN_H

#include "auth/grant.h"
#include "auth/jws.h"
#include "auth/keys.h"

/* How far the clocks of issuer and broker may disagree. */
#define TOKEN_LEEWAY_S 60u

#define TOKEN_CACHE_ENTRIES 1024u

/* What an auth message presents. Borrowed. */
struct token_offer {
    struct slice tenant;
    struct slice token;
};

/**
 * Verify a token. Returns owned in `*ret` the principal, with one reference, for the calling
 * thread. `keys` may be NULL: then nobody is let in. `now_s`: wall clock, seconds since the epoch.
 *
 * The wire says "auth failed" to all of these; logs and metrics may tell them apart:
 * FELIX_BAD_SIGNATURE: well-formed, but no key of the tenant signed it.
 * FELIX_EXPIRED, FELIX_NOT_YET_VALID, FELIX_WRONG_TENANT: signed by a key of the tenant, but so.
 * FELIX_UNAUTHENTICATED: malformed, too large, another algorithm, a tenant without keys, or a
 * claim or permission that is not ours (claims_accept).
 * About 80 us for each key that is tried.
 */
enum felix_err token_verify(const struct auth_keyset *keys, const struct token_offer *offer,
                            int64_t now_s, uint32_t leeway_s, struct principal **ret);

/*
 * The streams of a connection all present one token: a cache of the good ones, so that a signature
 * is verified once. It holds a reference to each principal until the token expires, another one
 * needs the place, or the keyset changes. Failures are not remembered.
 */
struct token_cache {
    uint64_t generation; /* of the keyset that verified all entries */
    uint64_t turn;       /* counts uses: the entry used longest ago gives way */
    size_t count;
    uint64_t hits;
    uint64_t misses;
    struct token_entry *entries; /* TOKEN_CACHE_ENTRIES */
};

/** Init and deinit by the reactor that owns the cache. Deinit accepts a zeroed one. */
void token_cache_init(struct token_cache *cache);
void token_cache_deinit(struct token_cache *cache);

/** As token_verify, and with its results. The principal may be one that others hold too. */
enum felix_err token_cache_verify(struct token_cache *cache, const struct auth_keyset *keys,
                                  const struct token_offer *offer, int64_t now_s, uint32_t leeway_s,
                                  struct principal **ret);

/* The readable parts of a token: valid JSON, in UTF-8, without raw control characters. */
struct token_text {
    char *header;
    char *claims;
};

/**
 * Decode a token without verifying anything, to show it to its owner. Returns owned in `*ret`
 * (token_text_deinit). FELIX_MALFORMED: not a compact JWS of two JSON objects.
 */
enum felix_err token_inspect(struct slice token, struct token_text *ret);

void token_text_deinit(struct token_text *text);

#endif
