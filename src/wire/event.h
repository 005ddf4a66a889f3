/* Event batch bodies. Source: wire specification 4.4 and 4.5; wire extensions 3.3. */
#ifndef WIRE_EVENT_H
#define WIRE_EVENT_H

#include "wire/frame.h"
#include "wire/publish.h"

#define EVENT_LENGTH_BYTES 4u    /* in front of each payload */
#define EVENT_TIMESTAMP_BYTES 8u /* in front of that, with EVENT_TIMESTAMPS */

/* Largest frame prefix that we emit: header, subscription id, base offset, count. */
#define EVENT_PREFIX_BYTES_MAX (FRAME_HEADER_BYTES + 8u + 8u + 4u)

struct event_batch {
    bool addressed; /* 0x0002: subscription_id is present */
    bool has_offsets;
    bool has_timestamps;
    uint64_t subscription_id;
    uint64_t base_offset;
    uint64_t skipped_before;
    struct slice publisher;
    uint32_t count;
    struct slice items; /* items only, without the count field; proven */
};

struct event_cursor {
    const uint8_t *at;
    uint32_t left;
    bool timestamps;
    uint64_t timestamp_us; /* of the event taken last, microseconds since 1970; 0 without */
};

/**
 * Write header and fixed fields, `count` included, of an event frame whose items take
 * `item_bytes` bytes (lengths included). `flags` is EVENT_BATCH or EVENT_BATCH_SHARED, with or
 * without EVENT_OFFSETS and EVENT_TIMESTAMPS; fields not selected by it are ignored. With
 * EVENT_TIMESTAMPS the items are those that event_items_stamp writes. Returns the bytes written
 * into `out` (at most EVENT_PREFIX_BYTES_MAX). Pure.
 */
size_t event_prefix_encode(uint16_t flags, uint64_t subscription_id, uint64_t base_offset,
                           uint32_t count, size_t item_bytes, uint8_t *out);

/** Bytes that event_prefix_encode writes for `flags`. */
size_t event_prefix_bytes(uint16_t flags);

/** Bytes that `count` items of `item_bytes` (lengths included) take with their timestamps. */
size_t event_stamped_bytes(uint32_t count, size_t item_bytes);

/**
 * Write `items`, `count` proven items in publish layout, with a timestamp in front of each:
 * `timestamps[i]`, or `one_us` for all where that is NULL. Returns the bytes written into `out`,
 * which are event_stamped_bytes(). Pure.
 */
size_t event_items_stamp(struct slice items, uint32_t count, const uint64_t *timestamps,
                         uint64_t one_us, uint8_t *out);

/**
 * Decode an event batch body under `flags` (all EVENT_ modifiers are understood; 0x0004 wins
 * over 0x0002). Every length is proven once. Borrows `body`. Pure.
 *   FELIX_MALFORMED      truncated, count larger than remaining / 4, SKIPPED without OFFSETS,
 *                        neither of the two layout bits
 *   FELIX_UNKNOWN_FLAGS  a bit that this layout does not know
 */
enum felix_err event_batch_decode(uint16_t flags, struct slice body, struct event_batch *ret);

/** Walk a proven batch; event_next returns false at its end and cannot fail. */
struct event_cursor event_walk(const struct event_batch *batch);
bool event_next(struct event_cursor *cursor, struct slice *ret_payload);

#endif
