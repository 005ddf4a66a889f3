/* The directory that holds the logs: who has it, and how a log leaves it for good. */
#ifndef STORAGE_LOG_ROOT_H
#define STORAGE_LOG_ROOT_H

#include "base/err.h"
#include "storage/disk.h"

#define LOG_ROOT_LOCK_FILE "lock"

/**
 * Make the directory and take it for this process. *ret_file is the lock file, open as long as the
 * lock is to be held.
 *   FELIX_EXISTS    another process has it
 *   FELIX_STORAGE   it cannot be made or locked
 */
enum felix_err log_root_lock(const struct disk *disk, const char *root, int *ret_file,
                             struct felix_error *reterr);

/** Remove the log in `path` (below `root`). It is renamed first, so that after a crash it is
 * either whole or gone; names that are not a log's are kept, with their directory. */
enum felix_err log_root_remove(const struct disk *disk, const char *root, const char *path,
                               struct felix_error *reterr);

/** Finish removals that a crash interrupted. What cannot be removed is logged and left. */
void log_root_sweep(const struct disk *disk, const char *root);

#endif
