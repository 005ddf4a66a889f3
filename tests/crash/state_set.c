#include "state_set.h"

#include "base/check.h"

#include <sys/mman.h>

static size_t bytes_of(size_t slots) {
    return sizeof(struct state_set) + slots * sizeof(uint64_t);
}

struct state_set *state_set_new(size_t states) {
    size_t slots = 1024;
    while (slots < states * 2)
        slots *= 2;
    struct state_set *set = mmap(NULL, bytes_of(slots), PROT_READ | PROT_WRITE,
                                 MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    INVARIANT(set != MAP_FAILED);
    set->mask = slots - 1;
    return set;
}

void state_set_free(struct state_set *set) {
    munmap(set, bytes_of(set->mask + 1));
}

bool state_set_add(struct state_set *set, uint64_t hash) {
    hash += hash == 0;
    if (atomic_load(&set->distinct) > set->mask / 4 * 3)
        return false;
    for (size_t i = hash & set->mask;; i = (i + 1) & set->mask) {
        uint64_t there = atomic_load(&set->hashes[i]);
        if (there == hash)
            return false;
        if (there != 0)
            continue;
        if (atomic_compare_exchange_strong(&set->hashes[i], &there, hash)) {
            atomic_fetch_add(&set->distinct, 1);
            return true;
        }
        if (there == hash)
            return false;
    }
}
