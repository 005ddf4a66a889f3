#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/cursor.h"
#include "base/rand.h"
#include "storage/crc32.h"
#include "storage/record.h"

/* Broker specification 6.4: offset 7, timestamp 9, payload "hi". */
static const uint8_t golden[] = {
    0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x07, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x09, 0xc6, 0x54, 0xde, 0x27, 0x24, 0x02, 0x15, 0x2c, 0x68, 0x69,
};

/* Appends a record with `payload_bytes` of payload; returns its end. */
static uint8_t *put_record(uint8_t *at, uint64_t offset, uint32_t payload_bytes) {
    for (uint32_t i = 0; i < payload_bytes; i++)
        at[RECORD_HEADER_BYTES + i] = (uint8_t)(offset * 31 + i * 7);
    record_header_encode(offset, 1000 + offset, slice_of(at + RECORD_HEADER_BYTES, payload_bytes),
                         at);
    return at + RECORD_HEADER_BYTES + payload_bytes;
}

static enum record_fault decode_fault(const uint8_t *bytes, size_t len) {
    struct record record;
    size_t taken;
    return record_decode(slice_of(bytes, len), &record, &taken);
}

static void the_checksum_is_that_of_zlib(void **state) {
    (void)state;
    assert_int_equal(crc32_update(0, "123456789", 9), 0xcbf43926);
    assert_int_equal(crc32_update(0, NULL, 0), 0);
    for (size_t split = 0; split <= 9; split++)
        assert_int_equal(
            crc32_update(crc32_update(0, "123456789", split), &"123456789"[split], 9 - split),
            0xcbf43926);
}

static void a_record_has_the_bytes_of_the_specification(void **state) {
    (void)state;
    uint8_t header[RECORD_HEADER_BYTES];
    record_header_encode(7, 9, slice_str("hi"), header);
    assert_memory_equal(header, golden, sizeof header);

    struct record record;
    size_t taken;
    assert_int_equal(record_decode(slice_of(golden, sizeof golden), &record, &taken), RECORD_OK);
    assert_int_equal(taken, sizeof golden);
    assert_int_equal(record.offset, 7);
    assert_int_equal(record.timestamp_us, 9);
    assert_true(slice_is(record.payload, "hi"));
    assert_ptr_equal(record.payload.data, golden + RECORD_HEADER_BYTES);
}

static void what_follows_a_record_is_left_alone(void **state) {
    (void)state;
    uint8_t bytes[sizeof golden + 5];
    memcpy(bytes, golden, sizeof golden);
    memset(bytes + sizeof golden, 0xff, 5);
    struct record record;
    size_t taken;
    assert_int_equal(record_decode(slice_of(bytes, sizeof bytes), &record, &taken), RECORD_OK);
    assert_int_equal(taken, sizeof golden);
}

static void every_length_comes_back(void **state) {
    (void)state;
    for (uint32_t bytes = 0; bytes < 600; bytes++) {
        uint8_t *block = xmalloc(RECORD_HEADER_BYTES + bytes);
        (void)put_record(block, UINT64_MAX - bytes, bytes);
        struct record record;
        size_t taken;
        assert_int_equal(
            record_decode(slice_of(block, RECORD_HEADER_BYTES + bytes), &record, &taken),
            RECORD_OK);
        assert_int_equal(taken, RECORD_HEADER_BYTES + bytes);
        assert_true(record.offset == UINT64_MAX - bytes);
        assert_int_equal(record.payload.len, bytes);
        free(block);
    }
}

static void every_truncation_is_told_apart(void **state) {
    (void)state;
    for (size_t len = 0; len < sizeof golden; len++) {
        uint8_t *exact = xmalloc(len != 0 ? len : 1); /* reading one byte more would show */
        memcpy(exact, golden, len);
        struct record record;
        size_t taken = 0;
        enum record_fault fault = record_decode(slice_of(exact, len), &record, &taken);
        if (len < RECORD_HEADER_BYTES) {
            assert_int_equal(fault, RECORD_TRUNCATED_HEADER);
        } else {
            assert_int_equal(fault, RECORD_TRUNCATED);
            assert_int_equal(taken, sizeof golden);
        }
        free(exact);
    }
}

static void every_flipped_bit_is_detected(void **state) {
    (void)state;
    uint8_t bytes[RECORD_HEADER_BYTES + 100];
    (void)put_record(bytes, 123456789, 100);
    for (size_t bit = 0; bit < sizeof bytes * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        enum record_fault expected = bit / 8 < 24 ? RECORD_BAD_HEADER : RECORD_BAD_CHECKSUM;
        assert_int_equal(decode_fault(bytes, sizeof bytes), expected);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    assert_int_equal(decode_fault(bytes, sizeof bytes), RECORD_OK);
}

static void every_changed_byte_is_detected(void **state) {
    (void)state;
    uint8_t bytes[sizeof golden];
    memcpy(bytes, golden, sizeof golden);
    for (size_t at = 0; at < sizeof bytes; at++) {
        for (unsigned change = 1; change < 256; change++) {
            bytes[at] = golden[at] ^ (uint8_t)change;
            assert_int_not_equal(decode_fault(bytes, sizeof bytes), RECORD_OK);
        }
        bytes[at] = golden[at];
    }
}

/* A header that is in order but for its length, and nothing behind it. */
static void header_with_length(uint8_t out[RECORD_HEADER_BYTES], uint32_t payload_bytes) {
    memset(out, 0, RECORD_HEADER_BYTES);
    be32_store(out, payload_bytes);
    be32_store(out + 20, crc32_update(0, out, 20));
}

static void a_payload_at_the_limit_is_believed_one_byte_more_is_not(void **state) {
    (void)state;
    uint8_t header[RECORD_HEADER_BYTES];
    struct record record;
    uint32_t payload_bytes = 0;
    size_t taken = 0;
    header_with_length(header, RECORD_PAYLOAD_BYTES_MAX);
    struct slice in = slice_of(header, sizeof header);
    assert_int_equal(record_header_decode(in, &record, &payload_bytes), RECORD_OK);
    assert_int_equal(payload_bytes, 64 * 1024 * 1024);
    assert_int_equal(record_decode(in, &record, &taken), RECORD_TRUNCATED);
    assert_int_equal(taken, 64 * 1024 * 1024 + 28);

    header_with_length(header, RECORD_PAYLOAD_BYTES_MAX + 1);
    assert_int_equal(record_header_decode(in, &record, &payload_bytes), RECORD_TOO_LARGE);
    assert_int_equal(record_decode(in, &record, &taken), RECORD_TOO_LARGE);
    header_with_length(header, UINT32_MAX);
    assert_int_equal(record_decode(in, &record, &taken), RECORD_TOO_LARGE);
}

static void a_length_whose_header_is_damaged_is_not_used(void **state) {
    (void)state;
    uint8_t header[RECORD_HEADER_BYTES];
    header_with_length(header, UINT32_MAX);
    header[23] ^= 1;
    assert_int_equal(decode_fault(header, sizeof header), RECORD_BAD_HEADER);
}

static void zeros_are_no_record(void **state) {
    (void)state;
    static const uint8_t zeros[512];
    assert_int_equal(decode_fault(zeros, sizeof zeros), RECORD_BAD_HEADER);
}

static void a_prefix_of_records_invents_none(void **state) {
    (void)state;
    enum { RECORDS = 6 };
    uint8_t bytes[1024];
    size_t ends[RECORDS];
    uint8_t *at = bytes;
    for (unsigned i = 0; i < RECORDS; i++) {
        at = put_record(at, 40 + i, i * 11);
        ends[i] = (size_t)(at - bytes);
    }
    for (size_t len = 0; len <= ends[RECORDS - 1]; len++) {
        size_t from = 0, taken, expected = 0;
        unsigned found = 0;
        struct record record;
        while (record_decode(slice_of(bytes + from, len - from), &record, &taken) == RECORD_OK) {
            assert_int_equal(record.offset, 40 + found);
            from += taken;
            found++;
        }
        while (expected < RECORDS && ends[expected] <= len)
            expected++;
        assert_int_equal(found, expected);
    }
}

/* Random bytes, and records with random changes: what decodes is what its encoding says. */
static void random_bytes_decode_to_nothing_but_records(void **state) {
    (void)state;
    struct rng rng;
    rng_seed(&rng, 5);
    unsigned good = 0;
    for (unsigned round = 0; round < 20000; round++) {
        uint8_t bytes[160], again[RECORD_HEADER_BYTES];
        for (size_t i = 0; i < sizeof bytes; i++)
            bytes[i] = (uint8_t)rng_next(&rng);
        size_t len = (size_t)rng_below(&rng, sizeof bytes + 1);
        if (round % 2 == 0)
            (void)put_record(bytes, rng_next(&rng), (uint32_t)rng_below(&rng, 120));
        if (round % 4 == 0)
            bytes[rng_below(&rng, 40)] ^= (uint8_t)rng_below(&rng, 256);
        struct record record;
        size_t taken;
        if (record_decode(slice_of(bytes, len), &record, &taken) != RECORD_OK)
            continue;
        good++;
        assert_true(taken <= len && taken == RECORD_HEADER_BYTES + record.payload.len);
        record_header_encode(record.offset, record.timestamp_us, record.payload, again);
        assert_memory_equal(again, bytes, sizeof again);
    }
    assert_in_range(good, 1000, 15000);
}

static void each_fault_has_a_name(void **state) {
    (void)state;
    assert_string_equal(record_fault_name(RECORD_OK), "ok");
    assert_string_equal(record_fault_name(RECORD_TRUNCATED_HEADER), "truncated_header");
    assert_string_equal(record_fault_name(RECORD_BAD_HEADER), "header_checksum");
    assert_string_equal(record_fault_name(RECORD_TOO_LARGE), "too_large");
    assert_string_equal(record_fault_name(RECORD_TRUNCATED), "truncated");
    assert_string_equal(record_fault_name(RECORD_BAD_CHECKSUM), "checksum");
    assert_string_equal(record_fault_name(RECORD_OUT_OF_ORDER), "out_of_order");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_checksum_is_that_of_zlib),
        cmocka_unit_test(a_record_has_the_bytes_of_the_specification),
        cmocka_unit_test(what_follows_a_record_is_left_alone),
        cmocka_unit_test(every_length_comes_back),
        cmocka_unit_test(every_truncation_is_told_apart),
        cmocka_unit_test(every_flipped_bit_is_detected),
        cmocka_unit_test(every_changed_byte_is_detected),
        cmocka_unit_test(a_payload_at_the_limit_is_believed_one_byte_more_is_not),
        cmocka_unit_test(a_length_whose_header_is_damaged_is_not_used),
        cmocka_unit_test(zeros_are_no_record),
        cmocka_unit_test(a_prefix_of_records_invents_none),
        cmocka_unit_test(random_bytes_decode_to_nothing_but_records),
        cmocka_unit_test(each_fault_has_a_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
