#include "samples.h"

#include "base/check.h"
#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void samples_reset(struct samples *samples, size_t capacity) {
    if (capacity > samples->capacity) {
        free(samples->ns);
        samples->ns = xcalloc(capacity, sizeof *samples->ns);
        samples->capacity = capacity;
    }
    samples->count = 0;
}

void samples_deinit(struct samples *samples) {
    free(samples->ns);
    *samples = (struct samples){0};
}

static int compare(const void *left, const void *right) {
    uint64_t a;
    uint64_t b;
    memcpy(&a, left, sizeof a);
    memcpy(&b, right, sizeof b);
    return (a > b) - (a < b);
}

void samples_sort(struct samples *samples) {
    if (samples->count > 1)
        qsort(samples->ns, samples->count, sizeof *samples->ns, compare);
}

uint64_t samples_rounded_index(const struct samples *samples, double p) {
    if (samples->count == 0)
        return 0;
    size_t index = (size_t)((double)(samples->count - 1) * p + 0.5);
    return samples->ns[index < samples->count ? index : samples->count - 1];
}

uint64_t samples_nearest_rank(const struct samples *samples, double p) {
    if (samples->count == 0)
        return 0;
    double exact = p * (double)samples->count;
    size_t rank = (size_t)exact;
    /* 0.99 of 100 must be 99, though the product may be a hair above it. */
    if (exact - (double)rank > 1e-9 * (double)samples->count)
        rank++;
    if (rank == 0)
        rank = 1;
    return samples->ns[rank < samples->count ? rank - 1 : samples->count - 1];
}

double samples_mean_ns(const struct samples *samples) {
    double sum = 0;
    for (size_t i = 0; i < samples->count; i++)
        sum += (double)samples->ns[i];
    return samples->count == 0 ? 0 : sum / (double)samples->count;
}

struct duration_text demo_duration(uint64_t ns) {
    struct duration_text d;
    if (ns < NS_PER_MS)
        (void)snprintf(d.text, sizeof d.text, "%llu us", (unsigned long long)(ns / NS_PER_US));
    else
        (void)snprintf(d.text, sizeof d.text, "%.3f ms", (double)ns / 1e6);
    return d;
}
