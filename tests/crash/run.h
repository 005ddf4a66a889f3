/*
 * A run: random use of one log on a disk that records, steps of the writer, the flusher and
 * retention in between each other as their threads would, failures and kills; then every state
 * that the recording permits is opened and checked.
 */
#ifndef CRASH_RUN_H
#define CRASH_RUN_H

#include "check.h"
#include "state_set.h"
#include "support/crash_disk.h"

enum step {
    STEP_APPEND,      /* one batch */
    STEP_WRITE,       /* what is staged goes to the system */
    STEP_SYNC,        /* and to the disk: an acknowledgement */
    STEP_RETAIN,      /* by bytes */
    STEP_KILL,        /* abandoned and opened again; the system stays */
    STEP_CLOSE,       /* closed in order and opened again */
    STEP_FAIL_SYNC,   /* a flush fails, the log is reopened */
    STEP_FAIL_WRITE,  /* a write fails: a full disk, or a bad one */
    STEP_FAIL_CHANGE, /* creating, cutting, renaming, removing or syncing a directory fails */
    STEP_COUNT,
};

struct workload {
    const char *name;
    unsigned weights[STEP_COUNT];
    unsigned steps;
    uint32_t segment_bytes; /* 0: larger than all that comes */
    uint32_t payload_max;
    uint32_t batch_max;
    unsigned cost;          /* of a state, beside that of other workloads; 0: 1 */
    unsigned interleave;    /* in 16: how often another role acts within a call */
    unsigned nested;        /* in 1024 states: how many are recovered under recording; in
                               a recording of that kind 4 */
    bool from_the_original; /* begins with a directory without a checkpoint */
};

struct run_limits {
    size_t budget;       /* visits per event of a trace */
    unsigned depth;      /* of recoveries within recoveries */
    uint64_t states_max; /* that one run opens, with its nested ones; then it ends early */
};

/** Record and check one run of `workload`. False: something does not hold; it was printed, with
 * the seed. Adds what was opened to `states`. */
bool run_workload(const struct workload *workload, uint64_t seed, const struct run_limits *limits,
                  struct state_set *states);

#endif
