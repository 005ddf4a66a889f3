/*
 * Starting again after a failure, from what is provably on disk.
 *
 * After a failed flush that is what the last good one covered: later segments go, the one where it
 * ended is cut there. When only a write failed and could not be taken back, nothing that was
 * written before is in doubt: then it is `written`, and it is flushed now. All of it through new
 * handles, as an error may stick to the old ones. Readers keep the old ones until they are done.
 */
#include "storage/log_flush.h"
#include "storage/log_state.h"

#include "base/check.h"

#include <errno.h>

/* 0 or negative errno. */
static int remove_file(const struct record_log *log, uint64_t id, const char *suffix) {
    char path[PATH_MAX];
    if (!segment_path(log->dir, id, suffix, path))
        return -ENAMETOOLONG;
    int err = log->disk->ops->remove(log->disk->context, path);
    return err == -ENOENT ? 0 : err;
}

/* The files of segments behind `mark`, newest first. Only the roles of the caller change the end of
 * the list, and it is the caller that holds them. */
static enum felix_err remove_behind(struct record_log *log, struct log_mark mark,
                                    struct felix_error *reterr) {
    (void)pthread_mutex_lock(&log->mutex);
    uint64_t newest = log_newest(log)->id;
    (void)pthread_mutex_unlock(&log->mutex);
    for (uint64_t id = newest; id > mark.segment; id--) {
        (void)remove_file(log, id, "index");
        int err = remove_file(log, id, "log");
        if (err != 0)
            return log_segment_error(log, reterr, "remove", id, err);
    }
    int err = log->disk->ops->sync_dir(log->disk->context, log->dir);
    return err != 0 ? log_disk_error(reterr, "flush the folder", log->dir, err) : FELIX_OK;
}

/* A new handle on the segment of `mark`, cut and flushed. */
static enum felix_err open_at(struct record_log *log, struct log_mark mark, int *ret_file,
                              struct felix_error *reterr) {
    const struct disk *disk = log->disk;
    char path[PATH_MAX];
    uint64_t bytes = 0;
    if (!segment_path(log->dir, mark.segment, "log", path))
        return log_segment_error(log, reterr, "open", mark.segment, -ENAMETOOLONG);
    int file = disk->ops->open(disk->context, path, DISK_WRITE);
    if (file < 0)
        return log_disk_error(reterr, "open", path, file);
    int err = disk->ops->size(disk->context, file, &bytes);
    if (err == 0 && bytes < mark.position)
        err = -EIO;
    if (err == 0)
        err = disk->ops->truncate(disk->context, file, mark.position);
    if (err == 0)
        err = disk->ops->sync(disk->context, file);
    if (err != 0) {
        (void)disk->ops->close(disk->context, file);
        return log_disk_error(reterr, "cut and flush", path, err);
    }
    *ret_file = file;
    return FELIX_OK;
}

/* Under the mutex: `segment` left the list. Returns it if nobody has it. */
static struct segment *let_go(struct record_log *log, struct segment *segment) {
    segment->gone = true;
    if (!segment->flushed)
        segment->pins--; /* that of the ones that are written to */
    if (segment->pins != 0)
        return NULL;
    log_forget_kept(log, segment);
    return segment;
}

/* Under the mutex: other records come where damage was. */
static void forget_damage(struct record_log *log, uint64_t from) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < log->damage_count; i++) {
        struct log_damage damage = log->damage[i];
        if (damage.first >= from)
            continue;
        if (damage.end > from)
            damage.end = from;
        log->damage[kept++] = damage;
    }
    log->damage_count = kept;
}

/* Under the mutex: the list ends with `fresh`. Returns what nobody has any more, by `next`. */
static struct segment *replace_end(struct record_log *log, struct segment *fresh,
                                   struct log_mark mark) {
    struct segment *dead = NULL;
    for (;;) {
        struct segment *last = log_newest(log);
        bool same = last->id == fresh->id;
        if (same) {
            fresh->base = last->base;
            fresh->created_us = last->created_us;
            fresh->entry_synced = true;
            struct log_index index = last->index;
            log_index_init(&last->index, last->base, log->settings.index_spacing_bytes);
            fresh->index = index;
            log_index_cut(&fresh->index, mark.offset);
        }
        log->segment_count--;
        struct segment *free_now = let_go(log, last);
        if (free_now != NULL) {
            free_now->next = dead;
            dead = free_now;
        }
        if (same)
            break;
    }
    log->segments[log->segment_count++] = fresh;
    log->sealed_bytes = 0;
    for (size_t i = 0; i + 1 < log->segment_count; i++)
        log->sealed_bytes += log->segments[i]->bytes;
    log->generation++;
    memset(log->hints, 0, sizeof log->hints);
    forget_damage(log, mark.offset);
    log->written = mark;
    log->flush_failed = false;
    return dead;
}

static enum felix_err go_back(struct record_log *log, struct log_mark mark,
                              struct felix_error *reterr) {
    struct segment *fresh = segment_new(mark.segment, 0, log->settings.index_spacing_bytes);
    if (fresh == NULL)
        return log_no_memory(reterr);
    enum felix_err err = remove_behind(log, mark, reterr);
    if (err == FELIX_OK)
        err = open_at(log, mark, &fresh->file, reterr);
    if (err != FELIX_OK) {
        segment_free(fresh, log->disk);
        return err;
    }
    fresh->pins = 1;
    fresh->verified = fresh->index_loaded = true;
    (void)pthread_mutex_lock(&log->mutex);
    struct segment *dead = replace_end(log, fresh, mark);
    (void)pthread_mutex_unlock(&log->mutex);
    while (dead != NULL) {
        struct segment *segment = dead;
        dead = segment->next;
        segment_free(segment, log->disk);
    }
    log_writer_start(log, fresh, mark, mark.position);
    return FELIX_OK;
}

enum felix_err record_log_reopen(struct record_log *log, struct felix_error *reterr) {
    INVARIANT(!log->read_only);
    (void)pthread_mutex_lock(&log->sync_lock);
    (void)pthread_mutex_lock(&log->mutex);
    struct log_mark mark = log->flush_failed ? log->durable : log->written;
    (void)pthread_mutex_unlock(&log->mutex);
    enum felix_err err = log_discard_rolled(log, reterr);
    if (err == FELIX_OK)
        err = go_back(log, mark, reterr);
    if (err == FELIX_OK)
        err = log_sync_locked(log, reterr);
    if (err == FELIX_OK)
        atomic_store(&log->failed, false);
    (void)pthread_mutex_unlock(&log->sync_lock);
    return err;
}
