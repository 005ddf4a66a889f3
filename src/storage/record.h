/*
 * One record of a log: 28 bytes of header, then the payload. Format version 2, all integers
 * big-endian. Source: broker specification 6.3.
 *
 *    0  4  payload_len    4  8  offset    12  8  timestamp, microseconds since the epoch
 *   20  4  CRC-32 over 0..20             24  4  CRC-32 over 0..24, then the payload
 */
#ifndef STORAGE_RECORD_H
#define STORAGE_RECORD_H

#include "base/slice.h"

#include <stdbool.h>
#include <stdint.h>

#define RECORD_HEADER_BYTES 28u
#define RECORD_PAYLOAD_BYTES_MAX ((uint32_t)64 << 20)

struct record {
    uint64_t offset;
    uint64_t timestamp_us;
    struct slice payload;
};

/* In the order in which they are looked for. */
enum record_fault {
    RECORD_OK,
    RECORD_TRUNCATED_HEADER, /* fewer than 28 bytes are left */
    RECORD_BAD_HEADER,       /* the header's checksum is wrong: nothing in it may be used */
    RECORD_TOO_LARGE,        /* verified length above the limit */
    RECORD_TRUNCATED,        /* verified length, but the bytes end before the payload does */
    RECORD_BAD_CHECKSUM,
    RECORD_OUT_OF_ORDER, /* found by scans: not the offset that was expected */
};

/** Static name of a fault, as the tools print it ("header_checksum"). */
const char *record_fault_name(enum record_fault fault);

/** Write the header of a record. `payload.len` is at most RECORD_PAYLOAD_BYTES_MAX. Pure. */
void record_header_encode(uint64_t offset, uint64_t timestamp_us, struct slice payload,
                          uint8_t out[RECORD_HEADER_BYTES]);

/** Decode the record at the start of `bytes`; *ret_bytes (header and payload) and *ret are set on
 * RECORD_OK, *ret_bytes also on RECORD_TRUNCATED (what it would take). Borrows. Pure. */
enum record_fault record_decode(struct slice bytes, struct record *ret, size_t *ret_bytes);

/** Only the header of a record, checksum and limit verified; the payload's length is the return.
 * *ret has no payload. Pure. */
enum record_fault record_header_decode(struct slice bytes, struct record *ret,
                                       uint32_t *ret_payload_bytes);

#endif
