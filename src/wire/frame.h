/* The 12-byte frame header. Source: wire specification, sections 3.1 and 3.2. */
#ifndef WIRE_FRAME_H
#define WIRE_FRAME_H

#include "base/err.h"
#include "base/slice.h"
#include "wire/limits.h"

#define FRAME_MAGIC 0x464C5831u /* "FLX1" */
#define FRAME_VERSION 1u

/* Flag bits. A body is JSON text when none of the layout bits is set. */
enum frame_flag {
    FRAME_PUBLISH_BATCH = 0x0001,      /* layout: publish batch, client to broker */
    FRAME_EVENT_BATCH = 0x0002,        /* layout: events of one subscription */
    FRAME_EVENT_BATCH_SHARED = 0x0004, /* layout: events without subscription id */
    FRAME_PUBLISH_ACKED = 0x0008,      /* modifies PUBLISH_BATCH */
    FRAME_PUBLISH_ACK = 0x0010,        /* layout: publish acknowledgement */
    FRAME_EVENT_OFFSETS = 0x0020,      /* modifies both event layouts */
    FRAME_PUBLISH_KEYED = 0x0040,      /* modifies PUBLISH_BATCH */
    FRAME_ACK_OWNER = 0x0080,          /* modifies PUBLISH_ACK */
    FRAME_PUBLISH_IDEMPOTENT = 0x0100, /* modifies PUBLISH_BATCH, needs ACKED */
    FRAME_ACK_CODE = 0x0200,           /* modifies PUBLISH_ACK, failures only */
    FRAME_ACK_DETAIL = 0x0400,         /* modifies PUBLISH_ACK, needs ACK_CODE */
    FRAME_EVENT_SKIPPED = 0x0800,      /* modifies both event layouts, needs OFFSETS */
    FRAME_ACK_OFFSET = 0x1000,         /* modifies PUBLISH_ACK, successes only */
    FRAME_EVENT_PUBLISHER = 0x2000,    /* modifies both event layouts */
    FRAME_EVENT_TIMESTAMPS = 0x4000,   /* modifies both event layouts */
};

/* A layout of ours: cache_frame.h. Only this very value, and only where OWN_CACHE_FRAMES was
 * negotiated. The original has no use for both event layouts at once, with any modifier; and the
 * bit that it never assigned makes it unknown to whoever did not negotiate. */
#define FRAME_CACHE 0x8006u

/* Ours as well, only where OWN_ACK_LEVELS was negotiated: modifies PUBLISH_ACK, successes only. */
#define FRAME_ACK_LEVEL 0x8000u

/* Bits that may stand in a frame of a client. The others belong to what brokers send, or to what
 * this broker does not serve: whoever sets one is told so. */
#define FRAME_FLAGS_OF_CLIENTS 0x007Fu

#define FRAME_FLAGS_ORIGINAL_V1 0x0007u /* assumed of a peer that negotiated nothing */

struct frame_header {
    uint16_t flags;
    uint32_t body_bytes;
};

/**
 * Decode the fixed header at the start of `in`.
 *
 * Pure: no I/O, no allocation, no state. Any thread. Borrows `in`.
 * `ret` is written only when FELIX_OK is returned.
 *
 *   FELIX_OK           exactly FRAME_HEADER_BYTES were consumed
 *   FELIX_INCOMPLETE   fewer than FRAME_HEADER_BYTES: call again with more
 *   FELIX_BAD_MAGIC    bytes 0..3 are not "FLX1"
 *   FELIX_BAD_VERSION  bytes 4..5 are not 1
 *   FELIX_TOO_LARGE    the body is longer than max_body_bytes (equal is allowed)
 *
 * Checked in that order. Source: wire specification, section 3.1.
 */
enum felix_err frame_header_decode(struct slice in, uint32_t max_body_bytes,
                                   struct frame_header *ret);

/** Write the header of a frame into `out`, which has room for FRAME_HEADER_BYTES. Pure. */
void frame_header_encode(uint8_t out[FRAME_HEADER_BYTES], uint16_t flags, uint32_t body_bytes);

#endif
