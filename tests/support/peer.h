/*
 * The client's end of a connection without a network: stands where src/quic/conn.c and ngtcp2
 * would, below the real streams of src/quic/stream.c and any struct quic_handler above them.
 *
 * Everything happens inside the calls below, in one thread, when the test says so: the peer opens
 * streams, sends, resets and refuses; it takes what the server queued as far as it is told to and
 * acknowledges as far as it is told to. A program links peer.c before the quic library, so that
 * the linker does not look for the functions of conn.c there.
 */
#ifndef TESTS_SUPPORT_PEER_H
#define TESTS_SUPPORT_PEER_H

#include "quic/endpoint.h"

/* One stream as the peer sees it. Lives until peer_free, longer than the server's stream. */
struct peer_stream {
    struct peer *peer;
    struct quic_stream *quic; /* NULL: over on both sides */
    struct peer_stream *next; /* newest first */
    int64_t id;
    bool ours; /* the peer opened it */
    bool bidi;
    uint8_t *in; /* all that the server sent */
    size_t in_bytes, in_capacity;
    size_t read_at; /* for whoever reads frames out of `in` */
    bool in_fin;    /* the server finished */
    bool in_reset;  /* the server gave up its side */
    bool refused;   /* the peer sent STOP_SENDING */
    bool stopped;   /* the server sent STOP_SENDING */
    bool out_over;  /* the peer finished or reset its side */
};

struct peer {
    struct quic_conn quic; /* first */
    struct peer *next;
    struct peer_stream *streams;
    uint32_t uni_grant;    /* streams that the server may still open */
    uint64_t sent_bytes;   /* by the peer, of all streams */
    uint64_t credit_bytes; /* given back to the connection's window */
    bool closed;           /* conn_closed was told */
};

/** A new connection of `endpoint`, of which handler and user are set; conn_ready was told.
 * Returned owned (peer_free). */
struct peer *peer_new(struct quic_endpoint *endpoint);
/** Closes it, unless it is, and frees it with all its streams. */
void peer_free(struct peer *peer);

/** The peer opens a stream. NULL on a closed connection. Borrowed from the peer. */
struct peer_stream *peer_open(struct peer *peer, bool bidi);
/** Bytes, and the end if `fin`; ignored when the peer's side is over or the stream is. */
void peer_send(struct peer_stream *stream, struct slice data, bool fin);
/** RESET_STREAM and STOP_SENDING; ignored when there is nothing left to do them to. */
void peer_reset(struct peer_stream *stream);
void peer_refuse(struct peer_stream *stream);

/** The transport is done with a stream that the peer refused, though nothing more was offered to
 * it: it closes with bytes that nobody acknowledged. */
void peer_close_refused(struct peer_stream *stream);

/** Take at most `bytes` of each stream's queue; then a wish of the server to close is done. */
void peer_take(struct peer *peer, size_t bytes);
/** Acknowledge at most `bytes` of each stream. */
void peer_acknowledge(struct peer *peer, size_t bytes);
/** Both without a limit, until nothing is queued. */
void peer_flush(struct peer *peer);
/** The connection ends: stream_closed for every stream, then conn_closed. */
void peer_close(struct peer *peer);

/** The oldest stream that the server opened and that comes after `before` (NULL: the first). */
struct peer_stream *peer_next_event_stream(struct peer *peer, const struct peer_stream *before);

#endif
