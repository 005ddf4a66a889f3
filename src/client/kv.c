/*
 * The long way of a cache request:
 *
 *   copied       on the caller's thread, then posted
 *   waiting      no worker is ready
 *   outstanding  encoded as JSON, written to a worker's lane, in order; or staged as a binary
 *                frame after all, and out of this file's hands
 *   answered     by the broker, by its deadline, or by the loss of the lane
 *
 * A lost lane leaves the outcome of a put or delete unknown, and those are not sent again; a get
 * changes nothing and is asked once more. A request that ran out of time keeps its place in the
 * order (`done` is NULL then), because the broker's answer still comes.
 */
#include "client/kv.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "client/client.h"

#define OUTSTANDING_PER_WORKER 16u /* so many before another worker opens */
#define GOOD_LIFE_NS NS_PER_S

/* ---- queues ---- */

void kv_queue_push(struct kv_queue *queue, struct kv_request *request) {
    request->next = NULL;
    if (queue->last != NULL)
        queue->last->next = request;
    else
        queue->first = request;
    queue->last = request;
    queue->count++;
}

static void queue_push_front(struct kv_queue *queue, struct kv_request *request) {
    request->next = queue->first;
    queue->first = request;
    if (queue->last == NULL)
        queue->last = request;
    queue->count++;
}

static struct kv_request *queue_pop(struct kv_queue *queue) {
    struct kv_request *request = queue->first;
    if (request == NULL)
        return NULL;
    queue->first = request->next;
    if (queue->first == NULL)
        queue->last = NULL;
    queue->count--;
    return request;
}

/* Take out the request with `id`; NULL when it is not there. */
static struct kv_request *queue_remove(struct kv_queue *queue, uint64_t id) {
    struct kv_request *before = NULL;
    struct kv_request *request = queue->first;
    while (request != NULL && request->id != id) {
        before = request;
        request = request->next;
    }
    if (request == NULL)
        return NULL;
    if (before == NULL)
        return queue_pop(queue);
    before->next = request->next;
    if (queue->last == request)
        queue->last = before;
    queue->count--;
    return request;
}

/* ---- answering ---- */

struct kv_answer {
    enum felix_err err;
    const char *text;
    bool found;
    struct slice value;
};

static void answer(struct felix_client *client, struct kv_request *request,
                   const struct kv_answer *answer) {
    felix_cache_done done = request->call.done;
    if (done == NULL)
        return;
    request->call.done = NULL;
    if (answer->err != FELIX_OK)
        counter_add(&client->counters.cache_failures, 1);
    struct felix_bytes value = {.data = answer->value.data, .len = answer->value.len};
    done(request->call.context, answer->err, answer->text, answer->found, value);
}

static void fail(struct felix_client *client, struct kv_request *request, enum felix_err err,
                 const char *text) {
    answer(client, request, &(struct kv_answer){.err = err, .text = text});
    free(request);
}

static void fail_all(struct felix_client *client, struct kv_queue *queue, enum felix_err err,
                     const char *text) {
    for (struct kv_request *request; (request = queue_pop(queue)) != NULL;)
        fail(client, request, err, text);
}

/* Those that wait are on a detour until now. */
static void fail_waiting(struct felix_client *client, enum felix_err err, const char *text) {
    struct kv_queue *waiting = &client->kv.waiting;
    for (struct kv_request *request; (request = queue_pop(waiting)) != NULL;) {
        kv_frames_arrived(&client->kv.frames);
        fail(client, request, err, text);
    }
}

/* ---- workers ---- */

static const struct lane_ops lane_ops;

static void worker_open(struct kv_worker *worker) {
    struct felix_client *client = worker->client;
    if (worker->lane != NULL)
        return;
    if (worker->backoff.due_ns > client->io.now_ns) {
        io_timer_at(client, worker->backoff.due_ns);
        return;
    }
    link_want(worker->link);
    if (worker->link->state == LINK_OPEN)
        worker->lane = lane_open(worker->link, &lane_ops, worker);
}

static bool is_ready(const struct kv_worker *worker) {
    return worker->lane != NULL && worker->lane->state == LANE_READY;
}

void kv_want_another(struct kv *kv, bool spread) {
    struct kv_worker *next = NULL;
    for (unsigned i = 0; i < kv->worker_count && next == NULL; i++) {
        struct kv_worker *worker = &kv->workers[i];
        if (!worker->wanted && (!spread || worker->link->lanes == NULL))
            next = worker;
    }
    if (next == NULL) {
        if (spread && kv->wanted_count < kv->worker_count)
            kv_want_another(kv, false);
        return;
    }
    next->wanted = true;
    kv->wanted[kv->wanted_count++] = next;
    worker_open(next);
}

/* The ready worker with the least to do; the next one is opened when that is much already. NULL
 * when the request has to wait. */
static struct kv_worker *pick_worker(struct felix_client *client) {
    struct kv *kv = &client->kv;
    struct kv_worker *best = NULL;
    bool all_ready = true;
    for (unsigned i = 0; i < kv->wanted_count; i++) {
        struct kv_worker *worker = kv->wanted[i];
        if (!is_ready(worker))
            all_ready = false;
        else if (best == NULL || worker->outstanding.count < best->outstanding.count)
            best = worker;
    }
    bool busy = best == NULL || best->outstanding.count >= OUTSTANDING_PER_WORKER;
    if (busy && all_ready)
        kv_want_another(kv, false);
    return best;
}

static struct buf *encode(const struct kv_request *request, size_t *ret_bytes) {
    static const enum message_type types[] = {[KV_PUT] = MESSAGE_CACHE_PUT,
                                              [KV_GET] = MESSAGE_CACHE_GET,
                                              [KV_DELETE] = MESSAGE_CACHE_DELETE};
    const struct kv_call *call = &request->call;
    struct message message = {
        .type = types[call->kind],
        .tenant = slice_str(request->tenant),
        .namespace_ = slice_str(call->ns),
        .cache = slice_str(call->cache),
        .key = call->key,
        .value = call->value,
        .has_value = call->kind == KV_PUT,
        .has_ttl = call->ttl_ms > 0,
        .ttl_ms = call->ttl_ms,
        .has_request_id = true,
        .request_id = request->id,
    };
    return message_encode(&message, ret_bytes);
}

static void send_json(struct kv_worker *worker, struct kv_request *request) {
    struct felix_client *client = worker->client;
    if (request->call.kind == KV_DELETE &&
        (worker->lane->server_features & FEATURE_CACHE_DELETE) == 0) {
        fail(client, request, FELIX_UNSUPPORTED, "this broker cannot delete cache keys");
        return;
    }
    size_t bytes = 0;
    struct buf *frame = encode(request, &bytes);
    if (bytes - FRAME_HEADER_BYTES > client->settings->max_frame_bytes) {
        buf_unref(frame);
        fail(client, request, FELIX_TOO_LARGE, "the request exceeds the frame limit");
        return;
    }
    kv_queue_push(&worker->outstanding, request);
    lane_write(worker->lane, frame, frame->data, bytes);
}

/* Send it, or find that it has to wait. */
static bool dispatch(struct felix_client *client, struct kv_request *request) {
    struct kv_worker *worker = pick_worker(client);
    if (worker == NULL)
        return false;
    if (kv_frames_stage_late(client, &request->call, request->deadline_ns))
        free(request);
    else
        send_json(worker, request);
    kv_frames_arrived(&client->kv.frames);
    return true;
}

/* As far as somebody is ready to take them. */
static void send_waiting(struct felix_client *client) {
    struct kv_queue *waiting = &client->kv.waiting;
    for (struct kv_request *request; (request = queue_pop(waiting)) != NULL;) {
        if (!dispatch(client, request)) {
            queue_push_front(waiting, request);
            return;
        }
    }
}

static void run_request(struct felix_client *client, struct io_command *command) {
    struct kv_request *request =
        (struct kv_request *)((char *)command - offsetof(struct kv_request, command));
    counter_add(&client->counters.cache_requests, 1);
    if (client->closing) {
        kv_frames_arrived(&client->kv.frames);
        fail(client, request, FELIX_CLOSED, "the client is closed");
        return;
    }
    request->deadline_ns = client->io.now_ns + client->timeout_ns;
    io_timer_at(client, request->deadline_ns);
    if (client->kv.waiting.first != NULL || !dispatch(client, request))
        kv_queue_push(&client->kv.waiting, request);
}

void kv_post(struct felix_client *client, struct kv_request *request) {
    request->command.run = run_request;
    io_post(client, &request->command);
}

struct kv_request *kv_request_new(struct felix_client *client, const struct kv_call *call) {
    size_t ns_bytes = strlen(call->ns) + 1, cache_bytes = strlen(call->cache) + 1;
    struct kv_request *request =
        xmalloc(sizeof *request + ns_bytes + cache_bytes + call->key.len + call->value.len);
    *request = (struct kv_request){
        .call = *call,
        .id = atomic_fetch_add_explicit(&client->kv.next_id, 1, memory_order_relaxed) + 1,
        .tenant = client->settings->tenant,
    };
    char *at = request->memory;
    request->call.ns = memcpy(at, call->ns, ns_bytes);
    at += ns_bytes;
    request->call.cache = memcpy(at, call->cache, cache_bytes);
    at += cache_bytes;
    if (call->key.len > 0)
        memcpy(at, call->key.data, call->key.len);
    request->call.key = slice_of(at, call->key.len);
    at += call->key.len;
    if (call->value.len > 0)
        memcpy(at, call->value.data, call->value.len);
    request->call.value = slice_of(at, call->value.len);
    return request;
}

/* ---- the lane ---- */

static void on_ready(struct lane *lane) {
    struct kv_worker *worker = lane->owner;
    struct felix_client *client = worker->client;
    worker->ready_ns = client->io.now_ns;
    if ((lane->own_features & OWN_CACHE_FRAMES) != 0)
        kv_frames_ready(worker);
    kv_frames_choose(client);
    send_waiting(client);
}

/* The request that `message` answers, taken out; NULL when there is none. */
static struct kv_request *take_answered(struct kv_worker *worker, const struct message *message) {
    if (message->has_request_id)
        return queue_remove(&worker->outstanding, message->request_id);
    return queue_pop(&worker->outstanding);
}

static void on_answer(struct kv_worker *worker, struct kv_request *request,
                      const struct message *message) {
    struct felix_client *client = worker->client;
    struct kv_answer result = {.err = FELIX_OK, .text = ""};
    char text[256];
    if (message->type == MESSAGE_CACHE_OK && request->call.kind == KV_PUT) {
        result.found = true;
    } else if (message->type == MESSAGE_CACHE_VALUE && request->call.kind != KV_PUT) {
        result.found = message->has_value;
        result.value = message->value;
    } else if (message->type == MESSAGE_ERROR) {
        result.err = refusal_err(message->code, message->retry, message->text);
        result.text = text_of_slice(message->text, text, sizeof text);
    } else if (message->type == MESSAGE_UNSUPPORTED) {
        result.err = FELIX_UNSUPPORTED;
        result.text = "this broker does not know the request";
    } else {
        result.err = FELIX_PROTOCOL;
        result.text = "unexpected answer to a cache request";
    }
    answer(client, request, &result);
    free(request);
}

static bool on_frame(struct lane *lane, struct frame *frame) {
    struct kv_worker *worker = lane->owner;
    struct message message;
    if (frame->header.flags == FRAME_CACHE && worker->frames.agreed)
        return kv_frames_on_reply(worker, frame->body);
    if (frame->header.flags != 0 || message_decode(frame->body, &message) != FELIX_OK) {
        lane_fail(lane, FELIX_BAD_JSON, "the broker sent an unreadable cache answer");
        return false;
    }
    struct kv_request *request = take_answered(worker, &message);
    if (request != NULL)
        on_answer(worker, request, &message);
    else
        lane_fail(lane, FELIX_PROTOCOL, "the broker answered a cache request that was not made");
    message_deinit(&message);
    return lane->state != LANE_OVER;
}

/* Gets go back to the head of the queue, in their order; of the rest nobody knows. */
static void settle_lost(struct kv_worker *worker, const char *text) {
    struct felix_client *client = worker->client;
    struct kv_queue lost = worker->outstanding;
    struct kv_queue again = {0};
    worker->outstanding = (struct kv_queue){0};
    kv_frames_lost(worker, &again, text);
    for (struct kv_request *request; (request = queue_pop(&lost)) != NULL;) {
        if (request->call.kind == KV_GET && request->call.done != NULL) {
            kv_queue_push(&again, request);
            kv_frames_detour(&client->kv.frames);
        } else {
            fail(client, request, FELIX_OUTCOME_UNKNOWN, text);
        }
    }
    for (struct kv_request *request; (request = queue_pop(&client->kv.waiting)) != NULL;)
        kv_queue_push(&again, request);
    client->kv.waiting = again;
}

static void on_over(struct lane *lane, enum felix_err err, const char *text) {
    struct kv_worker *worker = lane->owner;
    struct felix_client *client = worker->client;
    bool authenticating = worker->ready_ns == 0;
    if (!authenticating && client->io.now_ns - worker->ready_ns >= GOOD_LIFE_NS)
        backoff_reset(&worker->backoff);
    worker->lane = NULL;
    worker->ready_ns = 0;
    settle_lost(worker, text);
    backoff_fail(&worker->backoff, client, client->io.now_ns);
    if (authenticating && err == FELIX_UNAUTHENTICATED)
        fail_waiting(client, err, text);
    send_waiting(client);
}

static const struct lane_ops lane_ops = {
    .ready = on_ready,
    .frame = on_frame,
    .over = on_over,
};

/* ---- the pool ---- */

void kv_init(struct kv *kv, struct felix_client *client) {
    const struct client_settings *settings = client->settings;
    *kv = (struct kv){.worker_count = settings->cache_conn_pool * settings->cache_streams_per_conn};
    kv->workers = xcalloc(kv->worker_count, sizeof *kv->workers);
    kv->wanted = xcalloc(kv->worker_count, sizeof(struct kv_worker *));
    for (unsigned i = 0; i < kv->worker_count; i++) {
        kv->workers[i].client = client;
        kv->workers[i].link = &client->links[POOL_CACHE][i / settings->cache_streams_per_conn];
    }
    kv_frames_init(&kv->frames);
}

void kv_deinit(struct kv *kv) {
    if (kv->workers == NULL)
        return;
    kv_frames_deinit(&kv->frames);
    free(kv->wanted);
    free(kv->workers);
    kv->workers = NULL;
}

void kv_pump(struct link *link) {
    struct kv *kv = &link->client->kv;
    for (unsigned i = 0; i < kv->wanted_count; i++) {
        if (kv->wanted[i]->link == link)
            worker_open(kv->wanted[i]);
    }
}

static void expire_waiting(struct felix_client *client, uint64_t now_ns, uint64_t *next_ns) {
    struct kv_queue kept = {0};
    struct kv_queue *waiting = &client->kv.waiting;
    for (struct kv_request *request; (request = queue_pop(waiting)) != NULL;) {
        if (request->deadline_ns <= now_ns) {
            kv_frames_arrived(&client->kv.frames);
            fail(client, request, FELIX_TIMED_OUT, "no connection to the broker in time");
            continue;
        }
        if (request->deadline_ns < *next_ns)
            *next_ns = request->deadline_ns;
        kv_queue_push(&kept, request);
    }
    *waiting = kept;
}

uint64_t kv_expire(struct felix_client *client, uint64_t now_ns) {
    struct kv *kv = &client->kv;
    uint64_t next_ns = kv_frames_expire(client, now_ns);
    expire_waiting(client, now_ns, &next_ns);
    for (unsigned i = 0; i < kv->wanted_count; i++) {
        struct kv_worker *worker = kv->wanted[i];
        struct kv_request *request = worker->outstanding.first;
        for (; request != NULL; request = request->next) {
            if (request->call.done == NULL)
                continue;
            if (request->deadline_ns <= now_ns)
                answer(client, request,
                       &(struct kv_answer){.err = FELIX_TIMED_OUT,
                                           .text = "the broker did not answer in time"});
            else if (request->deadline_ns < next_ns)
                next_ns = request->deadline_ns;
        }
        if (worker->lane == NULL)
            worker_open(worker);
    }
    return next_ns;
}

bool kv_is_idle(struct felix_client *client) {
    const struct kv *kv = &client->kv;
    if (kv->waiting.count > 0 || !kv_frames_is_idle(client))
        return false;
    for (unsigned i = 0; i < kv->wanted_count; i++) {
        if (kv->wanted[i]->outstanding.count > 0)
            return false;
    }
    return true;
}

void kv_shut(struct felix_client *client) {
    struct kv *kv = &client->kv;
    kv_frames_shut(client);
    fail_waiting(client, FELIX_CLOSED, "the client was closed");
    for (unsigned i = 0; i < kv->wanted_count; i++)
        fail_all(client, &kv->wanted[i]->outstanding, FELIX_CLOSED, "the client was closed");
}
