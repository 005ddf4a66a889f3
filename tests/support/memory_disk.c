#include "support/memory_disk.h"

#include "base/check.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- paths and names ---- */

size_t memory_path_parent(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash == NULL ? 0 : (size_t)(slash - path);
}

void memory_name_move(struct memory_name *name, const char *from, const char *to) {
    size_t bytes = strlen(from);
    if (strncmp(name->path, from, bytes) != 0 ||
        (name->path[bytes] != '\0' && name->path[bytes] != '/'))
        return;
    char path[2 * MEMORY_PATH_BYTES];
    int length = snprintf(path, sizeof path, "%s%s", to, name->path + bytes);
    INVARIANT(length > 0 && (size_t)length < sizeof name->path);
    memcpy(name->path, path, (size_t)length + 1);
}

static bool is_root(const char *path, size_t bytes) {
    return bytes == 0 || (bytes == 1 && (path[0] == '/' || path[0] == '.'));
}

static struct memory_name *find_bytes(const struct memory_disk *disk, const char *path,
                                      size_t bytes) {
    for (size_t i = 0; i < disk->name_count; i++) {
        struct memory_name *name = &disk->names[i];
        if (strncmp(name->path, path, bytes) == 0 && name->path[bytes] == '\0')
            return name;
    }
    return NULL;
}

static struct memory_name *find_name(const struct memory_disk *disk, const char *path) {
    return find_bytes(disk, path, strlen(path));
}

static bool is_dir(const struct memory_disk *disk, const char *path, size_t bytes) {
    if (is_root(path, bytes))
        return true;
    const struct memory_name *name = find_bytes(disk, path, bytes);
    return name != NULL && name->file == MEMORY_DIR;
}

static void *grow(void *array, size_t *capacity, size_t count, size_t item_bytes) {
    if (count < *capacity)
        return array;
    size_t wanted = *capacity == 0 ? 16 : *capacity * 2;
    char *grown = xrealloc(array, wanted * item_bytes);
    memset(grown + *capacity * item_bytes, 0, (wanted - *capacity) * item_bytes);
    *capacity = wanted;
    return grown;
}

static void add_name(struct memory_disk *disk, const char *path, int file) {
    INVARIANT(strlen(path) < MEMORY_PATH_BYTES);
    disk->names = grow(disk->names, &disk->name_capacity, disk->name_count, sizeof *disk->names);
    struct memory_name *name = &disk->names[disk->name_count++];
    memcpy(name->path, path, strlen(path) + 1);
    name->file = file;
    if (file != MEMORY_DIR)
        disk->files[file].names++;
}

/* Frees the bytes of a file that nobody can reach any more; its number stays taken. */
static void settle_file(struct memory_file *file) {
    if (file->names > 0 || file->handles > 0)
        return;
    free(file->data);
    file->data = NULL;
    file->stored = file->capacity = 0;
}

static void drop_name(struct memory_disk *disk, struct memory_name *name) {
    if (name->file != MEMORY_DIR) {
        struct memory_file *file = &disk->files[name->file];
        file->names--;
        settle_file(file);
    }
    *name = disk->names[--disk->name_count];
}

static int new_file(struct memory_disk *disk) {
    disk->files = grow(disk->files, &disk->file_capacity, disk->file_count, sizeof *disk->files);
    struct memory_file *file = &disk->files[disk->file_count];
    *file = (struct memory_file){.data = file->data, .capacity = file->capacity};
    return (int)disk->file_count++;
}

/* ---- bytes ---- */

void memory_file_write(struct memory_file *file, struct slice bytes, uint64_t at) {
    if (bytes.len == 0)
        return;
    size_t end = (size_t)at + bytes.len;
    if (end > file->capacity) {
        size_t wanted = end < 1024 ? 1024 : end + end / 2;
        file->data = xrealloc(file->data, wanted);
        file->capacity = wanted;
    }
    if (at > file->stored)
        memset(file->data + file->stored, 0, (size_t)at - file->stored);
    memcpy(file->data + at, bytes.data, bytes.len);
    if (end > file->stored)
        file->stored = end;
    if (end > file->length)
        file->length = end;
}

void memory_file_set_length(struct memory_file *file, uint64_t length) {
    if (length < file->stored)
        file->stored = (size_t)length;
    file->length = length;
}

void memory_file_read(const struct memory_file *file, uint8_t *out, size_t bytes, uint64_t at) {
    size_t have = at < file->stored ? file->stored - (size_t)at : 0;
    if (have > bytes)
        have = bytes;
    if (have > 0)
        memcpy(out, file->data + at, have);
    memset(out + have, 0, bytes - have);
}

/* ---- the disk as a whole ---- */

void memory_disk_init(struct memory_disk *disk) {
    *disk = (struct memory_disk){0};
    pthread_mutex_init(&disk->mutex, NULL);
}

void memory_disk_deinit(struct memory_disk *disk) {
    for (size_t i = 0; i < disk->file_capacity; i++)
        free(disk->files[i].data);
    free(disk->files);
    free(disk->names);
    free(disk->handles);
    pthread_mutex_destroy(&disk->mutex);
}

void memory_disk_reset(struct memory_disk *disk) {
    disk->file_count = 0;
    disk->name_count = 0;
    for (size_t i = 0; i < disk->handle_count; i++)
        disk->handles[i].file = MEMORY_DIR;
}

void memory_disk_add_dir(struct memory_disk *disk, const char *path) {
    INVARIANT(is_dir(disk, path, memory_path_parent(path)) && find_name(disk, path) == NULL);
    add_name(disk, path, MEMORY_DIR);
}

int memory_disk_add_file(struct memory_disk *disk, const char *path, struct slice bytes,
                         uint64_t length) {
    INVARIANT(is_dir(disk, path, memory_path_parent(path)) && find_name(disk, path) == NULL);
    int file = new_file(disk);
    memory_file_write(&disk->files[file], bytes, 0);
    memory_file_set_length(&disk->files[file], length);
    add_name(disk, path, file);
    return file;
}

void memory_disk_copy(struct memory_disk *to, const struct memory_disk *from) {
    memory_disk_reset(to);
    for (size_t i = 0; i < from->name_count; i++) {
        const struct memory_name *name = &from->names[i];
        if (name->file == MEMORY_DIR) {
            add_name(to, name->path, MEMORY_DIR);
            continue;
        }
        const struct memory_file *file = &from->files[name->file];
        int copy = new_file(to);
        memory_file_write(&to->files[copy], slice_of(file->data, file->stored), 0);
        to->files[copy].length = file->length;
        add_name(to, name->path, copy);
    }
}

struct memory_file *memory_disk_find(const struct memory_disk *disk, const char *path) {
    const struct memory_name *name = find_name(disk, path);
    return name == NULL || name->file == MEMORY_DIR ? NULL : &disk->files[name->file];
}

int memory_disk_file_of(const struct memory_disk *disk, int handle) {
    INVARIANT(handle >= 0 && (size_t)handle < disk->handle_count);
    return disk->handles[handle].file;
}

size_t memory_disk_open_handles(const struct memory_disk *disk) {
    size_t open = 0;
    for (size_t i = 0; i < disk->handle_count; i++)
        open += disk->handles[i].file != MEMORY_DIR;
    return open;
}

uint64_t memory_hash(uint64_t hash, const void *data, size_t bytes) {
    const uint8_t *at = data;
    uint64_t word;
    for (; bytes >= sizeof word; bytes -= sizeof word, at += sizeof word) {
        memcpy(&word, at, sizeof word);
        hash = (hash ^ word) * 0x9fb21c651e98df25;
        hash ^= hash >> 29;
    }
    word = bytes;
    for (; bytes > 0; bytes--)
        word = word << 8 | *at++;
    hash = (hash ^ word) * 0xd6e8feb86659fd93;
    return hash ^ hash >> 32;
}

static uint64_t file_hash(const struct memory_file *file) {
    size_t stored = file->stored;
    while (stored > 0 && file->data[stored - 1] == 0)
        stored--;
    return memory_hash(file->length, file->data, stored);
}

uint64_t memory_disk_hash(const struct memory_disk *disk) {
    uint64_t sum = 0;
    for (size_t i = 0; i < disk->name_count; i++) {
        const struct memory_name *name = &disk->names[i];
        uint64_t bytes = name->file == MEMORY_DIR ? 1 : file_hash(&disk->files[name->file]);
        sum += memory_hash(bytes, name->path, strlen(name->path));
    }
    return sum;
}

void memory_disk_dump(const struct memory_disk *disk) {
    for (size_t i = 0; i < disk->name_count; i++) {
        const struct memory_name *name = &disk->names[i];
        if (name->file == MEMORY_DIR) {
            printf("    %s/\n", name->path);
            continue;
        }
        const struct memory_file *file = &disk->files[name->file];
        printf("    %s: %" PRIu64 " bytes, %zu of them stored, hash %016" PRIx64 "\n", name->path,
               file->length, file->stored, file_hash(file));
    }
}

/* ---- the table ---- */

/* Every function of the table but `list` runs under the mutex from here to the end. */
static struct memory_disk *enter(void *context) {
    struct memory_disk *disk = context;
    pthread_mutex_lock(&disk->mutex);
    return disk;
}

static int leave(struct memory_disk *disk, int result) {
    pthread_mutex_unlock(&disk->mutex);
    return result;
}

/* Returns the file of a handle, or NULL when it is none or may not be written. */
static struct memory_file *file_of(const struct memory_disk *disk, int handle, bool write) {
    if (handle < 0 || (size_t)handle >= disk->handle_count ||
        disk->handles[handle].file == MEMORY_DIR || (write && !disk->handles[handle].writable))
        return NULL;
    return &disk->files[disk->handles[handle].file];
}

static int new_handle(struct memory_disk *disk, int file, bool writable) {
    size_t handle = 0;
    while (handle < disk->handle_count && disk->handles[handle].file != MEMORY_DIR)
        handle++;
    if (handle == disk->handle_count) {
        disk->handles = xrealloc(disk->handles, ++disk->handle_count * sizeof *disk->handles);
    }
    disk->handles[handle] = (struct memory_handle){.file = file, .writable = writable};
    disk->files[file].handles++;
    return (int)handle;
}

static int open_named(struct memory_disk *disk, const char *path, enum disk_open how) {
    const struct memory_name *name = find_name(disk, path);
    if (how == DISK_CREATE) {
        if (name != NULL)
            return -EEXIST;
        if (!is_dir(disk, path, memory_path_parent(path)))
            return -ENOENT;
        return new_handle(disk, memory_disk_add_file(disk, path, slice_of(NULL, 0), 0), true);
    }
    if (name == NULL)
        return -ENOENT;
    if (name->file == MEMORY_DIR)
        return -EISDIR;
    return new_handle(disk, name->file, how == DISK_WRITE);
}

static int memory_open(void *context, const char *path, enum disk_open how) {
    struct memory_disk *disk = enter(context);
    return leave(disk, open_named(disk, path, how));
}

static int memory_close(void *context, int handle) {
    struct memory_disk *disk = enter(context);
    struct memory_file *file = file_of(disk, handle, false);
    if (file == NULL)
        return leave(disk, -EBADF);
    if (disk->handles[handle].locks)
        file->locked = false;
    disk->handles[handle].file = MEMORY_DIR;
    file->handles--;
    settle_file(file);
    return leave(disk, 0);
}

static ssize_t memory_pread(void *context, int handle, void *data, size_t bytes, uint64_t at) {
    struct memory_disk *disk = enter(context);
    const struct memory_file *file = file_of(disk, handle, false);
    if (file == NULL)
        return leave(disk, -EBADF);
    if (at >= file->length)
        return leave(disk, 0);
    if (bytes > file->length - at)
        bytes = (size_t)(file->length - at);
    memory_file_read(file, data, bytes, at);
    leave(disk, 0);
    return (ssize_t)bytes;
}

static ssize_t memory_pwrite(void *context, int handle, const void *data, size_t bytes,
                             uint64_t at) {
    struct memory_disk *disk = enter(context);
    struct memory_file *file = file_of(disk, handle, true);
    if (file == NULL)
        return leave(disk, -EBADF);
    memory_file_write(file, slice_of(data, bytes), at);
    leave(disk, 0);
    return (ssize_t)bytes;
}

static int memory_truncate(void *context, int handle, uint64_t bytes) {
    struct memory_disk *disk = enter(context);
    struct memory_file *file = file_of(disk, handle, true);
    if (file != NULL)
        memory_file_set_length(file, bytes);
    return leave(disk, file == NULL ? -EBADF : 0);
}

static int memory_sync(void *context, int handle) {
    struct memory_disk *disk = enter(context);
    return leave(disk, file_of(disk, handle, false) == NULL ? -EBADF : 0);
}

static int memory_size(void *context, int handle, uint64_t *ret_bytes) {
    struct memory_disk *disk = enter(context);
    const struct memory_file *file = file_of(disk, handle, false);
    if (file != NULL)
        *ret_bytes = file->length;
    return leave(disk, file == NULL ? -EBADF : 0);
}

static void memory_advise(void *context, int handle, uint64_t at, uint64_t bytes, bool drop) {
    (void)context;
}

static int memory_lock(void *context, int handle) {
    struct memory_disk *disk = enter(context);
    struct memory_file *file = file_of(disk, handle, false);
    if (file == NULL)
        return leave(disk, -EBADF);
    if (file->locked)
        return leave(disk, disk->handles[handle].locks ? 0 : -EWOULDBLOCK);
    file->locked = disk->handles[handle].locks = true;
    return leave(disk, 0);
}

static int memory_make_dir(void *context, const char *path) {
    struct memory_disk *disk = enter(context);
    const struct memory_name *name = find_name(disk, path);
    if (is_root(path, strlen(path)) || (name != NULL && name->file == MEMORY_DIR))
        return leave(disk, 0);
    if (name != NULL)
        return leave(disk, -EEXIST);
    if (!is_dir(disk, path, memory_path_parent(path)))
        return leave(disk, -ENOENT);
    add_name(disk, path, MEMORY_DIR);
    return leave(disk, 0);
}

static int memory_sync_dir(void *context, const char *path) {
    struct memory_disk *disk = enter(context);
    return leave(disk, is_dir(disk, path, strlen(path)) ? 0 : -ENOENT);
}

static bool lies_in(const struct memory_name *name, const char *dir) {
    size_t parent = memory_path_parent(name->path);
    if (is_root(dir, strlen(dir)))
        return parent == 0;
    return parent == strlen(dir) && strncmp(name->path, dir, parent) == 0;
}

static int memory_list(void *context, const char *path,
                       void (*on_name)(void *user, const char *name), void *user) {
    struct memory_disk *disk = enter(context);
    if (!is_dir(disk, path, strlen(path)))
        return leave(disk, -ENOENT);
    /* A copy: whoever is told a name may change the disk. */
    size_t count = 0;
    char(*found)[MEMORY_PATH_BYTES] = xmalloc((disk->name_count + 1) * sizeof *found);
    for (size_t i = 0; i < disk->name_count; i++) {
        if (lies_in(&disk->names[i], path))
            memcpy(found[count++], disk->names[i].path, MEMORY_PATH_BYTES);
    }
    leave(disk, 0);
    for (size_t i = 0; i < count; i++) {
        const char *slash = strrchr(found[i], '/');
        on_name(user, slash == NULL ? found[i] : slash + 1);
    }
    free(found);
    return 0;
}

/* A directory takes along what is in it; one that stands in its way has to be removed first. */
static int rename_dir(struct memory_disk *disk, const char *from, const char *to) {
    if (find_name(disk, to) != NULL)
        return -EEXIST;
    for (size_t i = 0; i < disk->name_count; i++)
        memory_name_move(&disk->names[i], from, to);
    return 0;
}

static int memory_rename(void *context, const char *from, const char *to) {
    struct memory_disk *disk = enter(context);
    const struct memory_name *source = find_name(disk, from);
    if (source == NULL || !is_dir(disk, to, memory_path_parent(to)))
        return leave(disk, -ENOENT);
    if (source->file == MEMORY_DIR)
        return leave(disk, rename_dir(disk, from, to));
    struct memory_name *target = find_name(disk, to);
    if (target != NULL && target->file == MEMORY_DIR)
        return leave(disk, -EISDIR);
    if (source == target)
        return leave(disk, 0);
    int file = source->file;
    disk->files[file].names++; /* so that dropping its old name keeps its bytes */
    if (target != NULL)
        drop_name(disk, target);
    drop_name(disk, find_name(disk, from));
    add_name(disk, to, file);
    disk->files[file].names--;
    return leave(disk, 0);
}

static int memory_remove(void *context, const char *path) {
    struct memory_disk *disk = enter(context);
    struct memory_name *name = find_name(disk, path);
    if (name == NULL)
        return leave(disk, -ENOENT);
    if (name->file == MEMORY_DIR)
        return leave(disk, -EISDIR);
    drop_name(disk, name);
    return leave(disk, 0);
}

static int memory_remove_dir(void *context, const char *path) {
    struct memory_disk *disk = enter(context);
    struct memory_name *name = find_name(disk, path);
    if (name == NULL)
        return leave(disk, -ENOENT);
    if (name->file != MEMORY_DIR)
        return leave(disk, -ENOTDIR);
    for (size_t i = 0; i < disk->name_count; i++) {
        if (lies_in(&disk->names[i], path))
            return leave(disk, -ENOTEMPTY);
    }
    drop_name(disk, name);
    return leave(disk, 0);
}

static const struct disk_ops memory_ops = {
    .open = memory_open,
    .close = memory_close,
    .pread = memory_pread,
    .pwrite = memory_pwrite,
    .truncate = memory_truncate,
    .sync = memory_sync,
    .size = memory_size,
    .advise = memory_advise,
    .lock = memory_lock,
    .make_dir = memory_make_dir,
    .sync_dir = memory_sync_dir,
    .list = memory_list,
    .rename = memory_rename,
    .remove = memory_remove,
    .remove_dir = memory_remove_dir,
};

struct disk memory_disk_table(struct memory_disk *disk) {
    return (struct disk){.ops = &memory_ops, .context = disk};
}
