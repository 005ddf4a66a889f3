/* Every role on a thread of its own, all at once. Run with ThreadSanitizer to have it matter. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/check.h"
#include "storage/record_log.h"
#include "support/log_driver.h"
#include "support/memory_disk.h"

#define DIR "/log"
#define RECORDS 6000u
#define BATCH 6u
#define RECORD_BYTES 90u
#define LEAD 200u

static struct memory_disk memory;
static struct record_log *log_;
static atomic_uint wrong; /* checks that failed on a thread of ours, where cmocka cannot jump */

static void check(bool truth) {
    if (!truth)
        atomic_fetch_add(&wrong, 1);
}

static void *writer(void *unused) {
    for (uint64_t offset = 0; offset < RECORDS; offset += BATCH) {
        check(log_test_append(log_, offset, BATCH, RECORD_BYTES, offset) == FELIX_OK);
        if (offset % (4 * BATCH) == 0)
            check(record_log_write(log_, NULL) == FELIX_OK);
        /* Not all of it before the others have begun. */
        while (offset > log_test_info(log_).durable_end + LEAD && atomic_load(&wrong) == 0)
            (void)sched_yield();
    }
    check(record_log_write(log_, NULL) == FELIX_OK);
    return unused;
}

static void *flusher(void *unused) {
    while (log_test_info(log_).durable_end < RECORDS && atomic_load(&wrong) == 0)
        check(record_log_sync(log_, NULL) == FELIX_OK);
    return unused;
}

static void *retention(void *unused) {
    while (log_test_info(log_).durable_end < RECORDS && atomic_load(&wrong) == 0) {
        check(record_log_retain(log_, 0, NULL, NULL) == FELIX_OK);
        bool more;
        check(record_log_verify_next(log_, &more, NULL) == FELIX_OK);
    }
    return unused;
}

static bool is_right(const struct log_page *page, uint64_t offset) {
    struct payload_cursor cursor = payload_walk(&page->list);
    struct slice payload;
    uint8_t want[RECORD_BYTES];
    for (; payload_next(&cursor, &payload); offset++) {
        log_test_fill(offset, want, sizeof want);
        if (!slice_equal(payload, slice_of(want, sizeof want)))
            return false;
    }
    return true;
}

/* Follows the log from its beginning, and from the oldest record again where it was too slow. */
static void *reader(void *unused) {
    for (uint64_t offset = 0; offset < RECORDS && atomic_load(&wrong) == 0;) {
        struct log_page page;
        uint64_t available = offset;
        enum felix_err err = record_log_read(log_, offset, 2000, &page, &available, NULL);
        if (err == FELIX_CURSOR_TOO_OLD) {
            check(available > offset);
            offset = available;
            continue;
        }
        check(err == FELIX_OK);
        if (err != FELIX_OK || page.list.count == 0)
            continue;
        check(page.first == offset && is_right(&page, offset));
        offset += page.list.count;
        buf_unref(page.block);
    }
    return unused;
}

static void *seeker(void *unused) {
    uint64_t seed = 1;
    while (log_test_info(log_).durable_end < RECORDS && atomic_load(&wrong) == 0) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        uint64_t at_us = (seed >> 33) % RECORDS, offset;
        check(record_log_seek_time(log_, at_us, &offset, NULL) == FELIX_OK);
    }
    return unused;
}

static void the_roles_do_not_disturb_each_other(void **state) {
    (void)state;
    memory_disk_init(&memory);
    struct disk disk = memory_disk_table(&memory);
    struct record_log_settings settings = log_test_settings(LOG_SYNC_ON_COMMIT);
    settings.retention_bytes = 40000;
    assert_int_equal(record_log_open(&disk, DIR, "t/n/s", &settings, &log_, NULL, NULL), FELIX_OK);
    void *(*const roles[])(void *) = {writer, flusher, retention, reader, reader, seeker};
    pthread_t threads[sizeof roles / sizeof roles[0]];
    for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, roles[i], NULL), 0);
    for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(atomic_load(&wrong), 0);
    assert_int_equal(record_log_retain(log_, 0, NULL, NULL), FELIX_OK);
    struct record_log_info info = log_test_info(log_);
    assert_int_equal(info.durable_end, RECORDS);
    assert_int_equal(info.damage_count, 0);
    assert_true(info.removed_segments > 0);
    log_test_expect(log_, info.oldest, RECORDS, 5000);
    assert_int_equal(record_log_close(log_), FELIX_OK);
    assert_int_equal(memory_disk_open_handles(&memory), 0);
    memory_disk_deinit(&memory);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_roles_do_not_disturb_each_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
