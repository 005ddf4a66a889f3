/*
 * A link: one place of a connection pool, over all QUIC connections that fill it in turn.
 *
 * Opens on first use, authenticates each stream with the token as it is when the stream opens, and
 * after a loss opens again with growing, jittered pauses. The driver only.
 */
#ifndef CLIENT_LINK_H
#define CLIENT_LINK_H

#include "client/lane.h"
#include "quic/conn.h"

enum pool_kind { POOL_PUBLISH, POOL_CACHE, POOL_EVENT, POOL_KINDS };

enum link_state {
    LINK_UNUSED,
    LINK_CONNECTING,
    LINK_OPEN,
    LINK_BACKOFF, /* lost; opens again at backoff.due_ns */
};

/* Pauses of 50 ms, 100 ms ... 5 s, each shortened at random by up to a half. */
struct backoff {
    unsigned failures;
    uint64_t due_ns; /* 0: at once */
};

struct link {
    struct felix_client *client;
    enum pool_kind kind;
    unsigned index;
    enum link_state state;
    struct quic_conn *conn; /* NULL unless connecting or open */
    struct backoff backoff;
    uint64_t opened_ns;
    bool was_open; /* at least once */
    char *token;   /* read last; present once the link opened */
    struct lane *lanes;
    unsigned subscriptions;      /* that are assigned to this connection */
    unsigned subscribing;        /* requests without an answer: an unknown hello may be theirs */
    struct event_lane *unpaired; /* event streams that no subscription has claimed yet */
    unsigned unpaired_count;
};

void backoff_reset(struct backoff *backoff);
/** One more failure at `now_ns`; sets due_ns. */
void backoff_fail(struct backoff *backoff, struct felix_client *client, uint64_t now_ns);

void link_init(struct link *link, struct felix_client *client, enum pool_kind kind, unsigned index);
void link_deinit(struct link *link);

/** Somebody needs it: open it unless it is, or has to pause. */
void link_want(struct link *link);

/** The token for a new stream, read now: a connection outlives a token. The one before when the
 * file cannot be read. Borrowed until the next call. */
const char *link_token(struct link *link);

/** Open lanes for whoever waits for one on this link. No effect unless it is open. */
void link_pump(struct link *link);

/** Reopen when due, fail late auths; returns when to look again. */
uint64_t link_expire(struct link *link, uint64_t now_ns);

/* From the endpoint's handler. */
void link_on_ready(struct link *link);
void link_on_closed(struct link *link, const struct quic_close *close);

#endif
