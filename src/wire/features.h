/* Negotiation words, error codes and retry classes. Source: wire extensions, sections 2 and 4. */
#ifndef WIRE_FEATURES_H
#define WIRE_FEATURES_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* First feature word. Only the bits that we act upon have names here. */
#define FEATURE_CACHE_DELETE 0x00000004u
#define FEATURE_ERROR_CODES 0x00000800u
#define FEATURE_UNSUPPORTED 0x00002000u
#define FEATURE_ACK_ON_COMMIT 0x00080000u
#define FEATURE_SUBSCRIPTION_LAGGED 0x00200000u
#define FEATURE_EXTENDED 0x80000000u

/* What a broker advertises: always, and what comes with durable storage. It is a setting of the
 * server, because nothing is advertised that is not kept. Wire extensions, section 6. */
#define SERVER_FLAGS 0x007Fu
#define SERVER_FLAGS_DURABLE 0x5000u /* FRAME_ACK_OFFSET, FRAME_EVENT_TIMESTAMPS */
#define SERVER_FEATURES (FEATURE_CACHE_DELETE | FEATURE_ERROR_CODES | FEATURE_UNSUPPORTED)
#define SERVER_FEATURES_DURABLE (FEATURE_ACK_ON_COMMIT | FEATURE_SUBSCRIPTION_LAGGED)

/* What our client offers; timestamps (0x4000) only where the application wants them. */
#define CLIENT_FLAGS 0x107Fu
#define CLIENT_FEATURES                                                                            \
    (FEATURE_ERROR_CODES | FEATURE_UNSUPPORTED | FEATURE_ACK_ON_COMMIT |                           \
     FEATURE_SUBSCRIPTION_LAGGED)

/* Our own word, member `felix_c` of auth and auth_ok: what both peers named holds on that stream.
 * No other peer knows the member. Bits are never given back. */
#define OWN_CACHE_FRAMES 0x00000001u
#define OWN_ACK_LEVELS 0x00000002u
#define OWN_ADMIN 0x00000004u /* the extension "felix.streams": wire/stream_admin.h */
#define OWN_FEATURES (OWN_CACHE_FRAMES | OWN_ACK_LEVELS | OWN_ADMIN)

/* X(name, number, text, default retry class) */
#define WIRE_CODE_MAP(X)                                                                           \
    X(UNAUTHENTICATED, 1, "unauthenticated", FATAL)                                                \
    X(FORBIDDEN, 2, "forbidden", FATAL)                                                            \
    X(NOT_FOUND, 3, "not_found", RETRY_AFTER)                                                      \
    X(INVALID_REQUEST, 4, "invalid_request", FATAL)                                                \
    X(SHARD_UNAVAILABLE, 5, "shard_unavailable", RETRY)                                            \
    X(NOT_LEADER, 6, "not_leader", REDIRECT)                                                       \
    X(QUORUM_TIMEOUT, 7, "quorum_timeout", OUTCOME_UNKNOWN)                                        \
    X(LEADERSHIP_LOST, 8, "leadership_lost", OUTCOME_UNKNOWN)                                      \
    X(UNACKNOWLEDGED, 9, "unacknowledged", OUTCOME_UNKNOWN)                                        \
    X(OVERLOADED, 10, "overloaded", RETRY_AFTER)                                                   \
    X(LIMIT_EXCEEDED, 11, "limit_exceeded", FATAL)                                                 \
    X(DRAINING, 12, "draining", RETRY)                                                             \
    X(INTERNAL, 13, "internal", OUTCOME_UNKNOWN)                                                   \
    X(STORAGE, 14, "storage", OUTCOME_UNKNOWN)                                                     \
    X(STALE_CLAIM, 15, "stale_claim", RETRY)                                                       \
    X(REVOKED, 16, "revoked", FATAL)                                                               \
    X(STALE_WIDTH, 17, "stale_width", RETRY)                                                       \
    X(FEATURE_NOT_ENABLED, 18, "feature_not_enabled", FATAL)                                       \
    X(STREAM_HAS_COMMITS, 19, "stream_has_commits", FATAL)

#define WIRE_CODE_ENUM(name, number, text, retry) WIRE_CODE_##name = (number),
enum wire_code { WIRE_CODE_NONE = 0, WIRE_CODE_MAP(WIRE_CODE_ENUM) };
#undef WIRE_CODE_ENUM

enum wire_retry {
    WIRE_RETRY_NONE = 0,
    WIRE_RETRY_RETRY = 1,
    WIRE_RETRY_RETRY_AFTER = 2,
    WIRE_RETRY_REDIRECT = 3,
    WIRE_RETRY_OUTCOME_UNKNOWN = 4,
    WIRE_RETRY_FATAL = 5,
};

/** Static JSON name of a code or retry class; NULL for NONE and unknown values. */
const char *wire_code_name(enum wire_code code);
const char *wire_retry_name(enum wire_retry retry);

/** The retry class that a code has unless its sender says otherwise; NONE for NONE. */
enum wire_retry wire_code_retry(enum wire_code code);

/** The reverse of the two names; WIRE_CODE_NONE and WIRE_RETRY_NONE when unknown. */
enum wire_code wire_code_parse(const char *name, size_t len);
enum wire_retry wire_retry_parse(const char *name, size_t len);

/** Which felix_err a client reports for a code, and which code a broker sends for a felix_err. */
enum felix_err wire_code_to_err(enum wire_code code);
enum wire_code wire_code_of_err(enum felix_err err);

/** The retry class that goes with an error: the default of its code, but what a disk does depends.
 * When it is full nothing was stored, and there may be room later; when a log is damaged nothing
 * will be, until somebody looks at it. */
enum wire_retry wire_retry_of_err(enum felix_err err);

/** Which felix_err a client reports for a code with its retry class; NONE: the default. */
enum felix_err wire_refusal_to_err(enum wire_code code, enum wire_retry retry);

#endif
