/*
 * Nothing is deleted on doubt: what recovery cuts off although it might have been records stays in
 * a file beside the segment, for people to look at.
 */
#include "storage/log_recovery.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define COPY_BYTES ((size_t)256 << 10)
#define NUMBERS_MAX 1000u

static bool torn_path(const struct record_log *log, uint64_t id, uint64_t position, unsigned number,
                      const char *suffix, char out[PATH_MAX]) {
    char name[64];
    if (number == 0)
        (void)snprintf(name, sizeof name, "torn-%" PRIu64 "%s", position, suffix);
    else
        (void)snprintf(name, sizeof name, "torn-%" PRIu64 ".%u%s", position, number, suffix);
    return segment_path(log->dir, id, name, out);
}

static bool exists(const struct disk *disk, const char *path) {
    int file = disk->ops->open(disk->context, path, DISK_READ);
    if (file >= 0)
        (void)disk->ops->close(disk->context, file);
    return file != -ENOENT;
}

/* 1: `path` holds exactly [from, to) of `file`; 0: something else; or negative errno. */
static int same_bytes(const struct disk *disk, const char *path, int file, uint64_t from,
                      uint64_t to, uint8_t *buffer) {
    int other = disk->ops->open(disk->context, path, DISK_READ);
    if (other < 0)
        return other;
    uint64_t size = 0;
    int same = disk->ops->size(disk->context, other, &size);
    if (same == 0)
        same = size == to - from;
    size_t half = COPY_BYTES / 2;
    for (uint64_t at = from; same == 1 && at < to; at += half) {
        size_t want = to - at < half ? (size_t)(to - at) : half;
        ssize_t a = disk_read_all(disk, file, buffer, want, at);
        ssize_t b = disk_read_all(disk, other, buffer + half, want, at - from);
        if (a < 0 || b < 0)
            same = (int)(a < 0 ? a : b);
        else
            same = a == b && memcmp(buffer, buffer + half, (size_t)a) == 0;
    }
    (void)disk->ops->close(disk->context, other);
    return same;
}

static int copy(const struct disk *disk, const char *path, int file, uint64_t from, uint64_t to,
                uint8_t *buffer) {
    int other = disk->ops->open(disk->context, path, DISK_CREATE);
    if (other == -EEXIST) {
        /* A crash left it. */
        int err = disk->ops->remove(disk->context, path);
        if (err != 0)
            return err;
        other = disk->ops->open(disk->context, path, DISK_CREATE);
    }
    if (other < 0)
        return other;
    int err = 0;
    for (uint64_t at = from; err == 0 && at < to;) {
        size_t want = to - at < COPY_BYTES ? (size_t)(to - at) : COPY_BYTES;
        ssize_t got = disk_read_all(disk, file, buffer, want, at);
        if (got <= 0)
            err = got < 0 ? (int)got : -EIO;
        else
            err = disk_write_all(disk, other, buffer, (size_t)got, at - from);
        at += got > 0 ? (uint64_t)got : 0;
    }
    if (err == 0)
        err = disk->ops->sync(disk->context, other);
    (void)disk->ops->close(disk->context, other);
    return err;
}

/* The first of the names that is free, or that has these very bytes: then *ret_there. */
static int choose(const struct record_log *log, const struct segment *segment, uint64_t from,
                  uint64_t to, uint8_t *buffer, char path[PATH_MAX], unsigned *ret_number,
                  bool *ret_there) {
    for (unsigned number = 0; number < NUMBERS_MAX; number++) {
        if (!torn_path(log, segment->id, from, number, "", path))
            return -ENAMETOOLONG;
        *ret_number = number;
        if (!exists(log->disk, path))
            return 0;
        int same = same_bytes(log->disk, path, segment->file, from, to, buffer);
        if (same < 0)
            return same;
        *ret_there = same == 1;
        if (*ret_there)
            return 0;
    }
    return -EEXIST;
}

enum felix_err log_keep_torn(struct record_log *log, const struct segment *segment, uint64_t from,
                             uint64_t to, struct felix_error *reterr) {
    const struct disk *disk = log->disk;
    char path[PATH_MAX], temporary[PATH_MAX];
    bool there = false;
    unsigned number;
    uint8_t *buffer = malloc(COPY_BYTES);
    if (buffer == NULL)
        return log_no_memory(reterr);
    int err = choose(log, segment, from, to, buffer, path, &number, &there);
    if (err == 0 && !there) {
        if (!torn_path(log, segment->id, from, number, ".tmp", temporary))
            err = -ENAMETOOLONG;
        if (err == 0)
            err = copy(disk, temporary, segment->file, from, to, buffer);
        if (err == 0)
            err = disk->ops->rename(disk->context, temporary, path);
    }
    if (err == 0)
        err = disk->ops->sync_dir(disk->context, log->dir);
    free(buffer);
    return err != 0 ? log_disk_error(reterr, "keep the torn end of a segment as", path, err)
                    : FELIX_OK;
}

enum felix_err log_set_aside(struct record_log *log, uint64_t id, struct felix_error *reterr) {
    char from[PATH_MAX], to[PATH_MAX];
    if (!segment_path(log->dir, id, "log", from))
        return log_disk_error(reterr, "rename a segment in", log->dir, -ENAMETOOLONG);
    for (unsigned number = 0; number < NUMBERS_MAX; number++) {
        if (!torn_path(log, id, 0, number, "", to))
            return log_disk_error(reterr, "rename", from, -ENAMETOOLONG);
        if (exists(log->disk, to))
            continue;
        int err = log->disk->ops->rename(log->disk->context, from, to);
        return err != 0 ? log_disk_error(reterr, "rename", from, err) : FELIX_OK;
    }
    return log_disk_error(reterr, "rename", from, -EEXIST);
}
