/*
 * A disk in memory that writes down what is done to it: every write, length, sync, directory
 * operation and sync of a directory, in order. What the power may go out on after each of them is
 * crash_states.h.
 *
 * A sync is two events, because writing goes on while it runs: what was written before it began is
 * safe once it ended. A test acts in between through `before`, as another thread would.
 * One thread.
 */
#ifndef SUPPORT_CRASH_DISK_H
#define SUPPORT_CRASH_DISK_H

#include "support/memory_disk.h"

enum crash_event_kind {
    CRASH_CREATE, /* path, file */
    CRASH_MAKE_DIR,
    CRASH_REMOVE,
    CRASH_REMOVE_DIR,
    CRASH_RENAME,   /* path -> other, file */
    CRASH_SYNC_DIR, /* path */
    CRASH_WRITE,    /* file, at, bytes */
    CRASH_LENGTH,   /* file, at */
    CRASH_SYNC_BEGIN,
    CRASH_SYNC_END,  /* at: the event of its beginning */
    CRASH_SYNC_LOST, /* the same, but it failed: what it was to keep may be gone for good */
    CRASH_MARK,      /* the test's own: at */
};

struct crash_event {
    enum crash_event_kind kind;
    int file;
    uint64_t at;
    size_t bytes_at, bytes; /* in crash_disk.bytes */
    char path[MEMORY_PATH_BYTES];
    char other[MEMORY_PATH_BYTES];
};

/* The calls that change something, as `before` is told of them. */
enum crash_call {
    CRASH_CALL_OPEN,
    CRASH_CALL_WRITE,
    CRASH_CALL_TRUNCATE,
    CRASH_CALL_SYNC,
    CRASH_CALL_SYNC_DIR,
    CRASH_CALL_RENAME,
    CRASH_CALL_REMOVE,
};

struct crash_disk {
    struct memory_disk memory; /* what the running process sees */
    struct memory_disk start;  /* what was on the disk when recording began, all of it safe */
    struct crash_event *events;
    size_t event_count, event_capacity;
    uint8_t *bytes; /* what was written, one after the other */
    size_t byte_count, byte_capacity;
    /* Called before each changing call; of a sync, after its beginning was written down. A
     * negative errno makes the call fail with it, having done nothing. May be NULL. */
    int (*before)(void *user, enum crash_call call);
    void *user;
};

/** Start recording on a copy of `start` (NULL: an empty disk). */
void crash_disk_init(struct crash_disk *disk, const struct memory_disk *start);
void crash_disk_deinit(struct crash_disk *disk);
struct disk crash_disk_table(struct crash_disk *disk);

/** Put a mark of the test into the trace. Returns the index of its event. */
size_t crash_disk_mark(struct crash_disk *disk, uint64_t value);

/** Print the trace, up to `count` events of it. */
void crash_disk_dump(const struct crash_disk *disk, size_t count);

#endif
