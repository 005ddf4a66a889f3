/*
 * What is safe and what is in doubt while a trace of crash_disk.h goes by: per file the sectors,
 * each with what is safe and the writes on top of it in their order, and the lengths since the
 * last sync; for the whole disk the names that are safe and the operations on top of them.
 * The part of crash_states.h that reads the trace.
 */
#ifndef SUPPORT_CRASH_FOLLOW_H
#define SUPPORT_CRASH_FOLLOW_H

#include "support/crash_disk.h"

#define CRASH_SECTOR_BYTES 512u

enum certainty { IN_DOUBT, LOST, SAFE };

/* The part of a write that falls into one sector. */
struct piece {
    size_t event;
    const uint8_t *data; /* NULL: zeros */
    uint16_t from, bytes;
    enum certainty certainty;
};

struct sector {
    uint8_t safe[CRASH_SECTOR_BYTES];
    struct piece *pieces;
    size_t count, capacity;
};

struct length {
    uint64_t bytes;
    size_t event;
    bool written; /* grown by a write, which may be torn */
};

struct followed {
    struct sector *sectors;
    size_t sector_count;
    struct length *lengths; /* the first is safe */
    size_t length_count;
    size_t length_capacity;
};

struct name_change {
    const struct crash_event *event;
    bool safe;
};

struct names {
    struct memory_name *list;
    size_t count, capacity;
};

struct crash_follow {
    const struct crash_disk *trace;
    size_t position;
    struct followed *files; /* by their number */
    size_t file_count;
    struct names names; /* safe */
    struct name_change *changes;
    size_t change_count;
};

/** Start before the first event. Borrows the trace until crash_follow_deinit. */
void crash_follow_init(struct crash_follow *follow, const struct crash_disk *trace);
void crash_follow_deinit(struct crash_follow *follow);

/** Take the next event; NULL: there is none. */
const struct crash_event *crash_follow_step(struct crash_follow *follow);

/** The newest length of a file. */
uint64_t followed_length(const struct followed *file);

/** Lay a piece over the content of its sector. */
void piece_apply(uint8_t content[CRASH_SECTOR_BYTES], const struct piece *piece);

/** Replace `to` by a copy. */
void names_copy(struct names *to, const struct names *from);
/** Do what a change of names does, as far as it can be done. */
void names_apply(struct names *names, const struct crash_event *event);

#endif
