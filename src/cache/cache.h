/*
 * cache: named caches of keys and values in memory, with time to live and a byte limit.
 *
 * Every reactor thread owns one `cache_shard`, its part of all caches; all functions here belong to
 * that thread, but counters may be read from any thread while their cache is open. No I/O and no
 * clock: time comes as an argument, in monotonic nanoseconds.
 *
 * An entry whose time has come is never returned, however late the sweeper is. Limits hold whenever
 * a call returns; they count what an entry really takes (cache_stats.bytes), and what is over the
 * limit leaves in the order of sieve.h, after what has expired. A value that was handed out stays
 * alive as long as its block is referenced, but counts for the cache only while it is in it.
 *
 * Every entry that a put has made leaves for exactly one counted reason, so that at any time
 * puts = items + the sum of dropped[].items, and the same for put_bytes, bytes and dropped[].bytes.
 */
#ifndef CACHE_CACHE_H
#define CACHE_CACHE_H

#include "base/buf.h"
#include "base/counter.h"
#include "base/err.h"
#include "base/slice.h"
#include "cache/expiry.h"
#include "cache/sieve.h"
#include "cache/table.h"

#define CACHE_NO_TTL UINT64_MAX
#define CACHE_NO_LIMIT ((uint64_t)0)

/* X(name, label): why an entry left. */
#define CACHE_DROP_MAP(X)                                                                          \
    X(EVICTED_CACHE_LIMIT, "evicted_cache_limit")                                                  \
    X(EVICTED_TOTAL_LIMIT, "evicted_total_limit")                                                  \
    X(EXPIRED, "expired")                                                                          \
    X(REPLACED, "replaced")                                                                        \
    X(DELETED, "deleted")                                                                          \
    X(CACHE_REMOVED, "cache_removed")

#define CACHE_DROP_ENUM(name, label) CACHE_DROP_##name,
enum cache_drop { CACHE_DROP_MAP(CACHE_DROP_ENUM) CACHE_DROP_COUNT };
#undef CACHE_DROP_ENUM

/** The label of `reason` in metrics, static. Any thread. */
const char *cache_drop_label(enum cache_drop reason);

struct cache_stats {
    counter items; /* now */
    counter bytes; /* now: blocks with their headers and the slots in the table */
    counter hits;
    counter misses;
    counter puts; /* accepted */
    counter put_bytes;
    counter deletes;       /* asked for; those that met an entry are dropped[CACHE_DROP_DELETED] */
    counter refused_items; /* puts refused with FELIX_TOO_LARGE */
    counter refused_bytes; /* their keys and values */
    struct {
        counter items;
        counter bytes;
    } dropped[CACHE_DROP_COUNT];
};

/* One cache's entries in one shard. Fields are read only outside cache.c. */
struct cache {
    struct table table;
    struct sieve sieve;
    struct cache_shard *shard;
    struct cache *next; /* in cache_shard.caches */
    struct cache **at;  /* what points to this cache */
    struct buf *name;   /* for statistics */
    struct slice name_bytes;
    uint64_t max_bytes; /* CACHE_NO_LIMIT: that of the shard alone */
    struct cache_stats stats;
};

struct cache_shard {
    struct sieve sieve;       /* the entries of all caches */
    struct cache *caches;     /* open, in no order */
    uint64_t max_bytes;       /* CACHE_NO_LIMIT: none */
    struct cache_stats stats; /* the sum over all caches, closed ones included */
    struct expiry expiry;
};

/* A value as it is handed out: bytes inside a block, and one reference to that block, which the
 * caller owns. buf_share() it before it crosses to another thread. */
struct cache_value {
    struct buf *block;
    struct slice bytes;
};

/** Returns owned an empty shard that holds at most `max_bytes`. */
struct cache_shard *cache_shard_new(uint64_t max_bytes);

/** Closes all caches and frees the shard. Accepts NULL. */
void cache_shard_free(struct cache_shard *shard);

/** Opens an empty cache that holds at most `max_bytes` and that the shard owns until cache_close.
 * `name` is copied. Names are not compared: telling caches apart is the registry's. */
struct cache *cache_open(struct cache_shard *shard, struct slice name, uint64_t max_bytes);

/** Frees the cache and all its entries at once (CACHE_DROP_CACHE_REMOVED). Takes `cache`. */
void cache_close(struct cache *cache);

/**
 * Stores a copy of `value` under a copy of `key`, in place of what was there, its time to live
 * included. `ttl_ns` counts from `now_ns`; CACHE_NO_TTL keeps the entry until it is evicted; 0 is
 * accepted and expired at once; sums beyond the range of the clock never expire. FELIX_TOO_LARGE,
 * with nothing changed, when the entry alone is over a limit. Constant time, but for the entries
 * that have to go. (Broker specification, 5.)
 */
enum felix_err cache_put(struct cache *cache, struct slice key, struct slice value, uint64_t ttl_ns,
                         uint64_t now_ns);

/** True on a hit: shares the block that holds the value. Otherwise `*ret` is untouched. */
bool cache_get(struct cache *cache, struct slice key, uint64_t now_ns, struct cache_value *ret);

/** Removes the entry. True if it was there: `*ret` is the removed value, returned owned; `ret` may
 * be NULL. */
bool cache_delete(struct cache *cache, struct slice key, uint64_t now_ns, struct cache_value *ret);

/**
 * Frees what has expired at `now_ns`, looking at no more than `work_max` entries; returns how many
 * were freed. Worth calling when cache_shard_next_expiry_ns says so.
 */
size_t cache_shard_sweep(struct cache_shard *shard, uint64_t now_ns, size_t work_max);

/** When to sweep next; in the past while a sweep has more to do; EXPIRY_NEVER when nothing has a
 * time to live: then no timer is needed. */
uint64_t cache_shard_next_expiry_ns(const struct cache_shard *shard);

#endif
