/* The environment and the command line of cachedemo. One thread, at start. */
#ifndef DEMOS_CACHE_SETTINGS_H
#define DEMOS_CACHE_SETTINGS_H

#include "target.h"

enum cache_op { CACHE_PUT, CACHE_GET_HIT, CACHE_GET_MISS, CACHE_OPS };

const char *cache_op_name(enum cache_op op);

#define CACHE_PAYLOADS_MAX 32

struct cache_settings {
    struct target_options target;
    uint64_t warmup, samples; /* operations */
    uint64_t payloads[CACHE_PAYLOADS_MAX];
    size_t payload_count;
    uint64_t ttl_ms; /* 0: none */
    uint64_t concurrency;
    uint64_t keys;
    bool ops[CACHE_OPS];
    bool timings;
    bool validate_each;
    bool json;
};

/** As latency_settings_load. */
bool cache_settings_load(struct cache_settings *settings, int argc, char **argv, int *ret_status);

#endif
