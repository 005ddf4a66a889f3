#include "wire/message_layout.h"

#define REQUIRED(member) {MEMBER_##member, MEMBER_REQUIRED}
#define REQUIRED_NULLABLE(member) {MEMBER_##member, MEMBER_REQUIRED_NULLABLE}
#define OPTIONAL(member) {MEMBER_##member, MEMBER_OPTIONAL}
#define OPTIONAL_AS_NULL(member) {MEMBER_##member, MEMBER_OPTIONAL_AS_NULL}

#define STREAM_NAME REQUIRED(TENANT_ID), REQUIRED(NAMESPACE), REQUIRED(STREAM)
#define CACHE_ENTRY REQUIRED(TENANT_ID), REQUIRED(NAMESPACE), REQUIRED(CACHE), REQUIRED(KEY)
#define REFUSAL REQUIRED(MESSAGE), OPTIONAL(CODE), OPTIONAL(RETRY), OPTIONAL(DETAIL)

#define TO_BROKER false
#define FROM_BROKER true
#define LAYOUT(id, name, direction, ...)                                                           \
    [MESSAGE_##id] = {                                                                             \
        .type = name,                                                                              \
        .from_broker = direction,                                                                  \
        .member_count =                                                                            \
            sizeof((struct member_layout[]){__VA_ARGS__}) / sizeof(struct member_layout),          \
        .members = {__VA_ARGS__},                                                                  \
    }

static const struct message_layout layouts[] = {
    LAYOUT(UNKNOWN, "unknown", TO_BROKER, OPTIONAL(READABLE_REQUEST_ID)),

    LAYOUT(AUTH, "auth", TO_BROKER, REQUIRED(TENANT_ID), REQUIRED(TOKEN), OPTIONAL(CLIENT_FLAGS),
           OPTIONAL(CLIENT_FEATURES), OPTIONAL(CLIENT_FEATURES_HI), OPTIONAL(OWN_FEATURES)),
    LAYOUT(PUBLISH, "publish", TO_BROKER, STREAM_NAME, REQUIRED(PAYLOAD), OPTIONAL(RECORD_KEY),
           OPTIONAL(REQUEST_ID), OPTIONAL(ACK)),
    LAYOUT(PUBLISH_BATCH, "publish_batch", TO_BROKER, STREAM_NAME, REQUIRED(PAYLOADS),
           OPTIONAL(RECORD_KEY), OPTIONAL(REQUEST_ID), OPTIONAL(ACK)),
    LAYOUT(SUBSCRIBE, "subscribe", TO_BROKER, STREAM_NAME, OPTIONAL(SUBSCRIPTION_ID),
           OPTIONAL(START)),
    LAYOUT(CACHE_PUT, "cache_put", TO_BROKER, CACHE_ENTRY, REQUIRED(VALUE), OPTIONAL(REQUEST_ID),
           OPTIONAL_AS_NULL(TTL_MS)),
    LAYOUT(CACHE_GET, "cache_get", TO_BROKER, CACHE_ENTRY, OPTIONAL(REQUEST_ID)),
    LAYOUT(CACHE_DELETE, "cache_delete", TO_BROKER, CACHE_ENTRY, OPTIONAL(REQUEST_ID)),
    /* Whose name we do not know is answered by `unsupported`, whatever its members look like. */
    LAYOUT(EXTENSION, "extension", TO_BROKER, OPTIONAL(READABLE_NAME),
           OPTIONAL(READABLE_REQUEST_ID), OPTIONAL(BODY)),

    LAYOUT(AUTH_OK, "auth_ok", FROM_BROKER, REQUIRED(SERVER_FLAGS), OPTIONAL(SERVER_FEATURES),
           OPTIONAL(SERVER_FEATURES_HI), OPTIONAL(OWN_FEATURES)),
    [MESSAGE_OK] = {.type = "ok", .from_broker = FROM_BROKER},
    LAYOUT(ERROR, "error", FROM_BROKER, REFUSAL),
    LAYOUT(PUBLISH_OK, "publish_ok", FROM_BROKER, REQUIRED(REQUEST_ID), OPTIONAL(OFFSET),
           OPTIONAL(LEVEL)),
    LAYOUT(PUBLISH_ERROR, "publish_error", FROM_BROKER, REQUIRED(REQUEST_ID), REFUSAL),
    LAYOUT(SUBSCRIBED, "subscribed", FROM_BROKER, REQUIRED(SUBSCRIPTION_ID), OPTIONAL(START_OFFSET),
           OPTIONAL(LIVE_OFFSET)),
    LAYOUT(EVENT_STREAM_HELLO, "event_stream_hello", FROM_BROKER, REQUIRED(SUBSCRIPTION_ID)),
    LAYOUT(EVENT, "event", FROM_BROKER, STREAM_NAME, REQUIRED(PAYLOAD), OPTIONAL(OFFSET)),
    LAYOUT(EVENT_BATCH, "event_batch", FROM_BROKER, STREAM_NAME, REQUIRED(PAYLOADS),
           OPTIONAL(BASE_OFFSET)),
    LAYOUT(SUBSCRIPTION_LAGGED, "subscription_lagged", FROM_BROKER, REQUIRED(SUBSCRIPTION_ID),
           REQUIRED(RESUME_FROM)),
    LAYOUT(SUBSCRIBE_CURSOR_ERROR, "subscribe_cursor_error", FROM_BROKER, REQUIRED(REASON),
           REQUIRED(REQUESTED), REQUIRED(AVAILABLE)),
    LAYOUT(CACHE_OK, "cache_ok", FROM_BROKER, REQUIRED(REQUEST_ID)),
    LAYOUT(CACHE_VALUE, "cache_value", FROM_BROKER, CACHE_ENTRY, REQUIRED_NULLABLE(VALUE),
           OPTIONAL(REQUEST_ID)),
    LAYOUT(EXTENSION_RESULT, "extension_result", FROM_BROKER, REQUIRED(EXTENSION_NAME),
           OPTIONAL(REQUEST_ID), OPTIONAL(BODY)),
    LAYOUT(UNSUPPORTED, "unsupported", FROM_BROKER, REQUIRED(REQUEST_TYPE), OPTIONAL(EXTENSION),
           OPTIONAL(REQUEST_ID)),
};
#define LAYOUT_COUNT (sizeof layouts / sizeof layouts[0])

static const char *const member_names[] = {
#define MESSAGE_MEMBER_NAME(name, text) [MEMBER_##name] = text,
    MESSAGE_MEMBER_MAP(MESSAGE_MEMBER_NAME)
#undef MESSAGE_MEMBER_NAME
};

const struct message_layout *message_layout(enum message_type type) {
    return &layouts[type];
}

enum message_type message_type_parse(struct slice name) {
    for (size_t i = MESSAGE_UNKNOWN + 1; i < LAYOUT_COUNT; i++)
        if (slice_is(name, layouts[i].type))
            return (enum message_type)i;
    return MESSAGE_UNKNOWN;
}

const char *message_member_name(enum message_member member) {
    return member_names[member];
}

const char *message_type_name(enum message_type type) {
    return layouts[type].type;
}

bool message_is_from_broker(enum message_type type) {
    return layouts[type].from_broker;
}
