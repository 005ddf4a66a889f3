/* Backups: what is in them, what a restore accepts, and what others do meanwhile. */
#include "storage/backup.h"

#include "log_fixture.h"
#include "storage/generated.h"
#include "storage/record_log.h"
#include "storage/survey.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define DIR "log"
#define SEGMENT_BYTES (SEGMENT_HEADER_BYTES + 10 * FIXTURE_RECORD)
#define AT_RECORD(n) (SEGMENT_HEADER_BYTES + (n) * FIXTURE_RECORD)

struct world {
    struct memory_disk memory;
    struct disk disk; /* `memory`, with `ops` in its place */
    struct disk_ops ops;
    const struct disk_ops *below;
    struct backup_result result;
    struct felix_error error;
    void (*on_open)(struct world *w, const char *path); /* before it; may be NULL */
    unsigned calls, fail_at;                            /* of those that can fail; 0: none */
    int fail_with;
};

static struct world *world; /* the operations have the memory disk as their context */

static bool fails(void) {
    return ++world->calls == world->fail_at;
}

static int open_(void *context, const char *path, enum disk_open how) {
    if (world->on_open != NULL)
        world->on_open(world, path);
    return fails() ? world->fail_with : world->below->open(context, path, how);
}

static ssize_t pread_(void *context, int file, void *data, size_t bytes, uint64_t at) {
    return fails() ? world->fail_with : world->below->pread(context, file, data, bytes, at);
}

static ssize_t pwrite_(void *context, int file, const void *data, size_t bytes, uint64_t at) {
    return fails() ? world->fail_with : world->below->pwrite(context, file, data, bytes, at);
}

static int truncate_(void *context, int file, uint64_t bytes) {
    return fails() ? world->fail_with : world->below->truncate(context, file, bytes);
}

static int sync_(void *context, int file) {
    return fails() ? world->fail_with : world->below->sync(context, file);
}

static int size_(void *context, int file, uint64_t *ret) {
    return fails() ? world->fail_with : world->below->size(context, file, ret);
}

static int make_dir_(void *context, const char *path) {
    return fails() ? world->fail_with : world->below->make_dir(context, path);
}

static int sync_dir_(void *context, const char *path) {
    return fails() ? world->fail_with : world->below->sync_dir(context, path);
}

static int list_(void *context, const char *path, void (*on_name)(void *user, const char *name),
                 void *user) {
    return fails() ? world->fail_with : world->below->list(context, path, on_name, user);
}

static int rename_(void *context, const char *from, const char *to) {
    return fails() ? world->fail_with : world->below->rename(context, from, to);
}

static int set_up(void **state) {
    struct world *w = calloc(1, sizeof *w);
    memory_disk_init(&w->memory);
    w->disk = memory_disk_table(&w->memory);
    w->below = w->disk.ops;
    w->ops = *w->below;
    w->ops.open = open_;
    w->ops.pread = pread_;
    w->ops.pwrite = pwrite_;
    w->ops.truncate = truncate_;
    w->ops.sync = sync_;
    w->ops.size = size_;
    w->ops.make_dir = make_dir_;
    w->ops.sync_dir = sync_dir_;
    w->ops.list = list_;
    w->ops.rename = rename_;
    w->disk.ops = &w->ops;
    fixture_log(&w->memory, DIR);
    world = w;
    *state = w;
    return 0;
}

static int tear_down(void **state) {
    struct world *w = *state;
    assert_int_equal(memory_disk_open_handles(&w->memory), 0);
    backup_result_deinit(&w->result);
    memory_disk_deinit(&w->memory);
    free(w);
    return 0;
}

static void ignore_name(void *user, const char *name) {
}

static bool there(struct world *w, const char *dir) {
    return w->below->list(&w->memory, dir, ignore_name, NULL) == 0;
}

static enum felix_err make(struct world *w, const char *source, const char *target, bool node) {
    backup_result_deinit(&w->result);
    const struct backup_request request = {
        .source = source, .target = target, .node = node, .now_us = 77};
    return backup_make(&w->disk, &request, &w->result, &w->error);
}

static enum felix_err restore(struct world *w, const char *source, const char *target) {
    backup_result_deinit(&w->result);
    const struct restore_request request = {.source = source, .target = target};
    return backup_restore(&w->disk, &request, &w->result, &w->error);
}

/* The log in `dir` opens in order and has the generated records first .. end-1. */
static void assert_log(struct world *w, const char *dir, uint64_t first, uint64_t end) {
    const struct record_log_settings settings = {.sync = LOG_SYNC_ON_COMMIT,
                                                 .segment_bytes = 1 << 20,
                                                 .index_spacing_bytes = 4096,
                                                 .read_records_max = 1000};
    struct record_log *log;
    struct log_recovery report;
    assert_int_equal(record_log_open(&w->disk, dir, "log", &settings, &log, &report, &w->error),
                     FELIX_OK);
    assert_true(report.clean || end == first);
    assert_int_equal(report.oldest, first);
    assert_int_equal(report.end, end);
    for (uint64_t at = first; at < end;) {
        struct log_page page;
        uint64_t available;
        assert_int_equal(record_log_read(log, at, 1 << 20, &page, &available, &w->error), FELIX_OK);
        assert_int_equal(page.first, at);
        struct payload_cursor cursor = payload_walk(&page.list);
        struct slice payload;
        while (payload_next(&cursor, &payload))
            assert_true(generated_is(at++, FIXTURE_PAYLOAD, payload));
        buf_unref(page.block);
    }
    assert_int_equal(record_log_close(log), FELIX_OK);
}

static void a_log_comes_back_as_it_was(void **state) {
    struct world *w = *state;
    assert_int_equal(make(w, DIR, "b", false), FELIX_OK);
    assert_false(w->result.manifest.node);
    assert_string_equal(w->result.manifest.logs[0].name, "log");
    assert_int_equal(w->result.manifest.logs[0].range.end, 30);
    assert_int_equal(w->result.manifest.logs[0].files_count, 3);
    assert_int_equal(w->result.bytes, 3 * SEGMENT_BYTES);
    assert_int_equal(restore(w, "b", "r"), FELIX_OK);
    assert_int_equal(w->result.bytes, 3 * SEGMENT_BYTES);
    assert_log(w, "r", 0, 30);
}

static void a_node_comes_back_with_every_log_of_it(void **state) {
    struct world *w = *state;
    memory_disk_add_dir(&w->memory, "root");
    (void)memory_disk_add_file(&w->memory, "root/lock", slice_of("", 0), 0);
    fixture_log(&w->memory, "root/one");
    fixture_log(&w->memory, "root/two");
    memory_disk_add_dir(&w->memory, "root/empty");
    fixture_log(&w->memory, "root/three.removed-0");
    (void)fixture_segment(&w->memory, "root/two", 3, 30, 31);
    assert_int_equal(make(w, "root", "b", true), FELIX_OK);
    assert_int_equal(w->result.manifest.logs_count, 2);
    assert_int_equal(restore(w, "b", "r"), FELIX_OK);
    assert_log(w, "r/one", 0, 30);
    assert_log(w, "r/two", 0, 31);
}

static void what_is_behind_the_last_record_is_left_out(void **state) {
    struct world *w = *state;
    fixture_checkpoint(&w->memory, DIR, (struct log_mark){28, 2, AT_RECORD(8)});
    fixture_flip(&w->memory, DIR, 2, AT_RECORD(9));
    memory_file_set_length(fixture_file(&w->memory, DIR, 2), 1 << 20);
    assert_int_equal(make(w, DIR, "b", false), FELIX_OK);
    assert_int_equal(w->result.manifest.logs[0].range.end, 29);
    assert_int_equal(w->result.manifest.logs[0].damage_count, 0);
    assert_int_equal(w->result.manifest.logs[0].files[2].bytes, AT_RECORD(9));
    assert_int_equal(restore(w, "b", "r"), FELIX_OK);
    assert_log(w, "r", 0, 29);
}

static void a_log_that_has_only_begun_comes_back_empty(void **state) {
    struct world *w = *state;
    memory_disk_add_dir(&w->memory, "new");
    (void)memory_disk_add_file(&w->memory, "new/00000000000000000000.log", slice_of("FL", 2), 2);
    assert_int_equal(make(w, "new", "b", false), FELIX_OK);
    assert_int_equal(w->result.manifest.logs[0].files_count, 0);
    assert_int_equal(restore(w, "b", "r"), FELIX_OK);
    assert_log(w, "r", 0, 0);
}

static void an_empty_log_goes_on_at_its_offset(void **state) {
    struct world *w = *state;
    memory_disk_add_dir(&w->memory, "new");
    (void)memory_disk_add_file(&w->memory, "new/00000000000000000003.log", slice_of("FL", 2), 2);
    fixture_checkpoint(&w->memory, "new", (struct log_mark){30, 3, SEGMENT_HEADER_BYTES});
    assert_int_equal(make(w, "new", "b", false), FELIX_OK);
    assert_int_equal(restore(w, "b", "r"), FELIX_OK);
    assert_log(w, "r", 30, 30);
}

static void nothing_is_overwritten(void **state) {
    struct world *w = *state;
    assert_int_equal(make(w, DIR, "b", false), FELIX_OK);
    uint64_t before = memory_disk_hash(&w->memory);
    assert_int_equal(make(w, DIR, "b", false), FELIX_EXISTS);
    assert_int_equal(restore(w, "b", DIR), FELIX_EXISTS);
    assert_true(memory_disk_hash(&w->memory) == before);
    /* An empty directory is nothing. */
    memory_disk_add_dir(&w->memory, "r");
    assert_int_equal(restore(w, "b", "r"), FELIX_OK);
}

static void every_changed_byte_of_a_backup_is_refused(void **state) {
    struct world *w = *state;
    assert_int_equal(make(w, DIR, "b", false), FELIX_OK);
    static const char manifest[] = "b/" MANIFEST_FILE_NAME;
    static const char *const files[] = {manifest, "b/log/00000000000000000000.log",
                                        "b/log/00000000000000000001.log",
                                        "b/log/00000000000000000002.log"};
    for (size_t i = 0; i < 4; i++) {
        struct memory_file *file = memory_disk_find(&w->memory, files[i]);
        for (size_t at = 0; at < file->stored; at += i == 0 ? 1 : 7) {
            file->data[at] ^= 1;
            enum felix_err err = restore(w, "b", "r");
            assert_true(err == FELIX_DAMAGED || (i == 0 && err == FELIX_UNSUPPORTED));
            assert_false(there(w, "r"));
            assert_false(there(w, "r.restoring"));
            file = memory_disk_find(&w->memory, files[i]); /* others came and went */
            file->data[at] ^= 1;
        }
    }
    assert_int_equal(restore(w, "b", "r"), FELIX_OK);
}

static void a_backup_without_a_manifest_is_none(void **state) {
    struct world *w = *state;
    assert_int_equal(make(w, DIR, "b", false), FELIX_OK);
    assert_int_equal(w->below->remove(&w->memory, "b/" MANIFEST_FILE_NAME), 0);
    assert_int_equal(restore(w, "b", "r"), FELIX_NOT_FOUND);
}

static void a_manifest_that_says_more_than_there_is_is_refused(void **state) {
    struct world *w = *state;
    assert_int_equal(make(w, DIR, "b", false), FELIX_OK);
    struct manifest *manifest = &w->result.manifest;
    manifest->logs[0].range.end = manifest->logs[0].files[2].end = 31;
    struct text text = {0};
    manifest_encode(manifest, &text);
    struct memory_file *file = memory_disk_find(&w->memory, "b/" MANIFEST_FILE_NAME);
    memory_file_set_length(file, 0);
    memory_file_write(file, slice_of(text.data, text.len), 0);
    text_deinit(&text);
    assert_int_equal(restore(w, "b", "r"), FELIX_DAMAGED);
    assert_non_null(strstr(w->error.text, "records"));
}

static void damaged_records_are_named_and_come_back_only_when_wanted(void **state) {
    struct world *w = *state;
    fixture_flip(&w->memory, DIR, 1, AT_RECORD(4) + RECORD_HEADER_BYTES);
    assert_int_equal(make(w, DIR, "b", false), FELIX_OK);
    assert_int_equal(w->result.manifest.logs[0].damage_count, 1);
    assert_int_equal(w->result.manifest.logs[0].damage[0].first, 14);
    assert_int_equal(w->result.manifest.logs[0].damage[0].end, 15);
    assert_int_equal(restore(w, "b", "r"), FELIX_DAMAGED);
    assert_non_null(strstr(w->error.text, "14"));
    backup_result_deinit(&w->result);
    const struct restore_request request = {.source = "b", .target = "r", .damaged_too = true};
    assert_int_equal(backup_restore(&w->disk, &request, &w->result, &w->error), FELIX_OK);
    struct survey survey;
    assert_int_equal(survey_log(&w->disk, "r", NULL, &survey, NULL), FELIX_OK);
    assert_int_equal(survey.damage_count, 1);
    assert_int_equal(survey.records, 29);
    survey_deinit(&survey);
}

/* Retention takes the two oldest segments when the second one's turn has come. */
static void retain_meanwhile(struct world *w, const char *path) {
    if (strcmp(path, DIR "/00000000000000000001.log") != 0)
        return;
    w->on_open = NULL;
    assert_int_equal(w->below->remove(&w->memory, DIR "/00000000000000000000.log"), 0);
    assert_int_equal(w->below->remove(&w->memory, DIR "/00000000000000000001.log"), 0);
}

static void segments_that_retention_takes_meanwhile_are_left_out(void **state) {
    struct world *w = *state;
    w->on_open = retain_meanwhile;
    assert_int_equal(make(w, DIR, "b", false), FELIX_OK);
    assert_int_equal(w->result.removed_under_us, 2);
    assert_int_equal(w->result.manifest.logs[0].range.first, 20);
    assert_int_equal(w->result.manifest.logs[0].range.end, 30);
    assert_int_equal(restore(w, "b", "r"), FELIX_OK);
    assert_log(w, "r", 20, 30);
}

/* The newest segment grows, rolls, and everything but its successor is removed. */
static void roll_meanwhile(struct world *w, const char *path) {
    if (strcmp(path, DIR "/00000000000000000000.log") != 0)
        return;
    w->on_open = NULL;
    (void)fixture_segment(&w->memory, DIR, 3, 30, 35);
    assert_int_equal(w->below->remove(&w->memory, DIR "/00000000000000000000.log"), 0);
    assert_int_equal(w->below->remove(&w->memory, DIR "/00000000000000000001.log"), 0);
    assert_int_equal(w->below->remove(&w->memory, DIR "/00000000000000000002.log"), 0);
}

static void the_newest_segment_is_kept_even_when_retention_takes_it_meanwhile(void **state) {
    struct world *w = *state;
    w->on_open = roll_meanwhile;
    assert_int_equal(make(w, DIR, "b", false), FELIX_OK);
    assert_int_equal(w->result.manifest.logs[0].range.first, 20);
    assert_int_equal(w->result.manifest.logs[0].range.end, 30);
    assert_int_equal(restore(w, "b", "r"), FELIX_OK);
    assert_log(w, "r", 20, 30);
}

/* A name in a directory that is being emptied; the memory disk lists a copy. */
static void remove_name(void *user, const char *name) {
    char path[PATH_MAX];
    int length = snprintf(path, sizeof path, "%s/%s", (const char *)user, name);
    assert_in_range(length, 1, sizeof path - 1);
    assert_int_equal(world->below->remove(&world->memory, path), 0);
}

static void remove_dir(struct world *w, const char *dir) {
    char copy[16];
    assert_in_range(snprintf(copy, sizeof copy, "%s", dir), 1, sizeof copy - 1);
    assert_int_equal(w->below->list(&w->memory, dir, remove_name, copy), 0);
    assert_int_equal(w->below->remove_dir(&w->memory, dir), 0);
}

static void a_backup_that_fails_says_so_and_leaves_nothing(void **state) {
    struct world *w = *state;
    static const int errors[] = {-EIO, -ENOSPC, -ENOMEM};
    unsigned failures = 0;
    for (unsigned i = 1;; i++) {
        w->calls = 0;
        w->fail_at = i;
        w->fail_with = errors[i % 3];
        enum felix_err err = make(w, DIR, "b", false);
        bool reached = w->calls >= i;
        w->fail_at = 0;
        if (!reached) {
            assert_int_equal(err, FELIX_OK);
            break;
        }
        failures++;
        if (err == FELIX_OK) {
            /* It was about the index of the copy, of which there is none. */
            backup_result_deinit(&w->result);
            assert_int_equal(backup_check(&w->disk, "b", &w->result, &w->error), FELIX_OK);
            remove_dir(w, "b/log");
            remove_dir(w, "b");
            continue;
        }
        assert_true(err == FELIX_STORAGE || err == FELIX_DISK_FULL || err == FELIX_NO_MEMORY);
        assert_true(w->error.text[0] != '\0');
        assert_int_equal(memory_disk_open_handles(&w->memory), 0);
        assert_false(there(w, "b"));
    }
    assert_in_range(failures, 30, 1000);
    assert_int_equal(restore(w, "b", "r"), FELIX_OK);
}

static void a_restore_that_fails_says_so_and_leaves_no_target(void **state) {
    struct world *w = *state;
    assert_int_equal(make(w, DIR, "b", false), FELIX_OK);
    unsigned failures = 0;
    for (unsigned i = 1;; i++) {
        w->calls = 0;
        w->fail_at = i;
        w->fail_with = i % 2 == 0 ? -EIO : -ENOSPC;
        enum felix_err err = restore(w, "b", "r");
        bool reached = w->calls >= i;
        w->fail_at = 0;
        if (!reached) {
            assert_int_equal(err, FELIX_OK);
            break;
        }
        assert_int_equal(memory_disk_open_handles(&w->memory), 0);
        failures++;
        /* Only when the name of the target could not be synced, it is there, and whole. */
        struct survey survey;
        if (survey_log(&w->disk, "r", NULL, &survey, NULL) == FELIX_OK) {
            assert_int_equal(survey.records, 30);
            survey_deinit(&survey);
            remove_dir(w, "r");
        } else {
            assert_true(err == FELIX_STORAGE || err == FELIX_DISK_FULL);
        }
        assert_false(there(w, "r"));
        assert_false(there(w, "r.restoring"));
    }
    assert_in_range(failures, 30, 1000);
    assert_log(w, "r", 0, 30);
}

static int clones;

static int clone_(void *context, int from, int to) {
    struct memory_file *file = &world->memory.files[memory_disk_file_of(&world->memory, from)];
    clones++;
    return disk_write_all(&world->disk, to, file->data, file->stored, 0);
}

static int no_clone(void *context, int from, int to) {
    clones++;
    return -EOPNOTSUPP;
}

static void blocks_are_shared_where_the_file_system_can(void **state) {
    struct world *w = *state;
    clones = 0;
    w->ops.clone = clone_;
    assert_int_equal(make(w, DIR, "b", false), FELIX_OK);
    assert_int_equal(clones, 3);
    w->ops.clone = no_clone;
    assert_int_equal(restore(w, "b", "r"), FELIX_OK);
    assert_int_equal(clones, 6);
    assert_log(w, "r", 0, 30);
}

static void checking_a_backup_changes_nothing(void **state) {
    struct world *w = *state;
    assert_int_equal(make(w, DIR, "b", false), FELIX_OK);
    uint64_t before = memory_disk_hash(&w->memory);
    backup_result_deinit(&w->result);
    assert_int_equal(backup_check(&w->disk, "b", &w->result, &w->error), FELIX_OK);
    assert_int_equal(w->result.manifest.logs[0].range.end, 30);
    assert_true(memory_disk_hash(&w->memory) == before);
    memory_disk_find(&w->memory, "b/log/00000000000000000001.log")->data[100] ^= 1;
    backup_result_deinit(&w->result);
    assert_int_equal(backup_check(&w->disk, "b", &w->result, &w->error), FELIX_DAMAGED);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(a_log_comes_back_as_it_was),
        TEST(a_node_comes_back_with_every_log_of_it),
        TEST(what_is_behind_the_last_record_is_left_out),
        TEST(a_log_that_has_only_begun_comes_back_empty),
        TEST(an_empty_log_goes_on_at_its_offset),
        TEST(nothing_is_overwritten),
        TEST(every_changed_byte_of_a_backup_is_refused),
        TEST(a_backup_without_a_manifest_is_none),
        TEST(a_manifest_that_says_more_than_there_is_is_refused),
        TEST(damaged_records_are_named_and_come_back_only_when_wanted),
        TEST(segments_that_retention_takes_meanwhile_are_left_out),
        TEST(the_newest_segment_is_kept_even_when_retention_takes_it_meanwhile),
        TEST(a_backup_that_fails_says_so_and_leaves_nothing),
        TEST(a_restore_that_fails_says_so_and_leaves_no_target),
        TEST(blocks_are_shared_where_the_file_system_can),
        TEST(checking_a_backup_changes_nothing),
    };
    return cmocka_run_group_tests_name("storage/backup", tests, NULL, NULL);
}
