#include "client/message_queue.h"

#include <stdio.h>
#include <string.h>

#define COLLECT_BYTES_MAX ((size_t)256 << 10)

void message_queue_init(struct message_queue *queue, enum felix_queue_policy policy,
                        size_t messages_max, size_t bytes_max) {
    *queue = (struct message_queue){
        .policy = policy, .messages_max = messages_max, .bytes_max = bytes_max};
    /* Well before the broker has used up its window. */
    queue->collect_bytes = bytes_max / 8 < COLLECT_BYTES_MAX ? bytes_max / 8 : COLLECT_BYTES_MAX;
    (void)pthread_mutex_init(&queue->lock, NULL);
    waiter_reset(&queue->waiter);
}

static void free_list(struct queue_block *block) {
    while (block != NULL) {
        struct queue_block *next = block->next;
        buf_unref(block->buf);
        block = next;
    }
}

void message_queue_deinit(struct message_queue *queue) {
    free_list(queue->head);
    free_list(queue->spent);
    free_list(queue->current);
    (void)pthread_mutex_destroy(&queue->lock);
}

static struct queue_block *make_block(const struct event_batch *batch, struct buf *buf) {
    struct slice items = batch->items;
    if (buf == NULL) {
        buf = buf_new(FRAME_READER_HEADROOM_BYTES + items.len);
        uint8_t *copy = buf->data + FRAME_READER_HEADROOM_BYTES;
        if (items.len > 0)
            memcpy(copy, items.data, items.len);
        items.data = copy;
    }
    struct event_batch moved = *batch;
    moved.items = items;
    struct queue_block *block = (struct queue_block *)(void *)buf->data;
    *block = (struct queue_block){
        .buf = buf,
        .cursor = event_walk(&moved),
        .offset = batch->base_offset,
        .has_offsets = batch->has_offsets,
    };
    return block;
}

static bool block_next(struct queue_block *block, struct slice *ret) {
    if (!event_next(&block->cursor, ret))
        return false;
    block->offset++;
    return true;
}

static size_t block_bytes(const struct queue_block *block) {
    return block->buf->capacity;
}

static struct queue_block *pop_head(struct message_queue *queue) {
    struct queue_block *block = queue->head;
    queue->head = block->next;
    if (queue->head == NULL)
        queue->tail = NULL;
    queue->messages -= block->cursor.left;
    queue->bytes -= block_bytes(block);
    block->next = NULL;
    return block;
}

/* Make room for `count` more by dropping the oldest; the list of emptied blocks goes to *freed. */
static uint64_t drop_oldest(struct message_queue *queue, size_t count, size_t bytes,
                            struct queue_block **freed) {
    uint64_t dropped = 0;
    while (queue->head != NULL && (queue->messages + count > queue->messages_max ||
                                   queue->bytes + bytes > queue->bytes_max)) {
        size_t excess = queue->messages + count > queue->messages_max
                            ? queue->messages + count - queue->messages_max
                            : queue->head->cursor.left;
        struct slice ignored;
        if (excess >= queue->head->cursor.left) {
            dropped += queue->head->cursor.left;
            struct queue_block *block = pop_head(queue);
            block->next = *freed;
            *freed = block;
            continue;
        }
        for (size_t i = 0; i < excess && block_next(queue->head, &ignored); i++)
            queue->messages--;
        dropped += excess;
    }
    return dropped;
}

/* Shorten the new block by the policy; returns how many messages were dropped. */
static uint64_t apply_policy(struct message_queue *queue, struct queue_block *block,
                             struct queue_block **freed) {
    uint64_t dropped = 0;
    struct slice ignored;
    if (queue->policy == FELIX_QUEUE_DROP_OLD) {
        while (block->cursor.left > queue->messages_max && block_next(block, &ignored))
            dropped++;
        return dropped + drop_oldest(queue, block->cursor.left, block_bytes(block), freed);
    }
    size_t room = queue->messages_max > queue->messages ? queue->messages_max - queue->messages : 0;
    if (queue->bytes + block_bytes(block) > queue->bytes_max && queue->messages > 0)
        room = 0;
    if (block->cursor.left > room) {
        dropped = block->cursor.left - room;
        block->cursor.left = (uint32_t)room;
    }
    return dropped;
}

static size_t collect_locked(struct message_queue *queue, struct queue_block **freed) {
    size_t credit_bytes = queue->credit_bytes;
    queue->credit_bytes = 0;
    queue->spent_bytes = 0;
    *freed = queue->spent;
    queue->spent = NULL;
    return credit_bytes;
}

size_t message_queue_push(struct message_queue *queue, const struct event_batch *batch,
                          struct buf *buf, size_t credit_bytes, uint64_t *dropped) {
    struct queue_block *block = make_block(batch, buf);
    struct queue_block *spent = NULL, *evicted = NULL;
    uint64_t lost = 0;
    (void)pthread_mutex_lock(&queue->lock);
    size_t free_credit = collect_locked(queue, &spent);
    if (queue->policy != FELIX_QUEUE_BLOCK) {
        lost = apply_policy(queue, block, &evicted);
        queue->dropped += lost;
        free_credit += credit_bytes;
        credit_bytes = 0;
    }
    block->credit_bytes = credit_bytes;
    bool kept = block->cursor.left > 0;
    if (kept) {
        if (queue->tail != NULL)
            queue->tail->next = block;
        else
            queue->head = block;
        queue->tail = block;
        queue->messages += block->cursor.left;
        queue->bytes += block_bytes(block);
    }
    (void)pthread_mutex_unlock(&queue->lock);
    if (kept)
        waiter_signal(&queue->waiter);
    else
        buf_unref(block->buf);
    free_list(spent);
    free_list(evicted);
    *dropped += lost;
    return kept ? free_credit : free_credit + credit_bytes;
}

void message_queue_end(struct message_queue *queue, enum felix_err err, const char *text) {
    (void)pthread_mutex_lock(&queue->lock);
    if (!queue->ended) {
        queue->ended = true;
        queue->end_err = err;
        (void)snprintf(queue->end_text, sizeof queue->end_text, "%s", text);
    }
    (void)pthread_mutex_unlock(&queue->lock);
    waiter_signal(&queue->waiter);
}

size_t message_queue_collect(struct message_queue *queue) {
    struct queue_block *spent = NULL;
    (void)pthread_mutex_lock(&queue->lock);
    size_t credit_bytes = collect_locked(queue, &spent);
    (void)pthread_mutex_unlock(&queue->lock);
    free_list(spent);
    return credit_bytes;
}

static bool take_from_current(struct message_queue *queue, struct felix_message *ret) {
    struct queue_block *block = queue->current;
    if (block == NULL)
        return false;
    uint64_t offset = block->offset;
    struct slice payload;
    if (!block_next(block, &payload))
        return false;
    *ret = (struct felix_message){.data = payload.data,
                                  .len = payload.len,
                                  .offset = offset,
                                  .has_offset = block->has_offsets,
                                  .has_timestamp = block->cursor.timestamps,
                                  .timestamp_us = block->cursor.timestamp_us};
    return true;
}

enum queue_take message_queue_take(struct message_queue *queue, struct felix_message *ret,
                                   bool *ret_collect) {
    *ret_collect = false;
    if (take_from_current(queue, ret))
        return QUEUE_TAKEN;
    enum queue_take result = QUEUE_TAKEN;
    (void)pthread_mutex_lock(&queue->lock);
    struct queue_block *read = queue->current;
    queue->current = NULL;
    if (read != NULL) {
        read->next = queue->spent;
        queue->spent = read;
        size_t before = queue->spent_bytes;
        queue->spent_bytes +=
            read->credit_bytes > block_bytes(read) ? read->credit_bytes : block_bytes(read);
        queue->credit_bytes += read->credit_bytes;
        *ret_collect = before < queue->collect_bytes && queue->spent_bytes >= queue->collect_bytes;
    }
    if (queue->head != NULL)
        queue->current = pop_head(queue);
    else if (queue->ended)
        result = QUEUE_ENDED;
    else
        result = QUEUE_EMPTY;
    if (result == QUEUE_EMPTY)
        waiter_reset(&queue->waiter);
    (void)pthread_mutex_unlock(&queue->lock);
    if (result == QUEUE_TAKEN)
        (void)take_from_current(queue, ret);
    return result;
}

uint64_t message_queue_dropped(struct message_queue *queue) {
    (void)pthread_mutex_lock(&queue->lock);
    uint64_t dropped = queue->dropped;
    (void)pthread_mutex_unlock(&queue->lock);
    return dropped;
}
