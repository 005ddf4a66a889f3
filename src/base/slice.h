/* A slice borrows bytes that somebody else owns. It is never kept beyond the call. */
#ifndef BASE_SLICE_H
#define BASE_SLICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct slice {
    const uint8_t *data;
    size_t len;
};

static inline struct slice slice_of(const void *data, size_t len) {
    return (struct slice){.data = data, .len = len};
}

static inline struct slice slice_str(const char *text) {
    return (struct slice){.data = (const uint8_t *)text, .len = strlen(text)};
}

static inline bool slice_equal(struct slice a, struct slice b) {
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

static inline bool slice_is(struct slice a, const char *text) {
    return slice_equal(a, slice_str(text));
}

#endif
