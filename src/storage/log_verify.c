/*
 * Looking at every record of a segment: after a read met something odd, and in the background
 * after opening.
 *
 * Behind a bad record the next one is looked for where its place is proven: behind a header that
 * verified although its payload did not, else at an index entry whose record is good. Bytes that
 * merely look like a record prove nothing, as they may be the payload of another one.
 */
#include "storage/log_read.h"
#include "storage/segment_scan.h"

/* One pass over a segment. */
struct pass {
    struct record_log *log;
    struct log_reading *reading;
    struct segment_scan scan;
    struct log_index index; /* made anew */
    bool readable;
    bool any_damage;
};

/* The first entry of the index behind `position` and `offset`. */
static bool entry_behind(struct record_log *log, const struct segment *segment, uint64_t position,
                         uint64_t offset, struct log_index_entry *ret) {
    (void)pthread_mutex_lock(&log->mutex);
    const struct log_index *index = &segment->index;
    uint32_t low = 0, high = index->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (index->entries[middle].offset <= offset || index->entries[middle].position <= position)
            low = middle + 1;
        else
            high = middle;
    }
    bool found = low < index->count;
    if (found)
        *ret = index->entries[low];
    (void)pthread_mutex_unlock(&log->mutex);
    return found;
}

/* Moves the scan to the next place that is proven, or to the end of the segment. */
static void resume(struct pass *pass, const struct scan_result *bad) {
    struct segment_scan *scan = &pass->scan;
    uint64_t offset = scan->offset;
    bool length_known = bad->fault == RECORD_BAD_CHECKSUM && bad->record.offset == offset &&
                        bad->record_bytes <= scan->end - bad->position;
    if (length_known) {
        segment_scan_jump(scan, bad->position + bad->record_bytes, offset + 1);
        return;
    }
    struct log_index_entry entry = {.offset = offset, .position = bad->position};
    while (entry_behind(pass->log, pass->reading->segment, entry.position, entry.offset, &entry) &&
           entry.offset < pass->reading->end_offset) {
        segment_scan_jump(scan, entry.position, entry.offset);
        struct scan_result there = segment_scan_next(scan);
        segment_scan_jump(scan, entry.position, entry.offset);
        if (there.step == SCAN_RECORD)
            return;
    }
    segment_scan_jump(scan, scan->end, pass->reading->end_offset);
}

static void skip_damage(struct pass *pass, const struct scan_result *bad) {
    struct log_damage damage = {
        .first = pass->scan.offset,
        .segment = pass->reading->segment->id,
        .position = bad->position,
        .fault = bad->step == SCAN_END ? RECORD_TRUNCATED_HEADER : bad->fault,
    };
    resume(pass, bad);
    damage.end = pass->scan.offset;
    log_note_damage(pass->log, &damage);
    pass->any_damage = true;
    /* An entry right behind it: the way there is broken. */
    pass->index.since_bytes = pass->index.spacing_bytes;
}

static int look_at_records(struct pass *pass) {
    struct segment_scan *scan = &pass->scan;
    while (scan->offset < pass->reading->end_offset) {
        struct scan_result next = segment_scan_next(scan);
        if (next.step == SCAN_ERROR)
            return next.error;
        if (next.step != SCAN_RECORD) {
            skip_damage(pass, &next);
            continue;
        }
        log_index_note(&pass->index, next.record.offset, next.position,
                       scan->position - next.position);
        if (next.record.offset == pass->reading->offset) {
            pass->readable = true;
            pass->reading->position = next.position;
        }
    }
    return 0;
}

/* The new index in the place of the old one, if that was of no use. */
static void install_index(struct pass *pass) {
    struct record_log *log = pass->log;
    struct segment *segment = pass->reading->segment;
    (void)pthread_mutex_lock(&log->mutex);
    bool wanted =
        segment->sealed && segment->flushed && (pass->any_damage || segment->index.count == 0);
    segment->verified |= segment->sealed;
    (void)pthread_mutex_unlock(&log->mutex);
    if (!wanted)
        return;
    char path[PATH_MAX];
    if (!log->read_only && segment_path(log->dir, segment->id, "index", path))
        (void)log_index_save(&pass->index, log->disk, path);
    (void)pthread_mutex_lock(&log->mutex);
    struct log_index old = segment->index;
    segment->index = pass->index;
    segment->index_loaded = true;
    pass->index = old;
    (void)pthread_mutex_unlock(&log->mutex);
}

enum felix_err log_verify_segment(struct record_log *log, struct log_reading *reading,
                                  bool *ret_readable, struct felix_error *reterr) {
    struct segment *segment = reading->segment;
    struct pass pass = {.log = log, .reading = reading};
    log_load_index(log, segment);
    if (!segment_scan_init(&pass.scan, log->disk, segment->file, SEGMENT_HEADER_BYTES,
                           reading->end_position, segment->base))
        return log_no_memory(reterr);
    log_index_init(&pass.index, segment->base, log->settings.index_spacing_bytes);
    int err = look_at_records(&pass);
    if (err == 0)
        install_index(&pass);
    segment_scan_deinit(&pass.scan);
    log_index_deinit(&pass.index);
    *ret_readable = pass.readable;
    return err != 0 ? log_segment_error(log, reterr, "read", segment->id, err) : FELIX_OK;
}

/* The next segment to look at, pinned. *ret_more: there is another one after it. */
static struct segment *next_unverified(struct record_log *log, struct log_reading *ret,
                                       bool *ret_more) {
    struct segment *found = NULL;
    *ret_more = false;
    (void)pthread_mutex_lock(&log->mutex);
    for (size_t i = 0; i < log->segment_count; i++) {
        struct segment *segment = log->segments[i];
        if (segment->verified || !segment->sealed || segment->id < log->verify_from)
            continue;
        if (found != NULL) {
            *ret_more = true;
            break;
        }
        found = segment;
        found->pins++;
        *ret = (struct log_reading){
            .segment = found,
            .offset = UINT64_MAX,
            .end_offset = found->end,
            .end_position = found->bytes,
            .generation = log->generation,
        };
    }
    if (found != NULL)
        log->verify_from = found->id + 1;
    (void)pthread_mutex_unlock(&log->mutex);
    return found;
}

enum felix_err record_log_verify_next(struct record_log *log, bool *ret_more,
                                      struct felix_error *reterr) {
    struct log_reading reading;
    struct segment *segment = next_unverified(log, &reading, ret_more);
    if (segment == NULL)
        return FELIX_OK;
    enum felix_err err = FELIX_OK;
    int opened = log_open_pinned(log, segment);
    bool readable;
    if (opened == 0)
        err = log_verify_segment(log, &reading, &readable, reterr);
    else
        err = log_segment_error(log, reterr, "open", segment->id, opened);
    log_unpin(log, segment);
    return err;
}
