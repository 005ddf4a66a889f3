/*
 * Cache operations as binary frames (docs/cache-frames.md). What is refused, and in which words, is
 * as in JSON (cache_step.c); but a refusal never ends the stream, because other requests of the
 * client are under way on it.
 *
 * A request for a key of this reactor is answered at once: nothing is allocated but the entry of a
 * put, and the answers of a turn are written one after the other into the stream's reply block. One
 * for a key of another reactor is answered when that has, while later requests overtake it; of
 * those so many may be under way, and no more is read until some are answered. What a get will
 * answer is not known before: it counts as much as the largest value that its stream got so far.
 */
#include <stdlib.h>

#include "base/check.h"
#include "base/cursor.h"
#include "session/session.h"
#include "wire/cache_frame.h"

#define HANDLES_MAX 256u
#define HANDLES_MIN 4u
#define AWAITED_MAX 256u
#define AWAITED_BYTES_MAX ((uint64_t)1 << 20)

/* An awaited get counts a quarter of the value expected: 4 MiB of values are as much as 1 MiB of
 * what was sent. Small values cost nobody the pace; the first gets of a stream go carefully. */
#define VALUE_EXPECTED_BYTES_MIN ((uint64_t)8 << 10)
#define VALUE_EXPECTED_BYTES_FIRST ((uint64_t)256 << 10)
#define VALUE_BYTES_PER_CHARGE 4u

/* Up to here a value is copied behind its reply's head; a longer one is sent from where it lies,
 * which keeps the entry from being written over until the client has it. */
#define VALUE_COPIED_BYTES_MAX ((size_t)8 << 10)

/* ---- replies ---- */

static void reply(struct session *session, const struct cache_frame_reply *what,
                  struct buf *block) {
    bool copied = block == NULL || what->rest.len <= VALUE_COPIED_BYTES_MAX;
    size_t bytes = CACHE_FRAME_REPLY_HEAD_BYTES + (copied ? what->rest.len : 0);
    uint8_t *room = reply_room(session, bytes);
    if (room == NULL)
        return;
    cache_frame_reply_encode_head(what, room);
    if (copied && what->rest.len > 0)
        memcpy(room + CACHE_FRAME_REPLY_HEAD_BYTES, what->rest.data, what->rest.len);
    reply_commit(session, room, bytes);
    if (!copied)
        reply_block(session, buf_ref(block), what->rest.data, what->rest.len);
}

static void refuse(struct session *session, uint64_t request_id, enum wire_code code,
                   const char *text) {
    counter_add(&session->server->counters.errors_sent, 1);
    struct cache_frame_reply refusal = {
        .status = CACHE_FRAME_REFUSED,
        .code = (uint16_t)code,
        .request_id = request_id,
        .rest = slice_str(text),
    };
    reply(session, &refusal, NULL);
}

static void answer(struct session *session, const struct cache_answer *answer) {
    uint64_t request_id = answer->origin.request_id;
    if (answer->err == FELIX_TOO_LARGE) {
        refuse(session, request_id, WIRE_CODE_LIMIT_EXCEEDED, CACHE_VALUE_TOO_LARGE_TEXT);
        return;
    }
    if (answer->err != FELIX_OK) {
        refuse(session, request_id, wire_code_of_err(answer->err), "cache scope not found");
        return;
    }
    struct cache_frame_reply done = {
        .status = answer->op == CACHE_OP_PUT ? CACHE_FRAME_DONE
                  : answer->found            ? CACHE_FRAME_VALUE
                                             : CACHE_FRAME_MISS,
        .request_id = request_id,
        .rest = answer->value,
    };
    reply(session, &done, answer->value_block);
}

/* ---- handles ---- */

static void unbind(struct cache_handle *handle) {
    buf_unref(handle->route);
    cache_point_unref(handle->point);
    *handle = (struct cache_handle){0};
}

void cache_handles_free(struct session *session) {
    for (uint32_t i = 0; i < session->handle_capacity; i++)
        unbind(&session->handles[i]);
    free(session->handles);
}

static struct cache_handle *make_handle(struct session *session, uint32_t number) {
    uint32_t capacity = session->handle_capacity == 0 ? HANDLES_MIN : session->handle_capacity;
    while (capacity <= number)
        capacity *= 2;
    if (capacity > session->handle_capacity) {
        struct cache_handle *handles = xcalloc(capacity, sizeof *handles);
        for (uint32_t i = 0; i < session->handle_capacity; i++)
            handles[i] = session->handles[i];
        free(session->handles);
        session->handles = handles;
        session->handle_capacity = capacity;
    }
    return &session->handles[number];
}

static void bind_cache(struct session *session, const struct cache_frame_request *request) {
    if (request->handle >= HANDLES_MAX) {
        session_fail(session, WIRE_CODE_LIMIT_EXCEEDED, "cache handle out of range");
        return;
    }
    const struct principal *principal = session->principal;
    struct resource resource = {
        .tenant = request->tenant, .namespace = request->namespace_, .name = request->cache};
    struct cache_handle *handle = make_handle(session, request->handle);
    unbind(handle);
    handle->bound = true;
    handle->own_tenant = slice_equal(request->tenant, principal->tenant);
    handle->may_read = principal_allows(principal, AUTH_CACHE_READ, &resource);
    handle->may_write = principal_allows(principal, AUTH_CACHE_WRITE, &resource);
    /* What is permitted has a name of bounded length; what is not is never looked up. */
    if (handle->may_read || handle->may_write)
        handle->route = core_key_new(request->route);
}

static struct cache_entry_point *find(struct session *session, struct cache_handle *handle) {
    struct core *core = &session->server->core;
    if (handle->point != NULL && handle->generation == core->generation)
        return handle->point;
    struct cache_entry_point *point = core_find_cache(core, core_key_slice(handle->route));
    if (point != NULL)
        (void)cache_point_ref(point);
    cache_point_unref(handle->point);
    handle->point = point;
    handle->generation = core->generation;
    return point;
}

static void not_found(struct session *session, const struct cache_handle *handle,
                      uint64_t request_id) {
    char text[400];
    struct reader names = reader_of(core_key_slice(handle->route));
    struct slice tenant = reader_take(&names, reader_u16(&names));
    struct slice namespace_ = reader_take(&names, reader_u16(&names));
    struct slice cache = reader_take(&names, reader_u16(&names));
    counter_add(&session->server->counters.not_found, 1);
    reply_cache_not_found_text(text, sizeof text, tenant, namespace_, cache);
    refuse(session, request_id, WIRE_CODE_NOT_FOUND, text);
}

/* Tenant, permission, existence, in that order. NULL: refused. */
static struct cache_entry_point *resolve(struct session *session,
                                         const struct cache_frame_request *request) {
    struct cache_handle *handle =
        request->handle < session->handle_capacity ? &session->handles[request->handle] : NULL;
    if (handle == NULL || !handle->bound) {
        refuse(session, request->request_id, WIRE_CODE_INVALID_REQUEST,
               "cache handle is not bound");
        return NULL;
    }
    bool allowed = request->op == CACHE_FRAME_GET ? handle->may_read : handle->may_write;
    if (!allowed) {
        counter_add(&session->server->counters.forbidden, 1);
        refuse(session, request->request_id, WIRE_CODE_FORBIDDEN,
               handle->own_tenant ? "forbidden" : "tenant mismatch");
        return NULL;
    }
    struct cache_entry_point *point = find(session, handle);
    if (point == NULL)
        not_found(session, handle, request->request_id);
    return point;
}

/* ---- requests ---- */

static enum cache_op op_of(enum cache_frame_op op) {
    if (op == CACHE_FRAME_PUT)
        return CACHE_OP_PUT;
    return op == CACHE_FRAME_GET ? CACHE_OP_GET : CACHE_OP_DELETE;
}

static uint64_t charge_of(const struct session *session,
                          const struct cache_frame_request *request) {
    uint64_t charge = request->key.len + request->value.len;
    if (request->op != CACHE_FRAME_GET)
        return charge;
    uint64_t expected = session->value_expected_bytes == 0 ? VALUE_EXPECTED_BYTES_FIRST
                                                           : session->value_expected_bytes;
    return charge + expected / VALUE_BYTES_PER_CHARGE;
}

/* The first answer tells more than the guess did; later ones only raise it. */
static void learn_from(struct session *session, const struct cache_answer *done) {
    if (done->op != CACHE_OP_GET)
        return;
    uint64_t bytes = done->found ? done->value.len : 0;
    if (bytes < VALUE_EXPECTED_BYTES_MIN)
        bytes = VALUE_EXPECTED_BYTES_MIN;
    if (session->value_expected_bytes < bytes)
        session->value_expected_bytes = bytes;
}

static void run(struct session *session, const struct cache_frame_request *request) {
    struct server *server = session->server;
    counter_add(&server->counters.cache_requests, 1);
    struct cache_entry_point *point = resolve(session, request);
    if (point == NULL)
        return;
    struct cache_request what = {
        .point = point,
        .origin = {.session = session->number,
                   .request_id = request->request_id,
                   .admitted_bytes = charge_of(session, request),
                   .cache_frame = true},
        .op = op_of(request->op),
        .entry_key = request->key,
        .value = request->value,
        .has_ttl = request->has_ttl,
        .ttl_ms = request->ttl_ms,
    };
    struct cache_answer done;
    if (core_cache(&server->core, &what, server->now_ns, &done)) {
        answer(session, &done);
        buf_unref(done.value_block);
        return;
    }
    session->frames_awaited++;
    session->frames_awaited_bytes += what.origin.admitted_bytes;
    if (session->frames_awaited >= AWAITED_MAX ||
        session->frames_awaited_bytes >= AWAITED_BYTES_MAX)
        session->pause = PAUSE_CACHE_FRAMES;
}

static void malformed(struct session *session, struct slice body) {
    uint64_t request_id;
    counter_add(&session->server->counters.malformed_frames, 1);
    if (cache_frame_request_id(body, &request_id) != FELIX_OK) {
        session_abort(session);
        return;
    }
    refuse(session, request_id, WIRE_CODE_INVALID_REQUEST, "malformed cache request");
}

void cache_frame_step(struct session *session, struct slice body) {
    struct cache_frame_request request;
    if (cache_frame_request_decode(body, &request) != FELIX_OK)
        malformed(session, body);
    else if (request.op == CACHE_FRAME_BIND)
        bind_cache(session, &request);
    else
        run(session, &request);
}

bool cache_frames_may_go_on(const struct session *session) {
    return session->frames_awaited <= AWAITED_MAX / 2 &&
           session->frames_awaited_bytes <= AWAITED_BYTES_MAX / 2;
}

void cache_frame_step_done(struct session *session, const struct cache_answer *done) {
    INVARIANT(session->frames_awaited > 0);
    session->frames_awaited--;
    session->frames_awaited_bytes -= done->origin.admitted_bytes;
    learn_from(session, done);
    answer(session, done);
    if (session->state == SESSION_ENDING)
        session_end(session);
    else if (session->pause == PAUSE_CACHE_FRAMES && cache_frames_may_go_on(session))
        session_schedule_resume(session);
}
