/* A broker's refusal as an error code: by its code, or from an old broker by its words. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "client/lane.h"

static void a_code_decides_whatever_the_words_say(void **state) {
    (void)state;
#define X(name, number, text, retry)                                                               \
    assert_int_equal(refusal_err(WIRE_CODE_##name, WIRE_RETRY_NONE, slice_str("not found")),       \
                     wire_code_to_err(WIRE_CODE_##name));
    WIRE_CODE_MAP(X)
#undef X
    assert_int_equal(refusal_err(WIRE_CODE_STORAGE, WIRE_RETRY_RETRY_AFTER, slice_str("not found")),
                     FELIX_DISK_FULL);
    assert_int_equal(refusal_err(WIRE_CODE_FORBIDDEN, WIRE_RETRY_FATAL, slice_str("not found")),
                     FELIX_FORBIDDEN);
}

static void without_a_code_the_words_of_the_original_decide(void **state) {
    (void)state;
    static const struct {
        const char *words;
        enum felix_err err;
    } known[] = {
        {"stream not found: tenant=t1 namespace=default stream=x", FELIX_NOT_FOUND},
        {"forbidden", FELIX_FORBIDDEN},
        {"tenant mismatch", FELIX_FORBIDDEN},
        {"auth required", FELIX_UNAUTHENTICATED},
        {"ingress queue is full", FELIX_OVERLOADED},
        {"publish timeout", FELIX_OUTCOME_UNKNOWN},
        {"durable storage error: no space left on device", FELIX_STORAGE},
        {"the disk is full: nothing was stored, try again later", FELIX_DISK_FULL},
        {"something else", FELIX_INTERNAL},
        {"", FELIX_INTERNAL},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        assert_int_equal(refusal_err(WIRE_CODE_NONE, WIRE_RETRY_NONE, slice_str(known[i].words)),
                         known[i].err);
    assert_int_equal(refusal_err(WIRE_CODE_NONE, WIRE_RETRY_NONE, slice_of(NULL, 0)),
                     FELIX_INTERNAL);
}

static void a_text_is_cut_to_its_room(void **state) {
    (void)state;
    char out[5];
    assert_string_equal(text_of_slice(slice_str("abc"), out, sizeof out), "abc");
    assert_string_equal(text_of_slice(slice_str("abcdefgh"), out, sizeof out), "abcd");
    assert_string_equal(text_of_slice(slice_of(NULL, 0), out, sizeof out), "");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_code_decides_whatever_the_words_say),
        cmocka_unit_test(without_a_code_the_words_of_the_original_decide),
        cmocka_unit_test(a_text_is_cut_to_its_room),
    };
    return cmocka_run_group_tests_name("client_refusal", tests, NULL, NULL);
}
