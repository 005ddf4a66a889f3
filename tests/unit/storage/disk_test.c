/*
 * disk.h: the operating system's file system in a folder of the test's own, and the helpers over a
 * disk that writes down what it is asked, does it by halves, and fails where it is told to.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "base/slice.h"
#include "storage/disk.h"
#include "support/memory_disk.h"

/* ---- the operating system ---- */

static char folder[64];

/* Returns the path of `name` in the folder; good until the next but three. */
static const char *in_folder(const char *name) {
    static char paths[4][128];
    static unsigned turn;
    char *path = paths[turn++ % 4];
    (void)snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static int posix_open(const char *name, enum disk_open how) {
    return disk_posix.ops->open(NULL, in_folder(name), how);
}

static void posix_close(int file) {
    assert_int_equal(disk_posix.ops->close(NULL, file), 0);
}

static void posix_put(const char *name, const char *text) {
    assert_int_equal(disk_replace_file(&disk_posix, in_folder(name), text, strlen(text)), 0);
}

static void assert_posix_holds(const char *name, const char *text) {
    char bytes[64];
    int file = posix_open(name, DISK_READ);
    assert_true(file >= 0);
    ssize_t got = disk_read_all(&disk_posix, file, bytes, sizeof bytes, 0);
    assert_int_equal(got, strlen(text));
    assert_memory_equal(bytes, text, strlen(text));
    posix_close(file);
}

static int make_folder(void **state) {
    (void)state;
    (void)snprintf(folder, sizeof folder, "/tmp/felix-disk-test-XXXXXX");
    return mkdtemp(folder) == NULL;
}

static void remove_name(void *user, const char *name) {
    (void)user;
    const char *path = in_folder(name);
    if (disk_posix.ops->remove(NULL, path) != 0)
        (void)disk_posix.ops->remove_dir(NULL, path);
}

static int remove_folder(void **state) {
    (void)state;
    (void)disk_posix.ops->list(NULL, folder, remove_name, NULL);
    return disk_posix.ops->remove_dir(NULL, folder);
}

static void a_file_is_made_once_and_only_for_its_owner(void **state) {
    (void)state;
    assert_int_equal(posix_open("x", DISK_READ), -ENOENT);
    assert_int_equal(posix_open("x", DISK_WRITE), -ENOENT);
    int file = posix_open("x", DISK_CREATE);
    assert_true(file >= 0);
    assert_int_equal(posix_open("x", DISK_CREATE), -EEXIST);
    struct stat status;
    assert_int_equal(fstat(file, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    posix_close(file);
}

static void a_file_is_written_and_read_where_it_is_said(void **state) {
    (void)state;
    char bytes[16];
    int file = posix_open("x", DISK_CREATE);
    assert_int_equal(disk_write_all(&disk_posix, file, "world", 5, 6), 0);
    assert_int_equal(disk_write_all(&disk_posix, file, "hello ", 6, 0), 0);
    assert_int_equal(disk_posix.ops->sync(NULL, file), 0);
    posix_close(file);

    file = posix_open("x", DISK_READ);
    assert_int_equal(disk_read_all(&disk_posix, file, bytes, sizeof bytes, 0), 11);
    assert_memory_equal(bytes, "hello world", 11);
    assert_int_equal(disk_read_all(&disk_posix, file, bytes, 3, 8), 3);
    assert_memory_equal(bytes, "rld", 3);
    assert_int_equal(disk_read_all(&disk_posix, file, bytes, 3, 11), 0);
    assert_int_equal(disk_write_all(&disk_posix, file, "x", 1, 0), -EBADF);
    disk_posix.ops->advise(NULL, file, 0, 11, false);
    disk_posix.ops->advise(NULL, file, 0, 11, true);
    posix_close(file);
}

static void positions_beyond_what_files_have_are_errors(void **state) {
    (void)state;
    char byte = 'x';
    int file = posix_open("x", DISK_CREATE);
    assert_int_equal(disk_write_all(&disk_posix, file, &byte, 1, UINT64_MAX), -EFBIG);
    assert_int_equal(disk_read_all(&disk_posix, file, &byte, 1, UINT64_MAX), -EINVAL);
    assert_int_equal(disk_posix.ops->truncate(NULL, file, UINT64_MAX), -EFBIG);
    posix_close(file);
}

static void a_file_that_is_made_longer_reads_as_zeros(void **state) {
    (void)state;
    uint64_t size = 0;
    char bytes[8];
    int file = posix_open("x", DISK_CREATE);
    assert_int_equal(disk_write_all(&disk_posix, file, "hello", 5, 0), 0);
    assert_int_equal(disk_posix.ops->truncate(NULL, file, 2), 0);
    assert_int_equal(disk_posix.ops->truncate(NULL, file, 6), 0);
    assert_int_equal(disk_posix.ops->size(NULL, file, &size), 0);
    assert_int_equal(size, 6);
    assert_int_equal(disk_read_all(&disk_posix, file, bytes, sizeof bytes, 0), 6);
    assert_memory_equal(bytes, "he\0\0\0\0", 6);
    posix_close(file);
}

static void a_lock_is_held_until_its_file_is_closed(void **state) {
    (void)state;
    int first = posix_open("lock", DISK_CREATE);
    int second = posix_open("lock", DISK_WRITE);
    assert_int_equal(disk_posix.ops->lock(NULL, first), 0);
    assert_int_equal(disk_posix.ops->lock(NULL, first), 0);
    assert_int_equal(disk_posix.ops->lock(NULL, second), -EWOULDBLOCK);
    posix_close(first);
    assert_int_equal(disk_posix.ops->lock(NULL, second), 0);
    posix_close(second);
}

static void a_directory_may_exist_but_not_as_a_file(void **state) {
    (void)state;
    assert_int_equal(disk_posix.ops->make_dir(NULL, in_folder("d")), 0);
    assert_int_equal(disk_posix.ops->make_dir(NULL, in_folder("d")), 0);
    struct stat status;
    assert_int_equal(stat(in_folder("d"), &status), 0);
    assert_int_equal(status.st_mode & 0777, 0700);
    posix_put("x", "");
    assert_int_equal(disk_posix.ops->make_dir(NULL, in_folder("x")), -ENOTDIR);
    assert_int_equal(disk_posix.ops->make_dir(NULL, in_folder("none/d")), -ENOENT);
    assert_int_equal(disk_posix.ops->sync_dir(NULL, in_folder("d")), 0);
    assert_int_equal(disk_posix.ops->sync_dir(NULL, in_folder("x")), -ENOTDIR);
    assert_int_equal(disk_posix.ops->sync_dir(NULL, in_folder("none")), -ENOENT);
}

static void count_names(void *user, const char *name) {
    unsigned *seen = user;
    *seen |= strcmp(name, "a") == 0 ? 1u : strcmp(name, "d") == 0 ? 2u : 4u;
}

static void a_directory_lists_all_but_itself_and_its_parent(void **state) {
    (void)state;
    unsigned seen = 0;
    posix_put("a", "");
    assert_int_equal(disk_posix.ops->make_dir(NULL, in_folder("d")), 0);
    assert_int_equal(disk_posix.ops->list(NULL, folder, count_names, &seen), 0);
    assert_int_equal(seen, 3);
    assert_int_equal(disk_posix.ops->list(NULL, in_folder("none"), count_names, &seen), -ENOENT);
}

static void names_are_changed_and_removed(void **state) {
    (void)state;
    posix_put("a", "new");
    posix_put("b", "old");
    assert_int_equal(disk_posix.ops->rename(NULL, in_folder("a"), in_folder("b")), 0);
    assert_posix_holds("b", "new");
    assert_int_equal(disk_posix.ops->rename(NULL, in_folder("a"), in_folder("b")), -ENOENT);
    assert_int_equal(disk_posix.ops->make_dir(NULL, in_folder("d")), 0);
    posix_put("d/x", "");
    assert_int_equal(disk_posix.ops->remove_dir(NULL, in_folder("d")), -ENOTEMPTY);
    assert_int_equal(disk_posix.ops->remove(NULL, in_folder("d/x")), 0);
    assert_int_equal(disk_posix.ops->remove(NULL, in_folder("d/x")), -ENOENT);
    assert_int_equal(disk_posix.ops->remove_dir(NULL, in_folder("d")), 0);
}

static void a_pipe_of_that_name_does_not_hold_us(void **state) {
    (void)state;
    char byte;
    assert_int_equal(mkfifo(in_folder("pipe"), 0600), 0);
    int file = posix_open("pipe", DISK_READ);
    assert_true(file >= 0);
    assert_int_equal(disk_read_all(&disk_posix, file, &byte, 1, 0), -ESPIPE);
    posix_close(file);
}

static void directories_are_made_with_their_parents(void **state) {
    (void)state;
    assert_int_equal(disk_make_dirs(&disk_posix, in_folder("a//b/c/")), 0);
    assert_int_equal(disk_make_dirs(&disk_posix, in_folder("a/b/c")), 0);
    assert_int_equal(disk_posix.ops->remove_dir(NULL, in_folder("a/b/c")), 0);
    assert_int_equal(disk_posix.ops->remove_dir(NULL, in_folder("a/b")), 0);
    posix_put("x", "");
    assert_int_equal(disk_make_dirs(&disk_posix, in_folder("x/b")), -ENOTDIR);
    assert_int_equal(disk_make_dirs(&disk_posix, ""), -ENOENT);
}

/* ---- a disk with a will of its own ---- */

struct wilful {
    struct memory_disk memory;
    struct disk inner;
    char trace[512];
    unsigned calls, fail_at; /* the call that fails, from 1 on; 0: none */
    int fail_errno;
    size_t part_bytes;    /* pread and pwrite do no more at once; 0: all */
    unsigned interrupted; /* so many preads and pwrites are interrupted first */
};

static struct wilful wilful;

/* Notes the call; returns the error with which it fails. */
static int asked(const char *what, const char *path) {
    size_t used = strlen(wilful.trace);
    (void)snprintf(wilful.trace + used, sizeof wilful.trace - used, "%s%s%s%s", used ? " " : "",
                   what, path[0] != '\0' ? ":" : "", path);
    return ++wilful.calls == wilful.fail_at ? -wilful.fail_errno : 0;
}

static int wilful_open(void *context, const char *path, enum disk_open how) {
    int err = asked("open", path);
    return err != 0 ? err : wilful.inner.ops->open(wilful.inner.context, path, how);
}

/* A close that fails has closed. */
static int wilful_close(void *context, int file) {
    int err = asked("close", "");
    int closed = wilful.inner.ops->close(wilful.inner.context, file);
    return err != 0 ? err : closed;
}

static ssize_t wilful_pread(void *context, int file, void *data, size_t bytes, uint64_t at) {
    if (wilful.interrupted > 0)
        return wilful.interrupted--, -EINTR;
    int err = asked("read", "");
    if (wilful.part_bytes != 0 && bytes > wilful.part_bytes)
        bytes = wilful.part_bytes;
    return err != 0 ? err : wilful.inner.ops->pread(wilful.inner.context, file, data, bytes, at);
}

static ssize_t wilful_pwrite(void *context, int file, const void *data, size_t bytes, uint64_t at) {
    if (wilful.interrupted > 0)
        return wilful.interrupted--, -EINTR;
    int err = asked("write", "");
    if (wilful.part_bytes != 0 && bytes > wilful.part_bytes)
        bytes = wilful.part_bytes;
    return err != 0 ? err : wilful.inner.ops->pwrite(wilful.inner.context, file, data, bytes, at);
}

static int wilful_sync(void *context, int file) {
    return asked("sync", "");
}

static int wilful_make_dir(void *context, const char *path) {
    int err = asked("make", path);
    return err != 0 ? err : wilful.inner.ops->make_dir(wilful.inner.context, path);
}

static int wilful_sync_dir(void *context, const char *path) {
    return asked("sync", path);
}

static int wilful_rename(void *context, const char *from, const char *to) {
    int err = asked("rename", to);
    return err != 0 ? err : wilful.inner.ops->rename(wilful.inner.context, from, to);
}

static int wilful_remove(void *context, const char *path) {
    int err = asked("remove", path);
    return err != 0 ? err : wilful.inner.ops->remove(wilful.inner.context, path);
}

static const struct disk_ops wilful_ops = {
    .open = wilful_open,
    .close = wilful_close,
    .pread = wilful_pread,
    .pwrite = wilful_pwrite,
    .sync = wilful_sync,
    .make_dir = wilful_make_dir,
    .sync_dir = wilful_sync_dir,
    .rename = wilful_rename,
    .remove = wilful_remove,
};

static const struct disk wilful_disk = {.ops = &wilful_ops};

/* Forgets what was asked, and what was to fail. */
static void settle(void) {
    wilful.trace[0] = '\0';
    wilful.calls = wilful.fail_at = wilful.interrupted = 0;
    wilful.part_bytes = 0;
}

static int make_wilful(void **state) {
    (void)state;
    settle();
    memory_disk_init(&wilful.memory);
    wilful.inner = memory_disk_table(&wilful.memory);
    memory_disk_add_dir(&wilful.memory, "/d");
    return 0;
}

static int free_wilful(void **state) {
    (void)state;
    size_t open = memory_disk_open_handles(&wilful.memory);
    memory_disk_deinit(&wilful.memory);
    return open != 0;
}

static void assert_memory_holds(const char *path, const char *text) {
    const struct memory_file *file = memory_disk_find(&wilful.memory, path);
    assert_non_null(file);
    assert_int_equal(file->length, strlen(text));
    assert_memory_equal(file->data, text, strlen(text));
}

static void what_is_done_by_halves_is_finished(void **state) {
    (void)state;
    char bytes[16];
    int file = wilful_disk.ops->open(NULL, "/d/x", DISK_CREATE);
    wilful.part_bytes = 3;
    wilful.interrupted = 2;
    assert_int_equal(disk_write_all(&wilful_disk, file, "hello world", 11, 2), 0);
    wilful.interrupted = 2;
    assert_int_equal(disk_read_all(&wilful_disk, file, bytes, sizeof bytes, 2), 11);
    assert_memory_equal(bytes, "hello world", 11);
    assert_string_equal(wilful.trace, "open:/d/x write write write write read read read read read");
    assert_int_equal(wilful_disk.ops->close(NULL, file), 0);
}

static void an_error_ends_reading_and_writing(void **state) {
    (void)state;
    char bytes[16];
    int file = wilful_disk.ops->open(NULL, "/d/x", DISK_CREATE);
    wilful.part_bytes = 3;
    wilful.fail_at = 3;
    wilful.fail_errno = ENOSPC;
    assert_int_equal(disk_write_all(&wilful_disk, file, "hello world", 11, 0), -ENOSPC);
    wilful.fail_at = 5;
    wilful.fail_errno = EIO;
    assert_int_equal(disk_read_all(&wilful_disk, file, bytes, sizeof bytes, 0), -EIO);
    assert_int_equal(wilful_disk.ops->close(NULL, file), 0);
}

static ssize_t write_nothing(void *context, int file, const void *data, size_t bytes, uint64_t at) {
    return 0;
}

static void a_write_without_progress_is_an_error(void **state) {
    (void)state;
    static const struct disk_ops ops = {.pwrite = write_nothing};
    assert_int_equal(disk_write_all(&(struct disk){.ops = &ops}, 0, "x", 1, 0), -EIO);
    assert_int_equal(disk_write_all(&(struct disk){.ops = &ops}, 0, "x", 0, 0), 0);
}

static void a_file_is_on_disk_before_it_gets_its_name(void **state) {
    (void)state;
    assert_int_equal(disk_replace_file(&wilful_disk, "/d/x", "one", 3), 0);
    assert_string_equal(wilful.trace, "open:/d/x.tmp write sync close rename:/d/x sync:/d");
    assert_memory_holds("/d/x", "one");
    settle();
    assert_int_equal(disk_put_file(&wilful_disk, "/d/x", "two", 3), 0);
    assert_string_equal(wilful.trace, "open:/d/x.tmp write close rename:/d/x");
    assert_memory_holds("/d/x", "two");
}

static void a_failed_replacement_leaves_the_old_file_alone(void **state) {
    (void)state;
    assert_int_equal(disk_replace_file(&wilful_disk, "/d/x", "old", 3), 0);
    for (unsigned call = 1; call <= 6; call++) {
        settle();
        wilful.fail_at = call;
        wilful.fail_errno = call == 2 ? ENOSPC : EIO;
        assert_int_equal(disk_replace_file(&wilful_disk, "/d/x", "new", 3), -wilful.fail_errno);
        assert_memory_holds("/d/x", call < 6 ? "old" : "new");
        assert_null(memory_disk_find(&wilful.memory, "/d/x.tmp"));
    }
    settle();
    assert_int_equal(disk_replace_file(&wilful_disk, "/d/x", "new", 3), 0);
    assert_int_equal(wilful.calls, 6);
}

static void what_a_crash_left_is_no_obstacle(void **state) {
    (void)state;
    (void)memory_disk_add_file(&wilful.memory, "/d/x.tmp", slice_str("a longer leftover"), 17);
    assert_int_equal(disk_replace_file(&wilful_disk, "/d/x", "new", 3), 0);
    assert_memory_holds("/d/x", "new");
    assert_null(memory_disk_find(&wilful.memory, "/d/x.tmp"));
}

static void a_file_without_a_folder_is_in_the_current_one(void **state) {
    (void)state;
    assert_int_equal(disk_replace_file(&wilful_disk, "x", "1", 1), 0);
    assert_string_equal(wilful.trace, "open:x.tmp write sync close rename:x sync:.");
    settle();
    assert_int_equal(disk_replace_file(&wilful_disk, "/x", "1", 1), 0);
    assert_string_equal(wilful.trace, "open:/x.tmp write sync close rename:/x sync:/");
}

static void a_path_that_is_too_long_is_refused(void **state) {
    (void)state;
    char path[5000];
    memset(path, 'x', sizeof path);
    path[sizeof path - 1] = '\0';
    assert_int_equal(disk_replace_file(&wilful_disk, path, "1", 1), -ENAMETOOLONG);
    assert_int_equal(disk_make_dirs(&wilful_disk, path), -ENAMETOOLONG);
    assert_int_equal(wilful.calls, 0);
}

static void each_directory_is_on_disk_before_the_next(void **state) {
    (void)state;
    assert_int_equal(disk_make_dirs(&wilful_disk, "/d//e/f/"), 0);
    assert_string_equal(wilful.trace, "make:/d sync:/ make:/d/e sync:/d make:/d/e/f sync:/d/e");
    settle();
    assert_int_equal(disk_make_dirs(&wilful_disk, "g"), 0);
    assert_string_equal(wilful.trace, "make:g sync:.");
}

static void a_parent_that_we_may_not_read_is_passed_over(void **state) {
    (void)state;
    wilful.fail_at = 2;
    wilful.fail_errno = EACCES;
    assert_int_equal(disk_make_dirs(&wilful_disk, "/d/e"), 0);
    settle();
    wilful.fail_at = 2;
    wilful.fail_errno = EIO;
    assert_int_equal(disk_make_dirs(&wilful_disk, "/d/e"), -EIO);
    settle();
    wilful.fail_at = 3;
    wilful.fail_errno = EACCES;
    assert_int_equal(disk_make_dirs(&wilful_disk, "/d/e"), -EACCES);
}

#define POSIX_TEST(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)
#define WILFUL_TEST(name) cmocka_unit_test_setup_teardown(name, make_wilful, free_wilful)

int main(void) {
    const struct CMUnitTest tests[] = {
        POSIX_TEST(a_file_is_made_once_and_only_for_its_owner),
        POSIX_TEST(a_file_is_written_and_read_where_it_is_said),
        POSIX_TEST(positions_beyond_what_files_have_are_errors),
        POSIX_TEST(a_file_that_is_made_longer_reads_as_zeros),
        POSIX_TEST(a_lock_is_held_until_its_file_is_closed),
        POSIX_TEST(a_directory_may_exist_but_not_as_a_file),
        POSIX_TEST(a_directory_lists_all_but_itself_and_its_parent),
        POSIX_TEST(names_are_changed_and_removed),
        POSIX_TEST(a_pipe_of_that_name_does_not_hold_us),
        POSIX_TEST(directories_are_made_with_their_parents),
        WILFUL_TEST(what_is_done_by_halves_is_finished),
        WILFUL_TEST(an_error_ends_reading_and_writing),
        cmocka_unit_test(a_write_without_progress_is_an_error),
        WILFUL_TEST(a_file_is_on_disk_before_it_gets_its_name),
        WILFUL_TEST(a_failed_replacement_leaves_the_old_file_alone),
        WILFUL_TEST(what_a_crash_left_is_no_obstacle),
        WILFUL_TEST(a_file_without_a_folder_is_in_the_current_one),
        WILFUL_TEST(a_path_that_is_too_long_is_refused),
        WILFUL_TEST(each_directory_is_on_disk_before_the_next),
        WILFUL_TEST(a_parent_that_we_may_not_read_is_passed_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
