/* What the tests of auth share: two known keys, keysets of them, tokens over any claims. */
#ifndef TESTS_AUTH_FIXTURE_H
#define TESTS_AUTH_FIXTURE_H

#include "auth/mint.h"
#include "auth/token.h"

#define FIXTURE_NOW_S INT64_C(1700000000)

/* The fixed keys of the wire specification, 10.1. */
#define SEED_CONFORMANCE 0x15
#define SEED_DEMO 0x2a
#define X_CONFORMANCE "1UIH2hlJd9z0atv-wrwudbUtWopCGE_t_cAAJPDj6No"
#define X_DEMO "GX9rI-FshTLGq8g4-s1ep4m-DHaykgM0A5v6iz02jWE"

/* A key of a JWKS, as text. */
#define JWK(kid, x) "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"" kid "\",\"x\":\"" x "\"}"

/* Claims that are accepted for t1 at FIXTURE_NOW_S. */
#define CLAIMS_HEAD                                                                                \
    "{\"iss\":\"felix-auth\",\"aud\":\"felix-broker\",\"sub\":\"p:a\",\"tid\":\"t1\","
#define CLAIMS_GOOD CLAIMS_HEAD "\"iat\":1700000000,\"exp\":1700000900,\"perms\":[]}"

#define HEADER_GOOD "{\"typ\":\"JWT\",\"alg\":\"EdDSA\",\"kid\":\"k1\"}"

/** The key whose seed is 32 times `byte`. */
struct mint_key fixture_key(uint8_t byte, const char *kid);

/** A keyset out of JSON that must be good. Returned owned. */
struct auth_keyset *fixture_keyset(const char *json);

/** A token over these two texts, signed. Returned owned (free). */
char *fixture_sign(const struct mint_key *key, const char *header, const char *claims);

/** Verify for t1 at FIXTURE_NOW_S; the principal is dropped. */
enum felix_err fixture_verify(const struct auth_keyset *keys, const char *token);

/** A path of a new file in a new folder. Returned owned; fixture_remove_folder removes it all. */
char *fixture_path(const char *name);
void fixture_remove_folder(char *path);

#endif
