/*
 * Replies of a control stream. Small ones are appended to a block that the stream's queue points
 * into, so that many replies of a turn leave as one run of bytes. Acknowledgements leave in the
 * order of their requests, because the published clients insist on it (wire specification 6.4).
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "session/session.h"
#include "wire/ack.h"
#include "wire/utf8.h"

#define OUT_BYTES ((size_t)1024)
#define OUT_BYTES_MAX ((size_t)16 << 10)
#define OWED_MIN 16u

/* Blocks grow while they fill up one after the other, so that a stream of lone replies holds little
 * and one of many replies in a turn sends long runs. */
static void next_out_block(struct session *session, size_t len) {
    if (session->out == NULL)
        session->out_bytes = session->out_bytes > OUT_BYTES ? session->out_bytes / 2 : OUT_BYTES;
    else if (session->out_bytes < OUT_BYTES_MAX)
        session->out_bytes *= 2;
    buf_unref(session->out);
    session->out = buf_new(len > session->out_bytes ? len : session->out_bytes);
    session->out_used = 0;
}

uint8_t *reply_room(struct session *session, size_t len) {
    if (session->state == SESSION_CLOSED)
        return NULL;
    if (session->out == NULL || session->out_used + len > session->out->capacity)
        next_out_block(session, len);
    return session->out->data + session->out_used;
}

void reply_commit(struct session *session, const uint8_t *room, size_t len) {
    session->out_used += len;
    (void)quic_stream_write(session->stream, buf_ref(session->out), room, len);
}

void reply_all_acked(struct session *session) {
    buf_unref(session->out);
    session->out = NULL;
}

void reply_bytes(struct session *session, const uint8_t *bytes, size_t len) {
    uint8_t *room = reply_room(session, len);
    if (room == NULL)
        return;
    memcpy(room, bytes, len);
    reply_commit(session, room, len);
}

void reply_block(struct session *session, struct buf *block, const uint8_t *bytes, size_t len) {
    if (session->state == SESSION_CLOSED)
        buf_unref(block);
    else
        (void)quic_stream_write(session->stream, block, bytes, len);
}

void reply_message(struct session *session, const struct message *message) {
    size_t bytes = 0;
    if (session->state == SESSION_CLOSED || session->uni)
        return;
    struct buf *frame = message_encode(message, &bytes);
    if (bytes <= OUT_BYTES / 2) {
        reply_bytes(session, frame->data, bytes);
        buf_unref(frame);
        return;
    }
    (void)quic_stream_write(session->stream, frame, frame->data, bytes);
}

static void send_error(struct session *session, enum wire_code code, enum wire_retry retry,
                       const char *text) {
    struct message message = {
        .type = MESSAGE_ERROR,
        .text = slice_str(text),
        .code = session->error_codes ? code : WIRE_CODE_NONE,
        .retry = retry,
    };
    counter_add(&session->server->counters.errors_sent, 1);
    reply_message(session, &message);
}

void reply_error(struct session *session, enum wire_code code, const char *text) {
    send_error(session, code, wire_code_retry(code), text);
}

void reply_refusal(struct session *session, enum felix_err err, const char *text) {
    send_error(session, wire_code_of_err(err), wire_retry_of_err(err), text);
}

const char *reply_text_of(enum felix_err err) {
    switch ((int)err) {
    case FELIX_DISK_FULL:
        return "the disk is full: nothing was stored, try again later";
    case FELIX_STORAGE:
        return "durable storage error: the disk failed, see the log of the broker";
    case FELIX_DAMAGED:
        return "durable storage error: the log of the stream is damaged and takes nothing";
    default:
        return err_text(err);
    }
}

/* A name as a text shows it: cut between two characters, because the text is UTF-8. */
static int shown(struct slice name) {
    return (int)utf8_cut(name, 100);
}

void reply_stream_not_found_text(char *out, size_t out_bytes, struct slice tenant,
                                 struct slice namespace_, struct slice stream) {
    (void)snprintf(out, out_bytes, "stream not found: tenant=%.*s namespace=%.*s stream=%.*s",
                   shown(tenant), (const char *)tenant.data, shown(namespace_),
                   (const char *)namespace_.data, shown(stream), (const char *)stream.data);
}

void reply_cache_not_found_text(char *out, size_t out_bytes, struct slice tenant,
                                struct slice namespace_, struct slice cache) {
    (void)snprintf(out, out_bytes, "cache scope not found: %.*s/%.*s/%.*s", shown(tenant),
                   (const char *)tenant.data, shown(namespace_), (const char *)namespace_.data,
                   shown(cache), (const char *)cache.data);
}

static void send_ack(struct session *session, uint64_t request_id, bool json,
                     const struct publish_outcome *outcome, const char *text) {
    enum felix_err err = outcome->err;
    bool has_offset = outcome->has_offset && session->ack_offsets;
    if (session->uni)
        return;
    counter_add(&session->server->counters.acks_sent, 1);
    /* A client that reads codes gets its refusals in JSON, which carries them; either form is
     * accepted for any publish (wire extensions 1.4). */
    if (json || (err != FELIX_OK && session->error_codes)) {
        struct message message = {
            .type = err == FELIX_OK ? MESSAGE_PUBLISH_OK : MESSAGE_PUBLISH_ERROR,
            .has_request_id = true,
            .request_id = request_id,
            .text = slice_str(text),
            .code = session->error_codes ? wire_code_of_err(err) : WIRE_CODE_NONE,
            .retry = wire_retry_of_err(err),
            .has_offset = has_offset,
            .offset = outcome->offset,
            .has_level = session->ack_levels,
            .level = outcome->level,
        };
        reply_message(session, &message);
        return;
    }
    uint8_t frame[ACK_FRAME_BYTES_MAX];
    struct publish_ack ack = {
        .request_id = request_id,
        .ok = err == FELIX_OK,
        .message = slice_str(text),
        .offset = outcome->offset,
        .level = outcome->level,
    };
    uint16_t flags = FRAME_PUBLISH_ACK;
    if (has_offset)
        flags |= FRAME_ACK_OFFSET;
    if (session->ack_levels)
        flags |= FRAME_ACK_LEVEL;
    size_t bytes = ack_frame_encode(flags, &ack, frame);
    reply_bytes(session, frame, bytes);
}

static struct owed_ack *owed_at(struct session *session, uint32_t index) {
    return &session->owed[(session->owed_head + index) & (session->owed_capacity - 1)];
}

uint64_t reply_owe(struct session *session, uint64_t request_id, bool json) {
    if (session->owed_count == session->owed_capacity) {
        uint32_t capacity = session->owed_capacity == 0 ? OWED_MIN : session->owed_capacity * 2;
        struct owed_ack *owed = xmalloc(capacity * sizeof *owed);
        for (uint32_t i = 0; i < session->owed_count; i++)
            owed[i] = *owed_at(session, i);
        free(session->owed);
        session->owed = owed;
        session->owed_capacity = capacity;
        session->owed_head = 0;
    }
    session->owed_count++;
    *owed_at(session, session->owed_count - 1) =
        (struct owed_ack){.request_id = request_id, .json = json};
    return session->owed_first + session->owed_count - 1;
}

void reply_owed_done(struct session *session, uint64_t number,
                     const struct publish_outcome *outcome) {
    INVARIANT(number >= session->owed_first && number - session->owed_first < session->owed_count);
    struct owed_ack *done = owed_at(session, (uint32_t)(number - session->owed_first));
    done->done = true;
    done->outcome = *outcome;
    while (session->owed_count > 0 && owed_at(session, 0)->done) {
        struct owed_ack ack = *owed_at(session, 0);
        session->owed_head = (session->owed_head + 1) & (session->owed_capacity - 1);
        session->owed_count--;
        session->owed_first++;
        send_ack(session, ack.request_id, ack.json, &ack.outcome,
                 ack.outcome.err == FELIX_OK ? "" : reply_text_of(ack.outcome.err));
    }
    if (session->state == SESSION_ENDING)
        session_end(session);
}

void reply_publish(struct session *session, uint64_t request_id, bool json,
                   const struct publish_outcome *outcome, const char *text) {
    if (session->owed_count == 0) {
        send_ack(session, request_id, json, outcome,
                 text[0] == '\0' && outcome->err != FELIX_OK ? reply_text_of(outcome->err) : text);
        return;
    }
    reply_owed_done(session, reply_owe(session, request_id, json), outcome);
}
