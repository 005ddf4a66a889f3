#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "vectors.h"

static unsigned hex_value(int c) {
    return (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10);
}

struct vector vector_load(const char *name) {
    char path[512];
    (void)snprintf(path, sizeof path, "%s/%s.hex", VECTORS_DIR, name);
    FILE *file = fopen(path, "r");
    if (file == NULL)
        fail_msg("cannot open %s", path);
    uint8_t bytes[4096];
    size_t digits = 0;
    for (int c = fgetc(file); c != EOF; c = fgetc(file)) {
        if (c == '\n')
            continue;
        assert_true(digits / 2 < sizeof bytes);
        unsigned high = digits % 2 == 0 ? 0 : (unsigned)bytes[digits / 2] << 4;
        bytes[digits / 2] = (uint8_t)(high | hex_value(c));
        digits++;
    }
    (void)fclose(file);

    struct vector v = {.frame = exact_copy(bytes, digits / 2), .frame_bytes = digits / 2};
    struct frame_header header;
    assert_int_equal(
        frame_header_decode(slice_of(v.frame, v.frame_bytes), FRAME_MAX_BYTES_DEFAULT, &header),
        FELIX_OK);
    assert_int_equal(header.body_bytes, v.frame_bytes - FRAME_HEADER_BYTES);
    v.flags = header.flags;
    v.body = slice_of(v.frame + FRAME_HEADER_BYTES, header.body_bytes);
    return v;
}

void vector_free(struct vector *v) {
    free(v->frame);
}

uint8_t *exact_copy(const void *bytes, size_t len) {
    uint8_t *copy = malloc(len);
    assert_true(copy != NULL || len == 0);
    if (len != 0)
        memcpy(copy, bytes, len);
    return copy;
}

void mutate_body(uint16_t flags, struct slice body,
                 void (*decode)(uint16_t flags, struct slice in)) {
    for (size_t len = 0; len < body.len; len++) {
        uint8_t *copy = exact_copy(body.data, len);
        decode(flags, slice_of(copy, len));
        free(copy);
    }
    uint8_t *copy = exact_copy(body.data, body.len);
    for (size_t bit = 0; bit < body.len * 8; bit++) {
        copy[bit / 8] ^= (uint8_t)(1u << bit % 8);
        decode(flags, slice_of(copy, body.len));
        copy[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    free(copy);
}
