/*
 * The error codes of Felix, inside and outside: one map makes the enum, the names and the texts.
 *
 * The sign and the range tell what to do:
 *      0            success
 *      1            more input is needed; never mixed up with malformed input
 *     -1 ..  -99    ours: a resource ran out or the operating system refused
 *   -100 .. -199    the peer's bytes: malformed, unknown or not allowed
 *   -200 .. -299    identity: not authenticated or not permitted
 *   -300 .. -399    a bound was reached, or a thing does not exist
 *   -400 .. -499    the caller's use: a wrong argument, a closed handle, a timeout
 */
#ifndef FELIX_ERRORS_H
#define FELIX_ERRORS_H

/* X(name, value, text) */
#define FELIX_ERR_MAP(X)                                                                           \
    X(OK, 0, "ok")                                                                                 \
    X(INCOMPLETE, 1, "more bytes are needed")                                                      \
    X(NO_MEMORY, -1, "out of memory")                                                              \
    X(SYSTEM, -2, "the operating system refused")                                                  \
    X(TLS, -3, "TLS failed")                                                                       \
    X(INTERNAL, -4, "internal error")                                                              \
    X(STORAGE, -5, "the disk failed")                                                              \
    X(DISK_FULL, -6, "the disk is full")                                                           \
    X(DAMAGED, -7, "damaged on disk")                                                              \
    X(BAD_MAGIC, -100, "not a Felix frame")                                                        \
    X(BAD_VERSION, -101, "unsupported protocol version")                                           \
    X(TOO_LARGE, -102, "larger than the limit")                                                    \
    X(MALFORMED, -103, "malformed")                                                                \
    X(BAD_JSON, -104, "not a valid JSON message")                                                  \
    X(UNKNOWN_TYPE, -105, "unknown message type")                                                  \
    X(UNKNOWN_FLAGS, -106, "unsupported frame flags")                                              \
    X(PROTOCOL, -107, "unexpected message")                                                        \
    X(UNAUTHENTICATED, -200, "not authenticated")                                                  \
    X(FORBIDDEN, -201, "forbidden")                                                                \
    X(EXPIRED, -202, "token expired")                                                              \
    X(NOT_YET_VALID, -203, "token not yet valid")                                                  \
    X(BAD_SIGNATURE, -204, "no key verifies the signature")                                        \
    X(WRONG_TENANT, -205, "tenant mismatch")                                                       \
    X(NOT_FOUND, -300, "not found")                                                                \
    X(LIMIT, -301, "a limit was reached")                                                          \
    X(OVERLOADED, -302, "overloaded")                                                              \
    X(CURSOR_TOO_OLD, -303, "the requested offset is no longer retained")                          \
    X(CURSOR_IN_FUTURE, -304, "the requested offset lies beyond the end of the stream")            \
    X(DRAINING, -305, "the broker is shutting down")                                               \
    X(UNSUPPORTED, -306, "not supported by this broker")                                           \
    X(EXISTS, -307, "already exists")                                                              \
    X(LAGGED, -308, "fell behind, and messages were left out")                                     \
    X(INVALID_ARGUMENT, -400, "invalid argument")                                                  \
    X(CLOSED, -401, "closed")                                                                      \
    X(TIMED_OUT, -402, "timed out")                                                                \
    X(NOT_CONNECTED, -403, "not connected")                                                        \
    X(OUTCOME_UNKNOWN, -404, "the connection was lost before the answer; it may have happened")    \
    X(WOULD_BLOCK, -405, "nothing is ready")

#if defined(__STDC_VERSION__) && __STDC_VERSION__ >= 202000L
#define FELIX_MUST_CHECK [[nodiscard]]
#else
#define FELIX_MUST_CHECK
#endif

#define FELIX_ERR_ENUM(name, value, text) FELIX_##name = (value),
enum FELIX_MUST_CHECK felix_err { FELIX_ERR_MAP(FELIX_ERR_ENUM) };
#undef FELIX_ERR_ENUM

#endif
