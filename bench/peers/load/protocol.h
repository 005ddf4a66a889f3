/*
 * What peers speak, as far as a measurement needs it: bytes that a client sends and the pieces of
 * what comes back. Nothing here waits or keeps state, except the greetings.
 *
 * A message and a cache request are templates: the same bytes each time, with a place where the
 * payload or the digits of the key go. So the load program spends next to nothing on encoding, and
 * what is measured is the peer.
 */
#ifndef PEERS_LOAD_PROTOCOL_H
#define PEERS_LOAD_PROTOCOL_H

#include "base/text.h"
#include "link.h"

/* One piece of what a peer sends. */
struct item {
    enum {
        ITEM_INCOMPLETE, /* more bytes are needed */
        ITEM_MESSAGE,    /* a delivery; `payload` */
        ITEM_ANSWER,     /* to the oldest request that has none; `payload` when it is a value */
        ITEM_ERROR,      /* the peer complains; `payload` is its line */
        ITEM_OTHER,      /* nothing that counts */
    } kind;
    size_t bytes;         /* that it takes; meaningful unless incomplete */
    struct slice payload; /* borrowed */
};

/* Publish and subscribe. There is one subject, PROTOCOL_SUBJECT. */
struct protocol {
    const char *name;
    /** On a new connection of a publisher or of a subscriber: greets, and comes back when the peer
     * has answered. `acked`: the publisher wants an answer to each message. */
    void (*greet)(struct link *link, bool acked);
    void (*subscribe)(struct link *link);
    /** Appends one message of `payload_bytes` zeros; returns where they begin. */
    size_t (*message)(struct text *out, size_t payload_bytes, bool acked);
    struct item (*next)(struct slice in);
};

#define PROTOCOL_SUBJECT "felix"

/* Put and get. */
struct cache_protocol {
    const char *name;
    /** Appends one request whose key ends with CACHE_KEY_DIGITS zeros; returns where those begin.
     * A put carries `value_bytes` zeros, and `*ret_value` tells where. */
    size_t (*put)(struct text *out, size_t value_bytes, size_t *ret_value);
    size_t (*get)(struct text *out);
    struct item (*next)(struct slice in);
};

#define CACHE_KEY_DIGITS 6

/** NULL when the name is unknown. */
const struct protocol *protocol_find(const char *name);
const struct cache_protocol *cache_protocol_find(const char *name);

/** Takes the next item out of what `link` holds; fails on ITEM_ERROR. */
struct item protocol_take(struct link *link, struct item (*next)(struct slice));

/* The families, each in a file of its own. */
extern const struct protocol protocol_nats, protocol_redis, protocol_mqtt;
extern const struct cache_protocol cache_protocol_redis, cache_protocol_memcached;

/* ---- for the families ---- */

/** Where a line of `in` ends: the index after "\r\n", or 0 when it is not whole. */
size_t protocol_line(struct slice in);

/** The decimal number that ends at `end` (exclusive); what is no digit ends it on the left. */
size_t protocol_number_before(struct slice in, size_t end);

/** Appends `count` zero bytes; returns where they begin. */
size_t protocol_room(struct text *out, size_t count);

/** Sends `text` and waits for one item of the wanted kind; others are passed over. */
struct item protocol_ask(struct link *link, const void *data, size_t len,
                         struct item (*next)(struct slice), int wanted);

#endif
