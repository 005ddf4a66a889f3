/*
 * The way of a frame:
 *
 *   staged     in the tail chunk or in a block of its own; survives a lost connection
 *   handed     given to the lane's QUIC stream; lost with it
 *   answered   (acknowledged publishes) by the broker, by a timeout, or by a loss
 *
 * Only HANDOVER_BYTES are handed over ahead of the network, so that a lost connection makes few
 * outcomes unknown and small frames gather in chunks. A request whose bytes were handed to a
 * connection that died is answered FELIX_OUTCOME_UNKNOWN and never sent again; what was only
 * staged goes to the next connection.
 *
 * Callbacks run without the lock: they may publish.
 */
#include "client/shard.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "client/client.h"
#include "wire/ack.h"

#define HANDOVER_BYTES ((size_t)1 << 20)
#define REGIONS_PER_TAKE 16
#define QUEUE_CAPACITY_MIN 8u
#define REQUEST_CAPACITY_MIN 64u
#define GOOD_LIFE_NS NS_PER_S

/* ---- queue of regions ---- */

static struct region *queue_at(struct region_queue *queue, size_t index) {
    return &queue->items[(queue->head + index) & (queue->capacity - 1)];
}

static void queue_push(struct region_queue *queue, struct region region) {
    if (queue->count == queue->capacity) {
        size_t capacity = queue->capacity == 0 ? QUEUE_CAPACITY_MIN : queue->capacity * 2;
        struct region *items = xmalloc(capacity * sizeof *items);
        for (size_t i = 0; i < queue->count; i++)
            items[i] = queue->items[(queue->head + i) & (queue->capacity - 1)];
        free(queue->items);
        queue->items = items;
        queue->capacity = capacity;
        queue->head = 0;
    }
    queue->count++;
    *queue_at(queue, queue->count - 1) = region;
}

static struct region *queue_first(struct region_queue *queue) {
    return queue->count > 0 ? queue_at(queue, 0) : NULL;
}

static struct region queue_pop(struct region_queue *queue) {
    struct region region = queue->items[queue->head];
    queue->head = (queue->head + 1) & (queue->capacity - 1);
    queue->count--;
    return region;
}

/* ---- requests; under the lock ---- */

static struct request *request_at(struct shard *shard, uint64_t id) {
    return &shard->requests[id & (shard->request_capacity - 1)];
}

static void grow_requests(struct shard *shard) {
    size_t capacity =
        shard->request_capacity == 0 ? REQUEST_CAPACITY_MIN : shard->request_capacity * 2;
    struct request *requests = xcalloc(capacity, sizeof *requests);
    for (uint64_t id = shard->first_id; id < shard->next_id; id++)
        requests[id & (capacity - 1)] = *request_at(shard, id);
    free(shard->requests);
    shard->requests = requests;
    shard->request_capacity = capacity;
}

uint64_t shard_add_request(struct shard *shard, const struct request *request) {
    if (shard->next_id - shard->first_id == shard->request_capacity)
        grow_requests(shard);
    uint64_t id = shard->next_id++;
    *request_at(shard, id) = *request;
    return id;
}

void shard_undo_request(struct shard *shard) {
    shard->next_id--;
}

static void reclaim_requests(struct shard *shard) {
    while (shard->first_id < shard->next_id &&
           request_at(shard, shard->first_id)->kind == REQUEST_OVER)
        shard->first_id++;
}

/* Answer one request; nothing when it is over already or was never made. */
static void answer_with(struct shard *shard, uint64_t id,
                        const struct felix_publish_result *result) {
    struct felix_client *client = shard->client;
    shard_lock(shard);
    struct request request = {.kind = REQUEST_OVER};
    if (id >= shard->first_id && id < shard->next_id) {
        request = *request_at(shard, id);
        request_at(shard, id)->kind = REQUEST_OVER;
        reclaim_requests(shard);
    }
    (void)pthread_mutex_unlock(&shard->lock);
    if (request.kind == REQUEST_OVER)
        return;
    budget_release(&client->publisher.budget, request.budget_bytes);
    if (result->err != FELIX_OK)
        counter_add(&client->counters.publish_failed, 1);
    else if (request.kind == REQUEST_ACKED)
        counter_add(&client->counters.publish_acked, 1);
    request.done(request.context, result);
}

static void answer(struct shard *shard, uint64_t id, enum felix_err err, const char *text) {
    answer_with(shard, id, &(struct felix_publish_result){.err = err, .error_text = text});
}

/* ---- staging ---- */

void shard_init(struct shard *shard, struct felix_client *client, struct link *link) {
    *shard = (struct shard){
        .client = client, .link = link, .first_id = 1, .next_id = 1, .unacked_scan_id = 1};
    (void)pthread_mutex_init(&shard->lock, NULL);
}

void shard_deinit(struct shard *shard) {
    while (shard->ready.count > 0)
        buf_unref(queue_pop(&shard->ready).buf);
    buf_unref(shard->tail);
    buf_unref(shard->spare);
    free(shard->ready.items);
    free(shard->sent.items);
    free(shard->requests);
    (void)pthread_mutex_destroy(&shard->lock);
}

void shard_lock(struct shard *shard) {
    (void)pthread_mutex_lock(&shard->lock);
}

static void run_command(struct felix_client *client, struct io_command *command);

void shard_unlock(struct shard *shard) {
    bool staged = shard->ready.count > 0 || shard->tail_used > shard->tail_taken;
    bool post = staged && !shard->posted;
    if (post) {
        shard->posted = true;
        shard->command.run = run_command;
    }
    (void)pthread_mutex_unlock(&shard->lock);
    if (post)
        io_post(shard->client, &shard->command);
}

/* The tail chunk is full: its rest becomes a region, and its reference goes along, so that it is
 * the driver that frees it. */
static void close_tail(struct shard *shard) {
    if (shard->tail == NULL)
        return;
    queue_push(&shard->ready, (struct region){
                                  .buf = shard->tail,
                                  .data = shard->tail->data + shard->tail_taken,
                                  .len = shard->tail_used - shard->tail_taken,
                                  .budget_bytes = shard->tail_budget_bytes,
                                  .last_id = shard->staged_id,
                                  .end_bytes = shard->staged_bytes,
                              });
    shard->tail = NULL;
    shard->tail_used = shard->tail_taken = shard->tail_budget_bytes = 0;
}

uint8_t *shard_room(struct shard *shard, size_t bytes) {
    size_t chunk_bytes = shard->client->settings->publish_chunk_bytes;
    if (shard->tail == NULL || chunk_bytes - shard->tail_used < bytes) {
        close_tail(shard);
        shard->tail = shard->spare != NULL ? shard->spare : buf_new(chunk_bytes);
        shard->spare = NULL;
        buf_share(shard->tail);
    }
    return shard->tail->data + shard->tail_used;
}

/* `bytes` more are staged; they are the frame of the newest request if that had none yet. */
static void note_staged(struct shard *shard, size_t bytes) {
    shard->staged_bytes += bytes;
    if (shard->next_id - 1 == shard->staged_id)
        return;
    shard->staged_id = shard->next_id - 1;
    request_at(shard, shard->staged_id)->end_bytes = shard->staged_bytes;
}

void shard_commit(struct shard *shard, size_t bytes, size_t budget_bytes) {
    shard->tail_used += bytes;
    shard->tail_budget_bytes += budget_bytes;
    note_staged(shard, bytes);
}

void shard_stage_block(struct shard *shard, struct buf *buf, size_t bytes, size_t budget_bytes) {
    close_tail(shard);
    note_staged(shard, bytes);
    queue_push(&shard->ready, (struct region){
                                  .buf = buf,
                                  .data = buf->data,
                                  .len = bytes,
                                  .budget_bytes = budget_bytes,
                                  .last_id = shard->staged_id,
                                  .end_bytes = shard->staged_bytes,
                              });
}

/* ---- handing over ---- */

/* Take regions of about `bytes_max` in all; returns how many. */
static size_t take_regions(struct shard *shard, struct region *out, size_t bytes_max) {
    size_t count = 0, bytes = 0;
    shard_lock(shard);
    while (count < REGIONS_PER_TAKE && bytes < bytes_max && shard->ready.count > 0) {
        out[count] = queue_pop(&shard->ready);
        bytes += out[count++].len;
    }
    if (count < REGIONS_PER_TAKE && bytes < bytes_max && shard->tail_used > shard->tail_taken) {
        out[count++] = (struct region){
            .buf = buf_ref(shard->tail),
            .data = shard->tail->data + shard->tail_taken,
            .len = shard->tail_used - shard->tail_taken,
            .budget_bytes = shard->tail_budget_bytes,
            .last_id = shard->staged_id,
            .end_bytes = shard->staged_bytes,
        };
        shard->tail_taken = shard->tail_used;
        shard->tail_budget_bytes = 0;
    }
    if (shard->spare == NULL)
        shard->spare = buf_new(shard->client->settings->publish_chunk_bytes);
    (void)pthread_mutex_unlock(&shard->lock);
    return count;
}

static bool can_hand_over(const struct shard *shard) {
    return shard->lane != NULL && shard->lane->state == LANE_READY && shard->lane->stream != NULL &&
           !shard->lane->stream->write_shut;
}

static void hand_over(struct shard *shard) {
    struct region regions[REGIONS_PER_TAKE];
    while (can_hand_over(shard)) {
        size_t unsent_bytes = shard->lane->stream->unsent_bytes;
        if (unsent_bytes >= HANDOVER_BYTES)
            return;
        size_t count = take_regions(shard, regions, HANDOVER_BYTES - unsent_bytes);
        if (count == 0)
            return;
        for (size_t i = 0; i < count; i++) {
            struct region *region = &regions[i];
            shard->handed_bytes = region->end_bytes;
            shard->handed_id = region->last_id;
            if (region->budget_bytes > 0) {
                struct region sent = *region;
                sent.buf = NULL;
                queue_push(&shard->sent, sent);
            }
            lane_write(shard->lane, region->buf, region->data, region->len);
        }
    }
}

static void run_command(struct felix_client *client, struct io_command *command) {
    struct shard *shard = (struct shard *)((char *)command - offsetof(struct shard, command));
    shard_lock(shard);
    shard->posted = false;
    if (shard->first_id < shard->next_id)
        io_timer_at(client, request_at(shard, shard->first_id)->deadline_ns);
    (void)pthread_mutex_unlock(&shard->lock);
    if (shard->lane == NULL)
        shard_open(shard, false);
    else
        hand_over(shard);
}

bool shard_has_staged(struct shard *shard) {
    shard_lock(shard);
    bool staged = shard->ready.count > 0 || shard->tail_used > shard->tail_taken;
    (void)pthread_mutex_unlock(&shard->lock);
    return staged;
}

/* ---- what the peer has ---- */

/* Position in staged_bytes up to which all but `behind_bytes` of what was handed over has come;
 * the lane's auth counts among them at its start, so this may lag by its length. */
static uint64_t position(const struct shard *shard, size_t behind_bytes) {
    return shard->handed_bytes > behind_bytes ? shard->handed_bytes - behind_bytes : 0;
}

static void release_acked(struct shard *shard, uint64_t acked_bytes) {
    for (;;) {
        struct region *first = queue_first(&shard->sent);
        if (first == NULL || first->end_bytes > acked_bytes)
            return;
        budget_release(&shard->client->publisher.budget, queue_pop(&shard->sent).budget_bytes);
    }
}

/* Answer the requests without acknowledgement whose frames were given to the network. */
static void answer_unacked(struct shard *shard, uint64_t sent_bytes) {
    for (;;) {
        uint64_t id = 0;
        shard_lock(shard);
        if (shard->unacked_scan_id < shard->first_id)
            shard->unacked_scan_id = shard->first_id;
        while (id == 0 && shard->unacked_scan_id < shard->next_id) {
            const struct request *request = request_at(shard, shard->unacked_scan_id);
            if (request->end_bytes > sent_bytes)
                break;
            if (request->kind == REQUEST_UNACKED)
                id = shard->unacked_scan_id;
            shard->unacked_scan_id++;
        }
        (void)pthread_mutex_unlock(&shard->lock);
        if (id == 0)
            return;
        answer(shard, id, FELIX_OK, "");
    }
}

static void on_sent(struct lane *lane) {
    struct shard *shard = lane->owner;
    answer_unacked(shard, position(shard, lane->stream->unsent_bytes));
    hand_over(shard);
}

static void on_acked(struct lane *lane) {
    struct shard *shard = lane->owner;
    if (!lane->stream->write_shut)
        release_acked(shard, position(shard, lane->stream->unacked_bytes));
}

bool shard_reached(struct shard *shard, uint64_t staged_bytes, uint64_t next_id) {
    size_t unsent_bytes =
        shard->lane != NULL && shard->lane->stream != NULL ? shard->lane->stream->unsent_bytes : 0;
    if (shard->handed_bytes < staged_bytes + (staged_bytes > 0 ? unsent_bytes : 0))
        return false;
    shard_lock(shard);
    bool reached = shard->first_id >= next_id;
    (void)pthread_mutex_unlock(&shard->lock);
    return reached;
}

/* ---- answers ---- */

static enum felix_level level_of(enum ack_level level) {
    switch (level) {
    case ACK_LEVEL_MEMORY:
        return FELIX_LEVEL_MEMORY;
    case ACK_LEVEL_WRITTEN:
        return FELIX_LEVEL_WRITTEN;
    case ACK_LEVEL_FLUSHED:
        break;
    }
    return FELIX_LEVEL_FLUSHED;
}

static bool on_ack(struct shard *shard, const struct frame *frame) {
    struct publish_ack ack;
    char text[ACK_MESSAGE_BYTES_MAX + 1];
    uint16_t flags = frame->header.flags;
    bool has_level = (flags & FRAME_ACK_LEVEL) != 0;
    if (has_level && (shard->lane->own_features & OWN_ACK_LEVELS) == 0) {
        lane_fail(shard->lane, FELIX_UNKNOWN_FLAGS, "unknown flags on an acknowledgement");
        return false;
    }
    if (ack_decode(flags, frame->body, &ack) != FELIX_OK) {
        lane_fail(shard->lane, FELIX_MALFORMED, "the broker sent a malformed acknowledgement");
        return false;
    }
    struct felix_publish_result result = {
        .error_text = "",
        .offset = ack.offset,
        .has_offset = (flags & FRAME_ACK_OFFSET) != 0,
        .level = has_level ? level_of(ack.level) : FELIX_LEVEL_UNKNOWN,
    };
    if (!ack.ok) {
        result.err = refusal_err((enum wire_code)ack.code, (enum wire_retry)ack.retry, ack.message);
        result.error_text = text_of_slice(ack.message, text, sizeof text);
    }
    answer_with(shard, ack.request_id, &result);
    return true;
}

static void on_message(struct shard *shard, const struct message *message) {
    char text[ACK_MESSAGE_BYTES_MAX + 1];
    (void)text_of_slice(message->text, text, sizeof text);
    struct felix_publish_result result = {
        .error_text = "",
        .offset = message->offset,
        .has_offset = message->has_offset,
        .level = message->has_level ? level_of(message->level) : FELIX_LEVEL_UNKNOWN,
    };
    if (message->type == MESSAGE_PUBLISH_OK)
        answer_with(shard, message->request_id, &result);
    else if (message->type == MESSAGE_PUBLISH_ERROR)
        answer(shard, message->request_id,
               refusal_err(message->code, message->retry, message->text), text);
    else if (message->type == MESSAGE_ERROR)
        (void)text_of_slice(message->text, shard->refusal, sizeof shard->refusal);
}

static bool on_frame(struct lane *lane, struct frame *frame) {
    struct shard *shard = lane->owner;
    if ((frame->header.flags & FRAME_PUBLISH_ACK) != 0)
        return on_ack(shard, frame);
    struct message message;
    if (message_decode(frame->body, &message) != FELIX_OK) {
        lane_fail(lane, FELIX_BAD_JSON, "the broker sent an unreadable message");
        return false;
    }
    on_message(shard, &message);
    message_deinit(&message);
    return lane->state != LANE_OVER;
}

/* ---- the lane ---- */

static void on_ready(struct lane *lane) {
    struct shard *shard = lane->owner;
    struct felix_client *client = shard->client;
    shard->was_ready = true;
    shard->ready_ns = client->io.now_ns;
    shard->refusal[0] = '\0';
    atomic_store_explicit(&client->server_flags, lane->server_flags, memory_order_relaxed);
    client_opened(client);
    hand_over(shard);
}

/* Answer open requests up to `last_id`. */
static void answer_until(struct shard *shard, uint64_t last_id, enum felix_err err,
                         const char *text) {
    for (;;) {
        shard_lock(shard);
        uint64_t id = shard->first_id;
        bool open = id < shard->next_id && id <= last_id;
        (void)pthread_mutex_unlock(&shard->lock);
        if (!open)
            return;
        answer(shard, id, err, text); /* the first is always open: answer reclaims */
    }
}

static void drop_staged(struct shard *shard) {
    struct region regions[REGIONS_PER_TAKE];
    for (size_t count; (count = take_regions(shard, regions, SIZE_MAX)) > 0;) {
        for (size_t i = 0; i < count; i++) {
            shard->handed_bytes = regions[i].end_bytes;
            shard->handed_id = regions[i].last_id;
            budget_release(&shard->client->publisher.budget, regions[i].budget_bytes);
            buf_unref(regions[i].buf);
        }
    }
}

void shard_fail(struct shard *shard, enum felix_err err, const char *text) {
    drop_staged(shard);
    answer_until(shard, shard->handed_id, err, text);
}

static void on_over(struct lane *lane, enum felix_err err, const char *text) {
    struct shard *shard = lane->owner;
    struct felix_client *client = shard->client;
    bool authenticating = shard->ready_ns == 0;
    char lost[320];
    if (shard->refusal[0] != '\0')
        (void)snprintf(lost, sizeof lost, "%s; the broker said: %s", text, shard->refusal);
    else
        (void)snprintf(lost, sizeof lost, "%s before the answer", text);
    if (!authenticating && client->io.now_ns - shard->ready_ns >= GOOD_LIFE_NS)
        backoff_reset(&shard->backoff);
    shard->lane = NULL;
    shard->ready_ns = 0;
    release_acked(shard, UINT64_MAX);
    if (shard->finished)
        return;
    backoff_fail(&shard->backoff, client, client->io.now_ns);
    if (authenticating) {
        client_open_failed(client, err, text);
        if (err == FELIX_UNAUTHENTICATED)
            shard_fail(shard, err, text);
        return;
    }
    answer_until(shard, shard->handed_id, FELIX_OUTCOME_UNKNOWN, lost);
}

static const struct lane_ops lane_ops = {
    .ready = on_ready,
    .frame = on_frame,
    .sent = on_sent,
    .acked = on_acked,
    .over = on_over,
};

void shard_open(struct shard *shard, bool eager) {
    struct felix_client *client = shard->client;
    if (shard->lane != NULL || shard->finished)
        return;
    if (!eager && !shard->was_ready && !shard_has_staged(shard))
        return;
    if (shard->backoff.due_ns > client->io.now_ns) {
        io_timer_at(client, shard->backoff.due_ns);
        return;
    }
    link_want(shard->link);
    if (shard->link->state == LINK_OPEN)
        shard->lane = lane_open(shard->link, &lane_ops, shard);
}

/* The request is over while its bytes are staged still: they take its budget, until the peer has
 * them or they are dropped. Under the lock. */
static void leave_budget(struct shard *shard, struct request *request) {
    size_t at = 0, end = shard->ready.count;
    while (at < end) {
        size_t middle = at + (end - at) / 2;
        if (queue_at(&shard->ready, middle)->end_bytes < request->end_bytes)
            at = middle + 1;
        else
            end = middle;
    }
    if (at < shard->ready.count)
        queue_at(&shard->ready, at)->budget_bytes += request->budget_bytes;
    else
        shard->tail_budget_bytes += request->budget_bytes;
    request->budget_bytes = 0;
}

uint64_t shard_expire(struct shard *shard, uint64_t now_ns) {
    uint64_t next_ns = UINT64_MAX;
    for (;;) {
        shard_lock(shard);
        uint64_t id = shard->first_id;
        bool open = id < shard->next_id;
        struct request *request = open ? request_at(shard, id) : NULL;
        if (open)
            next_ns = request->deadline_ns;
        if (open && next_ns <= now_ns && request->end_bytes > shard->handed_bytes)
            leave_budget(shard, request);
        (void)pthread_mutex_unlock(&shard->lock);
        if (!open)
            next_ns = UINT64_MAX;
        if (!open || next_ns > now_ns)
            break;
        answer(shard, id, FELIX_TIMED_OUT, "the broker did not answer in time");
    }
    /* felix_connect waits for the first one, though nothing is staged there. */
    struct felix_client *client = shard->client;
    bool awaited = client->opening != NULL && shard == client->publisher.shards;
    if (shard->lane == NULL)
        shard_open(shard, awaited);
    return next_ns;
}
