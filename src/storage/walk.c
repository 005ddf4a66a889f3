#include "storage/walk.h"

#include <errno.h>
#include <stdlib.h>

#define WINDOW_BYTES ((size_t)64 << 10)

int walk_begin(struct log_walk *walk, const struct disk *disk, int file, uint64_t position,
               uint64_t offset, const struct walk_proven *proven) {
    uint64_t file_bytes;
    int err = disk->ops->size(disk->context, file, &file_bytes);
    if (err != 0)
        return err;
    walk->window = NULL;
    walk->proven = proven != NULL ? *proven : (struct walk_proven){.position = 0};
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
    uint64_t end;              /* no candidate is at or behind it */
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
    for (size_t i = 0; i < bytes && start + i < search->end; i++) {
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
    /* Trying a candidate changes the scan, also its end when the file was cut. */
    const struct disk *disk = walk->scan.disk;
    int file = walk->scan.file;
    if (walk->window == NULL)
        walk->window = malloc(WINDOW_BYTES);
    if (walk->window == NULL)
        return -ENOMEM;
    search->at = search->position;
    while (!search->found && search->at < search->end) {
        uint64_t start = search->at;
        uint64_t left = search->end + RECORD_HEADER_BYTES - start;
        size_t wanted = left < WINDOW_BYTES ? (size_t)left : WINDOW_BYTES;
        ssize_t got = disk_read_all(disk, file, walk->window, wanted, start);
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

/* The record whose length is known although it is bad may lead to the next one. */
static int try_behind(struct log_walk *walk, struct search *search, uint64_t record_bytes) {
    uint8_t bytes[RECORD_HEADER_BYTES];
    struct record header;
    uint32_t payload_bytes;
    search->at = search->position + record_bytes;
    if (search->at >= search->end)
        return 0;
    ssize_t got = disk_read_all(walk->scan.disk, walk->scan.file, bytes, sizeof bytes, search->at);
    if (got < 0)
        return (int)got;
    if (record_header_decode(slice_of(bytes, (size_t)got), &header, &payload_bytes) != RECORD_OK)
        return 0;
    return try_candidate(walk, search, &header);
}

/* What stands behind the fault in `result`? Fills *ret, and sets the scan there. */
static int go_on(struct log_walk *walk, uint64_t offset, const struct scan_result *result,
                 struct walk_item *ret) {
    uint64_t end = walk->scan.end;
    const struct walk_proven *proven = &walk->proven;
    bool to_proven = result->position < proven->position && proven->position <= end;
    struct search search = {
        .position = result->position,
        .offset = offset,
        .end = to_proven ? proven->position : end,
        .zeros = true,
    };
    int err = 0;
    if (result->fault == RECORD_BAD_CHECKSUM || result->fault == RECORD_OUT_OF_ORDER)
        err = try_behind(walk, &search, result->record_bytes);
    if (err == 0 && !search.found)
        err = search_bytes(walk, &search);
    if (err != 0)
        return err;
    if (!search.found) {
        search.at = search.end;
        search.found_offset = to_proven ? proven->offset : offset;
    }
    bool more = search.found || to_proven;
    ret->found = more ? WALK_DAMAGE : WALK_TAIL;
    ret->bytes = search.at - result->position;
    ret->zeros = !more && search.zeros;
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
