/* Publish body behind two bytes of flags: the walk equals the sums, the head is encoded as the
 * same bytes, and what the prefix decoder says agrees with the whole decoder. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/cursor.h"
#include "wire/frame.h"
#include "wire/publish.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_walk(const struct payload_list *list, const uint8_t *end) {
    struct payload_cursor cursor = payload_walk(list);
    struct slice payload = {0};
    const uint8_t *last = list->bytes.data + 4;
    uint32_t count = 0;
    uint64_t bytes = 0;
    unsigned long touched = 0;
    while (payload_next(&cursor, &payload)) {
        INVARIANT(payload.data == last + 4);
        last = payload.data + payload.len;
        INVARIANT(last <= end);
        if (payload.len != 0)
            touched += (unsigned long)payload.data[0] + payload.data[payload.len - 1];
        count++;
        bytes += payload.len;
    }
    INVARIANT(touched <= 2ul * 255 * count);
    INVARIANT(count == list->count && bytes == list->payload_bytes);
    INVARIANT(last == list->bytes.data + list->bytes.len);
    INVARIANT(be32_load(list->bytes.data) == count);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2)
        return 0;
    uint16_t flags = be16_load(data);
    struct slice body = slice_of(data + 2, size - 2);
    struct publish_head head;
    struct payload_list list;
    enum felix_err err = publish_decode(flags, body, &head, &list);

    uint64_t request_id;
    uint8_t ack_mode;
    enum felix_err prefix_err = publish_prefix_decode(body, &request_id, &ack_mode);
    if (err != FELIX_OK)
        return 0;
    if (flags & FRAME_PUBLISH_ACKED)
        INVARIANT(prefix_err == FELIX_OK && request_id == head.request_id &&
                  ack_mode == head.ack_mode);
    check_walk(&list, body.data + body.len);
    INVARIANT(utf8_valid(head.tenant) && utf8_valid(head.namespace_) && utf8_valid(head.stream));

    size_t head_bytes = publish_head_bytes(flags, &head);
    INVARIANT(list.bytes.data == body.data + head_bytes);
    uint8_t *again = malloc(head_bytes);
    err = publish_head_encode(flags, &head, again);
    INVARIANT(err == FELIX_OK);
    INVARIANT(memcmp(again, body.data, head_bytes) == 0);
    free(again);
    return 0;
}
