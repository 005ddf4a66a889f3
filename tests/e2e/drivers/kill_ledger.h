/*
 * What was published, what of it was acknowledged, and what a stream was seen to hold: the memory
 * of kill_load.c. It says what is wrong as soon as something is.
 *
 * A record says by itself who published it and as which of that publisher's records; its length and
 * every further byte follow from these two. A publisher sends its records in order and none twice.
 * So a stream is right when
 *   - offsets follow each other, and whoever reads an offset again sees the same record,
 *   - each publisher's records come in order and none twice,
 *   - every acknowledged one is there, at the offset that the acknowledgement named.
 * Others may be there: that an answer was lost tells nothing.
 *
 * Any thread may call anything.
 */
#ifndef KILL_LEDGER_H
#define KILL_LEDGER_H

#include <felix/felix.h>

#include <pthread.h>

#define RECORD_BYTES_MAX 1024u

struct source; /* a publisher */

struct history {
    uint64_t *records; /* by offset: publisher and number in one */
    size_t count, capacity;
};

struct ledger {
    pthread_mutex_t lock;
    uint64_t seed;
    unsigned streams, sources; /* sources of each stream; the last one writes marks */
    enum felix_level level;    /* that every acknowledgement has to name */
    struct source *all;
    struct history *histories; /* by stream */
    uint64_t acked, unknown, refused;
    char wrong[512]; /* what was found first; "" when nothing is wrong */
};

/* One reader of one stream. */
struct view {
    unsigned stream;
    uint64_t next; /* offset that has to come */
};

void ledger_init(struct ledger *ledger, unsigned streams, unsigned sources, uint64_t seed,
                 enum felix_level level);
void ledger_deinit(struct ledger *ledger);

/** The next `count` records of a publisher; returns the number of the first. */
uint64_t ledger_claim(struct ledger *ledger, unsigned stream, unsigned source, size_t count);

/** Fill in a record; returns its length. */
size_t ledger_record(const struct ledger *ledger, unsigned stream, unsigned source, uint64_t number,
                     uint8_t out[RECORD_BYTES_MAX]);

/** The answer to the publish of `count` records. */
void ledger_answered(struct ledger *ledger, unsigned stream, unsigned source, uint64_t first,
                     size_t count, const struct felix_publish_result *result);

/** A record as a subscription handed it over. False when something is wrong. */
bool ledger_delivered(struct ledger *ledger, struct view *view,
                      const struct felix_message *message);

/** The stream has been read to its end, offset `end`: is everything there? */
bool ledger_is_complete(struct ledger *ledger, unsigned stream, uint64_t end);

/** Is this the last thing at `offset`: number `number` of the source that writes marks? */
bool ledger_is_mark(struct ledger *ledger, unsigned stream, uint64_t offset, uint64_t number);

/** Remember that something is wrong, unless something was before. */
void ledger_wrong(struct ledger *ledger, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
