/*
 * Bounds-checked reading and writing of big-endian integers.
 *
 * A reader or writer that was asked for more than is there becomes `failed` and stays so; reads
 * then give zeros and writes do nothing, so a decoder checks once at its end. Pure, any thread.
 */
#ifndef BASE_CURSOR_H
#define BASE_CURSOR_H

#include "base/slice.h"

static inline uint16_t be16_load(const uint8_t *p) {
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return __builtin_bswap16(v);
}

static inline uint32_t be32_load(const uint8_t *p) {
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return __builtin_bswap32(v);
}

static inline uint64_t be64_load(const uint8_t *p) {
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return __builtin_bswap64(v);
}

static inline void be16_store(uint8_t *p, uint16_t v) {
    v = __builtin_bswap16(v);
    memcpy(p, &v, sizeof v);
}

static inline void be32_store(uint8_t *p, uint32_t v) {
    v = __builtin_bswap32(v);
    memcpy(p, &v, sizeof v);
}

static inline void be64_store(uint8_t *p, uint64_t v) {
    v = __builtin_bswap64(v);
    memcpy(p, &v, sizeof v);
}

struct reader {
    const uint8_t *at;
    const uint8_t *end;
    bool failed;
};

static inline struct reader reader_of(struct slice in) {
    /* An empty slice may be nowhere, and nothing may be added to nowhere, not even 0. */
    const uint8_t *at = in.data != NULL ? in.data : (const uint8_t *)"";
    return (struct reader){.at = at, .end = at + in.len};
}

static inline size_t reader_left(const struct reader *r) {
    return (size_t)(r->end - r->at);
}

/** Takes `len` bytes off the front; an empty slice when fewer are left (then `failed`). */
static inline struct slice reader_take(struct reader *r, size_t len) {
    if (r->failed || reader_left(r) < len) {
        r->failed = true;
        return (struct slice){.data = r->end};
    }
    struct slice out = {.data = r->at, .len = len};
    r->at += len;
    return out;
}

static inline uint8_t reader_u8(struct reader *r) {
    struct slice s = reader_take(r, 1);
    return s.len == 1 ? s.data[0] : 0;
}

static inline uint16_t reader_u16(struct reader *r) {
    struct slice s = reader_take(r, 2);
    return s.len == 2 ? be16_load(s.data) : 0;
}

static inline uint32_t reader_u32(struct reader *r) {
    struct slice s = reader_take(r, 4);
    return s.len == 4 ? be32_load(s.data) : 0;
}

static inline uint64_t reader_u64(struct reader *r) {
    struct slice s = reader_take(r, 8);
    return s.len == 8 ? be64_load(s.data) : 0;
}

struct writer {
    uint8_t *at;
    uint8_t *end;
    bool failed;
};

static inline struct writer writer_of(void *memory, size_t capacity) {
    uint8_t *at = memory;
    return (struct writer){.at = at, .end = at + capacity};
}

static inline uint8_t *writer_reserve(struct writer *w, size_t len) {
    if (w->failed || (size_t)(w->end - w->at) < len) {
        w->failed = true;
        return NULL;
    }
    uint8_t *at = w->at;
    w->at += len;
    return at;
}

static inline void writer_bytes(struct writer *w, struct slice bytes) {
    uint8_t *at = writer_reserve(w, bytes.len);
    if (at != NULL && bytes.len != 0)
        memcpy(at, bytes.data, bytes.len);
}

static inline void writer_u8(struct writer *w, uint8_t v) {
    uint8_t *at = writer_reserve(w, 1);
    if (at != NULL)
        at[0] = v;
}

static inline void writer_u16(struct writer *w, uint16_t v) {
    uint8_t *at = writer_reserve(w, 2);
    if (at != NULL)
        be16_store(at, v);
}

static inline void writer_u32(struct writer *w, uint32_t v) {
    uint8_t *at = writer_reserve(w, 4);
    if (at != NULL)
        be32_store(at, v);
}

static inline void writer_u64(struct writer *w, uint64_t v) {
    uint8_t *at = writer_reserve(w, 8);
    if (at != NULL)
        be64_store(at, v);
}

#endif
