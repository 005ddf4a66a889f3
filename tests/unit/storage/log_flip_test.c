/*
 * Every bit and every byte of a small log of two segments, changed in turn, in each of the states
 * in which a log can be found: closed or killed, with a checkpoint that is current, late (in either
 * segment) or missing, with and without its indexes.
 *
 * Each change is noticed: recovery moved bytes aside, or damage is known after everything was
 * looked at, or opening is refused where that is the rule. No wrong record is given out, nothing
 * below the checkpoint goes missing without being reported, no byte is thrown away, and opening
 * again changes nothing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "storage/record_log.h"
#include "support/log_driver.h"
#include "support/memory_disk.h"

#define DIR "/log"
#define CHECKPOINT DIR "/checkpoint"
#define RECORDS 9u
#define SEALED_RECORDS 5u /* of them in the first segment */
#define HEADER_BYTES 32u
#define RESERVED_AT 28u
#define AHEAD_BYTES 80u /* that are left of the length that was set ahead */

enum kept_checkpoint { CURRENT, LATE_IN_NEWEST, LATE_IN_SEALED, MISSING, CHECKPOINTS };

/* A log as it is found. */
struct found {
    bool closed;
    enum kept_checkpoint checkpoint;
    bool indexed;
    uint64_t promised; /* records below the checkpoint */
};

static const uint64_t promised_by[] = {
    [CURRENT] = RECORDS,
    [LATE_IN_NEWEST] = 7,
    [LATE_IN_SEALED] = 3,
    [MISSING] = 0,
};

static struct memory_disk original, flipped;
static struct disk disk; /* of `flipped` */
static struct record_log_settings settings;
static struct found found;
static uint8_t late[2][1024];    /* checkpoint files: in the sealed segment, in the newest */
static uint64_t marked_position; /* of the checkpoint, in its segment */

/* ---- making ---- */

static struct memory_file *segment_file(struct memory_disk *memory, unsigned segment) {
    char path[64];
    (void)snprintf(path, sizeof path, DIR "/%020u.log", segment);
    return memory_disk_find(memory, path);
}

static void remove_file(const char *path) {
    struct disk table = memory_disk_table(&original);
    assert_int_equal(table.ops->remove(table.context, path), 0);
}

static void keep_checkpoint(uint8_t out[1024]) {
    const struct memory_file *file = memory_disk_find(&original, CHECKPOINT);
    assert_int_equal(file->length, 1024);
    memory_file_read(file, out, 1024, 0);
}

static void write_log(void) {
    struct disk table = memory_disk_table(&original);
    struct record_log *log = NULL;
    memory_disk_reset(&original);
    assert_int_equal(record_log_open(&table, DIR, "t/n/s", &settings, &log, NULL, NULL), FELIX_OK);
    for (uint64_t offset = 0; offset < RECORDS; offset++) {
        log_test_put(log, offset, 1, 20 + offset * 7 % 40);
        assert_int_equal(segment_file(&original, 1) != NULL, offset >= SEALED_RECORDS);
        if (offset + 1 == promised_by[found.checkpoint])
            marked_position = segment_file(&original, offset < SEALED_RECORDS ? 0 : 1)->stored;
        if (offset + 1 == promised_by[LATE_IN_SEALED])
            keep_checkpoint(late[0]);
        if (offset + 1 == promised_by[LATE_IN_NEWEST])
            keep_checkpoint(late[1]);
    }
    if (found.closed)
        assert_int_equal(record_log_close(log), FELIX_OK);
    else
        record_log_abandon(log);
    assert_null(segment_file(&original, 2));
}

static void make_log(void) {
    write_log();
    struct memory_file *newest = segment_file(&original, 1);
    if (!found.closed)
        memory_file_set_length(newest, newest->stored + AHEAD_BYTES);
    if (found.checkpoint == MISSING)
        remove_file(CHECKPOINT);
    else if (found.checkpoint != CURRENT)
        memory_file_write(memory_disk_find(&original, CHECKPOINT),
                          slice_of(late[found.checkpoint == LATE_IN_NEWEST], 1024), 0);
    if (!found.indexed) {
        remove_file(DIR "/00000000000000000000.index");
        if (found.closed)
            remove_file(DIR "/00000000000000000001.index");
    }
    found.promised = promised_by[found.checkpoint];
}

/* The reserved bytes of a segment's header, which the format does not check. */
static bool says_nothing(uint64_t at) {
    return at >= RESERVED_AT && at < HEADER_BYTES;
}

/* ---- looking ---- */

static enum felix_err open_log(bool read_only, struct record_log **ret,
                               struct log_recovery *report) {
    struct felix_error error = {.text = ""};
    enum felix_err err =
        read_only ? record_log_open_read_only(&disk, DIR, "t/n/s", &settings, ret, report, &error)
                  : record_log_open(&disk, DIR, "t/n/s", &settings, ret, report, &error);
    if (err != FELIX_OK) {
        assert_int_equal(err, FELIX_DAMAGED);
        assert_non_null(strstr(error.text, "log t/n/s: segment 1, byte "));
    }
    return err;
}

/* Reads what can be read, checking each byte; returns how many records cannot. */
static uint64_t read_around_damage(struct record_log *log) {
    uint64_t end = log_test_info(log).committed_end, lost = 0;
    for (uint64_t offset = 0; offset < end;) {
        struct log_page page;
        uint64_t available = 0;
        enum felix_err err = record_log_read(log, offset, 1, &page, &available, NULL);
        if (err == FELIX_OK) {
            assert_int_equal(page.list.count, 1);
            assert_int_equal(page.timestamps[0], 1000 + offset);
            buf_unref(page.block);
            log_test_expect(log, offset, offset + 1, 1);
            offset++;
            continue;
        }
        assert_int_equal(err, FELIX_DAMAGED);
        assert_true(available > offset && available <= end);
        lost += available - offset;
        offset = available;
    }
    return lost;
}

/* Reads, verifies, reads: what is lost is reported as damage. Returns whether there is some. */
static bool look_at_everything(struct record_log *log) {
    uint64_t lost = read_around_damage(log), reported = 0;
    for (bool more = true; more;)
        assert_int_equal(record_log_verify_next(log, &more, NULL), FELIX_OK);
    assert_int_equal(read_around_damage(log), lost);
    struct record_log_info info = log_test_info(log);
    assert_true(info.damage_count <= 2);
    for (uint32_t i = 0; i < info.damage_count; i++)
        reported += info.damage[i].end - info.damage[i].first;
    assert_int_equal(reported, lost);
    return info.damage_count > 0;
}

/* Where opening is refused, and nowhere else: the newest segment's header, if the checkpoint knows
 * of records behind it, and, as without a checkpoint nothing tells rot from an unfinished write,
 * then all of the newest segment. */
static bool is_refused(unsigned segment, uint64_t at) {
    if (segment == 0 || says_nothing(at))
        return false;
    return found.checkpoint == MISSING || (at < HEADER_BYTES && found.checkpoint != LATE_IN_SEALED);
}

/* Recovery itself looks at the checkpoint's segment and those behind it. */
static bool is_scanned_rot(unsigned segment, uint64_t at) {
    if (found.checkpoint == MISSING || says_nothing(at))
        return false;
    unsigned marked = found.checkpoint == LATE_IN_SEALED ? 0 : 1;
    return at < HEADER_BYTES ? segment == 0 : segment == marked && at < marked_position;
}

static size_t stripped(const uint8_t *bytes, size_t count) {
    while (count > 0 && bytes[count - 1] == 0)
        count--;
    return count;
}

/* The segment as it was found is still there: in its file, or its end in a file beside it. */
static void assert_kept(unsigned segment, const uint8_t *bytes, size_t count) {
    char prefix[64], path[MEMORY_PATH_BYTES + 16];
    const struct memory_file *file = segment_file(&flipped, segment);
    size_t there = file != NULL ? file->stored : 0;
    assert_true(there <= count);
    if (there > 0)
        assert_memory_equal(file->data, bytes, there);
    if (there >= stripped(bytes, count))
        return;
    (void)snprintf(prefix, sizeof prefix, DIR "/%020u.torn-", segment);
    (void)snprintf(path, sizeof path, "%s%zu", prefix, there);
    file = memory_disk_find(&flipped, path);
    if (file == NULL)
        fail_msg("%s is missing", path);
    assert_true(file->stored >= stripped(bytes, count) - there);
    assert_memory_equal(file->data, bytes + there, stripped(bytes, count) - there);
}

/* Every segment as it was found is still there. */
static void assert_all_kept(unsigned segment, struct slice changed) {
    for (unsigned i = 0; i < 2; i++) {
        const struct memory_file *file = segment_file(&original, i);
        if (i == segment)
            assert_kept(i, changed.data, changed.len);
        else
            assert_kept(i, file->data, file->stored);
    }
}

/* Opens twice, looks, goes on. `changed` is the segment, changed at `at`. Returns whether that was
 * noticed. */
static bool is_noticed(unsigned segment, uint64_t at, struct slice changed) {
    struct record_log *log = NULL;
    struct log_recovery report;
    uint64_t found_hash = memory_disk_hash(&flipped);
    enum felix_err look = open_log(true, &log, &report);
    if (look == FELIX_OK) {
        (void)look_at_everything(log);
        record_log_abandon(log);
    }
    assert_true(memory_disk_hash(&flipped) == found_hash);

    assert_int_equal(open_log(false, &log, &report), look);
    if (look != FELIX_OK) {
        assert_true(memory_disk_hash(&flipped) == found_hash);
        return true;
    }
    uint64_t end = report.end, hash;
    bool moved = report.moved_bytes > 0;
    assert_true(end >= found.promised && end <= RECORDS);
    assert_true(end == RECORDS || moved);
    if (is_scanned_rot(segment, at))
        assert_int_not_equal(log_test_info(log).damage_count, 0);
    record_log_abandon(log);

    hash = memory_disk_hash(&flipped);
    assert_int_equal(open_log(false, &log, &report), FELIX_OK);
    assert_int_equal(report.end, end);
    assert_true(memory_disk_hash(&flipped) == hash);
    bool damaged = look_at_everything(log);
    assert_all_kept(segment, changed);
    log_test_put(log, end, 2, 1); /* into the same segment, if it has room */
    log_test_expect(log, end, end + 2, 100);
    record_log_abandon(log);

    assert_int_equal(open_log(false, &log, &report), FELIX_OK);
    assert_int_equal(report.end, end + 2);
    log_test_expect(log, end, end + 2, 100);
    record_log_abandon(log);
    return damaged || moved;
}

static bool is_opened(void) {
    struct record_log *log = NULL;
    if (open_log(true, &log, NULL) != FELIX_OK)
        return false;
    record_log_abandon(log);
    return true;
}

static void change(unsigned segment, uint64_t at, uint8_t bits) {
    memory_disk_copy(&flipped, &original);
    struct memory_file *file = segment_file(&flipped, segment);
    size_t count = (size_t)file->length;
    uint8_t *bytes = xmalloc(count);
    memory_file_read(file, bytes, count, 0);
    bytes[at] ^= bits;
    memory_file_write(file, slice_of(bytes + at, 1), at);
    if (is_opened() == is_refused(segment, at))
        fail_msg("segment %u, byte %" PRIu64 ", bits %02x: %s", segment, at, bits,
                 is_refused(segment, at) ? "was opened" : "was refused");
    if (is_noticed(segment, at, slice_of(bytes, count)) == says_nothing(at))
        fail_msg("segment %u, byte %" PRIu64 ", bits %02x: %s", segment, at, bits,
                 says_nothing(at) ? "says nothing, but was noticed" : "was not noticed");
    free(bytes);
}

/* One thread does it all, so ThreadSanitizer has little to find, and it is slow: one bit a byte. */
#if defined(__SANITIZE_THREAD__)
#define BIT_STEP 8u
#else
#define BIT_STEP 1u
#endif

static void change_every_byte(void) {
    make_log();
    for (unsigned segment = 0; segment < 2; segment++) {
        uint64_t bytes = segment_file(&original, segment)->length;
        for (uint64_t at = 0; at < bytes; at++) {
            for (unsigned bit = (unsigned)(at % BIT_STEP); bit < 8; bit += BIT_STEP)
                change(segment, at, (uint8_t)(1u << bit));
            if (BIT_STEP == 1)
                change(segment, at, 0xff);
        }
    }
}

/* Without a change there is nothing to notice: else the others would see what is always there. */
static void nothing_is_noticed_where_nothing_is_wrong(void **state) {
    (void)state;
    for (unsigned i = 0; i < 2 * CHECKPOINTS * 2; i++) {
        found = (struct found){.closed = i % 2 == 0, .checkpoint = i / 2 % 4, .indexed = i >= 8};
        make_log();
        memory_disk_copy(&flipped, &original);
        const struct memory_file *file = segment_file(&original, 1);
        assert_true(is_opened());
        assert_false(is_noticed(1, RESERVED_AT, slice_of(file->data, file->stored)));
    }
}

static void every_byte_of_a_closed_log_counts(void **state) {
    (void)state;
    for (unsigned i = 0; i < CHECKPOINTS * 2; i++) {
        found = (struct found){.closed = true, .checkpoint = i / 2, .indexed = i % 2 == 0};
        change_every_byte();
    }
}

static void every_byte_of_a_killed_log_counts(void **state) {
    (void)state;
    for (unsigned i = 0; i < CHECKPOINTS * 2; i++) {
        found = (struct found){.closed = false, .checkpoint = i / 2, .indexed = i % 2 == 0};
        change_every_byte();
    }
}

static int setup(void **state) {
    (void)state;
    memory_disk_init(&original);
    memory_disk_init(&flipped);
    disk = memory_disk_table(&flipped);
    settings = log_test_settings(LOG_SYNC_ON_COMMIT);
    settings.segment_bytes = 360;
    settings.index_spacing_bytes = 100;
    return 0;
}

static int teardown(void **state) {
    (void)state;
    size_t open = memory_disk_open_handles(&original) + memory_disk_open_handles(&flipped);
    memory_disk_deinit(&original);
    memory_disk_deinit(&flipped);
    return open != 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(nothing_is_noticed_where_nothing_is_wrong),
        TEST(every_byte_of_a_closed_log_counts),
        TEST(every_byte_of_a_killed_log_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
