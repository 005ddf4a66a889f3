/*
 * One QUIC connection over ngtcp2, for broker and client alike. Belongs to its endpoint's thread.
 */
#ifndef QUIC_CONN_H
#define QUIC_CONN_H

#include "base/buf.h"
#include "base/err.h"
#include "quic/cid.h"
#include "quic/stream.h"
#include "quic/tls.h"

#include <netinet/in.h>
#include <ngtcp2/ngtcp2.h>
#include <ngtcp2/ngtcp2_crypto.h>
#include <sys/socket.h>

struct quic_endpoint;
struct quic_target;

enum conn_state {
    CONN_HANDSHAKE,
    CONN_READY,
    CONN_CLOSING, /* a CONNECTION_CLOSE was sent; kept for three PTO to answer stragglers */
    CONN_DRAINING /* the peer closed; kept for three PTO so that stragglers draw no reset */
};

#define CONN_REASON_BYTES_MAX 128

/* Why a connection ended, as the handler sees it. */
struct quic_close {
    bool by_peer;
    bool application; /* code is an application code, else a transport or TLS one */
    uint64_t code;
    enum felix_err err; /* TIMED_OUT, CLOSED, TLS, PROTOCOL, NOT_CONNECTED... */
    char reason[CONN_REASON_BYTES_MAX];
};

#define CONN_MAGIC 0x51434e4eu

struct quic_conn {
    uint32_t magic;
    struct quic_endpoint *endpoint;
    void *user;      /* the handler's */
    uint64_t number; /* unique in the endpoint, never reused */
    bool server;
    enum conn_state state;

    ngtcp2_conn *conn; /* NULL once closing or draining */
    gnutls_session_t session;
    struct quic_tls *tls;
    ngtcp2_crypto_conn_ref conn_ref;
    struct sockaddr_storage local; /* address of the endpoint's socket that the peer uses */
    struct sockaddr_storage peer;  /* where it is now: it may move */
    struct cid client_dcid;        /* server: the id that the client chose first */
    struct cid *ended_cids;        /* once closing: the ids that still lead here */
    size_t ended_cid_count;
    bool loopback; /* the peer is on this machine: no pacing, large datagrams */

    struct quic_stream *streams;   /* all */
    struct quic_stream *send_tail; /* circular list; tail->send_next is the head */
    size_t stream_count;
    size_t blocked_count; /* streams that wait for their window */
    bool offer_blocked;   /* ask again at the next flush whether they still do */
    size_t unacked_bytes; /* of all streams */
    size_t rx_held_bytes;

    bool dirty;   /* in the endpoint's list of connections to flush */
    bool hurried; /* flushed before the others */
    struct quic_conn *dirty_next;
    struct quic_conn *all_prev;
    struct quic_conn *all_next;
    size_t heap_index;  /* in the timer heap; SIZE_MAX when absent */
    uint64_t expiry_ns; /* of the timer heap */
    uint64_t last_rx_ns;
    uint64_t opened_ns;
    uint64_t packets_in, packets_out, bytes_in, bytes_out;

    bool close_wanted; /* quic_conn_close was called: done at the next flush */
    bool close_application;
    uint64_t close_code;
    bool told_closed; /* conn_closed was delivered */
    struct quic_close close;
    uint8_t *close_packet; /* sent again to stragglers */
    size_t close_packet_bytes;
    uint32_t close_stragglers;
};

/**
 * Open a stream of ours. NULL when the peer grants no more streams at the moment (the handler's
 * streams_available follows) or the connection is not ready. May be called from handlers.
 */
struct quic_stream *quic_open_bidi(struct quic_conn *conn, void *user);
struct quic_stream *quic_open_uni(struct quic_conn *conn, void *user);

/** Close with an application code and reason after what this turn still sends. Idempotent;
 * conn_closed follows from the next flush. May be called from handlers. */
void quic_conn_close(struct quic_conn *conn, uint64_t app_code, const char *reason);

/** Begin a key update; FELIX_WOULD_BLOCK while the previous one is unconfirmed. For tests. */
enum felix_err quic_conn_update_key(struct quic_conn *conn);

/** The peer's address as text, for example "127.0.0.1:40000", into a buffer of 64 bytes. */
const char *quic_conn_peer_text(const struct quic_conn *conn, char out[64]);

/** Was `datagram`, as an error queue gives it back, perhaps without its end, addressed to the id
 * that this connection's peer goes by now? */
bool quic_conn_wrote(const struct quic_conn *conn, struct slice datagram);

/** What was just written on this connection leaves before what others have to say this turn. */
void quic_conn_hurry(struct quic_conn *conn);

struct quic_conn_info {
    uint64_t smoothed_rtt_ns, min_rtt_ns, cwnd_bytes, bytes_in_flight;
    size_t path_mtu_bytes;
};
void quic_conn_info(const struct quic_conn *conn, struct quic_conn_info *ret);

/* ---- for the endpoint only ---- */

struct quic_conn *conn_new_server(struct quic_endpoint *endpoint, const ngtcp2_pkt_hd *hd,
                                  const struct sockaddr_storage *local,
                                  const struct sockaddr_storage *peer, const ngtcp2_cid *odcid,
                                  uint64_t now_ns);
struct quic_conn *conn_new_client(struct quic_endpoint *endpoint, const struct quic_target *target,
                                  void *user, uint64_t now_ns);
/** Is `packet`, a short header from `peer` with an id that leads nowhere, the stateless reset of
 * this connection (RFC 9000, 10.3.1)? It has more bytes than a token. */
bool conn_reset_by(struct quic_conn *conn, const struct sockaddr_storage *peer,
                   struct slice packet);
/** May free `conn`. */
void conn_read(struct quic_conn *conn, const struct sockaddr_storage *local,
               const struct sockaddr_storage *peer, struct slice packet, uint64_t now_ns);
/** Write what may be written; false when the turn's budget or the socket ended it early. */
bool conn_flush(struct quic_conn *conn, uint64_t now_ns);
void conn_expire(struct quic_conn *conn, uint64_t now_ns);
/** Free everything at once, without a word to the peer. Tells the handler unless told. */
void conn_free(struct quic_conn *conn);
void conn_mark_dirty(struct quic_conn *conn);
/** Put a stream with something to send into the connection's send list. */
void conn_mark_sendable(struct quic_conn *conn, struct quic_stream *stream);
struct quic_stream *stream_new(struct quic_conn *conn, int64_t id, bool can_read, bool can_write);
void stream_free(struct quic_stream *stream);
/** Drop references of what the peer has acknowledged: `bytes` more from the front. */
void stream_acked(struct quic_stream *stream, size_t bytes);
/** Nothing more will be sent: forget what was not given to ngtcp2. */
void stream_shut_write(struct quic_stream *stream);
void stream_leave_send_list(struct quic_stream *stream);
/** A blocked stream may try again; into the send list if it has something to say. */
void stream_unblock(struct quic_stream *stream);
/** Point `vecs` at queued bytes, oldest first, until vec_max vectors or bytes_max bytes are
 * reached; *ret_all tells whether everything queued is covered. Returns the vectors filled. */
size_t stream_unsent_vecs(struct quic_stream *stream, ngtcp2_vec *vecs, size_t vec_max,
                          size_t bytes_max, bool *ret_all);
/** ngtcp2 took `bytes` of what stream_unsent_vecs showed. */
void stream_given(struct quic_stream *stream, size_t bytes);

#endif
