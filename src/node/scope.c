#include "node/scope.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"

static int compare_text(const char *a, const char *b) {
    return strcmp(a != NULL ? a : "", b != NULL ? b : "");
}

int scope_item_compare(const struct scope_item *a, const struct scope_item *b) {
    if (a->kind != b->kind)
        return a->kind < b->kind ? -1 : 1;
    int order = compare_text(a->tenant, b->tenant);
    if (order == 0)
        order = compare_text(a->space, b->space);
    return order != 0 ? order : compare_text(a->name, b->name);
}

static int compare_pointers(const void *left, const void *right) {
    return scope_item_compare(*(const struct scope_item *const *)left,
                              *(const struct scope_item *const *)right);
}

/* Pointers to the streams and caches in order. Returned owned. */
static const struct scope_item **sorted_leaves(struct scope scope, size_t *ret_count) {
    const struct scope_item **leaves = xcalloc(scope.count + 1, sizeof *leaves);
    size_t count = 0;
    for (size_t i = 0; i < scope.count; i++) {
        enum scope_kind kind = scope.items[i].kind;
        if (kind == SCOPE_STREAM || kind == SCOPE_CACHE)
            leaves[count++] = &scope.items[i];
    }
    qsort(leaves, count, sizeof *leaves, compare_pointers);
    *ret_count = count;
    return leaves;
}

static bool same_settings(const struct scope_item *a, const struct scope_item *b) {
    return a->durable == b->durable && a->max_bytes == b->max_bytes &&
           a->retention_bytes == b->retention_bytes && a->retention_seconds == b->retention_seconds;
}

void scope_diff(struct scope before, struct scope after,
                void (*on_change)(void *context, enum scope_change change,
                                  const struct scope_item *item),
                void *context) {
    size_t old_count, new_count;
    const struct scope_item **old = sorted_leaves(before, &old_count);
    const struct scope_item **new = sorted_leaves(after, &new_count);
    /* Twice through both: what is removed first makes room for what is added. */
    for (int additions = 0; additions <= 1; additions++) {
        size_t o = 0, n = 0;
        while (o < old_count || n < new_count) {
            int order = o == old_count   ? 1
                        : n == new_count ? -1
                                         : scope_item_compare(old[o], new[n]);
            if (order < 0 && !additions)
                on_change(context, SCOPE_REMOVED, old[o]);
            else if (order > 0 && additions)
                on_change(context, SCOPE_ADDED, new[n]);
            else if (order == 0 && additions && !same_settings(old[o], new[n]))
                on_change(context, SCOPE_ALTERED, new[n]);
            o += order <= 0;
            n += order >= 0;
        }
    }
    free(old);
    free(new);
}
