/*
 * A histogram of durations in nanoseconds: log-linear, fixed memory, under one percent of error.
 *
 * 128 buckets per power of two: values below 256 are exact, above a bucket is at most 1/128 of
 * its value wide, up to HIST_VALUE_MAX (73 minutes); longer values count as that long, but the
 * true maximum is kept. One thread records; any thread may read or merge meanwhile and then sees
 * counters that may be some values apart, never torn ones. About 36 KiB; zeroed memory is an
 * empty histogram.
 */
#ifndef BASE_HIST_H
#define BASE_HIST_H

#include "base/counter.h"

#include <stddef.h>
#include <stdint.h>

#define HIST_SUB_BITS 7
#define HIST_VALUE_BITS 42
#define HIST_VALUE_MAX (((uint64_t)1 << HIST_VALUE_BITS) - 1)
#define HIST_BUCKETS (((HIST_VALUE_BITS - HIST_SUB_BITS) + 1) << HIST_SUB_BITS)

struct hist {
    counter count;
    counter sum_ns;
    counter min_ns; /* meaningful when count is not zero */
    counter max_ns;
    counter buckets[HIST_BUCKETS];
};

/** Empties it. Only the recording thread, or anyone while nobody records. */
void hist_reset(struct hist *h);

/** Counts one value. The recording thread only. */
void hist_record(struct hist *h, uint64_t value_ns);

/** Adds everything in `from` to `into`. The caller is the recording thread of `into`; `from` may
 * be recorded to meanwhile: its bucket counts decide the count, so percentiles stay consistent. */
void hist_merge(struct hist *into, const struct hist *from);

/** Takes out what `earlier`, a copy of the same histogram, held already: what is left is what was
 * recorded since. Smallest and largest are then edges of buckets, within the usual error. Owner of
 * `h` only. */
void hist_subtract(struct hist *h, const struct hist *earlier);

uint64_t hist_count(const struct hist *h);
uint64_t hist_sum_ns(const struct hist *h);

/** Exact smallest, largest and average value; 0 when empty. */
uint64_t hist_min_ns(const struct hist *h);
uint64_t hist_max_ns(const struct hist *h);
uint64_t hist_mean_ns(const struct hist *h);

/**
 * The value at `percent` (0 .. 100) by nearest rank: the smallest recorded value such that at
 * least `percent` of all are not above it. The answer is the upper edge of its bucket, cut to the
 * exact minimum and maximum: at most 1/128 above the truth, never below it. 0 when empty.
 */
uint64_t hist_percentile_ns(const struct hist *h, double percent);

/** hist_count_at_most for `count` ascending bounds in one pass. */
void hist_cumulate(const struct hist *h, const uint64_t *bounds_ns, size_t count,
                   uint64_t *ret_counts);

/** How many values are not above `bound_ns`; values in the bucket of the bound count as such. */
uint64_t hist_count_at_most(const struct hist *h, uint64_t bound_ns);

#endif
