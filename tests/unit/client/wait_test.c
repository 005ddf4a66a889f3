/* One thread waits, another one signals. */
#include "client/wait.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <time.h>

#include "base/clock.h"

#define FAR_NS (20 * NS_PER_S)

static void a_signal_that_came_first_is_not_missed(void **state) {
    (void)state;
    struct waiter waiter;
    waiter_reset(&waiter);
    waiter_signal(&waiter);
    assert_true(waiter_wait(&waiter, 0, 0));
    assert_true(waiter_wait(&waiter, 0, 0)); /* until it is reset */
    waiter_reset(&waiter);
    assert_false(waiter_wait(&waiter, 0, 0));
}

static void the_wait_ends_at_its_deadline_and_not_before(void **state) {
    (void)state;
    static const uint64_t spins_ns[] = {0, 5 * NS_PER_MS, FAR_NS};
    for (size_t i = 0; i < sizeof spins_ns / sizeof spins_ns[0]; i++) {
        struct waiter waiter;
        waiter_reset(&waiter);
        uint64_t deadline_ns = clock_now_ns() + 10 * NS_PER_MS;
        assert_false(waiter_wait(&waiter, deadline_ns, spins_ns[i]));
        assert_true(clock_now_ns() >= deadline_ns);
        assert_true(clock_now_ns() < deadline_ns + FAR_NS / 2);
    }
}

static void a_signal_after_a_timeout_still_counts(void **state) {
    (void)state;
    struct waiter waiter;
    waiter_reset(&waiter);
    assert_false(waiter_wait(&waiter, clock_now_ns(), 0));
    waiter_signal(&waiter);
    assert_true(waiter_wait(&waiter, clock_now_ns() + FAR_NS, 0));
}

#define ROUNDS 20000

/* Two waiters play ball: each round one signals what the other one waits for. */
struct ball {
    struct waiter there, back;
    int rounds; /* written by whoever has the ball */
};

static void *other_player(void *context) {
    struct ball *ball = context;
    for (int i = 0; i < ROUNDS; i++) {
        if (!waiter_wait(&ball->there, clock_now_ns() + FAR_NS, i % 2 == 0 ? 20000 : 0))
            return NULL;
        waiter_reset(&ball->there);
        ball->rounds++;
        waiter_signal(&ball->back);
    }
    return NULL;
}

static void signals_wake_spinning_and_sleeping_threads_and_publish_what_was_written(void **state) {
    (void)state;
    struct ball ball = {0};
    pthread_t thread;
    waiter_reset(&ball.there);
    waiter_reset(&ball.back);
    assert_int_equal(pthread_create(&thread, NULL, other_player, &ball), 0);
    for (int i = 0; i < ROUNDS; i++) {
        ball.rounds++;
        waiter_signal(&ball.there);
        assert_true(waiter_wait(&ball.back, clock_now_ns() + FAR_NS, i % 3 == 0 ? 20000 : 0));
        waiter_reset(&ball.back);
    }
    (void)pthread_join(thread, NULL);
    assert_int_equal(ball.rounds, 2 * ROUNDS);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_signal_that_came_first_is_not_missed),
        cmocka_unit_test(the_wait_ends_at_its_deadline_and_not_before),
        cmocka_unit_test(a_signal_after_a_timeout_still_counts),
        cmocka_unit_test(signals_wake_spinning_and_sleeping_threads_and_publish_what_was_written),
    };
    return cmocka_run_group_tests_name("client_wait", tests, NULL, NULL);
}
