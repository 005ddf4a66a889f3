/*
 * A message is written twice by the same code: first into nowhere, which only counts, then into a
 * block of that size. So the sizes cannot drift from the bytes. Counting looks at the characters
 * of strings only; the length of base64 follows from that of the bytes.
 */
#include "base/check.h"
#include "wire/frame.h"
#include "wire/json.h"
#include "wire/message.h"
#include "wire/message_layout.h"

/* Where the text goes; with `out` NULL it is only counted. */
struct message_sink {
    uint8_t *out;
    size_t bytes;
};

static void put(struct message_sink *s, const char *text, size_t len) {
    if (s->out != NULL)
        memcpy(s->out + s->bytes, text, len);
    s->bytes += len;
}

static void put_text(struct message_sink *s, const char *text) {
    put(s, text, strlen(text));
}

static void put_u64(struct message_sink *s, uint64_t value) {
    char digits[20];
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + value % 10);
        value /= 10;
    } while (value != 0);
    put(s, digits + at, sizeof digits - at);
}

static void put_string(struct message_sink *s, struct slice text) {
    s->bytes += s->out != NULL ? json_quote(text, s->out + s->bytes) : json_quoted_bytes(text);
}

/* A name that needs no escaping. */
static void put_word(struct message_sink *s, const char *word) {
    put(s, "\"", 1);
    put_text(s, word);
    put(s, "\"", 1);
}

static void put_base64(struct message_sink *s, struct slice bytes) {
    put(s, "\"", 1);
    if (s->out != NULL)
        base64_encode(bytes, s->out + s->bytes);
    s->bytes += base64_encoded_bytes(bytes.len);
    put(s, "\"", 1);
}

static void put_payloads(struct message_sink *s, const struct payload_list *list) {
    struct payload_cursor cursor = payload_walk(list);
    struct slice payload;
    put(s, "[", 1);
    for (bool first = true; payload_next(&cursor, &payload); first = false) {
        if (!first)
            put(s, ",", 1);
        put_base64(s, payload);
    }
    put(s, "]", 1);
}

static void put_payload(struct message_sink *s, const struct payload_list *list) {
    struct payload_cursor cursor = payload_walk(list);
    struct slice payload;
    bool found = list->count == 1 && payload_next(&cursor, &payload);
    INVARIANT(found);
    put_base64(s, payload);
}

static void put_start(struct message_sink *s, const struct message *m) {
    if (m->start != START_OFFSET) {
        put_word(s, m->start == START_EARLIEST ? "earliest" : "latest");
        return;
    }
    put_text(s, "{\"offset\":");
    put_u64(s, m->offset);
    put(s, "}", 1);
}

static const char *ack_name(uint8_t mode) {
    if (mode == PUBLISH_ACK_NONE)
        return "none";
    return mode == PUBLISH_ACK_PER_BATCH ? "per_batch" : "per_message";
}

static const char *retry_name(const struct message *m) {
    return wire_retry_name(m->retry != WIRE_RETRY_NONE ? m->retry : wire_code_retry(m->code));
}

/* Is an optional member set? Only asked for those that can be optional. */
static bool member_is_set(const struct message *m, enum message_member member) {
    switch ((unsigned)member) {
    case MEMBER_RECORD_KEY:
        return m->has_record_key;
    case MEMBER_EXTENSION:
    case MEMBER_READABLE_NAME:
        return m->extension.len != 0;
    case MEMBER_BODY:
        return m->body.len != 0;
    case MEMBER_VALUE:
        return m->has_value;
    case MEMBER_REQUEST_ID:
    case MEMBER_READABLE_REQUEST_ID:
        return m->has_request_id;
    case MEMBER_SUBSCRIPTION_ID:
        return m->has_subscription_id;
    case MEMBER_TTL_MS:
        return m->has_ttl;
    case MEMBER_OFFSET:
    case MEMBER_BASE_OFFSET:
    case MEMBER_START_OFFSET:
        return m->has_offset;
    case MEMBER_LIVE_OFFSET:
        return m->has_live_offset;
    case MEMBER_LEVEL:
        return m->has_level;
    case MEMBER_CLIENT_FLAGS:
        return m->has_client_flags;
    case MEMBER_CLIENT_FEATURES:
    case MEMBER_SERVER_FEATURES:
        return m->has_client_features || m->features != 0;
    case MEMBER_CLIENT_FEATURES_HI:
    case MEMBER_SERVER_FEATURES_HI:
        return m->features_hi != 0;
    case MEMBER_OWN_FEATURES:
        return m->own_features != 0;
    case MEMBER_ACK:
        return m->has_ack;
    case MEMBER_START:
        return m->start != START_NONE;
    case MEMBER_CODE:
    case MEMBER_RETRY:
        return m->code != WIRE_CODE_NONE;
    default:
        return false;
    }
}

/* The text of a string member; NULL when the member is not one. */
static const struct slice *member_text(const struct message *m, enum message_member member) {
    switch ((unsigned)member) {
    case MEMBER_TENANT_ID:
        return &m->tenant;
    case MEMBER_NAMESPACE:
        return &m->namespace_;
    case MEMBER_STREAM:
        return &m->stream;
    case MEMBER_CACHE:
        return &m->cache;
    case MEMBER_KEY:
        return &m->key;
    case MEMBER_TOKEN:
        return &m->token;
    case MEMBER_MESSAGE:
    case MEMBER_REQUEST_TYPE:
        return &m->text;
    case MEMBER_EXTENSION:
    case MEMBER_EXTENSION_NAME:
    case MEMBER_READABLE_NAME:
        return &m->extension;
    default:
        return NULL;
    }
}

/* The value of a numeric member. */
static uint64_t member_number(const struct message *m, enum message_member member) {
    switch ((unsigned)member) {
    case MEMBER_REQUEST_ID:
    case MEMBER_READABLE_REQUEST_ID:
        return m->request_id;
    case MEMBER_SUBSCRIPTION_ID:
        return m->subscription_id;
    case MEMBER_TTL_MS:
        return m->ttl_ms;
    case MEMBER_OFFSET:
    case MEMBER_BASE_OFFSET:
    case MEMBER_START_OFFSET:
    case MEMBER_RESUME_FROM:
        return m->offset;
    case MEMBER_LIVE_OFFSET:
        return m->live_offset;
    case MEMBER_REQUESTED:
        return m->requested;
    case MEMBER_AVAILABLE:
        return m->available;
    case MEMBER_CLIENT_FLAGS:
    case MEMBER_SERVER_FLAGS:
        return m->flags;
    case MEMBER_CLIENT_FEATURES:
    case MEMBER_SERVER_FEATURES:
        return m->features;
    case MEMBER_CLIENT_FEATURES_HI:
    case MEMBER_SERVER_FEATURES_HI:
        return m->features_hi;
    case MEMBER_OWN_FEATURES:
        return m->own_features;
    default:
        UNREACHED();
    }
}

static void put_value(struct message_sink *s, const struct message *m, enum message_member member) {
    const struct slice *text = member_text(m, member);
    if (text != NULL) {
        put_string(s, *text);
        return;
    }
    switch ((unsigned)member) {
    case MEMBER_RECORD_KEY:
        put_base64(s, m->record_key);
        break;
    case MEMBER_VALUE:
        put_base64(s, m->value);
        break;
    case MEMBER_BODY:
        put(s, (const char *)m->body.data, m->body.len);
        break;
    case MEMBER_PAYLOAD:
        put_payload(s, &m->payloads);
        break;
    case MEMBER_PAYLOADS:
        put_payloads(s, &m->payloads);
        break;
    case MEMBER_ACK:
        put_word(s, ack_name(m->ack_mode));
        break;
    case MEMBER_START:
        put_start(s, m);
        break;
    case MEMBER_REASON:
        put_word(s, m->reason == CURSOR_REASON_TOO_OLD ? "too_old" : "in_future");
        break;
    case MEMBER_LEVEL:
        put_word(s, ack_level_name(m->level));
        break;
    case MEMBER_CODE:
        put_word(s, wire_code_name(m->code));
        break;
    case MEMBER_RETRY:
        put_word(s, retry_name(m));
        break;
    default:
        put_u64(s, member_number(m, member));
        break;
    }
}

static void put_message(struct message_sink *s, const struct message *m) {
    const struct message_layout *layout = message_layout(m->type);
    put_text(s, "{\"type\":");
    put_word(s, layout->type);
    for (size_t i = 0; i < layout->member_count; i++) {
        const struct member_layout *it = &layout->members[i];
        bool set = it->presence == MEMBER_REQUIRED || member_is_set(m, it->member);
        if (!set && it->presence == MEMBER_OPTIONAL)
            continue;
        put(s, ",", 1);
        put_word(s, message_member_name(it->member));
        put(s, ":", 1);
        if (set)
            put_value(s, m, it->member);
        else
            put_text(s, "null");
    }
    put(s, "}", 1);
}

struct buf *message_encode(const struct message *m, size_t *ret_bytes) {
    INVARIANT(m->type != MESSAGE_UNKNOWN);
    struct message_sink count = {0};
    put_message(&count, m);
    INVARIANT(count.bytes <= UINT32_MAX);

    struct buf *frame = buf_new(FRAME_HEADER_BYTES + count.bytes);
    frame_header_encode(frame->data, 0, (uint32_t)count.bytes);
    struct message_sink text = {.out = frame->data + FRAME_HEADER_BYTES};
    put_message(&text, m);
    INVARIANT(text.bytes == count.bytes);
    *ret_bytes = FRAME_HEADER_BYTES + text.bytes;
    return frame;
}
