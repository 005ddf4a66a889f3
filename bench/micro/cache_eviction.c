/*
 * Hit rates of eviction policies: the real cache against the published SIEVE, S3-FIFO, CLOCK, exact
 * LRU and random, which are simulated here for entries of one size.
 *
 *     cache_eviction [keys] [requests]
 *
 * Each workload is a stream of keys; a miss is followed by a put of that key. The first quarter
 * warms up and is not counted. Same seed for all, so all see the same stream.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "cache/cache.h"

static uint64_t random_state;

static uint64_t next_random(void) {
    random_state += 0x9e3779b97f4a7c15;
    uint64_t z = random_state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

/* ---- workloads ---- */

static double *zipf_sums;

static void zipf_init(size_t keys, double skew) {
    zipf_sums = xrealloc(zipf_sums, keys * sizeof *zipf_sums);
    double sum = 0;
    for (size_t i = 0; i < keys; i++) {
        sum += 1 / pow((double)(i + 1), skew);
        zipf_sums[i] = sum;
    }
}

static uint32_t zipf_next(size_t keys) {
    double at = (double)(next_random() >> 11) * 0x1p-53 * zipf_sums[keys - 1];
    size_t low = 0;
    size_t high = keys - 1;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (zipf_sums[middle] < at)
            low = middle + 1;
        else
            high = middle;
    }
    return (uint32_t)low;
}

enum workload { ZIPF, ZIPF_SCANNED, ZIPF_ONCE, ZIPF_SHIFTING, LOOP };

struct stream {
    const char *name;
    enum workload workload;
    double skew;
};

static const struct stream streams[] = {
    {"zipf 0.7", ZIPF, 0.7},
    {"zipf 0.9", ZIPF, 0.9},
    {"zipf 1.0", ZIPF, 1.0},
    {"zipf 1.2", ZIPF, 1.2},
    {"zipf 0.9, scan of all keys each 10th", ZIPF_SCANNED, 0.9},
    {"zipf 0.9, half are keys seen once", ZIPF_ONCE, 0.9},
    {"zipf 0.9, hot keys change 20 times", ZIPF_SHIFTING, 0.9},
    {"loop over all keys", LOOP, 0},
};

/* Keys below `keys` come again; those from `keys` on come once. */
static void fill(const struct stream *stream, size_t keys, uint32_t *requests, size_t count) {
    random_state = 42;
    if (stream->skew > 0)
        zipf_init(keys, stream->skew);
    uint32_t once = (uint32_t)keys;
    for (size_t i = 0; i < count; i++) {
        switch (stream->workload) {
        case ZIPF:
            requests[i] = zipf_next(keys);
            break;
        case ZIPF_SCANNED: /* phases: nine parts of zipf, then one pass over keys in order */
            requests[i] = i % (10 * keys) < 9 * keys ? zipf_next(keys) : (uint32_t)(i % keys);
            break;
        case ZIPF_ONCE:
            requests[i] = next_random() % 2 == 0 ? zipf_next(keys) : once++;
            break;
        case ZIPF_SHIFTING:
            requests[i] = (uint32_t)((zipf_next(keys) + i / (count / 20) * 7919) % keys);
            break;
        case LOOP:
            requests[i] = (uint32_t)(i % keys);
            break;
        }
    }
}

/* ---- policies ---- */

#define NONE UINT32_MAX

struct simulated {
    uint32_t *newer, *older; /* by key */
    uint8_t *there, *visited;
    uint32_t *residents; /* for random: keys, and each key's place */
    uint32_t *place;
    uint32_t newest, oldest, hand;
    size_t count, capacity;
};

static void list_add(struct simulated *s, uint32_t key) {
    s->newer[key] = NONE;
    s->older[key] = s->newest;
    if (s->newest != NONE)
        s->newer[s->newest] = key;
    else
        s->oldest = key;
    s->newest = key;
}

static void list_remove(struct simulated *s, uint32_t key) {
    if (s->newer[key] != NONE)
        s->older[s->newer[key]] = s->older[key];
    else
        s->newest = s->older[key];
    if (s->older[key] != NONE)
        s->newer[s->older[key]] = s->newer[key];
    else
        s->oldest = s->newer[key];
}

enum policy { SIEVE, CLOCK, LRU, RANDOM, POLICIES };

static uint32_t choose_clock(struct simulated *s) {
    while (s->visited[s->oldest]) {
        uint32_t spared = s->oldest;
        s->visited[spared] = 0;
        list_remove(s, spared);
        list_add(s, spared);
    }
    return s->oldest;
}

static uint32_t choose_sieve(struct simulated *s) {
    uint32_t at = s->hand;
    for (;;) {
        if (at == NONE)
            at = s->oldest;
        if (!s->visited[at])
            break;
        s->visited[at] = 0;
        at = s->newer[at];
    }
    s->hand = s->newer[at];
    return at;
}

static uint32_t choose(struct simulated *s, enum policy policy) {
    switch (policy) {
    case SIEVE:
        return choose_sieve(s);
    case CLOCK:
        return choose_clock(s);
    case RANDOM:
        return s->residents[next_random() % s->count];
    case LRU:
    case POLICIES:
        break;
    }
    return s->oldest;
}

static bool simulate(struct simulated *s, enum policy policy, uint32_t key) {
    if (s->there[key]) {
        s->visited[key] = 1;
        if (policy == LRU) {
            list_remove(s, key);
            list_add(s, key);
        }
        return true;
    }
    if (s->count == s->capacity) {
        uint32_t victim = choose(s, policy);
        list_remove(s, victim);
        s->there[victim] = 0;
        s->count--;
        s->residents[s->place[victim]] = s->residents[s->count];
        s->place[s->residents[s->count]] = s->place[victim];
    }
    list_add(s, key);
    s->there[key] = 1;
    s->visited[key] = 0;
    s->place[key] = (uint32_t)s->count;
    s->residents[s->count++] = key;
    return false;
}

static double rate_simulated(enum policy policy, const uint32_t *requests, size_t count,
                             size_t keys_all, size_t capacity) {
    struct simulated s = {
        .newer = xcalloc(keys_all, sizeof *s.newer),
        .older = xcalloc(keys_all, sizeof *s.older),
        .there = xcalloc(keys_all, 1),
        .visited = xcalloc(keys_all, 1),
        .residents = xcalloc(capacity + 1, sizeof *s.residents),
        .place = xcalloc(keys_all, sizeof *s.place),
        .newest = NONE,
        .oldest = NONE,
        .hand = NONE,
        .capacity = capacity,
    };
    random_state = 7;
    size_t hits = 0;
    for (size_t i = 0; i < count; i++)
        hits += simulate(&s, policy, requests[i]) && i >= count / 4;
    free(s.newer);
    free(s.older);
    free(s.there);
    free(s.visited);
    free(s.residents);
    free(s.place);
    return (double)hits / (double)(count - count / 4);
}

struct fifo {
    uint32_t *keys;
    size_t first, count, room;
};

static void fifo_push(struct fifo *fifo, uint32_t key) {
    fifo->keys[(fifo->first + fifo->count++) % fifo->room] = key;
}

static uint32_t fifo_pop(struct fifo *fifo) {
    uint32_t key = fifo->keys[fifo->first];
    fifo->first = (fifo->first + 1) % fifo->room;
    fifo->count--;
    return key;
}

struct s3 {
    struct fifo small, main, ghost;
    uint8_t *there, *hits, *remembered; /* by key */
    size_t capacity;
};

static void s3_evict(struct s3 *s) {
    while (s->small.count + s->main.count >= s->capacity) {
        bool from_small = s->small.count >= s->capacity / 10 || s->main.count == 0;
        uint32_t key = fifo_pop(from_small ? &s->small : &s->main);
        if (s->hits[key] > (from_small ? 1 : 0)) {
            s->hits[key] = from_small ? 0 : s->hits[key] - 1;
            fifo_push(&s->main, key);
            continue;
        }
        s->there[key] = 0;
        if (!from_small)
            continue;
        if (s->ghost.count == s->capacity)
            s->remembered[fifo_pop(&s->ghost)]--;
        fifo_push(&s->ghost, key);
        s->remembered[key]++;
    }
}

static double rate_of_s3(const uint32_t *requests, size_t count, size_t keys_all, size_t capacity) {
    struct s3 s = {.capacity = capacity};
    struct fifo *fifos[] = {&s.small, &s.main, &s.ghost};
    for (size_t i = 0; i < 3; i++)
        *fifos[i] = (struct fifo){.keys = xcalloc(capacity + 1, 4), .room = capacity + 1};
    s.there = xcalloc(keys_all, 1);
    s.hits = xcalloc(keys_all, 1);
    s.remembered = xcalloc(keys_all, 1);
    size_t hits = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t key = requests[i];
        if (s.there[key]) {
            s.hits[key] = s.hits[key] < 3 ? s.hits[key] + 1 : 3;
            hits += i >= count / 4;
            continue;
        }
        s3_evict(&s);
        s.there[key] = 1;
        s.hits[key] = 0;
        fifo_push(s.remembered[key] > 0 ? &s.main : &s.small, key);
    }
    for (size_t i = 0; i < 3; i++)
        free(fifos[i]->keys);
    free(s.there);
    free(s.hits);
    free(s.remembered);
    return (double)hits / (double)(count - count / 4);
}

/* The real one. All entries have the same charge, so the byte limit is a number of entries. */
static double rate_of_cache(const uint32_t *requests, size_t count, size_t capacity) {
    static const uint8_t value[64];
    struct cache_shard *shard = cache_shard_new(CACHE_NO_LIMIT);
    struct cache *cache = cache_open(shard, slice_str("bench"), CACHE_NO_LIMIT);
    size_t hits = 0;
    for (size_t i = 0; i < count; i++) {
        struct slice key = slice_of(&requests[i], sizeof requests[i]);
        struct cache_value got;
        if (cache_get(cache, key, 1, &got)) {
            buf_unref(got.block);
            hits += i >= count / 4;
            continue;
        }
        INVARIANT(cache_put(cache, key, slice_of(value, sizeof value), CACHE_NO_TTL, 1) ==
                  FELIX_OK);
        if (i == 0)
            cache->max_bytes = capacity * counter_get(&cache->stats.bytes);
    }
    cache_shard_free(shard);
    return (double)hits / (double)(count - count / 4);
}

int main(int argc, char **argv) {
    size_t keys = argc > 1 ? strtoul(argv[1], NULL, 10) : 100000;
    size_t count = argc > 2 ? strtoul(argv[2], NULL, 10) : 4000000;
    uint32_t *requests = xcalloc(count, sizeof *requests);
    (void)printf("hit rate in percent; %zu keys, %zu requests\n", keys, count);
    (void)printf("%-38s %5s %8s %8s %8s %8s %8s %8s\n", "workload", "size", "felix", "s3-fifo",
                 "sieve", "clock", "lru", "random");
    for (size_t i = 0; i < sizeof streams / sizeof streams[0]; i++) {
        fill(&streams[i], keys, requests, count);
        static const double sizes[] = {0.01, 0.1, 0.5};
        for (size_t j = 0; j < sizeof sizes / sizeof sizes[0]; j++) {
            size_t capacity = (size_t)((double)keys * sizes[j]);
            (void)printf("%-38s %4.0f%% %8.2f %8.2f", streams[i].name, 100 * sizes[j],
                         100 * rate_of_cache(requests, count, capacity),
                         100 * rate_of_s3(requests, count, keys + count, capacity));
            for (enum policy policy = 0; policy < POLICIES; policy++)
                (void)printf(" %8.2f",
                             100 * rate_simulated(policy, requests, count, keys + count, capacity));
            (void)printf("\n");
        }
    }
    free(requests);
    free(zipf_sums);
    return 0;
}
