/*
 * One QUIC stream: a queue of shared bytes to send, credit for what was received.
 *
 * Belongs to its connection's thread. Created by quic_open_bidi/uni or when the peer opens one;
 * freed by the layer right after the handler's stream_closed.
 *
 * Sending never copies: the queue holds references to blocks, ngtcp2 reads the bytes in place,
 * also for retransmission, and a reference is dropped when the peer has acknowledged its bytes.
 */
#ifndef QUIC_STREAM_H
#define QUIC_STREAM_H

#include "base/buf.h"
#include "base/slice.h"

struct quic_conn;

/* A run of bytes inside a block. */
struct stream_piece {
    struct buf *buf; /* one reference */
    const uint8_t *data;
    size_t len;
};

struct quic_stream {
    struct quic_conn *conn;
    int64_t id;
    void *user; /* the handler's */

    struct stream_piece *pieces; /* ring of piece_capacity, a power of two */
    uint32_t piece_capacity;
    uint32_t piece_head; /* oldest piece that is not fully acknowledged */
    uint32_t piece_count;
    uint32_t piece_next;  /* pieces before this one (counted from head) were given to ngtcp2 */
    size_t next_offset;   /* bytes of piece_next that were given to ngtcp2 */
    size_t head_acked;    /* bytes of the head piece that are acknowledged */
    size_t unsent_bytes;  /* queued, not yet given to ngtcp2 */
    size_t unacked_bytes; /* queued or given, not yet acknowledged: what we hold for the peer */
    size_t rx_held_bytes; /* received and not yet consumed */
    size_t rx_lent_bytes; /* of those, what the connection's window no longer counts */

    bool can_write; /* we have a sending side */
    bool can_read;
    bool fin_queued;
    bool fin_sent;
    bool write_shut; /* reset, or stopped by the peer: the queue is dropped */
    bool read_shut;
    bool blocked; /* by the stream's flow-control window */
    bool peer_fin;

    struct quic_stream *send_next; /* circular list of streams with something to send */
    bool in_send_list;
    struct quic_stream *all_prev; /* every stream of the connection */
    struct quic_stream *all_next;
};

/**
 * Queue `len` bytes at `data` inside `buf`. Takes one reference of `buf`, also when the stream
 * can no longer be written (then it is dropped at once). Returns false in that case. What follows
 * the bytes queued last in the same block joins them.
 */
bool quic_stream_write(struct quic_stream *stream, struct buf *buf, const uint8_t *data,
                       size_t len);

/** End the sending side after what is queued. */
void quic_stream_finish(struct quic_stream *stream);

/** Abandon the sending side (RESET_STREAM); drops the queue. No effect once finished and sent. */
void quic_stream_reset(struct quic_stream *stream, uint64_t app_code);

/** Refuse further input (STOP_SENDING). stream_data is not called again. */
void quic_stream_stop(struct quic_stream *stream, uint64_t app_code);

/** The handler is done with `bytes` of what stream_data gave it: the peer may send as many more.
 * Not consuming is how a publisher is slowed down. */
void quic_stream_consume(struct quic_stream *stream, size_t bytes);

/** Let what this stream holds count against its own window only, so that it keeps nothing from the
 * connection's other streams. For who bounds the number of streams. */
void quic_stream_hold_alone(struct quic_stream *stream);

#endif
