/*
 * Which members each JSON message has, in the order in which they are written: the one table
 * behind message_decode and message_encode. Private to the wire layer. Constant, any thread.
 * Source: wire specification 5.3; wire extensions 2.1, 2.4, 4 and 5.1.
 */
#ifndef WIRE_MESSAGE_LAYOUT_H
#define WIRE_MESSAGE_LAYOUT_H

#include "wire/message.h"

/* X(name, JSON name) */
#define MESSAGE_MEMBER_MAP(X)                                                                      \
    X(TENANT_ID, "tenant_id")                                                                      \
    X(NAMESPACE, "namespace")                                                                      \
    X(STREAM, "stream")                                                                            \
    X(CACHE, "cache")                                                                              \
    X(KEY, "key")                                                                                  \
    X(RECORD_KEY, "key")                                                                           \
    X(TOKEN, "token")                                                                              \
    X(MESSAGE, "message")                                                                          \
    X(REQUEST_TYPE, "request_type")                                                                \
    X(EXTENSION, "extension")                                                                      \
    X(EXTENSION_NAME, "name")                                                                      \
    X(READABLE_NAME, "name")                                                                       \
    X(BODY, "body")                                                                                \
    X(VALUE, "value")                                                                              \
    X(PAYLOAD, "payload")                                                                          \
    X(PAYLOADS, "payloads")                                                                        \
    X(REQUEST_ID, "request_id")                                                                    \
    X(READABLE_REQUEST_ID, "request_id")                                                           \
    X(SUBSCRIPTION_ID, "subscription_id")                                                          \
    X(TTL_MS, "ttl_ms")                                                                            \
    X(OFFSET, "offset")                                                                            \
    X(BASE_OFFSET, "base_offset")                                                                  \
    X(START_OFFSET, "start_offset")                                                                \
    X(LIVE_OFFSET, "live_offset")                                                                  \
    X(RESUME_FROM, "resume_from")                                                                  \
    X(LEVEL, "level")                                                                              \
    X(REQUESTED, "requested")                                                                      \
    X(AVAILABLE, "available")                                                                      \
    X(CLIENT_FLAGS, "client_flags")                                                                \
    X(CLIENT_FEATURES, "client_features")                                                          \
    X(CLIENT_FEATURES_HI, "client_features_hi")                                                    \
    X(SERVER_FLAGS, "server_flags")                                                                \
    X(SERVER_FEATURES, "server_features")                                                          \
    X(SERVER_FEATURES_HI, "server_features_hi")                                                    \
    X(OWN_FEATURES, "felix_c")                                                                     \
    X(ACK, "ack")                                                                                  \
    X(START, "start")                                                                              \
    X(REASON, "reason")                                                                            \
    X(CODE, "code")                                                                                \
    X(RETRY, "retry")                                                                              \
    X(DETAIL, "detail")

#define MESSAGE_MEMBER_ENUM(name, text) MEMBER_##name,
enum message_member { MESSAGE_MEMBER_MAP(MESSAGE_MEMBER_ENUM) };
#undef MESSAGE_MEMBER_ENUM

enum member_presence {
    MEMBER_OPTIONAL,          /* left out when unset; null reads as absent */
    MEMBER_OPTIONAL_AS_NULL,  /* written as null when unset; null reads as absent */
    MEMBER_REQUIRED,          /* absent or null makes the message undecodable */
    MEMBER_REQUIRED_NULLABLE, /* must be there, but may be null */
};

struct member_layout {
    enum message_member member;
    enum member_presence presence;
};

#define MESSAGE_MEMBERS_MAX 8u

struct message_layout {
    const char *type;
    bool from_broker;
    uint8_t member_count;
    struct member_layout members[MESSAGE_MEMBERS_MAX];
};

/** The layout of a type; that of MESSAGE_UNKNOWN holds what is read of a foreign request. */
const struct message_layout *message_layout(enum message_type type);

/** The type with the wire name `name`; MESSAGE_UNKNOWN when there is none. */
enum message_type message_type_parse(struct slice name);

/** The JSON name of a member, static. */
const char *message_member_name(enum message_member member);

#endif
