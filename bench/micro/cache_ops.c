/*
 * What one cache operation costs: 100,000 keys, values of 256 bytes, keys taken in random order.
 *
 *     cache_ops [keys] [value bytes]
 *
 * Prints the median of seven rounds for: insertion into an empty cache, overwriting, a hit, a miss,
 * a hit with a time to live set, insertion with eviction, and expiry by the sweeper.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/clock.h"
#include "cache/cache.h"

#define ROUNDS 7

struct key {
    char text[16];
    uint8_t len;
};

static struct key *keys;
static uint32_t *order;
static size_t key_count;
static struct slice value;

static uint64_t random_state = 88172645463325252ull;

static uint64_t next_random(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static struct slice key_at(size_t at) {
    const struct key *key = &keys[order[at]];
    return slice_of(key->text, key->len);
}

static void make_keys(size_t count) {
    key_count = count;
    keys = xcalloc(2 * count, sizeof *keys); /* the second half is never put */
    order = xcalloc(2 * count, sizeof *order);
    for (size_t i = 0; i < 2 * count; i++) {
        keys[i].len = (uint8_t)snprintf(keys[i].text, sizeof keys[i].text, "user:%08zu", i);
        order[i] = (uint32_t)i;
    }
}

static void shuffle(void) {
    for (size_t i = key_count - 1; i > 0; i--) {
        size_t other = next_random() % (i + 1);
        uint32_t swapped = order[i];
        order[i] = order[other];
        order[other] = swapped;
    }
}

static void put_all(struct cache *cache, uint64_t ttl_ns) {
    for (size_t i = 0; i < key_count; i++)
        INVARIANT(cache_put(cache, key_at(i), value, ttl_ns, 1) == FELIX_OK);
}

static size_t get_all(struct cache *cache, size_t from) {
    size_t hits = 0;
    for (size_t i = from; i < from + key_count; i++) {
        struct cache_value got;
        if (!cache_get(cache, key_at(i), 2, &got))
            continue;
        buf_unref(got.block);
        hits++;
    }
    return hits;
}

enum { INSERT, OVERWRITE, HIT, MISS, HIT_TTL, SWEEP, EVICT, KINDS };

static const char *const names[KINDS] = {
    [INSERT] = "put, new key",
    [OVERWRITE] = "put, overwrite",
    [HIT] = "get, hit",
    [MISS] = "get, miss",
    [HIT_TTL] = "get, hit, ttl set",
    [SWEEP] = "expire by sweep",
    [EVICT] = "put, new key, one evicted",
};

static uint64_t marks[KINDS][ROUNDS];

static void mark(int kind, int round, uint64_t since_ns) {
    marks[kind][round] = (clock_now_ns() - since_ns) * 10 / key_count;
}

static void run_round(int round) {
    struct cache_shard *shard = cache_shard_new(CACHE_NO_LIMIT);
    struct cache *cache = cache_open(shard, slice_str("bench"), CACHE_NO_LIMIT);

    shuffle();
    uint64_t start_ns = clock_now_ns();
    put_all(cache, CACHE_NO_TTL);
    mark(INSERT, round, start_ns);

    shuffle();
    start_ns = clock_now_ns();
    put_all(cache, CACHE_NO_TTL);
    mark(OVERWRITE, round, start_ns);

    shuffle();
    start_ns = clock_now_ns();
    INVARIANT(get_all(cache, 0) == key_count);
    mark(HIT, round, start_ns);

    start_ns = clock_now_ns();
    INVARIANT(get_all(cache, key_count) == 0);
    mark(MISS, round, start_ns);

    put_all(cache, 10 * NS_PER_S);
    shuffle();
    start_ns = clock_now_ns();
    INVARIANT(get_all(cache, 0) == key_count);
    mark(HIT_TTL, round, start_ns);

    start_ns = clock_now_ns();
    INVARIANT(cache_shard_sweep(shard, 20 * NS_PER_S, SIZE_MAX) == key_count);
    mark(SWEEP, round, start_ns);

    put_all(cache, CACHE_NO_TTL);
    cache->max_bytes = counter_get(&cache->stats.bytes);
    start_ns = clock_now_ns();
    for (size_t i = key_count; i < 2 * key_count; i++)
        INVARIANT(cache_put(cache, key_at(i), value, CACHE_NO_TTL, 1) == FELIX_OK);
    mark(EVICT, round, start_ns);
    cache_shard_free(shard);
}

static int compare(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    make_keys(argc > 1 ? strtoul(argv[1], NULL, 10) : 100000);
    size_t value_bytes = argc > 2 ? strtoul(argv[2], NULL, 10) : 256;
    value = slice_of(xcalloc(1, value_bytes), value_bytes);
    for (int round = 0; round < ROUNDS; round++)
        run_round(round);
    for (int kind = 0; kind < KINDS; kind++) {
        qsort(marks[kind], ROUNDS, sizeof marks[kind][0], compare);
        uint64_t median = marks[kind][ROUNDS / 2];
        (void)printf("%-28s %5" PRIu64 ".%" PRIu64 " ns\n", names[kind], median / 10, median % 10);
    }
    return 0;
}
