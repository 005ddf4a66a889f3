#include "core/subscription.h"

#include <stdlib.h>

#include "base/check.h"

#define QUEUE_MIN 8u

void subscription_init(struct subscription *sub, uint64_t handle, enum queue_policy policy,
                       uint32_t batches_max, size_t bytes_max) {
    *sub = (struct subscription){
        .handle = handle, .policy = policy, .batches_max = batches_max, .bytes_max = bytes_max};
}

void subscription_deinit(struct subscription *sub) {
    struct queued_batch entry;
    INVARIANT(!sub->attached && !sub->ready);
    while (subscription_pop(sub, &entry))
        buf_unref(entry.block);
    free(sub->history.entries);
    free(sub->live.entries);
    sub->history.entries = NULL;
    sub->live.entries = NULL;
}

bool subscription_has_room(const struct subscription *sub, size_t bytes) {
    return sub->live.count == 0 ||
           (sub->live.count < sub->batches_max && sub->live_bytes + bytes <= sub->bytes_max);
}

static void grow(struct batch_queue *queue) {
    uint32_t capacity = queue->capacity == 0 ? QUEUE_MIN : queue->capacity * 2;
    struct queued_batch *entries = xmalloc(capacity * sizeof *entries);
    for (uint32_t i = 0; i < queue->count; i++)
        entries[i] = queue->entries[(queue->head + i) & (queue->capacity - 1)];
    free(queue->entries);
    *queue = (struct batch_queue){.entries = entries, .capacity = capacity, .count = queue->count};
}

static void put(struct batch_queue *queue, const struct queued_batch *entry) {
    if (queue->count == queue->capacity)
        grow(queue);
    queue->entries[(queue->head + queue->count) & (queue->capacity - 1)] = *entry;
    queue->count++;
}

static bool take(struct batch_queue *queue, struct queued_batch *ret) {
    if (queue->count == 0)
        return false;
    *ret = queue->entries[queue->head];
    queue->head = (queue->head + 1) & (queue->capacity - 1);
    queue->count--;
    return true;
}

uint32_t queued_items(const struct queued_batch *entry) {
    return batch_of(entry->block)->list.count - entry->first_item;
}

void subscription_push(struct subscription *sub, struct buf *block, uint32_t first_item) {
    struct queued_batch entry = {
        .block = buf_ref(block), .first_item = first_item, .replay = first_item > 0};
    put(&sub->live, &entry);
    sub->live_bytes += batch_of(block)->list.bytes.len;
    sub->queued_items += queued_items(&entry);
}

void subscription_push_history(struct subscription *sub, struct buf *block, uint32_t first_item,
                               size_t page_bytes) {
    INVARIANT(sub->live.count == 0);
    struct queued_batch entry = {.block = buf_ref(block),
                                 .first_item = first_item,
                                 .replay = true,
                                 .page_bytes = page_bytes};
    put(&sub->history, &entry);
    sub->queued_items += queued_items(&entry);
}

bool subscription_is_empty(const struct subscription *sub) {
    return sub->history.count == 0 && sub->live.count == 0;
}

bool subscription_pop_live(struct subscription *sub, struct queued_batch *ret) {
    if (!take(&sub->live, ret))
        return false;
    sub->live_bytes -= batch_of(ret->block)->list.bytes.len;
    sub->queued_items -= queued_items(ret);
    return true;
}

bool subscription_pop(struct subscription *sub, struct queued_batch *ret) {
    if (!take(&sub->history, ret))
        return subscription_pop_live(sub, ret);
    sub->queued_items -= queued_items(ret);
    if (sub->history.count == 0 && !sub->behind) { /* there is no more to come */
        free(sub->history.entries);
        sub->history = (struct batch_queue){0};
    }
    return true;
}
