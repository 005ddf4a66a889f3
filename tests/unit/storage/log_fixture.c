#include "log_fixture.h"

#include "base/check.h"
#include "storage/generated.h"

#define BYTES_MAX 65536u

int fixture_segment(struct memory_disk *disk, const char *dir, uint64_t id, uint64_t first,
                    uint64_t end) {
    static uint8_t bytes[BYTES_MAX];
    const struct segment_header header = {.base_offset = first, .created_us = 1000 + id};
    segment_header_encode(&header, bytes);
    size_t at = SEGMENT_HEADER_BYTES;
    for (uint64_t offset = first; offset < end; offset++) {
        INVARIANT(at + FIXTURE_RECORD <= BYTES_MAX);
        uint8_t *payload = bytes + at + RECORD_HEADER_BYTES;
        generated_fill(offset, FIXTURE_PAYLOAD, payload);
        record_header_encode(offset, 5000 + offset, slice_of(payload, FIXTURE_PAYLOAD), bytes + at);
        at += FIXTURE_RECORD;
    }
    char path[PATH_MAX];
    INVARIANT(segment_path(dir, id, "log", path));
    return memory_disk_add_file(disk, path, slice_of(bytes, at), at);
}

void fixture_log(struct memory_disk *disk, const char *dir) {
    memory_disk_add_dir(disk, dir);
    for (uint64_t id = 0; id < 3; id++)
        (void)fixture_segment(disk, dir, id, id * 10, id * 10 + 10);
}

struct memory_file *fixture_file(struct memory_disk *disk, const char *dir, uint64_t id) {
    char path[PATH_MAX];
    INVARIANT(segment_path(dir, id, "log", path));
    struct memory_file *file = memory_disk_find(disk, path);
    INVARIANT(file != NULL);
    return file;
}

void fixture_flip(struct memory_disk *disk, const char *dir, uint64_t id, uint64_t at) {
    struct memory_file *file = fixture_file(disk, dir, id);
    INVARIANT(at < file->stored);
    file->data[at] ^= 4;
}

void fixture_checkpoint(struct memory_disk *disk, const char *dir, struct log_mark mark) {
    struct disk table = memory_disk_table(disk);
    struct checkpoint checkpoint = {.disk = &table, .file = -1};
    INVARIANT(checkpoint_create(&checkpoint, dir, mark) == 0);
    checkpoint_close(&checkpoint);
}
