/*
 * Sleeping without losing a wake-up: a thread counts itself among the sleepers, reads `wakes`, and
 * looks for work once more; only then does it wait for `wakes` to change. A waker first queues,
 * then changes `wakes`, then looks for sleepers. All of it is sequentially consistent: either the
 * sleeper sees the work, or the waker sees the sleeper.
 */
#include "storage/log_pool.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/check.h"

/* include/uapi/linux/ioprio.h */
#define IOPRIO_WHO_PROCESS 1
#define IOPRIO_IDLE (3 << 13)

static void futex_wait(_Atomic uint32_t *word, uint32_t seen) {
    (void)syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word, int threads) {
    (void)syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, threads, NULL, NULL, 0);
}

void log_pool_wake(struct log_pool *pool) {
    atomic_fetch_add(&pool->wakes, 1);
    if (atomic_load(&pool->sleepers) > 0)
        futex_wake(&pool->wakes, 1);
}

static void sleep_until_woken(struct log_pool *pool) {
    /* What this thread freed last belongs to others; it may sleep for long. */
    buf_thread_trim();
    atomic_fetch_add(&pool->sleepers, 1);
    uint32_t seen = atomic_load(&pool->wakes);
    if (!pool->has_work(pool->context) && !atomic_load(&pool->stopping))
        futex_wait(&pool->wakes, seen);
    atomic_fetch_sub(&pool->sleepers, 1);
}

static void *run(void *context) {
    struct log_pool *pool = context;
    for (;;) {
        /* Asked before looking for work: what was queued before the stop is seen. */
        bool stopping = atomic_load(&pool->stopping);
        if (pool->work(pool->context))
            continue;
        if (stopping)
            break;
        sleep_until_woken(pool);
    }
    buf_thread_trim();
    return NULL;
}

enum felix_err log_pool_start(struct log_pool *pool, unsigned count, const char *name,
                              struct felix_error *reterr) {
    pool->threads = xcalloc(count, sizeof *pool->threads);
    for (unsigned i = 0; i < count; i++) {
        int failed = pthread_create(&pool->threads[i], NULL, run, pool);
        if (failed != 0) {
            log_pool_stop(pool);
            return error_set(reterr, FELIX_SYSTEM, failed, "cannot start a disk thread");
        }
        (void)pthread_setname_np(pool->threads[i], name);
        pool->count++;
    }
    return FELIX_OK;
}

void log_pool_stop(struct log_pool *pool) {
    atomic_store(&pool->stopping, true);
    atomic_fetch_add(&pool->wakes, 1);
    futex_wake(&pool->wakes, INT_MAX);
    for (unsigned i = 0; i < pool->count; i++)
        (void)pthread_join(pool->threads[i], NULL);
    free(pool->threads);
    pool->threads = NULL;
    pool->count = 0;
}

void log_pool_step_back(void) {
    pid_t thread = (pid_t)syscall(SYS_gettid);
    (void)setpriority(PRIO_PROCESS, (id_t)thread, 10);
    (void)syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, thread, IOPRIO_IDLE);
}
