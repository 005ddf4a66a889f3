/*
 * Our own event frames are a prefix, written here, followed by item bytes that came with a
 * publish: both lay items out as (length, payload). Decoding serves the client, which also meets
 * the modifiers that other brokers set; with timestamps each item has eight bytes more in front.
 */
#include "wire/event.h"

#include "base/check.h"
#include "base/cursor.h"

#define EVENT_FLAGS_KNOWN                                                                          \
    (FRAME_EVENT_BATCH | FRAME_EVENT_BATCH_SHARED | FRAME_EVENT_OFFSETS | FRAME_EVENT_SKIPPED |    \
     FRAME_EVENT_PUBLISHER | FRAME_EVENT_TIMESTAMPS)

static bool is_addressed(uint16_t flags) {
    return (flags & FRAME_EVENT_BATCH_SHARED) == 0;
}

size_t event_prefix_bytes(uint16_t flags) {
    size_t bytes = FRAME_HEADER_BYTES + 4;
    if (is_addressed(flags))
        bytes += 8;
    if (flags & FRAME_EVENT_OFFSETS)
        bytes += 8;
    return bytes;
}

size_t event_prefix_encode(uint16_t flags, uint64_t subscription_id, uint64_t base_offset,
                           uint32_t count, size_t item_bytes, uint8_t *out) {
    size_t prefix_bytes = event_prefix_bytes(flags);
    size_t body_bytes = prefix_bytes - FRAME_HEADER_BYTES + item_bytes;
    INVARIANT(body_bytes <= UINT32_MAX);

    struct writer w = writer_of(out, prefix_bytes);
    frame_header_encode(writer_reserve(&w, FRAME_HEADER_BYTES), flags, (uint32_t)body_bytes);
    if (is_addressed(flags))
        writer_u64(&w, subscription_id);
    if (flags & FRAME_EVENT_OFFSETS)
        writer_u64(&w, base_offset);
    writer_u32(&w, count);
    return prefix_bytes;
}

size_t event_stamped_bytes(uint32_t count, size_t item_bytes) {
    return item_bytes + (size_t)count * EVENT_TIMESTAMP_BYTES;
}

size_t event_items_stamp(struct slice items, uint32_t count, const uint64_t *timestamps,
                         uint64_t one_us, uint8_t *out) {
    struct reader in = reader_of(items);
    struct writer w = writer_of(out, event_stamped_bytes(count, items.len));
    for (uint32_t i = 0; i < count; i++) {
        uint32_t payload_bytes = reader_u32(&in);
        writer_u64(&w, timestamps != NULL ? timestamps[i] : one_us);
        writer_u32(&w, payload_bytes);
        writer_bytes(&w, reader_take(&in, payload_bytes));
    }
    INVARIANT(!in.failed && !w.failed);
    return (size_t)(w.at - out);
}

/* Proves `count` items at the start of `in`; `*ret_bytes` tells how long they are together. */
static bool items_prove(struct reader in, uint32_t count, bool timestamps, size_t *ret_bytes) {
    const uint8_t *start = in.at;
    if (count > reader_left(&in) / EVENT_LENGTH_BYTES)
        return false;
    for (uint32_t i = 0; i < count && !in.failed; i++) {
        if (timestamps)
            reader_take(&in, EVENT_TIMESTAMP_BYTES);
        reader_take(&in, reader_u32(&in));
    }
    *ret_bytes = (size_t)(in.at - start);
    return !in.failed;
}

enum felix_err event_batch_decode(uint16_t flags, struct slice body, struct event_batch *ret) {
    if ((flags & ~EVENT_FLAGS_KNOWN) != 0)
        return FELIX_UNKNOWN_FLAGS;
    if ((flags & (FRAME_EVENT_BATCH | FRAME_EVENT_BATCH_SHARED)) == 0)
        return FELIX_MALFORMED;
    if ((flags & FRAME_EVENT_SKIPPED) && !(flags & FRAME_EVENT_OFFSETS))
        return FELIX_MALFORMED;

    struct reader in = reader_of(body);
    struct event_batch batch = {
        .addressed = is_addressed(flags),
        .has_offsets = (flags & FRAME_EVENT_OFFSETS) != 0,
        .has_timestamps = (flags & FRAME_EVENT_TIMESTAMPS) != 0,
    };
    if (batch.addressed)
        batch.subscription_id = reader_u64(&in);
    if (batch.has_offsets)
        batch.base_offset = reader_u64(&in);
    if (flags & FRAME_EVENT_SKIPPED)
        batch.skipped_before = reader_u64(&in);
    if (flags & FRAME_EVENT_PUBLISHER)
        batch.publisher = reader_take(&in, reader_u8(&in));
    batch.count = reader_u32(&in);
    if (in.failed)
        return FELIX_MALFORMED;

    batch.items.data = in.at;
    if (!items_prove(in, batch.count, batch.has_timestamps, &batch.items.len))
        return FELIX_MALFORMED;
    *ret = batch;
    return FELIX_OK;
}

struct event_cursor event_walk(const struct event_batch *batch) {
    return (struct event_cursor){
        .at = batch->items.data,
        .left = batch->count,
        .timestamps = batch->has_timestamps,
    };
}

bool event_next(struct event_cursor *cursor, struct slice *ret_payload) {
    if (cursor->left == 0)
        return false;
    cursor->left--;
    if (cursor->timestamps) {
        cursor->timestamp_us = be64_load(cursor->at);
        cursor->at += EVENT_TIMESTAMP_BYTES;
    }
    ret_payload->len = be32_load(cursor->at);
    ret_payload->data = cursor->at + EVENT_LENGTH_BYTES;
    cursor->at = ret_payload->data + ret_payload->len;
    return true;
}
