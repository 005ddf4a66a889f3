#include "wire/message_layout.h"

#define REQUIRED(member) {MEMBER_##member, MEMBER_REQUIRED}
#define OPTIONAL(member) {MEMBER_##member, MEMBER_OPTIONAL}
#define SCOPE REQUIRED(TENANT_ID), REQUIRED(NAMESPACE)
#define REFUSAL REQUIRED(MESSAGE), OPTIONAL(CODE), OPTIONAL(RETRY), OPTIONAL(DETAIL)
#define CACHE_ENTRY SCOPE, REQUIRED(CACHE), REQUIRED(KEY)

static const struct message_layout layouts[] = {
    [MESSAGE_UNKNOWN] = {"unknown",
                         false,
                         2,
                         {OPTIONAL(READABLE_REQUEST_ID), OPTIONAL(EXTENSION_NAME)}},
    [MESSAGE_AUTH] = {"auth",
                      false,
                      5,
                      {REQUIRED(TENANT_ID), REQUIRED(TOKEN), OPTIONAL(CLIENT_FLAGS),
                       OPTIONAL(CLIENT_FEATURES), OPTIONAL(CLIENT_FEATURES_HI)}},
    [MESSAGE_PUBLISH] = {"publish",
                         false,
                         7,
                         {SCOPE, REQUIRED(STREAM), REQUIRED(PAYLOAD), OPTIONAL(RECORD_KEY),
                          OPTIONAL(REQUEST_ID), OPTIONAL(ACK)}},
    [MESSAGE_PUBLISH_BATCH] = {"publish_batch",
                               false,
                               7,
                               {SCOPE, REQUIRED(STREAM), REQUIRED(PAYLOADS), OPTIONAL(RECORD_KEY),
                                OPTIONAL(REQUEST_ID), OPTIONAL(ACK)}},
    [MESSAGE_SUBSCRIBE] = {"subscribe",
                           false,
                           5,
                           {SCOPE, REQUIRED(STREAM), OPTIONAL(SUBSCRIPTION_ID), OPTIONAL(START)}},
    [MESSAGE_CACHE_PUT] = {"cache_put",
                           false,
                           7,
                           {CACHE_ENTRY,
                            REQUIRED(VALUE),
                            OPTIONAL(REQUEST_ID),
                            {MEMBER_TTL_MS, MEMBER_OPTIONAL_AS_NULL}}},
    [MESSAGE_CACHE_GET] = {"cache_get", false, 5, {CACHE_ENTRY, OPTIONAL(REQUEST_ID)}},
    [MESSAGE_CACHE_DELETE] = {"cache_delete", false, 5, {CACHE_ENTRY, OPTIONAL(REQUEST_ID)}},
    [MESSAGE_AUTH_OK] = {"auth_ok",
                         true,
                         3,
                         {REQUIRED(SERVER_FLAGS), OPTIONAL(SERVER_FEATURES),
                          OPTIONAL(SERVER_FEATURES_HI)}},
    [MESSAGE_OK] = {.type = "ok", .from_broker = true},
    [MESSAGE_ERROR] = {"error", true, 4, {REFUSAL}},
    [MESSAGE_PUBLISH_OK] = {"publish_ok", true, 2, {REQUIRED(REQUEST_ID), OPTIONAL(OFFSET)}},
    [MESSAGE_PUBLISH_ERROR] = {"publish_error", true, 5, {REQUIRED(REQUEST_ID), REFUSAL}},
    [MESSAGE_SUBSCRIBED] = {"subscribed", true, 1, {REQUIRED(SUBSCRIPTION_ID)}},
    [MESSAGE_EVENT_STREAM_HELLO] = {"event_stream_hello", true, 1, {REQUIRED(SUBSCRIPTION_ID)}},
    [MESSAGE_EVENT] = {"event",
                       true,
                       5,
                       {SCOPE, REQUIRED(STREAM), REQUIRED(PAYLOAD), OPTIONAL(OFFSET)}},
    [MESSAGE_EVENT_BATCH] = {"event_batch",
                             true,
                             5,
                             {SCOPE, REQUIRED(STREAM), REQUIRED(PAYLOADS), OPTIONAL(BASE_OFFSET)}},
    [MESSAGE_SUBSCRIBE_CURSOR_ERROR] = {"subscribe_cursor_error",
                                        true,
                                        3,
                                        {REQUIRED(REASON), REQUIRED(REQUESTED),
                                         REQUIRED(AVAILABLE)}},
    [MESSAGE_CACHE_OK] = {"cache_ok", true, 1, {REQUIRED(REQUEST_ID)}},
    [MESSAGE_CACHE_VALUE] =
        {"cache_value",
         true,
         6,
         {CACHE_ENTRY, {MEMBER_VALUE, MEMBER_REQUIRED_NULLABLE}, OPTIONAL(REQUEST_ID)}},
    [MESSAGE_UNSUPPORTED] =
        {"unsupported",
         true,
         3,
         {REQUIRED(REQUEST_TYPE), OPTIONAL(EXTENSION), OPTIONAL(REQUEST_ID)}},
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
