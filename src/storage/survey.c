/*
 * The survey of a log, in this order, because others may be writing to it:
 *
 *   the checkpoint, so that what is read later is at least as new
 *   the names, twice when they have a gap: a listing is not a moment
 *   every segment's header
 *   each segment's records, oldest first. One that is gone when its turn comes was retention's, and
 *     so were all before it: what they gave is forgotten.
 *
 * Below the checkpoint everything was on disk once, so a finding there is damage, and the walk goes
 * on behind it. At or above it the first finding is where the log ends: what follows, later
 * segments too, is a write that nobody was told to be safe. Without a checkpoint the log is the
 * original's, which flushes a segment before it begins the next: only the newest that has
 * anything in it may end in an unfinished write, and only in one that is plainly that.
 */
#include "storage/survey.h"

#include "base/check.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define INDEX_SPACING 4096u /* of no importance for one that is loaded */

struct surveyor {
    const struct disk *disk;
    const char *dir;
    const struct survey_options *options;
    struct survey *survey;
    struct felix_error *reterr;
    size_t last_solid; /* without a checkpoint: the newest segment that has anything in it */
    bool ended;        /* the log ends in the segments so far */
    bool stopped;      /* on_record had enough */
};

const char *survey_index_name(enum survey_index index) {
    static const char *const names[] = {"good", "missing", "unusable"};
    return names[index];
}

const char *survey_tail_name(enum survey_tail tail) {
    static const char *const names[] = {"none", "zeros", "torn", "doubtful"};
    return names[tail];
}

static enum felix_err failed(const struct surveyor *s, int err, const char *call,
                             const char *path) {
    if (err == -ENOMEM)
        return error_set(s->reterr, FELIX_NO_MEMORY, 0, "no memory to read %s", path);
    return error_set(s->reterr, FELIX_STORAGE, -err, "cannot %s %s", call, path);
}

/* Makes room for one more item: lists double, beginning with eight. */
static void *grow(void *items, size_t count, size_t item_bytes) {
    if (count != 0 && (count < 8 || (count & (count - 1)) != 0))
        return items;
    return xrealloc(items, (count < 8 ? 8 : 2 * count) * item_bytes);
}

static void add_damage(struct survey *survey, struct survey_damage damage) {
    survey->damage = grow(survey->damage, survey->damage_count, sizeof *survey->damage);
    survey->damage[survey->damage_count++] = damage;
}

/* ---- names ---- */

static void on_name(void *user, const char *name) {
    struct survey *survey = user;
    uint64_t id;
    if (segment_name_parse(name, "log", &id)) {
        survey->segments = grow(survey->segments, survey->segments_count, sizeof *survey->segments);
        survey->segments[survey->segments_count++] = (struct survey_segment){.id = id};
    } else if (strstr(name, ".torn-") != NULL) {
        survey->torn = grow(survey->torn, survey->torn_count, sizeof *survey->torn);
        survey->torn[survey->torn_count++] = (struct survey_torn){.name = xstrdup(name)};
    }
}

static int by_id(const void *a, const void *b) {
    const struct survey_segment *left = a, *right = b;
    return left->id < right->id ? -1 : left->id > right->id;
}

static int by_name(const void *a, const void *b) {
    const struct survey_torn *left = a, *right = b;
    return strcmp(left->name, right->name);
}

static void forget_names(struct survey *survey) {
    for (size_t i = 0; i < survey->torn_count; i++)
        free(survey->torn[i].name);
    survey->torn_count = 0;
    survey->segments_count = 0;
}

static enum felix_err list_files(struct surveyor *s) {
    struct survey *survey = s->survey;
    for (unsigned attempt = 0; attempt < 2; attempt++) {
        forget_names(survey);
        int err = s->disk->ops->list(s->disk->context, s->dir, on_name, survey);
        if (err == -ENOENT || err == -ENOTDIR)
            return error_set(s->reterr, FELIX_NOT_FOUND, 0, "there is no directory %s", s->dir);
        if (err != 0)
            return failed(s, err, "list", s->dir);
        if (survey->segments_count == 0)
            return error_set(s->reterr, FELIX_NOT_FOUND, 0, "%s holds no segment of a log", s->dir);
        qsort(survey->segments, survey->segments_count, sizeof *survey->segments, by_id);
        size_t last = survey->segments_count - 1;
        if (survey->segments[last].id - survey->segments[0].id == last)
            break;
    }
    if (survey->torn_count > 0)
        qsort(survey->torn, survey->torn_count, sizeof *survey->torn, by_name);
    return FELIX_OK;
}

static void measure_torn(const struct surveyor *s) {
    for (size_t i = 0; i < s->survey->torn_count; i++) {
        struct survey_torn *torn = &s->survey->torn[i];
        char path[PATH_MAX];
        int length = snprintf(path, sizeof path, "%s/%s", s->dir, torn->name);
        int file = length > 0 && length < PATH_MAX
                       ? s->disk->ops->open(s->disk->context, path, DISK_READ)
                       : -ENAMETOOLONG;
        if (file < 0)
            continue;
        (void)s->disk->ops->size(s->disk->context, file, &torn->bytes);
        (void)s->disk->ops->close(s->disk->context, file);
    }
}

/* ---- one segment ---- */

static void look_at_index(const struct surveyor *s, struct survey_segment *segment) {
    char path[PATH_MAX];
    segment->index = SURVEY_INDEX_MISSING;
    if (!segment_path(s->dir, segment->id, "index", path))
        return;
    int file = s->disk->ops->open(s->disk->context, path, DISK_READ);
    if (file < 0)
        return;
    (void)s->disk->ops->close(s->disk->context, file);
    struct log_index index;
    log_index_init(&index, segment->first, INDEX_SPACING);
    bool good = log_index_load(&index, s->disk, path, segment->used_bytes);
    segment->index = good ? SURVEY_INDEX_GOOD : SURVEY_INDEX_UNUSABLE;
    segment->index_entries = index.count;
    log_index_deinit(&index);
}

/* Opens the file of a segment; a handle or negative errno. */
static int open_segment(const struct surveyor *s, const struct survey_segment *segment) {
    char path[PATH_MAX];
    if (!segment_path(s->dir, segment->id, "log", path))
        return -ENAMETOOLONG;
    return s->disk->ops->open(s->disk->context, path, DISK_READ);
}

/* Reads length and header of an open file. Without a good header the first record says where the
 * segment begins; `expected` if that is not good either. */
static int look_at_header(const struct surveyor *s, int file, uint64_t expected,
                          struct survey_segment *segment) {
    uint8_t bytes[SEGMENT_HEADER_BYTES + RECORD_HEADER_BYTES];
    int err = s->disk->ops->size(s->disk->context, file, &segment->file_bytes);
    if (err != 0)
        return err;
    ssize_t got = disk_read_all(s->disk, file, bytes, sizeof bytes, 0);
    if (got < 0)
        return (int)got;
    struct segment_header header;
    struct slice head = slice_of(bytes, (size_t)got);
    segment->header = segment_header_decode(head, &header);
    segment->foreign = segment_header_is_foreign(head);
    if (segment->header == SEGMENT_HEADER_OK) {
        segment->first = header.base_offset;
        segment->created_us = header.created_us;
        return 0;
    }
    segment->first = expected;
    struct record record;
    uint32_t payload_bytes;
    if ((size_t)got == sizeof bytes &&
        record_header_decode(slice_of(bytes + SEGMENT_HEADER_BYTES, RECORD_HEADER_BYTES), &record,
                             &payload_bytes) == RECORD_OK)
        segment->first = record.offset;
    return 0;
}

/* Is there nothing in a segment but, perhaps, its header? 1, 0 or negative errno. */
static int is_hollow(const struct surveyor *s, int file, const struct survey_segment *segment) {
    if (segment->file_bytes < SEGMENT_HEADER_BYTES)
        return 1;
    if (segment->header == SEGMENT_HEADER_OK)
        return segment->file_bytes == SEGMENT_HEADER_BYTES;
    uint64_t content_end;
    int err = segment_nonzero_end(s->disk, file, 0, segment->file_bytes, &content_end);
    return err != 0 ? err : content_end == 0;
}

static int read_headers(struct surveyor *s) {
    struct survey *survey = s->survey;
    s->last_solid = 0;
    for (size_t i = 0; i < survey->segments_count; i++) {
        struct survey_segment *segment = &survey->segments[i];
        int file = open_segment(s, segment);
        /* Its turn shows what that means. */
        if (file == -ENOENT)
            continue;
        if (file < 0)
            return file;
        int err = look_at_header(s, file, 0, segment);
        int hollow = err == 0 ? is_hollow(s, file, segment) : err;
        (void)s->disk->ops->close(s->disk->context, file);
        if (hollow < 0)
            return hollow;
        if (hollow == 0)
            s->last_solid = i;
    }
    return 0;
}

static void take_record(struct surveyor *s, struct survey_segment *segment,
                        const struct walk_item *item) {
    segment->records++;
    segment->end = item->record.offset + 1;
    segment->used_bytes = item->position + item->bytes;
    segment->last_timestamp_us = item->record.timestamp_us;
    if (segment->records == 1)
        segment->first_timestamp_us = item->record.timestamp_us;
    const struct survey_options *options = s->options;
    if (options->on_record != NULL && item->record.offset >= options->from &&
        !options->on_record(options->context, segment, item->position, &item->record))
        s->stopped = true;
}

/* Was nothing at `position` of segment `i` promised to be on disk? */
static bool is_above(const struct surveyor *s, size_t i, uint64_t position) {
    const struct checkpoint *checkpoint = &s->survey->checkpoint;
    uint64_t id = s->survey->segments[i].id;
    if (!checkpoint->valid)
        return i >= s->last_solid;
    return id > checkpoint->mark.segment ||
           (id == checkpoint->mark.segment && position >= checkpoint->mark.position);
}

/* Is a finding in segment `i` an unfinished write? */
static bool is_unfinished(const struct surveyor *s, size_t i, const struct walk_item *item) {
    if (!is_above(s, i, item->position))
        return false;
    return s->survey->checkpoint.valid ||
           (item->found == WALK_TAIL && (item->zeros || item->fault == RECORD_TRUNCATED_HEADER ||
                                         item->fault == RECORD_TRUNCATED));
}

/* Does segment `i` + 1 begin where `i` ends? */
static bool joins_next(const struct surveyor *s, size_t i) {
    const struct survey *survey = s->survey;
    return i + 1 < survey->segments_count && survey->segments[i + 1].header == SEGMENT_HEADER_OK &&
           survey->segments[i + 1].first == survey->segments[i].end;
}

static void take_tail(struct survey_segment *segment, const struct walk_item *item) {
    segment->tail_bytes = segment->file_bytes - item->position;
    if (item->found == WALK_TAIL && item->zeros)
        segment->tail = SURVEY_TAIL_ZEROS;
    else if (item->fault == RECORD_TRUNCATED_HEADER || item->fault == RECORD_TRUNCATED)
        segment->tail = SURVEY_TAIL_TORN;
    else
        segment->tail = SURVEY_TAIL_DOUBTFUL;
}

/* A finding that is no record. True: the walk goes on. */
static bool take_finding(struct surveyor *s, size_t i, const struct walk_item *item) {
    struct survey_segment *segment = &s->survey->segments[i];
    if (item->found == WALK_END)
        return false;
    bool unfinished = is_unfinished(s, i, item);
    if (unfinished || item->found == WALK_TAIL)
        take_tail(segment, item);
    if (unfinished) {
        /* Zeros behind a segment that is full were its length, set ahead. */
        s->ended = segment->tail != SURVEY_TAIL_ZEROS || !joins_next(s, i);
        return false;
    }
    /* Whether zeros are damage is seen by what should have been there. */
    segment->tail_damaged = item->found == WALK_TAIL && !item->zeros;
    if (item->found == WALK_DAMAGE || segment->tail_damaged)
        add_damage(s->survey, (struct survey_damage){
                                  .first = segment->end,
                                  .end = item->found == WALK_DAMAGE ? item->end : segment->end,
                                  .segment = segment->id,
                                  .position = item->position,
                                  .what = record_fault_name(item->fault),
                              });
    if (item->found == WALK_DAMAGE)
        segment->end = item->end;
    return item->found == WALK_DAMAGE;
}

static int walk_segment(struct surveyor *s, int file, size_t i) {
    struct survey_segment *segment = &s->survey->segments[i];
    const struct checkpoint *checkpoint = &s->survey->checkpoint;
    struct walk_proven proven = {.position = 0};
    if (checkpoint->valid && checkpoint->mark.segment == segment->id)
        proven = (struct walk_proven){checkpoint->mark.position, checkpoint->mark.offset};
    struct log_walk walk;
    int err = walk_begin(&walk, s->disk, file, segment->used_bytes, segment->first, &proven);
    if (err != 0)
        return err;
    bool more = true;
    while (err == 0 && more && !s->stopped) {
        struct walk_item item;
        err = walk_next(&walk, &item);
        if (err == 0 && item.found == WALK_RECORD)
            take_record(s, segment, &item);
        else if (err == 0)
            more = take_finding(s, i, &item);
    }
    walk_deinit(&walk);
    return err;
}

/* The whole of a segment whose header is damaged cannot be read, whatever else was found in it. */
static void take_header_fault(struct surveyor *s, const struct survey_segment *segment,
                              size_t damage_before) {
    if (segment->header == SEGMENT_HEADER_OK)
        return;
    s->survey->damage_count = damage_before;
    add_damage(s->survey, (struct survey_damage){
                              .first = segment->first,
                              .end = segment->end,
                              .segment = segment->id,
                              .what = segment_header_fault_text(segment->header),
                          });
}

/* Is there no segment yet in the file of `i`, only one that was to be made? */
static bool is_unbegun(const struct surveyor *s, size_t i) {
    const struct survey_segment *segment = &s->survey->segments[i];
    const struct checkpoint *checkpoint = &s->survey->checkpoint;
    if (segment->header == SEGMENT_HEADER_OK || segment->foreign)
        return false;
    if (checkpoint->valid)
        return segment->id > checkpoint->mark.segment ||
               (segment->id == checkpoint->mark.segment &&
                checkpoint->mark.position <= SEGMENT_HEADER_BYTES);
    return i > s->last_solid || segment->file_bytes < SEGMENT_HEADER_BYTES;
}

/* -ENOENT: it is gone. `expected` is where the one before ends. */
static int survey_segment(struct surveyor *s, size_t i, uint64_t expected) {
    struct survey_segment *segment = &s->survey->segments[i];
    size_t damage_before = s->survey->damage_count;
    int file = open_segment(s, segment);
    if (file < 0)
        return file;
    int err = look_at_header(s, file, expected, segment);
    segment->end = segment->first;
    segment->used_bytes =
        segment->file_bytes < SEGMENT_HEADER_BYTES ? segment->file_bytes : SEGMENT_HEADER_BYTES;
    s->ended = s->ended || is_unbegun(s, i);
    segment->leftover = s->ended;
    if (err == 0 && !segment->leftover)
        err = walk_segment(s, file, i);
    (void)s->disk->ops->close(s->disk->context, file);
    if (err != 0 || segment->leftover)
        return err;
    take_header_fault(s, segment, damage_before);
    look_at_index(s, segment);
    return 0;
}

/* Leaves out segment `i` when all its records are below `from`, which the next one's header
 * tells. */
static bool skip_segment(struct surveyor *s, size_t i) {
    const struct survey *survey = s->survey;
    struct survey_segment *segment = &survey->segments[i];
    if (s->options->from == 0 || i + 1 == survey->segments_count ||
        survey->segments[i + 1].header != SEGMENT_HEADER_OK ||
        survey->segments[i + 1].first > s->options->from)
        return false;
    segment->end = survey->segments[i + 1].first;
    return true;
}

/* ---- all of them ---- */

/* Retention took segment `i`, hence all before it as well. */
static void forget_before(struct survey *survey, size_t i) {
    survey->removed_under_us += i + 1;
    survey->damage_count = 0;
    survey->segments_count -= i + 1;
    memmove(survey->segments, survey->segments + i + 1,
            survey->segments_count * sizeof *survey->segments);
}

/* The records from the end of `segment` up to `end` are nowhere. When the segment ended in damage,
 * this is how much it was. */
static void add_missing(struct survey *survey, const struct survey_segment *segment, uint64_t end) {
    struct survey_damage *last =
        survey->damage_count > 0 ? &survey->damage[survey->damage_count - 1] : NULL;
    if (last != NULL && last->segment == segment->id && last->first == segment->end &&
        last->end == segment->end) {
        last->end = end;
        return;
    }
    add_damage(survey, (struct survey_damage){
                           .first = segment->end,
                           .end = end,
                           .segment = segment->id,
                           .position = segment->used_bytes,
                           .what = "missing",
                       });
}

/* The end of segment `i` and the beginning of the next one. */
static void check_joint(struct surveyor *s, size_t i) {
    struct survey *survey = s->survey;
    struct survey_segment *segment = &survey->segments[i];
    if (s->ended || s->stopped || i + 1 == survey->segments_count || joins_next(s, i))
        return;
    const struct survey_segment *next = &survey->segments[i + 1];
    /* What its own header does not say is no hole: where it begins follows from this one. */
    if (next->header != SEGMENT_HEADER_OK)
        return;
    if (is_above(s, i, segment->used_bytes)) {
        s->ended = true;
        return;
    }
    if (next->first > segment->end) {
        add_missing(survey, segment, next->first);
        segment->end = next->first;
        return;
    }
    add_damage(survey, (struct survey_damage){
                           .first = next->first,
                           .end = segment->end,
                           .segment = next->id,
                           .what = "base_offset",
                       });
}

static enum felix_err survey_segments(struct surveyor *s) {
    struct survey *survey = s->survey;
    uint64_t expected = 0;
    int err = read_headers(s);
    if (err != 0)
        return failed(s, err, "read the segments in", s->dir);
    for (size_t i = 0; i < survey->segments_count && !s->stopped;) {
        err = skip_segment(s, i) ? 0 : survey_segment(s, i, expected);
        if (err == -ENOENT) {
            forget_before(survey, i);
            s->last_solid = s->last_solid > i ? s->last_solid - i - 1 : 0;
            s->ended = false;
            i = 0;
            expected = 0;
            continue;
        }
        if (err < 0) {
            char path[PATH_MAX] = "";
            (void)segment_path(s->dir, survey->segments[i].id, "log", path);
            return failed(s, err, "read", path);
        }
        check_joint(s, i);
        expected = survey->segments[i].end;
        i++;
    }
    if (survey->segments_count == 0)
        return error_set(s->reterr, FELIX_NOT_FOUND, 0, "the log in %s was removed meanwhile",
                         s->dir);
    return FELIX_OK;
}

static void sum_up(struct surveyor *s) {
    struct survey *survey = s->survey;
    const struct checkpoint *checkpoint = &survey->checkpoint;
    struct survey_segment *last = NULL;
    for (size_t i = 0; i < survey->segments_count; i++) {
        struct survey_segment *segment = &survey->segments[i];
        if (segment->leftover)
            break;
        survey->records += segment->records;
        survey->bytes += segment->used_bytes;
        last = segment;
    }
    if (last == NULL) {
        survey->oldest = survey->end = checkpoint->valid ? checkpoint->mark.offset : 0;
        return;
    }
    last->newest = true;
    if (!s->stopped && checkpoint->valid && checkpoint->mark.offset > last->end) {
        add_missing(survey, last, checkpoint->mark.offset);
        last->end = checkpoint->mark.offset;
    }
    survey->oldest = survey->segments[0].first;
    survey->end = last->end;
}

enum felix_err survey_log(const struct disk *disk, const char *dir,
                          const struct survey_options *options, struct survey *ret,
                          struct felix_error *reterr) {
    static const struct survey_options none = {.on_record = NULL};
    *ret = (struct survey){.segments = NULL};
    struct surveyor s = {
        .disk = disk,
        .dir = dir,
        .options = options != NULL ? options : &none,
        .survey = ret,
        .reterr = reterr,
    };
    int unreadable = checkpoint_open(&ret->checkpoint, disk, dir, true);
    checkpoint_close(&ret->checkpoint);
    if (s.options->checkpoint != NULL) {
        ret->checkpoint = *s.options->checkpoint;
        unreadable = 0;
    }
    enum felix_err err = list_files(&s);
    if (err == FELIX_OK && unreadable != 0)
        err = failed(&s, unreadable, "read the checkpoint of", dir);
    if (err == FELIX_OK)
        err = survey_segments(&s);
    if (err == FELIX_OK) {
        measure_torn(&s);
        sum_up(&s);
    } else {
        survey_deinit(ret);
    }
    return err;
}

void survey_deinit(struct survey *survey) {
    forget_names(survey);
    free(survey->torn);
    free(survey->segments);
    free(survey->damage);
    *survey = (struct survey){.segments = NULL};
}

static void note_segment(void *user, const char *name) {
    uint64_t id;
    if (segment_name_parse(name, "log", &id))
        *(bool *)user = true;
}

bool survey_is_log(const struct disk *disk, const char *dir) {
    bool found = false;
    return disk->ops->list(disk->context, dir, note_segment, &found) == 0 && found;
}
