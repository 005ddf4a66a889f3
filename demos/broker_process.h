/*
 * felix-broker in development mode as a process of its own, which can be killed and started again
 * at the same address with the same data. Found beside the demo's program, else on the PATH.
 *
 * The main thread's.
 */
#ifndef DEMOS_BROKER_PROCESS_H
#define DEMOS_BROKER_PROCESS_H

#include "base/err.h"

#include <sys/types.h>

struct broker_process {
    char programs[4096];  /* directory of felix-broker and felix, "" for the PATH */
    char directory[4096]; /* its data directory */
    char address[64];     /* once it was ready */
    pid_t pid;            /* 0: none */
};

/** Where the programs are, by how this one was called, and a new directory below TMPDIR. */
enum felix_err broker_process_init(struct broker_process *broker, const char *argv0,
                                   struct felix_error *reterr);

/** Start it and wait until it is ready. What it logs goes to `log` in its directory. */
enum felix_err broker_process_start(struct broker_process *broker, struct felix_error *reterr);

/** SIGKILL: it gets no chance to do anything in order. */
void broker_process_kill(struct broker_process *broker);

/** SIGTERM; FELIX_SYSTEM unless it ends with status 0. */
enum felix_err broker_process_stop(struct broker_process *broker, struct felix_error *reterr);

/** Run `felix` against it to its end, with the words up to NULL. FELIX_SYSTEM unless the status
 * is 0; its output is ours. */
enum felix_err broker_process_felix(struct broker_process *broker, const char *const *words,
                                    struct felix_error *reterr);

/** Kill it if it runs and remove its directory. Accepts a zeroed object. */
void broker_process_deinit(struct broker_process *broker);

#endif
