/*
 * From stream bytes to steps.
 *
 * Input is cut into frames. A publish body is copied once, into a block with room for a frame
 * header in front of it, because that block goes on to the subscribers; any other body that lies
 * whole in what arrived is decoded where it lies. A frame that must wait (admission, an answer
 * that has to come first) pauses the session: what arrives meanwhile is held, not consumed, and
 * the client's flow-control window does the rest.
 *
 * A body is given memory as it arrives, not as its header promises. All that is held counts
 * against the reactor's receive memory; a connection that exceeds it is closed. Who has not
 * authenticated yet has a small share of it, so that strangers cannot use up what clients need.
 */
#include "session/session.h"

#include <stdlib.h>

#include "base/check.h"
#include "base/cursor.h"

#define BODY_FIRST_BYTES ((size_t)64 << 10)
#define BODY_FIRST_BYTES_UNAUTHENTICATED ((size_t)512)
#define UNAUTHENTICATED_SHARE 16u /* one part in so many of the receive memory */
#define HELD_CHUNK_BYTES ((size_t)64 << 10)
#define REPLIES_UNREAD_MAX ((size_t)4 << 20)
#define REPLIES_UNREAD_RESUME ((size_t)1 << 20)

static void join_unauthenticated(struct session *session) {
    struct server *server = session->server;
    session->in_unauth = true;
    session->unauth_prev = server->unauth_tail;
    if (server->unauth_tail != NULL)
        server->unauth_tail->unauth_next = session;
    else
        server->unauth_head = session;
    server->unauth_tail = session;
}

static void leave_unauthenticated(struct session *session) {
    struct server *server = session->server;
    if (!session->in_unauth)
        return;
    session->in_unauth = false;
    server->unauth_held_bytes -= session->memory_bytes;
    if (session->unauth_prev != NULL)
        session->unauth_prev->unauth_next = session->unauth_next;
    else
        server->unauth_head = session->unauth_next;
    if (session->unauth_next != NULL)
        session->unauth_next->unauth_prev = session->unauth_prev;
    else
        server->unauth_tail = session->unauth_prev;
}

struct session *session_new(struct client_conn *conn, struct quic_stream *stream) {
    struct server *server = conn->server;
    struct session *session = xcalloc(1, sizeof *session);
    session->server = server;
    session->conn = conn;
    session->stream = stream;
    session->uni = !stream->can_write;
    session->number = server->next_session++;
    session->opened_ns = server->now_ns;
    session->conn_next = conn->sessions;
    if (conn->sessions != NULL)
        conn->sessions->conn_prev = session;
    conn->sessions = session;
    (void)map_u64_put(&server->sessions, session->number, session);
    join_unauthenticated(session);
    counter_add(&server->counters.sessions_opened, 1);
    counter_add(&server->counters.sessions_now, 1);
    return session;
}

/* ---- memory of what was received ---- */

/* One frame is never too much, in a block of up to twice its size: it may be all that there is. */
static bool unauthenticated_over_share(const struct server *server) {
    uint64_t share = server->settings.recv_memory_bytes / UNAUTHENTICATED_SHARE;
    uint64_t frame = 2 * (FRAME_MAX_BYTES_UNAUTHENTICATED + SESSION_BODY_AT);
    return server->unauth_held_bytes > (share > frame ? share : frame);
}

void session_hold_memory(struct session *session, ptrdiff_t bytes) {
    struct server *server = session->server;
    session->memory_bytes += (uint64_t)bytes;
    server->recv_held_bytes += (uint64_t)bytes;
    if (session->in_unauth)
        server->unauth_held_bytes += (uint64_t)bytes;
    if (bytes > 0 && (server->recv_held_bytes > server->settings.recv_memory_bytes ||
                      (session->in_unauth && unauthenticated_over_share(server)))) {
        counter_add(&server->counters.conns_over_memory, 1);
        quic_conn_close(session->conn->quic, 0, "receive memory exhausted");
    }
}

static void drop_body(struct session *session) {
    if (session->body != NULL) {
        session_hold_memory(session, -(ptrdiff_t)session->body->capacity);
        buf_unref(session->body);
        session->body = NULL;
    }
    session->in_body = false;
    session->skip_body = false;
    session->body_have = 0;
    session->header_have = 0;
}

static void drop_first_held(struct session *session) {
    struct buf *chunk = session->held;
    session_hold_memory(session, -(ptrdiff_t)chunk->capacity);
    session->held = chunk->next;
    session->held_at = 0;
    if (session->held == NULL)
        session->held_last = NULL;
    buf_unref(chunk);
}

static void drop_held(struct session *session) {
    while (session->held != NULL)
        drop_first_held(session);
    session->held_bytes = 0;
}

static void add_held_chunk(struct session *session, size_t wanted_bytes) {
    /* Most pauses are short and see one small piece; what goes on is a stalled publisher. */
    bool first = session->held_last == NULL;
    struct buf *chunk =
        buf_new(first && wanted_bytes < HELD_CHUNK_BYTES ? wanted_bytes : HELD_CHUNK_BYTES);
    chunk->next = NULL;
    if (first)
        session->held = chunk;
    else
        session->held_last->next = chunk;
    session->held_last = chunk;
    session->held_end = 0;
    session_hold_memory(session, (ptrdiff_t)chunk->capacity);
}

static void hold_input(struct session *session, struct slice data) {
    INVARIANT(data.data != NULL || data.len == 0);
    session->held_bytes += data.len;
    while (data.len > 0) {
        if (session->held_last == NULL || session->held_end == session->held_last->capacity)
            add_held_chunk(session, data.len);
        size_t room = session->held_last->capacity - session->held_end;
        size_t n = data.len < room ? data.len : room;
        memcpy(session->held_last->data + session->held_end, data.data, n);
        session->held_end += n;
        data = slice_of(data.data + n, data.len - n);
    }
}

static void end_admission_wait(struct session *session) {
    if (session->pause != PAUSE_ADMISSION)
        return;
    session->pause = PAUSE_NONE;
    session->conn->waiting_sessions--;
    session->server->waiting_sessions--;
}

/* The publish that waits will not enter any more. */
static void give_up_admission(struct session *session) {
    if (session->pause == PAUSE_ADMISSION)
        counter_add(&session->server->counters.dropped_ingress_items, session->waiting_items);
    end_admission_wait(session);
}

void sessions_wake_waiting(struct client_conn *conn) {
    if (conn->waiting_sessions == 0)
        return;
    for (struct session *s = conn->sessions; s != NULL; s = s->conn_next) {
        if (s->pause == PAUSE_ADMISSION)
            session_schedule_resume(s);
    }
}

/* What it held of the connection's budget is free again: whoever waits there looks again. */
static void give_back_budget(struct session *session) {
    struct client_conn *conn = session->conn;
    conn->admitted_bytes -= session->admitted_bytes;
    if (session->admitted_bytes > 0)
        sessions_wake_waiting(conn);
}

void session_free(struct session *session) {
    struct server *server = session->server;
    struct client_conn *conn = session->conn;
    leave_unauthenticated(session);
    (void)map_u64_remove(&server->sessions, session->number);
    if (session->subscribing != NULL) {
        session->subscribing->session = NULL;
        event_stream_free(session->subscribing);
    }
    if (session->in_resume) {
        struct session **link = &server->resume_head;
        struct session *before = NULL;
        while (*link != session) {
            before = *link;
            link = &before->resume_next;
        }
        *link = session->resume_next;
        if (server->resume_tail == session)
            server->resume_tail = before;
    }
    give_up_admission(session);
    drop_body(session);
    drop_held(session);
    if (session->conn_prev != NULL)
        session->conn_prev->conn_next = session->conn_next;
    else
        conn->sessions = session->conn_next;
    if (session->conn_next != NULL)
        session->conn_next->conn_prev = session->conn_prev;
    give_back_budget(session);
    principal_unref(session->principal);
    buf_unref(session->route_key);
    fanout_unref(session->route);
    buf_unref(session->cache_names);
    cache_handles_free(session);
    buf_unref(session->out);
    free(session->owed);
    counter_sub(&server->counters.sessions_now, 1);
    free(session);
}

/* ---- ending ---- */

/* What was received and will not be handled is given up in the next turn, not now: the frame that
 * ends the session may be the one that lies in there. */
static void give_up_input(struct session *session) {
    if (session->held != NULL || session->body != NULL)
        session_schedule_resume(session);
}

static void close_session(struct session *session) {
    session->state = SESSION_CLOSED;
    leave_unauthenticated(session);
    give_up_input(session);
    quic_stream_finish(session->stream);
    if (!session->peer_fin)
        quic_stream_stop(session->stream, 0);
}

static bool replies_owed(const struct session *session) {
    return session->owed_count > 0 || session->pause == PAUSE_CACHE ||
           session->pause == PAUSE_EXTENSION || session->frames_awaited > 0 ||
           session->subscribing != NULL;
}

void session_end(struct session *session) {
    if (session->state == SESSION_CLOSED)
        return;
    session->state = SESSION_ENDING;
    give_up_input(session);
    if (!replies_owed(session))
        close_session(session);
}

void session_abort(struct session *session) {
    if (session->state != SESSION_CLOSED)
        close_session(session);
}

void session_fail(struct session *session, enum wire_code code, const char *text) {
    if (session->state == SESSION_CLOSED)
        return;
    if (!session->uni)
        reply_error(session, code, text);
    session_abort(session);
}

void session_authenticated(struct session *session) {
    session->state = SESSION_READY;
    leave_unauthenticated(session);
}

/* ---- frames ---- */

/* Which bits may stand in a frame from this client. */
static bool flags_known(const struct session *session, uint16_t flags) {
    return (flags & ~FRAME_FLAGS_OF_CLIENTS) == 0 ||
           (flags == FRAME_CACHE && session->cache_frames);
}

void session_refuse_unknown(struct session *session, const struct message *message) {
    if (session->unsupported) {
        struct message reply = {
            .type = MESSAGE_UNSUPPORTED,
            .text = message->type == MESSAGE_UNKNOWN ? message->text
                                                     : slice_str(message_type_name(message->type)),
            .extension = message->extension,
            .has_request_id = message->has_request_id,
            .request_id = message->request_id,
        };
        reply_message(session, &reply);
        return;
    }
    session_fail(session, WIRE_CODE_INVALID_REQUEST, "unsupported request");
}

/* A uni stream carries auth and publishes, and nothing else. */
static bool belongs_on_stream(const struct session *session, enum message_type type) {
    return !session->uni || type == MESSAGE_AUTH || type == MESSAGE_PUBLISH ||
           type == MESSAGE_PUBLISH_BATCH;
}

static bool on_message(struct session *session, struct message *message) {
    if (message->type == MESSAGE_AUTH) {
        if (session->state == SESSION_NEW)
            auth_step(session, message);
        else
            session_fail(session, WIRE_CODE_INVALID_REQUEST, "auth already established");
        return true;
    }
    if (message->type == MESSAGE_SUBSCRIBE_CURSOR_ERROR) {
        session_fail(session, WIRE_CODE_INVALID_REQUEST,
                     "subscribe_cursor_error is a server-to-client message");
        return true;
    }
    if (message->type == MESSAGE_ERROR) {
        session_abort(session);
        return true;
    }
    if (message_is_from_broker(message->type)) {
        session_fail(session, WIRE_CODE_INVALID_REQUEST, "unexpected message type");
        return true;
    }
    if (session->state == SESSION_NEW) {
        session_fail(session, WIRE_CODE_UNAUTHENTICATED, "auth required");
        return true;
    }
    if (!belongs_on_stream(session, message->type)) {
        session_abort(session);
        return true;
    }
    if (message->type == MESSAGE_PUBLISH || message->type == MESSAGE_PUBLISH_BATCH)
        return publish_step_json(session, message);
    if (message->type == MESSAGE_SUBSCRIBE)
        subscribe_step(session, message);
    else if (message->type == MESSAGE_UNKNOWN)
        session_refuse_unknown(session, message);
    else if (message->type == MESSAGE_EXTENSION)
        extension_step(session, message);
    else
        cache_step(session, message);
    return true;
}

/* One whole frame. False: offer it again after the pause. */
static bool on_frame(struct session *session, struct slice body) {
    struct server *server = session->server;
    uint16_t flags = session->frame.flags;
    if (flags == FRAME_CACHE) {
        cache_frame_step(session, body);
        return true;
    }
    if ((flags & FRAME_PUBLISH_BATCH) != 0) {
        if (session->state != SESSION_NEW)
            return publish_step_binary(session, flags, body);
        session_fail(session, WIRE_CODE_UNAUTHENTICATED, "auth required");
        return true;
    }
    struct message message;
    if (message_decode(body, &message) != FELIX_OK) {
        counter_add(&server->counters.malformed_frames, 1);
        session_abort(session);
        return true;
    }
    bool done = on_message(session, &message);
    message_deinit(&message);
    return done;
}

static bool reads_input(const struct session *session) {
    return (session->state == SESSION_NEW || session->state == SESSION_READY) &&
           session->pause == PAUSE_NONE;
}

/* Take a header off `in`; false when it is not complete yet or the stream ended over it. */
static bool take_header(struct session *session, struct reader *in) {
    struct server *server = session->server;
    uint32_t limit = server->settings.max_frame_bytes;
    if (session->state == SESSION_NEW && limit > FRAME_MAX_BYTES_UNAUTHENTICATED)
        limit = FRAME_MAX_BYTES_UNAUTHENTICATED;

    size_t want = FRAME_HEADER_BYTES - session->header_have;
    size_t take = reader_left(in) < want ? reader_left(in) : want;
    struct slice header = reader_take(in, take);
    if (take < FRAME_HEADER_BYTES) { /* it came in pieces */
        memcpy(session->header + session->header_have, header.data, header.len);
        session->header_have += (unsigned)take;
        header = slice_of(session->header, session->header_have);
    }
    enum felix_err err = frame_header_decode(header, limit, &session->frame);
    if (err == FELIX_INCOMPLETE)
        return false;
    if (err != FELIX_OK) {
        counter_add(&server->counters.malformed_frames, 1);
        session_abort(session);
        return false;
    }
    session->in_body = true;
    session->body_have = 0;
    counter_add(&server->counters.frames_in, 1);
    if (!flags_known(session, session->frame.flags)) {
        if (session->uni) {
            session_abort(session);
            return false;
        }
        session->skip_body = true;
    }
    return true;
}

/* Copy what is there of the body, growing the block as bytes arrive. */
static void collect_body(struct session *session, struct reader *in) {
    size_t total = session->frame.body_bytes;
    size_t missing = total - session->body_have;
    size_t take = reader_left(in) < missing ? reader_left(in) : missing;
    struct slice part = reader_take(in, take);
    if (session->skip_body || take == 0) {
        session->body_have += take;
        return;
    }
    size_t need = SESSION_BODY_AT + session->body_have + take;
    if (session->body == NULL || session->body->capacity < need) {
        size_t first =
            session->state == SESSION_NEW ? BODY_FIRST_BYTES_UNAUTHENTICATED : BODY_FIRST_BYTES;
        size_t bytes = need * 2 > first ? need * 2 : first;
        if (bytes > SESSION_BODY_AT + total)
            bytes = SESSION_BODY_AT + total;
        struct buf *larger = buf_new(bytes);
        if (session->body != NULL) {
            memcpy(larger->data + SESSION_BODY_AT, session->body->data + SESSION_BODY_AT,
                   session->body_have);
            session_hold_memory(session, -(ptrdiff_t)session->body->capacity);
            buf_unref(session->body);
        }
        session_hold_memory(session, (ptrdiff_t)larger->capacity);
        session->body = larger;
    }
    memcpy(session->body->data + SESSION_BODY_AT + session->body_have, part.data, part.len);
    session->body_have += take;
}

/* The body is complete in `body`: run it. False: paused, the frame stays. */
static bool run_frame(struct session *session, struct slice body) {
    if (session->skip_body) {
        drop_body(session);
        reply_error(session, WIRE_CODE_INVALID_REQUEST, "unsupported frame flags");
        return true;
    }
    if (!on_frame(session, body))
        return false;
    drop_body(session);
    return true;
}

static void check_unread_replies(struct session *session) {
    if (session->pause == PAUSE_NONE && session->stream->unacked_bytes > REPLIES_UNREAD_MAX)
        session->pause = PAUSE_REPLIES;
}

/* Work through `data`; returns how much of it was used up. Replies are looked at after each frame,
 * because a few bytes can ask for many large values. */
static size_t process(struct session *session, struct slice data) {
    struct reader in = reader_of(data);
    while (reads_input(session)) {
        if (!session->in_body && (reader_left(&in) == 0 || !take_header(session, &in)))
            break;
        size_t total = session->frame.body_bytes;
        bool publish = (session->frame.flags & FRAME_PUBLISH_BATCH) != 0;
        if (session->body == NULL && session->body_have == 0 && !publish && !session->skip_body &&
            reader_left(&in) >= total) {
            /* decoded where it lies; if it has to wait, it is offered again from there */
            const uint8_t *at = in.at;
            struct slice body = reader_take(&in, total);
            if (!run_frame(session, body)) {
                in.at = at;
                break;
            }
            check_unread_replies(session);
            continue;
        }
        collect_body(session, &in);
        if (session->body_have < total)
            break;
        struct slice body = session->body != NULL
                                ? slice_of(session->body->data + SESSION_BODY_AT, total)
                                : slice_of(session->header, 0);
        if (!run_frame(session, body))
            break;
        check_unread_replies(session);
    }
    return data.len - reader_left(&in);
}

/* Handle what is held, until it is used up or the next pause or the end of the session. */
static void process_held(struct session *session) {
    while (session->held != NULL && reads_input(session)) {
        const struct buf *chunk = session->held;
        size_t end = chunk == session->held_last ? session->held_end : chunk->capacity;
        size_t used =
            process(session, slice_of(chunk->data + session->held_at, end - session->held_at));
        quic_stream_consume(session->stream, used);
        session->held_at += used;
        session->held_bytes -= used;
        if (session->held_at < end)
            break;
        drop_first_held(session);
    }
    if (!reads_input(session) && session->pause == PAUSE_NONE) {
        quic_stream_consume(session->stream, session->held_bytes);
        drop_held(session);
    }
}

/* The client finished and everything it sent was handled: a clean end, or one inside a frame. */
static void check_fin(struct session *session) {
    if (!session->peer_fin || session->held != NULL || !reads_input(session))
        return;
    if (session->in_body)
        session_abort(session);
    else
        session_end(session);
}

void session_input(struct session *session, struct slice data, bool fin) {
    session->peer_fin = session->peer_fin || fin;
    counter_add(&session->server->counters.bytes_in, data.len);
    if (session->held != NULL || !reads_input(session)) {
        if (session->state == SESSION_NEW || session->state == SESSION_READY)
            hold_input(session, data); /* paused: credit is given when it is handled */
        else
            quic_stream_consume(session->stream, data.len);
        return;
    }
    size_t used = process(session, data);
    quic_stream_consume(session->stream, used);
    if (used < data.len) {
        struct slice rest = slice_of(data.data + used, data.len - used);
        if (session->state == SESSION_NEW || session->state == SESSION_READY)
            hold_input(session, rest);
        else
            quic_stream_consume(session->stream, rest.len);
    }
    check_fin(session);
}

void session_schedule_resume(struct session *session) {
    struct server *server = session->server;
    if (session->in_resume)
        return;
    session->in_resume = true;
    session->resume_next = NULL;
    if (server->resume_tail != NULL)
        server->resume_tail->resume_next = session;
    else
        server->resume_head = session;
    server->resume_tail = session;
}

/* A whole publish waits in `body`, having been collected before the pause. */
static bool rerun_waiting(struct session *session) {
    if (!session->in_body || session->body == NULL ||
        session->body_have < session->frame.body_bytes)
        return true;
    return run_frame(session,
                     slice_of(session->body->data + SESSION_BODY_AT, session->frame.body_bytes));
}

void session_resume(struct session *session) {
    if (session->state != SESSION_NEW && session->state != SESSION_READY) {
        give_up_admission(session);
        quic_stream_consume(session->stream, session->held_bytes);
        drop_held(session);
        drop_body(session);
        return;
    }
    if (session->pause == PAUSE_CACHE || session->pause == PAUSE_EXTENSION)
        return;
    if (session->pause == PAUSE_CACHE_FRAMES && !cache_frames_may_go_on(session))
        return;
    if (session->pause == PAUSE_REPLIES && session->stream->unacked_bytes > REPLIES_UNREAD_RESUME)
        return;
    end_admission_wait(session);
    session->pause = PAUSE_NONE;
    if (!rerun_waiting(session))
        return;
    check_unread_replies(session);
    process_held(session);
    check_fin(session);
}
