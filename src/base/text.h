/*
 * A text that grows: what metrics, help and configuration pages are rendered into.
 *
 * Belongs to one thread. A zeroed text is empty. Always zero-terminated once something was added.
 */
#ifndef BASE_TEXT_H
#define BASE_TEXT_H

#include "base/slice.h"

struct text {
    char *data; /* NULL while nothing was added */
    size_t len; /* without the terminating zero */
    size_t capacity;
};

/** Appends; `text_add` takes a zero-terminated string, `text_printf` a format. */
void text_add(struct text *text, const char *string);
void text_bytes(struct text *text, struct slice bytes);
void text_char(struct text *text, char c);
void text_printf(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));

/** Appends as a double-quoted string that YAML and JSON both read: quotes, backslashes, control
 * characters and line breaks are escaped, all other bytes are left as they are. */
void text_quoted(struct text *text, struct slice bytes);

/** Bytes of the UTF-8 character at the start of `in`, which is not empty; 0 when it is not one.
 * Overlong forms, surrogates and values above U+10FFFF are not. `*ret_code` is set unless 0. */
size_t text_utf8_char(struct slice in, uint32_t *ret_code);

/** What was added so far; never NULL. Borrowed until the next change. */
const char *text_str(const struct text *text);

/** Empties it and keeps the memory. */
void text_reset(struct text *text);

/** Returns owned: the string (free()), and leaves the text empty. */
char *text_take(struct text *text);

void text_deinit(struct text *text);

#endif
