/*
 * A look at the directory of a log without opening it: which files there are, which records are in
 * them, what is damaged and what opening would make of it. Reads only, every record of every
 * segment, and goes on whatever it finds. It shares the decoders of the log and none of its
 * decisions, so it is a second opinion for tests too. The log may be in use meanwhile: what is
 * appended behind the end that it finds does not count, and segments that retention removes are
 * left out.
 *
 * Rot and unfinished writes are told apart as record_log.h says: below the checkpoint everything
 * was on disk once. Belongs to one thread.
 */
#ifndef STORAGE_SURVEY_H
#define STORAGE_SURVEY_H

#include "storage/checkpoint.h"
#include "storage/segment.h"
#include "storage/walk.h"

enum survey_index { SURVEY_INDEX_GOOD, SURVEY_INDEX_MISSING, SURVEY_INDEX_UNUSABLE };

/* What stands behind the last record of a segment. */
enum survey_tail {
    SURVEY_TAIL_NONE,
    SURVEY_TAIL_ZEROS,    /* length that was set ahead, or an unfinished write */
    SURVEY_TAIL_TORN,     /* plainly an unfinished write: a record that ends beyond the file */
    SURVEY_TAIL_DOUBTFUL, /* anything else; recovery keeps a copy when it cuts */
};

struct survey_segment {
    uint64_t id;
    bool newest;
    bool leftover; /* behind the end of the log, after a crash: opening removes it or puts it aside
                    */
    enum segment_header_fault header;
    bool foreign;        /* the header is of another version, or has flags that nobody knows */
    uint64_t created_us; /* 0: not known */
    uint64_t first, end; /* offsets, half open; by its neighbours where the header is damaged */
    uint64_t records;    /* good ones */
    uint64_t file_bytes;
    uint64_t used_bytes;                            /* up to where its last record ends */
    uint64_t first_timestamp_us, last_timestamp_us; /* of good records; 0: none */
    enum survey_index index;
    uint32_t index_entries;
    enum survey_tail tail;
    bool tail_damaged; /* there may be records of worth in it; see survey.damage */
    uint64_t tail_bytes;
};

/* Records that are not there although they should be. */
struct survey_damage {
    uint64_t first, end; /* offsets; the same when no record is known to be lost */
    uint64_t segment;
    uint64_t position;
    const char *what; /* static */
};

/* A file that recovery put beside the segments: bytes that it cut off. */
struct survey_torn {
    char *name;
    uint64_t bytes;
};

struct survey {
    struct survey_segment *segments;
    size_t segments_count;
    struct survey_damage *damage;
    size_t damage_count;
    struct survey_torn *torn;
    size_t torn_count;
    struct checkpoint checkpoint; /* `valid`: there is one; its file is closed */
    uint64_t oldest, end;         /* offsets of the whole log, half open */
    uint64_t records;
    uint64_t bytes;          /* of segment files, without what is behind their last records */
    size_t removed_under_us; /* segments that retention unlinked meanwhile */
};

/* Told of each good record, in order; the payload is borrowed. False ends the survey early. */
typedef bool (*survey_record_fn)(void *context, const struct survey_segment *segment,
                                 uint64_t position, const struct record *record);

struct survey_options {
    survey_record_fn on_record; /* may be NULL */
    void *context;
    uint64_t from; /* segments whose records are all below are not read: for on_record */
    const struct checkpoint *checkpoint; /* in place of the one in the directory; may be NULL */
};

/**
 * Survey the log in `dir`. *ret is the caller's to deinit on FELIX_OK and empty otherwise.
 *   FELIX_NOT_FOUND   there is no such directory, or it holds no segment
 *   FELIX_STORAGE, FELIX_NO_MEMORY
 */
enum felix_err survey_log(const struct disk *disk, const char *dir,
                          const struct survey_options *options, struct survey *ret,
                          struct felix_error *reterr);
void survey_deinit(struct survey *survey);

/** Does the directory hold a segment? False also when it cannot be read. */
bool survey_is_log(const struct disk *disk, const char *dir);

/** Static words. */
const char *survey_index_name(enum survey_index index);
const char *survey_tail_name(enum survey_tail tail);

#endif
