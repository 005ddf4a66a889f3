/*
 * A publish, encoded once for all of its subscribers.
 *
 * A batch is a block (struct buf) whose bytes are a `struct batch`; the block's companion holds
 * the payloads, in the layout in which they arrived, which is also the layout of an event frame.
 * Whoever sends it points at those bytes: there is no copy per subscriber. Immutable after
 * batch_new but for base_seq, which the topic sets once; reference counting is the block's.
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
 */
struct buf *batch_new(const struct batch_limits *limits, struct buf *body, struct payload_list list,
                      size_t headroom);

static inline struct batch *batch_of(struct buf *block) {
    return (struct batch *)(void *)block->data;
}

/** Before it crosses to another reactor: the block and its companion count atomically. */
void batch_share(struct buf *block);

/** Bytes that keeping this batch costs. */
size_t batch_memory_bytes(const struct buf *block);

#endif
