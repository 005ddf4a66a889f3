/*
 * Which streams and caches a node has, and how its reactors hear of changes.
 *
 * Two sources: the scope section of the configuration, and, on a development node, the catalog of
 * what was made by command. What both name is as the scope says. Besides, a development node makes
 * streams on their first use, which only the reactors know.
 *
 * Every function takes the lock, so the thread that reloads the configuration and the one that
 * serves requests (admin.h) may come at once. Functions that change something block on the disk.
 */
#ifndef NODE_OBJECTS_H
#define NODE_OBJECTS_H

#include "node/catalog.h"
#include "node/node.h"
#include "node/reactor.h"

#include <pthread.h>

struct objects {
    const struct config *config;
    struct logs *logs; /* of the durable streams */
    struct reactor *reactors;
    unsigned reactor_count;
    pthread_mutex_t lock;
    struct scope_item *scope; /* what objects_set_scope brought last; NULL: the configuration's */
    size_t scope_count;
    bool scope_replaced;
    struct catalog catalog;
    uint64_t incarnation; /* of the streams that were made last */
};

/** Loads the catalog of a development node; one that cannot be read is said in the log. Borrows
 * `config` and `logs`. */
void objects_init(struct objects *objects, const struct config *config, const char *data_dir,
                  struct logs *logs);
void objects_deinit(struct objects *objects);

/** Open the logs of the durable streams, and make everything on the reactors, which do not run yet.
 * A log that cannot be opened is said in the log, and its stream is there, out of order. Errors of
 * logs_prepare. */
enum felix_err objects_begin(struct objects *objects, struct reactor *reactors,
                             unsigned reactor_count, struct felix_error *reterr);

/** See node_set_scope. */
enum felix_err objects_set_scope(struct objects *objects, struct scope_item *items, size_t count,
                                 struct node_scope_changes *ret, struct felix_error *reterr);

/* What the two sources say about one stream. */
struct object_facts {
    bool in_scope, in_catalog;
    bool durable;
    uint64_t retention_bytes, retention_seconds; /* 0: the broker's default */
};

/** All false and zero when neither names the stream. */
struct object_facts objects_find(struct objects *objects, const struct scope_item *like);

/** How many streams the catalog holds. */
size_t objects_made(struct objects *objects);

/**
 * Put a stream that neither source names into the catalog and make it on all reactors. A stream in
 * memory that is there by its first use stays as it is; of a durable one the caller has made sure
 * that there is none, and one that comes meanwhile gives way. Errors of catalog_put and, of a
 * durable one, of logs_prepare.
 */
enum felix_err objects_make(struct objects *objects, const struct scope_item *item,
                            struct felix_error *reterr);

/** Other retention for a durable stream of the catalog, from now on. Errors of catalog_put; then
 * nothing has changed. */
enum felix_err objects_set_retention(struct objects *objects, const struct scope_item *item,
                                     struct felix_error *reterr);

/** How the log of a stream stands; false: it has none. */
bool objects_log_state(struct objects *objects, const struct scope_item *like,
                       struct stream_log_state *ret);

/** Take a stream out of the catalog, if it is there, and delete it on all reactors. Of a durable
 * one the files stay, unless `purge`; they go in the background. Errors of catalog_remove; then
 * nothing has changed. */
enum felix_err objects_delete(struct objects *objects, const struct scope_item *like, bool purge,
                              struct felix_error *reterr);

/** The registry's key of a stream or cache. Returned owned. */
struct buf *objects_key(const struct scope_item *item);

#endif
