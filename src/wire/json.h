/*
 * A strict JSON reader over bytes, without a tree and without allocation.
 *
 * Reads one value at a time from a cursor; integers are exact to 64 bits; strings stay escaped
 * in place until asked for. Strict RFC 8259: no BOM, no trailing text, no raw control characters,
 * no unpaired surrogate escapes, valid UTF-8, nesting of at most JSON_DEPTH_MAX.
 * Source: wire specification, section 5.1. Pure, any thread.
 *
 * Usage: json_open(), then for an object json_object_begin / json_member ... until it returns
 * false, in order; every value must be taken or skipped; at the end json_finish() tells whether
 * the whole text was valid.
 */
#ifndef WIRE_JSON_H
#define WIRE_JSON_H

#include "base/err.h"
#include "base/slice.h"

enum json_kind {
    JSON_NULL,
    JSON_BOOL,
    JSON_NUMBER,
    JSON_STRING,
    JSON_ARRAY,
    JSON_OBJECT,
    JSON_INVALID,
};

struct json {
    const uint8_t *at;
    const uint8_t *end;
    uint32_t depth;
    bool failed; /* sticky: nothing is read any more */
};

/* A string as it stands in the text, between its quotes, proven valid. */
struct json_string {
    struct slice raw;
    bool escaped;         /* contains backslashes: raw differs from the value */
    size_t decoded_bytes; /* UTF-8 length of the value */
};

struct json json_open(struct slice text);

/** The kind of the next value, without taking it. JSON_INVALID at a syntax error. */
enum json_kind json_peek(struct json *j);

/** Enter an object or array; false (and failed) when the next value is something else. */
bool json_object_begin(struct json *j);
bool json_array_begin(struct json *j);

/** Next member name of the object that was entered last: false at its end or on failure.
 * `*first` must be true for the first call of each object and is maintained here. */
bool json_member(struct json *j, bool *first, struct json_string *ret_name);

/** Is there another element in the array that was entered last? `*first` as above. */
bool json_element(struct json *j, bool *first);

/** Take the next value. False (and failed) when it is of another kind or out of range. */
bool json_take_string(struct json *j, struct json_string *ret);
bool json_take_u64(struct json *j, uint64_t *ret);   /* an integer literal in 0..2^64-1 */
bool json_take_i64(struct json *j, int64_t *ret);
bool json_take_double(struct json *j, double *ret);
bool json_take_bool(struct json *j, bool *ret);
bool json_take_null(struct json *j);

/** Skip the next value, whatever it is, proving that it is valid JSON. */
bool json_skip(struct json *j);

/** True when nothing failed and only whitespace follows. */
bool json_finish(struct json *j);

/** Does the value of `s` equal `text`? Handles escapes. */
bool json_string_is(const struct json_string *s, const char *text);

/** Write the value (decoded_bytes bytes, no terminator) to `out`. */
void json_string_decode(const struct json_string *s, uint8_t *out);

/* ---- writing ---- */

/** Bytes that json_quote writes for `text`, quotes included. Non-ASCII stays raw, `/` too. */
size_t json_quoted_bytes(struct slice text);

/** Write `text` as a quoted JSON string; returns the bytes written. */
size_t json_quote(struct slice text, uint8_t *out);

/* ---- base64, standard alphabet, canonical padding required. Source: wire specification 5.2 ---- */

size_t base64_encoded_bytes(size_t len);
void base64_encode(struct slice in, uint8_t *out);

/** Decoded length of well-formed text of `len` characters; FELIX_MALFORMED otherwise. */
enum felix_err base64_decoded_bytes(struct slice text, size_t *ret);

/** Decode into `out` (base64_decoded_bytes). FELIX_MALFORMED: alphabet, padding, unused bits. */
enum felix_err base64_decode(struct slice text, uint8_t *out);

/* base64url without padding, for tokens and keys (RFC 7515). Same results. */
size_t base64url_encoded_bytes(size_t len);
void base64url_encode(struct slice in, uint8_t *out);
enum felix_err base64url_decoded_bytes(struct slice text, size_t *ret);
enum felix_err base64url_decode(struct slice text, uint8_t *out);

#endif
