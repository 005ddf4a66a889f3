/*
 * Backups of logs: made while a broker serves them, restored into a place where nothing is.
 *
 * A backup is a directory: one more directory for each log, with its segment files, and a manifest
 * (manifest.h) that is written and synced after everything else. Only segments are kept; indexes
 * and checkpoints are made again.
 *
 * Consistent: every record below `range.end` of a log is in its backup, and nothing else. That end
 * is at least the durable end that the log's checkpoint held when its turn came, and usually that
 * of the last record that was written. A log is read without a lock, as any reader does; segments
 * that retention removes meanwhile are left out of the backup, which then begins later.
 *
 * Damaged records are copied as they are and named in the manifest: a bad disk is when a backup is
 * wanted most. Belongs to one thread; everything through struct disk.
 */
#ifndef STORAGE_BACKUP_H
#define STORAGE_BACKUP_H

#include "storage/disk.h"
#include "storage/manifest.h"

struct backup_request {
    const char *source; /* the directory of a log, or of several (`node`) */
    const char *target; /* is made; must not exist, or be empty */
    bool node;
    uint64_t now_us; /* wall clock, for the manifest */
};

struct backup_result {
    struct manifest manifest;
    uint64_t bytes;
    size_t removed_under_us; /* segments that retention unlinked while they were wanted */
};

/**
 * Make a backup. *ret is the caller's to deinit on FELIX_OK and empty otherwise; then nothing is
 * left in the target but what could not be removed.
 *   FELIX_NOT_FOUND   there is no log in the source
 *   FELIX_EXISTS      the target is not empty
 *   FELIX_DISK_FULL, FELIX_STORAGE, FELIX_NO_MEMORY   reterr names path and call
 *   FELIX_INVALID_ARGUMENT   a path is too long
 */
enum felix_err backup_make(const struct disk *disk, const struct backup_request *request,
                           struct backup_result *ret, struct felix_error *reterr);
void backup_result_deinit(struct backup_result *result);

struct restore_request {
    const char *source; /* a backup */
    const char *target; /* the directory of the log, or of the logs; must not exist, or be empty */
    bool damaged_too;   /* also when the manifest names damaged records */
};

/**
 * Restore a backup: everything is copied to "TARGET.restoring", every checksum and every record is
 * checked there against the manifest, and then the directory is renamed. What a crash leaves there
 * is replaced by the next attempt. *ret as above; its manifest is the backup's.
 *   FELIX_NOT_FOUND   no manifest: no backup, or one that was not finished
 *   FELIX_DAMAGED     not what the manifest says, or the manifest is damaged, or it names damaged
 *                     records and `damaged_too` is not set
 *   FELIX_EXISTS      the target is not empty
 *   FELIX_UNSUPPORTED a backup of a later version; others as above
 */
enum felix_err backup_restore(const struct disk *disk, const struct restore_request *request,
                              struct backup_result *ret, struct felix_error *reterr);

/** Only check a backup, where it lies: as above, but nothing is written. */
enum felix_err backup_check(const struct disk *disk, const char *source, struct backup_result *ret,
                            struct felix_error *reterr);

#endif
