/*
 * A QUIC endpoint: one UDP socket, its connections, their timers. Belongs to one thread.
 *
 * A turn of the owner's loop is: endpoint_receive() until the socket is empty, then the owner's
 * own work, then endpoint_flush(), then wait until endpoint_deadline(). Handlers are called from
 * endpoint_receive() and endpoint_flush() (timers) and may queue writes, open streams, stop,
 * reset and close; nothing is sent before the flush.
 */
#ifndef QUIC_ENDPOINT_H
#define QUIC_ENDPOINT_H

#include "base/counter.h"
#include "base/loop.h"
#include "quic/conn.h"
#include "quic/udp.h"

/* Upcalls into session or client. All are required. */
struct quic_handler {
    /* The handshake is complete and streams may be opened. Server: set conn->user here. */
    void (*conn_ready)(struct quic_conn *conn);
    /* The last call for a connection; its streams have had stream_closed before. */
    void (*conn_closed)(struct quic_conn *conn, const struct quic_close *close);
    /* The peer opened a stream; set stream->user. */
    void (*stream_opened)(struct quic_stream *stream);
    /* Bytes in order, borrowed; consume them with quic_stream_consume, now or later.
     * `fin`: nothing follows. */
    void (*stream_data)(struct quic_stream *stream, struct slice data, bool fin);
    /* The peer abandoned its sending side. */
    void (*stream_reset)(struct quic_stream *stream, uint64_t app_code);
    /* The peer refuses our bytes; the queue is already dropped. Told as long as there is something
     * to send, else at the next write. ngtcp2 keeps the peer's code to itself: app_code is 0. */
    void (*stream_stopped)(struct quic_stream *stream, uint64_t app_code);
    /* The peer acknowledged bytes: unacked_bytes went down. */
    void (*stream_acked)(struct quic_stream *stream);
    /* Given to the network: unsent_bytes went down. May only write to and finish this stream. */
    void (*stream_sent)(struct quic_stream *stream);
    /* Both sides are over; the stream is freed when this returns. */
    void (*stream_closed)(struct quic_stream *stream);
    /* The peer grants more streams. */
    void (*streams_available)(struct quic_conn *conn);
    /* A datagram for another reactor of the same port arrived here; the bytes are borrowed. */
    void (*forward)(struct quic_endpoint *endpoint, unsigned reactor,
                    const struct sockaddr_storage *local, const struct sockaddr_storage *peer,
                    struct slice packet);
};

struct quic_settings {
    uint64_t conn_recv_window_bytes;
    uint64_t stream_recv_window_bytes;
    uint32_t max_streams_bidi;
    uint32_t max_streams_uni;
    uint32_t idle_timeout_ms;
    uint32_t keep_alive_ms; /* at most; never longer than a third of the idle timeout */
    uint32_t handshake_timeout_ms;
    uint32_t initial_mtu_bytes;     /* first datagrams; 1200 unless set */
    uint32_t mtu_max_bytes;         /* path MTU probes end here */
    uint32_t max_udp_payload_bytes; /* largest datagram accepted */
    uint32_t udp_send_buffer_bytes;
    uint32_t udp_recv_buffer_bytes;
    uint32_t max_connections; /* those that ended and linger do not count */
    uint32_t max_half_open;   /* above it a new Initial must bring a Retry token */
};

struct quic_endpoint_options {
    const struct quic_settings *settings;
    const struct quic_handler *handler;
    void *user;
    struct sockaddr_storage bind; /* port 0: any */
    struct quic_tls *tls;         /* server; shares. NULL: an endpoint that only connects */
    unsigned reactor;             /* index and number of the endpoints that share the port */
    unsigned reactor_count;
    uint8_t static_secret[32]; /* Retry and stateless reset; the same for all of a node */
};

/* Room for a whole super-datagram and, behind it, the largest packet. */
#define ENDPOINT_SEND_BYTES ((size_t)136 << 10)

struct quic_counters {
    counter datagrams_in, datagrams_out, bytes_in, bytes_out, recv_calls, send_calls, send_errors;
    counter handshakes_done, handshakes_failed, conns_closed, conns_refused;
    counter half_open; /* gauge */
    counter retries_sent, tokens_invalid, resets_sent, version_negotiations_sent;
    counter datagrams_dropped, datagrams_forwarded, idle_closed;
};

struct quic_endpoint {
    struct quic_settings settings;
    const struct quic_handler *handler;
    void *user;
    struct quic_tls *tls;
    unsigned reactor, reactor_count;
    uint8_t static_secret[32];
    struct udp_socket udp;
    struct cid_table cids;
    struct quic_conn *conns; /* all */
    size_t conn_count;
    size_t ended_count; /* of these: closing or draining */
    size_t half_open_count;
    uint64_t next_number;
    struct quic_conn *dirty_head, *dirty_tail;
    bool hurried;            /* a dirty connection asked to be written first */
    struct quic_conn **heap; /* timers, earliest first */
    size_t heap_count, heap_capacity;
    uint64_t now_ns; /* of this turn: time never goes backwards for a connection */
    bool accepting;
    uint64_t next_reset_ns; /* rate limit of stateless resets and version negotiations */
    uint8_t *send_memory;
    struct quic_counters counters;
};

/** Binds the socket. Returns owned; FELIX_SYSTEM with the address in reterr. */
enum felix_err quic_endpoint_new(const struct quic_endpoint_options *options,
                                 struct quic_endpoint **ret, struct felix_error *reterr);

/** Frees all connections silently (conn_closed is called) and closes the socket. */
void quic_endpoint_free(struct quic_endpoint *endpoint);

/** Port that the socket is bound to, host order. */
uint16_t quic_endpoint_port(const struct quic_endpoint *endpoint);

/** Read at most a turn's worth of datagrams; true when the socket may hold more. */
bool quic_endpoint_receive(struct quic_endpoint *endpoint, uint64_t now_ns);

/** A datagram that another reactor handed over. */
void quic_endpoint_deliver(struct quic_endpoint *endpoint, const struct sockaddr_storage *local,
                           const struct sockaddr_storage *peer, struct slice packet,
                           uint64_t now_ns);

/** Run due timers, then write what all dirty connections have to say; true when connections are
 * left that exceeded their share of the turn and want another one. */
bool quic_endpoint_flush(struct quic_endpoint *endpoint, uint64_t now_ns);

/** When the next timer is due; LOOP_NO_DEADLINE without any. */
uint64_t quic_endpoint_deadline(const struct quic_endpoint *endpoint);

/** Does data wait for the time at which the pacer lets it go, or for its congestion window? Looks
 * at every connection. */
bool quic_endpoint_is_paced(const struct quic_endpoint *endpoint);

/** Is the socket's send buffer full, so that EPOLLOUT must be awaited? */
bool quic_endpoint_blocked(const struct quic_endpoint *endpoint);

/** Stop or resume accepting new connections; existing ones go on. */
void quic_endpoint_accept(struct quic_endpoint *endpoint, bool accepting);

/** New credentials for connections from now on. Shares `tls`. */
void quic_endpoint_set_tls(struct quic_endpoint *endpoint, struct quic_tls *tls);

/* Where a connection leads. All borrowed for the call. */
struct quic_target {
    struct quic_tls *tls;
    const char *server_name; /* that the certificate must carry */
    const struct sockaddr_storage *peer;
    uint32_t mtu_max_bytes; /* path MTU probes end here; 0: where the settings say */
};

/**
 * Start a connection to `target`. The handler's conn_ready or conn_closed follows. Returns NULL
 * when TLS cannot be set up.
 */
struct quic_conn *quic_connect(struct quic_endpoint *endpoint, const struct quic_target *target,
                               void *user, uint64_t now_ns);

/* ---- timers, for conn.c only ---- */
void endpoint_timer_set(struct quic_endpoint *endpoint, struct quic_conn *conn, uint64_t due_ns);
void endpoint_timer_clear(struct quic_endpoint *endpoint, struct quic_conn *conn);

#endif
