/*
 * A link stands at the level of the highest group of six bits in which its tick differs from ours
 * (`tick`), in the slot that this group of its tick names. So all links of a level are due before
 * all links of the next, the slots of a level are in order, and the first occupied slot of the
 * first occupied level holds what is due next: no scan, no tick that finds nothing.
 *
 * When the time of that slot has come, our tick jumps to its first time and the slot becomes
 * `draining`: link by link, as the caller's work allows, the due ones come out and the others move
 * to lower levels. Our tick only ever jumps within the first slot, hence links elsewhere keep their
 * place. Links that are added meanwhile go to lower levels at once.
 *
 * This is a radix heap with the shape of a hierarchical timing wheel.
 */
#include "cache/expiry.h"

#include "base/check.h"

#define LEVEL_BITS 6

static uint64_t tick_of(uint64_t at_ns) {
    uint64_t tick = at_ns >> EXPIRY_TICK_SHIFT;
    return (at_ns & (EXPIRY_TICK_NS - 1)) != 0 ? tick + 1 : tick;
}

static void push(struct expiry_link **head, struct expiry_link *link) {
    link->next = *head;
    if (link->next != NULL)
        link->next->at = &link->next;
    link->at = head;
    *head = link;
}

static void place(struct expiry *expiry, struct expiry_link *link) {
    uint64_t tick = tick_of(link->at_ns);
    if (tick < expiry->tick)
        tick = expiry->tick;

    uint64_t differ = tick ^ expiry->tick;
    unsigned level = differ == 0 ? 0 : (63u - (unsigned)__builtin_clzll(differ)) / LEVEL_BITS;
    unsigned index = (unsigned)(tick >> (level * LEVEL_BITS)) % EXPIRY_SLOTS;
    link->slot = level * EXPIRY_SLOTS + index;

    struct expiry_slot *slot = &expiry->slots[link->slot];
    if (slot->head == NULL || tick < slot->tick_min)
        slot->tick_min = tick;
    push(&slot->head, link);
    expiry->occupied[level] |= 1ull << index;
}

void expiry_add(struct expiry *expiry, struct expiry_link *link, uint64_t at_ns) {
    INVARIANT(link->at == NULL);
    link->at_ns = at_ns;
    if (at_ns != EXPIRY_NEVER)
        place(expiry, link);
}

static void unlink_one(struct expiry_link *link) {
    *link->at = link->next;
    if (link->next != NULL)
        link->next->at = link->at;
    link->at = NULL;
}

void expiry_remove(struct expiry *expiry, struct expiry_link *link) {
    if (link->at == NULL)
        return;
    unlink_one(link);
    /* A link in draining names the slot it came from, which is rightly looked at too. */
    if (expiry->slots[link->slot].head == NULL)
        expiry->occupied[link->slot / EXPIRY_SLOTS] &= ~(1ull << link->slot % EXPIRY_SLOTS);
}

void expiry_replace(struct expiry_link *from, struct expiry_link *to) {
    *to = *from;
    from->at = NULL;
    if (to->at == NULL)
        return;
    *to->at = to;
    if (to->next != NULL)
        to->next->at = &to->next;
}

#define NO_SLOT UINT32_MAX

/* The index of the slot whose links are due first, or NO_SLOT. */
static uint32_t first_slot(const struct expiry *expiry) {
    for (uint32_t level = 0; level < EXPIRY_LEVELS; level++)
        if (expiry->occupied[level] != 0)
            return level * EXPIRY_SLOTS + (uint32_t)__builtin_ctzll(expiry->occupied[level]);
    return NO_SLOT;
}

/* Makes the first slot the draining one if its time has come. */
static bool start_draining(struct expiry *expiry, uint64_t now_tick) {
    uint32_t first = first_slot(expiry);
    if (first == NO_SLOT || expiry->slots[first].tick_min > now_tick)
        return false;
    struct expiry_slot *slot = &expiry->slots[first];
    expiry->occupied[first / EXPIRY_SLOTS] &= ~(1ull << first % EXPIRY_SLOTS);
    expiry->tick = slot->tick_min;
    expiry->draining = slot->head;
    expiry->draining->at = &expiry->draining;
    slot->head = NULL;
    return true;
}

struct expiry_link *expiry_pop(struct expiry *expiry, uint64_t now_ns, size_t *work) {
    uint64_t now_tick = now_ns >> EXPIRY_TICK_SHIFT;

    for (; *work > 0; --*work) {
        if (expiry->draining == NULL && !start_draining(expiry, now_tick))
            return NULL;
        struct expiry_link *link = expiry->draining;
        unlink_one(link);
        if (tick_of(link->at_ns) <= now_tick) {
            --*work;
            return link;
        }
        place(expiry, link);
    }
    return NULL;
}

uint64_t expiry_next_ns(const struct expiry *expiry) {
    if (expiry->draining != NULL)
        return expiry->tick << EXPIRY_TICK_SHIFT;
    uint32_t first = first_slot(expiry);
    if (first == NO_SLOT)
        return EXPIRY_NEVER;
    uint64_t tick = expiry->slots[first].tick_min;
    uint64_t last_tick = EXPIRY_NEVER >> EXPIRY_TICK_SHIFT;
    return tick > last_tick ? EXPIRY_NEVER : tick << EXPIRY_TICK_SHIFT;
}
