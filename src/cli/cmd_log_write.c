/* felix log write, bench: generated records, into a log without a broker. */
#include "cli/log_place.h"

#include "base/clock.h"
#include "cli/log_work.h"

#include <string.h>

/* What both commands take. */
struct request {
    struct log_work work;
    struct log_place place; /* work.dir points into it */
    const char *dir;
    uint32_t fsync; /* enum log_sync */
};

#define SHARED_OPTIONS 6u

/* Adds them behind the `count` options of a table that has room, and its end. */
static void add_shared_options(struct request *r, struct arg_option *table, size_t count) {
    const struct arg_option shared[SHARED_OPTIONS + 1] = {
        {.name = "--dir",
         .type = ARG_TEXT,
         .value = &r->dir,
         .meta = "DIR",
         .help = "a directory, as the argument is"},
        {.name = "--payload-bytes",
         .type = ARG_U64,
         .value = &r->work.payload_bytes,
         .meta = "N",
         .help = "of each record that is written, at least 34 (128)"},
        {.name = "--batch",
         .type = ARG_U64,
         .value = &r->work.batch,
         .min = 1,
         .meta = "N",
         .help = "records in one append (1)"},
        {.name = "--fsync",
         .type = ARG_CHOICE,
         .value = &r->fsync,
         .words = "none|periodic|on_commit",
         .help = "when what is written is flushed (on_commit)"},
        {.name = "--fsync-interval",
         .type = ARG_DURATION,
         .value = &r->work.sync_interval_ns,
         .min = NS_PER_MS,
         .meta = "TIME",
         .help = "of periodic (250ms)"},
        {.name = "--segment-bytes",
         .type = ARG_U64,
         .value = &r->work.log.segment_bytes,
         .min = 60,
         .meta = "N",
         .help = "roll over beyond (67108864)"},
        {.name = NULL},
    };
    memcpy(table + count, shared, sizeof shared);
}

/* Where, and whether it can be; `operand` is the directory, or NULL. */
static int settle(struct cli *cli, const struct command_help *help, const char *operand,
                  enum log_place_kind kind, struct request *r) {
    const char *named = r->dir != NULL ? r->dir : operand;
    int status = log_place_find(cli, help->name, named, kind, &r->place);
    if (status != CLI_GO_ON)
        return status;
    struct felix_error error;
    r->work.dir = r->place.path;
    r->work.json = cli->json;
    r->work.quiet = cli->quiet;
    r->work.log.sync = (enum log_sync)r->fsync;
    if (log_work_check(&r->work, &error) != FELIX_OK)
        return out_usage(help->name, error.text);
    return CLI_GO_ON;
}

int cmd_log_write(struct cli *cli) {
    struct request r = {.work = log_work_defaults(), .fsync = LOG_SYNC_ON_COMMIT};
    bool killed = false;
    r.work.records = 1000;
    struct arg_option options[3 + SHARED_OPTIONS + 1] = {
        {.name = "--records",
         .type = ARG_U64,
         .value = &r.work.records,
         .meta = "N",
         .help = "how many; 0: until stopped (1000)"},
        {.name = "--report-acks",
         .type = ARG_FLAG,
         .value = &r.work.report_acks,
         .help = "print the offsets of each append once it is safe"},
        {.name = "--no-clean-shutdown",
         .type = ARG_FLAG,
         .value = &killed,
         .help = "leave the log as if the program had been killed"},
    };
    add_shared_options(&r, options, 3);
    const struct command_help help = {
        .name = "felix log write",
        .summary = "write generated records into a log",
        .usage = "DIR",
        .text =
            "Appends at the end of the log in DIR, which is made when it is not there, without a\n"
            "broker. The payload of record N is 'felix-record-', N in 20 digits, '-', and bytes\n"
            "that count up; 'felix log verify --payload-bytes' knows them. For tests of crashes.",
        .examples = "  felix log write /tmp/log --records 0 --report-acks > acks & kill -9 $!",
    };
    struct args args = {.options = options};
    int status = cli_parse(cli, &args, &help, 0, 1);
    if (status != CLI_GO_ON)
        return status;
    r.work.clean_shutdown = !killed;
    r.work.stop = &cli_interrupted;
    status =
        settle(cli, &help, args.operands_count > 0 ? args.operands[0] : NULL, LOG_PLACE_NEW, &r);
    if (status != CLI_GO_ON)
        return status;
    cli_catch_signals();
    struct felix_error error = {.text = ""};
    enum felix_err err = log_work_write(&r.work, &error);
    if (err != FELIX_OK)
        return log_place_failed(err, &error);
    return cli_interrupted && r.work.records != 0 ? EXIT_INTERRUPTED : EXIT_DONE;
}

static int bench(struct cli *cli, const struct command_help *help, const struct args *args,
                 struct request *r) {
    bool read = strcmp(args->operands[0], "read") == 0;
    if (!read && strcmp(args->operands[0], "write") != 0)
        return out_usage(help->name, "what is to be measured: write or read?");
    int status = settle(cli, help, args->operands_count > 1 ? args->operands[1] : NULL,
                        read ? LOG_PLACE_ONE : LOG_PLACE_NEW, r);
    if (status != CLI_GO_ON)
        return status;
    struct felix_error error = {.text = ""};
    enum felix_err err =
        read ? log_work_bench_read(&r->work, &error) : log_work_bench_write(&r->work, &error);
    return err == FELIX_OK ? EXIT_DONE : log_place_failed(err, &error);
}

int cmd_log_bench(struct cli *cli) {
    struct request r = {.work = log_work_defaults(), .fsync = LOG_SYNC_ON_COMMIT};
    r.work.records = 20000;
    r.work.warmup_records = 2000;
    struct arg_option options[4 + SHARED_OPTIONS + 1] = {
        {.name = "--records",
         .type = ARG_U64,
         .value = &r.work.records,
         .min = 1,
         .meta = "N",
         .help = "write: how many (20000)"},
        {.name = "--concurrency",
         .type = ARG_U64,
         .value = &r.work.concurrency,
         .min = 1,
         .meta = "N",
         .help = "write: appends under way at the same time (1)"},
        {.name = "--warmup-records",
         .type = ARG_U64,
         .value = &r.work.warmup_records,
         .meta = "N",
         .help = "write: before the clock starts (2000)"},
        {.name = "--label",
         .type = ARG_TEXT,
         .value = &r.work.label,
         .meta = "TEXT",
         .help = "repeated in the JSON output (run)"},
    };
    add_shared_options(&r, options, 4);
    const struct command_help help = {
        .name = "felix log bench",
        .summary = "measure writing to, or reading from, a log",
        .usage = "write|read DIR",
        .text = "Through the threads that serve a broker's logs, without network and broker: what\n"
                "the disk and the log give. 'write' appends generated records, 'read' reads all\n"
                "that is there. A latency is from handing an append over to knowing it safe. The\n"
                "log is opened as a broker opens it, which repairs it.",
        .examples = "  felix log bench write /data/bench --concurrency 64 --payload-bytes 256\n"
                    "  felix log bench read /data/bench",
    };
    struct args args = {.options = options};
    int status = cli_parse(cli, &args, &help, 1, 2);
    return status == CLI_GO_ON ? bench(cli, &help, &args, &r) : status;
}
