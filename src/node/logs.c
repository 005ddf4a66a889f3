#include "node/logs.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/map.h"
#include "http/metrics.h"
#include "node/objects.h"

#define OPENERS_MAX 64u
#define LABELLED_LOGS_MAX 200u /* with gauges of their own on the metrics page */

/* Where the notices of a log go. Kept until its stream is opened anew or the node ends: the log may
 * still be closing when its stream is gone. */
struct destination {
    struct buf *key;
    uint64_t incarnation;
    struct reactor *owner;
    struct stream_log *log; /* one reference; NULL after logs_leave */
};

struct logs {
    const struct config *config;
    char *root; /* empty: there is none */
    struct reactor *reactors;
    unsigned reactor_count;
    _Atomic(struct log_service *) service; /* NULL until there is a durable stream */
    pthread_mutex_t lock;                  /* the destinations */
    struct map destinations;
};

/* ---- between the service and the reactors ---- */

/* On a disk thread. */
static void on_committed(void *context, void *user, const struct log_commit *commit) {
    const struct destination *to = user;
    struct mail_logged *mail = xcalloc(1, sizeof *mail);
    mail->mail.kind = MAIL_LOGGED;
    mail->mail.key = buf_ref(to->key);
    mail->mail.incarnation = to->incarnation;
    mail->commit = *commit;
    reactor_post(to->owner, &mail->mail);
}

static void on_page(void *context, struct log_read *read) {
    struct logs *logs = context;
    struct mail_log_page *mail = xcalloc(1, sizeof *mail);
    mail->mail.kind = MAIL_LOG_PAGE;
    mail->read = read;
    reactor_post(&logs->reactors[read->reactor], &mail->mail);
}

static void append(void *context, struct stream_log *log, struct log_batch *batch) {
    log_append(log, batch);
}

static void read_page(void *context, struct log_read *read) {
    log_read(read);
}

static void page_done(void *context, size_t bytes) {
    struct logs *logs = context;
    /* A reactor that is freed gives back what it has; by then the service may be gone. */
    struct log_service *service = atomic_load(&logs->service);
    if (service != NULL)
        log_page_done(service, bytes);
}

static void release(void *context, struct stream_log *log) {
    stream_log_unref(log);
}

static const struct server_logs table = {
    .append = append, .read = read_page, .page_done = page_done, .release = release};

/* ---- life ---- */

static struct slice destination_key(const void *entry) {
    return core_key_slice(((const struct destination *)entry)->key);
}

struct logs *logs_new(const struct config *config, const char *data_dir) {
    struct logs *logs = xcalloc(1, sizeof *logs);
    struct text root = {0};
    logs->config = config;
    (void)pthread_mutex_init(&logs->lock, NULL);
    map_init(&logs->destinations, destination_key);
    if (config->durable_storage_dir[0] != '\0')
        text_add(&root, config->durable_storage_dir);
    else if (config->dev)
        text_printf(&root, "%s/streams", data_dir);
    logs->root = xstrdup(text_str(&root));
    text_deinit(&root);
    return logs;
}

void logs_attach(struct logs *logs, struct reactor *reactors, unsigned reactor_count) {
    logs->reactors = reactors;
    logs->reactor_count = reactor_count;
    for (unsigned r = 0; r < reactor_count; r++) {
        reactors[r].server.logs = &table;
        reactors[r].server.logs_context = logs;
    }
}

static enum log_sync sync_of(const struct config *config) {
    switch ((enum config_fsync_mode)config->durable_fsync_mode) {
    case CONFIG_FSYNC_NONE:
        return LOG_SYNC_NONE;
    case CONFIG_FSYNC_PERIODIC:
        return LOG_SYNC_PERIODIC;
    case CONFIG_FSYNC_ON_COMMIT:
        break;
    }
    return LOG_SYNC_ON_COMMIT;
}

static struct log_service_settings settings_of(const struct logs *logs) {
    const struct config *config = logs->config;
    return (struct log_service_settings){
        .disk = &disk_posix,
        .root = logs->root,
        .log =
            {
                .sync = sync_of(config),
                .segment_bytes = config->durable_segment_bytes,
                .index_spacing_bytes = (uint32_t)config->durable_index_spacing_bytes,
                .read_records_max = config->durable_max_records_per_read,
                .set_length_ahead = config->durable_preallocate,
                .verify_all_on_open = config->durable_verify_all_on_open,
                .repair_checksum_tail = config->durable_repair_checksum_tail,
                .retention_bytes = config->durable_retention_bytes,
                .retention_us = config->durable_retention_seconds * (NS_PER_S / NS_PER_US),
            },
        .sync_interval_ns = config->durable_fsync_interval_ms * NS_PER_MS,
        .retention_interval_ns = config->durable_retention_interval_seconds * NS_PER_S,
        .threads = config->durable_threads,
        .read_pages_bytes_max = config->durable_read_bytes,
    };
}

enum felix_err logs_prepare(struct logs *logs, struct felix_error *reterr) {
    static const struct log_events events = {.on_committed = on_committed, .on_page = on_page};
    static const char *const modes[] = {"none", "periodic", "on_commit"};
    if (atomic_load(&logs->service) != NULL)
        return FELIX_OK;
    if (logs->root[0] == '\0')
        return error_set(reterr, FELIX_INVALID_ARGUMENT, 0,
                         "durable streams need a directory: set FELIX_DURABLE_STORAGE_DIR "
                         "(durable_storage_dir, --durable-storage-dir)");
    struct log_service_settings settings = settings_of(logs);
    struct log_service *service = NULL;
    enum felix_err err = log_service_new(&settings, &events, logs, &service, reterr);
    if (err != FELIX_OK)
        return err;
    atomic_store(&logs->service, service);
    LOG_INFO(node, "durable_streams", F_STR("directory", logs->root),
             F_STR("fsync_mode", modes[logs->config->durable_fsync_mode]),
             F_U64("threads", settings.threads));
    return FELIX_OK;
}

static void destination_free(struct destination *to) {
    if (to == NULL)
        return;
    stream_log_unref(to->log);
    buf_unref(to->key);
    free(to);
}

void logs_close(struct logs *logs) {
    struct log_service *service = atomic_load(&logs->service);
    log_service_free(service);
    atomic_store(&logs->service, NULL);
}

void logs_free(struct logs *logs) {
    if (logs == NULL)
        return;
    size_t at = 0;
    struct destination *to;
    while ((to = map_next(&logs->destinations, &at)) != NULL)
        destination_free(to);
    map_deinit(&logs->destinations);
    (void)pthread_mutex_destroy(&logs->lock);
    free(logs->root);
    free(logs);
}

/* ---- opening ---- */

static struct log_retention retention_of(const struct scope_item *item) {
    return (struct log_retention){.bytes = item->retention_bytes,
                                  .seconds = item->retention_seconds};
}

static void open_one(struct logs *logs, struct logs_opening *opening) {
    const struct scope_item *item = opening->item;
    struct destination *to = xcalloc(1, sizeof *to);
    to->key = objects_key(item);
    to->incarnation = opening->incarnation;
    to->owner = &logs->reactors[core_owner(core_key_slice(to->key), logs->reactor_count)];
    to->log = log_service_open(atomic_load(&logs->service), slice_str(item->tenant),
                               slice_str(item->space), slice_str(item->name), retention_of(item),
                               to, NULL); /* it has said itself what is wrong with it */
    opening->log = to->log;
    /* The log that was there before is closed now: nobody tells its destination any more. */
    (void)pthread_mutex_lock(&logs->lock);
    struct destination *before = map_put(&logs->destinations, to);
    (void)pthread_mutex_unlock(&logs->lock);
    destination_free(before);
}

/* What several threads open together. */
struct open_work {
    struct logs *logs;
    struct logs_opening *openings;
    size_t count;
    _Atomic size_t next;
};

static void *open_some(void *context) {
    struct open_work *work = context;
    for (size_t i; (i = atomic_fetch_add(&work->next, 1)) < work->count;)
        open_one(work->logs, &work->openings[i]);
    buf_thread_trim();
    return NULL;
}

void logs_open(struct logs *logs, struct logs_opening *openings, size_t count) {
    struct open_work work = {.logs = logs, .openings = openings, .count = count};
    pthread_t threads[OPENERS_MAX];
    unsigned wanted = logs->config->durable_threads, started = 0;
    if (wanted > OPENERS_MAX)
        wanted = OPENERS_MAX;
    /* This thread is one of them. */
    while (started + 1 < wanted && started + 1 < count &&
           pthread_create(&threads[started], NULL, open_some, &work) == 0)
        started++;
    for (size_t i; (i = atomic_fetch_add(&work.next, 1)) < count;)
        open_one(logs, &openings[i]);
    for (unsigned i = 0; i < started; i++)
        (void)pthread_join(threads[i], NULL);
}

void logs_leave(struct logs *logs, const struct scope_item *item, bool purge) {
    struct buf *key = objects_key(item);
    (void)pthread_mutex_lock(&logs->lock);
    struct destination *to = map_get(&logs->destinations, core_key_slice(key));
    struct stream_log *log = to != NULL ? to->log : NULL;
    if (to != NULL)
        to->log = NULL;
    (void)pthread_mutex_unlock(&logs->lock);
    buf_unref(key);
    if (log != NULL && purge)
        stream_log_purge(log);
    stream_log_unref(log);
}

/* A reference to the log of a stream, or NULL. */
static struct stream_log *find_log(struct logs *logs, const struct scope_item *item) {
    struct buf *key = objects_key(item);
    (void)pthread_mutex_lock(&logs->lock);
    const struct destination *to = map_get(&logs->destinations, core_key_slice(key));
    struct stream_log *log = to != NULL && to->log != NULL ? stream_log_ref(to->log) : NULL;
    (void)pthread_mutex_unlock(&logs->lock);
    buf_unref(key);
    return log;
}

bool logs_state(struct logs *logs, const struct scope_item *item, struct stream_log_state *ret) {
    struct stream_log *log = find_log(logs, item);
    if (log == NULL)
        return false;
    stream_log_state(log, ret);
    stream_log_unref(log);
    return true;
}

bool logs_set_retention(struct logs *logs, const struct scope_item *item) {
    struct stream_log *log = find_log(logs, item);
    if (log == NULL)
        return false;
    stream_log_set_retention(log, retention_of(item));
    stream_log_unref(log);
    return true;
}

void logs_start(struct stream_log *log, struct stream_start *ret) {
    struct stream_log_state state;
    stream_log_state(log, &state);
    *ret = (struct stream_start){
        .log = stream_log_ref(log),
        .end = state.info.written_end,
        .epoch = state.epoch,
        .err = state.err,
    };
}

/* ---- what is to be seen of it ---- */

struct failed_visit {
    struct text *out;
    bool any;
};

static void note_failed(void *context, const char *name, struct stream_log *log) {
    struct failed_visit *visit = context;
    struct stream_log_state state;
    stream_log_state(log, &state);
    if (state.err == FELIX_OK)
        return;
    visit->any = true;
    text_printf(visit->out, "log %s: %s: %s\n", name, err_text(state.err), state.text);
}

bool logs_failed(struct logs *logs, struct text *out) {
    struct failed_visit visit = {.out = out};
    struct log_service *service = atomic_load(&logs->service);
    if (service != NULL)
        log_service_visit(service, note_failed, &visit);
    return visit.any;
}

/* ---- metrics ---- */

struct row {
    const char *name;
    enum metric_type type;
    const char *help;
    size_t offset;
};

#define ROW(name, type, field, help)                                                               \
    {"felix_storage_" name, METRIC_##type, help, offsetof(struct log_service_counters, field)}

static const struct row rows[] = {
    ROW("append_records_total", COUNTER, records, "records written to logs"),
    ROW("append_bytes_total", COUNTER, bytes, "payload bytes written to logs"),
    ROW("append_batches_total", COUNTER, batches, "batches of publishes written to logs"),
    ROW("writes_total", COUNTER, writes, "writes of logs, each of all that was queued"),
    ROW("queued_bytes", GAUGE, queued_bytes, "payload bytes that wait to be written"),
    ROW("sync_total", COUNTER, syncs, "flushes of logs"),
    ROW("sync_batches_total", COUNTER, sync_waiters, "batches that flushes made durable"),
    ROW("sync_failures_total", COUNTER, sync_failures, "flushes that failed"),
    ROW("disk_full_total", COUNTER, disk_full, "writes refused because the disk was full"),
    ROW("reopens_total", COUNTER, reopens, "logs opened again after a failure"),
    ROW("damaged_ranges_total", COUNTER, damaged_ranges, "ranges of records found damaged"),
    ROW("read_pages_total", COUNTER, pages, "pages of history read"),
    ROW("read_records_total", COUNTER, page_records, "records of history read"),
    ROW("read_bytes_total", COUNTER, page_bytes, "payload bytes of history read"),
    ROW("retention_segments_deleted_total", COUNTER, removed_segments,
        "segments removed by retention"),
    ROW("retention_failures_total", COUNTER, retention_failures, "segments that were not removed"),
    ROW("logs", GAUGE, logs, "logs of durable streams"),
    ROW("logs_failed", GAUGE, failed_logs, "logs that do not serve"),
};

/* What a log looks like, for the gauges by stream. */
struct log_line {
    char *name;
    struct stream_log_state state;
};

struct log_lines {
    struct log_line *lines;
    size_t count;
};

static void note_line(void *context, const char *name, struct stream_log *log) {
    struct log_lines *all = context;
    if (all->count == LABELLED_LOGS_MAX)
        return;
    struct log_line *line = &all->lines[all->count++];
    line->name = xstrdup(name);
    stream_log_state(log, &line->state);
}

static uint64_t is_failed(const struct stream_log_state *state) {
    return state->err != FELIX_OK;
}
static uint64_t segments(const struct stream_log_state *state) {
    return state->info.segments;
}
static uint64_t bytes(const struct stream_log_state *state) {
    return state->info.bytes;
}
static uint64_t oldest(const struct stream_log_state *state) {
    return state->info.oldest;
}
static uint64_t end(const struct stream_log_state *state) {
    return state->info.committed_end;
}
static uint64_t unsynced(const struct stream_log_state *state) {
    return state->info.written_end - state->info.durable_end;
}
static uint64_t damaged(const struct stream_log_state *state) {
    return state->info.damage_count;
}
static uint64_t unverified(const struct stream_log_state *state) {
    return state->info.unverified_segments;
}

static const struct {
    const char *name;
    const char *help;
    uint64_t (*value)(const struct stream_log_state *state);
} gauges[] = {
    {"felix_storage_log_failed", "1: the log does not serve", is_failed},
    {"felix_storage_segment_count", "segments of the log", segments},
    {"felix_storage_log_bytes", "bytes of the log's segments", bytes},
    {"felix_storage_retention_base_offset", "offset of the oldest record", oldest},
    {"felix_storage_committed_offset", "offset that the next record to be committed gets", end},
    {"felix_storage_unsynced_records", "records that are written and not flushed", unsynced},
    {"felix_storage_log_damaged_ranges", "ranges of damaged records in the log", damaged},
    {"felix_storage_unverified_segments", "segments whose records were not checked yet",
     unverified},
};

static void render_lines(struct log_service *service, struct text *out) {
    struct log_lines all = {.lines = xcalloc(LABELLED_LOGS_MAX, sizeof(struct log_line))};
    log_service_visit(service, note_line, &all);
    for (size_t g = 0; g < sizeof gauges / sizeof gauges[0]; g++) {
        metric_family(out, gauges[g].name, METRIC_GAUGE, gauges[g].help);
        for (size_t i = 0; i < all.count; i++) {
            struct metric_label label = {"stream", slice_str(all.lines[i].name)};
            metric_sample_labelled(out, gauges[g].name, &label, 1,
                                   gauges[g].value(&all.lines[i].state));
        }
    }
    for (size_t i = 0; i < all.count; i++)
        free(all.lines[i].name);
    free(all.lines);
}

void logs_render_metrics(struct logs *logs, struct text *out) {
    struct log_service *service = atomic_load(&logs->service);
    if (service == NULL)
        return;
    const char *counters = (const char *)log_service_counters(service);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        metric_family(out, rows[i].name, rows[i].type, rows[i].help);
        metric_sample(out, rows[i].name,
                      counter_get((const counter *)(const void *)(counters + rows[i].offset)));
    }
    struct hist *times = xmalloc(sizeof *times);
    log_service_sync_times(service, times);
    metric_family(out, "felix_storage_sync_duration_seconds", METRIC_HISTOGRAM,
                  "time that a flush takes");
    metric_histogram(out, "felix_storage_sync_duration_seconds", NULL, 0, times);
    free(times);
    render_lines(service, out);
}
