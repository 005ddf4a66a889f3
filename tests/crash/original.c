#include "original.h"

#include "base/check.h"
#include "check.h"
#include "storage/segment.h"

#include <limits.h>

/* Appends up to eight records to a segment that has `bytes`; returns how many it has then. */
static size_t add_records(uint8_t *file, size_t bytes, struct oracle *oracle, struct rng *rng,
                          uint64_t *offset) {
    static _Thread_local uint8_t batch[8 * 1024];
    uint32_t count = (uint32_t)rng_below(rng, 8);
    for (uint32_t i = 0; i < count; i++) {
        struct payload_list list;
        uint64_t timestamp_us = 5000 + *offset;
        INVARIANT(oracle_append(oracle, rng, *offset, 1, 600, timestamp_us, batch, &list));
        struct payload_cursor cursor = payload_walk(&list);
        struct slice payload;
        payload_next(&cursor, &payload);
        record_header_encode(*offset, timestamp_us, payload, file + bytes);
        memcpy(file + bytes + RECORD_HEADER_BYTES, payload.data, payload.len);
        bytes += RECORD_HEADER_BYTES + payload.len;
        *offset += 1;
    }
    return bytes;
}

void make_original(struct memory_disk *disk, struct oracle *oracle, uint64_t seed) {
    struct rng rng;
    rng_seed(&rng, seed);
    memory_disk_add_dir(disk, CRASH_LOG_DIR);
    uint64_t segments = 1 + rng_below(&rng, 3);
    uint64_t offset = 0;
    for (uint64_t id = 0; id < segments; id++) {
        uint8_t file[8 * 1024];
        segment_header_encode(&(struct segment_header){.base_offset = offset, .created_us = 4000},
                              file);
        uint64_t base = offset;
        size_t bytes = SEGMENT_HEADER_BYTES;
        /* Only the newest may be without a record. */
        do {
            bytes = add_records(file, bytes, oracle, &rng, &offset);
        } while (offset == base && id + 1 < segments);
        char path[PATH_MAX];
        INVARIANT(segment_path(CRASH_LOG_DIR, id, "log", path));
        memory_disk_add_file(disk, path, slice_of(file, bytes), bytes);
    }
    oracle_acknowledge(oracle, offset);
}
