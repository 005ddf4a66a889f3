#include "session/server.h"

#include <stdlib.h>

#include "base/check.h"
#include "session/session.h"

#define SWEEP_ENTRIES_PER_TURN 1000u

/* ---- upcalls of the core ---- */

static void host_post(void *context, unsigned reactor, struct mail *mail) {
    struct server *server = context;
    server->post(server, reactor, mail);
}

/* Budget came free, of one connection and of all: whoever waits for either looks again. */
static void wake_waiting(struct server *server) {
    if (server->waiting_sessions == 0)
        return;
    for (struct client_conn *conn = server->conns; conn != NULL; conn = conn->next) {
        sessions_wake_waiting(conn);
    }
}

static void host_published(void *context, const struct origin *origin,
                           const struct publish_outcome *outcome) {
    struct server *server = context;
    server->admitted_bytes -= origin->admitted_bytes;
    struct session *session = map_u64_get(&server->sessions, origin->session);
    if (session != NULL) { /* else its connection got the bytes back when it ended */
        session->admitted_bytes -= origin->admitted_bytes;
        session->conn->admitted_bytes -= origin->admitted_bytes;
    }
    wake_waiting(server);
    if (outcome->err != FELIX_OK && origin->request_id == OWED_NONE)
        counter_add(outcome->err == FELIX_NOT_FOUND ? &server->counters.dropped_no_stream_items
                                                    : &server->counters.dropped_storage_items,
                    origin->items);
    if (session != NULL && origin->request_id != OWED_NONE)
        reply_owed_done(session, origin->request_id, outcome);
}

static void host_subscribed(void *context, struct subscription *sub, enum felix_err err,
                            uint64_t seq) {
    subscribe_step_done(sub->user, err, seq);
}

static void host_ended(void *context, struct subscription *sub) {
    struct event_stream *event = sub->user;
    counter_add(&event->server->counters.subscriptions_ended, 1);
    event->ended = true;
    if (event->stream != NULL)
        event_stream_pump(event);
}

static void host_stopped(void *context, struct subscription *sub, enum felix_err err,
                         uint64_t resume_from) {
    struct event_stream *event = sub->user;
    counter_add(&event->server->counters.subscriptions_ended, 1);
    event->stop_err = err;
    event->resume_from = resume_from;
    event->ended = true;
    core_mark_ready(&event->server->core, sub); /* not from here: a batch is being handed out */
}

static void host_log_append(void *context, struct stream_log *log, struct log_batch *batch) {
    struct server *server = context;
    server->logs->append(server->logs_context, log, batch);
}

static void host_log_read(void *context, struct log_read *read) {
    struct server *server = context;
    server->logs->read(server->logs_context, read);
}

static void host_log_page_done(void *context, size_t bytes) {
    struct server *server = context;
    server->logs->page_done(server->logs_context, bytes);
}

static void host_log_release(void *context, struct stream_log *log) {
    struct server *server = context;
    server->logs->release(server->logs_context, log);
}

static uint64_t host_wall_us(void *context) {
    return clock_wall_ns() / NS_PER_US;
}

static void host_cache_done(void *context, const struct cache_answer *answer) {
    struct server *server = context;
    struct session *session = map_u64_get(&server->sessions, answer->origin.session);
    if (session == NULL)
        return;
    if (answer->origin.cache_frame)
        cache_frame_step_done(session, answer);
    else
        cache_step_done(session, answer);
}

static const struct core_host core_host = {
    .post = host_post,
    .published = host_published,
    .subscribed = host_subscribed,
    .ended = host_ended,
    .stopped = host_stopped,
    .log_append = host_log_append,
    .log_read = host_log_read,
    .log_page_done = host_log_page_done,
    .log_release = host_log_release,
    .wall_us = host_wall_us,
    .cache_done = host_cache_done,
};

/* ---- life ---- */

void server_init(struct server *server, unsigned reactor, unsigned reactor_count,
                 const struct server_settings *settings, const struct core_settings *core) {
    *server = (struct server){.settings = *settings, .next_session = 1, .next_subscription = 1};
    core_init(&server->core, reactor, reactor_count, core, &core_host, server);
    token_cache_init(&server->tokens);
}

void server_deinit(struct server *server) {
    INVARIANT(server->conns == NULL);
    core_deinit(&server->core);
    token_cache_deinit(&server->tokens);
    map_u64_deinit(&server->sessions);
    auth_keyset_unref(server->keys);
}

static void expire_unauthenticated(struct server *server) {
    struct session *session;
    while ((session = server->unauth_head) != NULL &&
           session->opened_ns + server->settings.auth_timeout_ns <= server->now_ns) {
        counter_add(&server->counters.auth_timeouts, 1);
        session_fail(session, WIRE_CODE_UNAUTHENTICATED, "auth required");
    }
}

/* Bytes of this connection were acknowledged or given up. */
static void window_moved(struct client_conn *conn) {
    if (conn->window_head == NULL || conn->in_window_conns)
        return;
    conn->in_window_conns = true;
    conn->window_next = conn->server->window_conns;
    conn->server->window_conns = conn;
}

static void leave_window_conns(struct client_conn *conn) {
    struct client_conn **link = &conn->server->window_conns;
    if (!conn->in_window_conns)
        return;
    conn->in_window_conns = false;
    while (*link != conn)
        link = &(*link)->window_next;
    *link = conn->window_next;
}

static void serve_windows(struct server *server) {
    while (server->window_conns != NULL) {
        struct client_conn *conn = server->window_conns;
        leave_window_conns(conn);
        event_streams_go_on(conn);
    }
}

static void resume_sessions(struct server *server) {
    struct session *session = server->resume_head;
    server->resume_head = NULL;
    server->resume_tail = NULL;
    while (session != NULL) {
        struct session *next = session->resume_next;
        session->in_resume = false;
        session_resume(session);
        session = next;
    }
}

/* When to free expired cache entries; memory is all that waits for it. */
static uint64_t sweep_due_ns(const struct server *server) {
    uint64_t due_ns = cache_shard_next_expiry_ns(server->core.cache_shard);
    return due_ns > server->next_sweep_ns ? due_ns : server->next_sweep_ns;
}

static void sweep_cache(struct server *server) {
    if (cache_shard_next_expiry_ns(server->core.cache_shard) == EXPIRY_NEVER ||
        sweep_due_ns(server) > server->now_ns)
        return;
    (void)cache_shard_sweep(server->core.cache_shard, server->now_ns, SWEEP_ENTRIES_PER_TURN);
    /* What a sweep could not finish goes on in the next turn. */
    if (cache_shard_next_expiry_ns(server->core.cache_shard) > server->now_ns)
        server->next_sweep_ns = server->now_ns + server->settings.cache_sweep_ns;
}

void server_turn(struct server *server, uint64_t now_ns) {
    server->now_ns = now_ns;
    if (server->resume_head != NULL)
        resume_sessions(server);
    core_tick(&server->core);
    struct subscription *sub;
    while ((sub = core_next_ready(&server->core)) != NULL) {
        struct event_stream *event = sub->user;
        if (event->stream != NULL)
            event_stream_pump(event);
    }
    serve_windows(server);
    expire_unauthenticated(server);
    sweep_cache(server);
    counter_set(&server->counters.recv_held_bytes, server->recv_held_bytes);
}

void server_stream_answer(struct server *server, uint64_t session, enum felix_err err,
                          struct slice text) {
    struct session *asking = map_u64_get(&server->sessions, session);
    if (asking != NULL)
        extension_step_done(asking, err, text);
}

bool server_has_work(const struct server *server) {
    return server->resume_head != NULL || server->core.ready_head != NULL ||
           server->core.open_head != NULL || server->window_conns != NULL;
}

uint64_t server_deadline(const struct server *server) {
    uint64_t deadline_ns = LOOP_NO_DEADLINE;
    if (cache_shard_next_expiry_ns(server->core.cache_shard) != EXPIRY_NEVER)
        deadline_ns = sweep_due_ns(server);
    if (server->unauth_head != NULL) {
        uint64_t auth_ns = server->unauth_head->opened_ns + server->settings.auth_timeout_ns;
        if (auth_ns < deadline_ns)
            deadline_ns = auth_ns;
    }
    return deadline_ns;
}

void server_drain_begin(struct server *server) {
    server->draining = true;
    for (struct client_conn *conn = server->conns; conn != NULL; conn = conn->next) {
        for (struct session *s = conn->sessions; s != NULL; s = s->conn_next)
            session_end(s);
    }
}

bool server_drained(const struct server *server) {
    for (const struct client_conn *conn = server->conns; conn != NULL; conn = conn->next) {
        if (conn->quic->unacked_bytes > 0)
            return false;
        for (const struct event_stream *e = conn->events; e != NULL; e = e->conn_next) {
            if (!subscription_is_empty(&e->sub))
                return false;
        }
        for (const struct session *s = conn->sessions; s != NULL; s = s->conn_next) {
            if (s->owed_count > 0 || s->frames_awaited > 0 || s->pause == PAUSE_CACHE ||
                s->pause == PAUSE_EXTENSION)
                return false;
        }
    }
    return true;
}

void server_close_all(struct server *server, const char *reason) {
    for (struct client_conn *conn = server->conns; conn != NULL; conn = conn->next)
        quic_conn_close(conn->quic, 0, reason);
}

/* ---- upcalls of the endpoint ---- */

static struct server *server_of(struct quic_endpoint *endpoint) {
    return endpoint->user;
}

static void on_conn_ready(struct quic_conn *quic) {
    struct server *server = server_of(quic->endpoint);
    struct client_conn *conn = xcalloc(1, sizeof *conn);
    conn->server = server;
    conn->quic = quic;
    conn->next = server->conns;
    if (server->conns != NULL)
        server->conns->prev = conn;
    server->conns = conn;
    quic->user = conn;
    counter_add(&server->counters.conns_opened, 1);
    counter_add(&server->counters.conns_now, 1);
}

static void on_conn_closed(struct quic_conn *quic, const struct quic_close *close) {
    struct client_conn *conn = quic->user;
    if (conn == NULL)
        return;
    struct server *server = conn->server;
    INVARIANT(conn->sessions == NULL);
    while (conn->events != NULL) /* those whose stream was never opened */
        event_stream_free(conn->events);
    leave_window_conns(conn);
    if (conn->prev != NULL)
        conn->prev->next = conn->next;
    else
        server->conns = conn->next;
    if (conn->next != NULL)
        conn->next->prev = conn->prev;
    counter_add(&server->counters.conns_closed, 1);
    counter_sub(&server->counters.conns_now, 1);
    quic->user = NULL;
    free(conn);
}

static void on_stream_opened(struct quic_stream *stream) {
    struct client_conn *conn = stream->conn->user;
    if (conn == NULL)
        return;
    struct stream_user *user = xcalloc(1, sizeof *user);
    user->role = ROLE_SESSION;
    user->session = session_new(conn, stream);
    stream->user = user;
}

static void on_stream_data(struct quic_stream *stream, struct slice data, bool fin) {
    struct stream_user *user = stream->user;
    if (user == NULL || user->session == NULL) {
        quic_stream_consume(stream, data.len);
        return;
    }
    session_input(user->session, data, fin);
}

static void on_stream_reset(struct quic_stream *stream, uint64_t app_code) {
    struct stream_user *user = stream->user;
    if (user != NULL && user->session != NULL)
        session_end(user->session);
}

/* STOP_SENDING on an event stream is how a client unsubscribes; on a control stream it says
 * that replies are not read any more, which the published client does after `subscribed`. */
static void on_stream_stopped(struct quic_stream *stream, uint64_t app_code) {
    struct stream_user *user = stream->user;
    if (user == NULL)
        return;
    window_moved(stream->conn->user);
    if (user->event != NULL) {
        user->event->stream = NULL;
        event_stream_free(user->event);
        user->event = NULL;
    } else if (user->session != NULL) {
        session_abort(user->session);
    }
}

static void on_stream_acked(struct quic_stream *stream) {
    struct stream_user *user = stream->user;
    if (user == NULL)
        return;
    window_moved(stream->conn->user);
    if (user->event != NULL) {
        event_stream_pump(user->event);
        return;
    }
    struct session *session = user->session;
    if (session == NULL)
        return;
    if (stream->unacked_bytes == 0 && session->out != NULL)
        reply_all_acked(session);
    if (session->pause == PAUSE_REPLIES)
        session_schedule_resume(session);
}

static void on_stream_sent(struct quic_stream *stream) {
    struct stream_user *user = stream->user;
    if (user != NULL && user->event != NULL)
        event_stream_pump(user->event);
}

static void on_stream_closed(struct quic_stream *stream) {
    struct stream_user *user = stream->user;
    if (user == NULL)
        return;
    window_moved(stream->conn->user); /* in the next turn it is freed, and with it what it held */
    if (user->session != NULL)
        session_free(user->session);
    if (user->event != NULL) {
        user->event->stream = NULL;
        event_stream_free(user->event);
    }
    stream->user = NULL;
    free(user);
}

static void on_streams_available(struct quic_conn *conn) {
}

static void on_forward(struct quic_endpoint *endpoint, unsigned reactor,
                       const struct sockaddr_storage *local, const struct sockaddr_storage *peer,
                       struct slice packet) {
    struct server *server = server_of(endpoint);
    server->forward(server, reactor, local, peer, packet);
}

const struct quic_handler server_quic_handler = {
    .conn_ready = on_conn_ready,
    .conn_closed = on_conn_closed,
    .stream_opened = on_stream_opened,
    .stream_data = on_stream_data,
    .stream_reset = on_stream_reset,
    .stream_stopped = on_stream_stopped,
    .stream_acked = on_stream_acked,
    .stream_sent = on_stream_sent,
    .stream_closed = on_stream_closed,
    .streams_available = on_streams_available,
    .forward = on_forward,
};
