/* Acknowledgement body behind two bytes of flags: encoding what was decoded and decoding that
 * again gives the same, as far as we emit it. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/check.h"
#include "base/cursor.h"
#include "wire/ack.h"
#include "wire/frame.h"
#include "wire/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2)
        return 0;
    uint16_t flags = be16_load(data);
    struct publish_ack ack;
    if (ack_decode(flags, slice_of(data + 2, size - 2), &ack) != FELIX_OK)
        return 0;
    INVARIANT(utf8_valid(ack.message) && utf8_valid(ack.reason));

    uint8_t frame[ACK_FRAME_BYTES_MAX];
    size_t frame_bytes = ack_frame_encode(flags, &ack, frame);
    INVARIANT(frame_bytes <= sizeof frame);
    struct frame_header header;
    struct slice in = slice_of(frame, frame_bytes);
    enum felix_err err = frame_header_decode(in, UINT32_MAX, &header);
    INVARIANT(err == FELIX_OK && header.body_bytes == frame_bytes - FRAME_HEADER_BYTES);

    struct publish_ack again;
    in = slice_of(frame + FRAME_HEADER_BYTES, header.body_bytes);
    err = ack_decode(header.flags, in, &again);
    INVARIANT(err == FELIX_OK);
    INVARIANT(again.ok == ack.ok && again.request_id == ack.request_id);
    if (!ack.ok) {
        INVARIANT(again.message.len == utf8_cut(ack.message, ACK_MESSAGE_BYTES_MAX));
        INVARIANT(memcmp(again.message.data, ack.message.data, again.message.len) == 0);
        if (flags & FRAME_ACK_CODE)
            INVARIANT(again.code == ack.code && again.retry == ack.retry);
    }
    if (ack.ok && (flags & FRAME_ACK_OFFSET))
        INVARIANT(again.offset == ack.offset);
    if (ack.ok && (flags & FRAME_ACK_LEVEL))
        INVARIANT(again.level == ack.level);
    return 0;
}
