#include "http/metrics.h"

#include "base/clock.h"

static const char *const type_names[] = {"counter", "gauge", "histogram"};

/* 1, 2.5 and 5 of each decade. */
static const struct {
    uint64_t ns;
    const char *seconds;
} bounds[] = {
    {1000, "1e-06"},     {2500, "2.5e-06"},   {5000, "5e-06"},      {10000, "1e-05"},
    {25000, "2.5e-05"},  {50000, "5e-05"},    {100000, "0.0001"},   {250000, "0.00025"},
    {500000, "0.0005"},  {1000000, "0.001"},  {2500000, "0.0025"},  {5000000, "0.005"},
    {10000000, "0.01"},  {25000000, "0.025"}, {50000000, "0.05"},   {100000000, "0.1"},
    {250000000, "0.25"}, {500000000, "0.5"},  {1000000000, "1"},    {2500000000, "2.5"},
    {5000000000, "5"},   {10000000000, "10"}, {UINT64_MAX, "+Inf"},
};
#define BOUND_COUNT (sizeof bounds / sizeof bounds[0])

void metric_family(struct text *out, const char *name, enum metric_type type, const char *help) {
    text_printf(out, "# HELP %s ", name);
    for (; *help != '\0'; help++) {
        if (*help == '\n')
            text_add(out, "\\n");
        else if (*help == '\\')
            text_add(out, "\\\\");
        else
            text_char(out, *help);
    }
    text_printf(out, "\n# TYPE %s %s\n", name, type_names[type]);
}

/* The format wants UTF-8; a byte of a peer that is not becomes the replacement character. */
static void add_label_value(struct text *out, struct slice value) {
    while (value.len > 0) {
        uint32_t code = 0;
        size_t len = text_utf8_char(value, &code);
        if (len == 0)
            text_add(out, "\xef\xbf\xbd");
        else if (code == '\n')
            text_add(out, "\\n");
        else if (code == '"' || code == '\\')
            text_printf(out, "\\%c", (char)code);
        else
            text_bytes(out, slice_of(value.data, len));
        value.data += len != 0 ? len : 1;
        value.len -= len != 0 ? len : 1;
    }
}

/* `{a="b",le="c"}`; nothing when there are none. `le` may be NULL. */
static void add_labels(struct text *out, const struct metric_label *labels, size_t count,
                       const char *le) {
    if (count == 0 && le == NULL)
        return;
    for (size_t i = 0; i < count; i++) {
        text_printf(out, "%c%s=\"", i == 0 ? '{' : ',', labels[i].name);
        add_label_value(out, labels[i].value);
        text_char(out, '"');
    }
    if (le != NULL)
        text_printf(out, "%cle=\"%s\"", count == 0 ? '{' : ',', le);
    text_char(out, '}');
}

void metric_sample_labelled(struct text *out, const char *name, const struct metric_label *labels,
                            size_t count, uint64_t value) {
    text_add(out, name);
    add_labels(out, labels, count, NULL);
    text_printf(out, " %llu\n", (unsigned long long)value);
}

void metric_sample(struct text *out, const char *name, uint64_t value) {
    metric_sample_labelled(out, name, NULL, 0, value);
}

void metric_counter(struct text *out, const char *name, const char *help, uint64_t value) {
    metric_family(out, name, METRIC_COUNTER, help);
    metric_sample(out, name, value);
}

void metric_gauge(struct text *out, const char *name, const char *help, uint64_t value) {
    metric_family(out, name, METRIC_GAUGE, help);
    metric_sample(out, name, value);
}

void metric_histogram(struct text *out, const char *name, const struct metric_label *labels,
                      size_t count, const struct hist *h) {
    uint64_t bounds_ns[BOUND_COUNT];
    uint64_t counts[BOUND_COUNT];
    for (size_t i = 0; i < BOUND_COUNT; i++)
        bounds_ns[i] = bounds[i].ns;
    hist_cumulate(h, bounds_ns, BOUND_COUNT, counts);

    for (size_t i = 0; i < BOUND_COUNT; i++) {
        text_printf(out, "%s_bucket", name);
        add_labels(out, labels, count, bounds[i].seconds);
        text_printf(out, " %llu\n", (unsigned long long)counts[i]);
    }
    uint64_t sum_ns = hist_sum_ns(h);
    text_printf(out, "%s_sum", name);
    add_labels(out, labels, count, NULL);
    text_printf(out, " %llu.%09llu\n", (unsigned long long)(sum_ns / NS_PER_S),
                (unsigned long long)(sum_ns % NS_PER_S));
    text_printf(out, "%s_count", name);
    add_labels(out, labels, count, NULL);
    text_printf(out, " %llu\n", (unsigned long long)counts[BOUND_COUNT - 1]);
}
