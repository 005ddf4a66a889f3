/*
 * One subscription: a bounded queue of shared batches between a topic and a client.
 *
 * Lives on the reactor of its connection. What arrives live is bounded by batches and by bytes;
 * what happens when it is full is the policy. Every item that is dropped is counted. History is
 * taken first and counts against no bound: the ring it comes from has one, and who asks for all
 * there is must not lose for it what is published while it is sent. What lies before the ring of a
 * durable stream is read from its log, a page at a time as it is sent (core/history.c); meanwhile
 * nothing arrives live.
 */
#ifndef CORE_SUBSCRIPTION_H
#define CORE_SUBSCRIPTION_H

#include "core/batch.h"

enum queue_policy { QUEUE_BLOCK, QUEUE_DROP_NEW, QUEUE_DROP_OLD };

struct queued_batch {
    struct buf *block;   /* one reference */
    uint32_t first_item; /* replay may begin inside a batch */
    bool replay;         /* from ring or log: carries offsets where negotiated */
    size_t page_bytes;   /* memory that the log's service counts; 0: not a page of the log */
};

/* A ring of `capacity` entries, a power of two. */
struct batch_queue {
    struct queued_batch *entries;
    uint32_t capacity, head, count;
};

struct fanout;

struct subscription {
    uint64_t handle; /* unique in the node: names it in messages between reactors */
    void *user;      /* the session's event stream */
    struct fanout *fanout;
    struct subscription *fanout_prev, *fanout_next;
    bool attached; /* in its fan-out: live batches arrive, unless it is behind */

    /* Of durable streams. */
    uint64_t next_seq; /* of the next item to be queued */
    bool behind;       /* reads the log; its owner does not count it */
    bool reading;      /* a page, or the answer whether it has caught up, is awaited */
    bool answered;     /* its subscribe was */
    bool from_earliest;
    bool end_on_loss;  /* the first dropped item ends it (host->stopped) */
    uint64_t live_seq; /* end of the stream when it subscribed */

    struct batch_queue history, live;
    size_t live_bytes;     /* of the lists in `live`, the lengths of their items included */
    uint64_t queued_items; /* of both */

    enum queue_policy policy;
    uint32_t batches_max;
    size_t bytes_max;
    bool stalling; /* full under QUEUE_BLOCK: its fan-out counts it */
    uint64_t dropped_items;

    bool ready; /* in the core's list of subscriptions with something new */
    struct subscription *ready_next;
};

void subscription_init(struct subscription *sub, uint64_t handle, enum queue_policy policy,
                       uint32_t batches_max, size_t bytes_max);
/** Drops what is queued. The caller has detached it. */
void subscription_deinit(struct subscription *sub);

/** Is there room for another live batch, a list of `bytes`, under the bounds? If there is none,
 * always. */
bool subscription_has_room(const struct subscription *sub, size_t bytes);

/** Append, bounds or not; what lies before `first_item` is not for it. Shares `block`. */
void subscription_push(struct subscription *sub, struct buf *block, uint32_t first_item);
/** Append from the ring what begins at `first_item`, or a page of the log that counts as
 * `page_bytes` there, before anything live. Shares `block`. */
void subscription_push_history(struct subscription *sub, struct buf *block, uint32_t first_item,
                               size_t page_bytes);

bool subscription_is_empty(const struct subscription *sub);
/** Take the oldest, or the oldest that arrived live; the reference passes to the caller. False when
 * there is none. */
bool subscription_pop(struct subscription *sub, struct queued_batch *ret);
bool subscription_pop_live(struct subscription *sub, struct queued_batch *ret);

/** Items that an entry still stands for. */
uint32_t queued_items(const struct queued_batch *entry);

#endif
