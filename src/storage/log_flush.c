/*
 * The flusher role. What is captured at the start becomes durable in the order of the records: the
 * full segments that are still owed, oldest first, then the newest, then the directory that names
 * them. Only then does durable_end move, and the checkpoint after it.
 *
 * A flush that failed says nothing about any later one: the system may have dropped the pages. So
 * the log is failed from then on, and durable_end stays where the last good flush left it.
 */
#include "storage/log_flush.h"

#include "base/check.h"

/* What one sync has to do. */
struct flush {
    struct log_mark target;
    bool new_names; /* a segment whose name is not in the directory on disk */
};

/* The oldest full segment below `target` that is not flushed, pinned; NULL: none. */
static struct segment *next_owed(struct record_log *log, uint64_t after, struct flush *flush) {
    struct segment *owed = NULL;
    (void)pthread_mutex_lock(&log->mutex);
    for (size_t i = log->segment_count; i > 0; i--) {
        struct segment *segment = log->segments[i - 1];
        if (segment->flushed || segment->id < after)
            break;
        if (segment->id <= flush->target.segment) {
            owed = segment;
            flush->new_names |= !segment->entry_synced;
        }
    }
    if (owed != NULL)
        owed->pins++;
    (void)pthread_mutex_unlock(&log->mutex);
    return owed;
}

/* Whatever it was, also a full disk: a flush that failed is final. */
static enum felix_err refused(enum felix_err err, struct felix_error *reterr) {
    (void)err;
    if (reterr != NULL)
        reterr->code = FELIX_STORAGE;
    return FELIX_STORAGE;
}

static enum felix_err flush_segments(struct record_log *log, struct flush *flush,
                                     struct felix_error *reterr) {
    struct segment *segment;
    for (uint64_t after = 0; (segment = next_owed(log, after, flush)) != NULL;) {
        after = segment->id + 1;
        int err = log->disk->ops->sync(log->disk->context, segment->file);
        uint64_t id = segment->id;
        log_unpin(log, segment);
        if (err != 0)
            return refused(log_segment_error(log, reterr, "flush", id, err), reterr);
    }
    if (!flush->new_names)
        return FELIX_OK;
    int err = log->disk->ops->sync_dir(log->disk->context, log->dir);
    if (err != 0)
        return refused(log_disk_error(reterr, "flush the folder", log->dir, err), reterr);
    return FELIX_OK;
}

/* Under the mutex. Returns the segments that are done with, by `flushed_next`. */
static struct segment *publish(struct record_log *log, const struct flush *flush) {
    struct segment *done = NULL;
    for (size_t i = log->segment_count; i > 0; i--) {
        struct segment *segment = log->segments[i - 1];
        if (segment->flushed)
            break;
        if (segment->id > flush->target.segment)
            continue;
        segment->entry_synced = true;
        /* The one that was the newest may have been written to since. */
        if (segment->id == flush->target.segment)
            continue;
        segment->flushed = true;
        segment->flushed_next = done;
        done = segment;
    }
    log->durable = flush->target;
    log->syncs++;
    return done;
}

/* The index of a full segment is complete. Nothing depends on it, so a failure is none. */
static void save_index(struct record_log *log, struct segment *segment) {
    char path[PATH_MAX];
    if (segment_path(log->dir, segment->id, "index", path))
        (void)log_index_save(&segment->index, log->disk, path);
}

static void retire(struct record_log *log, struct segment *done) {
    while (done != NULL) {
        struct segment *segment = done;
        done = segment->flushed_next;
        segment->flushed_next = NULL;
        save_index(log, segment);
        log_unpin(log, segment); /* the pin of those that are written to */
    }
}

void log_write_checkpoint(struct record_log *log, bool sync, bool clean) {
    (void)pthread_mutex_lock(&log->mutex);
    struct log_mark mark = log->durable;
    (void)pthread_mutex_unlock(&log->mutex);
    if (checkpoint_write(&log->checkpoint, mark, clean) != 0)
        return;
    if (!sync || checkpoint_sync(&log->checkpoint) != 0)
        return;
    (void)pthread_mutex_lock(&log->mutex);
    log->kept_from = mark.segment;
    (void)pthread_mutex_unlock(&log->mutex);
}

enum felix_err log_sync_locked(struct record_log *log, struct felix_error *reterr) {
    struct flush flush = {.new_names = false};
    (void)pthread_mutex_lock(&log->mutex);
    flush.target = log->written;
    bool nothing =
        flush.target.offset == log->durable.offset && flush.target.segment == log->durable.segment;
    bool failed = log->flush_failed;
    (void)pthread_mutex_unlock(&log->mutex);
    if (failed)
        return error_set(reterr, FELIX_STORAGE, 0, "log %s: a flush failed before", log->name);
    if (nothing)
        return FELIX_OK;

    enum felix_err err = flush_segments(log, &flush, reterr);
    if (err != FELIX_OK) {
        (void)pthread_mutex_lock(&log->mutex);
        log->flush_failed = true;
        (void)pthread_mutex_unlock(&log->mutex);
        atomic_store(&log->failed, true);
        return err;
    }
    (void)pthread_mutex_lock(&log->mutex);
    struct segment *done = publish(log, &flush);
    (void)pthread_mutex_unlock(&log->mutex);
    /* Flushed only where a segment was finished: it bounds what recovery has to scan. */
    log_write_checkpoint(log, done != NULL, false);
    retire(log, done);
    return FELIX_OK;
}

enum felix_err record_log_sync(struct record_log *log, struct felix_error *reterr) {
    INVARIANT(!log->read_only);
    (void)pthread_mutex_lock(&log->sync_lock);
    enum felix_err err;
    if (atomic_load(&log->failed))
        err = error_set(reterr, FELIX_STORAGE, 0, "log %s failed before", log->name);
    else
        err = log_sync_locked(log, reterr);
    (void)pthread_mutex_unlock(&log->sync_lock);
    return err;
}
