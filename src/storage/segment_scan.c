#include "storage/segment_scan.h"

#include "base/cursor.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_BYTES ((size_t)256 << 10)

/* What is read at once of [position, end): of a small file no more than there is. */
static size_t piece_bytes(uint64_t position, uint64_t end) {
    if (end <= position)
        return 1;
    return end - position < CHUNK_BYTES ? (size_t)(end - position) : CHUNK_BYTES;
}

bool segment_scan_init(struct segment_scan *scan, const struct disk *disk, int file,
                       uint64_t position, uint64_t end, uint64_t offset) {
    size_t capacity = piece_bytes(position, end);
    *scan = (struct segment_scan){
        .disk = disk,
        .file = file,
        .position = position,
        .end = end,
        .offset = offset,
        .capacity = capacity,
        .bytes = malloc(capacity),
    };
    return scan->bytes != NULL;
}

void segment_scan_deinit(struct segment_scan *scan) {
    free(scan->bytes);
    scan->bytes = NULL;
}

void segment_scan_jump(struct segment_scan *scan, uint64_t position, uint64_t offset) {
    scan->position = position;
    scan->offset = offset;
    scan->from = scan->to = 0;
}

/* Have `want` bytes of the file at `position`, or all up to the end. 0 or negative errno. */
static int fill(struct segment_scan *scan, size_t want) {
    size_t have = scan->to - scan->from;
    uint64_t left = scan->end - scan->position;
    if (want > left)
        want = (size_t)left;
    if (have >= want)
        return 0;
    if (want > scan->capacity) {
        uint8_t *bytes = malloc(want);
        if (bytes == NULL)
            return -ENOMEM;
        memcpy(bytes, scan->bytes + scan->from, have);
        free(scan->bytes);
        scan->bytes = bytes;
        scan->capacity = want;
    } else {
        memmove(scan->bytes, scan->bytes + scan->from, have);
    }
    scan->from = 0;
    scan->to = have;
    size_t room = scan->capacity - have;
    if (room > left - have)
        room = (size_t)(left - have);
    ssize_t got =
        disk_read_all(scan->disk, scan->file, scan->bytes + have, room, scan->position + have);
    if (got < 0)
        return (int)got;
    scan->to += (size_t)got;
    /* Somebody cut the file under us: the end is where it is now. */
    if ((size_t)got < room)
        scan->end = scan->position + scan->to;
    return 0;
}

static struct slice at_hand(const struct segment_scan *scan) {
    return (struct slice){.data = scan->bytes + scan->from, .len = scan->to - scan->from};
}

struct scan_result segment_scan_next(struct segment_scan *scan) {
    struct scan_result result = {.step = SCAN_END, .position = scan->position};
    if (scan->position >= scan->end)
        return result;
    result.error = fill(scan, RECORD_HEADER_BYTES);
    uint32_t payload_bytes = 0;
    if (result.error == 0)
        result.fault = record_header_decode(at_hand(scan), &result.record, &payload_bytes);
    if (result.error == 0 && result.fault == RECORD_TOO_LARGE)
        result.record_bytes = RECORD_HEADER_BYTES + (uint64_t)be32_load(at_hand(scan).data);
    if (result.error == 0 && result.fault == RECORD_OK) {
        result.record_bytes = RECORD_HEADER_BYTES + payload_bytes;
        result.error = fill(scan, RECORD_HEADER_BYTES + payload_bytes);
    }
    if (result.error != 0) {
        result.step = SCAN_ERROR;
        return result;
    }
    size_t total;
    if (result.fault == RECORD_OK)
        result.fault = record_decode(at_hand(scan), &result.record, &total);
    if (result.fault == RECORD_OK && result.record.offset != scan->offset)
        result.fault = RECORD_OUT_OF_ORDER;
    if (result.fault != RECORD_OK) {
        result.step = SCAN_FAULT;
        return result;
    }
    result.step = SCAN_RECORD;
    scan->position += total;
    scan->offset++;
    scan->from += total;
    return result;
}

/* `bytes` without the zeros at the end. What was set ahead is all zeros, a page at a time. */
static size_t without_zeros(const uint8_t *data, size_t bytes) {
    static const uint8_t zeros[4096];
    while (bytes >= sizeof zeros && memcmp(data + bytes - sizeof zeros, zeros, sizeof zeros) == 0)
        bytes -= sizeof zeros;
    while (bytes > 0 && data[bytes - 1] == 0)
        bytes--;
    return bytes;
}

int segment_nonzero_end(const struct disk *disk, int file, uint64_t from, uint64_t end,
                        uint64_t *ret) {
    uint8_t *bytes = malloc(piece_bytes(from, end));
    if (bytes == NULL)
        return -ENOMEM;
    *ret = from;
    int err = 0;
    for (uint64_t at = from; at < end;) {
        size_t want = end - at < CHUNK_BYTES ? (size_t)(end - at) : CHUNK_BYTES;
        ssize_t got = disk_read_all(disk, file, bytes, want, at);
        if (got <= 0) {
            err = (int)got;
            break;
        }
        size_t used = without_zeros(bytes, (size_t)got);
        if (used > 0)
            *ret = at + used;
        at += (uint64_t)got;
    }
    free(bytes);
    return err;
}
