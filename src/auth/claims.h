/* The claims of a token and what they must say. Pure; the principal belongs to the caller. */
#ifndef AUTH_CLAIMS_H
#define AUTH_CLAIMS_H

#include "auth/grant.h"

#define TOKEN_ISSUER "felix-auth"
#define TOKEN_AUDIENCE "felix-broker"

struct claims_expected {
    struct slice tenant;
    int64_t now_s; /* wall clock, seconds since the epoch */
    uint32_t leeway_s;
};

/**
 * Judge the claims of a token, as JSON, whose signature is good. Returns owned in `*ret` the
 * principal that they describe, with one reference. Borrows the rest.
 * FELIX_WRONG_TENANT: for another tenant. FELIX_EXPIRED, FELIX_NOT_YET_VALID: by more than the
 * leeway. FELIX_UNAUTHENTICATED: a claim is missing, malformed, there twice or not ours; or a
 * single permission is malformed.
 * Source: control plane specification, 10.1, 10.4 and 13.1; hazard H14 (`nbf`).
 */
enum felix_err claims_accept(struct slice json, const struct claims_expected *expected,
                             struct principal **ret);

#endif
