/*
 * The records of one segment file, one after the other, for tools: whatever is in the file, it
 * goes on. Only reads, believes no index, and makes no difference between sealed and newest; what
 * a finding means (rot, an unfinished write) is survey.h's. Belongs to one thread.
 *
 * Behind damage it looks for the next record: by the length of the damaged one where its header
 * is good, else at every byte. A candidate must verify completely, and its offset must be one that
 * the bytes in between can have led to (28 of them for each record), so that records which happen
 * to be somebody's payload are not mistaken for the log's.
 */
#ifndef STORAGE_WALK_H
#define STORAGE_WALK_H

#include "storage/segment_scan.h"

/* A place where a record begins, or the records end, whatever is around it: a checkpoint. No search
 * goes beyond it. */
struct walk_proven {
    uint64_t position, offset;
};

struct log_walk {
    struct segment_scan scan;
    struct walk_proven proven; /* position 0: none */
    uint8_t *window;           /* for the search; made when there is one */
};

enum walk_found {
    WALK_RECORD,
    WALK_DAMAGE, /* behind it comes a record again, or a proven place */
    WALK_TAIL,   /* bytes to the end of the file among which is no record */
    WALK_END,    /* the file ends behind the last record */
};

struct walk_item {
    enum walk_found found;
    struct record record;    /* WALK_RECORD; its payload is borrowed until the next call */
    uint64_t position;       /* where it begins */
    uint64_t bytes;          /* to where the walk goes on */
    enum record_fault fault; /* WALK_DAMAGE, WALK_TAIL: of what begins at `position` */
    uint64_t first, end;     /* WALK_DAMAGE: the offsets that are lost */
    bool zeros;              /* WALK_TAIL: nothing but zero bytes */
};

/** Begin at `position`, where the record `offset` is expected. `proven` may be NULL; `file` is
 * borrowed until deinit. 0 or negative errno; then there is nothing to deinit. */
int walk_begin(struct log_walk *walk, const struct disk *disk, int file, uint64_t position,
               uint64_t offset, const struct walk_proven *proven);

/** The next thing. 0 or negative errno. After WALK_TAIL and WALK_END there is nothing more. */
int walk_next(struct log_walk *walk, struct walk_item *ret);

void walk_deinit(struct log_walk *walk);

#endif
