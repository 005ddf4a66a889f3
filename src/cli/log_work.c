/*
 * Writing and verifying through record_log itself, on one thread: what is measured or tested here
 * is the log, so nothing stands between it and the loop.
 */
#include "cli/log_work.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/cursor.h"
#include "base/text.h"
#include "cli/log_lock.h"
#include "cli/out.h"
#include "storage/generated.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define VERIFY_PAGE_BYTES ((size_t)1 << 20)

struct log_work log_work_defaults(void) {
    return (struct log_work){
        .log =
            {
                .sync = LOG_SYNC_ON_COMMIT,
                .segment_bytes = (uint64_t)64 << 20,
                .index_spacing_bytes = 4096,
                .read_records_max = 10000,
                .set_length_ahead = true,
            },
        .sync_interval_ns = 250 * NS_PER_MS,
        .payload_bytes = 128,
        .batch = 1,
        .concurrency = 1,
        .label = "run",
    };
}

size_t log_work_batch_bytes(const struct log_work *work) {
    return 4 + (size_t)work->batch * (4 + generated_bytes((size_t)work->payload_bytes));
}

enum felix_err log_work_check(const struct log_work *work, struct felix_error *reterr) {
    if (work->payload_bytes > RECORD_PAYLOAD_BYTES_MAX)
        return error_set(reterr, FELIX_INVALID_ARGUMENT, 0, "a payload has at most %u bytes",
                         RECORD_PAYLOAD_BYTES_MAX);
    if (work->batch > LOG_WORK_BATCH_MAX ||
        work->batch * (work->payload_bytes + 4) > LOG_WORK_BATCH_BYTES_MAX)
        return error_set(reterr, FELIX_INVALID_ARGUMENT, 0,
                         "a batch has at most %u records and %" PRIu64 " bytes", LOG_WORK_BATCH_MAX,
                         LOG_WORK_BATCH_BYTES_MAX);
    if (work->records > LOG_WORK_RECORDS_MAX || work->concurrency > LOG_WORK_CONCURRENCY_MAX)
        return error_set(reterr, FELIX_INVALID_ARGUMENT, 0,
                         "at most %" PRIu64 " records, %u at a time", LOG_WORK_RECORDS_MAX,
                         LOG_WORK_CONCURRENCY_MAX);
    return FELIX_OK;
}

struct fsync_text log_work_fsync(const struct log_work *work) {
    struct fsync_text t = {"on_commit"};
    if (work->log.sync == LOG_SYNC_NONE)
        (void)snprintf(t.text, sizeof t.text, "none");
    if (work->log.sync == LOG_SYNC_PERIODIC)
        (void)snprintf(t.text, sizeof t.text, "periodic:%" PRIu64 "ms",
                       (uint64_t)(work->sync_interval_ns / NS_PER_MS));
    return t;
}

void log_work_fill(const struct log_work *work, uint64_t offset, uint32_t count, struct buf *block,
                   struct payload_list *ret) {
    size_t wanted = (size_t)work->payload_bytes, bytes = generated_bytes(wanted);
    struct writer out = writer_of(block->data, block->capacity);
    writer_u32(&out, count);
    for (uint32_t i = 0; i < count; i++) {
        writer_u32(&out, (uint32_t)bytes);
        uint8_t *payload = writer_reserve(&out, bytes);
        INVARIANT(payload != NULL);
        generated_fill(offset + i, wanted, payload);
    }
    *ret = (struct payload_list){
        .bytes = slice_of(block->data, (size_t)(out.at - block->data)),
        .count = count,
        .payload_bytes = (uint64_t)count * bytes,
    };
}

/* ---- write ---- */

static void print_opened(const struct log_work *work, uint64_t start) {
    if (work->json) {
        struct text line = {0};
        text_add(&line, "{\"event\":\"opened\",\"dir\":");
        text_quoted(&line, slice_str(work->dir));
        text_printf(&line, ",\"start_offset\":%" PRIu64 ",\"fsync\":\"%s\"}", start,
                    log_work_fsync(work).text);
        (void)puts(text_str(&line));
        text_deinit(&line);
    } else if (!work->quiet) {
        (void)printf("writing to %s from offset %" PRIu64 " on, fsync %s\n", work->dir, start,
                     log_work_fsync(work).text);
    }
    (void)fflush(stdout);
}

static void print_ack(const struct log_work *work, uint64_t first, uint64_t last) {
    if (!work->report_acks)
        return;
    if (work->json)
        (void)printf("{\"event\":\"ack\",\"first_offset\":%" PRIu64 ",\"last_offset\":%" PRIu64
                     "}\n",
                     first, last);
    else
        (void)printf("%" PRIu64 "\t%" PRIu64 "\n", first, last);
    (void)fflush(stdout);
}

static void print_done(const struct log_work *work, uint64_t start,
                       const struct record_log_info *info) {
    if (work->json)
        (void)printf("{\"event\":\"done\",\"tail_offset\":%" PRIu64 ",\"durable_offset\":%" PRIu64
                     "}\n",
                     info->written_end, info->durable_end);
    else if (!work->quiet)
        (void)printf(
            "wrote %s records, the log ends at %" PRIu64 " and is on disk up to %" PRIu64 "\n",
            out_count(info->written_end - start).text, info->written_end, info->durable_end);
    (void)fflush(stdout);
}

/* One batch, until its policy is satisfied. *due_ns is when the next periodic flush is. */
static enum felix_err write_batch(const struct log_work *work, struct record_log *log,
                                  uint64_t offset, const struct payload_list *list,
                                  uint64_t *due_ns, struct felix_error *reterr) {
    enum felix_err err = record_log_append(log, offset, clock_wall_ns() / NS_PER_US, list, reterr);
    if (err == FELIX_OK)
        err = record_log_write(log, reterr);
    if (err != FELIX_OK || work->log.sync == LOG_SYNC_NONE)
        return err;
    uint64_t now_ns = work->log.sync == LOG_SYNC_PERIODIC ? clock_now_ns() : UINT64_MAX;
    if (now_ns < *due_ns)
        return FELIX_OK;
    *due_ns = now_ns == UINT64_MAX ? 0 : now_ns + work->sync_interval_ns;
    return record_log_sync(log, reterr);
}

static enum felix_err write_all(const struct log_work *work, struct record_log *log, uint64_t start,
                                struct felix_error *reterr) {
    struct buf *block = buf_new(log_work_batch_bytes(work));
    uint64_t end = work->records == 0 ? UINT64_MAX : start + work->records;
    uint64_t due_ns = clock_now_ns() + work->sync_interval_ns;
    enum felix_err err = FELIX_OK;
    for (uint64_t at = start; err == FELIX_OK && at < end && !*work->stop;) {
        uint32_t count = (uint32_t)(work->batch < end - at ? work->batch : end - at);
        struct payload_list list;
        log_work_fill(work, at, count, block, &list);
        err = write_batch(work, log, at, &list, &due_ns, reterr);
        if (err == FELIX_OK)
            print_ack(work, at, at + count - 1);
        at += count;
    }
    buf_unref(block);
    return err;
}

static const volatile sig_atomic_t never;

static enum felix_err open_log(const struct log_work *work, struct record_log **ret,
                               struct log_recovery *ret_report, struct felix_error *reterr) {
    int failed = disk_make_dirs(&disk_posix, work->dir);
    if (failed != 0)
        return error_set(reterr, FELIX_STORAGE, -failed, "cannot make the directory %s", work->dir);
    return record_log_open(&disk_posix, work->dir, work->dir, &work->log, ret, ret_report, reterr);
}

enum felix_err log_work_write(const struct log_work *given, struct felix_error *reterr) {
    struct log_work work = *given;
    if (work.stop == NULL)
        work.stop = &never;
    struct log_lock lock;
    struct record_log *log = NULL;
    struct log_recovery report;
    enum felix_err err = log_lock_take(&lock, work.dir, reterr);
    if (err != FELIX_OK)
        return err;
    err = open_log(&work, &log, &report, reterr);
    if (err == FELIX_OK) {
        print_opened(&work, report.end);
        err = write_all(&work, log, report.end, reterr);
    }
    struct record_log_info info;
    if (err == FELIX_OK && work.clean_shutdown)
        err = record_log_sync(log, reterr);
    if (err == FELIX_OK) {
        record_log_info(log, &info);
        print_done(&work, report.end, &info);
    }
    if (log != NULL && work.clean_shutdown && err == FELIX_OK)
        err = record_log_close(log);
    else if (log != NULL)
        record_log_abandon(log);
    log_lock_drop(&lock);
    return err;
}

/* ---- verify ---- */

static enum felix_err check_page(const struct log_work *work, const struct log_page *page,
                                 uint64_t offset, struct felix_error *reterr) {
    if (page->first != offset)
        return error_set(reterr, FELIX_DAMAGED, 0, "after offset %" PRIu64 " comes %" PRIu64,
                         offset, page->first);
    struct payload_cursor cursor = payload_walk(&page->list);
    struct slice payload;
    for (; work->check_payloads && payload_next(&cursor, &payload); offset++)
        if (!generated_is(offset, (size_t)work->payload_bytes, payload))
            return error_set(reterr, FELIX_DAMAGED, 0,
                             "the payload of record %" PRIu64 " is not the generated one of %zu "
                             "bytes",
                             offset, generated_bytes((size_t)work->payload_bytes));
    return FELIX_OK;
}

static enum felix_err read_all(const struct log_work *work, struct record_log *log, uint64_t oldest,
                               uint64_t end, struct felix_error *reterr) {
    for (uint64_t at = oldest; at < end;) {
        struct log_page page;
        uint64_t available;
        enum felix_err err = record_log_read(log, at, VERIFY_PAGE_BYTES, &page, &available, reterr);
        if (err != FELIX_OK)
            return err;
        err = page.list.count == 0 ? error_set(reterr, FELIX_DAMAGED, 0,
                                               "nothing can be read at offset %" PRIu64, at)
                                   : check_page(work, &page, at, reterr);
        at += page.list.count;
        buf_unref(page.block);
        if (err != FELIX_OK)
            return err;
    }
    return FELIX_OK;
}

static void print_verified(const struct log_recovery *report, uint64_t opened_ns) {
    (void)printf("{\"event\":\"verified\",\"base_offset\":%" PRIu64 ",\"tail_offset\":%" PRIu64
                 ",\"records\":%" PRIu64 ",\"segments\":%u,\"recovery_seconds\":%.6f}\n",
                 report->oldest, report->end, report->end - report->oldest, report->segments,
                 (double)opened_ns / 1e9);
    (void)fflush(stdout);
}

enum felix_err log_work_verify(const struct log_work *work, struct felix_error *reterr) {
    struct log_lock lock;
    struct record_log *log = NULL;
    struct log_recovery report;
    enum felix_err err = log_lock_take(&lock, work->dir, reterr);
    if (err != FELIX_OK)
        return err;
    uint64_t began_ns = clock_now_ns();
    err = open_log(work, &log, &report, reterr);
    uint64_t opened_ns = clock_now_ns() - began_ns;
    if (err == FELIX_OK)
        err = read_all(work, log, report.oldest, report.end, reterr);
    if (err == FELIX_OK) {
        print_verified(&report, opened_ns);
        if (report.end - report.oldest < work->expect_at_least)
            err = error_set(reterr, FELIX_DAMAGED, 0,
                            "%" PRIu64 " records are fewer than the %" PRIu64 " expected",
                            report.end - report.oldest, work->expect_at_least);
    }
    if (log != NULL && err == FELIX_OK)
        err = record_log_close(log);
    else if (log != NULL)
        record_log_abandon(log);
    log_lock_drop(&lock);
    return err;
}
