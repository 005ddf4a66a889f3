#include "cache_settings.h"

#include "base/check.h"
#include "cli/out.h"
#include "env_args.h"

#include <string.h>

static const char help_text[] =
    "Puts and gets values of several sizes, closed loop: --concurrency operations are in flight,\n"
    "and the answer to one issues the next, on the client's thread. A sample is the time from\n"
    "issue to answer. Values are made before the clock starts. Percentiles are by nearest rank.\n"
    "For each size the keys are stored first and one is read back and compared.\n";

static const char tail_text[] =
    "\n"
    "environment: FELIX_CACHE_BENCH_WARMUP, _SAMPLES, _PAYLOADS, _TTL_MS, _CONCURRENCY, _KEYS,\n"
    "_OPS, _TIMINGS and _VALIDATE_EACH stand for the options; FELIX_CACHE_CONN_POOL (8) and\n"
    "FELIX_CACHE_STREAMS_PER_CONN (4) size the pools; further settings of the client and, for the\n"
    "broker in this process, of felix-broker. FELIX_CACHE_BENCH_CONN_STATS has no effect.\n"
    "\n"
    "exit codes: 0 done, 1 a value was missing or wrong, 2 usage, 3 connection, 4 refused,\n"
    "            5 timeout\n";

static const struct env_arg variables[] = {
    {"FELIX_CACHE_BENCH_WARMUP", "--warmup"},
    {"FELIX_CACHE_BENCH_SAMPLES", "--samples"},
    {"FELIX_CACHE_BENCH_PAYLOADS", "--payloads"},
    {"FELIX_CACHE_BENCH_TTL_MS", "--ttl-ms"},
    {"FELIX_CACHE_BENCH_CONCURRENCY", "--concurrency"},
    {"FELIX_CACHE_BENCH_KEYS", "--keys"},
    {"FELIX_CACHE_BENCH_OPS", "--ops"},
    {"FELIX_CACHE_BENCH_TIMINGS", "--timings"},
    {"FELIX_CACHE_BENCH_VALIDATE_EACH", "--validate-each"},
    {"FELIX_CACHE_BENCH_CONN_STATS", NULL},
    {"FELIX_TIMING_SAMPLE_EVERY", NULL},
    {NULL, NULL},
};

#define PAYLOAD_BYTES_MAX (8u << 20)
#define ROWS 13

struct words {
    const char *payloads, *ops;
    bool help;
};

const char *cache_op_name(enum cache_op op) {
    static const char *const names[CACHE_OPS] = {"put", "get_hit", "get_miss"};
    return names[op];
}

static struct arg_option number(const char *name, uint64_t *value, uint64_t min, uint64_t max,
                                const char *help) {
    return (struct arg_option){.name = name,
                               .type = ARG_U64,
                               .value = value,
                               .min = min,
                               .max = max,
                               .meta = "N",
                               .help = help};
}

static void fill_rows(struct cache_settings *s, struct words *words, struct arg_option rows[ROWS]) {
    size_t n = 0;
    rows[n++] = number("--warmup", &s->warmup, 0, 1u << 30,
                       "operations of each kind before the clock starts (200)");
    rows[n++] = number("--samples", &s->samples, 1, 1u << 30, "measured operations (2000)");
    rows[n++] = (struct arg_option){.name = "--payloads",
                                    .type = ARG_TEXT,
                                    .value = &words->payloads,
                                    .meta = "CSV",
                                    .help = "sizes of values (0,64,256,1024,4096)"};
    rows[n++] = number("--concurrency", &s->concurrency, 1, 65536, "operations in flight (1)");
    rows[n++] = number("--keys", &s->keys, 1, 1u << 24, "keys for each size (1024)");
    rows[n++] = (struct arg_option){.name = "--ops",
                                    .type = ARG_TEXT,
                                    .value = &words->ops,
                                    .meta = "CSV",
                                    .help = "some of put,get_hit,get_miss, in this order"};
    rows[n++] = number("--ttl-ms", &s->ttl_ms, 0, UINT32_MAX, "time to live of what is put (none)");
    rows[n++] = (struct arg_option){.name = "--timings",
                                    .type = ARG_FLAG,
                                    .value = &s->timings,
                                    .help = "print the stages of the broker in this process"};
    rows[n++] = (struct arg_option){.name = "--validate-each",
                                    .type = ARG_FLAG,
                                    .value = &s->validate_each,
                                    .help = "compare every hit, inside the measured time"};
    rows[n++] = (struct arg_option){.name = "--json",
                                    .type = ARG_FLAG,
                                    .value = &s->json,
                                    .help = "one JSON document instead of text"};
    rows[n++] = (struct arg_option){.name = "--help",
                                    .alias = "-h",
                                    .type = ARG_FLAG,
                                    .value = &words->help,
                                    .help = "this page"};
    INVARIANT(n < ROWS);
    rows[n] = (struct arg_option){.name = NULL};
}

static enum felix_err take_ops(struct cache_settings *s, const char *text,
                               struct felix_error *reterr) {
    for (unsigned op = 0; op < CACHE_OPS; op++)
        s->ops[op] = text == NULL;
    while (text != NULL) {
        size_t len = strcspn(text, ",");
        unsigned op = 0;
        while (op < CACHE_OPS && (strlen(cache_op_name((enum cache_op)op)) != len ||
                                  memcmp(text, cache_op_name((enum cache_op)op), len) != 0))
            op++;
        if (op == CACHE_OPS)
            return error_set(reterr, FELIX_INVALID_ARGUMENT, 0,
                             "--ops: '%.*s' is none of put,get_hit,get_miss", (int)len, text);
        s->ops[op] = true;
        text = text[len] == ',' ? text + len + 1 : NULL;
    }
    return FELIX_OK;
}

static enum felix_err take_words(struct cache_settings *s, const struct words *words,
                                 const struct args *args, struct felix_error *reterr) {
    if (args->operands_count > 0)
        return error_set(reterr, FELIX_INVALID_ARGUMENT, 0, "'%s' is not an option",
                         args->operands[0]);
    if (words->payloads != NULL) {
        s->payload_count = arg_u64_list_parse(words->payloads, s->payloads, CACHE_PAYLOADS_MAX);
        for (size_t i = 0; i < s->payload_count; i++) {
            if (s->payloads[i] > PAYLOAD_BYTES_MAX)
                s->payload_count = 0;
        }
        if (s->payload_count == 0)
            return error_set(reterr, FELIX_INVALID_ARGUMENT, 0,
                             "--payloads: '%s' is not a list of numbers from 0 to %u",
                             words->payloads, PAYLOAD_BYTES_MAX);
    }
    return take_ops(s, words->ops, reterr);
}

static void print_help(const struct arg_option *rows, const struct arg_option *target) {
    (void)printf("cachedemo: how long a cache operation takes, and how many a second\n\n"
                 "usage: cachedemo [OPTION...]\n\n%s\noptions:\n",
                 help_text);
    args_print_options(rows, stdout);
    (void)printf("\nbroker:\n");
    args_print_options(target, stdout);
    (void)fputs(tail_text, stdout);
}

bool cache_settings_load(struct cache_settings *s, int argc, char **argv, int *ret_status) {
    struct arg_option rows[ROWS];
    struct arg_option target[TARGET_ARGS];
    struct words words = {0};
    struct felix_error error = {0};

    *s = (struct cache_settings){.warmup = 200,
                                 .samples = 2000,
                                 .payloads = {0, 64, 256, 1024, 4096},
                                 .payload_count = 5,
                                 .concurrency = 1,
                                 .keys = 1024};
    fill_rows(s, &words, rows);
    target_args(&s->target, target);
    struct args args = {.options = rows, .globals = target};
    enum felix_err err = args_parse(&args, argc - 1, argv + 1, &error);
    if (err == FELIX_OK && words.help) {
        print_help(rows, target);
        *ret_status = EXIT_DONE;
        return false;
    }
    /* The environment lies below the command line: it is read first, then the flags again. */
    if (err == FELIX_OK)
        err = env_args_apply(variables, rows, &error);
    args.operands_count = 0;
    if (err == FELIX_OK)
        err = args_parse(&args, argc - 1, argv + 1, &error);
    if (err == FELIX_OK)
        err = take_words(s, &words, &args, &error);
    if (err != FELIX_OK) {
        *ret_status = out_usage("cachedemo", error.text);
        return false;
    }
    env_args_warn_unused(variables);
    return true;
}
