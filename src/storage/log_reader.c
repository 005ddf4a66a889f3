/*
 * Reading. A page is read straight into the block that is handed out: big pieces of the file go
 * behind the room for the list's count, each record is verified where it lies and then moved to
 * the front, which turns its header into the item's length field:
 *
 *   in the file   | len offset timestamp crc crc | payload | len offset timestamp crc crc | ...
 *   in the block  | count | len | payload | len | payload | ...      ... | timestamps |
 *
 * Nothing is locked meanwhile: the segment is pinned, and what is read lies below the committed
 * end, where nobody writes.
 */
#include "storage/log_read.h"

#include "base/check.h"
#include "base/cursor.h"

#include <errno.h>

/* Read at once, so that it is still in the cache when it is verified. */
#define PIECE_BYTES ((size_t)256 << 10)

/* Read at once while looking for where a record begins. */
#define WALK_BYTES ((size_t)8 << 10)

#define COUNT_BYTES 4u

/* The records of a page on their way into its block. */
struct assembly {
    struct buf *block;
    uint8_t *raw;     /* bytes [0, raw_bytes) of the file from `position` on, as far as read */
    size_t raw_bytes; /* that many there will be */
    size_t read;      /* and so many there are */
    size_t parsed;    /* of these are done with */
    uint8_t *out;     /* behind the last item */
    uint64_t *timestamps;
    uint32_t count, count_max;
    uint64_t payload_bytes;
};

static struct log_hint *hint_of(struct record_log *log, uint64_t offset) {
    return &log->hints[offset % LOG_HINTS];
}

/* Under the mutex. */
static bool in_known_damage(const struct record_log *log, uint64_t offset, uint64_t *ret_end) {
    for (uint32_t i = 0; i < log->damage_count; i++) {
        if (offset >= log->damage[i].first && offset < log->damage[i].end) {
            *ret_end = log->damage[i].end;
            return true;
        }
    }
    return false;
}

uint64_t log_after_damage(struct record_log *log, uint64_t offset) {
    (void)pthread_mutex_lock(&log->mutex);
    uint64_t end;
    while (in_known_damage(log, offset, &end))
        offset = end;
    uint64_t committed = log_committed(log).offset;
    (void)pthread_mutex_unlock(&log->mutex);
    return offset < committed ? offset : committed;
}

enum felix_err log_reading_begin(struct record_log *log, uint64_t offset, struct log_reading *ret,
                                 uint64_t *ret_available, struct felix_error *reterr) {
    enum felix_err err = FELIX_OK;
    *ret = (struct log_reading){.offset = offset};
    (void)pthread_mutex_lock(&log->mutex);
    struct log_mark committed = log_committed(log);
    uint64_t oldest = log_oldest(log);
    if (offset < oldest) {
        *ret_available = oldest;
        err = error_set(reterr, FELIX_CURSOR_TOO_OLD, 0, "log %s begins at offset %llu", log->name,
                        (unsigned long long)oldest);
    } else if (offset > committed.offset) {
        *ret_available = committed.offset;
        err = error_set(reterr, FELIX_CURSOR_IN_FUTURE, 0, "log %s ends at offset %llu", log->name,
                        (unsigned long long)committed.offset);
    } else if (offset < committed.offset) {
        struct segment *segment = log_find(log, offset);
        segment->pins++;
        ret->segment = segment;
        ret->newest = segment->id == committed.segment;
        ret->end_offset = ret->newest ? committed.offset : segment->end;
        ret->end_position = ret->newest ? committed.position : segment->bytes;
        ret->generation = log->generation;
    }
    (void)pthread_mutex_unlock(&log->mutex);
    return err;
}

/* Where the record `offset` lies, if a reader stopped there, else the nearest place in the index.
 * Under the mutex. */
static struct log_index_entry nearest(struct record_log *log, const struct log_reading *reading) {
    const struct log_hint *hint = hint_of(log, reading->offset);
    if (hint->position != 0 && hint->offset == reading->offset &&
        hint->segment == reading->segment->id)
        return (struct log_index_entry){.offset = hint->offset, .position = hint->position};
    return log_index_seek(&reading->segment->index, reading->offset);
}

void log_load_index(struct record_log *log, struct segment *segment) {
    char path[PATH_MAX];
    (void)pthread_mutex_lock(&log->mutex);
    bool loaded = segment->index_loaded;
    (void)pthread_mutex_unlock(&log->mutex);
    if (loaded || !segment_path(log->dir, segment->id, "index", path))
        return;
    struct log_index index;
    log_index_init(&index, segment->base, log->settings.index_spacing_bytes);
    (void)log_index_load(&index, log->disk, path, segment->bytes);
    (void)pthread_mutex_lock(&log->mutex);
    if (!segment->index_loaded) {
        struct log_index unused = segment->index;
        segment->index = index;
        segment->index_loaded = true;
        index = unused;
    }
    (void)pthread_mutex_unlock(&log->mutex);
    log_index_deinit(&index);
}

/* Walks by headers from `from` to the record `offset`. False: what is there is not what it should
 * be. *ret_errno: the disk failed. */
static bool walk(struct record_log *log, const struct log_reading *reading,
                 struct log_index_entry from, uint64_t *ret_position, int *ret_errno) {
    uint8_t chunk[WALK_BYTES];
    uint64_t chunk_at = 0;
    size_t chunk_bytes = 0;
    uint64_t position = from.position;
    for (uint64_t offset = from.offset; offset < reading->offset; offset++) {
        if (position < chunk_at || position + RECORD_HEADER_BYTES > chunk_at + chunk_bytes) {
            ssize_t got =
                disk_read_all(log->disk, reading->segment->file, chunk, sizeof chunk, position);
            if (got < 0) {
                *ret_errno = (int)got;
                return false;
            }
            chunk_at = position;
            chunk_bytes = (size_t)got;
        }
        struct record record;
        uint32_t payload_bytes;
        struct slice bytes = {.data = chunk + (position - chunk_at),
                              .len = chunk_bytes - (size_t)(position - chunk_at)};
        if (record_header_decode(bytes, &record, &payload_bytes) != RECORD_OK ||
            record.offset != offset)
            return false;
        position += RECORD_HEADER_BYTES + payload_bytes;
        if (position > reading->end_position)
            return false;
    }
    *ret_position = position;
    return true;
}

/* What a page of so much payload may take in the file. */
static size_t raw_bytes_for(const struct record_log *log, const struct log_reading *reading,
                            size_t bytes_max, uint64_t position) {
    uint64_t records = reading->end_offset - reading->segment->base;
    uint64_t average = (reading->end_position - SEGMENT_HEADER_BYTES) / records;
    uint64_t payload = average > RECORD_HEADER_BYTES ? average - RECORD_HEADER_BYTES : 1;
    uint64_t expected = bytes_max / payload + 1;
    if (expected > log->settings.read_records_max)
        expected = log->settings.read_records_max;
    uint64_t raw = expected * RECORD_HEADER_BYTES + bytes_max;
    if (raw > (expected + 1) * average * 2)
        raw = (expected + 1) * average * 2;
    uint64_t left = reading->end_position - position;
    return (size_t)(raw < left ? raw : left);
}

static void assembly_init(struct assembly *assembly, const struct record_log *log,
                          size_t raw_bytes) {
    size_t count_max = raw_bytes / RECORD_HEADER_BYTES + 1;
    if (count_max > log->settings.read_records_max)
        count_max = log->settings.read_records_max;
    size_t timestamps_at = (LOG_PAGE_HEADROOM + COUNT_BYTES + raw_bytes + 7) / 8 * 8;
    struct buf *block = buf_new(timestamps_at + count_max * sizeof(uint64_t));
    *assembly = (struct assembly){
        .block = block,
        .raw = block->data + LOG_PAGE_HEADROOM + COUNT_BYTES,
        .raw_bytes = raw_bytes,
        .out = block->data + LOG_PAGE_HEADROOM + COUNT_BYTES,
        .timestamps = (uint64_t *)(void *)(block->data + timestamps_at),
        .count_max = (uint32_t)count_max,
    };
}

/* 1: there is more now; 0: there is no more; or negative errno. */
static int read_piece(struct record_log *log, const struct log_reading *reading,
                      struct assembly *assembly) {
    size_t want = assembly->raw_bytes - assembly->read;
    if (want > PIECE_BYTES)
        want = PIECE_BYTES;
    if (want == 0)
        return 0;
    ssize_t got = disk_read_all(log->disk, reading->segment->file, assembly->raw + assembly->read,
                                want, reading->position + assembly->read);
    if (got <= 0)
        return (int)got;
    assembly->read += (size_t)got;
    return 1;
}

static void take(struct assembly *assembly, const struct record *record, size_t record_bytes) {
    size_t payload_bytes = record->payload.len;
    be32_store(assembly->out, (uint32_t)payload_bytes);
    memmove(assembly->out + 4, record->payload.data, payload_bytes);
    assembly->out += 4 + payload_bytes;
    assembly->timestamps[assembly->count++] = record->timestamp_us;
    assembly->payload_bytes += payload_bytes;
    assembly->parsed += record_bytes;
}

/* How it ended. */
struct assembled {
    enum record_fault fault; /* the record after the last good one */
    size_t record_bytes;     /* that it takes, with RECORD_TRUNCATED */
    int error;               /* negative errno */
};

static struct assembled assemble(struct record_log *log, const struct log_reading *reading,
                                 size_t bytes_max, struct assembly *assembly) {
    struct assembled end = {.fault = RECORD_OK};
    uint64_t offset = reading->offset;
    while (assembly->count < assembly->count_max && offset < reading->end_offset) {
        struct slice bytes = {.data = assembly->raw + assembly->parsed,
                              .len = assembly->read - assembly->parsed};
        struct record record;
        size_t record_bytes = 0;
        end.fault = record_decode(bytes, &record, &record_bytes);
        if (end.fault == RECORD_TRUNCATED_HEADER || end.fault == RECORD_TRUNCATED) {
            end.record_bytes = record_bytes;
            int more = read_piece(log, reading, assembly);
            if (more > 0)
                continue;
            end.error = more;
            return end;
        }
        if (end.fault == RECORD_OK && record.offset != offset)
            end.fault = RECORD_OUT_OF_ORDER;
        if (end.fault != RECORD_OK)
            return end;
        if (assembly->count > 0 && assembly->payload_bytes + record.payload.len > bytes_max)
            return end;
        take(assembly, &record, record_bytes);
        offset++;
    }
    return end;
}

/* The disk may fetch the next page while this one is on its way to the subscriber. What was written
 * lately is in memory anyway. Nothing is ever dropped behind a reader: others may follow, and the
 * system knows that it was used only once. */
static void read_ahead(const struct record_log *log, const struct log_reading *reading,
                       const struct assembly *assembly) {
    uint64_t next = reading->position + assembly->parsed;
    uint64_t left = reading->end_position - next;
    if (reading->newest || left == 0)
        return;
    uint64_t bytes = assembly->raw_bytes < left ? assembly->raw_bytes : left;
    log->disk->ops->advise(log->disk->context, reading->segment->file, next, bytes, false);
}

/* The page of what was assembled, at least one record. Takes the block. */
static void finish(struct record_log *log, const struct log_reading *reading,
                   const struct assembly *assembly, struct log_page *ret) {
    uint8_t *list = assembly->block->data + LOG_PAGE_HEADROOM;
    be32_store(list, assembly->count);
    *ret = (struct log_page){
        .block = assembly->block,
        .list =
            {
                .bytes = slice_of(list, (size_t)(assembly->out - list)),
                .count = assembly->count,
                .payload_bytes = assembly->payload_bytes,
            },
        .headroom = LOG_PAGE_HEADROOM,
        .timestamps = assembly->timestamps,
        .first = reading->offset,
    };
    uint64_t next = reading->offset + assembly->count;
    (void)pthread_mutex_lock(&log->mutex);
    log->read_records += assembly->count;
    if (log->generation == reading->generation)
        *hint_of(log, next) = (struct log_hint){
            .offset = next,
            .segment = reading->segment->id,
            .position = reading->position + assembly->parsed,
        };
    (void)pthread_mutex_unlock(&log->mutex);
}

/* Reads from `reading->position`, which is where the record `offset` should be. FELIX_DAMAGED: it
 * is not. */
static enum felix_err read_page(struct record_log *log, const struct log_reading *reading,
                                size_t bytes_max, struct log_page *ret,
                                struct felix_error *reterr) {
    size_t raw_bytes = raw_bytes_for(log, reading, bytes_max, reading->position);
    size_t left = (size_t)(reading->end_position - reading->position);
    for (;;) {
        struct assembly assembly;
        assembly_init(&assembly, log, raw_bytes);
        struct assembled end = assemble(log, reading, bytes_max, &assembly);
        if (assembly.count > 0) {
            read_ahead(log, reading, &assembly);
            finish(log, reading, &assembly, ret);
            return FELIX_OK;
        }
        buf_unref(assembly.block);
        if (end.error != 0)
            return log_segment_error(log, reterr, "read", reading->segment->id, end.error);
        /* Longer than was guessed: its verified header tells how long. */
        size_t need = end.record_bytes != 0 ? end.record_bytes : RECORD_HEADER_BYTES;
        bool short_of_room = end.fault == RECORD_TRUNCATED || end.fault == RECORD_TRUNCATED_HEADER;
        if (!short_of_room || need <= raw_bytes || need > left)
            return FELIX_DAMAGED;
        raw_bytes = need;
    }
}

/* Where the record is: by hint, by index, else by looking at everything. */
static enum felix_err find_and_read(struct record_log *log, struct log_reading *reading,
                                    size_t bytes_max, struct log_page *ret,
                                    struct felix_error *reterr) {
    uint64_t known_end;
    (void)pthread_mutex_lock(&log->mutex);
    bool damaged = in_known_damage(log, reading->offset, &known_end);
    struct log_index_entry from = nearest(log, reading);
    (void)pthread_mutex_unlock(&log->mutex);
    if (damaged)
        return FELIX_DAMAGED;
    if (from.offset != reading->offset) {
        log_load_index(log, reading->segment);
        (void)pthread_mutex_lock(&log->mutex);
        from = nearest(log, reading);
        (void)pthread_mutex_unlock(&log->mutex);
    }
    int disk_errno = 0;
    enum felix_err err = FELIX_DAMAGED;
    if (walk(log, reading, from, &reading->position, &disk_errno))
        err = read_page(log, reading, bytes_max, ret, reterr);
    if (disk_errno != 0)
        return log_segment_error(log, reterr, "read", reading->segment->id, disk_errno);
    if (err != FELIX_DAMAGED)
        return err;
    bool readable;
    err = log_verify_segment(log, reading, &readable, reterr);
    if (err != FELIX_OK || !readable)
        return err != FELIX_OK ? err : FELIX_DAMAGED;
    return read_page(log, reading, bytes_max, ret, reterr);
}

/* The log went back behind this meanwhile. */
static bool is_stale(struct record_log *log, const struct log_reading *reading) {
    (void)pthread_mutex_lock(&log->mutex);
    bool stale = log->generation != reading->generation;
    (void)pthread_mutex_unlock(&log->mutex);
    return stale;
}

/* A segment's file cannot be opened. Ours stay while somebody reads them; a log that is only looked
 * at may belong to a process that removes what it no longer keeps. */
static enum felix_err refuse_open(const struct record_log *log, const struct log_reading *reading,
                                  int opened, uint64_t *ret_available, struct felix_error *reterr) {
    uint64_t id = reading->segment->id;
    if (opened != -ENOENT || !log->read_only)
        return log_segment_error(log, reterr, "open", id, opened);
    *ret_available = reading->end_offset;
    return error_set(reterr, FELIX_CURSOR_TOO_OLD, 0, "log %s: segment %llu was removed meanwhile",
                     log->name, (unsigned long long)id);
}

enum felix_err record_log_read(struct record_log *log, uint64_t offset, size_t bytes_max,
                               struct log_page *ret, uint64_t *ret_available,
                               struct felix_error *reterr) {
    for (;;) {
        *ret = (struct log_page){.first = offset};
        struct log_reading reading;
        enum felix_err err = log_reading_begin(log, offset, &reading, ret_available, reterr);
        if (err != FELIX_OK || reading.segment == NULL)
            return err;
        int opened = log_open_pinned(log, reading.segment);
        if (opened != 0)
            err = refuse_open(log, &reading, opened, ret_available, reterr);
        else
            err = find_and_read(log, &reading, bytes_max, ret, reterr);
        bool again = is_stale(log, &reading);
        log_unpin(log, reading.segment);
        if (again) {
            buf_unref(ret->block);
            continue;
        }
        if (err == FELIX_DAMAGED) {
            *ret_available = log_after_damage(log, offset);
            err = error_set(reterr, FELIX_DAMAGED, 0,
                            "log %s: records from offset %llu up to %llu cannot be read", log->name,
                            (unsigned long long)offset, (unsigned long long)*ret_available);
        }
        return err;
    }
}
