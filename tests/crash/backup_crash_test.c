/*
 * The power goes out while a backup is made, or restored. Whatever is on the disk then: a restore
 * refuses it, or gives every record; the directory that is restored into is not there, or whole.
 */
#include "storage/backup.h"

#include "../unit/storage/log_fixture.h"
#include "storage/generated.h"
#include "storage/survey.h"
#include "support/crash_states.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define SOURCE "root"
#define STATES_OF_AN_EVENT 60u
#define SEED 5u

/* What the states are held against. */
struct trial {
    struct memory_disk memory; /* a copy of the state, to work on */
    size_t states, accepted;
    bool done; /* what was done had ended */
};

static bool good_payload(void *context, const struct survey_segment *segment, uint64_t position,
                         const struct record *record) {
    assert_true(generated_is(record->offset, FIXTURE_PAYLOAD, record->payload));
    return true;
}

/* Both logs of the root `dir` have all that the fixture put there. */
static void assert_whole(const struct disk *disk, const char *dir) {
    static const char *const names[] = {"one", "two"};
    for (size_t i = 0; i < 2; i++) {
        char path[MEMORY_PATH_BYTES];
        assert_in_range(snprintf(path, sizeof path, "%s/%s", dir, names[i]), 1, sizeof path - 1);
        const struct survey_options options = {.on_record = good_payload};
        struct survey survey;
        assert_int_equal(survey_log(disk, path, &options, &survey, NULL), FELIX_OK);
        assert_int_equal(survey.records, 30);
        assert_int_equal(survey.oldest, 0);
        assert_int_equal(survey.end, 30);
        assert_int_equal(survey.damage_count, 0);
        survey_deinit(&survey);
    }
}

static void fill(struct memory_disk *memory) {
    memory_disk_init(memory);
    memory_disk_add_dir(memory, SOURCE);
    fixture_log(memory, SOURCE "/one");
    fixture_log(memory, SOURCE "/two");
}

static void make(const struct disk *disk) {
    const struct backup_request request = {.source = SOURCE, .target = "b", .node = true};
    struct backup_result result;
    assert_int_equal(backup_make(disk, &request, &result, NULL), FELIX_OK);
    backup_result_deinit(&result);
}

static enum felix_err restore(const struct disk *disk) {
    const struct restore_request request = {.source = "b", .target = "r"};
    struct backup_result result;
    enum felix_err err = backup_restore(disk, &request, &result, NULL);
    backup_result_deinit(&result);
    return err;
}

/* Visits the states after each event of a trace, whose last event is a mark. */
static void visit_all(const struct crash_disk *trace, struct trial *trial, crash_visit visit) {
    struct rng rng;
    rng_seed(&rng, SEED);
    memory_disk_init(&trial->memory);
    struct crash_states *states = crash_states_new(trace);
    for (const struct crash_event *event = crash_states_step(states); event != NULL;
         event = crash_states_step(states)) {
        trial->done = event->kind == CRASH_MARK;
        (void)crash_states_visit(states, STATES_OF_AN_EVENT, &rng, visit, trial);
    }
    crash_states_free(states);
    memory_disk_deinit(&trial->memory);
    printf("%zu states, %zu of them complete\n", trial->states, trial->accepted);
    assert_in_range(trial->states, 500, 1000000);
    assert_in_range(trial->accepted, 1, trial->states - 1);
}

static void after_a_backup(void *user, const struct memory_disk *state) {
    struct trial *trial = user;
    memory_disk_copy(&trial->memory, state);
    struct disk disk = memory_disk_table(&trial->memory);
    enum felix_err err = restore(&disk);
    trial->states++;
    if (err == FELIX_OK) {
        assert_whole(&disk, "r");
        trial->accepted++;
    } else {
        assert_false(trial->done);
        assert_true(err == FELIX_NOT_FOUND || err == FELIX_DAMAGED);
    }
    assert_whole(&disk, SOURCE);
}

static void a_backup_is_refused_or_whole(void **state) {
    struct memory_disk start;
    fill(&start);
    struct crash_disk trace;
    crash_disk_init(&trace, &start);
    struct disk disk = crash_disk_table(&trace);
    make(&disk);
    (void)crash_disk_mark(&trace, 0);
    struct trial trial = {.states = 0};
    visit_all(&trace, &trial, after_a_backup);
    crash_disk_deinit(&trace);
    memory_disk_deinit(&start);
}

static void ignore(void *user, const char *name) {
}

static void after_a_restore(void *user, const struct memory_disk *state) {
    struct trial *trial = user;
    memory_disk_copy(&trial->memory, state);
    struct disk disk = memory_disk_table(&trial->memory);
    bool there = disk.ops->list(disk.context, "r", ignore, NULL) == 0;
    trial->states++;
    assert_true(there || !trial->done);
    if (there) {
        trial->accepted++;
    } else {
        /* The next attempt goes through what the first one left. */
        assert_int_equal(restore(&disk), FELIX_OK);
    }
    assert_whole(&disk, "r");
}

static void a_restored_log_is_not_there_or_whole(void **state) {
    struct memory_disk start;
    fill(&start);
    struct disk disk = memory_disk_table(&start);
    make(&disk);
    struct crash_disk trace;
    crash_disk_init(&trace, &start);
    disk = crash_disk_table(&trace);
    assert_int_equal(restore(&disk), FELIX_OK);
    (void)crash_disk_mark(&trace, 0);
    struct trial trial = {.states = 0};
    visit_all(&trace, &trial, after_a_restore);
    crash_disk_deinit(&trace);
    memory_disk_deinit(&start);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_backup_is_refused_or_whole),
        cmocka_unit_test(a_restored_log_is_not_there_or_whole),
    };
    return cmocka_run_group_tests_name("crash/backup", tests, NULL, NULL);
}
