/*
 * From a subscription's queue to its QUIC stream.
 *
 * The stream is given no more than EVENT_UNSENT_BYTES that are not yet sent: enough to fill the
 * congestion window as it opens, little enough that the queue, with its policy, is where a slow
 * client is felt. The connection's send window bounds all of its streams together; who finds it
 * full waits in line, because nothing will happen on its own stream that could bring it back. Live
 * batches are pointed at; replayed ones get frames of their own, because they carry this
 * subscription's id and, where negotiated, offsets. Whoever wants timestamps gets copies.
 */
#include <stdlib.h>

#include "base/check.h"
#include "session/session.h"

#define EVENT_UNSENT_BYTES ((size_t)256 << 10)

static void join_window(struct event_stream *event) {
    struct client_conn *conn = event->conn;
    if (event->in_window)
        return;
    event->in_window = true;
    event->window_next = NULL;
    event->window_prev = conn->window_tail;
    if (conn->window_tail != NULL)
        conn->window_tail->window_next = event;
    else
        conn->window_head = event;
    conn->window_tail = event;
}

static void leave_window(struct event_stream *event) {
    struct client_conn *conn = event->conn;
    if (!event->in_window)
        return;
    event->in_window = false;
    if (event->window_prev != NULL)
        event->window_prev->window_next = event->window_next;
    else
        conn->window_head = event->window_next;
    if (event->window_next != NULL)
        event->window_next->window_prev = event->window_prev;
    else
        conn->window_tail = event->window_prev;
}

struct event_stream *event_stream_new(struct session *session, uint64_t subscription_id) {
    struct server *server = session->server;
    struct client_conn *conn = session->conn;
    const struct core_settings *core = &server->core.settings;
    struct event_stream *event = xcalloc(1, sizeof *event);
    event->server = server;
    event->conn = conn;
    event->session = session;
    event->subscription_id = subscription_id;
    event->offsets = session->offsets;
    event->timestamps = session->timestamps;
    event->error_codes = session->error_codes;
    subscription_init(&event->sub, core_next_handle(&server->core), core->queue_policy,
                      core->queue_batches_max, core->queue_bytes_max);
    event->sub.user = event;
    event->sub.end_on_loss = session->lagged;
    event->conn_next = conn->events;
    if (conn->events != NULL)
        conn->events->conn_prev = event;
    conn->events = event;
    conn->event_count++;
    counter_add(&server->counters.event_streams_now, 1);
    return event;
}

void event_stream_free(struct event_stream *event) {
    struct client_conn *conn = event->conn;
    core_unsubscribe(&event->server->core, &event->sub);
    subscription_deinit(&event->sub);
    leave_window(event);
    if (event->session != NULL)
        event->session->subscribing = NULL;
    if (event->stream != NULL)
        ((struct stream_user *)event->stream->user)->event = NULL;
    if (event->conn_prev != NULL)
        event->conn_prev->conn_next = event->conn_next;
    else
        conn->events = event->conn_next;
    if (event->conn_next != NULL)
        event->conn_next->conn_prev = event->conn_prev;
    conn->event_count--;
    counter_sub(&event->server->counters.event_streams_now, 1);
    free(event);
}

bool event_stream_open(struct event_stream *event) {
    struct quic_stream *stream = quic_open_uni(event->conn->quic, NULL);
    if (stream == NULL)
        return false;
    struct stream_user *user = xcalloc(1, sizeof *user);
    user->role = ROLE_EVENTS;
    user->event = event;
    stream->user = user;
    event->stream = stream;

    struct message hello = {
        .type = MESSAGE_EVENT_STREAM_HELLO,
        .has_subscription_id = true,
        .subscription_id = event->subscription_id,
    };
    size_t bytes = 0;
    struct buf *frame = message_encode(&hello, &bytes);
    (void)quic_stream_write(stream, frame, frame->data, bytes);
    return true;
}

static void count_frame(struct server *server, uint32_t items, size_t bytes) {
    counter_add(&server->counters.delivered_frames, 1);
    counter_add(&server->counters.delivered_items, items);
    counter_add(&server->counters.delivered_bytes, bytes);
}

static bool stamps(const struct event_stream *event, const struct batch *batch) {
    return event->timestamps && (batch->timestamps != NULL || batch->time_us != 0);
}

/* A frame whose items get their timestamps, `count` of them from item `first` of the batch on. They
 * have to be copied, which only those pay who asked. */
static void write_stamped(struct event_stream *event, uint16_t flags, const struct batch *batch,
                          uint32_t first, uint32_t count, struct slice items) {
    size_t item_bytes = event_stamped_bytes(count, items.len);
    struct buf *frame = buf_new(EVENT_PREFIX_BYTES_MAX + item_bytes);
    if (event->offsets)
        flags |= FRAME_EVENT_OFFSETS;
    size_t bytes = event_prefix_encode(flags | FRAME_EVENT_TIMESTAMPS, event->subscription_id,
                                       batch->base_seq + first, count, item_bytes, frame->data);
    const uint64_t *times = batch->timestamps != NULL ? batch->timestamps + first : NULL;
    bytes += event_items_stamp(items, count, times, batch->time_us, frame->data + bytes);
    (void)quic_stream_write(event->stream, frame, frame->data, bytes);
    count_frame(event->server, count, bytes);
}

static void write_live(struct event_stream *event, struct buf *block) {
    struct server *server = event->server;
    struct batch *batch = batch_of(block);
    uint32_t first = 0;
    for (uint32_t i = 0; i < batch->frame_count; i++) {
        const struct batch_frame *frame = &batch->frames[i];
        if (stamps(event, batch)) {
            write_stamped(event, FRAME_EVENT_BATCH_SHARED, batch, first, frame->items,
                          batch_items_of(frame));
            first += frame->items;
            continue;
        }
        if (event->offsets && batch->offset_prefixes != NULL) {
            struct slice items = batch_items_of(frame);
            (void)quic_stream_write(event->stream, buf_ref(block), batch->offset_prefixes[i],
                                    BATCH_OFFSET_PREFIX_BYTES);
            (void)quic_stream_write(event->stream, buf_ref(block), items.data, items.len);
            count_frame(server, frame->items, items.len);
            continue;
        }
        if (frame->prefix_bytes > 0)
            (void)quic_stream_write(event->stream, buf_ref(block), frame->prefix,
                                    frame->prefix_bytes);
        (void)quic_stream_write(event->stream, buf_ref(block), frame->data, frame->data_bytes);
        count_frame(server, frame->items, frame->data_bytes);
    }
    if (server->stages != NULL && batch->read_ns != 0 && server->now_ns > batch->read_ns)
        hist_record(&server->stages[STAGE_PUBLISH_TO_WRITE], server->now_ns - batch->read_ns);
}

/* One replay frame: `count` items of the batch, from item `first` on. */
static void write_replay_frame(struct event_stream *event, struct buf *block, uint32_t first,
                               uint32_t count, struct slice items) {
    const struct batch *batch = batch_of(block);
    if (stamps(event, batch)) {
        write_stamped(event, FRAME_EVENT_BATCH, batch, first, count, items);
        return;
    }
    uint16_t flags = event->offsets ? FRAME_EVENT_BATCH | FRAME_EVENT_OFFSETS : FRAME_EVENT_BATCH;
    struct buf *prefix = buf_new(EVENT_PREFIX_BYTES_MAX);
    size_t prefix_bytes = event_prefix_encode(
        flags, event->subscription_id, batch->base_seq + first, count, items.len, prefix->data);
    (void)quic_stream_write(event->stream, prefix, prefix->data, prefix_bytes);
    (void)quic_stream_write(event->stream, buf_ref(block), items.data, items.len);
    count_frame(event->server, count, items.len);
}

static void write_replay(struct event_stream *event, const struct queued_batch *entry) {
    const struct server_settings *settings = &event->server->settings;
    const struct batch *batch = batch_of(entry->block);
    struct payload_cursor cursor = payload_walk(&batch->list);
    struct slice payload;
    struct slice items = {0};
    size_t payload_bytes = 0;
    uint32_t index = 0, first = 0, count = 0;
    for (; payload_next(&cursor, &payload); index++) {
        if (index < entry->first_item)
            continue;
        if (count > 0 && (count >= settings->event_items_max ||
                          payload_bytes + payload.len > settings->event_payload_bytes_max)) {
            write_replay_frame(event, entry->block, first, count, items);
            count = 0;
        }
        if (count == 0) {
            items = slice_of(payload.data - EVENT_LENGTH_BYTES, 0);
            payload_bytes = 0;
            first = index;
        }
        count++;
        items.len += EVENT_LENGTH_BYTES + payload.len;
        payload_bytes += payload.len;
    }
    if (count > 0)
        write_replay_frame(event, entry->block, first, count, items);
}

static bool window_open(const struct client_conn *conn) {
    return conn->quic->unacked_bytes < conn->server->settings.send_window_bytes;
}

/* The last frame says why, if it was not the stream's end and the client knows the message: that it
 * lagged, which only happens to those who do (subscription.end_on_loss) or cannot go on, or that
 * the log cannot be read. */
static void say_why(struct event_stream *event) {
    struct message last = {
        .type = MESSAGE_SUBSCRIPTION_LAGGED,
        .has_subscription_id = true,
        .subscription_id = event->subscription_id,
        .offset = event->resume_from,
    };
    if (event->stop_err == FELIX_OK || (event->stop_err == FELIX_LAGGED && !event->sub.end_on_loss))
        return;
    if (event->stop_err != FELIX_LAGGED) {
        if (!event->error_codes)
            return;
        last.type = MESSAGE_ERROR;
        last.text = slice_str(reply_text_of(event->stop_err));
        last.code = wire_code_of_err(event->stop_err);
        last.retry = wire_retry_of_err(event->stop_err);
    }
    size_t bytes = 0;
    struct buf *frame = message_encode(&last, &bytes);
    (void)quic_stream_write(event->stream, frame, frame->data, bytes);
}

void event_stream_pump(struct event_stream *event) {
    struct server *server = event->server;
    struct quic_stream *stream = event->stream;
    const struct event_stream *head = event->conn->window_head;
    struct queued_batch entry;
    if (head != NULL && head != event && !subscription_is_empty(&event->sub)) {
        join_window(event); /* nobody passes those who wait in line */
        return;
    }
    leave_window(event);
    if (!subscription_is_empty(&event->sub)) {
        uint64_t begin_ns = stage_begin(server);
        while (stream->unsent_bytes < EVENT_UNSENT_BYTES && window_open(event->conn) &&
               subscription_pop(&event->sub, &entry)) {
            if (entry.replay)
                write_replay(event, &entry);
            else
                write_live(event, entry.block);
            if (event->sub.fanout != NULL)
                core_popped(&server->core, &event->sub, &entry);
            buf_unref(entry.block);
        }
        stage_end(server, STAGE_ENCODE, begin_ns);
        /* Before the acknowledgement: who waits for that often waits for the message, too. */
        quic_conn_hurry(event->conn->quic);
        if (!subscription_is_empty(&event->sub) && !window_open(event->conn))
            join_window(event);
    }
    if (event->ended && subscription_is_empty(&event->sub)) {
        say_why(event); /* a stream that is finished takes nothing more */
        quic_stream_finish(stream);
    }
}

void event_streams_go_on(struct client_conn *conn) {
    while (conn->window_head != NULL && window_open(conn))
        event_stream_pump(conn->window_head);
}
