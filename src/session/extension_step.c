/*
 * Extension requests. One of them is served: felix.streams (wire/stream_admin.h), to clients that
 * agreed on OWN_ADMIN. What it asks for may block, so the node does it on a thread of its own, and
 * the session reads no further until the answer is there.
 */
#include <stdio.h>

#include "base/check.h"
#include "session/session.h"
#include "wire/utf8.h"

#define REFUSAL_BYTES 512u

static int shown(const char *name) {
    return (int)utf8_cut(slice_str(name), 80);
}

/* A list shows every stream of its namespace, so it needs a permission that covers them all. */
static bool authorised(struct session *session, const struct stream_request *request) {
    const char *name = request->op == STREAM_OP_LIST ? "*" : request->stream;
    struct resource resource = {.tenant = slice_str(request->tenant),
                                .namespace = slice_str(request->space),
                                .name = slice_str(name)};
    if (!slice_equal(resource.tenant, session->principal->tenant)) {
        counter_add(&session->server->counters.forbidden, 1);
        session_fail(session, WIRE_CODE_FORBIDDEN, "tenant mismatch");
        return false;
    }
    if (!principal_allows(session->principal, AUTH_STREAM_MANAGE, &resource)) {
        char text[400];
        (void)snprintf(text, sizeof text,
                       "forbidden: the token lacks stream.manage:stream:%.*s/%.*s/%.*s",
                       shown(request->tenant), request->tenant, shown(request->space),
                       request->space, shown(name), name);
        counter_add(&session->server->counters.forbidden, 1);
        session_fail(session, WIRE_CODE_FORBIDDEN, text);
        return false;
    }
    return true;
}

void extension_step(struct session *session, const struct message *message) {
    struct server *server = session->server;
    struct stream_request request;
    struct felix_error error = {0};
    if (!session->admin || server->ask_admin == NULL ||
        !slice_is(message->extension, STREAM_ADMIN_EXTENSION)) {
        session_refuse_unknown(session, message);
        return;
    }
    counter_add(&server->counters.stream_requests, 1);
    if (stream_request_decode(message->body, &request, &error) != FELIX_OK) {
        reply_error(session, WIRE_CODE_INVALID_REQUEST, error.text);
        return;
    }
    if (!authorised(session, &request))
        return;
    session->extension_has_request_id = message->has_request_id;
    session->extension_request_id = message->request_id;
    session->pause = PAUSE_EXTENSION;
    server->ask_admin(server, session->number, &request);
}

void extension_step_done(struct session *session, enum felix_err err, struct slice text) {
    if (session->state == SESSION_CLOSED)
        return;
    INVARIANT(session->pause == PAUSE_EXTENSION);
    session->pause = PAUSE_NONE;
    if (err == FELIX_OK) {
        struct message reply = {
            .type = MESSAGE_EXTENSION_RESULT,
            .extension = slice_str(STREAM_ADMIN_EXTENSION),
            .has_request_id = session->extension_has_request_id,
            .request_id = session->extension_request_id,
            .body = text,
        };
        reply_message(session, &reply);
    } else {
        char why[REFUSAL_BYTES];
        (void)snprintf(why, sizeof why, "%.*s", (int)utf8_cut(text, sizeof why - 1),
                       (const char *)text.data);
        reply_refusal(session, err, why);
    }
    if (session->state == SESSION_ENDING)
        session_end(session);
    else if (session->held != NULL || session->peer_fin)
        session_schedule_resume(session);
}
