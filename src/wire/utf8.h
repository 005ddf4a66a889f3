/* UTF-8 validation. Pure, any thread. Source: wire specification, conventions and section 5.1. */
#ifndef WIRE_UTF8_H
#define WIRE_UTF8_H

#include "base/slice.h"

/** Is `text` valid UTF-8 (no surrogates, no overlong forms, nothing above U+10FFFF)? */
bool utf8_valid(struct slice text);

/**
 * Length in bytes of the character at `at`, which lies before `end`; 0 when the bytes there are
 * not a well-formed character that ends at or before `end`.
 */
size_t utf8_char_bytes(const uint8_t *at, const uint8_t *end);

/** The largest length of at most `max_bytes` that does not cut a character of valid `text`. */
size_t utf8_cut(struct slice text, size_t max_bytes);

#endif
