/* felix bench cache: put or get over a key space. For get, all keys are stored first. */
#include "cli/bench.h"

#include "base/check.h"
#include "base/clock.h"

#include <stdlib.h>

enum bench_cache_op { OP_GET, OP_PUT };

struct bench_cache {
    struct felix_bytes value;
    _Atomic uint64_t misses;
};

static void on_answer(void *context, enum felix_err err, const char *error_text, bool found,
                      struct felix_bytes value) {
    struct load_op *op = context;
    struct bench_cache *cache = op->load->context;
    if (err == FELIX_OK && !found && op->load->bench->op == OP_GET)
        (void)atomic_fetch_add_explicit(&cache->misses, 1, memory_order_relaxed);
    load_done(op, err, error_text);
}

static void key_text(char out[32], uint64_t number, uint64_t keys) {
    (void)snprintf(out, 32, "bench-%llu", (unsigned long long)(number % keys));
}

static enum felix_err issue_cache(struct load *load, struct load_op *op) {
    const struct bench *bench = load->bench;
    struct bench_cache *cache = load->context;
    char key[32];
    key_text(key, op->number, bench->keys);
    if (bench->op == OP_PUT)
        return felix_cache_put_async(load->client, bench->cli->space, bench->target, key,
                                     cache->value, 0, on_answer, op);
    return felix_cache_get_async(load->client, bench->cli->space, bench->target, key, on_answer,
                                 op);
}

/* Before values are fetched, every key is stored once by a load of its own, in a closed loop. */
static struct bench filling(const struct bench *bench) {
    struct bench fill = *bench;
    fill.op = OP_PUT;
    fill.count = bench->keys;
    fill.duration_given = false;
    fill.rate = 0;
    fill.concurrency = 32;
    return fill;
}

static void print_report(const struct bench *bench, const struct load_result *result,
                         uint64_t misses, const struct hist *latency) {
    struct bench_report report = {
        .bench = bench,
        .unit = "op",
        .count = result->done,
        .counts = {{"sent", result->sent},
                   {"acked", result->done},
                   {"failed", result->failed},
                   {"lost", result->lost}},
        .elapsed_ns = result->elapsed_ns,
        .bytes_each = bench->size_bytes,
        .latency_name = bench->op == OP_GET ? "get" : "put",
        .latency = latency,
    };
    if (bench->op == OP_GET)
        report.counts[4] = (struct bench_count){"missed", misses};
    bench_print(&report);
}

static int bench_cache_run(const struct bench *bench) {
    felix_client *client;
    int status = cli_connect(bench->cli, &client);
    if (status != CLI_GO_ON)
        return status;
    cli_catch_signals();
    void *zeros = xcalloc(1, bench->size_bytes + 1);
    struct bench_cache cache = {.value = {.data = zeros, .len = bench->size_bytes}};
    struct bench fill = filling(bench);
    struct load first = {.bench = &fill, .client = client, .issue = issue_cache, .context = &cache};
    struct load load = {.bench = bench, .client = client, .issue = issue_cache, .context = &cache};
    struct load_result result = {.sent = 0};
    status = EXIT_DONE;
    if (bench->op == OP_GET) {
        result = load_run(&first);
        status = load_verdict(&first, &result);
    }
    if (status == EXIT_DONE) {
        result = load_run(&load);
        status = load_verdict(&load, &result);
    }
    uint64_t misses = atomic_load(&cache.misses);
    felix_close(client, 0);
    if (load.start_ns != 0 && result.done > 0)
        print_report(bench, &result, misses, &load.latency);
    load_deinit(&first);
    load_deinit(&load);
    free(zeros);
    return status;
}

int cmd_bench_cache(struct cli *cli) {
    struct bench bench = {.cli = cli,
                          .name = "cache",
                          .target = "bench",
                          .duration_ns = 5 * NS_PER_S,
                          .size_bytes = 256,
                          .batch = 1,
                          .concurrency = 32,
                          .keys = 1024};
    struct arg_option options[BENCH_OPTIONS];
    bench_options(&bench, BENCH_SIZE | BENCH_RATE | BENCH_CONCURRENCY | BENCH_KEYS | BENCH_OP,
                  options);
    const struct command_help help = {
        .name = "felix bench cache",
        .summary = "put and get in a loop, or at a rate",
        .usage = "[CACHE]",
        .text = "Works on CACHE (bench). With --rate, latency counts from the time at which an\n"
                "operation was due; without, 32 operations are in flight (--concurrency).",
        .examples = "  felix bench cache --op put --size 1024\n"
                    "  felix bench cache --rate 20000 --duration 10s",
    };
    struct args args = {.options = options};
    int status = cli_parse(cli, &args, &help, 0, 1);
    if (status != CLI_GO_ON)
        return status;
    if (args.operands_count == 1)
        bench.target = args.operands[0];
    return bench_cache_run(&bench);
}
