/*
 * Subscribing (wire specification 6.5). The core registers first, so that nothing published from
 * then on is missed; then the event stream is opened with its hello, then `subscribed` is
 * answered, and history follows on the event stream. Whatever the outcome, the control stream
 * ends gracefully.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "session/session.h"

#define KEY_STACK_BYTES 512u

static void fail(struct session *session, enum wire_code code, const char *text) {
    counter_add(&session->server->counters.subscribe_failed, 1);
    reply_error(session, code, text);
    session_end(session);
}

static bool id_in_use(const struct client_conn *conn, uint64_t id) {
    for (const struct event_stream *event = conn->events; event != NULL; event = event->conn_next) {
        if (event->subscription_id == id)
            return true;
    }
    return false;
}

/* Ids of ours are unique in the process; each reactor counts in its own residue class. */
static uint64_t next_id(struct server *server, const struct client_conn *conn) {
    uint64_t id;
    do {
        id = (server->next_subscription++ - 1) * server->core.reactor_count + server->core.reactor +
             1;
    } while (conn->client_chose_ids && id_in_use(conn, id));
    return id;
}

static struct fanout *find(struct session *session, const struct message *message) {
    uint8_t stack[KEY_STACK_BYTES];
    size_t bytes = core_key_bytes(message->tenant, message->namespace_, message->stream);
    if (message->tenant.len > NAME_BYTES_MAX || message->namespace_.len > NAME_BYTES_MAX ||
        message->stream.len > NAME_BYTES_MAX)
        return NULL;
    uint8_t *key = bytes <= sizeof stack ? stack : xmalloc(bytes);
    core_key_write(key, message->tenant, message->namespace_, message->stream);
    struct fanout *fanout = core_find_stream(&session->server->core, slice_of(key, bytes));
    if (key != stack)
        free(key);
    return fanout;
}

static bool authorised(struct session *session, const struct message *message) {
    struct resource resource = {
        .tenant = message->tenant, .namespace = message->namespace_, .name = message->stream};
    if (!slice_equal(message->tenant, session->principal->tenant)) {
        counter_add(&session->server->counters.forbidden, 1);
        session_fail(session, WIRE_CODE_FORBIDDEN, "tenant mismatch");
        return false;
    }
    if (!principal_allows(session->principal, AUTH_STREAM_SUBSCRIBE, &resource)) {
        counter_add(&session->server->counters.forbidden, 1);
        session_fail(session, WIRE_CODE_FORBIDDEN, "forbidden");
        return false;
    }
    return true;
}

void subscribe_step(struct session *session, const struct message *message) {
    struct server *server = session->server;
    struct client_conn *conn = session->conn;
    counter_add(&server->counters.subscribes, 1);
    if (!authorised(session, message))
        return;
    if (message->has_subscription_id && id_in_use(conn, message->subscription_id)) {
        fail(session, WIRE_CODE_INVALID_REQUEST, "subscription_id is already in use");
        return;
    }
    if (conn->event_count >= server->settings.max_subscriptions_per_conn) {
        counter_add(&server->counters.subscription_limit, 1);
        fail(session, WIRE_CODE_LIMIT_EXCEEDED, "max subscriptions per connection exceeded");
        return;
    }
    struct fanout *fanout = find(session, message);
    if (fanout == NULL) {
        char text[400];
        counter_add(&server->counters.not_found, 1);
        reply_stream_not_found_text(text, sizeof text, message->tenant, message->namespace_,
                                    message->stream);
        fail(session, WIRE_CODE_NOT_FOUND, text);
        return;
    }
    if (message->has_subscription_id)
        conn->client_chose_ids = true;
    uint64_t id = message->has_subscription_id ? message->subscription_id : next_id(server, conn);
    struct event_stream *event = event_stream_new(session, id);
    event->requested_offset = message->offset;
    session->subscribing = event;
    session->state = SESSION_SUBSCRIBING;
    core_subscribe(&server->core, fanout, &event->sub, message->start, message->offset);
}

static void refuse_cursor(struct session *session, const struct event_stream *event,
                          enum felix_err err, uint64_t requested, uint64_t available) {
    struct message reply = {
        .type = MESSAGE_SUBSCRIBE_CURSOR_ERROR,
        .reason = err == FELIX_CURSOR_TOO_OLD ? CURSOR_REASON_TOO_OLD : CURSOR_REASON_IN_FUTURE,
        .requested = requested,
        .available = available,
    };
    counter_add(&session->server->counters.subscribe_failed, 1);
    reply_message(session, &reply);
}

/* Of a durable stream also where it begins, and where the stream ended when it subscribed. */
static void confirm(struct session *session, const struct event_stream *event, uint64_t seq) {
    bool offsets = event->offsets && event->sub.fanout->log != NULL;
    struct message reply = {
        .type = MESSAGE_SUBSCRIBED,
        .has_subscription_id = true,
        .subscription_id = event->subscription_id,
        .has_offset = offsets,
        .offset = seq,
        .has_live_offset = offsets,
        .live_offset = event->sub.live_seq,
    };
    reply_message(session, &reply);
}

void subscribe_step_done(struct event_stream *event, enum felix_err err, uint64_t seq) {
    struct session *session = event->session;
    INVARIANT(session != NULL && session->subscribing == event);
    session->subscribing = NULL;
    event->session = NULL;
    if (err == FELIX_OK && !event_stream_open(event)) {
        fail(session, WIRE_CODE_LIMIT_EXCEEDED,
             "no event stream: the client grants no more unidirectional streams");
        event_stream_free(event);
        return;
    }
    if (err == FELIX_OK) {
        confirm(session, event, seq);
    } else if (err == FELIX_CURSOR_TOO_OLD || err == FELIX_CURSOR_IN_FUTURE) {
        refuse_cursor(session, event, err, event->requested_offset, seq);
    } else {
        counter_add(&session->server->counters.subscribe_failed, 1);
        reply_refusal(session, err,
                      err == FELIX_NOT_FOUND ? "stream not found: it was deleted"
                                             : reply_text_of(err));
    }
    if (err != FELIX_OK)
        event_stream_free(event);
    session_end(session);
}
