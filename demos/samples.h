/*
 * Single measurements, kept whole: exact percentiles for runs of up to some million messages.
 * One thread at a time.
 */
#ifndef DEMOS_SAMPLES_H
#define DEMOS_SAMPLES_H

#include "cli/out.h"

#include <stddef.h>
#include <stdint.h>

struct samples {
    uint64_t *ns; /* owned */
    size_t count, capacity;
};

/** Empties it and makes room for `capacity` values. Accepts a zeroed object. */
void samples_reset(struct samples *samples, size_t capacity);
void samples_deinit(struct samples *samples);

/** Keeps a value; what does not fit is not kept. */
static inline void samples_add(struct samples *samples, uint64_t value_ns) {
    if (samples->count < samples->capacity)
        samples->ns[samples->count++] = value_ns;
}

/** Before any percentile. */
void samples_sort(struct samples *samples);

/** Of sorted values, `p` in 0 .. 1: the value at index round((n - 1) * p); 0 when empty. */
uint64_t samples_rounded_index(const struct samples *samples, double p);

/** The value of rank ceil(p * n), counted from 1; 0 when empty. */
uint64_t samples_nearest_rank(const struct samples *samples, double p);

double samples_mean_ns(const struct samples *samples);

/** "417 us" below a millisecond, else "1.234 ms". */
struct duration_text demo_duration(uint64_t ns);

#endif
