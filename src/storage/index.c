#include "storage/index.h"

#include "base/cursor.h"
#include "storage/crc32.h"
#include "storage/record.h"

#include <errno.h>
#include <stdlib.h>

#define MAGIC 0x464c5349u /* "FLSI" */
#define VERSION 2u
#define HEADER_BYTES 24u
#define ENTRY_BYTES 16u
#define SEGMENT_HEADER_BYTES 32u

enum { VERSION_AT = 4, BASE_AT = 8, COUNT_AT = 16, CRC_AT = 20 };

/* Entries that are read at once. */
#define CHUNK_ENTRIES 256u

void log_index_init(struct log_index *index, uint64_t base_offset, uint32_t spacing_bytes) {
    *index = (struct log_index){.base_offset = base_offset, .spacing_bytes = spacing_bytes};
}

void log_index_deinit(struct log_index *index) {
    free(index->entries);
    *index = (struct log_index){0};
}

static bool grow(struct log_index *index) {
    uint32_t capacity = index->capacity != 0 ? index->capacity * 2 : 64;
    struct log_index_entry *entries =
        realloc(index->entries, (size_t)capacity * sizeof index->entries[0]);
    if (entries == NULL)
        return false;
    index->entries = entries;
    index->capacity = capacity;
    return true;
}

/* The new spacing is what the entries have now: records may be larger than the one that was set. */
static void thin_out(struct log_index *index) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < index->count; i += 2)
        index->entries[kept++] = index->entries[i];
    index->count = kept;
    uint64_t span = index->entries[kept - 1].position - index->entries[0].position;
    index->spacing_bytes = span / (kept - 1);
}

/* False: no memory. */
static bool add(struct log_index *index, struct log_index_entry entry) {
    if (index->count == LOG_INDEX_ENTRIES_MAX)
        thin_out(index);
    if (index->count == index->capacity && !grow(index))
        return false;
    index->entries[index->count++] = entry;
    return true;
}

void log_index_note(struct log_index *index, uint64_t offset, uint64_t position, uint64_t bytes) {
    if (index->count == 0 || index->since_bytes >= index->spacing_bytes) {
        if (add(index, (struct log_index_entry){.offset = offset, .position = position}))
            index->since_bytes = 0;
    }
    index->since_bytes += bytes;
}

/* How many entries lie at or below `offset`. */
static uint32_t rank(const struct log_index *index, uint64_t offset) {
    uint32_t low = 0, high = index->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (index->entries[middle].offset <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void log_index_cut(struct log_index *index, uint64_t offset) {
    index->count = offset != 0 ? rank(index, offset - 1) : 0;
    index->since_bytes = 0;
}

void log_index_clear(struct log_index *index) {
    index->count = 0;
    index->since_bytes = 0;
}

struct log_index_entry log_index_seek(const struct log_index *index, uint64_t offset) {
    uint32_t at = rank(index, offset);
    if (at != 0)
        return index->entries[at - 1];
    return (struct log_index_entry){.offset = index->base_offset, .position = SEGMENT_HEADER_BYTES};
}

int log_index_save(const struct log_index *index, const struct disk *disk, const char *path) {
    size_t bytes = HEADER_BYTES + (size_t)index->count * ENTRY_BYTES;
    uint8_t *file = calloc(1, bytes);
    if (file == NULL)
        return -ENOMEM;
    be32_store(file, MAGIC);
    be16_store(file + VERSION_AT, VERSION);
    be64_store(file + BASE_AT, index->base_offset);
    be32_store(file + COUNT_AT, index->count);
    for (uint32_t i = 0; i < index->count; i++) {
        uint8_t *entry = file + HEADER_BYTES + (size_t)i * ENTRY_BYTES;
        be64_store(entry, index->entries[i].offset);
        be64_store(entry + 8, index->entries[i].position);
    }
    uint32_t crc = crc32_update(0, file, CRC_AT);
    crc = crc32_update(crc, file + HEADER_BYTES, bytes - HEADER_BYTES);
    be32_store(file + CRC_AT, crc);
    int err = disk_put_file(disk, path, file, bytes);
    free(file);
    return err;
}

/* An index file that is being read. */
struct loading {
    const struct disk *disk;
    int file;
    uint64_t segment_bytes;
    uint64_t entries;
    bool sealed; /* with count and checksum: one of ours */
    uint32_t crc, crc_wanted;
    struct log_index_entry last; /* the first record before there is an entry */
};

static bool load_header(const struct log_index *index, struct loading *in) {
    uint8_t header[HEADER_BYTES];
    uint64_t file_bytes;
    if (in->disk->ops->size(in->disk->context, in->file, &file_bytes) != 0)
        return false;
    if (file_bytes < HEADER_BYTES ||
        disk_read_all(in->disk, in->file, header, sizeof header, 0) != HEADER_BYTES)
        return false;
    if (be32_load(header) != MAGIC || be16_load(header + VERSION_AT) != VERSION ||
        be64_load(header + BASE_AT) != index->base_offset)
        return false;
    in->entries = (file_bytes - HEADER_BYTES) / ENTRY_BYTES;
    in->sealed = be64_load(header + COUNT_AT) != 0;
    in->crc = crc32_update(0, header, CRC_AT);
    in->crc_wanted = be32_load(header + CRC_AT);
    if (in->sealed && (in->entries != be32_load(header + COUNT_AT) ||
                       file_bytes != HEADER_BYTES + in->entries * ENTRY_BYTES))
        return false;
    in->last = log_index_seek(index, index->base_offset);
    return true;
}

/* Records between two entries take at least their headers: that also bounds how many entries a
 * file can have. The first record alone is allowed twice, as what `last` starts with. */
static bool follows(const struct loading *in, struct log_index_entry entry, bool first) {
    if (entry.offset < in->last.offset || entry.position < in->last.position)
        return false;
    uint64_t records = entry.offset - in->last.offset;
    uint64_t bytes = entry.position - in->last.position;
    if (records == 0)
        return first && bytes == 0;
    return records <= bytes / RECORD_HEADER_BYTES;
}

static bool load_entries(struct log_index *index, struct loading *in) {
    uint8_t chunk[CHUNK_ENTRIES * ENTRY_BYTES];
    uint64_t every = 1 + in->entries / LOG_INDEX_ENTRIES_MAX;
    for (uint64_t i = 0; i < in->entries; i++) {
        size_t slot = (size_t)(i % CHUNK_ENTRIES);
        if (slot == 0) {
            uint64_t left = (in->entries - i) * ENTRY_BYTES;
            size_t want = left < sizeof chunk ? (size_t)left : sizeof chunk;
            uint64_t at = HEADER_BYTES + i * ENTRY_BYTES;
            if (disk_read_all(in->disk, in->file, chunk, want, at) != (ssize_t)want)
                return false;
            in->crc = crc32_update(in->crc, chunk, want);
        }
        struct log_index_entry entry = {
            .offset = be64_load(chunk + slot * ENTRY_BYTES),
            .position = be64_load(chunk + slot * ENTRY_BYTES + 8),
        };
        if (!follows(in, entry, i == 0) || entry.position >= in->segment_bytes ||
            in->segment_bytes - entry.position < RECORD_HEADER_BYTES)
            return false;
        in->last = entry;
        if (i % every == 0 && !add(index, entry))
            return false;
    }
    return !in->sealed || in->crc == in->crc_wanted;
}

bool log_index_load(struct log_index *index, const struct disk *disk, const char *path,
                    uint64_t segment_bytes) {
    struct loading in = {.disk = disk, .segment_bytes = segment_bytes};
    in.file = disk->ops->open(disk->context, path, DISK_READ);
    if (in.file < 0)
        return false;
    bool usable = load_header(index, &in) && load_entries(index, &in);
    (void)disk->ops->close(disk->context, in.file);
    if (!usable)
        log_index_clear(index);
    return usable;
}
