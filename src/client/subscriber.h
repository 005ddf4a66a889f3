/*
 * Subscriptions: asking for them, pairing them with the event streams that the broker opens,
 * delivering, asking again after a loss.
 *
 * Application threads see a felix_subscription; its state belongs to the driver, the
 * queue for felix_next is shared.
 */
#ifndef CLIENT_SUBSCRIBER_H
#define CLIENT_SUBSCRIBER_H

#include <felix/felix.h>

#include "base/counter.h"
#include "client/io.h"
#include "client/link.h"
#include "client/message_queue.h"

struct client_call;

enum subscription_state {
    SUBSCRIPTION_WAITING,    /* for the connection, a free stream, or the end of a pause */
    SUBSCRIPTION_REQUESTING, /* the request lane is open */
    SUBSCRIPTION_PAIRING,    /* confirmed; the event stream has not said hello yet */
    SUBSCRIPTION_STREAMING,
    SUBSCRIPTION_ENDED
};

#define SUBSCRIPTION_MAGIC 0x53554253u

struct felix_subscription {
    uint32_t magic;
    _Atomic uint32_t refs; /* the handle, the client's list, whoever runs a callback */
    char *ns, *stream;
    struct felix_subscribe_options options;
    struct message_queue queue; /* used without on_messages */
    counter lagged;             /* times; written by the driver, read by any */

    pthread_mutex_t client_lock; /* around `client` and posting to it */
    struct felix_client *client; /* NULL once ended and told: then nothing is posted */
    struct io_command collect;
    bool collecting; /* under client_lock: `collect` is posted */

    /* The driver. */
    struct io_command start;
    struct felix_subscription *prev, *next;
    enum subscription_state state;
    struct client_call *opening; /* felix_subscribe waits; NULL once confirmed */
    struct link *link;
    struct lane *request;
    struct lane *events;
    uint64_t id;
    uint64_t due_ns; /* of the present state, or of `opening` */
    struct backoff backoff;
    unsigned silent_ends;  /* refusals without a word, in a row */
    uint64_t not_found_ns; /* since when the stream is missing; 0: it is not */
    uint64_t next_offset;
    bool has_next_offset;
    struct felix_cursor_error cursor; /* of what ended it; set before the queue is ended */
    bool received_any;
};

struct subscriber {
    struct felix_subscription *first;
};

/** A uni stream of the broker on an event link. */
void subscriber_accept(struct link *link, struct quic_stream *stream);

/** Go on with waiting subscriptions of `link`. */
void subscriber_pump(struct link *link);

uint64_t subscriber_expire(struct felix_client *client, uint64_t now_ns);

/** End all subscriptions. */
void subscriber_shut(struct felix_client *client);

/* ---- between subscriber.c and subscription.c ---- */

void subscription_unref(struct felix_subscription *subscription);
/** Ask, if it waits and may. */
void subscription_try(struct felix_subscription *subscription);
/** Its event stream is there: `lane` is its own from now on. */
void subscription_pair(struct felix_subscription *subscription, struct lane *lane);
/** A frame of the event stream; false when the lane is over. */
bool subscription_frame(struct felix_subscription *subscription, struct frame *frame);
/** End it: abandons lanes, tells on_end (or felix_subscribe), drops the client's reference. */
void subscription_end(struct felix_subscription *subscription, enum felix_err err,
                      const char *text);
/** The same, silently: the application has said so. */
void subscription_leave(struct felix_subscription *subscription);
/** Deadlines; returns the next one. */
uint64_t subscription_expire(struct felix_subscription *subscription, uint64_t now_ns);

/** Claim the event stream that said hello with the id of `subscription`, if it came already. */
void subscriber_claim(struct felix_subscription *subscription);

#endif
