/*
 * Random operations on two caches of one shard against a naive oracle: an array that is indexed by
 * the key and knows, for each key, its last value and when it expires.
 *
 * Without limits the cache must agree with the oracle exactly. With limits it may have forgotten,
 * but then it must say so: every miss where the oracle knows a live value needs an eviction that
 * was counted and not used up by another one. In both, the books balance after every step.
 * FELIX_TEST_SEED repeats a run.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "cache/cache.h"

#define CACHES 2
#define KEYS 3000
#define STEPS 1000000

struct known {
    bool there;
    uint64_t expires_ns;
    uint32_t value_bytes;
    uint8_t fill;
};

static struct known oracle[CACHES][KEYS];

static bool oracle_live(unsigned c, unsigned k, uint64_t now_ns) {
    return oracle[c][k].there && now_ns < oracle[c][k].expires_ns;
}

struct run {
    struct cache_shard *shard;
    struct cache *caches[CACHES];
    bool limited;
    uint64_t random;
    uint64_t now_ns;
    uint64_t forgotten;          /* live in the oracle, missed in the cache */
    struct cache_value held[64]; /* values handed out, as a transport would */
    uint8_t held_fill[64];
};

static uint64_t seed;

static uint64_t next_random(struct run *run) {
    run->random += 0x9e3779b97f4a7c15;
    uint64_t z = run->random;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

static uint64_t below(struct run *run, uint64_t bound) {
    return next_random(run) % bound;
}

static void check_books(const struct cache_stats *stats) {
    uint64_t items = counter_get(&stats->items);
    uint64_t bytes = counter_get(&stats->bytes);
    for (int i = 0; i < CACHE_DROP_COUNT; i++) {
        items += counter_get(&stats->dropped[i].items);
        bytes += counter_get(&stats->dropped[i].bytes);
    }
    assert_true(items == counter_get(&stats->puts) && bytes == counter_get(&stats->put_bytes));
}

static void check_all(const struct run *run) {
    uint64_t items = 0;
    uint64_t bytes = 0;
    for (unsigned c = 0; c < CACHES; c++) {
        const struct cache *cache = run->caches[c];
        check_books(&cache->stats);
        items += counter_get(&cache->stats.items);
        bytes += counter_get(&cache->stats.bytes);
        assert_true(cache->max_bytes == CACHE_NO_LIMIT ||
                    counter_get(&cache->stats.bytes) <= cache->max_bytes);
        assert_int_equal(cache->table.count, counter_get(&cache->stats.items));
    }
    check_books(&run->shard->stats);
    assert_true(items == counter_get(&run->shard->stats.items) &&
                bytes == counter_get(&run->shard->stats.bytes));
    assert_true(run->shard->max_bytes == CACHE_NO_LIMIT || bytes <= run->shard->max_bytes);
    const struct cache_stats *stats = &run->shard->stats;
    assert_true(run->forgotten <=
                counter_get(&stats->dropped[CACHE_DROP_EVICTED_CACHE_LIMIT].items) +
                    counter_get(&stats->dropped[CACHE_DROP_EVICTED_TOTAL_LIMIT].items));
}

static struct slice key_of(unsigned k, char text[static 16]) {
    /* Keys of many lengths, the empty one among them. */
    int length = snprintf(text, 16, "%0*u", (int)(1 + k % 12), k);
    return slice_of(text, k == 0 ? 0 : (size_t)length);
}

static void put(struct run *run, unsigned c, unsigned k) {
    static uint8_t value[70000];
    char text[16];
    size_t bytes = below(run, 100) == 0 ? below(run, sizeof value) : below(run, 600);
    uint8_t fill = (uint8_t)next_random(run);
    memset(value, fill, bytes);
    uint64_t ttl_ns = CACHE_NO_TTL;
    switch (below(run, 8)) {
    case 0:
        ttl_ns = below(run, 50 * NS_PER_MS);
        break;
    case 1:
    case 2:
        ttl_ns = below(run, 100 * NS_PER_S);
        break;
    case 3:
        ttl_ns = below(run, 20) == 0 ? 0 : next_random(run);
        break;
    default:
        break;
    }
    enum felix_err err =
        cache_put(run->caches[c], key_of(k, text), slice_of(value, bytes), ttl_ns, run->now_ns);
    if (err == FELIX_TOO_LARGE) {
        assert_true(run->limited && bytes > 1000);
        return;
    }
    assert_int_equal(err, FELIX_OK);
    uint64_t expires_ns = run->now_ns + ttl_ns;
    oracle[c][k] = (struct known){
        .there = true,
        .expires_ns = expires_ns < ttl_ns ? UINT64_MAX : expires_ns,
        .value_bytes = (uint32_t)bytes,
        .fill = fill,
    };
}

static void check_filled(struct slice bytes, uint8_t fill) {
    for (size_t i = 0; i < bytes.len; i++)
        assert_true(bytes.data[i] == fill);
}

/* What came back for a key, or that nothing did, against the oracle. */
static void check_answer(struct run *run, unsigned c, unsigned k, bool found,
                         struct cache_value value) {
    struct known *known = &oracle[c][k];
    if (!found) {
        if (oracle_live(c, k, run->now_ns)) {
            assert_true(run->limited);
            run->forgotten++;
        }
        known->there = false;
        return;
    }
    assert_true(oracle_live(c, k, run->now_ns));
    assert_int_equal(value.bytes.len, known->value_bytes);
    check_filled(value.bytes, known->fill);

    size_t at = below(run, sizeof run->held / sizeof run->held[0]);
    check_filled(run->held[at].bytes, run->held_fill[at]);
    buf_unref(run->held[at].block);
    run->held[at] = value;
    run->held_fill[at] = known->fill;
    if (below(run, 10) == 0)
        buf_share(value.block);
}

static void step(struct run *run) {
    char text[16];
    unsigned c = (unsigned)below(run, CACHES);
    /* Skewed, so that some keys are hot. */
    unsigned k = (unsigned)(below(run, 2) == 0 ? below(run, KEYS) : below(run, KEYS / 20));
    struct cache_value value = {0};
    bool found;
    switch (below(run, 16)) {
    case 0:
        found = cache_delete(run->caches[c], key_of(k, text), run->now_ns, &value);
        check_answer(run, c, k, found, value);
        oracle[c][k].there = false;
        break;
    case 1:
        (void)cache_shard_sweep(run->shard, run->now_ns, below(run, 100));
        break;
    case 2:
        run->now_ns += below(run, 200) == 0 ? below(run, 200 * NS_PER_S) : below(run, NS_PER_MS);
        break;
    case 3:
    case 4:
    case 5:
    case 6:
    case 7:
        put(run, c, k);
        break;
    default:
        found = cache_get(run->caches[c], key_of(k, text), run->now_ns, &value);
        check_answer(run, c, k, found, value);
        break;
    }
    if (below(run, 50000) == 0) {
        cache_close(run->caches[c]);
        run->caches[c] = cache_open(run->shard, slice_str("again"), run->limited ? 150000 : 0);
        memset(oracle[c], 0, sizeof oracle[c]);
    }
    check_all(run);
}

/* At the end: what the sweeper leaves is exactly what is live. */
static void check_after_full_sweep(struct run *run) {
    run->now_ns += EXPIRY_TICK_NS;
    (void)cache_shard_sweep(run->shard, run->now_ns, SIZE_MAX);
    uint64_t live = 0;
    uint64_t margin = 0;
    for (unsigned c = 0; c < CACHES; c++) {
        for (unsigned k = 0; k < KEYS; k++) {
            live += oracle_live(c, k, run->now_ns);
            margin += oracle[c][k].there && !oracle_live(c, k, run->now_ns) &&
                      oracle_live(c, k, run->now_ns - EXPIRY_TICK_NS);
        }
    }
    uint64_t items = counter_get(&run->shard->stats.items);
    if (!run->limited)
        assert_true(items >= live && items <= live + margin);
    else
        assert_true(items <= live + margin);
}

static void run_steps(bool limited) {
    struct run run = {.limited = limited, .random = seed, .now_ns = seed % (1000 * NS_PER_S)};
    memset(oracle, 0, sizeof oracle);
    run.shard = cache_shard_new(limited ? 250000 : CACHE_NO_LIMIT);
    for (unsigned c = 0; c < CACHES; c++)
        run.caches[c] = cache_open(run.shard, slice_str("c"), limited ? 150000 : CACHE_NO_LIMIT);
    for (unsigned i = 0; i < STEPS / 2; i++)
        step(&run);
    check_after_full_sweep(&run);
    if (limited)
        assert_true(run.forgotten > 0);
    cache_shard_free(run.shard);
    for (size_t i = 0; i < sizeof run.held / sizeof run.held[0]; i++) {
        check_filled(run.held[i].bytes, run.held_fill[i]);
        buf_unref(run.held[i].block);
    }
}

static void without_limits_it_agrees_with_the_oracle(void **state) {
    (void)state;
    run_steps(false);
}

static void with_limits_it_forgets_only_what_it_counted(void **state) {
    (void)state;
    run_steps(true);
}

static void nothing_is_alive_at_the_end(void **state) {
    (void)state;
    buf_thread_trim();
    assert_int_equal(buf_live_bytes(), 0);
}

int main(void) {
    const char *text = getenv("FELIX_TEST_SEED");
    seed = text != NULL ? strtoull(text, NULL, 0) : clock_wall_ns();
    (void)printf("FELIX_TEST_SEED=%llu\n", (unsigned long long)seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_limits_it_agrees_with_the_oracle),
        cmocka_unit_test(with_limits_it_forgets_only_what_it_counted),
        cmocka_unit_test(nothing_is_alive_at_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
