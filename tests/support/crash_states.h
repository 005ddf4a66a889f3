/*
 * What may be on a disk when the power goes out: the states that a trace of crash_disk.h permits
 * after each of its events.
 *
 *   data      A write that no sync of its file covers may be there, may be missing, and may be
 *             torn: each 512-byte sector for itself, in any order, and of several writes to one
 *             sector any of them. What a shortened file gives up is such a write, of zeros.
 *   length    Of the lengths that a file had since its last sync any; of a write that made it
 *             longer also those between, at sectors. Bytes that did not arrive are zeros.
 *   names     Of the creations, renames and removals since the last sync of their directory any
 *             subset, in order; one that lost what it stands on (a rename its source) is no
 *             change. A directory that is not there takes what is in it along.
 *   failures  What a failed sync was to keep stays in doubt, whatever is synced later.
 *
 * What a finished sync covers is there. This is more than ext4 does (it orders names among
 * themselves, and data before lengths), so a log that stands here does not need ext4.
 */
#ifndef SUPPORT_CRASH_STATES_H
#define SUPPORT_CRASH_STATES_H

#include "base/rand.h"
#include "support/crash_disk.h"

struct crash_states;

/** Start at the beginning of a trace that is complete. Borrows it until freed; returned owned. */
struct crash_states *crash_states_new(const struct crash_disk *trace);
void crash_states_free(struct crash_states *states);

/** Take the next event and return it; NULL: there is none. */
const struct crash_event *crash_states_step(struct crash_states *states);

typedef void (*crash_visit)(void *user, const struct memory_disk *state);

/**
 * Call `visit` with the states that are permitted now: with all of them when these are at most
 * `budget` combinations of choices, otherwise with the extremes (all, nothing, each single choice
 * against either, each point of tearing from both sides) and with random ones up to `budget`.
 * The same state may come more than once. Returns whether these were all of them.
 */
bool crash_states_visit(struct crash_states *states, size_t budget, struct rng *rng,
                        crash_visit visit, void *user);

#endif
