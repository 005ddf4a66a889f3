/*
 * Random use of a log against an oracle: what was appended, in an array that is indexed by the
 * offset, and four ends. Appends, writes, flushes, reads from anywhere, consumers that go on where
 * they were, searches by time, retention by bytes and age, closing, killing, opening again.
 * The disk is one in memory and does what it is told; what it may do otherwise is in tests/crash.
 *
 * FELIX_TEST_SEED repeats a run; FELIX_TEST_STEPS is how many steps there are for each policy.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/rand.h"
#include "storage/record_log.h"
#include "support/memory_disk.h"

#define STEPS_DEFAULT 200000u
#define ITEMS 65536u /* remembered at a time, by offset modulo this */
#define PAYLOAD_MAX 6000u
#define BATCH_MAX 20u
#define CONSUMERS 4u
#define HEADER_BYTES 32u /* of a segment */
#define RECORD_BYTES_MIN 28u
#define SEGMENT_BYTES 4000u
#define RETENTION_BYTES 40000u
#define RETENTION_US 4000u

/* ---- the oracle ---- */

struct item {
    uint64_t tag, timestamp_us;
    uint32_t bytes;
};

static struct {
    struct item items[ITEMS];
    uint64_t oldest, durable, written, staged;
    uint64_t consumers[CONSUMERS];
} oracle;

static struct item *item_at(uint64_t offset) {
    return &oracle.items[offset % ITEMS];
}

static void oracle_add(uint64_t tag, uint64_t timestamp_us, uint32_t bytes) {
    *item_at(oracle.staged++) = (struct item){tag, timestamp_us, bytes};
}

static uint64_t oracle_committed(enum log_sync sync) {
    return sync == LOG_SYNC_ON_COMMIT ? oracle.durable : oracle.written;
}

static uint64_t oracle_find_time(enum log_sync sync, uint64_t at_us) {
    uint64_t offset = oracle.oldest;
    while (offset < oracle_committed(sync) && item_at(offset)->timestamp_us < at_us)
        offset++;
    return offset;
}

/* ---- the run ---- */

struct run {
    struct memory_disk memory;
    struct disk disk;
    struct record_log_settings settings;
    struct record_log *log;
    struct rng rng;
    uint64_t now_us;
    uint8_t batch[4 + BATCH_MAX * (4 + PAYLOAD_MAX)];
};

static uint64_t below(struct run *run, uint64_t bound) {
    return rng_below(&run->rng, bound);
}

static void fill(uint64_t tag, uint8_t *out, size_t bytes) {
    for (size_t i = 0; i < bytes; i++)
        out[i] = (uint8_t)((tag >> (i % 8 * 8)) + i / 8);
}

static void check_ends(struct run *run) {
    struct record_log_info info;
    record_log_info(run->log, &info);
    assert_int_equal(info.oldest, oracle.oldest);
    assert_int_equal(info.durable_end, oracle.durable);
    assert_int_equal(info.written_end, oracle.written);
    assert_int_equal(info.committed_end, oracle_committed(run->settings.sync));
    assert_int_equal(info.damage_count, 0);
    assert_false(info.failed);
}

static void step_append(struct run *run) {
    uint32_t count = 1 + (uint32_t)below(run, BATCH_MAX);
    uint32_t bytes_max = below(run, 40) == 0 ? PAYLOAD_MAX : 300;
    uint64_t base = oracle.staged;
    size_t used = 4;
    struct payload_list list = {.count = count};
    run->now_us += below(run, 30) == 0 ? below(run, RETENTION_US) : below(run, 200);
    memcpy(run->batch, (uint8_t[]){0, 0, 0, (uint8_t)count}, 4);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t bytes = (uint32_t)below(run, bytes_max + 1);
        uint64_t tag = rng_next(&run->rng);
        uint8_t length[] = {0, 0, (uint8_t)(bytes >> 8), (uint8_t)bytes};
        memcpy(run->batch + used, length, sizeof length);
        fill(tag, run->batch + used + sizeof length, bytes);
        used += sizeof length + bytes;
        list.payload_bytes += bytes;
        oracle_add(tag, run->now_us, bytes);
    }
    list.bytes = slice_of(run->batch, used);
    assert_int_equal(record_log_append(run->log, base, run->now_us, &list, NULL), FELIX_OK);
}

static void step_write(struct run *run) {
    assert_int_equal(record_log_write(run->log, NULL), FELIX_OK);
    oracle.written = oracle.staged;
    /* A writer far ahead of the flusher has done its work. */
    struct record_log_info info;
    record_log_info(run->log, &info);
    assert_in_range(info.durable_end, oracle.durable, oracle.written);
    oracle.durable = info.durable_end;
}

static void step_sync(struct run *run) {
    assert_int_equal(record_log_sync(run->log, NULL), FELIX_OK);
    oracle.durable = oracle.written;
}

static void check_record(uint64_t offset, struct slice payload, uint64_t timestamp_us) {
    const struct item *item = item_at(offset);
    uint8_t expected[PAYLOAD_MAX];
    assert_int_equal(payload.len, item->bytes);
    assert_int_equal(timestamp_us, item->timestamp_us);
    fill(item->tag, expected, item->bytes);
    assert_true(slice_equal(payload, slice_of(expected, item->bytes)));
}

/* Returns the offset behind what came. */
static uint64_t check_page(struct run *run, uint64_t from, size_t bytes_max,
                           const struct log_page *page) {
    assert_int_equal(page->first, from);
    assert_in_range(page->list.count, from < oracle_committed(run->settings.sync),
                    run->settings.read_records_max);
    struct payload_cursor cursor = payload_walk(&page->list);
    struct slice payload;
    size_t bytes = 0;
    uint32_t count = 0;
    for (; payload_next(&cursor, &payload); count++) {
        check_record(from + count, payload, page->timestamps[count]);
        bytes += payload.len;
    }
    assert_int_equal(count, page->list.count);
    assert_true(bytes <= bytes_max || count == 1);
    assert_true(count == 0 || page->headroom >= LOG_PAGE_HEADROOM);
    return from + count;
}

/* Returns where to go on. */
static uint64_t read_at(struct run *run, uint64_t from) {
    uint64_t end = oracle_committed(run->settings.sync);
    size_t bytes_max = below(run, 2) == 0 ? below(run, 500) : below(run, 20000);
    struct log_page page;
    uint64_t available = 0;
    enum felix_err err = record_log_read(run->log, from, bytes_max, &page, &available, NULL);
    if (from < oracle.oldest || from > end) {
        bool old = from < oracle.oldest;
        assert_int_equal(err, old ? FELIX_CURSOR_TOO_OLD : FELIX_CURSOR_IN_FUTURE);
        assert_int_equal(available, old ? oracle.oldest : end);
        return available;
    }
    assert_int_equal(err, FELIX_OK);
    uint64_t next = check_page(run, from, bytes_max, &page);
    assert_true(next <= end);
    buf_unref(page.block);
    return next;
}

static void step_read(struct run *run) {
    uint64_t first = oracle.oldest < 3 ? 0 : oracle.oldest - 3;
    (void)read_at(run, first + below(run, oracle.staged - first + 4));
}

/* One consumer goes on; it sees each record once unless retention was there before it. */
static void step_consume(struct run *run) {
    uint64_t *consumer = &oracle.consumers[below(run, CONSUMERS)];
    if (*consumer > oracle_committed(run->settings.sync))
        return; /* it read what a kill took back: under none and periodic only */
    uint64_t next = read_at(run, *consumer);
    assert_true(next >= *consumer);
    *consumer = below(run, 50) == 0 ? oracle.oldest : next;
}

static void step_seek(struct run *run) {
    uint64_t at_us = run->now_us - below(run, RETENTION_US);
    uint64_t offset;
    assert_int_equal(record_log_seek_time(run->log, at_us, &offset, NULL), FELIX_OK);
    assert_int_equal(offset, oracle_find_time(run->settings.sync, at_us));
}

static void step_retain(struct run *run) {
    struct record_log_info info;
    uint32_t removed;
    assert_int_equal(record_log_retain(run->log, run->now_us, &removed, NULL), FELIX_OK);
    record_log_info(run->log, &info);
    /* Nothing that a bound keeps is gone: what is left without the last one removed is too small,
     * and what was removed is either too much or too old. */
    assert_true(info.oldest >= oracle.oldest && (removed > 0) == (info.oldest > oracle.oldest));
    if (removed > 0) {
        uint64_t bytes = info.bytes + (uint64_t)removed * HEADER_BYTES;
        for (uint64_t offset = oracle.oldest; offset < info.oldest; offset++)
            bytes += RECORD_BYTES_MIN + item_at(offset)->bytes;
        bool too_old = item_at(info.oldest - 1)->timestamp_us + RETENTION_US < run->now_us;
        assert_true(bytes > RETENTION_BYTES || too_old);
    }
    /* Only what is not full or not flushed may be over the bound. */
    assert_true(info.bytes <= RETENTION_BYTES || info.segments == 1 ||
                oracle.durable < oracle.written || info.bytes < (uint64_t)RETENTION_BYTES * 8);
    oracle.oldest = info.oldest;
}

static void open_log(struct run *run) {
    struct felix_error error = {0};
    if (record_log_open(&run->disk, "log", "model", &run->settings, &run->log, NULL, &error) !=
        FELIX_OK)
        fail_msg("%s", error.text);
}

static void step_restart(struct run *run, bool in_order) {
    if (in_order) {
        step_write(run);
        assert_int_equal(record_log_close(run->log), FELIX_OK);
    } else {
        record_log_abandon(run->log);
    }
    assert_int_equal(memory_disk_open_handles(&run->memory), 0);
    run->settings.set_length_ahead = below(run, 3) != 0;
    open_log(run);
    /* A full stage is written at once, so a kill may find some of what was only staged. */
    struct record_log_info info;
    record_log_info(run->log, &info);
    assert_in_range(info.written_end, oracle.written, oracle.staged);
    oracle.staged = oracle.durable = oracle.written = info.written_end;
}

static void step_verify(struct run *run) {
    bool more;
    assert_int_equal(record_log_verify_next(run->log, &more, NULL), FELIX_OK);
    assert_true(record_log_next_retention_us(run->log) > 0);
}

static void step(struct run *run) {
    uint64_t pick = below(run, 1000);
    if (pick < 300)
        step_append(run);
    else if (pick < 480)
        step_write(run);
    else if (pick < 580)
        step_sync(run);
    else if (pick < 780)
        step_read(run);
    else if (pick < 930)
        step_consume(run);
    else if (pick < 950)
        step_seek(run);
    else if (pick < 980)
        step_retain(run);
    else if (pick < 990)
        step_verify(run);
    else
        step_restart(run, pick < 995);
    /* The oracle remembers so many. */
    if (oracle.staged - oracle.oldest > ITEMS / 2) {
        step_write(run);
        step_sync(run);
        step_retain(run);
    }
    assert_true(oracle.staged - oracle.oldest < ITEMS - BATCH_MAX);
    check_ends(run);
}

/* ---- */

static uint64_t from_environment(const char *name, uint64_t otherwise) {
    const char *text = getenv(name);
    return text == NULL ? otherwise : strtoull(text, NULL, 10);
}

static void run_policy(enum log_sync sync) {
    uint64_t seed = from_environment("FELIX_TEST_SEED", 1);
    uint64_t steps = from_environment("FELIX_TEST_STEPS", STEPS_DEFAULT);
    printf("seed %" PRIu64 ", %" PRIu64 " steps\n", seed, steps);
    struct run *run = calloc(1, sizeof *run);
    assert_non_null(run);
    memset(&oracle, 0, sizeof oracle);
    memory_disk_init(&run->memory);
    run->disk = memory_disk_table(&run->memory);
    run->now_us = 1000000;
    rng_seed(&run->rng, seed + sync);
    run->settings = (struct record_log_settings){
        .sync = sync,
        .segment_bytes = SEGMENT_BYTES,
        .index_spacing_bytes = 500,
        .read_records_max = 40,
        .set_length_ahead = true,
        .retention_bytes = RETENTION_BYTES,
        .retention_us = RETENTION_US,
    };
    open_log(run);
    for (uint64_t i = 0; i < steps; i++)
        step(run);
    assert_int_equal(record_log_close(run->log), FELIX_OK);
    memory_disk_deinit(&run->memory);
    free(run);
}

static void a_log_agrees_with_the_oracle_without_flushes(void **state) {
    run_policy(LOG_SYNC_NONE);
}

static void a_log_agrees_with_the_oracle_flushed_at_times(void **state) {
    run_policy(LOG_SYNC_PERIODIC);
}

static void a_log_agrees_with_the_oracle_flushed_on_commit(void **state) {
    run_policy(LOG_SYNC_ON_COMMIT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_log_agrees_with_the_oracle_without_flushes),
        cmocka_unit_test(a_log_agrees_with_the_oracle_flushed_at_times),
        cmocka_unit_test(a_log_agrees_with_the_oracle_flushed_on_commit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
