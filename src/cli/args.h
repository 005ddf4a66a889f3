/*
 * Command lines: options from a table, operands in order, help made from the same table.
 *
 * Strict: an unknown option is an error that names the nearest known one, a value is checked
 * against its type and range, and `--name value` and `--name=value` mean the same. Options may
 * stand before, between and after operands; `--` ends them. One thread, at start.
 */
#ifndef CLI_ARGS_H
#define CLI_ARGS_H

#include "base/err.h"
#include "base/text.h"

#include <stdio.h>

enum arg_type {
    ARG_FLAG,     /* bool: true when given */
    ARG_FLAG_OFF, /* bool: false when given */
    ARG_TEXT,     /* const char *: borrowed from argv */
    ARG_LIST,     /* struct arg_list: may be given several times */
    ARG_U64,      /* uint64_t within min..max */
    ARG_RATE,     /* double above 0 */
    ARG_DURATION, /* uint64_t nanoseconds within min..max; see arg_duration_parse */
    ARG_CHOICE,   /* uint32_t: position of the word in `words` */
};

#define ARG_LIST_MAX 64u

struct arg_list {
    const char *items[ARG_LIST_MAX];
    size_t count;
};

struct arg_option {
    const char *name;  /* with its dashes: "--count"; NULL ends a table */
    const char *alias; /* another spelling, such as "-h"; may be NULL */
    enum arg_type type;
    void *value; /* what the type says; unchanged when the option is not given */
    bool *given; /* set when the option is given; may be NULL */
    uint64_t min;
    uint64_t max;      /* of numbers and durations; 0: no limit */
    const char *words; /* ARG_CHOICE: "none|message|batch" */
    const char *meta;  /* what help calls the value: "N" */
    const char *help;  /* one line; NULL: not shown */
};

#define ARG_OPERANDS_MAX 16u

struct args {
    const struct arg_option *options; /* ends with a NULL name; may be NULL */
    const struct arg_option *globals; /* the same, looked up afterwards */
    const char *operands[ARG_OPERANDS_MAX];
    size_t operands_count;
};

/**
 * Parse `argv[0..argc-1]` (no program name). Fills the options' values and `args->operands`.
 * FELIX_INVALID_ARGUMENT: an unknown option, a value that is missing or cannot be used, or too
 * many operands; the text names it and what is allowed.
 */
enum felix_err args_parse(struct args *args, int argc, char *const *argv,
                          struct felix_error *reterr);

/**
 * Try `argv[*at]` as an option of `table`; moves `*at` behind what was used.
 * FELIX_NOT_FOUND: no option of this table, `*at` is unchanged. FELIX_INVALID_ARGUMENT as above.
 */
enum felix_err args_take(const struct arg_option *table, int argc, char *const *argv, int *at,
                         struct felix_error *reterr);

/** The text of "unknown option", with the nearest name of both tables (either may be NULL). */
enum felix_err args_unknown(const char *option, const struct arg_option *table,
                            const struct arg_option *globals, struct felix_error *reterr);

/** Print one aligned line for each option that has a help text. */
void args_print_options(const struct arg_option *table, FILE *out);

/** "5s", "250ms", "10us", "100ns", "2m", "1h", "7d", "1.5s"; a bare number counts
 * `bare_unit_ns` each. False: something else, or more than 2^63 ns. */
bool arg_duration_parse(const char *text, uint64_t bare_unit_ns, uint64_t *ret_ns);

/** A plain decimal number, all of the text. False: something else, or it does not fit. */
bool arg_u64_parse(const char *text, uint64_t *ret);

/** As above, for list of numbers split by commas. Returns how many, 0: not such a list, or more
 * than `max`. */
size_t arg_u64_list_parse(const char *text, uint64_t *ret, size_t max);

#endif
