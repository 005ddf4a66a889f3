/* The table-driven loader on a small table with one row of each type. */
#include "base/options.h"

#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* clang-format off */
#define TABLE(X)                                                                                   \
    X(workers, "T_WORKERS|T_THREADS", "workers", "workers", U32, "4", OPTION_RANGE(1, 64), "h", "A") \
    X(big, "T_BIG", "big", "big", U64, "7", OPTION_ANY, "h", "A")                                  \
    X(window, "T_WINDOW", "window", "window", BYTES, "1MiB", OPTION_RANGE(1024, 1ull << 32), "h", "A") \
    X(wait_ms, "T_WAIT", "wait_ms", "wait-ms", DURATION_MS, "2000", OPTION_RANGE(0, 60000), "h", "A") \
    X(loud, "T_LOUD", "loud", "loud", BOOL, "false", OPTION_ANY, "h", "B")                         \
    X(name, "T_NAME", "name", "name", STRING, "x", OPTION_ANY, "h", "B")                           \
    X(dir, "T_DIR", "dir", "dir", PATH, "", OPTION_ANY, "h", "B")                                  \
    X(bind, "T_BIND", "bind", "bind", ADDR, "127.0.0.1:80", OPTION_ANY, "h", "B")                  \
    X(mode, "T_MODE", "mode", "mode", ENUM, "slow", OPTION_WORDS("fast|slow"), "h", "B")           \
    X(chunk, "FELIX_PUBLISH_CHUNK_BYTES", "chunk", "chunk", BYTES, "1", OPTION_ANY, "h", "B")
/* clang-format on */

struct target {
    TABLE(OPTION_FIELD)
};
#define OPTION_TARGET struct target
static const struct option_row rows[] = {TABLE(OPTION_ROW)};
#define ROWS (sizeof rows / sizeof rows[0])

static struct target target;
static struct options options;
static struct felix_error error;

static int fresh(void **) {
    static const char *const names[] = {"T_WORKERS", "T_THREADS", "T_BIG",  "T_WINDOW",
                                        "T_WAIT",    "T_LOUD",    "T_NAME", "T_BIND"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        (void)unsetenv(names[i]);
    options_init(&options, rows, ROWS, &target);
    error = (struct felix_error){0};
    return 0;
}

static int done(void **) {
    options_deinit(&options);
    return 0;
}

static void defaults_are_parsed_like_any_value(void **) {
    assert_int_equal(target.workers, 4);
    assert_int_equal(target.big, 7);
    assert_int_equal(target.window, 1 << 20);
    assert_int_equal(target.wait_ms, 2000);
    assert_false(target.loud);
    assert_string_equal(target.name, "x");
    assert_string_equal(target.dir, "");
    assert_int_equal(target.mode, 1);
    assert_int_equal(target.bind.len, sizeof(struct sockaddr_in));
}

static const struct {
    const char *key;
    const char *value;
    const char *shown; /* the value printed back; NULL: refused */
} values[] = {
    {"workers", "1", "1"},
    {"workers", "64", "64"},
    {"workers", "0", NULL},
    {"workers", "65", NULL},
    {"workers", "", NULL},
    {"workers", " 4", NULL},
    {"workers", "4 ", NULL},
    {"workers", "-1", NULL},
    {"workers", "+1", NULL},
    {"workers", "0x10", NULL},
    {"workers", "4k", NULL},
    {"workers", "1e1", NULL},
    {"workers", "four", NULL},
    {"workers", "4294967300", NULL},
    {"big", "18446744073709551615", "18446744073709551615"},
    {"big", "18446744073709551616", NULL},
    {"big", "99999999999999999999999", NULL},
    {"window", "1024", "1024"},
    {"window", "1KiB", "1024"},
    {"window", "64 MiB", "67108864"},
    {"window", "4gib", "4294967296"},
    {"window", "5GiB", NULL},
    {"window", "1023", NULL},
    {"window", "1MB", NULL},
    {"window", "MiB", NULL},
    {"window", "99999999999999999GiB", NULL},
    {"wait_ms", "0", "0"},
    {"wait_ms", "250ms", "250"},
    {"wait_ms", "5s", "5000"},
    {"wait_ms", "61s", NULL},
    {"wait_ms", "1.5s", NULL},
    {"loud", "1", "true"},
    {"loud", "TRUE", "true"},
    {"loud", "Yes", "true"},
    {"loud", "on", "true"},
    {"loud", "0", "false"},
    {"loud", "False", "false"},
    {"loud", "NO", "false"},
    {"loud", "off", "false"},
    {"loud", "2", NULL},
    {"loud", "", NULL},
    {"loud", "y", NULL},
    {"name", "", ""},
    {"name", "any thing", "any thing"},
    {"bind", "0.0.0.0:0", "0.0.0.0:0"},
    {"bind", "[::1]:5000", "[::1]:5000"},
    {"bind", "[::]:65535", "[::]:65535"},
    {"bind", "127.0.0.1:65536", NULL},
    {"bind", "127.0.0.1", NULL},
    {"bind", "127.0.0.1:", NULL},
    {"bind", "::1:5000", NULL},
    {"bind", "[127.0.0.1]:5", NULL},
    {"bind", "localhost:5000", NULL},
    {"bind", ":5000", NULL},
    {"bind", "[]:5", NULL},
    {"bind", "[:5", NULL},
    {"bind", "", NULL},
    {"bind", "1.2.3.4:-5", NULL},
    {"mode", "fast", "fast"},
    {"mode", "SLOW", "slow"},
    {"mode", "fas", NULL},
    {"mode", "fast|slow", NULL},
    {"mode", "", NULL},
};

static void each_value_is_taken_or_refused(void **) {
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        struct text before = {0};
        struct text after = {0};
        size_t row = options_find_key(&options, values[i].key);
        options_value(&options, row, &before);
        enum felix_err err =
            options_set_key(&options, OPTION_FROM_ARGS, values[i].key, values[i].value, &error);
        options_value(&options, row, &after);
        if (values[i].shown != NULL) {
            assert_int_equal(err, FELIX_OK);
            assert_string_equal(text_str(&after), values[i].shown);
        } else {
            assert_int_equal(err, FELIX_INVALID_ARGUMENT);
            assert_string_equal(text_str(&after), text_str(&before));
            assert_non_null(strstr(error.text, values[i].key));
            assert_non_null(strstr(error.text, "must be"));
        }
        text_deinit(&before);
        text_deinit(&after);
    }
}

static void error_names_setting_value_and_range(void **) {
    assert_int_equal(options_set_key(&options, OPTION_FROM_FILE, "workers", "99\x1b\"", &error),
                     FELIX_INVALID_ARGUMENT);
    assert_string_equal(error.text, "workers=\"99\\u001b\\\"\": must be a number 1 .. 64");
    assert_int_equal(options_set_key(&options, OPTION_FROM_FILE, "mode", "x", &error),
                     FELIX_INVALID_ARGUMENT);
    assert_string_equal(error.text, "mode=\"x\": must be one of fast, slow");
    assert_int_equal(options_set_key(&options, OPTION_FROM_FILE, "window", "x", &error),
                     FELIX_INVALID_ARGUMENT);
    assert_string_equal(error.text, "window=\"x\": must be a number of bytes (KiB, MiB, GiB may "
                                    "follow) 1 KiB .. 4 GiB");
}

static void unknown_key_gets_a_hint_only_when_one_is_near(void **) {
    assert_int_equal(options_set_key(&options, OPTION_FROM_FILE, "worker", "1", &error),
                     FELIX_NOT_FOUND);
    assert_string_equal(error.text, "unknown key \"worker\": did you mean \"workers\"?");
    assert_int_equal(options_set_key(&options, OPTION_FROM_FILE, "quite_else", "1", &error),
                     FELIX_NOT_FOUND);
    assert_string_equal(error.text, "unknown key \"quite_else\"");
}

/* Every pair of sources in both orders: the higher one stays. */
static void higher_source_wins_whatever_the_order(void **) {
    const enum option_source sources[] = {OPTION_FROM_PROFILE, OPTION_FROM_FILE, OPTION_FROM_ENV,
                                          OPTION_FROM_ARGS};
    for (size_t i = 0; i < 4; i++) {
        for (size_t j = 0; j < 4; j++) {
            options_deinit(&options);
            options_init(&options, rows, ROWS, &target);
            assert_int_equal(options_set_key(&options, sources[i], "workers", "10", &error),
                             FELIX_OK);
            assert_int_equal(options_set_key(&options, sources[j], "workers", "20", &error),
                             FELIX_OK);
            assert_int_equal(target.workers, j >= i ? 20 : 10);
            assert_int_equal(options.sources[0], sources[i > j ? i : j]);
        }
    }
}

static void value_from_a_lower_source_is_checked_all_the_same(void **) {
    assert_int_equal(options_set_key(&options, OPTION_FROM_ARGS, "workers", "3", &error), FELIX_OK);
    assert_int_equal(options_set_key(&options, OPTION_FROM_FILE, "workers", "no", &error),
                     FELIX_INVALID_ARGUMENT);
    assert_int_equal(target.workers, 3);
}

static void first_variable_that_is_set_counts(void **) {
    assert_int_equal(setenv("T_THREADS", "5", 1), 0);
    assert_int_equal(options_load_env(&options, &error), FELIX_OK);
    assert_int_equal(target.workers, 5);
    assert_int_equal(setenv("T_WORKERS", "6", 1), 0);
    assert_int_equal(options_load_env(&options, &error), FELIX_OK);
    assert_int_equal(target.workers, 6);
    assert_int_equal(setenv("T_WORKERS", "bad", 1), 0);
    assert_int_equal(options_load_env(&options, &error), FELIX_INVALID_ARGUMENT);
    assert_string_equal(error.text, "T_WORKERS=\"bad\": must be a number 1 .. 64");
}

static void flags_take_their_value_in_both_forms(void **) {
    char *const argv[] = {"p", "--workers", "9", "--wait-ms=1s", "--loud", "--name=a=b", "rest"};
    int at = 1;
    for (int i = 0; i < 4; i++)
        assert_int_equal(options_take_arg(&options, 7, argv, &at, &error), FELIX_OK);
    assert_int_equal(at, 6);
    assert_int_equal(target.workers, 9);
    assert_int_equal(target.wait_ms, 1000);
    assert_true(target.loud);
    assert_string_equal(target.name, "a=b");
    assert_int_equal(options_take_arg(&options, 7, argv, &at, &error), FELIX_NOT_FOUND);
    assert_int_equal(at, 6);
}

static void unusable_flags_are_named(void **) {
    const struct {
        const char *arg;
        const char *next;
        enum felix_err err;
        const char *text;
    } cases[] = {
        {"--workers", NULL, FELIX_INVALID_ARGUMENT, "--workers needs a value"},
        {"--workers", "--loud", FELIX_INVALID_ARGUMENT, "--workers needs a value"},
        {"--workers=", NULL, FELIX_INVALID_ARGUMENT, "--workers=\"\": must be a number 1 .. 64"},
        {"--workrs=1", NULL, FELIX_NOT_FOUND, "unknown flag --workrs: did you mean --workers?"},
        {"--loud=maybe", NULL, FELIX_INVALID_ARGUMENT,
         "--loud=\"maybe\": must be one of 1, true, yes, on, 0, false, no, off"},
        {"--", NULL, FELIX_NOT_FOUND, "unknown argument \"--\": see --help"},
        {"--zzzzzzzz", NULL, FELIX_NOT_FOUND, "unknown flag --zzzzzzzz: see --help"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char arg[32];
        char next[32];
        (void)strncpy(arg, cases[i].arg, sizeof arg - 1);
        arg[sizeof arg - 1] = '\0';
        (void)strncpy(next, cases[i].next != NULL ? cases[i].next : "", sizeof next - 1);
        next[sizeof next - 1] = '\0';
        char *const argv[] = {arg, next};
        int at = 0;
        int argc = cases[i].next != NULL ? 2 : 1;
        assert_int_equal(options_take_arg(&options, argc, argv, &at, &error), cases[i].err);
        assert_string_equal(error.text, cases[i].text);
        assert_int_equal(at, 0);
    }
}

static void profile_lies_under_every_explicit_value(void **) {
    assert_int_equal(options_apply_profile(&options, "high_memory", &error), FELIX_OK);
    assert_int_equal(target.chunk, 32768);
    assert_int_equal(options_apply_profile(&options, "balanced", &error), FELIX_OK);
    assert_int_equal(target.chunk, 16384);
    assert_int_equal(options_set_key(&options, OPTION_FROM_FILE, "chunk", "5", &error), FELIX_OK);
    assert_int_equal(options_apply_profile(&options, "high_memory", &error), FELIX_OK);
    assert_int_equal(target.chunk, 5);
    assert_int_equal(options_apply_profile(&options, "huge", &error), FELIX_INVALID_ARGUMENT);
    assert_true(options_env_in_profile("FELIX_PUB_CONN_POOL"));
    assert_false(options_env_in_profile("FELIX_PUB"));
}

static void printed_yaml_quotes_texts_and_names_sources(void **) {
    struct text out = {0};
    assert_int_equal(options_set_key(&options, OPTION_FROM_ARGS, "name", "a\"b", &error), FELIX_OK);
    options_print_yaml(&options, &out);
    assert_non_null(strstr(text_str(&out), "name: \"a\\\"b\"  # command line\n"));
    assert_non_null(strstr(text_str(&out), "bind: \"127.0.0.1:80\"  # default\n"));
    assert_non_null(strstr(text_str(&out), "window: 1048576  # default\n"));
    text_deinit(&out);
}

static void pages_show_every_row_once(void **) {
    struct text help = {0};
    struct text page = {0};
    options_print_help(&options, &help);
    options_print_reference(&options, "Key", &page);
    for (size_t i = 0; i < ROWS; i++) {
        char flag[40];
        char cell[40];
        (void)snprintf(flag, sizeof flag, "  --%s ", rows[i].flag);
        (void)snprintf(cell, sizeof cell, "| `%s` |", rows[i].key);
        assert_non_null(strstr(text_str(&help), flag));
        const char *first = strstr(text_str(&page), cell);
        assert_non_null(first);
        assert_null(strstr(first + 1, cell));
    }
    text_deinit(&help);
    text_deinit(&page);
}

#define OPTIONS_TEST(name) cmocka_unit_test_setup_teardown(name, fresh, done)

int main(void) {
    const struct CMUnitTest tests[] = {
        OPTIONS_TEST(defaults_are_parsed_like_any_value),
        OPTIONS_TEST(each_value_is_taken_or_refused),
        OPTIONS_TEST(error_names_setting_value_and_range),
        OPTIONS_TEST(unknown_key_gets_a_hint_only_when_one_is_near),
        OPTIONS_TEST(higher_source_wins_whatever_the_order),
        OPTIONS_TEST(value_from_a_lower_source_is_checked_all_the_same),
        OPTIONS_TEST(first_variable_that_is_set_counts),
        OPTIONS_TEST(flags_take_their_value_in_both_forms),
        OPTIONS_TEST(unusable_flags_are_named),
        OPTIONS_TEST(profile_lies_under_every_explicit_value),
        OPTIONS_TEST(printed_yaml_quotes_texts_and_names_sources),
        OPTIONS_TEST(pages_show_every_row_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
