/* Command lines: every type of option, where they may stand, and what a mistake is told. */
#include "cli/args.h"

#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Values of one parse, and the table that fills them. */
struct line {
    bool json, keep;
    const char *file;
    struct arg_list perms;
    uint64_t count;
    bool count_given;
    double rate;
    uint64_t ttl_ns;
    uint32_t ack;
    struct args args;
    struct felix_error error;
};

/* Parses words that end with NULL. */
static enum felix_err parse(struct line *l, const char *const *words) {
    *l = (struct line){.keep = true};
    const struct arg_option options[] = {
        {.name = "--file", .alias = "-f", .type = ARG_TEXT, .value = &l->file, .meta = "FILE"},
        {.name = "--perm", .type = ARG_LIST, .value = &l->perms},
        {.name = "--count",
         .type = ARG_U64,
         .value = &l->count,
         .given = &l->count_given,
         .min = 1,
         .max = 10},
        {.name = "--rate", .type = ARG_RATE, .value = &l->rate},
        {.name = "--ttl", .type = ARG_DURATION, .value = &l->ttl_ns, .min = 1},
        {.name = "--ack", .type = ARG_CHOICE, .value = &l->ack, .words = "none|message|batch"},
        {.name = NULL},
    };
    const struct arg_option globals[] = {
        {.name = "--json", .type = ARG_FLAG, .value = &l->json},
        {.name = "--drop", .type = ARG_FLAG_OFF, .value = &l->keep},
        {.name = NULL},
    };
    l->args.options = options;
    l->args.globals = globals;
    static char copies[16][64]; /* texts point into it after the parse */
    char *argv[16];
    int argc = 0;
    for (; words[argc] != NULL; argc++) {
        (void)snprintf(copies[argc], sizeof copies[argc], "%s", words[argc]);
        argv[argc] = copies[argc];
    }
    return args_parse(&l->args, argc, argv, &l->error);
}

#define PARSE(l, ...) parse(l, (const char *const[]){__VA_ARGS__, NULL})

static void each_type_takes_its_value_in_both_spellings(void **) {
    struct line l;
    assert_int_equal(PARSE(&l, "--count", "3", "--rate=2.5", "--ttl", "250ms", "--ack=batch",
                           "--perm", "a", "--perm=b", "--json", "--drop"),
                     FELIX_OK);
    assert_int_equal(l.count, 3);
    assert_true(l.count_given);
    assert_true(l.rate > 2.49 && l.rate < 2.51);
    assert_int_equal(l.ttl_ns, 250 * NS_PER_MS);
    assert_int_equal(l.ack, 2);
    assert_int_equal(l.perms.count, 2);
    assert_true(l.json);
    assert_false(l.keep);
}

static void what_is_not_given_stays(void **) {
    struct line l;
    assert_int_equal(PARSE(&l, "operand"), FELIX_OK);
    assert_false(l.count_given);
    assert_false(l.json);
    assert_true(l.keep);
}

static void operands_stand_between_options_and_a_double_dash_ends_those(void **) {
    struct line l;
    assert_int_equal(PARSE(&l, "one", "--json", "-", "--", "--count", "-f"), FELIX_OK);
    assert_int_equal(l.args.operands_count, 4);
    assert_true(l.json);
    assert_false(l.count_given);
}

static void an_alias_takes_a_value_too(void **) {
    struct line l;
    assert_int_equal(PARSE(&l, "-f", "x"), FELIX_OK);
    assert_string_equal(l.file, "x");
}

static void a_mistake_is_named(void **) {
    struct line l;
    assert_int_equal(PARSE(&l, "--cuont", "3"), FELIX_INVALID_ARGUMENT);
    assert_string_equal(l.error.text, "unknown option --cuont; did you mean --count?");
    assert_int_equal(PARSE(&l, "--count"), FELIX_INVALID_ARGUMENT);
    assert_non_null(strstr(l.error.text, "--count needs a value"));
    assert_int_equal(PARSE(&l, "--json=1"), FELIX_INVALID_ARGUMENT);
    assert_string_equal(l.error.text, "--json takes no value");
    assert_int_equal(PARSE(&l, "--ack", "mess"), FELIX_INVALID_ARGUMENT);
    assert_non_null(strstr(l.error.text, "none|message|batch"));
}

static void a_number_outside_its_range_is_refused(void **) {
    struct line l;
    const char *const bad[] = {"0", "11", "-1", "+1", "1x", "", " 1", "18446744073709551616"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(PARSE(&l, "--count", bad[i]), FELIX_INVALID_ARGUMENT);
    assert_int_equal(PARSE(&l, "--count", "10"), FELIX_OK);
}

static void a_rate_is_a_finite_number_above_zero(void **) {
    struct line l;
    const char *const bad[] = {"0", "-1", "nan", "inf", "1e10", "", "1/s"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(PARSE(&l, "--rate", bad[i]), FELIX_INVALID_ARGUMENT);
}

static void durations_have_units(void **) {
    static const struct {
        const char *text;
        uint64_t ns;
    } good[] = {{"5", 5 * NS_PER_S},
                {"5s", 5 * NS_PER_S},
                {"250ms", 250 * NS_PER_MS},
                {"10us", 10000},
                {"7ns", 7},
                {"2m", 120 * NS_PER_S},
                {"1.5s", 1500 * NS_PER_MS},
                {"1h", 3600 * NS_PER_S},
                {"7d", 604800 * NS_PER_S},
                {"0", 0}};
    uint64_t ns;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_true(arg_duration_parse(good[i].text, NS_PER_S, &ns));
        assert_int_equal(ns, good[i].ns);
    }
    static const char *const bad[] = {"",      "s",    "-1s",    "1 s",      "1sec",
                                      "0x10s", "1e3s", "1.2.3s", "9999999d", "inf"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(arg_duration_parse(bad[i], NS_PER_S, &ns));
}

static void lists_of_numbers_are_whole_or_nothing(void **) {
    uint64_t values[3];
    assert_int_equal(arg_u64_list_parse("1,20,300", values, 3), 3);
    assert_int_equal(values[2], 300);
    static const char *const bad[] = {"", ",", "1,", ",1", "1,,2", "1,x", "1,2,3,4"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(arg_u64_list_parse(bad[i], values, 3), 0);
}

static void more_than_fits_is_refused(void **) {
    struct line l;
    char *many[ARG_OPERANDS_MAX + 1];
    char word[] = "x";
    for (size_t i = 0; i <= ARG_OPERANDS_MAX; i++)
        many[i] = word;
    l = (struct line){.keep = true};
    assert_int_equal(args_parse(&l.args, ARG_OPERANDS_MAX, many, &l.error), FELIX_OK);
    l = (struct line){.keep = true};
    assert_int_equal(args_parse(&l.args, ARG_OPERANDS_MAX + 1, many, &l.error),
                     FELIX_INVALID_ARGUMENT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_type_takes_its_value_in_both_spellings),
        cmocka_unit_test(what_is_not_given_stays),
        cmocka_unit_test(operands_stand_between_options_and_a_double_dash_ends_those),
        cmocka_unit_test(an_alias_takes_a_value_too),
        cmocka_unit_test(a_mistake_is_named),
        cmocka_unit_test(a_number_outside_its_range_is_refused),
        cmocka_unit_test(a_rate_is_a_finite_number_above_zero),
        cmocka_unit_test(durations_have_units),
        cmocka_unit_test(lists_of_numbers_are_whole_or_nothing),
        cmocka_unit_test(more_than_fits_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
