/* The list of segments, pins, errors: what every part of the log needs. */
#include "storage/log_state.h"

#include "base/check.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum felix_err log_disk_error(struct felix_error *reterr, const char *call, const char *path,
                              int err) {
    enum felix_err code = FELIX_STORAGE;
    if (err == -ENOSPC || err == -EDQUOT)
        code = FELIX_DISK_FULL;
    else if (err == -ENOMEM)
        code = FELIX_NO_MEMORY;
    return error_set(reterr, code, -err, "cannot %s %s", call, path);
}

enum felix_err log_segment_error(const struct record_log *log, struct felix_error *reterr,
                                 const char *call, uint64_t id, int err) {
    char path[PATH_MAX];
    if (!segment_path(log->dir, id, "log", path))
        return log_disk_error(reterr, call, log->dir, err);
    return log_disk_error(reterr, call, path, err);
}

enum felix_err log_no_memory(struct felix_error *reterr) {
    return error_set(reterr, FELIX_NO_MEMORY, 0, "no memory for a durable log");
}

struct record_log *log_state_new(const struct disk *disk, const char *dir, const char *name,
                                 const struct record_log_settings *settings) {
    struct record_log *log = calloc(1, sizeof *log);
    if (log == NULL)
        return NULL;
    log->disk = disk;
    log->settings = *settings;
    log->checkpoint = (struct checkpoint){.disk = disk, .file = -1};
    log->dir = strdup(dir);
    log->name = strdup(name);
    log->writer.stage = malloc(LOG_STAGE_BYTES);
    INVARIANT(pthread_mutex_init(&log->mutex, NULL) == 0);
    INVARIANT(pthread_mutex_init(&log->sync_lock, NULL) == 0);
    if (log->dir == NULL || log->name == NULL || log->writer.stage == NULL) {
        log_state_free(log);
        return NULL;
    }
    return log;
}

void log_state_free(struct record_log *log) {
    if (log == NULL)
        return;
    for (size_t i = 0; i < log->segment_count; i++)
        segment_free(log->segments[i], log->disk);
    struct segment *lists[] = {log->leaving, log->writer.rolled};
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        for (struct segment *segment = lists[i]; segment != NULL;) {
            struct segment *next = segment->next;
            segment_free(segment, log->disk);
            segment = next;
        }
    }
    checkpoint_close(&log->checkpoint);
    (void)pthread_mutex_destroy(&log->mutex);
    (void)pthread_mutex_destroy(&log->sync_lock);
    free(log->segments);
    free(log->damage);
    free(log->writer.stage);
    free(log->dir);
    free(log->name);
    free(log);
}

bool log_reserve(struct record_log *log, size_t more) {
    if (log->segment_count + more <= log->segment_capacity)
        return true;
    size_t capacity = (log->segment_count + more) * 2;
    struct segment **segments = realloc(log->segments, capacity * sizeof(struct segment *));
    if (segments == NULL)
        return false;
    log->segments = segments;
    log->segment_capacity = capacity;
    return true;
}

struct segment *log_find(const struct record_log *log, uint64_t offset) {
    size_t low = 0, high = log->segment_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (log->segments[middle]->base <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low != 0 ? log->segments[low - 1] : NULL;
}

struct segment *log_find_id(const struct record_log *log, uint64_t id) {
    size_t low = 0, high = log->segment_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (log->segments[middle]->id < id)
            low = middle + 1;
        else
            high = middle;
    }
    bool found = low < log->segment_count && log->segments[low]->id == id;
    return found ? log->segments[low] : NULL;
}

struct segment *log_newest(const struct record_log *log) {
    INVARIANT(log->segment_count > 0);
    return log->segments[log->segment_count - 1];
}

struct log_mark log_committed(const struct record_log *log) {
    return log->settings.sync == LOG_SYNC_ON_COMMIT ? log->durable : log->written;
}

uint64_t log_oldest(const struct record_log *log) {
    return log->segments[0]->base;
}

/* Put an idle segment among those whose handle stays open; returns the handle to close instead, or
 * -1. The index goes with the handle. */
static int keep(struct record_log *log, struct segment *segment) {
    if (segment->kept)
        return -1;
    struct segment *victim = log->kept[log->kept_next];
    log->kept[log->kept_next] = segment;
    log->kept_next = (log->kept_next + 1) % LOG_KEPT_SEGMENTS;
    segment->kept = true;
    if (victim == NULL)
        return -1;
    victim->kept = false;
    if (victim->pins > 0)
        return -1;
    int file = victim->file;
    victim->file = -1;
    log_index_deinit(&victim->index);
    log_index_init(&victim->index, victim->base, log->settings.index_spacing_bytes);
    victim->index_loaded = false;
    return file;
}

void log_forget_kept(struct record_log *log, struct segment *segment) {
    for (unsigned i = 0; segment->kept && i < LOG_KEPT_SEGMENTS; i++) {
        if (log->kept[i] == segment) {
            log->kept[i] = NULL;
            segment->kept = false;
        }
    }
}

void log_unpin(struct record_log *log, struct segment *segment) {
    int file = -1;
    bool unlink_more = false;
    struct segment *dead = NULL;
    (void)pthread_mutex_lock(&log->mutex);
    INVARIANT(segment->pins > 0);
    if (--segment->pins == 0) {
        if (segment->gone) {
            log_forget_kept(log, segment);
            dead = segment;
        } else if (segment->leaving) {
            unlink_more = true;
        } else {
            file = keep(log, segment);
        }
    }
    (void)pthread_mutex_unlock(&log->mutex);
    if (file >= 0)
        (void)log->disk->ops->close(log->disk->context, file);
    segment_free(dead, log->disk);
    if (unlink_more) {
        /* Retention tries again, and tells why, should this fail. */
        enum felix_err err = log_unlink_leaving(log, NULL);
        (void)err;
    }
}

int log_open_pinned(struct record_log *log, struct segment *segment) {
    (void)pthread_mutex_lock(&log->mutex);
    int file = segment->file;
    (void)pthread_mutex_unlock(&log->mutex);
    if (file >= 0)
        return 0;
    char path[PATH_MAX];
    if (!segment_path(log->dir, segment->id, "log", path))
        return -ENAMETOOLONG;
    file = log->disk->ops->open(log->disk->context, path, DISK_READ);
    if (file < 0)
        return file;
    (void)pthread_mutex_lock(&log->mutex);
    if (segment->file < 0) {
        segment->file = file;
        file = -1;
    }
    (void)pthread_mutex_unlock(&log->mutex);
    if (file >= 0)
        (void)log->disk->ops->close(log->disk->context, file);
    return 0;
}

enum felix_err log_create_segment(struct record_log *log, uint64_t id, uint64_t base,
                                  uint64_t created_us, struct segment **ret,
                                  struct felix_error *reterr) {
    const struct disk *disk = log->disk;
    char path[PATH_MAX];
    if (!segment_path(log->dir, id, "log", path))
        return log_disk_error(reterr, "name a segment in", log->dir, -ENAMETOOLONG);
    struct segment *segment = segment_new(id, base, log->settings.index_spacing_bytes);
    if (segment == NULL)
        return log_no_memory(reterr);
    segment->file = disk->ops->open(disk->context, path, DISK_CREATE);
    if (segment->file < 0) {
        int err = segment->file;
        segment_free(segment, disk);
        return log_disk_error(reterr, "create", path, err);
    }
    uint8_t header[SEGMENT_HEADER_BYTES];
    segment_header_encode(&(struct segment_header){.base_offset = base, .created_us = created_us},
                          header);
    int err = disk_write_all(disk, segment->file, header, sizeof header, 0);
    if (err != 0) {
        segment_free(segment, disk);
        if (disk->ops->remove(disk->context, path) != 0)
            atomic_store(&log->failed, true); /* the next one could not be made */
        return log_disk_error(reterr, "write", path, err);
    }
    segment->created_us = created_us;
    segment->pins = 1;
    segment->index_loaded = true;
    segment->verified = true;
    *ret = segment;
    return FELIX_OK;
}

void log_writer_start(struct record_log *log, struct segment *active, struct log_mark mark,
                      uint64_t file_bytes) {
    struct log_writer *writer = &log->writer;
    *writer = (struct log_writer){
        .stage = writer->stage,
        .active = active,
        .position = mark.position,
        .file_bytes = file_bytes,
        .staged_end = mark.offset,
    };
}
