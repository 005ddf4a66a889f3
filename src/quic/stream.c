/*
 * The send queue is a ring of pieces. Three positions run through it, oldest first:
 *
 *     head                      next                          tail
 *      | given, not acknowledged |  queued, not given to ngtcp2 |
 *
 * ngtcp2 acknowledges strictly from the front (acked_stream_data_offset), so dropping references
 * is popping; retransmissions read the same memory, which is why nothing before `head` may go.
 */
#include "quic/stream.h"

#include <stdlib.h>

#include "base/check.h"
#include "quic/conn.h"
#include "quic/endpoint.h"

#define PIECES_MIN 8u

struct quic_stream *stream_new(struct quic_conn *conn, int64_t id, bool can_read, bool can_write) {
    struct quic_stream *stream = xcalloc(1, sizeof *stream);
    stream->conn = conn;
    stream->id = id;
    stream->can_read = can_read;
    stream->can_write = can_write;
    stream->all_next = conn->streams;
    if (conn->streams != NULL)
        conn->streams->all_prev = stream;
    conn->streams = stream;
    conn->stream_count++;
    return stream;
}

static struct stream_piece *piece_at(struct quic_stream *stream, uint32_t index) {
    return &stream->pieces[(stream->piece_head + index) & (stream->piece_capacity - 1)];
}

/* Forget what was not given to ngtcp2. What was given stays referenced until the stream ends,
 * because a retransmission may still look at it. */
static void drop_unsent(struct quic_stream *stream) {
    uint32_t given = stream->piece_next + (stream->next_offset > 0 ? 1 : 0);
    for (uint32_t i = given; i < stream->piece_count; i++)
        buf_unref(piece_at(stream, i)->buf);
    stream->piece_count = given;
    stream->conn->unacked_bytes -= stream->unacked_bytes;
    stream->unsent_bytes = 0;
    stream->unacked_bytes = 0;
}

void stream_leave_send_list(struct quic_stream *stream) {
    struct quic_conn *conn = stream->conn;
    if (!stream->in_send_list)
        return;
    struct quic_stream *before = conn->send_tail;
    while (before->send_next != stream)
        before = before->send_next;
    before->send_next = stream->send_next;
    if (conn->send_tail == stream)
        conn->send_tail = before == stream ? NULL : before;
    stream->in_send_list = false;
    stream->send_next = NULL;
}

void stream_unblock(struct quic_stream *stream) {
    stream->blocked = false;
    stream->conn->blocked_count--;
    if (!stream->write_shut && (stream->unsent_bytes > 0 || stream->fin_queued))
        conn_mark_sendable(stream->conn, stream);
}

void stream_free(struct quic_stream *stream) {
    struct quic_conn *conn = stream->conn;
    stream_leave_send_list(stream);
    if (stream->blocked)
        conn->blocked_count--;
    conn->unacked_bytes -= stream->unacked_bytes;
    for (uint32_t i = 0; i < stream->piece_count; i++)
        buf_unref(piece_at(stream, i)->buf);
    conn->rx_held_bytes -= stream->rx_held_bytes - stream->rx_lent_bytes;
    if (stream->all_prev != NULL)
        stream->all_prev->all_next = stream->all_next;
    else
        conn->streams = stream->all_next;
    if (stream->all_next != NULL)
        stream->all_next->all_prev = stream->all_prev;
    conn->stream_count--;
    free(stream->pieces);
    free(stream);
}

static void grow_pieces(struct quic_stream *stream) {
    uint32_t capacity = stream->piece_capacity == 0 ? PIECES_MIN : stream->piece_capacity * 2;
    struct stream_piece *pieces = xmalloc(capacity * sizeof *pieces);
    for (uint32_t i = 0; i < stream->piece_count; i++)
        pieces[i] = *piece_at(stream, i);
    free(stream->pieces);
    stream->pieces = pieces;
    stream->piece_capacity = capacity;
    stream->piece_head = 0;
}

bool quic_stream_write(struct quic_stream *stream, struct buf *buf, const uint8_t *data,
                       size_t len) {
    if (!stream->can_write || stream->write_shut || stream->fin_queued) {
        buf_unref(buf);
        return false;
    }
    if (len == 0) {
        buf_unref(buf);
        return true;
    }
    struct stream_piece *last =
        stream->piece_next < stream->piece_count ? piece_at(stream, stream->piece_count - 1) : NULL;
    if (last != NULL && last->buf == buf && last->data + last->len == data) {
        last->len += len; /* one run of bytes costs ngtcp2 less than two */
        buf_unref(buf);
    } else {
        if (stream->piece_count == stream->piece_capacity)
            grow_pieces(stream);
        *piece_at(stream, stream->piece_count) = (struct stream_piece){buf, data, len};
        stream->piece_count++;
    }
    stream->unsent_bytes += len;
    stream->unacked_bytes += len;
    stream->conn->unacked_bytes += len;
    if (!stream->blocked)
        conn_mark_sendable(stream->conn, stream);
    return true;
}

void quic_stream_finish(struct quic_stream *stream) {
    if (!stream->can_write || stream->write_shut || stream->fin_queued)
        return;
    stream->fin_queued = true;
    conn_mark_sendable(stream->conn, stream);
}

void quic_stream_reset(struct quic_stream *stream, uint64_t app_code) {
    if (!stream->can_write || stream->write_shut || stream->conn->conn == NULL)
        return;
    if (stream->fin_sent && stream->unacked_bytes == 0)
        return;
    (void)ngtcp2_conn_shutdown_stream_write(stream->conn->conn, 0, stream->id, app_code);
    stream_shut_write(stream);
    conn_mark_dirty(stream->conn);
}

void stream_shut_write(struct quic_stream *stream) {
    if (stream->write_shut)
        return;
    stream->write_shut = true;
    if (stream->blocked)
        stream_unblock(stream);
    stream_leave_send_list(stream);
    drop_unsent(stream);
}

size_t stream_unsent_vecs(struct quic_stream *stream, ngtcp2_vec *vecs, size_t vec_max,
                          size_t bytes_max, bool *ret_all) {
    size_t count = 0, bytes = 0;
    uint32_t index = stream->piece_next;
    size_t offset = stream->next_offset;
    while (index < stream->piece_count && count < vec_max && bytes < bytes_max) {
        const struct stream_piece *piece = piece_at(stream, index);
        vecs[count].base = (uint8_t *)(uintptr_t)(piece->data + offset);
        vecs[count].len = piece->len - offset;
        bytes += vecs[count].len;
        count++;
        index++;
        offset = 0;
    }
    *ret_all = index == stream->piece_count;
    return count;
}

void stream_given(struct quic_stream *stream, size_t bytes) {
    INVARIANT(bytes <= stream->unsent_bytes);
    stream->unsent_bytes -= bytes;
    while (bytes > 0) {
        size_t left = piece_at(stream, stream->piece_next)->len - stream->next_offset;
        if (bytes < left) {
            stream->next_offset += bytes;
            return;
        }
        bytes -= left;
        stream->piece_next++;
        stream->next_offset = 0;
    }
}

void quic_stream_stop(struct quic_stream *stream, uint64_t app_code) {
    if (!stream->can_read || stream->read_shut || stream->conn->conn == NULL)
        return;
    stream->read_shut = true;
    (void)ngtcp2_conn_shutdown_stream_read(stream->conn->conn, 0, stream->id, app_code);
    conn_mark_dirty(stream->conn);
}

void quic_stream_consume(struct quic_stream *stream, size_t bytes) {
    struct quic_conn *conn = stream->conn;
    INVARIANT(bytes <= stream->rx_held_bytes);
    size_t lent = bytes < stream->rx_lent_bytes ? bytes : stream->rx_lent_bytes;
    stream->rx_held_bytes -= bytes;
    stream->rx_lent_bytes -= lent;
    conn->rx_held_bytes -= bytes - lent;
    if (conn->conn == NULL || bytes == 0)
        return;
    if (!stream->read_shut && !stream->peer_fin)
        (void)ngtcp2_conn_extend_max_stream_offset(conn->conn, stream->id, bytes);
    ngtcp2_conn_extend_max_offset(conn->conn, bytes - lent);
    conn_mark_dirty(conn);
}

void quic_stream_hold_alone(struct quic_stream *stream) {
    struct quic_conn *conn = stream->conn;
    size_t bytes = stream->rx_held_bytes - stream->rx_lent_bytes;
    stream->rx_lent_bytes += bytes;
    conn->rx_held_bytes -= bytes;
    if (conn->conn == NULL || bytes == 0)
        return;
    ngtcp2_conn_extend_max_offset(conn->conn, bytes);
    conn_mark_dirty(conn);
}

void stream_acked(struct quic_stream *stream, size_t bytes) {
    if (stream->write_shut)
        return;
    INVARIANT(bytes <= stream->unacked_bytes);
    stream->unacked_bytes -= bytes;
    stream->conn->unacked_bytes -= bytes;
    stream->head_acked += bytes;
    while (stream->piece_count > 0 && stream->head_acked >= piece_at(stream, 0)->len) {
        struct stream_piece *head = piece_at(stream, 0);
        INVARIANT(stream->piece_next > 0);
        stream->head_acked -= head->len;
        buf_unref(head->buf);
        stream->piece_head = (stream->piece_head + 1) & (stream->piece_capacity - 1);
        stream->piece_count--;
        stream->piece_next--;
    }
}
