/*
 * A publish, encoded once for all of its subscribers.
 *
 * A batch is a block (struct buf) whose bytes are a `struct batch`; the block's companion holds
 * the payloads, in the layout in which they arrived, which is also the layout of an event frame.
 * Whoever sends it points at those bytes: there is no copy per subscriber. Immutable after
 * batch_number; reference counting is the block's.
 *
 * A batch over the limits of a delivery frame is split, in order, into several frames; then each
 * frame is a 16-byte prefix (header and count) followed by a run of the payload bytes.
 * Source: wire specification 4.5 and 6.6.
 */
#ifndef CORE_BATCH_H
#define CORE_BATCH_H

#include "base/buf.h"
#include "wire/event.h"

#define BATCH_PREFIX_BYTES (FRAME_HEADER_BYTES + 4u)

/* Writable bytes that must precede the payload list so that one frame needs no prefix. */
#define BATCH_HEADROOM_BYTES FRAME_HEADER_BYTES

/* The prefix of a frame that tells the offset of its first item. */
#define BATCH_OFFSET_PREFIX_BYTES (FRAME_HEADER_BYTES + 8u + 4u)

struct batch_frame {
    uint8_t prefix[BATCH_PREFIX_BYTES];
    uint8_t prefix_bytes; /* 0: the header stands in front of the data */
    uint32_t items;
    const uint8_t *data;
    size_t data_bytes;
};

struct batch {
    struct payload_list list;
    uint64_t base_seq; /* sequence number of the first item in its stream */
    uint64_t read_ns;  /* when the publish was read; 0: not measured */
    /* Of a durable stream only: */
    uint64_t time_us;           /* wall clock of all its items, unless there is */
    const uint64_t *timestamps; /* one for each; inside the companion */
    uint8_t (*offset_prefixes)[BATCH_OFFSET_PREFIX_BYTES]; /* one a frame; NULL: in memory */
    uint32_t frame_count;
    struct batch_frame frames[];
};

struct batch_limits {
    uint32_t items_max;         /* of one delivery frame */
    uint32_t payload_bytes_max; /* of one delivery frame; a single larger item goes alone */
};

/**
 * Make the batch of `list`, which lies inside `body` and has `headroom` writable bytes before it.
 * Takes one reference of `body`. Returns owned (one reference). `list.count` is at least 1.
 * `durable`: its frames may be sent with offsets, see batch_items_of.
 */
struct buf *batch_new(const struct batch_limits *limits, struct buf *body, struct payload_list list,
                      size_t headroom, bool durable);

/** Set the sequence number of its first item, and what follows from it. Once. */
void batch_number(struct buf *block, uint64_t base_seq);

/** The items of a frame, lengths included, without header and count. */
struct slice batch_items_of(const struct batch_frame *frame);

/** When item `index` of a durable batch was published, microseconds of wall clock. */
static inline uint64_t batch_time_us(const struct batch *batch, uint32_t index) {
    return batch->timestamps != NULL ? batch->timestamps[index] : batch->time_us;
}

static inline struct batch *batch_of(struct buf *block) {
    return (struct batch *)(void *)block->data;
}

/** Before it crosses to another reactor: the block and its companion count atomically. */
void batch_share(struct buf *block);

/** Bytes that keeping this batch costs. */
size_t batch_memory_bytes(const struct buf *block);

#endif
