/* Event body behind two bytes of flags: the walk ends where the items end, and a frame that we
 * could have sent ourselves gets the same prefix again, and the same timestamps. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/cursor.h"
#include "wire/event.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_walk(const struct event_batch *batch, const uint8_t *end) {
    struct event_cursor cursor = event_walk(batch);
    struct slice payload = {0};
    const uint8_t *last = batch->items.data;
    uint32_t count = 0;
    while (event_next(&cursor, &payload)) {
        last = payload.data + payload.len;
        INVARIANT(last <= end);
        count++;
    }
    INVARIANT(count == batch->count);
    INVARIANT(last == batch->items.data + batch->items.len);
}

/* Taking the timestamps off and putting them on again gives the same bytes. */
static void check_stamps(const struct event_batch *batch) {
    uint64_t *timestamps = malloc(batch->count * sizeof *timestamps + 1);
    uint8_t *plain = malloc(batch->items.len + 1);
    uint8_t *stamped = malloc(batch->items.len + 1);
    INVARIANT(timestamps != NULL && plain != NULL && stamped != NULL);
    struct event_cursor cursor = event_walk(batch);
    struct slice payload;
    size_t plain_bytes = 0;
    for (uint32_t i = 0; event_next(&cursor, &payload); i++) {
        timestamps[i] = cursor.timestamp_us;
        be32_store(plain + plain_bytes, (uint32_t)payload.len);
        memcpy(plain + plain_bytes + EVENT_LENGTH_BYTES, payload.data, payload.len);
        plain_bytes += EVENT_LENGTH_BYTES + payload.len;
    }
    INVARIANT(event_stamped_bytes(batch->count, plain_bytes) == batch->items.len);
    size_t bytes =
        event_items_stamp(slice_of(plain, plain_bytes), batch->count, timestamps, 0, stamped);
    INVARIANT(bytes == batch->items.len && memcmp(stamped, batch->items.data, bytes) == 0);
    free(stamped);
    free(plain);
    free(timestamps);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2)
        return 0;
    uint16_t flags = be16_load(data);
    struct slice body = slice_of(data + 2, size - 2);
    struct event_batch batch;
    if (event_batch_decode(flags, body, &batch) != FELIX_OK)
        return 0;
    check_walk(&batch, body.data + body.len);

    if (batch.has_timestamps)
        check_stamps(&batch);
    uint16_t foreign = FRAME_EVENT_SKIPPED | FRAME_EVENT_PUBLISHER;
    if (flags & foreign)
        return 0;
    uint8_t prefix[EVENT_PREFIX_BYTES_MAX];
    size_t bytes = event_prefix_encode(flags, batch.subscription_id, batch.base_offset, batch.count,
                                       batch.items.len, prefix);
    INVARIANT(bytes == event_prefix_bytes(flags));
    size_t fixed = bytes - FRAME_HEADER_BYTES;
    INVARIANT(body.data + fixed == batch.items.data);
    INVARIANT(memcmp(prefix + FRAME_HEADER_BYTES, body.data, fixed) == 0);
    INVARIANT(be32_load(prefix + 8) == fixed + batch.items.len);
    return 0;
}
