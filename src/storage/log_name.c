/* Names of log directories. Source: broker specification 6.1. */
#include "storage/record_log.h"

#include "base/cursor.h"

#include <inttypes.h>
#include <stdio.h>

#define PART_CHARACTERS_MAX 32u
#define FNV_BASIS 0xcbf29ce484222325u
#define FNV_PRIME 0x100000001b3u

static uint64_t hash_bytes(uint64_t hash, const uint8_t *bytes, size_t count) {
    for (size_t i = 0; i < count; i++)
        hash = (hash ^ bytes[i]) * FNV_PRIME;
    return hash;
}

static uint64_t hash_name(uint64_t hash, struct slice name) {
    uint8_t length[8];
    be64_store(length, name.len);
    hash = hash_bytes(hash, length, sizeof length);
    return hash_bytes(hash, name.data, name.len);
}

static bool is_plain(uint8_t c) {
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
}

/* The first characters of `name` and an underscore; returns behind it. A character that takes
 * several bytes is one underscore: its further bytes are skipped. */
static char *put_readable(char *out, struct slice name) {
    unsigned characters = 0;
    for (size_t i = 0; i < name.len; i++) {
        uint8_t c = name.data[i];
        if ((c & 0xc0) == 0x80)
            continue;
        if (characters++ == PART_CHARACTERS_MAX)
            break;
        *out++ = is_plain(c) ? (char)c : '_';
    }
    if (characters == 0)
        *out++ = '_';
    *out++ = '_';
    return out;
}

void record_log_dir_name(struct slice tenant, struct slice namespace_, struct slice stream,
                         uint32_t shard, char out[LOG_DIR_NAME_BYTES]) {
    uint8_t shard_bytes[4];
    be32_store(shard_bytes, shard);
    uint64_t hash = hash_name(hash_name(hash_name(FNV_BASIS, tenant), namespace_), stream);
    hash = hash_bytes(hash, shard_bytes, sizeof shard_bytes);

    char *at = put_readable(put_readable(put_readable(out, tenant), namespace_), stream);
    size_t left = LOG_DIR_NAME_BYTES - (size_t)(at - out);
    (void)snprintf(at, left, "%" PRIu32 "-%016" PRIx64, shard, hash);
}
