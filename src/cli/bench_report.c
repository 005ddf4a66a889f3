/* Results of a benchmark: aligned for people, name and value for pipes, one object as JSON. */
#include "cli/bench.h"

static const struct {
    const char *name;
    double percent;
} percentiles[] = {{"p50", 50}, {"p90", 90}, {"p99", 99}, {"p99.9", 99.9}, {"max", 100}};

#define PERCENTILES (sizeof percentiles / sizeof percentiles[0])

static double per_second(const struct bench_report *r, double n) {
    return r->elapsed_ns == 0 ? 0 : n * 1e9 / (double)r->elapsed_ns;
}

static void print_json(const struct bench_report *r) {
    struct text text = {0};
    text_printf(&text, "{\"bench\":\"%s\",\"target\":", r->bench->name);
    text_quoted(&text, slice_str(r->bench->target));
    text_printf(&text,
                ",\"unit\":\"%s\",\"count\":%llu,\"failed\":%llu,\"elapsed_us\":%.1f,"
                "\"rate\":%.2f,\"mb_per_s\":%.3f,\"size\":%llu,\"batch\":%llu,\"fanout\":%llu,"
                "\"concurrency\":%llu,\"loop\":\"%s\"",
                r->unit, (unsigned long long)r->count, (unsigned long long)r->failed,
                (double)r->elapsed_ns / 1e3, per_second(r, (double)r->count),
                per_second(r, (double)r->count * (double)r->bytes_each) / 1e6,
                (unsigned long long)r->bytes_each, (unsigned long long)r->bench->batch,
                (unsigned long long)r->bench->fanout, (unsigned long long)r->bench->concurrency,
                r->bench->rate > 0 ? "open" : "closed");
    if (r->latency != NULL && hist_count(r->latency) > 0) {
        text_printf(&text, ",\"latency\":\"%s\",\"samples\":%llu,\"mean_us\":%.3f", r->latency_name,
                    (unsigned long long)hist_count(r->latency),
                    (double)hist_mean_ns(r->latency) / 1e3);
        for (size_t i = 0; i < PERCENTILES; i++)
            text_printf(&text, ",\"%s_us\":%.3f", percentiles[i].name,
                        (double)hist_percentile_ns(r->latency, percentiles[i].percent) / 1e3);
    }
    text_add(&text, "}");
    (void)puts(text_str(&text));
    text_deinit(&text);
}

static void print_plain(const struct bench_report *r) {
    (void)printf("bench\t%s\ncount\t%llu\nfailed\t%llu\nelapsed_us\t%.1f\nrate\t%.2f\n"
                 "mb_per_s\t%.3f\n",
                 r->bench->name, (unsigned long long)r->count, (unsigned long long)r->failed,
                 (double)r->elapsed_ns / 1e3, per_second(r, (double)r->count),
                 per_second(r, (double)r->count * (double)r->bytes_each) / 1e6);
    if (r->latency == NULL || hist_count(r->latency) == 0)
        return;
    for (size_t i = 0; i < PERCENTILES; i++)
        (void)printf("%s_us\t%.3f\n", percentiles[i].name,
                     (double)hist_percentile_ns(r->latency, percentiles[i].percent) / 1e3);
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
        (void)printf(", open loop at %.0f/s\n", b->rate);
    else if (b->concurrency > 0)
        (void)printf(", %llu in flight\n", (unsigned long long)b->concurrency);
    else
        (void)printf("\n");
    (void)printf("  count       %s %s in %s, %s failed\n", out_count(r->count).text, r->unit,
                 out_duration(r->elapsed_ns).text, out_count(r->failed).text);
    (void)printf("  throughput  %s %s/s, %.1f MB/s\n",
                 out_count((uint64_t)per_second(r, (double)r->count)).text, r->unit,
                 per_second(r, (double)r->count * (double)r->bytes_each) / 1e6);
    if (r->latency != NULL && hist_count(r->latency) > 0) {
        (void)printf("  %s\n", r->latency_name);
        for (size_t i = 0; i < PERCENTILES; i++)
            (void)printf("    %-8s  %s\n", percentiles[i].name,
                         out_duration(hist_percentile_ns(r->latency, percentiles[i].percent)).text);
    }
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
