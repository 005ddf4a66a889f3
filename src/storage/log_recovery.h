/* Inside of the log: finding out at open what a directory holds, and making it whole. */
#ifndef STORAGE_LOG_RECOVERY_H
#define STORAGE_LOG_RECOVERY_H

#include "storage/log_state.h"

/* What is known of a segment's file before anything is done about it. */
struct found_segment {
    uint64_t id;
    uint64_t bytes; /* length of the file */
    enum segment_header_fault fault;
    struct segment_header header;
    bool foreign;
};

struct found_segments {
    struct found_segment *items; /* ascending ids; the last one is the newest */
    size_t count, capacity;
};

/* A recovery that is under way. */
struct recovery {
    struct record_log *log;
    struct log_recovery *report;
    struct log_mark mark; /* of the checkpoint, if `checkpointed` */
    bool checkpointed;
    bool changed; /* names in the directory */
    struct found_segments found;
};

/* Where the records of a segment end that was scanned. */
struct log_tail {
    uint64_t position, offset; /* behind the last good record */
    uint64_t file_bytes;       /* length of the file */
    uint64_t content_end;      /* behind the last byte other than zero, at least `position` */
    enum record_fault fault;   /* of what follows; RECORD_OK: nothing, or only zeros */
    uint64_t record_bytes;     /* what that would take by its verified header; else 0 */
    bool rotten;               /* damage was skipped in front of `position` */
};

/** Fill a new log from its directory, which exists. Afterwards it has at least one segment, and
 * unless it is read-only, the writer may go on. Errors as record_log_open. */
enum felix_err log_recover(struct record_log *log, struct log_recovery *report,
                           struct felix_error *reterr);

/** "log NAME: segment ID, byte POSITION: RULE". */
enum felix_err log_damaged(const struct record_log *log, struct felix_error *reterr, uint64_t id,
                           uint64_t position, const char *rule);

/** List the directory and read the segments' headers. `found` is owned by the caller, also on
 * errors. */
enum felix_err log_find_segments(struct record_log *log, struct found_segments *found,
                                 struct felix_error *reterr);

/** Take away the newest ones that are no segments yet: leftovers of an interrupted roll. Afterwards
 * the newest one has a good header, or there is none. */
enum felix_err log_drop_unfinished(struct recovery *recovery, struct felix_error *reterr);

/** Take away the newest one: without a trace if there is nothing in it but a header and zeros, else
 * it is put aside. */
enum felix_err log_drop_newest(struct recovery *recovery, struct felix_error *reterr);

/** Scan an open segment from its first record on, filling its index. What is bad below the
 * checkpoint is noted as damage and skipped. */
enum felix_err log_scan_tail(struct recovery *recovery, struct segment *segment,
                             uint64_t file_bytes, struct log_tail *ret, struct felix_error *reterr);

/** Cut what `tail` says behind the records of the newest segment, if the rules allow it. */
enum felix_err log_cut_tail(struct recovery *recovery, struct segment *segment,
                            const struct log_tail *tail, struct felix_error *reterr);

/** Copy [from, to) of a segment's file to `NNN.torn-FROM`, synced, with its name. Does nothing
 * when such a file with these bytes is there already; with other bytes there, a number is added. */
enum felix_err log_keep_torn(struct record_log *log, const struct segment *segment, uint64_t from,
                             uint64_t to, struct felix_error *reterr);

/** Rename the whole file of a segment to `NNN.torn-0`. The caller syncs the directory. */
enum felix_err log_set_aside(struct record_log *log, uint64_t id, struct felix_error *reterr);

#endif
