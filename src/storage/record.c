/*
 * Records in memory. A decoder believes the length only after the header's own checksum, and
 * everything else after the second one, which covers header and payload.
 */
#include "storage/record.h"

#include "base/check.h"
#include "base/cursor.h"
#include "storage/crc32.h"

enum {
    OFFSET_AT = 4,
    TIMESTAMP_AT = 12,
    HEADER_CRC_AT = 20,
    CHECKSUM_AT = 24,
};

const char *record_fault_name(enum record_fault fault) {
    switch (fault) {
    case RECORD_OK:
        return "ok";
    case RECORD_TRUNCATED_HEADER:
        return "truncated_header";
    case RECORD_BAD_HEADER:
        return "header_checksum";
    case RECORD_TOO_LARGE:
        return "too_large";
    case RECORD_TRUNCATED:
        return "truncated";
    case RECORD_BAD_CHECKSUM:
        return "checksum";
    case RECORD_OUT_OF_ORDER:
        return "out_of_order";
    }
    UNREACHED();
}

/* The second checksum continues the first one, over that itself and the payload. */
static uint32_t checksum(const uint8_t *header, uint32_t header_crc, struct slice payload) {
    uint32_t crc = crc32_update(header_crc, header + HEADER_CRC_AT, CHECKSUM_AT - HEADER_CRC_AT);
    return crc32_update(crc, payload.data, payload.len);
}

void record_header_encode(uint64_t offset, uint64_t timestamp_us, struct slice payload,
                          uint8_t out[RECORD_HEADER_BYTES]) {
    INVARIANT(payload.len <= RECORD_PAYLOAD_BYTES_MAX);
    be32_store(out, (uint32_t)payload.len);
    be64_store(out + OFFSET_AT, offset);
    be64_store(out + TIMESTAMP_AT, timestamp_us);
    uint32_t header_crc = crc32_update(0, out, HEADER_CRC_AT);
    be32_store(out + HEADER_CRC_AT, header_crc);
    be32_store(out + CHECKSUM_AT, checksum(out, header_crc, payload));
}

enum record_fault record_header_decode(struct slice bytes, struct record *ret,
                                       uint32_t *ret_payload_bytes) {
    if (bytes.len < RECORD_HEADER_BYTES)
        return RECORD_TRUNCATED_HEADER;
    const uint8_t *at = bytes.data;
    if (crc32_update(0, at, HEADER_CRC_AT) != be32_load(at + HEADER_CRC_AT))
        return RECORD_BAD_HEADER;
    uint32_t payload_bytes = be32_load(at);
    if (payload_bytes > RECORD_PAYLOAD_BYTES_MAX)
        return RECORD_TOO_LARGE;
    *ret = (struct record){
        .offset = be64_load(at + OFFSET_AT),
        .timestamp_us = be64_load(at + TIMESTAMP_AT),
    };
    *ret_payload_bytes = payload_bytes;
    return RECORD_OK;
}

enum record_fault record_decode(struct slice bytes, struct record *ret, size_t *ret_bytes) {
    struct record record;
    uint32_t payload_bytes;
    enum record_fault fault = record_header_decode(bytes, &record, &payload_bytes);
    if (fault != RECORD_OK)
        return fault;
    size_t total = RECORD_HEADER_BYTES + payload_bytes;
    if (bytes.len < total) {
        *ret_bytes = total;
        return RECORD_TRUNCATED;
    }
    const uint8_t *at = bytes.data;
    record.payload = slice_of(at + RECORD_HEADER_BYTES, payload_bytes);
    if (checksum(at, be32_load(at + HEADER_CRC_AT), record.payload) != be32_load(at + CHECKSUM_AT))
        return RECORD_BAD_CHECKSUM;
    *ret = record;
    *ret_bytes = total;
    return RECORD_OK;
}
