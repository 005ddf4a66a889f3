#include "base/text.h"

#include "base/check.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static void text_reserve(struct text *text, size_t more) {
    size_t need = text->len + more + 1;
    if (need <= text->capacity)
        return;
    size_t capacity = text->capacity != 0 ? text->capacity : 256;
    while (capacity < need)
        capacity *= 2;
    text->data = xrealloc(text->data, capacity);
    text->capacity = capacity;
}

void text_bytes(struct text *text, struct slice bytes) {
    text_reserve(text, bytes.len);
    if (bytes.len != 0)
        memcpy(text->data + text->len, bytes.data, bytes.len);
    text->len += bytes.len;
    text->data[text->len] = '\0';
}

void text_add(struct text *text, const char *string) {
    text_bytes(text, slice_str(string));
}

void text_char(struct text *text, char c) {
    text_bytes(text, slice_of(&c, 1));
}

void text_printf(struct text *text, const char *format, ...) {
    va_list args;
    va_list again;
    va_start(args, format);
    va_copy(again, args);

    text_reserve(text, 0);
    size_t room = text->capacity - text->len;
    int wrote = vsnprintf(text->data + text->len, room, format, args);
    INVARIANT(wrote >= 0);
    if ((size_t)wrote >= room) {
        text_reserve(text, (size_t)wrote);
        (void)vsnprintf(text->data + text->len, (size_t)wrote + 1, format, again);
    }
    text->len += (size_t)wrote;

    va_end(again);
    va_end(args);
}

size_t text_utf8_char(struct slice in, uint32_t *ret_code) {
    uint8_t lead = in.data[0];
    size_t len = lead < 0x80 ? 1 : lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    if (len == 0 || lead > 0xf4 || len > in.len)
        return 0;
    uint32_t code = len == 1 ? lead : lead & (0x7fu >> len);
    for (size_t i = 1; i < len; i++) {
        if ((in.data[i] & 0xc0) != 0x80)
            return 0;
        code = code << 6 | (in.data[i] & 0x3fu);
    }
    bool overlong = (len == 3 && code < 0x800) || (len == 4 && code < 0x10000);
    bool surrogate = code >= 0xd800 && code <= 0xdfff;
    if (overlong || surrogate || code > 0x10ffff)
        return 0;
    *ret_code = code;
    return len;
}

/* Besides what the quotes need: control characters, and those that YAML takes for line breaks,
 * byte order marks or no characters at all. */
static bool needs_escape(uint32_t code) {
    return code < 0x20 || (code >= 0x7f && code < 0xa0) || code == 0x2028 || code == 0x2029 ||
           code == 0xfeff || code == 0xfffe || code == 0xffff;
}

void text_quoted(struct text *text, struct slice bytes) {
    text_char(text, '"');
    while (bytes.len > 0) {
        uint32_t code = 0;
        size_t len = text_utf8_char(bytes, &code);
        if (len == 1 && (code == '"' || code == '\\'))
            text_printf(text, "\\%c", (char)code);
        else if (len != 0 && needs_escape(code))
            text_printf(text, "\\u%04x", code);
        else
            text_bytes(text, slice_of(bytes.data, len != 0 ? len : 1));
        bytes.data += len != 0 ? len : 1;
        bytes.len -= len != 0 ? len : 1;
    }
    text_char(text, '"');
}

const char *text_str(const struct text *text) {
    return text->data != NULL ? text->data : "";
}

void text_reset(struct text *text) {
    text->len = 0;
    if (text->data != NULL)
        text->data[0] = '\0';
}

char *text_take(struct text *text) {
    text_reserve(text, 0);
    text->data[text->len] = '\0';
    char *string = text->data;
    *text = (struct text){0};
    return string;
}

void text_deinit(struct text *text) {
    free(text->data);
    *text = (struct text){0};
}
