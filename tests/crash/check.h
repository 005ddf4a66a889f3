/*
 * Opening what a power failure left, and what must hold then.
 */
#ifndef CRASH_CHECK_H
#define CRASH_CHECK_H

#include "oracle.h"
#include "storage/record_log.h"
#include "support/memory_disk.h"

#define CRASH_LOG_DIR "log"

/* What the log had told its user when the power went out. */
struct promise {
    uint64_t acknowledged; /* offsets below are safe */
    uint64_t oldest;       /* retention took at most what is below */
};

/* What a state turned out to hold. */
struct found {
    uint64_t oldest, end;
    uint64_t right_end; /* up to here each record is the acknowledged one of its offset */
};

/* Room for the checks of one state after the other. */
struct checker {
    struct memory_disk disk;
    char failure[1024]; /* of the last crash_check */
};

void checker_init(struct checker *checker);
void checker_deinit(struct checker *checker);

/**
 * Survey a copy of `state` and open it: it starts, the survey saw what it finds, holds a contiguous
 * run of records that were appended, each under its offset and once, in memory and in its files;
 * opening it again changes no byte; it can be appended to, synced and closed. False: `failure` says
 * what does not hold.
 */
bool crash_check(struct checker *checker, const struct memory_disk *state,
                 const struct record_log_settings *settings, const struct oracle *oracle,
                 struct found *ret);

/** Whether what was found keeps a promise; `failure` is filled when not. */
bool promise_kept(struct checker *checker, const struct found *found,
                  const struct promise *promise);

/** Whether each file of `state` that keeps what a recovery of `before` cut off (NNN.torn-POSITION)
 * holds those bytes; `failure` is filled when not. */
bool torn_bytes_kept(struct checker *checker, const struct memory_disk *before,
                     const struct memory_disk *state);

/** Read every record of a log through record_log_read and ask the oracle. False and `failure`. */
bool read_everything(struct checker *checker, struct record_log *log, const struct oracle *oracle,
                     struct found *ret);

#endif
