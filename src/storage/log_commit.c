/*
 * How batches become safe.
 *
 * The happy path, under LOG_SYNC_ON_COMMIT:
 *   1. log_append queues and, if nobody is the log's writer, queues the write job.
 *   2. A disk thread writes all that is queued in one go, becomes the flusher, lets go of the
 *      writer's role, and flushes. One notice tells what that made safe.
 *   3. What came meanwhile is written and flushed next, by the same thread. Little of it waits for
 *      that: it could not be answered sooner. Much of it is written by another thread, beside the
 *      flush.
 * Under the other policies the writer tells after each write, and flushes have deadlines.
 *
 * Who lets go of a role looks again (`needs_work`) and takes the writer's role if there is work
 * that no holder of a role is bound to find. Appending does it the other way round: first the
 * batch, then a look at the roles. All of it is sequentially consistent.
 *
 * Failures:
 *   a write fails (a full disk)   everything since the last good write is refused. What was written
 *                                 before is flushed first, then one notice tells both. The next
 *                                 epoch is tried like any other.
 *   a flush fails                 nothing is acknowledged any more: one notice says so, at once;
 *                                 then the log is reopened at what is provably on disk, which is
 *                                 repeated with growing pauses; another notice tells when it is
 *                                 open.
 * Both are told by a thread that holds both roles, so that notices keep their order.
 */
#include "storage/stream_log.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"

/* More than this is written while a flush runs; less waits for its end. */
#define WRITE_BESIDE_BYTES ((size_t)64 << 10)
/* So often the queue is looked at again before what is written is flushed. */
#define WRITE_ROUNDS 4
#define REOPEN_BACKOFF_MIN_NS NS_PER_S
#define REOPEN_BACKOFF_MAX_NS (30 * NS_PER_S)

#define TROUBLE (LOG_REFUSED | LOG_BROKEN | LOG_FAILED | LOG_REOPEN_DUE)

static bool take_role(struct stream_log *log, uint32_t role) {
    return (atomic_fetch_or(&log->roles, role) & role) == 0;
}

static void drop_role(struct stream_log *log, uint32_t role) {
    atomic_fetch_and(&log->roles, ~role);
}

static bool commits_by_flush(const struct stream_log *log) {
    return log->settings.sync == LOG_SYNC_ON_COMMIT;
}

static bool dirty(struct stream_log *log) {
    return atomic_load(&log->written) > atomic_load(&log->durable);
}

/* Whether somebody must take the writer's role now. */
static bool needs_work(struct stream_log *log) {
    uint32_t roles = atomic_load(&log->roles);
    bool flushing = (roles & LOG_FLUSHER) != 0;
    bool queued = atomic_load(&log->incoming) != NULL;
    if ((roles & TROUBLE) != 0)
        return !flushing && (queued || (roles & TROUBLE) != LOG_FAILED);
    if (queued)
        return !flushing || !commits_by_flush(log) ||
               atomic_load(&log->queued_bytes) >= WRITE_BESIDE_BYTES;
    return !flushing && commits_by_flush(log) && dirty(log);
}

/* The caller has the writer's role and passes it on. */
static void queue_write(struct stream_log *log) {
    (void)stream_log_ref(log);
    log_job_push(log->service, &log->write_job);
}

void log_append(struct stream_log *log, struct log_batch *batch) {
    struct log_batch *newest = atomic_load_explicit(&log->incoming, memory_order_relaxed);
    size_t bytes = batch->list.payload_bytes;
    /* Counted first: whoever sees the batch takes its bytes off. */
    atomic_fetch_add(&log->queued_bytes, bytes);
    do {
        batch->next = newest;
    } while (!atomic_compare_exchange_weak(&log->incoming, &newest, batch));
    uint32_t roles = atomic_load(&log->roles);
    if ((roles & LOG_WRITER) != 0)
        return;
    if ((roles & LOG_FLUSHER) != 0 && !needs_work(log))
        return;
    if (take_role(log, LOG_WRITER))
        queue_write(log);
}

/* Everything that is queued, oldest first. Writer. */
static struct log_batch *take_batches(struct stream_log *log) {
    struct log_batch *newest = atomic_exchange(&log->incoming, NULL);
    struct log_batch *oldest = NULL;
    while (newest != NULL) {
        struct log_batch *next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    return oldest;
}

static void free_batch(struct stream_log *log, struct log_batch *batch) {
    atomic_fetch_sub(&log->queued_bytes, batch->list.payload_bytes);
    buf_unref(batch->block);
    free(batch);
}

/* Throw away what is queued; whether any of it belonged to the present epoch. Writer. */
static bool drop_queued(struct stream_log *log) {
    bool present = false;
    for (struct log_batch *batch = take_batches(log); batch != NULL;) {
        struct log_batch *next = batch->next;
        present |= batch->epoch == atomic_load(&log->epoch);
        free_batch(log, batch);
        batch = next;
    }
    return present;
}

static void tell(struct stream_log *log, const struct log_commit *commit) {
    struct log_service *service = log->service;
    service->events.on_committed(service->context, atomic_load(&log->user), commit);
}

/* ---- writing ---- */

struct write_round {
    uint64_t end; /* of what is staged */
    uint64_t batches, records, bytes;
    struct felix_error error;
};

static enum felix_err stage(struct stream_log *log, struct log_batch *batch,
                            struct write_round *round) {
    struct record_log *records = atomic_load(&log->records);
    enum felix_err err = record_log_append(records, batch->base_offset, batch->timestamp_us,
                                           &batch->list, &round->error);
    if (err != FELIX_OK)
        return err;
    round->end = batch->base_offset + batch->list.count;
    round->batches++;
    round->records += batch->list.count;
    round->bytes += batch->list.payload_bytes;
    return FELIX_OK;
}

/* Stage each batch of the present epoch; after a failure the rest goes the way of the failed one.
 */
static enum felix_err stage_all(struct stream_log *log, struct log_batch *batch,
                                struct write_round *round) {
    uint64_t epoch = atomic_load(&log->epoch);
    enum felix_err err = FELIX_OK;
    while (batch != NULL) {
        struct log_batch *next = batch->next;
        if (err == FELIX_OK && batch->epoch == epoch)
            err = stage(log, batch, round);
        free_batch(log, batch);
        batch = next;
    }
    return err;
}

static void note_written(struct stream_log *log, const struct write_round *round) {
    struct log_service *service = log->service;
    atomic_fetch_add(&log->unsynced_batches, round->batches);
    atomic_store(&log->written, round->end);
    LOG_COUNT(service, batches, round->batches);
    LOG_COUNT(service, records, round->records);
    LOG_COUNT(service, bytes, round->bytes);
    LOG_COUNT(service, writes, 1);
    log_arm_after_write(log);
}

static void note_refused(struct stream_log *log, enum felix_err err,
                         const struct felix_error *error) {
    atomic_fetch_add(&log->epoch, 1);
    log->refusal = err;
    if (err == FELIX_DISK_FULL)
        LOG_COUNT(log->service, disk_full, 1);
    LOG_RATE(storage, WARN, "append_refused", F_STR("log", log->name), F_ERR(err),
             F_STR("detail", error->text));
    atomic_fetch_or(&log->roles, LOG_REFUSED);
}

/* Write what is queued, and what comes while that is done. Writer. */
static void write_queued(struct stream_log *log) {
    for (unsigned i = 0; i < WRITE_ROUNDS; i++) {
        struct log_batch *batches = take_batches(log);
        if (batches == NULL)
            return;
        struct write_round round = {.end = atomic_load(&log->written)};
        enum felix_err err = stage_all(log, batches, &round);
        /* A payload that is too large takes nothing that was staged before it with it. */
        if (err == FELIX_OK || err == FELIX_TOO_LARGE) {
            enum felix_err failed =
                round.batches == 0 ? FELIX_OK
                                   : record_log_write(atomic_load(&log->records), &round.error);
            if (failed != FELIX_OK)
                err = failed;
            else if (round.batches > 0)
                note_written(log, &round);
        }
        if (err != FELIX_OK) {
            note_refused(log, err, &round.error);
            return;
        }
    }
}

static void tell_written(struct stream_log *log) {
    uint64_t end = atomic_load(&log->written);
    tell(log, &(struct log_commit){.end = end,
                                   .epoch = atomic_load(&log->epoch),
                                   .flushed = atomic_load(&log->durable) >= end,
                                   .available = true});
}

/* ---- flushing ---- */

static void note_sync_time(struct log_service *service, uint64_t took_ns) {
    (void)pthread_mutex_lock(&service->times_lock);
    hist_record(&service->sync_times, took_ns);
    (void)pthread_mutex_unlock(&service->times_lock);
}

static bool flush(struct stream_log *log) {
    struct log_service *service = log->service;
    struct felix_error error = {0};
    uint64_t target = atomic_load(&log->written);
    uint64_t waiters = atomic_exchange(&log->unsynced_batches, 0);
    uint64_t begin_ns = clock_now_ns();
    enum felix_err err = record_log_sync(atomic_load(&log->records), &error);
    note_sync_time(service, clock_now_ns() - begin_ns);
    if (err != FELIX_OK) {
        LOG_COUNT(service, sync_failures, 1);
        LOG_ERROR(storage, "flush_failed", F_STR("log", log->name), F_ERR(err),
                  F_STR("detail", error.text));
        stream_log_set_state(log, FELIX_STORAGE, error.text);
        atomic_fetch_or(&log->roles, LOG_BROKEN);
        return false;
    }
    LOG_COUNT(service, syncs, 1);
    LOG_COUNT(service, sync_waiters, waiters);
    atomic_store(&log->durable, target);
    return true;
}

/* Flush until nothing is left that was written or came meanwhile. Flusher. */
static void flush_rounds(struct stream_log *log) {
    uint64_t end;
    do {
        if (!flush(log))
            return;
        end = atomic_load(&log->durable);
        tell(log, &(struct log_commit){.end = end,
                                       .epoch = atomic_load(&log->epoch),
                                       .flushed = true,
                                       .available = true});
        if (atomic_load(&log->incoming) != NULL && (atomic_load(&log->roles) & TROUBLE) == 0 &&
            take_role(log, LOG_WRITER)) {
            write_queued(log);
            drop_role(log, LOG_WRITER);
        }
    } while (atomic_load(&log->written) > end && (atomic_load(&log->roles) & TROUBLE) == 0);
}

/* ---- failures; all with both roles ---- */

static void tell_failed(struct stream_log *log) {
    struct record_log *records = atomic_load(&log->records);
    struct record_log_info info = {0};
    struct stream_log_state state;
    if (records != NULL)
        record_log_info(records, &info);
    stream_log_state(log, &state);
    tell(log, &(struct log_commit){
                  .end = info.durable_end,
                  .err = state.err != FELIX_OK ? state.err : FELIX_STORAGE,
                  .epoch = atomic_load(&log->epoch),
                  .flushed = true,
                  .available = false,
              });
}

static void try_reopen(struct stream_log *log) {
    struct log_service *service = log->service;
    struct record_log *records = atomic_load(&log->records);
    struct felix_error error = {0};
    enum felix_err err =
        records != NULL ? record_log_reopen(records, &error) : stream_log_open_records(log, &error);
    if (err != FELIX_OK) {
        log->reopen_backoff_ns *= 2;
        if (log->reopen_backoff_ns < REOPEN_BACKOFF_MIN_NS)
            log->reopen_backoff_ns = REOPEN_BACKOFF_MIN_NS;
        if (log->reopen_backoff_ns > REOPEN_BACKOFF_MAX_NS)
            log->reopen_backoff_ns = REOPEN_BACKOFF_MAX_NS;
        stream_log_set_state(log, err, error.text);
        LOG_WARN(storage, "reopen_failed", F_STR("log", log->name), F_ERR(err),
                 F_STR("detail", error.text),
                 F_U64("retry_ms", log->reopen_backoff_ns / NS_PER_MS));
        log_arm(log, LOG_DUE_REOPEN, clock_now_ns() + log->reopen_backoff_ns);
        return;
    }
    struct record_log_info info;
    record_log_info(atomic_load(&log->records), &info);
    log->reopen_backoff_ns = 0;
    atomic_store(&log->unsynced_batches, 0);
    atomic_store(&log->durable, info.durable_end);
    atomic_store(&log->written, info.written_end);
    drop_role(log, LOG_FAILED);
    stream_log_set_state(log, FELIX_OK, NULL);
    LOG_UNCOUNT(service, failed_logs, 1);
    LOG_COUNT(service, reopens, 1);
    LOG_INFO(storage, "log_reopened", F_STR("log", log->name), F_U64("end", info.written_end));
    tell(log, &(struct log_commit){.end = info.committed_end,
                                   .epoch = atomic_load(&log->epoch),
                                   .flushed = true,
                                   .available = true});
}

static void settle_broken(struct stream_log *log) {
    drop_role(log, LOG_BROKEN | LOG_REFUSED | LOG_REOPEN_DUE);
    atomic_fetch_or(&log->roles, LOG_FAILED);
    LOG_COUNT(log->service, failed_logs, 1);
    (void)drop_queued(log);
    atomic_fetch_add(&log->epoch, 1);
    tell_failed(log);
    try_reopen(log);
}

static void settle_refused(struct stream_log *log) {
    struct record_log_info info;
    record_log_info(atomic_load(&log->records), &info);
    if (info.failed) {
        stream_log_set_state(log, log->refusal, err_text(log->refusal));
        atomic_fetch_or(&log->roles, LOG_BROKEN);
        return;
    }
    if (commits_by_flush(log) && dirty(log) && !flush(log))
        return;
    uint64_t end = atomic_load(&log->written);
    drop_role(log, LOG_REFUSED);
    tell(log, &(struct log_commit){.end = end,
                                   .err = log->refusal,
                                   .epoch = atomic_load(&log->epoch),
                                   .flushed = atomic_load(&log->durable) >= end,
                                   .available = true});
}

static void settle_failed(struct stream_log *log) {
    if (drop_queued(log)) {
        atomic_fetch_add(&log->epoch, 1);
        tell_failed(log);
    }
    if ((atomic_load(&log->roles) & LOG_REOPEN_DUE) != 0) {
        drop_role(log, LOG_REOPEN_DUE);
        try_reopen(log);
    }
}

static void settle(struct stream_log *log) {
    uint32_t roles = atomic_load(&log->roles);
    if ((roles & LOG_BROKEN) != 0)
        settle_broken(log);
    else if ((roles & LOG_REFUSED) != 0)
        settle_refused(log);
    else if ((roles & LOG_FAILED) != 0)
        settle_failed(log);
    else
        drop_role(log, LOG_REOPEN_DUE);
}

/* ---- the roles ---- */

/* Write and have it committed; gives the writer's role up, one way or another. */
static void serve_once(struct stream_log *log) {
    if ((atomic_load(&log->roles) & TROUBLE) != 0) {
        if (take_role(log, LOG_FLUSHER)) {
            settle(log);
            drop_role(log, LOG_FLUSHER);
        }
        drop_role(log, LOG_WRITER);
        return;
    }
    uint64_t before = atomic_load(&log->written);
    write_queued(log);
    if (!commits_by_flush(log)) {
        if (atomic_load(&log->written) > before)
            tell_written(log);
        drop_role(log, LOG_WRITER);
        return;
    }
    if ((atomic_load(&log->roles) & TROUBLE) != 0 || !dirty(log) || !take_role(log, LOG_FLUSHER)) {
        drop_role(log, LOG_WRITER);
        return;
    }
    drop_role(log, LOG_WRITER);
    if (needs_work(log) && take_role(log, LOG_WRITER))
        queue_write(log);
    flush_rounds(log);
    drop_role(log, LOG_FLUSHER);
}

static void serve_while_needed(struct stream_log *log) {
    while (needs_work(log) && take_role(log, LOG_WRITER))
        serve_once(log);
}

void log_run_write(struct stream_log *log) {
    serve_once(log);
    serve_while_needed(log);
    stream_log_unref(log);
}

/* The periodic flush. */
void log_run_sync(struct stream_log *log) {
    atomic_store(&log->sync_armed, false);
    if (take_role(log, LOG_FLUSHER)) {
        if (dirty(log) && (atomic_load(&log->roles) & TROUBLE) == 0)
            (void)flush(log);
        drop_role(log, LOG_FLUSHER);
    }
    /* A failed log is reopened, and clean then. */
    if (dirty(log) && (atomic_load(&log->roles) & (LOG_BROKEN | LOG_FAILED)) == 0)
        log_arm_after_write(log);
    serve_while_needed(log);
    stream_log_unref(log);
}

void log_run_reopen(struct stream_log *log) {
    atomic_fetch_or(&log->roles, LOG_REOPEN_DUE);
    serve_while_needed(log);
    stream_log_unref(log);
}
