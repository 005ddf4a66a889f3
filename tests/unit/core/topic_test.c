/* Sequence numbers, merging of lone items, the replay ring and where a replay begins. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/cursor.h"
#include "core/topic.h"

#define HEADROOM ((size_t)16)

static const struct topic_limits limits = {
    .replay_items_max = 4,
    .replay_bytes_max = (size_t)1 << 20,
    .frame = {.items_max = 3, .payload_bytes_max = 100},
};

/* What was delivered: base sequence number, items, frames, first payload byte of each batch. */
struct seen {
    size_t batches;
    uint64_t base[32];
    uint32_t items[32], frames[32];
    uint8_t first[32];
};

static void note(void *context, struct buf *block) {
    struct seen *seen = context;
    const struct batch *batch = batch_of(block);
    seen->base[seen->batches] = batch->base_seq;
    seen->items[seen->batches] = batch->list.count;
    seen->frames[seen->batches] = batch->frame_count;
    seen->first[seen->batches] = batch->list.bytes.data[8];
    seen->batches++;
}

/* `count` items of `bytes` bytes each, all of them `fill`. */
static void publish(struct topic *topic, struct seen *seen, uint32_t count, uint32_t bytes,
                    uint8_t fill) {
    struct buf *body = buf_new(HEADROOM + 4 + count * (4 + bytes));
    uint8_t *at = body->data + HEADROOM;
    be32_store(at, count);
    at += 4;
    for (uint32_t i = 0; i < count; i++) {
        be32_store(at, bytes);
        memset(at + 4, fill, bytes);
        at += 4 + bytes;
    }
    struct payload_list list = {
        .bytes = slice_of(body->data + HEADROOM, 4 + count * (4 + bytes)),
        .count = count,
        .payload_bytes = (uint64_t)count * bytes,
    };
    topic_publish(topic, &limits, body, &list, HEADROOM, 0, note, seen);
}

static void a_batch_is_delivered_at_once_with_consecutive_numbers(void **) {
    struct topic topic;
    struct seen seen = {0};
    topic_init(&topic, false, 0);
    publish(&topic, &seen, 3, 5, 'a');
    publish(&topic, &seen, 2, 5, 'b');
    assert_int_equal(seen.batches, 2);
    assert_int_equal(seen.base[0], 0);
    assert_int_equal(seen.base[1], 3);
    assert_int_equal(topic.next_seq, 5);
    topic_deinit(&topic);
}

static void lone_items_of_a_turn_leave_as_one_frame_in_order(void **) {
    struct topic topic;
    struct seen seen = {0};
    topic_init(&topic, false, 0);
    publish(&topic, &seen, 1, 5, 'a');
    publish(&topic, &seen, 1, 5, 'b');
    publish(&topic, &seen, 1, 5, 'c');
    assert_int_equal(seen.batches, 0);
    assert_true(topic_is_open(&topic));
    topic_tick(&topic, &limits, note, &seen);
    assert_int_equal(seen.batches, 1);
    assert_int_equal(seen.items[0], 3);
    assert_int_equal(seen.frames[0], 1);
    assert_int_equal(seen.first[0], 'a');
    assert_false(topic_is_open(&topic));
    topic_deinit(&topic);
}

static void one_lone_item_alone_keeps_its_own_block(void **) {
    struct topic topic;
    struct seen seen = {0};
    topic_init(&topic, false, 0);
    publish(&topic, &seen, 1, 5, 'a');
    topic_tick(&topic, &limits, note, &seen);
    assert_int_equal(seen.items[0], 1);
    assert_null(topic.merge);
    topic_deinit(&topic);
}

static void a_full_merge_is_delivered_before_the_next_item_is_kept(void **) {
    struct topic topic;
    struct seen seen = {0};
    topic_init(&topic, false, 0);
    for (uint8_t i = 0; i < 4; i++)
        publish(&topic, &seen, 1, 5, (uint8_t)('a' + i));
    assert_int_equal(seen.batches, 1); /* items_max is 3 */
    assert_int_equal(seen.items[0], 3);
    topic_tick(&topic, &limits, note, &seen);
    assert_int_equal(seen.first[1], 'd');
    assert_int_equal(seen.base[1], 3);
    topic_deinit(&topic);
}

static void a_batch_waits_behind_the_lone_items_before_it(void **) {
    struct topic topic;
    struct seen seen = {0};
    topic_init(&topic, false, 0);
    publish(&topic, &seen, 1, 5, 'a');
    publish(&topic, &seen, 2, 5, 'b');
    assert_int_equal(seen.batches, 2);
    assert_int_equal(seen.first[0], 'a');
    assert_int_equal(seen.first[1], 'b');
    topic_deinit(&topic);
}

static void a_batch_over_the_limits_is_split_and_a_large_item_goes_alone(void **) {
    struct topic topic;
    struct seen seen = {0};
    topic_init(&topic, false, 0);
    publish(&topic, &seen, 7, 5, 'a'); /* 3 + 3 + 1 by items */
    assert_int_equal(seen.frames[0], 3);
    publish(&topic, &seen, 3, 60, 'b'); /* one each by bytes */
    assert_int_equal(seen.frames[1], 3);
    publish(&topic, &seen, 2, 500, 'c'); /* each over the limit: alone */
    assert_int_equal(seen.frames[2], 2);
    topic_deinit(&topic);
}

static void the_ring_keeps_the_newest_items_and_not_one_more(void **) {
    struct topic topic;
    struct seen seen = {0};
    topic_init(&topic, false, 0);
    for (uint8_t i = 0; i < 5; i++)
        publish(&topic, &seen, 2, 5, (uint8_t)('a' + i)); /* 0 .. 9 */
    assert_int_equal(topic.next_seq, 10);
    assert_int_equal(topic_oldest(&topic, &limits), 6);
    publish(&topic, &seen, 3, 5, 'z');                  /* 10, 11, 12 */
    assert_int_equal(topic_oldest(&topic, &limits), 9); /* in the middle of a batch */
    topic_deinit(&topic);
}

static void a_replay_begins_where_it_was_asked_to(void **) {
    struct topic topic;
    struct seen seen = {0};
    struct topic_position at = {0};
    uint64_t seq = 0;
    topic_init(&topic, false, 0);
    for (uint8_t i = 0; i < 5; i++)
        publish(&topic, &seen, 2, 5, (uint8_t)('a' + i)); /* 6, 7 | 8, 9 are kept */

    assert_int_equal(topic_seek(&topic, &limits, START_LATEST, 0, &seq, &at), FELIX_OK);
    assert_int_equal(seq, 10);
    assert_null(topic_ring_at(&topic, at.ring_index));

    assert_int_equal(topic_seek(&topic, &limits, START_EARLIEST, 0, &seq, &at), FELIX_OK);
    assert_int_equal(seq, 6);
    assert_int_equal(at.first_item, 0);
    assert_int_equal(batch_of(topic_ring_at(&topic, at.ring_index))->base_seq, 6);

    assert_int_equal(topic_seek(&topic, &limits, START_OFFSET, 9, &seq, &at), FELIX_OK);
    assert_int_equal(at.first_item, 1);
    assert_int_equal(batch_of(topic_ring_at(&topic, at.ring_index))->base_seq, 8);

    assert_int_equal(topic_seek(&topic, &limits, START_OFFSET, 10, &seq, &at), FELIX_OK);
    assert_int_equal(topic_seek(&topic, &limits, START_OFFSET, 11, &seq, &at),
                     FELIX_CURSOR_IN_FUTURE);
    assert_int_equal(seq, 10);
    assert_int_equal(topic_seek(&topic, &limits, START_OFFSET, 5, &seq, &at), FELIX_CURSOR_TOO_OLD);
    assert_int_equal(seq, 6);
    topic_deinit(&topic);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_batch_is_delivered_at_once_with_consecutive_numbers),
        cmocka_unit_test(lone_items_of_a_turn_leave_as_one_frame_in_order),
        cmocka_unit_test(one_lone_item_alone_keeps_its_own_block),
        cmocka_unit_test(a_full_merge_is_delivered_before_the_next_item_is_kept),
        cmocka_unit_test(a_batch_waits_behind_the_lone_items_before_it),
        cmocka_unit_test(a_batch_over_the_limits_is_split_and_a_large_item_goes_alone),
        cmocka_unit_test(the_ring_keeps_the_newest_items_and_not_one_more),
        cmocka_unit_test(a_replay_begins_where_it_was_asked_to),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
