#include "pair.h"

#include <gnutls/abstract.h>
#include <gnutls/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"

#define BLOCK_BYTES ((size_t)32 << 10)
#define AHEAD_BYTES ((size_t)128 << 10) /* queued but not yet given to the network */

struct pair pair;

/* ---- content: a byte is known by its stream, its direction and its place ---- */

static uint8_t byte_at(int64_t id, bool from_server, uint64_t at) {
    uint64_t salt = (uint64_t)id * 2 + from_server;
    return (uint8_t)(at + salt * 89 + (((at >> 8) * 0x9e3779b97f4a7c15ull) >> 56));
}

static struct buf *block_of(const struct traffic *traffic, size_t bytes) {
    struct buf *block = buf_new(bytes);
    for (size_t i = 0; i < bytes; i++)
        block->data[i] = byte_at(traffic->id, traffic->stream->conn->server, traffic->queued + i);
    return block;
}

/* Keep some bytes queued as long as there are any left to send. */
static void feed(struct traffic *traffic) {
    struct quic_stream *stream = traffic->stream;
    while (stream != NULL && traffic->queued < traffic->to_send && !stream->write_shut &&
           stream->unsent_bytes < AHEAD_BYTES) {
        uint64_t left = traffic->to_send - traffic->queued;
        size_t bytes = left < BLOCK_BYTES ? (size_t)left : BLOCK_BYTES;
        struct buf *block = block_of(traffic, bytes);
        traffic->queued += bytes;
        (void)quic_stream_write(stream, block, block->data, bytes);
    }
    if (stream != NULL && traffic->finish && traffic->queued == traffic->to_send)
        quic_stream_finish(stream);
}

/* ---- the handler ---- */

static struct party *party_of(const struct quic_conn *conn) {
    return conn->endpoint->user;
}

static struct traffic *traffic_new(struct party *party, struct quic_stream *stream) {
    INVARIANT(party->traffic_count < PARTY_STREAMS_MAX);
    struct traffic *traffic = &party->traffic[party->traffic_count++];
    *traffic = (struct traffic){.stream = stream, .id = stream->id, .hold = party->hold};
    stream->user = traffic;
    return traffic;
}

static void on_ready(struct quic_conn *conn) {
    struct party *party = party_of(conn);
    party->conn = conn;
    party->ready++;
}

static void on_closed(struct quic_conn *conn, const struct quic_close *close) {
    struct party *party = party_of(conn);
    party->closed++;
    party->close = *close;
    if (party->conn == conn)
        party->conn = NULL;
}

static void on_opened(struct quic_stream *stream) {
    (void)traffic_new(party_of(stream->conn), stream);
}

static void on_data(struct quic_stream *stream, struct slice data, bool fin) {
    struct traffic *traffic = stream->user;
    struct party *party = party_of(stream->conn);
    for (size_t i = 0; i < data.len; i++) {
        if (data.data[i] != byte_at(stream->id, !stream->conn->server, traffic->received + i))
            traffic->wrong = true;
    }
    traffic->received += data.len;
    traffic->fin = traffic->fin || fin;
    if (traffic->hold)
        traffic->held += data.len;
    else
        quic_stream_consume(stream, data.len);
    if (party->alone)
        quic_stream_hold_alone(stream);
    if (stream->conn->rx_held_bytes > party->held_max)
        party->held_max = stream->conn->rx_held_bytes;
}

static void on_reset(struct quic_stream *stream, uint64_t app_code) {
    struct traffic *traffic = stream->user;
    traffic->reset = true;
    traffic->reset_code = app_code;
}

static void on_stopped(struct quic_stream *stream, uint64_t app_code) {
    ((struct traffic *)stream->user)->stopped = true;
}

static void on_acked(struct quic_stream *stream) {
    struct party *party = party_of(stream->conn);
    if (stream->conn->unacked_bytes > party->unacked_max)
        party->unacked_max = stream->conn->unacked_bytes;
}

static void on_sent(struct quic_stream *stream) {
    feed(stream->user);
}

static void on_stream_closed(struct quic_stream *stream) {
    struct traffic *traffic = stream->user;
    traffic->closed = true;
    traffic->stream = NULL;
}

static void on_granted(struct quic_conn *conn) {
    party_of(conn)->granted++;
}

static void on_forward(struct quic_endpoint *endpoint, unsigned reactor,
                       const struct sockaddr_storage *local, const struct sockaddr_storage *peer,
                       struct slice packet) {
    struct party *to = reactor == 0 ? &pair.server : &pair.second;
    ((struct party *)endpoint->user)->forwarded++;
    quic_endpoint_deliver(to->endpoint, local, peer, packet, net.now_ns);
}

static const struct quic_handler handler = {
    .conn_ready = on_ready,
    .conn_closed = on_closed,
    .stream_opened = on_opened,
    .stream_data = on_data,
    .stream_reset = on_reset,
    .stream_stopped = on_stopped,
    .stream_acked = on_acked,
    .stream_sent = on_sent,
    .stream_closed = on_stream_closed,
    .streams_available = on_granted,
    .forward = on_forward,
};

/* ---- certificates ---- */

static void write_pem(const char *path, const gnutls_datum_t *pem) {
    FILE *out = fopen(path, "we");
    INVARIANT(out != NULL);
    assert_int_equal(fwrite(pem->data, 1, pem->size, out), pem->size);
    assert_int_equal(fclose(out), 0);
}

/* A key and a certificate for "localhost", signed by itself. */
static void write_certificate(const char *cert_path, const char *key_path) {
    gnutls_x509_privkey_t key;
    gnutls_x509_crt_t cert;
    gnutls_datum_t pem = {0};
    time_t now_s = time(NULL);
    assert_int_equal(gnutls_x509_privkey_init(&key), 0);
    assert_int_equal(gnutls_x509_privkey_generate(
                         key, GNUTLS_PK_ECDSA, GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0),
                     0);
    assert_int_equal(gnutls_x509_crt_init(&cert), 0);
    (void)gnutls_x509_crt_set_version(cert, 3);
    (void)gnutls_x509_crt_set_serial(cert, "\x01", 1);
    (void)gnutls_x509_crt_set_activation_time(cert, now_s - 3600);
    (void)gnutls_x509_crt_set_expiration_time(cert, now_s + 86400);
    (void)gnutls_x509_crt_set_dn_by_oid(cert, GNUTLS_OID_X520_COMMON_NAME, 0, "localhost", 9);
    (void)gnutls_x509_crt_set_subject_alt_name(cert, GNUTLS_SAN_DNSNAME, "localhost", 9, 0);
    (void)gnutls_x509_crt_set_key(cert, key);
    assert_int_equal(gnutls_x509_crt_sign2(cert, cert, key, GNUTLS_DIG_SHA256, 0), 0);
    assert_int_equal(gnutls_x509_crt_export2(cert, GNUTLS_X509_FMT_PEM, &pem), 0);
    write_pem(cert_path, &pem);
    gnutls_free(pem.data);
    assert_int_equal(gnutls_x509_privkey_export2_pkcs8(key, GNUTLS_X509_FMT_PEM, NULL, 0, &pem), 0);
    write_pem(key_path, &pem);
    gnutls_free(pem.data);
    gnutls_x509_crt_deinit(cert);
    gnutls_x509_privkey_deinit(key);
}

static void make_tls(enum quic_cipher server, enum quic_cipher client) {
    char folder[] = "/tmp/felix-quic-XXXXXX";
    char cert[64], key[64];
    assert_non_null(mkdtemp(folder));
    (void)snprintf(cert, sizeof cert, "%s/cert.pem", folder);
    (void)snprintf(key, sizeof key, "%s/key.pem", folder);
    write_certificate(cert, key);
    assert_int_equal(quic_tls_server_new(cert, key, false, server, &pair.server_tls, NULL),
                     FELIX_OK);
    assert_int_equal(quic_tls_client_new(cert, client, &pair.client_tls, NULL), FELIX_OK);
    (void)unlink(cert);
    (void)unlink(key);
    (void)rmdir(folder);
}

/* ---- endpoints ---- */

static void open_party(struct party *party, const struct sockaddr_storage *address,
                       struct quic_tls *tls, unsigned reactor, unsigned count) {
    struct quic_endpoint_options options = {
        .settings = &pair.settings,
        .handler = &handler,
        .user = party,
        .bind = *address,
        .tls = tls,
        .reactor = reactor,
        .reactor_count = count,
        .static_secret = {7, 7, 7},
    };
    *party = (struct party){0};
    assert_int_equal(quic_endpoint_new(&options, &party->endpoint, NULL), FELIX_OK);
}

void party_open_server(struct party *party, unsigned reactor, unsigned count) {
    open_party(party, &pair.server_address, pair.server_tls, reactor, count);
}

void party_open_client(struct party *party, const struct sockaddr_storage *address) {
    open_party(party, address, NULL, 0, 1);
}

void party_close(struct party *party) {
    quic_endpoint_free(party->endpoint);
    party->endpoint = NULL;
    party->conn = NULL;
}

int pair_setup(void **state) {
    const char *seed = getenv("FELIX_TEST_SEED");
    net_init(seed != NULL ? strtoull(seed, NULL, 10) : 1);
    pair = (struct pair){0};
    pair.settings = (struct quic_settings){
        .conn_recv_window_bytes = CONN_WINDOW_BYTES,
        .stream_recv_window_bytes = STREAM_WINDOW_BYTES,
        .max_streams_bidi = STREAMS_BIDI_MAX,
        .max_streams_uni = STREAMS_UNI_MAX,
        .idle_timeout_ms = IDLE_MS,
        .handshake_timeout_ms = HANDSHAKE_MS,
        .initial_mtu_bytes = 1200,
        .mtu_max_bytes = 1452,
        .max_udp_payload_bytes = UDP_PAYLOAD_BYTES_MAX,
        .max_connections = CONNECTIONS_MAX,
        .max_half_open = HALF_OPEN_MAX,
    };
    pair.server_address = net_address(10, 0, 0, 1, NET_SERVER_PORT);
    pair.client_address = net_address(10, 0, 0, 2, 50000);
    make_tls(QUIC_CIPHER_AUTO, QUIC_CIPHER_AUTO);
    party_open_server(&pair.server, 0, 1);
    party_open_client(&pair.client, &pair.client_address);
    return 0;
}

void pair_restart(enum quic_cipher server, enum quic_cipher client) {
    party_close(&pair.client);
    party_close(&pair.server);
    quic_tls_unref(pair.server_tls);
    quic_tls_unref(pair.client_tls);
    make_tls(server, client);
    party_open_server(&pair.server, 0, 1);
    party_open_client(&pair.client, &pair.client_address);
}

int pair_teardown(void **state) {
    party_close(&pair.client);
    party_close(&pair.second);
    party_close(&pair.server);
    quic_tls_unref(pair.server_tls);
    quic_tls_unref(pair.client_tls);
    net_deinit();
    buf_thread_trim();
    return 0;
}

struct quic_conn *party_connect(struct party *party, const char *alpn) {
    struct quic_target target = {
        .tls = pair.client_tls, .server_name = "localhost", .peer = &pair.server_address};
    struct quic_conn *conn = quic_connect(party->endpoint, &target, party, net.now_ns);
    assert_non_null(conn);
    if (alpn != NULL) {
        gnutls_datum_t name = {.data = (unsigned char *)(uintptr_t)alpn,
                               .size = (unsigned)strlen(alpn)};
        assert_int_equal(gnutls_alpn_set_protocols(conn->session, &name, 1, 0), 0);
    }
    return conn;
}

void pair_connect(void) {
    (void)party_connect(&pair.client, NULL);
    assert_true(pair_run(both_ready, HANDSHAKE_MS));
}

/* ---- time ---- */

/* One turn as a reactor makes it; true when another one is wanted at the same time. */
static bool turn(struct party *party) {
    if (party->endpoint == NULL)
        return false;
    bool more = quic_endpoint_receive(party->endpoint, net.now_ns);
    return quic_endpoint_flush(party->endpoint, net.now_ns) || more;
}

static uint64_t next_event(void) {
    const struct party *const parties[] = {&pair.server, &pair.client, &pair.second};
    uint64_t next_ns = net_next_arrival();
    for (size_t i = 0; i < 3; i++) {
        if (parties[i]->endpoint == NULL)
            continue;
        uint64_t due_ns = quic_endpoint_deadline(parties[i]->endpoint);
        if (due_ns < next_ns)
            next_ns = due_ns;
    }
    return next_ns;
}

bool pair_run(bool (*done)(void), uint64_t limit_ms) {
    uint64_t end_ns = net.now_ns + limit_ms * NS_PER_MS;
    for (;;) {
        bool again = turn(&pair.client);
        again = turn(&pair.server) || again;
        again = turn(&pair.second) || again;
        if (done != NULL && done())
            return true;
        if (again)
            continue;
        uint64_t next_ns = next_event();
        if (next_ns > end_ns || next_ns == NET_NEVER)
            break;
        if (next_ns > net.now_ns)
            net.now_ns = next_ns;
    }
    net.now_ns = end_ns;
    return false;
}

void pair_pass(uint64_t ms) {
    (void)pair_run(NULL, ms);
}

/* ---- streams ---- */

struct traffic *party_send(struct party *party, bool bidi, uint64_t bytes, bool finish) {
    struct quic_stream *stream =
        bidi ? quic_open_bidi(party->conn, NULL) : quic_open_uni(party->conn, NULL);
    assert_non_null(stream);
    struct traffic *traffic = traffic_new(party, stream);
    traffic_send(traffic, bytes, finish);
    return traffic;
}

void traffic_send(struct traffic *traffic, uint64_t bytes, bool finish) {
    traffic->to_send += bytes;
    traffic->finish = finish;
    feed(traffic);
}

void traffic_release(struct traffic *traffic) {
    size_t held = traffic->held;
    traffic->hold = false;
    traffic->held = 0;
    if (traffic->stream != NULL)
        quic_stream_consume(traffic->stream, held);
}

struct traffic *party_find(struct party *party, int64_t id) {
    for (size_t i = 0; i < party->traffic_count; i++) {
        if (party->traffic[i].id == id)
            return &party->traffic[i];
    }
    return NULL;
}

bool both_ready(void) {
    return pair.client.ready > 0 && pair.server.ready > 0;
}

bool client_ended(void) {
    return pair.client.closed > 0;
}

bool server_ended(void) {
    return pair.server.closed > 0;
}

static bool arrived(struct party *from, struct party *at) {
    for (size_t i = 0; i < from->traffic_count; i++) {
        const struct traffic *sent = &from->traffic[i];
        const struct traffic *got = party_find(at, sent->id);
        if (sent->to_send == 0 && !sent->finish)
            continue;
        if (got == NULL || got->received < sent->to_send || (sent->finish && !got->fin))
            return false;
    }
    return true;
}

bool all_arrived(void) {
    return arrived(&pair.client, &pair.server) && arrived(&pair.server, &pair.client);
}

void assert_all_right(void) {
    for (size_t i = 0; i < PARTY_STREAMS_MAX; i++) {
        assert_false(pair.client.traffic[i].wrong);
        assert_false(pair.server.traffic[i].wrong);
    }
}
