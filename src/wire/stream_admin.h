/*
 * The bodies of the extension "felix.streams": which streams exist, and making and deleting them.
 * Offered by OWN_ADMIN; docs/stream-admin.md describes it for writers of other clients.
 *
 * Requests and answers are JSON. Decoding is strict: a member that is not known here is refused,
 * because it may be a setting that somebody counts on. Records own no memory but what
 * stream_answer_deinit frees. Pure, any thread.
 */
#ifndef WIRE_STREAM_ADMIN_H
#define WIRE_STREAM_ADMIN_H

#include "base/err.h"
#include "base/name.h"
#include "base/slice.h"
#include "base/text.h"

#include <stdbool.h>
#include <stdint.h>

#define STREAM_ADMIN_EXTENSION "felix.streams"

/* Streams in one answer to a list. The next ones follow on asking with `after`. */
#define STREAM_ANSWER_ENTRIES_MAX 500u
#define STREAM_DAMAGE_MAX 16u
#define STREAM_NAME_BYTES (NAME_VALID_BYTES_MAX + 1u) /* with the terminating zero */
#define STREAM_REASON_BYTES 256u

/* X(name, text) */
#define STREAM_OP_MAP(X)                                                                           \
    X(CREATE, "create")                                                                            \
    X(LIST, "list")                                                                                \
    X(SHOW, "show")                                                                                \
    X(DELETE, "delete")

#define STREAM_OP_ENUM(name, text) STREAM_OP_##name,
enum stream_op { STREAM_OP_MAP(STREAM_OP_ENUM) };
#undef STREAM_OP_ENUM

struct stream_request {
    enum stream_op op;
    char tenant[STREAM_NAME_BYTES];
    char space[STREAM_NAME_BYTES];  /* the namespace */
    char stream[STREAM_NAME_BYTES]; /* not for list */
    char after[STREAM_NAME_BYTES];  /* list: only names behind this one; "" from the first on */
    bool durable;                   /* create */
    bool purge;                     /* delete: the files of the log too */
    /* create, durable: absent leaves what there is, and of a new stream the broker's default, which
     * is also what 0 stands for */
    bool has_retention_bytes, has_retention_seconds;
    uint64_t retention_bytes, retention_seconds;
};

/* Who says that a stream exists, X(name, text). */
#define STREAM_ORIGIN_MAP(X)                                                                       \
    X(USE, "use")         /* a development broker made it on its first use */                      \
    X(CATALOG, "command") /* this extension */                                                     \
    X(SCOPE, "scope")     /* the scope section of the configuration */

#define STREAM_ORIGIN_ENUM(name, text) STREAM_ORIGIN_##name,
enum stream_origin { STREAM_ORIGIN_MAP(STREAM_ORIGIN_ENUM) };
#undef STREAM_ORIGIN_ENUM

/* X(name, text) */
#define STREAM_STATE_MAP(X)                                                                        \
    X(OK, "ok")                                                                                    \
    X(DAMAGED, "damaged") /* it serves, but for the ranges in `damage` */                          \
    X(FAILED, "failed")   /* it does not serve; `reason` */

#define STREAM_STATE_ENUM(name, text) STREAM_STATE_##name,
enum stream_state { STREAM_STATE_MAP(STREAM_STATE_ENUM) };
#undef STREAM_STATE_ENUM

struct stream_damage {
    uint64_t first, end; /* offsets, half open */
};

struct stream_entry {
    char stream[STREAM_NAME_BYTES];
    bool durable;
    enum stream_origin origin;
    enum stream_state state;
    char reason[STREAM_REASON_BYTES];
    uint64_t bytes;       /* on disk; in memory */
    uint64_t segments;    /* files; 0 in memory */
    uint64_t oldest, end; /* offsets: the first that can be read, the next that will be written */
    uint64_t subscriptions;
    uint64_t retention_bytes, retention_seconds; /* in force; 0: without limit */
    uint64_t damage_count;                       /* all; the first ones stand in `damage` */
    struct stream_damage damage[STREAM_DAMAGE_MAX];
};

/* What became of a request, X(name, text). */
#define STREAM_OUTCOME_MAP(X)                                                                      \
    X(LISTED, "listed")                                                                            \
    X(MADE, "made")                                                                                \
    X(EXISTS, "exists")   /* with these settings, before */                                        \
    X(CHANGED, "changed") /* its retention */                                                      \
    X(DELETED, "deleted")

#define STREAM_OUTCOME_ENUM(name, text) STREAM_OUTCOME_##name,
enum stream_outcome { STREAM_OUTCOME_MAP(STREAM_OUTCOME_ENUM) };
#undef STREAM_OUTCOME_ENUM

struct stream_answer {
    enum stream_outcome outcome;
    struct stream_entry *entries; /* owned; by name; after a delete: as it was before */
    size_t count;
    bool more; /* list: ask again for what is behind the last one */
};

/** Words of the enums, static. */
const char *stream_op_name(enum stream_op op);
const char *stream_origin_name(enum stream_origin origin);
const char *stream_state_name(enum stream_state state);
const char *stream_outcome_name(enum stream_outcome outcome);

/**
 * Decode a request. FELIX_INVALID_ARGUMENT: reterr says what is wrong with which member, in words
 * that may be sent back. Names are such as can exist (name_valid).
 */
enum felix_err stream_request_decode(struct slice body, struct stream_request *ret,
                                     struct felix_error *reterr);
void stream_request_encode(const struct stream_request *request, struct text *out);

/**
 * Decode an answer; *ret is written on FELIX_OK only and needs stream_answer_deinit.
 * FELIX_MALFORMED: it is none; members that are not known are skipped.
 */
enum felix_err stream_answer_decode(struct slice body, struct stream_answer *ret);
void stream_answer_encode(const struct stream_answer *answer, struct text *out);
void stream_answer_deinit(struct stream_answer *answer);

/** One entry as a JSON object; all texts are valid UTF-8. */
void stream_entry_encode(const struct stream_entry *entry, struct text *out);

#endif
