/* Variables of the environment through the rows of the options. */
#include "env_args.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint64_t number;
static bool on;
static bool given;
static uint32_t choice;
static const char *words;

static const struct arg_option table[] = {
    {.name = "--number", .type = ARG_U64, .value = &number, .given = &given, .min = 1, .max = 9},
    {.name = "--on", .type = ARG_FLAG, .value = &on},
    {.name = "--choice", .type = ARG_CHOICE, .value = &choice, .words = "red|green"},
    {.name = "--words", .type = ARG_TEXT, .value = &words},
    {.name = NULL},
};

static const struct env_arg vars[] = {
    {"FELIX_TEST_NUMBER_OLD", "--number"},
    {"FELIX_TEST_NUMBER", "--number"},
    {"FELIX_TEST_ON", "--on"},
    {"FELIX_TEST_CHOICE", "--choice"},
    {"FELIX_TEST_WORDS", "--words"},
    {"FELIX_TEST_UNUSED", NULL},
    {NULL, NULL},
};

static int fresh(void **) {
    for (size_t i = 0; vars[i].env != NULL; i++)
        unsetenv(vars[i].env);
    number = 5;
    on = true;
    given = false;
    choice = 0;
    words = NULL;
    return 0;
}

static enum felix_err apply(struct felix_error *error) {
    *error = (struct felix_error){0};
    return env_args_apply(vars, table, error);
}

static void what_is_not_set_leaves_the_default(void **) {
    struct felix_error error;
    setenv("FELIX_TEST_NUMBER", "", 1);
    assert_int_equal(apply(&error), FELIX_OK);
    assert_int_equal(number, 5);
    assert_true(on);
}

static void values_arrive_but_do_not_count_as_given(void **) {
    struct felix_error error;
    setenv("FELIX_TEST_NUMBER", "7", 1);
    setenv("FELIX_TEST_ON", "false", 1);
    setenv("FELIX_TEST_CHOICE", "green", 1);
    setenv("FELIX_TEST_WORDS", "a,b", 1);
    assert_int_equal(apply(&error), FELIX_OK);
    assert_int_equal(number, 7);
    assert_false(on);
    assert_int_equal(choice, 1);
    assert_string_equal(words, "a,b");
    assert_false(given);
}

static void of_two_names_the_later_row_counts(void **) {
    struct felix_error error;
    setenv("FELIX_TEST_NUMBER", "7", 1);
    setenv("FELIX_TEST_NUMBER_OLD", "3", 1);
    assert_int_equal(apply(&error), FELIX_OK);
    assert_int_equal(number, 7);
}

static void bad_values_are_errors_that_name_the_variable(void **) {
    static const char *const bad[][2] = {{"FELIX_TEST_NUMBER", "ten"},
                                         {"FELIX_TEST_NUMBER", "10"},
                                         {"FELIX_TEST_NUMBER", "-1"},
                                         {"FELIX_TEST_ON", "perhaps"},
                                         {"FELIX_TEST_CHOICE", "blue"}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct felix_error error;
        (void)fresh(NULL);
        setenv(bad[i][0], bad[i][1], 1);
        assert_int_equal(apply(&error), FELIX_INVALID_ARGUMENT);
        assert_non_null(strstr(error.text, bad[i][0]));
        assert_non_null(strstr(error.text, bad[i][1]));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(what_is_not_set_leaves_the_default, fresh),
        cmocka_unit_test_setup(values_arrive_but_do_not_count_as_given, fresh),
        cmocka_unit_test_setup(of_two_names_the_later_row_counts, fresh),
        cmocka_unit_test_setup(bad_values_are_errors_that_name_the_variable, fresh),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
