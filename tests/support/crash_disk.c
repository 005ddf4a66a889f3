#include "support/crash_disk.h"

#include "base/check.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

void crash_disk_init(struct crash_disk *disk, const struct memory_disk *start) {
    *disk = (struct crash_disk){0};
    memory_disk_init(&disk->memory);
    memory_disk_init(&disk->start);
    if (start != NULL) {
        /* Both are copies of one disk, so a file has the same number in both. */
        memory_disk_copy(&disk->memory, start);
        memory_disk_copy(&disk->start, start);
    }
}

void crash_disk_deinit(struct crash_disk *disk) {
    memory_disk_deinit(&disk->memory);
    memory_disk_deinit(&disk->start);
    free(disk->events);
    free(disk->bytes);
}

static void copy_path(char *out, const char *path) {
    size_t bytes = strlen(path) + 1;
    INVARIANT(bytes <= MEMORY_PATH_BYTES);
    memcpy(out, path, bytes);
}

/* Adds an event; valid until the next one. */
static struct crash_event *record(struct crash_disk *disk, enum crash_event_kind kind, int file,
                                  uint64_t at) {
    if (disk->event_count == disk->event_capacity) {
        disk->event_capacity = disk->event_capacity == 0 ? 64 : disk->event_capacity * 2;
        disk->events = xrealloc(disk->events, disk->event_capacity * sizeof *disk->events);
    }
    struct crash_event *event = &disk->events[disk->event_count++];
    event->kind = kind;
    event->file = file;
    event->at = at;
    event->bytes = 0;
    event->path[0] = event->other[0] = '\0';
    return event;
}

static void record_path(struct crash_disk *disk, enum crash_event_kind kind, int file,
                        const char *path) {
    copy_path(record(disk, kind, file, 0)->path, path);
}

static void record_write(struct crash_disk *disk, int file, const void *data, size_t bytes,
                         uint64_t at) {
    if (disk->byte_count + bytes > disk->byte_capacity) {
        disk->byte_capacity = (disk->byte_count + bytes) * 2;
        disk->bytes = xrealloc(disk->bytes, disk->byte_capacity);
    }
    memcpy(disk->bytes + disk->byte_count, data, bytes);
    struct crash_event *event = record(disk, CRASH_WRITE, file, at);
    event->bytes_at = disk->byte_count;
    event->bytes = bytes;
    disk->byte_count += bytes;
}

size_t crash_disk_mark(struct crash_disk *disk, uint64_t value) {
    record(disk, CRASH_MARK, MEMORY_DIR, value);
    return disk->event_count - 1;
}

void crash_disk_dump(const struct crash_disk *disk, size_t count) {
    static const char *const names[] = {
        [CRASH_CREATE] = "create",         [CRASH_MAKE_DIR] = "make_dir",
        [CRASH_REMOVE] = "remove",         [CRASH_REMOVE_DIR] = "remove_dir",
        [CRASH_RENAME] = "rename",         [CRASH_SYNC_DIR] = "sync_dir",
        [CRASH_WRITE] = "write",           [CRASH_LENGTH] = "length",
        [CRASH_SYNC_BEGIN] = "sync begin", [CRASH_SYNC_END] = "sync end",
        [CRASH_SYNC_LOST] = "sync failed", [CRASH_MARK] = "mark",
    };
    for (size_t i = 0; i < count && i < disk->event_count; i++) {
        const struct crash_event *event = &disk->events[i];
        printf("    %3zu %-11s file %2d at %" PRIu64 " bytes %zu %s %s\n", i, names[event->kind],
               event->file, event->at, event->bytes, event->path, event->other);
    }
}

/* ---- the table ---- */

static struct disk below(struct crash_disk *disk) {
    return memory_disk_table(&disk->memory);
}

static int ask(struct crash_disk *disk, enum crash_call call) {
    return disk->before == NULL ? 0 : disk->before(disk->user, call);
}

static int crash_open(void *context, const char *path, enum disk_open how) {
    struct crash_disk *disk = context;
    int refused = how == DISK_CREATE ? ask(disk, CRASH_CALL_OPEN) : 0;
    if (refused != 0)
        return refused;
    struct disk memory = below(disk);
    int handle = memory.ops->open(memory.context, path, how);
    if (handle >= 0 && how == DISK_CREATE)
        record_path(disk, CRASH_CREATE, memory_disk_file_of(&disk->memory, handle), path);
    return handle;
}

static int crash_close(void *context, int handle) {
    struct disk memory = below(context);
    return memory.ops->close(memory.context, handle);
}

static ssize_t crash_pread(void *context, int handle, void *data, size_t bytes, uint64_t at) {
    struct disk memory = below(context);
    return memory.ops->pread(memory.context, handle, data, bytes, at);
}

static ssize_t crash_pwrite(void *context, int handle, const void *data, size_t bytes,
                            uint64_t at) {
    struct crash_disk *disk = context;
    int refused = ask(disk, CRASH_CALL_WRITE);
    if (refused != 0)
        return refused;
    struct disk memory = below(disk);
    ssize_t written = memory.ops->pwrite(memory.context, handle, data, bytes, at);
    if (written > 0)
        record_write(disk, memory_disk_file_of(&disk->memory, handle), data, (size_t)written, at);
    return written;
}

static int crash_truncate(void *context, int handle, uint64_t bytes) {
    struct crash_disk *disk = context;
    int refused = ask(disk, CRASH_CALL_TRUNCATE);
    if (refused != 0)
        return refused;
    struct disk memory = below(disk);
    int err = memory.ops->truncate(memory.context, handle, bytes);
    if (err == 0)
        record(disk, CRASH_LENGTH, memory_disk_file_of(&disk->memory, handle), bytes);
    return err;
}

static int crash_sync(void *context, int handle) {
    struct crash_disk *disk = context;
    struct disk memory = below(disk);
    int err = memory.ops->sync(memory.context, handle);
    if (err != 0)
        return err;
    int file = memory_disk_file_of(&disk->memory, handle);
    size_t begin = disk->event_count;
    record(disk, CRASH_SYNC_BEGIN, file, 0);
    err = ask(disk, CRASH_CALL_SYNC);
    record(disk, err == 0 ? CRASH_SYNC_END : CRASH_SYNC_LOST, file, begin);
    return err;
}

static int crash_size(void *context, int handle, uint64_t *ret_bytes) {
    struct disk memory = below(context);
    return memory.ops->size(memory.context, handle, ret_bytes);
}

static void crash_advise(void *context, int handle, uint64_t at, uint64_t bytes, bool drop) {
    (void)context;
}

static int crash_lock(void *context, int handle) {
    struct disk memory = below(context);
    return memory.ops->lock(memory.context, handle);
}

static const struct memory_name *find(const struct crash_disk *disk, const char *path) {
    for (size_t i = 0; i < disk->memory.name_count; i++) {
        if (strcmp(disk->memory.names[i].path, path) == 0)
            return &disk->memory.names[i];
    }
    return NULL;
}

static int crash_make_dir(void *context, const char *path) {
    struct crash_disk *disk = context;
    bool before = find(disk, path) != NULL;
    struct disk memory = below(disk);
    int err = memory.ops->make_dir(memory.context, path);
    if (err == 0 && !before && find(disk, path) != NULL)
        record_path(disk, CRASH_MAKE_DIR, MEMORY_DIR, path);
    return err;
}

static int crash_sync_dir(void *context, const char *path) {
    struct crash_disk *disk = context;
    int refused = ask(disk, CRASH_CALL_SYNC_DIR);
    if (refused != 0)
        return refused;
    struct disk memory = below(disk);
    int err = memory.ops->sync_dir(memory.context, path);
    if (err == 0)
        record_path(disk, CRASH_SYNC_DIR, MEMORY_DIR, path);
    return err;
}

static int crash_list(void *context, const char *path,
                      void (*on_name)(void *user, const char *name), void *user) {
    struct disk memory = below(context);
    return memory.ops->list(memory.context, path, on_name, user);
}

static int crash_rename(void *context, const char *from, const char *to) {
    struct crash_disk *disk = context;
    int refused = ask(disk, CRASH_CALL_RENAME);
    if (refused != 0)
        return refused;
    const struct memory_name *name = find(disk, from);
    int file = name == NULL ? MEMORY_DIR : name->file;
    struct disk memory = below(disk);
    int err = memory.ops->rename(memory.context, from, to);
    if (err != 0)
        return err;
    struct crash_event *event = record(disk, CRASH_RENAME, file, 0);
    copy_path(event->path, from);
    copy_path(event->other, to);
    return 0;
}

static int crash_remove(void *context, const char *path) {
    struct crash_disk *disk = context;
    int refused = ask(disk, CRASH_CALL_REMOVE);
    if (refused != 0)
        return refused;
    struct disk memory = below(disk);
    int err = memory.ops->remove(memory.context, path);
    if (err == 0)
        record_path(disk, CRASH_REMOVE, MEMORY_DIR, path);
    return err;
}

static int crash_remove_dir(void *context, const char *path) {
    struct crash_disk *disk = context;
    struct disk memory = below(disk);
    int err = memory.ops->remove_dir(memory.context, path);
    if (err == 0)
        record_path(disk, CRASH_REMOVE_DIR, MEMORY_DIR, path);
    return err;
}

static const struct disk_ops crash_ops = {
    .open = crash_open,
    .close = crash_close,
    .pread = crash_pread,
    .pwrite = crash_pwrite,
    .truncate = crash_truncate,
    .sync = crash_sync,
    .size = crash_size,
    .advise = crash_advise,
    .lock = crash_lock,
    .make_dir = crash_make_dir,
    .sync_dir = crash_sync_dir,
    .list = crash_list,
    .rename = crash_rename,
    .remove = crash_remove,
    .remove_dir = crash_remove_dir,
};

struct disk crash_disk_table(struct crash_disk *disk) {
    return (struct disk){.ops = &crash_ops, .context = disk};
}
