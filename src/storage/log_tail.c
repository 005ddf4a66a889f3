/* The end of a segment: what of it are records, and what is to become of the rest. */
#include "storage/log_recovery.h"
#include "storage/segment_scan.h"

/* The checkpoint, if it is in this segment: records end there, and what is before it was flushed.
 */
static struct log_mark proven(const struct recovery *recovery, const struct segment *segment) {
    if (recovery->checkpointed && recovery->mark.segment == segment->id)
        return recovery->mark;
    return (struct log_mark){.offset = segment->base, .position = SEGMENT_HEADER_BYTES};
}

/* One scan of a segment. */
struct tail_scan {
    struct recovery *recovery;
    struct segment *segment;
    struct segment_scan scan;
    struct log_mark until;
    struct log_index known; /* the index file, read when it is needed */
    bool known_loaded;
    bool rotten;
};

static void load_known(struct tail_scan *tail) {
    struct record_log *log = tail->recovery->log;
    char path[PATH_MAX];
    if (tail->known_loaded)
        return;
    tail->known_loaded = true;
    log_index_init(&tail->known, tail->segment->base, log->settings.index_spacing_bytes);
    if (segment_path(log->dir, tail->segment->id, "index", path))
        (void)log_index_load(&tail->known, log->disk, path, tail->scan.end);
}

/* To the next entry of the index file that leads to a good record, else to the checkpoint. A disk
 * that fails there shows when the scan goes on. */
static void jump_to_proven(struct tail_scan *tail, uint64_t bad_position) {
    struct segment_scan *scan = &tail->scan;
    uint64_t bad_offset = scan->offset;
    load_known(tail);
    for (uint32_t i = 0; i < tail->known.count; i++) {
        struct log_index_entry entry = tail->known.entries[i];
        if (entry.offset <= bad_offset || entry.position <= bad_position)
            continue;
        if (entry.offset >= tail->until.offset || entry.position >= tail->until.position)
            break;
        segment_scan_jump(scan, entry.position, entry.offset);
        struct scan_result there = segment_scan_next(scan);
        segment_scan_jump(scan, entry.position, entry.offset);
        if (there.step == SCAN_RECORD || there.step == SCAN_ERROR)
            return;
    }
    segment_scan_jump(scan, tail->until.position, tail->until.offset);
}

/* A record that was on disk is bad: on to the next one whose place is proven. */
static void skip_rot(struct tail_scan *tail, const struct scan_result *bad) {
    struct segment_scan *scan = &tail->scan;
    struct log_damage damage = {
        .first = scan->offset,
        .segment = tail->segment->id,
        .position = bad->position,
        .fault = bad->fault,
    };
    if (bad->fault == RECORD_BAD_CHECKSUM && bad->record.offset == scan->offset &&
        bad->record_bytes <= tail->until.position - bad->position)
        segment_scan_jump(scan, bad->position + bad->record_bytes, scan->offset + 1);
    else
        jump_to_proven(tail, bad->position);
    damage.end = scan->offset;
    tail->segment->index.since_bytes = tail->segment->index.spacing_bytes;
    tail->rotten = true;
    log_note_damage(tail->recovery->log, &damage);
}

/* Up to what is no record any more, at or above the checkpoint; fills the segment's index. */
static struct scan_result scan_records(struct tail_scan *tail) {
    struct segment *segment = tail->segment;
    for (;;) {
        struct scan_result next = segment_scan_next(&tail->scan);
        if (next.step == SCAN_FAULT && next.position < tail->until.position) {
            skip_rot(tail, &next);
            continue;
        }
        if (next.step != SCAN_RECORD)
            return next;
        log_index_note(&segment->index, next.record.offset, next.position,
                       tail->scan.position - next.position);
        segment->last_timestamp_us = next.record.timestamp_us;
    }
}

enum felix_err log_scan_tail(struct recovery *recovery, struct segment *segment,
                             uint64_t file_bytes, struct log_tail *ret,
                             struct felix_error *reterr) {
    struct record_log *log = recovery->log;
    struct tail_scan tail = {
        .recovery = recovery, .segment = segment, .until = proven(recovery, segment)};
    if (tail.until.position > file_bytes)
        return log_damaged(log, reterr, segment->id, file_bytes,
                           "the file is shorter than what was flushed");
    if (!segment_scan_init(&tail.scan, log->disk, segment->file, SEGMENT_HEADER_BYTES, file_bytes,
                           segment->base))
        return log_no_memory(reterr);
    log_index_clear(&segment->index);
    struct scan_result next = scan_records(&tail);
    *ret = (struct log_tail){
        .position = tail.scan.position,
        .offset = tail.scan.offset,
        .file_bytes = file_bytes,
        .content_end = tail.scan.position,
        .record_bytes = next.record_bytes,
        .rotten = tail.rotten,
    };
    segment_scan_deinit(&tail.scan);
    log_index_deinit(&tail.known);
    recovery->report->scanned_bytes += ret->position;
    int err = next.step == SCAN_ERROR ? next.error : 0;
    if (next.step == SCAN_FAULT)
        err = segment_nonzero_end(log->disk, segment->file, ret->position, file_bytes,
                                  &ret->content_end);
    if (err != 0)
        return log_segment_error(log, reterr, "read", segment->id, err);
    if (ret->content_end != ret->position)
        ret->fault = next.fault;
    return FELIX_OK;
}

/* The rules of the broker specification 6.9, for a directory without a checkpoint. */
static bool may_cut(const struct log_tail *tail, bool repair) {
    uint64_t left = tail->file_bytes - tail->position;
    switch (tail->fault) {
    case RECORD_OK:
    case RECORD_TRUNCATED_HEADER:
    case RECORD_TRUNCATED:
        return true;
    case RECORD_BAD_HEADER:
        return repair && left <= RECORD_HEADER_BYTES;
    case RECORD_BAD_CHECKSUM:
    case RECORD_OUT_OF_ORDER:
        return repair && tail->record_bytes >= left;
    case RECORD_TOO_LARGE:
        return repair && tail->record_bytes > left;
    }
    return false;
}

enum felix_err log_cut_tail(struct recovery *recovery, struct segment *segment,
                            const struct log_tail *tail, struct felix_error *reterr) {
    struct record_log *log = recovery->log;
    bool plain = tail->fault == RECORD_OK || tail->fault == RECORD_TRUNCATED_HEADER ||
                 tail->fault == RECORD_TRUNCATED;
    if (!recovery->checkpointed && !may_cut(tail, log->settings.repair_checksum_tail))
        return log_damaged(log, reterr, segment->id, tail->position,
                           record_fault_name(tail->fault));
    uint64_t content_bytes = tail->content_end - tail->position;
    if (plain)
        recovery->report->cut_bytes += content_bytes;
    else
        recovery->report->moved_bytes += content_bytes;
    if (log->read_only || tail->file_bytes == tail->position)
        return FELIX_OK;
    if (!plain) {
        enum felix_err err = log_keep_torn(log, segment, tail->position, tail->content_end, reterr);
        if (err != FELIX_OK)
            return err;
    }
    int err = log->disk->ops->truncate(log->disk->context, segment->file, tail->position);
    return err != 0 ? log_segment_error(log, reterr, "truncate", segment->id, err) : FELIX_OK;
}
