/* The kinds of run of peer-load. Each prints one JSON object, or ends the program. */
#ifndef PEERS_LOAD_RUN_H
#define PEERS_LOAD_RUN_H

#include "durable.h"

struct run_settings {
    struct link_target target;
    uint64_t payload_bytes;
    uint64_t duration_ns; /* that requests are made */
    uint64_t warmup_ns;
    uint64_t idle_ns; /* silence after which what is missing will not come */
    /* publish and subscribe */
    uint64_t fanout; /* subscribers, a connection each */
    bool acked;
    uint64_t window_bytes; /* payload that is on its way at most, per subscriber */
    /* cache */
    bool put; /* else get */
    uint64_t connections, in_flight, keys;
    /* durable, beside connections and in_flight */
    uint64_t records; /* to append instead of for a time, or to read; 0: for a time */
    bool replay;      /* read instead of append */
};

void pubsub_run(const struct run_settings *settings, const struct protocol *protocol);
void cache_run(const struct run_settings *settings, const struct cache_protocol *protocol);
void durable_run(const struct run_settings *settings, const struct durable_protocol *protocol);

#endif
