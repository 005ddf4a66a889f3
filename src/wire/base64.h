/*
 * Base64 in its two strict forms. Pure, any thread.
 *
 * Standard: alphabet with + and /, padding required and canonical, unused bits zero, nothing
 * else in between. Source: wire specification 5.2.
 * URL: alphabet with - and _, no padding, unused bits zero; for tokens and keys (RFC 7515).
 */
#ifndef WIRE_BASE64_H
#define WIRE_BASE64_H

#include "base/err.h"
#include "base/slice.h"

/** Characters that `len` bytes take. */
size_t base64_encoded_bytes(size_t len);

/** Write base64_encoded_bytes(in.len) characters, no terminator. */
void base64_encode(struct slice in, uint8_t *out);

/** Decoded length as the length and the padding of `text` tell it, without looking at the other
 * characters; FELIX_MALFORMED for an impossible length. */
enum felix_err base64_decoded_bytes(struct slice text, size_t *ret);

/**
 * Decode into `out`, which has room for base64_decoded_bytes and may be where `text` itself
 * stands. FELIX_MALFORMED: length, alphabet, padding, unused bits; `out` is then undefined.
 */
enum felix_err base64_decode(struct slice text, uint8_t *out);

/* The same for the URL form. */
size_t base64url_encoded_bytes(size_t len);
void base64url_encode(struct slice in, uint8_t *out);
enum felix_err base64url_decoded_bytes(struct slice text, size_t *ret);
enum felix_err base64url_decode(struct slice text, uint8_t *out);

#endif
