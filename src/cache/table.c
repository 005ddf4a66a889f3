/*
 * Removing from the new slots shifts the following entries back, so there are no tombstones and a
 * search ends at the first free slot. The old slots cannot be shifted while they are moved from
 * front to back; there a slot that was moved or removed holds `moved_away`, which a search passes.
 * Free slots stay free, so a search in the old slots ends where it always did.
 *
 * A table grows at three quarters full to twice the slots and shrinks below one eighth to half of
 * them. Each change moves MOVED_PER_CHANGE old slots, so the old ones are gone long before the
 * new ones can fill up.
 */
#include "cache/table.h"

#include <stdlib.h>

#include "base/check.h"
#include "base/map.h"

#define SLOTS_MIN ((size_t)16)
#define MOVED_PER_CHANGE 16

static struct cache_entry moved_away;

uint32_t table_hash(struct slice key) {
    /* The upper half: whoever assigns keys to reactors may have used the lower one. */
    return (uint32_t)(map_hash(key) >> 32);
}

/* The slot that holds an entry with `key`, in slots that end a search with a free one. */
static struct table_slot *find_slot(struct table_slot *slots, size_t slot_count, uint32_t hash,
                                    struct slice key) {
    for (size_t at = hash;; at++) {
        struct table_slot *slot = &slots[at & (slot_count - 1)];
        if (slot->entry == NULL)
            return NULL;
        if (slot->hash == hash && slot->entry != &moved_away &&
            slice_equal(entry_key(slot->entry), key))
            return slot;
    }
}

struct cache_entry *table_find(const struct table *table, uint32_t hash, struct slice key) {
    if (table->count == 0)
        return NULL;
    struct table_slot *slot = find_slot(table->slots, table->slot_count, hash, key);
    if (slot == NULL && table->old_slots != NULL)
        slot = find_slot(table->old_slots, table->old_slot_count, hash, key);
    return slot != NULL ? slot->entry : NULL;
}

/* The slot of `entry` by identity, so that the bytes of the key are not read again. */
static struct table_slot *slot_of(struct table_slot *slots, size_t slot_count,
                                  const struct cache_entry *entry) {
    for (size_t at = entry->hash;; at++) {
        struct table_slot *slot = &slots[at & (slot_count - 1)];
        if (slot->entry == entry)
            return slot;
        if (slot->entry == NULL)
            return NULL;
    }
}

static void insert_new(struct table *table, struct cache_entry *entry, uint32_t hash) {
    size_t at = hash & (table->slot_count - 1);
    while (table->slots[at].entry != NULL)
        at = (at + 1) & (table->slot_count - 1);
    table->slots[at] = (struct table_slot){.entry = entry, .hash = hash};
}

static void move_some(struct table *table, size_t slots_max) {
    if (table->old_slots == NULL)
        return;
    size_t end = table->old_at + slots_max;
    if (end > table->old_slot_count)
        end = table->old_slot_count;
    for (; table->old_at < end; table->old_at++) {
        struct table_slot *slot = &table->old_slots[table->old_at];
        if (slot->entry == NULL || slot->entry == &moved_away)
            continue;
        insert_new(table, slot->entry, slot->hash);
        slot->entry = &moved_away;
    }
    if (table->old_at == table->old_slot_count) {
        free(table->old_slots);
        table->old_slots = NULL;
    }
}

static void resize(struct table *table, size_t slot_count) {
    move_some(table, table->old_slot_count);
    INVARIANT(slot_count <= (size_t)1 << 32);
    table->old_slots = table->slots;
    table->old_slot_count = table->slot_count;
    table->old_at = 0;
    table->slots = xcalloc(slot_count, sizeof *table->slots);
    table->slot_count = slot_count;
}

void table_insert(struct table *table, struct cache_entry *entry) {
    if (table->slot_count == 0)
        resize(table, SLOTS_MIN);
    else if ((table->count + 1) * 4 > table->slot_count * 3)
        resize(table, table->slot_count * 2);
    move_some(table, MOVED_PER_CHANGE);
    insert_new(table, entry, entry->hash);
    table->count++;
}

void table_replace(struct table *table, const struct cache_entry *from, struct cache_entry *to) {
    struct table_slot *slot = slot_of(table->slots, table->slot_count, from);
    if (slot == NULL && table->old_slots != NULL)
        slot = slot_of(table->old_slots, table->old_slot_count, from);
    INVARIANT(slot != NULL && to->hash == from->hash);
    slot->entry = to;
}

/* Closes the gap at `slot`: what may stand there according to its hash moves forward into it. */
static void shift_back(struct table *table, struct table_slot *slot) {
    size_t mask = table->slot_count - 1;
    size_t gap = (size_t)(slot - table->slots);
    for (size_t at = (gap + 1) & mask; table->slots[at].entry != NULL; at = (at + 1) & mask) {
        size_t from_home = (at - table->slots[at].hash) & mask;
        if (from_home < ((at - gap) & mask))
            continue;
        table->slots[gap] = table->slots[at];
        gap = at;
    }
    table->slots[gap].entry = NULL;
}

void table_remove(struct table *table, const struct cache_entry *entry) {
    struct table_slot *slot = slot_of(table->slots, table->slot_count, entry);
    if (slot != NULL) {
        shift_back(table, slot);
    } else {
        INVARIANT(table->old_slots != NULL);
        slot = slot_of(table->old_slots, table->old_slot_count, entry);
        INVARIANT(slot != NULL);
        slot->entry = &moved_away;
    }
    table->count--;
    if (table->slot_count > SLOTS_MIN && table->count * 8 < table->slot_count &&
        table->old_slots == NULL)
        resize(table, table->slot_count / 2);
    move_some(table, MOVED_PER_CHANGE);
}

void table_deinit(struct table *table) {
    free(table->slots);
    free(table->old_slots);
    *table = (struct table){0};
}
