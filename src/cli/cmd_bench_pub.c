/*
 * felix bench pub: how many publishes the broker takes, and how long its answers need.
 *
 * Unacknowledged publishes have no answer to measure: the main thread hands them to the client,
 * which makes it wait when its buffers are full, and the clock stops when the network has them all.
 */
#include "cli/bench.h"

#include "base/check.h"
#include "base/clock.h"

#include <stdlib.h>
#include <time.h>

struct bench_pub {
    struct bench *bench;
    struct felix_bytes *payloads;
};

static void on_answer(void *context, enum felix_err err, const char *error_text) {
    load_done(context, err, error_text);
}

static enum felix_err issue_publish(struct load *load, struct load_op *op) {
    const struct bench_pub *pub = load->context;
    return felix_publish(load->client, load->bench->cli->space, load->bench->target, pub->payloads,
                         load->bench->batch, (enum felix_ack)load->bench->ack, on_answer, op);
}

/* Publishes without answers; returns CLI_GO_ON or an exit code. */
static int run_unacknowledged(struct load *load, const struct bench_pub *pub) {
    const struct bench *bench = pub->bench;
    load->start_ns = clock_now_ns();
    enum felix_err err = FELIX_OK;
    uint64_t published = 0;
    bool by_time = bench->count == 0 || bench->duration_given;
    while (err == FELIX_OK && !cli_interrupted) {
        uint64_t now_ns = clock_now_ns();
        if ((bench->count != 0 && published >= bench->count) ||
            (by_time && now_ns - load->start_ns >= bench->duration_ns))
            break;
        if (bench->rate > 0) {
            uint64_t due_ns = load->start_ns + (uint64_t)((double)published * 1e9 / bench->rate);
            struct timespec due = {.tv_sec = (time_t)(due_ns / NS_PER_S),
                                   .tv_nsec = (long)(due_ns % NS_PER_S)};
            if (now_ns < due_ns)
                (void)clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
        }
        err = felix_publish(load->client, bench->cli->space, bench->target, pub->payloads,
                            bench->batch, FELIX_ACK_NONE, NULL, NULL);
        published += bench->batch;
    }
    if (err == FELIX_OK)
        err = felix_flush(load->client, cli_timeout_ms(bench->cli));
    load->elapsed_ns = clock_now_ns() - load->start_ns;
    atomic_store(&load->finished, published / bench->batch);
    return err == FELIX_OK ? CLI_GO_ON
                           : cli_failed(bench->cli, "the benchmark cannot run", err, NULL);
}

static int bench_pub_run(struct bench *bench) {
    struct load load = {.bench = bench, .issue = issue_publish, .weight = bench->batch};
    int status = cli_connect(bench->cli, &load.client);
    if (status != CLI_GO_ON)
        return status;
    cli_catch_signals();
    struct bench_pub pub = {.bench = bench};
    void *zeros = xcalloc(1, bench->size_bytes + 1);
    pub.payloads = xcalloc(bench->batch, sizeof *pub.payloads);
    for (uint64_t i = 0; i < bench->batch; i++)
        pub.payloads[i] = (struct felix_bytes){.data = zeros, .len = bench->size_bytes};
    load.context = &pub;
    load.latency = xcalloc(1, sizeof *load.latency);

    bool acked = bench->ack != FELIX_ACK_NONE;
    status = acked ? load_run(&load) : run_unacknowledged(&load, &pub);
    felix_close(load.client, cli_timeout_ms(bench->cli));
    if (status == CLI_GO_ON) {
        struct bench_report report = {
            .bench = bench,
            .unit = "msg",
            .latency_name = "publish to answer",
            .count = (atomic_load(&load.finished) - atomic_load(&load.failed)) * bench->batch,
            .failed = atomic_load(&load.failed) * bench->batch,
            .elapsed_ns = load.elapsed_ns,
            .bytes_each = bench->size_bytes,
            .latency = acked ? load.latency : NULL,
            .note = acked ? NULL : "not acknowledged: this is what the network took",
        };
        bench_print(&report);
        status = EXIT_DONE;
    }
    free(load.slots);
    free(load.latency);
    free(pub.payloads);
    free(zeros);
    return status;
}

int cmd_bench_pub(struct cli *cli) {
    struct bench bench = {.cli = cli,
                          .name = "pub",
                          .target = "bench",
                          .duration_ns = 5 * NS_PER_S,
                          .size_bytes = 256,
                          .batch = 1,
                          .concurrency = 64,
                          .ack = FELIX_ACK_PER_MESSAGE};
    struct arg_option options[BENCH_OPTIONS];
    bench_options(&bench, BENCH_SIZE | BENCH_RATE | BENCH_BATCH | BENCH_CONCURRENCY | BENCH_ACK,
                  options);
    const struct command_help help = {
        .name = "felix bench pub",
        .summary = "publish as fast as possible, or at a rate",
        .usage = "[STREAM]",
        .text =
            "Publishes to STREAM (bench). With --rate, latency counts from the time at which a\n"
            "publish was due; without, 64 publishes are in flight (--concurrency).",
        .examples = "  felix bench pub --size 1024 --batch 64 --ack none\n"
                    "  felix bench pub --rate 10000 --duration 30s --json",
    };
    struct args args = {.options = options};
    int status = cli_parse(cli, &args, &help, 0, 1);
    if (status != CLI_GO_ON)
        return status;
    if (args.operands_count == 1)
        bench.target = args.operands[0];
    return bench_pub_run(&bench);
}
