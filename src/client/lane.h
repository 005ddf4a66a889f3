/*
 * A lane: one QUIC stream of a pooled connection, from its authentication to its end.
 *
 * A bidirectional lane writes `auth` first and is ready once the broker has answered; a lane for
 * a stream that the broker opened is ready at once. Whoever opened it (a shard, a cache worker,
 * a subscription, a ping) is its owner and hears from it through lane_ops. The driver
 * only. Source: wire specification, sections 2.6, 6.1 to 6.3, 8.4; wire extensions 1.2.
 */
#ifndef CLIENT_LANE_H
#define CLIENT_LANE_H

#include "client/frame_reader.h"
#include "quic/stream.h"
#include "wire/message.h"

struct felix_client;
struct lane;
struct link;

/* Upcalls to the owner. None comes after `over` or after lane_abandon. */
struct lane_ops {
    /* Authenticated: what the server offers is known. Not for event lanes. */
    void (*ready)(struct lane *lane);
    /* A frame came. Return false when the lane was ended or abandoned meanwhile. */
    bool (*frame)(struct lane *lane, struct frame *frame);
    /* Bytes were given to the network, or acknowledged by the peer. May be NULL. */
    void (*sent)(struct lane *lane);
    void (*acked)(struct lane *lane);
    /* The broker finished its side, after a whole frame. NULL: that is an end like any other. */
    void (*finished)(struct lane *lane);
    /* The lane is lost, refused or broken; the owner forgets it. */
    void (*over)(struct lane *lane, enum felix_err err, const char *text);
};

enum lane_state { LANE_AUTH, LANE_READY, LANE_OVER };

#define LANE_MAGIC 0x4c414e45u

struct lane {
    uint32_t magic;
    enum lane_state state;
    struct felix_client *client;
    struct link *link;
    struct quic_stream *stream; /* NULL once closed */
    const struct lane_ops *ops;
    void *owner;
    struct frame_reader reader;
    uint64_t auth_due_ns;
    bool holds_credit;     /* the owner gives credit back with lane_consume */
    size_t held_bytes;     /* credit not given back yet */
    size_t advanced_bytes; /* given back before the owner did */
    uint16_t server_flags;
    uint32_t server_features;
    uint32_t own_features;    /* that both sides offered */
    struct lane *prev, *next; /* lanes of the link */
};

/** Open a lane and send its auth. NULL when the connection grants no stream at the moment. */
struct lane *lane_open(struct link *link, const struct lane_ops *ops, void *owner);

/** A lane for a stream that the broker opened; nothing is sent. */
struct lane *lane_accept(struct link *link, struct quic_stream *stream, const struct lane_ops *ops,
                         void *owner);

/** Queue bytes; takes one reference of `buf`. */
void lane_write(struct lane *lane, struct buf *buf, const uint8_t *data, size_t len);

/** Encode and queue a message. */
void lane_write_message(struct lane *lane, const struct message *message);

/** Finish our side after what is queued. */
void lane_finish(struct lane *lane);

/** `bytes` of what came are done with: give their credit back, as far as that is not done. */
void lane_consume(struct lane *lane, size_t bytes);

/** End it and tell the owner. */
void lane_fail(struct lane *lane, enum felix_err err, const char *text);

/** The owner is done with it: resets and stops what is still open, no more upcalls. */
void lane_abandon(struct lane *lane);

/** The same, but what was queued (and the FIN) is still delivered. */
void lane_release(struct lane *lane);

/** Fail the lanes of `link` whose auth is overdue; returns when the next one is. */
uint64_t lane_expire(struct link *link, uint64_t now_ns);

/** The error that a broker's refusal stands for, by its code and retry class or, from a broker that
 * sends none, by the words that the original uses. Source: wire specification 6.2, 6.4, 6.7, 6.9.
 */
enum felix_err refusal_err(enum wire_code code, enum wire_retry retry, struct slice text);

/** Copy `text` as a string of at most `capacity` - 1 bytes; returns `out`. */
const char *text_of_slice(struct slice text, char *out, size_t capacity);

/* From the endpoint's handler. */
void lane_on_data(struct lane *lane, struct slice data, bool fin);
void lane_on_reset(struct lane *lane);
void lane_on_stopped(struct lane *lane);
void lane_on_closed(struct lane *lane);

#endif
