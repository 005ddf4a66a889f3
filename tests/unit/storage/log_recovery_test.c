/* What opening makes of a directory that was not closed in order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/cursor.h"
#include "storage/record_log.h"
#include "support/log_driver.h"
#include "support/memory_disk.h"

#define DIR "/log"
#define RECORD_BYTES 50u
#define ON_DISK_BYTES (28u + RECORD_BYTES)

static struct memory_disk memory;
static struct disk disk;
static struct record_log_settings settings;
static struct log_recovery report;

static int setup(void **state) {
    (void)state;
    memory_disk_init(&memory);
    disk = memory_disk_table(&memory);
    settings = log_test_settings(LOG_SYNC_ON_COMMIT);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    size_t open = memory_disk_open_handles(&memory);
    memory_disk_deinit(&memory);
    return open == 0 ? 0 : -1;
}

static struct record_log *open_log(void) {
    struct record_log *log = NULL;
    struct felix_error error = {.text = ""};
    if (record_log_open(&disk, DIR, "t/n/s", &settings, &log, &report, &error) != FELIX_OK)
        fail_msg("%s", error.text);
    return log;
}

static void assert_refused(const char *text) {
    struct record_log *log = NULL;
    struct felix_error error = {.text = ""};
    assert_int_equal(record_log_open(&disk, DIR, "t/n/s", &settings, &log, &report, &error),
                     FELIX_DAMAGED);
    if (strstr(error.text, text) == NULL)
        fail_msg("\"%s\" is not in: %s", text, error.text);
    assert_non_null(strstr(error.text, "t/n/s"));
}

static struct memory_file *segment_file(unsigned id) {
    char path[64];
    (void)snprintf(path, sizeof path, DIR "/%020u.log", id);
    return memory_disk_find(&memory, path);
}

static void remove_file(const char *path) {
    assert_int_equal(disk.ops->remove(disk.context, path), 0);
}

/* A log of one segment: `flushed` records that the checkpoint knows of, then `written` ones. */
static void make_killed(uint32_t flushed, uint32_t written) {
    struct record_log *log = open_log();
    log_test_put(log, 0, flushed, RECORD_BYTES);
    if (written > 0) {
        assert_int_equal(log_test_append(log, flushed, written, RECORD_BYTES, 9), FELIX_OK);
        assert_int_equal(record_log_write(log, NULL), FELIX_OK);
    }
    record_log_abandon(log);
}

/* The same as the original would leave it: exactly as long as its records, and no checkpoint. */
static void make_original(uint32_t records) {
    struct record_log *log = open_log();
    log_test_put(log, 0, records, RECORD_BYTES);
    assert_int_equal(record_log_close(log), FELIX_OK);
    remove_file(DIR "/checkpoint");
}

static uint64_t at_record(uint64_t n) {
    return 32 + n * ON_DISK_BYTES;
}

static void put_byte(unsigned id, uint64_t at, uint8_t byte) {
    memory_file_write(segment_file(id), slice_of(&byte, 1), at);
}

static void flip_byte(unsigned id, uint64_t at) {
    uint8_t byte;
    memory_file_read(segment_file(id), &byte, 1, at);
    put_byte(id, at, byte ^ 0xff);
}

static void assert_serves(uint64_t end) {
    struct record_log *log = open_log();
    assert_int_equal(report.end, end);
    log_test_expect(log, 0, end, 1000);
    assert_int_equal(log_test_info(log).damage_count, 0);
    log_test_put(log, end, 2, RECORD_BYTES);
    log_test_expect(log, 0, end + 2, 1000);
    record_log_abandon(log);
}

/* Opening twice is the same as opening once. */
static void assert_settled(void) {
    record_log_abandon(open_log());
    uint64_t before = memory_disk_hash(&memory);
    record_log_abandon(open_log());
    assert_true(memory_disk_hash(&memory) == before);
}

static void zeros_behind_the_records_are_an_unfinished_write(void **state) {
    (void)state;
    make_killed(5, 3);
    assert_true(segment_file(0)->length > at_record(8));
    record_log_abandon(open_log());
    assert_int_equal(segment_file(0)->length, at_record(8));
    assert_int_equal(report.cut_bytes + report.moved_bytes, 0);
    assert_settled();
    assert_serves(8);
}

static void each_length_of_a_torn_write_is_cut_to_whole_records(void **state) {
    (void)state;
    for (uint64_t bytes = at_record(5); bytes < at_record(7); bytes++) {
        memory_disk_reset(&memory);
        make_killed(5, 2);
        memory_file_set_length(segment_file(0), bytes);
        assert_settled();
        assert_serves(bytes < at_record(6) ? 5 : 6);
    }
}

static void a_torn_write_in_what_was_set_ahead_is_kept_beside_the_segment(void **state) {
    (void)state;
    make_killed(5, 2);
    uint8_t zeros[20] = {0};
    memory_file_write(segment_file(0), slice_of(zeros, sizeof zeros), at_record(7) - 20);
    record_log_abandon(open_log());
    assert_int_equal(report.moved_bytes, ON_DISK_BYTES - 20);
    struct memory_file *torn = memory_disk_find(&memory, DIR "/00000000000000000000.torn-500");
    assert_int_equal(at_record(6), 500);
    assert_non_null(torn);
    assert_int_equal(torn->length, ON_DISK_BYTES - 20);
    assert_settled();
    assert_serves(6);
}

static void torn_ends_at_the_same_place_do_not_replace_each_other(void **state) {
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        struct record_log *log = open_log();
        if (i == 0)
            log_test_put(log, 0, 1, RECORD_BYTES);
        assert_int_equal(log_test_append(log, 1, 1, RECORD_BYTES, i), FELIX_OK);
        assert_int_equal(record_log_write(log, NULL), FELIX_OK);
        record_log_abandon(log);
        flip_byte(0, at_record(1) + 40);
        record_log_abandon(open_log());
        assert_int_equal(report.end, 1);
    }
    assert_non_null(memory_disk_find(&memory, DIR "/00000000000000000000.torn-110"));
    assert_non_null(memory_disk_find(&memory, DIR "/00000000000000000000.torn-110.1"));
    assert_non_null(memory_disk_find(&memory, DIR "/00000000000000000000.torn-110.2"));
}

static void rot_below_the_checkpoint_is_damage_and_nothing_is_cut(void **state) {
    (void)state;
    make_killed(5, 3);
    flip_byte(0, at_record(2) + 40);
    struct record_log *log = open_log();
    assert_int_equal(report.end, 8);
    struct record_log_info info = log_test_info(log);
    assert_int_equal(info.damage_count, 1);
    assert_int_equal(info.damage[0].first, 2);
    assert_int_equal(info.damage[0].end, 3);
    log_test_expect(log, 0, 2, 100);
    log_test_expect(log, 3, 8, 100);
    record_log_abandon(log);
}

static void the_newest_segment_shorter_than_what_was_flushed_is_refused(void **state) {
    (void)state;
    make_killed(5, 0);
    memory_file_set_length(segment_file(0), at_record(4));
    assert_refused("shorter than what was flushed");
}

static void
a_newest_segment_without_its_header_is_refused_if_it_held_flushed_records(void **state) {
    (void)state;
    make_killed(5, 0);
    flip_byte(0, 25);
    assert_refused("segment 0, byte 0");
}

static void a_missing_newest_segment_is_refused(void **state) {
    (void)state;
    make_killed(5, 0);
    remove_file(DIR "/00000000000000000000.log");
    assert_refused("missing");
}

static void only_a_blank_segment_is_as_good_as_none(void **state) {
    (void)state;
    static const uint64_t lengths[] = {0, 1, 31, 32, 4096};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        memory_disk_reset(&memory);
        memory_disk_add_dir(&memory, DIR);
        (void)memory_disk_add_file(&memory, DIR "/00000000000000000000.log",
                                   slice_of((const uint8_t *)"", 0), lengths[i]);
        record_log_abandon(open_log());
        assert_int_equal(report.removed_segments, 1);
        assert_settled();
        assert_serves(0);
    }
}

/* ---- directories of the original ---- */

static void a_directory_of_the_original_goes_on(void **state) {
    (void)state;
    make_original(60);
    assert_true(log_test_settings(LOG_SYNC_NONE).segment_bytes < 60 * ON_DISK_BYTES);
    assert_settled();
    assert_serves(60);
}

static void without_a_checkpoint_a_record_that_runs_past_the_end_is_cut(void **state) {
    (void)state;
    for (uint64_t bytes = at_record(4) + 1; bytes < at_record(5); bytes++) {
        memory_disk_reset(&memory);
        make_original(5);
        memory_file_set_length(segment_file(0), bytes);
        assert_serves(4);
    }
}

static void without_a_checkpoint_zeros_at_the_end_are_cut(void **state) {
    (void)state;
    make_original(5);
    memory_file_set_length(segment_file(0), at_record(5) + 5000);
    record_log_abandon(open_log());
    assert_int_equal(segment_file(0)->length, at_record(5));
    assert_serves(5);
}

static void without_a_checkpoint_a_bad_checksum_is_refused(void **state) {
    (void)state;
    make_original(5);
    flip_byte(0, at_record(4) + 40);
    uint64_t before = memory_disk_hash(&memory);
    assert_refused("checksum");
    assert_true(memory_disk_hash(&memory) == before);
}

static void on_request_a_last_record_with_a_bad_checksum_is_cut_and_kept(void **state) {
    (void)state;
    make_original(5);
    flip_byte(0, at_record(4) + 40);
    settings.repair_checksum_tail = true;
    record_log_abandon(open_log());
    assert_int_equal(report.end, 4);
    assert_int_equal(report.moved_bytes, ON_DISK_BYTES);
    assert_non_null(memory_disk_find(&memory, DIR "/00000000000000000000.torn-344"));
    assert_int_equal(at_record(4), 344);
}

static void on_request_or_not_a_bad_checksum_in_the_middle_is_refused(void **state) {
    (void)state;
    make_original(5);
    flip_byte(0, at_record(2) + 40);
    settings.repair_checksum_tail = true;
    assert_refused("segment 0, byte 188: checksum");
}

static void without_a_checkpoint_a_bad_header_is_refused_unless_only_that_is_left(void **state) {
    (void)state;
    make_original(5);
    memory_file_set_length(segment_file(0), at_record(4) + 28);
    flip_byte(0, at_record(4) + 3);
    assert_refused("header_checksum");
    memory_file_set_length(segment_file(0), at_record(4) + 29);
    put_byte(0, at_record(4) + 28, 'x');
    settings.repair_checksum_tail = true;
    assert_refused("header_checksum");
    memory_file_set_length(segment_file(0), at_record(4) + 28);
    settings.repair_checksum_tail = true;
    record_log_abandon(open_log());
    assert_int_equal(report.end, 4);
    assert_int_equal(report.moved_bytes, 28);
}

/* The leftovers of an interrupted roll: a next segment of `bytes` bytes, with this base. */
static void add_next(uint64_t base, uint64_t bytes) {
    uint8_t header[32];
    memory_file_read(segment_file(0), header, sizeof header, 0);
    be64_store(header + 8, base);
    size_t have = bytes < sizeof header ? (size_t)bytes : sizeof header;
    (void)memory_disk_add_file(&memory, DIR "/00000000000000000001.log", slice_of(header, have),
                               bytes);
}

static void a_next_segment_without_a_whole_header_is_a_leftover(void **state) {
    (void)state;
    for (uint64_t bytes = 0; bytes < 32; bytes++) {
        memory_disk_reset(&memory);
        make_original(5);
        add_next(5, bytes);
        record_log_abandon(open_log());
        assert_int_equal(report.removed_segments, 1);
        assert_null(segment_file(1));
        assert_serves(5);
    }
}

static void leftovers_of_ours_are_put_aside_and_what_was_flushed_stays(void **state) {
    (void)state;
    make_killed(5, 0);
    static const uint8_t junk[] = "these are no records, and no header either, but they are bytes";
    (void)memory_disk_add_file(&memory, DIR "/00000000000000000001.log",
                               slice_of(junk, sizeof junk), sizeof junk);
    record_log_abandon(open_log());
    assert_int_equal(report.moved_bytes, sizeof junk);
    assert_null(segment_file(1));
    assert_non_null(memory_disk_find(&memory, DIR "/00000000000000000001.torn-0"));
    assert_settled();
    assert_serves(5);
}

/* Segments that were full, but not flushed when the power went out: 0 to 49 in each. */
static void make_unflushed(void) {
    settings.sync = LOG_SYNC_PERIODIC;
    struct record_log *log = open_log();
    log_test_put(log, 0, 20, RECORD_BYTES);
    for (uint64_t offset = 20; offset < 120; offset += 10) {
        assert_int_equal(log_test_append(log, offset, 10, RECORD_BYTES, 9), FELIX_OK);
        assert_int_equal(record_log_write(log, NULL), FELIX_OK);
    }
    assert_int_equal(log_test_info(log).segments, 3);
    record_log_abandon(log);
}

static void segments_that_were_not_flushed_are_scanned_and_go_on(void **state) {
    (void)state;
    make_unflushed();
    record_log_abandon(open_log());
    assert_int_equal(report.segments, 3);
    assert_true(report.scanned_bytes > 120 * ON_DISK_BYTES);
    assert_settled();
    assert_serves(120);
}

static void what_is_behind_a_hole_is_put_aside(void **state) {
    (void)state;
    make_unflushed();
    memory_file_set_length(segment_file(0), at_record(30) + 5);
    record_log_abandon(open_log());
    assert_int_equal(report.end, 30);
    assert_int_equal(report.segments, 1);
    assert_null(segment_file(1));
    assert_null(segment_file(2));
    assert_non_null(memory_disk_find(&memory, DIR "/00000000000000000001.torn-0"));
    assert_non_null(memory_disk_find(&memory, DIR "/00000000000000000002.torn-0"));
    assert_settled();
    assert_serves(30);
}

static void names_that_are_not_ours_are_left_alone(void **state) {
    (void)state;
    make_killed(5, 0);
    static const char *const names[] = {DIR "/1.log", DIR "/notes", DIR "/99999999999999999999.log",
                                        DIR "/0000000000000000000a.log",
                                        DIR "/00000000000000000000.log.bak"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        (void)memory_disk_add_file(&memory, names[i], slice_str("x"), 1);
    assert_serves(5);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        assert_non_null(memory_disk_find(&memory, names[i]));
}

static void looking_at_a_log_changes_nothing(void **state) {
    (void)state;
    make_killed(60, 3);
    flip_byte(0, at_record(2) + 40);
    uint64_t before = memory_disk_hash(&memory);
    struct record_log *log;
    assert_int_equal(record_log_open_read_only(&disk, DIR, "t/n/s", &settings, &log, &report, NULL),
                     FELIX_OK);
    assert_int_equal(report.end, 63);
    bool more = true;
    while (more)
        assert_int_equal(record_log_verify_next(log, &more, NULL), FELIX_OK);
    assert_int_equal(log_test_info(log).damage_count, 1);
    log_test_expect(log, 3, 63, 1000);
    assert_int_equal(record_log_close(log), FELIX_OK);
    assert_true(memory_disk_hash(&memory) == before);
}

static void what_is_removed_while_one_looks_is_too_old(void **state) {
    (void)state;
    make_killed(30, 0);
    struct record_log *log = open_log();
    log_test_put(log, 30, 30, RECORD_BYTES);
    record_log_abandon(log);
    assert_int_equal(record_log_open_read_only(&disk, DIR, "t/n/s", &settings, &log, &report, NULL),
                     FELIX_OK);
    remove_file(DIR "/00000000000000000000.log");
    struct log_page page;
    uint64_t available = 0;
    assert_int_equal(record_log_read(log, 3, 100, &page, &available, NULL), FELIX_CURSOR_TOO_OLD);
    assert_int_equal(available, 30);
    log_test_expect(log, 30, 60, 1000);
    record_log_abandon(log);
}

static void looking_where_nothing_is_tells_so(void **state) {
    (void)state;
    memory_disk_add_dir(&memory, DIR);
    struct record_log *log;
    struct felix_error error;
    assert_int_equal(
        record_log_open_read_only(&disk, DIR, "t/n/s", &settings, &log, &report, &error),
        FELIX_NOT_FOUND);
}

static void on_request_everything_is_verified_at_open(void **state) {
    (void)state;
    make_killed(30, 0);
    struct record_log *log = open_log();
    for (uint64_t offset = 30; offset < 150; offset += 10)
        log_test_put(log, offset, 10, RECORD_BYTES);
    record_log_abandon(log);
    flip_byte(0, at_record(7) + 40);
    log = open_log();
    assert_int_equal(log_test_info(log).damage_count, 0);
    assert_true(log_test_info(log).unverified_segments > 0);
    record_log_abandon(log);
    settings.verify_all_on_open = true;
    log = open_log();
    assert_int_equal(log_test_info(log).damage_count, 1);
    assert_int_equal(log_test_info(log).unverified_segments, 0);
    log_test_expect(log, 8, 150, 1000);
    record_log_abandon(log);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(zeros_behind_the_records_are_an_unfinished_write),
        TEST(each_length_of_a_torn_write_is_cut_to_whole_records),
        TEST(a_torn_write_in_what_was_set_ahead_is_kept_beside_the_segment),
        TEST(torn_ends_at_the_same_place_do_not_replace_each_other),
        TEST(rot_below_the_checkpoint_is_damage_and_nothing_is_cut),
        TEST(the_newest_segment_shorter_than_what_was_flushed_is_refused),
        TEST(a_newest_segment_without_its_header_is_refused_if_it_held_flushed_records),
        TEST(a_missing_newest_segment_is_refused),
        TEST(only_a_blank_segment_is_as_good_as_none),
        TEST(a_directory_of_the_original_goes_on),
        TEST(without_a_checkpoint_a_record_that_runs_past_the_end_is_cut),
        TEST(without_a_checkpoint_zeros_at_the_end_are_cut),
        TEST(without_a_checkpoint_a_bad_checksum_is_refused),
        TEST(on_request_a_last_record_with_a_bad_checksum_is_cut_and_kept),
        TEST(on_request_or_not_a_bad_checksum_in_the_middle_is_refused),
        TEST(without_a_checkpoint_a_bad_header_is_refused_unless_only_that_is_left),
        TEST(a_next_segment_without_a_whole_header_is_a_leftover),
        TEST(leftovers_of_ours_are_put_aside_and_what_was_flushed_stays),
        TEST(segments_that_were_not_flushed_are_scanned_and_go_on),
        TEST(what_is_behind_a_hole_is_put_aside),
        TEST(names_that_are_not_ours_are_left_alone),
        TEST(looking_at_a_log_changes_nothing),
        TEST(what_is_removed_while_one_looks_is_too_old),
        TEST(looking_where_nothing_is_tells_so),
        TEST(on_request_everything_is_verified_at_open),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
