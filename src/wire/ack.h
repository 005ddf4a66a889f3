/* Publish acknowledgement body. Source: wire specification 4.3; wire extensions 3.2. */
#ifndef WIRE_ACK_H
#define WIRE_ACK_H

#include "base/err.h"
#include "base/slice.h"
#include "wire/limits.h"

/* What a successful acknowledgement means for the item. */
enum ack_level {
    ACK_LEVEL_MEMORY,  /* it is in its stream, in memory */
    ACK_LEVEL_WRITTEN, /* the operating system has it: it survives the broker, not the machine */
    ACK_LEVEL_FLUSHED, /* it is on the disk */
};

struct publish_ack {
    uint64_t request_id;
    bool ok;
    struct slice message; /* empty when ok */
    uint16_t code;        /* with ACK_CODE: enum wire_code */
    uint8_t retry;        /* with ACK_CODE: enum wire_retry */
    struct slice reason;  /* with ACK_DETAIL */
    uint64_t retry_after_ms;
    struct slice owner_node; /* with ACK_OWNER */
    struct slice owner_addr;
    uint64_t owner_generation;
    uint64_t offset; /* with ACK_OFFSET */
};

/** Room that any acknowledgement frame of ours needs, header included. */
#define ACK_FRAME_BYTES_MAX (FRAME_HEADER_BYTES + 8u + 1u + 2u + ACK_MESSAGE_BYTES_MAX + 3u)

/**
 * Encode a whole frame (header and body). `flags` is PUBLISH_ACK plus what the peer understands
 * of ACK_CODE and ACK_OFFSET; the header gets only what fits the outcome: a code on a failure, an
 * offset on a success. A success carries no message; another message is cut to
 * ACK_MESSAGE_BYTES_MAX at a character boundary. OWNER and DETAIL are never emitted by us.
 * Returns the bytes written into `out`. Pure.
 */
size_t ack_frame_encode(uint16_t flags, const struct publish_ack *ack,
                        uint8_t out[ACK_FRAME_BYTES_MAX]);

/**
 * Decode a body under `flags` (all ACK_ modifiers are understood). Borrows `body`. Pure.
 *   FELIX_MALFORMED   truncated, status other than 0 or 1, a text that is not UTF-8, ACK_OFFSET
 *                     on a failure, ACK_DETAIL without ACK_CODE
 */
enum felix_err ack_decode(uint16_t flags, struct slice body, struct publish_ack *ret);

#endif
