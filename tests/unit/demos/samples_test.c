/* The percentile rules of the two harnesses, which are not the same, and the duration text. */
#include "samples.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static struct samples samples;

/* Values 1 .. count, the largest first. */
static void fill(size_t count) {
    samples_reset(&samples, count);
    for (size_t i = count; i > 0; i--)
        samples_add(&samples, i);
    samples_sort(&samples);
}

static void an_empty_set_answers_zero(void **) {
    fill(0);
    assert_int_equal(samples_rounded_index(&samples, 0.5), 0);
    assert_int_equal(samples_nearest_rank(&samples, 0.5), 0);
    assert_true(samples_mean_ns(&samples) == 0.0);
}

static void rounded_index_takes_the_nearest_index(void **) {
    fill(4); /* indexes 0 .. 3: 3 * 0.5 = 1.5 rounds up */
    assert_int_equal(samples_rounded_index(&samples, 0.5), 3);
    assert_int_equal(samples_rounded_index(&samples, 0.49), 2); /* 1.47 rounds down */
    assert_int_equal(samples_rounded_index(&samples, 0), 1);
    assert_int_equal(samples_rounded_index(&samples, 1), 4);
    fill(2000); /* 1999 * 0.999 = 1997.001, 1999 * 0.99 = 1979.01 */
    assert_int_equal(samples_rounded_index(&samples, 0.999), 1998);
    assert_int_equal(samples_rounded_index(&samples, 0.99), 1980);
    assert_int_equal(samples_rounded_index(&samples, 0.5), 1001);
}

static void nearest_rank_takes_the_smallest_that_covers_the_part(void **) {
    fill(4);
    assert_int_equal(samples_nearest_rank(&samples, 0.5), 2);
    assert_int_equal(samples_nearest_rank(&samples, 0.51), 3);
    assert_int_equal(samples_nearest_rank(&samples, 0), 1);
    assert_int_equal(samples_nearest_rank(&samples, 1), 4);
    fill(100);
    assert_int_equal(samples_nearest_rank(&samples, 0.99), 99);
    fill(2000);
    assert_int_equal(samples_nearest_rank(&samples, 0.999), 1998);
}

static void one_sample_is_every_percentile(void **) {
    fill(1);
    assert_int_equal(samples_rounded_index(&samples, 0.999), 1);
    assert_int_equal(samples_nearest_rank(&samples, 0.001), 1);
}

static void what_does_not_fit_is_not_kept(void **) {
    samples_reset(&samples, 2000);
    samples_reset(&samples, 2);
    for (uint64_t i = 0; i < samples.capacity + 5; i++)
        samples_add(&samples, i);
    assert_int_equal(samples.count, samples.capacity);
}

static void the_mean_is_of_all(void **) {
    fill(9);
    assert_true(samples_mean_ns(&samples) == 5.0);
}

static void durations_change_their_unit_at_a_millisecond(void **) {
    assert_string_equal(demo_duration(0).text, "0 us");
    assert_string_equal(demo_duration(999).text, "0 us");
    assert_string_equal(demo_duration(999999).text, "999 us");
    assert_string_equal(demo_duration(1000000).text, "1.000 ms");
    assert_string_equal(demo_duration(2500499600).text, "2500.500 ms");
}

static int clear(void **) {
    samples_deinit(&samples);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_set_answers_zero),
        cmocka_unit_test(rounded_index_takes_the_nearest_index),
        cmocka_unit_test(nearest_rank_takes_the_smallest_that_covers_the_part),
        cmocka_unit_test(one_sample_is_every_percentile),
        cmocka_unit_test(what_does_not_fit_is_not_kept),
        cmocka_unit_test(the_mean_is_of_all),
        cmocka_unit_test(durations_change_their_unit_at_a_millisecond),
    };
    return cmocka_run_group_tests(tests, NULL, clear);
}
