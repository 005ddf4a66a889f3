/*
 * One measured case: broker, clients, warmup, the measured messages, and the account of them.
 * The main thread's; deliveries come on the clients' threads.
 */
#ifndef DEMOS_LATENCY_RUN_H
#define DEMOS_LATENCY_RUN_H

#include "latency_settings.h"
#include "samples.h"
#include "stages.h"

struct latency_result {
    enum felix_err err; /* why there is no result, or FELIX_OK */
    char error[640];
    bool interrupted;

    /* Of the measured phase. expected == delivered + dropped + unaccounted unless there were
     * duplicates. */
    uint64_t sent;     /* messages handed over */
    uint64_t expected; /* deliveries: of each message, one to each subscriber of its stream */
    uint64_t delivered;
    uint64_t dropped;    /* deliveries that the broker or a client says it dropped */
    uint64_t duplicates; /* deliveries beyond what a subscriber should have got */
    uint64_t unaccounted;
    uint64_t sampled;       /* what the sampled subscriber should get */
    struct samples samples; /* sorted; what it got */
    struct samples acks;    /* sorted; from the stamp to the answer, of acknowledged messages */
    uint64_t publish_ns;    /* until all was handed over (acknowledged: answered) */
    uint64_t elapsed_ns;    /* until the last delivery, at least publish_ns */
    struct felix_stats pub; /* of the publisher's client, warmup included */
    bool inside;            /* the broker is in this process: the next two are known */
    struct node_stats node; /* warmup included */
    struct stages *stages;  /* may be NULL */
};

/** Run `c`. Fills `ret`, to be given to latency_result_deinit. */
void latency_run(const struct latency_settings *settings, const struct latency_case *c,
                 struct latency_result *ret);

void latency_result_deinit(struct latency_result *result);

/** Was everything delivered, once? */
static inline bool latency_result_good(const struct latency_result *r) {
    return r->err == FELIX_OK && !r->interrupted && r->delivered == r->expected &&
           r->duplicates == 0;
}

#endif
