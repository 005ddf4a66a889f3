/* Results of a benchmark: aligned for people, name and value for pipes, one object as JSON. */
#include "cli/bench.h"

static const struct {
    const char *name; /* for people and pipes */
    const char *key;  /* of JSON: without a dot, which query languages would take apart */
    double percent;
} percentiles[] = {{"p50", "p50", 50},      {"p90", "p90", 90},         {"p99", "p99", 99},
                   {"p99.9", "p999", 99.9}, {"p99.99", "p9999", 99.99}, {"max", "max", 100}};

#define PERCENTILES (sizeof percentiles / sizeof percentiles[0])

static double per_second(const struct bench_report *r, double n) {
    return r->elapsed_ns == 0 ? 0 : n * 1e9 / (double)r->elapsed_ns;
}

static double rate(const struct bench_report *r) {
    return per_second(r, (double)r->count);
}

static double megabytes_per_second(const struct bench_report *r) {
    return per_second(r, (double)r->count * (double)r->bytes_each) / 1e6;
}

static bool has_latency(const struct bench_report *r) {
    return r->latency != NULL && hist_count(r->latency) > 0;
}

static double percentile_us(const struct bench_report *r, size_t i) {
    return (double)hist_percentile_ns(r->latency, percentiles[i].percent) / 1e3;
}

static void print_json(const struct bench_report *r) {
    const struct bench *b = r->bench;
    struct text text = {0};
    text_printf(&text, "{\"bench\":\"%s\",\"target\":", b->name);
    text_quoted(&text, slice_str(b->target));
    text_printf(&text, ",\"unit\":\"%s\",\"loop\":\"%s\"", r->unit,
                b->rate > 0 ? "open" : "closed");
    if (b->rate > 0)
        text_printf(&text, ",\"wanted_rate\":%.3f", b->rate);
    text_printf(&text, ",\"size\":%llu,\"batch\":%llu", (unsigned long long)r->bytes_each,
                (unsigned long long)b->batch);
    if (b->fanout > 0)
        text_printf(&text, ",\"fanout\":%llu", (unsigned long long)b->fanout);
    if (b->rate == 0 && b->concurrency > 0)
        text_printf(&text, ",\"concurrency\":%llu", (unsigned long long)b->concurrency);
    for (const struct bench_count *c = r->counts; c->name != NULL; c++)
        text_printf(&text, ",\"%s\":%llu", c->name, (unsigned long long)c->value);
    text_printf(&text, ",\"elapsed_us\":%.1f,\"rate\":%.2f,\"mb_per_s\":%.3f",
                (double)r->elapsed_ns / 1e3, rate(r), megabytes_per_second(r));
    if (has_latency(r)) {
        text_printf(&text,
                    ",\"latency\":\"%s\",\"samples\":%llu,\"latency_us\":{\"min\":%.3f,"
                    "\"mean\":%.3f",
                    r->latency_name, (unsigned long long)hist_count(r->latency),
                    (double)hist_min_ns(r->latency) / 1e3, (double)hist_mean_ns(r->latency) / 1e3);
        for (size_t i = 0; i < PERCENTILES; i++)
            text_printf(&text, ",\"%s\":%.3f", percentiles[i].key, percentile_us(r, i));
        text_char(&text, '}');
    }
    text_char(&text, '}');
    (void)puts(text_str(&text));
    text_deinit(&text);
}

static void print_plain(const struct bench_report *r) {
    (void)printf("bench\t%s\n", r->bench->name);
    for (const struct bench_count *c = r->counts; c->name != NULL; c++)
        (void)printf("%s\t%llu\n", c->name, (unsigned long long)c->value);
    (void)printf("elapsed_us\t%.1f\nrate\t%.2f\nmb_per_s\t%.3f\n", (double)r->elapsed_ns / 1e3,
                 rate(r), megabytes_per_second(r));
    for (size_t i = 0; has_latency(r) && i < PERCENTILES; i++)
        (void)printf("%s_us\t%.3f\n", percentiles[i].name, percentile_us(r, i));
}

static void print_human(const struct bench_report *r) {
    const struct bench *b = r->bench;
    (void)printf("bench %s on '%s': %llu bytes", b->name, b->target,
                 (unsigned long long)r->bytes_each);
    if (b->batch > 1)
        (void)printf(", batch %llu", (unsigned long long)b->batch);
    if (b->fanout > 1)
        (void)printf(", fanout %llu", (unsigned long long)b->fanout);
    if (b->rate > 0)
        (void)printf(", open loop at %.0f/s", b->rate);
    else if (b->concurrency > 0)
        (void)printf(", %llu in flight", (unsigned long long)b->concurrency);
    (void)printf("\n");
    for (const struct bench_count *c = r->counts; c->name != NULL; c++)
        (void)printf("  %-10s  %s\n", c->name, out_count(c->value).text);
    (void)printf("  throughput  %s %s/s, %.1f MB/s, in %s\n", out_count((uint64_t)rate(r)).text,
                 r->unit, megabytes_per_second(r), out_duration(r->elapsed_ns).text);
    if (has_latency(r))
        (void)printf("  %s\n", r->latency_name);
    for (size_t i = 0; has_latency(r) && i < PERCENTILES; i++)
        (void)printf("    %-8s  %s\n", percentiles[i].name,
                     out_duration(hist_percentile_ns(r->latency, percentiles[i].percent)).text);
    if (b->rate > 0 && r->count > 0 &&
        rate(r) < 0.95 * b->rate * (double)(b->fanout > 1 ? b->fanout : 1))
        (void)printf(
            "  the wanted rate was not reached: latency includes the wait that this made\n");
    if (r->note != NULL)
        (void)printf("  %s\n", r->note);
}

void bench_print(const struct bench_report *r) {
    if (r->bench->cli->json)
        print_json(r);
    else if (out_is_terminal())
        print_human(r);
    else
        print_plain(r);
}
