/*
 * The inside of a record_log: what its files share. record_log.h says which role may do what; a
 * field's comment says who guards it.
 */
#ifndef STORAGE_LOG_STATE_H
#define STORAGE_LOG_STATE_H

#include "storage/checkpoint.h"
#include "storage/record_log.h"
#include "storage/segment.h"

#include <pthread.h>
#include <stdatomic.h>

/* How far the length of the newest segment is set ahead. */
#define LOG_AHEAD_BYTES ((uint64_t)1 << 18)

/* Records on their way to the newest segment. More than this leaves the processor's cache before
 * the system copies it. */
#define LOG_STAGE_BYTES ((size_t)256 << 10)

/* Read-only handles that stay open for the next page. */
#define LOG_KEPT_SEGMENTS 4u

/* Where readers went on last. */
#define LOG_HINTS 64u

/* Damaged ranges that are told apart; more are only counted. */
#define LOG_DAMAGE_REMEMBERED 1024u

struct log_hint {
    uint64_t offset, segment, position;
};

/* The writer's own: nobody else looks at it. */
struct log_writer {
    uint8_t *stage; /* records that go to `position` */
    size_t staged_bytes;
    struct segment *active;  /* where they go */
    struct segment *rolled;  /* segments made since the last record_log_write, by `next`; the last
                                of them is `active` */
    uint64_t position;       /* in the file of `active` */
    uint64_t file_bytes;     /* length of that file */
    uint32_t writes;         /* since that was set last */
    uint64_t staged_end;     /* offset */
    uint64_t records, bytes; /* staged and written since the last record_log_write */
};

struct record_log {
    const struct disk *disk;
    struct record_log_settings settings;
    char *dir;
    char *name;
    bool read_only;
    atomic_bool failed;
    struct log_writer writer;

    /* Held by whoever flushes, over all of it. Taken before `mutex`. Guards the next ones. */
    pthread_mutex_t sync_lock;
    struct checkpoint checkpoint;

    pthread_mutex_t mutex; /* never held during I/O; guards everything below */
    struct segment **segments;
    size_t segment_count, segment_capacity;
    struct log_mark written, durable;
    uint64_t kept_from;  /* retention leaves this segment and later ones alone: the flushed
                            checkpoint needs them */
    bool flush_failed;   /* what is written above `durable` is of no worth */
    uint64_t generation; /* of the file contents: another one after record_log_reopen */
    uint64_t sealed_bytes;
    uint64_t verify_from;    /* record_log_verify_next looks at later segments */
    struct segment *leaving; /* removed from the list, files to be unlinked in this order */
    struct segment *leaving_last;
    bool unlinking;
    struct segment *kept[LOG_KEPT_SEGMENTS];
    unsigned kept_next;
    struct log_hint hints[LOG_HINTS];
    struct log_damage *damage; /* sorted by `first` */
    uint32_t damage_count, damage_capacity;
    uint64_t appended_records, appended_bytes, syncs, removed_segments, read_records;
};

/** `err` is a negative errno of `call` on `path`: fills reterr and returns FELIX_DISK_FULL,
 * FELIX_NO_MEMORY or FELIX_STORAGE. */
enum felix_err log_disk_error(struct felix_error *reterr, const char *call, const char *path,
                              int err);
/** As above, of a file of this log. */
enum felix_err log_segment_error(const struct record_log *log, struct felix_error *reterr,
                                 const char *call, uint64_t id, int err);
enum felix_err log_no_memory(struct felix_error *reterr);

/** Make the struct with its locks, without segments. NULL: no memory. */
struct record_log *log_state_new(const struct disk *disk, const char *dir, const char *name,
                                 const struct record_log_settings *settings);
/** Close every file, free everything. */
void log_state_free(struct record_log *log);

/** Room for one more in the list. Under the mutex or before others see the log. */
bool log_reserve(struct record_log *log, size_t more);

/** The segment that holds `offset`, else the last one that begins below it; NULL without one.
 * Under the mutex. */
struct segment *log_find(const struct record_log *log, uint64_t offset);
struct segment *log_find_id(const struct record_log *log, uint64_t id);
struct segment *log_newest(const struct record_log *log);

/** Under the mutex. */
struct log_mark log_committed(const struct record_log *log);
uint64_t log_oldest(const struct record_log *log);

/** Drop a pin. The last one closes what nobody will want soon, and frees what is gone. Takes the
 * mutex. */
void log_unpin(struct record_log *log, struct segment *segment);

/** Under the mutex: its handle will be closed by whoever frees it. */
void log_forget_kept(struct record_log *log, struct segment *segment);

/** Open the file of a pinned segment for reading, unless it is. 0 or negative errno. Takes the
 * mutex. */
int log_open_pinned(struct record_log *log, struct segment *segment);

/** Remember a damaged range; what overlaps one that is known adds nothing. Takes the mutex. */
void log_note_damage(struct record_log *log, const struct log_damage *damage);

/** Make an empty segment file with its header; nothing is flushed. *ret is owned. */
enum felix_err log_create_segment(struct record_log *log, uint64_t id, uint64_t base,
                                  uint64_t created_us, struct segment **ret,
                                  struct felix_error *reterr);

/** Remove the segments that were made since the last record_log_write; what is left of them after
 * an error is tried again. Writer role. */
enum felix_err log_discard_rolled(struct record_log *log, struct felix_error *reterr);

/** Where the writer goes on: at `mark`, in `active`, whose file has `file_bytes`. */
void log_writer_start(struct record_log *log, struct segment *active, struct log_mark mark,
                      uint64_t file_bytes);

/** Timestamp of the last record of a pinned, sealed segment, as far as it can be read. */
uint64_t log_last_timestamp(struct record_log *log, struct segment *segment);

/** Unlink, in order, what is leaving and pinned by nobody. Takes the mutex. */
enum felix_err log_unlink_leaving(struct record_log *log, struct felix_error *reterr);

#endif
