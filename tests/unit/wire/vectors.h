/* Golden frames of tests/vectors. A body is always a heap block of its exact size, so that
 * AddressSanitizer sees the first byte that a decoder reads too much. */
#ifndef TESTS_WIRE_VECTORS_H
#define TESTS_WIRE_VECTORS_H

#include "base/slice.h"
#include "wire/frame.h"

struct vector {
    uint8_t *frame; /* the whole frame */
    size_t frame_bytes;
    uint16_t flags;
    struct slice body; /* inside `frame` */
};

/** Load tests/vectors/<name>.hex and check its header; fails the test otherwise. */
struct vector vector_load(const char *name);
void vector_free(struct vector *v);

/** A heap copy of exactly `len` bytes (never NULL); the caller frees it. */
uint8_t *exact_copy(const void *bytes, size_t len);

/**
 * Call `decode` with `flags` on every shorter prefix of `body` and on every copy with one bit
 * flipped. `decode` must accept whatever comes and walk what it decoded.
 */
void mutate_body(uint16_t flags, struct slice body,
                 void (*decode)(uint16_t flags, struct slice in));

#endif
