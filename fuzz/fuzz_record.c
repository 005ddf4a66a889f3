/*
 * Bytes as one record of a log. What decodes encodes to the same bytes and ends inside the input.
 * Then the same with its header's checksum put right, and then with both, which is where random
 * bytes never come: what the decoder finds must follow from length and limit alone.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/cursor.h"
#include "storage/crc32.h"
#include "storage/record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static enum record_fault decode(const uint8_t *data, size_t size) {
    struct record record, head;
    size_t taken = 0;
    uint32_t payload_bytes = 0;
    struct slice in = slice_of(data, size);
    enum record_fault fault = record_decode(in, &record, &taken);
    enum record_fault of_header = record_header_decode(in, &head, &payload_bytes);
    bool behind_header =
        fault == RECORD_OK || fault == RECORD_TRUNCATED || fault == RECORD_BAD_CHECKSUM;
    INVARIANT(of_header == (behind_header ? RECORD_OK : fault));
    INVARIANT(record_fault_name(fault)[0] != '\0');
    if (fault == RECORD_TRUNCATED)
        INVARIANT(taken > size && taken == RECORD_HEADER_BYTES + payload_bytes);
    if (fault != RECORD_OK)
        return fault;
    INVARIANT(taken <= size && taken == RECORD_HEADER_BYTES + record.payload.len);
    INVARIANT(record.payload.data == data + RECORD_HEADER_BYTES);
    INVARIANT(head.offset == record.offset && head.timestamp_us == record.timestamp_us);
    uint8_t again[RECORD_HEADER_BYTES];
    record_header_encode(record.offset, record.timestamp_us, record.payload, again);
    INVARIANT(memcmp(again, data, sizeof again) == 0);
    return fault;
}

static enum record_fault expected(const uint8_t *data, size_t size) {
    uint32_t payload_bytes = be32_load(data);
    if (payload_bytes > RECORD_PAYLOAD_BYTES_MAX)
        return RECORD_TOO_LARGE;
    return size - RECORD_HEADER_BYTES < payload_bytes ? RECORD_TRUNCATED : RECORD_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    enum record_fault fault = decode(data, size);
    INVARIANT((fault == RECORD_TRUNCATED_HEADER) == (size < RECORD_HEADER_BYTES));
    if (size < RECORD_HEADER_BYTES)
        return 0;

    uint8_t *fixed = xmalloc(size);
    memcpy(fixed, data, size);
    be32_store(fixed + 20, crc32_update(0, fixed, 20));
    fault = decode(fixed, size);
    enum record_fault wanted = expected(fixed, size);
    INVARIANT(fault == wanted || (wanted == RECORD_OK && fault == RECORD_BAD_CHECKSUM));

    if (wanted == RECORD_OK) {
        uint32_t crc = crc32_update(0, fixed, 24);
        be32_store(fixed + 24, crc32_update(crc, fixed + RECORD_HEADER_BYTES, be32_load(fixed)));
        INVARIANT(decode(fixed, size) == RECORD_OK);
    }
    free(fixed);
    return 0;
}
