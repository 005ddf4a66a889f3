#include "storage/segment.h"

#include "base/cursor.h"
#include "storage/crc32.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define MAGIC 0x464c5347u /* "FLSG" */
#define VERSION 2u
#define NAME_DIGITS 20u

enum { VERSION_AT = 4, FLAGS_AT = 6, BASE_AT = 8, CREATED_AT = 16, CRC_AT = 24 };

const char *segment_header_fault_text(enum segment_header_fault fault) {
    switch (fault) {
    case SEGMENT_HEADER_OK:
        return "ok";
    case SEGMENT_HEADER_SHORT:
        return "segment header is incomplete";
    case SEGMENT_HEADER_MAGIC:
        return "segment header: wrong magic";
    case SEGMENT_HEADER_VERSION:
        return "segment header: unknown version";
    case SEGMENT_HEADER_FLAGS:
        return "segment header: unknown flags";
    case SEGMENT_HEADER_CHECKSUM:
        return "segment header: wrong checksum";
    }
    return "segment header";
}

void segment_header_encode(const struct segment_header *header, uint8_t out[SEGMENT_HEADER_BYTES]) {
    memset(out, 0, SEGMENT_HEADER_BYTES);
    be32_store(out, MAGIC);
    be16_store(out + VERSION_AT, VERSION);
    be64_store(out + BASE_AT, header->base_offset);
    be64_store(out + CREATED_AT, header->created_us);
    be32_store(out + CRC_AT, crc32_update(0, out, CRC_AT));
}

enum segment_header_fault segment_header_decode(struct slice bytes, struct segment_header *ret) {
    const uint8_t *at = bytes.data;
    if (bytes.len < SEGMENT_HEADER_BYTES)
        return SEGMENT_HEADER_SHORT;
    if (be32_load(at) != MAGIC)
        return SEGMENT_HEADER_MAGIC;
    if (be16_load(at + VERSION_AT) != VERSION)
        return SEGMENT_HEADER_VERSION;
    if (be16_load(at + FLAGS_AT) != 0)
        return SEGMENT_HEADER_FLAGS;
    if (crc32_update(0, at, CRC_AT) != be32_load(at + CRC_AT))
        return SEGMENT_HEADER_CHECKSUM;
    ret->base_offset = be64_load(at + BASE_AT);
    ret->created_us = be64_load(at + CREATED_AT);
    return SEGMENT_HEADER_OK;
}

bool segment_header_is_foreign(struct slice bytes) {
    const uint8_t *at = bytes.data;
    return bytes.len >= SEGMENT_HEADER_BYTES && be32_load(at) == MAGIC &&
           (be16_load(at + VERSION_AT) != VERSION || be16_load(at + FLAGS_AT) != 0) &&
           crc32_update(0, at, CRC_AT) == be32_load(at + CRC_AT);
}

bool segment_path(const char *dir, uint64_t id, const char *suffix, char out[PATH_MAX]) {
    int bytes = snprintf(out, PATH_MAX, "%s/%020" PRIu64 ".%s", dir, id, suffix);
    return bytes > 0 && bytes < PATH_MAX;
}

bool segment_name_parse(const char *name, const char *suffix, uint64_t *ret_id) {
    uint64_t id = 0;
    for (unsigned i = 0; i < NAME_DIGITS; i++) {
        if (name[i] < '0' || name[i] > '9')
            return false;
        if (__builtin_mul_overflow(id, 10u, &id) ||
            __builtin_add_overflow(id, (uint64_t)(name[i] - '0'), &id))
            return false;
    }
    if (name[NAME_DIGITS] != '.' || strcmp(name + NAME_DIGITS + 1, suffix) != 0)
        return false;
    *ret_id = id;
    return true;
}

struct segment *segment_new(uint64_t id, uint64_t base, uint32_t index_spacing_bytes) {
    struct segment *segment = calloc(1, sizeof *segment);
    if (segment == NULL)
        return NULL;
    segment->id = id;
    segment->base = base;
    segment->end = base;
    segment->bytes = SEGMENT_HEADER_BYTES;
    segment->file = -1;
    log_index_init(&segment->index, base, index_spacing_bytes);
    return segment;
}

void segment_free(struct segment *segment, const struct disk *disk) {
    if (segment == NULL)
        return;
    if (segment->file >= 0)
        (void)disk->ops->close(disk->context, segment->file);
    log_index_deinit(&segment->index);
    free(segment);
}
