/*
 * A server and clients on the network of net.h, in one thread, on its clock. Every party takes
 * what its streams bring, checks that each byte is the one that belongs to its place, and keeps
 * count of what it was told.
 */
#ifndef TESTS_QUIC_PAIR_H
#define TESTS_QUIC_PAIR_H

#include "net.h"
#include "quic/endpoint.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define PARTY_STREAMS_MAX 64u
#define CONN_WINDOW_BYTES ((uint64_t)1 << 20)
#define STREAM_WINDOW_BYTES ((uint64_t)256 << 10)
#define STREAMS_BIDI_MAX 4u
#define STREAMS_UNI_MAX 3u
#define IDLE_MS 30000u
#define HANDSHAKE_MS 5000u
#define HALF_OPEN_MAX 8u
#define CONNECTIONS_MAX 12u

/* One stream as one side sees it. */
struct traffic {
    struct quic_stream *stream; /* NULL once closed */
    int64_t id;
    uint64_t to_send, queued; /* bytes */
    bool finish;
    uint64_t received;
    bool wrong; /* a byte was not what belongs there */
    bool fin, reset, stopped, closed;
    uint64_t reset_code;
    bool hold; /* take nothing: the window fills */
    size_t held;
};

/* One endpoint with what its handler was told. */
struct party {
    struct quic_endpoint *endpoint;
    struct quic_conn *conn; /* the last that became ready, until it is closed */
    unsigned ready, closed, granted, forwarded;
    struct quic_close close; /* of the last that ended */
    struct traffic traffic[PARTY_STREAMS_MAX];
    size_t traffic_count;
    bool hold;  /* for streams that the peer opens from now on */
    bool alone; /* what is held is not to keep other streams waiting */
    size_t held_max, unacked_max;
};

struct pair {
    struct quic_settings settings; /* of endpoints that are made from now on */
    struct quic_tls *server_tls, *client_tls;
    struct sockaddr_storage server_address, client_address;
    struct party server, client;
    struct party second; /* another reactor of the server, or another client */
};

extern struct pair pair;

/* Setup and teardown of a test: a network, certificates, a server, and a client that is not yet
 * connected. The seed is FELIX_TEST_SEED, or the same in every run; a failing test prints it. */
int pair_setup(void **state);
int pair_teardown(void **state);
#define PAIR_TEST(name) cmocka_unit_test_setup_teardown(name, pair_setup, pair_teardown)

/** Both sides anew, with these packet ciphers instead of automatic ones. */
void pair_restart(enum quic_cipher server, enum quic_cipher client);

/** Endpoints by hand; `reactor` of `count`. */
void party_open_server(struct party *party, unsigned reactor, unsigned count);
void party_open_client(struct party *party, const struct sockaddr_storage *address);
void party_close(struct party *party);

/** Start a connection; `party_connect` also offers the ALPN name unless it is NULL. */
struct quic_conn *party_connect(struct party *party, const char *alpn);

/** Connect `pair.client` and wait until both sides are ready. */
void pair_connect(void);

/** Let time and datagrams pass until `done` or for `limit_ms`; returns what `done` said last. */
bool pair_run(bool (*done)(void), uint64_t limit_ms);
/** Let exactly this time pass. */
void pair_pass(uint64_t ms);

/** A stream of `party` that sends `bytes`, then ends if `finish`. */
struct traffic *party_send(struct party *party, bool bidi, uint64_t bytes, bool finish);
/** More on a stream that is there. */
void traffic_send(struct traffic *traffic, uint64_t bytes, bool finish);
/** Take what was held, and everything from now on. */
void traffic_release(struct traffic *traffic);
/** The other side's view of the same stream; NULL when it was never told of it. */
struct traffic *party_find(struct party *party, int64_t id);

/* Conditions for pair_run. */
bool both_ready(void);
bool client_ended(void);
bool server_ended(void);
/** Everything that was sent on any stream has arrived at the other side, with its end. */
bool all_arrived(void);
/** Fails the test when a byte was wrong. */
void assert_all_right(void);

#endif
