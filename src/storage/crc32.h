/* CRC-32 as zlib has it (IEEE 802.3), which every file of the log uses. Pure, any thread. */
#ifndef STORAGE_CRC32_H
#define STORAGE_CRC32_H

#include <stddef.h>
#include <stdint.h>

/** The checksum of what `crc` covers, followed by `bytes` more; `crc` 0 covers nothing. */
uint32_t crc32_update(uint32_t crc, const void *data, size_t bytes);

#endif
