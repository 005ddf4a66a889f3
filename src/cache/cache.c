/*
 * Where an entry stands: in the table of its cache, in two eviction queues (its cache's and its
 * shard's), and in the expiry wheel if it has a time to live. `attach` and `drop` are the only two
 * places where an entry comes and goes, and both count, so the books always balance.
 *
 * A put of a known key writes into the old block when nobody else holds it and the size class is
 * the same; otherwise a new block takes over the old one's place in table and queues. Only then
 * `trim` brings cache and shard back under their limits: expired entries first, then by sieve,
 * never the entry just put, which is known to fit alone.
 */
#include "cache/cache.h"

#include <stdlib.h>

#include "base/check.h"

/* An entry's share of the table: a slot, at the half load that is usual. */
#define SLOT_CHARGE_BYTES (2 * sizeof(struct table_slot))

/* How many entries a put looks at for expired ones before it evicts live ones. */
#define TRIM_SWEEP_WORK 64

const char *cache_drop_label(enum cache_drop reason) {
#define CACHE_DROP_LABEL(name, label) [CACHE_DROP_##name] = (label),
    static const char *const labels[CACHE_DROP_COUNT] = {CACHE_DROP_MAP(CACHE_DROP_LABEL)};
#undef CACHE_DROP_LABEL
    return labels[reason];
}

static uint64_t charge_of(struct cache_entry *entry) {
    return sizeof(struct buf) + entry_block(entry)->capacity + SLOT_CHARGE_BYTES;
}

/* Counts in a cache's statistics and its shard's. */
#define COUNT(cache, field, n)                                                                     \
    do {                                                                                           \
        counter_add(&(cache)->stats.field, (n));                                                   \
        counter_add(&(cache)->shard->stats.field, (n));                                            \
    } while (0)
#define UNCOUNT(cache, field, n)                                                                   \
    do {                                                                                           \
        counter_sub(&(cache)->stats.field, (n));                                                   \
        counter_sub(&(cache)->shard->stats.field, (n));                                            \
    } while (0)

static void count_in(struct cache *cache, uint64_t bytes) {
    COUNT(cache, puts, 1);
    COUNT(cache, put_bytes, bytes);
    COUNT(cache, items, 1);
    COUNT(cache, bytes, bytes);
}

static void count_out(struct cache *cache, uint64_t bytes, enum cache_drop reason) {
    COUNT(cache, dropped[reason].items, 1);
    COUNT(cache, dropped[reason].bytes, bytes);
    UNCOUNT(cache, items, 1);
    UNCOUNT(cache, bytes, bytes);
}

struct cache_shard *cache_shard_new(uint64_t max_bytes) {
    struct cache_shard *shard = xcalloc(1, sizeof *shard);
    shard->sieve.kind = SIEVE_SHARD;
    shard->max_bytes = max_bytes;
    return shard;
}

void cache_shard_free(struct cache_shard *shard) {
    if (shard == NULL)
        return;
    while (shard->caches != NULL)
        // NOLINTNEXTLINE(clang-analyzer-unix.Malloc): closing a cache takes it off the list
        cache_close(shard->caches);
    free(shard);
}

struct cache *cache_open(struct cache_shard *shard, struct slice name, uint64_t max_bytes) {
    struct cache *cache = xcalloc(1, sizeof *cache);
    cache->sieve.kind = SIEVE_CACHE;
    cache->shard = shard;
    cache->max_bytes = max_bytes;

    cache->name = buf_new(name.len);
    if (name.len != 0)
        memcpy(cache->name->data, name.data, name.len);
    cache->name_bytes = slice_of(cache->name->data, name.len);

    cache->next = shard->caches;
    if (cache->next != NULL)
        cache->next->at = &cache->next;
    cache->at = &shard->caches;
    shard->caches = cache;
    return cache;
}

/* Takes an entry out of everything but the table. The shard's reference is the caller's now. */
static void detach(struct cache_entry *entry, enum cache_drop reason) {
    struct cache *cache = entry->cache;
    sieve_remove(&cache->sieve, entry);
    sieve_remove(&cache->shard->sieve, entry);
    expiry_remove(&cache->shard->expiry, &entry->expiry);
    count_out(cache, charge_of(entry), reason);
}

static void drop(struct cache_entry *entry, enum cache_drop reason) {
    table_remove(&entry->cache->table, entry);
    detach(entry, reason);
    buf_unref(entry_block(entry));
}

void cache_close(struct cache *cache) {
    struct cache_entry *entry;
    while ((entry = cache->sieve.oldest) != NULL) {
        detach(entry, CACHE_DROP_CACHE_REMOVED);
        buf_unref(entry_block(entry));
    }
    table_deinit(&cache->table);
    *cache->at = cache->next;
    if (cache->next != NULL)
        cache->next->at = cache->at;
    buf_unref(cache->name);
    free(cache);
}

static bool over(uint64_t bytes, uint64_t max_bytes) {
    return max_bytes != CACHE_NO_LIMIT && bytes > max_bytes;
}

static bool cache_over(const struct cache *cache) {
    return over(counter_get(&cache->stats.bytes), cache->max_bytes);
}

static bool shard_over(const struct cache_shard *shard) {
    return over(counter_get(&shard->stats.bytes), shard->max_bytes);
}

/* Back under the limits, without touching `keep`. */
static void trim(struct cache *cache, const struct cache_entry *keep, uint64_t now_ns) {
    struct cache_shard *shard = cache->shard;
    if (!cache_over(cache) && !shard_over(shard))
        return;
    (void)cache_shard_sweep(shard, now_ns, TRIM_SWEEP_WORK);
    while (cache_over(cache)) {
        struct cache_entry *victim = sieve_victim(&cache->sieve, keep);
        INVARIANT(victim != NULL);
        drop(victim, CACHE_DROP_EVICTED_CACHE_LIMIT);
    }
    while (shard_over(shard)) {
        struct cache_entry *victim = sieve_victim(&shard->sieve, keep);
        INVARIANT(victim != NULL);
        drop(victim, CACHE_DROP_EVICTED_TOTAL_LIMIT);
    }
}

static void write_value(struct cache_entry *entry, struct slice value) {
    entry->value_bytes = (uint32_t)value.len;
    if (value.len != 0)
        memcpy(entry->bytes + entry->key_bytes, value.data, value.len);
}

/* A new entry that stands nowhere yet. */
static struct cache_entry *entry_new(struct cache *cache, uint32_t hash, struct slice key,
                                     struct slice value) {
    struct buf *block = buf_new(sizeof(struct cache_entry) + key.len + value.len);
    struct cache_entry *entry = (struct cache_entry *)(void *)block->data;
    *entry = (struct cache_entry){
        .cache = cache,
        .hash = hash,
        .key_bytes = (uint32_t)key.len,
    };
    if (key.len != 0)
        memcpy(entry->bytes, key.data, key.len);
    write_value(entry, value);
    return entry;
}

static void attach(struct cache_entry *entry) {
    struct cache *cache = entry->cache;
    table_insert(&cache->table, entry);
    sieve_add(&cache->sieve, entry);
    sieve_add(&cache->shard->sieve, entry);
    count_in(cache, charge_of(entry));
}

/* `entry` takes over the place of `old`, which is freed. */
static void supersede(struct cache_entry *old, struct cache_entry *entry) {
    struct cache *cache = old->cache;
    table_replace(&cache->table, old, entry);
    sieve_replace(&cache->sieve, old, entry);
    sieve_replace(&cache->shard->sieve, old, entry);
    expiry_remove(&cache->shard->expiry, &old->expiry);
    count_out(cache, charge_of(old), CACHE_DROP_REPLACED);
    count_in(cache, charge_of(entry));
    buf_unref(entry_block(old));
}

/* Whether `value` may be written over the old one: nobody reads it, and the block neither has to
 * grow nor would waste more than a new one. */
static bool can_rewrite(struct cache_entry *entry, struct slice value) {
    const struct buf *block = entry_block(entry);
    size_t bytes = sizeof *entry + entry->key_bytes + value.len;
    /* Acquire: a reader on another thread that has dropped its reference is done reading. */
    return atomic_load_explicit(&block->refs, memory_order_acquire) == 1 &&
           bytes <= block->capacity && bytes > block->capacity / 2;
}

static uint64_t expires_at(uint64_t now_ns, uint64_t ttl_ns) {
    uint64_t at_ns;
    return __builtin_add_overflow(now_ns, ttl_ns, &at_ns) ? EXPIRY_NEVER : at_ns;
}

static void set_expiry(struct cache_entry *entry, uint64_t at_ns) {
    struct expiry *expiry = &entry->cache->shard->expiry;
    expiry_remove(expiry, &entry->expiry);
    expiry_add(expiry, &entry->expiry, at_ns);
}

static bool expired(const struct cache_entry *entry, uint64_t now_ns) {
    return entry->expiry.at_ns != EXPIRY_NEVER && now_ns >= entry->expiry.at_ns;
}

/* The entry with `key` if it has not expired; an expired one is dropped. */
static struct cache_entry *find_live(struct cache *cache, uint32_t hash, struct slice key,
                                     uint64_t now_ns) {
    struct cache_entry *entry = table_find(&cache->table, hash, key);
    if (entry == NULL || !expired(entry, now_ns))
        return entry;
    drop(entry, CACHE_DROP_EXPIRED);
    return NULL;
}

static enum felix_err refuse(struct cache *cache, struct slice key, struct slice value) {
    COUNT(cache, refused_items, 1);
    COUNT(cache, refused_bytes, key.len + value.len);
    return FELIX_TOO_LARGE;
}

enum felix_err cache_put(struct cache *cache, struct slice key, struct slice value, uint64_t ttl_ns,
                         uint64_t now_ns) {
    size_t payload_bytes = key.len + value.len;
    if (payload_bytes > UINT32_MAX || over(payload_bytes, cache->max_bytes) ||
        over(payload_bytes, cache->shard->max_bytes))
        return refuse(cache, key, value);

    uint32_t hash = table_hash(key);
    struct cache_entry *old = find_live(cache, hash, key, now_ns);
    struct cache_entry *entry = old;
    if (old != NULL && can_rewrite(old, value)) {
        write_value(entry, value);
        count_out(cache, charge_of(entry), CACHE_DROP_REPLACED);
        count_in(cache, charge_of(entry));
    } else {
        entry = entry_new(cache, hash, key, value);
        uint64_t bytes = charge_of(entry);
        if (over(bytes, cache->max_bytes) || over(bytes, cache->shard->max_bytes)) {
            buf_unref(entry_block(entry));
            return refuse(cache, key, value);
        }
        if (old != NULL)
            supersede(old, entry);
        else
            attach(entry);
    }
    if (ttl_ns == 0) {
        drop(entry, CACHE_DROP_EXPIRED);
        return FELIX_OK;
    }
    set_expiry(entry, ttl_ns == CACHE_NO_TTL ? EXPIRY_NEVER : expires_at(now_ns, ttl_ns));
    if (old != NULL)
        sieve_visit(entry);
    trim(cache, entry, now_ns);
    return FELIX_OK;
}

bool cache_get(struct cache *cache, struct slice key, uint64_t now_ns, struct cache_value *ret) {
    struct cache_entry *entry = find_live(cache, table_hash(key), key, now_ns);
    if (entry == NULL) {
        COUNT(cache, misses, 1);
        return false;
    }
    COUNT(cache, hits, 1);
    sieve_visit(entry);
    *ret = (struct cache_value){.block = buf_ref(entry_block(entry)), .bytes = entry_value(entry)};
    return true;
}

bool cache_delete(struct cache *cache, struct slice key, uint64_t now_ns, struct cache_value *ret) {
    COUNT(cache, deletes, 1);
    struct cache_entry *entry = find_live(cache, table_hash(key), key, now_ns);
    if (entry == NULL)
        return false;
    if (ret != NULL)
        *ret = (struct cache_value){
            .block = buf_ref(entry_block(entry)),
            .bytes = entry_value(entry),
        };
    drop(entry, CACHE_DROP_DELETED);
    return true;
}

size_t cache_shard_sweep(struct cache_shard *shard, uint64_t now_ns, size_t work_max) {
    size_t freed = 0;
    struct expiry_link *link;
    while ((link = expiry_pop(&shard->expiry, now_ns, &work_max)) != NULL) {
        drop(entry_of_expiry(link), CACHE_DROP_EXPIRED);
        freed++;
    }
    return freed;
}

uint64_t cache_shard_next_expiry_ns(const struct cache_shard *shard) {
    return expiry_next_ns(&shard->expiry);
}
