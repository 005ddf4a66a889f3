/* Megabytes both ways over a network that loses, doubles, reorders and damages datagrams. */
#include "pair.h"

#include <stdio.h>

#include "base/clock.h"

#define UP_BYTES ((uint64_t)3000000)
#define DOWN_BYTES ((uint64_t)3000000)
#define LIMIT_MS 600000u

static void set_rules(struct net_rule rule) {
    rule.delay_ns = 5 * NS_PER_MS;
    net.to_server = net.to_client = rule;
}

/* Several streams at a time in both directions, until all is there. */
static void transfer(void) {
    uint64_t start_ns = net.now_ns;
    for (unsigned i = 0; i < 3; i++) {
        (void)party_send(&pair.client, true, UP_BYTES / 3, true);
        (void)party_send(&pair.server, i != 0, DOWN_BYTES / 3, true);
    }
    bool all = pair_run(all_arrived, LIMIT_MS);
    print_message("seed %llu: %llu ms; sent %llu + %llu datagrams, lost %llu + %llu\n",
                  (unsigned long long)net.seed,
                  (unsigned long long)((net.now_ns - start_ns) / NS_PER_MS),
                  (unsigned long long)net.sent[1], (unsigned long long)net.sent[0],
                  (unsigned long long)net.lost[1], (unsigned long long)net.lost[0]);
    assert_true(all);
    assert_all_right();
    pair_pass(5000);
    assert_int_equal(pair.client.conn->unacked_bytes, 0);
    assert_int_equal(pair.server.conn->unacked_bytes, 0);
}

static void perfect_network(void **) {
    pair_connect();
    transfer();
    assert_int_equal(net.lost[0] + net.lost[1], 0);
}

static void five_percent_are_lost(void **) {
    pair_connect();
    set_rules((struct net_rule){.lose_permille = 50});
    transfer();
    assert_true(net.lost[0] > 50 && net.lost[1] > 50);
}

static void twenty_percent_are_lost(void **) {
    pair_connect();
    set_rules((struct net_rule){.lose_permille = 200});
    transfer();
    assert_true(net.lost[0] > 200 && net.lost[1] > 200);
}

static void every_fifth_datagram_comes_late(void **) {
    pair_connect();
    set_rules((struct net_rule){.late_permille = 200, .late_ns = 15 * NS_PER_MS});
    transfer();
}

static void every_third_datagram_comes_twice(void **) {
    pair_connect();
    set_rules((struct net_rule){.double_permille = 333});
    transfer();
}

static void every_twentieth_datagram_is_damaged(void **) {
    pair_connect();
    set_rules((struct net_rule){.damage_permille = 50});
    transfer();
    assert_true(net.damaged[0] > 50 && net.damaged[1] > 50);
    assert_int_equal(pair.client.closed + pair.server.closed, 0);
}

static void everything_at_once(void **) {
    pair_connect();
    set_rules((struct net_rule){.lose_permille = 50,
                                .double_permille = 100,
                                .damage_permille = 20,
                                .late_permille = 100,
                                .late_ns = 12 * NS_PER_MS});
    transfer();
}

/* The path goes dark for a while and comes back. */
static void connection_survives_an_outage(void **) {
    pair_connect();
    (void)party_send(&pair.client, true, UP_BYTES, true);
    (void)party_send(&pair.server, true, DOWN_BYTES, true);
    pair_pass(60);
    set_rules((struct net_rule){.lose_permille = 1000});
    pair_pass(10000);
    assert_false(all_arrived());
    set_rules((struct net_rule){0});
    assert_true(pair_run(all_arrived, 60000));
    assert_all_right();
    assert_int_equal(pair.client.closed + pair.server.closed, 0);
}

static bool either_gave_up(void) {
    return both_ready() || client_ended();
}

static bool arrived_or_ended(void) {
    return all_arrived() || client_ended() || server_ended();
}

/* A third of everything is lost from the first Initial on. After several losses in a row the next
 * attempt is many seconds away, so it may take long, or too long: but nothing hangs, most get
 * through, and what arrives is right. */
static void handshakes_get_through_heavy_loss(void **) {
    unsigned ready = 0, arrived = 0;
    for (unsigned i = 0; i < 30; i++) {
        party_close(&pair.client);
        party_close(&pair.server);
        party_open_server(&pair.server, 0, 1);
        party_open_client(&pair.client, &pair.client_address);
        set_rules((struct net_rule){.lose_permille = 330});
        (void)party_connect(&pair.client, NULL);
        /* A client that is ready may wait for a server that gave up: until it is idle. */
        assert_true(pair_run(either_gave_up, 2 * (uint64_t)HANDSHAKE_MS + IDLE_MS));
        if (!both_ready())
            continue;
        ready++;
        if (pair.client.conn == NULL)
            continue;
        (void)party_send(&pair.client, true, 20000, true);
        assert_true(pair_run(arrived_or_ended, 4 * (uint64_t)IDLE_MS));
        assert_all_right();
        arrived += all_arrived();
    }
    print_message("%u of 30 handshakes in time, %u transfers whole\n", ready, arrived);
    assert_true(ready >= 15);
    assert_true(arrived * 10 >= ready * 9);
}

/* What is held for retransmission stays within what was put in, whatever the network does. */
static void sender_holds_no_more_than_window_and_queue(void **) {
    pair_connect();
    set_rules((struct net_rule){.lose_permille = 100});
    (void)party_send(&pair.client, true, UP_BYTES, true);
    assert_true(pair_run(all_arrived, LIMIT_MS));
    assert_true(pair.client.unacked_max > 0);
    assert_true(pair.client.unacked_max <= STREAM_WINDOW_BYTES + ((size_t)160 << 10));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        PAIR_TEST(perfect_network),
        PAIR_TEST(five_percent_are_lost),
        PAIR_TEST(twenty_percent_are_lost),
        PAIR_TEST(every_fifth_datagram_comes_late),
        PAIR_TEST(every_third_datagram_comes_twice),
        PAIR_TEST(every_twentieth_datagram_is_damaged),
        PAIR_TEST(everything_at_once),
        PAIR_TEST(connection_survives_an_outage),
        PAIR_TEST(handshakes_get_through_heavy_loss),
        PAIR_TEST(sender_holds_no_more_than_window_and_queue),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
