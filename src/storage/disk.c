/*
 * The operating system's files behind the table of disk.h, and what the rest of storage builds of
 * any such table.
 *
 * A signal never shows: interrupted calls are made again. Except for close, whose handle is gone
 * on Linux also when it was interrupted.
 */
#include "storage/disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

/* The longest that one call writes; Linux does not take more anyway. */
#define CALL_BYTES_MAX ((size_t)1 << 30)

static int result_of(int returned) {
    return returned < 0 ? -errno : returned;
}

static int posix_open(void *context, const char *path, enum disk_open how) {
    /* Without O_NONBLOCK, a pipe of that name would hold us until somebody writes to it. */
    int flags = O_CLOEXEC | O_NONBLOCK;
    switch (how) {
    case DISK_READ:
        flags |= O_RDONLY;
        break;
    case DISK_WRITE:
        flags |= O_RDWR;
        break;
    case DISK_CREATE:
        flags |= O_RDWR | O_CREAT | O_EXCL;
        break;
    }
    int file;
    do
        file = open(path, flags, 0600);
    while (file < 0 && errno == EINTR);
    return result_of(file);
}

static int posix_close(void *context, int file) {
    if (close(file) != 0 && errno != EINTR)
        return -errno;
    return 0;
}

static ssize_t posix_pread(void *context, int file, void *data, size_t bytes, uint64_t at) {
    if (at > INT64_MAX)
        return -EINVAL;
    ssize_t got;
    do
        got = pread(file, data, bytes, (off_t)at);
    while (got < 0 && errno == EINTR);
    return got < 0 ? -errno : got;
}

static ssize_t posix_pwrite(void *context, int file, const void *data, size_t bytes, uint64_t at) {
    if (at > INT64_MAX)
        return -EFBIG;
    ssize_t put;
    do
        put = pwrite(file, data, bytes, (off_t)at);
    while (put < 0 && errno == EINTR);
    return put < 0 ? -errno : put;
}

static int posix_truncate(void *context, int file, uint64_t bytes) {
    if (bytes > INT64_MAX)
        return -EFBIG;
    int done;
    do
        done = ftruncate(file, (off_t)bytes);
    while (done != 0 && errno == EINTR);
    return result_of(done);
}

static int posix_sync(void *context, int file) {
    int done;
    do
        done = fdatasync(file);
    while (done != 0 && errno == EINTR);
    return result_of(done);
}

static int posix_size(void *context, int file, uint64_t *ret_bytes) {
    struct stat status;
    if (fstat(file, &status) != 0)
        return -errno;
    *ret_bytes = (uint64_t)status.st_size;
    return 0;
}

static void posix_advise(void *context, int file, uint64_t at, uint64_t bytes, bool drop) {
    if (at > INT64_MAX || bytes > INT64_MAX)
        return;
    int advice = drop ? POSIX_FADV_DONTNEED : POSIX_FADV_WILLNEED;
    (void)posix_fadvise(file, (off_t)at, (off_t)bytes, advice);
}

static int posix_lock(void *context, int file) {
    int done;
    do
        done = flock(file, LOCK_EX | LOCK_NB);
    while (done != 0 && errno == EINTR);
    return result_of(done);
}

static int posix_make_dir(void *context, const char *path) {
    if (mkdir(path, 0700) == 0)
        return 0;
    if (errno != EEXIST)
        return -errno;
    struct stat status;
    if (stat(path, &status) != 0)
        return -errno;
    return S_ISDIR(status.st_mode) ? 0 : -ENOTDIR;
}

static int posix_sync_dir(void *context, const char *path) {
    int dir;
    do
        dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    while (dir < 0 && errno == EINTR);
    if (dir < 0)
        return -errno;
    int done;
    do
        done = fsync(dir);
    while (done != 0 && errno == EINTR);
    int err = result_of(done);
    (void)close(dir);
    /* Some file systems know no such call for directories; their names need none. */
    return err == -EINVAL ? 0 : err;
}

static int posix_list(void *context, const char *path,
                      void (*on_name)(void *user, const char *name), void *user) {
    DIR *dir = opendir(path);
    if (dir == NULL)
        return -errno;
    int err = 0;
    for (;;) {
        errno = 0;
        // cppcheck-suppress readdirCalled ; nobody else has this stream
        const struct dirent *entry = readdir(dir);
        if (entry == NULL) {
            err = -errno;
            break;
        }
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            on_name(user, entry->d_name);
    }
    (void)closedir(dir);
    return err;
}

static int posix_rename(void *context, const char *from, const char *to) {
    return result_of(rename(from, to));
}

static int posix_remove(void *context, const char *path) {
    return result_of(unlink(path));
}

static int posix_remove_dir(void *context, const char *path) {
    return result_of(rmdir(path));
}

static int posix_clone(void *context, int from, int to) {
    return result_of(ioctl(to, FICLONE, from));
}

static const struct disk_ops posix_ops = {
    .open = posix_open,
    .close = posix_close,
    .pread = posix_pread,
    .pwrite = posix_pwrite,
    .truncate = posix_truncate,
    .sync = posix_sync,
    .size = posix_size,
    .advise = posix_advise,
    .lock = posix_lock,
    .make_dir = posix_make_dir,
    .sync_dir = posix_sync_dir,
    .list = posix_list,
    .rename = posix_rename,
    .remove = posix_remove,
    .remove_dir = posix_remove_dir,
    .clone = posix_clone,
};

const struct disk disk_posix = {.ops = &posix_ops};

int disk_write_all(const struct disk *disk, int file, const void *data, size_t bytes, uint64_t at) {
    const uint8_t *from = data;
    while (bytes > 0) {
        size_t part = bytes < CALL_BYTES_MAX ? bytes : CALL_BYTES_MAX;
        ssize_t put = disk->ops->pwrite(disk->context, file, from, part, at);
        if (put == -EINTR)
            continue;
        if (put <= 0)
            return put < 0 ? (int)put : -EIO;
        from += put;
        at += (uint64_t)put;
        bytes -= (size_t)put;
    }
    return 0;
}

ssize_t disk_read_all(const struct disk *disk, int file, void *data, size_t bytes, uint64_t at) {
    uint8_t *to = data;
    size_t done = 0;
    while (done < bytes) {
        size_t part = bytes - done < CALL_BYTES_MAX ? bytes - done : CALL_BYTES_MAX;
        ssize_t got = disk->ops->pread(disk->context, file, to + done, part, at + done);
        if (got == -EINTR)
            continue;
        if (got < 0)
            return got;
        if (got == 0)
            break;
        done += (size_t)got;
    }
    return (ssize_t)done;
}

/* Writes the directory that holds `path` into `out`: "." for a bare name. */
static void parent_of(const char *path, char out[PATH_MAX]) {
    const char *end = path + strlen(path);
    while (end > path + 1 && end[-1] == '/')
        end--;
    while (end > path && end[-1] != '/')
        end--;
    while (end > path + 1 && end[-1] == '/')
        end--;
    size_t bytes = (size_t)(end - path);
    if (bytes == 0) {
        path = ".";
        bytes = 1;
    }
    memcpy(out, path, bytes);
    out[bytes] = '\0';
}

static int write_temporary(const struct disk *disk, const char *path, const void *data,
                           size_t bytes, bool sync) {
    int file = disk->ops->open(disk->context, path, DISK_CREATE);
    if (file == -EEXIST) {
        /* A crash left it. */
        int err = disk->ops->remove(disk->context, path);
        if (err != 0)
            return err;
        file = disk->ops->open(disk->context, path, DISK_CREATE);
    }
    if (file < 0)
        return file;
    int err = disk_write_all(disk, file, data, bytes, 0);
    if (err == 0 && sync)
        err = disk->ops->sync(disk->context, file);
    int closed = disk->ops->close(disk->context, file);
    if (err == 0)
        err = closed;
    if (err != 0)
        (void)disk->ops->remove(disk->context, path);
    return err;
}

static int put_file(const struct disk *disk, const char *path, const void *data, size_t bytes,
                    bool sync) {
    char temporary[PATH_MAX];
    int length = snprintf(temporary, sizeof temporary, "%s.tmp", path);
    if (length < 0 || (size_t)length >= sizeof temporary)
        return -ENAMETOOLONG;
    int err = write_temporary(disk, temporary, data, bytes, sync);
    if (err != 0)
        return err;
    err = disk->ops->rename(disk->context, temporary, path);
    if (err != 0)
        (void)disk->ops->remove(disk->context, temporary);
    return err;
}

int disk_put_file(const struct disk *disk, const char *path, const void *data, size_t bytes) {
    return put_file(disk, path, data, bytes, false);
}

int disk_replace_file(const struct disk *disk, const char *path, const void *data, size_t bytes) {
    char parent[PATH_MAX];
    int err = put_file(disk, path, data, bytes, true);
    if (err != 0)
        return err;
    parent_of(path, parent);
    return disk->ops->sync_dir(disk->context, parent);
}

int disk_make_dirs(const struct disk *disk, const char *path) {
    char dir[PATH_MAX], parent[PATH_MAX];
    size_t bytes = strlen(path), end = 0;
    if (bytes == 0 || bytes >= sizeof dir)
        return bytes == 0 ? -ENOENT : -ENAMETOOLONG;
    for (size_t i = 0; i < bytes; i++) {
        if (path[i] == '/' && end > 0 && dir[end - 1] == '/')
            continue;
        dir[end++] = path[i];
        if (path[i] == '/' || (path[i + 1] != '/' && path[i + 1] != '\0'))
            continue;
        dir[end] = '\0';
        int err = disk->ops->make_dir(disk->context, dir);
        if (err != 0)
            return err;
        /* Also when it was there: who made it may have died before this. */
        parent_of(dir, parent);
        err = disk->ops->sync_dir(disk->context, parent);
        if (err != 0 && err != -EACCES)
            return err;
    }
    return 0;
}
