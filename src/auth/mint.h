/*
 * The other side of tokens: signing keys and the tokens they sign, for brokers that run without a
 * control plane, for demos and tests. The command line uses it; a broker does not.
 * Any thread; the caller owns everything. Source: control plane specification, 10.1 to 10.3.
 */
#ifndef AUTH_MINT_H
#define AUTH_MINT_H

#include "auth/keys.h"

#define ED25519_SEED_BYTES 32u
#define MINT_TTL_S_MAX ((int64_t)10 * 366 * 24 * 3600)

struct mint_key {
    uint8_t seed[ED25519_SEED_BYTES]; /* the secret */
    uint8_t x[ED25519_KEY_BYTES];     /* the public key */
    char kid[256];
};

/** A key from the system's randomness. `kid` may be NULL: 32 random hexadecimal digits. */
enum felix_err mint_key_generate(const char *kid, struct mint_key *ret, struct felix_error *reterr);

/** The key of a seed. FELIX_INVALID_ARGUMENT: a kid that is empty, too long or not UTF-8. */
enum felix_err mint_key_from_seed(const uint8_t seed[ED25519_SEED_BYTES], const char *kid,
                                  struct mint_key *ret, struct felix_error *reterr);

/** Overwrites the secret. */
void mint_key_wipe(struct mint_key *key);

/** Write `key`, secret included, as a JWK (RFC 8037) that only its owner may read (mode 0600). */
enum felix_err mint_key_save(const struct mint_key *key, const char *path,
                             struct felix_error *reterr);

/**
 * Read what mint_key_save wrote, or any Ed25519 JWK with its secret `d` and a `kid`.
 * FELIX_BAD_JSON: something else, or `x` is not the public key of `d`.
 */
enum felix_err mint_key_load(const char *path, struct mint_key *ret, struct felix_error *reterr);

/**
 * Returns owned in `*ret` (free) the public half for auth_keyset_parse_jwks: as the only key of
 * `tenant`, or a plain JWKS when that is NULL. FELIX_INVALID_ARGUMENT: not a tenant id.
 */
enum felix_err mint_key_jwks(const struct mint_key *key, const char *tenant, char **ret,
                             struct felix_error *reterr);

struct mint_claims {
    const char *tenant;
    const char *subject;
    int64_t ttl_s;        /* 1 to MINT_TTL_S_MAX */
    int64_t not_before_s; /* wall clock, seconds since the epoch; 0: at once */
    const char *const *perms;
    size_t perms_count;
};

/**
 * Returns owned in `*ret` (free) a compact token that token_verify accepts until
 * `now_s` + ttl_s. FELIX_INVALID_ARGUMENT: a claim that no broker would accept, such as a malformed
 * permission. FELIX_LIMIT: the token would be too large.
 */
enum felix_err token_mint(const struct mint_key *key, const struct mint_claims *claims,
                          int64_t now_s, char **ret, struct felix_error *reterr);

/* The two JSON texts of a token. Borrowed. */
struct token_json {
    struct slice header;
    struct slice claims;
};

/** Returns owned in `*ret` (free) a compact JWS over any two texts, sensible or not. */
enum felix_err token_sign(const struct mint_key *key, const struct token_json *json, char **ret);

#endif
