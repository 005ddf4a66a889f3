/*
 * Cache requests (wire specification 6.7; wire extensions 5.1). One at a time per stream: while an
 * answer is on its way from another reactor the session reads no further, so replies keep request
 * order. A request without request_id is answered once and ends the stream gracefully.
 */
#include <stdlib.h>

#include "base/check.h"
#include "session/session.h"

#define KEY_STACK_BYTES 512u

static void end_if_lone(struct session *session, bool has_request_id) {
    if (!has_request_id)
        session_end(session);
}

static void not_found(struct session *session, const struct message *message) {
    char text[400];
    counter_add(&session->server->counters.not_found, 1);
    reply_cache_not_found_text(text, sizeof text, message->tenant, message->namespace_,
                               message->cache);
    reply_error(session, WIRE_CODE_NOT_FOUND, text);
    end_if_lone(session, message->has_request_id);
}

static bool authorised(struct session *session, const struct message *message) {
    enum auth_action action =
        message->type == MESSAGE_CACHE_GET ? AUTH_CACHE_READ : AUTH_CACHE_WRITE;
    struct resource resource = {
        .tenant = message->tenant, .namespace = message->namespace_, .name = message->cache};
    if (!slice_equal(message->tenant, session->principal->tenant)) {
        counter_add(&session->server->counters.forbidden, 1);
        session_fail(session, WIRE_CODE_FORBIDDEN, "tenant mismatch");
        return false;
    }
    if (!principal_allows(session->principal, action, &resource)) {
        counter_add(&session->server->counters.forbidden, 1);
        session_fail(session, WIRE_CODE_FORBIDDEN, "forbidden");
        return false;
    }
    return true;
}

static struct cache_entry_point *find(struct session *session, const struct message *message) {
    uint8_t stack[KEY_STACK_BYTES];
    size_t bytes = core_key_bytes(message->tenant, message->namespace_, message->cache);
    if (message->tenant.len > NAME_BYTES_MAX || message->namespace_.len > NAME_BYTES_MAX ||
        message->cache.len > NAME_BYTES_MAX)
        return NULL;
    uint8_t *key = bytes <= sizeof stack ? stack : xmalloc(bytes);
    core_key_write(key, message->tenant, message->namespace_, message->cache);
    struct cache_entry_point *point = core_find_cache(&session->server->core, slice_of(key, bytes));
    if (key != stack)
        free(key);
    return point;
}

static enum cache_op op_of(enum message_type type) {
    if (type == MESSAGE_CACHE_PUT)
        return CACHE_OP_PUT;
    return type == MESSAGE_CACHE_GET ? CACHE_OP_GET : CACHE_OP_DELETE;
}

void cache_step(struct session *session, struct message *message) {
    struct server *server = session->server;
    counter_add(&server->counters.cache_requests, 1);
    if (!authorised(session, message))
        return;
    struct cache_entry_point *point = find(session, message);
    if (point == NULL) {
        not_found(session, message);
        return;
    }
    /* The reply echoes the names: keep the message's block until then. */
    session->cache_names = message->block;
    message->block = NULL;
    session->cache_tenant = message->tenant;
    session->cache_namespace = message->namespace_;
    session->cache_name = message->cache;
    session->cache_key = message->key;
    session->cache_has_request_id = message->has_request_id;
    session->cache_request_id = message->request_id;
    session->pause = PAUSE_CACHE;

    struct cache_request request = {
        .point = point,
        .origin = {.session = session->number},
        .op = op_of(message->type),
        .entry_key = message->key,
        .value = message->value,
        .has_ttl = message->has_ttl,
        .ttl_ms = message->ttl_ms,
    };
    struct cache_answer answer;
    if (core_cache(&server->core, &request, server->now_ns, &answer)) {
        cache_step_done(session, &answer);
        buf_unref(answer.value_block);
    }
}

static void answer_put(struct session *session) {
    struct message reply = {
        .type = session->cache_has_request_id ? MESSAGE_CACHE_OK : MESSAGE_OK,
        .has_request_id = session->cache_has_request_id,
        .request_id = session->cache_request_id,
    };
    reply_message(session, &reply);
}

static void answer_value(struct session *session, const struct cache_answer *answer) {
    struct message reply = {
        .type = MESSAGE_CACHE_VALUE,
        .tenant = session->cache_tenant,
        .namespace_ = session->cache_namespace,
        .cache = session->cache_name,
        .key = session->cache_key,
        .has_value = answer->found,
        .value = answer->value,
        .has_request_id = session->cache_has_request_id,
        .request_id = session->cache_request_id,
    };
    reply_message(session, &reply);
}

void cache_step_done(struct session *session, const struct cache_answer *answer) {
    INVARIANT(session->pause == PAUSE_CACHE);
    session->pause = PAUSE_NONE;
    if (answer->err == FELIX_TOO_LARGE)
        reply_error(session, WIRE_CODE_LIMIT_EXCEEDED, CACHE_VALUE_TOO_LARGE_TEXT);
    else if (answer->err != FELIX_OK)
        reply_error(session, wire_code_of_err(answer->err), "cache scope not found");
    else if (answer->op == CACHE_OP_PUT)
        answer_put(session);
    else
        answer_value(session, answer);

    buf_unref(session->cache_names);
    session->cache_names = NULL;
    if (!session->cache_has_request_id || session->state == SESSION_ENDING)
        session_end(session);
    else if (session->held != NULL || session->peer_fin)
        session_schedule_resume(session);
}
