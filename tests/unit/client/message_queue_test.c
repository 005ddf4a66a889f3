/* The queue between the network and felix_next: order, policies, credit, the end. */
#include "client/message_queue.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/cursor.h"
#include "base/rand.h"

#define NO_LIMIT SIZE_MAX
#define BATCH_MAX 64u
#define FAR_NS (20 * NS_PER_S)

static struct message_queue queue;
static uint32_t pushed; /* messages so far: each carries its number */
static uint64_t dropped;

static void start(enum felix_queue_policy policy, size_t messages_max, size_t bytes_max) {
    message_queue_init(&queue, policy, messages_max, bytes_max);
    pushed = 0;
    dropped = 0;
}

static int done(void **state) {
    (void)state;
    message_queue_deinit(&queue);
    buf_thread_trim();
    return 0;
}

/* Push the next `count` numbers as one batch, in a block or, `loose`, somewhere else. */
static size_t push(uint32_t count, size_t credit_bytes, bool loose) {
    uint8_t items[BATCH_MAX * 8];
    assert_true(count <= BATCH_MAX);
    for (uint32_t i = 0; i < count; i++) {
        be32_store(items + (size_t)8 * i, 4);
        be32_store(items + (size_t)8 * i + 4, pushed + i);
    }
    struct event_batch batch = {
        .has_offsets = true, .base_offset = 1000 + pushed, .count = count, .items.len = 8 * count};
    struct buf *block = NULL;
    batch.items.data = items;
    if (!loose) {
        block = buf_new(FRAME_READER_HEADROOM_BYTES + sizeof items);
        memcpy(block->data + FRAME_READER_HEADROOM_BYTES, items, (size_t)8 * count);
        batch.items.data = block->data + FRAME_READER_HEADROOM_BYTES;
    }
    pushed += count;
    return message_queue_push(&queue, &batch, block, credit_bytes, &dropped);
}

/* The number in the next message, or -1 when there is none. */
static int64_t take(void) {
    struct felix_message message;
    bool collect;
    if (message_queue_take(&queue, &message, &collect) != QUEUE_TAKEN)
        return -1;
    assert_int_equal(message.len, 4);
    uint32_t number = be32_load(message.data);
    assert_true(message.has_offset);
    assert_int_equal(message.offset, 1000 + number);
    return number;
}

static void assert_taken(uint32_t first, uint32_t count) {
    for (uint32_t i = 0; i < count; i++)
        assert_int_equal(take(), first + i);
    assert_int_equal(take(), -1);
}

static void messages_come_out_in_order_with_their_offsets(void **state) {
    (void)state;
    start(FELIX_QUEUE_BLOCK, 1, 1 << 20);
    push(3, 0, false);
    push(1, 0, true);
    push(60, 0, true);
    push(2, 0, false);
    assert_taken(0, 66);
}

static void block_keeps_everything_and_holds_its_credit_until_it_was_read(void **state) {
    (void)state;
    start(FELIX_QUEUE_BLOCK, 4, 64);
    for (int i = 0; i < 10; i++)
        assert_int_equal(push(10, 100, false), 0);
    assert_int_equal(dropped, 0);
    /* A block counts as read when something behind it is asked for. */
    for (int i = 0; i < 30; i++)
        assert_int_equal(take(), i);
    assert_int_equal(message_queue_collect(&queue), 200);
    assert_int_equal(message_queue_collect(&queue), 0);
    assert_taken(30, 70);
    assert_int_equal(message_queue_collect(&queue), 800);
}

static void credit_of_what_was_read_comes_back_with_the_next_push_too(void **state) {
    (void)state;
    start(FELIX_QUEUE_BLOCK, NO_LIMIT, 1 << 20);
    push(1, 70, false);
    assert_taken(0, 1);
    assert_int_equal(push(1, 30, false), 70);
}

static void a_drop_policy_gives_credit_back_at_once(void **state) {
    (void)state;
    start(FELIX_QUEUE_DROP_NEW, 10, 1 << 20);
    assert_int_equal(push(5, 123, false), 123);
    assert_int_equal(push(50, 45, false), 45);
    assert_int_equal(message_queue_collect(&queue), 0);
}

static void drop_new_keeps_the_oldest_and_counts(void **state) {
    (void)state;
    start(FELIX_QUEUE_DROP_NEW, 10, 1 << 20);
    push(7, 0, false);
    push(7, 0, false); /* three of them fit */
    push(7, 0, true);
    assert_int_equal(dropped, 4 + 7);
    assert_int_equal(message_queue_dropped(&queue), 11);
    assert_taken(0, 10);
    push(2, 0, false);
    assert_taken(21, 2);
}

static void drop_old_keeps_the_newest_and_counts(void **state) {
    (void)state;
    start(FELIX_QUEUE_DROP_OLD, 10, 1 << 20);
    push(7, 0, false);
    push(7, 0, false); /* four of the first go */
    assert_int_equal(dropped, 4);
    push(7, 0, true); /* the rest of the first, and one of the second */
    assert_int_equal(message_queue_dropped(&queue), 11);
    assert_taken(11, 10);
}

static void drop_old_of_a_batch_larger_than_the_queue_keeps_its_end(void **state) {
    (void)state;
    start(FELIX_QUEUE_DROP_OLD, 10, 1 << 20);
    push(3, 0, false);
    push(25, 0, false);
    assert_int_equal(dropped, 18);
    assert_taken(18, 10);
}

static void bytes_bound_a_dropping_queue_too(void **state) {
    (void)state;
    /* Room for one block and a half: each counts with all its memory. */
    size_t block_bytes = FRAME_READER_HEADROOM_BYTES + BATCH_MAX * 8;
    start(FELIX_QUEUE_DROP_NEW, NO_LIMIT, block_bytes * 3 / 2);
    push(5, 0, false);
    push(5, 0, false);
    assert_int_equal(dropped, 5);
    assert_taken(0, 5);
    message_queue_deinit(&queue);

    start(FELIX_QUEUE_DROP_OLD, NO_LIMIT, block_bytes * 3 / 2);
    push(5, 0, false);
    push(5, 0, false);
    assert_int_equal(dropped, 5);
    assert_taken(5, 5);
}

static void the_end_comes_after_everything_was_taken(void **state) {
    (void)state;
    struct felix_message message;
    bool collect;
    start(FELIX_QUEUE_BLOCK, NO_LIMIT, 1 << 20);
    push(2, 0, false);
    message_queue_end(&queue, FELIX_CLOSED, "the first reason");
    message_queue_end(&queue, FELIX_INTERNAL, "a later one");
    assert_int_equal(take(), 0);
    assert_int_equal(take(), 1);
    for (int i = 0; i < 2; i++)
        assert_int_equal(message_queue_take(&queue, &message, &collect), QUEUE_ENDED);
    assert_int_equal(queue.end_err, FELIX_CLOSED);
    assert_string_equal(queue.end_text, "the first reason");
}

static void the_reader_asks_for_collection_once_enough_was_read(void **state) {
    (void)state;
    struct felix_message message;
    bool collect;
    int asked = 0;
    start(FELIX_QUEUE_BLOCK, NO_LIMIT, 8 * 4096); /* a collection is due after 4096 bytes */
    for (int i = 0; i < 10; i++)
        push(1, 0, false);
    while (message_queue_take(&queue, &message, &collect) == QUEUE_TAKEN)
        asked += collect ? 1 : 0;
    assert_int_equal(asked, 1);
    (void)message_queue_collect(&queue);
    for (int i = 0; i < 10; i++)
        push(1, 0, false);
    while (message_queue_take(&queue, &message, &collect) == QUEUE_TAKEN)
        asked += collect ? 1 : 0;
    assert_int_equal(asked, 2);
}

/* An event in JSON takes more of the window than of memory here. */
static void credit_counts_where_it_is_more_than_the_memory(void **state) {
    (void)state;
    struct felix_message message;
    bool collect;
    start(FELIX_QUEUE_BLOCK, NO_LIMIT, 8 * 4096);
    push(1, 4095, true);
    assert_int_equal(message_queue_take(&queue, &message, &collect), QUEUE_TAKEN);
    assert_int_equal(message_queue_take(&queue, &message, &collect), QUEUE_EMPTY);
    assert_false(collect);
    push(1, 0, true);
    push(1, 4096, true);
    while (message_queue_take(&queue, &message, &collect) == QUEUE_TAKEN)
        assert_false(collect);
    assert_true(collect);
}

/* What was pushed is in the queue, was taken, or was counted as dropped; and the order holds. */
static void nothing_is_lost_uncounted_under_any_policy(void **state) {
    (void)state;
    for (unsigned policy = FELIX_QUEUE_BLOCK; policy <= FELIX_QUEUE_DROP_OLD; policy++) {
        struct rng rng;
        rng_seed(&rng, 7 + policy);
        start((enum felix_queue_policy)policy, 40, 4096);
        uint64_t taken = 0, credit_given = 0, credit_back = 0;
        int64_t last = -1;
        for (int step = 0; step < 20000; step++) {
            if (rng_below(&rng, 3) == 0) {
                size_t credit_bytes = rng_below(&rng, 1000);
                uint32_t count = (uint32_t)rng_below(&rng, BATCH_MAX) + 1;
                credit_given += credit_bytes;
                credit_back += push(count, credit_bytes, rng_below(&rng, 2) == 0);
            }
            for (uint64_t n = rng_below(&rng, 30); n > 0; n--) {
                int64_t number = take();
                if (number < 0)
                    break;
                assert_true(number > last);
                last = number;
                taken++;
            }
        }
        while (take() >= 0)
            taken++;
        credit_back += message_queue_collect(&queue);
        assert_int_equal(taken + dropped, pushed);
        assert_int_equal(credit_back, credit_given);
        assert_true((dropped > 0) == (policy != FELIX_QUEUE_BLOCK));
        if (policy != FELIX_QUEUE_DROP_OLD)
            message_queue_deinit(&queue);
    }
}

#define CROSSING 20000u

static void *pusher(void *context) {
    (void)context;
    for (uint32_t i = 0; i < CROSSING / 4; i++)
        push(4, 10, i % 2 == 0);
    message_queue_end(&queue, FELIX_CLOSED, "");
    buf_thread_trim();
    return NULL;
}

static void a_waiting_reader_is_woken_by_each_push_and_by_the_end(void **state) {
    (void)state;
    struct felix_message message;
    pthread_t thread;
    bool collect;
    uint32_t taken = 0;
    start(FELIX_QUEUE_BLOCK, NO_LIMIT, 1 << 20);
    assert_int_equal(pthread_create(&thread, NULL, pusher, NULL), 0);
    for (;;) {
        enum queue_take result = message_queue_take(&queue, &message, &collect);
        if (result == QUEUE_ENDED)
            break;
        if (result == QUEUE_EMPTY)
            assert_true(waiter_wait(&queue.waiter, clock_now_ns() + FAR_NS, 0));
        else
            assert_int_equal(be32_load(message.data), taken++);
    }
    (void)pthread_join(thread, NULL);
    assert_int_equal(taken, CROSSING);
}

int main(void) {
#define TEST(name) cmocka_unit_test_teardown(name, done)
    const struct CMUnitTest tests[] = {
        TEST(messages_come_out_in_order_with_their_offsets),
        TEST(block_keeps_everything_and_holds_its_credit_until_it_was_read),
        TEST(credit_of_what_was_read_comes_back_with_the_next_push_too),
        TEST(a_drop_policy_gives_credit_back_at_once),
        TEST(drop_new_keeps_the_oldest_and_counts),
        TEST(drop_old_keeps_the_newest_and_counts),
        TEST(drop_old_of_a_batch_larger_than_the_queue_keeps_its_end),
        TEST(bytes_bound_a_dropping_queue_too),
        TEST(the_end_comes_after_everything_was_taken),
        TEST(the_reader_asks_for_collection_once_enough_was_read),
        TEST(credit_counts_where_it_is_more_than_the_memory),
        TEST(nothing_is_lost_uncounted_under_any_policy),
        TEST(a_waiting_reader_is_woken_by_each_push_and_by_the_end),
    };
    return cmocka_run_group_tests_name("client_message_queue", tests, NULL, NULL);
}
