/*
 * Everything that can fail does so once: each call of the disk with each error, each allocation.
 * What was acknowledged is there afterwards, what is read is right, and the log goes on.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "storage/record_log.h"
#include "support/log_driver.h"
#include "support/memory_disk.h"

#define DIR "/log"
#define BATCHES 14u
#define BATCH_RECORDS 4u

/* Which call fails, and how. */
static struct {
    unsigned long countdown; /* 0: none any more */
    int error;               /* 0: it does half of what it was asked for */
    bool happened;
    bool hidden; /* to a transfer, which the log was to go on with */
} fault;

static struct memory_disk memory;
static struct disk inner; /* what works */

/* The nth allocation fails; see meson.build, which wraps them. */
static unsigned long allocations_left;
static bool allocation_failed;

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *old, size_t bytes);
char *__real_strdup(const char *text);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *old, size_t bytes);
char *__wrap_strdup(const char *text);

static bool allocation_fails(void) {
    if (allocations_left == 0 || --allocations_left != 0)
        return false;
    allocation_failed = true;
    return true;
}

void *__wrap_malloc(size_t bytes) {
    return allocation_fails() ? NULL : __real_malloc(bytes);
}

void *__wrap_calloc(size_t count, size_t bytes) {
    return allocation_fails() ? NULL : __real_calloc(count, bytes);
}

void *__wrap_realloc(void *old, size_t bytes) {
    return allocation_fails() ? NULL : __real_realloc(old, bytes);
}

char *__wrap_strdup(const char *text) {
    return allocation_fails() ? NULL : __real_strdup(text);
}

/* The disk itself must not fail for want of memory. */
static unsigned long hold_allocations(void) {
    unsigned long held = allocations_left;
    allocations_left = 0;
    return held;
}

/* Returns the error to fail with; 0: go on; 1: do half. */
static int next_call(void) {
    if (fault.countdown == 0 || --fault.countdown != 0)
        return 0;
    fault.happened = true;
    return fault.error != 0 ? fault.error : 1;
}

#define FAIL_IF_TOLD(call)                                                                         \
    int told = next_call();                                                                        \
    if (told < 0)                                                                                  \
        return told;                                                                               \
    unsigned long held = hold_allocations();                                                       \
    int result = (call);                                                                           \
    allocations_left = held;                                                                       \
    return result

static int f_open(void *context, const char *path, enum disk_open how) {
    FAIL_IF_TOLD(inner.ops->open(inner.context, path, how));
}

static int f_close(void *context, int file) {
    return inner.ops->close(inner.context, file);
}

static ssize_t f_pread(void *context, int file, void *data, size_t bytes, uint64_t at) {
    int told = next_call();
    fault.hidden |= told == 1 || told == -EINTR;
    if (told < 0)
        return told;
    size_t part = told == 1 && bytes > 1 ? bytes / 2 : bytes;
    return inner.ops->pread(inner.context, file, data, part, at);
}

static ssize_t f_pwrite(void *context, int file, const void *data, size_t bytes, uint64_t at) {
    int told = next_call();
    fault.hidden |= told == 1 || told == -EINTR;
    size_t part = told != 0 && bytes > 1 ? bytes / 2 : bytes;
    /* One that fails may have written something. */
    unsigned long held = hold_allocations();
    ssize_t put = inner.ops->pwrite(inner.context, file, data, part, at);
    allocations_left = held;
    return told < 0 ? told : put;
}

static int f_truncate(void *context, int file, uint64_t bytes) {
    FAIL_IF_TOLD(inner.ops->truncate(inner.context, file, bytes));
}

/* What another thread does while a flush runs. */
static void (*during_sync)(void);

static int f_sync(void *context, int file) {
    if (during_sync != NULL)
        during_sync();
    FAIL_IF_TOLD(inner.ops->sync(inner.context, file));
}

static int f_size(void *context, int file, uint64_t *ret_bytes) {
    FAIL_IF_TOLD(inner.ops->size(inner.context, file, ret_bytes));
}

static void f_advise(void *context, int file, uint64_t at, uint64_t bytes, bool drop) {
}

static int f_lock(void *context, int file) {
    return inner.ops->lock(inner.context, file);
}

static int f_make_dir(void *context, const char *path) {
    FAIL_IF_TOLD(inner.ops->make_dir(inner.context, path));
}

static int f_sync_dir(void *context, const char *path) {
    FAIL_IF_TOLD(inner.ops->sync_dir(inner.context, path));
}

static char names[64][64];
static unsigned name_count;

static void collect(void *user, const char *name) {
    assert_in_range(name_count, 0, 63);
    (void)snprintf(names[name_count++], sizeof names[0], "%s", name);
}

static int list_names(const char *path) {
    name_count = 0;
    FAIL_IF_TOLD(inner.ops->list(inner.context, path, collect, NULL));
}

static int f_list(void *context, const char *path, void (*on_name)(void *user, const char *name),
                  void *user) {
    int err = list_names(path);
    for (unsigned i = 0; err == 0 && i < name_count; i++)
        on_name(user, names[i]);
    return err;
}

static int f_rename(void *context, const char *from, const char *to) {
    FAIL_IF_TOLD(inner.ops->rename(inner.context, from, to));
}

static int f_remove(void *context, const char *path) {
    FAIL_IF_TOLD(inner.ops->remove(inner.context, path));
}

static int f_remove_dir(void *context, const char *path) {
    return inner.ops->remove_dir(inner.context, path);
}

static const struct disk_ops fault_ops = {
    .open = f_open,
    .close = f_close,
    .pread = f_pread,
    .pwrite = f_pwrite,
    .truncate = f_truncate,
    .sync = f_sync,
    .size = f_size,
    .advise = f_advise,
    .lock = f_lock,
    .make_dir = f_make_dir,
    .sync_dir = f_sync_dir,
    .list = f_list,
    .rename = f_rename,
    .remove = f_remove,
    .remove_dir = f_remove_dir,
};
static const struct disk faulty = {.ops = &fault_ops};

static struct record_log_settings settings_of(enum log_sync sync) {
    struct record_log_settings settings = log_test_settings(sync);
    settings.segment_bytes = 1024;
    settings.retention_bytes = 6000;
    return settings;
}

/* What the workload was promised. */
struct promise {
    uint64_t acknowledged, oldest;
};

static struct record_log *open_faulty(enum log_sync sync, enum felix_err *ret) {
    struct record_log_settings settings = settings_of(sync);
    struct record_log *log = NULL;
    struct felix_error error;
    *ret = record_log_open(&faulty, DIR, "t/n/s", &settings, &log, NULL, &error);
    if (*ret != FELIX_OK)
        assert_true(*ret == FELIX_STORAGE || *ret == FELIX_DISK_FULL || *ret == FELIX_NO_MEMORY);
    return log;
}

/* A failed log is reopened, at the second try at the latest: things fail only once. */
static void recover_if_failed(struct record_log *log, const struct promise *promise) {
    if (log_test_info(log).failed && record_log_reopen(log, NULL) != FELIX_OK)
        assert_int_equal(record_log_reopen(log, NULL), FELIX_OK);
    struct record_log_info info = log_test_info(log);
    assert_false(info.failed);
    assert_true(info.written_end >= promise->acknowledged);
}

/* A page from anywhere: what is read is right, or the disk is named as the reason. */
static void read_page(struct record_log *log, uint64_t pick) {
    struct record_log_info info = log_test_info(log);
    uint64_t from = info.oldest + pick % (info.committed_end - info.oldest + 1);
    struct log_page page;
    uint64_t available;
    enum felix_err err = record_log_read(log, from, 300, &page, &available, NULL);
    if (err != FELIX_OK) {
        assert_true(fault.happened && !fault.hidden);
        assert_int_equal(err, fault.error == -ENOSPC ? FELIX_DISK_FULL : FELIX_STORAGE);
        log_test_expect(log, from, info.committed_end, 300);
        return;
    }
    assert_true(page.first == from && (page.list.count > 0 || from == info.committed_end));
    struct payload_cursor cursor = payload_walk(&page.list);
    struct slice payload;
    for (uint64_t i = 0; payload_next(&cursor, &payload); i++) {
        uint8_t expected[128];
        log_test_fill(from + i, expected, payload.len);
        assert_memory_equal(payload.data, expected, payload.len);
    }
    buf_unref(page.block);
}

static void put_batch(struct record_log *log, struct promise *promise) {
    uint64_t offset = log_test_info(log).written_end;
    /* The driver's own list is not what is tested: it makes one allocation. */
    allocations_left += allocations_left != 0;
    enum felix_err err = log_test_append(log, offset, BATCH_RECORDS, 40 + offset % 50, 5);
    if (err == FELIX_OK)
        err = record_log_write(log, NULL);
    if (err == FELIX_OK)
        err = record_log_sync(log, NULL);
    if (err == FELIX_OK)
        promise->acknowledged = offset + BATCH_RECORDS;
    else
        recover_if_failed(log, promise);
}

static void work(enum log_sync sync, struct promise *promise) {
    enum felix_err err;
    for (unsigned round = 0; round < 2; round++) {
        struct record_log *log = open_faulty(sync, &err);
        if (log == NULL)
            log = open_faulty(sync, &err);
        assert_int_equal(err, FELIX_OK);
        assert_true(log_test_info(log).written_end >= promise->acknowledged);
        for (unsigned i = 0; i < BATCHES; i++) {
            put_batch(log, promise);
            enum felix_err retained = record_log_retain(log, 100, NULL, NULL);
            (void)retained;
            promise->oldest = log_test_info(log).oldest;
            /* A page in memory that is not there ends the process (base/check.h). */
            if (allocations_left == 0)
                read_page(log, i * 7);
        }
        if (round == 0)
            record_log_abandon(log);
        else if (record_log_close(log) != FELIX_OK)
            assert_true(fault.happened || allocation_failed);
    }
}

static void check_what_is_left(enum log_sync sync, const struct promise *promise) {
    struct record_log_settings settings = settings_of(sync);
    struct record_log *log = NULL;
    struct felix_error error = {.text = ""};
    if (record_log_open(&inner, DIR, "t/n/s", &settings, &log, NULL, &error) != FELIX_OK)
        fail_msg("%s", error.text);
    struct record_log_info info = log_test_info(log);
    assert_true(info.oldest <= promise->oldest);
    assert_true(info.written_end >= promise->acknowledged);
    assert_int_equal(info.damage_count, 0);
    log_test_expect(log, info.oldest, info.written_end, 300);
    record_log_abandon(log);
}

static void each_call(enum log_sync sync, int error) {
    for (unsigned long n = 1;; n++) {
        struct promise promise = {0};
        memory_disk_reset(&memory);
        fault.countdown = n;
        fault.error = error;
        fault.happened = fault.hidden = false;
        work(sync, &promise);
        bool happened = fault.happened;
        fault.countdown = 0;
        /* Transfers that are cut short or interrupted are nobody's business. */
        if (fault.hidden)
            assert_int_equal(promise.acknowledged, 2 * BATCHES * BATCH_RECORDS);
        check_what_is_left(sync, &promise);
        assert_int_equal(memory_disk_open_handles(&memory), 0);
        if (!happened) {
            assert_true(n > 200);
            return;
        }
    }
}

static void each_call_fails_once_with_eio(void **state) {
    (void)state;
    each_call(LOG_SYNC_ON_COMMIT, -EIO);
    each_call(LOG_SYNC_PERIODIC, -EIO);
}

static void each_call_fails_once_with_enospc(void **state) {
    (void)state;
    each_call(LOG_SYNC_ON_COMMIT, -ENOSPC);
}

static void each_call_is_interrupted_once(void **state) {
    (void)state;
    each_call(LOG_SYNC_ON_COMMIT, -EINTR);
}

static void each_write_and_read_is_short_once(void **state) {
    (void)state;
    each_call(LOG_SYNC_ON_COMMIT, 0);
}

static void each_allocation_fails_once(void **state) {
    (void)state;
    for (unsigned long n = 1;; n++) {
        struct promise promise = {0};
        memory_disk_reset(&memory);
        allocation_failed = false;
        allocations_left = n;
        work(LOG_SYNC_ON_COMMIT, &promise);
        allocations_left = 0;
        check_what_is_left(LOG_SYNC_ON_COMMIT, &promise);
        if (!allocation_failed) {
            assert_true(n > 30);
            return;
        }
    }
}

/* The next sync of a file fails; by the order of calls it is the next one of all. */
static struct record_log *with_a_failed_flush(enum log_sync sync) {
    enum felix_err err;
    memory_disk_reset(&memory);
    fault.countdown = 0;
    struct record_log *log = open_faulty(sync, &err);
    log_test_put(log, 0, 4, 100);
    /* Over two segments, so that more than the end of one has to go. */
    for (uint64_t offset = 4; offset < 12; offset += 4) {
        assert_int_equal(log_test_append(log, offset, 4, 100, 5), FELIX_OK);
        assert_int_equal(record_log_write(log, NULL), FELIX_OK);
    }
    fault.countdown = 1;
    fault.error = -EIO;
    struct felix_error error = {.text = ""};
    assert_int_equal(record_log_sync(log, &error), FELIX_STORAGE);
    assert_non_null(strstr(error.text, "cannot flush /log/"));
    return log;
}

static void after_a_failed_flush_nothing_is_taken_or_flushed(void **state) {
    (void)state;
    struct record_log *log = with_a_failed_flush(LOG_SYNC_ON_COMMIT);
    struct record_log_info info = log_test_info(log);
    assert_true(info.failed);
    assert_int_equal(info.durable_end, 4);
    assert_int_equal(record_log_sync(log, NULL), FELIX_STORAGE);
    assert_int_equal(log_test_append(log, 12, 1, 100, 5), FELIX_STORAGE);
    assert_int_equal(log_test_info(log).durable_end, 4);
    log_test_expect(log, 0, 4, 1000);
    record_log_abandon(log);
}

static void reopening_goes_back_to_what_was_flushed(void **state) {
    (void)state;
    struct record_log *log = with_a_failed_flush(LOG_SYNC_ON_COMMIT);
    assert_true(log_test_info(log).segments > 1);
    assert_int_equal(record_log_reopen(log, NULL), FELIX_OK);
    struct record_log_info info = log_test_info(log);
    assert_false(info.failed);
    assert_int_equal(info.written_end, 4);
    assert_int_equal(info.durable_end, 4);
    assert_int_equal(info.segments, 1);
    log_test_put(log, 4, 40, 60);
    log_test_expect(log, 0, 44, 1000);
    record_log_abandon(log);
    struct promise promise = {.acknowledged = 44};
    check_what_is_left(LOG_SYNC_ON_COMMIT, &promise);
}

static void a_reader_goes_on_at_the_new_end_after_reopening(void **state) {
    (void)state;
    struct record_log *log = with_a_failed_flush(LOG_SYNC_PERIODIC);
    log_test_expect(log, 0, 12, 1000);
    assert_int_equal(record_log_reopen(log, NULL), FELIX_OK);
    struct log_page page;
    uint64_t available = 0;
    struct felix_error error;
    assert_int_equal(record_log_read(log, 12, 100, &page, &available, &error),
                     FELIX_CURSOR_IN_FUTURE);
    assert_int_equal(available, 4);
    /* Other records of the same offsets, in other places: no old hint may be followed. */
    log_test_put(log, 4, 30, 37);
    log_test_expect(log, 12, 34, 1000);
    record_log_abandon(log);
}

static struct record_log *written_meanwhile;

static void write_more(void) {
    during_sync = NULL;
    uint64_t offset = log_test_info(written_meanwhile).written_end;
    assert_int_equal(log_test_append(written_meanwhile, offset, 20, 100, 5), FELIX_OK);
    assert_int_equal(record_log_write(written_meanwhile, NULL), FELIX_OK);
}

static void a_flush_covers_what_was_written_when_it_began(void **state) {
    (void)state;
    enum felix_err err;
    memory_disk_reset(&memory);
    fault.countdown = 0;
    struct record_log *log = open_faulty(LOG_SYNC_ON_COMMIT, &err);
    for (uint64_t end = 4; end < 100; end += 24) {
        assert_int_equal(log_test_append(log, end - 4, 4, 100, 5), FELIX_OK);
        assert_int_equal(record_log_write(log, NULL), FELIX_OK);
        written_meanwhile = log;
        during_sync = write_more;
        assert_int_equal(record_log_sync(log, NULL), FELIX_OK);
        assert_int_equal(log_test_info(log).durable_end, end);
        assert_int_equal(log_test_info(log).written_end, end + 20);
        assert_int_equal(record_log_sync(log, NULL), FELIX_OK);
        assert_int_equal(log_test_info(log).durable_end, end + 20);
    }
    record_log_abandon(log);
}

static void reopening_forgets_damage_in_what_it_cuts(void **state) {
    (void)state;
    struct record_log *log = with_a_failed_flush(LOG_SYNC_PERIODIC);
    const struct record_log_info info = log_test_info(log);
    struct memory_file *file = memory_disk_find(&memory, "/log/00000000000000000001.log");
    memory_file_write(file, slice_str("XX"), 32 + 128 + 40);
    struct log_page page;
    uint64_t available;
    assert_int_equal(record_log_read(log, 5, 100, &page, &available, NULL), FELIX_DAMAGED);
    assert_int_equal(record_log_reopen(log, NULL), FELIX_OK);
    assert_int_equal(log_test_info(log).damage_count, 0);
    log_test_put(log, 4, (uint32_t)(info.written_end - 4), 100);
    log_test_expect(log, 0, info.written_end, 1000);
    record_log_abandon(log);
}

static void what_a_failed_write_left_is_zeros_again(void **state) {
    (void)state;
    enum felix_err err;
    memory_disk_reset(&memory);
    fault.countdown = 0;
    struct record_log *log = open_faulty(LOG_SYNC_ON_COMMIT, &err);
    log_test_put(log, 0, 2, 100);
    assert_int_equal(log_test_append(log, 2, 4, 100, 5), FELIX_OK);
    fault.countdown = 1;
    fault.error = -ENOSPC;
    struct felix_error error = {.text = ""};
    assert_int_equal(record_log_write(log, &error), FELIX_DISK_FULL);
    assert_non_null(strstr(error.text, "cannot write /log/00000000000000000000.log: "));
    struct record_log_info info = log_test_info(log);
    assert_false(info.failed);
    assert_int_equal(info.written_end, 2);
    log_test_put(log, 2, 1, 10);
    record_log_abandon(log);
    const struct memory_file *file = memory_disk_find(&memory, "/log/00000000000000000000.log");
    uint8_t rest[400], zeros[400] = {0};
    memory_file_read(file, rest, sizeof rest, 32 + 2 * 128 + 38);
    assert_memory_equal(rest, zeros, sizeof rest);
}

static int setup(void **state) {
    (void)state;
    memory_disk_init(&memory);
    inner = memory_disk_table(&memory);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    memory_disk_deinit(&memory);
    return 0;
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(each_call_fails_once_with_eio),
        TEST(each_call_fails_once_with_enospc),
        TEST(each_call_is_interrupted_once),
        TEST(each_write_and_read_is_short_once),
        TEST(each_allocation_fails_once),
        TEST(after_a_failed_flush_nothing_is_taken_or_flushed),
        TEST(reopening_goes_back_to_what_was_flushed),
        TEST(a_reader_goes_on_at_the_new_end_after_reopening),
        TEST(a_flush_covers_what_was_written_when_it_began),
        TEST(reopening_forgets_damage_in_what_it_cuts),
        TEST(what_a_failed_write_left_is_zeros_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
