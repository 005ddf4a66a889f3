/*
 * table: the entries of one cache by key. Open addressing, linear probing, growing step by step.
 *
 * base/map.h would do but for one thing: it doubles in one pass, which for a million entries stalls
 * the reactor for milliseconds. Here a growing (or shrinking) table keeps the old slots beside the
 * new ones, and each insertion or removal moves a few. Belongs to the thread of the shard; borrows
 * its entries until they are removed. Zeroed is empty and ready.
 */
#ifndef CACHE_TABLE_H
#define CACHE_TABLE_H

#include "cache/entry.h"

struct table_slot {
    struct cache_entry *entry; /* NULL: free */
    uint32_t hash;
};

struct table {
    struct table_slot *slots;
    size_t slot_count; /* a power of two, or 0 */
    size_t count;      /* entries, those in old_slots included */

    struct table_slot *old_slots; /* NULL while nothing is being moved */
    size_t old_slot_count;
    size_t old_at; /* slots before it have been moved */
};

/** The hash of `key` as the functions below want it. */
uint32_t table_hash(struct slice key);

/** The entry with this key, or NULL. `hash` is table_hash(key). Borrows `key`. */
struct cache_entry *table_find(const struct table *table, uint32_t hash, struct slice key);

/** Adds `entry`, whose key must not be in the table. */
void table_insert(struct table *table, struct cache_entry *entry);

/** `to` takes the slot of `from`; both have the same key. */
void table_replace(struct table *table, const struct cache_entry *from, struct cache_entry *to);

/** Takes `entry`, which must be in the table, out. */
void table_remove(struct table *table, const struct cache_entry *entry);

/** Frees the slots, not the entries; the table is empty afterwards. */
void table_deinit(struct table *table);

#endif
