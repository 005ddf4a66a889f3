#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "support/log_driver.h"

#include "base/check.h"
#include "base/cursor.h"

struct record_log_settings log_test_settings(enum log_sync sync) {
    return (struct record_log_settings){
        .sync = sync,
        .segment_bytes = 4096,
        .index_spacing_bytes = 256,
        .read_records_max = 10000,
        .set_length_ahead = true,
    };
}

void log_test_fill(uint64_t offset, uint8_t *out, size_t bytes) {
    uint64_t x = offset * 0x9e3779b97f4a7c15u + 1;
    for (size_t i = 0; i < bytes; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        out[i] = (uint8_t)x;
    }
}

enum felix_err log_test_append(struct record_log *log, uint64_t offset, uint32_t count,
                               size_t bytes, uint64_t timestamp_us) {
    size_t list_bytes = 4 + count * (4 + bytes);
    uint8_t *list = xmalloc(list_bytes);
    uint8_t *at = list + 4;
    be32_store(list, count);
    for (uint32_t i = 0; i < count; i++) {
        be32_store(at, (uint32_t)bytes);
        log_test_fill(offset + i, at + 4, bytes);
        at += 4 + bytes;
    }
    struct payload_list payloads = {
        .bytes = slice_of(list, list_bytes),
        .count = count,
        .payload_bytes = (uint64_t)count * bytes,
    };
    struct felix_error error;
    enum felix_err err = record_log_append(log, offset, timestamp_us, &payloads, &error);
    free(list);
    return err;
}

void log_test_put(struct record_log *log, uint64_t offset, uint32_t count, size_t bytes) {
    struct felix_error error = {.text = ""};
    assert_int_equal(log_test_append(log, offset, count, bytes, 1000 + offset), FELIX_OK);
    if (record_log_write(log, &error) != FELIX_OK || record_log_sync(log, &error) != FELIX_OK)
        fail_msg("%s", error.text);
}

static void check_page(const struct log_page *page, uint64_t offset) {
    assert_int_equal(page->first, offset);
    assert_true(page->headroom >= LOG_PAGE_HEADROOM);
    assert_true(page->list.bytes.data - page->block->data >= (ptrdiff_t)page->headroom);
    struct payload_list list;
    assert_int_equal(payload_list_decode(page->list.bytes, &list), FELIX_OK);
    assert_int_equal(list.count, page->list.count);
    assert_int_equal(list.bytes.len, page->list.bytes.len);
    assert_int_equal(list.payload_bytes, page->list.payload_bytes);
    struct payload_cursor cursor = payload_walk(&page->list);
    struct slice payload;
    for (uint64_t at = offset; payload_next(&cursor, &payload); at++) {
        uint8_t *want = xmalloc(payload.len);
        log_test_fill(at, want, payload.len);
        assert_memory_equal(payload.data, want, payload.len);
        free(want);
    }
}

void log_test_expect(struct record_log *log, uint64_t from, uint64_t to, size_t bytes_max) {
    while (from < to) {
        struct log_page page;
        uint64_t available = 0;
        struct felix_error error = {.text = ""};
        enum felix_err err = record_log_read(log, from, bytes_max, &page, &available, &error);
        if (err != FELIX_OK)
            fail_msg("read at %llu: %s", (unsigned long long)from, error.text);
        assert_int_not_equal(page.list.count, 0);
        check_page(&page, from);
        from += page.list.count;
        buf_unref(page.block);
    }
    assert_int_equal(from, to);
}

struct record_log_info log_test_info(struct record_log *log) {
    struct record_log_info info;
    record_log_info(log, &info);
    return info;
}
