/*
 * Threads that sleep until there is work.
 *
 * The queue is the user's; the pool is told after something was put there (log_pool_wake) and asks
 * again (`has_work`) before a thread sleeps, so that no wake-up is lost. Waking takes no lock, and
 * a system call only while a thread sleeps.
 */
#ifndef STORAGE_LOG_POOL_H
#define STORAGE_LOG_POOL_H

#include "base/err.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct log_pool {
    _Atomic uint32_t wakes; /* what sleepers wait on */
    _Atomic uint32_t sleepers;
    _Atomic bool stopping;
    bool (*work)(void *context);     /* one piece of work; false: there was none */
    bool (*has_work)(void *context); /* cheap; true as long as `work` may do something */
    void *context;
    pthread_t *threads;
    unsigned count; /* started ones */
};

/** Start `count` threads named `name` (15 bytes at most). `work`, `has_work` and `context` of
 * `pool` are set. FELIX_SYSTEM: none runs. */
enum felix_err log_pool_start(struct log_pool *pool, unsigned count, const char *name,
                              struct felix_error *reterr);

/** After work was made visible with a sequentially consistent store. Any thread. */
void log_pool_wake(struct log_pool *pool);

/** Do what is left, then join. Nobody but the pool's own threads adds work any more. A pool that
 * was never started is left alone. */
void log_pool_stop(struct log_pool *pool);

/** Let the calling thread run, and read and write, after all others. As far as allowed. */
void log_pool_step_back(void);

#endif
