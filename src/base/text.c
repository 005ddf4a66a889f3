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

void text_quoted(struct text *text, struct slice bytes) {
    text_char(text, '"');
    for (size_t i = 0; i < bytes.len; i++) {
        uint8_t c = bytes.data[i];
        if (c == '"' || c == '\\')
            text_printf(text, "\\%c", c);
        else if (c < 0x20 || c == 0x7f)
            text_printf(text, "\\u%04x", c);
        else
            text_char(text, (char)c);
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
