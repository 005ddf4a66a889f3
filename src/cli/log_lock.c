#include "cli/log_lock.h"

#include "storage/disk.h"
#include "storage/log_root.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static bool lock_path(char out[PATH_MAX], const char *dir, const char *between) {
    int bytes = snprintf(out, PATH_MAX, "%s%s/" LOG_ROOT_LOCK_FILE, dir, between);
    return bytes > 0 && bytes < PATH_MAX;
}

enum felix_err log_lock_take_root(struct log_lock *lock, const char *dir,
                                  struct felix_error *reterr) {
    const struct disk *disk = &disk_posix;
    *lock = (struct log_lock){.root_file = -1, .own_file = -1};
    char path[PATH_MAX];
    if (!lock_path(path, dir, "/.."))
        return error_set(reterr, FELIX_INVALID_ARGUMENT, 0, "the path %s is too long", dir);
    int file = disk->ops->open(disk->context, path, DISK_WRITE);
    if (file < 0)
        return FELIX_OK;
    if (disk->ops->lock(disk->context, file) == -EWOULDBLOCK) {
        (void)disk->ops->close(disk->context, file);
        return error_set(reterr, FELIX_EXISTS, 0,
                         "a broker is serving %s; stop it first, or work on a backup", dir);
    }
    lock->root_file = file;
    return FELIX_OK;
}

enum felix_err log_lock_take(struct log_lock *lock, const char *dir, struct felix_error *reterr) {
    enum felix_err err = log_lock_take_root(lock, dir, reterr);
    if (err != FELIX_OK)
        return err;
    err = log_root_lock(&disk_posix, dir, &lock->own_file, reterr);
    if (err == FELIX_OK && !lock_path(lock->own_path, dir, ""))
        lock->own_path[0] = '\0';
    if (err == FELIX_EXISTS)
        err = error_set(reterr, FELIX_EXISTS, 0, "another program is writing to %s", dir);
    if (err != FELIX_OK) {
        lock->own_file = -1;
        log_lock_drop(lock);
    }
    return err;
}

void log_lock_drop(struct log_lock *lock) {
    const struct disk *disk = &disk_posix;
    if (lock->own_file >= 0) {
        (void)disk->ops->remove(disk->context, lock->own_path);
        (void)disk->ops->close(disk->context, lock->own_file);
    }
    if (lock->root_file >= 0)
        (void)disk->ops->close(disk->context, lock->root_file);
    lock->own_file = lock->root_file = -1;
}
