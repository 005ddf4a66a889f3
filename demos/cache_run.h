/*
 * The cache's load: values, keys, and phases of operations in a closed loop. The main thread
 * starts a phase and sleeps until it is over; the answers come on the client's thread, which also
 * issues the next operation.
 */
#ifndef DEMOS_CACHE_RUN_H
#define DEMOS_CACHE_RUN_H

#include "cache_settings.h"
#include "progress.h"
#include "samples.h"

#define CACHE_NAME "primary"

/** The bytes of a value: a function of its size, key and operation. Writes `len` bytes. */
void cache_value_fill(uint8_t *out, size_t len, uint64_t key_index, uint64_t op_index);

/** Values made before the clock starts: one for each operation, or fewer in turn when all would
 * take more than 64 MiB. */
struct cache_values {
    uint8_t *bytes; /* owned */
    size_t count, len;
};

struct cache_phase {
    enum cache_op op;
    const char *prefix; /* of the keys: PREFIX<size>-<index modulo keys> */
    uint64_t payload_bytes;
    uint64_t count;
    uint64_t concurrency;
    bool validate; /* compare each hit with what was stored first */
};

struct cache_phase_result {
    enum felix_err err;
    char error[256];
    uint64_t misses; /* gets that found nothing */
    uint64_t wrong;  /* hits with other bytes than expected */
    uint64_t elapsed_ns;
    struct samples samples; /* sorted */
};

/** Runs a phase against the namespace `space`. Fills `ret` (samples_deinit). */
void cache_phase_run(const struct cache_settings *settings, felix_client *client, const char *space,
                     const struct cache_phase *phase, struct progress *progress,
                     struct cache_phase_result *ret);

#endif
