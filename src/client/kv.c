/*
 * The way of a cache request:
 *
 *   encoded      on the caller's thread, then posted
 *   waiting      no worker is ready, or all that are have enough outstanding
 *   outstanding  written to a worker's lane, in order
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
#include "client/last_error.h"
#include "wire/utf8.h"

#define OUTSTANDING_PER_WORKER 16u /* so many before another worker opens */
#define GOOD_LIFE_NS NS_PER_S

/* ---- queues ---- */

static void queue_push(struct kv_queue *queue, struct kv_request *request) {
    request->next = NULL;
    if (queue->last != NULL)
        queue->last->next = request;
    else
        queue->first = request;
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
    felix_cache_done done = request->done;
    if (done == NULL)
        return;
    request->done = NULL;
    if (answer->err != FELIX_OK)
        counter_add(&client->counters.cache_failures, 1);
    struct felix_bytes value = {.data = answer->value.data, .len = answer->value.len};
    done(request->context, answer->err, answer->text, answer->found, value);
}

static void request_free(struct kv_request *request) {
    buf_unref(request->frame);
    free(request);
}

static void fail(struct felix_client *client, struct kv_request *request, enum felix_err err,
                 const char *text) {
    answer(client, request, &(struct kv_answer){.err = err, .text = text});
    request_free(request);
}

static void fail_all(struct felix_client *client, struct kv_queue *queue, enum felix_err err,
                     const char *text) {
    for (struct kv_request *request; (request = queue_pop(queue)) != NULL;)
        fail(client, request, err, text);
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

/* The ready worker with the least to do; the next one is opened when that is much already. NULL
 * when the request has to wait. */
static struct kv_worker *pick_worker(struct felix_client *client) {
    struct kv *kv = &client->kv;
    struct kv_worker *best = NULL;
    bool all_ready = true;
    for (unsigned i = 0; i < kv->wanted_count; i++) {
        struct kv_worker *worker = &kv->workers[i];
        if (!is_ready(worker))
            all_ready = false;
        else if (best == NULL || worker->outstanding.count < best->outstanding.count)
            best = worker;
    }
    bool busy = best == NULL || best->outstanding.count >= OUTSTANDING_PER_WORKER;
    if (busy && all_ready && kv->wanted_count < kv->worker_count)
        worker_open(&kv->workers[kv->wanted_count++]);
    return best;
}

static void send_to(struct kv_worker *worker, struct kv_request *request) {
    struct felix_client *client = worker->client;
    if (request->kind == KV_DELETE && (worker->lane->server_features & FEATURE_CACHE_DELETE) == 0) {
        fail(client, request, FELIX_UNSUPPORTED, "this broker cannot delete cache keys");
        return;
    }
    struct buf *frame = request->frame;
    if (request->kind == KV_GET)
        buf_ref(frame);
    else
        request->frame = NULL;
    queue_push(&worker->outstanding, request);
    lane_write(worker->lane, frame, frame->data, request->frame_bytes);
}

static void run_request(struct felix_client *client, struct io_command *command) {
    struct kv_request *request =
        (struct kv_request *)((char *)command - offsetof(struct kv_request, command));
    counter_add(&client->counters.cache_requests, 1);
    if (client->closing) {
        fail(client, request, FELIX_CLOSED, "the client is closed");
        return;
    }
    request->deadline_ns = client->io.now_ns + client->timeout_ns;
    io_timer_at(client, request->deadline_ns);
    struct kv_worker *worker = pick_worker(client);
    if (worker != NULL)
        send_to(worker, request);
    else
        queue_push(&client->kv.waiting, request);
}

/* ---- the lane ---- */

static void on_ready(struct lane *lane) {
    struct kv_worker *worker = lane->owner;
    struct kv_queue *waiting = &worker->client->kv.waiting;
    worker->ready_ns = worker->client->io.now_ns;
    while (waiting->first != NULL) {
        struct kv_worker *picked = pick_worker(worker->client);
        if (picked == NULL)
            return;
        send_to(picked, queue_pop(waiting));
    }
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
    if (message->type == MESSAGE_CACHE_OK && request->kind == KV_PUT) {
        result.found = true;
    } else if (message->type == MESSAGE_CACHE_VALUE && request->kind != KV_PUT) {
        result.found = message->has_value;
        result.value = message->value;
    } else if (message->type == MESSAGE_ERROR) {
        result.err = refusal_err(message->code, message->text);
        result.text = text_of_slice(message->text, text, sizeof text);
    } else if (message->type == MESSAGE_UNSUPPORTED) {
        result.err = FELIX_UNSUPPORTED;
        result.text = "this broker does not know the request";
    } else {
        result.err = FELIX_PROTOCOL;
        result.text = "unexpected answer to a cache request";
    }
    answer(client, request, &result);
    request_free(request);
}

static bool on_frame(struct lane *lane, struct frame *frame) {
    struct kv_worker *worker = lane->owner;
    struct message message;
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
    for (struct kv_request *request; (request = queue_pop(&lost)) != NULL;) {
        if (request->kind == KV_GET && request->done != NULL)
            queue_push(&again, request);
        else
            fail(client, request, FELIX_OUTCOME_UNKNOWN, text);
    }
    for (struct kv_request *request; (request = queue_pop(&client->kv.waiting)) != NULL;)
        queue_push(&again, request);
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
        fail_all(client, &client->kv.waiting, err, text);
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
    for (unsigned i = 0; i < kv->worker_count; i++) {
        kv->workers[i].client = client;
        kv->workers[i].link = &client->links[POOL_CACHE][i / settings->cache_streams_per_conn];
    }
}

void kv_deinit(struct kv *kv) {
    free(kv->workers);
    kv->workers = NULL;
}

void kv_pump(struct link *link) {
    struct kv *kv = &link->client->kv;
    for (unsigned i = 0; i < kv->wanted_count; i++) {
        if (kv->workers[i].link == link)
            worker_open(&kv->workers[i]);
    }
}

static void expire_waiting(struct felix_client *client, uint64_t now_ns, uint64_t *next_ns) {
    struct kv_queue kept = {0};
    struct kv_queue *waiting = &client->kv.waiting;
    for (struct kv_request *request; (request = queue_pop(waiting)) != NULL;) {
        if (request->deadline_ns <= now_ns) {
            fail(client, request, FELIX_TIMED_OUT, "no connection to the broker in time");
            continue;
        }
        if (request->deadline_ns < *next_ns)
            *next_ns = request->deadline_ns;
        queue_push(&kept, request);
    }
    *waiting = kept;
}

uint64_t kv_expire(struct felix_client *client, uint64_t now_ns) {
    struct kv *kv = &client->kv;
    uint64_t next_ns = UINT64_MAX;
    expire_waiting(client, now_ns, &next_ns);
    for (unsigned i = 0; i < kv->wanted_count; i++) {
        struct kv_worker *worker = &kv->workers[i];
        struct kv_request *request = worker->outstanding.first;
        for (; request != NULL; request = request->next) {
            if (request->done == NULL)
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

bool kv_is_idle(const struct kv *kv) {
    if (kv->waiting.count > 0)
        return false;
    for (unsigned i = 0; i < kv->wanted_count; i++) {
        if (kv->workers[i].outstanding.count > 0)
            return false;
    }
    return true;
}

void kv_shut(struct felix_client *client) {
    struct kv *kv = &client->kv;
    fail_all(client, &kv->waiting, FELIX_CLOSED, "the client was closed");
    for (unsigned i = 0; i < kv->wanted_count; i++)
        fail_all(client, &kv->workers[i].outstanding, FELIX_CLOSED, "the client was closed");
}

/* ---- the calls ---- */

/* One cache call as the caller made it. */
struct cache_call {
    enum kv_kind kind;
    const char *ns, *cache, *key;
    struct felix_bytes value;
    uint64_t ttl_ms;
    felix_cache_done done;
    void *context;
};

static enum felix_err check(struct felix_client *client, const struct cache_call *call) {
    if (client == NULL || call->ns == NULL || call->cache == NULL || call->key == NULL ||
        call->done == NULL || (call->value.data == NULL && call->value.len > 0))
        return last_error_set(FELIX_INVALID_ARGUMENT, "a cache call: an argument is NULL");
    if (!utf8_valid(slice_str(call->ns)) || !utf8_valid(slice_str(call->cache)) ||
        !utf8_valid(slice_str(call->key)))
        return last_error_set(FELIX_INVALID_ARGUMENT, "namespace, cache or key is not UTF-8");
    if (atomic_load_explicit(&client->closed, memory_order_relaxed))
        return last_error_set(FELIX_CLOSED, "the client is closed");
    return FELIX_OK;
}

static enum felix_err start(struct felix_client *client, const struct cache_call *call) {
    static const enum message_type types[] = {[KV_PUT] = MESSAGE_CACHE_PUT,
                                              [KV_GET] = MESSAGE_CACHE_GET,
                                              [KV_DELETE] = MESSAGE_CACHE_DELETE};
    enum felix_err err = check(client, call);
    if (err != FELIX_OK)
        return err;
    struct kv_request *request = xcalloc(1, sizeof *request);
    request->command.run = run_request;
    request->kind = call->kind;
    request->id = atomic_fetch_add_explicit(&client->kv.next_id, 1, memory_order_relaxed) + 1;
    request->done = call->done;
    request->context = call->context;
    struct message message = {
        .type = types[call->kind],
        .tenant = slice_str(client->settings->tenant),
        .namespace_ = slice_str(call->ns),
        .cache = slice_str(call->cache),
        .key = slice_str(call->key),
        .value = slice_of(call->value.data, call->value.len),
        .has_value = call->kind == KV_PUT,
        .has_ttl = call->ttl_ms > 0,
        .ttl_ms = call->ttl_ms,
        .has_request_id = true,
        .request_id = request->id,
    };
    request->frame = message_encode(&message, &request->frame_bytes);
    if (request->frame_bytes - FRAME_HEADER_BYTES > client->settings->max_frame_bytes) {
        request_free(request);
        return last_error_set(FELIX_TOO_LARGE, "the request exceeds the frame limit of %zu bytes",
                              (size_t)client->settings->max_frame_bytes);
    }
    io_post(client, &request->command);
    return FELIX_OK;
}

enum felix_err felix_cache_put_async(felix_client *client, const char *ns, const char *cache,
                                     const char *key, struct felix_bytes value, uint64_t ttl_ms,
                                     felix_cache_done done, void *context) {
    return start(client,
                 &(struct cache_call){KV_PUT, ns, cache, key, value, ttl_ms, done, context});
}

enum felix_err felix_cache_get_async(felix_client *client, const char *ns, const char *cache,
                                     const char *key, felix_cache_done done, void *context) {
    return start(client, &(struct cache_call){.kind = KV_GET,
                                              .ns = ns,
                                              .cache = cache,
                                              .key = key,
                                              .done = done,
                                              .context = context});
}

enum felix_err felix_cache_delete_async(felix_client *client, const char *ns, const char *cache,
                                        const char *key, felix_cache_done done, void *context) {
    return start(client, &(struct cache_call){.kind = KV_DELETE,
                                              .ns = ns,
                                              .cache = cache,
                                              .key = key,
                                              .done = done,
                                              .context = context});
}

/* A call that waits: on the caller's stack. */
struct blocking_call {
    struct client_call call;
    bool found;
    bool wants_value;
    struct felix_bytes value; /* owned */
};

static void answer_blocking(void *context, enum felix_err err, const char *error_text, bool found,
                            struct felix_bytes value) {
    struct blocking_call *blocking = context;
    blocking->found = found;
    if (err == FELIX_OK && found && blocking->wants_value) {
        void *copy = xmalloc(value.len > 0 ? value.len : 1);
        if (value.len > 0)
            memcpy(copy, value.data, value.len);
        blocking->value = (struct felix_bytes){.data = copy, .len = value.len};
    }
    client_call_answer(&blocking->call, err, error_text);
}

static enum felix_err wait_for(struct felix_client *client, struct cache_call *call,
                               struct blocking_call *blocking) {
    if (client != NULL && driver_is_thread(client))
        return last_error_set(FELIX_INVALID_ARGUMENT,
                              "a blocking cache call from a callback; use the async one");
    if (client == NULL)
        return start(client, call); /* says so */
    client_call_begin(client, &blocking->call);
    call->done = answer_blocking;
    call->context = blocking;
    enum felix_err err = start(client, call);
    call->context = NULL;
    if (err == FELIX_OK)
        return client_call_wait(client, &blocking->call);
    driver_expect_not(client);
    return err;
}

enum felix_err felix_cache_put(felix_client *client, const char *ns, const char *cache,
                               const char *key, struct felix_bytes value, uint64_t ttl_ms) {
    struct blocking_call blocking = {0};
    struct cache_call call = {
        .kind = KV_PUT, .ns = ns, .cache = cache, .key = key, .value = value, .ttl_ms = ttl_ms};
    return wait_for(client, &call, &blocking);
}

static enum felix_err fetch(felix_client *client, struct cache_call *call,
                            struct felix_bytes *ret) {
    struct blocking_call blocking = {.wants_value = ret != NULL};
    enum felix_err err = wait_for(client, call, &blocking);
    if (err != FELIX_OK)
        return err;
    if (!blocking.found)
        return last_error_set(FELIX_NOT_FOUND, "no key \"%s\" in cache %s/%s", call->key, call->ns,
                              call->cache);
    if (ret != NULL)
        *ret = blocking.value;
    return FELIX_OK;
}

enum felix_err felix_cache_get(felix_client *client, const char *ns, const char *cache,
                               const char *key, struct felix_bytes *ret) {
    if (ret == NULL)
        return last_error_set(FELIX_INVALID_ARGUMENT, "felix_cache_get: ret is NULL");
    struct cache_call call = {.kind = KV_GET, .ns = ns, .cache = cache, .key = key};
    return fetch(client, &call, ret);
}

enum felix_err felix_cache_delete(felix_client *client, const char *ns, const char *cache,
                                  const char *key, struct felix_bytes *ret_old) {
    struct cache_call call = {.kind = KV_DELETE, .ns = ns, .cache = cache, .key = key};
    return fetch(client, &call, ret_old);
}
