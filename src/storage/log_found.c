/* The files of a log's directory, and which of them are segments. */
#include "storage/log_recovery.h"
#include "storage/segment_scan.h"

#include <errno.h>
#include <stdlib.h>

struct listing {
    struct found_segments *found;
    bool no_memory;
};

static void on_name(void *user, const char *name) {
    struct listing *listing = user;
    struct found_segments *found = listing->found;
    uint64_t id;
    if (!segment_name_parse(name, "log", &id))
        return;
    if (found->count == found->capacity) {
        size_t capacity = found->capacity != 0 ? found->capacity * 2 : 16;
        struct found_segment *items = realloc(found->items, capacity * sizeof *items);
        if (items == NULL) {
            listing->no_memory = true;
            return;
        }
        found->items = items;
        found->capacity = capacity;
    }
    found->items[found->count++] = (struct found_segment){.id = id};
}

static int by_id(const void *a, const void *b) {
    const struct found_segment *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

/* 0 or negative errno. */
static int read_header(const struct record_log *log, struct found_segment *found) {
    const struct disk *disk = log->disk;
    char path[PATH_MAX];
    if (!segment_path(log->dir, found->id, "log", path))
        return -ENAMETOOLONG;
    int file = disk->ops->open(disk->context, path, DISK_READ);
    if (file < 0)
        return file;
    uint8_t header[SEGMENT_HEADER_BYTES];
    int err = disk->ops->size(disk->context, file, &found->bytes);
    ssize_t got = 0;
    if (err == 0)
        got = disk_read_all(disk, file, header, sizeof header, 0);
    (void)disk->ops->close(disk->context, file);
    if (err != 0 || got < 0)
        return err != 0 ? err : (int)got;
    struct slice bytes = slice_of(header, (size_t)got);
    found->fault = segment_header_decode(bytes, &found->header);
    found->foreign = segment_header_is_foreign(bytes);
    return 0;
}

enum felix_err log_find_segments(struct record_log *log, struct found_segments *found,
                                 struct felix_error *reterr) {
    struct listing listing = {.found = found};
    int err = log->disk->ops->list(log->disk->context, log->dir, on_name, &listing);
    if (err != 0)
        return log_disk_error(reterr, "list", log->dir, err);
    if (listing.no_memory)
        return log_no_memory(reterr);
    if (found->count > 1)
        qsort(found->items, found->count, sizeof *found->items, by_id);
    size_t kept = 0;
    for (size_t i = 0; i < found->count; i++) {
        struct found_segment *item = &found->items[i];
        err = read_header(log, item);
        /* Looking at a log that is in use: retention was there. */
        if (err == -ENOENT && log->read_only && kept == 0)
            continue;
        if (err != 0)
            return log_segment_error(log, reterr, "read", item->id, err);
        found->items[kept++] = *item;
    }
    found->count = kept;
    return FELIX_OK;
}

static enum felix_err drop_newest(struct recovery *recovery, bool keep,
                                  struct felix_error *reterr) {
    struct record_log *log = recovery->log;
    const struct disk *disk = log->disk;
    struct found_segment *newest = &recovery->found.items[recovery->found.count - 1];
    recovery->found.count--;
    recovery->changed = true;
    if (keep)
        recovery->report->moved_bytes += newest->bytes;
    else
        recovery->report->removed_segments++;
    if (log->read_only)
        return FELIX_OK;
    char path[PATH_MAX];
    if (segment_path(log->dir, newest->id, "index", path))
        (void)disk->ops->remove(disk->context, path);
    if (keep) {
        enum felix_err err = log_set_aside(log, newest->id, reterr);
        if (err != FELIX_OK)
            return err;
    } else {
        int err = segment_path(log->dir, newest->id, "log", path)
                      ? disk->ops->remove(disk->context, path)
                      : -ENAMETOOLONG;
        if (err != 0)
            return log_segment_error(log, reterr, "remove", newest->id, err);
    }
    /* For good, before something older is touched. */
    int err = disk->ops->sync_dir(disk->context, log->dir);
    return err != 0 ? log_disk_error(reterr, "flush the folder", log->dir, err) : FELIX_OK;
}

/* Is there anything but zeros behind byte `from` of the file? */
static enum felix_err has_content(const struct record_log *log, const struct found_segment *found,
                                  uint64_t from, bool *ret, struct felix_error *reterr) {
    *ret = false;
    if (found->bytes <= from)
        return FELIX_OK;
    char path[PATH_MAX];
    if (!segment_path(log->dir, found->id, "log", path))
        return log_segment_error(log, reterr, "read", found->id, -ENAMETOOLONG);
    int file = log->disk->ops->open(log->disk->context, path, DISK_READ);
    if (file < 0)
        return log_segment_error(log, reterr, "open", found->id, file);
    uint64_t content_end = from;
    int err = segment_nonzero_end(log->disk, file, from, found->bytes, &content_end);
    (void)log->disk->ops->close(log->disk->context, file);
    *ret = content_end != from;
    return err != 0 ? log_segment_error(log, reterr, "read", found->id, err) : FELIX_OK;
}

enum felix_err log_drop_newest(struct recovery *recovery, struct felix_error *reterr) {
    struct found_segment *newest = &recovery->found.items[recovery->found.count - 1];
    bool headed = newest->fault == SEGMENT_HEADER_OK;
    bool keep = false;
    enum felix_err err =
        has_content(recovery->log, newest, headed ? SEGMENT_HEADER_BYTES : 0, &keep, reterr);
    /* Less than a header is an unfinished one. */
    keep = keep && newest->bytes >= SEGMENT_HEADER_BYTES;
    return err == FELIX_OK ? drop_newest(recovery, keep, reterr) : err;
}

/* Nothing of it was flushed, as far as the checkpoint knows. */
static bool is_above(const struct recovery *recovery, const struct found_segment *found) {
    return recovery->checkpointed && (found->id > recovery->mark.segment ||
                                      (found->id == recovery->mark.segment &&
                                       recovery->mark.position <= SEGMENT_HEADER_BYTES));
}

/* How many of the segments, from the oldest on, are in front of the first one that was not even
 * begun when the power went out. */
static size_t begun(const struct recovery *recovery) {
    const struct found_segments *found = &recovery->found;
    for (size_t i = 0; i < found->count; i++) {
        const struct found_segment *item = &found->items[i];
        if (item->fault != SEGMENT_HEADER_OK && !item->foreign && is_above(recovery, item))
            return i;
    }
    return found->count;
}

enum felix_err log_drop_unfinished(struct recovery *recovery, struct felix_error *reterr) {
    struct record_log *log = recovery->log;
    struct found_segments *found = &recovery->found;
    enum felix_err err = FELIX_OK;
    for (size_t count = begun(recovery); err == FELIX_OK && found->count > count;)
        err = log_drop_newest(recovery, reterr);
    while (err == FELIX_OK && found->count > 0) {
        const struct found_segment *newest = &found->items[found->count - 1];
        if (newest->fault == SEGMENT_HEADER_OK)
            return FELIX_OK;
        bool content = false;
        if (newest->bytes >= SEGMENT_HEADER_BYTES)
            err = has_content(log, newest, 0, &content, reterr);
        if (err != FELIX_OK)
            return err;
        if (recovery->checkpointed || content)
            return log_damaged(log, reterr, newest->id, 0,
                               segment_header_fault_text(newest->fault));
        err = drop_newest(recovery, false, reterr);
    }
    return err;
}
