#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "storage/record_log.h"
#include "support/log_driver.h"
#include "support/memory_disk.h"

#define DIR "/log"

static struct memory_disk memory;
static struct disk disk;

static int setup(void **state) {
    (void)state;
    memory_disk_init(&memory);
    disk = memory_disk_table(&memory);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    size_t open = memory_disk_open_handles(&memory);
    memory_disk_deinit(&memory);
    return open == 0 ? 0 : -1;
}

static struct record_log *open_with(const struct record_log_settings *settings,
                                    struct log_recovery *report) {
    struct record_log *log = NULL;
    struct felix_error error = {.text = ""};
    if (record_log_open(&disk, DIR, "t/n/s", settings, &log, report, &error) != FELIX_OK)
        fail_msg("%s", error.text);
    return log;
}

static struct record_log *open_log(enum log_sync sync) {
    struct record_log_settings settings = log_test_settings(sync);
    return open_with(&settings, NULL);
}

static void a_new_log_is_empty_and_begins_at_zero(void **state) {
    (void)state;
    struct record_log *log = open_log(LOG_SYNC_ON_COMMIT);
    struct record_log_info info = log_test_info(log);
    assert_int_equal(info.oldest, 0);
    assert_int_equal(info.written_end, 0);
    assert_int_equal(info.segments, 1);
    struct log_page page;
    uint64_t available;
    assert_int_equal(record_log_read(log, 0, 100, &page, &available, NULL), FELIX_OK);
    assert_int_equal(page.list.count, 0);
    assert_null(page.block);
    assert_int_equal(record_log_close(log), FELIX_OK);
}

static void what_was_appended_is_read_over_segments(void **state) {
    (void)state;
    struct record_log *log = open_log(LOG_SYNC_ON_COMMIT);
    for (uint64_t offset = 0; offset < 200; offset += 4)
        log_test_put(log, offset, 4, 100 + offset % 7);
    struct record_log_info info = log_test_info(log);
    assert_int_equal(info.durable_end, 200);
    assert_in_range(info.segments, 5, 9);
    assert_int_equal(info.appended_records, 200);
    log_test_expect(log, 0, 200, 1000);
    log_test_expect(log, 0, 200, 1);
    log_test_expect(log, 77, 200, 1 << 20);
    assert_int_equal(record_log_close(log), FELIX_OK);
}

static void under_on_commit_readers_see_only_what_is_flushed(void **state) {
    (void)state;
    struct record_log *log = open_log(LOG_SYNC_ON_COMMIT);
    assert_int_equal(log_test_append(log, 0, 3, 10, 1), FELIX_OK);
    assert_int_equal(log_test_info(log).written_end, 0);
    assert_int_equal(record_log_write(log, NULL), FELIX_OK);
    assert_int_equal(log_test_info(log).written_end, 3);
    assert_int_equal(log_test_info(log).committed_end, 0);
    assert_int_equal(record_log_sync(log, NULL), FELIX_OK);
    assert_int_equal(log_test_info(log).committed_end, 3);
    record_log_abandon(log);
}

static void under_periodic_readers_see_what_is_written(void **state) {
    (void)state;
    struct record_log *log = open_log(LOG_SYNC_PERIODIC);
    assert_int_equal(log_test_append(log, 0, 3, 10, 1), FELIX_OK);
    assert_int_equal(record_log_write(log, NULL), FELIX_OK);
    assert_int_equal(log_test_info(log).committed_end, 3);
    assert_int_equal(log_test_info(log).durable_end, 0);
    log_test_expect(log, 0, 3, 1000);
    record_log_abandon(log);
}

static void a_log_goes_on_where_it_was_closed(void **state) {
    (void)state;
    struct record_log *log = open_log(LOG_SYNC_PERIODIC);
    log_test_put(log, 0, 30, 200);
    assert_int_equal(log_test_append(log, 30, 5, 50, 7), FELIX_OK);
    assert_int_equal(record_log_close(log), FELIX_OK);
    struct log_recovery report;
    struct record_log_settings settings = log_test_settings(LOG_SYNC_PERIODIC);
    log = open_with(&settings, &report);
    assert_true(report.clean);
    assert_int_equal(report.end, 35);
    log_test_put(log, 35, 5, 50);
    log_test_expect(log, 0, 40, 1000);
    assert_int_equal(record_log_close(log), FELIX_OK);
}

static void a_killed_log_keeps_what_was_written(void **state) {
    (void)state;
    struct record_log *log = open_log(LOG_SYNC_NONE);
    for (uint64_t offset = 0; offset < 100; offset += 10) {
        assert_int_equal(log_test_append(log, offset, 10, 100, 7), FELIX_OK);
        assert_int_equal(record_log_write(log, NULL), FELIX_OK);
    }
    assert_int_equal(log_test_append(log, 100, 10, 100, 7), FELIX_OK);
    record_log_abandon(log);
    struct log_recovery report;
    struct record_log_settings settings = log_test_settings(LOG_SYNC_NONE);
    log = open_with(&settings, &report);
    assert_false(report.clean);
    assert_int_equal(report.end, 100);
    assert_int_equal(report.cut_bytes, 0);
    log_test_expect(log, 0, 100, 500);
    record_log_abandon(log);
}

static void a_batch_larger_than_a_segment_gets_one_of_its_own(void **state) {
    (void)state;
    struct record_log *log = open_log(LOG_SYNC_ON_COMMIT);
    log_test_put(log, 0, 1, 10);
    log_test_put(log, 1, 3, 300000);
    log_test_put(log, 4, 1, 10);
    assert_int_equal(log_test_info(log).segments, 3);
    log_test_expect(log, 0, 5, 1 << 20);
    log_test_expect(log, 0, 5, 1);
    assert_int_equal(record_log_close(log), FELIX_OK);
}

static void a_page_ends_at_the_first_record_that_does_not_fit(void **state) {
    (void)state;
    struct record_log *log = open_log(LOG_SYNC_ON_COMMIT);
    log_test_put(log, 0, 1, 100);
    log_test_put(log, 1, 1, 500);
    log_test_put(log, 2, 1, 10);
    struct log_page page;
    uint64_t available;
    assert_int_equal(record_log_read(log, 0, 200, &page, &available, NULL), FELIX_OK);
    assert_int_equal(page.list.count, 1);
    buf_unref(page.block);
    assert_int_equal(record_log_read(log, 0, 600, &page, &available, NULL), FELIX_OK);
    assert_int_equal(page.list.count, 2);
    buf_unref(page.block);
    assert_int_equal(record_log_read(log, 0, 610, &page, &available, NULL), FELIX_OK);
    assert_int_equal(page.list.count, 3);
    assert_int_equal(page.timestamps[1], 1001);
    buf_unref(page.block);
    record_log_abandon(log);
}

static void a_page_has_no_more_payload_than_asked_for(void **state) {
    (void)state;
    struct record_log *log = open_log(LOG_SYNC_ON_COMMIT);
    /* Smaller ones later: there is more room in the block than the page may use. */
    log_test_put(log, 0, 20, 100);
    for (uint64_t offset = 20; offset < 60; offset++)
        log_test_put(log, offset, 1, 1);
    for (size_t bytes_max = 100; bytes_max < 1000; bytes_max += 33) {
        struct log_page page;
        uint64_t available;
        assert_int_equal(record_log_read(log, 0, bytes_max, &page, &available, NULL), FELIX_OK);
        assert_int_equal(page.list.count, bytes_max / 100);
        buf_unref(page.block);
    }
    record_log_abandon(log);
}

static void cursors_outside_the_log_are_told_what_there_is(void **state) {
    (void)state;
    struct record_log *log = open_log(LOG_SYNC_ON_COMMIT);
    log_test_put(log, 0, 3, 10);
    struct log_page page;
    uint64_t available = 0;
    struct felix_error error;
    assert_int_equal(record_log_read(log, 4, 100, &page, &available, &error),
                     FELIX_CURSOR_IN_FUTURE);
    assert_int_equal(available, 3);
    record_log_abandon(log);
}

/* ---- retention beside a flush ---- */

static struct disk_ops looking_ops;
static struct record_log *looked_at; /* NULL: nobody looks */

/* Retention looks while the flusher saves the index of a segment that is full. */
static int open_and_look(void *context, const char *path, enum disk_open how) {
    struct record_log *log = looked_at;
    if (log != NULL && strstr(path, ".index") != NULL) {
        looked_at = NULL;
        assert_int_equal(record_log_retain(log, 0, NULL, NULL), FELIX_OK);
    }
    return memory_disk_table(&memory).ops->open(context, path, how);
}

static size_t segment_files(void) {
    size_t count = 0;
    for (size_t i = 0; i < memory.name_count; i++) {
        const char *path = memory.names[i].path;
        size_t len = strlen(path);
        count += len > 4 && strcmp(path + len - 4, ".log") == 0;
    }
    return count;
}

static void what_retention_takes_during_a_flush_is_gone_afterwards(void **state) {
    (void)state;
    struct record_log_settings settings = log_test_settings(LOG_SYNC_ON_COMMIT);
    settings.retention_bytes = 1;
    looking_ops = *disk.ops;
    looking_ops.open = open_and_look;
    disk.ops = &looking_ops;
    struct record_log *log = open_with(&settings, NULL);
    for (uint64_t offset = 0; offset < 20; offset++)
        assert_int_equal(log_test_append(log, offset, 1, 1000, 7), FELIX_OK);
    looked_at = log;
    assert_int_equal(record_log_write(log, NULL), FELIX_OK); /* it flushes so many segments */
    assert_null(looked_at);
    assert_int_equal(log_test_info(log).segments, 1);
    assert_int_equal(segment_files(), 1);
    assert_int_equal(record_log_close(log), FELIX_OK);
}

static void a_directory_name_is_that_of_the_specification(void **state) {
    (void)state;
    char name[LOG_DIR_NAME_BYTES];
    record_log_dir_name(slice_str("acme"), slice_str("default"), slice_str("orders"), 0, name);
    assert_string_equal(name, "acme_default_orders_0-0d3aed4b998d2798");
    record_log_dir_name(slice_str("acme"), slice_str("default"), slice_str("orders"), 3, name);
    assert_string_equal(name, "acme_default_orders_3-0d3af04b998d2cb1");
}

static void a_directory_name_has_no_more_than_its_bytes(void **state) {
    (void)state;
    char name[LOG_DIR_NAME_BYTES];
    struct slice longest =
        slice_str("\xc3\xa4\xf0\x9f\x98\x80zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz");
    record_log_dir_name(longest, longest, longest, UINT32_MAX, name);
    assert_int_equal(strlen(name) + 1, 3 * 33 + 10 + 1 + 16 + 1);
    assert_memory_equal(name, "__zzzzzzzzzzzzzzzzzzzzzzzzzzzzzz___zzz", 38);
    record_log_dir_name(slice_str(""), slice_str("a/b"), slice_str("."), 0, name);
    assert_memory_equal(name, "__a_b___0-", 10);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_new_log_is_empty_and_begins_at_zero),
        TEST(what_was_appended_is_read_over_segments),
        TEST(under_on_commit_readers_see_only_what_is_flushed),
        TEST(under_periodic_readers_see_what_is_written),
        TEST(a_log_goes_on_where_it_was_closed),
        TEST(a_killed_log_keeps_what_was_written),
        TEST(a_batch_larger_than_a_segment_gets_one_of_its_own),
        TEST(a_page_ends_at_the_first_record_that_does_not_fit),
        TEST(a_page_has_no_more_payload_than_asked_for),
        TEST(cursors_outside_the_log_are_told_what_there_is),
        TEST(what_retention_takes_during_a_flush_is_gone_afterwards),
        cmocka_unit_test(a_directory_name_is_that_of_the_specification),
        cmocka_unit_test(a_directory_name_has_no_more_than_its_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
