/*
 * Making a backup, log by log:
 *
 *   the log's checkpoint is read, then its names
 *   the newest segment is opened: from now on nobody can take it away
 *   the others are copied, oldest first, because that is the order in which retention takes them;
 *     one that is gone takes the copies of all before it with it
 *   the newest is copied, with whatever its end looks like at that moment
 *   the copy is surveyed, against that checkpoint: it, not the source, decides what the backup
 *     has. A tail behind the last record is cut off.
 *   the files are synced, then their directory
 *
 * The manifest comes last. A crash before that leaves a directory without one.
 */
#include "storage/backup.h"

#include "base/check.h"
#include "storage/backup_files.h"
#include "storage/survey.h"

#include <errno.h>
#include <stdlib.h>

struct backup {
    const struct disk *disk;
    struct backup_result *result;
    struct felix_error *reterr;
};

/* The segments of a log, sorted. */
struct ids {
    uint64_t *items;
    size_t count;
};

static void on_name(void *user, const char *name) {
    struct ids *ids = user;
    uint64_t id;
    if (!segment_name_parse(name, "log", &id))
        return;
    ids->items = xrealloc(ids->items, (ids->count + 1) * sizeof *ids->items);
    ids->items[ids->count++] = id;
}

static int by_id(const void *a, const void *b) {
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

static enum felix_err list_ids(const struct backup *b, const char *dir, struct ids *ret) {
    /* A listing is not a moment: a gap in it may be a segment that was made meanwhile. */
    for (unsigned attempt = 0; attempt < 2; attempt++) {
        ret->count = 0;
        int err = b->disk->ops->list(b->disk->context, dir, on_name, ret);
        if (err == -ENOENT || err == -ENOTDIR || (err == 0 && ret->count == 0))
            return error_set(b->reterr, FELIX_NOT_FOUND, 0, "%s holds no segment of a log", dir);
        if (err != 0)
            return backup_failed(b->reterr, err, "list", dir);
        qsort(ret->items, ret->count, sizeof *ret->items, by_id);
        if (ret->items[ret->count - 1] - ret->items[0] == ret->count - 1)
            break;
    }
    return FELIX_OK;
}

/* ---- copying ---- */

struct log_copy {
    const char *from, *to; /* directories */
    struct ids ids;
    size_t first; /* of ids: the oldest that is still there */
};

static enum felix_err paths_of(const struct backup *b, const struct log_copy *copy, uint64_t id,
                               char from[PATH_MAX], char to[PATH_MAX]) {
    if (segment_path(copy->from, id, "log", from) && segment_path(copy->to, id, "log", to))
        return FELIX_OK;
    return error_set(b->reterr, FELIX_INVALID_ARGUMENT, 0, "the path %s is too long", copy->to);
}

/* Retention took `ids[i]`: the copies before it are of no use any more. */
static enum felix_err drop_before(const struct backup *b, struct log_copy *copy, size_t i) {
    b->result->removed_under_us += i + 1 - copy->first;
    for (; copy->first < i; copy->first++) {
        char from[PATH_MAX], to[PATH_MAX];
        enum felix_err err = paths_of(b, copy, copy->ids.items[copy->first], from, to);
        if (err != FELIX_OK)
            return err;
        int failed = b->disk->ops->remove(b->disk->context, to);
        if (failed != 0)
            return backup_failed(b->reterr, failed, "remove", to);
    }
    copy->first = i + 1;
    return FELIX_OK;
}

static enum felix_err copy_sealed(const struct backup *b, struct log_copy *copy) {
    enum felix_err err = FELIX_OK;
    for (size_t i = 0; err == FELIX_OK && i + 1 < copy->ids.count; i++) {
        char from[PATH_MAX], to[PATH_MAX];
        err = paths_of(b, copy, copy->ids.items[i], from, to);
        if (err != FELIX_OK)
            return err;
        int file = b->disk->ops->open(b->disk->context, from, DISK_READ);
        if (file == -ENOENT) {
            err = drop_before(b, copy, i);
            continue;
        }
        if (file < 0)
            return backup_failed(b->reterr, file, "open", from);
        err = backup_copy(b->disk, file, from, to, b->reterr);
        (void)b->disk->ops->close(b->disk->context, file);
    }
    return err;
}

static enum felix_err copy_segments(const struct backup *b, struct log_copy *copy) {
    char from[PATH_MAX], to[PATH_MAX];
    enum felix_err err = paths_of(b, copy, copy->ids.items[copy->ids.count - 1], from, to);
    if (err != FELIX_OK)
        return err;
    int newest = b->disk->ops->open(b->disk->context, from, DISK_READ);
    if (newest == -ENOENT)
        return error_set(b->reterr, FELIX_NOT_FOUND, 0, "the log in %s was removed meanwhile",
                         copy->from);
    if (newest < 0)
        return backup_failed(b->reterr, newest, "open", from);
    err = copy_sealed(b, copy);
    if (err == FELIX_OK)
        err = backup_copy(b->disk, newest, from, to, b->reterr);
    (void)b->disk->ops->close(b->disk->context, newest);
    return err;
}

/* ---- what the copy has ---- */

static enum felix_err finish_file(const struct backup *b, const char *dir,
                                  const struct survey_segment *segment, struct manifest_log *log) {
    char path[PATH_MAX];
    if (!segment_path(dir, segment->id, "log", path))
        return error_set(b->reterr, FELIX_INVALID_ARGUMENT, 0, "the path %s is too long", dir);
    if (segment->leftover) {
        int failed = b->disk->ops->remove(b->disk->context, path);
        return failed == 0 ? FELIX_OK : backup_failed(b->reterr, failed, "remove", path);
    }
    /* What is plainly behind the last record was never promised to anybody. */
    bool cut = segment->tail == SURVEY_TAIL_ZEROS ||
               (segment->newest && segment->tail != SURVEY_TAIL_NONE && !segment->tail_damaged);
    enum felix_err err =
        backup_cut_and_sync(b->disk, path, cut ? segment->used_bytes : UINT64_MAX, b->reterr);
    if (err != FELIX_OK)
        return err;
    struct manifest_file *file = manifest_add_file(log);
    file->segment = segment->id;
    file->first = segment->first;
    file->end = segment->end;
    err = backup_checksum(b->disk, path, &file->bytes, &file->crc, b->reterr);
    b->result->bytes += file->bytes;
    return err;
}

static enum felix_err finish_log(const struct backup *b, const char *dir,
                                 const struct survey *survey, struct manifest_log *log) {
    log->range = (struct manifest_range){.first = survey->oldest, .end = survey->end};
    backup_describe_damage(survey, log);
    enum felix_err err = FELIX_OK;
    for (size_t i = 0; err == FELIX_OK && i < survey->segments_count; i++)
        err = finish_file(b, dir, &survey->segments[i], log);
    if (err != FELIX_OK)
        return err;
    int failed = b->disk->ops->sync_dir(b->disk->context, dir);
    return failed == 0 ? FELIX_OK : backup_failed(b->reterr, failed, "sync", dir);
}

static enum felix_err make_dir(const struct backup *b, const char *dir) {
    int failed = b->disk->ops->make_dir(b->disk->context, dir);
    return failed == 0 ? FELIX_OK : backup_failed(b->reterr, failed, "make", dir);
}

/* The log in `from` becomes the directory `name` of the target. */
static enum felix_err backup_log(const struct backup *b, const char *from, const char *target,
                                 const char *name) {
    char to[PATH_MAX];
    struct log_copy copy = {.from = from, .to = to};
    struct survey survey = {.segments = NULL};
    struct checkpoint checkpoint;
    enum felix_err err = backup_join(to, target, name, b->reterr);
    if (err != FELIX_OK)
        return err;
    int failed = checkpoint_open(&checkpoint, b->disk, from, true);
    checkpoint_close(&checkpoint);
    if (failed != 0 && failed != -ENOTDIR)
        return backup_failed(b->reterr, failed, "read the checkpoint of", from);
    err = list_ids(b, from, &copy.ids);
    if (err == FELIX_OK)
        err = make_dir(b, to);
    if (err == FELIX_OK)
        err = copy_segments(b, &copy);
    const struct survey_options options = {.checkpoint = &checkpoint};
    if (err == FELIX_OK)
        err = survey_log(b->disk, to, &options, &survey, b->reterr);
    if (err == FELIX_OK)
        err = finish_log(b, to, &survey, manifest_add_log(&b->result->manifest, slice_str(name)));
    survey_deinit(&survey);
    free(copy.ids.items);
    return err;
}

/* ---- all of it ---- */

/* Names with a dot are of directories on their way in or out. */
static bool is_log_name(const char *name) {
    return manifest_name_valid(slice_str(name)) && strchr(name, '.') == NULL;
}

static enum felix_err backup_node(const struct backup *b, const struct backup_request *request) {
    struct backup_names names;
    int failed = backup_list(b->disk, request->source, &names);
    if (failed == -ENOENT || failed == -ENOTDIR)
        return error_set(b->reterr, FELIX_NOT_FOUND, 0, "there is no directory %s",
                         request->source);
    if (failed != 0)
        return backup_failed(b->reterr, failed, "list", request->source);
    enum felix_err err = FELIX_OK;
    for (size_t i = 0; err == FELIX_OK && i < names.count; i++) {
        char dir[PATH_MAX];
        err = backup_join(dir, request->source, names.items[i], b->reterr);
        if (err != FELIX_OK || !is_log_name(names.items[i]) || !survey_is_log(b->disk, dir))
            continue;
        err = backup_log(b, dir, request->target, names.items[i]);
        if (err != FELIX_NOT_FOUND)
            continue;
        /* Its stream was deleted meanwhile. */
        err = backup_join(dir, request->target, names.items[i], b->reterr);
        if (err == FELIX_OK)
            backup_remove_tree(b->disk, dir);
    }
    backup_names_deinit(&names);
    if (err == FELIX_OK && b->result->manifest.logs_count == 0)
        return error_set(b->reterr, FELIX_NOT_FOUND, 0, "%s holds no log", request->source);
    return err;
}

/* What the directory of the log is called in the backup: as in the source, where that may be. */
static void name_of(const char *path, char out[MANIFEST_LOG_NAME_BYTES_MAX + 1]) {
    size_t end = strlen(path);
    while (end > 0 && path[end - 1] == '/')
        end--;
    size_t start = end;
    while (start > 0 && path[start - 1] != '/')
        start--;
    struct slice name = slice_of(path + start, end - start);
    if (!manifest_name_valid(name))
        name = slice_str("log");
    memcpy(out, name.data, name.len);
    out[name.len] = '\0';
}

static enum felix_err write_manifest(const struct backup *b, const char *target) {
    char path[PATH_MAX];
    enum felix_err err = backup_join(path, target, MANIFEST_FILE_NAME, b->reterr);
    if (err != FELIX_OK)
        return err;
    /* The directories that the manifest names are to be there when it is. */
    int failed = b->disk->ops->sync_dir(b->disk->context, target);
    struct text text = {0};
    manifest_encode(&b->result->manifest, &text);
    if (failed == 0)
        failed = disk_replace_file(b->disk, path, text_str(&text), text.len);
    text_deinit(&text);
    return failed == 0 ? FELIX_OK : backup_failed(b->reterr, failed, "write", path);
}

enum felix_err backup_make(const struct disk *disk, const struct backup_request *request,
                           struct backup_result *ret, struct felix_error *reterr) {
    *ret = (struct backup_result){.manifest = {.node = request->node, .made_us = request->now_us}};
    struct backup b = {.disk = disk, .result = ret, .reterr = reterr};
    bool empty_dir;
    enum felix_err err = backup_target_free(disk, request->target, &empty_dir, reterr);
    if (err != FELIX_OK)
        return err;
    int failed = disk_make_dirs(disk, request->target);
    if (failed != 0) {
        err = backup_failed(reterr, failed, "make", request->target);
    } else if (request->node) {
        err = backup_node(&b, request);
    } else {
        char name[MANIFEST_LOG_NAME_BYTES_MAX + 1];
        name_of(request->source, name);
        err = backup_log(&b, request->source, request->target, name);
    }
    if (err == FELIX_OK)
        err = write_manifest(&b, request->target);
    if (err != FELIX_OK) {
        backup_remove_tree(disk, request->target);
        backup_result_deinit(ret);
    }
    return err;
}

void backup_result_deinit(struct backup_result *result) {
    manifest_deinit(&result->manifest);
    *result = (struct backup_result){.bytes = 0};
}
