/* Where the logs are that a `felix log` command is to work on. */
#ifndef CLI_LOG_PLACE_H
#define CLI_LOG_PLACE_H

#include "cli/cli.h"

#include <limits.h>

struct log_place {
    char path[PATH_MAX];
    bool node; /* a directory of logs, not that of one */
};

enum log_place_kind {
    LOG_PLACE_ONE, /* the log of one stream */
    LOG_PLACE_ANY, /* or all of a node; these of a development broker when nothing is named */
    LOG_PLACE_NEW, /* need not be there */
};

/**
 * Find what `named` means (an operand, or NULL for none): a path when there is a slash in it or a
 * directory of that name, else a stream of the development broker, whose logs lie in
 * FELIX_DURABLE_STORAGE_DIR or below its data directory. Returns CLI_GO_ON, or the exit code after
 * saying what is wrong.
 */
int log_place_find(const struct cli *cli, const char *help_command, const char *named,
                   enum log_place_kind kind, struct log_place *ret);

/** Call `each` with the directory of every log in the place, sorted by name, and how to call it.
 * Returns the greatest of its exit codes; EXIT_NOTHING after saying so when there is no log. */
int log_place_each(const struct log_place *place,
                   int (*each)(void *context, const char *dir, const char *name), void *context);

/** Say that `err` kept a command from its work; returns the exit code. */
int log_place_failed(enum felix_err err, const struct felix_error *error);

#endif
