/*
 * Opening and closing: the service, and its logs.
 *
 * A log is on the service's list from its opening until it is closed. Its last reference queues the
 * close job; opening the same stream again waits until that is done. A service that is freed closes
 * what is still open itself: references that are dropped later only free memory.
 */
#include "storage/stream_log.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "storage/log_root.h"

/* ---- the service ---- */

static enum felix_err start_threads(struct log_service *service, struct felix_error *reterr) {
    unsigned threads = service->settings.threads;
    unsigned readers = threads / 2 > 0 ? threads / 2 : 1;
    service->commit_pool.work = log_jobs_work;
    service->commit_pool.has_work = log_jobs_waiting;
    service->commit_pool.context = service;
    service->read_pool.work = log_reads_work;
    service->read_pool.has_work = log_reads_waiting;
    service->read_pool.context = service;
    enum felix_err err = log_pool_start(&service->commit_pool, threads, "felix-log-write", reterr);
    if (err == FELIX_OK)
        err = log_pool_start(&service->read_pool, readers, "felix-log-read", reterr);
    return err == FELIX_OK ? log_upkeep_start(service, reterr) : err;
}

enum felix_err log_service_new(const struct log_service_settings *settings,
                               const struct log_events *events, void *context,
                               struct log_service **ret, struct felix_error *reterr) {
    struct log_service *service = xcalloc(1, sizeof *service);
    service->settings = *settings;
    service->root = xstrdup(settings->root);
    service->settings.root = service->root;
    service->events = *events;
    service->context = context;
    service->counters = xcalloc(1, sizeof *service->counters);
    service->keeper_due_ns = LOG_NEVER;
    service->lock_file = -1;
    (void)pthread_mutex_init(&service->jobs_lock, NULL);
    (void)pthread_mutex_init(&service->reads_lock, NULL);
    (void)pthread_mutex_init(&service->lock, NULL);
    (void)pthread_mutex_init(&service->times_lock, NULL);
    pthread_condattr_t monotonic;
    (void)pthread_condattr_init(&monotonic);
    (void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&service->keeper_wake, &monotonic);
    (void)pthread_condattr_destroy(&monotonic);
    (void)pthread_cond_init(&service->verifier_wake, NULL);
    (void)pthread_cond_init(&service->log_gone, NULL);

    enum felix_err err = log_root_lock(settings->disk, service->root, &service->lock_file, reterr);
    if (err == FELIX_OK) {
        log_root_sweep(settings->disk, service->root);
        err = start_threads(service, reterr);
    }
    if (err != FELIX_OK) {
        log_service_free(service);
        return err;
    }
    *ret = service;
    return FELIX_OK;
}

static void close_records(struct stream_log *log);

void log_service_free(struct log_service *service) {
    if (service == NULL)
        return;
    log_upkeep_stop(service);
    atomic_store(&service->reads_closing, true);
    log_pool_stop(&service->read_pool);
    log_pool_stop(&service->commit_pool);
    /* Nobody else is here any more. */
    while (service->logs != NULL) {
        struct stream_log *log = service->logs;
        service->logs = log->next;
        close_records(log);
        log->service = NULL;
    }
    if (service->lock_file >= 0)
        (void)service->settings.disk->ops->close(service->settings.disk->context,
                                                 service->lock_file);
    (void)pthread_cond_destroy(&service->keeper_wake);
    (void)pthread_cond_destroy(&service->verifier_wake);
    (void)pthread_cond_destroy(&service->log_gone);
    (void)pthread_mutex_destroy(&service->lock);
    (void)pthread_mutex_destroy(&service->times_lock);
    (void)pthread_mutex_destroy(&service->reads_lock);
    (void)pthread_mutex_destroy(&service->jobs_lock);
    free(service->counters);
    free(service->root);
    free(service);
}

void log_service_visit(struct log_service *service,
                       void (*visit)(void *context, const char *name, struct stream_log *log),
                       void *context) {
    (void)pthread_mutex_lock(&service->lock);
    for (struct stream_log *log = service->logs, *next; log != NULL; log = next) {
        next = log->next;
        /* Held, so that it is not closed meanwhile. */
        if (!stream_log_try_ref(log))
            continue;
        visit(context, log->name, log);
        stream_log_unref(log);
    }
    (void)pthread_mutex_unlock(&service->lock);
}

void log_service_sync_times(struct log_service *service, struct hist *ret) {
    (void)pthread_mutex_lock(&service->times_lock);
    *ret = service->sync_times;
    (void)pthread_mutex_unlock(&service->times_lock);
}

static void add_queued(void *context, const char *name, struct stream_log *log) {
    *(uint64_t *)context += atomic_load(&log->queued_bytes);
}

const struct log_service_counters *log_service_counters(struct log_service *service) {
    uint64_t queued_bytes = 0;
    log_service_visit(service, add_queued, &queued_bytes);
    counter_set(&service->counters->queued_bytes, queued_bytes);
    return service->counters;
}

/* ---- one log ---- */

static void free_log(struct stream_log *log) {
    (void)pthread_mutex_destroy(&log->state_lock);
    free(log->name);
    free(log->path);
    free(log);
}

/* Close the files, or delete them. */
static void close_records(struct stream_log *log) {
    const struct log_service_settings *settings = &log->service->settings;
    struct record_log *records = atomic_exchange(&log->records, NULL);
    struct felix_error error = {0};
    if (atomic_load(&log->purge)) {
        record_log_abandon(records);
        enum felix_err err = log_root_remove(settings->disk, settings->root, log->path, &error);
        if (err == FELIX_OK)
            LOG_INFO(storage, "log_deleted", F_STR("log", log->name));
        else
            LOG_ERROR(storage, "log_not_deleted", F_STR("log", log->name), F_ERR(err),
                      F_STR("detail", error.text));
        return;
    }
    if (records != NULL) {
        enum felix_err err = record_log_close(records);
        if (err != FELIX_OK)
            LOG_ERROR(storage, "log_not_closed", F_STR("log", log->name), F_ERR(err));
        else
            LOG_DEBUG(storage, "log_closed", F_STR("log", log->name));
    }
}

static void remove_from_list(struct log_service *service, struct stream_log *log) {
    struct stream_log **link = &service->logs;
    while (*link != log)
        link = &(*link)->next;
    *link = log->next;
}

/* Nobody has a reference: no role is taken and nothing is queued. */
static void run_close(struct stream_log *log) {
    struct log_service *service = log->service;
    close_records(log);
    (void)pthread_mutex_lock(&service->lock);
    remove_from_list(service, log);
    (void)pthread_cond_broadcast(&service->log_gone);
    (void)pthread_mutex_unlock(&service->lock);
    LOG_UNCOUNT(service, logs, 1);
    if ((atomic_load(&log->roles) & LOG_FAILED) != 0)
        LOG_UNCOUNT(service, failed_logs, 1);
    free_log(log);
}

struct stream_log *stream_log_ref(struct stream_log *log) {
    atomic_fetch_add(&log->refs, 1);
    return log;
}

void stream_log_unref(struct stream_log *log) {
    if (log == NULL)
        return;
    /* Read before the reference goes. */
    struct log_service *service = log->service;
    if (atomic_fetch_sub(&log->refs, 1) != 1)
        return;
    if (service != NULL)
        log_job_push(service, &log->close_job);
    else
        free_log(log);
}

void stream_log_purge(struct stream_log *log) {
    atomic_store(&log->purge, true);
}

enum log_sync stream_log_sync(const struct stream_log *log) {
    return log->settings.sync;
}

void stream_log_set_state(struct stream_log *log, enum felix_err err, const char *text) {
    (void)pthread_mutex_lock(&log->state_lock);
    log->err = err;
    size_t len = text != NULL ? strnlen(text, sizeof log->text - 1) : 0;
    if (len > 0)
        memcpy(log->text, text, len);
    log->text[len] = '\0';
    (void)pthread_mutex_unlock(&log->state_lock);
}

void stream_log_state(struct stream_log *log, struct stream_log_state *ret) {
    struct record_log *records = atomic_load(&log->records);
    *ret = (struct stream_log_state){.epoch = atomic_load(&log->epoch)};
    (void)pthread_mutex_lock(&log->state_lock);
    ret->err = log->err;
    memcpy(ret->text, log->text, sizeof ret->text);
    (void)pthread_mutex_unlock(&log->state_lock);
    if (records != NULL)
        record_log_info(records, &ret->info);
}

/* ---- opening ---- */

static struct log_job job_of(struct stream_log *log, void (*run)(struct stream_log *)) {
    return (struct log_job){.run = run, .log = log};
}

static char *name_of(struct slice tenant, struct slice namespace_, struct slice stream) {
    struct text text = {0};
    text_bytes(&text, tenant);
    text_char(&text, '/');
    text_bytes(&text, namespace_);
    text_char(&text, '/');
    text_bytes(&text, stream);
    return text_take(&text);
}

/* Takes path and name. */
static struct stream_log *new_log(struct log_service *service, char *path, char *name, void *user) {
    struct stream_log *log = xcalloc(1, sizeof *log);
    log->service = service;
    log->name = name;
    log->path = path;
    log->settings = service->settings.log;
    for (enum log_due what = 0; what < LOG_DUE_COUNT; what++)
        log->due_ns[what] = LOG_NEVER;
    atomic_init(&log->refs, 1);
    atomic_init(&log->epoch, 1);
    atomic_init(&log->user, user);
    (void)pthread_mutex_init(&log->state_lock, NULL);
    log->write_job = job_of(log, log_run_write);
    log->sync_job = job_of(log, log_run_sync);
    log->retain_job = job_of(log, log_run_retain);
    log->reopen_job = job_of(log, log_run_reopen);
    log->close_job = job_of(log, run_close);
    return log;
}

static struct stream_log *find_log(struct log_service *service, const char *path) {
    struct stream_log *log = service->logs;
    while (log != NULL && strcmp(log->path, path) != 0)
        log = log->next;
    return log;
}

/* Put a log on the list once the one that was there before it is closed. False: the directory
 * belongs to a stream of another name, whose hash collides. */
static bool add_to_list(struct log_service *service, struct stream_log *log) {
    bool added = true;
    (void)pthread_mutex_lock(&service->lock);
    for (struct stream_log *other; (other = find_log(service, log->path)) != NULL;) {
        added = strcmp(other->name, log->name) == 0;
        if (!added)
            break;
        (void)pthread_cond_wait(&service->log_gone, &service->lock);
    }
    log->next = service->logs;
    service->logs = log;
    (void)pthread_mutex_unlock(&service->lock);
    LOG_COUNT(service, logs, 1);
    return added;
}

static void tell_recovery(const struct stream_log *log, const struct log_recovery *report,
                          uint64_t took_ns) {
    LOG_INFO(storage, "log_opened", F_STR("log", log->name), F_U64("oldest", report->oldest),
             F_U64("end", report->end), F_U64("segments", report->segments),
             F_U64("bytes", report->bytes), F_U64("scanned_bytes", report->scanned_bytes),
             F_BOOL("clean", report->clean), F_U64("ms", took_ns / NS_PER_MS));
    if (report->cut_bytes > 0 || report->moved_bytes > 0 || report->removed_segments > 0)
        LOG_WARN(storage, "unfinished_writes_removed", F_STR("log", log->name),
                 F_U64("cut_bytes", report->cut_bytes),
                 F_U64("kept_aside_bytes", report->moved_bytes),
                 F_U64("removed_segments", report->removed_segments));
}

enum felix_err stream_log_open_records(struct stream_log *log, struct felix_error *reterr) {
    struct record_log *records = NULL;
    struct log_recovery report = {0};
    uint64_t begin_ns = clock_now_ns();
    enum felix_err err = record_log_open(log->service->settings.disk, log->path, log->name,
                                         &log->settings, &records, &report, reterr);
    if (err != FELIX_OK)
        return err;
    tell_recovery(log, &report, clock_now_ns() - begin_ns);
    atomic_store(&log->written, report.end);
    atomic_store(&log->durable, report.end);
    atomic_store(&log->records, records);
    log_give_bounds(log);
    log_tell_damage(log);
    log_upkeep_begin(log);
    return FELIX_OK;
}

/* It stays, without records; what may pass by itself is tried again. */
static void open_failed(struct stream_log *log, enum felix_err err,
                        const struct felix_error *error) {
    stream_log_set_state(log, err, error->text);
    atomic_fetch_or(&log->roles, LOG_FAILED);
    LOG_COUNT(log->service, failed_logs, 1);
    LOG_ERROR(storage, "log_not_opened", F_STR("log", log->name), F_ERR(err),
              F_STR("detail", error->text));
    if (err == FELIX_DAMAGED)
        return;
    log->reopen_backoff_ns = NS_PER_S;
    log_arm(log, LOG_DUE_REOPEN, clock_now_ns() + log->reopen_backoff_ns);
}

static struct stream_log *open_log(struct stream_log *log, struct log_retention retention,
                                   struct felix_error *reterr) {
    struct log_service *service = log->service;
    struct felix_error error = {0};
    enum felix_err err;
    log_set_bounds(log, retention);
    if (add_to_list(service, log))
        err = stream_log_open_records(log, &error);
    else
        err = error_set(&error, FELIX_DAMAGED, 0, "%s belongs to a stream of another name",
                        log->path);
    if (err != FELIX_OK) {
        open_failed(log, err, &error);
        if (reterr != NULL)
            *reterr = error;
    }
    return log;
}

struct stream_log *log_service_open(struct log_service *service, struct slice tenant,
                                    struct slice namespace_, struct slice stream,
                                    struct log_retention retention, void *user,
                                    struct felix_error *reterr) {
    char dir[LOG_DIR_NAME_BYTES];
    struct text path = {0};
    record_log_dir_name(tenant, namespace_, stream, 0, dir);
    text_printf(&path, "%s/%s", service->root, dir);
    struct stream_log *log =
        new_log(service, text_take(&path), name_of(tenant, namespace_, stream), user);
    return open_log(log, retention, reterr);
}

struct stream_log *log_service_open_dir(struct log_service *service, const char *path,
                                        const char *name, struct log_retention retention,
                                        void *user, struct felix_error *reterr) {
    return open_log(new_log(service, xstrdup(path), xstrdup(name), user), retention, reterr);
}
