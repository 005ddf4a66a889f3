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
#include "wire/base64.h"
#include "wire/limits.h"

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

/** The kind of the next value by its first character, without taking it. JSON_INVALID (and failed)
 * when no value can start there. */
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
bool json_take_u64(struct json *j, uint64_t *ret);  /* an integer literal in 0..2^64-1 */
bool json_take_i64(struct json *j, int64_t *ret);   /* an integer literal in -2^63..2^63-1 */
bool json_take_double(struct json *j, double *ret); /* any finite number of up to 255 characters */
bool json_take_bool(struct json *j, bool *ret);
bool json_take_null(struct json *j);

/** Take a string and copy its value, with a terminating zero, to `out` of `capacity` bytes. False
 * (and failed) also when it does not fit or contains a zero byte. */
bool json_take_text(struct json *j, char *out, size_t capacity);

/** Skip the next value, whatever it is, proving that it is valid JSON. */
bool json_skip(struct json *j);

/** True when nothing failed and only whitespace follows. */
bool json_finish(struct json *j);

/** Does the value of `s` equal `text`? Handles escapes. */
bool json_string_is(const struct json_string *s, const char *text);

/** Write the value (decoded_bytes bytes, no terminator) to `out`. */
void json_string_decode(const struct json_string *s, uint8_t *out);

/* Writing. `text` is valid UTF-8; control characters are escaped in their short form or as \u00xx.
 */

/** Bytes that json_quote writes for `text`, quotes included. Non-ASCII stays raw, `/` too. */
size_t json_quoted_bytes(struct slice text);

/** Write `text` as a quoted JSON string; returns the bytes written. */
size_t json_quote(struct slice text, uint8_t *out);

#endif
