/*
 * The log of a durable stream of a world, in memory: it keeps what it is given, in order, and
 * commits, fails and answers reads when the test lets it.
 */
#ifndef TESTS_SUPPORT_WORLD_LOG_H
#define TESTS_SUPPORT_WORLD_LOG_H

#include "core/core.h"

struct world;

struct world_record {
    struct buf *block; /* holds the payload */
    struct slice payload;
    uint64_t time_us;
};

struct world_log {
    struct world *world;
    struct buf *key;
    uint64_t incarnation;
    unsigned owner, references;
    struct world_record *records; /* committed ones, from offset 0 on */
    uint64_t end, oldest, capacity, epoch;
    struct log_batch *head, *tail; /* given to it and not yet committed */
    struct log_read *reads;
    bool held;                 /* nothing is committed or answered until this is false again */
    enum felix_err fails;      /* what is committed next fails with this, once */
    enum felix_err read_fails; /* with this all reads fail */
    size_t pages_out;          /* bytes of pages that were not given back */
};

/** What the servers of a world call (session/server.h); the context is the world. */
extern const struct server_logs world_logs;

/** Commit, fail and answer what waits, as messages to the reactors. True when there was something.
 */
bool world_log_turn(struct world_log *log);

/** After FELIX_STORAGE: it takes publishes again. */
void world_log_recover(struct world_log *log);

/** Frees it; everybody has given it back. */
void world_log_free(struct world_log *log);

#endif
