/*
 * Hash maps: open addressing, linear probing, deletion by shifting back (no tombstones).
 *
 * A map belongs to one thread and borrows its entries: they hold their own key and must outlive
 * their stay. The hash is SipHash-1-3 keyed by random bytes of this process, so that a peer who
 * chooses keys cannot make them collide. Nothing is allocated by a look-up; a full table doubles,
 * which costs one pass over it (map_reserve avoids that in the middle of work). A zeroed map_u64
 * is empty and ready; a map needs map_init.
 */
#ifndef BASE_MAP_H
#define BASE_MAP_H

#include "base/slice.h"

/** SipHash-1-3 of `bytes` with the key of this process. Any thread. */
uint64_t map_hash(struct slice bytes);

/** SipHash-1-3 with a given key; for tests against published vectors. */
uint64_t map_hash_keyed(const uint64_t key[2], struct slice bytes);

/** Replace the key of this process by a known one, so that what depends on the order or place of
 * entries repeats; for tests and fuzz targets, before the first map is used. */
void map_hash_fix(const uint64_t key[2]);

struct map_slot {
    uint64_t hash;
    void *entry; /* NULL: free */
};

struct map {
    struct slice (*key_of)(const void *entry); /* the key bytes inside the entry; stable */
    struct map_slot *slots;
    size_t mask;  /* slots - 1; meaningful while slots is not NULL */
    size_t count; /* entries */
};

/** An empty map; allocates nothing yet. */
void map_init(struct map *map, struct slice (*key_of)(const void *entry));

/** Frees the table, not the entries. Accepts a zeroed map; the map is empty afterwards. */
void map_deinit(struct map *map);

/** Makes room so that `count` entries fit without growing. */
void map_reserve(struct map *map, size_t count);

/** Shrinks the table to what its entries need. For a sweeper, never on the data path. */
void map_trim(struct map *map);

/** The entry with this key, or NULL. `hash` must be map_hash(key). Borrows `key`. */
void *map_get_hashed(const struct map *map, struct slice key, uint64_t hash);
void *map_get(const struct map *map, struct slice key);

/** Puts `entry` under its own key and returns the entry that it replaced, or NULL. */
void *map_put_hashed(struct map *map, void *entry, uint64_t hash);
void *map_put(struct map *map, void *entry);

/** Takes the entry with this key out and returns it, or NULL. The table keeps its size. */
void *map_remove_hashed(struct map *map, struct slice key, uint64_t hash);
void *map_remove(struct map *map, struct slice key);

/**
 * Walk: start with `*at = 0`, call until NULL. Every entry comes once while the map is unchanged.
 * When entries come or go between calls, some may come twice or not at all, nothing worse; so a
 * sweeper may keep `*at` from one turn to the next and start again at 0 after NULL.
 */
void *map_next(const struct map *map, size_t *at);

/** Take out the entry that map_next has just returned. The walk then misses none, but an entry
 * that was seen before may come again. */
void map_remove_current(struct map *map, size_t *at);

/* The same for 64-bit keys; the key stands in the table, so that entries need not be touched. */
struct map_u64_slot {
    uint64_t key;
    void *entry; /* NULL: free */
};

struct map_u64 {
    struct map_u64_slot *slots;
    size_t mask;
    size_t count;
};

void map_u64_deinit(struct map_u64 *map);
void map_u64_reserve(struct map_u64 *map, size_t count);
void *map_u64_get(const struct map_u64 *map, uint64_t key);
void *map_u64_put(struct map_u64 *map, uint64_t key, void *entry);
void *map_u64_remove(struct map_u64 *map, uint64_t key);

/** As map_next; `ret_key` may be NULL. */
void *map_u64_next(const struct map_u64 *map, size_t *at, uint64_t *ret_key);
void map_u64_remove_current(struct map_u64 *map, size_t *at);

#endif
