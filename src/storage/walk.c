#include "storage/walk.h"

#include <errno.h>
#include <stdlib.h>

#define WINDOW_BYTES ((size_t)64 << 10)

int walk_begin(struct log_walk *walk, const struct disk *disk, int file, uint64_t position,
               uint64_t offset) {
    uint64_t file_bytes;
    int err = disk->ops->size(disk->context, file, &file_bytes);
    if (err != 0)
        return err;
    walk->window = NULL;
    return segment_scan_init(&walk->scan, disk, file, position, file_bytes, offset) ? 0 : -ENOMEM;
}

void walk_deinit(struct log_walk *walk) {
    segment_scan_deinit(&walk->scan);
    free(walk->window);
    walk->window = NULL;
}

/* A fault that a search goes on from. */
struct search {
    uint64_t position, offset; /* of the fault */
    uint64_t at;               /* the candidate */
    uint64_t found_offset;
    bool found;
    bool zeros; /* so far */
};

/* Is there a good record at search->at? Its header says it is `header`. */
static int try_candidate(struct log_walk *walk, struct search *search,
                         const struct record *header) {
    uint64_t lost_max = (search->at - search->position) / RECORD_HEADER_BYTES;
    if (header->offset < search->offset || header->offset - search->offset > lost_max)
        return 0;
    segment_scan_jump(&walk->scan, search->at, header->offset);
    struct scan_result result = segment_scan_next(&walk->scan);
    search->found = result.step == SCAN_RECORD;
    search->found_offset = header->offset;
    return result.step == SCAN_ERROR ? result.error : 0;
}

/* Tries each place in the window, which holds `bytes` of the file from search->at on. */
static int search_window(struct log_walk *walk, struct search *search, size_t bytes) {
    uint64_t start = search->at;
    for (size_t i = 0; i < bytes; i++) {
        search->zeros = search->zeros && walk->window[i] == 0;
        struct record header;
        uint32_t payload_bytes;
        search->at = start + i;
        /* The first byte of a length of up to 64 MiB is at most 4. */
        if (walk->window[i] > RECORD_PAYLOAD_BYTES_MAX >> 24 || search->at == search->position ||
            record_header_decode(slice_of(walk->window + i, bytes - i), &header, &payload_bytes) !=
                RECORD_OK)
            continue;
        int err = try_candidate(walk, search, &header);
        if (err != 0 || search->found)
            return err;
    }
    return 0;
}

/* Looks at every byte behind the fault. */
static int search_bytes(struct log_walk *walk, struct search *search) {
    const struct segment_scan *scan = &walk->scan;
    if (walk->window == NULL)
        walk->window = malloc(WINDOW_BYTES);
    if (walk->window == NULL)
        return -ENOMEM;
    search->at = search->position;
    while (!search->found && search->at < scan->end) {
        uint64_t start = search->at;
        ssize_t got = disk_read_all(scan->disk, scan->file, walk->window, WINDOW_BYTES, start);
        if (got <= 0)
            return (int)got;
        int err = search_window(walk, search, (size_t)got);
        if (err != 0 || search->found)
            return err;
        /* A header may lie across the edge. */
        bool last = (size_t)got < WINDOW_BYTES;
        search->at = start + (uint64_t)got - (last ? 0 : RECORD_HEADER_BYTES - 1);
    }
    return 0;
}

/* What stands behind the fault in `result`? Fills *ret, and sets the scan there. */
static int go_on(struct log_walk *walk, uint64_t offset, const struct scan_result *result,
                 struct walk_item *ret) {
    struct search search = {.position = result->position, .offset = offset, .zeros = true};
    uint64_t end = walk->scan.end;
    int err = 0;
    bool whole = result->fault == RECORD_BAD_CHECKSUM || result->fault == RECORD_OUT_OF_ORDER;
    uint8_t header_bytes[RECORD_HEADER_BYTES];
    struct record header;
    uint32_t payload_bytes;
    if (whole && result->record_bytes != 0) {
        search.at = result->position + result->record_bytes;
        ssize_t got = disk_read_all(walk->scan.disk, walk->scan.file, header_bytes,
                                    sizeof header_bytes, search.at);
        if (got < 0)
            return (int)got;
        if (record_header_decode(slice_of(header_bytes, (size_t)got), &header, &payload_bytes) ==
            RECORD_OK)
            err = try_candidate(walk, &search, &header);
    }
    if (err == 0 && !search.found)
        err = search_bytes(walk, &search);
    if (err != 0)
        return err;
    if (!search.found) {
        search.at = end;
        search.found_offset = offset;
    }
    ret->found = search.found ? WALK_DAMAGE : WALK_TAIL;
    ret->bytes = search.at - result->position;
    ret->zeros = !search.found && search.zeros;
    ret->first = offset;
    ret->end = search.found_offset;
    segment_scan_jump(&walk->scan, search.at, search.found_offset);
    return 0;
}

int walk_next(struct log_walk *walk, struct walk_item *ret) {
    uint64_t offset = walk->scan.offset;
    struct scan_result result = segment_scan_next(&walk->scan);
    *ret = (struct walk_item){.position = result.position, .fault = result.fault};
    switch (result.step) {
    case SCAN_RECORD:
        ret->found = WALK_RECORD;
        ret->record = result.record;
        ret->bytes = walk->scan.position - result.position;
        return 0;
    case SCAN_END:
        ret->found = WALK_END;
        return 0;
    case SCAN_FAULT:
        return go_on(walk, offset, &result, ret);
    case SCAN_ERROR:
        break;
    }
    return result.error;
}
