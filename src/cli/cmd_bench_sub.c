/*
 * felix bench sub: counts what others publish. The clock starts with the first message; nothing is
 * kept, so what is measured is the broker, the network and this client.
 */
#include "cli/bench.h"

#include "base/check.h"
#include "base/clock.h"

#include <stdlib.h>

struct bench_sub;

/* One of the subscriptions. */
struct counted {
    struct bench_sub *sub;
    felix_subscription *subscription;
    _Atomic uint64_t received;
};

struct bench_sub {
    const struct bench *bench;
    struct counted *each; /* bench->fanout of them */
    _Atomic uint64_t bytes;
    _Atomic uint64_t first_ns;
    _Atomic uint64_t last_ns;
    _Atomic int ended; /* enum felix_err */
    char end_text[200];
};

/* All on the client's one thread; the main thread only reads. */
static void on_messages(void *context, felix_subscription *subscription,
                        const struct felix_message *messages, size_t count) {
    struct counted *counted = context;
    struct bench_sub *sub = counted->sub;
    uint64_t now_ns = clock_now_ns(), bytes = 0;
    for (size_t i = 0; i < count; i++)
        bytes += messages[i].len;
    if (atomic_load_explicit(&sub->first_ns, memory_order_relaxed) == 0)
        atomic_store_explicit(&sub->first_ns, now_ns, memory_order_relaxed);
    atomic_store_explicit(&sub->last_ns, now_ns, memory_order_relaxed);
    counter_add(&counted->received, count);
    counter_add(&sub->bytes, bytes);
}

static void on_end(void *context, felix_subscription *subscription, enum felix_err err,
                   const char *error_text) {
    struct bench_sub *sub = ((struct counted *)context)->sub;
    if (atomic_load_explicit(&sub->ended, memory_order_relaxed) != FELIX_OK)
        return;
    (void)snprintf(sub->end_text, sizeof sub->end_text, "%s", error_text);
    atomic_store_explicit(&sub->ended, (int)err, memory_order_release);
}

struct tally {
    uint64_t received;
    uint64_t lost; /* of those that --count asks for */
};

static struct tally tally_of(const struct bench_sub *sub) {
    struct tally t = {.received = 0};
    for (uint64_t i = 0; i < sub->bench->fanout; i++) {
        uint64_t received = atomic_load(&sub->each[i].received);
        t.received += received;
        if (received < sub->bench->count)
            t.lost += sub->bench->count - received;
    }
    return t;
}

/* Watches until enough came, the time is over, or nothing comes. Returns the exit code. */
static int watch(const struct bench_sub *sub) {
    const struct bench *bench = sub->bench;
    const struct cli *cli = bench->cli;
    uint64_t start_ns = clock_now_ns();
    while (!cli_interrupted) {
        cli_sleep_until(clock_now_ns() + 10 * NS_PER_MS);
        uint64_t now_ns = clock_now_ns(), first_ns = atomic_load(&sub->first_ns);
        enum felix_err ended = (enum felix_err)atomic_load(&sub->ended);
        if (ended != FELIX_OK)
            return cli_failed("the subscription ended", ended, sub->end_text);
        uint64_t last_ns = first_ns == 0 ? start_ns : atomic_load(&sub->last_ns);
        struct tally tally = tally_of(sub);
        if (bench->count != 0 && tally.lost == 0)
            return EXIT_DONE;
        if (cli->timeout_given && now_ns > last_ns && now_ns - last_ns > cli->timeout_ns)
            return bench_verdict(bench, tally.lost);
        bool by_time = bench->count == 0 || bench->duration_given;
        if (by_time && first_ns != 0 && now_ns - first_ns >= bench->duration_ns)
            return bench_verdict(bench, tally.lost);
    }
    return bench->count == 0 ? EXIT_DONE : EXIT_INTERRUPTED;
}

static int subscribe_all(struct bench_sub *sub, felix_client *client) {
    const struct bench *bench = sub->bench;
    for (uint64_t i = 0; i < bench->fanout; i++) {
        struct counted *counted = &sub->each[i];
        counted->sub = sub;
        struct felix_subscribe_options options = {
            .on_messages = on_messages, .on_end = on_end, .context = counted};
        enum felix_err err = felix_subscribe(client, bench->cli->space, bench->target, &options,
                                             &counted->subscription);
        if (err != FELIX_OK)
            return cli_failed("cannot subscribe", err, NULL);
    }
    if (!bench->cli->quiet && out_errors_are_terminal())
        (void)fprintf(stderr, "waiting for messages on '%s' ('felix bench pub %s' sends some)\n",
                      bench->target, bench->target);
    return CLI_GO_ON;
}

static void print_report(const struct bench_sub *sub, const struct tally *tally) {
    struct bench_report report = {
        .bench = sub->bench,
        .unit = "msg",
        .count = tally->received,
        .counts = {{"received", tally->received}},
        .elapsed_ns = atomic_load(&sub->last_ns) - atomic_load(&sub->first_ns),
        .bytes_each = atomic_load(&sub->bytes) / tally->received,
    };
    if (sub->bench->count != 0)
        report.counts[1] = (struct bench_count){"lost", tally->lost};
    bench_print(&report);
}

static int bench_sub_run(const struct bench *bench) {
    felix_client *client;
    int status = cli_connect(bench->cli, &client);
    if (status != CLI_GO_ON)
        return status;
    cli_catch_signals();
    struct bench_sub sub = {.bench = bench};
    sub.each = xcalloc(bench->fanout, sizeof *sub.each);
    status = subscribe_all(&sub, client);
    if (status == CLI_GO_ON)
        status = watch(&sub);
    struct tally tally = tally_of(&sub);
    for (uint64_t i = 0; i < bench->fanout; i++)
        felix_unsubscribe(sub.each[i].subscription);
    felix_close(client, 0);
    if (tally.received > 0)
        print_report(&sub, &tally);
    else if (status == EXIT_DONE || status == EXIT_TIMEOUT) {
        out_error("nothing was received from '%s'", bench->target);
        status = EXIT_NOTHING;
    }
    free(sub.each);
    return status;
}

int cmd_bench_sub(struct cli *cli) {
    struct bench bench = {.cli = cli,
                          .name = "sub",
                          .target = "bench",
                          .duration_ns = 5 * NS_PER_S,
                          .batch = 1,
                          .fanout = 1};
    struct arg_option options[BENCH_OPTIONS];
    bench_options(&bench, BENCH_FANOUT, options);
    const struct command_help help = {
        .name = "felix bench sub",
        .summary = "count what arrives on a stream",
        .usage = "[STREAM]",
        .text =
            "Subscribes to STREAM (bench) and measures from the first message on. Ends after\n"
            "--duration, or --count messages for each subscription, and with --timeout when none\n"
            "came for that long; what is then missing of --count is lost.",
        .examples = "  felix bench sub orders --fanout 10 --duration 10s",
    };
    struct args args = {.options = options};
    int status = cli_parse(cli, &args, &help, 0, 1);
    if (status != CLI_GO_ON)
        return status;
    if (args.operands_count == 1)
        bench.target = args.operands[0];
    return bench_sub_run(&bench);
}
