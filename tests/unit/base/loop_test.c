#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/loop.h"

/* Long enough that reaching it means that a wake-up was lost. */
#define FAR_NS (20 * NS_PER_S)

static struct loop loop;

static int set_up(void **state) {
    (void)state;
    return loop_init(&loop, 0) != FELIX_OK;
}

static int tear_down(void **state) {
    (void)state;
    loop_deinit(&loop);
    return 0;
}

static bool wake_fd_is_set(void) {
    struct pollfd p = {.fd = loop.wake_fd, .events = POLLIN};
    return poll(&p, 1, 0) == 1;
}

static void a_deadline_ends_the_wait_and_not_before(void **state) {
    (void)state;
    uint64_t deadline_ns = clock_now_ns() + 20 * NS_PER_MS;
    loop_wait(&loop, deadline_ns, NULL, NULL);
    assert_true(clock_now_ns() >= deadline_ns);
    assert_int_equal(loop.wakeups, 1);
}

static void a_deadline_in_the_past_does_not_block(void **state) {
    (void)state;
    loop_wait(&loop, clock_now_ns(), NULL, NULL);
    loop_wait(&loop, 0, NULL, NULL);
    assert_int_equal(loop.wakeups, 0);
}

static bool yes(void *context) {
    ++*(int *)context;
    return true;
}

static void work_that_is_there_keeps_it_from_blocking(void **state) {
    (void)state;
    int asked = 0;
    loop_wait(&loop, LOOP_NO_DEADLINE, yes, &asked);
    assert_int_equal(asked, 1);
    assert_int_equal(loop.wakeups, 0);
}

/* Work that comes between the first look and falling asleep, from a waker that still saw the loop
 * awake: the second look must find it. */
static bool work_at_second_look(void *context) {
    int *asked = context;
    ++*asked;
    if (*asked == 1)
        loop_wake(&loop);
    return *asked == 2;
}

static void work_that_comes_while_falling_asleep_is_seen(void **state) {
    (void)state;
    int asked = 0;
    loop_wait(&loop, clock_now_ns() + FAR_NS, work_at_second_look, &asked);
    assert_int_equal(asked, 2);
    assert_int_equal(loop.wakeups, 0);
}

static void waking_a_loop_that_is_awake_costs_no_system_call(void **state) {
    (void)state;
    loop_wake(&loop);
    loop_wake(&loop);
    assert_false(wake_fd_is_set());
}

/* The last look before blocking happens with the loop declared asleep: a wake-up there must be
 * delivered through the descriptor, and only once. */
static bool wake_at_second_look(void *context) {
    int *asked = context;
    if (++*asked == 2) {
        loop_wake(&loop);
        assert_true(wake_fd_is_set());
        loop_wake(&loop);
    }
    return false;
}

static void a_wake_up_before_blocking_ends_the_wait_and_is_consumed(void **state) {
    (void)state;
    int asked = 0;
    uint64_t start_ns = clock_now_ns();
    loop_wait(&loop, start_ns + FAR_NS, wake_at_second_look, &asked);
    assert_true(clock_now_ns() < start_ns + FAR_NS);
    assert_int_equal(loop.wakeups, 1);
    assert_false(wake_fd_is_set());
}

static void spinning_does_not_block_and_still_meets_the_deadline(void **state) {
    (void)state;
    uint64_t now_ns;
    loop.spin_ns = FAR_NS;
    do { /* until nobody took the processor meanwhile */
        loop.wakeups = 0;
        loop.spin = (struct loop_spin){0};
        now_ns = clock_now_ns();
        loop_mark_active(&loop, now_ns);
        loop_wait(&loop, now_ns + 200 * NS_PER_US, NULL, NULL);
        assert_true(clock_now_ns() >= now_ns + 200 * NS_PER_US);
    } while (loop.spin.paused_ns != 0);
    assert_int_equal(loop.wakeups, 0);
}

struct watched {
    struct loop_source source;
    unsigned calls;
    uint32_t events;
};

static void on_watched(struct loop_source *source, uint32_t epoll_events) {
    struct watched *watched = (struct watched *)source;
    watched->calls++;
    watched->events = epoll_events;
}

/* A wait that would spin for long, if spinning is thought to help. */
static void wait_a_little(bool (*has_work)(void *), void *context) {
    uint64_t now_ns = clock_now_ns();
    loop_mark_active(&loop, now_ns);
    loop_wait(&loop, now_ns + 10 * NS_PER_MS, has_work, context);
}

static void spins_in_vain_become_rare_until_one_finds_something(void **state) {
    (void)state;
    loop.spin_ns = 20 * NS_PER_US;
    unsigned spins = 0;
    for (unsigned i = 0; i < 30; i++) {
        uint32_t misses = loop.spin.misses;
        loop.spin.paused_ns = 0; /* whoever took the processor meanwhile */
        wait_a_little(NULL, NULL);
        spins += loop.spin.misses != misses;
    }
    assert_true(spins >= 4 && spins <= 10);

    loop.spin.skips = 0;
    loop.spin.paused_ns = 0;
    int asked = 0;
    uint64_t now_ns = clock_now_ns();
    loop_mark_active(&loop, now_ns);
    loop_wait(&loop, now_ns + FAR_NS, work_at_second_look, &asked);
    assert_int_equal(loop.spin.misses, 0);
}

/* A pipe whose reading end, ends[0], is watched by `in`. */
static void watch_pipe(int ends[2], struct watched *in) {
    assert_int_equal(pipe(ends), 0);
    *in = (struct watched){.source = {.fd = ends[0], .on_ready = on_watched}};
    assert_int_equal(loop_add(&loop, &in->source, EPOLLIN), FELIX_OK);
}

static void who_slept_a_little_too_early_spins_longer_the_next_time(void **state) {
    (void)state;
    int ends[2];
    struct watched in;
    watch_pipe(ends, &in);
    loop.spin_ns = FAR_NS;
    loop.spin.misses = 10;
    loop.spin.skips = 5;

    assert_int_equal(write(ends[1], "x", 1), 1);
    loop.last_active_ns = clock_now_ns() - FAR_NS - FAR_NS / 2; /* too long ago to spin */
    loop_wait(&loop, LOOP_NO_DEADLINE, NULL, NULL);
    assert_int_equal(loop.wakeups, 1);
    assert_true(loop.spin.longer);
    assert_int_equal(loop.spin.skips, 0);

    loop.last_active_ns = clock_now_ns() - FAR_NS - FAR_NS / 2; /* not any more */
    loop_wait(&loop, LOOP_NO_DEADLINE, NULL, NULL);
    assert_int_equal(loop.wakeups, 1);

    loop.last_active_ns = clock_now_ns() - (SPIN_LONGER + 1) * FAR_NS;
    loop_wait(&loop, LOOP_NO_DEADLINE, NULL, NULL);
    assert_int_equal(loop.wakeups, 2);
    assert_false(loop.spin.longer);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

static bool be_away(void *context) {
    (void)context;
    struct timespec time = {.tv_nsec = 200000};
    (void)nanosleep(&time, NULL);
    return false;
}

static void who_was_away_while_it_spun_does_not_spin_for_a_while(void **state) {
    (void)state;
    loop.spin_ns = FAR_NS;
    wait_a_little(be_away, NULL);
    assert_true(loop.spin.pause_ns > 0);
    uint64_t first_ns = loop.spin.pause_ns;
    loop.spin.paused_ns = 0;
    wait_a_little(be_away, NULL);
    assert_true(loop.spin.pause_ns > first_ns);
    assert_int_equal(loop.wakeups, 2); /* it slept for the rest */

    loop.spin.paused_ns = clock_now_ns() + FAR_NS;
    uint32_t misses = loop.spin.misses;
    wait_a_little(NULL, NULL);
    assert_int_equal(loop.spin.misses, misses);
    assert_int_equal(loop.wakeups, 3);
}

static void spinning_ends_after_its_time(void **state) {
    (void)state;
    loop.spin_ns = NS_PER_MS;
    uint64_t now_ns = clock_now_ns();
    loop_mark_active(&loop, now_ns);
    loop_wait(&loop, now_ns + 20 * NS_PER_MS, NULL, NULL);
    assert_int_equal(loop.wakeups, 1);
}

static void a_ready_descriptor_is_reported_until_removed(void **state) {
    (void)state;
    int ends[2];
    struct watched in;
    watch_pipe(ends, &in);
    loop_wait(&loop, clock_now_ns(), NULL, NULL);
    assert_int_equal(in.calls, 0);

    assert_int_equal(write(ends[1], "x", 1), 1);
    loop_wait(&loop, LOOP_NO_DEADLINE, NULL, NULL);
    assert_int_equal(in.calls, 1);
    assert_true((in.events & EPOLLIN) != 0);

    loop_change(&loop, &in.source, 0);
    loop_wait(&loop, clock_now_ns(), NULL, NULL);
    assert_int_equal(in.calls, 1);

    loop_change(&loop, &in.source, EPOLLIN);
    loop_wait(&loop, LOOP_NO_DEADLINE, NULL, NULL);
    assert_int_equal(in.calls, 2);

    loop_remove(&loop, &in.source);
    loop_wait(&loop, clock_now_ns(), NULL, NULL);
    assert_int_equal(in.calls, 2);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

static void a_descriptor_that_cannot_be_watched_is_refused(void **state) {
    (void)state;
    struct watched bad = {.source = {.fd = -1, .on_ready = on_watched}};
    assert_int_equal(loop_add(&loop, &bad.source, EPOLLIN), FELIX_SYSTEM);
}

/* One thread queues and wakes, the loop takes. In the first half the queuer waits for each item to
 * be taken, so the loop falls asleep again and again; in the second it does not. */
#define ITEMS 20000

static _Atomic unsigned queued, taken;

static void *queue_items(void *context) {
    (void)context;
    for (unsigned i = 1; i <= ITEMS; i++) {
        atomic_store(&queued, i);
        loop_wake(&loop);
        while (i <= ITEMS / 2 && atomic_load(&taken) < i)
            (void)sched_yield();
    }
    return NULL;
}

static bool items_queued(void *context) {
    (void)context;
    return atomic_load(&queued) != atomic_load(&taken);
}

static void no_wake_up_is_lost_between_two_threads(void **state) {
    (void)state;
    atomic_store(&queued, 0);
    atomic_store(&taken, 0);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, queue_items, NULL), 0);
    while (atomic_load(&taken) < ITEMS) {
        uint64_t deadline_ns = clock_now_ns() + FAR_NS;
        loop_wait(&loop, deadline_ns, items_queued, NULL);
        assert_true(clock_now_ns() < deadline_ns);
        atomic_store(&taken, atomic_load(&queued));
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(loop.wakeups <= ITEMS);
}

#define WITH_LOOP(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_LOOP(a_deadline_ends_the_wait_and_not_before),
        WITH_LOOP(a_deadline_in_the_past_does_not_block),
        WITH_LOOP(work_that_is_there_keeps_it_from_blocking),
        WITH_LOOP(work_that_comes_while_falling_asleep_is_seen),
        WITH_LOOP(waking_a_loop_that_is_awake_costs_no_system_call),
        WITH_LOOP(a_wake_up_before_blocking_ends_the_wait_and_is_consumed),
        WITH_LOOP(spinning_does_not_block_and_still_meets_the_deadline),
        WITH_LOOP(spins_in_vain_become_rare_until_one_finds_something),
        WITH_LOOP(who_slept_a_little_too_early_spins_longer_the_next_time),
        WITH_LOOP(who_was_away_while_it_spun_does_not_spin_for_a_while),
        WITH_LOOP(spinning_ends_after_its_time),
        WITH_LOOP(a_ready_descriptor_is_reported_until_removed),
        WITH_LOOP(a_descriptor_that_cannot_be_watched_is_refused),
        WITH_LOOP(no_wake_up_is_lost_between_two_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
