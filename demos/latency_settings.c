/*
 * Options in rows, defaults in the struct that the rows point into, variables of the environment
 * through the same rows. What other brokers' harnesses knew and has no meaning here is accepted
 * with one warning; what nobody knows is an error.
 */
#include "latency_settings.h"

#include "base/check.h"
#include "base/cpu.h"
#include "base/options.h"
#include "cli/out.h"
#include "env_args.h"

#include <stdlib.h>
#include <string.h>

#define ROWS_MAX 48

static const char help_text[] =
    "Publishes to subscribers in the same process and measures from the building of a message\n"
    "until its last byte has reached the sampled subscriber (the first of the first stream; all\n"
    "others count). Every broker queue blocks: what was sent has to arrive, and the exit code is\n"
    "not 0 when it did not. A payload is 16 bytes (run and time) longer than --payload says.\n"
    "\n"
    "--batch 1 without --binary waits for the broker's answer to each message: the latency case.\n"
    "All else is sent without waiting for answers, so its percentiles are queueing time. Frames\n"
    "are binary in any case; the name of --binary is historical, and the cases of --all without\n"
    "and with it differ only where the batch is 1.\n"
    "\n"
    "Without any flag of a single case the sweep (--all) runs. --matrix runs --payloads times\n"
    "--fanouts, with 200 + 2000 messages each unless --warmup and --total say otherwise.\n";

static const char tail_text[] =
    "\n"
    "accepted without effect: --sub-writer-lanes --sub-lane-shard\n"
    "\n"
    "environment: the settings of the client (FELIX_EVENT_CONN_POOL, ...) and, for the broker in\n"
    "this process, of felix-broker. FELIX_DISABLE_TIMINGS=1 turns the stage timings off,\n"
    "FELIX_LATENCY_DEMO_FAST=1 makes the sweep tiny. FELIX_SUB_EGRESS_CONNS, FELIX_PUB_CONN_POOL,\n"
    "FELIX_PUB_STREAMS_PER_CONN, FELIX_PUB_SHARDING, FELIX_DEMO_LOG_CAPACITY,\n"
    "FELIX_SUB_DEDICATED_THREAD and FELIX_SUB_DELIVERY_SHAPING stand for their flags.\n"
    "\n"
    "exit codes: 0 everything was delivered, 1 something is missing, 2 usage, 3 connection,\n"
    "            4 refused, 5 timeout\n";

static const struct env_arg variables[] = {
    {"FELIX_SUB_CONNS", "--sub-conns"},
    {"FELIX_SUB_EGRESS_CONNS", "--sub-conns"},
    {"FELIX_PUB_CONN_POOL", "--pub-conns"},
    {"FELIX_PUB_STREAMS_PER_CONN", "--pub-streams-per-conn"},
    {"FELIX_PUB_SHARDING", "--pub-sharding"},
    {"FELIX_DEMO_LOG_CAPACITY", "--log-capacity"},
    {"FELIX_SUB_DEDICATED_THREAD", "--sub-dedicated-thread"},
    {"FELIX_SUB_DELIVERY_SHAPING", "--sub-delivery-shaping-on"},
    {"FELIX_SUB_DEDICATED_QUEUE_CAPACITY", NULL},
    {"FELIX_WORKER_THREADS", NULL},
    {"FELIX_TIMING_SAMPLE_EVERY", NULL},
    {"FELIX_BENCH_EMBED_TS", NULL},
    {NULL, NULL},
};

/* While parsing: what was given. */
struct given {
    bool one_case; /* some flag that speaks of a single case */
    bool warmup, total, payload, fanout, batch;
    bool all, matrix, smoke, compare, help;
    bool shaping, lanes;
    const char *payloads, *fanouts, *ignored;
};

struct rows {
    struct arg_option rows[ROWS_MAX + 1];
    size_t count;
};

static struct arg_option *add(struct rows *rows, struct arg_option row) {
    INVARIANT(rows->count < ROWS_MAX);
    rows->rows[rows->count] = row;
    return &rows->rows[rows->count++];
}

static void add_number(struct rows *rows, const char *name, uint64_t *value, uint64_t min,
                       uint64_t max, bool *given, const char *help) {
    (void)add(rows, (struct arg_option){.name = name,
                                        .type = ARG_U64,
                                        .value = value,
                                        .given = given,
                                        .min = min,
                                        .max = max,
                                        .meta = "N",
                                        .help = help});
}

static void add_flag(struct rows *rows, const char *name, enum arg_type type, bool *value,
                     bool *given, const char *help) {
    (void)add(rows, (struct arg_option){
                        .name = name, .type = type, .value = value, .given = given, .help = help});
}

static void add_text(struct rows *rows, const char *name, const char **value, bool *given,
                     const char *meta, const char *help) {
    (void)add(rows, (struct arg_option){.name = name,
                                        .type = ARG_TEXT,
                                        .value = value,
                                        .given = given,
                                        .meta = meta,
                                        .help = help});
}

static void add_modes(struct rows *rows, struct latency_settings *s, struct given *given) {
    add_flag(rows, "--all", ARG_FLAG, &given->all, NULL, "the sweep; the default");
    add_flag(rows, "--matrix", ARG_FLAG, &given->matrix, NULL, "payloads times fanouts");
    add_text(rows, "--payloads", &given->payloads, NULL, "CSV",
             "payloads of --matrix (0,256,1024,4096)");
    add_text(rows, "--fanouts", &given->fanouts, NULL, "CSV", "fanouts of --matrix (1,10,100)");
    add_flag(rows, "--smoke", ARG_FLAG, &given->smoke, NULL,
             "shared, then dedicated subscriber client, small");
    add_flag(rows, "--compare-sub-delivery-shaping", ARG_FLAG, &given->compare, NULL,
             "the same case with shaping off, then on");
    add_flag(rows, "--json", ARG_FLAG, &s->json, NULL, "one JSON document instead of text");
}

static void add_case(struct rows *rows, struct latency_settings *s, struct given *given) {
    struct latency_case *c = &s->base;
    add_flag(rows, "--binary", ARG_FLAG, &c->binary, &given->one_case,
             "do not wait for answers, also with --batch 1");
    add_number(rows, "--warmup", &c->warmup, 0, 1u << 30, &given->warmup,
               "messages before the clock starts (1000)");
    add_number(rows, "--total", &c->total, 1, 1u << 30, &given->total, "measured messages (10000)");
    struct arg_option *payload =
        add(rows, (struct arg_option){.name = "--payload",
                                      .type = ARG_U64,
                                      .value = &c->payload_bytes,
                                      .given = &given->payload,
                                      .max = (16u << 20) - STAMP_BYTES,
                                      .help = "of each message, without the 16 of the stamp (0)"});
    payload->meta = "BYTES";
    add_number(rows, "--fanout", &c->fanout, 1, 16384, &given->fanout,
               "subscribers of each stream (1)");
    add_number(rows, "--batch", &c->batch, 1, 65536, &given->batch, "messages in a publish (1)");
    add_number(rows, "--idle-ms", &s->idle_ms, 1, 3600000, &given->one_case,
               "silence after which the rest counts as missing (2000)");
}

static void add_pools(struct rows *rows, struct latency_settings *s, struct given *given) {
    struct latency_case *c = &s->base;
    add_number(rows, "--pub-conns", &c->pub_conns, 1, 256, &given->one_case,
               "publisher connections (4)");
    add_number(rows, "--pub-streams-per-conn", &c->pub_streams_per_conn, 1, 256, &given->one_case,
               "publish streams on each (2)");
    (void)add(rows, (struct arg_option){.name = "--pub-sharding",
                                        .type = ARG_CHOICE,
                                        .value = &s->sharding,
                                        .given = &given->one_case,
                                        .words = "hash_stream|rr",
                                        .help = "how a publish finds its stream (hash_stream)"});
    add_number(rows, "--pub-stream-count", &c->stream_count, 1, 4096, &given->one_case,
               "Felix streams that share the load (1)");
    add_number(rows, "--sub-conns", &c->sub_conns, 0, 256, &given->one_case,
               "subscriber clients; 0: the publisher's (1; below four processors 0)");
    add_flag(rows, "--sub-dedicated-thread", ARG_FLAG, &c->dedicated, &given->one_case,
             "the sampled subscriber has a client of its own");
    add_flag(rows, "--sub-shared-thread", ARG_FLAG_OFF, &c->dedicated, &given->one_case,
             "it shares one (the default)");
    add_number(rows, "--pub-yield-every-batches", &s->yield_batches, 0, UINT32_MAX,
               &given->one_case, "give the processor away every N batches (0: never)");
    add_flag(rows, "--sub-delivery-shaping-on", ARG_FLAG, &c->shaping, &given->shaping,
             "events of a batch share frames (the default)");
    add_flag(rows, "--sub-delivery-shaping-off", ARG_FLAG_OFF, &c->shaping, &given->shaping,
             "one event in a frame");
    add_number(rows, "--log-capacity", &s->log_capacity, 0, 1u << 24, NULL,
               "replay ring of each stream; 0: the broker's default (0)");
    add_text(rows, "--sub-writer-lanes", &given->ignored, &given->lanes, "N", NULL);
    add_text(rows, "--sub-lane-shard", &given->ignored, &given->lanes, "MODE", NULL);
}

static void set_defaults(struct latency_settings *settings) {
    *settings = (struct latency_settings){
        .base = {.warmup = 1000,
                 .total = 10000,
                 .fanout = 1,
                 .batch = 1,
                 .pub_conns = 4,
                 .pub_streams_per_conn = 2,
                 .stream_count = 1,
                 /* With few processors one thread does what the client has to do. */
                 .sub_conns = cpu_usable() < 4 ? 0 : 1,
                 .shaping = true},
        .idle_ms = 2000,
        .payloads = {0, 256, 1024, 4096},
        .payload_count = 4,
        .fanouts = {1, 10, 100},
        .fanout_count = 3,
    };
}

/* Where --all and --matrix are both given, the later one decides. */
static bool matrix_is_last(int argc, char *const *argv) {
    bool matrix = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--matrix") == 0)
            matrix = true;
        else if (strcmp(argv[i], "--all") == 0)
            matrix = false;
    }
    return matrix;
}

static enum latency_mode mode_of(const struct given *given, int argc, char *const *argv) {
    if (given->compare)
        return MODE_COMPARE_SHAPING;
    if (given->smoke)
        return MODE_SMOKE;
    if (given->matrix && matrix_is_last(argc, argv))
        return MODE_MATRIX;
    bool one = given->one_case || given->warmup || given->total || given->payload ||
               given->fanout || given->batch || given->lanes;
    return given->all || !one ? MODE_ALL : MODE_SINGLE;
}

static enum felix_err take_list(const char *name, const char *text, uint64_t min, uint64_t max,
                                uint64_t *values, size_t *count, struct felix_error *reterr) {
    if (text == NULL)
        return FELIX_OK;
    size_t n = arg_u64_list_parse(text, values, LATENCY_LIST_MAX);
    for (size_t i = 0; i < n; i++) {
        if (values[i] < min || values[i] > max)
            n = 0;
    }
    if (n == 0)
        return error_set(reterr, FELIX_INVALID_ARGUMENT, 0,
                         "%s: '%s' is not a list of numbers from %llu to %llu", name, text,
                         (unsigned long long)min, (unsigned long long)max);
    *count = n;
    return FELIX_OK;
}

static void warn_about(const struct latency_settings *s, const struct given *given) {
    if (given->lanes)
        out_error("warning: --sub-writer-lanes and --sub-lane-shard have no effect: "
                  "a subscriber has one queue and no writer lane");
    if (s->mode != MODE_MATRIX && (given->payloads != NULL || given->fanouts != NULL))
        out_error("warning: --payloads and --fanouts have no effect without --matrix");
    bool sizes = given->payload || given->fanout;
    if ((s->mode == MODE_ALL && (sizes || given->warmup || given->total || given->batch)) ||
        (s->mode == MODE_MATRIX && sizes) || (s->mode == MODE_SMOKE && sizes))
        out_error("warning: the sweep has sizes of its own; those that were given have no effect");
    if (s->target.connect != NULL && (given->shaping || given->compare || s->log_capacity != 0))
        out_error("warning: shaping and --log-capacity have no effect with --connect: they are "
                  "settings of the broker");
    if (s->target.connect == NULL &&
        (s->target.ca_file != NULL || s->target.token_file != NULL || s->target.tenant != NULL))
        out_error("warning: --ca, --token-file and --tenant have no effect without --connect");
    env_args_warn_unused(variables);
}

static void print_help(const struct arg_option *rows, const struct arg_option *target) {
    (void)printf("latencydemo: how long a message takes, and how many a second\n\n"
                 "usage: latencydemo [OPTION...]\n\n%s\noptions:\n",
                 help_text);
    args_print_options(rows, stdout);
    (void)printf("\nbroker:\n");
    args_print_options(target, stdout);
    (void)fputs(tail_text, stdout);
}

static enum felix_err check(struct latency_settings *s, const struct given *given,
                            const struct args *args, struct felix_error *reterr) {
    enum felix_err err = FELIX_OK;
    if (args->operands_count > 0)
        return error_set(reterr, FELIX_INVALID_ARGUMENT, 0, "'%s' is not an option",
                         args->operands[0]);
    err = take_list("--payloads", given->payloads, 0, (16u << 20) - STAMP_BYTES, s->payloads,
                    &s->payload_count, reterr);
    if (err == FELIX_OK)
        err =
            take_list("--fanouts", given->fanouts, 1, 16384, s->fanouts, &s->fanout_count, reterr);
    const char *fast = getenv("FELIX_LATENCY_DEMO_FAST");
    if (err == FELIX_OK && fast != NULL && fast[0] != '\0' && !option_bool_parse(fast, &s->fast))
        err = error_set(reterr, FELIX_INVALID_ARGUMENT, 0,
                        "FELIX_LATENCY_DEMO_FAST: '%s' is neither 1 nor 0", fast);
    return err;
}

bool latency_settings_load(struct latency_settings *s, int argc, char **argv, int *ret_status) {
    struct given given = {0};
    struct rows rows = {.count = 0};
    struct arg_option target[TARGET_ARGS];
    struct felix_error error = {0};

    set_defaults(s);
    add_modes(&rows, s, &given);
    add_case(&rows, s, &given);
    add_pools(&rows, s, &given);
    (void)add(&rows, (struct arg_option){.name = "--help",
                                         .alias = "-h",
                                         .type = ARG_FLAG,
                                         .value = &given.help,
                                         .help = "this page"});
    target_args(&s->target, target);
    struct args args = {.options = rows.rows, .globals = target};
    enum felix_err err = args_parse(&args, argc - 1, argv + 1, &error);
    if (err == FELIX_OK && given.help) {
        print_help(rows.rows, target);
        *ret_status = EXIT_DONE;
        return false;
    }
    /* The environment lies below the command line: it is read first, then the flags again. */
    if (err == FELIX_OK)
        err = env_args_apply(variables, rows.rows, &error);
    args.operands_count = 0;
    if (err == FELIX_OK)
        err = args_parse(&args, argc - 1, argv + 1, &error);
    if (err == FELIX_OK)
        err = check(s, &given, &args, &error);
    if (err != FELIX_OK) {
        *ret_status = out_usage("latencydemo", error.text);
        return false;
    }
    s->mode = mode_of(&given, argc, argv);
    bool small = given.matrix || s->mode == MODE_SMOKE;
    if (small && !given.warmup)
        s->base.warmup = 200;
    if (small && !given.total)
        s->base.total = 2000;
    warn_about(s, &given);
    return true;
}
