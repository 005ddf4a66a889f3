#include "support/peer.h"

#include <stdlib.h>

#include "base/check.h"

#define VECS_MAX 16u

static struct peer *peer_of(struct quic_conn *conn) {
    return (struct peer *)(void *)conn;
}

static struct peer *peer_of_lib(ngtcp2_conn *conn) {
    return (struct peer *)(void *)conn;
}

static const struct quic_handler *handler_of(const struct peer *peer) {
    return peer->quic.endpoint->handler;
}

static struct peer_stream *find(struct peer *peer, int64_t id) {
    struct peer_stream *stream = peer->streams;
    while (stream != NULL && stream->id != id)
        stream = stream->next;
    INVARIANT(stream != NULL);
    return stream;
}

/* ---- in the place of src/quic/conn.c ---- */

void conn_mark_dirty(struct quic_conn *conn) {
}

void conn_mark_sendable(struct quic_conn *conn, struct quic_stream *stream) {
}

void quic_conn_hurry(struct quic_conn *conn) {
}

static struct peer_stream *add_stream(struct peer *peer, bool ours, bool bidi) {
    struct peer_stream *stream = xcalloc(1, sizeof *stream);
    stream->peer = peer;
    stream->ours = ours;
    stream->bidi = bidi;
    stream->id = peer->streams == NULL ? 0 : peer->streams->id + 1;
    stream->next = peer->streams;
    peer->streams = stream;
    stream->quic = stream_new(&peer->quic, stream->id, ours || bidi, !ours || bidi);
    return stream;
}

struct quic_stream *quic_open_uni(struct quic_conn *conn, void *user) {
    struct peer *peer = peer_of(conn);
    if (peer->closed || conn->state != CONN_READY || peer->uni_grant == 0)
        return NULL;
    peer->uni_grant--;
    struct quic_stream *stream = add_stream(peer, false, false)->quic;
    stream->user = user;
    return stream;
}

void quic_conn_close(struct quic_conn *conn, uint64_t app_code, const char *reason) {
    conn->close_wanted = true;
}

const char *quic_conn_peer_text(const struct quic_conn *conn, char out[64]) {
    memcpy(out, "peer", 5);
    return out;
}

/* ---- in the place of ngtcp2 ---- */

int ngtcp2_conn_extend_max_stream_offset(ngtcp2_conn *conn, int64_t id, uint64_t bytes) {
    return 0;
}

void ngtcp2_conn_extend_max_offset(ngtcp2_conn *conn, uint64_t bytes) {
    struct peer *peer = peer_of_lib(conn);
    peer->credit_bytes += bytes;
    INVARIANT(peer->credit_bytes <= peer->sent_bytes);
}

int ngtcp2_conn_shutdown_stream_read(ngtcp2_conn *conn, uint32_t flags, int64_t id,
                                     uint64_t app_code) {
    find(peer_of_lib(conn), id)->stopped = true;
    return 0;
}

int ngtcp2_conn_shutdown_stream_write(ngtcp2_conn *conn, uint32_t flags, int64_t id,
                                      uint64_t app_code) {
    find(peer_of_lib(conn), id)->in_reset = true;
    return 0;
}

/* ---- the peer ---- */

struct peer *peer_new(struct quic_endpoint *endpoint) {
    struct peer *peer = xcalloc(1, sizeof *peer);
    peer->uni_grant = UINT32_MAX;
    peer->quic.magic = CONN_MAGIC;
    peer->quic.endpoint = endpoint;
    peer->quic.server = true;
    peer->quic.state = CONN_READY;
    peer->quic.conn = (ngtcp2_conn *)(void *)peer;
    handler_of(peer)->conn_ready(&peer->quic);
    return peer;
}

/* As conn.c does it: told, then the connection's window gets what nobody consumed. */
static void stream_over(struct peer_stream *stream) {
    struct quic_stream *quic = stream->quic;
    handler_of(stream->peer)->stream_closed(quic);
    stream->peer->credit_bytes += quic->rx_held_bytes;
    stream_free(quic);
    stream->quic = NULL;
}

static void check_over(struct peer_stream *stream) {
    const struct quic_stream *quic = stream->quic;
    if (quic == NULL)
        return;
    bool write_over =
        !quic->can_write || quic->write_shut || (quic->fin_sent && quic->unacked_bytes == 0);
    bool read_over = !quic->can_read || stream->out_over;
    if (write_over && read_over)
        stream_over(stream);
}

void peer_close(struct peer *peer) {
    if (peer->closed)
        return;
    for (struct peer_stream *stream = peer->streams; stream != NULL; stream = stream->next) {
        if (stream->quic != NULL)
            stream_over(stream);
    }
    peer->closed = true;
    peer->quic.close.err = FELIX_CLOSED;
    handler_of(peer)->conn_closed(&peer->quic, &peer->quic.close);
    INVARIANT(peer->quic.streams == NULL && peer->quic.stream_count == 0);
    INVARIANT(peer->quic.unacked_bytes == 0 && peer->quic.rx_held_bytes == 0);
    INVARIANT(peer->credit_bytes == peer->sent_bytes);
}

void peer_free(struct peer *peer) {
    peer_close(peer);
    while (peer->streams != NULL) {
        struct peer_stream *stream = peer->streams;
        peer->streams = stream->next;
        free(stream->in);
        free(stream);
    }
    free(peer);
}

struct peer_stream *peer_open(struct peer *peer, bool bidi) {
    if (peer->closed)
        return NULL;
    struct peer_stream *stream = add_stream(peer, true, bidi);
    handler_of(peer)->stream_opened(stream->quic);
    return stream;
}

void peer_send(struct peer_stream *stream, struct slice data, bool fin) {
    struct quic_stream *quic = stream->quic;
    if (quic == NULL || !quic->can_read || stream->out_over || (data.len == 0 && !fin))
        return;
    stream->out_over = fin;
    stream->peer->sent_bytes += data.len;
    if (stream->stopped) { /* the transport drops it and gives the credit back itself */
        stream->peer->credit_bytes += data.len;
    } else {
        quic->rx_held_bytes += data.len;
        quic->conn->rx_held_bytes += data.len;
        quic->peer_fin = fin;
        handler_of(stream->peer)->stream_data(quic, data, fin);
    }
    check_over(stream);
}

void peer_reset(struct peer_stream *stream) {
    struct quic_stream *quic = stream->quic;
    if (quic == NULL || !quic->can_read || stream->out_over)
        return;
    stream->out_over = true;
    quic->read_shut = true;
    handler_of(stream->peer)->stream_reset(quic, 0);
    check_over(stream);
}

void peer_refuse(struct peer_stream *stream) {
    if (stream->quic != NULL && stream->quic->can_write && !stream->quic->write_shut &&
        !stream->in_fin)
        stream->refused = true;
}

void peer_close_refused(struct peer_stream *stream) {
    if (stream->quic != NULL && stream->refused && (!stream->quic->can_read || stream->out_over))
        stream_over(stream);
}

static void append(struct peer_stream *stream, const ngtcp2_vec *vec, size_t bytes) {
    if (stream->in_bytes + bytes > stream->in_capacity) {
        stream->in_capacity = (stream->in_bytes + bytes) * 2;
        stream->in = xrealloc(stream->in, stream->in_capacity);
    }
    memcpy(stream->in + stream->in_bytes, vec->base, bytes);
    stream->in_bytes += bytes;
}

/* One write of the transport: true when something was taken and more may be there. */
static bool take_some(struct peer_stream *stream, size_t *bytes_left) {
    struct quic_stream *quic = stream->quic;
    ngtcp2_vec vecs[VECS_MAX];
    bool all = false;
    size_t taken = 0;
    size_t count = stream_unsent_vecs(quic, vecs, VECS_MAX, *bytes_left, &all);
    for (size_t i = 0; i < count && *bytes_left > 0; i++) {
        size_t part = vecs[i].len < *bytes_left ? vecs[i].len : *bytes_left;
        append(stream, &vecs[i], part);
        taken += part;
        *bytes_left -= part;
    }
    if (taken == 0)
        return false;
    stream_given(quic, taken);
    handler_of(stream->peer)->stream_sent(quic);
    return *bytes_left > 0;
}

static void take_stream(struct peer_stream *stream, size_t bytes) {
    struct quic_stream *quic = stream->quic;
    if (!quic->can_write || quic->write_shut || quic->fin_sent)
        return;
    if (stream->refused) {
        if (quic->unsent_bytes > 0 || quic->fin_queued) {
            stream_shut_write(quic);
            handler_of(stream->peer)->stream_stopped(quic, 0);
        }
        return; /* over when the peer acknowledges the RESET_STREAM */
    }
    while (take_some(stream, &bytes))
        continue;
    quic->fin_sent = quic->fin_queued && quic->unsent_bytes == 0;
    stream->in_fin = quic->fin_sent;
    check_over(stream);
}

void peer_take(struct peer *peer, size_t bytes) {
    for (struct peer_stream *stream = peer->streams; stream != NULL; stream = stream->next) {
        if (stream->quic != NULL)
            take_stream(stream, bytes);
    }
    if (peer->quic.close_wanted)
        peer_close(peer);
}

void peer_acknowledge(struct peer *peer, size_t bytes) {
    for (struct peer_stream *stream = peer->streams; stream != NULL; stream = stream->next) {
        struct quic_stream *quic = stream->quic;
        if (quic == NULL)
            continue;
        size_t given = quic->unacked_bytes - quic->unsent_bytes;
        size_t part = given < bytes ? given : bytes;
        if (part > 0) {
            stream_acked(quic, part);
            handler_of(peer)->stream_acked(quic);
        }
        check_over(stream);
    }
}

void peer_flush(struct peer *peer) {
    do {
        peer_take(peer, SIZE_MAX);
        if (!peer->closed)
            peer_acknowledge(peer, SIZE_MAX);
    } while (!peer->closed && peer->quic.unacked_bytes > 0);
    if (peer->closed)
        return;
    peer_take(peer, SIZE_MAX); /* an end that the last acknowledgement brought */
    peer_acknowledge(peer, 0);
}

struct peer_stream *peer_next_event_stream(struct peer *peer, const struct peer_stream *before) {
    struct peer_stream *oldest = NULL;
    for (struct peer_stream *s = peer->streams; s != NULL && s != before; s = s->next) {
        if (!s->ours)
            oldest = s;
    }
    return oldest;
}
