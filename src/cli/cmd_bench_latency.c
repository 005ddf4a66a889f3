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

struct stamp {
    uint64_t run;
    uint64_t intended_ns;
    uint64_t slot; /* OPEN_LOOP: nobody waits for it */
};

#define OPEN_LOOP UINT64_MAX

struct bench_latency {
    uint64_t run;
    uint8_t *payload; /* of the publish that is being made; one thread at a time holds the lock */
    atomic_flag busy;
    _Atomic uint64_t delivered;
};

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
        counter_add(&latency->delivered, 1);
        if (stamp.slot == OPEN_LOOP) {
            hist_record(load->latency, now_ns - stamp.intended_ns);
            atomic_store_explicit(&load->last_done_ns, now_ns, memory_order_relaxed);
            continue;
        }
        if (stamp.slot >= load->slots_count)
            continue;
        struct load_op *op = &load->slots[stamp.slot];
        if (op->parts_left > 1) {
            op->parts_left--;
            hist_record(load->latency, now_ns - op->intended_ns);
            continue;
        }
        load_done(op, FELIX_OK, NULL);
    }
}

static void on_sent(void *context, enum felix_err err, const char *error_text) {
    struct load *load = context;
    int none = FELIX_OK;
    if (err == FELIX_OK)
        return;
    if (atomic_compare_exchange_strong(&load->first_err, &none, (int)err))
        (void)snprintf(load->first_error_text, sizeof load->first_error_text, "%s", error_text);
    atomic_store(&load->stop, true);
}

/* The main thread starts the slots while deliveries already publish again: the payload buffer is
 * shared, and held for a copy of some hundred bytes. */
static enum felix_err issue_stamped(struct load *load, struct load_op *op) {
    struct bench_latency *latency = load->context;
    const struct bench *bench = load->bench;
    bool closed = op->owned_by_slot;
    struct stamp stamp = {
        .run = latency->run, .intended_ns = op->intended_ns, .slot = closed ? op->slot : OPEN_LOOP};
    op->parts_left = (uint32_t)bench->fanout;
    while (atomic_flag_test_and_set_explicit(&latency->busy, memory_order_acquire))
        continue;
    memcpy(latency->payload, &stamp, sizeof stamp);
    struct felix_bytes payload = {.data = latency->payload, .len = bench->size_bytes};
    enum felix_err err = felix_publish(load->client, bench->cli->space, bench->target, &payload, 1,
                                       (enum felix_ack)bench->ack, on_sent, load);
    atomic_flag_clear_explicit(&latency->busy, memory_order_release);
    if (err == FELIX_OK && !closed) {
        /* Deliveries carry their own time, so the operation has nothing left to wait for. */
        (void)atomic_fetch_add_explicit(&load->finished, 1, memory_order_release);
        free(op);
    }
    return err;
}

static int subscribe_all(struct load *load, felix_subscription **all) {
    const struct bench *bench = load->bench;
    struct felix_subscribe_options options = {.on_messages = on_messages, .context = load};
    for (uint64_t i = 0; i < bench->fanout; i++) {
        enum felix_err err =
            felix_subscribe(load->client, bench->cli->space, bench->target, &options, &all[i]);
        if (err != FELIX_OK)
            return cli_failed(bench->cli, "cannot subscribe", err, NULL);
    }
    return CLI_GO_ON;
}

/* Open loop: the last publishes may still be on their way. True when everything arrived. */
static bool wait_for_deliveries(const struct load *load) {
    const struct bench_latency *latency = load->context;
    uint64_t deadline_ns = clock_now_ns() + load->bench->cli->timeout_ns;
    uint64_t expected = atomic_load(&load->issued) * load->bench->fanout;
    while (atomic_load(&latency->delivered) < expected && !cli_interrupted) {
        if (clock_now_ns() > deadline_ns)
            return false;
        struct timespec pause = {.tv_nsec = (long)NS_PER_MS};
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
    }
    return true;
}

static int bench_latency_run(struct bench *bench) {
    struct bench_latency latency = {.run = rand_u64(), .busy = ATOMIC_FLAG_INIT};
    struct load load = {.bench = bench, .issue = issue_stamped, .context = &latency, .weight = 1};
    int status = cli_connect(bench->cli, &load.client);
    if (status != CLI_GO_ON)
        return status;
    cli_catch_signals();
    latency.payload = xcalloc(1, bench->size_bytes);
    load.latency = xcalloc(1, sizeof *load.latency);
    felix_subscription **all = xcalloc(bench->fanout, sizeof *all);
    status = subscribe_all(&load, all);
    if (status == CLI_GO_ON)
        status = load_run(&load);
    if (status == CLI_GO_ON && !wait_for_deliveries(&load)) {
        out_error("only %llu of %llu deliveries arrived",
                  (unsigned long long)atomic_load(&latency.delivered),
                  (unsigned long long)(atomic_load(&load.issued) * bench->fanout));
        status = EXIT_TIMEOUT;
    }
    for (uint64_t i = 0; i < bench->fanout; i++)
        felix_unsubscribe(all[i]);
    felix_close(load.client, 0);
    if (status == CLI_GO_ON) {
        uint64_t last_ns = atomic_load(&load.last_done_ns);
        struct bench_report report = {.bench = bench,
                                      .unit = "msg",
                                      .latency_name = "publish to delivery",
                                      .count = atomic_load(&latency.delivered),
                                      .elapsed_ns = last_ns - load.start_ns,
                                      .bytes_each = bench->size_bytes,
                                      .latency = load.latency};
        bench_print(&report);
        status = EXIT_DONE;
    }
    free(all);
    free(load.slots);
    free(load.latency);
    free(latency.payload);
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
