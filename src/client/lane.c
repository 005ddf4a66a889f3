/*
 * The life of a lane:
 *
 *   open      auth is written; the first frame must be auth_ok or ok            -> ready
 *   ready     frames go to the owner
 *   over      by the broker (FIN where it is not expected, reset, an error to auth), by a broken
 *             frame, with the connection, or by the owner; the owner hears of it unless it was he
 *   closed    the transport has forgotten the stream; the lane is freed
 *
 * A refusal may come without its message (a bare FIN): it is then a refusal of unknown cause.
 */
#include "client/lane.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "client/client.h"

static struct lane *lane_new(struct link *link, const struct lane_ops *ops, void *owner) {
    struct lane *lane = xcalloc(1, sizeof *lane);
    lane->magic = LANE_MAGIC;
    lane->client = link->client;
    lane->link = link;
    lane->ops = ops;
    lane->owner = owner;
    frame_reader_init(&lane->reader, (uint32_t)link->client->settings->max_frame_bytes);
    lane->next = link->lanes;
    if (link->lanes != NULL)
        link->lanes->prev = lane;
    link->lanes = lane;
    return lane;
}

static void lane_free(struct lane *lane) {
    if (lane->prev != NULL)
        lane->prev->next = lane->next;
    else
        lane->link->lanes = lane->next;
    if (lane->next != NULL)
        lane->next->prev = lane->prev;
    frame_reader_deinit(&lane->reader);
    lane->magic = 0;
    free(lane);
}

struct lane *lane_open(struct link *link, const struct lane_ops *ops, void *owner) {
    if (link->conn == NULL)
        return NULL;
    struct quic_stream *stream = quic_open_bidi(link->conn, NULL);
    if (stream == NULL)
        return NULL;
    struct lane *lane = lane_new(link, ops, owner);
    lane->stream = stream;
    stream->user = lane;
    lane->state = LANE_AUTH;
    const struct client_settings *settings = link->client->settings;
    lane->auth_due_ns = link->client->io.now_ns + settings->request_timeout_ms * NS_PER_MS;
    io_timer_at(link->client, lane->auth_due_ns);
    struct message auth = {
        .type = MESSAGE_AUTH,
        .tenant = slice_str(settings->tenant),
        .token = slice_str(link_token(link)),
        .has_client_flags = true,
        .flags = settings->event_timestamps ? CLIENT_FLAGS | FRAME_EVENT_TIMESTAMPS : CLIENT_FLAGS,
        .has_client_features = true,
        .features = CLIENT_FEATURES,
        .own_features = OWN_FEATURES,
    };
    lane_write_message(lane, &auth);
    return lane;
}

struct lane *lane_accept(struct link *link, struct quic_stream *stream, const struct lane_ops *ops,
                         void *owner) {
    struct lane *lane = lane_new(link, ops, owner);
    lane->stream = stream;
    stream->user = lane;
    lane->state = LANE_READY;
    return lane;
}

void lane_write(struct lane *lane, struct buf *buf, const uint8_t *data, size_t len) {
    if (lane->state == LANE_OVER || lane->stream == NULL) {
        buf_unref(buf);
        return;
    }
    (void)quic_stream_write(lane->stream, buf, data, len);
}

void lane_write_message(struct lane *lane, const struct message *message) {
    size_t bytes = 0;
    struct buf *buf = message_encode(message, &bytes);
    lane_write(lane, buf, buf->data, bytes);
}

void lane_finish(struct lane *lane) {
    if (lane->stream != NULL)
        quic_stream_finish(lane->stream);
}

static void give_credit(struct lane *lane, size_t bytes) {
    if (bytes > lane->held_bytes)
        bytes = lane->held_bytes;
    lane->held_bytes -= bytes;
    if (lane->stream != NULL && bytes > 0)
        quic_stream_consume(lane->stream, bytes);
}

/* A frame that is large against the window would wait for its own credit: it gets it in advance,
 * which is taken off when it is consumed. Where frames before it are unread, beyond what
 * message_queue may keep uncollected, it is their reader that is waited for. */
static void advance_credit(struct lane *lane) {
    size_t window_bytes = lane->client->settings->event_stream_recv_window;
    size_t have_bytes = lane->reader.have;
    if (have_bytes <= window_bytes / 4 ||
        lane->held_bytes + lane->advanced_bytes > have_bytes + window_bytes / 8)
        return;
    lane->advanced_bytes += lane->held_bytes;
    give_credit(lane, lane->held_bytes);
}

void lane_consume(struct lane *lane, size_t bytes) {
    size_t advanced_bytes = bytes < lane->advanced_bytes ? bytes : lane->advanced_bytes;
    lane->advanced_bytes -= advanced_bytes;
    give_credit(lane, bytes - advanced_bytes);
    if (lane->holds_credit && lane->state != LANE_OVER)
        advance_credit(lane);
}

/* No more upcalls, no more credit held. */
static void shut(struct lane *lane, bool keep_sending) {
    lane->state = LANE_OVER;
    lane->owner = NULL;
    if (lane->stream == NULL)
        return;
    give_credit(lane, lane->held_bytes);
    if (keep_sending)
        quic_stream_finish(lane->stream);
    else
        quic_stream_reset(lane->stream, 0);
    quic_stream_stop(lane->stream, 0);
}

void lane_fail(struct lane *lane, enum felix_err err, const char *text) {
    if (lane->state == LANE_OVER)
        return;
    lane->state = LANE_OVER;
    lane->ops->over(lane, err, text);
    shut(lane, false);
}

void lane_abandon(struct lane *lane) {
    if (lane->state != LANE_OVER)
        shut(lane, false);
}

void lane_release(struct lane *lane) {
    if (lane->state != LANE_OVER)
        shut(lane, true);
}

uint64_t lane_expire(struct link *link, uint64_t now_ns) {
    uint64_t next_ns = UINT64_MAX;
    for (struct lane *lane = link->lanes, *after = NULL; lane != NULL; lane = after) {
        after = lane->next;
        if (lane->state != LANE_AUTH)
            continue;
        if (lane->auth_due_ns <= now_ns)
            lane_fail(lane, FELIX_TIMED_OUT, "the broker did not answer auth in time");
        else if (lane->auth_due_ns < next_ns)
            next_ns = lane->auth_due_ns;
    }
    return next_ns;
}

/* ---- the answer to auth ---- */

static bool contains(struct slice text, const char *word) {
    return memmem(text.data, text.len, word, strlen(word)) != NULL;
}

enum felix_err refusal_err(enum wire_code code, enum wire_retry retry, struct slice text) {
    static const struct {
        const char *words;
        enum felix_err err;
    } known[] = {
        {"not found", FELIX_NOT_FOUND},       {"forbidden", FELIX_FORBIDDEN},
        {"tenant mismatch", FELIX_FORBIDDEN}, {"auth", FELIX_UNAUTHENTICATED},
        {"queue", FELIX_OVERLOADED},          {"budget", FELIX_OVERLOADED},
        {"overloaded", FELIX_OVERLOADED},     {"timed out", FELIX_OVERLOADED},
        {"timeout", FELIX_OUTCOME_UNKNOWN},   {"exceeded", FELIX_LIMIT},
        {"malformed", FELIX_MALFORMED},       {"disk is full", FELIX_DISK_FULL},
        {"storage", FELIX_STORAGE},
    };
    if (code != WIRE_CODE_NONE)
        return wire_refusal_to_err(code, retry);
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (text.len > 0 && contains(text, known[i].words))
            return known[i].err;
    }
    return FELIX_INTERNAL;
}

const char *text_of_slice(struct slice text, char *out, size_t capacity) {
    size_t len = text.len < capacity ? text.len : capacity - 1;
    if (len > 0)
        memcpy(out, text.data, len);
    out[len] = '\0';
    return out;
}

static bool auth_answered(struct lane *lane, const struct frame *frame) {
    struct message answer;
    char text[256];
    if (frame->header.flags != 0 || message_decode(frame->body, &answer) != FELIX_OK) {
        lane_fail(lane, FELIX_PROTOCOL, "the answer to auth is not a message");
        return false;
    }
    enum message_type type = answer.type;
    if (type == MESSAGE_AUTH_OK || type == MESSAGE_OK) {
        lane->server_flags = type == MESSAGE_OK ? FRAME_FLAGS_ORIGINAL_V1 : answer.flags;
        lane->server_features = type == MESSAGE_OK ? 0 : answer.features;
        lane->own_features = type == MESSAGE_OK ? 0 : answer.own_features & OWN_FEATURES;
        lane->state = LANE_READY;
        lane->ops->ready(lane);
    } else if (type == MESSAGE_ERROR) {
        /* Codes other than these two are no verdict on the token: try again later. */
        enum felix_err err = refusal_err(answer.code, answer.retry, answer.text);
        if (answer.code == WIRE_CODE_NONE || err == FELIX_FORBIDDEN)
            err = FELIX_UNAUTHENTICATED;
        lane_fail(lane, err, text_of_slice(answer.text, text, sizeof text));
    } else {
        lane_fail(lane, FELIX_PROTOCOL, "unexpected answer to auth");
    }
    message_deinit(&answer);
    return lane->state != LANE_OVER;
}

static bool on_frame(void *context, struct frame *frame) {
    struct lane *lane = context;
    if (lane->state == LANE_AUTH)
        return auth_answered(lane, frame);
    return lane->ops->frame(lane, frame) && lane->state != LANE_OVER;
}

/* ---- from the transport ---- */

static void finished_by_peer(struct lane *lane) {
    if (lane->state == LANE_AUTH)
        lane_fail(lane, FELIX_UNAUTHENTICATED,
                  "the broker ended the stream instead of "
                  "answering auth");
    else if (frame_reader_is_partial(&lane->reader))
        lane_fail(lane, FELIX_PROTOCOL, "the broker ended the stream inside a frame");
    else if (lane->ops->finished != NULL)
        lane->ops->finished(lane);
    else
        lane_fail(lane, FELIX_NOT_CONNECTED, "the broker ended the stream");
}

void lane_on_data(struct lane *lane, struct slice data, bool fin) {
    if (lane->state == LANE_OVER) {
        quic_stream_consume(lane->stream, data.len);
        return;
    }
    lane->held_bytes += data.len;
    if (!lane->holds_credit)
        lane_consume(lane, data.len);
    else /* neither halves of frames nor a stuck reader keep the window from other subscriptions */
        quic_stream_hold_alone(lane->stream);
    /* A handler may end the lane, which frees it only when the transport says so, later. */
    enum felix_err err = frame_reader_feed(&lane->reader, data, on_frame, lane);
    if (lane->state == LANE_OVER)
        return;
    if (err != FELIX_OK) {
        lane_fail(lane, err, "the broker sent what is not a Felix frame");
        return;
    }
    if (lane->holds_credit)
        advance_credit(lane);
    if (fin)
        finished_by_peer(lane);
}

void lane_on_reset(struct lane *lane) {
    lane_fail(lane, FELIX_NOT_CONNECTED, "the broker reset the stream");
}

void lane_on_stopped(struct lane *lane) {
    /* After a request that needs no more of us this is the usual way (STOP_SENDING after
     * subscribe); a lane that still has to write finds out by the FIN that comes with it. */
}

void lane_on_closed(struct lane *lane) {
    lane->stream = NULL;
    lane->held_bytes = 0;
    if (lane->state != LANE_OVER)
        lane_fail(lane, FELIX_NOT_CONNECTED, "the connection was lost");
    lane_free(lane);
}
