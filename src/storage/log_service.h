/*
 * The durable logs of a node and the threads that serve them.
 *
 *   owner's reactor                 disk threads
 *   log_append (a queue, no lock)   write everything that is queued, in one go
 *                                   flush once for everyone who waited; appends go on meanwhile
 *   <- on_committed                 one notice for all that became safe
 *
 *   any reactor
 *   log_read                        a page, read beside everything else
 *   <- on_page
 *
 * A log is written by one thread at a time and flushed by one at a time, which may be another.
 * Threads sleep while there is nothing to do; the periodic flush and retention have deadlines only
 * while there is something to flush or to remove. Nothing here is called on a reactor but
 * log_append, log_read and the references, and none of these blocks.
 */
#ifndef STORAGE_LOG_SERVICE_H
#define STORAGE_LOG_SERVICE_H

#include "base/hist.h"
#include "storage/record_log.h"

#include <stdatomic.h>

struct log_service;
struct stream_log; /* one log, reference-counted, any thread */

/* A publish on its way to the disk. Made by the owner with malloc, freed by the service. */
struct log_batch {
    struct log_batch *next;
    struct buf *block; /* holds the list; one reference, shared (buf_share) */
    struct payload_list list;
    uint64_t base_offset;
    uint64_t timestamp_us;
    uint64_t epoch; /* see log_commit */
};

/* What the owner of a log is told. */
struct log_commit {
    uint64_t end;       /* everything below is committed */
    enum felix_err err; /* else nothing from `end` on was kept: FELIX_DISK_FULL, FELIX_STORAGE */
    uint64_t epoch;     /* batches of an older epoch are thrown away unwritten: after an error the
                           owner goes on at `end` with this one */
    bool flushed;       /* what is below `end` is on disk, not only with the operating system */
    bool available;     /* false: the log is failed for now, publishes should be refused */
};

/* A page on its way from the disk. Made by the reader with malloc; comes back to on_page. */
struct log_read {
    struct log_read *next;
    struct stream_log *log; /* log_read takes a reference of its own until the answer */
    uint64_t offset;
    size_t bytes_max;
    unsigned reactor; /* these two are the reader's */
    uint64_t handle;
    /* the answer */
    enum felix_err err; /* as record_log_read */
    uint64_t available;
    bool at_end;          /* the page reached the committed end */
    struct log_page page; /* owned by whoever has the request */
};

/* Called on a disk thread. */
struct log_events {
    /* `user` is what log_service_open was given. Notices of one log come in order, one at a time.
     */
    void (*on_committed)(void *context, void *user, const struct log_commit *commit);
    /* Takes `read`. */
    void (*on_page)(void *context, struct log_read *read);
};

struct log_service_settings {
    const struct disk *disk;
    const char *root; /* exists or is made; locked for this process */
    struct record_log_settings log;
    uint64_t sync_interval_ns;      /* of LOG_SYNC_PERIODIC */
    uint64_t retention_interval_ns; /* at least this long between two looks */
    unsigned threads;               /* at least 2 */
    uint64_t read_pages_bytes_max;  /* pages that are read and not yet given back (log_page_done) */
};

/** Make the root, lock it, start the threads. Returned owned.
 *   FELIX_EXISTS    another process has the root; others as record_log_open */
enum felix_err log_service_new(const struct log_service_settings *settings,
                               const struct log_events *events, void *context,
                               struct log_service **ret, struct felix_error *reterr);

/** Write and flush what is queued, close every log in order, join, free. Notices still come until
 * this returns; requests for pages that wait for memory are answered FELIX_CLOSED. Nobody else uses
 * the service or its logs meanwhile; references may be dropped later. Accepts NULL. */
void log_service_free(struct log_service *service);

struct log_retention {
    uint64_t bytes, seconds; /* 0: the service's default */
};

/**
 * Open the log of a stream, recovering it, on the calling thread. When that stream's log is still
 * open from before, waits until its last reference is gone and it is closed: the owner that comes
 * must not begin where the one that goes still writes. Returned with one reference, also when
 * recovery failed: then the log is failed, its reason stands in reterr and in stream_log_state,
 * publishes and reads are refused, and the others go on. What a disk refused is tried again later,
 * and on_committed tells when the log is there; damage stays. `user` is passed to on_committed.
 * Any thread but a disk thread; not two at once for the same stream.
 */
struct stream_log *log_service_open(struct log_service *service, struct slice tenant,
                                    struct slice namespace_, struct slice stream,
                                    struct log_retention retention, void *user,
                                    struct felix_error *reterr);

/** The same for the log in a directory of the caller's, wherever it is; `name` is for messages. */
struct stream_log *log_service_open_dir(struct log_service *service, const char *path,
                                        const char *name, struct log_retention retention,
                                        void *user, struct felix_error *reterr);

struct stream_log *stream_log_ref(struct stream_log *log);
/** The last reference lets the service close the log in the background; its files stay. NULL: no
 * effect. */
void stream_log_unref(struct stream_log *log);

struct stream_log_state {
    enum felix_err err; /* FELIX_OK: it serves */
    char text[256];
    uint64_t epoch;
    struct record_log_info info;
};
/** Any thread. */
void stream_log_state(struct stream_log *log, struct stream_log_state *ret);

/** Other bounds for what is kept, from now on: records that they do not keep go within the
 * retention interval. Any thread. */
void stream_log_set_retention(struct stream_log *log, struct log_retention retention);

/** What acknowledgements of this log mean: LOG_SYNC_ON_COMMIT, flushed. */
enum log_sync stream_log_sync(const struct stream_log *log);

/** Queue a batch; batches of one epoch come with consecutive offsets. Takes it. The owner's thread
 * only. on_committed will tell. */
void log_append(struct stream_log *log, struct log_batch *batch);

/** Ask for a page. Takes it until on_page. Any thread. */
void log_read(struct log_read *read);

/** A page's memory, the capacity of its block, is free again: it counts against
 * read_pages_bytes_max, and whoever waits for that is read for. Any thread. */
void log_page_done(struct log_service *service, size_t bytes);

/** Delete the log's files when its last reference goes, in the background (a deleted stream,
 * `felix stream delete --purge`). Its directory is renamed first, so a crash leaves all or
 * nothing. */
void stream_log_purge(struct stream_log *log);

/* Node-wide numbers. */
struct log_service_counters {
    counter batches, records, bytes, writes, syncs, sync_waiters;
    counter sync_failures, disk_full, reopens, damaged_ranges;
    counter pages, page_records, page_bytes, removed_segments, retention_failures;
    counter logs, failed_logs, queued_bytes;
};
/** Any thread; borrowed as long as the service is there. queued_bytes is as of this call. */
const struct log_service_counters *log_service_counters(struct log_service *service);

/** A copy of the times that flushes took, since the service was made. Any thread. */
void log_service_sync_times(struct log_service *service, struct hist *ret);

/** Every log, for metrics and readiness: `visit` is called under the service's lock. */
void log_service_visit(struct log_service *service,
                       void (*visit)(void *context, const char *name, struct stream_log *log),
                       void *context);

#endif
