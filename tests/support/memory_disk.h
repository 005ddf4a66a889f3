/*
 * A disk in memory behind the table of storage/disk.h: files, directories, handles and locks as a
 * file system has them, and none of its time. Tests put it where the operating system would be,
 * look at what is on it, copy it, and hash it.
 *
 * Files are sparse at their end: a length that was set ahead takes no memory. Paths are what the
 * caller says, compared byte by byte; a parent must exist, and the root ("", "/" or ".") does.
 * Safe to use from any thread as a table; the functions below want the disk at rest.
 */
#ifndef SUPPORT_MEMORY_DISK_H
#define SUPPORT_MEMORY_DISK_H

#include "base/slice.h"
#include "storage/disk.h"

#include <pthread.h>

#define MEMORY_PATH_BYTES 160u
#define MEMORY_DIR (-1)

struct memory_file {
    uint8_t *data;
    size_t stored; /* bytes in data; what lies between them and `length` is zeros */
    size_t capacity;
    uint64_t length;
    uint32_t names, handles;
    bool locked;
};

struct memory_name {
    char path[MEMORY_PATH_BYTES];
    int file; /* index of the file, or MEMORY_DIR */
};

struct memory_handle {
    int file; /* MEMORY_DIR: free */
    bool writable, locks;
};

struct memory_disk {
    pthread_mutex_t mutex;
    struct memory_file *files; /* never reused before memory_disk_reset: an index is an identity */
    size_t file_count, file_capacity;
    struct memory_name *names;
    size_t name_count, name_capacity;
    struct memory_handle *handles;
    size_t handle_count;
};

void memory_disk_init(struct memory_disk *disk);
void memory_disk_deinit(struct memory_disk *disk);

/** Empty the disk, forget its handles, keep its memory for what comes. */
void memory_disk_reset(struct memory_disk *disk);

/** The table to give to what is tested; borrows `disk`. */
struct disk memory_disk_table(struct memory_disk *disk);

/** Make `to` a copy: the same names and bytes, no handles. Files are numbered anew. */
void memory_disk_copy(struct memory_disk *to, const struct memory_disk *from);

/** A hash of every name and byte, independent of the order in which they came. */
uint64_t memory_disk_hash(const struct memory_disk *disk);

/** The file of a path, or NULL. Valid until the next change. */
struct memory_file *memory_disk_find(const struct memory_disk *disk, const char *path);

/** The number of the file behind an open handle. */
int memory_disk_file_of(const struct memory_disk *disk, int handle);

/** Handles that are open. */
size_t memory_disk_open_handles(const struct memory_disk *disk);

/** Add a directory, or a file with a new number, which is returned; parents must exist. */
void memory_disk_add_dir(struct memory_disk *disk, const char *path);
int memory_disk_add_file(struct memory_disk *disk, const char *path, struct slice bytes,
                         uint64_t length);

/** Change a file's bytes; these grow it when they end beyond its length. */
void memory_file_write(struct memory_file *file, struct slice bytes, uint64_t at);
void memory_file_set_length(struct memory_file *file, uint64_t length);
/** Fill `out` from `at` on; zeros where nothing is stored, also beyond the length. */
void memory_file_read(const struct memory_file *file, uint8_t *out, size_t bytes, uint64_t at);

/** Print names, lengths and a hash of each file's bytes, for a failure that must be understood. */
void memory_disk_dump(const struct memory_disk *disk);

/** The length of the directory part of `path`; 0: it lies in the root. */
size_t memory_path_parent(const char *path);

/** `from` was renamed to `to`: change a name that is or lies below `from`. */
void memory_name_move(struct memory_name *name, const char *from, const char *to);

/** A step of a 64-bit hash over bytes. */
uint64_t memory_hash(uint64_t hash, const void *data, size_t bytes);

#endif
