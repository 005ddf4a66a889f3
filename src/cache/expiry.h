/*
 * expiry: which entries expire next. A timing wheel that does not tick.
 *
 * Times are monotonic nanoseconds and are rounded up to ticks of EXPIRY_TICK_NS, so a link never
 * comes out early and at most one tick late. Adding and removing take constant time; a link is
 * moved at most EXPIRY_LEVELS times before it comes out. The whole range of uint64_t works.
 * Belongs to one thread. Links are embedded in their owners, who keep them alive while added.
 */
#ifndef CACHE_EXPIRY_H
#define CACHE_EXPIRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXPIRY_NEVER UINT64_MAX
#define EXPIRY_TICK_SHIFT 24
#define EXPIRY_TICK_NS                                                                             \
    ((uint64_t)1 << EXPIRY_TICK_SHIFT) /* 16.8 ms: at most 60 wake-ups a second */
#define EXPIRY_LEVELS 7                /* of 6 bits: 41 bits of ticks */
#define EXPIRY_SLOTS 64

struct expiry_link {
    struct expiry_link *next;
    struct expiry_link **at; /* what points to this link; NULL while it is not added */
    uint64_t at_ns;
    uint32_t slot; /* level * EXPIRY_SLOTS + slot in the level */
};

struct expiry_slot {
    struct expiry_link *head;
    uint64_t tick_min; /* no link here is due before it; meaningful while head is not NULL */
};

/* Zeroed is empty and ready. */
struct expiry {
    uint64_t tick;                    /* no link is due before it, but those in draining */
    struct expiry_link *draining;     /* the rest of a slot whose time has come */
    uint64_t occupied[EXPIRY_LEVELS]; /* bit n: slot n of the level has links */
    struct expiry_slot slots[EXPIRY_LEVELS * EXPIRY_SLOTS];
};

/** Adds `link`, which must not be added, to come out at `at_ns`; EXPIRY_NEVER only notes that. */
void expiry_add(struct expiry *expiry, struct expiry_link *link, uint64_t at_ns);

/** Takes `link` out; does nothing when it is not added. */
void expiry_remove(struct expiry *expiry, struct expiry_link *link);

/** `to` takes the place of `from`, with its time; `from` is not added any more. */
void expiry_replace(struct expiry_link *from, struct expiry_link *to);

/**
 * Takes out one link that is due at `now_ns` and returns it, or NULL when none is due or the work
 * ran out. Every link looked at takes one from `*work`; with no work left nothing is done.
 */
struct expiry_link *expiry_pop(struct expiry *expiry, uint64_t now_ns, size_t *work);

/**
 * When expiry_pop is worth calling again: never later than the first link comes out, earlier only
 * where the link that had been first was removed. EXPIRY_NEVER when there are no links.
 */
uint64_t expiry_next_ns(const struct expiry *expiry);

#endif
