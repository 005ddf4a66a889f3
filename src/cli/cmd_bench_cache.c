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

/* Stores every key once, with the same load machinery and a histogram that is thrown away. */
static int fill(const struct load *model) {
    struct bench bench = *model->bench;
    bench.op = OP_PUT;
    bench.count = bench.keys;
    bench.duration_given = false;
    bench.rate = 0;
    bench.concurrency = bench.concurrency > 32 ? bench.concurrency : 32;
    struct load load = {.bench = &bench,
                        .client = model->client,
                        .issue = issue_cache,
                        .context = model->context,
                        .weight = 1};
    load.latency = xcalloc(1, sizeof *load.latency);
    int status = load_run(&load);
    free(load.latency);
    free(load.slots);
    return status;
}

static int bench_cache_run(struct bench *bench) {
    struct bench_cache cache = {.value.len = bench->size_bytes};
    struct load load = {.bench = bench, .issue = issue_cache, .context = &cache, .weight = 1};
    int status = cli_connect(bench->cli, &load.client);
    if (status != CLI_GO_ON)
        return status;
    cli_catch_signals();
    void *zeros = xcalloc(1, bench->size_bytes + 1);
    cache.value.data = zeros;
    load.latency = xcalloc(1, sizeof *load.latency);
    if (bench->op == OP_GET)
        status = fill(&load);
    if (status == CLI_GO_ON)
        status = load_run(&load);
    felix_close(load.client, 0);
    if (status == CLI_GO_ON) {
        char note[80];
        (void)snprintf(note, sizeof note, "%llu of these found nothing",
                       (unsigned long long)atomic_load(&cache.misses));
        struct bench_report report = {
            .bench = bench,
            .unit = "op",
            .latency_name = bench->op == OP_GET ? "get" : "put",
            .count = atomic_load(&load.finished) - atomic_load(&load.failed),
            .failed = atomic_load(&load.failed),
            .elapsed_ns = load.elapsed_ns,
            .bytes_each = bench->size_bytes,
            .latency = load.latency,
            .note = atomic_load(&cache.misses) > 0 ? note : NULL,
        };
        bench_print(&report);
        status = EXIT_DONE;
    }
    free(load.slots);
    free(load.latency);
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
