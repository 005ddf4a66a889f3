/* What an endpoint does with datagrams that belong to no connection, with too many of them, and
 * with those that are meant for another reactor. */
#include "pair.h"

#include "base/clock.h"

#define INITIAL_BYTES 1200u

static uint8_t captured[1500];
static size_t captured_bytes;

/* Keeps the last datagram to the server and lets it pass. */
static bool copy_last(struct net *, bool to_server, uint8_t *data, size_t len) {
    if (to_server && len <= sizeof captured) {
        memcpy(captured, data, len);
        captured_bytes = len;
    }
    return true;
}

static struct sockaddr_storage stranger(unsigned number) {
    return net_address(192, 168, number >> 8 & 0xff, number & 0xff, 1000 + number);
}

static void inject(unsigned from, const void *data, size_t len) {
    struct sockaddr_storage address = stranger(from);
    net_inject(&address, &pair.server_address, data, len);
}

/* An Initial as a client would send it, but nobody has the keys: its id was changed. */
static void inject_undecryptable_initial(unsigned number) {
    uint8_t packet[INITIAL_BYTES];
    memcpy(packet, captured, sizeof packet);
    memcpy(packet + 6, &number, sizeof number);
    inject(number, packet, sizeof packet);
}

static void capture_an_initial(void) {
    net.tap = copy_last;
    struct quic_conn *conn = party_connect(&pair.client, NULL);
    (void)quic_endpoint_flush(pair.client.endpoint, net.now_ns);
    assert_int_equal(captured_bytes, INITIAL_BYTES);
    assert_non_null(conn);
    net.tap = NULL;
    party_close(&pair.client);
    party_open_client(&pair.client, &pair.client_address);
    pair_pass(HANDSHAKE_MS + IDLE_MS);
    net_forget_strays();
    assert_int_equal(pair.server.endpoint->conn_count, 0);
}

static void newcomer_is_served(void) {
    unsigned ready = pair.second.ready;
    struct sockaddr_storage address = net_address(10, 0, 0, 3, 40000);
    party_open_client(&pair.second, &address);
    (void)party_connect(&pair.second, NULL);
    pair_pass(1000);
    assert_int_equal(pair.second.ready, ready + 1);
}

/* ---- versions ---- */

static void unknown_version_gets_the_list_of_ours(void **) {
    uint8_t packet[INITIAL_BYTES] = {0xc0, 0x0a, 0x0a, 0x0a, 0x0a, 8, 1, 2, 3, 4,
                                     5,    6,    7,    8,    4,    9, 9, 9, 9};
    inject(1, packet, sizeof packet);
    pair_pass(100);
    assert_int_equal(net.stray_count, 1);
    const struct net_packet *answer = net.strays[0];
    static const uint8_t to_and_of[] = {0, 0, 0, 0, 4, 9, 9, 9, 9, 8, 1, 2, 3, 4, 5, 6, 7, 8};
    assert_true((answer->data[0] & 0x80) != 0);
    assert_memory_equal(answer->data + 1, to_and_of, sizeof to_and_of);
    assert_int_equal(answer->len, 1 + sizeof to_and_of + 4);
    static const uint8_t version_1[] = {0, 0, 0, 1};
    assert_memory_equal(answer->data + 1 + sizeof to_and_of, version_1, 4);
    assert_int_equal(pair.server.endpoint->conn_count, 0);
}

static void small_datagram_of_an_unknown_version_gets_nothing(void **) {
    uint8_t packet[INITIAL_BYTES - 1] = {0xc0, 0x0a, 0x0a, 0x0a, 0x0a, 8};
    inject(1, packet, sizeof packet);
    pair_pass(10);
    memcpy(packet + 1, "\x6b\x33\x43\xcf", 4); /* version 2, which ngtcp2 would know */
    inject(1, packet, sizeof packet);
    pair_pass(10);
    assert_int_equal(net.stray_count, 0);
}

static bool answer_with_foreign_versions(struct net *, bool to_server, uint8_t *data, size_t len) {
    /* To the client's id, of the id that it chose, with one version that it does not know. */
    uint8_t answer[64] = {0x80};
    const uint8_t *dcid = data + 5, *scid = dcid + 1 + dcid[0];
    size_t at = 5;
    if (!to_server)
        return true;
    memcpy(answer + at, scid, 1 + (size_t)scid[0]);
    at += 1 + (size_t)scid[0];
    memcpy(answer + at, dcid, 1 + (size_t)dcid[0]);
    at += 1 + (size_t)dcid[0];
    memcpy(answer + at, "\x6b\x33\x43\xcf", 4);
    net_inject(&pair.server_address, &pair.client_address, answer, at + 4);
    return false;
}

static void client_gives_up_at_once_when_the_server_has_no_common_version(void **) {
    net.tap = answer_with_foreign_versions;
    (void)party_connect(&pair.client, NULL);
    assert_true(pair_run(client_ended, 100));
    assert_int_equal(pair.client.close.err, FELIX_PROTOCOL);
    pair_pass(IDLE_MS);
    assert_int_equal(pair.client.endpoint->conn_count, 0);
}

/* ---- stateless reset ---- */

static bool client_closed(void) {
    return pair.client.closed == 1;
}

static void client_learns_of_a_server_without_memory_by_the_reset(void **) {
    pair_connect();
    pair_pass(1000);
    party_close(&pair.server);
    party_open_server(&pair.server, 0, 1);
    (void)party_send(&pair.client, true, 100, false);
    assert_true(pair_run(client_closed, 100));
    assert_true(pair.client.close.by_peer);
    assert_int_equal(counter_get(&pair.server.endpoint->counters.resets_sent), 1);
}

static void reset_of_somebody_without_the_secret_ends_nothing(void **) {
    pair_connect();
    pair_pass(1000);
    party_close(&pair.server);
    party_open_server(&pair.server, 0, 1);
    pair.server.endpoint->static_secret[0] ^= 1;
    (void)party_send(&pair.client, true, 100, false);
    assert_false(pair_run(client_closed, 5000));
    assert_true(counter_get(&pair.server.endpoint->counters.resets_sent) > 0);
}

static void reset_is_shorter_than_what_drew_it(void **) {
    uint8_t packet[100] = {0x40, CID_TAG, 7, 0, 1, 2, 3, 4, 5};
    for (size_t len = 1; len <= sizeof packet; len++) {
        net_forget_strays();
        inject(1, packet, len);
        pair_pass(10);
        if (net.stray_count == 0) {
            assert_true(len < 60);
            continue;
        }
        assert_true(net.strays[0]->len < len);
        assert_true(net.strays[0]->len >= 21);
        assert_int_equal(net.strays[0]->data[0] & 0xc0, 0x40);
    }
}

static void stray_answers_are_a_thousand_a_second(void **) {
    uint8_t packet[100] = {0x40, CID_TAG, 7, 0, 1, 2, 3, 4, 5};
    for (unsigned ms = 0; ms < 20; ms++) {
        for (unsigned i = 0; i < 50; i++)
            inject(1, packet, sizeof packet);
        pair_pass(1);
    }
    uint64_t resets = counter_get(&pair.server.endpoint->counters.resets_sent);
    assert_true(resets >= 19 && resets <= 21);
    assert_int_equal(counter_get(&pair.server.endpoint->counters.datagrams_dropped), 1000 - resets);
}

/* ---- garbage ---- */

static void garbage_ends_nothing_and_leaves_nothing(void **) {
    static uint8_t packet[2000];
    static const uint8_t firsts[] = {0x00, 0x40, 0x7f, 0x80, 0xc0, 0xd0, 0xe0, 0xf0, 0xff};
    pair_connect();
    (void)party_send(&pair.client, true, 1000000, true);
    for (unsigned round = 0; round < 2000; round++) {
        size_t len = rng_below(&net.rng, sizeof packet + 1);
        for (size_t i = 0; i < len; i++)
            packet[i] = (uint8_t)rng_next(&net.rng);
        packet[0] = firsts[round % sizeof firsts];
        if (round % 2 == 0)
            memcpy(packet + 1, "\0\0\0\1", 4);
        inject(round, packet, len);
        net_inject(&pair.client_address, &pair.server_address, packet, len);
        net_inject(&pair.server_address, &pair.client_address, packet, len);
        pair_pass(1);
    }
    assert_true(pair_run(all_arrived, 10000));
    assert_all_right();
    pair_pass(5000);
    assert_int_equal(pair.server.endpoint->conn_count, 1);
    assert_int_equal(pair.client.endpoint->conn_count, 1);
}

static void damaged_and_cut_initials_open_nothing(void **) {
    capture_an_initial();
    for (size_t len = 0; len < INITIAL_BYTES; len += 7)
        inject(1, captured, len);
    for (size_t bit = 0; bit < (size_t)8 * 60; bit++) {
        uint8_t packet[INITIAL_BYTES];
        memcpy(packet, captured, sizeof packet);
        packet[bit / 8] ^= (uint8_t)(1 << bit % 8);
        inject((unsigned)bit, packet, sizeof packet);
    }
    pair_pass(10);
    assert_int_equal(pair.server.endpoint->half_open_count, 0);
    assert_int_equal(pair.server.endpoint->conn_count, 0);
    newcomer_is_served();
}

/* ---- floods ---- */

static void initials_that_nobody_can_read_keep_no_newcomer_out(void **) {
    capture_an_initial();
    for (unsigned i = 0; i < 100 * CONNECTIONS_MAX; i++)
        inject_undecryptable_initial(i);
    newcomer_is_served();
    pair_pass(10);
    assert_int_equal(pair.server.endpoint->conn_count, 1);
    assert_int_equal(pair.server.endpoint->half_open_count, 0);
}

static void handshakes_that_fail_keep_no_newcomer_out(void **) {
    for (unsigned i = 0; i < 5 * CONNECTIONS_MAX; i++) {
        (void)party_connect(&pair.client, "h3");
        pair_pass(1);
    }
    newcomer_is_served();
    pair_pass(IDLE_MS);
    assert_int_equal(counter_get(&pair.server.endpoint->counters.half_open), 0);
}

/* Handshakes whose answers get lost. */
static void leave_half_open(unsigned count) {
    net.to_client.lose_permille = 1000;
    for (unsigned i = 0; i < count; i++)
        (void)party_connect(&pair.client, NULL);
    pair_pass(20);
    net.to_client.lose_permille = 0;
}

static void above_the_limit_of_half_open_ones_newcomers_prove_their_address(void **) {
    leave_half_open(3 * HALF_OPEN_MAX);
    assert_int_equal(pair.server.endpoint->half_open_count, HALF_OPEN_MAX);
    assert_int_equal(pair.server.endpoint->conn_count, HALF_OPEN_MAX);
    assert_true(counter_get(&pair.server.endpoint->counters.retries_sent) >= 2 * HALF_OPEN_MAX);
    uint64_t retries = counter_get(&pair.server.endpoint->counters.retries_sent);
    newcomer_is_served();
    assert_true(counter_get(&pair.server.endpoint->counters.retries_sent) > retries);
    assert_int_equal(counter_get(&pair.server.endpoint->counters.tokens_invalid), 0);
}

static void half_open_ones_end_at_the_handshake_timeout(void **) {
    leave_half_open(HALF_OPEN_MAX);
    party_close(&pair.client);
    party_open_client(&pair.client, &pair.client_address);
    pair_pass(HANDSHAKE_MS + IDLE_MS);
    assert_int_equal(pair.server.endpoint->half_open_count, 0);
    assert_int_equal(pair.server.endpoint->conn_count, 0);
    assert_int_equal(pair.server.endpoint->cids.count, 0);
    assert_int_equal(pair.server.closed, HALF_OPEN_MAX);
}

/* Drops what is the answer to a Retry, and keeps it. */
static bool steal_answer_to_retry(struct net *, bool to_server, uint8_t *data, size_t len) {
    if (!to_server || counter_get(&pair.server.endpoint->counters.retries_sent) == 0)
        return true;
    if (len == INITIAL_BYTES) {
        memcpy(captured, data, len);
        captured_bytes = len;
    }
    return false;
}

static void steal_a_token(void) {
    pair.settings.max_half_open = 0; /* a Retry for everybody */
    party_close(&pair.server);
    party_open_server(&pair.server, 0, 1);
    net.tap = steal_answer_to_retry;
    captured_bytes = 0;
    (void)party_connect(&pair.client, NULL);
    pair_pass(30);
    assert_int_equal(captured_bytes, INITIAL_BYTES);
}

static void token_is_good_for_its_address(void **) {
    steal_a_token();
    net_inject(&pair.client_address, &pair.server_address, captured, captured_bytes);
    pair_pass(10);
    assert_int_equal(pair.server.endpoint->conn_count, 1);
}

static void token_is_worth_nothing_from_another_address(void **) {
    steal_a_token();
    inject(1, captured, captured_bytes);
    pair_pass(10);
    assert_int_equal(pair.server.endpoint->conn_count, 0);
    assert_int_equal(counter_get(&pair.server.endpoint->counters.tokens_invalid), 1);
}

static void token_is_worth_nothing_after_ten_seconds(void **) {
    steal_a_token();
    party_close(&pair.client);
    party_open_client(&pair.client, &pair.client_address);
    pair_pass(10001);
    net_inject(&pair.client_address, &pair.server_address, captured, captured_bytes);
    pair_pass(10);
    assert_int_equal(pair.server.endpoint->conn_count, 0);
    assert_int_equal(counter_get(&pair.server.endpoint->counters.tokens_invalid), 1);
}

static void full_server_refuses(void **) {
    pair_connect();
    for (unsigned i = 1; i < CONNECTIONS_MAX; i++) {
        (void)party_connect(&pair.client, NULL);
        pair_pass(100);
    }
    assert_int_equal(pair.client.ready, CONNECTIONS_MAX);
    (void)party_connect(&pair.client, NULL);
    assert_true(pair_run(client_ended, 100));
    assert_int_equal(pair.client.close.code, NGTCP2_CONNECTION_REFUSED);
    assert_int_equal(counter_get(&pair.server.endpoint->counters.conns_refused), 1);
    assert_int_equal(pair.server.endpoint->conn_count, CONNECTIONS_MAX);

    quic_conn_close(pair.server.conn, 0, ""); /* its place is free at once, not in three PTO */
    pair_pass(10);
    newcomer_is_served();
}

static void connections_that_end_at_once_are_bounded_too(void **) {
    for (unsigned round = 0; round < 5; round++) {
        for (unsigned i = 0; i < HALF_OPEN_MAX; i++)
            (void)party_connect(&pair.client, NULL);
        pair_pass(16);
        for (struct quic_conn *c = pair.server.endpoint->conns; c != NULL; c = c->all_next)
            quic_conn_close(c, 0, "");
        pair_pass(6);
    }
    assert_int_equal(pair.server.closed, 5 * HALF_OPEN_MAX);
    assert_int_equal(pair.server.endpoint->ended_count, CONNECTIONS_MAX);
    assert_int_equal(pair.server.endpoint->conn_count, CONNECTIONS_MAX);
    newcomer_is_served();
}

static void draining_server_refuses_newcomers_and_serves_the_others(void **) {
    pair_connect();
    quic_endpoint_accept(pair.server.endpoint, false);
    (void)party_send(&pair.client, true, 10000, true);
    assert_true(pair_run(all_arrived, 1000));
    struct quic_conn *old = pair.client.conn;
    (void)party_connect(&pair.client, NULL);
    assert_true(pair_run(client_ended, 100));
    assert_int_equal(pair.client.close.code, NGTCP2_CONNECTION_REFUSED);
    assert_ptr_equal(pair.client.conn, old);
}

/* ---- a socket that takes nothing ---- */

static void transfer_waits_for_room_in_the_send_buffer(void **) {
    pair_connect();
    struct net_socket *socket = net_socket_of(&pair.server.endpoint->udp);
    (void)party_send(&pair.server, true, 2000000, true);
    pair_pass(30);
    socket->full = true;
    pair_pass(1000);
    assert_true(quic_endpoint_blocked(pair.server.endpoint));
    assert_true(socket->kept_datagrams <= UDP_GSO_SEGMENTS_MAX + 1);
    assert_false(all_arrived());
    socket->full = false;
    assert_true(pair_run(all_arrived, 10000));
    assert_false(quic_endpoint_blocked(pair.server.endpoint));
    assert_all_right();
}

static void answers_to_strangers_do_not_pile_up_behind_a_full_send_buffer(void **) {
    capture_an_initial();
    pair.settings.max_half_open = 0;
    party_close(&pair.server);
    party_open_server(&pair.server, 0, 1);
    struct net_socket *socket = net_socket_of(&pair.server.endpoint->udp);
    socket->full = true;
    for (unsigned i = 0; i < 5000; i++) {
        inject_undecryptable_initial(i);
        if (i % 100 == 0)
            pair_pass(2);
    }
    pair_pass(10);
    assert_true(socket->kept_datagrams <= 1);
    socket->full = false;
    newcomer_is_served();
}

/* ---- reactors ---- */

static void open_two_reactors(void) {
    party_close(&pair.server);
    party_open_server(&pair.server, 0, 2);
    party_open_server(&pair.second, 1, 2);
}

static void datagrams_for_another_reactor_are_handed_over(void **) {
    open_two_reactors();
    pair_connect();
    net.steer_to = 1; /* the kernel errs from here on */
    (void)party_send(&pair.client, true, 500000, true);
    (void)party_send(&pair.server, true, 500000, true);
    assert_true(pair_run(all_arrived, 10000));
    assert_all_right();
    assert_true(pair.second.forwarded > 100);
    assert_int_equal(pair.second.endpoint->conn_count, 0);
}

static void both_reactors_serve_whom_they_accepted(void **) {
    open_two_reactors();
    net.steer_to = 1;
    (void)party_connect(&pair.client, NULL);
    pair_pass(1000);
    assert_int_equal(pair.second.ready, 1);
    net.steer_to = 0; /* handed from the first to the second now */
    struct traffic *sent = party_send(&pair.client, true, 100000, true);
    pair_pass(2000);
    assert_int_equal(party_find(&pair.second, sent->id)->received, 100000);
    assert_true(pair.server.forwarded > 0);
    assert_int_equal(pair.server.endpoint->conn_count, 0);
}

/* A made-up id that names the other reactor, itself, or one that does not exist. */
static void made_up_ids_are_answered_once_by_whom_they_name(void **) {
    uint8_t packet[100] = {0x40, CID_TAG, 7, 0, 1, 2, 3, 4, 5};
    open_two_reactors();
    net.steer_to = 0;
    for (unsigned reactor = 0; reactor < 256; reactor++) {
        packet[1 + CID_REACTOR_AT] = (uint8_t)reactor;
        net_forget_strays();
        inject(1, packet, sizeof packet);
        pair_pass(10);
        assert_int_equal(net.stray_count, 1);
        assert_int_equal(pair.server.forwarded, reactor == 0 ? 0 : 1);
    }
    assert_int_equal(counter_get(&pair.second.endpoint->counters.resets_sent), 1);
    assert_int_equal(counter_get(&pair.server.endpoint->counters.resets_sent), 255);
}

/* ---- who is written first ---- */

static size_t to_clients[8];
static unsigned to_clients_count;

static bool note_sizes(struct net *, bool to_server, uint8_t *, size_t len) {
    if (!to_server && to_clients_count < 8)
        to_clients[to_clients_count++] = len;
    return true;
}

/* One turn in which a connection has 100 bytes to say and then another one 500. */
static void say_to_both(struct quic_conn *first, struct quic_conn *second, bool hurry) {
    to_clients_count = 0;
    pair.server.conn = first;
    (void)party_send(&pair.server, false, 100, false);
    pair.server.conn = second;
    (void)party_send(&pair.server, false, 500, false);
    if (hurry)
        quic_conn_hurry(second);
    pair_pass(100);
    assert_true(to_clients_count >= 2);
}

static void who_is_in_a_hurry_is_written_before_the_others(void **) {
    pair_connect();
    pair_pass(1000);
    struct quic_conn *first = pair.server.conn;
    newcomer_is_served();
    struct quic_conn *second = pair.server.conn;
    assert_ptr_not_equal(first, second);
    net.tap = note_sizes;
    say_to_both(first, second, false);
    assert_true(to_clients[0] < 300 && to_clients[1] > 500);
    say_to_both(first, second, true);
    assert_true(to_clients[0] > 500 && to_clients[1] < 300);
    say_to_both(first, second, false); /* that was for one turn */
    assert_true(to_clients[0] < 300 && to_clients[1] > 500);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        PAIR_TEST(unknown_version_gets_the_list_of_ours),
        PAIR_TEST(small_datagram_of_an_unknown_version_gets_nothing),
        PAIR_TEST(client_gives_up_at_once_when_the_server_has_no_common_version),
        PAIR_TEST(client_learns_of_a_server_without_memory_by_the_reset),
        PAIR_TEST(reset_of_somebody_without_the_secret_ends_nothing),
        PAIR_TEST(reset_is_shorter_than_what_drew_it),
        PAIR_TEST(stray_answers_are_a_thousand_a_second),
        PAIR_TEST(garbage_ends_nothing_and_leaves_nothing),
        PAIR_TEST(damaged_and_cut_initials_open_nothing),
        PAIR_TEST(initials_that_nobody_can_read_keep_no_newcomer_out),
        PAIR_TEST(handshakes_that_fail_keep_no_newcomer_out),
        PAIR_TEST(above_the_limit_of_half_open_ones_newcomers_prove_their_address),
        PAIR_TEST(half_open_ones_end_at_the_handshake_timeout),
        PAIR_TEST(token_is_good_for_its_address),
        PAIR_TEST(token_is_worth_nothing_from_another_address),
        PAIR_TEST(token_is_worth_nothing_after_ten_seconds),
        PAIR_TEST(full_server_refuses),
        PAIR_TEST(connections_that_end_at_once_are_bounded_too),
        PAIR_TEST(draining_server_refuses_newcomers_and_serves_the_others),
        PAIR_TEST(transfer_waits_for_room_in_the_send_buffer),
        PAIR_TEST(answers_to_strangers_do_not_pile_up_behind_a_full_send_buffer),
        PAIR_TEST(datagrams_for_another_reactor_are_handed_over),
        PAIR_TEST(both_reactors_serve_whom_they_accepted),
        PAIR_TEST(made_up_ids_are_answered_once_by_whom_they_name),
        PAIR_TEST(who_is_in_a_hurry_is_written_before_the_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
