#include "wire/frame.h"

#include "base/cursor.h"

enum felix_err frame_header_decode(struct slice in, uint32_t max_body_bytes,
                                   struct frame_header *ret) {
    if (in.len < FRAME_HEADER_BYTES)
        return FELIX_INCOMPLETE;
    if (be32_load(in.data) != FRAME_MAGIC)
        return FELIX_BAD_MAGIC;
    if (be16_load(in.data + 4) != FRAME_VERSION)
        return FELIX_BAD_VERSION;
    uint32_t body_bytes = be32_load(in.data + 8);
    if (body_bytes > max_body_bytes)
        return FELIX_TOO_LARGE;
    ret->flags = be16_load(in.data + 6);
    ret->body_bytes = body_bytes;
    return FELIX_OK;
}

void frame_header_encode(uint8_t out[FRAME_HEADER_BYTES], uint16_t flags, uint32_t body_bytes) {
    be32_store(out, FRAME_MAGIC);
    be16_store(out + 4, FRAME_VERSION);
    be16_store(out + 6, flags);
    be32_store(out + 8, body_bytes);
}
