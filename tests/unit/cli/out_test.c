/* What the programs print: exit codes, numbers for people, payloads for terminals and parsers. */
#include "cli/out.h"

#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static void every_error_has_an_exit_code_that_is_not_success(void **) {
    assert_int_equal(exit_code_of(FELIX_OK), EXIT_DONE);
#define CODE(name, value, text) FELIX_##name,
    static const enum felix_err all[] = {FELIX_ERR_MAP(CODE)};
#undef CODE
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        if (all[i] != FELIX_OK)
            assert_in_range(exit_code_of(all[i]), EXIT_NOTHING, EXIT_TIMEOUT);
}

static void exit_codes_tell_kinds_apart(void **) {
    assert_int_equal(exit_code_of(FELIX_NOT_FOUND), EXIT_NOTHING);
    assert_int_equal(exit_code_of(FELIX_INVALID_ARGUMENT), EXIT_USAGE);
    assert_int_equal(exit_code_of(FELIX_TLS), EXIT_CONNECTION);
    assert_int_equal(exit_code_of(FELIX_OUTCOME_UNKNOWN), EXIT_CONNECTION);
    assert_int_equal(exit_code_of(FELIX_FORBIDDEN), EXIT_REFUSED);
    assert_int_equal(exit_code_of(FELIX_EXPIRED), EXIT_REFUSED);
    assert_int_equal(exit_code_of(FELIX_OVERLOADED), EXIT_REFUSED);
    assert_int_equal(exit_code_of(FELIX_TIMED_OUT), EXIT_TIMEOUT);
    assert_int_equal(exit_code_of(FELIX_DISK_FULL), EXIT_REFUSED);
    assert_int_equal(exit_code_of(FELIX_LAGGED), EXIT_TIMEOUT);
}

static void durations_choose_their_unit(void **) {
    assert_string_equal(out_duration(417).text, "417 ns");
    assert_string_equal(out_duration(12345).text, "12.3 us");
    assert_string_equal(out_duration(1234567).text, "1.235 ms");
    assert_string_equal(out_duration(2500 * NS_PER_MS).text, "2.500 s");
}

static void spans_are_one_rounded_unit(void **) {
    assert_string_equal(out_span(1).text, "1 second");
    assert_string_equal(out_span(119).text, "119 seconds");
    assert_string_equal(out_span(120).text, "2 minutes");
    assert_string_equal(out_span(3 * 3600).text, "3 hours");
    assert_string_equal(out_span(12 * 86400).text, "12 days");
}

static void times_are_exact_to_the_microsecond(void **) {
    assert_string_equal(out_time(0).text, "1970-01-01T00:00:00.000000Z");
    assert_string_equal(out_time(1767323045123456).text, "2026-01-02T03:04:05.123456Z");
    assert_string_equal(out_time(UINT64_MAX).text, "586524-01-19T08:01:49.551615Z");
}

static void counts_are_split_by_thousands(void **) {
    assert_string_equal(out_count(0).text, "0");
    assert_string_equal(out_count(999).text, "999");
    assert_string_equal(out_count(1000).text, "1,000");
    assert_string_equal(out_count(UINT64_MAX).text, "18,446,744,073,709,551,615");
}

static void a_terminal_sees_no_control_characters(void **) {
    struct text text = {0};
    out_printable(&text, slice_of("a\tb\x1b[0m\x7f\xc2\x9b\xff\xc3\xbc", 13));
    assert_string_equal(text_str(&text), "a\tb\\x1b[0m\\x7f\\xc2\\x9b\\xff\xc3\xbc");
    text_deinit(&text);
}

static void json_takes_text_as_it_is_and_other_bytes_as_base64(void **) {
    struct text text = {0};
    out_json_payload(&text, "payload", slice_of("a\"\n\xc3\xbc", 5));
    assert_string_equal(text_str(&text), "\"payload\":\"a\\\"\\n\xc3\xbc\"");
    text_reset(&text);
    out_json_payload(&text, "payload", slice_of("\xff\xfe", 2));
    assert_string_equal(text_str(&text), "\"payload_base64\":\"//4=\"");
    text_deinit(&text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_error_has_an_exit_code_that_is_not_success),
        cmocka_unit_test(exit_codes_tell_kinds_apart),
        cmocka_unit_test(durations_choose_their_unit),
        cmocka_unit_test(spans_are_one_rounded_unit),
        cmocka_unit_test(times_are_exact_to_the_microsecond),
        cmocka_unit_test(counts_are_split_by_thousands),
        cmocka_unit_test(a_terminal_sees_no_control_characters),
        cmocka_unit_test(json_takes_text_as_it_is_and_other_bytes_as_base64),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
