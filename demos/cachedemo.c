/*
 * cachedemo: stores keys of each size, measures puts, hits and misses, and shows a value that
 * expires.
 */
#include "cache_run.h"
#include "interrupt.h"
#include "stages.h"

#include "base/clock.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned long long ull;

#define DEMO_TTL_MS 500
#define DEMO_WAIT_MS 650

struct demo {
    struct cache_settings settings;
    struct target target;
    felix_client *client;
    struct text json; /* results so far */
    bool bad;         /* a value was missing or wrong */
};

static void say(const struct demo *demo, const char *text) {
    if (!demo->settings.json)
        (void)puts(text);
    (void)fflush(stdout);
}

static int failed(const char *what, enum felix_err err, const char *why) {
    out_error("%s%s%s", what, what[0] != '\0' ? ": " : "", why);
    return err == FELIX_NOT_FOUND ? EXIT_REFUSED : exit_code_of(err);
}

/* ---- set-up ---- */

static int start(struct demo *demo) {
    struct felix_error error = {0};
    say(demo, demo->settings.target.connect == NULL
                  ? "Step 1/4: booting an in-process broker (QUIC, TLS 1.3)."
                  : "Step 1/4: using the broker of --connect.");
    enum felix_err err = target_start(&demo->target, &demo->settings.target, NULL, &error);
    if (err != FELIX_OK)
        return failed("cannot start a broker", err, error.text);
    say(demo, "Step 2/4: connecting a client over QUIC.");
    felix_options *options = target_client_options(&demo->target);
    if (options == NULL)
        return failed("settings of the client", FELIX_INVALID_ARGUMENT, felix_last_error());
    err = target_connect(&demo->target, options, &demo->client);
    felix_options_free(options);
    return err == FELIX_OK ? EXIT_DONE : failed("", err, felix_last_error());
}

static void print_list(const struct cache_settings *s, struct text *out) {
    for (size_t i = 0; i < s->payload_count; i++)
        text_printf(out, "%s%llu", i == 0 ? "" : ", ", (ull)s->payloads[i]);
}

static void print_config(const struct demo *demo) {
    const struct cache_settings *s = &demo->settings;
    struct text line = {0};
    if (s->json)
        return;
    text_printf(&line, "Config: warmup=%llu samples=%llu payloads=[", (ull)s->warmup,
                (ull)s->samples);
    print_list(s, &line);
    text_add(&line, "] ttl_ms=");
    if (s->ttl_ms == 0)
        text_add(&line, "none");
    else
        text_printf(&line, "%llu", (ull)s->ttl_ms);
    text_printf(&line, " concurrency=%llu keys=%llu ops=[", (ull)s->concurrency, (ull)s->keys);
    const char *comma = "";
    for (unsigned op = 0; op < CACHE_OPS; op++) {
        if (!s->ops[op])
            continue;
        text_printf(&line, "%s%s", comma, cache_op_name((enum cache_op)op));
        comma = ", ";
    }
    text_printf(&line, "] timings=%s", s->timings ? "true" : "false");
    (void)puts(text_str(&line));
    text_deinit(&line);
}

/* ---- one size ---- */

/* Puts all keys and reads the first one back. */
static int prepopulate(struct demo *demo, uint64_t size) {
    const struct cache_settings *s = &demo->settings;
    struct progress progress = {0};
    struct cache_phase_result filled;
    struct cache_phase phase = {.op = CACHE_PUT,
                                .prefix = "hit-",
                                .payload_bytes = size,
                                .count = s->keys,
                                .concurrency = 32};
    progress_start(&progress, "store keys", true);
    cache_phase_run(s, demo->client, target_space(&demo->target), &phase, &progress, &filled);
    progress_end(&progress);
    samples_deinit(&filled.samples);
    if (filled.err != FELIX_OK)
        return failed("cannot store the keys", filled.err, filled.error);

    char key[64];
    struct felix_bytes got = {0};
    uint8_t *expected = calloc(1, size + 1);
    if (expected == NULL)
        return failed("memory", FELIX_SYSTEM, "there is none");
    cache_value_fill(expected, size, 0, 0);
    (void)snprintf(key, sizeof key, "hit-%llu-0", (ull)size);
    enum felix_err err =
        felix_cache_get(demo->client, target_space(&demo->target), CACHE_NAME, key, &got);
    bool same =
        err == FELIX_OK && got.len == size && (size == 0 || memcmp(got.data, expected, size) == 0);
    free(expected);
    if (!same) {
        out_error("validation of %s: %s", key,
                  err != FELIX_OK ? felix_last_error() : "other bytes than were stored");
        felix_free((void *)(uintptr_t)got.data);
        return err != FELIX_OK && err != FELIX_NOT_FOUND ? exit_code_of(err) : EXIT_NOTHING;
    }
    felix_free((void *)(uintptr_t)got.data);
    if (!s->json)
        (void)printf("\nPayload size: %llu bytes\nValidation: get_hit value_len=%zu bytes\n",
                     (ull)size, got.len);
    return EXIT_DONE;
}

static void report(struct demo *demo, enum cache_op op, uint64_t size,
                   const struct cache_phase_result *r, const struct stages *stages) {
    const struct samples *x = &r->samples;
    double rate = r->elapsed_ns == 0 ? 0 : (double)x->count * 1e9 / (double)r->elapsed_ns;
    double p50 = (double)samples_nearest_rank(x, 0.50) / 1e3;
    double p99 = (double)samples_nearest_rank(x, 0.99) / 1e3;
    double p999 = (double)samples_nearest_rank(x, 0.999) / 1e3;
    double mean = samples_mean_ns(x) / 1e3;
    if (demo->settings.json) {
        text_printf(&demo->json,
                    "%s\n{\"op\":\"%s\",\"payload\":%llu,\"n\":%zu,\"p50_us\":%.3f,"
                    "\"p99_us\":%.3f,\"p999_us\":%.3f,\"avg_us\":%.3f,\"throughput\":%.2f,"
                    "\"misses\":%llu,\"wrong\":%llu",
                    demo->json.len == 0 ? "" : ",", cache_op_name(op), (ull)size, x->count, p50,
                    p99, p999, mean, rate, (ull)r->misses, (ull)r->wrong);
        if (stages != NULL) {
            text_add(&demo->json, ",\"stages\":");
            stages_json(stages, &demo->json);
        }
        text_char(&demo->json, '}');
        return;
    }
    (void)printf("%s: n=%zu p50=%.2fus p99=%.2fus p999=%.2fus avg=%.2fus throughput=%.2f ops/s\n",
                 cache_op_name(op), x->count, p50, p99, p999, mean, rate);
    if (stages != NULL) {
        struct text line = {0};
        stages_line(stages, &line);
        (void)printf("timings[%s] %s\n", cache_op_name(op), text_str(&line));
        text_deinit(&line);
    } else if (demo->settings.timings && demo->target.node == NULL) {
        (void)printf("timings[%s] /metrics of the broker has them (felix_stage_seconds)\n",
                     cache_op_name(op));
    }
    (void)fflush(stdout);
}

/* A hit that found nothing (a short --ttl-ms does that) or other bytes is not what was measured. */
static void judge(struct demo *demo, enum cache_op op, const struct cache_phase_result *r) {
    if (op == CACHE_GET_HIT && r->misses > 0)
        out_error("get_hit: %llu of %zu found nothing", (ull)r->misses, r->samples.count);
    if (op == CACHE_GET_MISS && r->misses < r->samples.count)
        out_error("get_miss: %llu of %zu found something", (ull)(r->samples.count - r->misses),
                  r->samples.count);
    if (r->wrong > 0)
        out_error("%s: %llu values are not what was stored", cache_op_name(op), (ull)r->wrong);
    demo->bad = demo->bad || r->wrong > 0 || (op == CACHE_GET_HIT && r->misses > 0) ||
                (op == CACHE_GET_MISS && r->misses < r->samples.count);
}

static int run_op(struct demo *demo, enum cache_op op, uint64_t size) {
    static const char *const warm_prefixes[CACHE_OPS] = {"put-warm-", "hit-", "miss-warm-"};
    static const char *const prefixes[CACHE_OPS] = {"put-", "hit-", "miss-"};
    const struct cache_settings *s = &demo->settings;
    const char *space = target_space(&demo->target);
    struct progress progress = {0};
    struct cache_phase_result result;
    struct cache_phase phase = {.op = op,
                                .prefix = warm_prefixes[op],
                                .payload_bytes = size,
                                .count = s->warmup,
                                .concurrency = s->concurrency,
                                .validate = op == CACHE_GET_HIT && s->validate_each};
    cache_phase_run(s, demo->client, space, &phase, &progress, &result);
    samples_deinit(&result.samples);
    if (result.err != FELIX_OK)
        return failed(cache_op_name(op), result.err, result.error);

    phase.prefix = prefixes[op];
    phase.count = s->samples;
    struct stages *stages = s->timings ? stages_begin(&demo->target) : NULL;
    progress_start(&progress, cache_op_name(op), true);
    cache_phase_run(s, demo->client, space, &phase, &progress, &result);
    progress_end(&progress);
    stages_end(stages, &demo->target);
    int status = EXIT_DONE;
    if (result.err != FELIX_OK) {
        status = failed(cache_op_name(op), result.err, result.error);
    } else if (!interrupted()) {
        report(demo, op, size, &result, stages);
        judge(demo, op, &result);
    }
    stages_free(stages);
    samples_deinit(&result.samples);
    return status;
}

static int run_sizes(struct demo *demo) {
    const struct cache_settings *s = &demo->settings;
    say(demo, "Step 3/4: running the benchmarks.");
    print_config(demo);
    for (size_t i = 0; i < s->payload_count; i++) {
        int status = prepopulate(demo, s->payloads[i]);
        for (unsigned op = 0; op < CACHE_OPS && status == EXIT_DONE && !interrupted(); op++) {
            if (s->ops[op])
                status = run_op(demo, (enum cache_op)op, s->payloads[i]);
        }
        if (status != EXIT_DONE || interrupted())
            return status != EXIT_DONE ? status : EXIT_NOTHING;
    }
    return EXIT_DONE;
}

/* ---- a value that expires ---- */

static int show_get(struct demo *demo, const char *what) {
    struct felix_bytes got = {0};
    enum felix_err err =
        felix_cache_get(demo->client, target_space(&demo->target), CACHE_NAME, "demo-key", &got);
    if (err != FELIX_OK && err != FELIX_NOT_FOUND)
        return failed("cache get", err, felix_last_error());
    (void)printf("%s: %.*s\n", what, err == FELIX_OK ? (int)got.len : 4,
                 err == FELIX_OK ? (const char *)got.data : "None");
    (void)fflush(stdout);
    felix_free((void *)(uintptr_t)got.data);
    return EXIT_DONE;
}

static int show_expiry(struct demo *demo) {
    if (demo->settings.json)
        return EXIT_DONE;
    (void)printf("\nStep 4/4: a value with a time to live of %d ms.\n", DEMO_TTL_MS);
    struct felix_bytes value = {.data = "cached", .len = 6};
    enum felix_err err = felix_cache_put(demo->client, target_space(&demo->target), CACHE_NAME,
                                         "demo-key", value, DEMO_TTL_MS);
    if (err != FELIX_OK)
        return failed("cache put", err, felix_last_error());
    int status = show_get(demo, "Cache get response");
    struct timespec pause = {.tv_nsec = DEMO_WAIT_MS * (long)NS_PER_MS};
    (void)nanosleep(&pause, NULL);
    if (status == EXIT_DONE)
        status = show_get(demo, "Cache get after TTL");
    if (status == EXIT_DONE)
        (void)puts("Demo complete.");
    return status;
}

static void print_json(const struct demo *demo) {
    const struct cache_settings *s = &demo->settings;
    struct text name = {0};
    if (!s->json)
        return;
    text_quoted(&name, slice_str(s->target.connect != NULL ? s->target.connect : "in-process"));
    (void)printf("{\"demo\":\"cachedemo\",\"version\":\"%s\",\"broker\":%s,\"warmup\":%llu,"
                 "\"samples\":%llu,\"concurrency\":%llu,\"keys\":%llu,\"ttl_ms\":%llu,"
                 "\"valid\":%s,\"results\":[%s\n]}\n",
                 felix_version(), text_str(&name), (ull)s->warmup, (ull)s->samples,
                 (ull)s->concurrency, (ull)s->keys, (ull)s->ttl_ms, demo->bad ? "false" : "true",
                 text_str(&demo->json));
    text_deinit(&name);
}

int main(int argc, char **argv) {
    static struct demo demo;
    int status;
    out_program("cachedemo");
    (void)signal(SIGPIPE, SIG_IGN);
    if (!cache_settings_load(&demo.settings, argc, argv, &status))
        return status;
    interrupt_catch();
    say(&demo, "== Felix cache demo ==\n"
               "Goal: latency and throughput of cache operations over QUIC, by size of the value.");
    status = start(&demo);
    if (status == EXIT_DONE)
        status = run_sizes(&demo);
    if (status == EXIT_DONE)
        status = show_expiry(&demo);
    if (status == EXIT_DONE && demo.bad)
        status = EXIT_NOTHING;
    if (status == EXIT_DONE || demo.bad)
        print_json(&demo);
    felix_close(demo.client, 0);
    target_stop(&demo.target);
    text_deinit(&demo.json);
    if (fflush(stdout) != 0 && status == EXIT_DONE && !out_reader_gone()) {
        out_error("cannot write the output: the disk is full or the device failed");
        status = EXIT_USAGE;
    }
    return status;
}
