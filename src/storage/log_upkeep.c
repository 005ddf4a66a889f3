/*
 * What happens by the clock, and at leisure.
 *
 * The keeper sleeps until the nearest deadline of any log and queues jobs for the disk threads; it
 * touches no file. Deadlines are rounded up a little, so that many logs share one look at them. The
 * verifier reads sealed segments through, one log after the other, at low priority, and sleeps for
 * good when all are checked.
 */
#include "storage/stream_log.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"

/* A year: an age may be longer than a deadline can lie ahead. */
#define AHEAD_US_MAX ((uint64_t)366 * 24 * 3600 * 1000000)
#define DEADLINE_STEP_NS (4 * NS_PER_MS)

bool stream_log_try_ref(struct stream_log *log) {
    uint32_t refs = atomic_load(&log->refs);
    do {
        if (refs == 0)
            return false;
    } while (!atomic_compare_exchange_weak(&log->refs, &refs, refs + 1));
    return true;
}

/* Under service->lock. */
static void arm(struct stream_log *log, enum log_due what, uint64_t at_ns) {
    struct log_service *service = log->service;
    at_ns += DEADLINE_STEP_NS - at_ns % DEADLINE_STEP_NS;
    log->due_ns[what] = at_ns;
    if (at_ns < service->keeper_due_ns) {
        service->keeper_due_ns = at_ns;
        (void)pthread_cond_signal(&service->keeper_wake);
    }
}

void log_arm(struct stream_log *log, enum log_due what, uint64_t at_ns) {
    (void)pthread_mutex_lock(&log->service->lock);
    arm(log, what, at_ns);
    (void)pthread_mutex_unlock(&log->service->lock);
}

static bool has_bounds(struct stream_log *log) {
    return atomic_load_explicit(&log->retention_bytes, memory_order_relaxed) != 0 ||
           atomic_load_explicit(&log->retention_us, memory_order_relaxed) != 0;
}

void log_arm_after_write(struct stream_log *log) {
    const struct log_service_settings *settings = &log->service->settings;
    /* A plain look first: the exchange is for the few times that it is not armed. */
    if (log->settings.sync == LOG_SYNC_PERIODIC && !atomic_load(&log->sync_armed) &&
        !atomic_exchange(&log->sync_armed, true))
        log_arm(log, LOG_DUE_SYNC, clock_now_ns() + settings->sync_interval_ns);
    if (has_bounds(log) && !atomic_load(&log->retain_armed) &&
        !atomic_exchange(&log->retain_armed, true))
        log_arm(log, LOG_DUE_RETAIN, clock_now_ns() + settings->retention_interval_ns);
}

void log_upkeep_begin(struct stream_log *log) {
    struct log_service *service = log->service;
    if (has_bounds(log) && !atomic_exchange(&log->retain_armed, true))
        log_arm(log, LOG_DUE_RETAIN, clock_now_ns() + service->settings.retention_interval_ns);
    (void)pthread_mutex_lock(&service->lock);
    log->verify = true;
    (void)pthread_cond_signal(&service->verifier_wake);
    (void)pthread_mutex_unlock(&service->lock);
}

/* ---- retention ---- */

void log_set_bounds(struct stream_log *log, struct log_retention retention) {
    const struct record_log_settings *defaults = &log->service->settings.log;
    atomic_store(&log->retention_bytes,
                 retention.bytes != 0 ? retention.bytes : defaults->retention_bytes);
    atomic_store(&log->retention_us, retention.seconds != 0
                                         ? retention.seconds * (NS_PER_S / NS_PER_US)
                                         : defaults->retention_us);
}

void log_give_bounds(struct stream_log *log) {
    struct record_log *records = atomic_load(&log->records);
    if (records != NULL)
        record_log_set_retention(records, atomic_load(&log->retention_bytes),
                                 atomic_load(&log->retention_us));
}

/* A look that has a deadline far ahead, because of the age of what is there, is due earlier. */
static void look_within_interval(struct stream_log *log) {
    struct log_service *service = log->service;
    uint64_t at_ns = clock_now_ns() + service->settings.retention_interval_ns;
    if (!has_bounds(log))
        return;
    bool idle = !atomic_exchange(&log->retain_armed, true);
    (void)pthread_mutex_lock(&service->lock);
    uint64_t due_ns = log->due_ns[LOG_DUE_RETAIN];
    if (idle || (due_ns != LOG_NEVER && due_ns > at_ns))
        arm(log, LOG_DUE_RETAIN, at_ns);
    (void)pthread_mutex_unlock(&service->lock);
}

void stream_log_set_retention(struct stream_log *log, struct log_retention retention) {
    log_set_bounds(log, retention);
    log_give_bounds(log);
    atomic_store(&log->bounds_changed, true); /* for a look that goes on at this moment */
    look_within_interval(log);
}

/* The next look at the age of what is there: when the oldest comes of age, not before the interval
 * is over. */
static void arm_by_age(struct stream_log *log, struct record_log *records) {
    uint64_t at_us = record_log_next_retention_us(records);
    if (at_us == UINT64_MAX || atomic_exchange(&log->retain_armed, true))
        return;
    uint64_t now_us = clock_wall_ns() / NS_PER_US;
    uint64_t wait_ns = log->service->settings.retention_interval_ns;
    uint64_t ahead_us = at_us > now_us ? at_us - now_us : 0;
    if (ahead_us > AHEAD_US_MAX)
        ahead_us = AHEAD_US_MAX;
    if (ahead_us * NS_PER_US > wait_ns)
        wait_ns = ahead_us * NS_PER_US;
    log_arm(log, LOG_DUE_RETAIN, clock_now_ns() + wait_ns);
}

/* A look does not see what was written since it began, and what is not flushed cannot go. */
static bool missed_some(const struct stream_log *log, uint64_t written, uint64_t durable) {
    uint64_t now_written = atomic_load(&log->written);
    uint64_t now_durable = atomic_load(&log->durable);
    return now_written != written || now_durable != durable ||
           (log->settings.sync != LOG_SYNC_NONE && now_durable < now_written);
}

static void look_at_bounds(struct stream_log *log, struct record_log *records) {
    struct felix_error error = {0};
    uint32_t removed = 0;
    uint64_t written = atomic_load(&log->written);
    uint64_t durable = atomic_load(&log->durable);
    enum felix_err err = record_log_retain(records, clock_wall_ns() / NS_PER_US, &removed, &error);
    LOG_COUNT(log->service, removed_segments, removed);
    if (removed > 0)
        LOG_INFO(storage, "segments_removed", F_STR("log", log->name), F_U64("segments", removed));
    /* Only now: this role, too, is taken by one thread at a time. */
    atomic_store(&log->retain_armed, false);
    if (err != FELIX_OK) {
        LOG_COUNT(log->service, retention_failures, 1);
        LOG_ERROR(storage, "retention_failed", F_STR("log", log->name), F_ERR(err),
                  F_STR("detail", error.text));
    }
    /* Nobody else may come: the log may be idle from now on. */
    if (err != FELIX_OK || missed_some(log, written, durable))
        look_within_interval(log);
    else
        arm_by_age(log, records);
}

void log_run_retain(struct stream_log *log) {
    struct record_log *records = atomic_load(&log->records);
    if (records != NULL)
        look_at_bounds(log, records);
    else
        atomic_store(&log->retain_armed, false);
    if (atomic_exchange(&log->bounds_changed, false))
        look_within_interval(log);
    stream_log_unref(log);
}

/* ---- the keeper ---- */

static struct log_job *job_of(struct stream_log *log, enum log_due what) {
    switch (what) {
    case LOG_DUE_SYNC:
        return &log->sync_job;
    case LOG_DUE_RETAIN:
        return &log->retain_job;
    case LOG_DUE_REOPEN:
    case LOG_DUE_COUNT:
        break;
    }
    return &log->reopen_job;
}

/* Queue what is due; returns the nearest deadline of the rest. Under service->lock. */
static uint64_t queue_due(struct log_service *service, uint64_t now_ns) {
    uint64_t nearest_ns = LOG_NEVER;
    for (struct stream_log *log = service->logs; log != NULL; log = log->next) {
        for (enum log_due what = 0; what < LOG_DUE_COUNT; what++) {
            if (log->due_ns[what] > now_ns) {
                nearest_ns = log->due_ns[what] < nearest_ns ? log->due_ns[what] : nearest_ns;
                continue;
            }
            log->due_ns[what] = LOG_NEVER;
            if (stream_log_try_ref(log))
                log_job_push(service, job_of(log, what));
        }
    }
    return nearest_ns;
}

static void *keep(void *context) {
    struct log_service *service = context;
    (void)pthread_mutex_lock(&service->lock);
    while (!service->stopping) {
        uint64_t due_ns = service->keeper_due_ns;
        if (due_ns == LOG_NEVER) {
            (void)pthread_cond_wait(&service->keeper_wake, &service->lock);
            continue;
        }
        uint64_t now_ns = clock_now_ns();
        if (now_ns >= due_ns) {
            service->keeper_due_ns = queue_due(service, now_ns);
            continue;
        }
        struct timespec at = {.tv_sec = (time_t)(due_ns / NS_PER_S),
                              .tv_nsec = (long)(due_ns % NS_PER_S)};
        (void)pthread_cond_timedwait(&service->keeper_wake, &service->lock, &at);
    }
    (void)pthread_mutex_unlock(&service->lock);
    return NULL;
}

/* ---- verification ---- */

void log_tell_damage(struct stream_log *log) {
    struct record_log *records = atomic_load(&log->records);
    struct record_log_info info;
    record_log_info(records, &info);
    uint32_t told = atomic_exchange(&log->damage_told, info.damage_count);
    if (info.damage_count <= told)
        return;
    LOG_COUNT(log->service, damaged_ranges, info.damage_count - told);
    for (uint32_t i = told; i < info.damage_count && i < LOG_DAMAGE_MAX; i++) {
        const struct log_damage *damage = &info.damage[i];
        LOG_ERROR(storage, "records_damaged", F_STR("log", log->name),
                  F_U64("first_offset", damage->first), F_U64("end_offset", damage->end),
                  F_U64("segment", damage->segment), F_U64("position", damage->position),
                  F_STR("fault", record_fault_name(damage->fault)));
    }
}

/* A log with something to verify and a reference to it, or NULL. Under service->lock. */
static struct stream_log *next_to_verify(struct log_service *service) {
    for (struct stream_log *log = service->logs; log != NULL; log = log->next) {
        if (log->verify && stream_log_try_ref(log))
            return log;
    }
    return NULL;
}

static void verify_segment(struct stream_log *log) {
    struct log_service *service = log->service;
    struct record_log *records = atomic_load(&log->records);
    struct felix_error error = {0};
    bool more = false;
    if (records != NULL) {
        enum felix_err err = record_log_verify_next(records, &more, &error);
        if (err != FELIX_OK && err != FELIX_DAMAGED) {
            LOG_WARN(storage, "verification_stopped", F_STR("log", log->name), F_ERR(err),
                     F_STR("detail", error.text));
            more = false;
        }
        log_tell_damage(log);
    }
    if (!more) {
        (void)pthread_mutex_lock(&service->lock);
        log->verify = false;
        (void)pthread_mutex_unlock(&service->lock);
    }
    stream_log_unref(log);
}

static void *verify(void *context) {
    struct log_service *service = context;
    log_pool_step_back();
    (void)pthread_mutex_lock(&service->lock);
    while (!service->stopping) {
        struct stream_log *log = next_to_verify(service);
        if (log == NULL) {
            (void)pthread_cond_wait(&service->verifier_wake, &service->lock);
            continue;
        }
        (void)pthread_mutex_unlock(&service->lock);
        verify_segment(log);
        (void)pthread_mutex_lock(&service->lock);
    }
    (void)pthread_mutex_unlock(&service->lock);
    buf_thread_trim();
    return NULL;
}

enum felix_err log_upkeep_start(struct log_service *service, struct felix_error *reterr) {
    int failed = pthread_create(&service->keeper, NULL, keep, service);
    if (failed == 0) {
        service->keeper_runs = true;
        (void)pthread_setname_np(service->keeper, "felix-log-keep");
        failed = pthread_create(&service->verifier, NULL, verify, service);
    }
    if (failed != 0)
        return error_set(reterr, FELIX_SYSTEM, failed, "cannot start a thread of the logs");
    service->verifier_runs = true;
    (void)pthread_setname_np(service->verifier, "felix-log-check");
    return FELIX_OK;
}

void log_upkeep_stop(struct log_service *service) {
    (void)pthread_mutex_lock(&service->lock);
    service->stopping = true;
    (void)pthread_cond_broadcast(&service->keeper_wake);
    (void)pthread_cond_broadcast(&service->verifier_wake);
    (void)pthread_mutex_unlock(&service->lock);
    if (service->keeper_runs)
        (void)pthread_join(service->keeper, NULL);
    if (service->verifier_runs)
        (void)pthread_join(service->verifier, NULL);
    service->keeper_runs = service->verifier_runs = false;
}
