/*
 * Reads the records of a segment's file one after the other, in big pieces. Belongs to one thread.
 */
#ifndef STORAGE_SEGMENT_SCAN_H
#define STORAGE_SEGMENT_SCAN_H

#include "storage/disk.h"
#include "storage/record.h"

struct segment_scan {
    const struct disk *disk;
    int file;
    uint64_t position; /* of the next record */
    uint64_t end;      /* what is behind it does not count */
    uint64_t offset;   /* the one that the next record must have */
    uint8_t *bytes;    /* bytes[from, to) lie at `position` in the file */
    size_t capacity, from, to;
};

enum scan_step {
    SCAN_RECORD,
    SCAN_END,   /* exactly at `end` */
    SCAN_FAULT, /* the record at `position` is not good */
    SCAN_ERROR, /* the disk failed, or there is no memory */
};

/** Start at a place where a record begins. `file` is borrowed. False: no memory. */
bool segment_scan_init(struct segment_scan *scan, const struct disk *disk, int file,
                       uint64_t position, uint64_t end, uint64_t offset);
void segment_scan_deinit(struct segment_scan *scan);

/** Go on somewhere else in the same file. */
void segment_scan_jump(struct segment_scan *scan, uint64_t position, uint64_t offset);

/**
 * The next record. SCAN_RECORD: *ret is it (its payload is valid until the next call), `position`
 * and `offset` are behind it. SCAN_FAULT: *ret_fault; *ret_record_bytes is what the record takes by
 * its own verified header, 0 when that is not good either. SCAN_ERROR: *ret_errno, negative.
 */
struct scan_result {
    enum scan_step step;
    struct record record;
    uint64_t position; /* where the record begins */
    enum record_fault fault;
    uint64_t record_bytes;
    int error;
};
struct scan_result segment_scan_next(struct segment_scan *scan);

/**
 * Where the last byte other than zero in [from, end) of a file ends; `from` when all are zeros.
 * 0 or negative errno.
 */
int segment_nonzero_end(const struct disk *disk, int file, uint64_t from, uint64_t end,
                        uint64_t *ret);

#endif
