/*
 * Retention: sealed segments leave the list, oldest first, and then their files go, in the same
 * order and each one for good before the next: a crash must not leave a hole in the middle.
 * A segment that readers have pinned is unlinked by the last of them, and what is behind it waits.
 */
#include "storage/log_read.h"
#include "storage/segment_scan.h"

#include "base/check.h"

#include <errno.h>

/* 0 or negative errno. The index goes last: without its segment it is only litter. */
static int unlink_segment(struct record_log *log, uint64_t id) {
    const struct disk *disk = log->disk;
    char path[PATH_MAX];
    if (!segment_path(log->dir, id, "log", path))
        return -ENAMETOOLONG;
    int err = disk->ops->remove(disk->context, path);
    if (err != 0 && err != -ENOENT)
        return err;
    err = disk->ops->sync_dir(disk->context, log->dir);
    if (err != 0)
        return err;
    if (segment_path(log->dir, id, "index", path))
        (void)disk->ops->remove(disk->context, path);
    return 0;
}

/* Under the mutex. Out of every list. */
static struct segment *pop_leaving(struct record_log *log) {
    struct segment *segment = log->leaving;
    log->leaving = segment->next;
    if (log->leaving == NULL)
        log->leaving_last = NULL;
    log_forget_kept(log, segment);
    log->removed_segments++;
    return segment;
}

enum felix_err log_unlink_leaving(struct record_log *log, struct felix_error *reterr) {
    enum felix_err err = FELIX_OK;
    (void)pthread_mutex_lock(&log->mutex);
    if (log->unlinking) {
        (void)pthread_mutex_unlock(&log->mutex);
        return FELIX_OK;
    }
    log->unlinking = true;
    while (err == FELIX_OK && log->leaving != NULL && log->leaving->pins == 0) {
        struct segment *segment = log->leaving;
        (void)pthread_mutex_unlock(&log->mutex);
        int removed = unlink_segment(log, segment->id);
        if (removed != 0)
            err = log_segment_error(log, reterr, "remove", segment->id, removed);
        (void)pthread_mutex_lock(&log->mutex);
        if (removed == 0)
            segment_free(pop_leaving(log), log->disk);
    }
    log->unlinking = false;
    (void)pthread_mutex_unlock(&log->mutex);
    return err;
}

/* The timestamp of the last record of a pinned segment; when that cannot be read, of the last one
 * that can, or of the segment's beginning. */
static uint64_t find_last_timestamp(struct record_log *log, struct segment *segment) {
    uint64_t timestamp_us = segment->created_us;
    if (log_open_pinned(log, segment) != 0)
        return timestamp_us;
    log_load_index(log, segment);
    (void)pthread_mutex_lock(&log->mutex);
    struct log_index_entry from = log_index_seek(&segment->index, UINT64_MAX);
    (void)pthread_mutex_unlock(&log->mutex);
    struct segment_scan scan;
    if (!segment_scan_init(&scan, log->disk, segment->file, from.position, segment->bytes,
                           from.offset))
        return timestamp_us;
    struct scan_result next;
    while ((next = segment_scan_next(&scan)).step == SCAN_RECORD)
        timestamp_us = next.record.timestamp_us;
    segment_scan_deinit(&scan);
    return timestamp_us;
}

uint64_t log_last_timestamp(struct record_log *log, struct segment *segment) {
    (void)pthread_mutex_lock(&log->mutex);
    bool known = segment->last_timestamp_known;
    uint64_t timestamp_us = segment->last_timestamp_us;
    (void)pthread_mutex_unlock(&log->mutex);
    if (known)
        return timestamp_us;
    timestamp_us = find_last_timestamp(log, segment);
    (void)pthread_mutex_lock(&log->mutex);
    segment->last_timestamp_known = true;
    segment->last_timestamp_us = timestamp_us;
    (void)pthread_mutex_unlock(&log->mutex);
    return timestamp_us;
}

void record_log_set_retention(struct record_log *log, uint64_t bytes, uint64_t us) {
    (void)pthread_mutex_lock(&log->mutex);
    log->settings.retention_bytes = bytes;
    log->settings.retention_us = us;
    (void)pthread_mutex_unlock(&log->mutex);
}

/* The oldest segment, pinned, if it may go at all; and the bound of its age, 0: none. */
static struct segment *pin_oldest(struct record_log *log, bool *ret_too_many_bytes,
                                  uint64_t *ret_age_us) {
    struct segment *oldest = NULL;
    (void)pthread_mutex_lock(&log->mutex);
    *ret_age_us = log->settings.retention_us;
    if (log->segment_count > 1 && log->segments[0]->id < log->kept_from) {
        oldest = log->segments[0];
        oldest->pins++;
        *ret_too_many_bytes =
            log->settings.retention_bytes != 0 &&
            log->sealed_bytes + log->written.position > log->settings.retention_bytes;
    }
    (void)pthread_mutex_unlock(&log->mutex);
    return oldest;
}

/* Under the mutex. */
static void take_oldest(struct record_log *log) {
    struct segment *segment = log->segments[0];
    log->segment_count--;
    memmove(log->segments, log->segments + 1, log->segment_count * sizeof(struct segment *));
    log->sealed_bytes -= segment->bytes;
    segment->leaving = true;
    segment->next = NULL;
    if (log->leaving_last != NULL)
        log->leaving_last->next = segment;
    else
        log->leaving = segment;
    log->leaving_last = segment;
}

enum felix_err record_log_retain(struct record_log *log, uint64_t now_us, uint32_t *ret_removed,
                                 struct felix_error *reterr) {
    INVARIANT(!log->read_only);
    uint32_t removed = 0;
    struct segment *segment;
    bool too_many_bytes = false;
    uint64_t age_us;
    while ((segment = pin_oldest(log, &too_many_bytes, &age_us)) != NULL) {
        bool go = too_many_bytes;
        if (!go && age_us != 0) {
            uint64_t newest_us = log_last_timestamp(log, segment);
            go = now_us > newest_us && now_us - newest_us > age_us;
        }
        if (!go) {
            log_unpin(log, segment);
            break;
        }
        (void)pthread_mutex_lock(&log->mutex);
        take_oldest(log);
        segment->pins--; /* log_unlink_leaving below does what else log_unpin would */
        (void)pthread_mutex_unlock(&log->mutex);
        removed++;
    }
    if (ret_removed != NULL)
        *ret_removed = removed;
    return log_unlink_leaving(log, reterr);
}

uint64_t record_log_next_retention_us(struct record_log *log) {
    bool unused;
    uint64_t age_us, at_us = UINT64_MAX;
    struct segment *segment = pin_oldest(log, &unused, &age_us);
    if (segment == NULL)
        return UINT64_MAX;
    if (age_us != 0 && __builtin_add_overflow(log_last_timestamp(log, segment), age_us, &at_us))
        at_us = UINT64_MAX;
    log_unpin(log, segment);
    return at_us == UINT64_MAX ? at_us : at_us + 1;
}
