/*
 * sieve: which entry to evict. A queue in the order of arrival, one bit per entry and a hand.
 *
 * A hit only sets the bit (sieve_visit), nothing moves. The hand goes from old to new, spares
 * entries with the bit set, clears their bit, and stops at the first without; it stays there, so
 * that what survived is not looked at again before the newer ones were. What was never hit leaves
 * at the next pass, however recently it came: one-time keys do not push out those in use.
 *
 * Unlike the published SIEVE, a lap ends when fewer than one in SIEVE_NEWEST_SHARE entries lie
 * before the hand. It would otherwise follow the newest entry step by step: new keys would have no
 * time to be hit, and the old ones, no longer in use, would not be looked at for very long.
 * Measured in docs/decisions/004-cache-eviction.md. Belongs to the thread of the shard.
 */
#ifndef CACHE_SIEVE_H
#define CACHE_SIEVE_H

#include "cache/entry.h"

#define SIEVE_NEWEST_SHARE 10

/* How many entries in use one call may spare. A pass over a large queue in which everything is in
 * use would stall the reactor; beyond this an entry goes although it was hit. */
#define SIEVE_SPARED_MAX 256

/* Zeroed but for `kind` is empty and ready. */
struct sieve {
    enum sieve_kind kind; /* which of an entry's links, bits and laps are ours */
    uint8_t lap;          /* of the hand; wraps */
    struct cache_entry *newest;
    struct cache_entry *oldest;
    struct cache_entry *hand; /* looked at next; NULL: a new lap begins */
    size_t count;
    size_t ahead; /* entries that the hand has not passed in this lap */
};

/** Appends `entry` as the newest, not visited. Borrows until removed. */
void sieve_add(struct sieve *sieve, struct cache_entry *entry);

void sieve_remove(struct sieve *sieve, struct cache_entry *entry);

/** `to` takes the place of `from` in the queue. */
void sieve_replace(struct sieve *sieve, struct cache_entry *from, struct cache_entry *to);

/** The entry to evict, still in the queue; `keep` (may be NULL) is passed over. NULL when there is
 * no other. */
struct cache_entry *sieve_victim(struct sieve *sieve, const struct cache_entry *keep);

/** Notes a hit in all queues of `entry`. */
static inline void sieve_visit(struct cache_entry *entry) {
    for (int kind = 0; kind < SIEVE_KIND_COUNT; kind++)
        entry->visited[kind] = true;
}

#endif
