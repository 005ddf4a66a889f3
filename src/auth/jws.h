/*
 * The compact form of a signed token: `header.claims.signature`, each in base64url without padding.
 * Source: RFC 7515, 7.1. Pure, any thread.
 */
#ifndef AUTH_JWS_H
#define AUTH_JWS_H

#include "base/slice.h"

/* Of a token as it stands in an auth message. */
#define TOKEN_BYTES_MAX ((size_t)16 << 10)

/* Room for any part of such a token, decoded. */
#define JWS_PART_BYTES_MAX (TOKEN_BYTES_MAX / 4 * 3)

struct jws {
    struct slice header;    /* encoded */
    struct slice claims;    /* encoded */
    struct slice signature; /* encoded */
    struct slice message;   /* what was signed: header, dot, claims */
};

/** Split a token at its two dots; the parts borrow from it. False: too long, or another form. */
bool jws_split(struct slice token, struct jws *ret);

/** Decode one part into `out`, which has room for JWS_PART_BYTES_MAX bytes. False: not base64url.
 */
bool jws_decode(struct slice part, uint8_t *out, struct slice *ret);

#endif
