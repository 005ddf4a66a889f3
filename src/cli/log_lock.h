/* Keeps a log that a command writes to for itself: a broker that serves it has it already. */
#ifndef CLI_LOG_LOCK_H
#define CLI_LOG_LOCK_H

#include "base/err.h"

#include <limits.h>

struct log_lock {
    int root_file; /* of the directory above, when a broker's logs lie there; -1: none */
    int own_file;
    char own_path[PATH_MAX];
};

/**
 * Take the log in `dir`, which is made when it is not there.
 *   FELIX_EXISTS    somebody else has it
 *   FELIX_STORAGE   it cannot be locked
 */
enum felix_err log_lock_take(struct log_lock *lock, const char *dir, struct felix_error *reterr);

/** Only whether a broker has the directory above; for whoever takes the log itself in another way.
 * The lock is to be dropped, too. */
enum felix_err log_lock_take_root(struct log_lock *lock, const char *dir,
                                  struct felix_error *reterr);

/** Give it back; the lock file of the log itself goes as well. */
void log_lock_drop(struct log_lock *lock);

#endif
