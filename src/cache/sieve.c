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
}

void sieve_replace(struct sieve *sieve, struct cache_entry *from, struct cache_entry *to) {
    struct sieve_link *link = &to->queued[sieve->kind];
    *link = from->queued[sieve->kind];
    to->visited[sieve->kind] = from->visited[sieve->kind];
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

struct cache_entry *sieve_victim(struct sieve *sieve, const struct cache_entry *keep) {
    if (sieve->oldest == NULL || (sieve->oldest == keep && sieve->newest == keep))
        return NULL;
    struct cache_entry *at = sieve->hand;
    for (unsigned spared = 0;;) {
        if (at == NULL)
            at = sieve->oldest;
        if (at != keep) {
            if (!at->visited[sieve->kind] || spared == SIEVE_SPARED_MAX)
                break;
            at->visited[sieve->kind] = false;
            spared++;
        }
        at = at->queued[sieve->kind].newer;
    }
    sieve->hand = at;
    return at;
}
