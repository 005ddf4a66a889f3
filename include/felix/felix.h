/*
 * libfelix: the client of the Felix message broker.
 *
 * A client is its QUIC connections and one background thread that serves them. Every handle may be
 * used from any thread at the same time. A thread that waits in a call serves the connections
 * itself meanwhile (FELIX_CALLER_IO=0 leaves it to the background thread). Callbacks run on the
 * thread that does, one at a time, right where the bytes arrived: they must not block nor take a
 * lock that a thread holds while it waits in a call of this library, and they may call every
 * function of this header that is marked "may be called from a callback" (these never block; a
 * publish from there leaves with the same turn). Everything that a call gives by pointer in a
 * callback is borrowed until it returns.
 *
 * Errors: functions return enum felix_err, FELIX_OK being 0. felix_last_error() tells, per thread,
 * what was tried, with what value and what to do.
 *
 * C99 and C++ clean. Only names that begin with felix_ or FELIX_ are defined.
 */
#ifndef FELIX_FELIX_H
#define FELIX_FELIX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "felix/errors.h"

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define FELIX_API __attribute__((visibility("default")))
#else
#define FELIX_API
#endif

typedef struct felix_options felix_options;
typedef struct felix_client felix_client;
typedef struct felix_subscription felix_subscription;

/* ---- versions and errors ---- */

/** "0.1.0". */
FELIX_API const char *felix_version(void);

/** Static name ("NOT_FOUND") and text of a code. */
FELIX_API const char *felix_err_name(enum felix_err err);
FELIX_API const char *felix_err_text(enum felix_err err);

/** Text of the last failure on this thread, "" when none. Valid until the thread's next call. */
FELIX_API const char *felix_last_error(void);

struct felix_cursor_error {
    uint64_t requested; /* the offset that was asked for */
    uint64_t available; /* what works: the oldest offset, the end of the stream, where to resume */
};

/**
 * More about the last failure on this thread, if it was FELIX_CURSOR_TOO_OLD (what is available is
 * the oldest offset that is retained), FELIX_CURSOR_IN_FUTURE (the end of the stream) or
 * FELIX_LAGGED (the first message that was left out, twice). Also inside on_end. False: it was
 * another failure, and *ret is left alone.
 */
FELIX_API bool felix_last_cursor_error(struct felix_cursor_error *ret);

/* ---- options ---- */

/**
 * New options: built-in defaults, then FELIX_PROFILE and the FELIX_* variables of the
 * environment (docs/client-settings.md), then, where still unset, what a development broker on
 * this machine left in its data directory (ca.pem and token). Returned owned; NULL with
 * felix_last_error() when a variable cannot be used.
 */
FELIX_API felix_options *felix_options_new(void);
FELIX_API void felix_options_free(felix_options *options);

/* Each copies its argument and refuses what cannot work with FELIX_INVALID_ARGUMENT. */
/** "host:port", "1.2.3.4:5000", "[::1]:5000"; default 127.0.0.1:5000. */
FELIX_API enum felix_err felix_options_set_server(felix_options *options, const char *address);
/** Name that the certificate must carry; default: the host of the address. */
FELIX_API enum felix_err felix_options_set_server_name(felix_options *options, const char *name);
/** PEM file of trusted certificates; NULL: the system's. */
FELIX_API enum felix_err felix_options_set_ca_file(felix_options *options, const char *path);
FELIX_API enum felix_err felix_options_set_tenant(felix_options *options, const char *tenant);
FELIX_API enum felix_err felix_options_set_token(felix_options *options, const char *token);
/** The file is read again for each QUIC stream that opens: a renewed token is picked up, also by
 * connections that live longer than a token. */
FELIX_API enum felix_err felix_options_set_token_file(felix_options *options, const char *path);
/** Any client setting by its environment name without FELIX_, lower case: "pub_conn_pool". */
FELIX_API enum felix_err felix_options_set(felix_options *options, const char *name,
                                           const char *value);
FELIX_API const char *felix_options_server(const felix_options *options);
FELIX_API const char *felix_options_tenant(const felix_options *options);

/* ---- client ---- */

/**
 * Connect: one publish stream is opened, authenticated and confirmed before this returns; every
 * other connection of the pools opens when it is first needed. Blocks up to `timeout_ms` (0: 10 s).
 * `options` is copied. Returns owned in *ret. Not from a callback.
 *
 *   FELIX_TIMED_OUT        nobody answered at the address
 *   FELIX_NOT_CONNECTED    nothing listens at the address
 *   FELIX_TLS              the certificate is not trusted or carries another name
 *   FELIX_UNAUTHENTICATED  the broker refused the token
 */
FELIX_API enum felix_err felix_connect(const felix_options *options, uint32_t timeout_ms,
                                       felix_client **ret);

/**
 * Send what is queued, wait for outstanding acknowledgements up to `timeout_ms`, end all
 * subscriptions, close, join the thread and free. Callbacks of what did not finish run with
 * FELIX_CLOSED before this returns. Accepts NULL. Not from a callback.
 */
FELIX_API void felix_close(felix_client *client, uint32_t timeout_ms);

/** Wait until every publish so far was answered (acknowledged ones) or given to the network.
 * FELIX_TIMED_OUT after `timeout_ms`. Not from a callback. */
FELIX_API enum felix_err felix_flush(felix_client *client, uint32_t timeout_ms);

/** One request and answer on a live connection; round-trip time in *ret_ns. */
FELIX_API enum felix_err felix_ping(felix_client *client, uint32_t timeout_ms, uint64_t *ret_ns);

struct felix_stats {
    uint64_t connections, connects, reconnects;
    uint64_t published, publish_bytes, publish_acked, publish_failed;
    uint64_t received, receive_bytes, receive_dropped; /* items; dropped: by the queue policy */
    uint64_t cache_requests, cache_failures;
    uint64_t datagrams_in, datagrams_out, bytes_in, bytes_out;
};
/** A snapshot of the counters. May be called from a callback. */
FELIX_API void felix_client_stats(felix_client *client, struct felix_stats *ret);

/* ---- publish ---- */

enum felix_ack {
    FELIX_ACK_NONE = 0,        /* fire and forget */
    FELIX_ACK_PER_MESSAGE = 1, /* the broker answers each publish call */
    FELIX_ACK_PER_BATCH = 2    /* the same, named for batches */
};

struct felix_bytes {
    const void *data;
    size_t len;
};

/* How safe an acknowledged publish is; see docs/acknowledgements.md. */
enum felix_level {
    FELIX_LEVEL_UNKNOWN = 0, /* nothing was acknowledged, or the broker does not say */
    FELIX_LEVEL_MEMORY,      /* in the broker's memory */
    FELIX_LEVEL_WRITTEN,     /* with the operating system: outlives the broker */
    FELIX_LEVEL_FLUSHED      /* on the disk: outlives the machine */
};
/** "unknown", "memory", "written" or "flushed". */
FELIX_API const char *felix_level_name(enum felix_level level);

struct felix_publish_result {
    enum felix_err err;
    const char *error_text; /* "" when FELIX_OK */
    uint64_t offset;        /* of the first payload, meaningful if has_offset: durable streams */
    bool has_offset;
    enum felix_level level;
};

/** The answer to one publish call, or why there is none. FELIX_OUTCOME_UNKNOWN: the connection
 * was lost after sending; it is not sent again. Runs as a callback. */
typedef void (*felix_publish_done)(void *context, const struct felix_publish_result *result);

/**
 * Publish `count` payloads to a stream as one contiguous batch. Copies the payloads. Publishes
 * from one thread to one stream keep their order.
 *
 * With `done` NULL this blocks: with FELIX_ACK_NONE until the bytes are queued, else until the
 * broker has answered. With `done` it returns when the bytes are queued and `done` runs once.
 * When the bytes in flight (FELIX_PUBLISH_INFLIGHT_BYTES) are used up, a call from a thread waits
 * for room; one from a callback returns FELIX_WOULD_BLOCK instead.
 * May be called from a callback if `done` is given or `ack` is NONE.
 *
 *   FELIX_TOO_LARGE   the frame exceeds the limit (FELIX_MAX_FRAME_BYTES, 16 MiB)
 *   FELIX_NOT_FOUND, FELIX_FORBIDDEN, FELIX_OVERLOADED ...   as the broker answered
 *   FELIX_DISK_FULL   the broker's disk is full: nothing was stored; later there may be room
 *   FELIX_STORAGE     the broker's disk failed: it may be stored or not
 *   FELIX_DAMAGED     the stream takes no publishes until its log was looked at
 */
FELIX_API enum felix_err felix_publish(felix_client *client, const char *ns, const char *stream,
                                       const struct felix_bytes *payloads, size_t count,
                                       enum felix_ack ack, felix_publish_done done, void *context);

/** One payload with a routing key. As felix_publish. */
FELIX_API enum felix_err felix_publish_keyed(felix_client *client, const char *ns,
                                             const char *stream, struct felix_bytes key,
                                             struct felix_bytes payload, enum felix_ack ack,
                                             felix_publish_done done, void *context);

/**
 * Publish `count` payloads as one batch, wait for the broker's acknowledgement, and tell in *ret
 * what it says: where the batch is stored and how safely. `key` may be NULL. The text in *ret is
 * valid until the thread's next call. Returns ret->err. Not from a callback. Errors: felix_publish.
 */
FELIX_API enum felix_err felix_publish_confirmed(felix_client *client, const char *ns,
                                                 const char *stream, const struct felix_bytes *key,
                                                 const struct felix_bytes *payloads, size_t count,
                                                 struct felix_publish_result *ret);

/* ---- subscribe ---- */

enum felix_start {
    FELIX_START_LIVE = 0, /* from registration on */
    FELIX_START_LATEST,   /* the same, as a position */
    FELIX_START_EARLIEST, /* the oldest that is retained */
    FELIX_START_OFFSET    /* from felix_subscribe_options.offset on */
};

enum felix_queue_policy { FELIX_QUEUE_BLOCK = 0, FELIX_QUEUE_DROP_NEW, FELIX_QUEUE_DROP_OLD };

struct felix_message {
    const void *data;
    size_t len;
    uint64_t offset; /* meaningful if has_offset */
    bool has_offset;
    bool has_timestamp;
    /* Meaningful if has_timestamp: when the broker stored it, microseconds since 1970 (UTC). Only
     * with the setting event_timestamps, and only of durable streams. */
    uint64_t timestamp_us;
};

/** A run of messages that arrived together. Runs as a callback. */
typedef void (*felix_on_messages)(void *context, felix_subscription *subscription,
                                  const struct felix_message *messages, size_t count);

/** The subscription ended: FELIX_CLOSED by the broker (stream deleted) or by us, or an error
 * that resubscribing cannot mend. Runs once, as a callback. */
typedef void (*felix_on_end)(void *context, felix_subscription *subscription, enum felix_err err,
                             const char *error_text);

struct felix_subscribe_options {
    enum felix_start start;
    uint64_t offset;
    felix_on_messages on_messages; /* NULL: messages are queued for felix_next */
    felix_on_end on_end;           /* may be NULL */
    void *context;
    size_t queue_messages_max;      /* for felix_next; 0: FELIX_CLIENT_SUB_QUEUE_CAPACITY */
    enum felix_queue_policy policy; /* a full queue; BLOCK slows the broker down */
    bool no_resubscribe;            /* end instead of resuming after a lost connection or a lag */
};

/**
 * Subscribe to a stream. Returns when the broker has confirmed: whatever is published after
 * that is delivered. After a lost connection the client subscribes again at the next offset
 * where offsets are known (else at the live end) until closed. When the broker says that it left
 * messages out because they were read too slowly, which it does for durable streams, the client
 * subscribes again at the first of them, so that none is lost. `options` may be NULL. Returns
 * owned in *ret, to be given to felix_unsubscribe. Not from a callback.
 *
 *   FELIX_NOT_FOUND, FELIX_FORBIDDEN, FELIX_LIMIT
 *   FELIX_CURSOR_TOO_OLD, FELIX_CURSOR_IN_FUTURE   felix_last_cursor_error tells what is
 *   FELIX_STORAGE, FELIX_DAMAGED                   what is stored cannot be read
 */
FELIX_API enum felix_err felix_subscribe(felix_client *client, const char *ns, const char *stream,
                                         const struct felix_subscribe_options *options,
                                         felix_subscription **ret);

/**
 * Take the next message, waiting up to `timeout_ms` (UINT32_MAX: for ever). The bytes belong to
 * the caller until the next felix_next or felix_unsubscribe of this subscription; one thread at
 * a time per subscription.
 *
 *   FELIX_TIMED_OUT   nothing came
 *   FELIX_CLOSED      ended, and everything was taken; other codes: why it ended
 *   FELIX_LAGGED      with no_resubscribe: felix_last_cursor_error tells where to go on
 */
FELIX_API enum felix_err felix_next(felix_subscription *subscription, uint32_t timeout_ms,
                                    struct felix_message *ret);

/** End the subscription and free it. on_end does not run; a callback that runs at present is waited
 * for. Accepts NULL. Not from a callback. */
FELIX_API void felix_unsubscribe(felix_subscription *subscription);

/** Messages dropped by this subscription's own queue policy. */
FELIX_API uint64_t felix_subscription_dropped(const felix_subscription *subscription);

/** How often it fell so far behind that the broker left messages out, and was resumed at the first
 * of them. */
FELIX_API uint64_t felix_subscription_lagged(const felix_subscription *subscription);

/* ---- cache ---- */

/** Answer of a cache call. `found` is false for a miss; `value` is borrowed. */
typedef void (*felix_cache_done)(void *context, enum felix_err err, const char *error_text,
                                 bool found, struct felix_bytes value);

/** Store a value; `ttl_ms` 0: until deleted or evicted. Blocks for the answer. */
FELIX_API enum felix_err felix_cache_put(felix_client *client, const char *ns, const char *cache,
                                         const char *key, struct felix_bytes value,
                                         uint64_t ttl_ms);

/**
 * Fetch a value; FELIX_NOT_FOUND on a miss. The value is returned owned in *ret (its data to be
 * given to felix_free).
 */
FELIX_API enum felix_err felix_cache_get(felix_client *client, const char *ns, const char *cache,
                                         const char *key, struct felix_bytes *ret);

/** Delete a key; FELIX_NOT_FOUND when there was none. `ret_old` (may be NULL) gets the removed
 * value, owned. */
FELIX_API enum felix_err felix_cache_delete(felix_client *client, const char *ns, const char *cache,
                                            const char *key, struct felix_bytes *ret_old);

/** The same without blocking; `done` runs once, as a callback. May be called from a
 * callback. Keys and values are copied. */
FELIX_API enum felix_err felix_cache_put_async(felix_client *client, const char *ns,
                                               const char *cache, const char *key,
                                               struct felix_bytes value, uint64_t ttl_ms,
                                               felix_cache_done done, void *context);
FELIX_API enum felix_err felix_cache_get_async(felix_client *client, const char *ns,
                                               const char *cache, const char *key,
                                               felix_cache_done done, void *context);
FELIX_API enum felix_err felix_cache_delete_async(felix_client *client, const char *ns,
                                                  const char *cache, const char *key,
                                                  felix_cache_done done, void *context);

/** Free memory that this library returned owned; takes the const pointer of a felix_bytes as it is.
 * Accepts NULL. */
FELIX_API void felix_free(const void *memory);

#ifdef __cplusplus
}
#endif

#endif
