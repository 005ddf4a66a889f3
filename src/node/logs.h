/*
 * The durable streams of a node: the service of their logs, and the way of its answers to the
 * reactors.
 *
 * The service is made with the first durable stream, or when a directory for it is named: a node
 * without has no such threads. Opening a log blocks on the disk, so no reactor does it; it belongs
 * to whoever changes what exists (node/objects.h), one thread at a time. The rest is any thread.
 */
#ifndef NODE_LOGS_H
#define NODE_LOGS_H

#include "base/text.h"
#include "node/config.h"
#include "node/reactor.h"
#include "storage/log_service.h"

struct logs;

/** `data_dir` is the node's. Nothing is made or opened yet. Borrows `config`. Returned owned. */
struct logs *logs_new(const struct config *config, const char *data_dir);

/** Whose answers go where; before anything is opened. The reactors get the table of functions that
 * they reach the logs by. */
void logs_attach(struct logs *logs, struct reactor *reactors, unsigned reactor_count);

/**
 * Make the directory and the service, if they are not there.
 *   FELIX_INVALID_ARGUMENT, FELIX_EXISTS (another broker has it), FELIX_STORAGE, FELIX_SYSTEM
 */
enum felix_err logs_prepare(struct logs *logs, struct felix_error *reterr);

/* A durable stream to open, and what came of it. */
struct logs_opening {
    const struct scope_item *item; /* borrowed */
    uint64_t incarnation;
    struct stream_log *log; /* borrowed until logs_leave; never NULL afterwards */
};

/** Open many at once, as many at a time as the service has threads. logs_prepare came first. One
 * that is open from before is waited for: the reactors must have been told to let go of it. */
void logs_open(struct logs *logs, struct logs_opening *openings, size_t count);

/** Where a stream of this log begins at present; a reference of its own for `ret`. */
void logs_start(struct stream_log *log, struct stream_start *ret);

/** Its stream is gone from the scope or the catalog: close its log, once the reactors have let go
 * of it, and delete its files if `purge`. No effect on what has no log. */
void logs_leave(struct logs *logs, const struct scope_item *item, bool purge);

/** How the log of a stream stands; false: it has none. */
bool logs_state(struct logs *logs, const struct scope_item *item, struct stream_log_state *ret);

/** The bounds of a stream are those of `item` now. False: it has no log. */
bool logs_set_retention(struct logs *logs, const struct scope_item *item);

/** Append the names of the logs that do not serve, with the reason, a line each; false: all do. */
bool logs_failed(struct logs *logs, struct text *out);

void logs_render_metrics(struct logs *logs, struct text *out);

/** Commit what is under way and close every log, in order. The reactors do not run any more, and
 * have not been freed yet: answers still go to their mailboxes. */
void logs_close(struct logs *logs);

/** After logs_close and the reactors. Accepts NULL. */
void logs_free(struct logs *logs);

#endif
