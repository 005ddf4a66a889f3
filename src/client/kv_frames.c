/*
 * The way of a request:
 *
 *   staged     it has a record, and its frame stands in the tail chunk or in a block of its own
 *   handed     given to the QUIC stream of the current worker's lane, all that is staged at once
 *   answered   by the broker, by its deadline, or by the loss of the lane
 *
 * The order of one thread's requests holds as long as they go to one worker, which is up to
 * BUSY_REQUESTS unanswered ones: what it sends by the long way is counted as a detour, and while
 * there are detours all requests take them.
 *
 * Who owns a record: the thread that stages, under the lock, until it writes the id; from then on
 * the driver, without the lock, until it gives the record back in the next hand-over.
 * Callbacks run without the lock.
 */
#include "client/kv_frames.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "client/client.h"
#include "wire/cache_frame.h"
#include "wire/utf8.h"

#define CHUNK_BYTES ((size_t)32 << 10)
#define COPIED_BYTES_MAX (CHUNK_BYTES / 4) /* a longer frame gets a block of its own */
#define PIECES_PER_TAKE 16
#define READY_CAPACITY_MIN 8u

/* So many outstanding before the next connection is opened. */
#define BUSY_REQUESTS 256u

/* A request id is the record's place and, above, a number that does not come again. */
#define SLOT_BITS 24
#define SLOT_MASK (((uint64_t)1 << SLOT_BITS) - 1)
#define FIRST_CHUNK_RECORDS 64u

static struct kv_frames *frames_of(struct felix_client *client) {
    return &client->kv.frames;
}

static void lock(struct kv_frames *frames) {
    (void)pthread_mutex_lock(&frames->lock);
}

static void unlock(struct kv_frames *frames) {
    (void)pthread_mutex_unlock(&frames->lock);
}

/* ---- records: chunk k holds FIRST_CHUNK_RECORDS << k of them ---- */

static struct kv_record *record_at(struct kv_frames *frames, uint32_t slot) {
    uint32_t n = slot + FIRST_CHUNK_RECORDS;
    unsigned chunk = (unsigned)(__builtin_clz(FIRST_CHUNK_RECORDS) - __builtin_clz(n));
    return &frames->chunks[chunk][n - (FIRST_CHUNK_RECORDS << chunk)];
}

static bool add_records(struct kv_frames *frames) {
    uint32_t first = atomic_load_explicit(&frames->record_count, memory_order_relaxed);
    if (frames->chunk_count == KV_RECORD_CHUNKS)
        return false;
    uint32_t count = FIRST_CHUNK_RECORDS << frames->chunk_count;
    struct kv_record *chunk = xcalloc(count, sizeof *chunk);
    frames->chunks[frames->chunk_count++] = chunk;
    for (uint32_t i = count; i-- > 0;) {
        chunk[i].slot = first + i;
        chunk[i].next = frames->free;
        frames->free = &chunk[i];
    }
    /* Release: who sees the count sees the chunk. */
    atomic_store_explicit(&frames->record_count, first + count, memory_order_release);
    return true;
}

/* The record of a request that was staged; NULL when there is none with this id. */
static struct kv_record *find_record(struct kv_frames *frames, uint64_t id) {
    uint32_t slot = (uint32_t)(id & SLOT_MASK);
    if (id == 0 || slot >= atomic_load_explicit(&frames->record_count, memory_order_acquire))
        return NULL;
    struct kv_record *record = record_at(frames, slot);
    /* Acquire: all of it, as it was when the id was written. */
    return atomic_load_explicit(&record->id, memory_order_acquire) == id ? record : NULL;
}

static void give_back(struct kv_frames *frames, struct kv_record *record) {
    if (record->key_bytes > KV_RECORD_KEY_BYTES)
        free(record->long_key);
    atomic_store_explicit(&record->id, 0, memory_order_relaxed);
    record->worker->frames.answered++;
    frames->answered++;
    record->next = NULL;
    if (frames->freed == NULL)
        frames->freed = record;
    else
        frames->freed_last->next = record;
    frames->freed_last = record;
}

static void keep_key(struct kv_record *record, const struct kv_call *call) {
    record->key_bytes = call->kind == KV_GET ? (uint32_t)call->key.len : 0;
    if (record->key_bytes == 0)
        return;
    uint8_t *at = record->key;
    if (record->key_bytes > KV_RECORD_KEY_BYTES)
        at = record->long_key = xmalloc(record->key_bytes);
    memcpy(at, call->key.data, record->key_bytes);
}

/* ---- staged bytes; under the lock ---- */

static void push_ready(struct kv_frames *frames, struct buf *buf, const uint8_t *data, size_t len) {
    if (frames->ready_count == frames->ready_capacity) {
        frames->ready_capacity =
            frames->ready_capacity == 0 ? READY_CAPACITY_MIN : frames->ready_capacity * 2;
        frames->ready = xrealloc(frames->ready, frames->ready_capacity * sizeof *frames->ready);
    }
    frames->ready[frames->ready_count++] = (struct kv_piece){buf, data, len};
}

/* The rest of the chunk becomes a piece, and its reference goes along, so that it is the driver
 * that frees it. */
static void close_tail(struct kv_frames *frames) {
    if (frames->tail == NULL)
        return;
    push_ready(frames, frames->tail, frames->tail->data + frames->tail_taken,
               frames->tail_used - frames->tail_taken);
    frames->tail = NULL;
    frames->tail_used = frames->tail_taken = 0;
}

static uint8_t *take_room(struct kv_frames *frames, size_t bytes) {
    if (frames->tail == NULL || CHUNK_BYTES - frames->tail_used < bytes) {
        close_tail(frames);
        frames->tail = frames->spare != NULL ? frames->spare : buf_new(CHUNK_BYTES);
        frames->spare = NULL;
        buf_share(frames->tail);
    }
    uint8_t *room = frames->tail->data + frames->tail_used;
    frames->tail_used += bytes;
    return room;
}

static bool has_staged(const struct kv_frames *frames) {
    return frames->ready_count > 0 || frames->tail_used > frames->tail_taken;
}

static void drop_staged(struct kv_frames *frames) {
    close_tail(frames);
    for (size_t i = 0; i < frames->ready_count; i++)
        buf_unref(frames->ready[i].buf);
    frames->ready_count = 0;
}

/* ---- caches by handle; under the lock ---- */

static bool is_scope(const struct kv_scope *scope, const struct kv_call *call) {
    return strcmp(scope->cache, call->cache) == 0 && strcmp(scope->ns, call->ns) == 0;
}

/* The handle of the call's cache; KV_SCOPES_MAX when all are taken or it cannot be named so. */
static unsigned scope_of(struct kv_frames *frames, const struct kv_call *call) {
    if (frames->scope_last < frames->scope_count &&
        is_scope(&frames->scopes[frames->scope_last], call))
        return frames->scope_last;
    for (unsigned i = 0; i < frames->scope_count; i++) {
        if (is_scope(&frames->scopes[i], call))
            return frames->scope_last = i;
    }
    struct slice ns = slice_str(call->ns), cache = slice_str(call->cache);
    if (frames->scope_count == KV_SCOPES_MAX || ns.len > NAME_BYTES_MAX ||
        cache.len > NAME_BYTES_MAX || !utf8_valid(ns) || !utf8_valid(cache))
        return KV_SCOPES_MAX;
    frames->scopes[frames->scope_count] =
        (struct kv_scope){.ns = xstrdup(call->ns), .cache = xstrdup(call->cache)};
    frames->scope_last = frames->scope_count;
    return frames->scope_count++;
}

static void stage_bind(struct felix_client *client, unsigned handle) {
    struct kv_frames *frames = frames_of(client);
    const struct kv_scope *scope = &frames->scopes[handle];
    struct cache_frame_request bind = {
        .op = CACHE_FRAME_BIND,
        .handle = (uint16_t)handle,
        .tenant = slice_str(client->settings->tenant),
        .namespace_ = slice_str(scope->ns),
        .cache = slice_str(scope->cache),
    };
    size_t bytes = cache_frame_request_bytes(&bind);
    frames->current->frames.bound[handle / 64] |= (uint64_t)1 << handle % 64;
    if (bytes <= COPIED_BYTES_MAX) {
        cache_frame_request_encode(&bind, take_room(frames, bytes));
        return;
    }
    struct buf *block = buf_new(bytes);
    buf_share(block);
    cache_frame_request_encode(&bind, block->data);
    close_tail(frames);
    push_ready(frames, block, block->data, bytes);
}

static bool is_bound(const struct kv_frames *frames, unsigned handle) {
    return (frames->current->frames.bound[handle / 64] >> handle % 64 & 1) != 0;
}

/* ---- staging ---- */

static void run_command(struct felix_client *client, struct io_command *command);

/* Stage `request`, whose frame is in `block` already or is written into the tail chunk. */
static enum kv_staged stage(struct felix_client *client, const struct kv_call *call,
                            struct cache_frame_request *request, struct buf *block,
                            uint64_t deadline_ns) {
    struct kv_frames *frames = frames_of(client);
    if (frames->current == NULL)
        return KV_DETOUR;
    unsigned handle = scope_of(frames, call);
    if (handle == KV_SCOPES_MAX)
        return KV_DETOUR;
    if (frames->free == NULL && !add_records(frames))
        return KV_TOO_MANY;
    if (!is_bound(frames, handle))
        stage_bind(client, handle);

    struct kv_record *record = frames->free;
    frames->free = record->next;
    record->done = call->done;
    record->context = call->context;
    record->deadline_ns = deadline_ns;
    record->worker = frames->current;
    record->scope = (uint8_t)handle;
    record->kind = (uint8_t)call->kind;
    keep_key(record, call);

    request->handle = (uint16_t)handle;
    request->request_id = ++frames->next_sequence << SLOT_BITS | record->slot;
    size_t bytes = cache_frame_request_bytes(request);
    if (block == NULL) {
        cache_frame_request_encode(request, take_room(frames, bytes));
    } else {
        cache_frame_request_address(block->data, request->handle, request->request_id);
        close_tail(frames);
        push_ready(frames, buf_ref(block), block->data, bytes);
    }
    frames->current->frames.issued++;
    frames->issued++;
    atomic_store_explicit(&record->id, request->request_id, memory_order_release);
    return KV_STAGED;
}

static struct cache_frame_request request_of(const struct kv_call *call) {
    static const enum cache_frame_op ops[] = {
        [KV_PUT] = CACHE_FRAME_PUT, [KV_GET] = CACHE_FRAME_GET, [KV_DELETE] = CACHE_FRAME_DELETE};
    return (struct cache_frame_request){
        .op = ops[call->kind],
        .key = call->key,
        .value = call->value,
        .has_ttl = call->ttl_ms > 0,
        .ttl_ms = call->ttl_ms,
    };
}

/* A block for a frame that is too long for the tail chunk; its addresses are written later. NULL
 * when it is not. */
static struct buf *block_of(const struct cache_frame_request *request, size_t bytes) {
    if (bytes <= COPIED_BYTES_MAX)
        return NULL;
    struct buf *block = buf_new(bytes);
    buf_share(block);
    cache_frame_request_encode(request, block->data);
    return block;
}

/* Without the lock held for the copy of a long value. `late`: a detour has come to its end. */
static enum kv_staged lock_and_stage(struct felix_client *client, const struct kv_call *call,
                                     uint64_t deadline_ns, bool late) {
    struct kv_frames *frames = frames_of(client);
    struct cache_frame_request request = request_of(call);
    size_t bytes = cache_frame_request_bytes(&request);
    if (bytes - FRAME_HEADER_BYTES > client->settings->max_frame_bytes)
        return KV_TOO_LARGE;
    struct buf *block = block_of(&request, bytes);
    bool post = false;
    lock(frames);
    enum kv_staged staged = KV_DETOUR;
    if (late || frames->detours == 0)
        staged = stage(client, call, &request, block, deadline_ns);
    if (staged == KV_DETOUR && !late)
        frames->detours++;
    if (has_staged(frames) && !frames->posted) {
        frames->posted = post = true;
        frames->command.run = run_command;
    }
    unlock(frames);
    if (post)
        io_post(client, &frames->command);
    buf_unref(block);
    return staged;
}

enum kv_staged kv_frames_stage(struct felix_client *client, const struct kv_call *call) {
    uint64_t now_ns = driver_is_thread(client) ? client->io.now_ns : clock_now_ns();
    return lock_and_stage(client, call, now_ns + client->timeout_ns, false);
}

bool kv_frames_stage_late(struct felix_client *client, const struct kv_call *call,
                          uint64_t deadline_ns) {
    if (lock_and_stage(client, call, deadline_ns, true) != KV_STAGED)
        return false;
    frames_of(client)->counted++; /* when it came */
    return true;
}

void kv_frames_detour(struct kv_frames *frames) {
    lock(frames);
    frames->detours++;
    unlock(frames);
}

void kv_frames_arrived(struct kv_frames *frames) {
    lock(frames);
    INVARIANT(frames->detours > 0);
    frames->detours--;
    unlock(frames);
}

/* ---- handing over ---- */

static void take_freed(struct kv_frames *frames) {
    if (frames->freed == NULL)
        return;
    frames->freed_last->next = frames->free;
    frames->free = frames->freed;
    frames->freed = NULL;
}

/* Take up to PIECES_PER_TAKE pieces; returns how many. */
static size_t take_pieces(struct kv_frames *frames, struct kv_piece *out, struct kv_worker **ret) {
    lock(frames);
    frames->posted = false;
    take_freed(frames);
    size_t count = frames->ready_count < PIECES_PER_TAKE ? frames->ready_count : PIECES_PER_TAKE;
    if (count > 0) {
        memcpy(out, frames->ready, count * sizeof *out);
        frames->ready_count -= count;
        memmove(frames->ready, frames->ready + count, frames->ready_count * sizeof *out);
    }
    if (count < PIECES_PER_TAKE && frames->tail_used > frames->tail_taken) {
        out[count++] = (struct kv_piece){
            .buf = buf_ref(frames->tail),
            .data = frames->tail->data + frames->tail_taken,
            .len = frames->tail_used - frames->tail_taken,
        };
        frames->tail_taken = frames->tail_used;
    }
    if (frames->spare == NULL)
        frames->spare = buf_new(CHUNK_BYTES);
    *ret = frames->current;
    uint64_t issued = frames->issued;
    unlock(frames);
    frames->counted = issued;
    return count;
}

static void hand_over(struct felix_client *client) {
    struct kv_frames *frames = frames_of(client);
    struct kv_piece pieces[PIECES_PER_TAKE];
    struct kv_worker *worker;
    uint64_t counted = frames->counted;
    size_t count;
    do {
        count = take_pieces(frames, pieces, &worker);
        INVARIANT(count == 0 || worker != NULL);
        for (size_t i = 0; i < count; i++)
            lane_write(worker->lane, pieces[i].buf, pieces[i].data, pieces[i].len);
    } while (count == PIECES_PER_TAKE);
    counter_add(&client->counters.cache_requests, frames->counted - counted);
    if (!frames->timer_set) {
        frames->timer_set = true;
        io_timer_at(client, client->io.now_ns + client->timeout_ns);
    }
}

static void run_command(struct felix_client *client, struct io_command *command) {
    hand_over(client);
    kv_frames_choose(client);
}

/* ---- the current worker ---- */

static uint64_t outstanding(const struct kv_worker *worker) {
    return worker->frames.issued - worker->frames.answered;
}

void kv_frames_ready(struct kv_worker *worker) {
    struct kv_frames *frames = frames_of(worker->client);
    lock(frames);
    memset(worker->frames.bound, 0, sizeof worker->frames.bound);
    unlock(frames);
    worker->frames.agreed = true;
}

/* What is staged belongs to the current worker, so another one is chosen while nothing is. */
void kv_frames_choose(struct felix_client *client) {
    struct kv *kv = &client->kv;
    struct kv_frames *frames = &kv->frames;
    struct kv_worker *best = NULL;
    bool all_ready = true;
    lock(frames);
    if (frames->current != NULL && outstanding(frames->current) < BUSY_REQUESTS) {
        unlock(frames);
        return;
    }
    for (unsigned i = 0; i < kv->wanted_count; i++) {
        struct kv_worker *worker = kv->wanted[i];
        if (worker->lane == NULL || worker->lane->state != LANE_READY)
            all_ready = false;
        else if (worker->frames.agreed && (best == NULL || outstanding(worker) < outstanding(best)))
            best = worker;
    }
    if (!has_staged(frames) && !frames->shut)
        frames->current = best;
    bool busy = best != NULL && outstanding(best) >= BUSY_REQUESTS;
    unlock(frames);
    if (busy && all_ready)
        kv_want_another(kv, true);
}

/* ---- answers ---- */

struct kv_answer {
    enum felix_err err;
    const char *text;
    bool found;
    struct slice value;
};

static void answer(struct felix_client *client, felix_cache_done done, void *context,
                   const struct kv_answer *answer) {
    if (done == NULL)
        return;
    if (answer->err != FELIX_OK)
        counter_add(&client->counters.cache_failures, 1);
    struct felix_bytes value = {.data = answer->value.data, .len = answer->value.len};
    done(context, answer->err, answer->text, answer->found, value);
}

/* Answer it, and give the record back first: the callback may want it. */
static void finish(struct felix_client *client, struct kv_record *record,
                   const struct kv_answer *result) {
    felix_cache_done done = record->done;
    void *context = record->context;
    give_back(frames_of(client), record);
    answer(client, done, context, result);
}

static struct kv_answer answer_of(const struct kv_record *record,
                                  const struct cache_frame_reply *reply, char *text,
                                  size_t capacity) {
    bool put = record->kind == KV_PUT;
    struct kv_answer result = {.err = FELIX_OK, .text = ""};
    if (reply->status == CACHE_FRAME_REFUSED) {
        result.err = wire_code_to_err((enum wire_code)reply->code);
        result.text = text_of_slice(reply->rest, text, capacity);
    } else if (put != (reply->status == CACHE_FRAME_DONE)) {
        result.err = FELIX_PROTOCOL;
        result.text = "unexpected answer to a cache request";
    } else {
        result.found = reply->status != CACHE_FRAME_MISS;
        result.value = reply->rest;
    }
    return result;
}

bool kv_frames_on_reply(struct kv_worker *worker, struct slice body) {
    struct felix_client *client = worker->client;
    struct lane *lane = worker->lane;
    struct cache_frame_reply reply;
    char text[256];
    if (cache_frame_reply_decode(body, &reply) != FELIX_OK) {
        lane_fail(lane, FELIX_MALFORMED, "the broker sent a malformed cache reply");
        return false;
    }
    struct kv_record *record = find_record(frames_of(client), reply.request_id);
    if (record == NULL || record->worker != worker) {
        lane_fail(lane, FELIX_PROTOCOL, "the broker answered a cache request that was not made");
        return false;
    }
    struct kv_answer result = answer_of(record, &reply, text, sizeof text);
    finish(client, record, &result);
    return lane->state != LANE_OVER;
}

/* ---- loss, deadlines, the end ---- */

static int older_first(const void *a, const void *b) {
    const struct kv_record *left = *(struct kv_record *const *)a;
    const struct kv_record *right = *(struct kv_record *const *)b;
    uint64_t left_id = atomic_load_explicit(&left->id, memory_order_relaxed);
    uint64_t right_id = atomic_load_explicit(&right->id, memory_order_relaxed);
    return left_id < right_id ? -1 : left_id > right_id;
}

/* The records that are in use and belong to `worker` (NULL: to any), oldest request first, in an
 * array of *ret_count; returned owned. */
static struct kv_record **records_of(struct kv_frames *frames, const struct kv_worker *worker,
                                     size_t *ret_count) {
    uint32_t slots = atomic_load_explicit(&frames->record_count, memory_order_acquire);
    struct kv_record **records = xcalloc(slots + 1, sizeof(struct kv_record *));
    size_t count = 0;
    for (uint32_t slot = 0; slot < slots; slot++) {
        struct kv_record *record = record_at(frames, slot);
        if (atomic_load_explicit(&record->id, memory_order_acquire) != 0 &&
            (worker == NULL || record->worker == worker))
            records[count++] = record;
    }
    qsort(records, count, sizeof(struct kv_record *), older_first);
    *ret_count = count;
    return records;
}

/* The get of a lost lane as a request that waits for another one. */
static struct kv_request *ask_again(struct felix_client *client, const struct kv_record *record) {
    const struct kv_scope *scope = &frames_of(client)->scopes[record->scope];
    bool is_long = record->key_bytes > KV_RECORD_KEY_BYTES;
    struct kv_call call = {
        .kind = KV_GET,
        .ns = scope->ns,
        .cache = scope->cache,
        .key = slice_of(is_long ? record->long_key : record->key, record->key_bytes),
        .done = record->done,
        .context = record->context,
    };
    struct kv_request *request = kv_request_new(client, &call);
    request->deadline_ns = record->deadline_ns;
    return request;
}

void kv_frames_lost(struct kv_worker *worker, struct kv_queue *again, const char *text) {
    struct felix_client *client = worker->client;
    struct kv_frames *frames = frames_of(client);
    lock(frames);
    if (frames->current == worker) {
        drop_staged(frames);
        frames->current = NULL;
    }
    unlock(frames);
    worker->frames.agreed = false;
    size_t count;
    struct kv_record **records = records_of(frames, worker, &count);
    for (size_t i = 0; i < count; i++) {
        struct kv_record *record = records[i];
        if (record->kind == KV_GET && record->done != NULL) {
            kv_queue_push(again, ask_again(client, record));
            kv_frames_detour(frames);
            give_back(frames, record);
        } else {
            finish(client, record, &(struct kv_answer){.err = FELIX_OUTCOME_UNKNOWN, .text = text});
        }
    }
    free(records);
    kv_frames_choose(client);
}

uint64_t kv_frames_expire(struct felix_client *client, uint64_t now_ns) {
    static const struct kv_answer late = {.err = FELIX_TIMED_OUT,
                                          .text = "the broker did not answer in time"};
    struct kv_frames *frames = frames_of(client);
    uint64_t next_ns = UINT64_MAX;
    size_t count;
    struct kv_record **records = records_of(frames, NULL, &count);
    for (size_t i = 0; i < count; i++) {
        struct kv_record *record = records[i];
        felix_cache_done done = record->done;
        if (done == NULL)
            continue;
        if (record->deadline_ns > now_ns) {
            next_ns = record->deadline_ns < next_ns ? record->deadline_ns : next_ns;
            continue;
        }
        record->done = NULL;
        answer(client, done, record->context, &late);
    }
    free(records);
    frames->timer_set = next_ns != UINT64_MAX;
    return next_ns;
}

bool kv_frames_is_idle(struct felix_client *client) {
    struct kv_frames *frames = frames_of(client);
    lock(frames);
    bool idle = frames->issued == frames->answered && frames->detours == 0;
    unlock(frames);
    return idle;
}

void kv_frames_shut(struct felix_client *client) {
    struct kv_frames *frames = frames_of(client);
    lock(frames);
    drop_staged(frames);
    frames->current = NULL;
    frames->shut = true;
    unlock(frames);
    size_t count;
    struct kv_record **records = records_of(frames, NULL, &count);
    for (size_t i = 0; i < count; i++)
        finish(client, records[i],
               &(struct kv_answer){.err = FELIX_CLOSED, .text = "the client was closed"});
    free(records);
}

void kv_frames_init(struct kv_frames *frames) {
    *frames = (struct kv_frames){0};
    (void)pthread_mutex_init(&frames->lock, NULL);
}

void kv_frames_deinit(struct kv_frames *frames) {
    drop_staged(frames);
    buf_unref(frames->spare);
    for (unsigned i = 0; i < frames->chunk_count; i++)
        free(frames->chunks[i]);
    for (unsigned i = 0; i < frames->scope_count; i++) {
        free(frames->scopes[i].ns);
        free(frames->scopes[i].cache);
    }
    free(frames->ready);
    (void)pthread_mutex_destroy(&frames->lock);
}
