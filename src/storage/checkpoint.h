/*
 * The file `checkpoint` of a log: a place below which everything is known to be on disk. It tells
 * rot (below) from an unfinished write (at or above). Never newer than the truth, often older: it
 * is written without a flush of its own. docs/decisions/010.
 *
 * Two slots of 512 bytes, a sector each, written in turns: a torn one leaves the other.
 *    0  4  magic "FLCP"    4  2  version, 1    6  2  flags, 1: closed in order
 *    8  8  sequence, the greater slot counts    16  8  offset    24  8  segment
 *   32  8  position in the segment              40  4  CRC-32 over 0..40, then zeros
 */
#ifndef STORAGE_CHECKPOINT_H
#define STORAGE_CHECKPOINT_H

#include "storage/disk.h"

/* Where the records below `offset` end. */
struct log_mark {
    uint64_t offset;
    uint64_t segment;
    uint64_t position;
};

struct checkpoint {
    const struct disk *disk;
    int file; /* -1: none */
    uint64_t sequence;
    struct log_mark mark;
    bool clean; /* the log was closed in order at `mark` */
    bool valid; /* at least one slot was good */
};

/**
 * Open the checkpoint of the log in `dir` and read the newer of its good slots. A missing file is
 * no error. `file` stays open for checkpoint_write unless `read_only`. 0 or negative errno.
 */
int checkpoint_open(struct checkpoint *checkpoint, const struct disk *disk, const char *dir,
                    bool read_only);
void checkpoint_close(struct checkpoint *checkpoint);

/** Make the file with `mark` in it and flush it; the caller syncs the directory. Replaces one
 * without a good slot. */
int checkpoint_create(struct checkpoint *checkpoint, const char *dir, struct log_mark mark);

/** Write the older slot. No flush, see checkpoint_sync. 0 or negative errno: then the other slot
 * still holds. */
int checkpoint_write(struct checkpoint *checkpoint, struct log_mark mark, bool clean);
int checkpoint_sync(struct checkpoint *checkpoint);

#endif
