/*
 * The one table through which storage reaches the disk. Nothing below src/storage calls the
 * operating system otherwise, so tests put a disk there that records, fails, tears and forgets.
 *
 * Every function returns 0, a count or a handle, or a negative errno, of which -EINTR comes from
 * pread and pwrite at most. Handles are small integers, never negative. Any thread may use a disk;
 * one handle is written by one thread at a time.
 */
#ifndef STORAGE_DISK_H
#define STORAGE_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum disk_open {
    DISK_READ,   /* must exist */
    DISK_WRITE,  /* must exist; read and write */
    DISK_CREATE, /* must not exist; read and write, mode 0600 */
};

struct disk_ops {
    int (*open)(void *context, const char *path, enum disk_open how);
    int (*close)(void *context, int file);
    /* May read or write less than asked for; 0 from pread is the end of the file. */
    ssize_t (*pread)(void *context, int file, void *data, size_t bytes, uint64_t at);
    ssize_t (*pwrite)(void *context, int file, const void *data, size_t bytes, uint64_t at);
    int (*truncate)(void *context, int file, uint64_t bytes); /* shorter or longer (zeros) */
    int (*sync)(void *context, int file);                     /* data and length, as fdatasync */
    int (*size)(void *context, int file, uint64_t *ret_bytes);
    /* Reading will go on from `at`; only a hint. `drop`: these pages are not needed again. */
    void (*advise)(void *context, int file, uint64_t at, uint64_t bytes, bool drop);
    int (*lock)(void *context, int file); /* exclusive, advisory; -EWOULDBLOCK: somebody has it */
    int (*make_dir)(void *context, const char *path); /* mode 0700; 0 also when it exists */
    int (*sync_dir)(void *context, const char *path);
    /* Each name in a directory but . and .., in any order; borrowed for the call. */
    int (*list)(void *context, const char *path, void (*on_name)(void *user, const char *name),
                void *user);
    int (*rename)(void *context, const char *from, const char *to);
    int (*remove)(void *context, const char *path);     /* a file */
    int (*remove_dir)(void *context, const char *path); /* an empty directory */
    /* Make the new file `to` share the blocks of all of `from`. May be NULL; any error: copy. */
    int (*clone)(void *context, int from, int to);
};

struct disk {
    const struct disk_ops *ops;
    void *context;
};

/** The operating system's file system. */
extern const struct disk disk_posix;

/** All of it or an error: interrupted and short calls are repeated. 0 or negative errno. A write
 * that makes no progress is -EIO. */
int disk_write_all(const struct disk *disk, int file, const void *data, size_t bytes, uint64_t at);
/** Up to the end of the file; the bytes read, or negative errno. */
ssize_t disk_read_all(const struct disk *disk, int file, void *data, size_t bytes, uint64_t at);

/** Write a small file so that a crash leaves the old or the new one: a temporary file beside it,
 * sync, rename, sync of the directory. 0 or negative errno; nothing is left behind on failure. */
int disk_replace_file(const struct disk *disk, const char *path, const void *data, size_t bytes);

/** The same without waiting for the disk: a crash of the machine may leave anything. */
int disk_put_file(const struct disk *disk, const char *path, const void *data, size_t bytes);

/** Make a directory and its parents, and sync each one's parent, but for those that we may not
 * read. 0 or negative errno. */
int disk_make_dirs(const struct disk *disk, const char *path);

#endif
