/*
 * Prometheus text (format 0.0.4): families with HELP and TYPE, labels, real histograms.
 *
 * Pure functions that append to a text; any thread. A family is announced once, its samples
 * follow directly. Names are ours and valid; label values may be a peer's and are escaped.
 */
#ifndef HTTP_METRICS_H
#define HTTP_METRICS_H

#include "base/hist.h"
#include "base/text.h"

#define METRICS_CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"

enum metric_type { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };

struct metric_label {
    const char *name;
    struct slice value;
};

/** Announces a family. Borrows all. */
void metric_family(struct text *out, const char *name, enum metric_type type, const char *help);

/** One sample without labels, or with `count` of them. */
void metric_sample(struct text *out, const char *name, uint64_t value);
void metric_sample_labelled(struct text *out, const char *name, const struct metric_label *labels,
                            size_t count, uint64_t value);

/** A family with its only sample. */
void metric_counter(struct text *out, const char *name, const char *help, uint64_t value);
void metric_gauge(struct text *out, const char *name, const char *help, uint64_t value);

/** The samples of a histogram in seconds: buckets from 1 us to 10 s, sum, count. `name` ends in
 * "_seconds". `h` may be recorded to meanwhile; the bounds are those of base/hist, 1/128 wide. */
void metric_histogram(struct text *out, const char *name, const struct metric_label *labels,
                      size_t count, const struct hist *h);

#endif
