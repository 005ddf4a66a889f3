#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "base/check.h"
#include "cache/sieve.h"

#define ENTRIES 600

static struct cache_entry *entries; /* ENTRIES of them, all without bytes */

static struct sieve filled(unsigned count) {
    struct sieve sieve = {.kind = SIEVE_SHARD};
    for (unsigned i = 0; i < count; i++) {
        entries[i] = (struct cache_entry){0};
        sieve_add(&sieve, &entries[i]);
    }
    return sieve;
}

static long evict(struct sieve *sieve) {
    struct cache_entry *victim = sieve_victim(sieve, NULL);
    if (victim == NULL)
        return -1;
    sieve_remove(sieve, victim);
    return victim - entries;
}

static void without_hits_the_order_is_that_of_arrival(void **state) {
    (void)state;
    struct sieve sieve = filled(3);
    assert_int_equal(evict(&sieve), 0);
    assert_int_equal(evict(&sieve), 1);
    assert_int_equal(evict(&sieve), 2);
    assert_int_equal(evict(&sieve), -1);
    assert_null(sieve.newest);
    assert_null(sieve.oldest);
}

static void a_hit_spares_for_one_pass(void **state) {
    (void)state;
    struct sieve sieve = filled(3);
    sieve_visit(&entries[0]);
    assert_int_equal(evict(&sieve), 1);
    assert_int_equal(evict(&sieve), 2);
    assert_int_equal(evict(&sieve), 0);
}

static void the_hand_goes_on_where_it_stopped(void **state) {
    (void)state;
    struct sieve sieve = filled(4);
    sieve_visit(&entries[0]);
    sieve_visit(&entries[1]);
    assert_int_equal(evict(&sieve), 2);
    /* 0 and 1 lost their bit but lie behind the hand. */
    assert_int_equal(evict(&sieve), 3);
    assert_int_equal(evict(&sieve), 0);
}

static void removing_under_the_hand_moves_it_to_the_next_newer(void **state) {
    (void)state;
    struct sieve sieve = filled(5);
    sieve_visit(&entries[0]);
    assert_int_equal(evict(&sieve), 1);
    assert_ptr_equal(sieve.hand, &entries[2]);
    sieve_remove(&sieve, &entries[2]);
    assert_int_equal(evict(&sieve), 3);
}

static void a_replacement_stands_where_the_first_stood(void **state) {
    (void)state;
    struct sieve sieve = filled(3);
    sieve_visit(&entries[1]);
    sieve_replace(&sieve, &entries[1], &entries[10]);
    assert_int_equal(evict(&sieve), 0);
    assert_int_equal(evict(&sieve), 2);
    assert_int_equal(evict(&sieve), 10);
}

static void the_one_to_keep_is_passed_over_even_if_never_hit(void **state) {
    (void)state;
    struct sieve sieve = filled(3);
    sieve_visit(&entries[1]);
    sieve_visit(&entries[2]);
    assert_ptr_equal(sieve_victim(&sieve, &entries[0]), &entries[1]);
    sieve_remove(&sieve, &entries[1]);
    sieve_remove(&sieve, &entries[2]);
    assert_null(sieve_victim(&sieve, &entries[0]));
}

static void when_all_are_in_use_one_call_spares_a_bounded_number(void **state) {
    (void)state;
    struct sieve sieve = filled(ENTRIES);
    for (unsigned i = 0; i < ENTRIES; i++)
        sieve_visit(&entries[i]);
    assert_int_equal(evict(&sieve), SIEVE_SPARED_MAX);
    for (unsigned i = 0; i < ENTRIES; i++)
        assert_int_equal(entries[i].visited[SIEVE_SHARD], i >= SIEVE_SPARED_MAX);
}

/* 100 entries, of which the hand has left only the newest few: the next one evicted is an old one
 * that was spared before and not hit since. */
static void the_newest_tenth_is_left_alone_for_a_new_lap(void **state) {
    (void)state;
    struct sieve sieve = filled(100);
    for (unsigned i = 0; i < 91; i++)
        sieve_visit(&entries[i]);
    assert_int_equal(evict(&sieve), 91);
    assert_int_equal(evict(&sieve), 0);
    assert_int_equal(evict(&sieve), 1);
    for (unsigned i = 100; i < 110; i++) {
        sieve_add(&sieve, &entries[i]);
        assert_int_equal(evict(&sieve), i - 98);
    }
}

static void removed_entries_are_not_counted_as_ahead_of_the_hand(void **state) {
    (void)state;
    struct sieve sieve = filled(100);
    for (unsigned i = 0; i < 50; i++)
        sieve_visit(&entries[i]);
    assert_int_equal(evict(&sieve), 50);
    assert_int_equal(sieve.ahead, 49);
    sieve_remove(&sieve, &entries[10]);
    assert_int_equal(sieve.ahead, 49);
    sieve_remove(&sieve, &entries[80]);
    assert_int_equal(sieve.ahead, 48);
    sieve_replace(&sieve, &entries[20], &entries[200]);
    sieve_remove(&sieve, &entries[200]);
    assert_int_equal(sieve.ahead, 48);
    assert_int_equal(sieve.count, 96);
}

static void the_two_queues_of_an_entry_have_their_own_bit(void **state) {
    (void)state;
    struct sieve sieve = filled(2);
    sieve_visit(&entries[0]);
    (void)evict(&sieve);
    assert_false(entries[0].visited[SIEVE_SHARD]);
    assert_true(entries[0].visited[SIEVE_CACHE]);
}

int main(void) {
    entries = xcalloc(ENTRIES, sizeof *entries);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_hits_the_order_is_that_of_arrival),
        cmocka_unit_test(a_hit_spares_for_one_pass),
        cmocka_unit_test(the_hand_goes_on_where_it_stopped),
        cmocka_unit_test(removing_under_the_hand_moves_it_to_the_next_newer),
        cmocka_unit_test(a_replacement_stands_where_the_first_stood),
        cmocka_unit_test(the_one_to_keep_is_passed_over_even_if_never_hit),
        cmocka_unit_test(when_all_are_in_use_one_call_spares_a_bounded_number),
        cmocka_unit_test(the_newest_tenth_is_left_alone_for_a_new_lap),
        cmocka_unit_test(removed_entries_are_not_counted_as_ahead_of_the_hand),
        cmocka_unit_test(the_two_queues_of_an_entry_have_their_own_bit),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(entries);
    return failed;
}
