/*
 * The configuration of the broker: defaults, profile, YAML file, environment, command line.
 *
 * Loaded once at start by the main thread, read-only afterwards, so every thread may read it.
 * A value that cannot be used stops the start; what has no effect here is a warning that the
 * caller gets to log (config_apply_log). The table stands in node/options.def, the pages of
 * docs/configuration.md come from it.
 */
#ifndef NODE_CONFIG_H
#define NODE_CONFIG_H

#include "base/options.h"

#include <stddef.h>

/* Words of `subscriber_queue_policy`, `durable_fsync_mode` and `profile`, in the order of the
 * table. */
enum config_queue_policy { CONFIG_QUEUE_BLOCK, CONFIG_QUEUE_DROP_NEW, CONFIG_QUEUE_DROP_OLD };
enum config_fsync_mode { CONFIG_FSYNC_NONE, CONFIG_FSYNC_PERIODIC, CONFIG_FSYNC_ON_COMMIT };
enum config_profile { CONFIG_PROFILE_BALANCED, CONFIG_PROFILE_HIGH_MEMORY };

/* What the command line asks for. */
enum config_action {
    CONFIG_RUN,
    CONFIG_HELP,      /* --help */
    CONFIG_VERSION,   /* --version */
    CONFIG_PRINT,     /* --print-config */
    CONFIG_CHECK,     /* --check-config: load, then stop */
    CONFIG_REFERENCE, /* --print-config-reference */
};

enum scope_kind { SCOPE_TENANT, SCOPE_NAMESPACE, SCOPE_STREAM, SCOPE_CACHE };

/* One thing that the `scope` section of the file names. Strings are owned by the config; no name
 * is empty or longer than the wire allows. Parents come before their children. */
#define RETENTION_BYTES_MAX ((uint64_t)1 << 62)
#define RETENTION_SECONDS_MAX ((uint64_t)1 << 40)

struct scope_item {
    enum scope_kind kind;
    char *tenant;
    char *space;                                 /* the namespace; NULL for a tenant */
    char *name;                                  /* of the stream or cache; otherwise NULL */
    bool durable;                                /* streams */
    uint64_t max_bytes;                          /* caches; 0: no bound of its own */
    uint64_t retention_bytes, retention_seconds; /* durable streams; 0: as the settings say */
};

/* Must stay where it was loaded: `options` points at the fields. */
struct config {
#define X OPTION_FIELD
#include "node/options.def"

    bool initial_mtu_set; /* given by the user, which turns the loopback special case off */
    enum config_action action;
    struct options options;   /* for the source of each value */
    struct scope_item *scope; /* in the order of the file */
    size_t scope_count;
    char **warnings;
    size_t warning_count;
};

/**
 * Load everything. `argv[0]` is skipped. For --help, --version and --print-config-reference
 * neither environment nor file is read, so that they work when those are broken.
 * Also on an error config_deinit must be called.
 *
 *   FELIX_INVALID_ARGUMENT   a value, key or flag that cannot be used; reterr names it
 *   FELIX_NOT_FOUND          an unknown flag or key, or the file that was named does not exist
 *   FELIX_SYSTEM             the file cannot be read
 */
enum felix_err config_load(struct config *config, int argc, char *const *argv,
                           struct felix_error *reterr);

/** All defaults, nothing read; for tests and for brokers inside other programs. */
void config_init(struct config *config);

/** Accepts a zeroed object. */
void config_deinit(struct config *config);

/**
 * Lay the contents of a YAML file over what is below FILE. `file_name` is for errors only.
 * Borrows `yaml`. Errors as config_load; parts may have been applied.
 */
enum felix_err config_parse_yaml(struct config *config, struct slice yaml, const char *file_name,
                                 struct felix_error *reterr);

/** True when the action is answered by a page, which is then appended to `out`: the caller prints
 * it and ends with success. `program` is argv[0]. */
bool config_answer(const struct config *config, const char *program, struct text *out);

/** Sets level and format of the log, then logs the warnings. */
void config_apply_log(const struct config *config);

/** The pages of config_answer. The YAML can be read back by config_parse_yaml. */
void config_print_help(const struct config *config, const char *program, struct text *out);
void config_print_yaml(const struct config *config, struct text *out);
void config_print_reference(const struct config *config, struct text *out);

/** Appends a warning; for the parts of config only. */
void config_warn(struct config *config, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/** The reason why a key of the file has no effect here, or NULL when it is no such key. */
const char *config_ignored_key(const char *key);

#endif
