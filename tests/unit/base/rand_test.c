/* The generator repeats from its seed and stays below its bound. */
#include "base/rand.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void same_seed_gives_the_same_sequence(void **) {
    struct rng a;
    struct rng b;
    struct rng c;
    rng_seed(&a, 42);
    rng_seed(&b, 42);
    rng_seed(&c, 43);
    size_t differ = 0;
    for (int i = 0; i < 1000; i++) {
        uint64_t value = rng_next(&a);
        assert_int_equal(value, rng_next(&b));
        differ += value != rng_next(&c);
    }
    assert_int_equal(differ, 1000);
}

static void first_values_are_those_of_the_published_algorithm(void **) {
    /* xoshiro256** with state 1, 2, 3, 4: the vector that its ports are checked with. */
    struct rng rng = {.state = {1, 2, 3, 4}};
    assert_int_equal(rng_next(&rng), 11520u);
    assert_int_equal(rng_next(&rng), 0u);
    assert_int_equal(rng_next(&rng), 1509978240u);
    assert_int_equal(rng_next(&rng), 1215971899390074240u);
}

static void bounded_values_stay_below_and_reach_all(void **) {
    struct rng rng;
    rng_seed(&rng, 7);
    size_t seen[6] = {0};
    for (int i = 0; i < 6000; i++) {
        uint64_t value = rng_below(&rng, 6);
        assert_true(value < 6);
        seen[value]++;
    }
    for (int i = 0; i < 6; i++)
        assert_in_range(seen[i], 850, 1150);
    assert_int_equal(rng_below(&rng, 1), 0);
}

static void system_bytes_fill_the_whole_buffer(void **) {
    uint8_t bytes[512] = {0};
    rand_bytes(bytes, sizeof bytes);
    uint8_t zeros[16] = {0};
    for (size_t i = 0; i < sizeof bytes; i += 16)
        assert_memory_not_equal(bytes + i, zeros, 16);
    assert_int_not_equal(rand_u64(), rand_u64());
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_seed_gives_the_same_sequence),
        cmocka_unit_test(first_values_are_those_of_the_published_algorithm),
        cmocka_unit_test(bounded_values_stay_below_and_reach_all),
        cmocka_unit_test(system_bytes_fill_the_whole_buffer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
