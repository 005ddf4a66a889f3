/*
 * JSON control messages, both directions. Source: wire specification, section 5; wire
 * extensions 1.2, 1.4 to 1.6, 4, 5.1.
 *
 * Decoding: one call gives a tagged record whose strings live in one block owned by the message;
 * binary members (payload, value) are already decoded from base64. Strict as section 5.1 says:
 * a repeated known member, a wrong type or an integer out of range makes the message undecodable;
 * unknown members are skipped; absent and null mean the same for optional members.
 * Encoding: members in the order of the specification, compact; returns a whole frame.
 */
#ifndef WIRE_MESSAGE_H
#define WIRE_MESSAGE_H

#include "base/buf.h"
#include "base/err.h"
#include "base/slice.h"
#include "wire/ack.h"
#include "wire/features.h"
#include "wire/publish.h"

enum message_type {
    MESSAGE_UNKNOWN, /* a well-formed object whose type we do not know: see unknown_* */
    /* client to broker */
    MESSAGE_AUTH,
    MESSAGE_PUBLISH,
    MESSAGE_PUBLISH_BATCH,
    MESSAGE_SUBSCRIBE,
    MESSAGE_CACHE_PUT,
    MESSAGE_CACHE_GET,
    MESSAGE_CACHE_DELETE,
    MESSAGE_EXTENSION,
    /* broker to client */
    MESSAGE_AUTH_OK,
    MESSAGE_OK,
    MESSAGE_ERROR,
    MESSAGE_PUBLISH_OK,
    MESSAGE_PUBLISH_ERROR,
    MESSAGE_SUBSCRIBED,
    MESSAGE_EVENT_STREAM_HELLO,
    MESSAGE_EVENT,
    MESSAGE_EVENT_BATCH,
    MESSAGE_SUBSCRIPTION_LAGGED,
    MESSAGE_SUBSCRIBE_CURSOR_ERROR,
    MESSAGE_CACHE_OK,
    MESSAGE_CACHE_VALUE,
    MESSAGE_EXTENSION_RESULT,
    MESSAGE_UNSUPPORTED,
};

enum start_kind {
    START_NONE, /* live only */
    START_LATEST,
    START_EARLIEST,
    START_OFFSET,
};

/* Decoded payload lists have this much room in front of them in their block, so that an event
 * frame can be made in place by writing its prefix there. */
#define MESSAGE_HEADROOM_BYTES 32u

enum cursor_reason { CURSOR_REASON_TOO_OLD = 1, CURSOR_REASON_IN_FUTURE = 2 };

/* One record for all messages; which members mean something depends on the type. */
struct message {
    enum message_type type;
    struct buf *block; /* owns every slice below; NULL in messages that are to be encoded */

    struct slice tenant, namespace_, stream, cache, key;
    struct slice token;
    struct slice text;  /* error, publish_error: message. unsupported: request_type.
                           unknown: the value of "type" */
    struct slice value; /* cache_put: value; cache_value: value; decoded bytes */
    bool has_value;     /* cache_value: false is a miss */

    struct slice extension; /* extension, extension_result: "name"; unsupported: the same, left
                               out when empty. Of an extension it is empty when it is no text */
    struct slice body;      /* extension, extension_result: one JSON value as its text; empty when
                               absent */

    /* publish, publish_batch, event, event_batch: a proven list in binary layout */
    struct payload_list payloads; /* MESSAGE_HEADROOM_BYTES of the block lie free before it */
    bool has_record_key;          /* publish: optional "key", base64 decoded */
    struct slice record_key;

    bool has_request_id, has_subscription_id, has_ttl, has_offset, has_live_offset, has_level;
    bool has_client_flags;
    bool has_client_features; /* auth: client_features; auth_ok: server_features */
    bool has_ack;
    uint8_t ack_mode; /* enum publish_ack_mode; the type's default when has_ack is false */
    enum start_kind start;
    enum cursor_reason reason;
    uint64_t request_id;
    uint64_t subscription_id;
    uint64_t ttl_ms;
    uint64_t offset;               /* start offset; event offset; publish_ok offset; subscribed
                                      start_offset; subscription_lagged resume_from; then
                                      has_offset is set, which encoding a start ignores */
    uint64_t live_offset;          /* subscribed */
    enum ack_level level;          /* publish_ok: a member of ours */
    uint64_t requested, available; /* subscribe_cursor_error */
    uint16_t flags;                /* client_flags, server_flags */
    uint32_t features;             /* client_features, server_features; 0 when absent */
    uint32_t features_hi;          /* decoded as 0 unless features has FEATURE_EXTENDED */
    uint32_t own_features;         /* auth, auth_ok: `felix_c`; 0 when absent */
    enum wire_code code;           /* error, publish_error: NONE when absent or unknown */
    enum wire_retry retry;
};

/**
 * Decode the JSON body of one frame. `ret` is written on FELIX_OK only and must be given to
 * message_deinit. The array form of the original's decoder is not accepted. Any thread.
 *
 *   FELIX_OK        decoded, MESSAGE_UNKNOWN included (request_id is filled when readable)
 *   FELIX_BAD_JSON  not JSON, not an object, no string "type", a member of the wrong shape
 */
enum felix_err message_decode(struct slice body, struct message *ret);

/** Frees what message_decode allocated. Accepts a zeroed record. */
void message_deinit(struct message *m);

/**
 * Encode `m` as a whole frame, header included, into a new block; returned owned, `*ret_bytes`
 * long. Members that the type requires are always written, whatever the has_ flags say; the others
 * only when set (features, features_hi and own_features when not zero). `payloads` is written
 * as base64; publish and event need exactly one. `code` and `retry` are written only when code is
 * not NONE; a retry of NONE then stands for the default class of the code. The type is not
 * MESSAGE_UNKNOWN; all texts are valid UTF-8, and `body` is valid JSON. Borrows what `m` points to.
 * Any thread.
 */
struct buf *message_encode(const struct message *m, size_t *ret_bytes);

/** The wire name of a type, "unknown" for MESSAGE_UNKNOWN. */
const char *message_type_name(enum message_type type);

/** Is it a message that only a broker sends? */
bool message_is_from_broker(enum message_type type);

#endif
