/*
 * The sparse index of a segment: offsets and where their records begin. Derived data: it only
 * makes reading faster, is never on the path of an acknowledgement and never believed. Whoever
 * starts at one of its entries and finds anything but a good record of that very offset drops the
 * index (log_index_clear) and scans.
 *
 * File, big-endian. Source: broker specification 6.4.
 *    0  4  magic "FLSI"    4  2  version, 2    6  2  flags    8  8  base offset
 *   16  8  reserved; ours: 4 count of entries, 4 CRC-32 over 0..20 and the entries. Zero: neither
 *   24  16 each: offset, byte position in the segment; both ascending
 *
 * In memory the entries are bounded: where there would be more than LOG_INDEX_ENTRIES_MAX, every
 * second one goes and the rest lie twice as far apart. An entry for which there is no memory is
 * left out. Belongs to one thread at a time.
 */
#ifndef STORAGE_INDEX_H
#define STORAGE_INDEX_H

#include "storage/disk.h"

#define LOG_INDEX_ENTRIES_MAX 16384u /* 256 KiB */

struct log_index_entry {
    uint64_t offset;
    uint64_t position;
};

struct log_index {
    struct log_index_entry *entries; /* count of them, ascending */
    uint32_t count, capacity;
    uint64_t base_offset;   /* of the segment */
    uint64_t spacing_bytes; /* between two entries */
    uint64_t since_bytes;   /* since the last entry */
};

/** Empty; allocates nothing. */
void log_index_init(struct log_index *index, uint64_t base_offset, uint32_t spacing_bytes);
void log_index_deinit(struct log_index *index);

/** Each record of the segment in order: its offset, where it begins, header and payload together.
 * Makes an entry of it when one is due. */
void log_index_note(struct log_index *index, uint64_t offset, uint64_t position, uint64_t bytes);

/** Forget all entries of records at or beyond `offset`. */
void log_index_cut(struct log_index *index, uint64_t offset);
void log_index_clear(struct log_index *index);

/** The greatest entry at or below `offset`, else the segment's first record. Pure. */
struct log_index_entry log_index_seek(const struct log_index *index, uint64_t offset);

/** Write the file; afterwards a crash may leave anything, which loading sees. 0 or negative errno;
 * nothing depends on success. */
int log_index_save(const struct log_index *index, const struct disk *disk, const char *path);

/**
 * Fill `index` (initialised, empty) from its file, for a segment whose records end before byte
 * `segment_bytes`. False: there is none, it belongs to another segment or anything in it is odd;
 * then the index is empty as before and may be built anew. An index without entries is usable.
 */
bool log_index_load(struct log_index *index, const struct disk *disk, const char *path,
                    uint64_t segment_bytes);

#endif
