/*
 * Payloads that tell which record they belong to: what the log tools write and check. Pure.
 * Source: broker specification 7, at its end.
 *
 *   "felix-record-", the offset in 20 digits, "-", then at index i the byte
 *   (offset mod 251 + i) mod 256
 */
#ifndef STORAGE_GENERATED_H
#define STORAGE_GENERATED_H

#include "base/slice.h"

#define GENERATED_BYTES_MIN 34u

/** Bytes of a payload when `wanted` are asked for: there is a smallest one. */
static inline size_t generated_bytes(size_t wanted) {
    return wanted < GENERATED_BYTES_MIN ? GENERATED_BYTES_MIN : wanted;
}

/** Write the payload of record `offset` to `out`, which has generated_bytes(wanted) bytes. */
void generated_fill(uint64_t offset, size_t wanted, uint8_t *out);

/** Is this the payload of record `offset`, of generated_bytes(wanted) bytes? */
bool generated_is(uint64_t offset, size_t wanted, struct slice payload);

#endif
