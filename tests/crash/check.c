#include "check.h"

#include "storage/segment.h"
#include "storage/survey.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void checker_init(struct checker *checker) {
    *checker = (struct checker){0};
    memory_disk_init(&checker->disk);
}

void checker_deinit(struct checker *checker) {
    memory_disk_deinit(&checker->disk);
}

__attribute__((format(printf, 2, 3))) static bool fails(struct checker *checker, const char *format,
                                                        ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(checker->failure, sizeof checker->failure, format, args);
    va_end(args);
    return false;
}

/* Counts one more record into `found`; false when the log was never given it. */
static bool take(struct found *found, const struct oracle *oracle, uint64_t offset,
                 uint64_t timestamp_us, struct slice payload) {
    enum oracle_answer answer = oracle_ask(oracle, offset, timestamp_us, payload);
    if (answer == ORACLE_ACKNOWLEDGED && found->right_end == offset)
        found->right_end = offset + 1;
    return answer != ORACLE_UNKNOWN;
}

/* ---- through the log ---- */

static bool take_page(struct checker *checker, const struct log_page *page,
                      const struct oracle *oracle, struct found *found) {
    struct payload_cursor cursor = payload_walk(&page->list);
    struct slice payload;
    for (uint64_t i = 0; payload_next(&cursor, &payload); i++) {
        if (!take(found, oracle, page->first + i, page->timestamps[i], payload))
            return fails(checker, "read: record %" PRIu64 " (%zu bytes) was never appended there",
                         page->first + i, payload.len);
    }
    return true;
}

bool read_everything(struct checker *checker, struct record_log *log, const struct oracle *oracle,
                     struct found *ret) {
    struct record_log_info info;
    record_log_info(log, &info);
    *ret = (struct found){.oldest = info.oldest, .right_end = info.oldest};
    uint64_t next = info.oldest;
    for (;;) {
        struct log_page page;
        struct felix_error error;
        uint64_t available;
        enum felix_err err = record_log_read(log, next, 3000, &page, &available, &error);
        if (err != FELIX_OK)
            return fails(checker, "read at %" PRIu64 ": %s: %s", next, err_name(err), error.text);
        if (page.list.count == 0)
            break;
        bool good = page.first == next && take_page(checker, &page, oracle, ret);
        next = page.first + page.list.count;
        buf_unref(page.block);
        if (!good)
            return checker->failure[0] == '\0' ? fails(checker, "a page begins elsewhere") : false;
    }
    ret->end = next;
    if (next != info.committed_end)
        return fails(checker, "reads end at %" PRIu64 ", not at %" PRIu64, next,
                     info.committed_end);
    return true;
}

/* ---- in the files ---- */

/* The records of one segment file: contiguous, right, and nothing but zeros behind them. */
static bool scan_segment(struct checker *checker, const char *path, const struct oracle *oracle,
                         struct found *found) {
    struct memory_file *file = memory_disk_find(&checker->disk, path);
    /* A last record of zeros may not be stored. */
    static const uint8_t zeros[RECORD_HEADER_BYTES + ORACLE_PAYLOAD_MAX];
    uint64_t missing = file->length - file->stored;
    memory_file_write(file, slice_of(zeros, missing < sizeof zeros ? missing : sizeof zeros),
                      file->stored);
    struct slice bytes = slice_of(file->data, file->stored);
    struct segment_header header;
    if (segment_header_decode(bytes, &header) != SEGMENT_HEADER_OK)
        return fails(checker, "%s: no segment header", path);
    if (found->end == UINT64_MAX)
        *found = (struct found){header.base_offset, header.base_offset, header.base_offset};
    if (header.base_offset != found->end)
        return fails(checker, "%s begins at %" PRIu64 ", the one before ended at %" PRIu64, path,
                     header.base_offset, found->end);
    size_t at = SEGMENT_HEADER_BYTES;
    struct record record;
    size_t used;
    while (record_decode(slice_of(bytes.data + at, bytes.len - at), &record, &used) == RECORD_OK) {
        if (record.offset != found->end ||
            !take(found, oracle, record.offset, record.timestamp_us, record.payload))
            return fails(checker, "%s at %zu: record %" PRIu64 " where %" PRIu64 " belongs", path,
                         at, record.offset, found->end);
        found->end++;
        at += used;
    }
    for (; at < bytes.len; at++) {
        if (bytes.data[at] != 0)
            return fails(checker, "%s at %zu: neither a record nor zeros", path, at);
    }
    return true;
}

/* Every segment in the directory, in order of their ids. */
static bool scan_files(struct checker *checker, const struct oracle *oracle, struct found *found) {
    found->end = UINT64_MAX;
    uint64_t after = 0;
    for (;;) {
        uint64_t lowest = UINT64_MAX;
        const char *path = NULL;
        for (size_t i = 0; i < checker->disk.name_count; i++) {
            const char *name = checker->disk.names[i].path;
            uint64_t id;
            if (memory_path_parent(name) == strlen(CRASH_LOG_DIR) &&
                segment_name_parse(name + strlen(CRASH_LOG_DIR) + 1, "log", &id) && id >= after &&
                id < lowest) {
                lowest = id;
                path = name;
            }
        }
        if (path == NULL)
            return found->end != UINT64_MAX || fails(checker, "no segment is left");
        if (!scan_segment(checker, path, oracle, found))
            return false;
        after = lowest + 1;
    }
}

/* ---- a state ---- */

static struct record_log *open_log(struct checker *checker,
                                   const struct record_log_settings *settings) {
    /* What the table gives is a copy, which must outlive the log: one per checker will do. */
    static _Thread_local struct disk table;
    table = memory_disk_table(&checker->disk);
    struct record_log *log = NULL;
    struct felix_error error = {0};
    enum felix_err err =
        record_log_open(&table, CRASH_LOG_DIR, "crash", settings, &log, NULL, &error);
    if (err != FELIX_OK) {
        fails(checker, "does not open: %s: %s", err_name(err), error.text);
        return NULL;
    }
    return log;
}

static bool check_recovered(struct checker *checker, struct record_log *log,
                            const struct oracle *oracle, struct found *ret) {
    struct record_log_info info;
    record_log_info(log, &info);
    if (info.durable_end != info.written_end || info.committed_end != info.written_end)
        return fails(checker, "opened with ends %" PRIu64 " durable, %" PRIu64 " written",
                     info.durable_end, info.written_end);
    if (info.damage_count != 0)
        return fails(checker, "reports damage at %" PRIu64, info.damage[0].first);
    if (!read_everything(checker, log, oracle, ret))
        return false;
    struct found files = {0};
    if (!scan_files(checker, oracle, &files))
        return false;
    if (files.oldest != ret->oldest || files.end != ret->end || files.right_end != ret->right_end)
        return fails(checker,
                     "files hold %" PRIu64 " to %" PRIu64 ", reads give %" PRIu64 " to %" PRIu64,
                     files.oldest, files.end, ret->oldest, ret->end);
    return true;
}

/* Is the record at `offset` this one, of the time 77? */
static bool holds(struct record_log *log, uint64_t offset, struct slice expected) {
    struct log_page page;
    uint64_t available;
    struct felix_error error;
    if (record_log_read(log, offset, 100, &page, &available, &error) != FELIX_OK)
        return false;
    struct payload_cursor cursor = payload_walk(&page.list);
    struct slice payload;
    bool same = page.first == offset && payload_next(&cursor, &payload) &&
                slice_equal(payload, expected) && page.timestamps[0] == 77;
    buf_unref(page.block);
    return same;
}

/* Appends a batch, syncs it, closes in order, and finds it after opening again. */
static bool check_goes_on(struct checker *checker, struct record_log *log,
                          const struct record_log_settings *settings, uint64_t end) {
    struct payload_list list;
    static const uint8_t batch[] = {0, 0, 0, 2, 0, 0, 0, 1, 'x', 0, 0, 0, 2, 'y', 'z'};
    struct felix_error error = {0};
    enum felix_err err = payload_list_decode(slice_of(batch, sizeof batch), &list);
    if (err == FELIX_OK)
        err = record_log_append(log, end, 77, &list, &error);
    if (err == FELIX_OK)
        err = record_log_write(log, &error);
    if (err == FELIX_OK)
        err = record_log_sync(log, &error);
    struct record_log_info info;
    record_log_info(log, &info);
    enum felix_err closed = record_log_close(log);
    if (err != FELIX_OK || closed != FELIX_OK || info.durable_end != end + 2)
        return fails(checker, "does not go on: %s, %s, close %s, durable end %" PRIu64,
                     err_name(err), error.text, err_name(closed), info.durable_end);
    log = open_log(checker, settings);
    if (log == NULL)
        return false;
    record_log_info(log, &info);
    bool good = info.durable_end == end + 2 && holds(log, end, slice_str("x")) &&
                holds(log, end + 1, slice_str("yz"));
    record_log_abandon(log);
    return good || fails(checker, "what was appended after recovery is not found again");
}

/* What the tools say of the state before anything opens it: no damage, because nothing was damaged,
 * and the records that opening finds. They share no decision with recovery, so each checks the
 * other. */
static bool survey_state(struct checker *checker, struct found *ret) {
    struct disk table = memory_disk_table(&checker->disk);
    struct survey survey;
    struct felix_error error = {0};
    uint64_t before = memory_disk_hash(&checker->disk);
    enum felix_err err = survey_log(&table, CRASH_LOG_DIR, NULL, &survey, &error);
    if (err == FELIX_NOT_FOUND) {
        *ret = (struct found){0};
        return true;
    }
    if (err != FELIX_OK)
        return fails(checker, "a survey fails: %s: %s", err_name(err), error.text);
    *ret = (struct found){.oldest = survey.oldest, .end = survey.end};
    bool good = survey.damage_count == 0;
    if (!good)
        fails(checker, "a survey finds damage: %s, records %" PRIu64 " to %" PRIu64,
              survey.damage[0].what, survey.damage[0].first, survey.damage[0].end);
    survey_deinit(&survey);
    if (good && memory_disk_hash(&checker->disk) != before)
        return fails(checker, "a survey changed bytes");
    return good;
}

bool crash_check(struct checker *checker, const struct memory_disk *state,
                 const struct record_log_settings *settings, const struct oracle *oracle,
                 struct found *ret) {
    checker->failure[0] = '\0';
    memory_disk_copy(&checker->disk, state);
    struct found seen;
    if (!survey_state(checker, &seen))
        return false;
    struct record_log *log = open_log(checker, settings);
    if (log == NULL)
        return false;
    bool good = check_recovered(checker, log, oracle, ret);
    record_log_abandon(log);
    if (!good)
        return false;
    if (seen.oldest != ret->oldest || seen.end != ret->end)
        return fails(checker,
                     "a survey saw %" PRIu64 " to %" PRIu64 ", opening found %" PRIu64
                     " to %" PRIu64,
                     seen.oldest, seen.end, ret->oldest, ret->end);
    uint64_t hash = memory_disk_hash(&checker->disk);
    log = open_log(checker, settings);
    if (log == NULL)
        return false;
    if (memory_disk_hash(&checker->disk) != hash) {
        record_log_abandon(log);
        return fails(checker, "opening it a second time changed bytes");
    }
    if (!check_goes_on(checker, log, settings, ret->end))
        return false;
    return memory_disk_open_handles(&checker->disk) == 0 || fails(checker, "left files open");
}

bool promise_kept(struct checker *checker, const struct found *found,
                  const struct promise *promise) {
    if (found->right_end < promise->acknowledged)
        return fails(checker,
                     "acknowledged below %" PRIu64 ", right only below %" PRIu64
                     " (ends at %" PRIu64 ")",
                     promise->acknowledged, found->right_end, found->end);
    if (found->oldest > promise->oldest)
        return fails(checker, "oldest is %" PRIu64 ", retention took only what is below %" PRIu64,
                     found->oldest, promise->oldest);
    return true;
}

/* Is `file` the bytes of `from` at `position`, as many as it has? */
static bool is_part_of(const struct memory_file *file, const struct memory_file *from,
                       uint64_t position) {
    for (uint64_t at = 0; at < file->length; at += 256) {
        uint8_t kept[256];
        uint8_t cut[256];
        size_t bytes = file->length - at < 256 ? (size_t)(file->length - at) : 256;
        memory_file_read(file, kept, bytes, at);
        memory_file_read(from, cut, bytes, position + at);
        if (memcmp(kept, cut, bytes) != 0)
            return false;
    }
    return file->length > 0;
}

bool torn_bytes_kept(struct checker *checker, const struct memory_disk *before,
                     const struct memory_disk *state) {
    static const char mark[] = ".torn-";
    for (size_t i = 0; i < state->name_count; i++) {
        const char *path = state->names[i].path;
        const char *torn = strstr(path, mark);
        char *end;
        uint64_t position = torn == NULL ? 0 : strtoull(torn + sizeof mark - 1, &end, 10);
        if (torn == NULL || *end != '\0' || memory_disk_find(before, path) != NULL)
            continue;
        char segment[MEMORY_PATH_BYTES];
        snprintf(segment, sizeof segment, "%.*s.log", (int)(torn - path), path);
        const struct memory_file *from = memory_disk_find(before, segment);
        if (from != NULL && !is_part_of(memory_disk_find(state, path), from, position))
            return fails(checker, "%s does not hold what was cut off", path);
    }
    return true;
}
