/*
 * entry: one key with its value in a cache, laid out in one block.
 *
 *     struct buf | struct cache_entry | key bytes | value bytes
 *
 * The block belongs to the shard that holds it (one reference) and with it to the reactor thread of
 * that shard. Others may hold references to read the value, on other threads too after buf_share();
 * they never touch the entry in front of it. For that reason an entry is only written in place
 * while the shard holds the only reference.
 */
#ifndef CACHE_ENTRY_H
#define CACHE_ENTRY_H

#include "base/buf.h"
#include "base/slice.h"
#include "cache/expiry.h"

struct cache;

/* Every entry stands in two eviction queues: that of its cache and that of its shard. */
enum sieve_kind { SIEVE_CACHE, SIEVE_SHARD, SIEVE_KIND_COUNT };

struct sieve_link {
    struct cache_entry *newer;
    struct cache_entry *older;
};

struct cache_entry {
    struct cache *cache;
    struct sieve_link queued[SIEVE_KIND_COUNT];

    /* What a hit reads stands together, right before the key. */
    struct expiry_link
        expiry; /* at_ns is EXPIRY_NEVER, and it is not linked, without time to live */
    uint32_t hash;
    uint32_t key_bytes;
    uint32_t value_bytes;
    bool visited[SIEVE_KIND_COUNT]; /* hit since the hand of that queue came by */
    uint8_t lap[SIEVE_KIND_COUNT];  /* the lap in which the hand last came by */
    uint8_t bytes[];
};

/** The block that an entry stands in. */
static inline struct buf *entry_block(struct cache_entry *entry) {
    return (struct buf *)(void *)((uint8_t *)entry - offsetof(struct buf, data));
}

static inline struct cache_entry *entry_of_expiry(struct expiry_link *link) {
    return (struct cache_entry *)(void *)((uint8_t *)link - offsetof(struct cache_entry, expiry));
}

static inline struct slice entry_key(const struct cache_entry *entry) {
    return slice_of(entry->bytes, entry->key_bytes);
}

static inline struct slice entry_value(const struct cache_entry *entry) {
    return slice_of(entry->bytes + entry->key_bytes, entry->value_bytes);
}

#endif
