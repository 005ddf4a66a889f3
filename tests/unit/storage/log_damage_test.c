/* Bits that flip on a disk: each one is found, and no record is ever given out that is not the one
 * that was appended. */
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
#define SEGMENT_HEADER_RESERVED_AT 28u
#define SEGMENT_HEADER_END 32u

static struct memory_disk good, bad;
static struct disk good_table, bad_table;
static struct record_log_settings settings;

static int setup(void **state) {
    (void)state;
    memory_disk_init(&good);
    memory_disk_init(&bad);
    good_table = memory_disk_table(&good);
    bad_table = memory_disk_table(&bad);
    settings = log_test_settings(LOG_SYNC_ON_COMMIT);
    settings.segment_bytes = 700;
    settings.index_spacing_bytes = 150;
    return 0;
}

static int teardown(void **state) {
    (void)state;
    size_t open = memory_disk_open_handles(&good) + memory_disk_open_handles(&bad);
    memory_disk_deinit(&good);
    memory_disk_deinit(&bad);
    return open == 0 ? 0 : -1;
}

static void make_log(uint64_t records) {
    struct record_log *log;
    assert_int_equal(record_log_open(&good_table, DIR, "t/n/s", &settings, &log, NULL, NULL),
                     FELIX_OK);
    for (uint64_t offset = 0; offset < records; offset++)
        log_test_put(log, offset, 1, 20 + offset * 7 % 40);
    assert_int_equal(record_log_close(log), FELIX_OK);
}

static struct memory_file *file_of(struct memory_disk *disk, unsigned segment, const char *suffix) {
    char path[64];
    (void)snprintf(path, sizeof path, DIR "/%020u.%s", segment, suffix);
    return memory_disk_find(disk, path);
}

static void flip(struct memory_file *file, uint64_t at, uint8_t bits) {
    uint8_t byte;
    memory_file_read(file, &byte, 1, at);
    byte ^= bits;
    memory_file_write(file, slice_of(&byte, 1), at);
}

static void break_byte(unsigned segment, uint64_t at) {
    memory_disk_copy(&bad, &good);
    flip(file_of(&bad, segment, "log"), at, 0x10);
}

static struct record_log *open_bad(struct log_recovery *report) {
    struct record_log *log = NULL;
    struct felix_error error = {.text = ""};
    if (record_log_open(&bad_table, DIR, "t/n/s", &settings, &log, report, &error) != FELIX_OK)
        fail_msg("%s", error.text);
    return log;
}

/* Reads everything that can be read; returns how many records cannot be. */
static uint64_t read_around_damage(struct record_log *log) {
    struct record_log_info info = log_test_info(log);
    uint64_t lost = 0;
    for (uint64_t offset = info.oldest; offset < info.committed_end;) {
        struct log_page page;
        uint64_t available = 0;
        struct felix_error error;
        enum felix_err err = record_log_read(log, offset, 100, &page, &available, &error);
        if (err == FELIX_DAMAGED) {
            assert_true(available > offset && available <= info.committed_end);
            lost += available - offset;
            offset = available;
            continue;
        }
        assert_int_equal(err, FELIX_OK);
        uint64_t count = page.list.count;
        buf_unref(page.block);
        log_test_expect(log, offset, offset + count, 100);
        offset += count;
    }
    return lost;
}

static void verify_everything(struct record_log *log) {
    bool more = true;
    while (more)
        assert_int_equal(record_log_verify_next(log, &more, NULL), FELIX_OK);
}

/* Opens what was broken. Returns whether that was noticed. */
static bool is_noticed(uint64_t records) {
    struct record_log *log;
    struct felix_error error;
    enum felix_err err = record_log_open(&bad_table, DIR, "t/n/s", &settings, &log, NULL, &error);
    if (err != FELIX_OK) {
        assert_int_equal(err, FELIX_DAMAGED);
        return true;
    }
    assert_int_equal(log_test_info(log).written_end, records);
    uint64_t lost = read_around_damage(log);
    verify_everything(log);
    struct record_log_info info = log_test_info(log);
    assert_int_equal(read_around_damage(log), lost);
    if (lost > 0)
        assert_true(info.damage_count > 0);
    /* It goes on as a log. */
    log_test_put(log, records, 2, 30);
    log_test_expect(log, records, records + 2, 100);
    record_log_abandon(log);
    return info.damage_count > 0;
}

static void each_flipped_byte_of_a_segment_is_found(void **state) {
    (void)state;
    make_log(40);
    for (unsigned segment = 0; file_of(&good, segment, "log") != NULL; segment++) {
        uint64_t bytes = file_of(&good, segment, "log")->length;
        for (uint64_t at = 0; at < bytes; at++) {
            bool unused = at >= SEGMENT_HEADER_RESERVED_AT && at < SEGMENT_HEADER_END;
            for (unsigned bit = 0; bit < 8; bit += 3) {
                memory_disk_copy(&bad, &good);
                flip(file_of(&bad, segment, "log"), at, (uint8_t)(1u << bit));
                if (is_noticed(40) == unused)
                    fail_msg("segment %u, byte %u, bit %u", segment, (unsigned)at, bit);
            }
        }
    }
}

static void no_flipped_byte_of_an_index_or_checkpoint_loses_a_record(void **state) {
    (void)state;
    make_log(40);
    char path[64];
    for (unsigned i = 0;; i++) {
        (void)snprintf(path, sizeof path, DIR "/%020u.index", i);
        if (memory_disk_find(&good, path) == NULL)
            (void)snprintf(path, sizeof path, DIR "/checkpoint");
        uint64_t bytes = memory_disk_find(&good, path)->length;
        for (uint64_t at = 0; at < bytes; at++) {
            memory_disk_copy(&bad, &good);
            flip(memory_disk_find(&bad, path), at, 0x04);
            struct record_log *log = open_bad(NULL);
            assert_int_equal(log_test_info(log).written_end, 40);
            for (uint64_t offset = 0; offset < 40; offset++)
                log_test_expect(log, offset, 40, 60);
            assert_int_equal(log_test_info(log).damage_count, 0);
            record_log_abandon(log);
        }
        if (strcmp(path, DIR "/checkpoint") == 0)
            break;
    }
}

static void a_bad_payload_costs_one_record(void **state) {
    (void)state;
    make_log(40);
    break_byte(0, 32 + 28 + 3);
    struct record_log *log = open_bad(NULL);
    assert_int_equal(log_test_info(log).damage_count, 0);
    struct log_page page;
    uint64_t available;
    assert_int_equal(record_log_read(log, 0, 100, &page, &available, NULL), FELIX_DAMAGED);
    assert_int_equal(available, 1);
    struct record_log_info info = log_test_info(log);
    assert_int_equal(info.damage_count, 1);
    assert_int_equal(info.damage[0].first, 0);
    assert_int_equal(info.damage[0].end, 1);
    assert_int_equal(info.damage[0].segment, 0);
    assert_int_equal(info.damage[0].position, 32);
    assert_int_equal(info.damage[0].fault, RECORD_BAD_CHECKSUM);
    log_test_expect(log, 1, 40, 100);
    record_log_abandon(log);
}

static void behind_a_bad_header_reading_goes_on_at_the_next_index_entry(void **state) {
    (void)state;
    make_log(40);
    break_byte(0, 32);
    struct record_log *log = open_bad(NULL);
    struct log_page page;
    uint64_t available;
    assert_int_equal(record_log_read(log, 0, 100, &page, &available, NULL), FELIX_DAMAGED);
    assert_in_range(available, 2, 5);
    log_test_expect(log, available, 40, 100);
    record_log_abandon(log);
}

static void without_an_index_a_bad_header_costs_the_rest_of_its_segment(void **state) {
    (void)state;
    make_log(40);
    break_byte(1, 32);
    assert_int_equal(bad_table.ops->remove(bad_table.context, DIR "/00000000000000000001.index"),
                     0);
    struct record_log *log = open_bad(NULL);
    verify_everything(log);
    struct record_log_info info = log_test_info(log);
    assert_int_equal(info.damage_count, 1);
    struct memory_file *next = file_of(&bad, 2, "log");
    uint8_t base[8];
    memory_file_read(next, base, sizeof base, 8);
    assert_int_equal(info.damage[0].end, be64_load(base));
    log_test_expect(log, 0, info.damage[0].first, 100);
    log_test_expect(log, info.damage[0].end, 40, 100);
    record_log_abandon(log);
}

static unsigned newest_of(struct memory_disk *disk) {
    unsigned segment = 0;
    while (file_of(disk, segment + 1, "log") != NULL)
        segment++;
    return segment;
}

/* The header of the first record of the newest segment is bad. Returns how many records that
 * costs; the log goes on in another segment, and what is appended can be read from then on. */
static uint64_t lost_to_rot_in_newest(bool indexed) {
    unsigned newest = newest_of(&good);
    char path[64];
    break_byte(newest, SEGMENT_HEADER_END + 1);
    (void)snprintf(path, sizeof path, DIR "/%020u.index", newest);
    if (!indexed)
        assert_int_equal(bad_table.ops->remove(bad_table.context, path), 0);
    for (uint64_t end = 44; end < 50; end += 2) {
        struct record_log *log = open_bad(NULL);
        assert_int_equal(log_test_info(log).written_end, end);
        assert_int_equal(newest_of(&bad), newest + 1);
        log_test_put(log, end, 2, 10);
        log_test_expect(log, 44, end + 2, 100);
        record_log_abandon(log);
    }
    struct record_log *log = open_bad(NULL);
    uint64_t lost = read_around_damage(log);
    record_log_abandon(log);
    return lost;
}

static void rot_in_the_newest_segment_ends_at_the_next_index_entry(void **state) {
    (void)state;
    make_log(44);
    assert_int_equal(lost_to_rot_in_newest(true), 3);
}

static void without_an_index_rot_in_the_newest_segment_ends_with_it(void **state) {
    (void)state;
    make_log(44);
    assert_int_equal(lost_to_rot_in_newest(false), 7);
}

static void a_good_record_in_the_place_of_another_is_damage(void **state) {
    (void)state;
    struct record_log *log;
    assert_int_equal(record_log_open(&good_table, DIR, "t/n/s", &settings, &log, NULL, NULL),
                     FELIX_OK);
    for (uint64_t offset = 0; offset < 40; offset += 2)
        log_test_put(log, offset, 2, 30);
    assert_int_equal(record_log_close(log), FELIX_OK);
    memory_disk_copy(&bad, &good);
    uint8_t records[2][58];
    struct memory_file *file = file_of(&bad, 0, "log");
    memory_file_read(file, records[0], sizeof records, 32 + 3 * 58);
    memory_file_write(file, slice_of(records[1], 58), 32 + 3 * 58);
    log = open_bad(NULL);
    log_test_expect(log, 0, 3, 1);
    struct log_page page;
    uint64_t available;
    assert_int_equal(record_log_read(log, 3, 1, &page, &available, NULL), FELIX_DAMAGED);
    assert_in_range(available, 4, 8);
    log_test_expect(log, available, 40, 100);
    record_log_abandon(log);
}

static void a_page_ends_before_damage(void **state) {
    (void)state;
    make_log(40);
    break_byte(0, 32 + 28 + 20 + 28 + 2);
    struct record_log *log = open_bad(NULL);
    struct log_page page;
    uint64_t available;
    assert_int_equal(record_log_read(log, 0, 10000, &page, &available, NULL), FELIX_OK);
    assert_int_equal(page.list.count, 1);
    buf_unref(page.block);
    assert_int_equal(record_log_read(log, 1, 10000, &page, &available, NULL), FELIX_DAMAGED);
    assert_int_equal(available, 2);
    record_log_abandon(log);
}

/* A payload that is itself a record of the log, with the offset that would come next. */
static void a_record_inside_a_payload_is_never_taken_for_one(void **state) {
    (void)state;
    struct record_log *log;
    assert_int_equal(record_log_open(&good_table, DIR, "t/n/s", &settings, &log, NULL, NULL),
                     FELIX_OK);
    uint8_t list[4 + 4 + 28 + 8];
    uint8_t *forged = list + 8;
    be32_store(list, 1);
    be32_store(list + 4, 28 + 8);
    memset(forged + 28, 'x', 8);
    for (uint64_t offset = 0; offset < 30; offset++) {
        record_header_encode(offset + 1, 1, slice_of(forged + 28, 8), forged);
        struct payload_list payloads = {
            .bytes = slice_of(list, sizeof list), .count = 1, .payload_bytes = 36};
        assert_int_equal(record_log_append(log, offset, 1, &payloads, NULL), FELIX_OK);
        assert_int_equal(record_log_write(log, NULL), FELIX_OK);
    }
    assert_int_equal(record_log_close(log), FELIX_OK);
    for (uint64_t at = 32; at < 32 + 64; at++) {
        break_byte(0, at);
        log = open_bad(NULL);
        verify_everything(log);
        for (uint64_t offset = 0; offset < 30; offset++) {
            struct log_page page;
            uint64_t available;
            if (record_log_read(log, offset, 1, &page, &available, NULL) == FELIX_OK) {
                assert_int_equal(page.list.payload_bytes, 36);
                buf_unref(page.block);
            }
        }
        record_log_abandon(log);
    }
}

static void a_missing_segment_is_damage_and_no_refusal(void **state) {
    (void)state;
    make_log(60);
    memory_disk_copy(&bad, &good);
    assert_int_equal(bad_table.ops->remove(bad_table.context, DIR "/00000000000000000001.log"), 0);
    struct record_log *log = open_bad(NULL);
    uint64_t lost = read_around_damage(log);
    assert_in_range(lost, 5, 20);
    assert_int_equal(log_test_info(log).damage_count, 1);
    record_log_abandon(log);
}

static void a_segment_of_another_version_is_refused(void **state) {
    (void)state;
    make_log(40);
    static const uint8_t version1[32] = {0x46, 0x4c, 0x53, 0x47, 0,    1,    0,    0,   0, 0,
                                         0,    0,    0,    0,    0,    0,    0,    0,   0, 0,
                                         0,    0,    0,    0,    0x20, 0x2a, 0x16, 0x77};
    memory_disk_copy(&bad, &good);
    memory_file_write(file_of(&bad, 0, "log"), slice_of(version1, sizeof version1), 0);
    struct record_log *log;
    struct felix_error error = {.text = ""};
    assert_int_equal(record_log_open(&bad_table, DIR, "t/n/s", &settings, &log, NULL, &error),
                     FELIX_DAMAGED);
    assert_non_null(strstr(error.text, "version"));
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(each_flipped_byte_of_a_segment_is_found),
        TEST(no_flipped_byte_of_an_index_or_checkpoint_loses_a_record),
        TEST(a_bad_payload_costs_one_record),
        TEST(behind_a_bad_header_reading_goes_on_at_the_next_index_entry),
        TEST(without_an_index_a_bad_header_costs_the_rest_of_its_segment),
        TEST(rot_in_the_newest_segment_ends_at_the_next_index_entry),
        TEST(without_an_index_rot_in_the_newest_segment_ends_with_it),
        TEST(a_good_record_in_the_place_of_another_is_damage),
        TEST(a_page_ends_before_damage),
        TEST(a_record_inside_a_payload_is_never_taken_for_one),
        TEST(a_missing_segment_is_damage_and_no_refusal),
        TEST(a_segment_of_another_version_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
