#include "storage/log_root.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/log.h"

#define REMOVED_MARK ".removed-"
#define REMOVED_TRIES 1000u
#define PATH_BYTES_MAX 4096u

static enum felix_err disk_error(struct felix_error *reterr, int rc, const char *call,
                                 const char *path) {
    enum felix_err err = rc == -ENOSPC || rc == -EDQUOT ? FELIX_DISK_FULL : FELIX_STORAGE;
    return error_set(reterr, err, -rc, "cannot %s %s", call, path);
}

/* "DIRECTORY/NAME" in `out`; false: too long. */
static bool join(char out[PATH_BYTES_MAX], const char *directory, const char *name) {
    int written = snprintf(out, PATH_BYTES_MAX, "%s/%s", directory, name);
    return written > 0 && (size_t)written < PATH_BYTES_MAX;
}

enum felix_err log_root_lock(const struct disk *disk, const char *root, int *ret_file,
                             struct felix_error *reterr) {
    char path[PATH_BYTES_MAX];
    if (!join(path, root, LOG_ROOT_LOCK_FILE))
        return error_set(reterr, FELIX_INVALID_ARGUMENT, 0, "the path %s is too long", root);
    int rc = disk_make_dirs(disk, root);
    if (rc < 0)
        return disk_error(reterr, rc, "make the directory", root);
    int file = disk->ops->open(disk->context, path, DISK_CREATE);
    if (file == -EEXIST)
        file = disk->ops->open(disk->context, path, DISK_WRITE);
    if (file < 0)
        return disk_error(reterr, file, "open", path);
    rc = disk->ops->lock(disk->context, file);
    if (rc < 0) {
        (void)disk->ops->close(disk->context, file);
        if (rc == -EWOULDBLOCK)
            return error_set(reterr, FELIX_EXISTS, 0,
                             "%s is in use by another process; give each broker a directory of its "
                             "own (FELIX_DURABLE_STORAGE_DIR)",
                             root);
        return disk_error(reterr, rc, "lock", path);
    }
    *ret_file = file;
    return FELIX_OK;
}

/* ---- removal ---- */

struct names {
    char **items;
    size_t count;
};

static void note_name(void *user, const char *name) {
    struct names *names = user;
    names->items = xrealloc(names->items, (names->count + 1) * sizeof *names->items);
    names->items[names->count++] = xstrdup(name);
}

static void free_names(struct names *names) {
    for (size_t i = 0; i < names->count; i++)
        free(names->items[i]);
    free(names->items);
}

/* Segments, their indexes, what was cut off them, temporary files of ours, and the checkpoint. */
static bool is_ours(const char *name) {
    size_t digits = strspn(name, "0123456789");
    if (digits > 0 && name[digits] == '.')
        return true;
    return strncmp(name, "checkpoint", strlen("checkpoint")) == 0;
}

/* Remove what is in the directory, then the directory. */
static enum felix_err empty_and_remove(const struct disk *disk, const char *directory,
                                       struct felix_error *reterr) {
    struct names names = {0};
    enum felix_err err = FELIX_OK;
    int rc = disk->ops->list(disk->context, directory, note_name, &names);
    if (rc < 0)
        err = disk_error(reterr, rc, "list", directory);
    for (size_t i = 0; i < names.count && err == FELIX_OK; i++) {
        char path[PATH_BYTES_MAX];
        if (!is_ours(names.items[i]) || !join(path, directory, names.items[i]))
            continue;
        rc = disk->ops->remove(disk->context, path);
        if (rc < 0)
            err = disk_error(reterr, rc, "remove", path);
    }
    free_names(&names);
    if (err != FELIX_OK)
        return err;
    rc = disk->ops->remove_dir(disk->context, directory);
    return rc < 0 ? disk_error(reterr, rc, "remove the directory", directory) : FELIX_OK;
}

enum felix_err log_root_remove(const struct disk *disk, const char *root, const char *path,
                               struct felix_error *reterr) {
    char target[PATH_BYTES_MAX];
    int rc = -EEXIST;
    /* An earlier removal of the same name may not be finished. */
    for (unsigned i = 0; i < REMOVED_TRIES; i++) {
        int written = snprintf(target, sizeof target, "%s" REMOVED_MARK "%u", path, i);
        if (written < 0 || (size_t)written >= sizeof target)
            return error_set(reterr, FELIX_INVALID_ARGUMENT, 0, "the path %s is too long", path);
        rc = disk->ops->rename(disk->context, path, target);
        if (rc != -EEXIST && rc != -ENOTEMPTY)
            break;
    }
    if (rc == -ENOENT)
        return FELIX_OK;
    if (rc < 0)
        return disk_error(reterr, rc, "rename", path);
    rc = disk->ops->sync_dir(disk->context, root);
    if (rc < 0)
        return disk_error(reterr, rc, "sync", root);
    return empty_and_remove(disk, target, reterr);
}

void log_root_sweep(const struct disk *disk, const char *root) {
    struct names names = {0};
    (void)disk->ops->list(disk->context, root, note_name, &names);
    for (size_t i = 0; i < names.count; i++) {
        char path[PATH_BYTES_MAX];
        struct felix_error error = {0};
        if (strstr(names.items[i], REMOVED_MARK) == NULL || !join(path, root, names.items[i]))
            continue;
        if (empty_and_remove(disk, path, &error) != FELIX_OK)
            LOG_WARN(storage, "removal_unfinished", F_STR("directory", path),
                     F_STR("detail", error.text));
    }
    free_names(&names);
}
