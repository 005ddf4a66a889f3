/*
 * Structured log lines on standard error: one event, one line, a fixed name and typed fields.
 *
 *     LOG_WARN(quic, "handshake_failed", F_STR("peer", peer), F_ERR(err));
 *     ts=2026-01-31T12:00:00.000123Z level=warn module=quic event=handshake_failed peer=... err=TLS
 *
 * Any thread may log; a line is one write(2), so lines never mix. A level that is off costs one
 * load, and the fields are not evaluated. Lines that a peer can provoke use LOG_RATE. Secrets go
 * through F_SECRET, which prints a digest that is good for comparing within one process only.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include "base/err.h"
#include "base/slice.h"

#include <stdatomic.h>

/* Modules: their names in LOG_* and in the filter. */
#define LOG_MODULE_MAP(X)                                                                          \
    X(base)                                                                                        \
    X(quic)                                                                                        \
    X(session)                                                                                     \
    X(core)                                                                                        \
    X(cache)                                                                                       \
    X(storage)                                                                                     \
    X(auth)                                                                                        \
    X(http)                                                                                        \
    X(node)                                                                                        \
    X(client)                                                                                      \
    X(config)

#define LOG_MODULE_ENUM(name) LOG_MODULE_##name,
enum log_module { LOG_MODULE_MAP(LOG_MODULE_ENUM) LOG_MODULE_COUNT };
#undef LOG_MODULE_ENUM

enum log_level {
    LOG_LEVEL_OFF,
    LOG_LEVEL_ERROR,
    LOG_LEVEL_WARN,
    LOG_LEVEL_INFO,
    LOG_LEVEL_DEBUG,
    LOG_LEVEL_TRACE,
};

enum log_format { LOG_FORMAT_LOGFMT, LOG_FORMAT_JSON };

enum log_field_type {
    LOG_FIELD_END,
    LOG_FIELD_BYTES,
    LOG_FIELD_U64,
    LOG_FIELD_I64,
    LOG_FIELD_BOOL,
    LOG_FIELD_HEX,
    LOG_FIELD_SECRET,
};

struct log_field {
    const char *name;
    enum log_field_type type;
    union {
        struct slice bytes;
        uint64_t u64;
        int64_t i64;
        bool truth;
    };
};

/** A field that holds a zero-terminated string; NULL prints as an empty one. */
static inline struct log_field log_field_str(const char *name, const char *value) {
    struct slice bytes = value != NULL ? slice_str(value) : (struct slice){0};
    return (struct log_field){.name = name, .type = LOG_FIELD_BYTES, .bytes = bytes};
}

static inline struct log_field log_field_bytes(const char *name, enum log_field_type type,
                                               struct slice value) {
    return (struct log_field){.name = name, .type = type, .bytes = value};
}

static inline struct log_field log_field_u64(const char *name, uint64_t value) {
    return (struct log_field){.name = name, .type = LOG_FIELD_U64, .u64 = value};
}

static inline struct log_field log_field_i64(const char *name, int64_t value) {
    return (struct log_field){.name = name, .type = LOG_FIELD_I64, .i64 = value};
}

static inline struct log_field log_field_bool(const char *name, bool value) {
    return (struct log_field){.name = name, .type = LOG_FIELD_BOOL, .truth = value};
}

/** The text of an errno value, which is static or thread-local until the next call. */
struct log_field log_field_errno(int sys_errno);

/* Values are borrowed for the call. F_SLICE takes bytes of a peer, whatever they are. */
#define F_STR(name, value) log_field_str(name, value)
#define F_SLICE(name, value) log_field_bytes(name, LOG_FIELD_BYTES, value)
#define F_HEX(name, value) log_field_bytes(name, LOG_FIELD_HEX, value)
#define F_SECRET(name, value) log_field_bytes(name, LOG_FIELD_SECRET, value)
#define F_U64(name, value) log_field_u64(name, value)
#define F_I64(name, value) log_field_i64(name, value)
#define F_BOOL(name, value) log_field_bool(name, value)
#define F_ERR(code) log_field_str("err", err_name(code))
#define F_ERRNO(sys_errno) log_field_errno(sys_errno)

/* The level of each module; read by LOG_*, set by log_configure. */
extern _Atomic uint8_t log_levels[LOG_MODULE_COUNT];

static inline bool log_enabled(enum log_module module, enum log_level level) {
    return atomic_load_explicit(&log_levels[module], memory_order_relaxed) >= (uint8_t)level;
}

/** Writes one line; `fields` end with LOG_FIELD_END. `suppressed` is added when not 0. Use the
 * macros. A line longer than LOG_LINE_BYTES_MAX loses fields and says `truncated=true`. */
void log_write(enum log_module module, enum log_level level, const char *event, uint64_t suppressed,
               const struct log_field *fields);

#define LOG_LINE_BYTES_MAX 4096

#define LOG_FIELDS(...)                                                                            \
    (const struct log_field[]) {                                                                   \
        __VA_ARGS__ __VA_OPT__(, ) {                                                               \
            .name = NULL                                                                           \
        }                                                                                          \
    }

#define LOG_AT(module, level, event, ...)                                                          \
    do {                                                                                           \
        if (log_enabled(LOG_MODULE_##module, LOG_LEVEL_##level))                                   \
            log_write(LOG_MODULE_##module, LOG_LEVEL_##level, event, 0, LOG_FIELDS(__VA_ARGS__));  \
    } while (0)

#define LOG_ERROR(module, event, ...) LOG_AT(module, ERROR, event __VA_OPT__(, ) __VA_ARGS__)
#define LOG_WARN(module, event, ...) LOG_AT(module, WARN, event __VA_OPT__(, ) __VA_ARGS__)
#define LOG_INFO(module, event, ...) LOG_AT(module, INFO, event __VA_OPT__(, ) __VA_ARGS__)
#define LOG_DEBUG(module, event, ...) LOG_AT(module, DEBUG, event __VA_OPT__(, ) __VA_ARGS__)
#define LOG_TRACE(module, event, ...) LOG_AT(module, TRACE, event __VA_OPT__(, ) __VA_ARGS__)

/* A token bucket of LOG_RATE_LINES lines that refills at as many a second. Zeroed: full. */
#define LOG_RATE_LINES 10

struct log_rate {
    _Atomic uint64_t full_at_ns; /* when the bucket will be full again; past: it is full */
    _Atomic uint64_t suppressed; /* lines held back since the last one that passed */
};

/** Takes a token at `now_ns` (monotonic). True: the line may pass, and `*ret_suppressed` lines
 * before it did not. Any thread. */
bool log_rate_pass(struct log_rate *rate, uint64_t now_ns, uint64_t *ret_suppressed);

/** log_rate_pass at the present time. */
bool log_rate_pass_now(struct log_rate *rate, uint64_t *ret_suppressed);

/* As LOG_AT, for lines that a peer can provoke: limited at each place of the code. */
#define LOG_RATE(module, level, event, ...)                                                        \
    do {                                                                                           \
        static struct log_rate log_rate_here;                                                      \
        uint64_t log_suppressed;                                                                   \
        if (log_enabled(LOG_MODULE_##module, LOG_LEVEL_##level) &&                                 \
            log_rate_pass_now(&log_rate_here, &log_suppressed))                                    \
            log_write(LOG_MODULE_##module, LOG_LEVEL_##level, event, log_suppressed,               \
                      LOG_FIELDS(__VA_ARGS__));                                                    \
    } while (0)

/* What to do with a filter that names a module we do not have. */
enum log_unknown {
    LOG_UNKNOWN_REFUSED,
    LOG_UNKNOWN_SKIPPED, /* RUST_LOG is often set for other programs */
};

/**
 * Sets the levels from a filter: comma-separated `level` (of all that is not named) and
 * `module=level`, in any order; of two for the same the later wins. Without `level` it is info.
 * Levels: off error warn info debug trace, any case. An empty filter is "info". Nothing changes on
 * an error. Any thread.
 *
 *   FELIX_INVALID_ARGUMENT   an unknown level, or an unknown module that is to be refused
 */
enum felix_err log_configure(const char *filter, enum log_unknown unknown,
                             struct felix_error *reterr);

/** Would log_configure accept this filter? Same errors; changes nothing. */
enum felix_err log_check(const char *filter, enum log_unknown unknown, struct felix_error *reterr);

/** Sets the format of the lines; logfmt at start. Before other threads log. */
void log_set_format(enum log_format format);

/** Sends the lines to another descriptor (standard error at start); borrowed. Before other
 * threads log. */
void log_set_fd(int fd);

/** Lines that could not be written, because the reader of a pipe was too slow or gone. */
uint64_t log_lost_lines(void);

#endif
