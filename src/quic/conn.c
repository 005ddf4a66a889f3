/*
 * The life of a connection.
 *
 *   HANDSHAKE  ngtcp2 and GnuTLS exchange; the handler knows nothing yet
 *   READY      conn_ready was called; streams run
 *   CLOSING    we ended it: one CONNECTION_CLOSE went out and is repeated to stragglers, ever more
 *              rarely, for three PTO (RFC 9000, 10.2.1)
 *   DRAINING   the peer ended it, or it died of silence: we stay quiet for three PTO
 *
 * ngtcp2's object and the TLS session are freed on entering CLOSING or DRAINING; what remains is
 * this struct with its ids. Handlers run inside ngtcp2's callbacks and only queue work, because
 * ngtcp2 must not be re-entered; everything is written by conn_flush.
 */
#include "quic/conn.h"

#include <gnutls/crypto.h>
#include <ngtcp2/ngtcp2_crypto_gnutls.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/check.h"
#include "base/clock.h"
#include "quic/cipher.h"
#include "quic/endpoint.h"

#define TURN_BYTES ((size_t)256 << 10) /* one connection's share of a turn */
#define VECS_PER_CALL 16u
#define ACK_EVERY_PACKETS 10u
#define TIMER_SLACK_NS (500 * NS_PER_US)
#define CLIENT_DCID_BYTES 18u
#define ACTIVE_IDS_MAX 16u /* of a peer: ngtcp2 keeps 8, and a few that are on their way out */
#define LOOPBACK_INITIAL_RTT_NS (50 * NS_PER_MS)

/* Sizes tried by path MTU discovery, ascending. The larger ones are such that a whole number of
 * them fills a super-datagram of 65493 bytes, beyond which GSO falls back to software. */
static const uint16_t mtu_probes[] = {1350, 1452, 4092, 8184, 16368, 32744, 65493};

static struct quic_conn *conn_of(void *user_data) {
    struct quic_conn *conn = user_data;
    OBJ_CHECK(conn, CONN_MAGIC);
    return conn;
}

void conn_mark_dirty(struct quic_conn *conn) {
    struct quic_endpoint *endpoint = conn->endpoint;
    if (conn->dirty)
        return;
    conn->dirty = true;
    conn->dirty_next = NULL;
    if (endpoint->dirty_tail != NULL)
        endpoint->dirty_tail->dirty_next = conn;
    else
        endpoint->dirty_head = conn;
    endpoint->dirty_tail = conn;
}

void quic_conn_hurry(struct quic_conn *conn) {
    conn->hurried = true;
    conn->endpoint->hurried = true;
}

void conn_mark_sendable(struct quic_conn *conn, struct quic_stream *stream) {
    if (!stream->in_send_list) {
        stream->in_send_list = true;
        if (conn->send_tail == NULL) {
            stream->send_next = stream;
        } else {
            stream->send_next = conn->send_tail->send_next;
            conn->send_tail->send_next = stream;
        }
        conn->send_tail = stream;
    }
    conn_mark_dirty(conn);
}

/* ---- ngtcp2 callbacks ---- */

static ngtcp2_conn *get_conn(ngtcp2_crypto_conn_ref *ref) {
    return conn_of(ref->user_data)->conn;
}

static void fill_random(uint8_t *dest, size_t len, const ngtcp2_rand_ctx *context) {
    ssize_t got = getrandom(dest, len, 0);
    INVARIANT(got == (ssize_t)len);
}

static int on_new_cid(ngtcp2_conn *lib, ngtcp2_cid *cid, uint8_t *token, size_t cid_bytes,
                      void *user_data) {
    struct quic_conn *conn = conn_of(user_data);
    struct quic_endpoint *endpoint = conn->endpoint;
    struct cid fresh = cid_generate((uint8_t)endpoint->reactor);
    if (cid_bytes != CID_BYTES)
        return NGTCP2_ERR_CALLBACK_FAILURE;
    ngtcp2_cid_init(cid, fresh.bytes, fresh.len);
    if (ngtcp2_crypto_generate_stateless_reset_token(token, endpoint->static_secret,
                                                     sizeof endpoint->static_secret, cid) != 0)
        return NGTCP2_ERR_CALLBACK_FAILURE;
    cid_table_insert(&endpoint->cids, fresh.bytes, fresh.len, conn);
    return 0;
}

static int on_remove_cid(ngtcp2_conn *lib, const ngtcp2_cid *cid, void *user_data) {
    struct quic_conn *conn = conn_of(user_data);
    cid_table_remove(&conn->endpoint->cids, cid->data, cid->datalen);
    return 0;
}

/* Keep-alive well inside the shorter of both idle timeouts. */
static void set_keep_alive(struct quic_conn *conn) {
    const struct quic_settings *settings = &conn->endpoint->settings;
    uint64_t idle_ns = settings->idle_timeout_ms * NS_PER_MS;
    const ngtcp2_transport_params *peer = ngtcp2_conn_get_remote_transport_params(conn->conn);
    if (peer != NULL && peer->max_idle_timeout != 0 && peer->max_idle_timeout < idle_ns)
        idle_ns = peer->max_idle_timeout;
    uint64_t keep_alive_ns = settings->keep_alive_ms * NS_PER_MS;
    if (keep_alive_ns == 0)
        return;
    if (keep_alive_ns > idle_ns / 3)
        keep_alive_ns = idle_ns / 3;
    ngtcp2_conn_set_keep_alive_timeout(conn->conn, keep_alive_ns);
}

static int on_handshake_completed(ngtcp2_conn *lib, void *user_data) {
    struct quic_conn *conn = conn_of(user_data);
    conn->state = CONN_READY;
    if (conn->server)
        conn->endpoint->half_open_count--;
    counter_add(&conn->endpoint->counters.handshakes_done, 1);
    set_keep_alive(conn);
    conn->endpoint->handler->conn_ready(conn);
    return 0;
}

static int on_stream_open(ngtcp2_conn *lib, int64_t id, void *user_data) {
    struct quic_conn *conn = conn_of(user_data);
    struct quic_stream *stream = stream_new(conn, id, true, ngtcp2_is_bidi_stream(id));
    (void)ngtcp2_conn_set_stream_user_data(lib, id, stream);
    conn->endpoint->handler->stream_opened(stream);
    return 0;
}

static int on_stream_data(ngtcp2_conn *lib, uint32_t flags, int64_t id, uint64_t offset,
                          const uint8_t *data, size_t len, void *user_data,
                          void *stream_user_data) {
    struct quic_conn *conn = conn_of(user_data);
    struct quic_stream *stream = stream_user_data;
    if (stream == NULL)
        return 0;
    stream->rx_held_bytes += len;
    conn->rx_held_bytes += len;
    stream->peer_fin = (flags & NGTCP2_STREAM_DATA_FLAG_FIN) != 0;
    conn->endpoint->handler->stream_data(stream, slice_of(data, len), stream->peer_fin);
    return 0;
}

static int on_acked(ngtcp2_conn *lib, int64_t id, uint64_t offset, uint64_t len, void *user_data,
                    void *stream_user_data) {
    struct quic_conn *conn = conn_of(user_data);
    struct quic_stream *stream = stream_user_data;
    if (stream == NULL || len == 0 || stream->write_shut)
        return 0;
    stream_acked(stream, len);
    conn->endpoint->handler->stream_acked(stream);
    return 0;
}

static int on_stream_close(ngtcp2_conn *lib, uint32_t flags, int64_t id, uint64_t app_code,
                           void *user_data, void *stream_user_data) {
    struct quic_conn *conn = conn_of(user_data);
    struct quic_stream *stream = stream_user_data;
    if (!ngtcp2_conn_is_local_stream(lib, id)) {
        if (ngtcp2_is_bidi_stream(id))
            ngtcp2_conn_extend_max_streams_bidi(lib, 1);
        else
            ngtcp2_conn_extend_max_streams_uni(lib, 1);
    }
    if (stream == NULL)
        return 0;
    conn->endpoint->handler->stream_closed(stream);
    if (stream->rx_held_bytes > stream->rx_lent_bytes)
        ngtcp2_conn_extend_max_offset(lib, stream->rx_held_bytes - stream->rx_lent_bytes);
    stream_free(stream);
    return 0;
}

static int on_stream_reset(ngtcp2_conn *lib, int64_t id, uint64_t final_size, uint64_t app_code,
                           void *user_data, void *stream_user_data) {
    struct quic_conn *conn = conn_of(user_data);
    struct quic_stream *stream = stream_user_data;
    if (stream == NULL)
        return 0;
    stream->read_shut = true;
    conn->endpoint->handler->stream_reset(stream, app_code);
    return 0;
}

static int on_extend_stream(ngtcp2_conn *lib, int64_t id, uint64_t max_data, void *user_data,
                            void *stream_user_data) {
    struct quic_stream *stream = stream_user_data;
    if (stream == NULL || !stream->blocked)
        return 0;
    stream_unblock(stream);
    return 0;
}

static int on_extend_streams(ngtcp2_conn *lib, uint64_t max_streams, void *user_data) {
    struct quic_conn *conn = conn_of(user_data);
    if (conn->state == CONN_READY)
        conn->endpoint->handler->streams_available(conn);
    return 0;
}

static const ngtcp2_callbacks callbacks = {
    .client_initial = ngtcp2_crypto_client_initial_cb,
    .recv_client_initial = ngtcp2_crypto_recv_client_initial_cb,
    .recv_crypto_data = ngtcp2_crypto_recv_crypto_data_cb,
    .handshake_completed = on_handshake_completed,
    .encrypt = cipher_encrypt,
    .decrypt = cipher_decrypt,
    .hp_mask = cipher_mask,
    .recv_stream_data = on_stream_data,
    .acked_stream_data_offset = on_acked,
    .stream_open = on_stream_open,
    .stream_close = on_stream_close,
    .recv_retry = ngtcp2_crypto_recv_retry_cb,
    .extend_max_local_streams_bidi = on_extend_streams,
    .extend_max_local_streams_uni = on_extend_streams,
    .rand = fill_random,
    .get_new_connection_id = on_new_cid,
    .remove_connection_id = on_remove_cid,
    .update_key = cipher_update_key,
    .stream_reset = on_stream_reset,
    .extend_max_stream_data = on_extend_stream,
    .delete_crypto_aead_ctx = cipher_delete_aead,
    .delete_crypto_cipher_ctx = cipher_delete_mask,
    .get_path_challenge_data = ngtcp2_crypto_get_path_challenge_data_cb,
    .version_negotiation = ngtcp2_crypto_version_negotiation_cb,
};

/* ---- birth ---- */

static size_t probes_up_to(size_t mtu_max_bytes) {
    size_t count = 0;
    while (count < sizeof mtu_probes / sizeof mtu_probes[0] && mtu_probes[count] <= mtu_max_bytes)
        count++;
    return count;
}

/* `mtu_max_bytes` 0: as the endpoint's settings say; it makes them smaller only. */
static void fill_settings(const struct quic_conn *conn, uint32_t mtu_max_bytes,
                          ngtcp2_settings *out, uint64_t now_ns) {
    const struct quic_settings *settings = &conn->endpoint->settings;
    if (mtu_max_bytes == 0 || mtu_max_bytes > settings->mtu_max_bytes)
        mtu_max_bytes = settings->mtu_max_bytes;
    ngtcp2_settings_default(out);
    out->initial_ts = now_ns;
    out->handshake_timeout = settings->handshake_timeout_ms * NS_PER_MS;
    out->ack_thresh = ACK_EVERY_PACKETS;
    out->max_window = 0; /* the windows are settings: no automatic growth */
    out->max_stream_window = 0;
    if (conn->loopback)
        out->initial_rtt = LOOPBACK_INITIAL_RTT_NS;
    if (settings->initial_mtu_bytes > NGTCP2_MAX_UDP_PAYLOAD_SIZE) {
        out->max_tx_udp_payload_size = settings->initial_mtu_bytes;
        out->no_tx_udp_payload_size_shaping = 1;
        out->no_pmtud = 1;
        return;
    }
    out->pmtud_probes = mtu_probes;
    out->pmtud_probeslen = probes_up_to(mtu_max_bytes);
    out->max_tx_udp_payload_size =
        out->pmtud_probeslen > 0 ? mtu_probes[out->pmtud_probeslen - 1] : 1200;
    out->no_pmtud = out->pmtud_probeslen == 0;
}

static void fill_params(const struct quic_conn *conn, ngtcp2_transport_params *out) {
    const struct quic_settings *settings = &conn->endpoint->settings;
    ngtcp2_transport_params_default(out);
    out->initial_max_data = settings->conn_recv_window_bytes;
    out->initial_max_stream_data_bidi_local = settings->stream_recv_window_bytes;
    out->initial_max_stream_data_bidi_remote = settings->stream_recv_window_bytes;
    out->initial_max_stream_data_uni = settings->stream_recv_window_bytes;
    out->initial_max_streams_bidi = settings->max_streams_bidi;
    out->initial_max_streams_uni = settings->max_streams_uni;
    out->max_idle_timeout = settings->idle_timeout_ms * NS_PER_MS;
    out->max_udp_payload_size = settings->max_udp_payload_bytes;
    out->active_connection_id_limit = 7;
    out->grease_quic_bit = 1;
}

static struct quic_conn *conn_new(struct quic_endpoint *endpoint, struct quic_tls *tls, bool server,
                                  const struct sockaddr_storage *local,
                                  const struct sockaddr_storage *peer, uint64_t now_ns) {
    struct quic_conn *conn = xcalloc(1, sizeof *conn);
    conn->magic = CONN_MAGIC;
    conn->endpoint = endpoint;
    conn->number = ++endpoint->next_number;
    conn->server = server;
    conn->state = CONN_HANDSHAKE;
    conn->tls = quic_tls_ref(tls);
    conn->conn_ref = (ngtcp2_crypto_conn_ref){.get_conn = get_conn, .user_data = conn};
    conn->local = *local;
    conn->peer = *peer;
    conn->loopback = sockaddr_is_loopback(peer);
    conn->heap_index = SIZE_MAX;
    conn->opened_ns = now_ns;
    conn->last_rx_ns = now_ns;
    conn->all_next = endpoint->conns;
    if (endpoint->conns != NULL)
        endpoint->conns->all_prev = conn;
    endpoint->conns = conn;
    endpoint->conn_count++;
    if (server)
        endpoint->half_open_count++;
    return conn;
}

static ngtcp2_path path_of(const struct sockaddr_storage *local,
                           const struct sockaddr_storage *peer) {
    return (ngtcp2_path){
        .local = {.addr = (ngtcp2_sockaddr *)(uintptr_t)local, .addrlen = sockaddr_bytes(local)},
        .remote = {.addr = (ngtcp2_sockaddr *)(uintptr_t)peer, .addrlen = sockaddr_bytes(peer)},
    };
}

struct quic_conn *conn_new_server(struct quic_endpoint *endpoint, const ngtcp2_pkt_hd *hd,
                                  const struct sockaddr_storage *local,
                                  const struct sockaddr_storage *peer, const ngtcp2_cid *odcid,
                                  uint64_t now_ns) {
    struct quic_conn *conn = conn_new(endpoint, endpoint->tls, true, local, peer, now_ns);
    struct cid own = cid_generate((uint8_t)endpoint->reactor);
    ngtcp2_cid scid;
    ngtcp2_cid_init(&scid, own.bytes, own.len);

    ngtcp2_settings settings;
    fill_settings(conn, 0, &settings, now_ns);
    ngtcp2_transport_params params;
    fill_params(conn, &params);
    params.original_dcid_present = 1;
    params.original_dcid = odcid != NULL ? *odcid : hd->dcid;
    if (odcid != NULL) {
        params.retry_scid_present = 1;
        params.retry_scid = hd->dcid;
        settings.token = hd->token;
        settings.tokenlen = hd->tokenlen;
        settings.token_type = NGTCP2_TOKEN_TYPE_RETRY;
    }
    params.stateless_reset_token_present = 1;
    (void)ngtcp2_crypto_generate_stateless_reset_token(params.stateless_reset_token,
                                                       endpoint->static_secret,
                                                       sizeof endpoint->static_secret, &scid);

    ngtcp2_path path = path_of(&conn->local, &conn->peer);
    if (ngtcp2_conn_server_new(&conn->conn, &hd->scid, &scid, &path, hd->version, &callbacks,
                               &settings, &params, NULL, conn) != 0 ||
        quic_tls_session_new(conn->tls, NULL, &conn->conn_ref, &conn->session) != FELIX_OK) {
        conn->told_closed = true; /* the handler never heard of it */
        conn_free(conn);
        return NULL;
    }
    ngtcp2_conn_set_tls_native_handle(conn->conn, conn->session);

    /* The client's first id leads here as long as the connection lives, and so does ours. */
    conn->client_dcid.len = (uint8_t)hd->dcid.datalen;
    memcpy(conn->client_dcid.bytes, hd->dcid.data, hd->dcid.datalen);
    cid_table_insert(&endpoint->cids, hd->dcid.data, hd->dcid.datalen, conn);
    cid_table_insert(&endpoint->cids, own.bytes, own.len, conn);
    return conn;
}

struct quic_conn *conn_new_client(struct quic_endpoint *endpoint, const struct quic_target *target,
                                  void *user, uint64_t now_ns) {
    struct quic_conn *conn =
        conn_new(endpoint, target->tls, false, &endpoint->udp.local, target->peer, now_ns);
    conn->user = user;
    struct cid own = cid_generate((uint8_t)endpoint->reactor);
    ngtcp2_cid scid, dcid;
    ngtcp2_cid_init(&scid, own.bytes, own.len);
    dcid.datalen = CLIENT_DCID_BYTES;
    fill_random(dcid.data, dcid.datalen, NULL);

    ngtcp2_settings settings;
    fill_settings(conn, target->mtu_max_bytes, &settings, now_ns);
    ngtcp2_transport_params params;
    fill_params(conn, &params);

    ngtcp2_path path = path_of(&conn->local, &conn->peer);
    if (ngtcp2_conn_client_new(&conn->conn, &dcid, &scid, &path, NGTCP2_PROTO_VER_V1, &callbacks,
                               &settings, &params, NULL, conn) != 0 ||
        quic_tls_session_new(conn->tls, target->server_name, &conn->conn_ref, &conn->session) !=
            FELIX_OK) {
        conn->told_closed = true;
        conn_free(conn);
        return NULL;
    }
    ngtcp2_conn_set_tls_native_handle(conn->conn, conn->session);
    cid_table_insert(&endpoint->cids, own.bytes, own.len, conn);
    conn_mark_dirty(conn);
    return conn;
}

/* ---- death ---- */

static void set_reason(struct quic_close *close, const uint8_t *reason, size_t len) {
    if (len >= sizeof close->reason)
        len = sizeof close->reason - 1;
    if (len > 0)
        memcpy(close->reason, reason, len);
    close->reason[len] = '\0';
}

static void tell_closed(struct quic_conn *conn) {
    while (conn->streams != NULL) {
        struct quic_stream *stream = conn->streams;
        if (!conn->told_closed)
            conn->endpoint->handler->stream_closed(stream);
        stream_free(stream);
    }
    if (conn->told_closed)
        return;
    conn->told_closed = true;
    counter_add(&conn->endpoint->counters.conns_closed, 1);
    conn->endpoint->handler->conn_closed(conn, &conn->close);
}

/* Remember which ids lead here, because ngtcp2 forgets them with its object. */
static void remember_cids(struct quic_conn *conn) {
    size_t count = ngtcp2_conn_get_scid(conn->conn, NULL);
    ngtcp2_cid *cids = xcalloc(count + 1, sizeof *cids);
    count = ngtcp2_conn_get_scid(conn->conn, cids);
    conn->ended_cids = xcalloc(count + 1, sizeof *conn->ended_cids);
    for (size_t i = 0; i < count; i++) {
        conn->ended_cids[i].len = (uint8_t)cids[i].datalen;
        memcpy(conn->ended_cids[i].bytes, cids[i].data, cids[i].datalen);
    }
    conn->ended_cid_count = count;
    free(cids);
}

/* Leave READY or HANDSHAKE: free what is heavy, tell the handler, linger for three PTO. */
static void end(struct quic_conn *conn, enum conn_state state, uint64_t now_ns) {
    uint64_t linger_ns = 3 * ngtcp2_conn_get_pto(conn->conn);
    if (conn->state == CONN_HANDSHAKE) {
        if (conn->server)
            conn->endpoint->half_open_count--;
        counter_add(&conn->endpoint->counters.handshakes_failed, 1);
    }
    conn->state = state;
    remember_cids(conn);
    tell_closed(conn);
    ngtcp2_conn_del(conn->conn);
    conn->conn = NULL;
    gnutls_deinit(conn->session);
    conn->session = NULL;
    /* A peer that ends connections as fast as it opens them buys no more memory than one that
     * keeps them: stragglers of the rest draw a stateless reset. */
    if (++conn->endpoint->ended_count > conn->endpoint->settings.max_connections)
        linger_ns = 0;
    endpoint_timer_set(conn->endpoint, conn, now_ns + linger_ns);
}

/* The client's address may have changed, and may change back when the new one proves nothing. */
static void follow_path(struct quic_conn *conn) {
    const ngtcp2_path *path = ngtcp2_conn_get_path(conn->conn);
    memcpy(&conn->local, path->local.addr, path->local.addrlen);
    memcpy(&conn->peer, path->remote.addr, path->remote.addrlen);
}

/* Write CONNECTION_CLOSE for `error`, send it, and go to CLOSING. */
static void close_with(struct quic_conn *conn, const ngtcp2_ccerr *error, uint64_t now_ns) {
    uint8_t packet[1500];
    ngtcp2_path_storage path;
    ngtcp2_path_storage_zero(&path);
    ngtcp2_pkt_info info;
    conn->close.code = error->error_code;
    conn->close.application = error->type == NGTCP2_CCERR_TYPE_APPLICATION;
    ngtcp2_ssize len = ngtcp2_conn_write_connection_close(conn->conn, &path.path, &info, packet,
                                                          sizeof packet, error, now_ns);
    if (len > 0) {
        conn->close_packet = xmalloc((size_t)len);
        conn->close_packet_bytes = (size_t)len;
        memcpy(conn->close_packet, packet, (size_t)len);
        udp_send(&conn->endpoint->udp, &conn->local, &conn->peer, packet, (size_t)len, (size_t)len);
        counter_add(&conn->endpoint->counters.datagrams_out, 1);
    }
    end(conn, CONN_CLOSING, now_ns);
}

/* A library error from reading, writing or a timer. */
static void fail(struct quic_conn *conn, int lib_error, uint64_t now_ns) {
    ngtcp2_ccerr error;
    ngtcp2_ccerr_default(&error);
    if (lib_error == NGTCP2_ERR_CRYPTO) {
        ngtcp2_ccerr_set_tls_alert(&error, ngtcp2_conn_get_tls_alert(conn->conn), NULL, 0);
        conn->close.err = FELIX_TLS;
        char text[CONN_REASON_BYTES_MAX] = "";
        const char *alert = gnutls_alert_get_name(ngtcp2_conn_get_tls_alert(conn->conn));
        if (quic_tls_refusal(conn->session, text, sizeof text) == 0 && alert != NULL)
            (void)snprintf(text, sizeof text, "%s", alert);
        set_reason(&conn->close, (const uint8_t *)text, strlen(text));
    } else {
        ngtcp2_ccerr_set_liberr(&error, lib_error, NULL, 0);
        conn->close.err = FELIX_PROTOCOL;
        const char *text = ngtcp2_strerror(lib_error);
        set_reason(&conn->close, (const uint8_t *)text, strlen(text));
    }
    close_with(conn, &error, now_ns);
}

static void peer_closed(struct quic_conn *conn, uint64_t now_ns) {
    const ngtcp2_ccerr *error = ngtcp2_conn_get_ccerr(conn->conn);
    conn->close.by_peer = true;
    conn->close.code = error->error_code;
    conn->close.application = error->type == NGTCP2_CCERR_TYPE_APPLICATION;
    bool tls = error->error_code >= NGTCP2_CRYPTO_ERROR && error->error_code <= 0x1ff;
    conn->close.err = tls && !conn->close.application ? FELIX_TLS : FELIX_CLOSED;
    set_reason(&conn->close, error->reason, error->reasonlen);
    end(conn, CONN_DRAINING, now_ns);
}

static void die_silently(struct quic_conn *conn, enum felix_err err, const char *why,
                         uint64_t now_ns) {
    conn->close.err = err;
    set_reason(&conn->close, (const uint8_t *)why, strlen(why));
    end(conn, CONN_DRAINING, now_ns);
}

void conn_free(struct quic_conn *conn) {
    struct quic_endpoint *endpoint = conn->endpoint;
    if (conn->state == CONN_HANDSHAKE && conn->server)
        endpoint->half_open_count--;
    if (conn->state == CONN_CLOSING || conn->state == CONN_DRAINING)
        endpoint->ended_count--;
    if (conn->conn != NULL) {
        if (conn->close.err == FELIX_OK)
            conn->close.err = FELIX_CLOSED;
        remember_cids(conn);
    }
    INVARIANT(!conn->dirty);
    conn->dirty = true; /* what handlers still write must not bring it back into the list */
    tell_closed(conn);
    if (conn->conn != NULL)
        ngtcp2_conn_del(conn->conn);
    if (conn->session != NULL)
        gnutls_deinit(conn->session);
    for (size_t i = 0; i < conn->ended_cid_count; i++)
        cid_table_remove(&endpoint->cids, conn->ended_cids[i].bytes, conn->ended_cids[i].len);
    if (conn->client_dcid.len > 0 &&
        cid_table_find(&endpoint->cids, conn->client_dcid.bytes, conn->client_dcid.len) == conn)
        cid_table_remove(&endpoint->cids, conn->client_dcid.bytes, conn->client_dcid.len);
    endpoint_timer_clear(endpoint, conn);
    if (conn->all_prev != NULL)
        conn->all_prev->all_next = conn->all_next;
    else
        endpoint->conns = conn->all_next;
    if (conn->all_next != NULL)
        conn->all_next->all_prev = conn->all_prev;
    endpoint->conn_count--;
    quic_tls_unref(conn->tls);
    free(conn->ended_cids);
    free(conn->close_packet);
    conn->magic = 0;
    free(conn);
}

/* ---- reading ---- */

/* CLOSING: repeat our last word, at the 1st, 2nd, 4th, 8th ... straggler. */
static void answer_straggler(struct quic_conn *conn) {
    conn->close_stragglers++;
    if (conn->state != CONN_CLOSING || conn->close_packet == NULL ||
        (conn->close_stragglers & (conn->close_stragglers - 1)) != 0)
        return;
    udp_send(&conn->endpoint->udp, &conn->local, &conn->peer, conn->close_packet,
             conn->close_packet_bytes, conn->close_packet_bytes);
}

bool conn_reset_by(struct quic_conn *conn, const struct sockaddr_storage *peer,
                   struct slice packet) {
    ngtcp2_cid_token ids[ACTIVE_IDS_MAX];
    if (conn->conn == NULL || !sockaddr_equal(peer, &conn->peer) ||
        ngtcp2_conn_get_active_dcid(conn->conn, NULL) > ACTIVE_IDS_MAX)
        return false;
    const uint8_t *token = packet.data + packet.len - NGTCP2_STATELESS_RESET_TOKENLEN;
    size_t count = ngtcp2_conn_get_active_dcid(conn->conn, ids);
    for (size_t i = 0; i < count; i++) {
        if (ids[i].token_present &&
            gnutls_memcmp(ids[i].token, token, NGTCP2_STATELESS_RESET_TOKENLEN) == 0)
            return true;
    }
    return false;
}

void conn_read(struct quic_conn *conn, const struct sockaddr_storage *local,
               const struct sockaddr_storage *peer, struct slice packet, uint64_t now_ns) {
    if (conn->conn == NULL) {
        answer_straggler(conn);
        return;
    }
    conn->packets_in++;
    conn->bytes_in += packet.len;
    conn->last_rx_ns = now_ns;

    /* A client's socket may be bound to any address; which one the kernel chose is its affair. */
    ngtcp2_path path = path_of(conn->server ? local : &conn->local, peer);
    ngtcp2_pkt_info info = {.ecn = NGTCP2_ECN_NOT_ECT};
    int rc = ngtcp2_conn_read_pkt(conn->conn, &path, &info, packet.data, packet.len, now_ns);
    switch (rc) {
    case 0:
        conn_mark_dirty(conn);
        conn->offer_blocked = conn->blocked_count > 0;
        return;
    case NGTCP2_ERR_DRAINING:
        peer_closed(conn, now_ns);
        return;
    case NGTCP2_ERR_RETRY:
    case NGTCP2_ERR_DROP_CONN:
        die_silently(conn, FELIX_PROTOCOL, "dropped during the handshake", now_ns);
        /* Mostly a first packet that nobody can read. Nothing was said: nothing will follow. */
        if (!conn->dirty)
            conn_free(conn);
        return;
    default:
        fail(conn, rc, now_ns);
    }
}

void conn_expire(struct quic_conn *conn, uint64_t now_ns) {
    if (conn->conn == NULL) {
        if (!conn->dirty)
            conn_free(conn);
        else
            endpoint_timer_set(conn->endpoint, conn, now_ns + NS_PER_MS);
        return;
    }
    conn_mark_dirty(conn);
    int rc = ngtcp2_conn_handle_expiry(conn->conn, now_ns);
    if (rc == NGTCP2_ERR_IDLE_CLOSE) {
        counter_add(&conn->endpoint->counters.idle_closed, 1);
        die_silently(conn, FELIX_TIMED_OUT, "idle timeout", now_ns);
    } else if (rc == NGTCP2_ERR_HANDSHAKE_TIMEOUT) {
        die_silently(conn, FELIX_TIMED_OUT, "handshake timeout", now_ns);
    } else if (rc != 0) {
        fail(conn, rc, now_ns);
    }
}

/* ---- writing ---- */

/* ngtcp2 took `bytes` of the stream, and its end if `fin`. */
static void commit(struct quic_conn *conn, struct quic_stream *stream, size_t bytes, bool fin) {
    stream_given(stream, bytes);
    if (fin)
        stream->fin_sent = true;
    if (bytes > 0 && stream->unsent_bytes < TURN_BYTES)
        conn->endpoint->handler->stream_sent(stream); /* may queue more */
    bool more = stream->unsent_bytes > 0 || (stream->fin_queued && !stream->fin_sent);
    if (!more)
        stream_leave_send_list(stream);
    else if (conn->send_tail != NULL)
        conn->send_tail = conn->send_tail->send_next; /* the next stream's turn */
}

enum offer_result { OFFER_NEXT, OFFER_NONE_LEFT, OFFER_FAILED };

/* What a negative result of ngtcp2_conn_writev_stream means for the stream that was offered. */
static enum offer_result refused(struct quic_conn *conn, struct quic_stream *stream, int rc) {
    switch (rc) {
    case NGTCP2_ERR_STREAM_DATA_BLOCKED:
        if (ngtcp2_conn_get_max_data_left(conn->conn) == 0)
            return OFFER_NONE_LEFT; /* the connection's window: no stream can go on */
        conn->blocked_count += stream->blocked ? 0 : 1;
        stream->blocked = true;
        stream_leave_send_list(stream);
        return OFFER_NEXT;
    case NGTCP2_ERR_STREAM_SHUT_WR:
    case NGTCP2_ERR_STREAM_NOT_FOUND:
        /* The peer sent STOP_SENDING, which ngtcp2 has answered with RESET_STREAM. Its callback
         * stream_stop_sending is about our own stops and does not tell. */
        stream_shut_write(stream);
        conn->endpoint->handler->stream_stopped(stream, 0);
        return OFFER_NEXT;
    default:
        return OFFER_FAILED;
    }
}

/* Fill one packet at `dest`. 0: nothing (more) to send now. Negative: a fatal library error. */
static ngtcp2_ssize write_packet(struct quic_conn *conn, ngtcp2_path *path, uint8_t *dest,
                                 size_t dest_bytes, uint64_t now_ns) {
    bool offer = true;
    for (;;) {
        struct quic_stream *stream =
            offer && conn->send_tail != NULL ? conn->send_tail->send_next : NULL;
        ngtcp2_vec vecs[VECS_PER_CALL];
        size_t vec_count = 0;
        bool fin = false;
        uint32_t flags = NGTCP2_WRITE_STREAM_FLAG_NONE;
        if (stream != NULL) {
            bool all = false;
            vec_count = stream_unsent_vecs(stream, vecs, VECS_PER_CALL, dest_bytes, &all);
            fin = all && stream->fin_queued && !stream->fin_sent;
            flags = NGTCP2_WRITE_STREAM_FLAG_MORE | (fin ? NGTCP2_WRITE_STREAM_FLAG_FIN : 0);
        }
        size_t offered = 0;
        for (size_t i = 0; i < vec_count; i++)
            offered += vecs[i].len;

        ngtcp2_ssize taken = -1;
        ngtcp2_pkt_info info;
        ngtcp2_ssize len =
            ngtcp2_conn_writev_stream(conn->conn, path, &info, dest, dest_bytes, &taken, flags,
                                      stream != NULL ? stream->id : -1, vecs, vec_count, now_ns);
        if (len == NGTCP2_ERR_WRITE_MORE || len >= 0) {
            if (stream != NULL && taken >= 0)
                commit(conn, stream, (size_t)taken, fin && (size_t)taken == offered);
            if (len >= 0)
                return len;
            continue;
        }
        if (stream == NULL)
            return len;
        switch (refused(conn, stream, (int)len)) {
        case OFFER_NEXT:
            break;
        case OFFER_NONE_LEFT:
            offer = false;
            break;
        case OFFER_FAILED:
            return len;
        }
    }
}

/* Packets of equal size that leave in one system call. */
struct train {
    uint8_t *memory;
    size_t used, segment_bytes, segments;
    struct sockaddr_storage local, peer;
};

static void train_send(struct quic_conn *conn, struct train *train) {
    if (train->used == 0)
        return;
    udp_send(&conn->endpoint->udp, &train->local, &train->peer, train->memory, train->used,
             train->segment_bytes);
    counter_add(&conn->endpoint->counters.datagrams_out, train->segments);
    counter_add(&conn->endpoint->counters.bytes_out, train->used);
    conn->packets_out += train->segments;
    conn->bytes_out += train->used;
    train->used = 0;
    train->segments = 0;
}

/* A packet of `len` bytes was written behind the train: couple it, or let the train go first. One
 * that asks whether the path carries more goes alone: the system may refuse its size, and with it
 * everything that leaves in the same call. */
static void train_add(struct quic_conn *conn, struct train *train, const ngtcp2_path *path,
                      size_t len) {
    struct sockaddr_storage local = {0}, peer = {0};
    memcpy(&local, path->local.addr, path->local.addrlen);
    memcpy(&peer, path->remote.addr, path->remote.addrlen);
    bool fits = train->segments > 0 && len <= train->segment_bytes &&
                sockaddr_equal(&peer, &train->peer) && sockaddr_equal(&local, &train->local);
    if (!fits && train->segments > 0) {
        size_t at = train->used;
        train_send(conn, train);
        memmove(train->memory, train->memory + at, len);
    }
    bool probe = false;
    if (train->segments == 0) { /* none behind the first is larger */
        probe = len > ngtcp2_conn_get_path_max_tx_udp_payload_size(conn->conn);
        train->segment_bytes = len;
        train->local = local;
        train->peer = peer;
    }
    train->used += len;
    train->segments++;
    bool full = probe || len < train->segment_bytes || train->segments == UDP_GSO_SEGMENTS_MAX ||
                train->used + train->segment_bytes > UDP_GSO_BYTES_MAX;
    if (full)
        train_send(conn, train);
}

static void set_timer(struct quic_conn *conn, uint64_t now_ns) {
    uint64_t due_ns = ngtcp2_conn_get_expiry(conn->conn);
    if (due_ns == UINT64_MAX) {
        endpoint_timer_clear(conn->endpoint, conn);
        return;
    }
    /* An acknowledgement timer of a few microseconds would double the packets of a
     * request-and-reply load; with data waiting the pacer's time is kept. */
    if (conn->send_tail == NULL && due_ns < conn->last_rx_ns + TIMER_SLACK_NS)
        due_ns = conn->last_rx_ns + TIMER_SLACK_NS;
    endpoint_timer_set(conn->endpoint, conn, due_ns > now_ns ? due_ns : now_ns + 1);
}

/* A stream that waits for its window may have been stopped instead, and ngtcp2 tells only whoever
 * offers it bytes: offer again after something was received. */
static void offer_blocked(struct quic_conn *conn) {
    if (!conn->offer_blocked)
        return;
    conn->offer_blocked = false;
    for (struct quic_stream *stream = conn->streams; stream != NULL; stream = stream->all_next) {
        if (stream->blocked)
            stream_unblock(stream);
    }
}

bool conn_flush(struct quic_conn *conn, uint64_t now_ns) {
    if (conn->conn == NULL)
        return true;
    offer_blocked(conn);
    struct quic_endpoint *endpoint = conn->endpoint;
    struct train train = {.memory = endpoint->send_memory};
    ngtcp2_path_storage path;
    ngtcp2_path_storage_zero(&path);
    size_t written = 0;
    bool done = false;

    while (written < TURN_BYTES && !udp_blocked(&endpoint->udp)) {
        ngtcp2_ssize len = write_packet(conn, &path.path, train.memory + train.used,
                                        ENDPOINT_SEND_BYTES - train.used, now_ns);
        if (len < 0) {
            train_send(conn, &train);
            fail(conn, (int)len, now_ns);
            return true;
        }
        if (len == 0) {
            done = true;
            break;
        }
        written += (size_t)len;
        train_add(conn, &train, &path.path, (size_t)len);
    }
    train_send(conn, &train);
    follow_path(conn); /* writing is where ngtcp2 gives up a path that did not prove itself */
    if (!conn->loopback)
        ngtcp2_conn_update_pkt_tx_time(conn->conn, now_ns);

    if (conn->close_wanted && done) {
        ngtcp2_ccerr error;
        ngtcp2_ccerr_set_application_error(&error, conn->close_code,
                                           (const uint8_t *)conn->close.reason,
                                           strlen(conn->close.reason));
        conn->close.err = FELIX_CLOSED;
        close_with(conn, &error, now_ns);
        return true;
    }
    set_timer(conn, now_ns);
    return done;
}

/* ---- for the layers above ---- */

static struct quic_stream *open_stream(struct quic_conn *conn, void *user, bool bidi) {
    int64_t id = -1;
    if (conn->state != CONN_READY || conn->close_wanted)
        return NULL;
    int rc = bidi ? ngtcp2_conn_open_bidi_stream(conn->conn, &id, NULL)
                  : ngtcp2_conn_open_uni_stream(conn->conn, &id, NULL);
    if (rc != 0)
        return NULL;
    struct quic_stream *stream = stream_new(conn, id, bidi, true);
    stream->user = user;
    (void)ngtcp2_conn_set_stream_user_data(conn->conn, id, stream);
    return stream;
}

struct quic_stream *quic_open_bidi(struct quic_conn *conn, void *user) {
    return open_stream(conn, user, true);
}

struct quic_stream *quic_open_uni(struct quic_conn *conn, void *user) {
    return open_stream(conn, user, false);
}

void quic_conn_close(struct quic_conn *conn, uint64_t app_code, const char *reason) {
    if (conn->close_wanted || conn->conn == NULL)
        return;
    conn->close_wanted = true;
    conn->close_code = app_code;
    set_reason(&conn->close, (const uint8_t *)reason, strlen(reason));
    conn_mark_dirty(conn);
}

enum felix_err quic_conn_update_key(struct quic_conn *conn) {
    if (conn->state != CONN_READY)
        return FELIX_NOT_CONNECTED;
    if (ngtcp2_conn_initiate_key_update(conn->conn, conn->endpoint->now_ns) != 0)
        return FELIX_WOULD_BLOCK;
    conn_mark_dirty(conn);
    return FELIX_OK;
}

const char *quic_conn_peer_text(const struct quic_conn *conn, char out[64]) {
    return sockaddr_text(&conn->peer, out);
}

bool quic_conn_wrote(const struct quic_conn *conn, struct slice datagram) {
    ngtcp2_version_cid ids;
    if (conn->conn == NULL)
        return false;
    const ngtcp2_cid *peer = ngtcp2_conn_get_dcid(conn->conn);
    int rc = ngtcp2_pkt_decode_version_cid(&ids, datagram.data, datagram.len, peer->datalen);
    return (rc == 0 || rc == NGTCP2_ERR_VERSION_NEGOTIATION) && ids.dcidlen == peer->datalen &&
           memcmp(ids.dcid, peer->data, peer->datalen) == 0;
}

void quic_conn_info(const struct quic_conn *conn, struct quic_conn_info *ret) {
    *ret = (struct quic_conn_info){0};
    if (conn->conn == NULL)
        return;
    ngtcp2_conn_info info;
    ngtcp2_conn_get_conn_info(conn->conn, &info);
    ret->smoothed_rtt_ns = info.smoothed_rtt;
    ret->min_rtt_ns = info.min_rtt;
    ret->cwnd_bytes = info.cwnd;
    ret->bytes_in_flight = info.bytes_in_flight;
    ret->path_mtu_bytes = ngtcp2_conn_get_path_max_tx_udp_payload_size(conn->conn);
}
