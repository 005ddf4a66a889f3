#include "core/batch.h"

#include "base/check.h"
#include "base/cursor.h"

static bool fits_one_frame(const struct batch_limits *limits, const struct payload_list *list) {
    return list->count <= limits->items_max &&
           (list->payload_bytes <= limits->payload_bytes_max || list->count == 1);
}

/* Does an item of `bytes` still fit a frame that holds `items` items of `payload_bytes`? */
static bool item_fits(const struct batch_limits *limits, uint32_t items, uint64_t payload_bytes,
                      uint64_t bytes) {
    return items == 0 ||
           (items < limits->items_max && payload_bytes + bytes <= limits->payload_bytes_max);
}

static uint32_t count_frames(const struct batch_limits *limits, const struct payload_list *list) {
    struct payload_cursor cursor = payload_walk(list);
    struct slice payload;
    uint32_t frames = 1, items = 0;
    uint64_t bytes = 0;
    while (payload_next(&cursor, &payload)) {
        if (!item_fits(limits, items, bytes, payload.len)) {
            frames++;
            items = 0;
            bytes = 0;
        }
        items++;
        bytes += payload.len;
    }
    return frames;
}

static void put_prefix(struct batch_frame *frame) {
    frame->prefix_bytes = BATCH_PREFIX_BYTES;
    size_t written = event_prefix_encode(FRAME_EVENT_BATCH_SHARED, 0, 0, frame->items,
                                         frame->data_bytes, frame->prefix);
    INVARIANT(written == BATCH_PREFIX_BYTES);
}

static void split(const struct batch_limits *limits, struct batch *batch) {
    struct payload_cursor cursor = payload_walk(&batch->list);
    struct slice payload;
    struct batch_frame *frame = batch->frames;
    uint64_t bytes = 0;
    *frame = (struct batch_frame){.data = batch->list.bytes.data + 4};
    while (payload_next(&cursor, &payload)) {
        if (!item_fits(limits, frame->items, bytes, payload.len)) {
            put_prefix(frame);
            frame++;
            *frame = (struct batch_frame){.data = payload.data - 4};
            bytes = 0;
        }
        frame->items++;
        frame->data_bytes += 4 + payload.len;
        bytes += payload.len;
    }
    put_prefix(frame);
    INVARIANT(frame == &batch->frames[batch->frame_count - 1]);
}

/* One frame, its header written right in front of the list: a single run of bytes. */
static void frame_in_place(struct batch *batch) {
    struct batch_frame *frame = &batch->frames[0];
    uint8_t *header = (uint8_t *)(uintptr_t)batch->list.bytes.data - FRAME_HEADER_BYTES;
    frame_header_encode(header, FRAME_EVENT_BATCH_SHARED, (uint32_t)batch->list.bytes.len);
    *frame = (struct batch_frame){
        .items = batch->list.count,
        .data = header,
        .data_bytes = FRAME_HEADER_BYTES + batch->list.bytes.len,
    };
}

struct buf *batch_new(const struct batch_limits *limits, struct buf *body, struct payload_list list,
                      size_t headroom, bool durable) {
    INVARIANT(list.count > 0);
    bool one = fits_one_frame(limits, &list);
    uint32_t frame_count = one ? 1 : count_frames(limits, &list);
    size_t bytes = sizeof(struct batch) + frame_count * sizeof(struct batch_frame);
    struct buf *block = buf_new(bytes + (durable ? frame_count * BATCH_OFFSET_PREFIX_BYTES : 0));
    block->companion = body;
    struct batch *batch = batch_of(block);
    *batch = (struct batch){.list = list, .frame_count = frame_count};
    if (durable)
        batch->offset_prefixes = (uint8_t(*)[BATCH_OFFSET_PREFIX_BYTES])(block->data + bytes);
    if (one && headroom >= BATCH_HEADROOM_BYTES)
        frame_in_place(batch);
    else
        split(limits, batch);
    return block;
}

struct slice batch_items_of(const struct batch_frame *frame) {
    size_t before = frame->prefix_bytes > 0 ? 0 : BATCH_PREFIX_BYTES;
    return slice_of(frame->data + before, frame->data_bytes - before);
}

void batch_number(struct buf *block, uint64_t base_seq) {
    struct batch *batch = batch_of(block);
    batch->base_seq = base_seq;
    if (batch->offset_prefixes == NULL)
        return;
    for (uint32_t i = 0; i < batch->frame_count; i++) {
        const struct batch_frame *frame = &batch->frames[i];
        size_t written =
            event_prefix_encode(FRAME_EVENT_BATCH_SHARED | FRAME_EVENT_OFFSETS, 0, base_seq,
                                frame->items, batch_items_of(frame).len, batch->offset_prefixes[i]);
        INVARIANT(written == BATCH_OFFSET_PREFIX_BYTES);
        base_seq += frame->items;
    }
}

void batch_share(struct buf *block) {
    if (block->shared)
        return;
    buf_share(block);
    buf_share(block->companion);
}

size_t batch_memory_bytes(const struct buf *block) {
    return block->capacity + block->companion->capacity;
}
