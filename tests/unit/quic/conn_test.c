/* The life of a connection on a network without faults: handshake, streams, windows, ends. */
#include "pair.h"

#include "base/clock.h"

#define NO_APPLICATION_PROTOCOL (NGTCP2_CRYPTO_ERROR | 120u)

static const char *alpn_of(const struct quic_conn *conn) {
    static char text[32];
    gnutls_datum_t name = {0};
    if (gnutls_alpn_get_selected_protocol(conn->session, &name) != 0)
        return NULL;
    memcpy(text, name.data, name.size);
    text[name.size] = '\0';
    return text;
}

/* ---- handshake ---- */

static void handshake_without_alpn_is_served(void **) {
    pair_connect();
    assert_null(alpn_of(pair.client.conn));
    assert_int_equal(pair.server.endpoint->half_open_count, 0);
}

static void felix_1_is_chosen_when_offered(void **) {
    (void)party_connect(&pair.client, "felix/1");
    assert_true(pair_run(both_ready, HANDSHAKE_MS));
    assert_string_equal(alpn_of(pair.client.conn), "felix/1");
    assert_string_equal(alpn_of(pair.server.conn), "felix/1");
}

static void foreign_alpn_alone_is_refused_with_its_alert(void **) {
    (void)party_connect(&pair.client, "h3");
    assert_true(pair_run(client_ended, HANDSHAKE_MS));
    assert_int_equal(pair.client.close.err, FELIX_TLS);
    assert_true(pair.client.close.by_peer);
    assert_int_equal(pair.client.close.code, NO_APPLICATION_PROTOCOL);
    assert_int_equal(pair.client.ready, 0);
    assert_int_equal(pair.server.ready, 0);
    pair_pass(IDLE_MS);
    assert_int_equal(pair.server.endpoint->conn_count, 0);
}

static void client_gives_up_where_nobody_answers(void **) {
    net.to_server.lose_permille = 1000;
    (void)party_connect(&pair.client, NULL);
    uint64_t start_ns = net.now_ns;
    assert_true(pair_run(client_ended, 2 * (uint64_t)HANDSHAKE_MS));
    assert_int_equal(pair.client.close.err, FELIX_TIMED_OUT);
    assert_string_equal(pair.client.close.reason, "handshake timeout");
    assert_true(net.now_ns - start_ns >= HANDSHAKE_MS * NS_PER_MS);
}

static void certificate_for_another_name_is_refused(void **) {
    struct quic_target target = {
        .tls = pair.client_tls, .server_name = "elsewhere.example", .peer = &pair.server_address};
    (void)quic_connect(pair.client.endpoint, &target, NULL, net.now_ns);
    assert_true(pair_run(client_ended, HANDSHAKE_MS));
    assert_int_equal(pair.client.close.err, FELIX_TLS);
    assert_false(pair.client.close.by_peer);
    assert_int_equal(pair.client.ready, 0);
}

static uint8_t last_sent[64]; /* the beginning of the client's last datagram */

static bool note_sent(struct net *, bool to_server, uint8_t *data, size_t len) {
    if (to_server && len >= sizeof last_sent)
        memcpy(last_sent, data, sizeof last_sent);
    return true;
}

static void a_returned_datagram_is_known_by_the_connection_that_wrote_it(void **) {
    struct slice sent = slice_of(last_sent, sizeof last_sent);
    net.tap = note_sent;
    struct quic_conn *first = party_connect(&pair.client, NULL);
    pair_pass(1);
    assert_true((last_sent[0] & 0x80) != 0); /* an Initial, to an id that the client made up */
    assert_true(quic_conn_wrote(first, sent));
    assert_false(quic_conn_wrote(first, slice_of(last_sent, 5)));
    assert_true(pair_run(both_ready, 1000));
    (void)party_send(&pair.client, false, 1000, true);
    assert_true(pair_run(all_arrived, 1000));
    assert_true((last_sent[0] & 0x80) == 0);
    assert_true(quic_conn_wrote(first, sent));
    struct quic_conn *second = party_connect(&pair.client, NULL);
    assert_false(quic_conn_wrote(second, sent));
    pair_pass(1);
    assert_true(quic_conn_wrote(second, sent));
    assert_false(quic_conn_wrote(first, sent));
}

/* ---- streams ---- */

static void streams_carry_bytes_both_ways_to_their_end(void **) {
    pair_connect();
    (void)party_send(&pair.client, true, 100000, true);
    (void)party_send(&pair.client, false, 100000, true);
    (void)party_send(&pair.server, true, 100000, true);
    (void)party_send(&pair.server, false, 0, true);
    assert_true(pair_run(all_arrived, 5000));
    assert_all_right();
    traffic_send(party_find(&pair.server, 0), 50000, true);
    assert_true(pair_run(all_arrived, 5000));
    assert_all_right();
    pair_pass(100);
    assert_true(party_find(&pair.client, 0)->closed);
    assert_true(party_find(&pair.server, 0)->closed);
}

static void no_more_streams_open_than_granted_until_some_end(void **) {
    pair_connect();
    for (unsigned i = 0; i < STREAMS_BIDI_MAX; i++)
        (void)party_send(&pair.client, true, 10, false);
    for (unsigned i = 0; i < STREAMS_UNI_MAX; i++)
        (void)party_send(&pair.client, false, 10, false);
    assert_null(quic_open_bidi(pair.client.conn, NULL));
    assert_null(quic_open_uni(pair.client.conn, NULL));
    assert_true(pair_run(all_arrived, 1000));
    unsigned granted = pair.client.granted;

    traffic_send(&pair.client.traffic[0], 0, true);
    traffic_send(party_find(&pair.server, 0), 0, true);
    traffic_send(&pair.client.traffic[STREAMS_BIDI_MAX], 0, true); /* the first of one direction */
    pair_pass(200);
    assert_true(pair.client.granted > granted);
    (void)party_send(&pair.client, true, 10, false);
    (void)party_send(&pair.client, false, 10, false);
    assert_null(quic_open_bidi(pair.client.conn, NULL));
    assert_null(quic_open_uni(pair.client.conn, NULL));
    assert_true(pair_run(all_arrived, 1000));
}

static void no_stream_opens_before_the_handshake(void **) {
    struct quic_conn *conn = party_connect(&pair.client, NULL);
    assert_null(quic_open_bidi(conn, NULL));
    assert_null(quic_open_uni(conn, NULL));
}

static void reset_is_told_with_its_code(void **) {
    pair_connect();
    struct traffic *sent = party_send(&pair.client, true, 1000, false);
    assert_true(pair_run(all_arrived, 1000));
    struct traffic *got = party_find(&pair.server, sent->id);
    quic_stream_reset(sent->stream, 77);
    assert_false(quic_stream_write(sent->stream, buf_new(1), NULL, 1));
    pair_pass(100);
    assert_true(got->reset);
    assert_int_equal(got->reset_code, 77);
    assert_false(got->fin);
    traffic_send(got, 500, true); /* the other direction is not touched */
    assert_true(pair_run(NULL, 100) || sent->closed);
    assert_int_equal(sent->received, 500);
    assert_true(got->closed);
}

static void stop_is_told_and_drops_the_queue(void **) {
    pair_connect();
    struct traffic *sent = party_send(&pair.client, true, 10000000, true);
    pair_pass(50);
    struct traffic *got = party_find(&pair.server, sent->id);
    quic_stream_stop(got->stream, 5);
    uint64_t received = got->received;
    pair_pass(200);
    assert_true(sent->stopped);
    assert_int_equal(sent->stream->unsent_bytes, 0);
    assert_int_equal(pair.client.conn->unacked_bytes, 0);
    assert_int_equal(got->received, received); /* nothing is handed over any more */
    traffic_send(got, 1000, true);
    pair_pass(200);
    assert_true(sent->closed && got->closed);
    assert_int_equal(sent->received, 1000);
}

/* The stream's window is used up and it waits for more: the word comes all the same. */
static void stop_reaches_a_stream_that_waits_for_its_window(void **) {
    pair_connect();
    pair.server.hold = true;
    struct traffic *sent = party_send(&pair.client, true, 1000000, false);
    pair_pass(500);
    struct traffic *got = party_find(&pair.server, sent->id);
    assert_int_equal(got->held, STREAM_WINDOW_BYTES);
    assert_true(sent->stream->blocked);
    quic_stream_stop(got->stream, 5);
    pair_pass(500);
    assert_true(sent->stopped);
    assert_int_equal(pair.client.conn->unacked_bytes, 0);
}

/* Its end was queued while it waited for its window. */
static void end_of_a_blocked_stream_follows_its_bytes(void **) {
    pair_connect();
    pair.server.hold = true;
    struct traffic *sent = party_send(&pair.client, true, 300000, false);
    pair_pass(500);
    assert_true(sent->stream->blocked);
    traffic_send(sent, 0, true);
    pair_pass(500);
    assert_int_equal(pair.client.conn->blocked_count, 1);
    traffic_release(party_find(&pair.server, sent->id));
    assert_true(pair_run(all_arrived, 1000));
    assert_int_equal(pair.client.conn->blocked_count, 0);
    assert_all_right();
}

/* With nothing queued there is nothing to take back: the next write finds out. */
static void stop_of_a_quiet_stream_is_told_when_it_speaks_again(void **) {
    pair_connect();
    struct traffic *sent = party_send(&pair.client, true, 1000, false);
    assert_true(pair_run(all_arrived, 1000));
    pair_pass(100);
    quic_stream_stop(party_find(&pair.server, sent->id)->stream, 5);
    pair_pass(500);
    traffic_send(sent, 1000, false);
    pair_pass(10);
    assert_true(sent->stopped);
    assert_int_equal(pair.client.conn->unacked_bytes, 0);
    assert_false(quic_stream_write(sent->stream, buf_new(1), NULL, 1));
}

/* ---- flow control ---- */

static void reader_that_takes_nothing_stops_one_stream_and_no_other(void **) {
    pair_connect();
    pair.server.hold = true;
    struct traffic *sent = party_send(&pair.client, true, 3000000, true);
    pair_pass(1000);
    struct traffic *got = party_find(&pair.server, sent->id);
    assert_int_equal(got->received, STREAM_WINDOW_BYTES);
    pair_pass(3000);
    assert_int_equal(got->received, STREAM_WINDOW_BYTES);
    assert_true(pair.client.conn->unacked_bytes < (size_t)256 << 10);

    pair.server.hold = false;
    (void)party_send(&pair.client, true, 1000000, true);
    pair_pass(3000);
    assert_int_equal(pair.server.traffic[1].received, 1000000);
    assert_int_equal(got->received, STREAM_WINDOW_BYTES);

    traffic_release(got);
    assert_true(pair_run(all_arrived, 5000));
    assert_all_right();
}

static void streams_together_hold_no_more_than_the_connection_s_window(void **) {
    pair.settings.conn_recv_window_bytes = (uint64_t)400 << 10;
    party_close(&pair.server);
    party_open_server(&pair.server, 0, 1);
    pair_connect();
    pair.server.hold = true;
    for (unsigned i = 0; i < STREAMS_BIDI_MAX; i++)
        (void)party_send(&pair.client, true, 500000, true);
    pair_pass(2000);
    assert_int_equal(pair.server.held_max, (size_t)400 << 10);
    for (unsigned i = 0; i < pair.server.traffic_count; i++)
        traffic_release(&pair.server.traffic[i]);
    pair.server.hold = false;
    assert_true(pair_run(all_arrived, 10000));
    assert_all_right();
}

static void what_is_held_alone_leaves_the_connection_s_window_to_others(void **) {
    pair.settings.conn_recv_window_bytes = (uint64_t)300 << 10; /* of streams: 256 KiB */
    party_close(&pair.server);
    party_open_server(&pair.server, 0, 1);
    pair_connect();
    pair.server.hold = pair.server.alone = true;
    for (unsigned i = 0; i < STREAMS_BIDI_MAX - 1; i++)
        (void)party_send(&pair.client, true, 500000, true);
    pair_pass(2000);
    for (unsigned i = 0; i < pair.server.traffic_count; i++)
        assert_int_equal(pair.server.traffic[i].received, STREAM_WINDOW_BYTES);
    pair.server.hold = false;
    struct traffic *other = party_send(&pair.client, true, 500000, true);
    pair_pass(2000);
    assert_int_equal(party_find(&pair.server, other->id)->received, 500000);
    for (unsigned i = 0; i < pair.server.traffic_count; i++)
        traffic_release(&pair.server.traffic[i]);
    assert_true(pair_run(all_arrived, 10000));
    assert_all_right();
    assert_int_equal(pair.server.conn->rx_held_bytes, 0);
}

/* Bytes that nobody consumed come back to the connection's window when their stream ends. */
static void stream_that_ends_unread_returns_its_share_of_the_window(void **) {
    pair_connect();
    pair.server.hold = true;
    for (unsigned i = 0; i < 3 * CONN_WINDOW_BYTES / 200000; i++) {
        struct traffic *sent = party_send(&pair.client, false, 200000, true);
        assert_true(pair_run(all_arrived, 2000));
        pair_pass(100);
        assert_true(sent->closed);
    }
    assert_int_equal(pair.server.conn->rx_held_bytes, 0);
}

/* ---- ends ---- */

static void close_arrives_with_code_and_reason(void **) {
    pair_connect();
    (void)party_send(&pair.client, true, 1000, false);
    assert_true(pair_run(all_arrived, 1000));
    quic_conn_close(pair.server.conn, 42, "enough");
    quic_conn_close(pair.server.conn, 43, "more than enough");
    assert_true(pair_run(client_ended, 1000));
    assert_true(pair.client.close.by_peer);
    assert_true(pair.client.close.application);
    assert_int_equal(pair.client.close.code, 42);
    assert_string_equal(pair.client.close.reason, "enough");
    assert_int_equal(pair.server.closed, 1);
    assert_false(pair.server.close.by_peer);
    assert_true(pair.client.traffic[0].closed && pair.server.traffic[0].closed);
    pair_pass(5000);
    assert_int_equal(pair.client.endpoint->conn_count, 0);
    assert_int_equal(pair.server.endpoint->conn_count, 0);
    assert_int_equal(pair.server.endpoint->cids.count, 0);
    assert_int_equal(pair.client.endpoint->cids.count, 0);
}

static void what_was_queued_before_the_close_arrives(void **) {
    pair_connect();
    (void)party_send(&pair.client, true, 5000, true);
    quic_conn_close(pair.client.conn, 0, "");
    assert_true(pair_run(server_ended, 1000));
    assert_int_equal(pair.server.traffic[0].received, 5000);
    assert_true(pair.server.traffic[0].fin);
    assert_all_right();
}

/* The close was lost: what the peer still sends draws it again. */
static void lost_close_is_said_again(void **) {
    pair_connect();
    net.to_client.lose_permille = 1000;
    quic_conn_close(pair.server.conn, 42, "enough");
    pair_pass(1);
    net.to_client.lose_permille = 0;
    (void)party_send(&pair.client, true, 1000, false);
    assert_true(pair_run(client_ended, 1000));
    assert_string_equal(pair.client.close.reason, "enough");
}

static void reason_that_is_too_long_is_cut(void **) {
    char reason[CONN_REASON_BYTES_MAX * 2];
    memset(reason, 'r', sizeof reason - 1);
    reason[sizeof reason - 1] = '\0';
    pair_connect();
    quic_conn_close(pair.client.conn, 1, reason);
    assert_true(pair_run(server_ended, 1000));
    assert_int_equal(strlen(pair.server.close.reason), CONN_REASON_BYTES_MAX - 1);
}

static void quiet_connection_ends_at_the_idle_timeout(void **) {
    pair_connect();
    pair_pass(IDLE_MS - 1000);
    assert_int_equal(pair.server.closed + pair.client.closed, 0);
    pair_pass(2000);
    assert_int_equal(pair.server.close.err, FELIX_TIMED_OUT);
    assert_string_equal(pair.server.close.reason, "idle timeout");
    assert_int_equal(counter_get(&pair.server.endpoint->counters.idle_closed), 1);
    assert_int_equal(pair.client.closed, 1);
}

static void keep_alive_keeps_a_quiet_connection(void **) {
    pair.settings.keep_alive_ms = 10000;
    party_close(&pair.client);
    party_open_client(&pair.client, &pair.client_address);
    pair_connect();
    pair_pass(10 * (uint64_t)IDLE_MS);
    assert_int_equal(pair.server.closed + pair.client.closed, 0);
    (void)party_send(&pair.server, false, 10, true);
    assert_true(pair_run(all_arrived, 1000));
}

/* The peer's idle timeout is the shorter one: the keep-alive follows it. */
static void keep_alive_heeds_the_idle_timeout_of_the_peer(void **) {
    pair.settings.idle_timeout_ms = 3000;
    party_close(&pair.server);
    party_open_server(&pair.server, 0, 1);
    pair.settings.idle_timeout_ms = IDLE_MS;
    pair.settings.keep_alive_ms = 20000;
    party_close(&pair.client);
    party_open_client(&pair.client, &pair.client_address);
    pair_connect();
    pair_pass(60000);
    assert_int_equal(pair.server.closed + pair.client.closed, 0);
}

static void peer_that_vanished_is_noticed_in_spite_of_keep_alive(void **) {
    pair.settings.keep_alive_ms = 10000;
    party_close(&pair.server);
    party_open_server(&pair.server, 0, 1);
    pair_connect();
    net.to_server.lose_permille = 1000;
    pair_pass(2 * (uint64_t)IDLE_MS);
    assert_int_equal(pair.server.close.err, FELIX_TIMED_OUT);
}

/* ---- keys ---- */

static void keys_change_under_load_from_either_side(void **) {
    unsigned changes = 0;
    pair_connect();
    struct traffic *up = party_send(&pair.client, true, 1, false);
    struct traffic *down = party_send(&pair.server, true, 1, false);
    for (unsigned round = 0; round < 500 && changes < 6; round++) {
        struct party *by = changes % 2 == 0 ? &pair.client : &pair.server;
        changes += quic_conn_update_key(by->conn) == FELIX_OK;
        traffic_send(up, 50000, false);
        traffic_send(down, 50000, false);
        pair_pass(10);
    }
    assert_int_equal(changes, 6);
    traffic_send(up, 50000, true);
    traffic_send(down, 50000, true);
    assert_true(pair_run(all_arrived, 2000));
    assert_all_right();
}

static void second_key_change_waits_for_the_first(void **) {
    pair_connect();
    pair_pass(1000);
    assert_int_equal(quic_conn_update_key(pair.client.conn), FELIX_OK);
    assert_int_equal(quic_conn_update_key(pair.client.conn), FELIX_WOULD_BLOCK);
    (void)party_send(&pair.client, true, 1000, true);
    assert_true(pair_run(all_arrived, 1000));
    pair_pass(5000);
    (void)party_send(&pair.client, true, 1000, true); /* the next keys are made in passing */
    assert_true(pair_run(all_arrived, 1000));
    assert_int_equal(quic_conn_update_key(pair.client.conn), FELIX_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        PAIR_TEST(handshake_without_alpn_is_served),
        PAIR_TEST(felix_1_is_chosen_when_offered),
        PAIR_TEST(foreign_alpn_alone_is_refused_with_its_alert),
        PAIR_TEST(client_gives_up_where_nobody_answers),
        PAIR_TEST(certificate_for_another_name_is_refused),
        PAIR_TEST(a_returned_datagram_is_known_by_the_connection_that_wrote_it),
        PAIR_TEST(streams_carry_bytes_both_ways_to_their_end),
        PAIR_TEST(no_more_streams_open_than_granted_until_some_end),
        PAIR_TEST(no_stream_opens_before_the_handshake),
        PAIR_TEST(reset_is_told_with_its_code),
        PAIR_TEST(stop_is_told_and_drops_the_queue),
        PAIR_TEST(stop_reaches_a_stream_that_waits_for_its_window),
        PAIR_TEST(end_of_a_blocked_stream_follows_its_bytes),
        PAIR_TEST(stop_of_a_quiet_stream_is_told_when_it_speaks_again),
        PAIR_TEST(reader_that_takes_nothing_stops_one_stream_and_no_other),
        PAIR_TEST(streams_together_hold_no_more_than_the_connection_s_window),
        PAIR_TEST(what_is_held_alone_leaves_the_connection_s_window_to_others),
        PAIR_TEST(stream_that_ends_unread_returns_its_share_of_the_window),
        PAIR_TEST(close_arrives_with_code_and_reason),
        PAIR_TEST(what_was_queued_before_the_close_arrives),
        PAIR_TEST(lost_close_is_said_again),
        PAIR_TEST(reason_that_is_too_long_is_cut),
        PAIR_TEST(quiet_connection_ends_at_the_idle_timeout),
        PAIR_TEST(keep_alive_keeps_a_quiet_connection),
        PAIR_TEST(keep_alive_heeds_the_idle_timeout_of_the_peer),
        PAIR_TEST(peer_that_vanished_is_noticed_in_spite_of_keep_alive),
        PAIR_TEST(keys_change_under_load_from_either_side),
        PAIR_TEST(second_key_change_waits_for_the_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
