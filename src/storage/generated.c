#include "storage/generated.h"

#include <inttypes.h>
#include <stdio.h>

static void write_head(uint64_t offset, char out[GENERATED_BYTES_MIN + 1]) {
    (void)snprintf(out, GENERATED_BYTES_MIN + 1, "felix-record-%020" PRIu64 "-", offset);
}

void generated_fill(uint64_t offset, size_t wanted, uint8_t *out) {
    char head[GENERATED_BYTES_MIN + 1];
    write_head(offset, head);
    memcpy(out, head, GENERATED_BYTES_MIN);
    uint64_t start = offset % 251;
    for (size_t i = GENERATED_BYTES_MIN; i < wanted; i++)
        out[i] = (uint8_t)(start + i);
}

bool generated_is(uint64_t offset, size_t wanted, struct slice payload) {
    char head[GENERATED_BYTES_MIN + 1];
    if (payload.len != generated_bytes(wanted))
        return false;
    write_head(offset, head);
    if (memcmp(payload.data, head, GENERATED_BYTES_MIN) != 0)
        return false;
    uint64_t start = offset % 251;
    for (size_t i = GENERATED_BYTES_MIN; i < payload.len; i++)
        if (payload.data[i] != (uint8_t)(start + i))
            return false;
    return true;
}
