/*
 * No power failure loses an acknowledged record: workloads over record_log, each state that one
 * may leave opened and checked (run.h, support/crash_states.h).
 *
 *   crash_test                                   a cmocka case per workload, for ./dev test
 *   crash_test --states N [--jobs J] [--seed S]  until N distinct states, with progress lines
 *
 * FELIX_TEST_SEED begins elsewhere. A failure names workload and seed; the same seed repeats it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "run.h"

#define CASE_STATES 2200u /* distinct ones of each workload in ./dev test */
#define CASE_RUNS_MAX 400u
#define STATES_MIN 20000u

static const struct workload workloads[] = {
    {
        .name = "append",
        .weights = {[STEP_APPEND] = 3, [STEP_WRITE] = 2, [STEP_SYNC] = 3},
        .steps = 14,
        .payload_max = 900,
        .batch_max = 3,
        .nested = 8,
    },
    {
        .name = "group_commit",
        .weights = {[STEP_APPEND] = 3, [STEP_WRITE] = 2, [STEP_SYNC] = 3},
        .steps = 12,
        .payload_max = 700,
        .batch_max = 4,
        .segment_bytes = 6000,
        .interleave = 8,
        .nested = 4,
    },
    {
        .name = "roll",
        .weights = {[STEP_APPEND] = 4, [STEP_WRITE] = 2, [STEP_SYNC] = 2},
        .steps = 16,
        .payload_max = 400,
        .batch_max = 4,
        .segment_bytes = 1200,
        .nested = 4,
    },
    {
        .name = "roll_while_a_flush_runs",
        .weights = {[STEP_APPEND] = 4, [STEP_WRITE] = 2, [STEP_SYNC] = 2},
        .steps = 12,
        .payload_max = 400,
        .batch_max = 4,
        .segment_bytes = 900,
        .interleave = 6,
        .nested = 4,
    },
    {
        .name = "retention",
        .weights = {[STEP_APPEND] = 4, [STEP_SYNC] = 4, [STEP_RETAIN] = 3},
        .steps = 24,
        .payload_max = 300,
        .batch_max = 4,
        .segment_bytes = 800,
        .interleave = 2,
        .nested = 4,
    },
    {
        .name = "recovery",
        .weights = {[STEP_APPEND] = 4, [STEP_WRITE] = 3, [STEP_SYNC] = 1},
        .steps = 6,
        .payload_max = 1500,
        .batch_max = 3,
        .segment_bytes = 2500,
        .nested = 64,
    },
    {
        .name = "kill_and_reopen",
        .weights = {[STEP_APPEND] = 4, [STEP_WRITE] = 3, [STEP_SYNC] = 1, [STEP_KILL] = 2},
        .steps = 16,
        .payload_max = 500,
        .batch_max = 3,
        .segment_bytes = 1500,
        .nested = 4,
    },
    {
        .name = "close_and_reopen",
        .weights = {[STEP_APPEND] = 4,
                    [STEP_WRITE] = 1,
                    [STEP_SYNC] = 2,
                    [STEP_KILL] = 1,
                    [STEP_CLOSE] = 2},
        .steps = 14,
        .payload_max = 500,
        .batch_max = 3,
        .segment_bytes = 2000,
        .nested = 4,
    },
    {
        .name = "failed_flush",
        .weights = {[STEP_APPEND] = 4, [STEP_WRITE] = 2, [STEP_SYNC] = 2, [STEP_FAIL_SYNC] = 2},
        .steps = 12,
        .payload_max = 500,
        .batch_max = 3,
        .segment_bytes = 2000,
        .interleave = 2,
        .nested = 4,
    },
    {
        .name = "failed_write",
        .weights = {[STEP_APPEND] = 4,
                    [STEP_WRITE] = 2,
                    [STEP_SYNC] = 2,
                    [STEP_FAIL_WRITE] = 2,
                    [STEP_FAIL_CHANGE] = 2,
                    [STEP_KILL] = 1},
        .steps = 14,
        .payload_max = 500,
        .batch_max = 3,
        .segment_bytes = 1500,
        .interleave = 2,
        .nested = 4,
    },
    {
        /* Past what is set ahead, by length or with zeros. */
        .name = "large",
        .weights = {[STEP_APPEND] = 6, [STEP_WRITE] = 6, [STEP_SYNC] = 4, [STEP_FAIL_WRITE] = 1},
        .steps = 40,
        .payload_max = 30000,
        .batch_max = 2,
        .cost = 10,
        .nested = 2,
    },
    {
        .name = "from_the_original",
        .weights = {[STEP_APPEND] = 3, [STEP_WRITE] = 2, [STEP_SYNC] = 2, [STEP_RETAIN] = 1},
        .steps = 8,
        .payload_max = 500,
        .batch_max = 3,
        .segment_bytes = 2000,
        .nested = 4,
        .from_the_original = true,
    },
};
#define WORKLOADS (sizeof workloads / sizeof workloads[0])

static struct state_set *states;
static uint64_t seed = 1;

static uint64_t number_or(const char *text, uint64_t otherwise) {
    return text == NULL ? otherwise : strtoull(text, NULL, 10);
}

/* ---- as a test ---- */

static void no_state_loses_what_was_acknowledged(void **state) {
    const struct workload *workload = *state;
    const struct run_limits limits = {.budget = 48, .depth = 1, .states_max = 4000};
    uint64_t before = states->distinct;
    uint64_t wanted = workload->cost == 0 ? CASE_STATES : CASE_STATES / workload->cost;
    unsigned runs = 0;
    while (states->distinct < before + wanted) {
        assert_true(runs < CASE_RUNS_MAX);
        assert_true(run_workload(workload, seed + runs++, &limits, states));
    }
    printf("%s: %" PRIu64 " distinct states of %u runs from seed %" PRIu64 "\n", workload->name,
           states->distinct - before, runs, seed);
}

static void that_were_enough_states(void **state) {
    printf("%" PRIu64 " distinct states, opened %" PRIu64 " times; all there are at %" PRIu64
           " of %" PRIu64 " moments, samples at the others; seed %" PRIu64 "\n",
           states->distinct, states->opened, states->complete, states->moments, seed);
    assert_true(states->distinct >= STATES_MIN);
}

static int test_all(void) {
    states = state_set_new((size_t)WORKLOADS * CASE_STATES * 8);
    struct CMUnitTest tests[WORKLOADS + 1];
    char names[WORKLOADS][96];
    for (size_t i = 0; i < WORKLOADS; i++) {
        snprintf(names[i], sizeof names[i], "no_state_loses_what_was_acknowledged: %s",
                 workloads[i].name);
        tests[i] = (struct CMUnitTest)cmocka_unit_test(no_state_loses_what_was_acknowledged);
        tests[i].name = names[i];
        tests[i].initial_state = (void *)(uintptr_t)&workloads[i];
    }
    tests[WORKLOADS] = (struct CMUnitTest)cmocka_unit_test(that_were_enough_states);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    state_set_free(states);
    return failed;
}

/* ---- by the million ---- */

/* A job's seeds are those that leave its number over, so no two do the same. */
static int run_job(unsigned job, unsigned jobs, uint64_t wanted) {
    const struct run_limits limits = {.budget = 400, .depth = 2, .states_max = 40000};
    for (uint64_t round = 0; states->distinct < wanted; round++) {
        for (size_t i = 0; i < WORKLOADS && states->distinct < wanted; i++) {
            if (!run_workload(&workloads[i], seed + round * jobs + job, &limits, states))
                return 1;
        }
    }
    return 0;
}

static void progress(time_t started, const char *end) {
    printf("crash: %" PRIu64 " distinct states, opened %" PRIu64 " times, %" PRIu64
           " combinations; all there are at %" PRIu64 " of %" PRIu64 " moments; %lld s%s",
           states->distinct, states->opened, states->visited, states->complete, states->moments,
           (long long)(time(NULL) - started), end);
    fflush(stdout);
}

static int run_jobs(unsigned jobs, uint64_t wanted) {
    states = state_set_new((size_t)wanted * 2);
    printf("crash: seed %" PRIu64 ", %u jobs, until %" PRIu64 " distinct states\n", seed, jobs,
           wanted);
    fflush(stdout);
    time_t started = time(NULL);
    for (unsigned job = 0; job < jobs; job++) {
        if (fork() == 0)
            exit(run_job(job, jobs, wanted));
    }
    int failed = 0;
    for (unsigned left = jobs; left > 0;) {
        int status;
        pid_t pid = waitpid(-1, &status, WNOHANG);
        if (pid > 0) {
            left--;
            failed += !WIFEXITED(status) || WEXITSTATUS(status) != 0;
            continue;
        }
        sleep(1);
        if ((time(NULL) - started) % 10 == 0)
            progress(started, "\n");
    }
    progress(started, failed == 0 ? ": nothing lost\n" : ": FAILED\n");
    state_set_free(states);
    return failed == 0 ? 0 : 1;
}

int main(int argc, char **argv) {
    seed = number_or(getenv("FELIX_TEST_SEED"), 1);
    uint64_t wanted = 0;
    unsigned jobs = 1;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--states") == 0)
            wanted = number_or(argv[i + 1], 0);
        else if (strcmp(argv[i], "--jobs") == 0)
            jobs = (unsigned)number_or(argv[i + 1], 1);
        else if (strcmp(argv[i], "--seed") == 0)
            seed = number_or(argv[i + 1], 1);
        else
            return 2;
    }
    return wanted == 0 ? test_all() : run_jobs(jobs, wanted);
}
