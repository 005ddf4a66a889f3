/*
 * The service of the logs on a real directory, through a disk whose flushes can be held up and made
 * to fail, and whose writes can be refused.
 */
#include "storage/log_service.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/check.h"
#include "base/clock.h"
#include "storage/stream_log.h"

#define NAMES slice_str("t"), slice_str("n")
#define WAIT_S 20
#define BIG_BYTES ((size_t)96 << 10) /* is written beside a flush */
#define NOTICES_MAX 512

/* ---- the disk ---- */

struct gate {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool closed;      /* flushes wait */
    unsigned entered; /* flushes that wait, or have waited */
    unsigned fail_syncs;
    bool full;
};

static struct gate gate = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false, 0, 0, false};
static struct disk_ops ops;
static const struct disk disk = {.ops = &ops, .context = NULL};

static int gated_sync(void *context, int file) {
    (void)pthread_mutex_lock(&gate.lock);
    if (gate.closed)
        gate.entered++;
    (void)pthread_cond_broadcast(&gate.changed);
    while (gate.closed)
        (void)pthread_cond_wait(&gate.changed, &gate.lock);
    bool fails = gate.fail_syncs > 0;
    gate.fail_syncs -= fails;
    (void)pthread_mutex_unlock(&gate.lock);
    return fails ? -EIO : disk_posix.ops->sync(disk_posix.context, file);
}

static ssize_t gated_pwrite(void *context, int file, const void *data, size_t bytes, uint64_t at) {
    (void)pthread_mutex_lock(&gate.lock);
    bool full = gate.full;
    (void)pthread_mutex_unlock(&gate.lock);
    return full ? -ENOSPC : disk_posix.ops->pwrite(disk_posix.context, file, data, bytes, at);
}

static void close_gate(void) {
    (void)pthread_mutex_lock(&gate.lock);
    gate.closed = true;
    gate.entered = 0;
    (void)pthread_mutex_unlock(&gate.lock);
}

static void open_gate(void) {
    (void)pthread_mutex_lock(&gate.lock);
    gate.closed = false;
    (void)pthread_cond_broadcast(&gate.changed);
    (void)pthread_mutex_unlock(&gate.lock);
}

static struct timespec deadline(void) {
    struct timespec at;
    (void)clock_gettime(CLOCK_REALTIME, &at);
    at.tv_sec += WAIT_S;
    return at;
}

static void wait_entered(unsigned count) {
    struct timespec until = deadline();
    (void)pthread_mutex_lock(&gate.lock);
    while (gate.entered < count)
        assert_int_equal(pthread_cond_timedwait(&gate.changed, &gate.lock, &until), 0);
    (void)pthread_mutex_unlock(&gate.lock);
}

static void set_full(bool full) {
    (void)pthread_mutex_lock(&gate.lock);
    gate.full = full;
    (void)pthread_mutex_unlock(&gate.lock);
}

static void fail_syncs(unsigned count) {
    (void)pthread_mutex_lock(&gate.lock);
    gate.fail_syncs = count;
    (void)pthread_mutex_unlock(&gate.lock);
}

/* ---- what the service tells ---- */

struct heard {
    struct log_commit notices[NOTICES_MAX];
    unsigned count;
    bool telling; /* two at once for one log would be seen */
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct heard logs[2];
    struct log_read *pages; /* oldest first */
    unsigned page_count;
} told = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static void on_committed(void *context, void *user, const struct log_commit *commit) {
    struct heard *heard = user;
    (void)pthread_mutex_lock(&told.lock);
    INVARIANT(!heard->telling && heard->count < NOTICES_MAX);
    heard->telling = true;
    (void)pthread_mutex_unlock(&told.lock);
    (void)pthread_mutex_lock(&told.lock);
    heard->notices[heard->count++] = *commit;
    heard->telling = false;
    (void)pthread_cond_broadcast(&told.changed);
    (void)pthread_mutex_unlock(&told.lock);
}

static void on_page(void *context, struct log_read *read) {
    (void)pthread_mutex_lock(&told.lock);
    struct log_read **last = &told.pages;
    while (*last != NULL)
        last = &(*last)->next;
    read->next = NULL;
    *last = read;
    told.page_count++;
    (void)pthread_cond_broadcast(&told.changed);
    (void)pthread_mutex_unlock(&told.lock);
}

static const struct log_events events = {on_committed, on_page};

/* The notice number `index` of a log, once it is there. */
static struct log_commit notice(struct heard *heard, unsigned index) {
    struct timespec until = deadline();
    (void)pthread_mutex_lock(&told.lock);
    while (heard->count <= index)
        assert_int_equal(pthread_cond_timedwait(&told.changed, &told.lock, &until), 0);
    struct log_commit commit = heard->notices[index];
    (void)pthread_mutex_unlock(&told.lock);
    return commit;
}

static unsigned notices(struct heard *heard) {
    (void)pthread_mutex_lock(&told.lock);
    unsigned count = heard->count;
    (void)pthread_mutex_unlock(&told.lock);
    return count;
}

static void wait_end(struct heard *heard, uint64_t end) {
    struct timespec until = deadline();
    (void)pthread_mutex_lock(&told.lock);
    while (heard->count == 0 || heard->notices[heard->count - 1].end < end)
        assert_int_equal(pthread_cond_timedwait(&told.changed, &told.lock, &until), 0);
    (void)pthread_mutex_unlock(&told.lock);
}

/* Owned by the caller. */
static struct log_read *take_page(void) {
    struct timespec until = deadline();
    (void)pthread_mutex_lock(&told.lock);
    while (told.pages == NULL)
        assert_int_equal(pthread_cond_timedwait(&told.changed, &told.lock, &until), 0);
    struct log_read *read = told.pages;
    told.pages = read->next;
    (void)pthread_mutex_unlock(&told.lock);
    return read;
}

/* ---- a service in a directory ---- */

static char root[64];
static struct log_service *service;
static struct stream_log *logs[2];

static struct log_service_settings settings_of(enum log_sync sync) {
    return (struct log_service_settings){
        .disk = &disk,
        .root = root,
        .log = {.sync = sync,
                .segment_bytes = 1 << 20,
                .index_spacing_bytes = 4096,
                .read_records_max = 1000,
                .set_length_ahead = true},
        .sync_interval_ns = 3600ull * 1000000000,
        .retention_interval_ns = 1000000,
        .threads = 3,
        .read_pages_bytes_max = 1 << 20,
    };
}

static struct log_retention no_bounds;

static struct stream_log *open_log(const char *name, unsigned index, struct felix_error *error) {
    return log_service_open(service, NAMES, slice_str(name), no_bounds, &told.logs[index], error);
}

static void start(const struct log_service_settings *settings) {
    struct felix_error error = {0};
    enum felix_err err = log_service_new(settings, &events, NULL, &service, &error);
    if (err != FELIX_OK)
        fail_msg("%s", error.text);
}

static void start_with_log(enum log_sync sync) {
    struct log_service_settings settings = settings_of(sync);
    start(&settings);
    logs[0] = open_log("a", 0, NULL);
}

static void stop(void) {
    for (unsigned i = 0; i < 2; i++) {
        stream_log_unref(logs[i]);
        logs[i] = NULL;
    }
    log_service_free(service);
    service = NULL;
}

static int fresh(void **) {
    ops = *disk_posix.ops;
    ops.sync = gated_sync;
    ops.pwrite = gated_pwrite;
    memset(told.logs, 0, sizeof told.logs);
    told.page_count = 0;
    no_bounds = (struct log_retention){0};
    (void)strcpy(root, "/tmp/felix-log-service-XXXXXX");
    return mkdtemp(root) == NULL ? -1 : 0;
}

static void remove_tree(const char *path) {
    DIR *directory = opendir(path);
    if (directory == NULL) {
        (void)unlink(path);
        return;
    }
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        char below[1024];
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        (void)snprintf(below, sizeof below, "%s/%s", path, entry->d_name);
        remove_tree(below);
    }
    (void)closedir(directory);
    (void)rmdir(path);
}

static int done(void **) {
    set_full(false);
    fail_syncs(0);
    open_gate();
    stop();
    while (told.pages != NULL) {
        struct log_read *read = take_page();
        buf_unref(read->page.block);
        free(read);
    }
    remove_tree(root);
    return 0;
}

/* One record of `bytes` bytes. */
static void append(unsigned index, uint64_t offset, uint64_t epoch, size_t bytes) {
    struct log_batch *batch = malloc(sizeof *batch);
    struct buf *block = buf_new(8 + bytes);
    buf_share(block);
    memset(block->data, 0, 8 + bytes);
    block->data[3] = 1;
    for (unsigned i = 0; i < 4; i++)
        block->data[4 + i] = (uint8_t)(bytes >> (24 - 8 * i));
    *batch = (struct log_batch){
        .block = block,
        .list = {.bytes = slice_of(block->data, 8 + bytes), .count = 1, .payload_bytes = bytes},
        .base_offset = offset,
        .timestamp_us = 1000 + offset,
        .epoch = epoch};
    log_append(logs[index], batch);
}

static void ask(uint64_t offset, size_t bytes_max) {
    struct log_read *read = malloc(sizeof *read);
    *read = (struct log_read){.log = logs[0], .offset = offset, .bytes_max = bytes_max};
    log_read(read);
}

/* Ask, wait, give back; how many records the page has. */
static uint32_t page_records(uint64_t offset, bool *ret_at_end) {
    ask(offset, 4096);
    struct log_read *read = take_page();
    assert_int_equal(read->err, FELIX_OK);
    uint32_t count = read->page.list.count;
    *ret_at_end = read->at_end;
    if (read->page.block != NULL)
        log_page_done(service, read->page.block->capacity);
    buf_unref(read->page.block);
    free(read);
    return count;
}

static struct stream_log_state state_of(unsigned index) {
    struct stream_log_state state;
    stream_log_state(logs[index], &state);
    return state;
}

static uint64_t count_of(const counter *c) {
    return atomic_load(c);
}

#define COUNT(field) count_of(&log_service_counters(service)->field)

/* ---- commits ---- */

static void what_is_appended_is_told_once_and_in_order(void **) {
    start_with_log(LOG_SYNC_ON_COMMIT);
    for (uint64_t offset = 0; offset < 300; offset++)
        append(0, offset, 1, 100);
    wait_end(&told.logs[0], 300);
    uint64_t before = 0;
    for (unsigned i = 0; i < notices(&told.logs[0]); i++) {
        struct log_commit commit = notice(&told.logs[0], i);
        assert_int_equal(commit.err, FELIX_OK);
        assert_true(commit.flushed && commit.available);
        assert_true(commit.end > before);
        assert_int_equal(commit.epoch, 1);
        before = commit.end;
    }
    assert_int_equal(before, 300);
    assert_int_equal(state_of(0).info.durable_end, 300);
    assert_int_equal(COUNT(records), 300);
    assert_int_equal(COUNT(sync_waiters), 300);
}

static void much_is_written_while_a_flush_runs(void **) {
    start_with_log(LOG_SYNC_ON_COMMIT);
    close_gate();
    append(0, 0, 1, 10);
    wait_entered(1);
    append(0, 1, 1, BIG_BYTES);
    struct timespec pause = {.tv_nsec = 1000000};
    for (unsigned i = 0; state_of(0).info.written_end < 2; i++) {
        assert_true(i < WAIT_S * 1000);
        (void)nanosleep(&pause, NULL);
    }
    assert_int_equal(notices(&told.logs[0]), 0);
    assert_int_equal(state_of(0).info.durable_end, 0);
    open_gate();
    /* The flush that ran covers only what was there when it began. */
    assert_int_equal(notice(&told.logs[0], 0).end, 1);
    assert_int_equal(notice(&told.logs[0], 1).end, 2);
}

static void one_flush_serves_everyone_who_waited(void **) {
    start_with_log(LOG_SYNC_ON_COMMIT);
    close_gate();
    append(0, 0, 1, 10);
    wait_entered(1);
    for (uint64_t offset = 1; offset < 51; offset++)
        append(0, offset, 1, 10);
    open_gate();
    assert_int_equal(notice(&told.logs[0], 0).end, 1);
    assert_int_equal(notice(&told.logs[0], 1).end, 51);
    assert_int_equal(COUNT(syncs), 2);
    assert_int_equal(COUNT(sync_waiters), 51);
}

static void logs_are_flushed_at_the_same_time(void **) {
    start_with_log(LOG_SYNC_ON_COMMIT);
    logs[1] = open_log("b", 1, NULL);
    close_gate();
    append(0, 0, 1, 10);
    append(1, 0, 1, 10);
    wait_entered(2);
    open_gate();
    wait_end(&told.logs[0], 1);
    wait_end(&told.logs[1], 1);
}

static void without_flushes_a_write_is_enough(void **) {
    start_with_log(LOG_SYNC_NONE);
    close_gate();
    append(0, 0, 1, 10);
    struct log_commit commit = notice(&told.logs[0], 0);
    assert_int_equal(commit.end, 1);
    assert_false(commit.flushed);
    assert_int_equal(COUNT(syncs), 0);
    open_gate();
}

static void periodic_flushes_come_when_there_is_something_to_flush(void **) {
    struct log_service_settings settings = settings_of(LOG_SYNC_PERIODIC);
    settings.sync_interval_ns = 10000000;
    start(&settings);
    logs[0] = open_log("a", 0, NULL);
    close_gate();
    append(0, 0, 1, 10);
    wait_end(&told.logs[0], 1);
    wait_entered(1);
    append(0, 1, 1, 10); /* nobody waits for the flush that runs */
    wait_end(&told.logs[0], 2);
    open_gate();
    struct timespec pause = {.tv_nsec = 1000000};
    for (unsigned i = 0; state_of(0).info.durable_end < 2; i++) {
        assert_true(i < WAIT_S * 1000);
        (void)nanosleep(&pause, NULL);
    }
    assert_true(COUNT(syncs) <= 2);
}

/* ---- failures ---- */

static void a_failed_flush_is_final_until_the_log_is_open_again(void **) {
    start_with_log(LOG_SYNC_ON_COMMIT);
    append(0, 0, 1, 10);
    wait_end(&told.logs[0], 1);
    close_gate();
    append(0, 1, 1, 10);
    wait_entered(1);
    append(0, 2, 1, 10);
    fail_syncs(1);
    open_gate();
    struct log_commit failed = notice(&told.logs[0], 1);
    assert_int_equal(failed.err, FELIX_STORAGE);
    assert_int_equal(failed.end, 1);
    assert_int_equal(failed.epoch, 2);
    assert_false(failed.available);
    struct log_commit back = notice(&told.logs[0], 2);
    assert_int_equal(back.err, FELIX_OK);
    assert_int_equal(back.end, 1);
    assert_int_equal(back.epoch, 2);
    assert_true(back.available);
    assert_int_equal(state_of(0).err, FELIX_OK);

    append(0, 2, 1, 10); /* sent before its sender knew */
    append(0, 1, 2, 10);
    struct log_commit next = notice(&told.logs[0], 3);
    assert_int_equal(next.err, FELIX_OK);
    assert_int_equal(next.end, 2);
    assert_int_equal(COUNT(sync_failures), 1);
    assert_int_equal(COUNT(reopens), 1);
    assert_int_equal(COUNT(failed_logs), 0);
}

static void a_log_that_cannot_be_reopened_is_tried_again_later(void **) {
    start_with_log(LOG_SYNC_ON_COMMIT);
    logs[1] = open_log("b", 1, NULL);
    close_gate();
    append(0, 0, 1, 10);
    wait_entered(1);
    fail_syncs(2);
    open_gate();
    assert_false(notice(&told.logs[0], 0).available);
    assert_int_equal(state_of(0).err, FELIX_STORAGE);
    assert_int_equal(COUNT(failed_logs), 1);
    append(0, 0, 2, 10); /* against the rule, but it is answered */
    struct log_commit again = notice(&told.logs[0], 1);
    assert_false(again.available);
    assert_int_equal(again.epoch, 3);
    append(1, 0, 1, 10); /* the other one goes on */
    wait_end(&told.logs[1], 1);
    struct log_commit back = notice(&told.logs[0], 2);
    assert_true(back.available);
    assert_int_equal(back.end, 0);
    append(0, 0, 3, 10);
    assert_int_equal(notice(&told.logs[0], 3).end, 1);
}

static void a_full_disk_refuses_and_takes_again_when_there_is_room(void **) {
    start_with_log(LOG_SYNC_ON_COMMIT);
    append(0, 0, 1, 10);
    wait_end(&told.logs[0], 1);
    set_full(true);
    append(0, 1, 1, 10);
    struct log_commit refused = notice(&told.logs[0], 1);
    assert_int_equal(refused.err, FELIX_DISK_FULL);
    assert_int_equal(refused.end, 1);
    assert_int_equal(refused.epoch, 2);
    assert_true(refused.available);
    append(0, 1, 2, 10);
    assert_int_equal(notice(&told.logs[0], 2).epoch, 3);
    set_full(false);
    append(0, 1, 3, 10);
    struct log_commit taken = notice(&told.logs[0], 3);
    assert_int_equal(taken.err, FELIX_OK);
    assert_int_equal(taken.end, 2);
    assert_int_equal(COUNT(disk_full), 2);
}

static void what_was_written_before_the_disk_was_full_is_committed_first(void **) {
    start_with_log(LOG_SYNC_ON_COMMIT);
    close_gate();
    append(0, 0, 1, 10);
    wait_entered(1);
    append(0, 1, 1, BIG_BYTES);
    struct timespec pause = {.tv_nsec = 1000000};
    for (unsigned i = 0; state_of(0).info.written_end < 2; i++) {
        assert_true(i < WAIT_S * 1000);
        (void)nanosleep(&pause, NULL);
    }
    set_full(true);
    append(0, 2, 1, BIG_BYTES);
    open_gate();
    assert_int_equal(notice(&told.logs[0], 0).end, 1);
    unsigned at = 1;
    struct log_commit commit = notice(&told.logs[0], at);
    while (commit.err == FELIX_OK)
        commit = notice(&told.logs[0], ++at);
    assert_int_equal(commit.err, FELIX_DISK_FULL);
    assert_int_equal(commit.end, 2);
    assert_true(commit.flushed);
    assert_int_equal(state_of(0).info.durable_end, 2);
}

static void a_damaged_log_keeps_nobody_else_from_serving(void **) {
    start_with_log(LOG_SYNC_ON_COMMIT);
    append(0, 0, 1, 10);
    wait_end(&told.logs[0], 1);
    stop();
    char dir[LOG_DIR_NAME_BYTES], path[1024];
    record_log_dir_name(NAMES, slice_str("a"), 0, dir);
    (void)snprintf(path, sizeof path, "%s/%s/%020u.log", root, dir, 0);
    FILE *file = fopen(path, "r+");
    assert_non_null(file);
    assert_int_equal(fwrite("XXXX", 1, 4, file), 4); /* the magic of the segment */
    (void)fclose(file);

    struct log_service_settings settings = settings_of(LOG_SYNC_ON_COMMIT);
    struct felix_error error = {0};
    start(&settings);
    logs[0] = open_log("a", 0, &error);
    logs[1] = open_log("b", 1, NULL);
    assert_int_equal(state_of(0).err, FELIX_DAMAGED);
    assert_non_null(strstr(error.text, "t/n/a"));
    assert_string_equal(state_of(0).text, error.text);
    assert_int_equal(COUNT(failed_logs), 1);
    ask(0, 4096);
    struct log_read *read = take_page();
    assert_int_equal(read->err, FELIX_DAMAGED);
    free(read);
    append(1, 0, 1, 10);
    wait_end(&told.logs[1], 1);
}

/* ---- pages ---- */

static void readers_see_what_is_committed_and_nothing_else(void **) {
    bool at_end;
    start_with_log(LOG_SYNC_ON_COMMIT);
    close_gate();
    append(0, 0, 1, 10);
    wait_entered(1);
    assert_int_equal(page_records(0, &at_end), 0);
    assert_true(at_end);
    open_gate();
    wait_end(&told.logs[0], 1);
    for (uint64_t offset = 1; offset < 20; offset++)
        append(0, offset, 1, 1000);
    wait_end(&told.logs[0], 20);
    uint64_t next = 0;
    do
        next += page_records(next, &at_end);
    while (!at_end);
    assert_int_equal(next, 20);
    assert_int_equal(COUNT(page_records), 20);
}

static void a_page_waits_until_memory_is_given_back(void **) {
    struct log_service_settings settings = settings_of(LOG_SYNC_ON_COMMIT);
    settings.read_pages_bytes_max = 20000;
    start(&settings);
    logs[0] = open_log("a", 0, NULL);
    for (uint64_t offset = 0; offset < 3; offset++)
        append(0, offset, 1, 15000);
    wait_end(&told.logs[0], 3);
    for (uint64_t offset = 0; offset < 3; offset++)
        ask(offset, 10000);
    for (unsigned i = 0; i < 3; i++) {
        struct log_read *read = take_page();
        assert_int_equal(read->err, FELIX_OK);
        assert_int_equal(read->offset, i);
        (void)pthread_mutex_lock(&told.lock);
        assert_int_equal(told.page_count, i + 1);
        (void)pthread_mutex_unlock(&told.lock);
        log_page_done(service, read->page.block->capacity);
        buf_unref(read->page.block);
        free(read);
    }
}

static void pages_that_wait_are_answered_when_the_service_ends(void **) {
    struct log_service_settings settings = settings_of(LOG_SYNC_ON_COMMIT);
    settings.read_pages_bytes_max = 1;
    start(&settings);
    logs[0] = open_log("a", 0, NULL);
    append(0, 0, 1, 10);
    wait_end(&told.logs[0], 1);
    ask(0, 4096);
    ask(0, 4096);
    struct log_read *read = take_page();
    assert_int_equal(read->err, FELIX_OK);
    buf_unref(read->page.block);
    free(read);
    stop();
    read = take_page();
    assert_int_equal(read->err, FELIX_CLOSED);
    free(read);
}

/* ---- opening and closing ---- */

static void the_end_writes_and_flushes_everything(void **) {
    start_with_log(LOG_SYNC_PERIODIC);
    for (uint64_t offset = 0; offset < 100; offset++)
        append(0, offset, 1, 100);
    /* With the reference held: the service closes it. */
    log_service_free(service);
    stream_log_unref(logs[0]);
    logs[0] = NULL;
    service = NULL;
    assert_int_equal(notice(&told.logs[0], notices(&told.logs[0]) - 1).end, 100);
    start_with_log(LOG_SYNC_PERIODIC);
    assert_int_equal(state_of(0).info.durable_end, 100);
}

static void a_log_let_go_is_written_before_it_is_opened_again(void **) {
    start_with_log(LOG_SYNC_ON_COMMIT);
    for (uint64_t offset = 0; offset < 100; offset++)
        append(0, offset, 1, 100);
    stream_log_unref(logs[0]);
    logs[0] = open_log("a", 1, NULL);
    assert_int_equal(state_of(0).info.durable_end, 100);
    append(0, 100, 1, 10);
    wait_end(&told.logs[1], 101);
}

static void a_directory_serves_one_service_at_a_time(void **) {
    struct log_service *other = NULL;
    struct felix_error error = {0};
    start_with_log(LOG_SYNC_ON_COMMIT);
    struct log_service_settings settings = settings_of(LOG_SYNC_ON_COMMIT);
    assert_int_equal(log_service_new(&settings, &events, NULL, &other, &error), FELIX_EXISTS);
    assert_non_null(strstr(error.text, root));
    stop();
    start(&settings);
}

/* Entries of the root besides the lock. */
static unsigned entries(void) {
    DIR *directory = opendir(root);
    unsigned count = 0;
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;)
        count += entry->d_name[0] != '.' && strcmp(entry->d_name, "lock") != 0;
    (void)closedir(directory);
    return count;
}

static void a_purged_log_leaves_nothing(void **) {
    start_with_log(LOG_SYNC_ON_COMMIT);
    append(0, 0, 1, 10);
    wait_end(&told.logs[0], 1);
    assert_int_equal(entries(), 1);
    stream_log_purge(logs[0]);
    stream_log_unref(logs[0]);
    logs[0] = open_log("a", 0, NULL);
    assert_int_equal(state_of(0).info.durable_end, 0);
    stream_log_purge(logs[0]);
    stop();
    assert_int_equal(entries(), 0);
}

static void an_interrupted_purge_is_finished_at_the_next_start(void **) {
    char path[1024];
    start_with_log(LOG_SYNC_ON_COMMIT);
    stop();
    char dir[LOG_DIR_NAME_BYTES], renamed[1100];
    record_log_dir_name(NAMES, slice_str("a"), 0, dir);
    (void)snprintf(path, sizeof path, "%s/%s", root, dir);
    (void)snprintf(renamed, sizeof renamed, "%s.removed-0", path);
    assert_int_equal(rename(path, renamed), 0);
    struct log_service_settings settings = settings_of(LOG_SYNC_ON_COMMIT);
    start(&settings);
    assert_int_equal(entries(), 0);
}

/* Twenty records in as many segments of about 3000 bytes, long ago. */
static void start_with_segments(void) {
    struct log_service_settings settings = settings_of(LOG_SYNC_ON_COMMIT);
    settings.log.segment_bytes = 4096;
    start(&settings);
    logs[0] = open_log("a", 0, NULL);
    for (uint64_t offset = 0; offset < 20; offset++)
        append(0, offset, 1, 3000);
    wait_end(&told.logs[0], 20);
}

static void wait_bytes(uint64_t bytes_max) {
    struct timespec pause = {.tv_nsec = 1000000};
    for (unsigned i = 0; state_of(0).info.bytes > bytes_max; i++) {
        assert_true(i < WAIT_S * 1000);
        (void)nanosleep(&pause, NULL);
    }
}

static void old_segments_are_removed_beyond_the_bound_of_the_stream(void **) {
    no_bounds.bytes = 10000;
    start_with_segments();
    wait_bytes(10000);
    assert_true(state_of(0).info.oldest > 10);
    ask(0, 4096);
    struct log_read *read = take_page();
    assert_int_equal(read->err, FELIX_CURSOR_TOO_OLD);
    assert_int_equal(read->available, state_of(0).info.oldest);
    free(read);
}

static void wait_segments(uint32_t count) {
    struct timespec pause = {.tv_nsec = 1000000};
    for (unsigned i = 0; state_of(0).info.segments != count; i++) {
        assert_true(i < WAIT_S * 1000);
        (void)nanosleep(&pause, NULL);
    }
}

/* The looks that follow the last write come while its flush still runs. */
static void what_could_not_go_before_it_was_flushed_goes_afterwards(void **) {
    struct log_service_settings settings = settings_of(LOG_SYNC_ON_COMMIT);
    struct timespec pause = {.tv_nsec = 1000000};
    settings.log.segment_bytes = 4096;
    no_bounds.bytes = 10000;
    start(&settings);
    logs[0] = open_log("a", 0, NULL);
    close_gate();
    append(0, 0, 1, 3000);
    wait_entered(1);
    append(0, 1, 1, BIG_BYTES);
    wait_segments(2);
    for (unsigned i = 0; i < 40; i++) {
        assert_int_equal(state_of(0).info.oldest, 0);
        (void)nanosleep(&pause, NULL);
    }
    open_gate();
    wait_end(&told.logs[0], 2);
    wait_segments(1);
    assert_int_equal(state_of(0).info.oldest, 1);
}

static void a_bound_that_comes_later_counts_for_what_is_there(void **) {
    start_with_segments();
    assert_int_equal(state_of(0).info.oldest, 0);
    stream_log_set_retention(logs[0], (struct log_retention){.bytes = 10000});
    wait_bytes(10000);
    assert_true(state_of(0).info.oldest > 10);
    stream_log_set_retention(logs[0], (struct log_retention){.bytes = 5000});
    wait_bytes(5000);
}

/* Wait until the next look at the bounds of a log is an hour away at least. */
static void wait_far_look(struct stream_log *log) {
    struct timespec pause = {.tv_nsec = 1000000};
    for (unsigned i = 0;; i++) {
        (void)pthread_mutex_lock(&service->lock);
        uint64_t due_ns = log->due_ns[LOG_DUE_RETAIN];
        (void)pthread_mutex_unlock(&service->lock);
        if (due_ns != LOG_NEVER && due_ns > clock_now_ns() + 3600 * NS_PER_S)
            return;
        assert_true(i < WAIT_S * 1000);
        (void)nanosleep(&pause, NULL);
    }
}

/* The look that waits for the first age comes earlier with the second. */
static void a_shorter_age_does_not_wait_for_the_longer_one(void **) {
    no_bounds.seconds = (uint64_t)1 << 40;
    start_with_segments();
    wait_far_look(logs[0]);
    assert_int_equal(state_of(0).info.oldest, 0);
    stream_log_set_retention(logs[0], (struct log_retention){.seconds = 3600});
    wait_bytes(4000);
    assert_int_equal(state_of(0).info.oldest, 19);
}

/* The log goes on with the service's bounds, and with none it keeps what comes. */
static void without_a_bound_of_its_own_the_service_s_counts(void **) {
    no_bounds.bytes = 10000;
    start_with_segments();
    wait_bytes(10000);
    stream_log_set_retention(logs[0], (struct log_retention){0});
    uint64_t oldest = state_of(0).info.oldest;
    for (uint64_t offset = 20; offset < 40; offset++)
        append(0, offset, 1, 3000);
    wait_end(&told.logs[0], 40);
    stop();
    no_bounds.bytes = 0;
    start_with_log(LOG_SYNC_ON_COMMIT);
    assert_int_equal(state_of(0).info.oldest, oldest);
}

#define SERVICE_TEST(name) cmocka_unit_test_setup_teardown(name, fresh, done)

int main(void) {
    const struct CMUnitTest tests[] = {
        SERVICE_TEST(what_is_appended_is_told_once_and_in_order),
        SERVICE_TEST(much_is_written_while_a_flush_runs),
        SERVICE_TEST(one_flush_serves_everyone_who_waited),
        SERVICE_TEST(logs_are_flushed_at_the_same_time),
        SERVICE_TEST(without_flushes_a_write_is_enough),
        SERVICE_TEST(periodic_flushes_come_when_there_is_something_to_flush),
        SERVICE_TEST(a_failed_flush_is_final_until_the_log_is_open_again),
        SERVICE_TEST(a_log_that_cannot_be_reopened_is_tried_again_later),
        SERVICE_TEST(a_full_disk_refuses_and_takes_again_when_there_is_room),
        SERVICE_TEST(what_was_written_before_the_disk_was_full_is_committed_first),
        SERVICE_TEST(a_damaged_log_keeps_nobody_else_from_serving),
        SERVICE_TEST(readers_see_what_is_committed_and_nothing_else),
        SERVICE_TEST(a_page_waits_until_memory_is_given_back),
        SERVICE_TEST(pages_that_wait_are_answered_when_the_service_ends),
        SERVICE_TEST(the_end_writes_and_flushes_everything),
        SERVICE_TEST(a_log_let_go_is_written_before_it_is_opened_again),
        SERVICE_TEST(a_directory_serves_one_service_at_a_time),
        SERVICE_TEST(a_purged_log_leaves_nothing),
        SERVICE_TEST(an_interrupted_purge_is_finished_at_the_next_start),
        SERVICE_TEST(old_segments_are_removed_beyond_the_bound_of_the_stream),
        SERVICE_TEST(what_could_not_go_before_it_was_flushed_goes_afterwards),
        SERVICE_TEST(a_bound_that_comes_later_counts_for_what_is_there),
        SERVICE_TEST(a_shorter_age_does_not_wait_for_the_longer_one),
        SERVICE_TEST(without_a_bound_of_its_own_the_service_s_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
