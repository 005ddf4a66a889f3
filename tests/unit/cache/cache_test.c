#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "cache/cache.h"

#define NOW (1000 * NS_PER_S)

/* A key of ours and the bytes that every entry of such a key with a small value is charged. */
static char key_text[24];

static struct slice key_of(unsigned n) {
    (void)snprintf(key_text, sizeof key_text, "key-%06u", n);
    return slice_str(key_text);
}

static uint64_t charge_of_one(struct slice value) {
    struct cache_shard *shard = cache_shard_new(CACHE_NO_LIMIT);
    struct cache *cache = cache_open(shard, slice_str("t/n/c"), CACHE_NO_LIMIT);
    assert_int_equal(cache_put(cache, key_of(0), value, CACHE_NO_TTL, NOW), FELIX_OK);
    uint64_t bytes = counter_get(&cache->stats.bytes);
    cache_shard_free(shard);
    return bytes;
}

static uint64_t dropped(const struct cache *cache, enum cache_drop reason) {
    return counter_get(&cache->stats.dropped[reason].items);
}

static bool holds(struct cache *cache, unsigned n, uint64_t now_ns) {
    struct cache_value value;
    if (!cache_get(cache, key_of(n), now_ns, &value))
        return false;
    buf_unref(value.block);
    return true;
}

static void put(struct cache *cache, unsigned n, const char *text, uint64_t ttl_ns,
                uint64_t now_ns) {
    assert_int_equal(cache_put(cache, key_of(n), slice_str(text), ttl_ns, now_ns), FELIX_OK);
}

static void assert_value(struct cache *cache, unsigned n, const char *text) {
    struct cache_value value;
    assert_true(cache_get(cache, key_of(n), NOW, &value));
    assert_true(slice_is(value.bytes, text));
    buf_unref(value.block);
}

static void check_books(const struct cache_stats *stats) {
    uint64_t items = counter_get(&stats->items);
    uint64_t bytes = counter_get(&stats->bytes);
    for (int i = 0; i < CACHE_DROP_COUNT; i++) {
        items += counter_get(&stats->dropped[i].items);
        bytes += counter_get(&stats->dropped[i].bytes);
    }
    assert_int_equal(items, counter_get(&stats->puts));
    assert_int_equal(bytes, counter_get(&stats->put_bytes));
}

static int open_one(void **state) {
    struct cache_shard *shard = cache_shard_new(CACHE_NO_LIMIT);
    *state = cache_open(shard, slice_str("t/n/c"), CACHE_NO_LIMIT);
    return 0;
}

static int close_all(void **state) {
    struct cache *cache = *state;
    check_books(&cache->stats);
    check_books(&cache->shard->stats);
    cache_shard_free(cache->shard);
    return 0;
}

static void a_value_comes_back_until_deleted(void **state) {
    struct cache *cache = *state;
    put(cache, 1, "one", CACHE_NO_TTL, NOW);
    assert_value(cache, 1, "one");
    assert_false(holds(cache, 2, NOW));
    struct cache_value value;
    assert_true(cache_delete(cache, key_of(1), NOW, &value));
    assert_true(slice_is(value.bytes, "one"));
    buf_unref(value.block);
    assert_false(cache_delete(cache, key_of(1), NOW, NULL));
    assert_false(holds(cache, 1, NOW));
    assert_int_equal(counter_get(&cache->stats.hits), 1);
    assert_int_equal(counter_get(&cache->stats.misses), 2);
    assert_int_equal(counter_get(&cache->stats.puts), 1);
    assert_int_equal(counter_get(&cache->stats.deletes), 2);
    assert_int_equal(dropped(cache, CACHE_DROP_DELETED), 1);
    assert_int_equal(counter_get(&cache->stats.bytes), 0);
}

static void empty_keys_and_values_are_values(void **state) {
    struct cache *cache = *state;
    struct slice nothing = {0};
    assert_int_equal(cache_put(cache, nothing, nothing, CACHE_NO_TTL, NOW), FELIX_OK);
    struct cache_value value;
    assert_true(cache_get(cache, nothing, NOW, &value));
    assert_int_equal(value.bytes.len, 0);
    buf_unref(value.block);
}

static void a_value_handed_out_outlives_replacement_deletion_and_the_cache(void **state) {
    struct cache *cache = *state;
    struct cache_value first, second;
    put(cache, 1, "first", CACHE_NO_TTL, NOW);
    assert_true(cache_get(cache, key_of(1), NOW, &first));
    put(cache, 1, "other", CACHE_NO_TTL, NOW);
    assert_true(cache_delete(cache, key_of(1), NOW, &second));
    assert_true(slice_is(first.bytes, "first"));
    assert_true(slice_is(second.bytes, "other"));
    buf_unref(first.block);
    buf_unref(second.block);
}

static void a_value_that_went_to_another_thread_is_not_written_over(void **state) {
    struct cache *cache = *state;
    struct cache_value value;
    put(cache, 1, "first", CACHE_NO_TTL, NOW);
    assert_true(cache_get(cache, key_of(1), NOW, &value));
    buf_share(value.block);
    put(cache, 1, "other", CACHE_NO_TTL, NOW);
    assert_true(slice_is(value.bytes, "first"));
    buf_unref(value.block);
    assert_value(cache, 1, "other");
}

static void replacing_counts_the_old_value_and_keeps_one_item(void **state) {
    struct cache *cache = *state;
    static const size_t sizes[] = {3, 4, 5000, 5001, 2, 700000, 700001, 1};
    uint8_t *value = calloc(1, 700001);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        value[0] = (uint8_t)i;
        assert_int_equal(cache_put(cache, key_of(1), slice_of(value, sizes[i]), CACHE_NO_TTL, NOW),
                         FELIX_OK);
        assert_int_equal(counter_get(&cache->stats.items), 1);
        assert_int_equal(dropped(cache, CACHE_DROP_REPLACED), i);
        struct cache_value got;
        assert_true(cache_get(cache, key_of(1), NOW, &got));
        assert_true(slice_equal(got.bytes, slice_of(value, sizes[i])));
        assert_int_equal(counter_get(&cache->stats.bytes),
                         sizeof(struct buf) + got.block->capacity + 2 * sizeof(struct table_slot));
        buf_unref(got.block);
    }
    free(value);
}

static void time_to_live_is_exact_to_the_nanosecond_without_a_sweep(void **state) {
    struct cache *cache = *state;
    put(cache, 1, "one", 100, NOW);
    assert_true(holds(cache, 1, NOW + 99));
    assert_false(holds(cache, 1, NOW + 100));
    assert_int_equal(dropped(cache, CACHE_DROP_EXPIRED), 1);
    assert_int_equal(counter_get(&cache->stats.items), 0);
}

static void a_put_replaces_the_time_to_live(void **state) {
    struct cache *cache = *state;
    put(cache, 1, "one", 100, NOW);
    put(cache, 1, "one", CACHE_NO_TTL, NOW);
    assert_true(holds(cache, 1, UINT64_MAX - 1));
    assert_true(cache_shard_next_expiry_ns(cache->shard) == EXPIRY_NEVER);
    put(cache, 1, "one", 100, NOW);
    assert_false(holds(cache, 1, NOW + 100));
}

static void a_time_to_live_of_zero_is_expired_at_once(void **state) {
    struct cache *cache = *state;
    put(cache, 1, "old", CACHE_NO_TTL, NOW);
    put(cache, 1, "new", 0, NOW);
    assert_false(holds(cache, 1, NOW));
    assert_int_equal(dropped(cache, CACHE_DROP_REPLACED), 1);
    assert_int_equal(dropped(cache, CACHE_DROP_EXPIRED), 1);
}

static void a_huge_time_to_live_does_not_overflow(void **state) {
    struct cache *cache = *state;
    static const uint64_t ttls_ns[] = {UINT64_MAX, UINT64_MAX - 1, UINT64_MAX - NOW,
                                       UINT64_MAX - NOW - 1, UINT64_MAX / 2};
    for (unsigned i = 0; i < sizeof ttls_ns / sizeof ttls_ns[0]; i++)
        put(cache, i, "x", ttls_ns[i], NOW);
    (void)cache_shard_sweep(cache->shard, NOW + (1ull << 60), SIZE_MAX);
    for (unsigned i = 0; i < sizeof ttls_ns / sizeof ttls_ns[0]; i++)
        assert_true(holds(cache, i, NOW + (1ull << 60)));
}

static void deleting_what_has_expired_finds_nothing(void **state) {
    struct cache *cache = *state;
    put(cache, 1, "one", 100, NOW);
    assert_false(cache_delete(cache, key_of(1), NOW + 100, NULL));
    assert_int_equal(dropped(cache, CACHE_DROP_EXPIRED), 1);
    assert_int_equal(dropped(cache, CACHE_DROP_DELETED), 0);
}

static void the_sweeper_frees_what_nobody_reads_and_says_when(void **state) {
    struct cache *cache = *state;
    struct cache_shard *shard = cache->shard;
    for (unsigned i = 0; i < 1000; i++)
        put(cache, i, "x", (1 + i % 10) * NS_PER_S, NOW);
    put(cache, 1000, "stays", CACHE_NO_TTL, NOW);
    for (unsigned round = 1; round <= 10; round++) {
        uint64_t next_ns = cache_shard_next_expiry_ns(shard);
        assert_in_range(next_ns, NOW + round * NS_PER_S,
                        NOW + round * NS_PER_S + EXPIRY_TICK_NS - 1);
        assert_int_equal(cache_shard_sweep(shard, next_ns - EXPIRY_TICK_NS, SIZE_MAX), 0);
        assert_int_equal(cache_shard_sweep(shard, next_ns, SIZE_MAX), 100);
    }
    assert_true(cache_shard_next_expiry_ns(shard) == EXPIRY_NEVER);
    assert_int_equal(counter_get(&cache->stats.items), 1);
    assert_int_equal(dropped(cache, CACHE_DROP_EXPIRED), 1000);
}

static void one_sweep_does_no_more_work_than_allowed(void **state) {
    struct cache *cache = *state;
    for (unsigned i = 0; i < 100; i++)
        put(cache, i, "x", NS_PER_S, NOW);
    assert_true(cache_shard_sweep(cache->shard, NOW + 2 * NS_PER_S, 30) <= 30);
    assert_true(counter_get(&cache->stats.items) >= 70);
    assert_true(cache_shard_next_expiry_ns(cache->shard) <= NOW + 2 * NS_PER_S);
    (void)cache_shard_sweep(cache->shard, NOW + 2 * NS_PER_S, SIZE_MAX);
    assert_int_equal(counter_get(&cache->stats.items), 0);
}

static void a_full_cache_evicts_what_was_not_read(void **state) {
    struct cache_shard *shard = ((struct cache *)*state)->shard;
    uint64_t charge = charge_of_one(slice_str("x"));
    struct cache *cache = cache_open(shard, slice_str("small"), 10 * charge + charge - 1);
    for (unsigned i = 0; i < 10; i++)
        put(cache, i, "x", CACHE_NO_TTL, NOW);
    for (unsigned i = 0; i < 5; i++)
        assert_true(holds(cache, i, NOW));
    for (unsigned i = 10; i < 15; i++) {
        put(cache, i, "x", CACHE_NO_TTL, NOW);
        assert_true(counter_get(&cache->stats.bytes) <= cache->max_bytes);
    }
    for (unsigned i = 0; i < 15; i++)
        assert_int_equal(holds(cache, i, NOW), i < 5 || i >= 10);
    assert_int_equal(dropped(cache, CACHE_DROP_EVICTED_CACHE_LIMIT), 5);
    assert_int_equal(counter_get(&cache->stats.dropped[CACHE_DROP_EVICTED_CACHE_LIMIT].bytes),
                     5 * charge);
    check_books(&cache->stats);
}

static void keys_read_all_the_time_survive_a_scan_of_others(void **state) {
    struct cache_shard *shard = ((struct cache *)*state)->shard;
    uint64_t charge = charge_of_one(slice_str("x"));
    struct cache *cache = cache_open(shard, slice_str("small"), 100 * charge);
    for (unsigned i = 0; i < 50; i++)
        put(cache, i, "x", CACHE_NO_TTL, NOW);
    for (unsigned i = 0; i < 50; i++)
        assert_true(holds(cache, i, NOW));
    for (unsigned i = 1000; i < 3000; i++) {
        put(cache, i, "x", CACHE_NO_TTL, NOW);
        assert_true(holds(cache, i % 50, NOW));
    }
}

static void expired_entries_go_before_live_ones(void **state) {
    struct cache_shard *shard = ((struct cache *)*state)->shard;
    uint64_t charge = charge_of_one(slice_str("x"));
    struct cache *cache = cache_open(shard, slice_str("small"), 10 * charge);
    for (unsigned i = 0; i < 5; i++)
        put(cache, i, "x", CACHE_NO_TTL, NOW);
    for (unsigned i = 5; i < 10; i++)
        put(cache, i, "x", NS_PER_S, NOW);
    for (unsigned i = 10; i < 15; i++)
        put(cache, i, "x", CACHE_NO_TTL, NOW + 2 * NS_PER_S);
    for (unsigned i = 0; i < 5; i++)
        assert_true(holds(cache, i, NOW + 2 * NS_PER_S));
    assert_int_equal(dropped(cache, CACHE_DROP_EVICTED_CACHE_LIMIT), 0);
    assert_int_equal(dropped(cache, CACHE_DROP_EXPIRED), 5);
}

static void the_total_limit_evicts_from_any_cache(void **state) {
    (void)state;
    uint64_t charge = charge_of_one(slice_str("x"));
    struct cache_shard *shard = cache_shard_new(20 * charge);
    struct cache *idle = cache_open(shard, slice_str("idle"), CACHE_NO_LIMIT);
    struct cache *busy = cache_open(shard, slice_str("busy"), CACHE_NO_LIMIT);
    for (unsigned i = 0; i < 10; i++)
        put(busy, i, "x", CACHE_NO_TTL, NOW);
    for (unsigned i = 0; i < 10; i++)
        put(idle, i, "x", CACHE_NO_TTL, NOW);
    for (unsigned i = 0; i < 10; i++)
        assert_true(holds(busy, i, NOW));
    for (unsigned i = 10; i < 20; i++)
        put(busy, i, "x", CACHE_NO_TTL, NOW);
    assert_int_equal(counter_get(&idle->stats.items), 0);
    assert_int_equal(counter_get(&busy->stats.items), 20);
    assert_int_equal(dropped(idle, CACHE_DROP_EVICTED_TOTAL_LIMIT), 10);
    assert_true(counter_get(&shard->stats.bytes) <= shard->max_bytes);
    check_books(&shard->stats);
    cache_shard_free(shard);
}

static void what_alone_is_over_a_limit_is_refused_and_changes_nothing(void **state) {
    struct cache_shard *shard = ((struct cache *)*state)->shard;
    static const uint8_t bytes[4096];
    uint64_t charge = charge_of_one(slice_of(bytes, 1000));
    struct cache *cache = cache_open(shard, slice_str("small"), charge);
    assert_int_equal(cache_put(cache, key_of(1), slice_of(bytes, 1000), CACHE_NO_TTL, NOW),
                     FELIX_OK);
    assert_int_equal(cache_put(cache, key_of(1), slice_of(bytes, 2100), CACHE_NO_TTL, NOW),
                     FELIX_TOO_LARGE);
    assert_int_equal(cache_put(cache, key_of(2), slice_of(bytes, 4096), CACHE_NO_TTL, NOW),
                     FELIX_TOO_LARGE);
    assert_true(holds(cache, 1, NOW));
    assert_int_equal(counter_get(&cache->stats.refused_items), 2);
    assert_int_equal(counter_get(&cache->stats.refused_bytes), 2 * 10 + 2100 + 4096);

    cache->max_bytes = charge - 1;
    assert_int_equal(cache_put(cache, key_of(3), slice_of(bytes, 1000), CACHE_NO_TTL, NOW),
                     FELIX_TOO_LARGE);
    check_books(&cache->stats);
}

static void an_entry_at_the_limit_pushes_out_all_others(void **state) {
    struct cache_shard *shard = ((struct cache *)*state)->shard;
    static const uint8_t bytes[100000];
    uint64_t charge = charge_of_one(slice_of(bytes, sizeof bytes));
    struct cache *cache = cache_open(shard, slice_str("small"), charge);
    for (unsigned i = 0; i < 300; i++) {
        put(cache, i, "x", CACHE_NO_TTL, NOW);
        assert_true(holds(cache, i, NOW));
    }
    assert_int_equal(cache_put(cache, key_of(7), slice_of(bytes, sizeof bytes), CACHE_NO_TTL, NOW),
                     FELIX_OK);
    assert_true(holds(cache, 7, NOW));
    assert_int_equal(counter_get(&cache->stats.items), 1);
}

static void closing_frees_entries_at_once_and_counts_them_in_the_shard(void **state) {
    struct cache *cache = *state;
    struct cache_shard *shard = cache->shard;
    struct cache *other = cache_open(shard, slice_str("t/n/other"), CACHE_NO_LIMIT);
    assert_true(slice_is(other->name_bytes, "t/n/other"));
    put(cache, 0, "stays", CACHE_NO_TTL, NOW);
    for (unsigned i = 0; i < 100; i++)
        put(other, i, "x", i % 2 == 0 ? CACHE_NO_TTL : NS_PER_S, NOW);
    cache_close(other);
    assert_int_equal(counter_get(&shard->stats.items), 1);
    assert_int_equal(counter_get(&shard->stats.bytes), counter_get(&cache->stats.bytes));
    assert_int_equal(counter_get(&shard->stats.dropped[CACHE_DROP_CACHE_REMOVED].items), 100);
    assert_true(cache_shard_next_expiry_ns(shard) == EXPIRY_NEVER);
    assert_value(cache, 0, "stays");
}

static void two_caches_of_one_shard_do_not_share_keys(void **state) {
    struct cache *cache = *state;
    struct cache *other = cache_open(cache->shard, slice_str("t/n/other"), CACHE_NO_LIMIT);
    put(cache, 1, "here", CACHE_NO_TTL, NOW);
    assert_false(holds(other, 1, NOW));
    put(other, 1, "there", CACHE_NO_TTL, NOW);
    assert_value(cache, 1, "here");
}

static void every_key_is_found_while_the_table_grows_and_shrinks(void **state) {
    struct cache *cache = *state;
    enum { KEYS = 5000 };
    for (unsigned i = 0; i < KEYS; i++) {
        put(cache, i, "x", CACHE_NO_TTL, NOW);
        assert_true(holds(cache, i / 2, NOW));
        assert_false(holds(cache, i + 1, NOW));
    }
    for (unsigned i = 0; i < KEYS; i++)
        assert_true(holds(cache, i, NOW));
    size_t slots_full = cache->table.slot_count;
    for (unsigned i = 0; i < KEYS - 10; i++) {
        assert_true(cache_delete(cache, key_of(i), NOW, NULL));
        assert_false(holds(cache, i, NOW));
        assert_true(holds(cache, i + (KEYS - i) / 2, NOW));
    }
    assert_true(cache->table.slot_count < slots_full / 32);
}

static void a_shard_without_caches_is_freed_and_so_is_none(void **state) {
    (void)state;
    cache_shard_free(cache_shard_new(1));
    cache_shard_free(NULL);
}

static void every_reason_has_a_label(void **state) {
    (void)state;
    assert_string_equal(cache_drop_label(CACHE_DROP_EVICTED_CACHE_LIMIT), "evicted_cache_limit");
    for (int i = 0; i < CACHE_DROP_COUNT; i++)
        assert_non_null(cache_drop_label((enum cache_drop)i));
}

#define WITH_CACHE(test) cmocka_unit_test_setup_teardown(test, open_one, close_all)

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_CACHE(a_value_comes_back_until_deleted),
        WITH_CACHE(empty_keys_and_values_are_values),
        WITH_CACHE(a_value_handed_out_outlives_replacement_deletion_and_the_cache),
        WITH_CACHE(a_value_that_went_to_another_thread_is_not_written_over),
        WITH_CACHE(replacing_counts_the_old_value_and_keeps_one_item),
        WITH_CACHE(time_to_live_is_exact_to_the_nanosecond_without_a_sweep),
        WITH_CACHE(a_put_replaces_the_time_to_live),
        WITH_CACHE(a_time_to_live_of_zero_is_expired_at_once),
        WITH_CACHE(a_huge_time_to_live_does_not_overflow),
        WITH_CACHE(deleting_what_has_expired_finds_nothing),
        WITH_CACHE(the_sweeper_frees_what_nobody_reads_and_says_when),
        WITH_CACHE(one_sweep_does_no_more_work_than_allowed),
        WITH_CACHE(a_full_cache_evicts_what_was_not_read),
        WITH_CACHE(keys_read_all_the_time_survive_a_scan_of_others),
        WITH_CACHE(expired_entries_go_before_live_ones),
        cmocka_unit_test(the_total_limit_evicts_from_any_cache),
        WITH_CACHE(what_alone_is_over_a_limit_is_refused_and_changes_nothing),
        WITH_CACHE(an_entry_at_the_limit_pushes_out_all_others),
        WITH_CACHE(closing_frees_entries_at_once_and_counts_them_in_the_shard),
        WITH_CACHE(two_caches_of_one_shard_do_not_share_keys),
        WITH_CACHE(every_key_is_found_while_the_table_grows_and_shrinks),
        cmocka_unit_test(a_shard_without_caches_is_freed_and_so_is_none),
        cmocka_unit_test(every_reason_has_a_label),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
