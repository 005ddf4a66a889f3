/* Pauses between attempts to connect. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/check.h"
#include "base/clock.h"
#include "client/client.h"

static struct felix_client *client;
static struct backoff backoff;

static int fresh(void **state) {
    (void)state;
    client = xcalloc(1, sizeof *client);
    client->io.timer_due_ns = UINT64_MAX;
    rng_seed(&client->rng, 42);
    backoff_reset(&backoff);
    return 0;
}

static int done(void **state) {
    (void)state;
    free(client);
    return 0;
}

static void pauses_double_up_to_five_seconds_each_shortened_by_up_to_a_half(void **state) {
    (void)state;
    uint64_t whole_ns = 50 * NS_PER_MS;
    assert_int_equal(backoff.due_ns, 0); /* the first attempt is made at once */
    for (int i = 0; i < 40; i++) {
        backoff_fail(&backoff, client, NS_PER_S);
        uint64_t pause_ns = backoff.due_ns - NS_PER_S;
        assert_in_range(pause_ns, whole_ns / 2, whole_ns);
        whole_ns = whole_ns * 2 < 5 * NS_PER_S ? whole_ns * 2 : 5 * NS_PER_S;
    }
}

static void clients_that_lost_the_same_broker_do_not_come_back_together(void **state) {
    (void)state;
    uint64_t first_ns = 0;
    int different = 0;
    for (uint64_t seed = 0; seed < 20; seed++) {
        rng_seed(&client->rng, seed);
        backoff_reset(&backoff);
        backoff_fail(&backoff, client, NS_PER_S);
        different += first_ns != 0 && backoff.due_ns != first_ns ? 1 : 0;
        first_ns = backoff.due_ns;
    }
    assert_true(different > 15);
}

static void a_reset_starts_over(void **state) {
    (void)state;
    for (int i = 0; i < 10; i++)
        backoff_fail(&backoff, client, NS_PER_S);
    backoff_reset(&backoff);
    backoff_fail(&backoff, client, NS_PER_S);
    assert_in_range(backoff.due_ns, NS_PER_S, NS_PER_S + 50 * NS_PER_MS);
}

static void the_timer_is_set_for_the_end_of_the_pause(void **state) {
    (void)state;
    backoff_fail(&backoff, client, NS_PER_S);
    assert_int_equal(client->io.timer_due_ns, backoff.due_ns);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fresh, done)
    const struct CMUnitTest tests[] = {
        TEST(pauses_double_up_to_five_seconds_each_shortened_by_up_to_a_half),
        TEST(clients_that_lost_the_same_broker_do_not_come_back_together),
        TEST(a_reset_starts_over),
        TEST(the_timer_is_set_for_the_end_of_the_pause),
    };
    return cmocka_run_group_tests_name("client_backoff", tests, NULL, NULL);
}
