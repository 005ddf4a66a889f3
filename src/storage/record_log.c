/* Opening, closing, what there is to know, and starting again after a failure. */
#include "storage/record_log.h"

#include "storage/log_flush.h"
#include "storage/log_recovery.h"

#include "base/check.h"

#include <errno.h>

/* Damage that this finds is no reason not to serve the rest. */
static enum felix_err verify_all(struct record_log *log, struct felix_error *reterr) {
    enum felix_err err = FELIX_OK;
    bool more = true;
    while (more && err == FELIX_OK)
        err = record_log_verify_next(log, &more, reterr);
    return err;
}

static enum felix_err open_log(const struct disk *disk, const char *dir, const char *name,
                               const struct record_log_settings *settings, bool read_only,
                               struct record_log **ret, struct log_recovery *report,
                               struct felix_error *reterr) {
    struct record_log *log = log_state_new(disk, dir, name, settings);
    if (log == NULL)
        return log_no_memory(reterr);
    log->read_only = read_only;
    enum felix_err err = log_recover(log, report, reterr);
    if (err == FELIX_OK && settings->verify_all_on_open)
        err = verify_all(log, reterr);
    if (err != FELIX_OK) {
        log_state_free(log);
        return err;
    }
    *ret = log;
    return FELIX_OK;
}

enum felix_err record_log_open(const struct disk *disk, const char *dir, const char *name,
                               const struct record_log_settings *settings, struct record_log **ret,
                               struct log_recovery *ret_report, struct felix_error *reterr) {
    struct log_recovery unused = {0};
    struct log_recovery *report = ret_report != NULL ? ret_report : &unused;
    *report = (struct log_recovery){0};
    int err = disk_make_dirs(disk, dir);
    if (err != 0)
        return log_disk_error(reterr, "make the folder", dir, err);
    return open_log(disk, dir, name, settings, false, ret, report, reterr);
}

enum felix_err record_log_open_read_only(const struct disk *disk, const char *dir, const char *name,
                                         const struct record_log_settings *settings,
                                         struct record_log **ret, struct log_recovery *ret_report,
                                         struct felix_error *reterr) {
    struct log_recovery unused = {0};
    struct log_recovery *report = ret_report != NULL ? ret_report : &unused;
    *report = (struct log_recovery){0};
    return open_log(disk, dir, name, settings, true, ret, report, reterr);
}

/* 0 or negative errno. */
static int cut_to_length(struct record_log *log) {
    struct log_writer *writer = &log->writer;
    if (writer->file_bytes == log->written.position)
        return 0;
    int err =
        log->disk->ops->truncate(log->disk->context, writer->active->file, log->written.position);
    return err == 0 ? log->disk->ops->sync(log->disk->context, writer->active->file) : err;
}

static enum felix_err close_in_order(struct record_log *log) {
    enum felix_err err = record_log_write(log, NULL);
    if (err == FELIX_OK)
        err = record_log_sync(log, NULL);
    if (err == FELIX_OK && cut_to_length(log) != 0)
        err = FELIX_STORAGE;
    if (err != FELIX_OK)
        return err;
    const struct segment *newest = log_newest(log);
    char path[PATH_MAX];
    if (segment_path(log->dir, newest->id, "index", path))
        (void)log_index_save(&newest->index, log->disk, path);
    log_write_checkpoint(log, true, true);
    return log_unlink_leaving(log, NULL);
}

enum felix_err record_log_close(struct record_log *log) {
    enum felix_err err = FELIX_OK;
    if (log == NULL)
        return FELIX_OK;
    if (!log->read_only)
        err = atomic_load(&log->failed) ? FELIX_STORAGE : close_in_order(log);
    log_state_free(log);
    return err;
}

void record_log_abandon(struct record_log *log) {
    log_state_free(log);
}

void record_log_info(struct record_log *log, struct record_log_info *ret) {
    *ret = (struct record_log_info){.failed = atomic_load(&log->failed)};
    (void)pthread_mutex_lock(&log->mutex);
    ret->oldest = log_oldest(log);
    ret->durable_end = log->durable.offset;
    ret->written_end = log->written.offset;
    ret->committed_end = log_committed(log).offset;
    ret->bytes = log->sealed_bytes + log->written.position;
    ret->segments = (uint32_t)log->segment_count;
    ret->damage_count = log->damage_count;
    for (uint32_t i = 0; i < log->damage_count && i < LOG_DAMAGE_MAX; i++)
        ret->damage[i] = log->damage[i];
    ret->appended_records = log->appended_records;
    ret->appended_bytes = log->appended_bytes;
    ret->syncs = log->syncs;
    ret->removed_segments = log->removed_segments;
    ret->read_records = log->read_records;
    for (size_t i = 0; i < log->segment_count; i++)
        ret->unverified_segments += log->segments[i]->sealed && !log->segments[i]->verified;
    (void)pthread_mutex_unlock(&log->mutex);
}
