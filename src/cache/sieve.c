#include "cache/sieve.h"

void sieve_add(struct sieve *sieve, struct cache_entry *entry) {
    struct sieve_link *link = &entry->queued[sieve->kind];
    *link = (struct sieve_link){.newer = NULL, .older = sieve->newest};
    if (sieve->newest != NULL)
        sieve->newest->queued[sieve->kind].newer = entry;
    else
        sieve->oldest = entry;
    sieve->newest = entry;
    entry->visited[sieve->kind] = false;
    entry->lap[sieve->kind] = (uint8_t)(sieve->lap - 1);
    sieve->count++;
    sieve->ahead++;
}

void sieve_remove(struct sieve *sieve, struct cache_entry *entry) {
    struct sieve_link *link = &entry->queued[sieve->kind];
    if (sieve->hand == entry)
        sieve->hand = link->newer;
    if (link->newer != NULL)
        link->newer->queued[sieve->kind].older = link->older;
    else
        sieve->newest = link->older;
    if (link->older != NULL)
        link->older->queued[sieve->kind].newer = link->newer;
    else
        sieve->oldest = link->newer;
    *link = (struct sieve_link){0};
    sieve->count--;
    if (entry->lap[sieve->kind] != sieve->lap && sieve->ahead > 0)
        sieve->ahead--;
}

void sieve_replace(struct sieve *sieve, struct cache_entry *from, struct cache_entry *to) {
    struct sieve_link *link = &to->queued[sieve->kind];
    *link = from->queued[sieve->kind];
    to->visited[sieve->kind] = from->visited[sieve->kind];
    to->lap[sieve->kind] = from->lap[sieve->kind];
    if (sieve->hand == from)
        sieve->hand = to;
    if (link->newer != NULL)
        link->newer->queued[sieve->kind].older = to;
    else
        sieve->newest = to;
    if (link->older != NULL)
        link->older->queued[sieve->kind].newer = to;
    else
        sieve->oldest = to;
    from->queued[sieve->kind] = (struct sieve_link){0};
}

static struct cache_entry *start_lap(struct sieve *sieve) {
    sieve->lap++;
    sieve->ahead = sieve->count;
    return sieve->oldest;
}

static struct cache_entry *pass(struct sieve *sieve, struct cache_entry *entry) {
    entry->visited[sieve->kind] = false;
    entry->lap[sieve->kind] = sieve->lap;
    if (sieve->ahead > 0)
        sieve->ahead--;
    return entry->queued[sieve->kind].newer;
}

struct cache_entry *sieve_victim(struct sieve *sieve, const struct cache_entry *keep) {
    if (sieve->oldest == NULL || (sieve->oldest == keep && sieve->newest == keep))
        return NULL;
    struct cache_entry *at = sieve->hand;
    if (sieve->ahead < sieve->count / SIEVE_NEWEST_SHARE)
        at = NULL;
    for (unsigned spared = 0;;) {
        if (at == NULL)
            at = start_lap(sieve);
        if (at != keep) {
            if (!at->visited[sieve->kind] || spared == SIEVE_SPARED_MAX)
                break;
            spared++;
        }
        at = pass(sieve, at);
    }
    sieve->hand = at;
    return at;
}
