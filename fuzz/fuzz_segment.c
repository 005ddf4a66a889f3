/*
 * Bytes as a segment file of a log, on a disk in memory: opened read-only, opened twice, read from
 * end to end, verified and continued.
 *
 * Random bytes never come past a checksum, so the first bytes of the input say what is put right
 * in the rest before it becomes a file (struct plan): the header, the records up to some place, a
 * checkpoint, an index, another segment before or behind it. After that, one byte may rot. What
 * must hold whatever they say:
 *
 *   - opening succeeds or refuses with FELIX_DAMAGED, with a checkpoint of ours it succeeds;
 * looking changes nothing on the disk
 *   - every record that is given out lies in the file as a good record of that offset
 *   - the records that were put right are all there in front of the byte that rots, and behind it
 *     when that is in a payload; those below a checkpoint are there or reported
 *   - nothing but zeros and records that end behind their file is thrown away
 *   - opening again leaves the same bytes and tells the same end
 *   - the log goes on: what is appended is read back, also after closing and opening
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/cursor.h"
#include "storage/checkpoint.h"
#include "storage/record_log.h"
#include "storage/segment.h"
#include "support/memory_disk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define DIR "l"
#define PLAN_BYTES 6u
#define INDEX_BYTES 56u
#define RECORDS_MAX 4096u

enum plan_bits {
    PLAN_HEADER = 1,         /* the segment's header is put right, with base offset 0 */
    PLAN_CHECKPOINT = 2,     /* at a record that was put right */
    PLAN_REPAIR = 4,         /* settings.repair_checksum_tail */
    PLAN_BEHIND = 8,         /* a good segment of three records lies behind it */
    PLAN_BEFORE = 16,        /* and one before it: the base offset is 3 */
    PLAN_INDEX = 32,         /* the last bytes of the input are its index */
    PLAN_VERIFY = 64,        /* settings.verify_all_on_open */
    PLAN_TAKE_LENGTHS = 128, /* records are as long as the bytes say, else up to 255 */
};

struct plan {
    uint8_t bits;
    uint16_t right_bytes;  /* records that begin below this are put right */
    uint8_t checkpoint_at; /* number of the record in front of which it stands */
    uint16_t rot_at;       /* the byte there is changed when all is made; 0: none */
    uint64_t base;
    uint8_t *file;
    size_t bytes;
    struct slice index;
    unsigned right;                      /* records that were put right, all of them good */
    uint64_t positions[RECORDS_MAX + 1]; /* of these, and where they end */
};

static struct memory_disk memory;
static struct disk disk;
static struct plan plan;

/* ---- making the files ---- */

static void put_header(uint8_t *out, uint64_t base) {
    struct segment_header header = {.base_offset = base, .created_us = 7};
    segment_header_encode(&header, out);
}

/* Puts one record right; returns its end, 0 if it does not fit. */
static size_t put_right(size_t at, uint64_t offset) {
    if (plan.bytes - at < RECORD_HEADER_BYTES)
        return 0;
    size_t payload_bytes = be32_load(plan.file + at);
    if (!(plan.bits & PLAN_TAKE_LENGTHS))
        payload_bytes &= 255;
    if (payload_bytes > plan.bytes - at - RECORD_HEADER_BYTES)
        return 0;
    uint64_t timestamp_us = be64_load(plan.file + at + 12);
    struct slice payload = slice_of(plan.file + at + RECORD_HEADER_BYTES, payload_bytes);
    record_header_encode(offset, timestamp_us, payload, plan.file + at);
    return at + RECORD_HEADER_BYTES + payload_bytes;
}

static void put_records_right(void) {
    size_t at = SEGMENT_HEADER_BYTES;
    while (at < plan.right_bytes && plan.right < RECORDS_MAX) {
        plan.positions[plan.right] = at;
        size_t end = put_right(at, plan.base + plan.right);
        if (end == 0)
            return;
        at = end;
        plan.positions[++plan.right] = at;
    }
}

static void make_plan(const uint8_t *data, size_t size) {
    plan.bits = data[0];
    plan.right_bytes = be16_load(data + 1);
    plan.checkpoint_at = data[3];
    plan.rot_at = be16_load(data + 4);
    plan.base = plan.bits & PLAN_BEFORE ? 3 : 0;
    plan.right = 0;
    data += PLAN_BYTES;
    size -= PLAN_BYTES;
    plan.index = slice_of(data, 0);
    if ((plan.bits & PLAN_INDEX) && size >= INDEX_BYTES) {
        size -= INDEX_BYTES;
        plan.index = slice_of(data + size, INDEX_BYTES);
    }
    plan.file = xmalloc(size + 1);
    plan.bytes = size;
    memcpy(plan.file, data, size);
    plan.positions[0] = SEGMENT_HEADER_BYTES;
    if (!(plan.bits & PLAN_HEADER) || size < SEGMENT_HEADER_BYTES)
        return;
    put_header(plan.file, plan.base);
    put_records_right();
}

/* A segment of three records that nobody has touched. */
static void add_good_segment(unsigned id, uint64_t base) {
    uint8_t bytes[SEGMENT_HEADER_BYTES + 3 * (RECORD_HEADER_BYTES + 5)];
    char path[64];
    put_header(bytes, base);
    uint8_t *at = bytes + SEGMENT_HEADER_BYTES;
    for (uint64_t offset = base; offset < base + 3; offset++) {
        memcpy(at + RECORD_HEADER_BYTES, "felix", 5);
        record_header_encode(offset, 1, slice_of(at + RECORD_HEADER_BYTES, 5), at);
        at += RECORD_HEADER_BYTES + 5;
    }
    (void)snprintf(path, sizeof path, DIR "/%020u.log", id);
    (void)memory_disk_add_file(&memory, path, slice_of(bytes, sizeof bytes), sizeof bytes);
}

/* Where the checkpoint of the plan stands. */
static unsigned checkpoint_records(void) {
    return plan.checkpoint_at < plan.right ? plan.checkpoint_at : plan.right;
}

static bool has_checkpoint(void) {
    return (plan.bits & PLAN_CHECKPOINT) && plan.right > 0;
}

static void add_checkpoint(uint64_t segment) {
    struct checkpoint checkpoint = {.disk = &disk, .file = -1};
    struct log_mark mark = {
        .offset = plan.base + checkpoint_records(),
        .segment = segment,
        .position = plan.positions[checkpoint_records()],
    };
    INVARIANT(checkpoint_create(&checkpoint, DIR, mark) == 0);
    checkpoint_close(&checkpoint);
}

/* The number of the file's segment. */
static unsigned file_id(void) {
    return plan.bits & PLAN_BEFORE ? 1 : 0;
}

static void make_files(void) {
    char path[64];
    unsigned id = file_id();
    memory_disk_reset(&memory);
    memory_disk_add_dir(&memory, DIR);
    if (plan.bits & PLAN_BEFORE)
        add_good_segment(0, 0);
    if (plan.rot_at >= SEGMENT_HEADER_BYTES && plan.rot_at < plan.bytes)
        plan.file[plan.rot_at] ^= 0x20;
    (void)snprintf(path, sizeof path, DIR "/%020u.log", id);
    (void)memory_disk_add_file(&memory, path, slice_of(plan.file, plan.bytes), plan.bytes);
    if (plan.index.len != 0) {
        (void)snprintf(path, sizeof path, DIR "/%020u.index", id);
        (void)memory_disk_add_file(&memory, path, plan.index, plan.index.len);
    }
    if (plan.bits & PLAN_BEHIND)
        add_good_segment(id + 1, plan.base + plan.right);
    if (has_checkpoint())
        add_checkpoint(id);
}

/* ---- what must hold ---- */

static struct record_log *open_log(bool read_only, struct log_recovery *report) {
    struct record_log_settings settings = {
        .sync = LOG_SYNC_ON_COMMIT,
        .segment_bytes = 4096,
        .index_spacing_bytes = 64,
        .read_records_max = 50,
        .set_length_ahead = true,
        .verify_all_on_open = (plan.bits & PLAN_VERIFY) != 0,
        .repair_checksum_tail = (plan.bits & PLAN_REPAIR) != 0,
    };
    struct record_log *log = NULL;
    struct felix_error error;
    enum felix_err err =
        read_only ? record_log_open_read_only(&disk, DIR, "t/n/s", &settings, &log, report, &error)
                  : record_log_open(&disk, DIR, "t/n/s", &settings, &log, report, &error);
    if (err != FELIX_OK) {
        INVARIANT(err == FELIX_DAMAGED || (read_only && err == FELIX_NOT_FOUND));
        INVARIANT(memory_disk_open_handles(&memory) == 0);
        return NULL;
    }
    INVARIANT(report->oldest <= report->end);
    return log;
}

static struct record_log_info info_of(struct record_log *log) {
    struct record_log_info info;
    record_log_info(log, &info);
    return info;
}

/* Is there a good record like this one in the file that we made? */
static bool lies_in_file(uint64_t offset, uint64_t timestamp_us, struct slice payload) {
    uint8_t header[RECORD_HEADER_BYTES];
    record_header_encode(offset, timestamp_us, payload, header);
    size_t wanted = RECORD_HEADER_BYTES + payload.len;
    const uint8_t *at = plan.file, *end = plan.file + plan.bytes;
    while ((size_t)(end - at) >= wanted) {
        at = memmem(at, (size_t)(end - at), header, sizeof header);
        if (at == NULL || (size_t)(end - at) < wanted)
            return false;
        if (payload.len == 0 || memcmp(at + RECORD_HEADER_BYTES, payload.data, payload.len) == 0)
            return true;
        at++;
    }
    return false;
}

/* Offsets of the segments that we put beside the file, whose records are all alike. */
static bool is_ours(uint64_t offset, struct slice payload) {
    uint64_t behind = plan.base + plan.right;
    bool in_before = (plan.bits & PLAN_BEFORE) && offset < 3;
    bool in_behind = (plan.bits & PLAN_BEHIND) && offset >= behind && offset < behind + 3;
    return (in_before || in_behind) && slice_is(payload, "felix");
}

static void check_page(const struct log_page *page, uint64_t offset) {
    struct payload_list list;
    INVARIANT(page->first == offset && page->headroom >= LOG_PAGE_HEADROOM);
    INVARIANT(payload_list_decode(page->list.bytes, &list) == FELIX_OK);
    INVARIANT(list.count == page->list.count && list.bytes.len == page->list.bytes.len);
    struct payload_cursor cursor = payload_walk(&page->list);
    struct slice payload;
    for (uint32_t i = 0; payload_next(&cursor, &payload); i++)
        INVARIANT(lies_in_file(offset + i, page->timestamps[i], payload) ||
                  is_ours(offset + i, payload));
}

/* The record that rots, among those that were put right; else their number. */
static unsigned rotten(void) {
    unsigned number = 0;
    if (plan.rot_at < SEGMENT_HEADER_BYTES || plan.rot_at >= plan.positions[plan.right])
        return plan.right;
    while (plan.positions[number + 1] <= plan.rot_at)
        number++;
    return number;
}

/* Was it put right, and is it still? */
static bool must_be_readable(uint64_t offset) {
    if (offset < plan.base || offset >= plan.base + plan.right)
        return false;
    unsigned bad = rotten();
    uint64_t number = offset - plan.base;
    bool in_payload = bad < plan.right && plan.rot_at >= plan.positions[bad] + RECORD_HEADER_BYTES;
    return number < bad || (number > bad && in_payload);
}

/* Reads all there is; returns how many records cannot be read. */
static uint64_t read_all(struct record_log *log, size_t page_bytes) {
    struct record_log_info info = info_of(log);
    uint64_t lost = 0, offset = info.oldest;
    while (offset < info.committed_end) {
        struct log_page page;
        uint64_t available = 0;
        enum felix_err err = record_log_read(log, offset, page_bytes, &page, &available, NULL);
        if (err == FELIX_OK) {
            INVARIANT(page.list.count > 0 && page.list.count <= info.committed_end - offset);
            check_page(&page, offset);
            offset += page.list.count;
            buf_unref(page.block);
            continue;
        }
        INVARIANT(err == FELIX_DAMAGED && page.block == NULL);
        INVARIANT(available > offset && available <= info.committed_end);
        for (uint64_t at = offset; at < available && at < offset + RECORDS_MAX; at++)
            INVARIANT(!must_be_readable(at));
        lost += available - offset;
        offset = available;
    }
    return lost;
}

static void check_reading(struct record_log *log) {
    uint64_t lost = read_all(log, 100);
    INVARIANT(read_all(log, 1 << 20) == lost);
    bool more = true;
    for (unsigned i = 0; more; i++) {
        INVARIANT(i < 4);
        INVARIANT(record_log_verify_next(log, &more, NULL) == FELIX_OK);
    }
    INVARIANT(read_all(log, 1) == lost);
    if (lost > 0)
        INVARIANT(info_of(log).damage_count > 0);
}

static void append(struct record_log *log, uint64_t offset) {
    static const uint8_t bytes[] = {0, 0, 0, 2, 0, 0, 0, 1, 'a', 0, 0, 0, 0};
    struct payload_list list = {
        .bytes = slice_of(bytes, sizeof bytes), .count = 2, .payload_bytes = 1};
    INVARIANT(record_log_append(log, offset, 9, &list, NULL) == FELIX_OK);
    INVARIANT(record_log_write(log, NULL) == FELIX_OK);
    INVARIANT(record_log_sync(log, NULL) == FELIX_OK);
}

static void check_appended(struct record_log *log, uint64_t offset) {
    struct log_page page;
    uint64_t available;
    INVARIANT(record_log_read(log, offset, 100, &page, &available, NULL) == FELIX_OK);
    INVARIANT(page.list.count == 2 && page.list.payload_bytes == 1);
    INVARIANT(page.timestamps[0] == 9 && page.timestamps[1] == 9);
    buf_unref(page.block);
    INVARIANT(info_of(log).committed_end == offset + 2);
}

/* The log goes on at `end`, and after it was closed in order, too. */
static void check_going_on(struct record_log *log, uint64_t end) {
    struct log_recovery report;
    append(log, end);
    check_appended(log, end);
    INVARIANT(record_log_close(log) == FELIX_OK);
    log = open_log(false, &report);
    INVARIANT(log != NULL && report.end == end + 2 && report.clean);
    INVARIANT(report.cut_bytes == 0 && report.moved_bytes == 0);
    check_appended(log, end);
    record_log_abandon(log);
}

/* Returns whether the log can be opened to be read. */
static bool look_only(uint64_t *ret_end) {
    struct log_recovery report;
    uint64_t hash = memory_disk_hash(&memory);
    struct record_log *log = open_log(true, &report);
    if (log != NULL) {
        check_reading(log);
        record_log_abandon(log);
    }
    INVARIANT(memory_disk_hash(&memory) == hash);
    *ret_end = report.end;
    return log != NULL;
}

static void check_opened(struct record_log *log, const struct log_recovery *report) {
    struct record_log_info info = info_of(log);
    INVARIANT(info.oldest == report->oldest && info.written_end == report->end);
    INVARIANT(info.committed_end == report->end && info.durable_end == report->end);
    INVARIANT(!info.failed && info.segments == report->segments && info.segments > 0);
    if (has_checkpoint())
        INVARIANT(report->end >= plan.base + checkpoint_records());
    if (plan.right > 0)
        INVARIANT(report->end >= plan.base + rotten());
}

/* Is this what an unfinished write leaves? */
static bool is_unfinished(struct slice rest) {
    struct record record;
    size_t taken;
    while (rest.len > 0 && rest.data[rest.len - 1] == 0)
        rest.len--;
    if (rest.len < RECORD_HEADER_BYTES)
        return true;
    return record_decode(rest, &record, &taken) == RECORD_TRUNCATED;
}

/* What the file has lost lies beside it. */
static void check_kept(void) {
    char path[96];
    (void)snprintf(path, sizeof path, DIR "/%020u.log", file_id());
    const struct memory_file *file = memory_disk_find(&memory, path);
    size_t there = file != NULL ? (size_t)file->length : 0;
    if (there > plan.bytes || (there > 0 && memcmp(file->data, plan.file, file->stored) != 0)) {
        INVARIANT(there == SEGMENT_HEADER_BYTES); /* another one, and empty */
        there = 0;
    }
    struct slice rest = slice_of(plan.file + there, plan.bytes - there);
    bool leftover_of_roll = there == 0 && plan.bytes <= SEGMENT_HEADER_BYTES;
    if (leftover_of_roll || is_unfinished(rest))
        return;
    (void)snprintf(path, sizeof path, DIR "/%020u.torn-%zu", file_id(), there);
    file = memory_disk_find(&memory, path);
    INVARIANT(file != NULL && file->stored <= rest.len);
    INVARIANT(file->stored > 0 && memcmp(file->data, rest.data, file->stored) == 0);
    for (size_t i = file->stored; i < rest.len; i++)
        INVARIANT(rest.data[i] == 0);
}

static void check_log(void) {
    struct log_recovery report, again;
    uint64_t end;
    bool readable = look_only(&end);
    struct record_log *log = open_log(false, &report);
    if (log == NULL) {
        INVARIANT(!readable && !has_checkpoint());
        return;
    }
    INVARIANT(!readable || end == report.end);
    check_opened(log, &report);
    record_log_abandon(log);

    uint64_t hash = memory_disk_hash(&memory);
    log = open_log(false, &again);
    INVARIANT(log != NULL && again.end == report.end && again.oldest == report.oldest);
    INVARIANT(again.cut_bytes == 0 && again.moved_bytes == 0 && again.removed_segments == 0);
    INVARIANT(memory_disk_hash(&memory) == hash);
    check_kept();
    check_reading(log);
    check_going_on(log, report.end);
    INVARIANT(memory_disk_open_handles(&memory) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < PLAN_BYTES)
        return 0;
    if (disk.ops == NULL) {
        memory_disk_init(&memory);
        disk = memory_disk_table(&memory);
    }
    make_plan(data, size);
    make_files();
    check_log();
    free(plan.file);
    return 0;
}
