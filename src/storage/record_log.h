/*
 * The segmented log of one durable stream: a directory of segment files with checksummed records.
 * Source: broker specification 6; docs/decisions/010-durable-log.md for what is ours.
 *
 * Roles. Each of these may run on its own thread at the same time as the others; one role is never
 * taken by two threads at once (log_service.h sees to that):
 *   writer     record_log_append, record_log_write
 *   flusher    record_log_sync
 *   retention  record_log_retain
 *   reader     record_log_read, record_log_info: any number of threads
 * A mutex guards the list of segments and the positions; it is never held during I/O. Readers pin
 * the segments they read, retention unlinks what nobody pins and the last reader the rest.
 *
 * Positions:  oldest <= durable_end <= written_end. Everything below durable_end is known to be on
 * disk. `committed_end` is what the policy counts as safe: durable_end under LOG_SYNC_ON_COMMIT,
 * else written_end. Readers see what is committed and nothing else.
 *
 * Files, beside what the specification names: the length of the newest segment is set ahead, so a
 * tail of zeros is an unfinished write (docs/decisions/010); `checkpoint` holds a durable_end that
 * is known to be true, which tells rot from an unfinished write; `NNN.torn-POSITION` keeps bytes
 * that recovery cut off although they were not plainly an unfinished write. Names that are not
 * ours are left alone.
 */
#ifndef STORAGE_RECORD_LOG_H
#define STORAGE_RECORD_LOG_H

#include "base/buf.h"
#include "base/err.h"
#include "storage/disk.h"
#include "storage/record.h"
#include "wire/publish.h"

enum log_sync { LOG_SYNC_NONE, LOG_SYNC_PERIODIC, LOG_SYNC_ON_COMMIT };

struct record_log_settings {
    enum log_sync sync;
    uint64_t segment_bytes;       /* roll over beyond this */
    uint32_t index_spacing_bytes; /* between two index entries */
    uint32_t read_records_max;    /* of one record_log_read */
    bool set_length_ahead;        /* of the newest segment, in steps */
    bool verify_all_on_open;
    bool repair_checksum_tail;
    uint64_t retention_bytes; /* 0: without limit */
    uint64_t retention_us;    /* age; 0: without limit */
};

/* What opening found and did; for the log line, the metrics and the tools. */
struct log_recovery {
    uint64_t oldest, end; /* offsets */
    uint32_t segments;
    uint64_t bytes;
    uint64_t scanned_bytes;
    uint64_t cut_bytes;        /* unfinished write at the end, gone */
    uint64_t moved_bytes;      /* doubtful tail, kept in a .torn file */
    uint32_t removed_segments; /* leftovers of an interrupted roll */
    bool clean;                /* it was closed in order */
};

/* Records that cannot be read; their files are left as they are. */
struct log_damage {
    uint64_t first, end; /* offsets, half open */
    uint64_t segment;
    uint64_t position; /* of the first bad byte range in the file */
    enum record_fault fault;
};

struct record_log;

/**
 * Open or create the log in the directory `dir`, whose parent exists. `name` is for errors
 * ("tenant/namespace/stream"). Recovers: sealed segments are trusted by their headers, the newest
 * is scanned. Never deletes records in doubt. Repeating it changes nothing. Returned owned.
 * *ret_report (may be NULL) is set also on errors, as far as it went.
 *
 *   FELIX_DAMAGED    what is there cannot be continued; reterr names segment, position and rule
 *   FELIX_DISK_FULL, FELIX_STORAGE   the disk refused; reterr names path and call
 *   FELIX_NO_MEMORY
 */
enum felix_err record_log_open(const struct disk *disk, const char *dir, const char *name,
                               const struct record_log_settings *settings, struct record_log **ret,
                               struct log_recovery *ret_report, struct felix_error *reterr);

/** The same, read-only: nothing is created, cut, moved or rewritten. For the tools. Only
 * reader functions may be used on it. FELIX_NOT_FOUND: there is no segment in `dir`. */
enum felix_err record_log_open_read_only(const struct disk *disk, const char *dir, const char *name,
                                         const struct record_log_settings *settings,
                                         struct record_log **ret, struct log_recovery *ret_report,
                                         struct felix_error *reterr);

/** Flush, cut the newest segment to its exact length, write checkpoint and index, free. A failure
 * is returned, but everything is freed in any case. Accepts NULL. Nobody uses the log any more. */
enum felix_err record_log_close(struct record_log *log);

/** Free without any I/O but closing files: as if the process had been killed. */
void record_log_abandon(struct record_log *log);

/**
 * Stage a batch: records base_offset, base_offset + 1, ... of the list, all with one timestamp.
 * `base_offset` must be the staged end. Rolls over when the segment is full (a batch is never
 * split over two segments). Full stages are written at once. Writer role; borrows.
 *
 *   FELIX_DISK_FULL, FELIX_STORAGE   nothing of what was staged since the last successful
 *       record_log_write remains in the log, the next append continues at written_end. If the disk
 *       cannot even be brought back to that, the log is failed (record_log_reopen).
 *   FELIX_TOO_LARGE   a payload above RECORD_PAYLOAD_BYTES_MAX; nothing was staged
 */
enum felix_err record_log_append(struct record_log *log, uint64_t base_offset,
                                 uint64_t timestamp_us, const struct payload_list *list,
                                 struct felix_error *reterr);

/** Give what is staged to the operating system; written_end becomes the staged end. Errors as
 * above. Writer role. */
enum felix_err record_log_write(struct record_log *log, struct felix_error *reterr);

/**
 * Make everything written at the time of the call durable (also what is in segments that were
 * sealed meanwhile); durable_end follows. Runs beside the writer. Flusher role.
 *
 *   FELIX_STORAGE    final for this log: nothing may be acknowledged on it any more; everything
 *       but readers must stop, then record_log_reopen
 */
enum felix_err record_log_sync(struct record_log *log, struct felix_error *reterr);

/**
 * After a failure: go back to durable_end, which is what is provably on disk. Cuts the rest off
 * and syncs, through new file handles. Writer and flusher role together; readers may be at work.
 * FELIX_OK: the log goes on at written_end == durable_end. Else it stays failed and may be tried
 * again later.
 */
enum felix_err record_log_reopen(struct record_log *log, struct felix_error *reterr);

/** Remove sealed segments that the bounds no longer keep, in order, oldest first; `now_us` is wall
 * clock. *ret_removed (may be NULL): how many. Retention role. A failure is counted and tried
 * again next time. */
enum felix_err record_log_retain(struct record_log *log, uint64_t now_us, uint32_t *ret_removed,
                                 struct felix_error *reterr);

/** Other bounds from now on, for record_log_retain; 0: without limit. Any thread. */
void record_log_set_retention(struct record_log *log, uint64_t bytes, uint64_t us);

/** When record_log_retain may next have something to do because of age, microseconds of wall
 * clock; UINT64_MAX: never. May read one record. */
uint64_t record_log_next_retention_us(struct record_log *log);

/* A run of consecutive records, as a subscription wants them. */
struct log_page {
    struct buf *block; /* holds everything below; one reference, owned; NULL when count is 0 */
    struct payload_list list;
    size_t headroom;            /* writable bytes before list.bytes, at least LOG_PAGE_HEADROOM */
    const uint64_t *timestamps; /* list.count of them, microseconds */
    uint64_t first;             /* offset of the first record; without records: where to go on */
};

#define LOG_PAGE_HEADROOM 32u

/**
 * Read records from `offset` on, until `bytes_max` of payload or read_records_max, at least one,
 * never beyond committed_end; every one verified. Count 0: `offset` is the committed end.
 * A page also ends where its segment does, and may hold somewhat less than it could.
 *
 *   FELIX_CURSOR_TOO_OLD     below the oldest; *ret_available is that
 *   FELIX_CURSOR_IN_FUTURE   beyond the committed end; *ret_available is that
 *   FELIX_DAMAGED            `offset` lies in records that cannot be read; *ret_available is the
 *                            first one after them that can. The damage is remembered.
 *   FELIX_STORAGE, FELIX_NO_MEMORY
 */
enum felix_err record_log_read(struct record_log *log, uint64_t offset, size_t bytes_max,
                               struct log_page *ret, uint64_t *ret_available,
                               struct felix_error *reterr);

/** The first committed record with a timestamp of at least `at_us`; committed_end when there is
 * none. What cannot be read in between counts as later. Where timestamps do not rise, any place
 * where `at_us` is passed. Reader. */
enum felix_err record_log_seek_time(struct record_log *log, uint64_t at_us, uint64_t *ret_offset,
                                    struct felix_error *reterr);

/**
 * Check every record of the next sealed segment that was not verified since it was opened, and
 * remember damage. Reader; meant for one background thread. *ret_more: there are others.
 */
enum felix_err record_log_verify_next(struct record_log *log, bool *ret_more,
                                      struct felix_error *reterr);

#define LOG_DAMAGE_MAX 16u

struct record_log_info {
    uint64_t oldest, durable_end, written_end, committed_end;
    uint64_t bytes; /* of all segments, without what is set ahead */
    uint32_t segments;
    bool failed;
    struct log_damage damage[LOG_DAMAGE_MAX]; /* the first ones */
    uint32_t damage_count;                    /* all of them */
    uint64_t appended_records, appended_bytes, syncs, removed_segments, read_records;
    uint64_t unverified_segments;
};
void record_log_info(struct record_log *log, struct record_log_info *ret);

/** The directory name of a log below the root, "acme_default_orders_0-0d3aed4b998d2798", with its
 * terminating zero. Source: broker specification 6.1. `out` has LOG_DIR_NAME_BYTES. Pure. */
#define LOG_DIR_NAME_BYTES (3u * 33u + 10u + 1u + 16u + 2u)
void record_log_dir_name(struct slice tenant, struct slice namespace_, struct slice stream,
                         uint32_t shard, char out[LOG_DIR_NAME_BYTES]);

#endif
