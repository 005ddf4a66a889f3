/*
 * felix bench latency: from publish to delivery, in one process and by one clock.
 *
 * A payload begins with the run's random number, the time at which it was meant to be published,
 * and its slot; what else is on the stream is ignored. Every delivery is a sample. In the closed
 * loop a slot publishes again when the last subscription has delivered.
 */
#include "cli/bench.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/rand.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

struct stamp {
    uint64_t run;
    uint64_t intended_ns;
    uint64_t slot; /* OPEN_LOOP: nobody waits for it */
};

#define OPEN_LOOP UINT64_MAX

struct bench_latency {
    uint64_t run;
    uint8_t *payload[2]; /* of the client's thread and of the main thread */
    _Atomic uint64_t received;
};

/* A slot publishes again when all subscriptions have delivered what it published. */
static void slot_delivered(struct load *load, const struct stamp *stamp) {
    if (stamp->slot >= load->slots_count)
        return;
    struct load_op *op = &load->slots[stamp->slot];
    if (op->intended_ns == stamp->intended_ns && --op->parts_left == 0)
        load_end(op, FELIX_OK, NULL);
}

static void on_messages(void *context, felix_subscription *subscription,
                        const struct felix_message *messages, size_t count) {
    struct load *load = context;
    struct bench_latency *latency = load->context;
    uint64_t now_ns = clock_now_ns();
    for (size_t i = 0; i < count; i++) {
        struct stamp stamp;
        if (messages[i].len < sizeof stamp)
            continue;
        memcpy(&stamp, messages[i].data, sizeof stamp);
        if (stamp.run != latency->run)
            continue;
        counter_add(&latency->received, 1);
        hist_record(&load->latency, now_ns - stamp.intended_ns);
        atomic_store_explicit(&load->last_done_ns, now_ns, memory_order_relaxed);
        if (stamp.slot != OPEN_LOOP)
            slot_delivered(load, &stamp);
    }
}

/* In the open loop this is the end of the operation; a slot ends here only when nothing will be
 * delivered. Of a lost connection nobody knows that. */
static void on_sent(void *context, const struct felix_publish_result *result) {
    struct load_op *op = context;
    if (!op->is_slot || (result->err != FELIX_OK && result->err != FELIX_OUTCOME_UNKNOWN))
        load_end(op, result->err, result->error_text);
}

static enum felix_err issue_stamped(struct load *load, struct load_op *op) {
    const struct bench_latency *latency = load->context;
    const struct bench *bench = load->bench;
    struct stamp stamp = {.run = latency->run,
                          .intended_ns = op->intended_ns,
                          .slot = op->is_slot ? op->slot : OPEN_LOOP};
    uint8_t *payload = latency->payload[load_on_main(load)];
    op->parts_left = (uint32_t)bench->fanout;
    memcpy(payload, &stamp, sizeof stamp);
    struct felix_bytes bytes = {.data = payload, .len = bench->size_bytes};
    return felix_publish(load->client, bench->cli->space, bench->target, &bytes, 1,
                         (enum felix_ack)bench->ack, on_sent, op);
}

static int subscribe_all(struct load *load, felix_subscription **all) {
    const struct bench *bench = load->bench;
    struct felix_subscribe_options options = {.on_messages = on_messages, .context = load};
    for (uint64_t i = 0; i < bench->fanout; i++) {
        enum felix_err err =
            felix_subscribe(load->client, bench->cli->space, bench->target, &options, &all[i]);
        if (err != FELIX_OK)
            return cli_failed("cannot subscribe", err, NULL);
    }
    return CLI_GO_ON;
}

/* The last publishes may still be on their way. Waits as long as something arrives. */
static void wait_for_deliveries(const struct load *load, uint64_t expected) {
    const struct bench_latency *latency = load->context;
    const struct timespec pause = {.tv_nsec = (long)NS_PER_MS};
    uint64_t seen = 0, seen_ns = clock_now_ns();
    for (;;) {
        uint64_t received = atomic_load(&latency->received), now_ns = clock_now_ns();
        if (received >= expected)
            return;
        if (received != seen)
            seen_ns = now_ns;
        else if (now_ns - seen_ns > load->bench->cli->timeout_ns)
            return;
        seen = received;
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
    }
}

/* Runs the load and turns its publishes into deliveries. Returns the exit code. */
static int measure(struct load *load, struct load_result *result) {
    const struct bench_latency *latency = load->context;
    *result = load_run(load);
    uint64_t expected = (result->sent - result->failed) * load->bench->fanout;
    if (load->bench->rate > 0)
        wait_for_deliveries(load, expected);
    result->done = atomic_load(&latency->received);
    result->lost = expected > result->done ? expected - result->done : 0;
    uint64_t last_ns = atomic_load(&load->last_done_ns);
    result->elapsed_ns = last_ns > load->start_ns ? last_ns - load->start_ns : 0;
    return load_verdict(load, result);
}

static int bench_latency_run(const struct bench *bench) {
    struct bench_latency latency = {.run = rand_u64()};
    struct load load = {.bench = bench, .issue = issue_stamped, .context = &latency};
    struct load_result result = {.sent = 0};
    int status = cli_connect(bench->cli, &load.client);
    if (status != CLI_GO_ON)
        return status;
    cli_catch_signals();
    for (size_t i = 0; i < 2; i++)
        latency.payload[i] = xcalloc(1, bench->size_bytes);
    felix_subscription **all = xcalloc(bench->fanout, sizeof *all);
    status = subscribe_all(&load, all);
    if (status == CLI_GO_ON)
        status = measure(&load, &result);
    for (uint64_t i = 0; i < bench->fanout; i++)
        felix_unsubscribe(all[i]);
    felix_close(load.client, 0);
    if (result.done > 0) {
        struct bench_report report = {.bench = bench,
                                      .unit = "msg",
                                      .count = result.done,
                                      .counts = {{"sent", result.sent},
                                                 {"failed", result.failed},
                                                 {"received", result.done},
                                                 {"lost", result.lost}},
                                      .elapsed_ns = result.elapsed_ns,
                                      .bytes_each = bench->size_bytes,
                                      .latency_name = "publish to delivery",
                                      .latency = &load.latency};
        bench_print(&report);
    }
    free(all);
    load_deinit(&load);
    for (size_t i = 0; i < 2; i++)
        free(latency.payload[i]);
    return status;
}

int cmd_bench_latency(struct cli *cli) {
    struct bench bench = {.cli = cli,
                          .name = "latency",
                          .target = "bench",
                          .duration_ns = 5 * NS_PER_S,
                          .size_bytes = 256,
                          .batch = 1,
                          .fanout = 1,
                          .concurrency = 1,
                          .ack = FELIX_ACK_NONE};
    struct arg_option options[BENCH_OPTIONS];
    bench_options(&bench, BENCH_SIZE | BENCH_RATE | BENCH_FANOUT | BENCH_CONCURRENCY | BENCH_ACK,
                  options);
    const struct command_help help = {
        .name = "felix bench latency",
        .summary = "time from publish to delivery",
        .usage = "[STREAM]",
        .text =
            "Publishes to STREAM (bench) and subscribes to it. With --rate, latency counts from\n"
            "the time at which a publish was due; without, one message is on its way at a time\n"
            "(--concurrency). Acknowledgements are off unless --ack asks for them.",
        .examples = "  felix bench latency\n"
                    "  felix bench latency --rate 5000 --fanout 10 --duration 30s --json",
    };
    struct args args = {.options = options};
    int status = cli_parse(cli, &args, &help, 0, 1);
    if (status != CLI_GO_ON)
        return status;
    if (bench.size_bytes < sizeof(struct stamp))
        return out_usage(help.name, "--size: at least 24 bytes are needed for the time stamp");
    if (args.operands_count == 1)
        bench.target = args.operands[0];
    return bench_latency_run(&bench);
}
