/*
 * One log of the service, as its files share it: log_service (opening, closing), log_commit (the
 * writer and the flusher), log_pages (readers), log_upkeep (deadlines and verification).
 *
 * Roles are bits in `roles`: who sets the bit has the role until clearing it. Whoever clears one
 * looks again (log_commit.c), so nothing is left lying. A job that is queued or runs holds a
 * reference: when the last one goes, nobody is at work on the log.
 */
#ifndef STORAGE_STREAM_LOG_H
#define STORAGE_STREAM_LOG_H

#include "storage/log_pool.h"
#include "storage/log_service.h"

#include <pthread.h>

/* A piece of work for a disk thread; embedded, in the queue at most once. */
struct log_job {
    struct log_job *next;
    void (*run)(struct stream_log *log);
    struct stream_log *log;
};

enum log_role {
    LOG_WRITER = 1,     /* held while the write job is queued, too */
    LOG_FLUSHER = 2,    /* also who tells commits under LOG_SYNC_ON_COMMIT; else the writer does */
    LOG_REFUSED = 4,    /* a write failed and was not told yet: set by the writer */
    LOG_BROKEN = 8,     /* a flush failed and was not told yet */
    LOG_FAILED = 16,    /* that was told; nothing is written until it is open again */
    LOG_REOPEN_DUE = 32 /* the time to try that has come */
};

enum log_due { LOG_DUE_SYNC, LOG_DUE_RETAIN, LOG_DUE_REOPEN, LOG_DUE_COUNT };

#define LOG_NEVER UINT64_MAX

struct stream_log {
    struct log_service *service; /* NULL once that is freed */
    struct stream_log *next;     /* in service->logs; under service->lock, as the next two */
    uint64_t due_ns[LOG_DUE_COUNT];
    bool verify; /* sealed segments are still to be checked */

    _Atomic uint32_t refs;
    char *name; /* "tenant/namespace/stream" */
    char *path;
    struct record_log_settings settings; /* but for the next two */
    _Atomic uint64_t retention_bytes, retention_us;
    _Atomic(struct record_log *) records; /* NULL: it could not be opened */
    _Atomic(void *) user;
    _Atomic bool purge;

    _Atomic(struct log_batch *) incoming; /* newest first */
    _Atomic size_t queued_bytes;          /* payload bytes in there */
    _Atomic uint32_t roles;
    _Atomic uint64_t epoch;
    _Atomic uint64_t written, durable; /* ends; written by the writer and the flusher */
    _Atomic uint64_t unsynced_batches; /* written since the last flush began */
    _Atomic bool sync_armed;           /* LOG_SYNC_PERIODIC: a flush has a deadline */
    _Atomic bool retain_armed;         /* a look at the bounds has one */
    _Atomic bool bounds_changed;       /* since the last look */
    enum felix_err refusal;            /* writer: why LOG_REFUSED */
    uint64_t reopen_backoff_ns;        /* both roles */
    _Atomic uint64_t retained_ns;      /* when the bounds were looked at last */
    _Atomic uint32_t damage_told;      /* log_info.damage_count that was logged */

    pthread_mutex_t state_lock;
    enum felix_err err; /* under state_lock, as text */
    char text[256];

    struct log_job write_job, sync_job, retain_job, reopen_job, close_job;
};

struct log_service {
    struct log_service_settings settings;
    char *root;
    int lock_file;
    struct log_events events;
    void *context;
    struct log_service_counters *counters; /* written by many: atomic_fetch_add */

    pthread_mutex_t times_lock; /* a histogram has one writer at a time */
    struct hist sync_times;

    struct log_pool commit_pool;
    _Atomic(struct log_job *) new_jobs; /* newest first */
    pthread_mutex_t jobs_lock;
    struct log_job *jobs;   /* oldest first, under jobs_lock */
    _Atomic bool more_jobs; /* jobs != NULL */

    struct log_pool read_pool;
    _Atomic(struct log_read *) new_reads;
    pthread_mutex_t reads_lock;
    struct log_read *reads; /* oldest first, under reads_lock */
    _Atomic bool more_reads;
    _Atomic bool reads_starved; /* the first one waits for memory */
    _Atomic bool reads_closing; /* those that wait are answered FELIX_CLOSED */
    _Atomic uint64_t pages_bytes;

    pthread_mutex_t lock; /* the list of logs, their deadlines, verification */
    pthread_cond_t keeper_wake, verifier_wake, log_gone;
    struct stream_log *logs;
    uint64_t keeper_due_ns;
    bool stopping;
    pthread_t keeper, verifier;
    bool keeper_runs, verifier_runs;
};

/* A count that several threads add to. */
#define LOG_COUNT(service, field, n)                                                               \
    ((void)atomic_fetch_add_explicit(&(service)->counters->field, (n), memory_order_relaxed))
#define LOG_UNCOUNT(service, field, n)                                                             \
    ((void)atomic_fetch_sub_explicit(&(service)->counters->field, (n), memory_order_relaxed))

/** Queue a job; the caller passes on a reference to its log, but for the close job. Any thread. */
void log_job_push(struct log_service *service, struct log_job *job);
/** Run the oldest job; false: there is none. For the commit pool, as the next. */
bool log_jobs_work(void *context);
bool log_jobs_waiting(void *context);

/** The same for page requests. */
bool log_reads_work(void *context);
bool log_reads_waiting(void *context);

/** A reference unless the last one is gone already. Under service->lock. */
bool stream_log_try_ref(struct stream_log *log);

/** What stream_log_state says from now on; the text may be NULL. */
void stream_log_set_state(struct stream_log *log, enum felix_err err, const char *text);

/** The functions of the jobs. */
void log_run_write(struct stream_log *log);
void log_run_sync(struct stream_log *log);
void log_run_reopen(struct stream_log *log);
void log_run_retain(struct stream_log *log);

/** Open the record log, or try again what failed. Both roles. */
enum felix_err stream_log_open_records(struct stream_log *log, struct felix_error *reterr);

/** Give a log a deadline for `what`, not before `at_ns`. */
void log_arm(struct stream_log *log, enum log_due what, uint64_t at_ns);
/** After records were written: deadlines for the periodic flush and for retention. Writer. */
void log_arm_after_write(struct stream_log *log);
/** The bounds that a stream asks for, or the service's. */
void log_set_bounds(struct stream_log *log, struct log_retention retention);
/** Tell the records, if there are any, what the bounds are at present. */
void log_give_bounds(struct stream_log *log);
/** The first look at the bounds, and verification, of a log that was opened. */
void log_upkeep_begin(struct stream_log *log);
/** Log lines and counts for damage that was found since the last call. Any thread. */
void log_tell_damage(struct stream_log *log);

enum felix_err log_upkeep_start(struct log_service *service, struct felix_error *reterr);
void log_upkeep_stop(struct log_service *service);

#endif
