#include "oracle.h"

#include "base/check.h"
#include "storage/record.h"

#include <stdlib.h>

void oracle_init(struct oracle *oracle) {
    *oracle = (struct oracle){
        .records = xcalloc(ORACLE_OFFSETS_MAX, sizeof *oracle->records),
    };
}

void oracle_deinit(struct oracle *oracle) {
    free(oracle->records);
}

void oracle_copy(struct oracle *to, const struct oracle *from) {
    memcpy(to->records, from->records, ORACLE_OFFSETS_MAX * sizeof *to->records);
    to->acknowledged = from->acknowledged;
}

/* Some payloads are what recovery might take for something else: zeros, and a good record. */
static void payload_of(uint64_t tag, uint64_t offset, uint32_t bytes, uint8_t *out) {
    if (tag % 8 == 0) {
        memset(out, 0, bytes);
        return;
    }
    struct rng rng;
    rng_seed(&rng, tag);
    for (uint32_t i = 0; i < bytes; i += 8) {
        uint64_t word = rng_next(&rng);
        memcpy(out + i, &word, bytes - i < 8 ? bytes - i : 8);
    }
    if (tag % 8 == 1 && bytes >= RECORD_HEADER_BYTES + 5) {
        struct slice inner = slice_of(out + RECORD_HEADER_BYTES, 5);
        record_header_encode(offset + tag / 8 % 3, 1, inner, out);
    }
}

static void put_u32(uint8_t *out, uint32_t value) {
    for (unsigned i = 0; i < 4; i++)
        out[i] = (uint8_t)(value >> (24 - 8 * i));
}

bool oracle_append(struct oracle *oracle, struct rng *rng, uint64_t offset, uint32_t count,
                   uint32_t bytes_max, uint64_t timestamp_us, uint8_t *out,
                   struct payload_list *ret_list) {
    INVARIANT(bytes_max <= ORACLE_PAYLOAD_MAX);
    if (offset + count > ORACLE_OFFSETS_MAX)
        return false;
    for (uint64_t i = offset; i < offset + count; i++) {
        if (oracle->records[i].variants == ORACLE_VARIANTS_MAX)
            return false;
    }
    size_t used = 4;
    ret_list->payload_bytes = 0;
    put_u32(out, count);
    for (uint64_t i = offset; i < offset + count; i++) {
        struct oracle_record *record = &oracle->records[i];
        INVARIANT(record->acknowledged == 0);
        unsigned v = record->variants++;
        record->variant[v].timestamp_us = timestamp_us;
        record->variant[v].tag = rng_next(rng);
        uint32_t bytes = (uint32_t)rng_below(rng, bytes_max + 1);
        record->variant[v].bytes = bytes;
        put_u32(out + used, bytes);
        payload_of(record->variant[v].tag, i, bytes, out + used + 4);
        used += 4 + bytes;
        ret_list->payload_bytes += bytes;
    }
    ret_list->bytes = slice_of(out, used);
    ret_list->count = count;
    return true;
}

void oracle_acknowledge(struct oracle *oracle, uint64_t end) {
    for (; oracle->acknowledged < end; oracle->acknowledged++) {
        struct oracle_record *record = &oracle->records[oracle->acknowledged];
        INVARIANT(record->variants > 0);
        record->acknowledged = record->variants;
    }
}

/* The variant, + 1, that the record is; 0: none. */
static unsigned find_variant(const struct oracle_record *record, uint64_t offset,
                             uint64_t timestamp_us, struct slice payload) {
    uint8_t expected[ORACLE_PAYLOAD_MAX];
    for (unsigned v = record->variants; v-- > 0;) {
        if (record->variant[v].timestamp_us != timestamp_us ||
            record->variant[v].bytes != payload.len)
            continue;
        payload_of(record->variant[v].tag, offset, record->variant[v].bytes, expected);
        if (payload.len == 0 || memcmp(expected, payload.data, payload.len) == 0)
            return v + 1;
    }
    return 0;
}

enum oracle_answer oracle_ask(const struct oracle *oracle, uint64_t offset, uint64_t timestamp_us,
                              struct slice payload) {
    if (offset >= ORACLE_OFFSETS_MAX)
        return ORACLE_UNKNOWN;
    const struct oracle_record *record = &oracle->records[offset];
    unsigned variant = find_variant(record, offset, timestamp_us, payload);
    if (variant == 0)
        return ORACLE_UNKNOWN;
    return record->acknowledged == variant ? ORACLE_ACKNOWLEDGED : ORACLE_KNOWN;
}

enum oracle_answer oracle_settle(struct oracle *oracle, uint64_t offset, uint64_t timestamp_us,
                                 struct slice payload) {
    enum oracle_answer answer = oracle_ask(oracle, offset, timestamp_us, payload);
    if (answer == ORACLE_UNKNOWN || offset < oracle->acknowledged)
        return answer;
    INVARIANT(offset == oracle->acknowledged);
    struct oracle_record *record = &oracle->records[offset];
    record->acknowledged = (uint8_t)find_variant(record, offset, timestamp_us, payload);
    oracle->acknowledged++;
    return answer;
}
