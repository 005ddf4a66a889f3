/*
 * The life of a subscription:
 *
 *   waiting     until its connection is open and a pause is over
 *   requesting  auth, `subscribe`, FIN on a lane of its own; the answer decides
 *   pairing     `subscribed` came: felix_subscribe returns; the event stream may be there already
 *   streaming   frames are delivered
 *
 * A lost connection or stream leads back to waiting, then asks again from the next offset where
 * offsets are known. FIN on the event stream, a refusal that time does not mend, or a frame that
 * makes no sense ends it. A refusal may come as a bare FIN: asked again a few times, because the
 * original broker loses every other message there.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/clock.h"
#include "client/client.h"
#include "client/last_error.h"

#define PAIRING_TIMEOUT_NS (10 * NS_PER_S)
#define NOT_FOUND_PATIENCE_NS (5 * NS_PER_S) /* a broker that restarts learns its streams late */
#define SILENT_ENDS_MAX 4u
#define MESSAGES_PER_CALLBACK 256

void subscription_unref(struct felix_subscription *subscription) {
    if (atomic_fetch_sub_explicit(&subscription->refs, 1, memory_order_acq_rel) != 1)
        return;
    message_queue_deinit(&subscription->queue);
    (void)pthread_mutex_destroy(&subscription->client_lock);
    free(subscription->ns);
    free(subscription->stream);
    subscription->magic = 0;
    free(subscription);
}

/* ---- lanes ---- */

static void drop_lanes(struct felix_subscription *subscription) {
    if (subscription->request != NULL) {
        lane_abandon(subscription->request);
        subscription->request = NULL;
    }
    if (subscription->state == SUBSCRIPTION_REQUESTING)
        subscription->link->subscribing--;
    if (subscription->events != NULL) {
        lane_abandon(subscription->events);
        subscription->events = NULL;
    }
}

/* Take it out of the client's list, whose reference is the caller's from here on. */
static void detach(struct felix_subscription *subscription) {
    struct felix_client *client = subscription->client;
    drop_lanes(subscription);
    subscription->link->subscriptions--;
    subscription->state = SUBSCRIPTION_ENDED;
    if (subscription->prev != NULL)
        subscription->prev->next = subscription->next;
    else
        client->subscriber.first = subscription->next;
    if (subscription->next != NULL)
        subscription->next->prev = subscription->prev;
}

/* Forget the client: from here on nobody posts. Drops the reference of the list. */
static void forget_client(struct felix_subscription *subscription) {
    (void)pthread_mutex_lock(&subscription->client_lock);
    subscription->client = NULL;
    (void)pthread_mutex_unlock(&subscription->client_lock);
    subscription_unref(subscription);
}

void subscription_end(struct felix_subscription *subscription, enum felix_err err,
                      const char *text) {
    if (subscription->state == SUBSCRIPTION_ENDED)
        return;
    detach(subscription);
    message_queue_end(&subscription->queue, err, text);
    if (subscription->opening != NULL) {
        struct client_call *opening = subscription->opening;
        subscription->opening = NULL;
        opening->cursor = subscription->cursor;
        client_call_answer(opening, err, text);
    } else if (subscription->options.on_end != NULL) {
        last_error_set_cursor(subscription->cursor);
        (void)last_error_set(err, "%s", text);
        subscription->options.on_end(subscription->options.context, subscription, err, text);
    }
    /* After the callback: felix_unsubscribe meanwhile posts, and so waits until it is over. */
    forget_client(subscription);
}

void subscription_leave(struct felix_subscription *subscription) {
    if (subscription->state == SUBSCRIPTION_ENDED)
        return;
    detach(subscription);
    forget_client(subscription);
}

/* This attempt is over, the next one comes after a pause. */
static void try_later(struct felix_subscription *subscription, enum felix_err err,
                      const char *text) {
    struct felix_client *client = subscription->client;
    bool established = subscription->opening == NULL;
    drop_lanes(subscription);
    subscription->state = SUBSCRIPTION_WAITING;
    if (client->closing) {
        subscription_end(subscription, FELIX_CLOSED, "the client was closed");
        return;
    }
    if (established && subscription->options.no_resubscribe) {
        subscription_end(subscription, err, text);
        return;
    }
    if (established)
        subscription->due_ns = UINT64_MAX;
    backoff_fail(&subscription->backoff, client, client->io.now_ns);
}

/* ---- asking ---- */

static void set_start(const struct felix_subscription *subscription, const struct lane *lane,
                      struct message *message) {
    bool offsets = (lane->server_flags & FRAME_EVENT_OFFSETS) != 0;
    if (subscription->has_next_offset && offsets) {
        message->start = START_OFFSET;
        message->offset = subscription->next_offset;
        return;
    }
    if (subscription->received_any)
        return;
    switch (subscription->options.start) {
    case FELIX_START_LIVE:
        break;
    case FELIX_START_LATEST:
        message->start = START_LATEST;
        break;
    case FELIX_START_EARLIEST:
        message->start = START_EARLIEST;
        break;
    case FELIX_START_OFFSET:
        message->start = START_OFFSET;
        message->offset = subscription->options.offset;
        break;
    }
}

static void request_ready(struct lane *lane) {
    struct felix_subscription *subscription = lane->owner;
    struct message message = {
        .type = MESSAGE_SUBSCRIBE,
        .tenant = slice_str(lane->client->settings->tenant),
        .namespace_ = slice_str(subscription->ns),
        .stream = slice_str(subscription->stream),
    };
    set_start(subscription, lane, &message);
    if (message.start > START_LATEST && (lane->server_flags & FRAME_EVENT_OFFSETS) == 0) {
        subscription_end(subscription, FELIX_UNSUPPORTED,
                         "this broker cannot start at an offset or at the earliest message");
        return;
    }
    lane_write_message(lane, &message);
    lane_finish(lane);
}

static void confirmed(struct felix_subscription *subscription, uint64_t id) {
    struct felix_client *client = subscription->client;
    lane_release(subscription->request);
    subscription->request = NULL;
    subscription->id = id;
    subscription->silent_ends = 0;
    subscription->not_found_ns = 0;
    subscription->state = SUBSCRIPTION_PAIRING;
    subscription->due_ns = client->io.now_ns + PAIRING_TIMEOUT_NS;
    io_timer_at(client, subscription->due_ns);
    subscription->link->subscribing--;
    if (subscription->opening != NULL) {
        struct client_call *opening = subscription->opening;
        subscription->opening = NULL;
        client_call_answer(opening, FELIX_OK, "");
    }
    subscriber_claim(subscription);
}

static void refused(struct felix_subscription *subscription, enum felix_err err, const char *text) {
    struct felix_client *client = subscription->client;
    bool established = subscription->opening == NULL;
    bool mends = err == FELIX_OVERLOADED || err == FELIX_DRAINING || err == FELIX_INTERNAL ||
                 err == FELIX_OUTCOME_UNKNOWN || err == FELIX_STORAGE;
    if (err == FELIX_NOT_FOUND && established) {
        if (subscription->not_found_ns == 0)
            subscription->not_found_ns = client->io.now_ns;
        mends = client->io.now_ns - subscription->not_found_ns < NOT_FOUND_PATIENCE_NS;
    }
    /* An internal error of a first subscribe, or one of the disk, is told; only later ones are
     * worth patience. */
    if (mends && (established || err == FELIX_OVERLOADED || err == FELIX_DRAINING))
        try_later(subscription, err, text);
    else
        subscription_end(subscription, err, text);
}

static void cursor_refused(struct felix_subscription *subscription, const struct message *message) {
    bool too_old = message->reason == CURSOR_REASON_TOO_OLD;
    char text[192];
    subscription->cursor = (struct felix_cursor_error){.requested = message->requested,
                                                       .available = message->available};
    (void)snprintf(text, sizeof text,
                   too_old ? "offset %llu is no longer retained; the oldest is %llu"
                           : "offset %llu lies beyond the end of the stream, which is %llu",
                   (unsigned long long)message->requested, (unsigned long long)message->available);
    subscription_end(subscription, too_old ? FELIX_CURSOR_TOO_OLD : FELIX_CURSOR_IN_FUTURE, text);
}

static bool request_frame(struct lane *lane, struct frame *frame) {
    struct felix_subscription *subscription = lane->owner;
    struct message message;
    char text[256];
    if (message_decode(frame->body, &message) != FELIX_OK) {
        refused(subscription, FELIX_BAD_JSON, "the answer to subscribe is unreadable");
        return false;
    }
    if (message.type == MESSAGE_SUBSCRIBED)
        confirmed(subscription, message.subscription_id);
    else if (message.type == MESSAGE_SUBSCRIBE_CURSOR_ERROR)
        cursor_refused(subscription, &message);
    else if (message.type == MESSAGE_ERROR)
        refused(subscription, refusal_err(message.code, message.retry, message.text),
                text_of_slice(message.text, text, sizeof text));
    else
        refused(subscription, FELIX_PROTOCOL, "unexpected answer to subscribe");
    message_deinit(&message);
    return false; /* in every case nothing more is expected */
}

/* The broker ended the request without an answer. */
static void request_finished(struct lane *lane) {
    struct felix_subscription *subscription = lane->owner;
    if (++subscription->silent_ends >= SILENT_ENDS_MAX)
        subscription_end(subscription, FELIX_FORBIDDEN,
                         "the broker refused the subscription without saying why");
    else
        try_later(subscription, FELIX_NOT_CONNECTED, "the broker ended the subscribe request");
}

static void request_over(struct lane *lane, enum felix_err err, const char *text) {
    struct felix_subscription *subscription = lane->owner;
    subscription->request = NULL;
    if (err == FELIX_UNAUTHENTICATED)
        subscription_end(subscription, err, text);
    else
        try_later(subscription, err, text);
}

static const struct lane_ops request_ops = {
    .ready = request_ready,
    .frame = request_frame,
    .finished = request_finished,
    .over = request_over,
};

void subscription_try(struct felix_subscription *subscription) {
    struct felix_client *client = subscription->client;
    if (subscription->state != SUBSCRIPTION_WAITING)
        return;
    if (subscription->backoff.due_ns > client->io.now_ns) {
        io_timer_at(client, subscription->backoff.due_ns);
        return;
    }
    link_want(subscription->link);
    if (subscription->link->state != LINK_OPEN)
        return;
    subscription->request = lane_open(subscription->link, &request_ops, subscription);
    if (subscription->request == NULL)
        return; /* streams_available comes */
    subscription->state = SUBSCRIPTION_REQUESTING;
    subscription->link->subscribing++;
    if (subscription->opening == NULL) {
        subscription->due_ns = client->io.now_ns + client->timeout_ns;
        io_timer_at(client, subscription->due_ns);
    }
}

uint64_t subscription_expire(struct felix_subscription *subscription, uint64_t now_ns) {
    uint64_t next_ns = UINT64_MAX;
    if (subscription->state != SUBSCRIPTION_STREAMING && subscription->due_ns <= now_ns) {
        if (subscription->opening != NULL) {
            subscription_end(subscription, FELIX_TIMED_OUT, "the broker did not answer in time");
            return next_ns;
        }
        try_later(subscription, FELIX_TIMED_OUT, "the broker did not answer in time");
    } else if (subscription->state != SUBSCRIPTION_STREAMING) {
        next_ns = subscription->due_ns;
    }
    // NOLINTNEXTLINE(clang-analyzer-unix.Malloc): the caller holds a reference
    if (subscription->state == SUBSCRIPTION_WAITING) {
        subscription_try(subscription);
        if (subscription->state != SUBSCRIPTION_WAITING)
            next_ns = subscription->due_ns;
    }
    return next_ns;
}

/* ---- delivering ---- */

static void note_offsets(struct felix_subscription *subscription, const struct event_batch *batch) {
    subscription->received_any = true;
    subscription->has_next_offset = batch->has_offsets;
    subscription->next_offset = batch->base_offset + batch->count;
}

static void deliver_by_callback(struct felix_subscription *subscription,
                                const struct event_batch *batch) {
    struct felix_message messages[MESSAGES_PER_CALLBACK];
    struct event_cursor cursor = event_walk(batch);
    uint64_t offset = batch->base_offset;
    struct slice payload;
    size_t count = 0;
    bool more = event_next(&cursor, &payload);
    while (more) {
        messages[count++] = (struct felix_message){.data = payload.data,
                                                   .len = payload.len,
                                                   .offset = offset,
                                                   .has_offset = batch->has_offsets,
                                                   .has_timestamp = batch->has_timestamps,
                                                   .timestamp_us = cursor.timestamp_us};
        offset++;
        more = event_next(&cursor, &payload);
        if (more && count < MESSAGES_PER_CALLBACK)
            continue;
        subscription->options.on_messages(subscription->options.context, subscription, messages,
                                          count);
        if (subscription->state == SUBSCRIPTION_ENDED)
            return; /* left from inside the callback */
        count = 0;
    }
}

/* `block` holds the items or is NULL; it is taken (set to NULL) if it is kept. */
static void deliver(struct felix_subscription *subscription, const struct event_batch *batch,
                    struct buf **block, size_t frame_bytes) {
    struct client_counters *counters = &subscription->client->counters;
    counter_add(&counters->received, batch->count);
    size_t head_bytes = EVENT_LENGTH_BYTES + (batch->has_timestamps ? EVENT_TIMESTAMP_BYTES : 0);
    counter_add(&counters->receive_bytes, batch->items.len - batch->count * head_bytes);
    note_offsets(subscription, batch);
    if (subscription->options.on_messages != NULL) {
        deliver_by_callback(subscription, batch);
        if (subscription->events != NULL)
            lane_consume(subscription->events, frame_bytes);
        return;
    }
    uint64_t dropped = 0;
    struct buf *taken = *block;
    *block = NULL;
    size_t credit = message_queue_push(&subscription->queue, batch, taken, frame_bytes, &dropped);
    counter_add(&counters->receive_dropped, dropped);
    lane_consume(subscription->events, credit);
}

/* The broker left messages out, from `resume_from` on, and ended the event stream. A durable stream
 * has them still. */
static void lagged(struct felix_subscription *subscription, uint64_t resume_from) {
    if (subscription->options.no_resubscribe) {
        char text[128];
        (void)snprintf(text, sizeof text,
                       "fell behind: the broker left out what lies from offset %llu on",
                       (unsigned long long)resume_from);
        subscription->cursor =
            (struct felix_cursor_error){.requested = resume_from, .available = resume_from};
        subscription_end(subscription, FELIX_LAGGED, text);
        return;
    }
    counter_add(&subscription->lagged, 1);
    subscription->has_next_offset = true;
    subscription->next_offset = resume_from;
    drop_lanes(subscription);
    subscription->state = SUBSCRIPTION_WAITING;
    subscription->due_ns = UINT64_MAX;
    subscription_try(subscription);
}

/* The broker ended the event stream and said why. What a disk refuses at the moment may be mended:
 * where to go on is known. */
static void failed(struct felix_subscription *subscription, const struct message *message) {
    char text[256];
    enum felix_err err = refusal_err(message->code, message->retry, message->text);
    (void)text_of_slice(message->text, text, sizeof text);
    if (err == FELIX_STORAGE || err == FELIX_OVERLOADED || err == FELIX_DRAINING)
        try_later(subscription, err, text);
    else
        subscription_end(subscription, err, text);
}

static bool deliver_json(struct felix_subscription *subscription, struct frame *frame) {
    struct message message;
    if (message_decode(frame->body, &message) != FELIX_OK) {
        subscription_end(subscription, FELIX_BAD_JSON, "an event message is unreadable");
        return false;
    }
    bool event = message.type == MESSAGE_EVENT || message.type == MESSAGE_EVENT_BATCH;
    if (event) {
        struct event_batch batch = {
            .has_offsets = message.has_offset,
            .base_offset = message.offset,
            .count = message.payloads.count,
            .items = slice_of(message.payloads.bytes.data + 4, message.payloads.bytes.len - 4),
        };
        struct buf *none = NULL;
        deliver(subscription, &batch, &none, FRAME_HEADER_BYTES + frame->body.len);
    } else if (message.type == MESSAGE_SUBSCRIPTION_LAGGED) {
        lagged(subscription, message.offset);
    } else if (message.type == MESSAGE_ERROR) {
        failed(subscription, &message);
    } else {
        subscription_end(subscription, FELIX_PROTOCOL, "unexpected message on an event stream");
    }
    message_deinit(&message);
    return event;
}

bool subscription_frame(struct felix_subscription *subscription, struct frame *frame) {
    uint16_t flags = frame->header.flags;
    (void)atomic_fetch_add_explicit(&subscription->refs, 1, memory_order_relaxed);
    bool ok = true;
    if ((flags & (FRAME_EVENT_BATCH | FRAME_EVENT_BATCH_SHARED)) == 0 && flags != 0) {
        subscription_end(subscription, FELIX_UNKNOWN_FLAGS, "unknown flags on an event stream");
    } else if (flags == 0) {
        ok = deliver_json(subscription, frame);
    } else {
        struct event_batch batch;
        enum felix_err err = event_batch_decode(flags, frame->body, &batch);
        if (err == FELIX_OK && batch.addressed && batch.subscription_id != subscription->id)
            err = FELIX_PROTOCOL;
        if (err == FELIX_OK)
            deliver(subscription, &batch, &frame->block, FRAME_HEADER_BYTES + frame->body.len);
        else
            subscription_end(subscription, err, "the broker sent a malformed event batch");
    }
    // NOLINTNEXTLINE(clang-analyzer-unix.Malloc): this function holds a reference
    ok = ok && subscription->state == SUBSCRIPTION_STREAMING;
    // NOLINTNEXTLINE(clang-analyzer-unix.Malloc): the same one
    subscription_unref(subscription);
    return ok;
}

static bool events_frame(struct lane *lane, struct frame *frame) {
    return subscription_frame(lane->owner, frame);
}

static void events_finished(struct lane *lane) {
    subscription_end(lane->owner, FELIX_CLOSED, "the broker ended the subscription");
}

static void events_over(struct lane *lane, enum felix_err err, const char *text) {
    struct felix_subscription *subscription = lane->owner;
    subscription->events = NULL;
    if (err == FELIX_NOT_CONNECTED)
        try_later(subscription, err, text);
    else
        subscription_end(subscription, err, text);
}

static const struct lane_ops events_ops = {
    .frame = events_frame,
    .finished = events_finished,
    .over = events_over,
};

void subscription_pair(struct felix_subscription *subscription, struct lane *lane) {
    subscription->state = SUBSCRIPTION_STREAMING;
    subscription->due_ns = UINT64_MAX;
    backoff_reset(&subscription->backoff);
    subscription->events = lane;
    lane->ops = &events_ops;
    lane->owner = subscription;
}
