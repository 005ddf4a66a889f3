/* The command line and the environment of latencydemo. One thread, at start. */
#ifndef DEMOS_LATENCY_SETTINGS_H
#define DEMOS_LATENCY_SETTINGS_H

#include "latency_plan.h"
#include "target.h"

enum latency_mode { MODE_SINGLE, MODE_ALL, MODE_MATRIX, MODE_SMOKE, MODE_COMPARE_SHAPING };

#define LATENCY_LIST_MAX 32

struct latency_settings {
    struct target_options target;
    enum latency_mode mode;
    struct latency_case base; /* what the flags say */
    uint64_t payloads[LATENCY_LIST_MAX];
    size_t payload_count;
    uint64_t fanouts[LATENCY_LIST_MAX];
    size_t fanout_count;
    uint64_t idle_ms;
    uint32_t sharding; /* "hash_stream|rr" */
    uint64_t yield_batches;
    uint64_t log_capacity; /* 0: the broker's default */
    bool fast;
    bool json;
};

/**
 * Fill `settings`. Returns true to go on, or false with the exit code: help was printed, or
 * something cannot be used and was said. Warnings go to standard error.
 */
bool latency_settings_load(struct latency_settings *settings, int argc, char **argv,
                           int *ret_status);

#endif
