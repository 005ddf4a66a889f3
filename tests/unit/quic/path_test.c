/* Paths that are narrow, wide, or change under a connection. */
#include "pair.h"

#include "base/clock.h"

static size_t mtu_of(const struct party *party) {
    struct quic_conn_info info;
    quic_conn_info(party->conn, &info);
    return info.path_mtu_bytes;
}

/* Endpoints anew, with path MTU discovery up to `mtu_max_bytes`. */
static void open_with_mtu(uint32_t mtu_max_bytes) {
    party_close(&pair.client);
    party_close(&pair.server);
    pair.settings.mtu_max_bytes = mtu_max_bytes;
    party_open_server(&pair.server, 0, 1);
    party_open_client(&pair.client, &pair.client_address);
}

static void transfer(uint64_t bytes) {
    (void)party_send(&pair.client, true, bytes, true);
    (void)party_send(&pair.server, true, bytes, true);
    assert_true(pair_run(all_arrived, 60000));
    assert_all_right();
}

/* ---- MTU ---- */

static void path_of_1200_bytes_transfers(void **) {
    open_with_mtu(65493);
    net.to_server.mtu_bytes = net.to_client.mtu_bytes = 1200;
    pair_connect();
    transfer(1000000);
    assert_int_equal(mtu_of(&pair.client), 1200);
    assert_int_equal(mtu_of(&pair.server), 1200);
    assert_true(net.largest[0] <= 1200 && net.largest[1] <= 1200);
}

static void path_of_65493_bytes_is_discovered_and_used(void **) {
    open_with_mtu(65493);
    pair_connect();
    transfer(2000000);
    assert_int_equal(mtu_of(&pair.client), 65493);
    assert_int_equal(mtu_of(&pair.server), 65493);
    transfer(2000000);
    assert_int_equal(net.largest[0], 65493);
    assert_int_equal(net.largest[1], 65493);
}

static void who_asks_for_less_sends_small_datagrams_and_takes_large_ones(void **) {
    open_with_mtu(65493);
    struct quic_target target = {.tls = pair.client_tls,
                                 .server_name = "localhost",
                                 .peer = &pair.server_address,
                                 .mtu_max_bytes = 1452};
    assert_non_null(quic_connect(pair.client.endpoint, &target, &pair.client, net.now_ns));
    assert_true(pair_run(both_ready, HANDSHAKE_MS));
    transfer(2000000);
    assert_int_equal(mtu_of(&pair.client), 1452);
    assert_int_equal(mtu_of(&pair.server), 65493);
}

static void largest_probe_that_passes_is_used(void **) {
    open_with_mtu(65493);
    net.to_server.mtu_bytes = net.to_client.mtu_bytes = 9000;
    pair_connect();
    transfer(1000000);
    pair_pass(5000);
    assert_int_equal(mtu_of(&pair.client), 8184);
    assert_int_equal(mtu_of(&pair.server), 8184);
    transfer(1000000);
    assert_int_equal(net.largest[1], 8184);
    assert_int_equal(net.refused_trains, 0); /* no probe took anything with it */
}

static void directions_may_differ(void **) {
    open_with_mtu(65493);
    net.to_server.mtu_bytes = 1452;
    pair_connect();
    transfer(1000000);
    pair_pass(5000);
    assert_int_equal(mtu_of(&pair.client), 1452);
    assert_int_equal(mtu_of(&pair.server), 65493);
}

static void probes_end_at_the_setting_and_at_what_the_peer_takes(void **) {
    open_with_mtu(1452);
    pair.settings.max_udp_payload_bytes = 1400;
    party_close(&pair.client);
    party_open_client(&pair.client, &pair.client_address);
    pair_connect();
    transfer(1000000);
    assert_int_equal(mtu_of(&pair.client), 1452);
    assert_int_equal(mtu_of(&pair.server), 1350);
    assert_int_equal(net.largest[1], 1452);
    assert_int_equal(net.largest[0], 1350);
}

static void first_datagrams_may_be_larger_than_1200(void **) {
    pair.settings.initial_mtu_bytes = 4096;
    open_with_mtu(65493);
    pair_connect();
    transfer(200000);
    assert_int_equal(net.largest[0], 4096);
    assert_int_equal(net.largest[1], 4096);
}

/* ---- another address ---- */

/* The client's NAT forgets it: from now on it comes from elsewhere. */
static void rebind(unsigned last, unsigned port) {
    net.nat_from = pair.client_address;
    net.nat_to = net_address(10, 0, 0, last, port);
}

static const char *peer_seen_by_server(void) {
    static char text[64];
    return quic_conn_peer_text(pair.server.conn, text);
}

static void transfer_goes_on_from_another_port(void **) {
    pair_connect();
    (void)party_send(&pair.client, true, 3000000, true);
    (void)party_send(&pair.server, true, 3000000, true);
    pair_pass(50);
    assert_string_equal(peer_seen_by_server(), "10.0.0.2:50000");
    rebind(2, 50001);
    assert_true(pair_run(all_arrived, 60000));
    assert_all_right();
    assert_int_equal(pair.client.closed + pair.server.closed, 0);
    assert_string_equal(peer_seen_by_server(), "10.0.0.2:50001");
}

static void transfer_goes_on_from_another_host(void **) {
    pair_connect();
    (void)party_send(&pair.client, true, 3000000, true);
    (void)party_send(&pair.server, true, 3000000, true);
    pair_pass(50);
    rebind(99, 6000);
    assert_true(pair_run(all_arrived, 60000));
    assert_all_right();
    assert_string_equal(peer_seen_by_server(), "10.0.0.99:6000");
}

static void many_moves_in_a_row(void **) {
    pair_connect();
    struct traffic *up = party_send(&pair.client, true, 1, false);
    struct traffic *down = party_send(&pair.server, true, 1, false);
    for (unsigned i = 0; i < 20; i++) {
        rebind(2, 50001 + i);
        traffic_send(up, 20000, false);
        traffic_send(down, 20000, false);
        assert_true(pair_run(all_arrived, 20000));
    }
    assert_all_right();
    assert_int_equal(pair.client.closed + pair.server.closed, 0);
}

/* What a telephone does that leaves one network for another: it knows, and takes a fresh id. */
static void client_that_moves_by_itself_takes_a_fresh_id_each_time(void **) {
    pair_connect();
    struct traffic *up = party_send(&pair.client, true, 1, false);
    struct traffic *down = party_send(&pair.server, true, 1, false);
    for (unsigned i = 0; i < 10; i++) {
        pair_pass(500);
        struct sockaddr_storage local = net_address(10, 0, 1, i, 50000);
        ngtcp2_path path = *ngtcp2_conn_get_path(pair.client.conn->conn);
        path.local.addr = (ngtcp2_sockaddr *)&local;
        net.nat_from = pair.client_address; /* answers reach the one socket that there is */
        net.nat_to = local;
        assert_int_equal(
            ngtcp2_conn_initiate_immediate_migration(pair.client.conn->conn, &path, net.now_ns), 0);
        pair.client.conn->local = local;
        traffic_send(up, 20000, false);
        traffic_send(down, 20000, false);
        assert_true(pair_run(all_arrived, 20000));
        char text[64];
        assert_string_equal(peer_seen_by_server(), sockaddr_text(&local, text));
    }
    assert_all_right();
    assert_int_equal(pair.client.closed + pair.server.closed, 0);
}

static void quiet_client_is_reached_after_it_said_something_from_its_new_address(void **) {
    pair_connect();
    pair_pass(1000);
    rebind(2, 50001);
    (void)party_send(&pair.client, true, 10, false);
    pair_pass(500);
    (void)party_send(&pair.server, false, 1000, true);
    assert_true(pair_run(all_arrived, 1000));
}

/* The last word goes where the client is, not where it was. */
static void close_reaches_a_client_that_moved(void **) {
    pair_connect();
    pair_pass(1000);
    rebind(2, 50001);
    (void)party_send(&pair.client, true, 10, false);
    pair_pass(6);
    assert_string_equal(peer_seen_by_server(), "10.0.0.2:50001");
    quic_conn_close(pair.server.conn, 9, "bye");
    assert_true(pair_run(client_ended, 1000));
    assert_string_equal(pair.client.close.reason, "bye");
}

static void lost_close_is_said_again_to_a_client_that_moved(void **) {
    pair_connect();
    rebind(2, 50001);
    (void)party_send(&pair.client, true, 10, false);
    pair_pass(500);
    net.to_client.lose_permille = 1000;
    quic_conn_close(pair.server.conn, 9, "bye");
    pair_pass(1);
    net.to_client.lose_permille = 0;
    (void)party_send(&pair.client, true, 10, false);
    assert_true(pair_run(client_ended, 1000));
    assert_string_equal(pair.client.close.reason, "bye");
}

static uint8_t captured[1500];
static size_t captured_bytes;

static bool capture(struct net *, bool to_server, uint8_t *data, size_t len) {
    if (!to_server || len > sizeof captured)
        return true;
    memcpy(captured, data, len);
    captured_bytes = len;
    return false;
}

/* Somebody on the way sends the client's packet from an address of his own, before the client's
 * own copy comes: until that address has proved itself it gets little, and the client stays. */
static void stolen_packet_from_elsewhere_does_not_carry_the_connection_off(void **) {
    pair_connect();
    pair_pass(1000);
    net.tap = capture;
    struct traffic *sent = party_send(&pair.client, true, 100, false);
    pair_pass(5);
    net.tap = NULL;
    struct sockaddr_storage thief = net_address(10, 6, 6, 6, 666);
    net_inject(&thief, &pair.server_address, captured, captured_bytes);
    pair_pass(20);
    uint64_t stolen_bytes = 0;
    for (size_t i = 0; i < net.stray_count; i++)
        stolen_bytes += net.strays[i]->len;
    assert_true(stolen_bytes <= 3 * captured_bytes + 1200);
    traffic_send(sent, 100000, true);
    traffic_send(party_find(&pair.server, sent->id), 100000, true);
    assert_true(pair_run(all_arrived, 20000));
    assert_all_right();
    assert_string_equal(peer_seen_by_server(), "10.0.0.2:50000");
}

/* The thief proves nothing and the client is silent: the connection is back where it was. */
static void stolen_connection_falls_back_by_itself(void **) {
    pair_connect();
    pair_pass(1000);
    net.tap = capture;
    (void)party_send(&pair.client, true, 100, false);
    pair_pass(5);
    net.tap = NULL;
    struct sockaddr_storage thief = net_address(10, 6, 6, 6, 666);
    net_inject(&thief, &pair.server_address, captured, captured_bytes);
    net.to_server.lose_permille = 1000;
    pair_pass(5);
    assert_string_equal(peer_seen_by_server(), "10.6.6.6:666");
    pair_pass(5000);
    assert_string_equal(peer_seen_by_server(), "10.0.0.2:50000");
    net.to_server.lose_permille = 0;
    quic_conn_close(pair.server.conn, 9, "bye");
    assert_true(pair_run(client_ended, 1000));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        PAIR_TEST(path_of_1200_bytes_transfers),
        PAIR_TEST(path_of_65493_bytes_is_discovered_and_used),
        PAIR_TEST(who_asks_for_less_sends_small_datagrams_and_takes_large_ones),
        PAIR_TEST(largest_probe_that_passes_is_used),
        PAIR_TEST(directions_may_differ),
        PAIR_TEST(probes_end_at_the_setting_and_at_what_the_peer_takes),
        PAIR_TEST(first_datagrams_may_be_larger_than_1200),
        PAIR_TEST(transfer_goes_on_from_another_port),
        PAIR_TEST(transfer_goes_on_from_another_host),
        PAIR_TEST(many_moves_in_a_row),
        PAIR_TEST(client_that_moves_by_itself_takes_a_fresh_id_each_time),
        PAIR_TEST(quiet_client_is_reached_after_it_said_something_from_its_new_address),
        PAIR_TEST(close_reaches_a_client_that_moved),
        PAIR_TEST(lost_close_is_said_again_to_a_client_that_moved),
        PAIR_TEST(stolen_packet_from_elsewhere_does_not_carry_the_connection_off),
        PAIR_TEST(stolen_connection_falls_back_by_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
