#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "wire/features.h"

static void every_code_is_parsed_from_its_name(void **state) {
    for (int n = 1; n <= 19; n++) {
        const char *name = wire_code_name((enum wire_code)n);
        assert_non_null(name);
        assert_int_equal(wire_code_parse(name, strlen(name)), n);
        assert_int_not_equal(wire_code_retry((enum wire_code)n), WIRE_RETRY_NONE);
    }
}

static void every_retry_class_is_parsed_from_its_name(void **state) {
    for (int n = 1; n <= 5; n++) {
        const char *name = wire_retry_name((enum wire_retry)n);
        assert_non_null(name);
        assert_int_equal(wire_retry_parse(name, strlen(name)), n);
    }
}

static void unknown_values_and_names_give_none(void **state) {
    assert_null(wire_code_name(WIRE_CODE_NONE));
    assert_null(wire_code_name((enum wire_code)20));
    assert_null(wire_retry_name(WIRE_RETRY_NONE));
    assert_null(wire_retry_name((enum wire_retry)6));
    assert_int_equal(wire_code_parse("not_found_at_all", 16), WIRE_CODE_NONE);
    assert_int_equal(wire_code_parse("Forbidden", 9), WIRE_CODE_NONE);
    assert_int_equal(wire_code_parse("", 0), WIRE_CODE_NONE);
    assert_int_equal(wire_retry_parse("retry_", 6), WIRE_RETRY_NONE);
    assert_int_equal(wire_code_retry(WIRE_CODE_NONE), WIRE_RETRY_NONE);
}

static void refusals_keep_their_meaning_across_the_wire(void **state) {
    static const enum felix_err kept[] = {
        FELIX_UNAUTHENTICATED,  FELIX_FORBIDDEN,       FELIX_NOT_FOUND,
        FELIX_OVERLOADED,       FELIX_DRAINING,        FELIX_LIMIT,
        FELIX_INVALID_ARGUMENT, FELIX_OUTCOME_UNKNOWN, FELIX_INTERNAL};
    for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++)
        assert_int_equal(wire_code_to_err(wire_code_of_err(kept[i])), kept[i]);
}

/* The three ways in which a disk fails differ for whoever publishes. */
static void storage_errors_keep_their_meaning_by_the_retry_class(void **state) {
    static const struct {
        enum felix_err err;
        enum wire_retry retry;
    } kept[] = {{FELIX_STORAGE, WIRE_RETRY_OUTCOME_UNKNOWN},
                {FELIX_DISK_FULL, WIRE_RETRY_RETRY_AFTER},
                {FELIX_DAMAGED, WIRE_RETRY_FATAL}};
    for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++) {
        assert_int_equal(wire_code_of_err(kept[i].err), WIRE_CODE_STORAGE);
        assert_int_equal(wire_retry_of_err(kept[i].err), kept[i].retry);
        assert_int_equal(wire_refusal_to_err(WIRE_CODE_STORAGE, kept[i].retry), kept[i].err);
    }
    assert_int_equal(wire_refusal_to_err(WIRE_CODE_STORAGE, WIRE_RETRY_NONE), FELIX_STORAGE);
    assert_int_equal(wire_refusal_to_err(WIRE_CODE_OVERLOADED, WIRE_RETRY_FATAL), FELIX_OVERLOADED);
    assert_int_equal(wire_retry_of_err(FELIX_NOT_FOUND), WIRE_RETRY_RETRY_AFTER);
    assert_int_equal(wire_retry_of_err(FELIX_OK), WIRE_RETRY_NONE);
}

static void only_success_has_no_code(void **state) {
#define CHECK(name, value, text)                                                                   \
    assert_int_equal(wire_code_of_err(FELIX_##name) == WIRE_CODE_NONE, (value) == 0);
    FELIX_ERR_MAP(CHECK)
#undef CHECK
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_is_parsed_from_its_name),
        cmocka_unit_test(every_retry_class_is_parsed_from_its_name),
        cmocka_unit_test(unknown_values_and_names_give_none),
        cmocka_unit_test(refusals_keep_their_meaning_across_the_wire),
        cmocka_unit_test(storage_errors_keep_their_meaning_by_the_retry_class),
        cmocka_unit_test(only_success_has_no_code),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
