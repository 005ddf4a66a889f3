#include "base/rand.h"

#include "base/check.h"

#include <errno.h>
#include <stdbool.h>
#include <sys/random.h>
#include <sys/types.h>

void rand_bytes(void *memory, size_t len) {
    uint8_t *at = memory;
    while (len > 0) {
        ssize_t got = getrandom(at, len, 0);
        if (got < 0 && errno == EINTR)
            continue;
        INVARIANT(got > 0);
        at += got;
        len -= (size_t)got;
    }
}

uint64_t rand_u64(void) {
    uint64_t value;
    rand_bytes(&value, sizeof value);
    return value;
}

static uint64_t rotate_left(uint64_t value, unsigned bits) {
    return (value << bits) | (value >> (64 - bits));
}

/* splitmix64 spreads a small seed over the state, which must not be all zero. */
void rng_seed(struct rng *rng, uint64_t seed) {
    for (size_t i = 0; i < 4; i++) {
        seed += 0x9e3779b97f4a7c15u;
        uint64_t z = seed;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        rng->state[i] = z ^ (z >> 31);
    }
}

uint64_t rng_next(struct rng *rng) {
    uint64_t *s = rng->state;
    uint64_t result = rotate_left(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate_left(s[3], 45);
    return result;
}

/* The numbers below 2^64 mod bound would come up once too often, so they are drawn again. */
uint64_t rng_below(struct rng *rng, uint64_t bound) {
    INVARIANT(bound > 0);
    uint64_t threshold = -bound % bound;
    for (;;) {
        uint64_t value = rng_next(rng);
        if (value >= threshold)
            return value % bound;
    }
}
