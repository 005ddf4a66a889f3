/* JSON message: what is decoded can be encoded, and decoding that gives an equal message whose
 * second encoding is the same bytes. The same for the bodies of our own extension. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/check.h"
#include "wire/frame.h"
#include "wire/message.h"
#include "wire/stream_admin.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_payloads(const struct message *m) {
    if (m->payloads.bytes.data == NULL)
        return;
    struct payload_list proven;
    enum felix_err err = payload_list_decode(m->payloads.bytes, &proven);
    INVARIANT(err == FELIX_OK);
    INVARIANT(proven.count == m->payloads.count && proven.bytes.len == m->payloads.bytes.len);
    INVARIANT(proven.payload_bytes == m->payloads.payload_bytes);
    INVARIANT(m->payloads.bytes.data >= m->block->data + MESSAGE_HEADROOM_BYTES);
}

static void check_equal(const struct message *a, const struct message *b) {
    INVARIANT(a->type == b->type);
    INVARIANT(slice_equal(a->tenant, b->tenant) && slice_equal(a->namespace_, b->namespace_));
    INVARIANT(slice_equal(a->stream, b->stream) && slice_equal(a->cache, b->cache));
    INVARIANT(slice_equal(a->key, b->key) && slice_equal(a->token, b->token));
    INVARIANT(slice_equal(a->text, b->text) && slice_equal(a->extension, b->extension));
    INVARIANT(slice_equal(a->body, b->body));
    INVARIANT(slice_equal(a->value, b->value) && a->has_value == b->has_value);
    INVARIANT(slice_equal(a->payloads.bytes, b->payloads.bytes));
    INVARIANT(a->has_record_key == b->has_record_key);
    INVARIANT(slice_equal(a->record_key, b->record_key));
    INVARIANT(a->has_request_id == b->has_request_id && a->request_id == b->request_id);
    INVARIANT(a->has_subscription_id == b->has_subscription_id);
    INVARIANT(a->subscription_id == b->subscription_id);
    INVARIANT(a->has_ttl == b->has_ttl && a->ttl_ms == b->ttl_ms);
    INVARIANT(a->has_offset == b->has_offset && a->offset == b->offset);
    INVARIANT(a->has_live_offset == b->has_live_offset && a->live_offset == b->live_offset);
    INVARIANT(a->has_level == b->has_level && a->level == b->level);
    INVARIANT(a->has_client_flags == b->has_client_flags && a->flags == b->flags);
    INVARIANT(a->has_client_features == b->has_client_features && a->features == b->features);
    INVARIANT(a->features_hi == b->features_hi);
    INVARIANT(a->has_ack == b->has_ack && a->ack_mode == b->ack_mode);
    INVARIANT(a->start == b->start && a->reason == b->reason);
    INVARIANT(a->requested == b->requested && a->available == b->available);
    INVARIANT(a->code == b->code);
    /* The retry class is only sent together with a code, and then never left out. */
    enum wire_retry expected = a->retry != WIRE_RETRY_NONE ? a->retry : wire_code_retry(a->code);
    INVARIANT(b->retry == (a->code == WIRE_CODE_NONE ? WIRE_RETRY_NONE : expected));
}

static void check_stream_request(struct slice body) {
    struct stream_request first, second;
    struct text once = {0}, twice = {0};
    if (stream_request_decode(body, &first, NULL) != FELIX_OK)
        return;
    stream_request_encode(&first, &once);
    struct slice text = slice_of(text_str(&once), once.len);
    enum felix_err err = stream_request_decode(text, &second, NULL);
    INVARIANT(err == FELIX_OK);
    stream_request_encode(&second, &twice);
    INVARIANT(slice_equal(text, slice_of(text_str(&twice), twice.len)));
    text_deinit(&once);
    text_deinit(&twice);
}

static void check_stream_answer(struct slice body) {
    struct stream_answer first, second;
    struct text once = {0}, twice = {0};
    if (stream_answer_decode(body, &first) != FELIX_OK)
        return;
    stream_answer_encode(&first, &once);
    struct slice text = slice_of(text_str(&once), once.len);
    enum felix_err err = stream_answer_decode(text, &second);
    INVARIANT(err == FELIX_OK && first.count == second.count);
    stream_answer_encode(&second, &twice);
    INVARIANT(slice_equal(text, slice_of(text_str(&twice), twice.len)));
    stream_answer_deinit(&first);
    stream_answer_deinit(&second);
    text_deinit(&once);
    text_deinit(&twice);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct message first;
    if (message_decode(slice_of(data, size), &first) != FELIX_OK)
        return 0;
    check_payloads(&first);
    check_stream_request(first.body);
    check_stream_answer(first.body);
    if (first.type != MESSAGE_UNKNOWN) {
        size_t bytes;
        struct buf *frame = message_encode(&first, &bytes);
        struct slice body = slice_of(frame->data + FRAME_HEADER_BYTES, bytes - FRAME_HEADER_BYTES);
        struct message second;
        enum felix_err err = message_decode(body, &second);
        INVARIANT(err == FELIX_OK);
        check_payloads(&second);
        check_equal(&first, &second);
        size_t bytes_again;
        struct buf *again = message_encode(&second, &bytes_again);
        INVARIANT(bytes == bytes_again && memcmp(frame->data, again->data, bytes) == 0);
        buf_unref(again);
        buf_unref(frame);
        message_deinit(&second);
    }
    message_deinit(&first);
    return 0;
}
