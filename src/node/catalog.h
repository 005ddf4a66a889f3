/*
 * The streams that were made by command: kept in a file of the data directory, so that they are
 * there again after a restart.
 *
 * The file is JSON, one stream a line, mode 0600, replaced as a whole: a crash leaves the old or
 * the new one. A file that cannot be read is left alone: the catalog is then empty, and refuses
 * changes, because writing it would lose what the file says. One thread at a time; blocks.
 */
#ifndef NODE_CATALOG_H
#define NODE_CATALOG_H

#include "node/config.h"

#define CATALOG_FILE "streams.json"
#define CATALOG_BYTES_MAX ((size_t)16 << 20)

struct catalog {
    char *path;               /* owned */
    struct scope_item *items; /* streams, sorted by scope_item_compare; owned, as are their names */
    size_t count;
    char *damage; /* why the file cannot be read; NULL: it can */
};

/** Read the file at `path`; none is an empty catalog. Always to be followed by catalog_deinit.
 * FELIX_DAMAGED, FELIX_SYSTEM: the file cannot be read; the catalog can be used all the same. */
enum felix_err catalog_load(struct catalog *catalog, const char *path, struct felix_error *reterr);

/** Accepts a zeroed object. */
void catalog_deinit(struct catalog *catalog);

/** The stream with the names of `like`, or NULL. Borrowed until the next change. */
const struct scope_item *catalog_find(const struct catalog *catalog, const struct scope_item *like);

/**
 * Add `item`, or replace the one of these names, and write the file. Copies it. On failure nothing
 * has changed.
 *   FELIX_STORAGE   the file cannot be written, or what is there could not be read
 *   FELIX_LIMIT     the file would become larger than CATALOG_BYTES_MAX
 */
enum felix_err catalog_put(struct catalog *catalog, const struct scope_item *item,
                           struct felix_error *reterr);

/** Take the stream with the names of `like` out, if it is there, and write the file. Errors as
 * above. */
enum felix_err catalog_remove(struct catalog *catalog, const struct scope_item *like,
                              struct felix_error *reterr);

#endif
