/*
 * Lone items. A publish of one item becomes a frame of its own unless more of them arrive in the
 * same turn of the loop: then they travel as one frame, which costs each subscriber one entry
 * instead of many. The first stays where it came; the second starts a merge block into which
 * both are copied; so an unloaded broker copies nothing and waits for nothing.
 */
#include "core/topic.h"

#include <stdlib.h>

#include "base/check.h"
#include "base/cursor.h"

#define RING_MIN 16u
#define MERGE_ITEM_BYTES_MAX ((size_t)8 << 10) /* larger lone items are not worth a copy */
#define MERGE_BYTES_MIN ((size_t)4 << 10)
#define MERGE_LIST_AT ((size_t)16) /* room for a frame header before the list */

void topic_init(struct topic *topic, bool durable, uint64_t end) {
    *topic = (struct topic){.next_seq = end, .visible_seq = end, .durable = durable};
}

size_t topic_trim(struct topic *topic) {
    if (topic->ring_count == 0)
        return 0;
    struct buf *block = topic->ring[topic->ring_head];
    size_t bytes = batch_memory_bytes(block);
    topic->ring_head = (topic->ring_head + 1) & (topic->ring_capacity - 1);
    topic->ring_count--;
    topic->ring_items -= batch_of(block)->list.count;
    topic->ring_bytes -= bytes;
    buf_unref(block);
    return bytes;
}

void topic_deinit(struct topic *topic) {
    while (topic_trim(topic) > 0)
        continue;
    free(topic->ring);
    buf_unref(topic->lone);
    buf_unref(topic->merge);
    *topic = (struct topic){0};
}

static void ring_grow(struct topic *topic) {
    uint32_t capacity = topic->ring_capacity == 0 ? RING_MIN : topic->ring_capacity * 2;
    struct buf **ring = xmalloc(capacity * sizeof(struct buf *));
    for (uint32_t i = 0; i < topic->ring_count; i++)
        ring[i] = topic->ring[(topic->ring_head + i) & (topic->ring_capacity - 1)];
    free(topic->ring);
    topic->ring = ring;
    topic->ring_capacity = capacity;
    topic->ring_head = 0;
}

/* Keep whole batches while all of the newest replay_items_max items stay covered. */
static void ring_append(struct topic *topic, const struct topic_limits *limits, struct buf *block) {
    if (limits->replay_items_max == 0)
        return;
    if (topic->ring_count == topic->ring_capacity)
        ring_grow(topic);
    topic->ring[(topic->ring_head + topic->ring_count) & (topic->ring_capacity - 1)] =
        buf_ref(block);
    topic->ring_count++;
    topic->ring_items += batch_of(block)->list.count;
    topic->ring_bytes += batch_memory_bytes(block);
    while (topic->ring_count > 1 &&
           (topic->ring_items - batch_of(topic->ring[topic->ring_head])->list.count >=
                limits->replay_items_max ||
            topic->ring_bytes > limits->replay_bytes_max))
        (void)topic_trim(topic);
}

static void make_visible(struct topic *topic, const struct topic_limits *limits,
                         struct buf *block) {
    topic->visible_seq += batch_of(block)->list.count;
    ring_append(topic, limits, block);
}

static void emit(struct topic *topic, const struct topic_limits *limits, struct buf *body,
                 const struct payload_list *list, size_t headroom, uint64_t read_ns,
                 topic_deliver deliver, void *context) {
    struct buf *block = batch_new(&limits->frame, body, *list, headroom, topic->durable);
    batch_number(block, topic->next_seq);
    batch_of(block)->read_ns = read_ns;
    topic->next_seq += list->count;
    if (!topic->durable)
        make_visible(topic, limits, block);
    deliver(context, block);
    buf_unref(block);
}

void topic_commit(struct topic *topic, const struct topic_limits *limits, struct buf *block) {
    INVARIANT(topic->durable && batch_of(block)->base_seq == topic->visible_seq);
    make_visible(topic, limits, block);
}

void topic_begin(struct topic *topic, uint64_t end) {
    INVARIANT(topic->durable && !topic_is_open(topic) && topic->ring_count == 0);
    topic->next_seq = end;
    topic->visible_seq = end;
}

void topic_rewind(struct topic *topic, uint64_t end) {
    INVARIANT(topic->durable && !topic_is_open(topic) && end <= topic->next_seq);
    topic->next_seq = end;
    if (end >= topic->visible_seq)
        return;
    topic->visible_seq = end;
    while (topic_trim(topic) > 0)
        continue;
}

uint64_t topic_tail(const struct topic *topic) {
    return topic->next_seq + topic->merge_count + (topic->lone != NULL ? 1 : 0);
}

void topic_tick(struct topic *topic, const struct topic_limits *limits, topic_deliver deliver,
                void *context) {
    if (topic->lone != NULL) {
        struct buf *body = topic->lone;
        topic->lone = NULL;
        emit(topic, limits, body, &topic->lone_list, topic->lone_headroom, topic->first_read_ns,
             deliver, context);
    }
    if (topic->merge_count == 0)
        return;
    struct buf *body = topic->merge;
    topic->merge = NULL;
    struct payload_list list = {
        .bytes = slice_of(body->data + MERGE_LIST_AT, topic->merge_used),
        .count = topic->merge_count,
        .payload_bytes = topic->merge_payload_bytes,
    };
    be32_store(body->data + MERGE_LIST_AT, list.count);
    topic->merge_count = 0;
    emit(topic, limits, body, &list, MERGE_LIST_AT, topic->first_read_ns, deliver, context);
}

/* Copy the single item of `list` behind what is merged already. */
static void merge_add(struct topic *topic, const struct payload_list *list) {
    size_t item_bytes = list->bytes.len - 4;
    if (topic->merge == NULL) {
        topic->merge = buf_new(MERGE_BYTES_MIN > MERGE_LIST_AT + 4 + item_bytes
                                   ? MERGE_BYTES_MIN
                                   : MERGE_LIST_AT + 4 + item_bytes);
        topic->merge_used = 4;
        topic->merge_count = 0;
        topic->merge_payload_bytes = 0;
    }
    if (MERGE_LIST_AT + topic->merge_used + item_bytes > topic->merge->capacity) {
        struct buf *larger = buf_new((MERGE_LIST_AT + topic->merge_used + item_bytes) * 2);
        memcpy(larger->data, topic->merge->data, MERGE_LIST_AT + topic->merge_used);
        buf_unref(topic->merge);
        topic->merge = larger;
    }
    memcpy(topic->merge->data + MERGE_LIST_AT + topic->merge_used, list->bytes.data + 4,
           item_bytes);
    topic->merge_used += item_bytes;
    topic->merge_count++;
    topic->merge_payload_bytes += list->payload_bytes;
}

static bool merge_has_room(const struct topic *topic, const struct topic_limits *limits,
                           const struct payload_list *list) {
    uint32_t count = topic->merge_count + (topic->lone != NULL ? 1 : 0);
    uint64_t bytes =
        topic->merge_payload_bytes + (topic->lone != NULL ? topic->lone_list.payload_bytes : 0);
    return count < limits->frame.items_max &&
           bytes + list->payload_bytes <= limits->frame.payload_bytes_max;
}

static void publish_lone(struct topic *topic, const struct topic_limits *limits, struct buf *body,
                         const struct payload_list *list, size_t headroom, uint64_t read_ns,
                         topic_deliver deliver, void *context) {
    if (topic_is_open(topic) && !merge_has_room(topic, limits, list))
        topic_tick(topic, limits, deliver, context);
    if (!topic_is_open(topic)) {
        topic->lone = body;
        topic->lone_list = *list;
        topic->lone_headroom = headroom;
        topic->first_read_ns = read_ns;
        topic->merge_payload_bytes = 0;
        return;
    }
    if (topic->lone != NULL) {
        merge_add(topic, &topic->lone_list);
        buf_unref(topic->lone);
        topic->lone = NULL;
    }
    merge_add(topic, list);
    buf_unref(body);
}

void topic_publish(struct topic *topic, const struct topic_limits *limits, struct buf *body,
                   const struct payload_list *list, size_t headroom, uint64_t read_ns,
                   topic_deliver deliver, void *context) {
    INVARIANT(list->count > 0);
    if (list->count == 1 && list->payload_bytes <= MERGE_ITEM_BYTES_MAX &&
        limits->frame.items_max > 1) {
        publish_lone(topic, limits, body, list, headroom, read_ns, deliver, context);
        return;
    }
    topic_tick(topic, limits, deliver, context);
    emit(topic, limits, body, list, headroom, read_ns, deliver, context);
}

struct buf *topic_ring_at(const struct topic *topic, uint32_t ring_index) {
    if (ring_index >= topic->ring_count)
        return NULL;
    return topic->ring[(topic->ring_head + ring_index) & (topic->ring_capacity - 1)];
}

uint64_t topic_oldest(const struct topic *topic, const struct topic_limits *limits) {
    if (topic->ring_count == 0)
        return topic->visible_seq;
    uint64_t oldest = batch_of(topic_ring_at(topic, 0))->base_seq;
    if (topic->visible_seq - oldest > limits->replay_items_max)
        oldest = topic->visible_seq - limits->replay_items_max;
    return oldest;
}

static struct topic_position position_of(const struct topic *topic, uint64_t seq) {
    uint32_t low = 0, high = topic->ring_count;
    while (low < high) { /* the first batch that ends after seq */
        uint32_t middle = low + (high - low) / 2;
        const struct batch *batch = batch_of(topic_ring_at(topic, middle));
        if (batch->base_seq + batch->list.count > seq)
            high = middle;
        else
            low = middle + 1;
    }
    struct topic_position at = {.ring_index = low};
    if (low < topic->ring_count)
        at.first_item = (uint32_t)(seq - batch_of(topic_ring_at(topic, low))->base_seq);
    return at;
}

enum felix_err topic_seek(const struct topic *topic, const struct topic_limits *limits,
                          enum start_kind start, uint64_t offset, uint64_t *ret_seq,
                          struct topic_position *ret_at) {
    INVARIANT(!topic_is_open(topic));
    uint64_t oldest = topic_oldest(topic, limits);
    uint64_t seq = topic->visible_seq;
    if (start == START_EARLIEST)
        seq = topic->durable ? 0 : oldest;
    else if (start == START_OFFSET)
        seq = offset;

    if (seq > topic->visible_seq) {
        *ret_seq = topic->visible_seq;
        return FELIX_CURSOR_IN_FUTURE;
    }
    if (seq < oldest && topic->durable) {
        *ret_seq = seq;
        return FELIX_WOULD_BLOCK;
    }
    if (seq < oldest) {
        *ret_seq = oldest;
        return FELIX_CURSOR_TOO_OLD;
    }
    *ret_seq = seq;
    *ret_at = position_of(topic, seq);
    return FELIX_OK;
}
