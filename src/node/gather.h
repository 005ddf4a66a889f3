/*
 * What the reactors know about streams, for a thread that asks and waits.
 *
 * Each reactor answers for the streams that it owns, between two turns. Since messages to a reactor
 * keep their order, an answer also says that what the asking thread told it before is done.
 */
#ifndef NODE_GATHER_H
#define NODE_GATHER_H

#include "node/reactor.h"

struct stream_facts {
    struct buf *key;      /* the registry's; one reference */
    uint64_t oldest, end; /* sequence numbers: the first that is kept, the next one */
    uint64_t bytes;       /* of memory */
    uint64_t subscriptions;
};

struct gather_part {
    struct stream_facts *facts; /* owned */
    size_t count, capacity;
};

struct gather {
    struct slice wanted; /* a whole key, or what keys begin with; borrowed */
    bool one;            /* a whole key */
    sem_t answered;
    struct gather_part parts[CORE_REACTORS_MAX]; /* by reactor */
};

/** Ask all reactors, which must run, and wait for them; *ret is to be given to gather_deinit. Any
 * thread but a reactor's. */
void gather_ask(struct gather *gather, struct reactor *reactors, unsigned reactor_count);
void gather_deinit(struct gather *gather);

/** Every answer, one after the other: `*at` is 0 at first. NULL: that was all. Borrowed. */
const struct stream_facts *gather_next(const struct gather *gather, size_t *at);

/** A reactor's answer; its thread. */
void gather_answer(struct gather *gather, const struct core *core);

#endif
