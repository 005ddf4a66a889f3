/* What a latency run consists of: one case, and the lists of cases of the sweeps. Pure. */
#ifndef DEMOS_LATENCY_PLAN_H
#define DEMOS_LATENCY_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STAMP_BYTES 16u /* before each payload: which run and phase, and when it was built */

/* Runs that hold less than this in flight measure how fast buffers fill: unacknowledged publishes
 * wait in the client (64 MiB) and in the broker, without a subscriber having seen them. */
#define BUFFERS_BYTES (128ull << 20)

struct latency_case {
    uint64_t warmup, total; /* messages */
    uint64_t payload_bytes; /* without the stamp */
    uint64_t fanout;        /* subscriptions of each stream */
    uint64_t batch;
    bool binary; /* unacknowledged also where batch is 1 */
    uint64_t pub_conns, pub_streams_per_conn, stream_count;
    uint64_t sub_conns; /* clients that share the subscriptions */
    bool dedicated;     /* the sampled subscription has a client of its own */
    bool shaping;       /* the broker may put many events into one frame */
    bool counted;       /* print the counters and compare them */
};

/** Does the broker answer each message? */
static inline bool latency_acked(const struct latency_case *c) {
    return c->batch <= 1 && !c->binary;
}

/** Does everything that is published fit into buffers on the way? */
static inline bool latency_undersized(const struct latency_case *c) {
    return !latency_acked(c) && (c->payload_bytes + STAMP_BYTES) * c->total < BUFFERS_BYTES;
}

/** Share of stream `index` of `total` messages that are split over `count` streams. */
static inline uint64_t latency_share(uint64_t total, uint64_t count, uint64_t index) {
    return total / count + (index < total % count ? 1 : 0);
}

/** Messages of a throughput case of the sweep, so that it is larger than the buffers and does not
 * take for ever: see docs/performance.md. */
uint64_t latency_sweep_total(uint64_t payload_bytes, uint64_t fanout);

#define LATENCY_SWEEP_MAX 20
/**
 * The cases of --all, made from `base`, into `ret`; returns how many. `base->binary`: only with
 * it; otherwise each throughput case runs without and with. `fast`: as small as can be.
 */
size_t latency_plan_all(const struct latency_case *base, bool fast,
                        struct latency_case ret[LATENCY_SWEEP_MAX]);

#endif
