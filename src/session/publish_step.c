/*
 * Publishing. What each refusal looks like depends on how the publish was sent (wire
 * specification 6.2, 6.4, 6.9):
 *
 *                        JSON                       binary, acknowledged     binary, unacknowledged
 *   tenant mismatch      error, stream ends         error ack, goes on       stream ends silently
 *   forbidden            publish_error, ends        error ack, goes on       stream ends silently
 *   unknown stream       publish_error, goes on     error ack, goes on       dropped and counted
 *   malformed            stream ends                error ack if readable    stream ends silently
 *   no budget            waits                      waits                    dropped and counted,
 *                                                                            or waits (setting)
 */
#include <stdio.h>
#include <stdlib.h>

#include "session/session.h"

#define ROUTE_STACK_BYTES 512u

/* One publish on its way through the steps. */
struct publish {
    bool json;
    bool wants_ack;
    uint64_t request_id;
    bool has_request_id;
    struct slice tenant, namespace_, stream;
    struct slice route;
    struct payload_list list;
};

static void refuse(struct session *session, const struct publish *p, enum felix_err err,
                   const char *text, bool end) {
    if (p->wants_ack && p->has_request_id && !(err == FELIX_WRONG_TENANT && p->json))
        reply_publish(session, p->request_id, p->json, &(struct publish_outcome){.err = err}, text);
    else if (p->json && end)
        reply_error(session, wire_code_of_err(err), text);
    if (end && (p->json || !p->wants_ack))
        session_abort(session);
}

static void remember_route(struct session *session, const struct publish *p,
                           struct fanout *fanout) {
    if (session->route_key == NULL || !slice_equal(core_key_slice(session->route_key), p->route)) {
        buf_unref(session->route_key);
        session->route_key = core_key_new(p->route);
    }
    (void)fanout_ref(fanout);
    fanout_unref(session->route);
    session->route = fanout;
    session->route_generation = session->server->core.generation;
}

/* Tenant, permission, existence: in that order, so that nobody can probe what exists. NULL: the
 * publish was refused or dropped. */
static struct fanout *resolve(struct session *session, const struct publish *p) {
    struct server *server = session->server;
    if (session->route != NULL && session->route_generation == server->core.generation &&
        slice_equal(core_key_slice(session->route_key), p->route))
        return session->route;

    if (!slice_equal(p->tenant, session->principal->tenant)) {
        counter_add(&server->counters.forbidden, 1);
        refuse(session, p, FELIX_WRONG_TENANT, "tenant mismatch", true);
        return NULL;
    }
    struct resource resource = {.tenant = p->tenant, .namespace = p->namespace_, .name = p->stream};
    if (!principal_allows(session->principal, AUTH_STREAM_PUBLISH, &resource)) {
        counter_add(&server->counters.forbidden, 1);
        refuse(session, p, FELIX_FORBIDDEN, "forbidden", true);
        return NULL;
    }
    struct fanout *fanout = core_find_stream(&server->core, p->route);
    if (fanout == NULL) {
        char text[400];
        counter_add(&server->counters.not_found, 1);
        if (!p->wants_ack)
            counter_add(&server->counters.dropped_no_stream_items, p->list.count);
        reply_stream_not_found_text(text, sizeof text, p->tenant, p->namespace_, p->stream);
        refuse(session, p, FELIX_NOT_FOUND, text, false);
        return NULL;
    }
    remember_route(session, p, fanout);
    return fanout;
}

/* What a publish counts while it is held up: its items with their lengths, and what the broker
 * needs besides, so that neither empty items nor lone ones are free. */
static uint64_t charge_of(const struct publish *p) {
    return p->list.bytes.len + PUBLISH_CHARGE_BYTES;
}

/* May these bytes enter? Nothing is ever refused for want of room when nothing else is held. */
static bool has_budget(const struct session *session, uint64_t bytes) {
    const struct server *server = session->server;
    const struct client_conn *conn = session->conn;
    return (conn->admitted_bytes == 0 ||
            conn->admitted_bytes + bytes <= server->settings.conn_inflight_bytes) &&
           (server->admitted_bytes == 0 ||
            server->admitted_bytes + bytes <= server->settings.total_inflight_bytes);
}

enum admission { ADMITTED, ADMISSION_WAIT, ADMISSION_DROPPED };

static enum admission admit(struct session *session, const struct publish *p) {
    struct server *server = session->server;
    if (has_budget(session, charge_of(p)))
        return ADMITTED;
    if (!p->wants_ack && !server->settings.ingress_wait) {
        counter_add(&server->counters.dropped_ingress_items, p->list.count);
        return ADMISSION_DROPPED;
    }
    counter_add(&server->counters.ingress_waits, 1);
    session->pause = PAUSE_ADMISSION;
    session->waiting_items = p->wants_ack ? 0 : p->list.count;
    session->conn->waiting_sessions++;
    server->waiting_sessions++;
    return ADMISSION_WAIT;
}

/* Hand over to the core. `take_body` gives up the block that the payloads lie in. */
static bool submit(struct session *session, const struct publish *p,
                   struct buf *(*take_body)(void *), void *context, size_t headroom) {
    struct server *server = session->server;
    uint64_t begin_ns = stage_begin(server);
    struct fanout *fanout = resolve(session, p);
    stage_end(server, STAGE_AUTHORISE, begin_ns);
    if (fanout == NULL)
        return true;
    if (p->list.count == 0) {
        if (p->wants_ack)
            reply_publish(session, p->request_id, p->json, &(struct publish_outcome){0}, "");
        return true;
    }
    switch (admit(session, p)) {
    case ADMITTED:
        break;
    case ADMISSION_WAIT:
        return false;
    case ADMISSION_DROPPED:
        return true;
    }
    counter_add(&server->counters.publish_frames, 1);
    struct origin origin = {
        .session = session->number,
        .request_id = p->wants_ack ? session->owed_first + session->owed_count : OWED_NONE,
        .admitted_bytes = charge_of(p),
        .items = p->list.count,
    };
    struct publish_outcome outcome;
    begin_ns = stage_begin(server);
    bool done = core_publish(&server->core, fanout, take_body(context), &p->list, headroom,
                             begin_ns, &origin, &outcome);
    stage_end(server, STAGE_ENQUEUE, begin_ns);
    if (done) {
        if (p->wants_ack)
            reply_publish(session, p->request_id, p->json, &outcome, "");
        else if (outcome.err != FELIX_OK)
            counter_add(&server->counters.dropped_storage_items, p->list.count);
        return true;
    }
    session->admitted_bytes += origin.admitted_bytes;
    session->conn->admitted_bytes += origin.admitted_bytes;
    server->admitted_bytes += origin.admitted_bytes;
    if (p->wants_ack)
        (void)reply_owe(session, p->request_id, p->json);
    return true;
}

static struct buf *take_session_body(void *context) {
    struct session *session = context;
    struct buf *body = session->body;
    session_hold_memory(session, -(ptrdiff_t)body->capacity);
    session->body = NULL;
    return body;
}

static struct buf *take_message_block(void *context) {
    struct message *message = context;
    struct buf *block = message->block;
    message->block = NULL;
    return block;
}

static void malformed(struct session *session, uint16_t flags, struct slice body) {
    uint64_t request_id;
    uint8_t ack_mode;
    counter_add(&session->server->counters.malformed_frames, 1);
    if ((flags & FRAME_PUBLISH_ACKED) == 0 || session->uni ||
        publish_prefix_decode(body, &request_id, &ack_mode) != FELIX_OK) {
        session_abort(session);
        return;
    }
    reply_publish(session, request_id, false, &(struct publish_outcome){.err = FELIX_MALFORMED},
                  "malformed publish batch");
}

bool publish_step_binary(struct session *session, uint16_t flags, struct slice body) {
    struct server *server = session->server;
    struct publish_head head;
    struct payload_list list;
    uint64_t begin_ns = stage_begin(server);
    enum felix_err err = publish_decode(flags, body, &head, &list);
    stage_end(server, STAGE_DECODE, begin_ns);
    if (err != FELIX_OK) {
        malformed(session, flags, body);
        return true;
    }
    struct publish p = {
        .wants_ack = (flags & FRAME_PUBLISH_ACKED) != 0 && !session->uni,
        .has_request_id = true,
        .request_id = head.request_id,
        .tenant = head.tenant,
        .namespace_ = head.namespace_,
        .stream = head.stream,
        .route = head.route,
        .list = list,
    };
    size_t headroom = (size_t)(list.bytes.data - body.data) + SESSION_BODY_AT;
    return submit(session, &p, take_session_body, session, headroom);
}

bool publish_step_json(struct session *session, struct message *message) {
    struct publish p = {
        .json = true,
        .wants_ack = message->ack_mode != PUBLISH_ACK_NONE && !session->uni,
        .has_request_id = message->has_request_id,
        .request_id = message->request_id,
        .tenant = message->tenant,
        .namespace_ = message->namespace_,
        .stream = message->stream,
        .list = message->payloads,
    };
    size_t key_bytes = core_key_bytes(p.tenant, p.namespace_, p.stream);
    if (p.tenant.len > NAME_BYTES_MAX || p.namespace_.len > NAME_BYTES_MAX ||
        p.stream.len > NAME_BYTES_MAX) {
        refuse(session, &p, FELIX_NOT_FOUND, "stream not found: a name is too long", false);
        return true;
    }
    uint8_t stack[ROUTE_STACK_BYTES];
    uint8_t *key = key_bytes <= sizeof stack ? stack : malloc(key_bytes);
    if (key == NULL)
        return true;
    core_key_write(key, p.tenant, p.namespace_, p.stream);
    p.route = slice_of(key, key_bytes);

    bool done = true;
    bool authorised = slice_equal(p.tenant, session->principal->tenant);
    if (authorised && p.wants_ack && !p.has_request_id)
        reply_error(session, WIRE_CODE_INVALID_REQUEST,
                    message->type == MESSAGE_PUBLISH
                        ? "missing request_id for acked publish"
                        : "missing request_id for acked publish batch");
    else
        done = submit(session, &p, take_message_block, message, MESSAGE_HEADROOM_BYTES);
    if (key != stack)
        free(key);
    return done;
}
