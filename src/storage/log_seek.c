/*
 * Finding a record by time. Timestamps are the owner's wall clock and rise but for corrections of
 * that clock; where they do not, the answer is one of the places where `at_us` is passed.
 */
#include "storage/log_read.h"
#include "storage/segment_scan.h"

/* The segment after `id`, pinned, as far as committed. */
static bool next_segment(struct record_log *log, uint64_t from_id, struct log_reading *ret) {
    bool found = false;
    (void)pthread_mutex_lock(&log->mutex);
    struct log_mark committed = log_committed(log);
    for (size_t i = 0; i < log->segment_count && !found; i++) {
        struct segment *segment = log->segments[i];
        if (segment->id < from_id || segment->id > committed.segment)
            continue;
        found = true;
        segment->pins++;
        bool newest = segment->id == committed.segment;
        *ret = (struct log_reading){
            .segment = segment,
            .newest = newest,
            .end_offset = newest ? committed.offset : segment->end,
            .end_position = newest ? committed.position : segment->bytes,
        };
    }
    (void)pthread_mutex_unlock(&log->mutex);
    return found;
}

static bool entry_at(struct record_log *log, const struct segment *segment, uint32_t at,
                     struct log_index_entry *ret) {
    (void)pthread_mutex_lock(&log->mutex);
    bool there = at < segment->index.count;
    if (there)
        *ret = segment->index.entries[at];
    (void)pthread_mutex_unlock(&log->mutex);
    return there;
}

/* Is the record of this entry good, committed and older than `at_us`? */
static bool is_before(struct record_log *log, const struct log_reading *reading,
                      struct log_index_entry entry, uint64_t at_us) {
    uint8_t header[RECORD_HEADER_BYTES];
    struct record record;
    uint32_t payload_bytes;
    if (entry.offset >= reading->end_offset)
        return false;
    ssize_t got =
        disk_read_all(log->disk, reading->segment->file, header, sizeof header, entry.position);
    return got == (ssize_t)sizeof header &&
           record_header_decode(slice_of(header, sizeof header), &record, &payload_bytes) ==
               RECORD_OK &&
           record.offset == entry.offset && record.timestamp_us < at_us;
}

/* The last index entry before `at_us`; the segment's first record when there is none. */
static struct log_index_entry last_entry_before(struct record_log *log,
                                                const struct log_reading *reading, uint64_t at_us) {
    struct log_index_entry best = {.offset = reading->segment->base,
                                   .position = SEGMENT_HEADER_BYTES};
    (void)pthread_mutex_lock(&log->mutex);
    uint32_t low = 0, high = reading->segment->index.count;
    (void)pthread_mutex_unlock(&log->mutex);
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        struct log_index_entry entry;
        if (entry_at(log, reading->segment, middle, &entry) &&
            is_before(log, reading, entry, at_us)) {
            best = entry;
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return best;
}

/* Offset of the first record of the segment at `at_us` or later, or of what cannot be read;
 * `end_offset` when all are older. */
static enum felix_err seek_in(struct record_log *log, const struct log_reading *reading,
                              uint64_t at_us, uint64_t *ret, struct felix_error *reterr) {
    log_load_index(log, reading->segment);
    struct log_index_entry from = last_entry_before(log, reading, at_us);
    struct segment_scan scan;
    if (!segment_scan_init(&scan, log->disk, reading->segment->file, from.position,
                           reading->end_position, from.offset))
        return log_no_memory(reterr);
    struct scan_result next = {.step = SCAN_RECORD};
    *ret = from.offset;
    while (*ret < reading->end_offset) {
        next = segment_scan_next(&scan);
        if (next.step != SCAN_RECORD || next.record.timestamp_us >= at_us)
            break;
        *ret = scan.offset;
    }
    segment_scan_deinit(&scan);
    if (next.step == SCAN_ERROR)
        return log_segment_error(log, reterr, "read", reading->segment->id, next.error);
    return FELIX_OK;
}

enum felix_err record_log_seek_time(struct record_log *log, uint64_t at_us, uint64_t *ret_offset,
                                    struct felix_error *reterr) {
    struct log_reading reading;
    uint64_t from_id = 0;
    while (next_segment(log, from_id, &reading)) {
        from_id = reading.segment->id + 1;
        enum felix_err err = FELIX_OK;
        uint64_t offset = reading.end_offset;
        if (reading.newest || log_last_timestamp(log, reading.segment) >= at_us) {
            int opened = log_open_pinned(log, reading.segment);
            if (opened != 0)
                err = log_segment_error(log, reterr, "open", reading.segment->id, opened);
            else
                err = seek_in(log, &reading, at_us, &offset, reterr);
        }
        log_unpin(log, reading.segment);
        if (err != FELIX_OK || offset < reading.end_offset) {
            *ret_offset = offset;
            return err;
        }
    }
    (void)pthread_mutex_lock(&log->mutex);
    *ret_offset = log_committed(log).offset;
    (void)pthread_mutex_unlock(&log->mutex);
    return FELIX_OK;
}
