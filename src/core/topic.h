/*
 * The owner's side of a Felix stream: sequence numbers, replay ring, merging of lone items.
 *
 * A topic belongs to one reactor (its shard) and does no I/O: topic_publish and topic_tick hand
 * finished batches to the `deliver` function given at the call, in sequence order. Delivery to
 * subscribers, here or on other reactors, is the core's (core.h).
 */
#ifndef CORE_TOPIC_H
#define CORE_TOPIC_H

#include "core/batch.h"
#include "wire/message.h"

struct topic_limits {
    uint32_t replay_items_max;
    size_t replay_bytes_max;
    struct batch_limits frame;
};

struct topic {
    uint64_t next_seq;    /* of the next batch */
    uint64_t visible_seq; /* end of what subscribers may see: next_seq, or what is committed */
    bool durable;         /* batches enter the ring when they are committed */

    /* Replay ring: batches, oldest first. */
    struct buf **ring; /* ring_capacity, a power of two */
    uint32_t ring_capacity, ring_head, ring_count;
    uint64_t ring_items;
    size_t ring_bytes; /* memory, payloads and overhead */

    /* Lone items of this turn: the first as it came, more of them copied into one block. */
    struct buf *lone;
    struct payload_list lone_list;
    size_t lone_headroom;
    struct buf *merge;
    size_t merge_used; /* bytes of the list in merge, from MERGE_LIST_AT on */
    uint32_t merge_count;
    uint64_t merge_payload_bytes;
    uint64_t first_read_ns;
};

/* Receives each finished batch once, in sequence order; borrows it. */
typedef void (*topic_deliver)(void *context, struct buf *block);

/** `end`: sequence number that a durable topic goes on at; 0 otherwise. */
void topic_init(struct topic *topic, bool durable, uint64_t end);
void topic_deinit(struct topic *topic);

/**
 * Append a publish of at least one item. Takes one reference of `body`, in which `list` lies with
 * `headroom` writable bytes before it. A publish of several items is delivered at once; a lone
 * item may wait for company until topic_tick, which the owner calls before its turn ends.
 * `read_ns` is when it was read, 0 when that is not measured.
 */
void topic_publish(struct topic *topic, const struct topic_limits *limits, struct buf *body,
                   const struct payload_list *list, size_t headroom, uint64_t read_ns,
                   topic_deliver deliver, void *context);

/** Sequence number of the next item that is published; lone items that wait are counted. */
uint64_t topic_tail(const struct topic *topic);

/** A batch of a durable topic that was delivered is committed: it may be replayed. In order. */
void topic_commit(struct topic *topic, const struct topic_limits *limits, struct buf *block);

/** A durable topic that has had no item goes on at `end`: its log was opened late. */
void topic_begin(struct topic *topic, uint64_t end);

/** Nothing from `end` on was kept: a durable topic goes on there. It must not be open. */
void topic_rewind(struct topic *topic, uint64_t end);

/** Are lone items waiting for topic_tick? */
static inline bool topic_is_open(const struct topic *topic) {
    return topic->lone != NULL || topic->merge_count > 0;
}

/** Deliver the lone items of this turn, merged into one batch. */
void topic_tick(struct topic *topic, const struct topic_limits *limits, topic_deliver deliver,
                void *context);

/** Sequence number of the oldest item in the ring; visible_seq when there is none. */
uint64_t topic_oldest(const struct topic *topic, const struct topic_limits *limits);

/** Where a replay begins in the ring. */
struct topic_position {
    uint32_t ring_index;
    uint32_t first_item;
};

/**
 * Resolve a start position. FELIX_OK: *ret_seq is the first sequence number, and the batches from
 * *ret_at on are to be replayed (none if *ret_seq is visible_seq).
 * FELIX_CURSOR_TOO_OLD, FELIX_CURSOR_IN_FUTURE: *ret_seq is what is available.
 * FELIX_WOULD_BLOCK, of a durable topic: it begins before the ring, at *ret_seq or, from the
 * earliest on, wherever the log does.
 * The topic must not be open. Source: broker specification 4.9.
 */
enum felix_err topic_seek(const struct topic *topic, const struct topic_limits *limits,
                          enum start_kind start, uint64_t offset, uint64_t *ret_seq,
                          struct topic_position *ret_at);

/** The batch at `ring_index`, or NULL past the end. Borrowed. */
struct buf *topic_ring_at(const struct topic *topic, uint32_t ring_index);

/** Give up the oldest batch of the ring for memory's sake; the bytes won, 0 when it is empty. */
size_t topic_trim(struct topic *topic);

#endif
