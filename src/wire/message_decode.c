/*
 * Decoding makes no tree. The type is found first, which costs next to nothing when it is the
 * first member, as every known peer sends it; then one pass over the members reads each value
 * straight into the record. A member is looked for in the layout of its type from the place
 * where the previous one was found, so members in the usual order match at the first comparison.
 *
 * All strings, decoded payloads and values lie in one block, filled from front to back. It cannot
 * run over, because its size follows from the length of the text: an unescaped string is never
 * longer than its text, and a payload list grows by at most a third. An item of n quartets takes
 * 4n + 3 characters with its quotes and comma, and 4 + 3n bytes as a list item, which is at most
 * 4/3 of it (n = 0). An escaped base64 string is unescaped to where its bytes will stand and
 * decoded there in place; 4 + 4n bytes are within that bound too. BLOCK_EXTRA_BYTES covers the
 * headroom, the count field and the length field of a single payload.
 */
#include "base/check.h"
#include "base/cursor.h"
#include "wire/json.h"
#include "wire/message.h"
#include "wire/message_layout.h"

#define BLOCK_EXTRA_BYTES 64u
#define LIST_COUNT_BYTES 4u
#define ITEM_LENGTH_BYTES 4u

struct message_decoder {
    struct json json;
    uint8_t *at; /* free part of the block */
    uint8_t *end;
    struct message message;
};

static uint8_t *block_take(struct message_decoder *d, size_t bytes) {
    INVARIANT(bytes <= (size_t)(d->end - d->at));
    uint8_t *start = d->at;
    d->at += bytes;
    return start;
}

static bool name_is(const struct json_string *name, const char *expected) {
    if (name->escaped)
        return json_string_is(name, expected);
    return name->raw.len == strlen(expected) &&
           memcmp(name->raw.data, expected, name->raw.len) == 0;
}

static bool take_text(struct message_decoder *d, struct slice *ret) {
    struct json_string text;
    if (!json_take_string(&d->json, &text))
        return false;
    uint8_t *out = block_take(d, text.decoded_bytes);
    json_string_decode(&text, out);
    *ret = slice_of(out, text.decoded_bytes);
    return true;
}

/* Takes a base64 string and puts its bytes at the front of the free part. */
static bool take_base64(struct message_decoder *d, struct slice *ret) {
    struct json_string string;
    if (!json_take_string(&d->json, &string))
        return false;
    struct slice text = string.raw;
    if (string.escaped) {
        INVARIANT(string.decoded_bytes <= (size_t)(d->end - d->at));
        json_string_decode(&string, d->at);
        text = slice_of(d->at, string.decoded_bytes);
    }
    size_t bytes;
    if (base64_decoded_bytes(text, &bytes) != FELIX_OK)
        return false;
    uint8_t *out = block_take(d, bytes);
    *ret = slice_of(out, bytes);
    return base64_decode(text, out) == FELIX_OK;
}

static bool take_item(struct message_decoder *d, struct payload_list *list) {
    uint8_t *length = block_take(d, ITEM_LENGTH_BYTES);
    struct slice payload;
    if (!take_base64(d, &payload) || payload.len > UINT32_MAX || list->count == UINT32_MAX)
        return false;
    be32_store(length, (uint32_t)payload.len);
    list->count++;
    list->payload_bytes += payload.len;
    return true;
}

/* Takes one base64 string or an array of them, as a list in binary layout behind its headroom. */
static bool take_payloads(struct message_decoder *d, bool array) {
    struct payload_list list = {0};
    (void)block_take(d, MESSAGE_HEADROOM_BYTES);
    uint8_t *count = block_take(d, LIST_COUNT_BYTES);
    if (array) {
        if (!json_array_begin(&d->json))
            return false;
        for (bool first = true; json_element(&d->json, &first);)
            if (!take_item(d, &list))
                return false;
    } else if (!take_item(d, &list)) {
        return false;
    }
    be32_store(count, list.count);
    list.bytes = slice_of(count, (size_t)(d->at - count));
    d->message.payloads = list;
    return !d->json.failed;
}

static bool take_u64(struct message_decoder *d, bool *ret_has, uint64_t *ret) {
    *ret_has = true;
    return json_take_u64(&d->json, ret);
}

static bool take_u32(struct message_decoder *d, uint32_t *ret) {
    uint64_t value;
    if (!json_take_u64(&d->json, &value) || value > UINT32_MAX)
        return false;
    *ret = (uint32_t)value;
    return true;
}

static bool take_flags(struct message_decoder *d) {
    uint64_t value;
    if (!json_take_u64(&d->json, &value) || value > UINT16_MAX)
        return false;
    d->message.flags = (uint16_t)value;
    return true;
}

static bool take_ack(struct message_decoder *d) {
    struct json_string mode;
    if (!json_take_string(&d->json, &mode))
        return false;
    d->message.has_ack = true;
    if (json_string_is(&mode, "none"))
        d->message.ack_mode = PUBLISH_ACK_NONE;
    else if (json_string_is(&mode, "per_message"))
        d->message.ack_mode = PUBLISH_ACK_PER_MESSAGE;
    else if (json_string_is(&mode, "per_batch"))
        d->message.ack_mode = PUBLISH_ACK_PER_BATCH;
    else
        return false;
    return true;
}

static bool take_start(struct message_decoder *d) {
    struct message *m = &d->message;
    struct json_string text;
    if (json_peek(&d->json) == JSON_STRING) {
        if (!json_take_string(&d->json, &text))
            return false;
        if (json_string_is(&text, "latest"))
            m->start = START_LATEST;
        else if (json_string_is(&text, "earliest"))
            m->start = START_EARLIEST;
        return m->start != START_NONE;
    }
    bool first = true;
    if (!json_object_begin(&d->json) || !json_member(&d->json, &first, &text) ||
        !json_string_is(&text, "offset") || !take_u64(d, &m->has_offset, &m->offset))
        return false;
    m->start = START_OFFSET;
    return !json_member(&d->json, &first, &text) && !d->json.failed;
}

static bool take_reason(struct message_decoder *d) {
    struct json_string reason;
    if (!json_take_string(&d->json, &reason))
        return false;
    if (json_string_is(&reason, "too_old"))
        d->message.reason = CURSOR_REASON_TOO_OLD;
    else if (json_string_is(&reason, "in_future"))
        d->message.reason = CURSOR_REASON_IN_FUTURE;
    return d->message.reason != 0;
}

/* Codes and retry classes that we do not know read as NONE: later brokers add some. */
static bool take_code(struct message_decoder *d) {
    struct slice name;
    if (!take_text(d, &name))
        return false;
    d->message.code = wire_code_parse((const char *)name.data, name.len);
    return true;
}

static bool take_retry(struct message_decoder *d) {
    struct slice name;
    if (!take_text(d, &name))
        return false;
    d->message.retry = wire_retry_parse((const char *)name.data, name.len);
    return true;
}

/* What a foreign request calls its id: taken when it is one, passed over when it is not. */
static bool take_readable_request_id(struct message_decoder *d) {
    struct json before = d->json;
    if (json_peek(&d->json) == JSON_NUMBER && json_take_u64(&d->json, &d->message.request_id)) {
        d->message.has_request_id = true;
        return true;
    }
    d->json = before;
    return json_skip(&d->json);
}

static bool take_readable_name(struct message_decoder *d) {
    if (json_peek(&d->json) != JSON_STRING)
        return json_skip(&d->json);
    return take_text(d, &d->message.extension);
}

/* A level that we do not know reads as absent: later brokers may add some. */
static bool take_level(struct message_decoder *d) {
    struct slice name;
    if (!take_text(d, &name))
        return false;
    d->message.has_level = ack_level_parse(name, &d->message.level);
    return true;
}

/* Any value, as the text that it is. */
static bool take_body(struct message_decoder *d) {
    (void)json_peek(&d->json); /* to its first character */
    const uint8_t *start = d->json.at;
    if (!json_skip(&d->json))
        return false;
    size_t bytes = (size_t)(d->json.at - start);
    uint8_t *out = block_take(d, bytes);
    memcpy(out, start, bytes);
    d->message.body = slice_of(out, bytes);
    return true;
}

static bool take_value(struct message_decoder *d) {
    d->message.has_value = true;
    return take_base64(d, &d->message.value);
}

static bool take_record_key(struct message_decoder *d) {
    d->message.has_record_key = true;
    return take_base64(d, &d->message.record_key);
}

static bool take_client_features(struct message_decoder *d) {
    d->message.has_client_features = true;
    return take_u32(d, &d->message.features);
}

static bool take_client_flags(struct message_decoder *d) {
    d->message.has_client_flags = true;
    return take_flags(d);
}

static bool take_member(struct message_decoder *d, enum message_member member) {
    struct message *m = &d->message;
    switch (member) {
    case MEMBER_TENANT_ID:
        return take_text(d, &m->tenant);
    case MEMBER_NAMESPACE:
        return take_text(d, &m->namespace_);
    case MEMBER_STREAM:
        return take_text(d, &m->stream);
    case MEMBER_CACHE:
        return take_text(d, &m->cache);
    case MEMBER_KEY:
        return take_text(d, &m->key);
    case MEMBER_RECORD_KEY:
        return take_record_key(d);
    case MEMBER_TOKEN:
        return take_text(d, &m->token);
    case MEMBER_MESSAGE:
    case MEMBER_REQUEST_TYPE:
        return take_text(d, &m->text);
    case MEMBER_EXTENSION:
    case MEMBER_EXTENSION_NAME:
        return take_text(d, &m->extension);
    case MEMBER_READABLE_NAME:
        return take_readable_name(d);
    case MEMBER_BODY:
        return take_body(d);
    case MEMBER_VALUE:
        return take_value(d);
    case MEMBER_PAYLOAD:
        return take_payloads(d, false);
    case MEMBER_PAYLOADS:
        return take_payloads(d, true);
    case MEMBER_REQUEST_ID:
        return take_u64(d, &m->has_request_id, &m->request_id);
    case MEMBER_READABLE_REQUEST_ID:
        return take_readable_request_id(d);
    case MEMBER_SUBSCRIPTION_ID:
        return take_u64(d, &m->has_subscription_id, &m->subscription_id);
    case MEMBER_TTL_MS:
        return take_u64(d, &m->has_ttl, &m->ttl_ms);
    case MEMBER_OFFSET:
    case MEMBER_BASE_OFFSET:
    case MEMBER_START_OFFSET:
    case MEMBER_RESUME_FROM:
        return take_u64(d, &m->has_offset, &m->offset);
    case MEMBER_LIVE_OFFSET:
        return take_u64(d, &m->has_live_offset, &m->live_offset);
    case MEMBER_LEVEL:
        return take_level(d);
    case MEMBER_REQUESTED:
        return json_take_u64(&d->json, &m->requested);
    case MEMBER_AVAILABLE:
        return json_take_u64(&d->json, &m->available);
    case MEMBER_CLIENT_FLAGS:
        return take_client_flags(d);
    case MEMBER_SERVER_FLAGS:
        return take_flags(d);
    case MEMBER_CLIENT_FEATURES:
    case MEMBER_SERVER_FEATURES:
        return take_client_features(d);
    case MEMBER_CLIENT_FEATURES_HI:
    case MEMBER_SERVER_FEATURES_HI:
        return take_u32(d, &m->features_hi);
    case MEMBER_OWN_FEATURES:
        return take_u32(d, &m->own_features);
    case MEMBER_ACK:
        return take_ack(d);
    case MEMBER_START:
        return take_start(d);
    case MEMBER_REASON:
        return take_reason(d);
    case MEMBER_CODE:
        return take_code(d);
    case MEMBER_RETRY:
        return take_retry(d);
    case MEMBER_DETAIL:
        return json_skip(&d->json);
    }
    UNREACHED();
}

/* Index of the member called `name`, looked for from `hint` on; member_count when unknown. */
static size_t member_find(const struct message_layout *layout, const struct json_string *name,
                          size_t hint) {
    for (size_t i = 0; i < layout->member_count; i++) {
        size_t index = hint + i < layout->member_count ? hint + i : hint + i - layout->member_count;
        if (name_is(name, message_member_name(layout->members[index].member)))
            return index;
    }
    return layout->member_count;
}

static bool take_or_null(struct message_decoder *d, const struct member_layout *member) {
    if (json_peek(&d->json) != JSON_NULL)
        return take_member(d, member->member);
    return member->presence != MEMBER_REQUIRED && json_take_null(&d->json);
}

static bool take_members(struct message_decoder *d, const struct message_layout *layout) {
    bool foreign = d->message.type == MESSAGE_UNKNOWN;
    uint32_t seen = 0;
    bool type_seen = false;
    bool first = true;
    size_t next = 0;
    struct json_string name;

    if (!json_object_begin(&d->json))
        return false;
    while (json_member(&d->json, &first, &name)) {
        bool is_type = name_is(&name, "type");
        size_t index = is_type ? layout->member_count : member_find(layout, &name, next);
        bool repeated = is_type ? type_seen : (seen >> index & 1u) != 0;
        type_seen |= is_type;
        if (repeated && (is_type || !foreign))
            return false;
        if (index == layout->member_count || repeated) {
            if (!json_skip(&d->json))
                return false;
            continue;
        }
        seen |= 1u << index;
        next = index + 1;
        if (!take_or_null(d, &layout->members[index]))
            return false;
    }
    for (size_t i = 0; i < layout->member_count; i++) {
        enum member_presence presence = layout->members[i].presence;
        if ((presence == MEMBER_REQUIRED || presence == MEMBER_REQUIRED_NULLABLE) &&
            (seen >> i & 1u) == 0)
            return false;
    }
    return json_finish(&d->json);
}

/* Finds the string member "type" of the object in `body`. */
static bool type_find(struct slice body, struct json_string *ret) {
    struct json json = json_open(body);
    struct json_string name;
    bool first = true;
    if (!json_object_begin(&json))
        return false;
    while (json_member(&json, &first, &name)) {
        if (name_is(&name, "type"))
            return json_take_string(&json, ret);
        if (!json_skip(&json))
            return false;
    }
    return false;
}

/* Values that follow from absent members and from one another. */
static void message_settle(struct message *m) {
    if (!m->has_ack)
        m->ack_mode = m->type == MESSAGE_PUBLISH         ? PUBLISH_ACK_PER_MESSAGE
                      : m->type == MESSAGE_PUBLISH_BATCH ? PUBLISH_ACK_PER_BATCH
                                                         : PUBLISH_ACK_NONE;
    if (!(m->features & FEATURE_EXTENDED))
        m->features_hi = 0;
}

enum felix_err message_decode(struct slice body, struct message *ret) {
    struct json_string type;
    if (!type_find(body, &type))
        return FELIX_BAD_JSON;

    size_t capacity = body.len + body.len / 3 + BLOCK_EXTRA_BYTES;
    struct buf *block = buf_new(capacity);
    struct message_decoder d = {
        .json = json_open(body),
        .at = block->data,
        .end = block->data + capacity,
        .message = {.block = block},
    };
    uint8_t *text = block_take(&d, type.decoded_bytes);
    json_string_decode(&type, text);
    struct slice type_name = slice_of(text, type.decoded_bytes);
    d.message.type = message_type_parse(type_name);
    if (d.message.type == MESSAGE_UNKNOWN)
        d.message.text = type_name;
    else
        d.at = text;

    if (!take_members(&d, message_layout(d.message.type))) {
        buf_unref(block);
        return FELIX_BAD_JSON;
    }
    message_settle(&d.message);
    *ret = d.message;
    return FELIX_OK;
}

void message_deinit(struct message *m) {
    buf_unref(m->block);
    m->block = NULL;
}
