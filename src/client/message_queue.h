/*
 * The messages of one subscription between the driver, who pushes frames, and the
 * application thread in felix_next, who takes messages one by one.
 *
 * A block is a frame's worth of messages in one buffer. Blocks that were read are not freed by
 * the reader but collected, so that the memory goes back to the thread that allocates it; with
 * them goes the flow-control credit of their bytes. Locked inside; one reader at a time.
 */
#ifndef CLIENT_MESSAGE_QUEUE_H
#define CLIENT_MESSAGE_QUEUE_H

#include <felix/felix.h>

#include "client/frame_reader.h"
#include "client/wait.h"
#include "wire/event.h"

#include <pthread.h>

/* Lies in the first FRAME_READER_HEADROOM_BYTES of its own buffer. */
struct queue_block {
    struct queue_block *next;
    struct buf *buf;
    struct event_cursor cursor; /* left: messages not taken yet */
    uint64_t offset;            /* of the next message */
    size_t credit_bytes;        /* given back to the broker when the block was read */
    bool has_offsets;
};
_Static_assert(sizeof(struct queue_block) <= FRAME_READER_HEADROOM_BYTES,
               "a block's node fits the headroom");

struct message_queue {
    pthread_mutex_t lock;
    struct waiter waiter;
    enum felix_queue_policy policy;
    size_t messages_max; /* not for FELIX_QUEUE_BLOCK: there the stream's window is the bound */
    size_t bytes_max;
    size_t collect_bytes; /* so much is read before the driver is told */
    /* Under the lock. */
    struct queue_block *head, *tail;
    size_t messages, bytes;
    struct queue_block *spent; /* read, for the driver to free */
    size_t spent_bytes;
    size_t credit_bytes;
    uint64_t dropped;
    bool ended;
    enum felix_err end_err;
    char end_text[192];
    /* The reader's. */
    struct queue_block *current;
};

void message_queue_init(struct message_queue *queue, enum felix_queue_policy policy,
                        size_t messages_max, size_t bytes_max);
/** Frees everything; no reader may be inside. */
void message_queue_deinit(struct message_queue *queue);

/**
 * Add the messages of `batch`, whose items lie in `block` behind the headroom (taken), or, with
 * `block` NULL, somewhere else (copied). `credit_bytes` are held for it; what is not kept because
 * of the policy comes back at once. Returns the credit that became free, here or through the
 * reader; adds the messages dropped to *dropped. The driver.
 */
size_t message_queue_push(struct message_queue *queue, const struct event_batch *batch,
                          struct buf *block, size_t credit_bytes, uint64_t *dropped);

/** Nothing follows; the reader gets `err` after what is queued. The driver. */
void message_queue_end(struct message_queue *queue, enum felix_err err, const char *text);

/** Free what was read and return its credit. The driver. */
size_t message_queue_collect(struct message_queue *queue);

enum queue_take {
    QUEUE_TAKEN,
    QUEUE_EMPTY, /* wait on queue->waiter, which was reset */
    QUEUE_ENDED  /* end_err and end_text say why */
};

/** Take the next message; its bytes stay valid until the next call. `*ret_collect` is set when
 * enough was read that the driver should collect. The reader. */
enum queue_take message_queue_take(struct message_queue *queue, struct felix_message *ret,
                                   bool *ret_collect);

uint64_t message_queue_dropped(struct message_queue *queue);

#endif
