/*
 * What happens to a datagram, by the first of these that it is:
 *
 * - not QUIC, or a version that we do not speak: version negotiation (rate-limited), or nothing
 * - its id is in the table: that connection
 * - its id names another reactor of this port: handed over
 * - an Initial of a client: a new connection, or Retry when many are half open, or refused when the
 *   node is full
 * - anything else: stateless reset, shorter than what came (RFC 9000, 10.3), rate-limited
 */
#include "quic/endpoint.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/check.h"
#include "base/clock.h"

#define RECEIVE_CALLS_PER_TURN 4u
#define RETRY_TOKEN_VALID_NS (10 * NS_PER_S)
#define RESET_INTERVAL_NS NS_PER_MS /* at most a thousand stray answers a second */
#define RESET_RANDOM_BYTES_MAX 24u
#define INITIAL_BYTES_MIN 1200u

enum felix_err quic_endpoint_new(const struct quic_endpoint_options *options,
                                 struct quic_endpoint **ret, struct felix_error *reterr) {
    struct quic_endpoint *endpoint = xcalloc(1, sizeof *endpoint);
    endpoint->settings = *options->settings;
    endpoint->handler = options->handler;
    endpoint->user = options->user;
    endpoint->reactor = options->reactor;
    endpoint->reactor_count = options->reactor_count;
    endpoint->accepting = options->tls != NULL;
    memcpy(endpoint->static_secret, options->static_secret, sizeof endpoint->static_secret);

    enum felix_err err = udp_open(&endpoint->udp, &options->bind, options->reactor_count > 1,
                                  endpoint->settings.udp_recv_buffer_bytes,
                                  endpoint->settings.udp_send_buffer_bytes, reterr);
    if (err != FELIX_OK) {
        free(endpoint);
        return err;
    }
    if (options->tls != NULL)
        endpoint->tls = quic_tls_ref(options->tls);
    cid_table_init(&endpoint->cids);
    endpoint->send_memory = xmalloc(ENDPOINT_SEND_BYTES);
    *ret = endpoint;
    return FELIX_OK;
}

static void forget_dirty(struct quic_endpoint *endpoint) {
    while (endpoint->dirty_head != NULL) {
        endpoint->dirty_head->dirty = false;
        endpoint->dirty_head = endpoint->dirty_head->dirty_next;
    }
    endpoint->dirty_tail = NULL;
}

void quic_endpoint_free(struct quic_endpoint *endpoint) {
    if (endpoint == NULL)
        return;
    forget_dirty(endpoint);
    for (struct quic_conn *conn = endpoint->conns; conn != NULL; conn = endpoint->conns) {
        struct quic_conn *next = conn->all_next;
        if (!conn->told_closed && conn->close.err == FELIX_OK)
            conn->close.err = FELIX_CLOSED;
        conn_free(conn);
        endpoint->conns = next;
        forget_dirty(endpoint);
    }
    cid_table_deinit(&endpoint->cids);
    udp_close(&endpoint->udp);
    quic_tls_unref(endpoint->tls);
    free(endpoint->send_memory);
    free(endpoint->heap);
    free(endpoint);
}

uint16_t quic_endpoint_port(const struct quic_endpoint *endpoint) {
    const struct sockaddr_storage *local = &endpoint->udp.local;
    if (local->ss_family == AF_INET6)
        return ntohs(((const struct sockaddr_in6 *)(const void *)local)->sin6_port);
    return ntohs(((const struct sockaddr_in *)(const void *)local)->sin_port);
}

/* ---- answers outside connections ---- */

static bool may_answer_stray(struct quic_endpoint *endpoint) {
    if (endpoint->now_ns < endpoint->next_reset_ns)
        return false;
    endpoint->next_reset_ns = endpoint->now_ns + RESET_INTERVAL_NS;
    return true;
}

/* False when the socket is full: what strangers provoke is not worth keeping. */
static bool send_stray(struct quic_endpoint *endpoint, const struct udp_packet *packet,
                       const uint8_t *data, size_t len) {
    if (udp_blocked(&endpoint->udp))
        return false;
    udp_send(&endpoint->udp, packet->local, packet->peer, data, len, len);
    counter_add(&endpoint->counters.datagrams_out, 1);
    return true;
}

static void send_version_negotiation(struct quic_endpoint *endpoint,
                                     const struct udp_packet *packet,
                                     const ngtcp2_version_cid *ids) {
    static const uint32_t versions[] = {NGTCP2_PROTO_VER_V1};
    uint8_t out[256], unpredictable;
    if (packet->data.len < INITIAL_BYTES_MIN || !may_answer_stray(endpoint))
        return;
    ssize_t got = getrandom(&unpredictable, 1, 0);
    INVARIANT(got == 1);
    ngtcp2_ssize len = ngtcp2_pkt_write_version_negotiation(
        out, sizeof out, unpredictable, ids->scid, ids->scidlen, ids->dcid, ids->dcidlen, versions,
        sizeof versions / sizeof versions[0]);
    if (len > 0 && send_stray(endpoint, packet, out, (size_t)len))
        counter_add(&endpoint->counters.version_negotiations_sent, 1);
}

static void send_reset(struct quic_endpoint *endpoint, const struct udp_packet *packet,
                       const ngtcp2_version_cid *ids) {
    /* Shorter than what came, so that two endpoints cannot go on answering each other. */
    size_t shortest = NGTCP2_STATELESS_RESET_TOKENLEN + NGTCP2_MIN_STATELESS_RESET_RANDLEN;
    if (packet->data.len <= shortest || ids->dcidlen != CID_BYTES || !may_answer_stray(endpoint)) {
        counter_add(&endpoint->counters.datagrams_dropped, 1);
        return;
    }
    ngtcp2_cid cid;
    ngtcp2_cid_init(&cid, ids->dcid, ids->dcidlen);
    uint8_t token[NGTCP2_STATELESS_RESET_TOKENLEN], random[RESET_RANDOM_BYTES_MAX], out[64];
    size_t random_bytes = packet->data.len - 1 - NGTCP2_STATELESS_RESET_TOKENLEN;
    if (random_bytes > sizeof random)
        random_bytes = sizeof random;
    if (ngtcp2_crypto_generate_stateless_reset_token(token, endpoint->static_secret,
                                                     sizeof endpoint->static_secret, &cid) != 0 ||
        getrandom(random, random_bytes, 0) != (ssize_t)random_bytes)
        return;
    ngtcp2_ssize len =
        ngtcp2_pkt_write_stateless_reset(out, sizeof out, token, random, random_bytes);
    if (len > 0 && send_stray(endpoint, packet, out, (size_t)len))
        counter_add(&endpoint->counters.resets_sent, 1);
}

static void send_retry(struct quic_endpoint *endpoint, const struct udp_packet *packet,
                       const ngtcp2_pkt_hd *hd) {
    struct cid fresh = cid_generate((uint8_t)endpoint->reactor);
    ngtcp2_cid scid;
    ngtcp2_cid_init(&scid, fresh.bytes, fresh.len);
    uint8_t token[NGTCP2_CRYPTO_MAX_RETRY_TOKENLEN2], out[256];
    ngtcp2_ssize token_bytes = ngtcp2_crypto_generate_retry_token2(
        token, endpoint->static_secret, sizeof endpoint->static_secret, hd->version,
        (const ngtcp2_sockaddr *)packet->peer, sockaddr_bytes(packet->peer), &scid, &hd->dcid,
        endpoint->now_ns);
    if (token_bytes < 0)
        return;
    ngtcp2_ssize len = ngtcp2_crypto_write_retry(out, sizeof out, hd->version, &hd->scid, &scid,
                                                 &hd->dcid, token, (size_t)token_bytes);
    if (len > 0 && send_stray(endpoint, packet, out, (size_t)len))
        counter_add(&endpoint->counters.retries_sent, 1);
}

static void refuse(struct quic_endpoint *endpoint, const struct udp_packet *packet,
                   const ngtcp2_pkt_hd *hd, uint64_t code) {
    uint8_t out[256];
    ngtcp2_ssize len = ngtcp2_crypto_write_connection_close(out, sizeof out, hd->version, &hd->scid,
                                                            &hd->dcid, code, NULL, 0);
    counter_add(&endpoint->counters.conns_refused, 1);
    if (len > 0 && may_answer_stray(endpoint))
        (void)send_stray(endpoint, packet, out, (size_t)len);
}

/* ---- new connections ---- */

/* A token from another broker or another life is not ours to judge: as if there were none. */
static bool retry_token_valid(struct quic_endpoint *endpoint, const struct udp_packet *packet,
                              const ngtcp2_pkt_hd *hd, ngtcp2_cid *ret_odcid) {
    if (hd->tokenlen == 0 || hd->token[0] != NGTCP2_CRYPTO_TOKEN_MAGIC_RETRY2)
        return false;
    int rc = ngtcp2_crypto_verify_retry_token2(
        ret_odcid, hd->token, hd->tokenlen, endpoint->static_secret, sizeof endpoint->static_secret,
        hd->version, (const ngtcp2_sockaddr *)packet->peer, sockaddr_bytes(packet->peer), &hd->dcid,
        RETRY_TOKEN_VALID_NS, endpoint->now_ns);
    if (rc != 0)
        counter_add(&endpoint->counters.tokens_invalid, 1);
    return rc == 0;
}

static void accept_initial(struct quic_endpoint *endpoint, const struct udp_packet *packet,
                           const ngtcp2_version_cid *ids) {
    ngtcp2_pkt_hd hd;
    if (ngtcp2_accept(&hd, packet->data.data, packet->data.len) != 0) {
        if ((packet->data.data[0] & 0x80) == 0)
            send_reset(endpoint, packet, ids);
        else
            counter_add(&endpoint->counters.datagrams_dropped, 1);
        return;
    }
    if (!endpoint->accepting ||
        endpoint->conn_count - endpoint->ended_count >= endpoint->settings.max_connections) {
        refuse(endpoint, packet, &hd, NGTCP2_CONNECTION_REFUSED);
        return;
    }
    ngtcp2_cid odcid;
    bool validated = retry_token_valid(endpoint, packet, &hd, &odcid);
    if (!validated && endpoint->half_open_count >= endpoint->settings.max_half_open) {
        send_retry(endpoint, packet, &hd);
        return;
    }
    struct quic_conn *conn = conn_new_server(endpoint, &hd, packet->local, packet->peer,
                                             validated ? &odcid : NULL, endpoint->now_ns);
    if (conn == NULL) {
        refuse(endpoint, packet, &hd, NGTCP2_INTERNAL_ERROR);
        return;
    }
    conn_read(conn, packet->local, packet->peer, packet->data, endpoint->now_ns);
}

/* A server that lost its memory answers with ids that it made up: what ends such a packet tells
 * which connection is meant. */
static bool read_reset(struct quic_endpoint *endpoint, const struct udp_packet *packet) {
    bool short_header = (packet->data.data[0] & 0x80) == 0;
    if (!short_header || packet->data.len <= NGTCP2_STATELESS_RESET_TOKENLEN)
        return false;
    for (struct quic_conn *conn = endpoint->conns; conn != NULL; conn = conn->all_next) {
        if (conn_reset_by(conn, packet->peer, packet->data)) {
            conn_read(conn, packet->local, packet->peer, packet->data, endpoint->now_ns);
            return true;
        }
    }
    return false;
}

static void on_packet(void *context, const struct udp_packet *packet) {
    struct quic_endpoint *endpoint = context;
    counter_add(&endpoint->counters.datagrams_in, 1);
    counter_add(&endpoint->counters.bytes_in, packet->data.len);

    ngtcp2_version_cid ids = {0};
    int rc = ngtcp2_pkt_decode_version_cid(&ids, packet->data.data, packet->data.len, CID_BYTES);
    /* ngtcp2 would speak version 2 as well; its keys are derived with other labels, and nobody
     * needs it. A short header has no version. */
    bool foreign_version = rc == 0 && ids.version != 0 && ids.version != NGTCP2_PROTO_VER_V1;
    if ((rc == NGTCP2_ERR_VERSION_NEGOTIATION || foreign_version) && endpoint->tls != NULL) {
        send_version_negotiation(endpoint, packet, &ids);
        return;
    }
    if (rc != 0) {
        counter_add(&endpoint->counters.datagrams_dropped, 1);
        return;
    }
    struct quic_conn *conn = cid_table_find(&endpoint->cids, ids.dcid, ids.dcidlen);
    if (conn != NULL) {
        conn_read(conn, packet->local, packet->peer, packet->data, endpoint->now_ns);
        return;
    }
    int reactor = cid_reactor(ids.dcid, ids.dcidlen);
    if (reactor >= 0 && (unsigned)reactor != endpoint->reactor &&
        (unsigned)reactor < endpoint->reactor_count) {
        counter_add(&endpoint->counters.datagrams_forwarded, 1);
        endpoint->handler->forward(endpoint, (unsigned)reactor, packet->local, packet->peer,
                                   packet->data);
        return;
    }
    if (endpoint->tls == NULL) {
        if (!read_reset(endpoint, packet))
            counter_add(&endpoint->counters.datagrams_dropped, 1);
        return;
    }
    accept_initial(endpoint, packet, &ids);
}

/* ---- a turn ---- */

static void advance(struct quic_endpoint *endpoint, uint64_t now_ns) {
    if (now_ns > endpoint->now_ns)
        endpoint->now_ns = now_ns;
}

bool quic_endpoint_receive(struct quic_endpoint *endpoint, uint64_t now_ns) {
    advance(endpoint, now_ns);
    unsigned count = 0;
    for (unsigned i = 0; i < RECEIVE_CALLS_PER_TURN; i++) {
        count = udp_receive(&endpoint->udp, on_packet, endpoint);
        counter_add(&endpoint->counters.recv_calls, 1);
        if (count < UDP_RECV_BATCH)
            return false;
    }
    return true;
}

void quic_endpoint_deliver(struct quic_endpoint *endpoint, const struct sockaddr_storage *local,
                           const struct sockaddr_storage *peer, struct slice packet,
                           uint64_t now_ns) {
    advance(endpoint, now_ns);
    struct udp_packet one = {.data = packet, .local = local, .peer = peer};
    on_packet(endpoint, &one);
}

/* Write what the connections that are dirty now have to say, or those of them that are in a hurry;
 * true when one could not say all. */
static bool flush_dirty(struct quic_endpoint *endpoint, bool hurried_only) {
    struct quic_conn *last = endpoint->dirty_tail;
    bool more = false;
    while (endpoint->dirty_head != NULL) {
        struct quic_conn *conn = endpoint->dirty_head;
        endpoint->dirty_head = conn->dirty_next;
        if (endpoint->dirty_head == NULL)
            endpoint->dirty_tail = NULL;
        conn->dirty = false;
        bool was_last = conn == last;
        if (hurried_only && !conn->hurried) {
            conn_mark_dirty(conn);
        } else {
            conn->hurried = false;
            if (!conn_flush(conn, endpoint->now_ns)) {
                conn_mark_dirty(conn);
                more = true;
            }
        }
        if (was_last)
            break; /* what was marked meanwhile is for the next turn */
    }
    return more;
}

bool quic_endpoint_flush(struct quic_endpoint *endpoint, uint64_t now_ns) {
    advance(endpoint, now_ns);
    while (endpoint->heap_count > 0 && endpoint->heap[0]->expiry_ns <= endpoint->now_ns) {
        struct quic_conn *conn = endpoint->heap[0];
        endpoint_timer_clear(endpoint, conn);
        conn_expire(conn, endpoint->now_ns);
    }
    if (udp_blocked(&endpoint->udp) && !udp_retry(&endpoint->udp))
        return false;

    bool more = endpoint->hurried && flush_dirty(endpoint, true);
    endpoint->hurried = false;
    more = flush_dirty(endpoint, false) || more;
    counter_set(&endpoint->counters.send_calls, endpoint->udp.send_calls);
    counter_set(&endpoint->counters.send_errors, endpoint->udp.send_errors);
    counter_set(&endpoint->counters.half_open, endpoint->half_open_count);
    return (more || endpoint->dirty_head != NULL) && !udp_blocked(&endpoint->udp);
}

bool quic_endpoint_blocked(const struct quic_endpoint *endpoint) {
    return udp_blocked(&endpoint->udp);
}

void quic_endpoint_accept(struct quic_endpoint *endpoint, bool accepting) {
    endpoint->accepting = accepting;
}

void quic_endpoint_set_tls(struct quic_endpoint *endpoint, struct quic_tls *tls) {
    quic_tls_ref(tls);
    quic_tls_unref(endpoint->tls);
    endpoint->tls = tls;
}

struct quic_conn *quic_connect(struct quic_endpoint *endpoint, const struct quic_target *target,
                               void *user, uint64_t now_ns) {
    advance(endpoint, now_ns);
    return conn_new_client(endpoint, target, user, endpoint->now_ns);
}

/* ---- timers: a binary heap, each connection knows its place ---- */

static void heap_put(struct quic_endpoint *endpoint, size_t at, struct quic_conn *conn) {
    endpoint->heap[at] = conn;
    conn->heap_index = at;
}

static void heap_up(struct quic_endpoint *endpoint, size_t at) {
    struct quic_conn *conn = endpoint->heap[at];
    while (at > 0) {
        size_t parent = (at - 1) / 2;
        if (endpoint->heap[parent]->expiry_ns <= conn->expiry_ns)
            break;
        heap_put(endpoint, at, endpoint->heap[parent]);
        at = parent;
    }
    heap_put(endpoint, at, conn);
}

static void heap_down(struct quic_endpoint *endpoint, size_t at) {
    struct quic_conn *conn = endpoint->heap[at];
    for (;;) {
        size_t child = at * 2 + 1;
        if (child >= endpoint->heap_count)
            break;
        if (child + 1 < endpoint->heap_count &&
            endpoint->heap[child + 1]->expiry_ns < endpoint->heap[child]->expiry_ns)
            child++;
        if (conn->expiry_ns <= endpoint->heap[child]->expiry_ns)
            break;
        heap_put(endpoint, at, endpoint->heap[child]);
        at = child;
    }
    heap_put(endpoint, at, conn);
}

void endpoint_timer_set(struct quic_endpoint *endpoint, struct quic_conn *conn, uint64_t due_ns) {
    if (conn->heap_index == SIZE_MAX) {
        if (endpoint->heap_count == endpoint->heap_capacity) {
            endpoint->heap_capacity =
                endpoint->heap_capacity == 0 ? 64 : endpoint->heap_capacity * 2;
            endpoint->heap =
                xrealloc(endpoint->heap, endpoint->heap_capacity * sizeof *endpoint->heap);
        }
        conn->expiry_ns = due_ns;
        heap_put(endpoint, endpoint->heap_count++, conn);
        heap_up(endpoint, conn->heap_index);
        return;
    }
    bool earlier = due_ns < conn->expiry_ns;
    conn->expiry_ns = due_ns;
    if (earlier)
        heap_up(endpoint, conn->heap_index);
    else
        heap_down(endpoint, conn->heap_index);
}

void endpoint_timer_clear(struct quic_endpoint *endpoint, struct quic_conn *conn) {
    size_t at = conn->heap_index;
    if (at == SIZE_MAX)
        return;
    conn->heap_index = SIZE_MAX;
    struct quic_conn *last = endpoint->heap[--endpoint->heap_count];
    if (last == conn)
        return;
    heap_put(endpoint, at, last);
    heap_up(endpoint, at);
    heap_down(endpoint, last->heap_index);
}

uint64_t quic_endpoint_deadline(const struct quic_endpoint *endpoint) {
    return endpoint->heap_count > 0 ? endpoint->heap[0]->expiry_ns : LOOP_NO_DEADLINE;
}

bool quic_endpoint_is_paced(const struct quic_endpoint *endpoint) {
    for (size_t i = 0; i < endpoint->heap_count; i++) {
        if (!endpoint->heap[i]->loopback && endpoint->heap[i]->send_tail != NULL)
            return true;
    }
    return false;
}
