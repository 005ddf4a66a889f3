/*
 * What a demo measures: a broker inside this process, or one that is named with --connect.
 *
 * The broker inside is a development node on a free port of 127.0.0.1 with a data directory that
 * disappears with it. It takes its settings from the environment as felix-broker does, except for
 * where it listens and whom it believes. Nothing is dropped (full queues block, publishes wait),
 * unless the environment asks for it. On few cores it does not spin (FELIX_SPIN_US). It logs errors
 * only, unless FELIX_LOG or RUST_LOG is set.
 *
 * The main thread's.
 */
#ifndef DEMOS_TARGET_H
#define DEMOS_TARGET_H

#include "cli/args.h"
#include "node/node.h"

#include <felix/felix.h>

/* The flags that both demos have. Borrowed from argv. */
struct target_options {
    const char *connect; /* NULL: a broker inside */
    const char *ca_file;
    const char *token_file;
    const char *tenant;
    const char *space; /* the namespace */
    uint64_t timeout_ns;
};

#define TARGET_ARGS 6
/** Fill `ret` with the rows of these flags; they point into `options`, which gets its defaults. */
void target_args(struct target_options *options, struct arg_option ret[TARGET_ARGS]);

struct target {
    const struct target_options *options;
    struct config config;
    struct node *node; /* NULL with --connect */
    char directory[256];
    char address[64];
    bool may_drop; /* the environment asks for it */
};

#define TARGET_FLAGS_MAX 16

/**
 * Start the broker, or remember where it is. `flags` are further flags of felix-broker, ended by
 * NULL; none with --connect. On an error nothing is left behind.
 */
enum felix_err target_start(struct target *target, const struct target_options *options,
                            const char *const *flags, struct felix_error *reterr);

/** Stops the broker and removes its directory. Accepts a zeroed object. */
void target_stop(struct target *target);

/** Options of a client of this broker. Returned owned; NULL with felix_last_error(). */
felix_options *target_client_options(const struct target *target);

/** Connect with them. Returned owned in *ret. */
enum felix_err target_connect(const struct target *target, felix_options *options,
                              felix_client **ret);

/** The namespace of streams and caches. */
const char *target_space(const struct target *target);

/** Name for output: "in-process" or the address. */
const char *target_name(const struct target *target);

#endif
