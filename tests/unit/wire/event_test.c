#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "vectors.h"
#include "wire/event.h"

/* Those without modifiers that only other brokers set come first. */
static const char *const event_vectors[] = {
    "g05_event_shared",
    "g06_event_shared_offsets",
    "g07_event_addressed",
    "g08_event_addressed_offsets",
    "w_event_addressed_offsets",
    "w_event_shared_offsets",
    "x_event_addressed",
    "x_event_addressed_offsets",
    "x_event_shared_offsets",
    "x_event_shared_timestamps",
    "x_event_addressed_timestamps",
    "x_event_addressed_skipped",
    "x_event_shared_all",
};
#define VECTOR_COUNT (sizeof event_vectors / sizeof event_vectors[0])
#define EMITTED_COUNT 11

static void walk_to_the_end(const struct event_batch *batch) {
    struct event_cursor cursor = event_walk(batch);
    struct slice payload;
    const uint8_t *end = batch->items.data;
    uint32_t count = 0;
    while (event_next(&cursor, &payload)) {
        end = payload.data + payload.len;
        count++;
    }
    assert_int_equal(count, batch->count);
    assert_ptr_equal(end, batch->items.data + batch->items.len);
}

static void decode_and_walk(uint16_t flags, struct slice body) {
    struct event_batch batch;
    if (event_batch_decode(flags, body, &batch) == FELIX_OK)
        walk_to_the_end(&batch);
}

static void golden_addressed_batch_with_offsets_is_decoded(void **state) {
    struct vector v = vector_load("g08_event_addressed_offsets");
    struct event_batch batch;
    assert_int_equal(event_batch_decode(v.flags, v.body, &batch), FELIX_OK);
    assert_true(batch.addressed && batch.has_offsets && !batch.has_timestamps);
    assert_int_equal(batch.subscription_id, 5);
    assert_int_equal(batch.base_offset, 1000);
    assert_int_equal(batch.count, 2);
    struct event_cursor cursor = event_walk(&batch);
    struct slice payload;
    assert_true(event_next(&cursor, &payload) && slice_is(payload, "A"));
    assert_true(event_next(&cursor, &payload) && slice_is(payload, "xyz"));
    assert_false(event_next(&cursor, &payload));
    vector_free(&v);
}

static void golden_batch_with_every_modifier_is_decoded(void **state) {
    struct vector v = vector_load("x_event_shared_all");
    struct event_batch batch;
    assert_int_equal(event_batch_decode(v.flags, v.body, &batch), FELIX_OK);
    assert_true(!batch.addressed && batch.has_offsets && batch.has_timestamps);
    assert_int_equal(batch.base_offset, 42);
    assert_int_equal(batch.skipped_before, 2);
    assert_true(slice_is(batch.publisher, "u"));
    struct event_cursor cursor = event_walk(&batch);
    struct slice payload;
    assert_true(event_next(&cursor, &payload) && slice_is(payload, "hi"));
    assert_int_equal(cursor.timestamp_us, 1000);
    vector_free(&v);
}

/* Items in publish layout: "A", "" and "xyz". */
static const uint8_t items_bytes[] = {0, 0, 0, 1, 'A', 0, 0, 0, 0, 0, 0, 0, 3, 'x', 'y', 'z'};

/* Stamps the three items and compares what a client reads of them. */
static void check_stamped(const uint64_t *timestamps, const uint64_t *expected) {
    struct slice items = slice_of(items_bytes, sizeof items_bytes);
    size_t bytes = event_stamped_bytes(3, items.len);
    uint16_t flags = FRAME_EVENT_BATCH_SHARED | FRAME_EVENT_TIMESTAMPS;
    uint8_t frame[FRAME_HEADER_BYTES + 4 + sizeof items_bytes + 3 * 8];
    size_t at = event_prefix_encode(flags, 0, 0, 3, bytes, frame);
    assert_int_equal(event_items_stamp(items, 3, timestamps, 77, frame + at), bytes);
    assert_int_equal(at + bytes, sizeof frame);

    struct event_batch batch;
    struct slice body = slice_of(frame + FRAME_HEADER_BYTES, sizeof frame - FRAME_HEADER_BYTES);
    assert_int_equal(event_batch_decode(flags, body, &batch), FELIX_OK);
    struct event_cursor cursor = event_walk(&batch);
    static const char *const payloads[] = {"A", "", "xyz"};
    struct slice payload;
    for (size_t i = 0; i < 3; i++) {
        assert_true(event_next(&cursor, &payload) && slice_is(payload, payloads[i]));
        assert_int_equal(cursor.timestamp_us, expected[i]);
    }
    assert_false(event_next(&cursor, &payload));
}

static void items_are_stamped_each_with_its_own_time_or_all_with_one(void **state) {
    static const uint64_t times[] = {1000, UINT64_MAX, 3};
    static const uint64_t one[] = {77, 77, 77};
    check_stamped(times, times);
    check_stamped(NULL, one);
}

static void prefix_and_items_make_the_golden_frame(void **state) {
    for (size_t i = 0; i < EMITTED_COUNT; i++) {
        struct vector v = vector_load(event_vectors[i]);
        struct event_batch batch;
        assert_int_equal(event_batch_decode(v.flags, v.body, &batch), FELIX_OK);
        uint8_t prefix[EVENT_PREFIX_BYTES_MAX];
        size_t bytes = event_prefix_encode(v.flags, batch.subscription_id, batch.base_offset,
                                           batch.count, batch.items.len, prefix);
        assert_int_equal(bytes, event_prefix_bytes(v.flags));
        assert_int_equal(bytes + batch.items.len, v.frame_bytes);
        assert_memory_equal(prefix, v.frame, bytes);
        vector_free(&v);
    }
}

static void longest_prefix_has_the_stated_size(void **state) {
    assert_int_equal(event_prefix_bytes(FRAME_EVENT_BATCH | FRAME_EVENT_OFFSETS),
                     EVENT_PREFIX_BYTES_MAX);
    assert_int_equal(event_prefix_bytes(FRAME_EVENT_BATCH_SHARED), FRAME_HEADER_BYTES + 4);
}

static void every_truncated_golden_body_is_malformed(void **state) {
    for (size_t i = 0; i < VECTOR_COUNT; i++) {
        struct vector v = vector_load(event_vectors[i]);
        for (size_t len = 0; len < v.body.len; len++) {
            uint8_t *copy = exact_copy(v.body.data, len);
            struct event_batch batch;
            assert_int_equal(event_batch_decode(v.flags, slice_of(copy, len), &batch),
                             FELIX_MALFORMED);
            free(copy);
        }
        vector_free(&v);
    }
}

static void every_flipped_bit_is_survived(void **state) {
    for (size_t i = 0; i < VECTOR_COUNT; i++) {
        struct vector v = vector_load(event_vectors[i]);
        mutate_body(v.flags, v.body, decode_and_walk);
        for (unsigned bit = 0; bit < 16; bit++)
            decode_and_walk((uint16_t)(v.flags ^ (1u << bit)), v.body);
        vector_free(&v);
    }
}

static void shared_wins_over_addressed(void **state) {
    struct vector v = vector_load("g05_event_shared");
    struct event_batch batch;
    assert_int_equal(event_batch_decode(v.flags | FRAME_EVENT_BATCH, v.body, &batch), FELIX_OK);
    assert_false(batch.addressed);
    assert_int_equal(batch.count, 2);
    vector_free(&v);
}

static void flags_of_other_layouts_are_unknown(void **state) {
    static const uint8_t body[64];
    struct slice in = slice_of(body, sizeof body);
    struct event_batch batch;
    static const uint16_t foreign[] = {0x0001, 0x0008, 0x0010, 0x0040, 0x8000};
    for (size_t i = 0; i < sizeof foreign / sizeof foreign[0]; i++)
        assert_int_equal(event_batch_decode(FRAME_EVENT_BATCH | foreign[i], in, &batch),
                         FELIX_UNKNOWN_FLAGS);
    assert_int_equal(event_batch_decode(0, in, &batch), FELIX_MALFORMED);
}

static void skipped_without_offsets_is_malformed(void **state) {
    static const uint8_t body[64];
    struct event_batch batch;
    assert_int_equal(event_batch_decode(FRAME_EVENT_BATCH | FRAME_EVENT_SKIPPED,
                                        slice_of(body, sizeof body), &batch),
                     FELIX_MALFORMED);
}

static void count_beyond_a_quarter_of_the_rest_is_malformed(void **state) {
    uint8_t body[4 + 12] = {0, 0, 0, 3};
    struct event_batch batch;
    struct slice in = slice_of(body, sizeof body);
    assert_int_equal(event_batch_decode(FRAME_EVENT_BATCH_SHARED, in, &batch), FELIX_OK);
    body[3] = 4;
    assert_int_equal(event_batch_decode(FRAME_EVENT_BATCH_SHARED, in, &batch), FELIX_MALFORMED);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_addressed_batch_with_offsets_is_decoded),
        cmocka_unit_test(golden_batch_with_every_modifier_is_decoded),
        cmocka_unit_test(items_are_stamped_each_with_its_own_time_or_all_with_one),
        cmocka_unit_test(prefix_and_items_make_the_golden_frame),
        cmocka_unit_test(longest_prefix_has_the_stated_size),
        cmocka_unit_test(every_truncated_golden_body_is_malformed),
        cmocka_unit_test(every_flipped_bit_is_survived),
        cmocka_unit_test(shared_wins_over_addressed),
        cmocka_unit_test(flags_of_other_layouts_are_unknown),
        cmocka_unit_test(skipped_without_offsets_is_malformed),
        cmocka_unit_test(count_beyond_a_quarter_of_the_rest_is_malformed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
