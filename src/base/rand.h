/*
 * Randomness: the system's for secrets, a seeded generator for tests and jitter.
 *
 * rand_bytes may be called by any thread; a `struct rng` belongs to one thread.
 */
#ifndef BASE_RAND_H
#define BASE_RAND_H

#include <stddef.h>
#include <stdint.h>

/** Fills `memory` with bytes that nobody can guess (getrandom). Ends the process when the system
 * has none, because what follows would be guessable. */
void rand_bytes(void *memory, size_t len);

/** Eight bytes of rand_bytes as a number. */
uint64_t rand_u64(void);

/* xoshiro256**: fast, repeatable from its seed, guessable. Never for secrets. */
struct rng {
    uint64_t state[4];
};

/** Starts the sequence that belongs to `seed`; the same on every machine. */
void rng_seed(struct rng *rng, uint64_t seed);

/** The next 64 bits. */
uint64_t rng_next(struct rng *rng);

/** Uniform in 0 .. bound-1. `bound` is at least 1. */
uint64_t rng_below(struct rng *rng, uint64_t bound);

#endif
