/*
 * The writer role: records are encoded into a stage, full stages go to the newest segment.
 *
 * Nothing the writer does is seen by others before record_log_write publishes it under the mutex:
 * not the end, not a segment that it made meanwhile. So going back after an error is: remove the
 * new segments, cut the last published one to where it ended.
 *
 * A roll flushes nothing: the flusher does that, oldest segment first (log_flush.c). Only when it
 * sleeps while more than OWED_SEGMENTS_MAX are owed does the writer do its work, and that is also
 * how segments get flushed under LOG_SYNC_NONE.
 */
#include "storage/log_flush.h"
#include "storage/log_state.h"

#include "base/check.h"

#include <errno.h>

/* Larger payloads are written from where they are. */
#define STAGED_PAYLOAD_BYTES_MAX ((size_t)128 << 10)

/* Segments that are full but not flushed. */
#define OWED_SEGMENTS_MAX 2u

static enum felix_err refuse_failed(const struct record_log *log, struct felix_error *reterr) {
    return error_set(reterr, FELIX_STORAGE, 0, "log %s failed before", log->name);
}

/* More writes than this in one stretch that was set ahead: then the next one is filled with zeros.
 */
#define SMALL_WRITES 7u

/* The file may be written up to `end`; what lies behind it is zeros. Where each write waits for a
 * flush and writes are small, the zeros are written: then most flushes find their blocks in place
 * and leave the file system's journal alone. Else only the length is set, which costs no bytes
 * (docs/decisions/010-durable-log.md). 0 or negative errno. */
static int set_ahead(struct record_log *log, uint64_t end) {
    static uint8_t zeros[LOG_AHEAD_BYTES]; /* not const: that would be in the program's file */
    struct log_writer *writer = &log->writer;
    if (end <= writer->file_bytes)
        return 0;
    if (!log->settings.set_length_ahead) {
        writer->file_bytes = end;
        return 0;
    }
    uint64_t bytes = (end + LOG_AHEAD_BYTES - 1) / LOG_AHEAD_BYTES * LOG_AHEAD_BYTES;
    int file = writer->active->file;
    bool small = log->settings.sync == LOG_SYNC_ON_COMMIT && writer->writes > SMALL_WRITES &&
                 bytes - writer->file_bytes <= sizeof zeros;
    int err = -ENOSPC; /* no room for zeros: perhaps there is for records */
    if (small)
        err = disk_write_all(log->disk, file, zeros, (size_t)(bytes - writer->file_bytes),
                             writer->file_bytes);
    if (err == -ENOSPC)
        err = log->disk->ops->truncate(log->disk->context, file, bytes);
    if (err == 0)
        writer->file_bytes = bytes;
    writer->writes = 0;
    return err;
}

static enum felix_err put(struct record_log *log, const uint8_t *bytes, size_t count,
                          struct felix_error *reterr) {
    struct log_writer *writer = &log->writer;
    int err = set_ahead(log, writer->position + count);
    if (err != 0)
        return log_segment_error(log, reterr, "extend", writer->active->id, err);
    err = disk_write_all(log->disk, writer->active->file, bytes, count, writer->position);
    if (err != 0)
        return log_segment_error(log, reterr, "write", writer->active->id, err);
    writer->position += count;
    writer->writes++;
    return FELIX_OK;
}

static enum felix_err put_stage(struct record_log *log, struct felix_error *reterr) {
    struct log_writer *writer = &log->writer;
    if (writer->staged_bytes == 0)
        return FELIX_OK;
    enum felix_err err = put(log, writer->stage, writer->staged_bytes, reterr);
    writer->staged_bytes = 0;
    return err;
}

enum felix_err log_discard_rolled(struct record_log *log, struct felix_error *reterr) {
    struct log_writer *writer = &log->writer;
    if (writer->rolled == NULL)
        return FELIX_OK;
    while (writer->rolled != NULL) {
        struct segment *segment = writer->rolled;
        char path[PATH_MAX];
        INVARIANT(segment_path(log->dir, segment->id, "log", path));
        int err = log->disk->ops->remove(log->disk->context, path);
        if (err != 0 && err != -ENOENT)
            return log_disk_error(reterr, "remove", path, err);
        writer->rolled = segment->next;
        segment_free(segment, log->disk);
    }
    /* Else a crash might bring them back behind records that were written since. */
    int err = log->disk->ops->sync_dir(log->disk->context, log->dir);
    return err != 0 ? log_disk_error(reterr, "flush the folder", log->dir, err) : FELIX_OK;
}

/* Back to the last successful record_log_write. Returns `cause`. */
static enum felix_err roll_back(struct record_log *log, enum felix_err cause) {
    bool failed = log_discard_rolled(log, NULL) != FELIX_OK;
    (void)pthread_mutex_lock(&log->mutex);
    struct segment *active = log_newest(log);
    struct log_mark mark = log->written;
    log_index_cut(&active->index, mark.offset);
    (void)pthread_mutex_unlock(&log->mutex);
    /* What was set ahead must be zeros again: it is cut, and set ahead anew when it is needed. */
    if (!failed)
        failed = log->disk->ops->truncate(log->disk->context, active->file, mark.position) != 0;
    if (failed)
        atomic_store(&log->failed, true);
    else
        log_writer_start(log, active, mark, mark.position);
    return cause;
}

static enum felix_err roll(struct record_log *log, uint64_t now_us, struct felix_error *reterr) {
    struct log_writer *writer = &log->writer;
    enum felix_err err = put_stage(log, reterr);
    if (err != FELIX_OK)
        return err;
    struct segment *full = writer->active;
    if (writer->file_bytes != writer->position) {
        int cut = log->disk->ops->truncate(log->disk->context, full->file, writer->position);
        if (cut != 0)
            return log_segment_error(log, reterr, "truncate", full->id, cut);
    }
    full->end = writer->staged_end;
    full->bytes = writer->position;
    struct segment *next;
    err = log_create_segment(log, full->id + 1, writer->staged_end, now_us, &next, reterr);
    if (err != FELIX_OK)
        return err;
    if (writer->rolled == NULL)
        writer->rolled = next;
    else
        full->next = next;
    writer->active = next;
    writer->position = SEGMENT_HEADER_BYTES;
    writer->file_bytes = SEGMENT_HEADER_BYTES;
    return FELIX_OK;
}

static enum felix_err stage_record(struct record_log *log, uint64_t offset, uint64_t timestamp_us,
                                   struct slice payload, struct felix_error *reterr) {
    struct log_writer *writer = &log->writer;
    bool direct = payload.len > STAGED_PAYLOAD_BYTES_MAX;
    size_t need = RECORD_HEADER_BYTES + (direct ? 0 : payload.len);
    if (LOG_STAGE_BYTES - writer->staged_bytes < need) {
        enum felix_err err = put_stage(log, reterr);
        if (err != FELIX_OK)
            return err;
    }
    uint8_t *at = writer->stage + writer->staged_bytes;
    record_header_encode(offset, timestamp_us, payload, at);
    writer->staged_bytes += need;
    if (!direct) {
        memcpy(at + RECORD_HEADER_BYTES, payload.data, payload.len);
        return FELIX_OK;
    }
    enum felix_err err = put_stage(log, reterr);
    return err != FELIX_OK ? err : put(log, payload.data, payload.len, reterr);
}

/* Readers look into the index of the newest segment. */
static void note_index(struct record_log *log, uint64_t base_offset,
                       const struct payload_list *list) {
    struct log_writer *writer = &log->writer;
    uint64_t position = writer->position + writer->staged_bytes;
    struct payload_cursor cursor = payload_walk(list);
    struct slice payload;
    (void)pthread_mutex_lock(&log->mutex);
    for (uint64_t offset = base_offset; payload_next(&cursor, &payload); offset++) {
        size_t bytes = RECORD_HEADER_BYTES + payload.len;
        log_index_note(&writer->active->index, offset, position, bytes);
        position += bytes;
    }
    (void)pthread_mutex_unlock(&log->mutex);
}

static bool too_large(const struct payload_list *list) {
    if (list->payload_bytes <= RECORD_PAYLOAD_BYTES_MAX)
        return false;
    struct payload_cursor cursor = payload_walk(list);
    struct slice payload;
    while (payload_next(&cursor, &payload)) {
        if (payload.len > RECORD_PAYLOAD_BYTES_MAX)
            return true;
    }
    return false;
}

enum felix_err record_log_append(struct record_log *log, uint64_t base_offset,
                                 uint64_t timestamp_us, const struct payload_list *list,
                                 struct felix_error *reterr) {
    struct log_writer *writer = &log->writer;
    INVARIANT(!log->read_only);
    if (atomic_load(&log->failed))
        return refuse_failed(log, reterr);
    INVARIANT(base_offset == writer->staged_end);
    if (too_large(list))
        return error_set(reterr, FELIX_TOO_LARGE, 0, "log %s: a payload is larger than %u bytes",
                         log->name, RECORD_PAYLOAD_BYTES_MAX);

    uint64_t bytes = (uint64_t)list->count * RECORD_HEADER_BYTES + list->payload_bytes;
    bool holds_records = writer->staged_end > writer->active->base;
    if (holds_records &&
        writer->position + writer->staged_bytes + bytes > log->settings.segment_bytes) {
        enum felix_err err = roll(log, timestamp_us, reterr);
        if (err != FELIX_OK)
            return roll_back(log, err);
    }
    note_index(log, base_offset, list);

    struct payload_cursor cursor = payload_walk(list);
    struct slice payload;
    for (uint64_t offset = base_offset; payload_next(&cursor, &payload); offset++) {
        enum felix_err err = stage_record(log, offset, timestamp_us, payload, reterr);
        if (err != FELIX_OK)
            return roll_back(log, err);
    }
    writer->staged_end += list->count;
    writer->records += list->count;
    writer->bytes += bytes;
    return FELIX_OK;
}

/* Under the mutex: what was written is there for the others. */
static void publish(struct record_log *log) {
    struct log_writer *writer = &log->writer;
    while (writer->rolled != NULL) {
        struct segment *segment = writer->rolled;
        writer->rolled = segment->next;
        segment->next = NULL;
        struct segment *full = log_newest(log);
        full->sealed = true;
        log->sealed_bytes += full->bytes;
        log->segments[log->segment_count++] = segment;
    }
    log->written = (struct log_mark){
        .offset = writer->staged_end,
        .segment = writer->active->id,
        .position = writer->position,
    };
    log->appended_records += writer->records;
    log->appended_bytes += writer->bytes;
    writer->records = writer->bytes = 0;
}

static unsigned owed_segments(const struct record_log *log) {
    unsigned owed = 0;
    for (size_t i = log->segment_count - 1; i > 0 && !log->segments[i - 1]->flushed; i--)
        owed++;
    return owed;
}

enum felix_err record_log_write(struct record_log *log, struct felix_error *reterr) {
    struct log_writer *writer = &log->writer;
    INVARIANT(!log->read_only);
    if (atomic_load(&log->failed))
        return refuse_failed(log, reterr);
    enum felix_err err = put_stage(log, reterr);
    if (err != FELIX_OK)
        return roll_back(log, err);
    size_t more = 0;
    for (struct segment *segment = writer->rolled; segment != NULL; segment = segment->next)
        more++;
    (void)pthread_mutex_lock(&log->mutex);
    bool room = log_reserve(log, more);
    if (room)
        publish(log);
    bool behind = owed_segments(log) > OWED_SEGMENTS_MAX;
    (void)pthread_mutex_unlock(&log->mutex);
    if (!room)
        return roll_back(log, log_no_memory(reterr));
    /* A flusher that is at work will come to them. */
    if (!behind || pthread_mutex_trylock(&log->sync_lock) != 0)
        return FELIX_OK;
    err = log_sync_locked(log, reterr);
    (void)pthread_mutex_unlock(&log->sync_lock);
    return err;
}
