#include "wire/features.h"

#include <string.h>

const char *wire_code_name(enum wire_code code) {
    switch (code) {
#define WIRE_CODE_CASE(name, number, text, retry)                                                  \
    case WIRE_CODE_##name:                                                                         \
        return text;
        WIRE_CODE_MAP(WIRE_CODE_CASE)
#undef WIRE_CODE_CASE
    case WIRE_CODE_NONE:
        break;
    }
    return NULL;
}

enum wire_retry wire_code_retry(enum wire_code code) {
    switch (code) {
#define WIRE_CODE_CASE(name, number, text, retry)                                                  \
    case WIRE_CODE_##name:                                                                         \
        return WIRE_RETRY_##retry;
        WIRE_CODE_MAP(WIRE_CODE_CASE)
#undef WIRE_CODE_CASE
    case WIRE_CODE_NONE:
        break;
    }
    return WIRE_RETRY_NONE;
}

enum wire_code wire_code_parse(const char *name, size_t len) {
#define WIRE_CODE_MATCH(id, number, text, retry)                                                   \
    if (len == sizeof(text) - 1 && memcmp(name, text, len) == 0)                                   \
        return WIRE_CODE_##id;
    WIRE_CODE_MAP(WIRE_CODE_MATCH)
#undef WIRE_CODE_MATCH
    return WIRE_CODE_NONE;
}

static const char *const retry_names[] = {
    [WIRE_RETRY_RETRY] = "retry",       [WIRE_RETRY_RETRY_AFTER] = "retry_after",
    [WIRE_RETRY_REDIRECT] = "redirect", [WIRE_RETRY_OUTCOME_UNKNOWN] = "outcome_unknown",
    [WIRE_RETRY_FATAL] = "fatal",
};

const char *wire_retry_name(enum wire_retry retry) {
    size_t index = (size_t)retry;
    return index < sizeof retry_names / sizeof retry_names[0] ? retry_names[index] : NULL;
}

enum wire_retry wire_retry_parse(const char *name, size_t len) {
    for (size_t i = 1; i < sizeof retry_names / sizeof retry_names[0]; i++)
        if (strlen(retry_names[i]) == len && memcmp(retry_names[i], name, len) == 0)
            return (enum wire_retry)i;
    return WIRE_RETRY_NONE;
}

enum felix_err wire_code_to_err(enum wire_code code) {
    switch (code) {
    case WIRE_CODE_UNAUTHENTICATED:
    case WIRE_CODE_REVOKED:
        return FELIX_UNAUTHENTICATED;
    case WIRE_CODE_FORBIDDEN:
        return FELIX_FORBIDDEN;
    case WIRE_CODE_NOT_FOUND:
        return FELIX_NOT_FOUND;
    case WIRE_CODE_INVALID_REQUEST:
    case WIRE_CODE_STALE_CLAIM:
    case WIRE_CODE_STALE_WIDTH:
        return FELIX_INVALID_ARGUMENT;
    case WIRE_CODE_SHARD_UNAVAILABLE:
    case WIRE_CODE_OVERLOADED:
        return FELIX_OVERLOADED;
    case WIRE_CODE_QUORUM_TIMEOUT:
    case WIRE_CODE_LEADERSHIP_LOST:
    case WIRE_CODE_UNACKNOWLEDGED:
        return FELIX_OUTCOME_UNKNOWN;
    case WIRE_CODE_LIMIT_EXCEEDED:
        return FELIX_LIMIT;
    case WIRE_CODE_DRAINING:
        return FELIX_DRAINING;
    case WIRE_CODE_NOT_LEADER:
    case WIRE_CODE_FEATURE_NOT_ENABLED:
    case WIRE_CODE_STREAM_HAS_COMMITS:
        return FELIX_UNSUPPORTED;
    case WIRE_CODE_STORAGE:
        return FELIX_STORAGE;
    case WIRE_CODE_INTERNAL:
    case WIRE_CODE_NONE:
        break;
    }
    return FELIX_INTERNAL;
}

enum wire_code wire_code_of_err(enum felix_err err) {
    switch (err) {
    case FELIX_OK:
        return WIRE_CODE_NONE;
    case FELIX_BAD_MAGIC:
    case FELIX_BAD_VERSION:
    case FELIX_MALFORMED:
    case FELIX_BAD_JSON:
    case FELIX_UNKNOWN_TYPE:
    case FELIX_UNKNOWN_FLAGS:
    case FELIX_PROTOCOL:
    case FELIX_CURSOR_TOO_OLD:
    case FELIX_CURSOR_IN_FUTURE:
    case FELIX_UNSUPPORTED:
    case FELIX_EXISTS:
    case FELIX_INVALID_ARGUMENT:
        return WIRE_CODE_INVALID_REQUEST;
    case FELIX_UNAUTHENTICATED:
    case FELIX_EXPIRED:
    case FELIX_NOT_YET_VALID:
    case FELIX_BAD_SIGNATURE:
        return WIRE_CODE_UNAUTHENTICATED;
    case FELIX_FORBIDDEN:
    case FELIX_WRONG_TENANT:
        return WIRE_CODE_FORBIDDEN;
    case FELIX_NOT_FOUND:
        return WIRE_CODE_NOT_FOUND;
    case FELIX_TOO_LARGE:
    case FELIX_LIMIT:
        return WIRE_CODE_LIMIT_EXCEEDED;
    case FELIX_OVERLOADED:
    case FELIX_NO_MEMORY:
    case FELIX_WOULD_BLOCK:
        return WIRE_CODE_OVERLOADED;
    case FELIX_DRAINING:
        return WIRE_CODE_DRAINING;
    case FELIX_TIMED_OUT:
    case FELIX_OUTCOME_UNKNOWN:
        return WIRE_CODE_UNACKNOWLEDGED;
    case FELIX_STORAGE:
    case FELIX_DISK_FULL:
    case FELIX_DAMAGED:
        return WIRE_CODE_STORAGE;
    case FELIX_INCOMPLETE:
    case FELIX_SYSTEM:
    case FELIX_TLS:
    case FELIX_INTERNAL:
    case FELIX_CLOSED:
    case FELIX_NOT_CONNECTED:
    case FELIX_LAGGED:
        break;
    }
    return WIRE_CODE_INTERNAL;
}

enum wire_retry wire_retry_of_err(enum felix_err err) {
    if (err == FELIX_DISK_FULL)
        return WIRE_RETRY_RETRY_AFTER;
    if (err == FELIX_DAMAGED)
        return WIRE_RETRY_FATAL;
    return wire_code_retry(wire_code_of_err(err));
}

enum felix_err wire_refusal_to_err(enum wire_code code, enum wire_retry retry) {
    if (code == WIRE_CODE_STORAGE && retry == WIRE_RETRY_RETRY_AFTER)
        return FELIX_DISK_FULL;
    if (code == WIRE_CODE_STORAGE && retry == WIRE_RETRY_FATAL)
        return FELIX_DAMAGED;
    return wire_code_to_err(code);
}
