/*
 * Restoring a backup, and checking one.
 *
 *   the manifest is read: without a good one nothing else is looked at
 *   each file is copied into a directory beside the target, its length and checksum compared
 *   each log is surveyed there: its records, one by one, must be those that the manifest says. The
 *     indexes are made on the way.
 *   files and directories are synced, then the directory gets its name
 *
 * So the target is there as a whole or not at all. A checkpoint is written for a log without
 * damage: it says that what was restored was on disk once.
 */
#include "storage/backup.h"

#include "base/check.h"
#include "storage/backup_files.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define UNFINISHED ".restoring"
#define INDEX_SPACING 4096u

struct restore {
    const struct disk *disk;
    struct backup_result *result;
    struct felix_error *reterr;
};

/* ---- manifest ---- */

static enum felix_err read_manifest(const struct restore *r, const char *source) {
    char path[PATH_MAX];
    enum felix_err err = backup_join(path, source, MANIFEST_FILE_NAME, r->reterr);
    if (err != FELIX_OK)
        return err;
    int file = r->disk->ops->open(r->disk->context, path, DISK_READ);
    if (file == -ENOENT || file == -ENOTDIR)
        return error_set(r->reterr, FELIX_NOT_FOUND, 0,
                         "%s is no backup, or one that was not finished: there is no file %s in it",
                         source, MANIFEST_FILE_NAME);
    if (file < 0)
        return backup_failed(r->reterr, file, "open", path);
    uint64_t bytes = 0;
    int failed = r->disk->ops->size(r->disk->context, file, &bytes);
    bool too_long = bytes > MANIFEST_BYTES_MAX;
    uint8_t *data = failed == 0 && !too_long ? malloc((size_t)bytes + 1) : NULL;
    ssize_t got = 0;
    if (data != NULL)
        got = disk_read_all(r->disk, file, data, (size_t)bytes, 0);
    else if (failed == 0 && !too_long)
        failed = -ENOMEM;
    (void)r->disk->ops->close(r->disk->context, file);
    if (failed == 0 && got < 0)
        failed = (int)got;
    if (failed != 0)
        err = backup_failed(r->reterr, failed, "read", path);
    else if (too_long)
        err = error_set(r->reterr, FELIX_DAMAGED, 0, "%s is longer than any manifest", path);
    else
        err = manifest_decode(slice_of(data, (size_t)got), &r->result->manifest, r->reterr);
    free(data);
    return err == FELIX_MALFORMED ? FELIX_DAMAGED : err;
}

/* ---- checking a log ---- */

static enum felix_err check_file(const struct restore *r, const char *dir,
                                 const struct manifest_file *file) {
    char path[PATH_MAX];
    uint64_t bytes;
    uint32_t crc;
    if (!segment_path(dir, file->segment, "log", path))
        return error_set(r->reterr, FELIX_INVALID_ARGUMENT, 0, "the path %s is too long", dir);
    enum felix_err err = backup_checksum(r->disk, path, &bytes, &crc, r->reterr);
    if (err != FELIX_OK)
        return err;
    r->result->bytes += bytes;
    if (bytes == file->bytes && crc == file->crc)
        return FELIX_OK;
    return error_set(r->reterr, FELIX_DAMAGED, 0,
                     "%s is not what the manifest says: %" PRIu64 " bytes with checksum %08" PRIx32
                     ", not %" PRIu64 " with %08" PRIx32,
                     path, bytes, crc, file->bytes, file->crc);
}

static bool same_segments(const struct survey *survey, const struct manifest_log *log) {
    if (survey->segments_count != log->files_count || survey->oldest != log->range.first ||
        survey->end != log->range.end)
        return false;
    for (size_t i = 0; i < log->files_count; i++) {
        const struct survey_segment *segment = &survey->segments[i];
        const struct manifest_file *file = &log->files[i];
        if (segment->id != file->segment || segment->first != file->first ||
            segment->end != file->end || segment->file_bytes != file->bytes)
            return false;
    }
    return true;
}

static bool same_damage(const struct survey *survey, const struct manifest_log *log) {
    struct manifest found = {.logs = NULL};
    struct manifest_log *described = manifest_add_log(&found, slice_str(log->name));
    backup_describe_damage(survey, described);
    bool same = described->damage_count == log->damage_count;
    for (size_t i = 0; same && i < log->damage_count; i++)
        same = described->damage[i].first == log->damage[i].first &&
               described->damage[i].end == log->damage[i].end;
    manifest_deinit(&found);
    return same;
}

/* Where a log ends; one without files is to begin there, in its first segment. */
static struct log_mark end_of(const struct manifest_log *log) {
    if (log->files_count == 0)
        return (struct log_mark){.offset = log->range.end, .position = SEGMENT_HEADER_BYTES};
    const struct manifest_file *newest = &log->files[log->files_count - 1];
    return (struct log_mark){
        .offset = log->range.end, .segment = newest->segment, .position = newest->bytes};
}

/* Survey what lies in `dir`: is it, record by record, what the manifest says? */
static enum felix_err check_records(const struct restore *r, const char *dir,
                                    const struct manifest_log *log, survey_record_fn on_record,
                                    void *context) {
    if (log->files_count == 0)
        return FELIX_OK;
    const struct checkpoint promise = {.file = -1, .valid = true, .mark = end_of(log)};
    const struct survey_options options = {
        .on_record = on_record, .context = context, .checkpoint = &promise};
    struct survey survey;
    enum felix_err err = survey_log(r->disk, dir, &options, &survey, r->reterr);
    if (err != FELIX_OK)
        return err;
    if (!same_segments(&survey, log) || !same_damage(&survey, log))
        err = error_set(r->reterr, FELIX_DAMAGED, 0,
                        "the records in %s are not those that the manifest names", dir);
    survey_deinit(&survey);
    return err;
}

static enum felix_err refuse_damage(const struct restore *r) {
    const struct manifest *manifest = &r->result->manifest;
    for (size_t i = 0; i < manifest->logs_count; i++) {
        const struct manifest_log *log = &manifest->logs[i];
        if (log->damage_count > 0)
            return error_set(r->reterr, FELIX_DAMAGED, 0,
                             "the backup of %s was made of a damaged log: the records %" PRIu64
                             " to %" PRIu64 " and maybe others cannot be read",
                             log->name, log->damage[0].first, log->damage[0].end - 1);
    }
    return FELIX_OK;
}

/* ---- one log ---- */

/* Makes the indexes while the records go by. */
struct indexer {
    const struct restore *r;
    const char *dir;
    struct log_index index;
    uint64_t segment;
    bool open;
};

static void save_index(struct indexer *indexer) {
    char path[PATH_MAX];
    /* Nothing depends on it: the log makes its own when it finds none. */
    if (indexer->open && segment_path(indexer->dir, indexer->segment, "index", path))
        (void)log_index_save(&indexer->index, indexer->r->disk, path);
    log_index_deinit(&indexer->index);
    indexer->open = false;
}

static bool index_record(void *context, const struct survey_segment *segment, uint64_t position,
                         const struct record *record) {
    struct indexer *indexer = context;
    if (!indexer->open || indexer->segment != segment->id) {
        save_index(indexer);
        log_index_init(&indexer->index, segment->first, INDEX_SPACING);
        indexer->segment = segment->id;
        indexer->open = true;
    }
    log_index_note(&indexer->index, record->offset, position,
                   RECORD_HEADER_BYTES + record->payload.len);
    return true;
}

static enum felix_err copy_files(const struct restore *r, const char *from, const char *to,
                                 const struct manifest_log *log) {
    enum felix_err err = FELIX_OK;
    for (size_t i = 0; err == FELIX_OK && i < log->files_count; i++) {
        char source[PATH_MAX], target[PATH_MAX];
        uint64_t id = log->files[i].segment;
        if (!segment_path(from, id, "log", source) || !segment_path(to, id, "log", target))
            return error_set(r->reterr, FELIX_INVALID_ARGUMENT, 0, "the path %s is too long", to);
        int file = r->disk->ops->open(r->disk->context, source, DISK_READ);
        if (file == -ENOENT)
            return error_set(r->reterr, FELIX_DAMAGED, 0, "%s is missing", source);
        if (file < 0)
            return backup_failed(r->reterr, file, "open", source);
        err = backup_copy(r->disk, file, source, target, r->reterr);
        (void)r->disk->ops->close(r->disk->context, file);
        if (err == FELIX_OK)
            err = backup_cut_and_sync(r->disk, target, UINT64_MAX, r->reterr);
        if (err == FELIX_OK)
            err = check_file(r, to, &log->files[i]);
    }
    return err;
}

static enum felix_err write_checkpoint(const struct restore *r, const char *dir,
                                       const struct manifest_log *log) {
    if (log->damage_count > 0)
        return FELIX_OK;
    struct log_mark mark = end_of(log);
    struct checkpoint checkpoint = {.disk = r->disk, .file = -1};
    int failed = checkpoint_create(&checkpoint, dir, mark);
    if (failed == 0)
        failed = checkpoint_write(&checkpoint, mark, true);
    if (failed == 0)
        failed = checkpoint_sync(&checkpoint);
    checkpoint_close(&checkpoint);
    return failed == 0 ? FELIX_OK
                       : backup_failed(r->reterr, failed, "write the checkpoint of", dir);
}

static enum felix_err sync_dir(const struct restore *r, const char *dir) {
    int failed = r->disk->ops->sync_dir(r->disk->context, dir);
    return failed == 0 ? FELIX_OK : backup_failed(r->reterr, failed, "sync", dir);
}

/* Makes the directory `to` of the log. */
static enum felix_err restore_log(const struct restore *r, const char *source, const char *to,
                                  const struct manifest_log *log) {
    char from[PATH_MAX];
    enum felix_err err = backup_join(from, source, log->name, r->reterr);
    if (err != FELIX_OK)
        return err;
    int failed = r->disk->ops->make_dir(r->disk->context, to);
    if (failed != 0)
        return backup_failed(r->reterr, failed, "make", to);
    err = copy_files(r, from, to, log);
    struct indexer indexer = {.r = r, .dir = to};
    if (err == FELIX_OK)
        err = check_records(r, to, log, index_record, &indexer);
    save_index(&indexer);
    if (err == FELIX_OK)
        err = write_checkpoint(r, to, log);
    return err == FELIX_OK ? sync_dir(r, to) : err;
}

/* ---- all of it ---- */

/* Everything below `unfinished`, which is to become the target. */
static enum felix_err restore_all(const struct restore *r, const char *source,
                                  const char *unfinished) {
    const struct manifest *manifest = &r->result->manifest;
    if (!manifest->node) {
        INVARIANT(manifest->logs_count == 1 && manifest->logs != NULL);
        return restore_log(r, source, unfinished, &manifest->logs[0]);
    }
    int failed = r->disk->ops->make_dir(r->disk->context, unfinished);
    if (failed != 0)
        return backup_failed(r->reterr, failed, "make", unfinished);
    enum felix_err err = FELIX_OK;
    for (size_t i = 0; err == FELIX_OK && i < manifest->logs_count; i++) {
        char to[PATH_MAX];
        err = backup_join(to, unfinished, manifest->logs[i].name, r->reterr);
        if (err == FELIX_OK)
            err = restore_log(r, source, to, &manifest->logs[i]);
    }
    return err == FELIX_OK ? sync_dir(r, unfinished) : err;
}

/* A directory that holds `path`, and what `path` is called there without slashes at its end. */
static enum felix_err split(const struct restore *r, const char *path, char parent[PATH_MAX],
                            char whole[PATH_MAX]) {
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/')
        end--;
    size_t start = end;
    while (start > 0 && path[start - 1] != '/')
        start--;
    if (end == start || end + sizeof UNFINISHED >= PATH_MAX)
        return error_set(r->reterr, FELIX_INVALID_ARGUMENT, 0, "%s cannot be a target", path);
    (void)snprintf(whole, PATH_MAX, "%.*s", (int)end, path);
    if (start == 0)
        (void)snprintf(parent, PATH_MAX, ".");
    else
        (void)snprintf(parent, PATH_MAX, "%.*s", start > 1 ? (int)start - 1 : 1, path);
    return FELIX_OK;
}

static enum felix_err give_name(const struct restore *r, const char *unfinished, const char *target,
                                const char *parent, bool empty_dir) {
    const struct disk_ops *ops = r->disk->ops;
    int failed = empty_dir ? ops->remove_dir(r->disk->context, target) : 0;
    if (failed == 0)
        failed = ops->rename(r->disk->context, unfinished, target);
    if (failed == 0)
        failed = ops->sync_dir(r->disk->context, parent);
    return failed == 0 ? FELIX_OK : backup_failed(r->reterr, failed, "rename to", target);
}

static enum felix_err restore(const struct restore *r, const struct restore_request *request) {
    char parent[PATH_MAX], target[PATH_MAX], unfinished[PATH_MAX];
    bool empty_dir;
    enum felix_err err = read_manifest(r, request->source);
    if (err == FELIX_OK && !request->damaged_too)
        err = refuse_damage(r);
    if (err == FELIX_OK)
        err = split(r, request->target, parent, target);
    if (err == FELIX_OK)
        err = backup_target_free(r->disk, target, &empty_dir, r->reterr);
    if (err != FELIX_OK)
        return err;
    (void)snprintf(unfinished, sizeof unfinished, "%.*s" UNFINISHED,
                   (int)(PATH_MAX - sizeof UNFINISHED), target);
    int failed = disk_make_dirs(r->disk, parent);
    if (failed != 0)
        return backup_failed(r->reterr, failed, "make", parent);
    backup_remove_tree(r->disk, unfinished);
    bool left_over;
    err = backup_target_free(r->disk, unfinished, &left_over, r->reterr);
    if (err != FELIX_OK)
        return err;
    err = restore_all(r, request->source, unfinished);
    if (err == FELIX_OK)
        err = give_name(r, unfinished, target, parent, empty_dir);
    if (err != FELIX_OK)
        backup_remove_tree(r->disk, unfinished);
    return err;
}

enum felix_err backup_restore(const struct disk *disk, const struct restore_request *request,
                              struct backup_result *ret, struct felix_error *reterr) {
    *ret = (struct backup_result){.bytes = 0};
    const struct restore r = {.disk = disk, .result = ret, .reterr = reterr};
    enum felix_err err = restore(&r, request);
    if (err != FELIX_OK)
        backup_result_deinit(ret);
    return err;
}

enum felix_err backup_check(const struct disk *disk, const char *source, struct backup_result *ret,
                            struct felix_error *reterr) {
    *ret = (struct backup_result){.bytes = 0};
    const struct restore r = {.disk = disk, .result = ret, .reterr = reterr};
    enum felix_err err = read_manifest(&r, source);
    for (size_t i = 0; err == FELIX_OK && i < ret->manifest.logs_count; i++) {
        const struct manifest_log *log = &ret->manifest.logs[i];
        char dir[PATH_MAX];
        err = backup_join(dir, source, log->name, reterr);
        for (size_t f = 0; err == FELIX_OK && f < log->files_count; f++)
            err = check_file(&r, dir, &log->files[f]);
        if (err == FELIX_OK)
            err = check_records(&r, dir, log, NULL, NULL);
    }
    if (err != FELIX_OK)
        backup_result_deinit(ret);
    return err;
}
