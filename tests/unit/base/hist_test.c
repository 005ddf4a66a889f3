/* Accuracy against the sorted values themselves, and the edges of the buckets. */
#include "base/hist.h"
#include "base/rand.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static struct hist h;
static struct hist other;

static int fresh(void **) {
    hist_reset(&h);
    hist_reset(&other);
    return 0;
}

static int compare_u64(const void *a, const void *b) {
    uint64_t x;
    uint64_t y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

static void empty_answers_zero_everywhere(void **) {
    assert_int_equal(hist_count(&h), 0);
    assert_int_equal(hist_min_ns(&h), 0);
    assert_int_equal(hist_max_ns(&h), 0);
    assert_int_equal(hist_mean_ns(&h), 0);
    assert_int_equal(hist_percentile_ns(&h, 50), 0);
    assert_int_equal(hist_count_at_most(&h, HIST_VALUE_MAX), 0);
}

static void values_below_256_are_exact(void **) {
    for (uint64_t v = 0; v < 256; v++)
        hist_record(&h, v);
    assert_int_equal(hist_min_ns(&h), 0);
    assert_int_equal(hist_max_ns(&h), 255);
    for (uint64_t v = 0; v < 256; v++) {
        assert_int_equal(hist_percentile_ns(&h, (double)(v + 1) / 256.0 * 100.0), v);
        assert_int_equal(hist_count_at_most(&h, v), v + 1);
    }
}

static void what_was_there_before_can_be_taken_out(void **) {
    hist_record(&h, 10);
    hist_record(&h, 5000000);
    hist_merge(&other, &h);
    for (uint64_t v = 100; v < 200; v++)
        hist_record(&h, v);
    hist_subtract(&h, &other);
    assert_int_equal(hist_count(&h), 100);
    assert_int_equal(hist_min_ns(&h), 100);
    assert_int_equal(hist_max_ns(&h), 199);
    assert_int_equal(hist_percentile_ns(&h, 50), 149);
    assert_int_equal(hist_mean_ns(&h), 149);
}

static void nothing_new_leaves_an_empty_histogram(void **) {
    hist_record(&h, 77);
    hist_merge(&other, &h);
    hist_subtract(&h, &other);
    assert_int_equal(hist_count(&h), 0);
    assert_int_equal(hist_percentile_ns(&h, 99), 0);
    assert_int_equal(hist_mean_ns(&h), 0);
}

static void a_single_value_is_every_percentile(void **) {
    hist_record(&h, 123456789);
    assert_int_equal(hist_percentile_ns(&h, 0), 123456789);
    assert_int_equal(hist_percentile_ns(&h, 50), 123456789);
    assert_int_equal(hist_percentile_ns(&h, 100), 123456789);
    assert_int_equal(hist_mean_ns(&h), 123456789);
}

static void every_power_of_two_and_its_neighbours_err_by_less_than_one_percent(void **) {
    for (unsigned bit = 1; bit < HIST_VALUE_BITS; bit++) {
        uint64_t base = (uint64_t)1 << bit;
        for (uint64_t v = base - 1; v <= base + 1; v++) {
            hist_reset(&h);
            hist_record(&h, 0);
            hist_record(&h, v);
            hist_record(&h, HIST_VALUE_MAX);
            uint64_t got = hist_percentile_ns(&h, 50);
            assert_true(got >= v);
            assert_true((double)(got - v) <= (double)v / 128.0);
        }
    }
}

static void values_beyond_the_range_count_and_keep_the_true_maximum(void **) {
    hist_record(&h, 1);
    hist_record(&h, UINT64_MAX / 4);
    assert_int_equal(hist_count(&h), 2);
    assert_int_equal(hist_max_ns(&h), UINT64_MAX / 4);
    assert_int_equal(hist_percentile_ns(&h, 100), UINT64_MAX / 4);
}

/* Nearest rank on the sorted values is the truth; the seed is printed by a failing assertion. */
static void check_against_sorted(uint64_t seed, uint64_t (*draw)(struct rng *)) {
    enum { COUNT = 20000 };
    static uint64_t values[COUNT];
    const double percents[] = {0, 1, 10, 25, 50, 75, 90, 95, 99, 99.9, 99.99, 100};
    struct rng rng;
    uint64_t sum = 0;

    print_message("seed %llu\n", (unsigned long long)seed);
    rng_seed(&rng, seed);
    hist_reset(&h);
    for (size_t i = 0; i < COUNT; i++) {
        values[i] = draw(&rng);
        sum += values[i];
        hist_record(&h, values[i]);
    }
    qsort(values, COUNT, sizeof values[0], compare_u64);

    assert_int_equal(hist_count(&h), COUNT);
    assert_int_equal(hist_min_ns(&h), values[0]);
    assert_int_equal(hist_max_ns(&h), values[COUNT - 1]);
    assert_int_equal(hist_mean_ns(&h), sum / COUNT);
    for (size_t i = 0; i < sizeof percents / sizeof percents[0]; i++) {
        size_t rank = (size_t)ceil(percents[i] / 100.0 * (double)COUNT - 1e-6);
        uint64_t exact = values[rank == 0 ? 0 : rank - 1];
        uint64_t got = hist_percentile_ns(&h, percents[i]);
        assert_true(got >= exact);
        assert_true((double)(got - exact) <= (double)exact / 128.0);
    }
}

static uint64_t draw_uniform(struct rng *rng) {
    return rng_below(rng, 50000000);
}

static uint64_t draw_long_tail(struct rng *rng) {
    return 20000 + (rng_next(rng) >> (22 + rng_below(rng, 40)));
}

static void percentiles_match_sorted_values(void **) {
    uint64_t seed = rand_u64();
    check_against_sorted(seed, draw_uniform);
    check_against_sorted(seed, draw_long_tail);
}

static void merging_equals_recording_into_one(void **) {
    static struct hist all;
    struct rng rng;
    rng_seed(&rng, 3);
    hist_reset(&all);
    for (int i = 0; i < 5000; i++) {
        uint64_t v = draw_long_tail(&rng);
        hist_record(i % 3 == 0 ? &h : &other, v);
        hist_record(&all, v);
    }
    hist_merge(&h, &other);
    assert_memory_equal(&h, &all, sizeof h);

    static struct hist empty;
    hist_merge(&h, &empty);
    assert_memory_equal(&h, &all, sizeof h);
    hist_merge(&empty, &h);
    assert_int_equal(hist_min_ns(&empty), hist_min_ns(&all));
}

static void count_at_most_is_monotonic_and_ends_at_count(void **) {
    struct rng rng;
    rng_seed(&rng, 9);
    for (int i = 0; i < 1000; i++)
        hist_record(&h, draw_uniform(&rng));
    uint64_t before = 0;
    for (uint64_t bound = 1; bound < HIST_VALUE_MAX; bound *= 3) {
        uint64_t now = hist_count_at_most(&h, bound);
        assert_true(now >= before);
        before = now;
    }
    assert_int_equal(hist_count_at_most(&h, UINT64_MAX), 1000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(empty_answers_zero_everywhere, fresh),
        cmocka_unit_test_setup(values_below_256_are_exact, fresh),
        cmocka_unit_test_setup(what_was_there_before_can_be_taken_out, fresh),
        cmocka_unit_test_setup(nothing_new_leaves_an_empty_histogram, fresh),
        cmocka_unit_test_setup(a_single_value_is_every_percentile, fresh),
        cmocka_unit_test_setup(every_power_of_two_and_its_neighbours_err_by_less_than_one_percent,
                               fresh),
        cmocka_unit_test_setup(values_beyond_the_range_count_and_keep_the_true_maximum, fresh),
        cmocka_unit_test_setup(percentiles_match_sorted_values, fresh),
        cmocka_unit_test_setup(merging_equals_recording_into_one, fresh),
        cmocka_unit_test_setup(count_at_most_is_monotonic_and_ends_at_count, fresh),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
