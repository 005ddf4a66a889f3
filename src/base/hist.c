/*
 * Bucket index of v, with s = the shift that leaves the eight highest bits of v:
 *   v < 256     index v                       (s = 0)
 *   v >= 256    index s * 128 + (v >> s)      (v >> s is 128 .. 255)
 * so indexes are consecutive, and the bucket of index i >= 256 covers 2^s values.
 */
#include "base/hist.h"

#include "base/check.h"

#define SUB_COUNT ((uint64_t)1 << HIST_SUB_BITS)

static size_t bucket_of(uint64_t value) {
    if (value > HIST_VALUE_MAX)
        value = HIST_VALUE_MAX;
    if (value < 2 * SUB_COUNT)
        return (size_t)value;
    unsigned shift = 63u - (unsigned)__builtin_clzll(value) - HIST_SUB_BITS;
    return (size_t)(shift * SUB_COUNT + (value >> shift));
}

/* The largest value that falls into the bucket. */
static uint64_t bucket_top(size_t index) {
    if (index < 2 * SUB_COUNT)
        return index;
    unsigned shift = (unsigned)(index >> HIST_SUB_BITS) - 1;
    uint64_t top_bits = index - shift * SUB_COUNT;
    return ((top_bits + 1) << shift) - 1;
}

void hist_reset(struct hist *h) {
    counter_set(&h->count, 0);
    counter_set(&h->sum_ns, 0);
    counter_set(&h->min_ns, 0);
    counter_set(&h->max_ns, 0);
    for (size_t i = 0; i < HIST_BUCKETS; i++)
        counter_set(&h->buckets[i], 0);
}

static void note_extremes(struct hist *h, uint64_t min_ns, uint64_t max_ns) {
    if (counter_get(&h->count) == 0 || min_ns < counter_get(&h->min_ns))
        counter_set(&h->min_ns, min_ns);
    if (max_ns > counter_get(&h->max_ns))
        counter_set(&h->max_ns, max_ns);
}

void hist_record(struct hist *h, uint64_t value_ns) {
    note_extremes(h, value_ns, value_ns);
    counter_add(&h->buckets[bucket_of(value_ns)], 1);
    counter_add(&h->sum_ns, value_ns);
    counter_add(&h->count, 1);
}

void hist_merge(struct hist *into, const struct hist *from) {
    uint64_t min_ns = counter_get(&from->min_ns);
    uint64_t max_ns = counter_get(&from->max_ns);
    uint64_t added = 0;

    for (size_t i = 0; i < HIST_BUCKETS; i++) {
        uint64_t n = counter_get(&from->buckets[i]);
        if (n == 0)
            continue;
        counter_add(&into->buckets[i], n);
        added += n;
    }
    if (added == 0)
        return;
    note_extremes(into, min_ns, max_ns);
    counter_add(&into->sum_ns, counter_get(&from->sum_ns));
    counter_add(&into->count, added);
}

/* The smallest value that falls into the bucket. */
static uint64_t bucket_bottom(size_t index) {
    return index == 0 ? 0 : bucket_top(index - 1) + 1;
}

void hist_subtract(struct hist *h, const struct hist *earlier) {
    uint64_t count = 0;
    uint64_t min_ns = 0;
    uint64_t max_ns = 0;

    for (size_t i = 0; i < HIST_BUCKETS; i++) {
        uint64_t n = counter_get(&h->buckets[i]) - counter_get(&earlier->buckets[i]);
        counter_set(&h->buckets[i], n);
        if (n == 0)
            continue;
        if (count == 0)
            min_ns = bucket_bottom(i);
        max_ns = bucket_top(i);
        count += n;
    }
    if (min_ns < counter_get(&h->min_ns))
        min_ns = counter_get(&h->min_ns);
    if (max_ns > counter_get(&h->max_ns))
        max_ns = counter_get(&h->max_ns);
    counter_set(&h->count, count);
    counter_set(&h->sum_ns, counter_get(&h->sum_ns) - counter_get(&earlier->sum_ns));
    counter_set(&h->min_ns, min_ns);
    counter_set(&h->max_ns, max_ns);
}

uint64_t hist_count(const struct hist *h) {
    return counter_get(&h->count);
}

uint64_t hist_sum_ns(const struct hist *h) {
    return counter_get(&h->sum_ns);
}

uint64_t hist_min_ns(const struct hist *h) {
    return counter_get(&h->min_ns);
}

uint64_t hist_max_ns(const struct hist *h) {
    return counter_get(&h->max_ns);
}

uint64_t hist_mean_ns(const struct hist *h) {
    uint64_t count = counter_get(&h->count);
    return count != 0 ? counter_get(&h->sum_ns) / count : 0;
}

/* ceil(percent / 100 * count), at least 1 and at most count. */
static uint64_t nearest_rank(double percent, uint64_t count) {
    if (percent >= 100.0)
        return count;
    double exact = percent <= 0.0 ? 0.0 : percent * (double)count / 100.0;
    uint64_t rank = (uint64_t)exact;
    /* 99.9 percent of 1000 must be 999, though the product is a hair above it. */
    if (exact - (double)rank > 1e-9 * (double)count)
        rank++;
    if (rank == 0)
        rank = 1;
    return rank < count ? rank : count;
}

uint64_t hist_percentile_ns(const struct hist *h, double percent) {
    uint64_t count = 0;
    for (size_t i = 0; i < HIST_BUCKETS; i++)
        count += counter_get(&h->buckets[i]);
    if (count == 0)
        return 0;

    uint64_t min_ns = counter_get(&h->min_ns);
    uint64_t max_ns = counter_get(&h->max_ns);
    uint64_t rank = nearest_rank(percent, count);
    uint64_t seen = 0;
    for (size_t i = 0; i < HIST_BUCKETS; i++) {
        seen += counter_get(&h->buckets[i]);
        if (seen < rank)
            continue;
        uint64_t value = bucket_top(i);
        if (i == HIST_BUCKETS - 1 || value > max_ns)
            value = max_ns;
        return value < min_ns ? min_ns : value;
    }
    return max_ns; /* buckets were reset while being read */
}

void hist_cumulate(const struct hist *h, const uint64_t *bounds_ns, size_t count,
                   uint64_t *ret_counts) {
    uint64_t seen = 0;
    size_t at = 0;
    for (size_t i = 0; i < count; i++) {
        size_t last = bucket_of(bounds_ns[i]);
        for (; at <= last; at++)
            seen += counter_get(&h->buckets[at]);
        ret_counts[i] = seen;
    }
}

uint64_t hist_count_at_most(const struct hist *h, uint64_t bound_ns) {
    uint64_t count;
    hist_cumulate(h, &bound_ns, 1, &count);
    return count;
}
