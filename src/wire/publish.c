/*
 * A publish body is proven in one walk: fixed prefix, optional key, three counted names, then the
 * payload lengths. Nothing is allocated or copied; after FELIX_OK the lengths inside
 * payload_list.bytes are known to be sound, and payload_next relies on that without checking.
 *
 * The count is compared with remaining / 4 before the walk: each item takes at least its length
 * field, so a larger count is a lie that would only cost time.
 */
#include "wire/publish.h"

#include "base/cursor.h"
#include "wire/frame.h"

#define COUNT_BYTES 4u
#define LENGTH_BYTES 4u

enum felix_err publish_prefix_decode(struct slice body, uint64_t *ret_request_id,
                                     uint8_t *ret_ack_mode) {
    if (body.len < 9)
        return FELIX_MALFORMED;
    uint8_t mode = body.data[8];
    if (mode != PUBLISH_ACK_PER_MESSAGE && mode != PUBLISH_ACK_PER_BATCH)
        return FELIX_MALFORMED;
    *ret_request_id = be64_load(body.data);
    *ret_ack_mode = mode;
    return FELIX_OK;
}

/* Reads what comes before the key: both fixed prefixes. */
static enum felix_err publish_ids_decode(uint16_t flags, struct reader *in,
                                         struct publish_head *head) {
    if (flags & FRAME_PUBLISH_ACKED) {
        struct slice rest = {.data = in->at, .len = reader_left(in)};
        enum felix_err err = publish_prefix_decode(rest, &head->request_id, &head->ack_mode);
        if (err != FELIX_OK)
            return err;
        in->at += 9;
    }
    if (flags & FRAME_PUBLISH_IDEMPOTENT) {
        if (!(flags & FRAME_PUBLISH_ACKED))
            return FELIX_MALFORMED;
        head->producer_id = reader_u64(in);
        head->sequence = reader_u64(in);
    }
    return in->failed ? FELIX_MALFORMED : FELIX_OK;
}

static enum felix_err publish_head_decode(uint16_t flags, struct reader *in,
                                          struct publish_head *head) {
    enum felix_err err = publish_ids_decode(flags, in, head);
    if (err != FELIX_OK)
        return err;
    if (flags & FRAME_PUBLISH_KEYED) {
        head->keyed = true;
        head->key = reader_take(in, reader_u16(in));
    }
    head->route.data = in->at;
    head->tenant = reader_take(in, reader_u16(in));
    head->namespace_ = reader_take(in, reader_u16(in));
    head->stream = reader_take(in, reader_u16(in));
    if (in->failed)
        return FELIX_MALFORMED;
    head->route.len = (size_t)(in->at - head->route.data);
    if (!utf8_valid(head->tenant) || !utf8_valid(head->namespace_) || !utf8_valid(head->stream))
        return FELIX_MALFORMED;
    return FELIX_OK;
}

enum felix_err payload_list_decode(struct slice in, struct payload_list *ret) {
    if (in.len < COUNT_BYTES)
        return FELIX_MALFORMED;
    uint32_t count = be32_load(in.data);
    if (count > (in.len - COUNT_BYTES) / LENGTH_BYTES)
        return FELIX_MALFORMED;

    const uint8_t *at = in.data + COUNT_BYTES;
    size_t left = in.len - COUNT_BYTES;
    for (uint32_t i = 0; i < count; i++) {
        if (left < LENGTH_BYTES)
            return FELIX_MALFORMED;
        left -= LENGTH_BYTES;
        size_t len = be32_load(at);
        if (left < len)
            return FELIX_MALFORMED;
        left -= len;
        at += LENGTH_BYTES + len;
    }
    ret->bytes = (struct slice){.data = in.data, .len = in.len - left};
    ret->count = count;
    ret->payload_bytes = ret->bytes.len - COUNT_BYTES - (uint64_t)count * LENGTH_BYTES;
    return FELIX_OK;
}

enum felix_err publish_decode(uint16_t flags, struct slice body, struct publish_head *ret_head,
                              struct payload_list *ret_payloads) {
    struct reader in = reader_of(body);
    struct publish_head head = {0};
    enum felix_err err = publish_head_decode(flags, &in, &head);
    if (err != FELIX_OK)
        return err;
    err = payload_list_decode((struct slice){.data = in.at, .len = reader_left(&in)}, ret_payloads);
    if (err != FELIX_OK)
        return err;
    *ret_head = head;
    return FELIX_OK;
}

struct payload_cursor payload_walk(const struct payload_list *list) {
    if (list->count == 0)
        return (struct payload_cursor){0};
    return (struct payload_cursor){.at = list->bytes.data + COUNT_BYTES, .left = list->count};
}

bool payload_next(struct payload_cursor *cursor, struct slice *ret_payload) {
    if (cursor->left == 0)
        return false;
    cursor->left--;
    ret_payload->len = be32_load(cursor->at);
    ret_payload->data = cursor->at + LENGTH_BYTES;
    cursor->at = ret_payload->data + ret_payload->len;
    return true;
}

size_t publish_head_bytes(uint16_t flags, const struct publish_head *head) {
    size_t bytes = 6 + head->tenant.len + head->namespace_.len + head->stream.len;
    if (flags & FRAME_PUBLISH_ACKED)
        bytes += 9;
    if (flags & FRAME_PUBLISH_IDEMPOTENT)
        bytes += 16;
    if (flags & FRAME_PUBLISH_KEYED)
        bytes += 2 + head->key.len;
    return bytes;
}

static void write_counted(struct writer *out, struct slice name) {
    writer_u16(out, (uint16_t)name.len);
    writer_bytes(out, name);
}

enum felix_err publish_head_encode(uint16_t flags, const struct publish_head *head, uint8_t *out) {
    bool keyed = (flags & FRAME_PUBLISH_KEYED) != 0;
    if (head->tenant.len > NAME_BYTES_MAX || head->namespace_.len > NAME_BYTES_MAX ||
        head->stream.len > NAME_BYTES_MAX || (keyed && head->key.len > NAME_BYTES_MAX))
        return FELIX_TOO_LARGE;

    struct writer w = writer_of(out, publish_head_bytes(flags, head));
    if (flags & FRAME_PUBLISH_ACKED) {
        writer_u64(&w, head->request_id);
        writer_u8(&w, head->ack_mode);
    }
    if (flags & FRAME_PUBLISH_IDEMPOTENT) {
        writer_u64(&w, head->producer_id);
        writer_u64(&w, head->sequence);
    }
    if (keyed)
        write_counted(&w, head->key);
    write_counted(&w, head->tenant);
    write_counted(&w, head->namespace_);
    write_counted(&w, head->stream);
    return FELIX_OK;
}
