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

struct bench_pub {
    struct bench *bench;
    struct felix_bytes *payloads;
};

static void on_answer(void *context, const struct felix_publish_result *result) {
    load_done(context, result->err, result->error_text);
}

static enum felix_err issue_publish(struct load *load, struct load_op *op) {
    const struct felix_bytes *payloads = load->context;
    return felix_publish(load->client, load->bench->cli->space, load->bench->target, payloads,
                         op->weight, (enum felix_ack)load->bench->ack, on_answer, op);
}

/* Publishes without answers; fills *ret. Returns an exit code. */
static int run_unacknowledged(felix_client *client, const struct bench *bench,
                              const struct felix_bytes *payloads, struct load_result *ret) {
    uint64_t start_ns = clock_now_ns();
    bool by_time = bench->count == 0 || bench->duration_given;
    enum felix_err err = FELIX_OK;
    while (err == FELIX_OK && !cli_interrupted) {
        uint64_t due_ns = clock_now_ns();
        if (bench->rate > 0)
            due_ns = start_ns + (uint64_t)((double)ret->sent * 1e9 / bench->rate);
        if (by_time && due_ns - start_ns >= bench->duration_ns)
            break;
        uint64_t weight = bench->batch;
        if (bench->count != 0 && weight > bench->count - ret->sent)
            weight = bench->count - ret->sent;
        if (weight == 0)
            break;
        if (bench->rate > 0)
            cli_sleep_until(due_ns);
        err = felix_publish(client, bench->cli->space, bench->target, payloads, weight,
                            FELIX_ACK_NONE, NULL, NULL);
        ret->sent += err == FELIX_OK ? weight : 0;
    }
    if (err == FELIX_OK)
        err = felix_flush(client, cli_timeout_ms(bench->cli));
    ret->elapsed_ns = clock_now_ns() - start_ns;
    struct felix_stats stats;
    felix_client_stats(client, &stats);
    ret->failed = stats.publish_failed;
    if (err != FELIX_OK)
        return cli_failed("the benchmark ended early", err, NULL);
    return bench_verdict(bench, 0);
}

static void print_report(const struct bench *bench, const struct load_result *result,
                         const struct hist *latency) {
    struct bench_report report = {
        .bench = bench,
        .unit = "msg",
        .count = result->done,
        .counts = {{"sent", result->sent},
                   {"acked", result->done},
                   {"failed", result->failed},
                   {"lost", result->lost}},
        .elapsed_ns = result->elapsed_ns,
        .bytes_each = bench->size_bytes,
        .latency_name = "publish to answer",
        .latency = latency,
    };
    if (bench->ack == FELIX_ACK_NONE) {
        report.count = result->sent;
        report.counts[1] = report.counts[2];
        report.counts[2] = (struct bench_count){.name = NULL};
        report.note = "not acknowledged: this is what the network took";
    }
    bench_print(&report);
}

static int bench_pub_run(const struct bench *bench) {
    felix_client *client;
    int status = cli_connect(bench->cli, &client);
    if (status != CLI_GO_ON)
        return status;
    cli_catch_signals();
    void *zeros = xcalloc(1, bench->size_bytes + 1);
    struct felix_bytes *payloads = xcalloc(bench->batch, sizeof *payloads);
    for (uint64_t i = 0; i < bench->batch; i++)
        payloads[i] = (struct felix_bytes){.data = zeros, .len = bench->size_bytes};
    struct load load = {
        .bench = bench, .client = client, .issue = issue_publish, .context = payloads};
    struct load_result result = {.sent = 0};
    if (bench->ack == FELIX_ACK_NONE) {
        status = run_unacknowledged(client, bench, payloads, &result);
    } else {
        result = load_run(&load);
        status = load_verdict(&load, &result);
    }
    felix_close(client, 0);
    if (result.done > 0 || (bench->ack == FELIX_ACK_NONE && result.sent > 0))
        print_report(bench, &result, &load.latency);
    load_deinit(&load);
    free(payloads);
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
