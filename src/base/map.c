/*
 * Linear probing in a table of a power of two, at most three quarters full.
 *
 * An entry sits at its home slot (hash & mask) or behind it without a gap. A look-up walks from
 * the home slot to the first free one. Deleting closes the gap: each follower whose home is not
 * beyond the gap moves into it, and leaves a new gap, until a free slot ends the run. So no
 * tombstones exist and a table that has seen much traffic is as fast as a fresh one.
 */
#include "base/map.h"

#include "base/check.h"
#include "base/rand.h"

#include <pthread.h>
#include <stdlib.h>

#define MAP_SLOTS_MIN ((size_t)16)

static uint64_t process_key[2];
static pthread_once_t process_key_once = PTHREAD_ONCE_INIT;

static void process_key_make(void) {
    rand_bytes(process_key, sizeof process_key);
}

static uint64_t rotate_left(uint64_t value, unsigned bits) {
    return (value << bits) | (value >> (64 - bits));
}

struct sip {
    uint64_t v0, v1, v2, v3;
};

static inline void sip_round(struct sip *s) {
    s->v0 += s->v1;
    s->v1 = rotate_left(s->v1, 13) ^ s->v0;
    s->v0 = rotate_left(s->v0, 32);
    s->v2 += s->v3;
    s->v3 = rotate_left(s->v3, 16) ^ s->v2;
    s->v0 += s->v3;
    s->v3 = rotate_left(s->v3, 21) ^ s->v0;
    s->v2 += s->v1;
    s->v1 = rotate_left(s->v1, 17) ^ s->v2;
    s->v2 = rotate_left(s->v2, 32);
}

static inline struct sip sip_start(const uint64_t key[2]) {
    return (struct sip){
        .v0 = key[0] ^ 0x736f6d6570736575u,
        .v1 = key[1] ^ 0x646f72616e646f6du,
        .v2 = key[0] ^ 0x6c7967656e657261u,
        .v3 = key[1] ^ 0x7465646279746573u,
    };
}

static inline void sip_word(struct sip *s, uint64_t word) {
    s->v3 ^= word;
    sip_round(s);
    s->v0 ^= word;
}

static inline uint64_t sip_end(struct sip *s) {
    s->v2 ^= 0xff;
    sip_round(s);
    sip_round(s);
    sip_round(s);
    return s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
}

uint64_t map_hash_keyed(const uint64_t key[2], struct slice bytes) {
    struct sip s = sip_start(key);
    const uint8_t *at = bytes.data;
    size_t left = bytes.len;

    for (; left >= 8; left -= 8, at += 8) {
        uint64_t word;
        memcpy(&word, at, sizeof word); /* little endian, as the published vectors want */
        sip_word(&s, word);
    }
    uint64_t last = (uint64_t)(bytes.len & 0xff) << 56;
    for (size_t i = 0; i < left; i++)
        last |= (uint64_t)at[i] << (8 * i);
    sip_word(&s, last);
    return sip_end(&s);
}

void map_hash_fix(const uint64_t key[2]) {
    (void)pthread_once(&process_key_once, process_key_make);
    memcpy(process_key, key, sizeof process_key);
}

uint64_t map_hash(struct slice bytes) {
    (void)pthread_once(&process_key_once, process_key_make);
    return map_hash_keyed(process_key, bytes);
}

static uint64_t hash_u64(uint64_t key) {
    (void)pthread_once(&process_key_once, process_key_make);
    struct sip s = sip_start(process_key);
    sip_word(&s, key);
    sip_word(&s, 8ull << 56);
    return sip_end(&s);
}

/* The smallest table in which `count` entries fill at most three quarters. */
static size_t slots_for(size_t count) {
    size_t slots = MAP_SLOTS_MIN;
    while (slots - slots / 4 < count)
        slots *= 2;
    return slots;
}

/* True when an entry whose home is `home` and that sits at `at` may move back to `gap`: its home
 * must not lie in the cyclic range (gap, at]. */
static bool may_move_back(size_t home, size_t gap, size_t at, size_t mask) {
    return ((at - home) & mask) >= ((at - gap) & mask);
}

void map_init(struct map *map, struct slice (*key_of)(const void *entry)) {
    *map = (struct map){.key_of = key_of};
}

void map_deinit(struct map *map) {
    free(map->slots);
    map->slots = NULL;
    map->mask = 0;
    map->count = 0;
}

static void map_resize(struct map *map, size_t slots) {
    struct map_slot *old = map->slots;
    size_t old_slots = old != NULL ? map->mask + 1 : 0;

    map->slots = xcalloc(slots, sizeof *map->slots);
    map->mask = slots - 1;
    for (size_t i = 0; i < old_slots; i++) {
        if (old[i].entry == NULL)
            continue;
        size_t at = old[i].hash & map->mask;
        while (map->slots[at].entry != NULL)
            at = (at + 1) & map->mask;
        map->slots[at] = old[i];
    }
    free(old);
}

void map_reserve(struct map *map, size_t count) {
    size_t slots = slots_for(count);
    if (map->slots == NULL || slots > map->mask + 1)
        map_resize(map, slots);
}

void map_trim(struct map *map) {
    size_t slots = slots_for(map->count);
    if (map->slots == NULL || slots >= map->mask + 1)
        return;
    if (map->count == 0)
        map_deinit(map);
    else
        map_resize(map, slots);
}

/* The slot of `key`, or the free slot that ends its run. The table exists and has free slots. */
static size_t map_find(const struct map *map, struct slice key, uint64_t hash) {
    size_t at = hash & map->mask;
    while (map->slots[at].entry != NULL) {
        if (map->slots[at].hash == hash && slice_equal(map->key_of(map->slots[at].entry), key))
            break;
        at = (at + 1) & map->mask;
    }
    return at;
}

void *map_get_hashed(const struct map *map, struct slice key, uint64_t hash) {
    if (map->count == 0)
        return NULL;
    return map->slots[map_find(map, key, hash)].entry;
}

void *map_get(const struct map *map, struct slice key) {
    return map->count == 0 ? NULL : map_get_hashed(map, key, map_hash(key));
}

void *map_put_hashed(struct map *map, void *entry, uint64_t hash) {
    INVARIANT(entry != NULL);
    map_reserve(map, map->count + 1);
    size_t at = map_find(map, map->key_of(entry), hash);
    void *replaced = map->slots[at].entry;
    map->slots[at] = (struct map_slot){.hash = hash, .entry = entry};
    map->count += replaced == NULL;
    return replaced;
}

void *map_put(struct map *map, void *entry) {
    return map_put_hashed(map, entry, map_hash(map->key_of(entry)));
}

static void map_close_gap(struct map *map, size_t gap) {
    for (size_t at = (gap + 1) & map->mask; map->slots[at].entry != NULL;
         at = (at + 1) & map->mask) {
        if (!may_move_back(map->slots[at].hash & map->mask, gap, at, map->mask))
            continue;
        map->slots[gap] = map->slots[at];
        gap = at;
    }
    map->slots[gap].entry = NULL;
    map->count--;
}

void *map_remove_hashed(struct map *map, struct slice key, uint64_t hash) {
    if (map->count == 0)
        return NULL;
    size_t at = map_find(map, key, hash);
    void *entry = map->slots[at].entry;
    if (entry != NULL)
        map_close_gap(map, at);
    return entry;
}

void *map_remove(struct map *map, struct slice key) {
    return map->count == 0 ? NULL : map_remove_hashed(map, key, map_hash(key));
}

void *map_next(const struct map *map, size_t *at) {
    if (map->slots == NULL)
        return NULL;
    while (*at <= map->mask) {
        void *entry = map->slots[(*at)++].entry;
        if (entry != NULL)
            return entry;
    }
    return NULL;
}

void map_remove_current(struct map *map, size_t *at) {
    INVARIANT(*at > 0 && *at <= map->mask + 1 && map->slots[*at - 1].entry != NULL);
    (*at)--; /* a follower may have moved into the gap: look at this slot again */
    map_close_gap(map, *at);
}

void map_u64_deinit(struct map_u64 *map) {
    free(map->slots);
    *map = (struct map_u64){0};
}

static size_t map_u64_find(const struct map_u64 *map, uint64_t key) {
    size_t at = hash_u64(key) & map->mask;
    while (map->slots[at].entry != NULL && map->slots[at].key != key)
        at = (at + 1) & map->mask;
    return at;
}

void map_u64_reserve(struct map_u64 *map, size_t count) {
    size_t slots = slots_for(count);
    if (map->slots != NULL && slots <= map->mask + 1)
        return;

    struct map_u64_slot *old = map->slots;
    size_t old_slots = old != NULL ? map->mask + 1 : 0;
    map->slots = xcalloc(slots, sizeof *map->slots);
    map->mask = slots - 1;
    for (size_t i = 0; i < old_slots; i++) {
        if (old[i].entry != NULL)
            map->slots[map_u64_find(map, old[i].key)] = old[i];
    }
    free(old);
}

void *map_u64_get(const struct map_u64 *map, uint64_t key) {
    if (map->count == 0)
        return NULL;
    return map->slots[map_u64_find(map, key)].entry;
}

void *map_u64_put(struct map_u64 *map, uint64_t key, void *entry) {
    INVARIANT(entry != NULL);
    map_u64_reserve(map, map->count + 1);
    size_t at = map_u64_find(map, key);
    void *replaced = map->slots[at].entry;
    map->slots[at] = (struct map_u64_slot){.key = key, .entry = entry};
    map->count += replaced == NULL;
    return replaced;
}

static void map_u64_close_gap(struct map_u64 *map, size_t gap) {
    for (size_t at = (gap + 1) & map->mask; map->slots[at].entry != NULL;
         at = (at + 1) & map->mask) {
        size_t home = hash_u64(map->slots[at].key) & map->mask;
        if (!may_move_back(home, gap, at, map->mask))
            continue;
        map->slots[gap] = map->slots[at];
        gap = at;
    }
    map->slots[gap].entry = NULL;
    map->count--;
}

void *map_u64_remove(struct map_u64 *map, uint64_t key) {
    if (map->count == 0)
        return NULL;
    size_t at = map_u64_find(map, key);
    void *entry = map->slots[at].entry;
    if (entry != NULL)
        map_u64_close_gap(map, at);
    return entry;
}

void *map_u64_next(const struct map_u64 *map, size_t *at, uint64_t *ret_key) {
    if (map->slots == NULL)
        return NULL;
    while (*at <= map->mask) {
        const struct map_u64_slot *slot = &map->slots[(*at)++];
        if (slot->entry == NULL)
            continue;
        if (ret_key != NULL)
            *ret_key = slot->key;
        return slot->entry;
    }
    return NULL;
}

void map_u64_remove_current(struct map_u64 *map, size_t *at) {
    INVARIANT(*at > 0 && *at <= map->mask + 1 && map->slots[*at - 1].entry != NULL);
    (*at)--;
    map_u64_close_gap(map, *at);
}
