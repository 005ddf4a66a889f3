/* What is removed, what stays, and where in time a record is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "storage/log_state.h"
#include "storage/record_log.h"
#include "support/log_driver.h"
#include "support/memory_disk.h"

#define DIR "/log"

static struct memory_disk memory;
static struct disk disk;
static struct record_log_settings settings;
static struct record_log *log_;

static int setup(void **state) {
    (void)state;
    memory_disk_init(&memory);
    disk = memory_disk_table(&memory);
    settings = log_test_settings(LOG_SYNC_ON_COMMIT);
    log_ = NULL;
    return 0;
}

static int teardown(void **state) {
    (void)state;
    if (log_ != NULL)
        record_log_abandon(log_);
    size_t open = memory_disk_open_handles(&memory);
    memory_disk_deinit(&memory);
    return open == 0 ? 0 : -1;
}

static void open_log(void) {
    assert_int_equal(record_log_open(&disk, DIR, "t/n/s", &settings, &log_, NULL, NULL), FELIX_OK);
}

/* Ten records of 300 bytes, which are one segment, at each of the times 100, 200, ... */
static void fill(unsigned segments) {
    for (unsigned i = 0; i < segments; i++) {
        uint64_t offset = i * 10u;
        assert_int_equal(log_test_append(log_, offset, 10, 300, (i + 1) * 100), FELIX_OK);
        assert_int_equal(record_log_write(log_, NULL), FELIX_OK);
        assert_int_equal(record_log_sync(log_, NULL), FELIX_OK);
    }
    assert_int_equal(log_test_info(log_).segments, segments);
}

static bool has_file(unsigned id, const char *suffix) {
    char path[64];
    (void)snprintf(path, sizeof path, DIR "/%020u.%s", id, suffix);
    return memory_disk_find(&memory, path) != NULL;
}

static void the_oldest_go_until_the_rest_fits(void **state) {
    (void)state;
    settings.retention_bytes = 7000;
    open_log();
    fill(5);
    uint32_t removed;
    assert_int_equal(record_log_retain(log_, 0, &removed, NULL), FELIX_OK);
    assert_int_equal(removed, 3);
    struct record_log_info info = log_test_info(log_);
    assert_int_equal(info.oldest, 30);
    assert_true(info.bytes <= 7000);
    assert_false(has_file(2, "log") || has_file(2, "index"));
    assert_true(has_file(3, "log"));
    log_test_expect(log_, 30, 50, 1000);
    struct log_page page;
    uint64_t available;
    assert_int_equal(record_log_read(log_, 29, 100, &page, &available, NULL), FELIX_CURSOR_TOO_OLD);
    assert_int_equal(available, 30);
}

static void a_segment_goes_when_its_last_record_is_too_old(void **state) {
    (void)state;
    settings.retention_us = 150;
    open_log();
    fill(4);
    uint32_t removed;
    assert_int_equal(record_log_next_retention_us(log_), 251);
    assert_int_equal(record_log_retain(log_, 250, &removed, NULL), FELIX_OK);
    assert_int_equal(removed, 0);
    assert_int_equal(record_log_retain(log_, 251, &removed, NULL), FELIX_OK);
    assert_int_equal(removed, 1);
    assert_int_equal(record_log_next_retention_us(log_), 351);
}

static void the_newest_segment_stays_however_old(void **state) {
    (void)state;
    settings.retention_us = 1;
    settings.retention_bytes = 1;
    open_log();
    fill(3);
    uint32_t removed;
    assert_int_equal(record_log_retain(log_, UINT64_MAX, &removed, NULL), FELIX_OK);
    assert_int_equal(removed, 2);
    assert_int_equal(log_test_info(log_).segments, 1);
    assert_int_equal(record_log_next_retention_us(log_), UINT64_MAX);
    log_test_expect(log_, 20, 30, 1000);
}

static void without_bounds_nothing_goes(void **state) {
    (void)state;
    open_log();
    fill(3);
    assert_int_equal(record_log_next_retention_us(log_), UINT64_MAX);
    uint32_t removed;
    assert_int_equal(record_log_retain(log_, UINT64_MAX, &removed, NULL), FELIX_OK);
    assert_int_equal(removed, 0);
}

static void what_is_not_flushed_yet_stays(void **state) {
    (void)state;
    settings.sync = LOG_SYNC_PERIODIC;
    settings.retention_bytes = 1;
    open_log();
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(log_test_append(log_, i * 10u, 10, 300, 1), FELIX_OK);
        assert_int_equal(record_log_write(log_, NULL), FELIX_OK);
    }
    uint32_t removed;
    assert_int_equal(record_log_retain(log_, 0, &removed, NULL), FELIX_OK);
    assert_int_equal(removed, 0);
    assert_int_equal(record_log_sync(log_, NULL), FELIX_OK);
    assert_int_equal(record_log_retain(log_, 0, &removed, NULL), FELIX_OK);
    assert_int_equal(removed, 1);
}

static void a_segment_that_is_being_read_is_removed_by_its_last_reader(void **state) {
    (void)state;
    settings.retention_bytes = 7000;
    open_log();
    fill(5);
    struct segment *oldest = log_->segments[0];
    oldest->pins++;
    uint32_t removed;
    assert_int_equal(record_log_retain(log_, 0, &removed, NULL), FELIX_OK);
    assert_int_equal(removed, 3);
    assert_int_equal(log_test_info(log_).oldest, 30);
    /* All of them wait, so that a crash leaves no hole. */
    assert_true(has_file(0, "log") && has_file(1, "log") && has_file(2, "log"));
    log_unpin(log_, oldest);
    assert_false(has_file(0, "log") || has_file(1, "log") || has_file(2, "log"));
    assert_int_equal(log_test_info(log_).removed_segments, 3);
}

static void removal_is_kept_over_a_restart(void **state) {
    (void)state;
    settings.retention_bytes = 7000;
    open_log();
    fill(5);
    assert_int_equal(record_log_retain(log_, 0, NULL, NULL), FELIX_OK);
    record_log_abandon(log_);
    open_log();
    assert_int_equal(log_test_info(log_).oldest, 30);
    log_test_expect(log_, 30, 50, 1000);
}

static uint64_t seek(uint64_t at_us) {
    uint64_t offset = UINT64_MAX;
    assert_int_equal(record_log_seek_time(log_, at_us, &offset, NULL), FELIX_OK);
    return offset;
}

static void a_time_finds_the_first_record_that_is_not_older(void **state) {
    (void)state;
    open_log();
    fill(4);
    assert_int_equal(seek(0), 0);
    assert_int_equal(seek(100), 0);
    assert_int_equal(seek(101), 10);
    assert_int_equal(seek(300), 20);
    assert_int_equal(seek(400), 30);
    assert_int_equal(seek(401), 40);
}

static void a_time_is_found_inside_a_segment_as_well(void **state) {
    (void)state;
    settings.segment_bytes = 1 << 20;
    open_log();
    for (unsigned i = 0; i < 200; i++) {
        assert_int_equal(log_test_append(log_, i, 1, 20, 1000 + i * 10), FELIX_OK);
        assert_int_equal(record_log_write(log_, NULL), FELIX_OK);
    }
    assert_int_equal(record_log_sync(log_, NULL), FELIX_OK);
    for (unsigned i = 0; i < 200; i++)
        assert_int_equal(seek(1000 + i * 10 - 5), i);
    assert_int_equal(seek(5000), 200);
    record_log_abandon(log_);
    open_log();
    assert_int_equal(seek(1995), 100);
}

static void what_is_not_committed_is_not_found_by_time(void **state) {
    (void)state;
    open_log();
    fill(1);
    assert_int_equal(log_test_append(log_, 10, 5, 20, 500), FELIX_OK);
    assert_int_equal(record_log_write(log_, NULL), FELIX_OK);
    assert_int_equal(seek(400), 10);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(the_oldest_go_until_the_rest_fits),
        TEST(a_segment_goes_when_its_last_record_is_too_old),
        TEST(the_newest_segment_stays_however_old),
        TEST(without_bounds_nothing_goes),
        TEST(what_is_not_flushed_yet_stays),
        TEST(a_segment_that_is_being_read_is_removed_by_its_last_reader),
        TEST(removal_is_kept_over_a_restart),
        TEST(a_time_finds_the_first_record_that_is_not_older),
        TEST(a_time_is_found_inside_a_segment_as_well),
        TEST(what_is_not_committed_is_not_found_by_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
