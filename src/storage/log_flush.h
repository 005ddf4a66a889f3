/* Inside of the log: flushing with the lock held, and the checkpoint. */
#ifndef STORAGE_LOG_FLUSH_H
#define STORAGE_LOG_FLUSH_H

#include "storage/log_state.h"

/** record_log_sync with `sync_lock` held. Refused after a failed flush. */
enum felix_err log_sync_locked(struct record_log *log, struct felix_error *reterr);

/** Note durable_end in the checkpoint; `sync` flushes it. A failure leaves an older one, which is
 * as true. With `sync_lock`. */
void log_write_checkpoint(struct record_log *log, bool sync, bool clean);

#endif
