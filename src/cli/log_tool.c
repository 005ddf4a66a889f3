/*
 * felix-log-tool: write, verify and measure a log, with the arguments and the output of the tool
 * of that name that came before. `felix log` does the same and more, in today's manner.
 * Source: broker specification 7.
 *
 * Options are "--name value" and "--name=value". One that needs no value takes the word behind it
 * along all the same, unless that begins with "--". Unknown options end it.
 */
#include "base/clock.h"
#include "cli/args.h"
#include "cli/log_work.h"
#include "cli/out.h"

#include <stdio.h>
#include <string.h>

static const char usage[] =
    "usage: felix-log-tool write|verify|bench --dir PATH [OPTION...]\n"
    "\n"
    "  --dir PATH                        the log's own directory; required\n"
    "  --fsync none|periodic|on_commit   when it is flushed (on_commit)\n"
    "  --fsync-interval-ms N             of periodic (250)\n"
    "  --segment-bytes N                 roll over beyond (67108864)\n"
    "  --index-spacing-bytes N           between two index entries (4096)\n"
    "  --no-preallocate                  do not set the length of the newest segment ahead\n"
    "  --rollover-threshold-percent N    accepted; segments roll over when they are full (100)\n"
    "  --max-overshoot-percent N         accepted (100)\n"
    "\n"
    "write: append generated records at the end\n"
    "  --records N         0: until it is killed (0)\n"
    "  --payload-bytes N   (128)\n"
    "  --batch N           records in an append (1)\n"
    "  --report-acks       a line for each append that is as safe as --fsync promises\n"
    "  --clean-shutdown    close the log in order\n"
    "verify: open the log as a broker does, which repairs it, and read all of it\n"
    "  --expect-at-least N records\n"
    "  --payload-bytes N   also check that payloads are the generated ones of that size\n"
    "bench: measure appends\n"
    "  --records N         (20000)\n"
    "  --payload-bytes N   (128)\n"
    "  --batch N           (1)\n"
    "  --concurrency N     appends under way (1)\n"
    "  --warmup-records N  before the clock starts (2000)\n"
    "  --label TEXT        repeated in the output (run)\n"
    "\n"
    "Output: a JSON object a line. Status: 0 done, 1 failed, 2 wrong arguments.\n";

enum tool_command { TOOL_WRITE = 1, TOOL_VERIFY = 2, TOOL_BENCH = 4 };
#define TOOL_ALL (TOOL_WRITE | TOOL_VERIFY | TOOL_BENCH)

struct tool {
    enum tool_command command;
    struct log_work work;
    const char *fsync;
    uint64_t interval_ms, spacing, ignored;
    bool no_preallocate, payload_given;
};

struct tool_option {
    const char *name;
    unsigned commands; /* that know it */
    const char **text;
    uint64_t *number;
    bool *flag; /* with `number`: that it was given */
};

#define TOOL_OPTIONS 17

static void options_of(struct tool *tool, struct tool_option ret[TOOL_OPTIONS]) {
    struct log_work *work = &tool->work;
    const struct tool_option table[TOOL_OPTIONS] = {
        {"dir", TOOL_ALL, &work->dir, NULL, NULL},
        {"fsync", TOOL_ALL, &tool->fsync, NULL, NULL},
        {"fsync-interval-ms", TOOL_ALL, NULL, &tool->interval_ms, NULL},
        {"segment-bytes", TOOL_ALL, NULL, &work->log.segment_bytes, NULL},
        {"index-spacing-bytes", TOOL_ALL, NULL, &tool->spacing, NULL},
        {"no-preallocate", TOOL_ALL, NULL, NULL, &tool->no_preallocate},
        {"rollover-threshold-percent", TOOL_ALL, NULL, &tool->ignored, NULL},
        {"max-overshoot-percent", TOOL_ALL, NULL, &tool->ignored, NULL},
        {"records", TOOL_WRITE | TOOL_BENCH, NULL, &work->records, NULL},
        {"payload-bytes", TOOL_ALL, NULL, &work->payload_bytes, &tool->payload_given},
        {"batch", TOOL_WRITE | TOOL_BENCH, NULL, &work->batch, NULL},
        {"report-acks", TOOL_WRITE, NULL, NULL, &work->report_acks},
        {"clean-shutdown", TOOL_WRITE, NULL, NULL, &work->clean_shutdown},
        {"expect-at-least", TOOL_VERIFY, NULL, &work->expect_at_least, NULL},
        {"concurrency", TOOL_BENCH, NULL, &work->concurrency, NULL},
        {"warmup-records", TOOL_BENCH, NULL, &work->warmup_records, NULL},
        {"label", TOOL_BENCH, &work->label, NULL, NULL},
    };
    memcpy(ret, table, sizeof table);
}

static bool set_option(const struct tool_option *option, const char *value) {
    if (option->flag != NULL)
        *option->flag = true;
    if (option->text == NULL && option->number == NULL)
        return true;
    if (value == NULL) {
        out_error("--%s needs a value", option->name);
        return false;
    }
    if (option->text != NULL)
        *option->text = value;
    else if (!arg_u64_parse(value, option->number)) {
        out_error("--%s: '%s' is not a number", option->name, value);
        return false;
    }
    return true;
}

/* Takes argv[*at], and its value. */
static bool take(struct tool *tool, int argc, char **argv, int *at) {
    const char *word = argv[(*at)++];
    if (strncmp(word, "--", 2) != 0) {
        out_error("'%s' is no option", word);
        return false;
    }
    const char *equals = strchr(word, '=');
    size_t length = equals != NULL ? (size_t)(equals - word) - 2 : strlen(word) - 2;
    const char *value = equals != NULL ? equals + 1 : NULL;
    if (equals == NULL && *at < argc && strncmp(argv[*at], "--", 2) != 0)
        value = argv[(*at)++];
    struct tool_option options[TOOL_OPTIONS];
    options_of(tool, options);
    for (size_t i = 0; i < TOOL_OPTIONS; i++)
        if (strlen(options[i].name) == length && memcmp(options[i].name, word + 2, length) == 0 &&
            (options[i].commands & tool->command) != 0)
            return set_option(&options[i], value);
    out_error("unknown option %s", word);
    return false;
}

static bool set_fsync(struct tool *tool) {
    static const char *const names[] = {"none", "periodic", "on_commit"};
    for (size_t i = 0; i < 3; i++)
        if (strcmp(tool->fsync, names[i]) == 0) {
            tool->work.log.sync = (enum log_sync)i;
            return true;
        }
    out_error("--fsync: '%s' is none of none, periodic, on_commit", tool->fsync);
    return false;
}

/* What the options add up to; false: they cannot be used. */
static bool settle(struct tool *tool) {
    struct log_work *work = &tool->work;
    if (work->dir == NULL) {
        out_error("--dir PATH is missing");
        return false;
    }
    if (!set_fsync(tool))
        return false;
    if (tool->spacing == 0 || tool->spacing > UINT32_MAX || tool->interval_ms > 86400000 ||
        (tool->interval_ms == 0 && work->log.sync == LOG_SYNC_PERIODIC)) {
        out_error("--index-spacing-bytes and --fsync-interval-ms are above zero and sensible");
        return false;
    }
    work->log.index_spacing_bytes = (uint32_t)tool->spacing;
    work->log.set_length_ahead = !tool->no_preallocate;
    work->sync_interval_ns = tool->interval_ms * NS_PER_MS;
    work->batch = work->batch > 0 ? work->batch : 1;
    work->concurrency = work->concurrency > 0 ? work->concurrency : 1;
    work->check_payloads = tool->payload_given;
    struct felix_error error;
    if (log_work_check(work, &error) == FELIX_OK)
        return true;
    out_error("%s", error.text);
    return false;
}

static enum felix_err run(const struct tool *tool, struct felix_error *reterr) {
    switch (tool->command) {
    case TOOL_WRITE:
        return log_work_write(&tool->work, reterr);
    case TOOL_VERIFY:
        return log_work_verify(&tool->work, reterr);
    case TOOL_BENCH:
        return log_work_bench_write(&tool->work, reterr);
    }
    return FELIX_INTERNAL;
}

int main(int argc, char **argv) {
    out_program("felix-log-tool");
    struct tool tool = {
        .work = log_work_defaults(), .fsync = "on_commit", .interval_ms = 250, .spacing = 4096};
    tool.work.json = true;
    const char *command = argc > 1 ? argv[1] : "help";
    if (strcmp(command, "write") == 0)
        tool.command = TOOL_WRITE;
    else if (strcmp(command, "verify") == 0)
        tool.command = TOOL_VERIFY;
    else if (strcmp(command, "bench") == 0)
        tool.command = TOOL_BENCH;
    if (tool.command == 0) {
        (void)fputs(usage, stderr);
        return 2;
    }
    if (tool.command == TOOL_BENCH) {
        tool.work.records = 20000;
        tool.work.warmup_records = 2000;
    }
    bool good = true;
    for (int at = 2; good && at < argc;)
        good = take(&tool, argc, argv, &at);
    if (!good || !settle(&tool))
        return 2;
    struct felix_error error = {.text = ""};
    enum felix_err err = run(&tool, &error);
    if (err == FELIX_OK)
        return 0;
    out_error("%s", error.text[0] != '\0' ? error.text : err_text(err));
    return 1;
}
