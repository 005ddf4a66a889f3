/* Published hash vectors, and both maps against a naive oracle under random operations. */
#include "base/map.h"
#include "base/rand.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { KEYS = 400 };

struct item {
    char key[24];
    size_t key_len;
    bool present; /* the oracle */
    unsigned seen;
};

static struct item items[KEYS];

static struct slice item_key(const void *entry) {
    const struct item *item = entry;
    return slice_of(item->key, item->key_len);
}

static int make_items(void **) {
    for (size_t i = 0; i < KEYS; i++) {
        items[i] = (struct item){0};
        /* Zero bytes inside, as in tenant\0namespace\0stream. */
        items[i].key_len =
            (size_t)snprintf(items[i].key, sizeof items[i].key, "t%zu%cname%zu", i % 7, '\0', i);
    }
    return 0;
}

static void hash_matches_the_reference(void **) {
    /* SipHash-1-3, key 00 01 .. 0f, input 00 01 .. n-1; from the reference implementation. */
    const uint64_t key[2] = {0x0706050403020100u, 0x0f0e0d0c0b0a0908u};
    const uint64_t expected[] = {0xabac0158050fc4dcu, 0xc9f49bf37d57ca93u, 0x82cb9b024dc7d44du,
                                 0x8bf80ab8e7ddf7fbu, 0xcf75576088d38328u, 0xdef9d52f49533b67u,
                                 0xc50d2b50c59f22a7u, 0xd3927d989bb11140u, 0x369095118d299a8eu};
    uint8_t input[16];
    for (size_t i = 0; i < sizeof input; i++)
        input[i] = (uint8_t)i;
    for (size_t n = 0; n < sizeof expected / sizeof expected[0]; n++)
        assert_int_equal(map_hash_keyed(key, slice_of(input, n)), expected[n]);
}

static void empty_map_answers_nothing(void **) {
    struct map map;
    size_t at = 0;
    map_init(&map, item_key);
    assert_null(map_get(&map, slice_str("x")));
    assert_null(map_remove(&map, slice_str("x")));
    assert_null(map_next(&map, &at));
    map_trim(&map);
    map_deinit(&map);
    struct map zeroed = {0};
    map_deinit(&zeroed);
}

static void put_returns_what_it_replaced(void **) {
    struct map map;
    struct item twin = items[3];
    map_init(&map, item_key);
    assert_null(map_put(&map, &items[3]));
    assert_ptr_equal(map_put(&map, &twin), &items[3]);
    assert_int_equal(map.count, 1);
    assert_ptr_equal(map_get(&map, item_key(&items[3])), &twin);
    map_deinit(&map);
}

static void check_all(const struct map *map, size_t count) {
    assert_int_equal(map->count, count);
    for (size_t i = 0; i < KEYS; i++) {
        void *want = items[i].present ? &items[i] : NULL;
        assert_ptr_equal(map_get(map, item_key(&items[i])), want);
        items[i].seen = 0;
    }
    size_t at = 0;
    for (struct item *item; (item = map_next(map, &at)) != NULL;)
        item->seen++;
    for (size_t i = 0; i < KEYS; i++)
        assert_int_equal(items[i].seen, items[i].present ? 1 : 0);
}

static void random_operations_agree_with_the_oracle(void **) {
    struct map map;
    struct rng rng;
    uint64_t seed = rand_u64();
    size_t count = 0;

    print_message("seed %llu\n", (unsigned long long)seed);
    rng_seed(&rng, seed);
    map_init(&map, item_key);
    for (size_t step = 0; step < 20000; step++) {
        /* Phases of growth and of decline, so that the table is full and nearly empty in turn. */
        bool grow = rng_below(&rng, 100) < (step / 2000 % 2 == 0 ? 70u : 30u);
        struct item *item = &items[rng_below(&rng, KEYS)];
        if (grow) {
            assert_ptr_equal(map_put(&map, item), item->present ? item : NULL);
            count += !item->present;
            item->present = true;
        } else {
            assert_ptr_equal(map_remove(&map, item_key(item)), item->present ? item : NULL);
            count -= item->present;
            item->present = false;
        }
        if (step % 997 == 0)
            map_trim(&map);
        if (step % 101 == 0)
            check_all(&map, count);
    }
    check_all(&map, count);
    map_deinit(&map);
}

/* All hashes equal or nearly so: runs are long and wrap around the end of the table. */
static void colliding_entries_survive_removals(void **) {
    struct map map;
    struct rng rng;
    rng_seed(&rng, 5);
    map_init(&map, item_key);
    map_reserve(&map, 90);
    for (size_t i = 0; i < 80; i++)
        assert_null(map_put_hashed(&map, &items[i], (uint64_t)126 + i % 3));
    bool present[80];
    memset(present, 1, sizeof present);
    for (size_t left = 80; left > 0;) {
        size_t i = rng_below(&rng, 80);
        void *got = map_remove_hashed(&map, item_key(&items[i]), (uint64_t)126 + i % 3);
        assert_ptr_equal(got, present[i] ? &items[i] : NULL);
        left -= present[i];
        present[i] = false;
        for (size_t j = 0; j < 80; j++)
            assert_ptr_equal(map_get_hashed(&map, item_key(&items[j]), (uint64_t)126 + j % 3),
                             present[j] ? &items[j] : NULL);
    }
    map_deinit(&map);
}

static void walk_with_removals_misses_none(void **) {
    struct map map;
    size_t at = 0;
    size_t left = 0;
    map_init(&map, item_key);
    for (size_t i = 0; i < KEYS; i++)
        assert_null(map_put(&map, &items[i]));
    for (struct item *item; (item = map_next(&map, &at)) != NULL;) {
        item->seen++;
        if ((size_t)(item - items) % 2 == 0)
            map_remove_current(&map, &at);
    }
    for (size_t i = 0; i < KEYS; i++) {
        assert_true(items[i].seen >= 1);
        left += map_get(&map, item_key(&items[i])) != NULL;
    }
    assert_int_equal(left, KEYS / 2);
    assert_int_equal(map.count, KEYS / 2);
    map_deinit(&map);
}

static void u64_map_agrees_with_the_oracle(void **) {
    struct map_u64 map = {0};
    struct rng rng;
    uint64_t seed = rand_u64();
    static void *oracle[KEYS];
    size_t count = 0;

    print_message("seed %llu\n", (unsigned long long)seed);
    rng_seed(&rng, seed);
    assert_null(map_u64_get(&map, 1));
    assert_null(map_u64_remove(&map, 1));
    for (size_t step = 0; step < 20000; step++) {
        size_t i = rng_below(&rng, KEYS);
        uint64_t key = (uint64_t)i << 40; /* the low bits are all zero */
        bool grow = rng_below(&rng, 100) < (step / 2000 % 2 == 0 ? 70u : 30u);
        if (grow) {
            void *value = &items[rng_below(&rng, KEYS)];
            assert_ptr_equal(map_u64_put(&map, key, value), oracle[i]);
            count += oracle[i] == NULL;
            oracle[i] = value;
        } else {
            assert_ptr_equal(map_u64_remove(&map, key), oracle[i]);
            count -= oracle[i] != NULL;
            oracle[i] = NULL;
        }
        assert_int_equal(map.count, count);
    }
    for (size_t i = 0; i < KEYS; i++)
        assert_ptr_equal(map_u64_get(&map, (uint64_t)i << 40), oracle[i]);

    size_t at = 0;
    uint64_t key;
    for (void *value; (value = map_u64_next(&map, &at, &key)) != NULL;) {
        assert_ptr_equal(oracle[key >> 40], value);
        map_u64_remove_current(&map, &at);
        oracle[key >> 40] = NULL;
    }
    assert_int_equal(map.count, 0);
    map_u64_deinit(&map);
}

/* Last: it changes the key under maps that other tests made. */
static void a_fixed_key_is_the_one_that_hashes_use(void **) {
    const uint64_t key[2] = {3, 4};
    map_hash_fix(key);
    assert_int_equal(map_hash(slice_str("felix")), map_hash_keyed(key, slice_str("felix")));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hash_matches_the_reference),
        cmocka_unit_test_setup(empty_map_answers_nothing, make_items),
        cmocka_unit_test_setup(put_returns_what_it_replaced, make_items),
        cmocka_unit_test_setup(random_operations_agree_with_the_oracle, make_items),
        cmocka_unit_test_setup(colliding_entries_survive_removals, make_items),
        cmocka_unit_test_setup(walk_with_removals_misses_none, make_items),
        cmocka_unit_test_setup(u64_map_agrees_with_the_oracle, make_items),
        cmocka_unit_test(a_fixed_key_is_the_one_that_hashes_use),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
