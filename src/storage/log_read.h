/* Inside of the log: how readers find their way to a record. */
#ifndef STORAGE_LOG_READ_H
#define STORAGE_LOG_READ_H

#include "storage/log_state.h"

/* A read of a pinned segment. */
struct log_reading {
    struct segment *segment; /* NULL: `offset` is the committed end */
    bool newest;             /* the writer is at work on it */
    uint64_t offset;         /* the first record that is wanted */
    uint64_t position;       /* and where it is, once that was found */
    uint64_t end_offset;     /* what may be read of the segment */
    uint64_t end_position;
    uint64_t generation;
};

/** Find and pin the segment of `offset`; log_unpin ends it. Errors as record_log_read. */
enum felix_err log_reading_begin(struct record_log *log, uint64_t offset, struct log_reading *ret,
                                 uint64_t *ret_available, struct felix_error *reterr);

/** Have the index of a pinned segment in memory; one that is not usable is an empty one. */
void log_load_index(struct record_log *log, struct segment *segment);

/** The first offset from `offset` on that is not known to be damaged, at most the committed end. */
uint64_t log_after_damage(struct record_log *log, uint64_t offset);

/**
 * Look at every record of the segment, remember what is damaged, and make a new index. For a
 * pinned, open segment. *ret_readable: `reading->offset` is not damaged, and lies at
 * `reading->position`.  FELIX_STORAGE, FELIX_NO_MEMORY
 */
enum felix_err log_verify_segment(struct record_log *log, struct log_reading *reading,
                                  bool *ret_readable, struct felix_error *reterr);

#endif
