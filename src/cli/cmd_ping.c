/* felix ping: round trips on a live connection, as an application would see them. */
#include "cli/cli.h"

#include "base/check.h"
#include "base/clock.h"

#include <stdlib.h>

struct ping {
    uint64_t count;
    uint64_t interval_ns;
    uint64_t *rtt_ns;
    uint64_t answered;
};

static void print_one(const struct cli *cli, const struct ping *ping) {
    uint64_t rtt_ns = ping->rtt_ns[ping->answered - 1];
    if (cli->json || cli->quiet)
        return;
    if (out_is_terminal())
        (void)printf("pong from %s: %s\n", felix_options_server(cli->options),
                     out_duration(rtt_ns).text);
    else
        (void)printf("%llu\t%.1f\n", (unsigned long long)ping->answered, (double)rtt_ns / 1e3);
    (void)fflush(stdout);
}

static void print_summary(const struct cli *cli, const struct ping *ping) {
    uint64_t min = UINT64_MAX, max = 0, sum = 0;
    for (uint64_t i = 0; i < ping->answered; i++) {
        uint64_t rtt = ping->rtt_ns[i];
        min = rtt < min ? rtt : min;
        max = rtt > max ? rtt : max;
        sum += rtt;
    }
    uint64_t mean = sum / ping->answered;
    if (cli->json) {
        struct text line = {0};
        text_add(&line, "{\"server\":");
        text_quoted(&line, slice_str(felix_options_server(cli->options)));
        text_printf(&line,
                    ",\"count\":%llu,\"min_us\":%.1f,\"mean_us\":%.1f,\"max_us\":%.1f,"
                    "\"rtt_us\":[",
                    (unsigned long long)ping->answered, (double)min / 1e3, (double)mean / 1e3,
                    (double)max / 1e3);
        for (uint64_t i = 0; i < ping->answered; i++)
            text_printf(&line, "%s%.1f", i > 0 ? "," : "", (double)ping->rtt_ns[i] / 1e3);
        text_add(&line, "]}");
        (void)puts(text_str(&line));
        text_deinit(&line);
    } else if (!cli->quiet && ping->answered > 1 && out_is_terminal()) {
        (void)printf("min %s, mean %s, max %s\n", out_duration(min).text, out_duration(mean).text,
                     out_duration(max).text);
    }
}

int cmd_ping(struct cli *cli) {
    struct ping ping = {.count = 4, .interval_ns = 100 * NS_PER_MS};
    const struct arg_option options[] = {
        {.name = "--count",
         .type = ARG_U64,
         .value = &ping.count,
         .min = 1,
         .max = 1000000,
         .meta = "N",
         .help = "how many round trips (4)"},
        {.name = "--interval",
         .type = ARG_DURATION,
         .value = &ping.interval_ns,
         .meta = "TIME",
         .help = "pause between them (100ms)"},
        {.name = NULL},
    };
    const struct command_help help = {
        .name = "felix ping",
        .summary = "measure the round trip to the broker",
        .usage = "",
        .text =
            "Connects, authenticates, then sends one request after the other. Into a pipe: number\n"
            "and microseconds, split by a tab.",
        .examples = "  felix ping\n  felix ping --server broker.example.org:5000 --count 10 --json",
    };
    struct args args = {.options = options};
    int status = cli_parse(cli, &args, &help, 0, 0);
    if (status != CLI_GO_ON)
        return status;
    felix_client *client;
    status = cli_connect(cli, &client);
    if (status != CLI_GO_ON)
        return status;
    cli_catch_signals();
    ping.rtt_ns = xcalloc(ping.count, sizeof *ping.rtt_ns);
    enum felix_err err = FELIX_OK;
    while (err == FELIX_OK && ping.answered < ping.count && !cli_interrupted) {
        if (ping.answered > 0)
            cli_sleep_until(clock_now_ns() + ping.interval_ns);
        if (cli_interrupted)
            break;
        err = felix_ping(client, cli_timeout_ms(cli), &ping.rtt_ns[ping.answered]);
        if (err != FELIX_OK)
            break;
        ping.answered++;
        print_one(cli, &ping);
    }
    status = ping.answered == ping.count ? EXIT_DONE : EXIT_INTERRUPTED;
    if (err != FELIX_OK)
        status = cli_failed("no answer to a ping", err, NULL);
    else if (ping.answered > 0)
        print_summary(cli, &ping);
    free(ping.rtt_ns);
    felix_close(client, 0);
    return status;
}
