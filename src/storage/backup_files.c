#include "storage/backup_files.h"

#include "base/check.h"
#include "storage/crc32.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define CHUNK_BYTES ((size_t)1 << 20)

enum felix_err backup_failed(struct felix_error *reterr, int err, const char *call,
                             const char *path) {
    switch (err) {
    case -ENOMEM:
        return error_set(reterr, FELIX_NO_MEMORY, 0, "no memory for %s", path);
    case -ENOSPC:
    case -EDQUOT:
        return error_set(reterr, FELIX_DISK_FULL, -err, "cannot %s %s", call, path);
    default:
        return error_set(reterr, FELIX_STORAGE, -err, "cannot %s %s", call, path);
    }
}

enum felix_err backup_join(char out[PATH_MAX], const char *dir, const char *name,
                           struct felix_error *reterr) {
    int bytes = snprintf(out, PATH_MAX, "%s/%s", dir, name);
    if (bytes > 0 && bytes < PATH_MAX)
        return FELIX_OK;
    return error_set(reterr, FELIX_INVALID_ARGUMENT, 0, "the path %s is too long", dir);
}

void backup_describe_damage(const struct survey *survey, struct manifest_log *log) {
    uint64_t from = survey->oldest;
    for (size_t i = 0; i < survey->damage_count; i++) {
        uint64_t first = survey->damage[i].first, end = survey->damage[i].end;
        first = first > from ? first : from;
        if (end <= first)
            continue;
        manifest_add_damage(log, first, end);
        from = end;
    }
}

/* ---- names ---- */

static void on_name(void *user, const char *name) {
    struct backup_names *names = user;
    names->items = xrealloc(names->items, (names->count + 1) * sizeof *names->items);
    names->items[names->count++] = xstrdup(name);
}

static int by_text(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

int backup_list(const struct disk *disk, const char *dir, struct backup_names *ret) {
    *ret = (struct backup_names){.items = NULL};
    int err = disk->ops->list(disk->context, dir, on_name, ret);
    if (err != 0)
        backup_names_deinit(ret);
    else if (ret->count > 0)
        qsort(ret->items, ret->count, sizeof *ret->items, by_text);
    return err;
}

void backup_names_deinit(struct backup_names *names) {
    for (size_t i = 0; i < names->count; i++)
        free(names->items[i]);
    free(names->items);
    *names = (struct backup_names){.items = NULL};
}

enum felix_err backup_target_free(const struct disk *disk, const char *path, bool *ret_empty_dir,
                                  struct felix_error *reterr) {
    struct backup_names names;
    int err = backup_list(disk, path, &names);
    *ret_empty_dir = err == 0 && names.count == 0;
    bool used = err == -ENOTDIR || names.count > 0;
    bool complete = false;
    for (size_t i = 0; i < names.count; i++)
        complete = complete || strcmp(names.items[i], MANIFEST_FILE_NAME) == 0;
    backup_names_deinit(&names);
    if (used)
        return error_set(reterr, FELIX_EXISTS, 0,
                         complete ? "%s holds a backup already; nothing is overwritten"
                                  : "%s is there already and not empty; nothing is overwritten",
                         path);
    if (err != 0 && err != -ENOENT)
        return backup_failed(reterr, err, "look into", path);
    return FELIX_OK;
}

/* ---- contents ---- */

static int copy_bytes(const struct disk *disk, int from, int to) {
    uint8_t *chunk = malloc(CHUNK_BYTES);
    if (chunk == NULL)
        return -ENOMEM;
    int err = 0;
    for (uint64_t at = 0;;) {
        ssize_t got = disk_read_all(disk, from, chunk, CHUNK_BYTES, at);
        err = got < 0 ? (int)got : disk_write_all(disk, to, chunk, (size_t)got, at);
        if (err != 0 || (size_t)got < CHUNK_BYTES)
            break;
        at += (uint64_t)got;
    }
    free(chunk);
    return err;
}

enum felix_err backup_copy(const struct disk *disk, int from, const char *from_path,
                           const char *to_path, struct felix_error *reterr) {
    int to = disk->ops->open(disk->context, to_path, DISK_CREATE);
    if (to < 0)
        return backup_failed(reterr, to, "create", to_path);
    int err = disk->ops->clone != NULL ? disk->ops->clone(disk->context, from, to) : -EOPNOTSUPP;
    if (err != 0)
        err = copy_bytes(disk, from, to);
    int closed = disk->ops->close(disk->context, to);
    if (err == 0)
        err = closed;
    if (err == 0)
        return FELIX_OK;
    enum felix_err code = backup_failed(reterr, err, "copy", from_path);
    if (reterr != NULL && code == FELIX_DISK_FULL)
        return backup_failed(reterr, err, "write", to_path);
    return code;
}

enum felix_err backup_cut_and_sync(const struct disk *disk, const char *path, uint64_t bytes,
                                   struct felix_error *reterr) {
    int file = disk->ops->open(disk->context, path, DISK_WRITE);
    if (file < 0)
        return backup_failed(reterr, file, "open", path);
    uint64_t length;
    int err = disk->ops->size(disk->context, file, &length);
    if (err == 0 && length > bytes)
        err = disk->ops->truncate(disk->context, file, bytes);
    if (err == 0)
        err = disk->ops->sync(disk->context, file);
    int closed = disk->ops->close(disk->context, file);
    if (err == 0)
        err = closed;
    return err == 0 ? FELIX_OK : backup_failed(reterr, err, "write", path);
}

static int checksum(const struct disk *disk, int file, uint64_t *ret_bytes, uint32_t *ret_crc) {
    uint8_t *chunk = malloc(CHUNK_BYTES);
    if (chunk == NULL)
        return -ENOMEM;
    ssize_t got;
    *ret_bytes = 0;
    *ret_crc = 0;
    do {
        got = disk_read_all(disk, file, chunk, CHUNK_BYTES, *ret_bytes);
        if (got > 0) {
            *ret_crc = crc32_update(*ret_crc, chunk, (size_t)got);
            *ret_bytes += (uint64_t)got;
        }
    } while (got == (ssize_t)CHUNK_BYTES);
    free(chunk);
    return got < 0 ? (int)got : 0;
}

enum felix_err backup_checksum(const struct disk *disk, const char *path, uint64_t *ret_bytes,
                               uint32_t *ret_crc, struct felix_error *reterr) {
    int file = disk->ops->open(disk->context, path, DISK_READ);
    if (file == -ENOENT)
        return error_set(reterr, FELIX_DAMAGED, 0, "%s is missing", path);
    if (file < 0)
        return backup_failed(reterr, file, "open", path);
    int err = checksum(disk, file, ret_bytes, ret_crc);
    (void)disk->ops->close(disk->context, file);
    return err == 0 ? FELIX_OK : backup_failed(reterr, err, "read", path);
}

/* ---- removing ---- */

/* A file that a backup or a restore writes, or the temporary file of one. */
static bool is_ours(const char *name) {
    char whole[64];
    size_t bytes = strlen(name);
    if (bytes > 4 && strcmp(name + bytes - 4, ".tmp") == 0)
        bytes -= 4;
    if (bytes >= sizeof whole)
        return false;
    memcpy(whole, name, bytes);
    whole[bytes] = '\0';
    uint64_t id;
    return segment_name_parse(whole, "log", &id) || segment_name_parse(whole, "index", &id) ||
           strcmp(whole, "checkpoint") == 0 || strcmp(whole, MANIFEST_FILE_NAME) == 0;
}

/* Removes what is ours in `dir`, then `dir` if that was all. `each_dir` may be NULL. */
static void remove_level(const struct disk *disk, const char *dir,
                         void (*each_dir)(const struct disk *disk, const char *dir)) {
    struct backup_names names;
    if (backup_list(disk, dir, &names) != 0)
        return;
    for (size_t i = 0; i < names.count; i++) {
        char path[PATH_MAX];
        if (backup_join(path, dir, names.items[i], NULL) != FELIX_OK)
            continue;
        if (is_ours(names.items[i]))
            (void)disk->ops->remove(disk->context, path);
        else if (each_dir != NULL)
            each_dir(disk, path);
    }
    backup_names_deinit(&names);
    (void)disk->ops->remove_dir(disk->context, dir);
}

static void remove_log(const struct disk *disk, const char *dir) {
    remove_level(disk, dir, NULL);
}

void backup_remove_tree(const struct disk *disk, const char *dir) {
    remove_level(disk, dir, remove_log);
}
