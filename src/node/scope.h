/*
 * What differs between two scopes: the streams and caches that came and went.
 */
#ifndef NODE_SCOPE_H
#define NODE_SCOPE_H

#include "node/config.h"

struct scope {
    const struct scope_item *items;
    size_t count;
};

enum scope_change { SCOPE_ADDED, SCOPE_REMOVED, SCOPE_ALTERED };

/** Order of items: kind, then names. 0: the same thing, whatever its settings are. */
int scope_item_compare(const struct scope_item *a, const struct scope_item *b);

/**
 * Call `on_change` for each stream and cache that only one of the scopes has, or that has other
 * settings now (given as the new one says). Removals come first. Tenants and namespaces exist by
 * what is in them and are not reported. Borrows all; items are borrowed for the call.
 */
void scope_diff(struct scope before, struct scope after,
                void (*on_change)(void *context, enum scope_change change,
                                  const struct scope_item *item),
                void *context);

#endif
