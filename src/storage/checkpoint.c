#include "storage/checkpoint.h"

#include "base/cursor.h"
#include "storage/crc32.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>

#define MAGIC 0x464c4350u /* "FLCP" */
#define VERSION 1u
#define FLAG_CLEAN 1u
#define SLOT_BYTES 512u

enum {
    VERSION_AT = 4,
    FLAGS_AT = 6,
    SEQUENCE_AT = 8,
    OFFSET_AT = 16,
    SEGMENT_AT = 24,
    POSITION_AT = 32,
    CRC_AT = 40,
};

static bool path_of(const char *dir, char out[PATH_MAX]) {
    int bytes = snprintf(out, PATH_MAX, "%s/checkpoint", dir);
    return bytes > 0 && bytes < PATH_MAX;
}

static void encode(const struct checkpoint *checkpoint, uint8_t out[SLOT_BYTES]) {
    memset(out, 0, SLOT_BYTES);
    be32_store(out, MAGIC);
    be16_store(out + VERSION_AT, VERSION);
    be16_store(out + FLAGS_AT, checkpoint->clean ? FLAG_CLEAN : 0);
    be64_store(out + SEQUENCE_AT, checkpoint->sequence);
    be64_store(out + OFFSET_AT, checkpoint->mark.offset);
    be64_store(out + SEGMENT_AT, checkpoint->mark.segment);
    be64_store(out + POSITION_AT, checkpoint->mark.position);
    be32_store(out + CRC_AT, crc32_update(0, out, CRC_AT));
}

/* Takes the slot if it is good and newer than what is known. */
static void decode(struct checkpoint *checkpoint, const uint8_t *slot) {
    if (be32_load(slot) != MAGIC || be16_load(slot + VERSION_AT) != VERSION ||
        be32_load(slot + CRC_AT) != crc32_update(0, slot, CRC_AT))
        return;
    uint64_t sequence = be64_load(slot + SEQUENCE_AT);
    if (checkpoint->valid && sequence < checkpoint->sequence)
        return;
    checkpoint->valid = true;
    checkpoint->sequence = sequence;
    checkpoint->clean = (be16_load(slot + FLAGS_AT) & FLAG_CLEAN) != 0;
    checkpoint->mark = (struct log_mark){
        .offset = be64_load(slot + OFFSET_AT),
        .segment = be64_load(slot + SEGMENT_AT),
        .position = be64_load(slot + POSITION_AT),
    };
}

int checkpoint_open(struct checkpoint *checkpoint, const struct disk *disk, const char *dir,
                    bool read_only) {
    *checkpoint = (struct checkpoint){.disk = disk, .file = -1};
    char path[PATH_MAX];
    if (!path_of(dir, path))
        return -ENAMETOOLONG;
    int file = disk->ops->open(disk->context, path, read_only ? DISK_READ : DISK_WRITE);
    if (file == -ENOENT)
        return 0;
    if (file < 0)
        return file;
    uint8_t slots[2][SLOT_BYTES] = {{0}};
    ssize_t got = disk_read_all(disk, file, slots, sizeof slots, 0);
    if (got < 0 || read_only) {
        (void)disk->ops->close(disk->context, file);
        file = -1;
    }
    if (got < 0)
        return (int)got;
    checkpoint->file = file;
    decode(checkpoint, slots[0]);
    decode(checkpoint, slots[1]);
    return 0;
}

void checkpoint_close(struct checkpoint *checkpoint) {
    if (checkpoint->file >= 0)
        (void)checkpoint->disk->ops->close(checkpoint->disk->context, checkpoint->file);
    checkpoint->file = -1;
}

int checkpoint_create(struct checkpoint *checkpoint, const char *dir, struct log_mark mark) {
    const struct disk *disk = checkpoint->disk;
    char path[PATH_MAX];
    if (!path_of(dir, path))
        return -ENAMETOOLONG;
    checkpoint_close(checkpoint);
    *checkpoint = (struct checkpoint){.disk = disk, .file = -1, .mark = mark, .valid = true};
    int err = disk->ops->remove(disk->context, path);
    if (err != 0 && err != -ENOENT)
        return err;
    int file = disk->ops->open(disk->context, path, DISK_CREATE);
    if (file < 0)
        return file;
    checkpoint->file = file;
    uint8_t slots[2][SLOT_BYTES] = {{0}};
    encode(checkpoint, slots[0]);
    err = disk_write_all(disk, file, slots, sizeof slots, 0);
    return err != 0 ? err : checkpoint_sync(checkpoint);
}

int checkpoint_write(struct checkpoint *checkpoint, struct log_mark mark, bool clean) {
    if (checkpoint->file < 0)
        return -EBADF;
    struct checkpoint next = *checkpoint;
    next.sequence++;
    next.mark = mark;
    next.clean = clean;
    next.valid = true;
    uint8_t slot[SLOT_BYTES];
    encode(&next, slot);
    int err = disk_write_all(checkpoint->disk, checkpoint->file, slot, sizeof slot,
                             (next.sequence & 1) * SLOT_BYTES);
    if (err == 0)
        *checkpoint = next;
    return err;
}

int checkpoint_sync(struct checkpoint *checkpoint) {
    return checkpoint->disk->ops->sync(checkpoint->disk->context, checkpoint->file);
}
