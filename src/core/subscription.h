/*
 * One subscription: a bounded queue of shared batches between a topic and a client.
 *
 * Lives on the reactor of its connection. The queue is bounded by batches and by bytes; what
 * happens when it is full is the policy. Every item that is dropped is counted.
 */
#ifndef CORE_SUBSCRIPTION_H
#define CORE_SUBSCRIPTION_H

#include "core/batch.h"

enum queue_policy { QUEUE_BLOCK, QUEUE_DROP_NEW, QUEUE_DROP_OLD };

struct queued_batch {
    struct buf *block;   /* one reference */
    uint32_t first_item; /* replay may begin inside a batch */
    bool replay;         /* from the ring: carries offsets where negotiated */
};

struct fanout;

struct subscription {
    uint64_t handle; /* unique in the node: names it in messages between reactors */
    void *user;      /* the session's event stream */
    struct fanout *fanout;
    struct subscription *fanout_prev, *fanout_next;
    bool attached; /* in its fan-out: live batches arrive */

    struct queued_batch *queue; /* ring of queue_capacity, a power of two */
    uint32_t queue_capacity;
    uint32_t queue_head;
    uint32_t queue_count;
    size_t queue_bytes; /* payload bytes */
    uint64_t queue_items;

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

/** Is there room for another batch under the bounds? An empty queue always has. */
bool subscription_has_room(const struct subscription *sub, size_t payload_bytes);

/** Append, bounds or not. Shares `block`. */
void subscription_push(struct subscription *sub, struct buf *block, uint32_t first_item,
                       bool replay);

/** Look at and take the oldest; the reference passes to the caller. False when empty. */
bool subscription_peek(const struct subscription *sub, struct queued_batch *ret);
bool subscription_pop(struct subscription *sub, struct queued_batch *ret);

/** Items that an entry still stands for. */
uint32_t queued_items(const struct queued_batch *entry);

#endif
