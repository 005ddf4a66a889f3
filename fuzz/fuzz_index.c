/*
 * Bytes as the index file of a segment, of the base that they name, or of base 0. Whatever is odd
 * is no index; what is one ascends, stays inside the segment, leads every search to a place where
 * a record may begin, and comes back when it is saved. The same with count and checksum put right:
 * the two kinds of file are then one and the same index.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/cursor.h"
#include "storage/crc32.h"
#include "storage/index.h"
#include "storage/record.h"
#include "support/memory_disk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define HEADER_BYTES 24u
#define ENTRY_BYTES 16u

static struct memory_disk memory;
static struct disk disk;

static bool load(const uint8_t *data, size_t size, uint64_t base, uint64_t segment_bytes,
                 struct log_index *ret) {
    memory_disk_reset(&memory);
    (void)memory_disk_add_file(&memory, "i", slice_of(data, size), size);
    log_index_init(ret, base, 4096);
    bool usable = log_index_load(ret, &disk, "i", segment_bytes);
    INVARIANT(memory_disk_open_handles(&memory) == 0);
    INVARIANT(usable || ret->count == 0);
    return usable;
}

static void check_seek(const struct log_index *index, uint64_t offset) {
    struct log_index_entry found = log_index_seek(index, offset);
    INVARIANT(found.position >= 32);
    INVARIANT(found.offset <= offset || found.position == 32);
}

static void check_entries(const struct log_index *index, uint64_t segment_bytes) {
    for (uint32_t i = 0; i < index->count; i++) {
        struct log_index_entry entry = index->entries[i];
        INVARIANT(entry.offset >= index->base_offset && entry.position >= 32);
        INVARIANT(entry.position <= segment_bytes - RECORD_HEADER_BYTES);
        if (i > 0)
            INVARIANT(entry.offset > index->entries[i - 1].offset &&
                      entry.position > index->entries[i - 1].position);
        check_seek(index, entry.offset);
        check_seek(index, entry.offset + 1);
        INVARIANT(log_index_seek(index, entry.offset).position == entry.position);
    }
    check_seek(index, 0);
    check_seek(index, UINT64_MAX);
}

static void assert_same(const struct log_index *a, const struct log_index *b) {
    INVARIANT(a->count == b->count);
    INVARIANT(a->count == 0 ||
              memcmp(a->entries, b->entries, a->count * sizeof a->entries[0]) == 0);
}

static void check_saved(const struct log_index *index, uint64_t segment_bytes) {
    INVARIANT(log_index_save(index, &disk, "i") == 0);
    struct log_index again;
    log_index_init(&again, index->base_offset, 4096);
    INVARIANT(log_index_load(&again, &disk, "i", segment_bytes));
    assert_same(index, &again);
    log_index_deinit(&again);
}

/* The same entries as a file of ours. */
static void check_sealed(const struct log_index *index, const uint8_t *data, size_t size,
                         uint64_t segment_bytes) {
    size_t entries = (size - HEADER_BYTES) / ENTRY_BYTES;
    size_t bytes = HEADER_BYTES + entries * ENTRY_BYTES;
    uint8_t *sealed = xmalloc(bytes);
    memcpy(sealed, data, bytes);
    be32_store(sealed + 16, (uint32_t)entries);
    uint32_t crc = crc32_update(0, sealed, 20);
    be32_store(sealed + 20, crc32_update(crc, sealed + HEADER_BYTES, bytes - HEADER_BYTES));
    struct log_index again;
    INVARIANT(load(sealed, bytes, index->base_offset, segment_bytes, &again));
    assert_same(index, &again);
    log_index_deinit(&again);
    free(sealed);
}

static void check(const uint8_t *data, size_t size, uint64_t base, uint64_t segment_bytes) {
    struct log_index index;
    if (load(data, size, base, segment_bytes, &index)) {
        check_entries(&index, segment_bytes);
        check_saved(&index, segment_bytes);
        check_sealed(&index, data, size, segment_bytes);
    }
    log_index_deinit(&index);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (disk.ops == NULL) {
        memory_disk_init(&memory);
        disk = memory_disk_table(&memory);
    }
    uint64_t base = size >= HEADER_BYTES ? be64_load(data + 8) : 0;
    check(data, size, 0, UINT64_MAX);
    check(data, size, base, UINT64_MAX);
    check(data, size, base, 4096);
    return 0;
}
