/* felix log write, bench: generated records, into a log without a broker. */
#include "cli/log_place.h"

#include "base/clock.h"
#include "cli/log_work.h"

#include <string.h>

static const char fsync_words[] = "none|periodic|on_commit";

/* Where, and whether it can be: from the operand that both commands end with. */
static int settle(struct cli *cli, const struct command_help *help, const char *named,
                  struct log_place *place, struct log_work *work) {
    int status = log_place_find(cli, help->name, named, LOG_PLACE_NEW, place);
    if (status != CLI_GO_ON)
        return status;
    struct felix_error error;
    work->dir = place->path;
    work->json = cli->json;
    work->quiet = cli->quiet;
    if (log_work_check(work, &error) != FELIX_OK)
        return out_usage(help->name, error.text);
    return CLI_GO_ON;
}

int cmd_log_write(struct cli *cli) {
    const char *dir = NULL;
    struct log_work work = log_work_defaults();
    uint32_t fsync = LOG_SYNC_ON_COMMIT;
    bool killed = false;
    work.records = 1000;
    const struct arg_option options[] = {
        {.name = "--dir",
         .type = ARG_TEXT,
         .value = &dir,
         .meta = "DIR",
         .help = "a directory, as the argument is"},
        {.name = "--records",
         .type = ARG_U64,
         .value = &work.records,
         .meta = "N",
         .help = "how many; 0: until stopped (1000)"},
        {.name = "--payload-bytes",
         .type = ARG_U64,
         .value = &work.payload_bytes,
         .meta = "N",
         .help = "of each record, at least 34 (128)"},
        {.name = "--batch",
         .type = ARG_U64,
         .value = &work.batch,
         .min = 1,
         .meta = "N",
         .help = "records in one append (1)"},
        {.name = "--fsync",
         .type = ARG_CHOICE,
         .value = &fsync,
         .words = fsync_words,
         .help = "when it is flushed (on_commit)"},
        {.name = "--fsync-interval",
         .type = ARG_DURATION,
         .value = &work.sync_interval_ns,
         .min = NS_PER_MS,
         .meta = "TIME",
         .help = "of periodic (250ms)"},
        {.name = "--segment-bytes",
         .type = ARG_U64,
         .value = &work.log.segment_bytes,
         .min = 60,
         .meta = "N",
         .help = "roll over beyond (67108864)"},
        {.name = "--report-acks",
         .type = ARG_FLAG,
         .value = &work.report_acks,
         .help = "print the offsets of each append once it is safe"},
        {.name = "--no-clean-shutdown",
         .type = ARG_FLAG,
         .value = &killed,
         .help = "leave the log as if the program had been killed"},
        {.name = NULL},
    };
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
    struct log_place place;
    const char *named = dir != NULL ? dir : args.operands_count > 0 ? args.operands[0] : NULL;
    work.log.sync = (enum log_sync)fsync;
    work.clean_shutdown = !killed;
    work.stop = &cli_interrupted;
    status = settle(cli, &help, named, &place, &work);
    if (status != CLI_GO_ON)
        return status;
    cli_catch_signals();
    struct felix_error error = {.text = ""};
    enum felix_err err = log_work_write(&work, &error);
    if (err != FELIX_OK)
        return log_place_failed(err, &error);
    return cli_interrupted && work.records != 0 ? EXIT_INTERRUPTED : EXIT_DONE;
}

int cmd_log_bench(struct cli *cli) {
    const char *dir = NULL;
    struct log_work work = log_work_defaults();
    uint32_t fsync = LOG_SYNC_ON_COMMIT;
    work.records = 20000;
    work.warmup_records = 2000;
    const struct arg_option options[] = {
        {.name = "--dir",
         .type = ARG_TEXT,
         .value = &dir,
         .meta = "DIR",
         .help = "a directory, as the argument is"},
        {.name = "--records",
         .type = ARG_U64,
         .value = &work.records,
         .min = 1,
         .meta = "N",
         .help = "write: how many (20000)"},
        {.name = "--payload-bytes",
         .type = ARG_U64,
         .value = &work.payload_bytes,
         .meta = "N",
         .help = "write: of each record, at least 34 (128)"},
        {.name = "--batch",
         .type = ARG_U64,
         .value = &work.batch,
         .min = 1,
         .meta = "N",
         .help = "write: records in one append (1)"},
        {.name = "--concurrency",
         .type = ARG_U64,
         .value = &work.concurrency,
         .min = 1,
         .meta = "N",
         .help = "write: appends under way at the same time (1)"},
        {.name = "--warmup-records",
         .type = ARG_U64,
         .value = &work.warmup_records,
         .meta = "N",
         .help = "write: before the clock starts (2000)"},
        {.name = "--fsync",
         .type = ARG_CHOICE,
         .value = &fsync,
         .words = fsync_words,
         .help = "write: when it is flushed (on_commit)"},
        {.name = "--fsync-interval",
         .type = ARG_DURATION,
         .value = &work.sync_interval_ns,
         .min = NS_PER_MS,
         .meta = "TIME",
         .help = "write: of periodic (250ms)"},
        {.name = "--segment-bytes",
         .type = ARG_U64,
         .value = &work.log.segment_bytes,
         .min = 60,
         .meta = "N",
         .help = "write: roll over beyond (67108864)"},
        {.name = "--label",
         .type = ARG_TEXT,
         .value = &work.label,
         .meta = "TEXT",
         .help = "repeated in the JSON output (run)"},
        {.name = NULL},
    };
    const struct command_help help = {
        .name = "felix log bench",
        .summary = "measure writing to, or reading from, a log",
        .usage = "write|read DIR",
        .text = "Through the threads that serve a broker's logs, without network and broker: what\n"
                "the disk and the log give. 'write' appends generated records, 'read' reads all\n"
                "that is there. A latency is from handing an append over to knowing it safe.",
        .examples = "  felix log bench write /data/bench --concurrency 64 --payload-bytes 256\n"
                    "  felix log bench read /data/bench",
    };
    struct args args = {.options = options};
    int status = cli_parse(cli, &args, &help, 1, 2);
    if (status != CLI_GO_ON)
        return status;
    bool read = strcmp(args.operands[0], "read") == 0;
    if (!read && strcmp(args.operands[0], "write") != 0)
        return out_usage(help.name, "what is to be measured: write or read?");
    struct log_place place;
    const char *named = dir != NULL ? dir : args.operands_count > 1 ? args.operands[1] : NULL;
    work.log.sync = (enum log_sync)fsync;
    status = settle(cli, &help, named, &place, &work);
    if (status == CLI_GO_ON && read)
        status = log_place_find(cli, help.name, named, LOG_PLACE_ONE, &place);
    if (status != CLI_GO_ON)
        return status;
    struct felix_error error = {.text = ""};
    enum felix_err err =
        read ? log_work_bench_read(&work, &error) : log_work_bench_write(&work, &error);
    return err == FELIX_OK ? EXIT_DONE : log_place_failed(err, &error);
}
