/*
 * felix bench sub: counts what others publish. The clock starts with the first message; nothing is
 * kept, so what is measured is the broker, the network and this client.
 */
#include "cli/bench.h"

#include "base/check.h"
#include "base/clock.h"

#include <stdlib.h>

struct bench_sub {
    struct bench *bench;
    _Atomic uint64_t received;
    _Atomic uint64_t bytes;
    _Atomic uint64_t first_ns;
    _Atomic uint64_t last_ns;
    _Atomic int ended; /* enum felix_err */
};

/* All on the client's one thread; the main thread only reads. */
static void on_messages(void *context, felix_subscription *subscription,
                        const struct felix_message *messages, size_t count) {
    struct bench_sub *sub = context;
    uint64_t now_ns = clock_now_ns(), bytes = 0;
    for (size_t i = 0; i < count; i++)
        bytes += messages[i].len;
    if (atomic_load_explicit(&sub->first_ns, memory_order_relaxed) == 0)
        atomic_store_explicit(&sub->first_ns, now_ns, memory_order_relaxed);
    atomic_store_explicit(&sub->last_ns, now_ns, memory_order_relaxed);
    counter_add(&sub->received, count);
    counter_add(&sub->bytes, bytes);
}

static void on_end(void *context, felix_subscription *subscription, enum felix_err err,
                   const char *error_text) {
    struct bench_sub *sub = context;
    atomic_store(&sub->ended, (int)err);
}

/* Watches until enough came. Returns CLI_GO_ON, or an exit code after saying why. */
static int watch(struct bench_sub *sub) {
    const struct bench *bench = sub->bench;
    uint64_t start_ns = clock_now_ns();
    while (!cli_interrupted) {
        struct timespec pause = {.tv_nsec = 10 * (long)NS_PER_MS};
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
        uint64_t now_ns = clock_now_ns(), first_ns = atomic_load(&sub->first_ns);
        enum felix_err ended = (enum felix_err)atomic_load(&sub->ended);
        if (ended != FELIX_OK)
            return cli_failed(bench->cli, "the subscription ended", ended, felix_err_text(ended));
        if (first_ns == 0) {
            if (bench->cli->timeout_given && now_ns - start_ns > bench->cli->timeout_ns) {
                out_error("nothing was received from '%s' in %s", bench->target,
                          out_duration(bench->cli->timeout_ns).text);
                return EXIT_NOTHING;
            }
            continue;
        }
        if (bench->count != 0 && atomic_load(&sub->received) >= bench->count * bench->fanout)
            break;
        if ((bench->count == 0 || bench->duration_given) && now_ns - first_ns >= bench->duration_ns)
            break;
    }
    return atomic_load(&sub->received) > 0 ? CLI_GO_ON : EXIT_NOTHING;
}

static int bench_sub_run(struct bench *bench) {
    felix_client *client;
    int status = cli_connect(bench->cli, &client);
    if (status != CLI_GO_ON)
        return status;
    cli_catch_signals();
    struct bench_sub sub = {.bench = bench};
    struct felix_subscribe_options options = {
        .on_messages = on_messages, .on_end = on_end, .context = &sub};
    felix_subscription **all = xcalloc(bench->fanout, sizeof *all);
    for (uint64_t i = 0; i < bench->fanout && status == CLI_GO_ON; i++) {
        enum felix_err err =
            felix_subscribe(client, bench->cli->space, bench->target, &options, &all[i]);
        if (err != FELIX_OK)
            status = cli_failed(bench->cli, "cannot subscribe", err, NULL);
    }
    if (status == CLI_GO_ON && !bench->cli->quiet && out_errors_are_terminal())
        (void)fprintf(stderr, "waiting for messages on '%s' ('felix bench pub %s' sends some)\n",
                      bench->target, bench->target);
    if (status == CLI_GO_ON)
        status = watch(&sub);
    uint64_t received = atomic_load(&sub.received), bytes = atomic_load(&sub.bytes);
    uint64_t elapsed_ns = atomic_load(&sub.last_ns) - atomic_load(&sub.first_ns);
    for (uint64_t i = 0; i < bench->fanout; i++)
        felix_unsubscribe(all[i]);
    felix_close(client, 0);
    free(all);
    if (status != CLI_GO_ON)
        return status;
    char note[64];
    (void)snprintf(note, sizeof note, "each of the %llu subscriptions got a part of this",
                   (unsigned long long)bench->fanout);
    struct bench_report report = {.bench = bench,
                                  .unit = "msg",
                                  .count = received,
                                  .elapsed_ns = elapsed_ns,
                                  .bytes_each = bytes / received,
                                  .note = bench->fanout > 1 ? note : NULL};
    bench_print(&report);
    return EXIT_DONE;
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
            "--duration, or --count messages for each subscription; with --timeout, exits with 1\n"
            "when nothing came in that time.",
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
