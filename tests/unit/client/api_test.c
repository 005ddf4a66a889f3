/* What felix.h promises without a broker: arguments are checked, errors have a text per thread. */
#include <felix/felix.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <pthread.h>

static const struct felix_bytes nothing = {NULL, 0};

static void cache_done(void *context, enum felix_err err, const char *error_text, bool found,
                       struct felix_bytes value) {
    fail_msg("a refused call must not be answered");
}

static void a_null_handle_is_an_invalid_argument_and_no_crash(void **state) {
    (void)state;
    felix_client *client = NULL;
    felix_subscription *subscription = NULL;
    struct felix_bytes value;
    struct felix_message message;
    uint64_t ns;
    struct felix_publish_result result;
    const enum felix_err results[] = {
        felix_connect(NULL, 0, &client),
        felix_flush(NULL, 1),
        felix_ping(NULL, 1, &ns),
        felix_publish(NULL, "n", "s", &nothing, 1, FELIX_ACK_NONE, NULL, NULL),
        felix_publish_keyed(NULL, "n", "s", nothing, nothing, FELIX_ACK_NONE, NULL, NULL),
        felix_publish_confirmed(NULL, "n", "s", NULL, &nothing, 1, &result),
        felix_subscribe(NULL, "n", "s", NULL, &subscription),
        felix_next(NULL, 0, &message),
        felix_cache_put(NULL, "n", "c", "k", nothing, 0),
        felix_cache_get(NULL, "n", "c", "k", &value),
        felix_cache_delete(NULL, "n", "c", "k", NULL),
        felix_cache_put_async(NULL, "n", "c", "k", nothing, 0, cache_done, NULL),
        felix_cache_get_async(NULL, "n", "c", "k", cache_done, NULL),
        felix_cache_delete_async(NULL, "n", "c", "k", cache_done, NULL),
        felix_options_set(NULL, "server", "x"),
        felix_options_set_server(NULL, "x"),
        felix_options_set_tenant(NULL, "x"),
        felix_options_set_token(NULL, "x"),
    };
    for (size_t i = 0; i < sizeof results / sizeof results[0]; i++) {
        if (results[i] != FELIX_INVALID_ARGUMENT)
            fail_msg("call %zu: %s", i, felix_err_name(results[i]));
    }
    assert_string_not_equal(felix_last_error(), "");
}

static void null_is_freed_and_closed_without_harm(void **state) {
    (void)state;
    felix_close(NULL, 1000);
    felix_unsubscribe(NULL);
    felix_options_free(NULL);
    felix_free(NULL);
}

static void statistics_of_nothing_are_zero(void **state) {
    (void)state;
    struct felix_stats stats;
    static const struct felix_stats zero;
    memset(&stats, 0xff, sizeof stats);
    felix_client_stats(NULL, &stats);
    assert_memory_equal(&stats, &zero, sizeof stats);
}

static void *fail_elsewhere(void *context) {
    (void)context;
    if (felix_last_error()[0] != '\0')
        return NULL;
    (void)felix_flush(NULL, 1);
    return (void *)(uintptr_t)(strstr(felix_last_error(), "felix_flush") != NULL);
}

static void each_thread_has_its_own_last_error(void **state) {
    (void)state;
    pthread_t thread;
    void *right = NULL;
    (void)felix_options_set(NULL, "mine", "x");
    assert_int_equal(pthread_create(&thread, NULL, fail_elsewhere, NULL), 0);
    (void)pthread_join(thread, &right);
    assert_non_null(right);
    assert_non_null(strstr(felix_last_error(), "mine"));
}

static void codes_have_names_and_texts(void **state) {
    (void)state;
    assert_string_equal(felix_err_name(FELIX_OUTCOME_UNKNOWN), "OUTCOME_UNKNOWN");
    assert_string_equal(felix_err_text(FELIX_NOT_FOUND), "not found");
    assert_string_equal(felix_err_name((enum felix_err)12345), "UNKNOWN");
    assert_string_equal(felix_version(), "0.1.0");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_null_handle_is_an_invalid_argument_and_no_crash),
        cmocka_unit_test(null_is_freed_and_closed_without_harm),
        cmocka_unit_test(statistics_of_nothing_are_zero),
        cmocka_unit_test(each_thread_has_its_own_last_error),
        cmocka_unit_test(codes_have_names_and_texts),
    };
    return cmocka_run_group_tests_name("client_api", tests, NULL, NULL);
}
