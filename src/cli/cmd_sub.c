/*
 * felix sub: print what arrives, one message a line.
 *
 * Messages are taken from the subscription one by one and gathered; they are written when no other
 * one is waiting, or the gathered text is large. SIGINT ends the command cleanly, and so does a
 * reader of the output that has gone away (felix sub orders | head -1).
 */
#include "cli/cli.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

#define SUB_WRITE_BYTES ((size_t)64 << 10)

/* How often a quiet subscription looks at signals and at the reader of the output. */
#define SUB_LOOK_MS 100u

struct sub {
    struct cli *cli;
    const char *stream;
    const char *from;
    uint64_t count;
    bool raw;
    bool timestamps;
    bool terminal;
    uint64_t received;
    uint64_t bytes;
    uint64_t last_ns; /* of the last message, or the start */
    struct text out;
    bool reader_gone;
    bool write_failed;
};

static bool parse_from(const char *from, struct felix_subscribe_options *ret) {
    static const struct {
        const char *name;
        enum felix_start start;
    } starts[] = {{"latest", FELIX_START_LIVE}, {"earliest", FELIX_START_EARLIEST}};
    for (size_t i = 0; i < sizeof starts / sizeof starts[0]; i++) {
        if (strcmp(from, starts[i].name) == 0) {
            ret->start = starts[i].start;
            return true;
        }
    }
    ret->start = FELIX_START_OFFSET;
    return arg_u64_parse(from, &ret->offset);
}

static void add_message(struct sub *sub, const struct felix_message *message) {
    struct slice payload = slice_of(message->data, message->len);
    sub->received++;
    sub->bytes += message->len;
    if (sub->cli->json) {
        text_char(&sub->out, '{');
        if (message->has_offset)
            text_printf(&sub->out, "\"offset\":%llu,", (unsigned long long)message->offset);
        if (message->has_timestamp)
            text_printf(&sub->out, "\"timestamp\":\"%s\",", out_time(message->timestamp_us).text);
        out_json_payload(&sub->out, "payload", payload);
        text_add(&sub->out, "}\n");
        return;
    }
    if (sub->timestamps)
        text_printf(&sub->out, "%s\t",
                    message->has_timestamp ? out_time(message->timestamp_us).text : "-");
    if (sub->terminal)
        out_printable(&sub->out, payload);
    else
        text_bytes(&sub->out, payload);
    if (!sub->raw)
        text_char(&sub->out, '\n');
}

static bool write_out(struct sub *sub) {
    if (out_write(&sub->out, &sub->reader_gone))
        return true;
    if (!sub->reader_gone) {
        out_error("cannot write the output: the disk is full or the device failed");
        sub->write_failed = true;
    }
    return false;
}

/* Takes messages until the count is reached, the time is up, somebody ends it, or it fails. */
static enum felix_err receive(struct sub *sub, felix_subscription *subscription) {
    while (!cli_interrupted && sub->received < sub->count) {
        struct felix_message message;
        enum felix_err err = felix_next(subscription, 0, &message);
        if (err == FELIX_TIMED_OUT || err == FELIX_WOULD_BLOCK) {
            if (!write_out(sub))
                return FELIX_OK;
            err = felix_next(subscription, SUB_LOOK_MS, &message);
        }
        if (err == FELIX_OK) {
            add_message(sub, &message);
            sub->last_ns = sub->cli->timeout_given ? clock_now_ns() : 0;
            if (sub->out.len >= SUB_WRITE_BYTES && !write_out(sub))
                return FELIX_OK;
            continue;
        }
        if (err != FELIX_TIMED_OUT && err != FELIX_WOULD_BLOCK)
            return err;
        if (sub->cli->timeout_given && clock_now_ns() - sub->last_ns >= sub->cli->timeout_ns)
            return FELIX_TIMED_OUT;
        if (out_reader_gone())
            return FELIX_OK;
    }
    return FELIX_OK;
}

static int verdict(struct sub *sub, enum felix_err err, uint64_t dropped) {
    if (sub->write_failed)
        return EXIT_USAGE;
    if (dropped > 0)
        out_error("%llu messages were dropped because the output was too slow",
                  (unsigned long long)dropped);
    if (err == FELIX_TIMED_OUT && sub->received == 0) {
        if (!sub->cli->quiet)
            out_error("nothing was received from '%s' in %s", sub->stream,
                      out_duration(sub->cli->timeout_ns).text);
        return EXIT_NOTHING;
    }
    if (err == FELIX_TIMED_OUT && sub->count != UINT64_MAX) {
        out_error("only %llu of %llu messages came from '%s', then none for %s",
                  (unsigned long long)sub->received, (unsigned long long)sub->count, sub->stream,
                  out_duration(sub->cli->timeout_ns).text);
        return EXIT_TIMEOUT;
    }
    if (err != FELIX_OK && err != FELIX_TIMED_OUT) {
        char what[300];
        (void)snprintf(what, sizeof what, "the subscription to '%s' ended", sub->stream);
        return cli_failed(what, err, NULL);
    }
    bool incomplete = sub->count != UINT64_MAX && sub->received < sub->count;
    return cli_interrupted && incomplete ? EXIT_INTERRUPTED : EXIT_DONE;
}

static int sub_run(struct sub *sub, const struct felix_subscribe_options *options) {
    felix_client *client;
    int status = cli_connect(sub->cli, &client);
    if (status != CLI_GO_ON)
        return status;
    felix_subscription *subscription;
    enum felix_err err =
        felix_subscribe(client, sub->cli->space, sub->stream, options, &subscription);
    if (err != FELIX_OK) {
        char what[300];
        (void)snprintf(what, sizeof what, "cannot subscribe to stream '%s'", sub->stream);
        status = cli_failed(what, err, NULL);
        felix_close(client, 0);
        return status;
    }
    cli_catch_signals();
    if (!sub->cli->quiet && out_errors_are_terminal() && sub->terminal)
        (void)fprintf(stderr, "subscribed to %s/%s, Ctrl-C ends\n", sub->cli->space, sub->stream);
    sub->terminal = sub->terminal && !sub->cli->json;
    sub->last_ns = clock_now_ns();
    err = receive(sub, subscription);
    if (!sub->reader_gone && !sub->write_failed)
        (void)write_out(sub);
    status = verdict(sub, err, felix_subscription_dropped(subscription));
    text_deinit(&sub->out);
    felix_unsubscribe(subscription);
    felix_close(client, 0);
    return status;
}

int cmd_sub(struct cli *cli) {
    struct sub sub = {.cli = cli, .count = UINT64_MAX, .from = "latest"};
    const struct arg_option options[] = {
        {.name = "--from",
         .type = ARG_TEXT,
         .value = &sub.from,
         .words = "latest|earliest|OFFSET",
         .help = "where to begin: at the end, at the oldest message, or there (latest)"},
        {.name = "--count",
         .type = ARG_U64,
         .value = &sub.count,
         .min = 1,
         .meta = "N",
         .help = "end after N messages"},
        {.name = "--raw",
         .type = ARG_FLAG,
         .value = &sub.raw,
         .help = "print the bytes of each message and nothing between them"},
        {.name = "--timestamps",
         .type = ARG_FLAG,
         .value = &sub.timestamps,
         .help = "print when the broker stored each message (durable streams)"},
        {.name = NULL},
    };
    const struct command_help help = {
        .name = "felix sub",
        .summary = "subscribe to a stream and print what arrives",
        .usage = "STREAM",
        .text =
            "Each message is one line; on a terminal, control characters are shown escaped.\n"
            "--json prints one object a line, with the offset where the broker tells it and\n"
            "payload_base64 instead of payload where it is not UTF-8. --timestamps puts the time\n"
            "(UTC) and a tab before each message, - where it is not known. With --timeout it ends\n"
            "when nothing came for that long; without, it waits for ever.",
        .examples = "  felix sub orders\n"
                    "  felix sub orders --from earliest --count 10 --json\n"
                    "  felix sub pictures --count 1 --raw > picture.png\n"
                    "  felix sub orders --timeout 5s > orders.txt",
    };
    struct args args = {.options = options};
    int status = cli_parse(cli, &args, &help, 1, 1);
    if (status != CLI_GO_ON)
        return status;
    struct felix_subscribe_options subscribe = {.policy = FELIX_QUEUE_BLOCK};
    if (!parse_from(sub.from, &subscribe)) {
        char text[200];
        (void)snprintf(text, sizeof text,
                       "--from: '%.60s' is none of latest, earliest, or an offset", sub.from);
        return out_usage(help.name, text);
    }
    sub.stream = args.operands[0];
    if (sub.raw && (cli->json || sub.timestamps))
        return out_usage(help.name, cli->json ? "--raw and --json exclude each other"
                                              : "--raw and --timestamps exclude each other");
    sub.terminal = out_is_terminal() && !sub.raw;
    cli->event_timestamps = sub.timestamps;
    return sub_run(&sub, &subscribe);
}
