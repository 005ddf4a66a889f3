/*
 * A publish call: check, take the frame's bytes from the budget (waiting for room), find the
 * shard, encode. Small frames are encoded into the shard's chunk under its lock; frames larger
 * than a chunk get a block of their own, filled before the lock is taken.
 *
 * The budget comes back when the request is answered, or, for frames without an answer, when the
 * peer's transport has acknowledged the bytes: until then they are in our memory.
 */
#include "client/publisher.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/cursor.h"
#include "base/map.h"
#include "client/client.h"
#include "client/last_error.h"
#include "wire/ack.h"
#include "wire/frame.h"
#include "wire/publish.h"
#include "wire/utf8.h"

#define ALONE_NS (20 * NS_PER_US) /* about what a wake-up takes */

/* One call of felix_publish or felix_publish_keyed. */
struct publish_call {
    struct slice ns, stream, key;
    bool keyed;
    const struct felix_bytes *payloads;
    size_t count;
    enum felix_ack ack;
    felix_publish_done done;
    void *context;
    uint16_t flags;     /* of the frame; 0: JSON, for a broker without acknowledged batches */
    size_t frame_bytes; /* exact for a binary frame, an estimate for JSON */
    uint64_t payload_bytes;
};

/* ---- budget ---- */

static void budget_init(struct budget *budget, size_t max) {
    pthread_condattr_t attributes;
    *budget = (struct budget){.max = max};
    (void)pthread_mutex_init(&budget->lock, NULL);
    (void)pthread_condattr_init(&attributes);
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&budget->room, &attributes);
    (void)pthread_condattr_destroy(&attributes);
}

static void budget_deinit(struct budget *budget) {
    (void)pthread_cond_destroy(&budget->room);
    (void)pthread_mutex_destroy(&budget->lock);
}

/* A frame larger than the whole budget goes alone. Sequentially consistent, as is budget_release:
 * either the releaser sees the waiter or the waiter sees the room. */
static bool budget_try(struct budget *budget, size_t bytes) {
    size_t used = atomic_load(&budget->used);
    do {
        if (used > 0 && (bytes > budget->max || used > budget->max - bytes))
            return false;
    } while (!atomic_compare_exchange_weak(&budget->used, &used, used + bytes));
    return true;
}

static enum felix_err budget_wait(struct budget *budget, size_t bytes, uint64_t deadline_ns) {
    struct timespec until = {.tv_sec = (time_t)(deadline_ns / NS_PER_S),
                             .tv_nsec = (long)(deadline_ns % NS_PER_S)};
    enum felix_err err = FELIX_OK;
    (void)pthread_mutex_lock(&budget->lock);
    (void)atomic_fetch_add(&budget->waiting, 1);
    int rc = 0;
    while (!budget_try(budget, bytes)) {
        if (atomic_load(&budget->closed))
            err = FELIX_CLOSED;
        else if (rc != 0)
            err = FELIX_TIMED_OUT;
        if (err != FELIX_OK)
            break;
        rc = pthread_cond_timedwait(&budget->room, &budget->lock, &until);
    }
    (void)atomic_fetch_sub(&budget->waiting, 1);
    (void)pthread_mutex_unlock(&budget->lock);
    return err;
}

static void budget_wake(struct budget *budget) {
    if (atomic_load(&budget->waiting) == 0)
        return;
    (void)pthread_mutex_lock(&budget->lock);
    (void)pthread_cond_broadcast(&budget->room);
    (void)pthread_mutex_unlock(&budget->lock);
}

void budget_release(struct budget *budget, size_t bytes) {
    if (bytes == 0)
        return;
    (void)atomic_fetch_sub(&budget->used, bytes);
    budget_wake(budget);
}

struct budget_need {
    struct budget *budget;
    size_t bytes;
    bool taken;
};

static bool try_need(void *context) {
    struct budget_need *need = context;
    need->taken = budget_try(need->budget, need->bytes);
    return need->taken;
}

static enum felix_err take_budget(struct felix_client *client, size_t bytes) {
    struct budget *budget = &client->publisher.budget;
    if (budget_try(budget, bytes))
        return FELIX_OK;
    if (driver_is_thread(client))
        return last_error_set(FELIX_WOULD_BLOCK, "%zu bytes of publishes are in flight already",
                              budget->max);
    uint64_t deadline_ns = clock_now_ns() + client->timeout_ns;
    struct budget_need need = {.budget = budget, .bytes = bytes};
    if (driver_until(client, try_need, &need, deadline_ns) && need.taken)
        return FELIX_OK;
    enum felix_err err = budget_wait(budget, bytes, deadline_ns);
    if (err == FELIX_TIMED_OUT)
        return last_error_set(err, "no room for %zu bytes among the %zu bytes in flight", bytes,
                              budget->max);
    if (err != FELIX_OK)
        return last_error_set(err, "the client is closed");
    return FELIX_OK;
}

/* ---- encoding ---- */

static struct publish_head head_of(const struct felix_client *client,
                                   const struct publish_call *call, uint64_t request_id) {
    return (struct publish_head){
        .request_id = request_id,
        .ack_mode = (uint8_t)call->ack,
        .keyed = call->keyed,
        .key = call->key,
        .tenant = slice_str(client->settings->tenant),
        .namespace_ = call->ns,
        .stream = call->stream,
    };
}

static void encode(const struct felix_client *client, const struct publish_call *call,
                   uint64_t request_id, uint8_t *out) {
    struct publish_head head = head_of(client, call, request_id);
    frame_header_encode(out, call->flags, (uint32_t)(call->frame_bytes - FRAME_HEADER_BYTES));
    uint8_t *at = out + FRAME_HEADER_BYTES;
    enum felix_err err = publish_head_encode(call->flags, &head, at);
    INVARIANT(err == FELIX_OK);
    at += publish_head_bytes(call->flags, &head);
    be32_store(at, (uint32_t)call->count);
    at += 4;
    for (size_t i = 0; i < call->count; i++) {
        be32_store(at, (uint32_t)call->payloads[i].len);
        at += 4;
        if (call->payloads[i].len > 0)
            memcpy(at, call->payloads[i].data, call->payloads[i].len);
        at += call->payloads[i].len;
    }
}

/* The request id comes first in the body, so that it can be filled in last. */
static void set_request_id(uint8_t *frame, uint64_t request_id) {
    be64_store(frame + FRAME_HEADER_BYTES, request_id);
}

static struct buf *encode_json(const struct felix_client *client, const struct publish_call *call,
                               uint64_t request_id, size_t *ret_bytes) {
    size_t list_bytes = 4 + 4 * call->count + call->payload_bytes;
    uint8_t *list = xmalloc(list_bytes);
    uint8_t *at = list;
    be32_store(at, (uint32_t)call->count);
    at += 4;
    for (size_t i = 0; i < call->count; i++) {
        be32_store(at, (uint32_t)call->payloads[i].len);
        if (call->payloads[i].len > 0)
            memcpy(at + 4, call->payloads[i].data, call->payloads[i].len);
        at += 4 + call->payloads[i].len;
    }
    struct message message = {
        .type = MESSAGE_PUBLISH_BATCH,
        .tenant = slice_str(client->settings->tenant),
        .namespace_ = call->ns,
        .stream = call->stream,
        .payloads = {.bytes = slice_of(list, list_bytes),
                     .count = (uint32_t)call->count,
                     .payload_bytes = call->payload_bytes},
        .has_request_id = true,
        .request_id = request_id,
        .has_ack = true,
        .ack_mode = (uint8_t)call->ack,
    };
    struct buf *buf = message_encode(&message, ret_bytes);
    free(list);
    return buf;
}

/* ---- staging ---- */

static struct shard *pick_shard(struct felix_client *client, const struct publish_call *call) {
    struct publisher *publisher = &client->publisher;
    if (publisher->shard_count == 1)
        return &publisher->shards[0];
    uint64_t at;
    if (client->settings->pub_sharding == PUB_SHARDING_ROUND_ROBIN) {
        at = atomic_fetch_add_explicit(&publisher->next_shard, 1, memory_order_relaxed);
    } else {
        /* FNV-1a: names are short, and nobody gains by making them collide. */
        at = 0xcbf29ce484222325u;
        for (size_t i = 0; i < call->ns.len; i++)
            at = (at ^ call->ns.data[i]) * 0x100000001b3u;
        at *= 0x100000001b3u;
        for (size_t i = 0; i < call->stream.len; i++)
            at = (at ^ call->stream.data[i]) * 0x100000001b3u;
        at ^= at >> 32;
    }
    return &publisher->shards[at % publisher->shard_count];
}

static uint64_t add_request(struct shard *shard, const struct publish_call *call, uint64_t now_ns) {
    if (call->done == NULL)
        return 0;
    bool acked = call->ack != FELIX_ACK_NONE;
    return shard_add_request(shard, &(struct request){
                                        .kind = acked ? REQUEST_ACKED : REQUEST_UNACKED,
                                        .done = call->done,
                                        .context = call->context,
                                        .deadline_ns = now_ns + shard->client->timeout_ns,
                                        .budget_bytes = acked ? call->frame_bytes : 0,
                                    });
}

static enum felix_err stage(struct felix_client *client, const struct publish_call *call) {
    struct shard *shard = pick_shard(client, call);
    size_t region_budget = call->ack == FELIX_ACK_NONE ? call->frame_bytes : 0;
    bool large = call->frame_bytes > client->settings->publish_chunk_bytes;
    struct buf *block = NULL;
    enum felix_err err = FELIX_OK;
    if (large && call->flags != 0) {
        block = buf_new(call->frame_bytes);
        encode(client, call, 0, block->data);
    }
    uint64_t now_ns = call->done != NULL ? clock_now_ns() : 0;

    shard_lock(shard);
    uint64_t id = add_request(shard, call, now_ns);
    if (call->flags == 0) {
        size_t bytes = 0;
        block = encode_json(client, call, id, &bytes);
        if (bytes - FRAME_HEADER_BYTES > client->settings->max_frame_bytes) {
            buf_unref(block);
            shard_undo_request(shard);
            err = FELIX_TOO_LARGE;
        } else {
            shard_stage_block(shard, block, bytes, region_budget);
        }
    } else if (large) {
        if ((call->flags & FRAME_PUBLISH_ACKED) != 0)
            set_request_id(block->data, id);
        shard_stage_block(shard, block, call->frame_bytes, region_budget);
    } else {
        encode(client, call, id, shard_room(shard, call->frame_bytes));
        shard_commit(shard, call->frame_bytes, region_budget);
    }
    if (err == FELIX_OK) {
        shard->published += call->count;
        shard->publish_bytes += call->payload_bytes;
    }
    shard_unlock(shard);
    if (err != FELIX_OK) {
        budget_release(&client->publisher.budget, call->frame_bytes);
        return last_error_set(err, "the publish exceeds the frame limit of %zu bytes",
                              (size_t)client->settings->max_frame_bytes);
    }
    return FELIX_OK;
}

/* ---- the calls ---- */

static bool name_is_usable(struct slice name) {
    return name.len <= NAME_BYTES_MAX && utf8_valid(name);
}

/* Choose the layout and size the frame. */
static enum felix_err prepare(struct felix_client *client, struct publish_call *call) {
    if (!name_is_usable(call->ns) || !name_is_usable(call->stream))
        return last_error_set(FELIX_INVALID_ARGUMENT,
                              "namespace or stream is not UTF-8 or longer than 65535 bytes");
    if (call->key.len > NAME_BYTES_MAX)
        return last_error_set(FELIX_INVALID_ARGUMENT, "the key is longer than 65535 bytes");
    if (call->count > UINT32_MAX || (unsigned)call->ack > FELIX_ACK_PER_BATCH)
        return last_error_set(FELIX_INVALID_ARGUMENT, "felix_publish: unknown ack mode");
    size_t max_bytes = client->settings->max_frame_bytes;
    for (size_t i = 0; i < call->count && call->payload_bytes <= max_bytes; i++)
        call->payload_bytes +=
            call->payloads[i].len < max_bytes ? call->payloads[i].len : max_bytes + 1;
    uint32_t peer = atomic_load_explicit(&client->server_flags, memory_order_relaxed);
    bool acked = call->ack != FELIX_ACK_NONE;
    if (call->keyed && (peer & FRAME_PUBLISH_KEYED) == 0)
        return last_error_set(FELIX_UNSUPPORTED, "this broker takes no keyed publishes");
    if (!acked || (peer & FRAME_PUBLISH_ACKED) != 0)
        call->flags = (uint16_t)(FRAME_PUBLISH_BATCH | (acked ? FRAME_PUBLISH_ACKED : 0) |
                                 (call->keyed ? FRAME_PUBLISH_KEYED : 0));
    struct publish_head head = head_of(client, call, 0);
    size_t body_bytes = 4 + 4 * call->count + call->payload_bytes;
    body_bytes += publish_head_bytes(call->flags != 0 ? call->flags : FRAME_PUBLISH_BATCH, &head);
    if (body_bytes > max_bytes)
        return last_error_set(FELIX_TOO_LARGE, "the publish exceeds the frame limit of %zu bytes",
                              max_bytes);
    call->frame_bytes = FRAME_HEADER_BYTES + body_bytes;
    return FELIX_OK;
}

/* A publish that its thread waits for. */
struct publish_wait {
    struct client_call call;
    struct felix_publish_result *ret; /* NULL: nobody wants to know more than the error */
};

static void answer_call(void *context, const struct felix_publish_result *result) {
    struct publish_wait *wait = context;
    if (wait->ret != NULL)
        *wait->ret = *result;
    client_call_answer(&wait->call, result->err, result->error_text);
}

/* Should this thread send what it publishes, instead of waking another one for it? When it is a
 * whole chunk; or when it is alone: of what comes quickly, one after the other, the background
 * thread makes larger packets. */
static bool is_worth_serving(struct felix_client *client, const struct publish_call *call) {
    struct publisher *publisher = &client->publisher;
    uint64_t now_ns = clock_now_ns();
    uint64_t before_ns =
        atomic_exchange_explicit(&publisher->published_ns, now_ns, memory_order_relaxed);
    return call->frame_bytes >= client->settings->publish_chunk_bytes ||
           now_ns - before_ns > ALONE_NS;
}

/* `ret` is for a publish that waits; it may be NULL. */
static enum felix_err publish(struct felix_client *client, struct publish_call *call,
                              struct felix_publish_result *ret) {
    bool blocking = call->done == NULL && call->ack != FELIX_ACK_NONE;
    if (blocking && driver_is_thread(client))
        return last_error_set(FELIX_INVALID_ARGUMENT,
                              "an acknowledged publish from a callback needs `done`");
    enum felix_err err = prepare(client, call);
    if (err != FELIX_OK)
        return err;
    if (atomic_load_explicit(&client->closed, memory_order_relaxed))
        return last_error_set(FELIX_CLOSED, "the client is closed");
    err = take_budget(client, call->frame_bytes);
    if (err != FELIX_OK)
        return err;
    if (!blocking && !is_worth_serving(client, call))
        return stage(client, call);
    if (!blocking) {
        driver_expect(client);
        err = stage(client, call);
        driver_serve(client);
        return err;
    }
    struct publish_wait wait;
    struct publish_call waiting = *call;
    wait.ret = ret;
    client_call_begin(client, &wait.call);
    waiting.done = answer_call;
    waiting.context = &wait;
    err = stage(client, &waiting);
    if (err == FELIX_OK)
        return client_call_wait(client, &wait.call);
    driver_expect_not(client);
    return err;
}

enum felix_err felix_publish(felix_client *client, const char *ns, const char *stream,
                             const struct felix_bytes *payloads, size_t count, enum felix_ack ack,
                             felix_publish_done done, void *context) {
    if (client == NULL || ns == NULL || stream == NULL || (payloads == NULL && count > 0))
        return last_error_set(FELIX_INVALID_ARGUMENT, "felix_publish: an argument is NULL");
    struct publish_call call = {
        .ns = slice_str(ns),
        .stream = slice_str(stream),
        .payloads = payloads,
        .count = count,
        .ack = ack,
        .done = done,
        .context = context,
    };
    return publish(client, &call, NULL);
}

enum felix_err felix_publish_keyed(felix_client *client, const char *ns, const char *stream,
                                   struct felix_bytes key, struct felix_bytes payload,
                                   enum felix_ack ack, felix_publish_done done, void *context) {
    if (client == NULL || ns == NULL || stream == NULL)
        return last_error_set(FELIX_INVALID_ARGUMENT, "felix_publish_keyed: an argument is NULL");
    struct publish_call call = {
        .ns = slice_str(ns),
        .stream = slice_str(stream),
        .key = slice_of(key.data, key.len),
        .keyed = true,
        .payloads = &payload,
        .count = 1,
        .ack = ack,
        .done = done,
        .context = context,
    };
    return publish(client, &call, NULL);
}

enum felix_err felix_publish_confirmed(felix_client *client, const char *ns, const char *stream,
                                       const struct felix_bytes *key,
                                       const struct felix_bytes *payloads, size_t count,
                                       struct felix_publish_result *ret) {
    if (client == NULL || ns == NULL || stream == NULL || (payloads == NULL && count > 0) ||
        ret == NULL)
        return last_error_set(FELIX_INVALID_ARGUMENT,
                              "felix_publish_confirmed: an argument is NULL");
    struct publish_call call = {
        .ns = slice_str(ns),
        .stream = slice_str(stream),
        .key = key != NULL ? slice_of(key->data, key->len) : (struct slice){0},
        .keyed = key != NULL,
        .payloads = payloads,
        .count = count,
        .ack = FELIX_ACK_PER_BATCH,
    };
    *ret = (struct felix_publish_result){.error_text = ""};
    ret->err = publish(client, &call, ret);
    ret->error_text = ret->err == FELIX_OK ? "" : felix_last_error();
    return ret->err;
}

const char *felix_level_name(enum felix_level level) {
    switch (level) {
    case FELIX_LEVEL_MEMORY:
        return ack_level_name(ACK_LEVEL_MEMORY);
    case FELIX_LEVEL_WRITTEN:
        return ack_level_name(ACK_LEVEL_WRITTEN);
    case FELIX_LEVEL_FLUSHED:
        return ack_level_name(ACK_LEVEL_FLUSHED);
    case FELIX_LEVEL_UNKNOWN:
        break;
    }
    return "unknown";
}

/* ---- the pool of shards ---- */

/* On one machine more than this only queues, and what queues leaves the processor's caches before
 * it is read again: docs/performance.md. */
static size_t inflight_bytes(const struct felix_client *client) {
    if (client->settings->publish_inflight_bytes > 0)
        return client->settings->publish_inflight_bytes;
    return client->peer_on_host ? (size_t)1 << 20 : (size_t)4 << 20;
}

void publisher_init(struct publisher *publisher, struct felix_client *client) {
    const struct client_settings *settings = client->settings;
    *publisher =
        (struct publisher){.shard_count = settings->pub_conn_pool * settings->pub_streams_per_conn};
    publisher->shards = xcalloc(publisher->shard_count, sizeof *publisher->shards);
    for (unsigned i = 0; i < publisher->shard_count; i++) {
        struct link *link = &client->links[POOL_PUBLISH][i / settings->pub_streams_per_conn];
        shard_init(&publisher->shards[i], client, link);
    }
    budget_init(&publisher->budget, inflight_bytes(client));
}

void publisher_deinit(struct publisher *publisher) {
    for (unsigned i = 0; i < publisher->shard_count; i++)
        shard_deinit(&publisher->shards[i]);
    free(publisher->shards);
    budget_deinit(&publisher->budget);
}

void publisher_open_first(struct felix_client *client) {
    shard_open(&client->publisher.shards[0], true);
}

void publisher_pump(struct link *link) {
    struct felix_client *client = link->client;
    unsigned per_link = client->settings->pub_streams_per_conn;
    for (unsigned i = 0; i < per_link; i++) {
        unsigned at = link->index * per_link + i;
        shard_open(&client->publisher.shards[at], at == 0);
    }
}

uint64_t publisher_expire(struct felix_client *client, uint64_t now_ns) {
    uint64_t next_ns = UINT64_MAX;
    for (unsigned i = 0; i < client->publisher.shard_count; i++) {
        uint64_t due_ns = shard_expire(&client->publisher.shards[i], now_ns);
        if (due_ns < next_ns)
            next_ns = due_ns;
    }
    return next_ns;
}

static struct publisher_mark mark_of(struct shard *shard) {
    shard_lock(shard);
    struct publisher_mark mark = {shard->staged_bytes, shard->next_id};
    (void)pthread_mutex_unlock(&shard->lock);
    return mark;
}

void publisher_mark(struct publisher *publisher, struct publisher_mark *marks) {
    for (unsigned i = 0; i < publisher->shard_count; i++)
        marks[i] = mark_of(&publisher->shards[i]);
}

bool publisher_reached(struct publisher *publisher, const struct publisher_mark *marks) {
    for (unsigned i = 0; i < publisher->shard_count; i++) {
        if (!shard_reached(&publisher->shards[i], marks[i].staged_bytes, marks[i].next_id))
            return false;
    }
    return true;
}

bool publisher_is_drained(struct publisher *publisher) {
    for (unsigned i = 0; i < publisher->shard_count; i++) {
        struct publisher_mark mark = mark_of(&publisher->shards[i]);
        if (!shard_reached(&publisher->shards[i], mark.staged_bytes, mark.next_id))
            return false;
    }
    return true;
}

void publisher_finish(struct felix_client *client) {
    struct publisher *publisher = &client->publisher;
    for (unsigned i = 0; i < publisher->shard_count; i++) {
        struct shard *shard = &publisher->shards[i];
        shard->finished = true;
        if (shard->lane == NULL)
            continue;
        if (shard->lane->state == LANE_READY) {
            lane_finish(shard->lane);
        } else {
            lane_abandon(shard->lane);
            shard->lane = NULL;
        }
    }
}

bool publisher_is_finished(const struct publisher *publisher) {
    for (unsigned i = 0; i < publisher->shard_count; i++) {
        if (publisher->shards[i].lane != NULL)
            return false;
    }
    return true;
}

void publisher_shut(struct felix_client *client) {
    struct publisher *publisher = &client->publisher;
    atomic_store(&publisher->budget.closed, true);
    for (unsigned i = 0; i < publisher->shard_count; i++)
        shard_fail(&publisher->shards[i], FELIX_CLOSED, "the client was closed");
    budget_wake(&publisher->budget);
}

void publisher_stats(struct publisher *publisher, struct felix_stats *ret) {
    for (unsigned i = 0; i < publisher->shard_count; i++) {
        struct shard *shard = &publisher->shards[i];
        (void)pthread_mutex_lock(&shard->lock);
        ret->published += shard->published;
        ret->publish_bytes += shard->publish_bytes;
        (void)pthread_mutex_unlock(&shard->lock);
    }
}
