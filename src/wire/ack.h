/* Publish acknowledgement body. Source: wire specification 4.3; wire extensions 3.2;
 * docs/acknowledgements.md for ACK_LEVEL, which is ours. */
#ifndef WIRE_ACK_H
#define WIRE_ACK_H

#include "base/err.h"
#include "base/slice.h"
#include "wire/limits.h"

/* How safe an acknowledged publish is. */
enum ack_level {
    ACK_LEVEL_MEMORY = 0,  /* in the broker's memory: an in-memory stream */
    ACK_LEVEL_WRITTEN = 1, /* with the operating system: outlives the broker */
    ACK_LEVEL_FLUSHED = 2, /* on the disk: outlives the machine */
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
    uint64_t offset;      /* with ACK_OFFSET */
    enum ack_level level; /* with ACK_LEVEL */
};

/** Room that any acknowledgement frame of ours needs, header included. */
#define ACK_FRAME_BYTES_MAX (FRAME_HEADER_BYTES + 8u + 1u + 2u + ACK_MESSAGE_BYTES_MAX + 3u)

/**
 * Encode a whole frame (header and body). `flags` is PUBLISH_ACK plus what the peer understands
 * of ACK_CODE, ACK_OFFSET and ACK_LEVEL; the header gets only what fits the outcome: a code on a
 * failure, offset and level on a success. A success carries no message; another message is cut to
 * ACK_MESSAGE_BYTES_MAX at a character boundary. OWNER and DETAIL are never emitted by us.
 * Returns the bytes written into `out`. Pure.
 */
size_t ack_frame_encode(uint16_t flags, const struct publish_ack *ack,
                        uint8_t out[ACK_FRAME_BYTES_MAX]);

/**
 * Decode a body under `flags` (all ACK_ modifiers are understood). Borrows `body`. Pure.
 *   FELIX_MALFORMED   truncated, status other than 0 or 1, a text that is not UTF-8, ACK_OFFSET
 *                     or ACK_LEVEL on a failure, ACK_DETAIL without ACK_CODE, an unknown level
 */
enum felix_err ack_decode(uint16_t flags, struct slice body, struct publish_ack *ret);

/** "memory", "written" or "flushed". */
const char *ack_level_name(enum ack_level level);

/** The level of that name. False: there is none. */
bool ack_level_parse(struct slice name, enum ack_level *ret);

#endif
