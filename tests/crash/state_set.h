/*
 * Which states were opened, by a 64-bit hash of all their names and bytes: counts distinct ones
 * over all processes that share it. Lock-free; fixed size.
 */
#ifndef CRASH_STATE_SET_H
#define CRASH_STATE_SET_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct state_set {
    size_t mask;
    _Atomic uint64_t distinct;
    _Atomic uint64_t opened;  /* with those that were opened again because more was promised */
    _Atomic uint64_t visited; /* combinations of choices, the same state several times */
    _Atomic uint64_t moments, complete; /* in traces; those of which every state was visited */
    _Atomic uint64_t hashes[];
};

/** Room for `states` in memory that children of fork share. Ends the process when there is none.
 * Freed by state_set_free. */
struct state_set *state_set_new(size_t states);
void state_set_free(struct state_set *set);

/** True when `hash` was not there. When the set is full nothing is added or counted any more. */
bool state_set_add(struct state_set *set, uint64_t hash);

#endif
