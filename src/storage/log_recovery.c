/*
 * Recovery. The happy path: the segments' headers make a chain, the newest segment is scanned from
 * its beginning, its records end where the file ends or where only zeros follow, and the writer
 * goes on there.
 *
 * The checkpoint names a segment and a position below which everything was on disk. Segments
 * before it are trusted by their headers; it and the later ones (as many as were full but not
 * flushed yet) are scanned. What is wrong below the checkpoint is rot: remembered as damage, read
 * around, left alone. What is wrong at or above it is an unfinished write: nothing behind it was
 * acknowledged as flushed, so it is cut, later segments too. Before something is cut that is not
 * plainly unfinished, it is put aside (log_torn.c).
 *
 * When that leaves rot in the newest segment, the log goes on in another one. Behind a bad record
 * nothing but the checkpoint tells where the next one is, and once that has moved on, what is
 * appended to the same file could not be reached any more.
 *
 * A directory without a checkpoint comes from the original, which flushes a segment before it
 * begins the next: only its newest can have an unfinished write, by the rules of the broker
 * specification 6.9, and where these see no certainty we refuse.
 *
 * Every change is one that the next recovery would make as well, newest file first, so that a
 * crash in between leaves a directory that is recovered to the same bytes.
 */
#include "storage/log_recovery.h"
#include "storage/segment_scan.h"

#include <errno.h>
#include <stdlib.h>

enum felix_err log_damaged(const struct record_log *log, struct felix_error *reterr, uint64_t id,
                           uint64_t position, const char *rule) {
    return error_set(reterr, FELIX_DAMAGED, 0, "log %s: segment %llu, byte %llu: %s", log->name,
                     (unsigned long long)id, (unsigned long long)position, rule);
}

/* 0 or negative errno. */
static int open_file(const struct record_log *log, struct segment *segment) {
    char path[PATH_MAX];
    if (!segment_path(log->dir, segment->id, "log", path))
        return -ENAMETOOLONG;
    segment->file =
        log->disk->ops->open(log->disk->context, path, log->read_only ? DISK_READ : DISK_WRITE);
    return segment->file < 0 ? segment->file : 0;
}

static void close_file(const struct record_log *log, struct segment *segment) {
    (void)log->disk->ops->close(log->disk->context, segment->file);
    segment->file = -1;
}

/* A sealed segment without a good header: its first record tells where it begins. False: that is
 * not good either. */
static enum felix_err base_from_record(struct recovery *recovery, struct found_segment *found,
                                       bool *ret_known, struct felix_error *reterr) {
    struct record_log *log = recovery->log;
    struct segment segment = {.id = found->id, .file = -1};
    int err = open_file(log, &segment);
    if (err != 0)
        return log_segment_error(log, reterr, "open", found->id, err);
    struct segment_scan scan;
    bool memory =
        segment_scan_init(&scan, log->disk, segment.file, SEGMENT_HEADER_BYTES, found->bytes, 0);
    struct scan_result first = {.step = SCAN_ERROR};
    if (memory)
        first = segment_scan_next(&scan);
    segment_scan_deinit(&scan);
    close_file(log, &segment);
    if (!memory)
        return log_no_memory(reterr);
    if (first.step == SCAN_ERROR)
        return log_segment_error(log, reterr, "read", found->id, first.error);
    *ret_known = first.step == SCAN_RECORD || first.fault == RECORD_OUT_OF_ORDER;
    found->header = (struct segment_header){.base_offset = first.record.offset};
    return FELIX_OK;
}

/* Damage in the header of a segment that was flushed long ago. Its records stay in use if their
 * offsets are known, else the file is left alone. */
static enum felix_err repair_bases(struct recovery *recovery, struct felix_error *reterr) {
    struct found_segments *found = &recovery->found;
    size_t kept = 0;
    for (size_t i = 0; i < found->count; i++) {
        struct found_segment *item = &found->items[i];
        bool known = item->fault == SEGMENT_HEADER_OK;
        if (item->foreign)
            return log_damaged(recovery->log, reterr, item->id, 0,
                               segment_header_fault_text(item->fault));
        if (!known) {
            enum felix_err err = base_from_record(recovery, item, &known, reterr);
            if (err != FELIX_OK)
                return err;
            /* Without a base, up to the next segment: the newest one's header is good. */
            uint64_t next = found->items[i + 1].header.base_offset;
            struct log_damage damage = {
                .first = known ? item->header.base_offset : next,
                .end = known ? item->header.base_offset : next,
                .segment = item->id,
                .fault = RECORD_BAD_HEADER,
            };
            log_note_damage(recovery->log, &damage);
        }
        if (known)
            found->items[kept++] = *item;
    }
    found->count = kept;
    return FELIX_OK;
}

/* The list of the log: every segment as if it were full and flushed. */
static enum felix_err make_list(struct recovery *recovery, struct felix_error *reterr) {
    struct record_log *log = recovery->log;
    const struct found_segments *found = &recovery->found;
    if (!log_reserve(log, found->count + 1))
        return log_no_memory(reterr);
    for (size_t i = 0; i < found->count; i++) {
        const struct found_segment *item = &found->items[i];
        uint64_t base = item->header.base_offset;
        bool newest = i + 1 == found->count;
        uint64_t end = newest ? base : found->items[i + 1].header.base_offset;
        if (end < base)
            return log_damaged(log, reterr, found->items[i + 1].id, 0,
                               "the segment begins before the one in front of it");
        struct segment *segment = segment_new(item->id, base, log->settings.index_spacing_bytes);
        if (segment == NULL)
            return log_no_memory(reterr);
        segment->end = end;
        segment->bytes = item->bytes;
        segment->created_us = item->header.created_us;
        segment->sealed = segment->flushed = segment->entry_synced = true;
        log->segments[log->segment_count++] = segment;
    }
    return FELIX_OK;
}

/* The first segment to scan. */
static size_t scan_start(const struct recovery *recovery) {
    const struct record_log *log = recovery->log;
    size_t newest = log->segment_count - 1;
    if (recovery->checkpointed) {
        for (size_t i = 0; i < newest; i++) {
            if (log->segments[i]->id >= recovery->mark.segment)
                return i;
        }
        return newest;
    }
    /* An empty one is either a completed roll or the leftover of one: that is for the segment
     * before it to say. */
    bool empty = log->segments[newest]->bytes <= SEGMENT_HEADER_BYTES;
    return empty && newest > 0 ? newest - 1 : newest;
}

/* Everything behind the segment at `at` is behind a hole, and goes. */
static enum felix_err drop_behind(struct recovery *recovery, size_t at,
                                  struct felix_error *reterr) {
    struct record_log *log = recovery->log;
    while (log->segment_count > at + 1) {
        struct segment *newest = log_newest(log);
        enum felix_err err = log_drop_newest(recovery, reterr);
        if (err != FELIX_OK)
            return err;
        log->segment_count--;
        segment_free(newest, log->disk);
    }
    return FELIX_OK;
}

/* A full segment of which all records are there: finish what sealing it did not get to. */
static enum felix_err finish_sealed(struct recovery *recovery, struct segment *segment,
                                    const struct log_tail *tail, struct felix_error *reterr) {
    struct record_log *log = recovery->log;
    const struct disk *disk = log->disk;
    segment->bytes = tail->position;
    segment->verified = true;
    segment->index_loaded = true;
    segment->last_timestamp_known = tail->offset > segment->base;
    if (!log->read_only) {
        int err = 0;
        if (tail->file_bytes != tail->position)
            err = disk->ops->truncate(disk->context, segment->file, tail->position);
        if (err == 0)
            err = disk->ops->sync(disk->context, segment->file);
        if (err != 0)
            return log_segment_error(log, reterr, "finish", segment->id, err);
        char path[PATH_MAX];
        if (segment_path(log->dir, segment->id, "index", path))
            (void)log_index_save(&segment->index, disk, path);
    }
    close_file(log, segment);
    return FELIX_OK;
}

/* Scan from `at` to the newest segment, or up to a hole, which makes another one the newest. */
static enum felix_err scan_segments(struct recovery *recovery, size_t at, struct log_tail *ret,
                                    struct felix_error *reterr) {
    struct record_log *log = recovery->log;
    for (;; at++) {
        struct segment *segment = log->segments[at];
        int opened = open_file(log, segment);
        if (opened != 0)
            return log_segment_error(log, reterr, "open", segment->id, opened);
        enum felix_err err = log_scan_tail(recovery, segment, segment->bytes, ret, reterr);
        if (err != FELIX_OK)
            return err;
        if (at + 1 == log->segment_count)
            return FELIX_OK;
        bool whole = ret->offset == segment->end && ret->fault == RECORD_OK;
        err = whole ? finish_sealed(recovery, segment, ret, reterr)
                    : drop_behind(recovery, at, reterr);
        if (err != FELIX_OK || !whole)
            return err;
    }
}

/* The newest segment is the writer's from here on. */
static enum felix_err finish_newest(struct recovery *recovery, const struct log_tail *tail,
                                    struct felix_error *reterr) {
    struct record_log *log = recovery->log;
    const struct disk *disk = log->disk;
    struct segment *segment = log_newest(log);
    enum felix_err err = log_cut_tail(recovery, segment, tail, reterr);
    if (err != FELIX_OK)
        return err;
    segment->sealed = segment->flushed = false;
    segment->verified = segment->index_loaded = true;
    segment->last_timestamp_known = false;
    segment->end = tail->offset;
    segment->bytes = tail->position;
    segment->pins = 1;
    log->written = (struct log_mark){
        .offset = tail->offset, .segment = segment->id, .position = tail->position};
    if (log->read_only)
        return FELIX_OK;
    /* A process that was killed left it to the system, which may not have written it yet. */
    int failed = disk->ops->sync(disk->context, segment->file);
    if (failed != 0)
        return log_segment_error(log, reterr, "flush", segment->id, failed);
    failed = disk->ops->sync_dir(disk->context, log->dir);
    return failed != 0 ? log_disk_error(reterr, "flush the folder", log->dir, failed) : FELIX_OK;
}

/* Another newest segment, empty, behind the one that `tail` is of. */
static enum felix_err leave_rotten(struct recovery *recovery, const struct log_tail *tail,
                                   struct felix_error *reterr) {
    struct record_log *log = recovery->log;
    struct segment *rotten = log_newest(log), *next;
    enum felix_err err = finish_sealed(recovery, rotten, tail, reterr);
    if (err != FELIX_OK)
        return err;
    if (!log_reserve(log, 1))
        return log_no_memory(reterr);
    err = log_create_segment(log, rotten->id + 1, tail->offset, 0, &next, reterr);
    if (err != FELIX_OK)
        return err;
    rotten->sealed = rotten->flushed = true;
    rotten->pins = 0;
    log->segments[log->segment_count++] = next;
    next->entry_synced = true;
    log->written = (struct log_mark){
        .offset = tail->offset, .segment = next->id, .position = SEGMENT_HEADER_BYTES};
    int failed = log->disk->ops->sync(log->disk->context, next->file);
    if (failed != 0)
        return log_segment_error(log, reterr, "flush", next->id, failed);
    failed = log->disk->ops->sync_dir(log->disk->context, log->dir);
    return failed != 0 ? log_disk_error(reterr, "flush the folder", log->dir, failed) : FELIX_OK;
}

static enum felix_err create_first(struct recovery *recovery, struct felix_error *reterr) {
    struct record_log *log = recovery->log;
    const struct disk *disk = log->disk;
    struct log_mark mark = {.position = SEGMENT_HEADER_BYTES};
    if (recovery->checkpointed)
        mark = recovery->mark;
    if (mark.position > SEGMENT_HEADER_BYTES)
        return log_damaged(log, reterr, mark.segment, 0, "the segment's file is missing");
    log->written = mark;
    if (log->read_only)
        return error_set(reterr, FELIX_NOT_FOUND, 0, "log %s: there is no segment in %s", log->name,
                         log->dir);
    /* The checkpoint first: with a segment but without one, a directory is not one of ours. */
    if (!recovery->checkpointed) {
        int failed = checkpoint_create(&log->checkpoint, log->dir, mark);
        if (failed == 0)
            failed = disk->ops->sync_dir(disk->context, log->dir);
        if (failed != 0)
            return log_disk_error(reterr, "make the checkpoint in", log->dir, failed);
    }
    struct segment *segment;
    if (!log_reserve(log, 1))
        return log_no_memory(reterr);
    enum felix_err err = log_create_segment(log, mark.segment, mark.offset, 0, &segment, reterr);
    if (err != FELIX_OK)
        return err;
    log->segments[log->segment_count++] = segment;
    segment->entry_synced = true;
    int failed = disk->ops->sync(disk->context, segment->file);
    if (failed != 0)
        return log_segment_error(log, reterr, "flush", segment->id, failed);
    failed = disk->ops->sync_dir(disk->context, log->dir);
    return failed != 0 ? log_disk_error(reterr, "flush the folder", log->dir, failed) : FELIX_OK;
}

/* The checkpoint says what is known now; where it does so already, it is not touched. */
static enum felix_err renew_checkpoint(struct recovery *recovery, struct felix_error *reterr) {
    struct record_log *log = recovery->log;
    const struct log_mark *mark = &log->written;
    bool same = log->checkpoint.valid && log->checkpoint.mark.offset == mark->offset &&
                log->checkpoint.mark.segment == mark->segment &&
                log->checkpoint.mark.position == mark->position;
    int err = 0;
    if (!log->checkpoint.valid) {
        err = checkpoint_create(&log->checkpoint, log->dir, *mark);
        if (err == 0)
            err = log->disk->ops->sync_dir(log->disk->context, log->dir);
    } else {
        if (!same)
            err = checkpoint_write(&log->checkpoint, *mark, false);
        if (err == 0)
            err = checkpoint_sync(&log->checkpoint);
    }
    return err != 0 ? log_disk_error(reterr, "write the checkpoint in", log->dir, err) : FELIX_OK;
}

static enum felix_err recover_segments(struct recovery *recovery, struct felix_error *reterr) {
    struct record_log *log = recovery->log;
    struct log_tail tail = {0};
    enum felix_err err = log_drop_unfinished(recovery, reterr);
    if (err != FELIX_OK)
        return err;
    struct found_segments *found = &recovery->found;
    if (found->count == 0)
        return create_first(recovery, reterr);
    if (recovery->checkpointed && found->items[found->count - 1].id < recovery->mark.segment &&
        recovery->mark.position > SEGMENT_HEADER_BYTES)
        return log_damaged(log, reterr, recovery->mark.segment, 0, "the segment's file is missing");
    err = repair_bases(recovery, reterr);
    if (err == FELIX_OK)
        err = make_list(recovery, reterr);
    if (err == FELIX_OK)
        err = scan_segments(recovery, scan_start(recovery), &tail, reterr);
    if (err == FELIX_OK)
        err = finish_newest(recovery, &tail, reterr);
    if (err == FELIX_OK && tail.rotten && !recovery->log->read_only)
        err = leave_rotten(recovery, &tail, reterr);
    if (err == FELIX_OK && recovery->checkpointed && tail.offset < recovery->mark.offset)
        err = log_damaged(log, reterr, recovery->mark.segment, recovery->mark.position,
                          "records that were flushed are missing");
    return err;
}

static void fill_report(const struct record_log *log, struct log_recovery *report) {
    report->segments = (uint32_t)log->segment_count;
    report->end = log->written.offset;
    report->oldest = log->segment_count != 0 ? log_oldest(log) : 0;
    report->bytes = log->sealed_bytes + log->written.position;
}

enum felix_err log_recover(struct record_log *log, struct log_recovery *report,
                           struct felix_error *reterr) {
    int opened = checkpoint_open(&log->checkpoint, log->disk, log->dir, log->read_only);
    if (opened != 0)
        return log_disk_error(reterr, "read the checkpoint in", log->dir, opened);
    struct recovery recovery = {
        .log = log,
        .report = report,
        .mark = log->checkpoint.mark,
        .checkpointed = log->checkpoint.valid,
    };
    enum felix_err err = log_find_segments(log, &recovery.found, reterr);
    if (err == FELIX_OK)
        err = recover_segments(&recovery, reterr);
    free(recovery.found.items);
    if (err == FELIX_OK && !log->read_only)
        err = renew_checkpoint(&recovery, reterr);
    for (size_t i = 0; i + 1 < log->segment_count; i++)
        log->sealed_bytes += log->segments[i]->bytes;
    fill_report(log, report);
    if (err != FELIX_OK)
        return err;
    const struct log_mark *mark = &log->written;
    report->clean = recovery.checkpointed && log->checkpoint.clean;
    log->durable = *mark;
    log->kept_from = mark->segment;
    if (!log->read_only)
        log_writer_start(log, log_newest(log), *mark, mark->position);
    return FELIX_OK;
}
