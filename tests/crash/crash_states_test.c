/* The enumeration of crash states itself, on traces so small that every state can be named. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>

#include "support/crash_states.h"

#define STATES_MAX 256

/* The distinct states of a position, each as a text: "a=AAB- d/" (a letter per sector, of its
 * first and its last byte when these differ). */
struct seen {
    char texts[STATES_MAX][128];
    size_t count;
};

static char letter(uint8_t byte) {
    return byte == 0 ? '-' : (char)byte;
}

static void describe(char *out, size_t room, const struct memory_disk *state) {
    size_t used = 0;
    out[0] = '\0';
    for (char first = 'a'; first <= 'z'; first++) {
        const char path[] = {first, '\0'};
        const struct memory_file *file = memory_disk_find(state, path);
        if (file == NULL)
            continue;
        assert_true(used + 4 + file->length / 256 < room);
        out[used++] = first;
        out[used++] = '=';
        for (uint64_t at = 0; at < file->length; at += 512) {
            uint64_t end = at + 512 < file->length ? at + 512 : file->length;
            uint8_t bytes[2];
            memory_file_read(file, &bytes[0], 1, at);
            memory_file_read(file, &bytes[1], 1, end - 1);
            out[used++] = letter(bytes[0]);
            if (bytes[1] != bytes[0])
                out[used++] = letter(bytes[1]);
        }
        out[used++] = ' ';
        out[used] = '\0';
    }
}

static void on_state(void *user, const struct memory_disk *state) {
    struct seen *seen = user;
    char text[128];
    describe(text, sizeof text, state);
    for (size_t i = 0; i < seen->count; i++) {
        if (strcmp(seen->texts[i], text) == 0)
            return;
    }
    assert_true(seen->count < STATES_MAX);
    memcpy(seen->texts[seen->count++], text, sizeof text);
}

/* The states after the whole trace. */
static void look(const struct crash_disk *disk, size_t budget, bool all, struct seen *ret) {
    struct rng rng;
    rng_seed(&rng, 1);
    ret->count = 0;
    struct crash_states *states = crash_states_new(disk);
    while (crash_states_step(states) != NULL)
        continue;
    assert_int_equal(crash_states_visit(states, budget, &rng, on_state, ret), all);
    crash_states_free(states);
}

static bool has(const struct seen *seen, const char *text) {
    for (size_t i = 0; i < seen->count; i++) {
        if (strcmp(seen->texts[i], text) == 0)
            return true;
    }
    return false;
}

static struct seen seen;

static int create(const struct disk *table, const char *path) {
    int file = table->ops->open(table->context, path, DISK_CREATE);
    assert_true(file >= 0);
    return file;
}

static void write_letters(const struct disk *table, int file, const char *letters, uint64_t at) {
    for (; *letters != '\0'; letters++, at += 512) {
        uint8_t sector[512];
        memset(sector, *letters, sizeof sector);
        assert_int_equal(table->ops->pwrite(table->context, file, sector, sizeof sector, at), 512);
    }
}

/* A disk with the file "a", which is safe and holds `letters`. */
static struct disk start(struct crash_disk *disk, const char *letters, int *ret_file) {
    struct memory_disk first;
    memory_disk_init(&first);
    int number = memory_disk_add_file(&first, "a", slice_of(NULL, 0), 0);
    for (size_t i = 0; letters[i] != '\0'; i++) {
        uint8_t sector[512];
        memset(sector, letters[i], sizeof sector);
        memory_file_write(&first.files[number], slice_of(sector, 512), i * 512);
    }
    crash_disk_init(disk, &first);
    memory_disk_deinit(&first);
    struct disk table = crash_disk_table(disk);
    *ret_file = table.ops->open(table.context, "a", DISK_WRITE);
    assert_true(*ret_file >= 0);
    return table;
}

static void a_write_without_a_sync_tears_at_every_sector(void **state) {
    struct crash_disk disk;
    int file;
    struct disk table = start(&disk, "AB", &file);
    uint8_t bytes[1024];
    memset(bytes, 'C', sizeof bytes);
    table.ops->pwrite(table.context, file, bytes, sizeof bytes, 0);
    look(&disk, 1000, true, &seen);
    assert_int_equal(seen.count, 4);
    assert_true(has(&seen, "a=AB ") && has(&seen, "a=CB ") && has(&seen, "a=AC ") &&
                has(&seen, "a=CC "));
    table.ops->sync(table.context, file);
    look(&disk, 1000, true, &seen);
    assert_int_equal(seen.count, 1);
    assert_true(has(&seen, "a=CC "));
    crash_disk_deinit(&disk);
}

static void of_two_writes_to_a_sector_any_may_be_missing(void **state) {
    struct crash_disk disk;
    int file;
    struct disk table = start(&disk, "A", &file);
    uint8_t half[256];
    memset(half, 'B', sizeof half);
    table.ops->pwrite(table.context, file, half, sizeof half, 0);
    memset(half, 'C', sizeof half);
    table.ops->pwrite(table.context, file, half, sizeof half, 256);
    look(&disk, 1000, true, &seen);
    assert_int_equal(seen.count, 4);
    assert_true(has(&seen, "a=A ") && has(&seen, "a=BA ") && has(&seen, "a=AC ") &&
                has(&seen, "a=BC "));
    crash_disk_deinit(&disk);
}

static void a_longer_file_has_any_of_its_lengths_and_zeros(void **state) {
    struct crash_disk disk;
    int file;
    struct disk table = start(&disk, "A", &file);
    uint8_t bytes[1024];
    memset(bytes, 'B', sizeof bytes);
    table.ops->pwrite(table.context, file, bytes, sizeof bytes, 512);
    look(&disk, 1000, true, &seen);
    assert_int_equal(seen.count, 1 + 2 + 4);
    assert_true(has(&seen, "a=A ") && has(&seen, "a=A- ") && has(&seen, "a=AB ") &&
                has(&seen, "a=A-- ") && has(&seen, "a=AB- ") && has(&seen, "a=A-B ") &&
                has(&seen, "a=ABB "));
    crash_disk_deinit(&disk);
}

static void what_a_shorter_file_gave_up_may_come_back_until_it_is_synced(void **state) {
    struct crash_disk disk;
    int file;
    struct disk table = start(&disk, "AB", &file);
    table.ops->truncate(table.context, file, 512);
    table.ops->truncate(table.context, file, 1024);
    look(&disk, 1000, true, &seen);
    assert_int_equal(seen.count, 3);
    assert_true(has(&seen, "a=AB ") && has(&seen, "a=A- ") && has(&seen, "a=A "));
    table.ops->sync(table.context, file);
    look(&disk, 1000, true, &seen);
    assert_int_equal(seen.count, 1);
    assert_true(has(&seen, "a=A- "));
    crash_disk_deinit(&disk);
}

static int write_more(void *user, enum crash_call call) {
    static bool busy;
    if (call == CRASH_CALL_SYNC && !busy) {
        busy = true;
        const struct disk *table = user;
        write_letters(table, 0, "C", 512);
        busy = false;
    }
    return 0;
}

static void a_sync_covers_what_was_written_before_it_began(void **state) {
    struct crash_disk disk;
    int file;
    struct disk table = start(&disk, "AA", &file);
    disk.before = write_more;
    disk.user = &table;
    assert_int_equal(file, 0);
    write_letters(&table, file, "B", 0);
    table.ops->sync(table.context, file);
    look(&disk, 1000, true, &seen);
    assert_int_equal(seen.count, 2);
    assert_true(has(&seen, "a=BA ") && has(&seen, "a=BC "));
    crash_disk_deinit(&disk);
}

static int refuse_sync(void *user, enum crash_call call) {
    return call == CRASH_CALL_SYNC ? -EIO : 0;
}

static void what_a_failed_sync_was_to_keep_stays_in_doubt(void **state) {
    struct crash_disk disk;
    int file;
    struct disk table = start(&disk, "AA", &file);
    disk.before = refuse_sync;
    write_letters(&table, file, "B", 0);
    assert_int_equal(table.ops->sync(table.context, file), -EIO);
    disk.before = NULL;
    write_letters(&table, file, "C", 512);
    assert_int_equal(table.ops->sync(table.context, file), 0);
    look(&disk, 1000, true, &seen);
    assert_int_equal(seen.count, 2);
    assert_true(has(&seen, "a=AC ") && has(&seen, "a=BC "));
    /* Written again and synced, it is there. */
    write_letters(&table, file, "D", 0);
    assert_int_equal(table.ops->sync(table.context, file), 0);
    look(&disk, 1000, true, &seen);
    assert_int_equal(seen.count, 1);
    assert_true(has(&seen, "a=DC "));
    crash_disk_deinit(&disk);
}

static void names_are_in_doubt_until_their_directory_is_synced(void **state) {
    struct crash_disk disk;
    crash_disk_init(&disk, NULL);
    struct disk table = crash_disk_table(&disk);
    int file = create(&table, "b");
    write_letters(&table, file, "B", 0);
    table.ops->sync(table.context, file);
    assert_int_equal(table.ops->rename(table.context, "b", "c"), 0);
    look(&disk, 1000, true, &seen);
    assert_int_equal(seen.count, 3);
    assert_true(has(&seen, "") && has(&seen, "b=B ") && has(&seen, "c=B "));
    table.ops->sync_dir(table.context, "/");
    look(&disk, 1000, true, &seen);
    assert_int_equal(seen.count, 1);
    assert_true(has(&seen, "c=B "));
    crash_disk_deinit(&disk);
}

static void a_rename_moves_its_own_file_or_none(void **state) {
    struct crash_disk disk;
    int file;
    struct disk table = start(&disk, "A", &file);
    table.ops->remove(table.context, "a");
    file = create(&table, "a");
    write_letters(&table, file, "B", 0);
    table.ops->sync(table.context, file);
    table.ops->rename(table.context, "a", "b");
    look(&disk, 1000, true, &seen);
    assert_int_equal(seen.count, 4);
    assert_true(has(&seen, "a=A ") && has(&seen, "") && has(&seen, "a=B ") && has(&seen, "b=B "));
    crash_disk_deinit(&disk);
}

static void a_removal_may_overtake_another(void **state) {
    struct crash_disk disk;
    crash_disk_init(&disk, NULL);
    struct disk table = crash_disk_table(&disk);
    create(&table, "b");
    create(&table, "c");
    table.ops->sync_dir(table.context, "/");
    table.ops->remove(table.context, "b");
    table.ops->remove(table.context, "c");
    look(&disk, 1000, true, &seen);
    assert_int_equal(seen.count, 4);
    assert_true(has(&seen, "b= ") && has(&seen, "c= ") && has(&seen, "b= c= ") && has(&seen, ""));
    crash_disk_deinit(&disk);
}

static void a_missing_directory_takes_its_files_along(void **state) {
    struct crash_disk disk;
    crash_disk_init(&disk, NULL);
    struct disk table = crash_disk_table(&disk);
    table.ops->make_dir(table.context, "d");
    create(&table, "d/a");
    table.ops->sync_dir(table.context, "d");
    struct rng rng;
    rng_seed(&rng, 1);
    struct crash_states *states = crash_states_new(&disk);
    while (crash_states_step(states) != NULL)
        continue;
    seen.count = 0;
    assert_true(crash_states_visit(states, 10, &rng, on_state, &seen));
    assert_int_equal(seen.count, 1); /* nothing at the root; the directory is not described */
    crash_states_free(states);
    crash_disk_deinit(&disk);
}

static void more_than_the_budget_is_sampled_with_the_extremes(void **state) {
    struct crash_disk disk;
    int file;
    struct disk table = start(&disk, "AAAAAAAAAAAA", &file);
    write_letters(&table, file, "BBBBBBBBBBBB", 0);
    look(&disk, 100, false, &seen);
    assert_true(seen.count > 50 && seen.count <= 100);
    assert_true(has(&seen, "a=AAAAAAAAAAAA ") && has(&seen, "a=BBBBBBBBBBBB ") &&
                has(&seen, "a=AAAABAAAAAAA ") && has(&seen, "a=BBBBABBBBBBB ") &&
                has(&seen, "a=BBBBBAAAAAAA ") && has(&seen, "a=AAAAAABBBBBB "));
    crash_disk_deinit(&disk);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_write_without_a_sync_tears_at_every_sector),
        cmocka_unit_test(of_two_writes_to_a_sector_any_may_be_missing),
        cmocka_unit_test(a_longer_file_has_any_of_its_lengths_and_zeros),
        cmocka_unit_test(what_a_shorter_file_gave_up_may_come_back_until_it_is_synced),
        cmocka_unit_test(a_sync_covers_what_was_written_before_it_began),
        cmocka_unit_test(what_a_failed_sync_was_to_keep_stays_in_doubt),
        cmocka_unit_test(names_are_in_doubt_until_their_directory_is_synced),
        cmocka_unit_test(a_rename_moves_its_own_file_or_none),
        cmocka_unit_test(a_removal_may_overtake_another),
        cmocka_unit_test(a_missing_directory_takes_its_files_along),
        cmocka_unit_test(more_than_the_budget_is_sampled_with_the_extremes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
