/*
 * The client handle: settings, background thread, pools, and what publishes, subscribes and asks
 * caches over them.
 *
 * Settings, addresses and credentials are immutable after felix_connect. Everything else belongs
 * to the driver (driver.h) unless its own header says how it is shared.
 */
#ifndef CLIENT_CLIENT_H
#define CLIENT_CLIENT_H

#include "base/counter.h"
#include "base/rand.h"
#include "client/io.h"
#include "client/kv.h"
#include "client/link.h"
#include "client/options.h"
#include "client/publisher.h"
#include "client/subscriber.h"
#include "client/wait.h"

#define CLIENT_CONNECT_TIMEOUT_MS 10000u
#define CLIENT_EVENT_STREAMS_MAX 16384u /* event streams of one connection */

#define CLIENT_MAGIC 0x464c5843u

/* Written by the driver, read by any. */
struct client_counters {
    counter connections, connects, reconnects;
    counter received, receive_bytes, receive_dropped;
    counter cache_requests, cache_failures;
    counter publish_acked, publish_failed;
};

/* A blocking call that the driver answers: lies on the caller's stack. */
struct client_call {
    struct io_command command;
    struct waiter waiter;
    enum felix_err err;
    struct felix_cursor_error cursor; /* of a cursor error */
    char text[256];
};

/* felix_close hands this over. */
struct client_ending {
    struct io_command command;
    uint64_t due_ns;
};

struct felix_client {
    uint32_t magic;
    struct felix_options *options; /* owned */
    const struct client_settings *settings;
    char *server_name; /* owned */
    struct sockaddr_storage peer;
    bool peer_on_host;
    struct quic_tls *tls;
    uint64_t spin_ns; /* 0 when spinning cannot help */
    uint64_t timeout_ns;
    _Atomic bool closed; /* no new work is taken */

    struct client_io io;
    struct rng rng;
    struct link *links[POOL_KINDS];
    unsigned link_count[POOL_KINDS];
    struct client_counters counters;
    _Atomic uint32_t server_flags; /* of the first publish stream */

    struct publisher publisher;
    struct kv kv;
    struct subscriber subscriber;

    struct client_call *opening;  /* felix_connect waits for the first publish stream; else NULL */
    struct client_ending ending;  /* of felix_close */
    struct client_flush *flushes; /* felix_flush calls in progress */
    struct client_ping *pings;
    struct client_request *requests;
    bool closing;
    bool finishing;          /* publish lanes were finished */
    uint64_t closing_due_ns; /* UINT64_MAX unless closing */
};

/** The call whose command this is. */
static inline struct client_call *client_call_of(struct io_command *command) {
    return (struct client_call *)((char *)command - offsetof(struct client_call, command));
}

/** Begin a call on this stack: next it is posted, then waited for. */
void client_call_begin(struct felix_client *client, struct client_call *call);
/** Wait for the answer to a call that was posted; sets the thread's last error. */
enum felix_err client_call_wait(struct felix_client *client, struct client_call *call);
/** Answer it. Driver; `call` must not be touched afterwards. */
void client_call_answer(struct client_call *call, enum felix_err err, const char *text);

/** The first publish stream is authenticated: felix_connect returns. */
void client_opened(struct felix_client *client);
/** An attempt failed: felix_connect returns too, if another one would fail alike. */
void client_open_failed(struct felix_client *client, enum felix_err err, const char *text);
/** The host of the broker says that nothing listened there when `datagram` came, of which it gives
 * back the beginning. */
void client_refused(struct felix_client *client, struct slice datagram);

/** Everything with a deadline; returns the next one. */
uint64_t client_expire(struct felix_client *client, uint64_t now_ns);
/** What waits for the outcome of a turn: flushes, closing. */
void client_after_turn(struct felix_client *client);
/** The end of the thread: everything unfinished is answered with FELIX_CLOSED. */
void client_shut(struct felix_client *client);

/* ---- between client.c and calls.c ---- */

/** Deadlines of flushes, pings and requests; returns the next one. */
uint64_t calls_expire(struct felix_client *client, uint64_t now_ns);
/** Answer the flushes that have what they waited for. */
void calls_after_turn(struct felix_client *client);
/** Answer all with FELIX_CLOSED. */
void calls_shut(struct felix_client *client);

#endif
