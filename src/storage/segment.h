/*
 * One file of a log: a header of 32 bytes, then records back to back.
 * Source: broker specification 6.1 and 6.2.
 *
 *    0  4  magic "FLSG"    4  2  version, 2    6  2  flags, 0    8  8  base offset
 *   16  8  created, microseconds since the epoch, 0: not known
 *   24  4  CRC-32 over 0..24    28  4  reserved
 */
#ifndef STORAGE_SEGMENT_H
#define STORAGE_SEGMENT_H

#include "base/err.h"
#include "base/slice.h"
#include "storage/disk.h"
#include "storage/index.h"
#include "storage/record.h"

#include <limits.h>

#define SEGMENT_HEADER_BYTES 32u

struct segment_header {
    uint64_t base_offset;
    uint64_t created_us;
};

/* In the order in which they are looked for. */
enum segment_header_fault {
    SEGMENT_HEADER_OK,
    SEGMENT_HEADER_SHORT,
    SEGMENT_HEADER_MAGIC,
    SEGMENT_HEADER_VERSION,
    SEGMENT_HEADER_FLAGS,
    SEGMENT_HEADER_CHECKSUM,
};

/** Static text of a fault for people. */
const char *segment_header_fault_text(enum segment_header_fault fault);

/** Pure. */
void segment_header_encode(const struct segment_header *header, uint8_t out[SEGMENT_HEADER_BYTES]);

/** Decode the header at the start of `bytes`; *ret is set on SEGMENT_HEADER_OK. Pure. */
enum segment_header_fault segment_header_decode(struct slice bytes, struct segment_header *ret);

/** A header whose checksum is right, but of a version or with flags that we do not know: a file of
 * another program, not a damaged one. Pure. */
bool segment_header_is_foreign(struct slice bytes);

/** What a file beside the segments is: "log", "index". `out` has PATH_MAX bytes. False: the path
 * would be longer. */
bool segment_path(const char *dir, uint64_t id, const char *suffix, char out[PATH_MAX]);

/** Is `name` the name of the file with this suffix of some segment? */
bool segment_name_parse(const char *name, const char *suffix, uint64_t *ret_id);

/* A segment of an open log. The log's mutex guards what changes, see log_state.h. */
struct segment {
    uint64_t id;
    uint64_t base;  /* offset of the first record */
    uint64_t end;   /* after the last one; of the newest segment see record_log.written */
    uint64_t bytes; /* where the records end; likewise */
    uint64_t created_us;
    uint64_t last_timestamp_us; /* of the last record, when `last_timestamp_known` */
    int file;                   /* -1: not open */
    uint32_t pins;
    bool sealed;
    bool flushed;      /* sealed, and all of it is on disk */
    bool entry_synced; /* its name is in the directory on disk */
    bool verified;
    bool last_timestamp_known;
    bool index_loaded;
    bool leaving; /* out of the list, file to be unlinked */
    bool gone;    /* out of the list, no file to care for: whoever drops the last pin frees it */
    bool kept;    /* among record_log.kept */
    struct log_index index;
    struct segment *next; /* in the writer's list of new ones, in the list of what is removed */
    /* In the flusher's list of those it is done with. Not `next`: retention may take them before
     * the flusher has gone through its list. */
    struct segment *flushed_next;
};

/** Without a file and with an empty index. NULL: no memory. */
struct segment *segment_new(uint64_t id, uint64_t base, uint32_t index_spacing_bytes);

/** Close the file, free. Accepts NULL. */
void segment_free(struct segment *segment, const struct disk *disk);

#endif
