/*
 * The public keys that tokens are verified with, of several tenants.
 *
 * A keyset is made once and never changes; a reload makes a new one. Reactors share it: its
 * references are counted atomically and all its functions may be called from any thread.
 *
 * Two forms of JSON are read. Several tenants:
 *     {"tenants": {"t1": {"keys": [...]}, "t2": {"keys": [...]}}}
 * A plain JWKS, as the control plane publishes it for one tenant:
 *     {"keys": [...]}
 * where a key with a "tid" member belongs to that tenant and a key without one serves every
 * tenant. The latter is a convenience for brokers with one tenant: who holds such a key can sign
 * for any tenant, though a token still serves only the tenant that its "tid" claim names.
 *
 * A usable key has kty OKP, crv Ed25519, x of 32 bytes in base64url without padding, alg EdDSA or
 * none, use sig or none, kid a string or none. Others are skipped and counted, so that one exotic
 * key does not lock everybody out; a tenant that is left without any key is an error.
 * Source: control plane specification, sections 10.3 and 13.1, hazards H12 and H14; RFC 8037.
 */
#ifndef AUTH_KEYS_H
#define AUTH_KEYS_H

#include "base/err.h"
#include "base/slice.h"

#define AUTH_KEYSET_BYTES_MAX ((size_t)1 << 20)
#define AUTH_KEYS_PER_TENANT_MAX 64u
#define AUTH_TENANTS_MAX 10000u

#define ED25519_KEY_BYTES 32u
#define ED25519_SIGNATURE_BYTES 64u

struct auth_keyset;

/**
 * Returns owned in `*ret` (one reference) the keys in `json`. Borrows `json`.
 * FELIX_BAD_JSON: not JSON, or not of a form above; a tenant that stands there twice.
 * FELIX_LIMIT: a limit above. FELIX_NOT_FOUND: a tenant, or the whole set, has no usable key.
 * FELIX_INVALID_ARGUMENT: a tenant id that cannot exist (name_valid).
 */
enum felix_err auth_keyset_parse_jwks(struct slice json, struct auth_keyset **ret,
                                      struct felix_error *reterr);

/** As above, from a file. FELIX_SYSTEM: the file cannot be read. Blocks. */
enum felix_err auth_keyset_load_file(const char *path, struct auth_keyset **ret,
                                     struct felix_error *reterr);

/** Adds a reference and returns `set`. */
struct auth_keyset *auth_keyset_ref(struct auth_keyset *set);

/** Drops a reference; the last one frees. Accepts NULL. */
void auth_keyset_unref(struct auth_keyset *set);

/** A number that no other keyset of this process has: a cache of verdicts is valid for one. */
uint64_t auth_keyset_generation(const struct auth_keyset *set);

/** Usable keys, tenants that are named, and keys that were skipped as unusable. */
size_t auth_keyset_keys(const struct auth_keyset *set);
size_t auth_keyset_tenants(const struct auth_keyset *set);
size_t auth_keyset_skipped(const struct auth_keyset *set);

/** Is there a key that could verify a token of `tenant`? */
bool auth_keyset_serves(const struct auth_keyset *set, struct slice tenant);

/* Ed25519 over bytes, as a token carries it. All borrowed. */
struct auth_signed {
    struct slice message;
    const uint8_t *signature; /* ED25519_SIGNATURE_BYTES */
};

/**
 * Does any key of `tenant` verify the signature? Keys named `kid` are tried first (`kid` may be
 * empty), then all others: an unknown kid is not fatal. About 80 us for each key tried.
 */
bool auth_keyset_verify(const struct auth_keyset *set, struct slice tenant, struct slice kid,
                        const struct auth_signed *what);

#endif
