/*
 * Measuring a log as a broker uses it: one thread, which is what a reactor is, keeps a number of
 * appends under way in log_service, whose threads write and flush. A notice of theirs ends all
 * appends that it covers, and each of these begins its successor. So what is shared by appends
 * under way at the same time, a flush above all, is shared as it is in a broker.
 *
 * An append's latency is from handing it over to acting on the notice.
 */
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "cli/log_lock.h"
#include "cli/log_work.h"
#include "cli/out.h"
#include "storage/generated.h"
#include "storage/log_root.h"
#include "storage/log_service.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define READ_PAGE_BYTES ((size_t)1 << 20)
#define READ_PAGES_BYTES_MAX ((uint64_t)64 << 20)
#define DISK_THREADS 2u

struct bench {
    const struct log_work *work;
    struct log_lock lock;
    struct log_service *service;
    struct stream_log *log;
    uint64_t next; /* offset of the next append */
    uint64_t oldest;
    /* from the disk threads */
    pthread_mutex_t mutex;
    pthread_cond_t woken;
    uint64_t committed;
    struct log_read *page;
    enum felix_err err;
};

/* A number of appends, one behind the other. */
struct task {
    uint64_t left; /* records */
    uint64_t end;  /* offset behind the append under way */
    uint64_t began_ns;
};

/* Tasks with an append under way, in the order of their offsets. */
struct load {
    struct task *tasks;
    size_t *queue;
    size_t count, first, waiting;
    uint64_t *latencies_ns;
    size_t appends;
};

static void on_committed(void *context, void *user, const struct log_commit *commit) {
    struct bench *b = context;
    (void)pthread_mutex_lock(&b->mutex);
    b->committed = commit->end;
    if (commit->err != FELIX_OK)
        b->err = commit->err;
    (void)pthread_cond_signal(&b->woken);
    (void)pthread_mutex_unlock(&b->mutex);
}

static void on_page(void *context, struct log_read *read) {
    struct bench *b = context;
    (void)pthread_mutex_lock(&b->mutex);
    b->page = read;
    (void)pthread_cond_signal(&b->woken);
    (void)pthread_mutex_unlock(&b->mutex);
}

static enum felix_err begin(struct bench *b, const struct log_work *work,
                            struct felix_error *reterr) {
    *b = (struct bench){.work = work};
    /* A command says what it does by itself, but not why a disk failed. */
    if (log_configure("error", LOG_UNKNOWN_REFUSED, reterr) != FELIX_OK)
        return FELIX_INTERNAL;
    enum felix_err err = log_lock_take_root(&b->lock, work->dir, reterr);
    if (err != FELIX_OK)
        return err;
    (void)pthread_mutex_init(&b->mutex, NULL);
    (void)pthread_cond_init(&b->woken, NULL);
    const struct log_service_settings settings = {
        .disk = &disk_posix,
        .root = work->dir,
        .log = work->log,
        .sync_interval_ns = work->sync_interval_ns,
        .retention_interval_ns = 60 * NS_PER_S,
        .threads = DISK_THREADS,
        .read_pages_bytes_max = READ_PAGES_BYTES_MAX,
    };
    const struct log_events events = {.on_committed = on_committed, .on_page = on_page};
    err = log_service_new(&settings, &events, b, &b->service, reterr);
    if (err != FELIX_OK)
        return err;
    b->log = log_service_open_dir(b->service, work->dir, work->dir, (struct log_retention){0}, NULL,
                                  reterr);
    struct stream_log_state state;
    stream_log_state(b->log, &state);
    b->next = b->committed = state.info.written_end;
    b->oldest = state.info.oldest;
    return state.err;
}

static enum felix_err finish(struct bench *b) {
    enum felix_err err = b->err;
    stream_log_unref(b->log);
    log_service_free(b->service);
    char path[PATH_MAX];
    /* The service's lock file, in a directory that is a log's and no root. */
    if (b->service != NULL &&
        snprintf(path, sizeof path, "%s/" LOG_ROOT_LOCK_FILE, b->work->dir) < (int)sizeof path)
        (void)disk_posix.ops->remove(disk_posix.context, path);
    log_lock_drop(&b->lock);
    return err;
}

/* ---- writing ---- */

static void append(struct bench *b, struct load *load, size_t index) {
    const struct log_work *work = b->work;
    struct task *task = &load->tasks[index];
    uint32_t count = (uint32_t)(work->batch < task->left ? work->batch : task->left);
    struct log_batch *batch = xcalloc(1, sizeof *batch);
    batch->block = buf_new(log_work_batch_bytes(work));
    log_work_fill(work, b->next, count, batch->block, &batch->list);
    buf_share(batch->block);
    batch->base_offset = b->next;
    batch->timestamp_us = clock_wall_ns() / NS_PER_US;
    batch->epoch = 1;
    b->next += count;
    task->left -= count;
    task->end = b->next;
    load->queue[(load->first + load->waiting++) % load->count] = index;
    task->began_ns = clock_now_ns();
    log_append(b->log, batch);
}

/* Waits until something more is committed than `end`, and returns how much. */
static uint64_t wait_commit(struct bench *b, uint64_t end) {
    (void)pthread_mutex_lock(&b->mutex);
    while (b->committed <= end && b->err == FELIX_OK)
        (void)pthread_cond_wait(&b->woken, &b->mutex);
    uint64_t committed = b->committed;
    (void)pthread_mutex_unlock(&b->mutex);
    return committed;
}

/* `records` by `tasks` at a time; latencies are kept if there is a place for them. */
static enum felix_err run_tasks(struct bench *b, uint64_t records, size_t tasks,
                                struct load *load) {
    uint64_t share = (records + tasks - 1) / tasks;
    load->count = tasks;
    load->first = load->waiting = 0;
    for (size_t i = 0; share > 0 && i < tasks; i++) {
        load->tasks[i] = (struct task){.left = share};
        append(b, load, i);
    }
    uint64_t committed = 0;
    while (load->waiting > 0) {
        struct task *head = &load->tasks[load->queue[load->first]];
        if (head->end > committed) {
            committed = wait_commit(b, head->end - 1);
            if (b->err != FELIX_OK)
                return b->err;
        }
        size_t index = load->queue[load->first];
        load->first = (load->first + 1) % tasks;
        load->waiting--;
        if (load->latencies_ns != NULL)
            load->latencies_ns[load->appends++] = clock_now_ns() - head->began_ns;
        if (head->left > 0)
            append(b, load, index);
    }
    return FELIX_OK;
}

static int by_value(const void *a, const void *b) {
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

/* By nearest rank, in microseconds; `sorted` has at least one. */
static double percentile_us(const uint64_t *sorted, size_t count, double percent) {
    double rank = percent / 100 * (double)count;
    size_t at = (size_t)rank;
    if ((double)at < rank)
        at++;
    return (double)sorted[at > 0 ? at - 1 : 0] / 1e3;
}

static void print_write(const struct log_work *work, struct load *load, uint64_t took_ns) {
    uint64_t records = (work->records + work->concurrency - 1) / work->concurrency;
    records *= work->concurrency;
    double seconds = (double)took_ns / 1e9;
    double rate = seconds > 0 ? (double)records / seconds : 0;
    qsort(load->latencies_ns, load->appends, sizeof *load->latencies_ns, by_value);
    const uint64_t *sorted = load->latencies_ns;
    double us[5];
    static const double percents[5] = {50, 90, 99, 99.9, 100};
    for (size_t i = 0; i < 5; i++)
        us[i] = load->appends > 0 ? percentile_us(sorted, load->appends, percents[i]) : 0;
    if (!work->json) {
        (void)printf("%s records of %zu bytes in %.3f s: %s records/s, %.1f MB/s\n",
                     out_count(records).text, generated_bytes((size_t)work->payload_bytes), seconds,
                     out_count((uint64_t)rate).text,
                     rate * (double)generated_bytes((size_t)work->payload_bytes) / 1e6);
        (void)printf("%s appends of %" PRIu64 ", %" PRIu64 " at a time, fsync %s\n",
                     out_count(load->appends).text, work->batch, work->concurrency,
                     log_work_fsync(work).text);
        (void)printf("latency: p50 %.1f us, p90 %.1f us, p99 %.1f us, p99.9 %.1f us, max %.1f us\n",
                     us[0], us[1], us[2], us[3], us[4]);
        return;
    }
    struct text line = {0};
    text_add(&line, "{\"event\":\"bench\",\"label\":");
    text_quoted(&line, slice_str(work->label));
    text_printf(&line,
                ",\"fsync\":\"%s\",\"records\":%" PRIu64 ",\"batch\":%" PRIu64
                ",\"payload_bytes\":%zu,\"concurrency\":%" PRIu64
                ",\"seconds\":%.6f,\"records_per_second\":%.1f,\"appends\":%zu,\"latency_us\":"
                "{\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,\"p999\":%.1f,\"max\":%.1f}}",
                log_work_fsync(work).text, records, work->batch,
                generated_bytes((size_t)work->payload_bytes), work->concurrency, seconds, rate,
                load->appends, us[0], us[1], us[2], us[3], us[4]);
    (void)puts(text_str(&line));
    text_deinit(&line);
}

static enum felix_err bench_write(struct bench *b, struct felix_error *reterr) {
    const struct log_work *work = b->work;
    size_t tasks = (size_t)work->concurrency;
    uint64_t share = (work->records + tasks - 1) / tasks;
    uint64_t appends = (share + work->batch - 1) / work->batch * tasks;
    struct load load = {
        .tasks = xcalloc(tasks, sizeof *load.tasks),
        .queue = xcalloc(tasks, sizeof *load.queue),
    };
    enum felix_err err = run_tasks(b, work->warmup_records, 1, &load);
    load.latencies_ns = xcalloc(appends + 1, sizeof *load.latencies_ns);
    uint64_t began_ns = clock_now_ns();
    if (err == FELIX_OK)
        err = run_tasks(b, work->records, tasks, &load);
    uint64_t took_ns = clock_now_ns() - began_ns;
    if (err == FELIX_OK)
        print_write(work, &load, took_ns);
    else
        err = error_set(reterr, err, 0, "an append to %s failed: %s", work->dir, err_text(err));
    free(load.latencies_ns);
    free(load.queue);
    free(load.tasks);
    return err;
}

enum felix_err log_work_bench_write(const struct log_work *work, struct felix_error *reterr) {
    struct bench b;
    enum felix_err err = begin(&b, work, reterr);
    if (err == FELIX_OK)
        err = bench_write(&b, reterr);
    enum felix_err late = finish(&b);
    (void)fflush(stdout);
    return err != FELIX_OK ? err : late;
}

/* ---- reading ---- */

static void ask(struct bench *b, uint64_t offset) {
    struct log_read *read = xcalloc(1, sizeof *read);
    read->log = b->log;
    read->offset = offset;
    read->bytes_max = READ_PAGE_BYTES;
    log_read(read);
}

static struct log_read *wait_page(struct bench *b) {
    (void)pthread_mutex_lock(&b->mutex);
    while (b->page == NULL)
        (void)pthread_cond_wait(&b->woken, &b->mutex);
    struct log_read *page = b->page;
    b->page = NULL;
    (void)pthread_mutex_unlock(&b->mutex);
    return page;
}

static void print_read(const struct log_work *work, uint64_t records, uint64_t bytes,
                       uint64_t took_ns) {
    double seconds = (double)took_ns / 1e9;
    double rate = seconds > 0 ? (double)records / seconds : 0;
    double bytes_rate = seconds > 0 ? (double)bytes / seconds : 0;
    if (!work->json) {
        (void)printf("%s records in %.3f s: %s records/s, %.1f MB/s\n", out_count(records).text,
                     seconds, out_count((uint64_t)rate).text, bytes_rate / 1e6);
        return;
    }
    struct text line = {0};
    text_add(&line, "{\"event\":\"bench_read\",\"label\":");
    text_quoted(&line, slice_str(work->label));
    text_printf(&line,
                ",\"records\":%" PRIu64 ",\"payload_bytes\":%" PRIu64
                ",\"seconds\":%.6f,\"records_per_second\":%.1f,\"bytes_per_second\":%.1f}",
                records, bytes, seconds, rate, bytes_rate);
    (void)puts(text_str(&line));
    text_deinit(&line);
}

static enum felix_err bench_read(struct bench *b, struct felix_error *reterr) {
    uint64_t end = b->next, records = 0, bytes = 0;
    uint64_t began_ns = clock_now_ns();
    enum felix_err err = FELIX_OK;
    if (b->oldest < end)
        ask(b, b->oldest);
    for (uint64_t at = b->oldest; err == FELIX_OK && at < end;) {
        struct log_read *read = wait_page(b);
        err = read->err;
        struct log_page page = read->page;
        if (err == FELIX_OK && page.list.count == 0)
            err = FELIX_INTERNAL;
        at = page.first + page.list.count;
        if (err == FELIX_OK && at < end)
            ask(b, at);
        if (err == FELIX_OK) {
            records += page.list.count;
            bytes += page.list.payload_bytes;
        }
        if (page.block != NULL) {
            log_page_done(b->service, page.block->capacity);
            buf_unref(page.block);
        }
        free(read);
    }
    if (err != FELIX_OK)
        return error_set(reterr, err, 0, "a read of %s failed: %s", b->work->dir, err_text(err));
    print_read(b->work, records, bytes, clock_now_ns() - began_ns);
    return FELIX_OK;
}

enum felix_err log_work_bench_read(const struct log_work *work, struct felix_error *reterr) {
    struct bench b;
    enum felix_err err = begin(&b, work, reterr);
    if (err == FELIX_OK)
        err = bench_read(&b, reterr);
    enum felix_err late = finish(&b);
    (void)fflush(stdout);
    return err != FELIX_OK ? err : late;
}
