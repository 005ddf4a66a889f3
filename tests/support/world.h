/*
 * Brokers' session layers without a network, a thread or a clock: one to three reactors, wired by
 * queues of messages that the test delivers, with peers in memory (peer.h) as their clients.
 *
 * Tenants t1 and t2 exist, each with streams a, b and c and cache k in namespace n. Three people
 * have tokens: WORLD_ALL may do everything in t1, WORLD_SOME may publish to, subscribe
 * to and manage stream a of t1 only, WORLD_OTHER may publish, subscribe, read and write in t2.
 */
#ifndef TESTS_SUPPORT_WORLD_H
#define TESTS_SUPPORT_WORLD_H

#include "session/session.h"
#include "support/peer.h"
#include "support/world_log.h"

#define WORLD_REACTORS_MAX 3u
#define WORLD_STREAMS 3u

enum world_person { WORLD_ALL, WORLD_SOME, WORLD_OTHER, WORLD_PEOPLE };

struct world_options {
    unsigned reactors;
    struct server_settings server;
    struct core_settings core;
};

struct world_reactor {
    struct server server;
    struct quic_endpoint endpoint;
    struct mail *mail[WORLD_REACTORS_MAX]; /* by sender, newest first */
    struct peer *peers;
};

struct world {
    unsigned count;
    uint64_t now_ns;
    uint64_t incarnation;  /* of the stream that was added last */
    struct world_log *log; /* of the durable stream, if there is one */
    struct world_reactor reactors[WORLD_REACTORS_MAX];
};

/** One reactor, generous limits. */
struct world_options world_options(void);

/** Returns owned. The keys and tokens of the process are made at the first call. */
struct world *world_new(const struct world_options *options);
/** Closes all connections, checks that every account is back at zero, and frees. */
void world_free(struct world *world);

/** The token that a person presents, for the tenant that world_tenant names. Static. */
struct slice world_token(enum world_person person);
struct slice world_tenant(enum world_person person);

/** A new client of a reactor. The world frees it. */
struct peer *world_connect(struct world *world, unsigned reactor);

/** Deliver what waits for `reactor` from `from`, in order; true when there was something. */
bool world_mail(struct world *world, unsigned reactor, unsigned from);
/** A turn of one reactor at the world's time: its messages, then its server. */
void world_turn(struct world *world, unsigned reactor);
/** Turns of all reactors, all clients taking and acknowledging all, until nothing moves. */
void world_settle(struct world *world);

/** After world_settle: nobody holds budget or waits for it, all that was received was handled and
 * given back, and all that was published was sent. */
void world_check_rest(const struct world *world);

/** Add or remove a stream or cache of a tenant on all reactors. */
void world_add_stream(struct world *world, const char *tenant, const char *name);
/** The same of a durable stream, whose log is world->log; at most one in a world. */
void world_add_durable(struct world *world, const char *tenant, const char *name);
void world_remove_stream(struct world *world, const char *tenant, const char *name);

/** Send a message as one frame; an auth of a person, with client_features and our own features. */
void world_say(struct peer_stream *stream, const struct message *message);
void world_say_auth(struct peer_stream *stream, enum world_person person, uint32_t features);

/** Send a binary publish of `count` items that are `fill`, `fill` + 1 and so on, each of
 * `item_bytes`. `flags` without PUBLISH_BATCH, which is added. What is left out is one item of one
 * byte for stream a of t1. */
struct world_publish {
    uint16_t flags;
    uint64_t request_id;
    const char *tenant, *stream;
    uint32_t count;
    uint32_t item_bytes;
    uint8_t fill;
};
void world_say_publish(struct peer_stream *stream, const struct world_publish *publish);

/** The next whole frame that the server sent on the stream; false when there is none yet. The
 * body is borrowed until the next call that lets the server send. */
bool world_hear(struct peer_stream *stream, struct frame_header *ret, struct slice *ret_body);

#endif
