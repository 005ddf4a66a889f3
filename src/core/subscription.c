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
    free(sub->queue);
    sub->queue = NULL;
}

bool subscription_has_room(const struct subscription *sub, size_t payload_bytes) {
    return sub->queue_count == 0 || (sub->queue_count < sub->batches_max &&
                                     sub->queue_bytes + payload_bytes <= sub->bytes_max);
}

static void grow(struct subscription *sub) {
    uint32_t capacity = sub->queue_capacity == 0 ? QUEUE_MIN : sub->queue_capacity * 2;
    struct queued_batch *queue = xmalloc(capacity * sizeof *queue);
    for (uint32_t i = 0; i < sub->queue_count; i++)
        queue[i] = sub->queue[(sub->queue_head + i) & (sub->queue_capacity - 1)];
    free(sub->queue);
    sub->queue = queue;
    sub->queue_capacity = capacity;
    sub->queue_head = 0;
}

uint32_t queued_items(const struct queued_batch *entry) {
    return batch_of(entry->block)->list.count - entry->first_item;
}

void subscription_push(struct subscription *sub, struct buf *block, uint32_t first_item,
                       bool replay) {
    if (sub->queue_count == sub->queue_capacity)
        grow(sub);
    struct queued_batch entry = {
        .block = buf_ref(block), .first_item = first_item, .replay = replay};
    sub->queue[(sub->queue_head + sub->queue_count) & (sub->queue_capacity - 1)] = entry;
    sub->queue_count++;
    sub->queue_bytes += batch_of(block)->list.payload_bytes;
    sub->queue_items += queued_items(&entry);
}

bool subscription_peek(const struct subscription *sub, struct queued_batch *ret) {
    if (sub->queue_count == 0)
        return false;
    *ret = sub->queue[sub->queue_head];
    return true;
}

bool subscription_pop(struct subscription *sub, struct queued_batch *ret) {
    if (!subscription_peek(sub, ret))
        return false;
    sub->queue_head = (sub->queue_head + 1) & (sub->queue_capacity - 1);
    sub->queue_count--;
    sub->queue_bytes -= batch_of(ret->block)->list.payload_bytes;
    sub->queue_items -= queued_items(ret);
    return true;
}
