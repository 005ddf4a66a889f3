/*
 * One thread plays all roles: a call of the disk table is where the others may act, because the
 * log holds no lock that they need while it waits for the disk.
 *
 * Recording comes first, checking afterwards. A mark in the trace says which promise holds from
 * there on.
 */
#include "run.h"

#include "base/check.h"
#include "original.h"
#include "support/crash_states.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define RETENTION_SEGMENTS 3u

struct run {
    const struct workload *workload;
    uint64_t seed;
    const struct run_limits *limits;
    unsigned depth;
    struct state_set *states;
    uint64_t *states_left; /* of this run and those that are nested in it */

    struct crash_disk disk;
    struct disk table;
    struct record_log_settings settings;
    struct record_log *log;
    struct oracle oracle;
    struct rng rng;
    uint64_t staged_end;
    uint64_t now_us;
    bool writing, flushing, retaining;
    enum step fails; /* the failure that is due, or STEP_COUNT */
    struct promise *promises;
    size_t promise_count;
    uint8_t batch[4 * ORACLE_PAYLOAD_MAX];
    char failure[1024];
};

/* ---- what was told to the user ---- */

__attribute__((format(printf, 2, 3))) static bool fails(struct run *run, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(run->failure, sizeof run->failure, format, args);
    va_end(args);
    return false;
}

static void promise(struct run *run, struct promise made) {
    run->promises = xrealloc(run->promises, (run->promise_count + 1) * sizeof *run->promises);
    run->promises[run->promise_count] = made;
    crash_disk_mark(&run->disk, run->promise_count++);
}

static bool promise_durable(struct run *run) {
    struct record_log_info info;
    record_log_info(run->log, &info);
    oracle_acknowledge(&run->oracle, info.durable_end);
    struct promise made = run->promises[run->promise_count - 1];
    if (info.durable_end < made.acknowledged)
        return fails(run, "durable end went back from %" PRIu64 " to %" PRIu64, made.acknowledged,
                     info.durable_end);
    made.acknowledged = info.durable_end;
    promise(run, made);
    return true;
}

/* ---- the roles ---- */

/* After an error: the log goes on at written_end, once it was reopened where that is needed. */
static bool recover(struct run *run, enum felix_err err, const struct felix_error *error) {
    if (err != FELIX_STORAGE && err != FELIX_DISK_FULL)
        return fails(run, "unexpected error %s: %s", err_name(err), error->text);
    struct record_log_info info;
    record_log_info(run->log, &info);
    for (unsigned i = 0; info.failed; i++) {
        if (run->writing + run->flushing + run->retaining > 1)
            return true; /* the outer call ends first */
        struct felix_error again = {0};
        err = record_log_reopen(run->log, &again);
        if (err != FELIX_OK && i == 3)
            return fails(run, "does not reopen: %s: %s", err_name(err), again.text);
        record_log_info(run->log, &info);
        if (err == FELIX_OK && (info.failed || info.written_end != info.durable_end))
            return fails(run, "reopened, but failed or with more than what is durable");
    }
    run->staged_end = info.written_end;
    return true;
}

static bool step_append(struct run *run) {
    uint32_t count = 1 + (uint32_t)rng_below(&run->rng, run->workload->batch_max);
    struct payload_list list;
    run->now_us += rng_below(&run->rng, 1000);
    if (!oracle_append(&run->oracle, &run->rng, run->staged_end, count, run->workload->payload_max,
                       run->now_us, run->batch, &list))
        return true;
    struct felix_error error = {0};
    run->writing = true;
    enum felix_err err = record_log_append(run->log, run->staged_end, run->now_us, &list, &error);
    bool good = true;
    if (err == FELIX_OK)
        run->staged_end += count;
    else
        good = recover(run, err, &error);
    run->writing = false;
    return good;
}

static bool step_write(struct run *run) {
    struct felix_error error = {0};
    bool flushing = run->flushing;
    run->writing = true;
    enum felix_err err = record_log_write(run->log, &error);
    bool good = err == FELIX_OK || recover(run, err, &error);
    run->writing = false;
    run->flushing = flushing;
    return good;
}

static bool step_sync(struct run *run) {
    struct record_log_info before, info;
    record_log_info(run->log, &before);
    struct felix_error error = {0};
    run->flushing = true;
    enum felix_err err = record_log_sync(run->log, &error);
    bool good = err == FELIX_OK || recover(run, err, &error);
    run->flushing = false;
    record_log_info(run->log, &info);
    if (err == FELIX_OK && info.durable_end < before.written_end)
        return fails(run, "a flush left out what was written before it");
    return promise_durable(run) && good;
}

static bool step_retain(struct run *run) {
    struct promise now = run->promises[run->promise_count - 1];
    size_t first = run->promise_count;
    promise(run, now);
    struct felix_error error = {0};
    run->retaining = true;
    enum felix_err err = record_log_retain(run->log, run->now_us, NULL, &error);
    run->retaining = false;
    struct record_log_info info;
    record_log_info(run->log, &info);
    for (size_t i = first; i < run->promise_count; i++)
        run->promises[i].oldest = info.oldest;
    /* A failure is tried again the next time, and means nothing to the others. */
    return err == FELIX_OK || !info.failed || recover(run, err, &error);
}

/* ---- starting and ending ---- */

/* Everything that is recovered counts as acknowledged: the log says that it is durable. */
static bool settle(struct run *run) {
    struct record_log_info info;
    record_log_info(run->log, &info);
    uint64_t next = info.oldest;
    run->oracle.acknowledged = run->oracle.acknowledged > next ? run->oracle.acknowledged : next;
    while (next < info.durable_end) {
        struct log_page page;
        struct felix_error error = {0};
        uint64_t available;
        enum felix_err err = record_log_read(run->log, next, 4000, &page, &available, &error);
        if (err != FELIX_OK)
            return fails(run, "read after opening: %s: %s", err_name(err), error.text);
        struct payload_cursor cursor = payload_walk(&page.list);
        struct slice payload;
        for (uint64_t i = 0; payload_next(&cursor, &payload); i++) {
            if (oracle_settle(&run->oracle, next + i, page.timestamps[i], payload) ==
                ORACLE_UNKNOWN)
                return fails(run, "opened with a foreign record at %" PRIu64, next + i);
        }
        next += page.list.count;
        buf_unref(page.block);
    }
    return true;
}

static bool start_log(struct run *run, uint64_t expected_end) {
    struct felix_error error = {0};
    enum felix_err err = record_log_open(&run->table, CRASH_LOG_DIR, "crash", &run->settings,
                                         &run->log, NULL, &error);
    if (err != FELIX_OK)
        return fails(run, "does not open: %s: %s", err_name(err), error.text);
    struct record_log_info info;
    record_log_info(run->log, &info);
    if (info.written_end < expected_end)
        return fails(run, "opened with end %" PRIu64 ", written was %" PRIu64, info.written_end,
                     expected_end);
    run->staged_end = info.written_end;
    return settle(run) && promise_durable(run);
}

static bool step_restart(struct run *run, bool in_order) {
    struct record_log_info info;
    record_log_info(run->log, &info);
    uint64_t end = in_order ? run->staged_end : info.written_end;
    if (in_order && record_log_write(run->log, NULL) != FELIX_OK)
        return fails(run, "a last write failed");
    if (in_order && record_log_close(run->log) != FELIX_OK)
        return fails(run, "closing in order failed");
    if (!in_order)
        record_log_abandon(run->log);
    run->log = NULL;
    return start_log(run, end);
}

/* ---- in between ---- */

static bool act_in_between(struct run *run) {
    switch (rng_below(&run->rng, 4)) {
    case 0:
        return run->flushing || step_sync(run);
    case 1:
        return run->retaining || step_retain(run);
    default:
        return run->writing || (step_append(run) && step_write(run));
    }
}

static bool is_due(struct run *run, enum crash_call call) {
    if (run->fails == STEP_FAIL_SYNC)
        return call == CRASH_CALL_SYNC;
    if (run->fails == STEP_FAIL_WRITE)
        return call == CRASH_CALL_WRITE;
    return run->fails == STEP_FAIL_CHANGE && call != CRASH_CALL_SYNC && call != CRASH_CALL_WRITE;
}

static int before_call(void *user, enum crash_call call) {
    struct run *run = user;
    /* A writer that is far ahead of the flusher does its work; until it is done see step_write. */
    run->flushing |= run->writing && call == CRASH_CALL_SYNC;
    if (is_due(run, call)) {
        run->fails = STEP_COUNT;
        return rng_below(&run->rng, 2) == 0 ? -EIO : -ENOSPC;
    }
    if (run->log == NULL || run->fails != STEP_COUNT || run->failure[0] != '\0' ||
        rng_below(&run->rng, 16) >= run->workload->interleave)
        return 0;
    (void)act_in_between(run);
    return 0;
}

/* ---- recording ---- */

static enum step pick_step(struct run *run) {
    uint64_t sum = 0;
    for (unsigned i = 0; i < STEP_COUNT; i++)
        sum += run->workload->weights[i];
    uint64_t at = rng_below(&run->rng, sum);
    unsigned step = 0;
    while (at >= run->workload->weights[step])
        at -= run->workload->weights[step++];
    return (enum step)step;
}

static bool do_step(struct run *run, enum step step) {
    switch (step) {
    case STEP_APPEND:
        return step_append(run);
    case STEP_WRITE:
        return step_write(run);
    case STEP_SYNC:
        return step_write(run) && step_sync(run);
    case STEP_RETAIN:
        return step_retain(run);
    case STEP_KILL:
    case STEP_CLOSE:
        return step_restart(run, step == STEP_CLOSE);
    case STEP_FAIL_SYNC:
    case STEP_FAIL_WRITE:
    case STEP_FAIL_CHANGE: {
        run->fails = step;
        bool good = step_append(run) && step_write(run) && step_sync(run) && step_retain(run);
        run->fails = STEP_COUNT;
        return good;
    }
    case STEP_COUNT:
        break;
    }
    UNREACHED();
}

static bool record_steps(struct run *run, unsigned steps) {
    run->disk.before = before_call;
    run->disk.user = run;
    bool good = start_log(run, run->promises[0].acknowledged);
    for (unsigned i = 0; i < steps && good; i++)
        good = do_step(run, pick_step(run)) && run->failure[0] == '\0';
    if (run->log != NULL)
        record_log_abandon(run->log);
    run->log = NULL;
    run->disk.before = NULL;
    return good && run->failure[0] == '\0';
}

/* ---- checking ---- */

#define SEEN_SLOTS ((size_t)1 << 16)
#define NESTED_AGAIN 4u /* of 1024 */

struct seen {
    uint64_t hash;
    struct found found;
};

struct checking {
    struct run *run;
    struct checker *checker;
    struct seen *seen;
    size_t seen_count;
    struct promise promise;
    size_t position;
    bool good;
};

static bool run_nested(struct run *outer, const struct memory_disk *state,
                       const struct promise *promise, uint64_t seed);

static void report(const struct checking *checking, const struct memory_disk *state) {
    struct run *run = checking->run;
    printf("workload %s, seed %" PRIu64 ", depth %u, after event %zu: %s\n", run->workload->name,
           run->seed, run->depth, checking->position, checking->checker->failure);
    printf("  promised: acknowledged below %" PRIu64 ", oldest at most %" PRIu64 "\n  state:\n",
           checking->promise.acknowledged, checking->promise.oldest);
    memory_disk_dump(state);
    printf("  trace:\n");
    crash_disk_dump(&run->disk, checking->position);
}

/* The place of a hash in the memory of this trace; when that is full, states are opened again. */
static struct seen *seen_at(struct checking *checking, uint64_t hash) {
    if (checking->seen_count > SEEN_SLOTS / 4 * 3) {
        memset(checking->seen, 0, SEEN_SLOTS * sizeof *checking->seen);
        checking->seen_count = 0;
    }
    size_t i = hash % SEEN_SLOTS;
    while (checking->seen[i].hash != 0 && checking->seen[i].hash != hash)
        i = (i + 1) % SEEN_SLOTS;
    return &checking->seen[i];
}

static void on_state(void *user, const struct memory_disk *state) {
    struct checking *checking = user;
    struct run *run = checking->run;
    if (!checking->good || *run->states_left == 0)
        return;
    uint64_t hash = memory_disk_hash(state) | 1;
    struct seen *seen = seen_at(checking, hash);
    atomic_fetch_add(&run->states->visited, 1);
    bool is_new = seen->hash != hash;
    if (is_new) {
        checking->good =
            crash_check(checking->checker, state, &run->settings, &run->oracle, &seen->found);
        atomic_fetch_add(&run->states->opened, 1);
        *run->states_left -= 1;
        state_set_add(run->states, hash);
        seen->hash = hash;
        checking->seen_count++;
    }
    checking->good = checking->good &&
                     promise_kept(checking->checker, &seen->found, &checking->promise) &&
                     (!is_new || torn_bytes_kept(checking->checker, &run->disk.start, state));
    if (!checking->good) {
        report(checking, state);
        return;
    }
    unsigned nested = run->depth == 0 ? run->workload->nested : NESTED_AGAIN;
    if (is_new && run->depth < run->limits->depth && hash / 2 % 1024 < nested)
        checking->good = run_nested(run, state, &checking->promise, hash);
}

static bool check_states(struct run *run) {
    struct checking checking = {
        .run = run,
        .checker = xmalloc(sizeof(struct checker)),
        .seen = xcalloc(SEEN_SLOTS, sizeof(struct seen)),
        .promise = run->promises[0],
        .good = true,
    };
    checker_init(checking.checker);
    unsigned cost = run->workload->cost == 0 ? 1 : run->workload->cost;
    size_t budget = run->limits->budget / cost;
    struct crash_states *states = crash_states_new(&run->disk);
    const struct crash_event *event;
    while (checking.good && *run->states_left > 0 && (event = crash_states_step(states)) != NULL) {
        checking.position++;
        if (event->kind == CRASH_MARK)
            checking.promise = run->promises[event->at];
        if (event->kind == CRASH_SYNC_BEGIN)
            continue;
        bool all = crash_states_visit(states, budget, &run->rng, on_state, &checking);
        atomic_fetch_add(&run->states->moments, 1);
        atomic_fetch_add(&run->states->complete, all && *run->states_left > 0);
    }
    crash_states_free(states);
    checker_deinit(checking.checker);
    free(checking.checker);
    free(checking.seen);
    return checking.good;
}

/* ---- a run ---- */

static void run_init(struct run *run, const struct workload *workload, uint64_t seed,
                     const struct memory_disk *start) {
    run->workload = workload;
    run->seed = seed;
    run->fails = STEP_COUNT;
    run->now_us = 1000000;
    rng_seed(&run->rng, seed);
    oracle_init(&run->oracle);
    crash_disk_init(&run->disk, start);
    run->table = crash_disk_table(&run->disk);
}

static void run_deinit(struct run *run) {
    crash_disk_deinit(&run->disk);
    oracle_deinit(&run->oracle);
    free(run->promises);
    free(run);
}

static void choose_settings(struct run *run) {
    uint32_t segment_bytes = run->workload->segment_bytes;
    run->settings = (struct record_log_settings){
        .sync = LOG_SYNC_ON_COMMIT,
        .segment_bytes = segment_bytes == 0 ? 1u << 30 : segment_bytes,
        .index_spacing_bytes = rng_below(&run->rng, 2) == 0 ? 64 : 4096,
        .read_records_max = 1 + (uint32_t)rng_below(&run->rng, 20),
        .set_length_ahead = rng_below(&run->rng, 4) != 0,
        .verify_all_on_open = rng_below(&run->rng, 8) == 0,
        .repair_checksum_tail = rng_below(&run->rng, 8) == 0,
        .retention_bytes = (uint64_t)segment_bytes * RETENTION_SEGMENTS,
    };
}

/* The first state's own failure: nothing was on the disk, so nothing can be lost. */
static bool record_failed(struct run *run) {
    printf("workload %s, seed %" PRIu64 ", depth %u, while recording: %s\n", run->workload->name,
           run->seed, run->depth, run->failure);
    crash_disk_dump(&run->disk, run->disk.event_count);
    return false;
}

/* Recovers a state under recording, goes on a little, and checks what a crash in between leaves. */
static bool run_nested(struct run *outer, const struct memory_disk *state,
                       const struct promise *promised, uint64_t seed) {
    struct run *run = xcalloc(1, sizeof *run);
    run_init(run, outer->workload, seed, state);
    run->limits = outer->limits;
    run->states = outer->states;
    run->states_left = outer->states_left;
    run->depth = outer->depth + 1;
    run->settings = outer->settings;
    run->now_us = outer->now_us;
    oracle_copy(&run->oracle, &outer->oracle);
    run->oracle.acknowledged = promised->acknowledged;
    for (uint64_t i = promised->acknowledged; i < ORACLE_OFFSETS_MAX; i++)
        run->oracle.records[i].acknowledged = 0;
    promise(run, *promised);
    bool good = record_steps(run, 3) ? check_states(run) : record_failed(run);
    if (!good)
        printf("  within workload %s, seed %" PRIu64 ", depth %u\n", outer->workload->name,
               outer->seed, outer->depth);
    run_deinit(run);
    return good;
}

bool run_workload(const struct workload *workload, uint64_t seed, const struct run_limits *limits,
                  struct state_set *states) {
    struct run *run = xcalloc(1, sizeof *run);
    struct oracle given;
    struct memory_disk start;
    oracle_init(&given);
    memory_disk_init(&start);
    if (workload->from_the_original)
        make_original(&start, &given, seed);
    run_init(run, workload, seed, &start);
    oracle_copy(&run->oracle, &given);
    memory_disk_deinit(&start);
    oracle_deinit(&given);
    uint64_t states_left = limits->states_max;
    run->limits = limits;
    run->states = states;
    run->states_left = &states_left;
    choose_settings(run);
    promise(run, (struct promise){.acknowledged = run->oracle.acknowledged});
    bool good = record_steps(run, workload->steps) ? check_states(run) : record_failed(run);
    run_deinit(run);
    return good;
}
