/*
 * The broker's half of all connections of one reactor: frames in, frames out.
 *
 * A `server` is what its connections share: the core, the keys, settings, counters. A
 * `client_conn` is one QUIC connection, a `session` one stream that the client opened, an
 * `event_stream` one stream that we opened for a subscription. Authentication is per session.
 * Everything belongs to the reactor's thread. Source: wire specification, sections 2.5, 2.6, 6.
 */
#ifndef SESSION_SERVER_H
#define SESSION_SERVER_H

#include "auth/token.h"
#include "base/clock.h"
#include "base/hist.h"
#include "core/core.h"
#include "quic/endpoint.h"
#include "session/stages.h"
#include "wire/stream_admin.h"

struct server_settings {
    uint16_t flags;    /* what auth_ok advertises: SERVER_FLAGS and, with durable storage, */
    uint32_t features; /* SERVER_FLAGS_DURABLE; SERVER_FEATURES and SERVER_FEATURES_DURABLE */
    uint32_t max_frame_bytes;
    uint32_t max_subscriptions_per_conn;
    uint64_t conn_inflight_bytes;  /* admitted publishes of one connection */
    uint64_t total_inflight_bytes; /* of this reactor */
    bool ingress_wait;             /* unacknowledged publishes wait instead of being dropped */
    uint64_t recv_memory_bytes;    /* received and not yet handled, of this reactor */
    uint64_t send_window_bytes;    /* unacknowledged bytes of one connection */
    uint64_t auth_timeout_ns;
    uint64_t cache_sweep_ns;          /* at least this long between two sweeps */
    uint32_t event_items_max;         /* of a replay frame */
    uint32_t event_payload_bytes_max; /* of a replay frame */
};

struct server_counters {
    counter sessions_opened, sessions_authenticated, auth_failed, auth_timeouts;
    counter frames_in, bytes_in, malformed_frames, forbidden, not_found;
    counter publish_frames, publish_acked, acks_sent, errors_sent;
    counter dropped_ingress_items, dropped_no_stream_items, dropped_storage_items, ingress_waits;
    counter subscribes, subscribe_failed, subscriptions_ended, subscription_limit;
    counter delivered_frames, delivered_items, delivered_bytes;
    counter cache_requests, stream_requests, conns_opened, conns_closed, conns_over_memory;
    counter conns_now, sessions_now, event_streams_now, recv_held_bytes;
};

/* What the node does for durable streams (storage/log_service.h). Ownership as there. */
struct server_logs {
    void (*append)(void *context, struct stream_log *log, struct log_batch *batch);
    void (*read)(void *context, struct log_read *read);
    void (*page_done)(void *context, size_t bytes);
    void (*release)(void *context, struct stream_log *log);
};

struct client_conn;
struct session;
struct event_stream;

struct server {
    struct core core;
    struct server_settings settings;
    struct auth_keyset *keys; /* one reference; the node replaces it */
    struct token_cache tokens;
    struct map_u64 sessions; /* number -> session */
    uint64_t next_session;
    uint64_t next_subscription;
    struct session *unauth_head, *unauth_tail; /* oldest first */
    struct session *resume_head, *resume_tail; /* may go on reading */
    struct client_conn *conns;
    struct client_conn *window_conns; /* whose send window may have opened */
    uint64_t admitted_bytes;
    uint32_t waiting_sessions; /* paused for admission */
    uint64_t recv_held_bytes;
    uint64_t unauth_held_bytes; /* of these, by sessions that have not authenticated */
    uint64_t now_ns;            /* of this turn */
    uint64_t next_sweep_ns;
    bool draining;
    struct hist *stages; /* STAGE_COUNT of them, or NULL: nothing is measured */
    struct server_counters counters;
    /* The node's: a datagram for another reactor. */
    void (*forward)(struct server *server, unsigned reactor, const struct sockaddr_storage *local,
                    const struct sockaddr_storage *peer, struct slice packet);
    void (*post)(struct server *server, unsigned reactor, struct mail *mail); /* takes mail */
    /* What a session asks about streams; server_stream_answer tells. NULL: nobody answers that. */
    void (*ask_admin)(struct server *server, uint64_t session,
                      const struct stream_request *request);
    void *node;
    const struct server_logs *logs; /* NULL: there are no durable streams */
    void *logs_context;
};

/** Upcalls for an endpoint whose user is the server. */
extern const struct quic_handler server_quic_handler;

void server_init(struct server *server, unsigned reactor, unsigned reactor_count,
                 const struct server_settings *settings, const struct core_settings *core);
/** After the endpoint was freed, so that no connection is left. */
void server_deinit(struct server *server);

/**
 * The server's part of a turn, after receiving and before flushing: resume what was waiting,
 * deliver this turn's lone items, serve subscriptions with news, end streams that did not
 * authenticate in time.
 */
void server_turn(struct server *server, uint64_t now_ns);

/** The answer to what was handed to ask_admin: its body, or the text of the error. */
void server_stream_answer(struct server *server, uint64_t session, enum felix_err err,
                          struct slice text);

/** Does server_turn have something to do that no event will announce? */
bool server_has_work(const struct server *server);

/** When the oldest unauthenticated session runs out of time, or a cache entry expires. */
uint64_t server_deadline(const struct server *server);

/** Stop taking requests: sessions end after their replies, new ones are refused. */
void server_drain_begin(struct server *server);
/** Is everything queued delivered and acknowledged? */
bool server_drained(const struct server *server);
/** Close every connection with application code 0 and `reason`. */
void server_close_all(struct server *server, const char *reason);

/* ---- timing of stages ---- */

static inline uint64_t stage_begin(const struct server *server) {
    return server->stages != NULL ? clock_now_ns() : 0;
}

static inline void stage_end(struct server *server, enum stage stage, uint64_t begin_ns) {
    if (server->stages != NULL)
        hist_record(&server->stages[stage], clock_now_ns() - begin_ns);
}

#endif
