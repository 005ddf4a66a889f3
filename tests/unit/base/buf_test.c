#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <string.h>

#include "base/buf.h"

#ifndef FELIX_POOLS
#define FELIX_POOLS 1
#endif

static uint32_t refs_of(const struct buf *b) {
    return atomic_load_explicit(&b->refs, memory_order_relaxed);
}

/* Exact only after each thread that made or freed blocks has trimmed. */
static size_t live_now(void) {
    buf_thread_trim();
    return buf_live_bytes();
}

static void a_block_has_at_least_the_room_asked_for_in_powers_of_two(void **state) {
    (void)state;
    static const struct {
        size_t asked, given;
    } sizes[] = {
        {0, 64},
        {1, 64},
        {64, 64},
        {65, 128},
        {128, 128},
        {129, 256},
        {1500, 2048},
        {BUF_POOLED_BYTES_MAX - 1, BUF_POOLED_BYTES_MAX},
        {BUF_POOLED_BYTES_MAX, BUF_POOLED_BYTES_MAX},
        {BUF_POOLED_BYTES_MAX + 1, BUF_POOLED_BYTES_MAX + 1},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct buf *b = buf_new(sizes[i].asked);
        assert_int_equal(b->capacity, sizes[i].given);
        assert_int_equal((uintptr_t)b->data % 16, 0);
        memset(b->data, 0xa5, b->capacity);
        buf_unref(b);
    }
}

static void the_last_reference_frees(void **state) {
    (void)state;
    size_t before = live_now();
    struct buf *b = buf_new(100);
    assert_int_equal(refs_of(b), 1);
    assert_ptr_equal(buf_ref(b), b);
    assert_int_equal(refs_of(b), 2);
    buf_unref(b);
    assert_int_equal(live_now(), before + 128);
    buf_unref(b);
    assert_int_equal(live_now(), before);
}

static void a_block_shared_while_referenced_keeps_its_count(void **state) {
    (void)state;
    size_t before = live_now();
    struct buf *b = buf_new(100);
    (void)buf_ref(b);
    buf_share(b);
    (void)buf_ref(b);
    assert_int_equal(refs_of(b), 3);
    for (int i = 0; i < 3; i++)
        buf_unref(b);
    assert_int_equal(live_now(), before);
}

static void dropping_nothing_is_allowed(void **state) {
    (void)state;
    buf_unref(NULL);
}

static void a_companion_goes_with_its_block_unless_held_elsewhere(void **state) {
    (void)state;
    size_t before = live_now();
    struct buf *body = buf_new(1000);
    struct buf *block = buf_new(100);
    block->companion = buf_ref(body);
    buf_unref(block);
    assert_int_equal(refs_of(body), 1);
    block = buf_new(100);
    block->companion = body;
    buf_unref(block);
    assert_int_equal(live_now(), before);
}

static void a_new_block_carries_nothing_over_from_a_freed_one(void **state) {
    (void)state;
    struct buf *first = buf_new(100);
    first->companion = buf_new(10);
    buf_share(first);
    buf_unref(first);
    struct buf *second = buf_new(100);
#if FELIX_POOLS
    assert_ptr_equal(second, first);
#endif
    assert_int_equal(refs_of(second), 1);
    assert_false(second->shared);
    assert_null(second->next);
    assert_null(second->companion);
    buf_unref(second);
}

static void live_bytes_count_capacity_and_forget_freed_blocks(void **state) {
    (void)state;
    enum { BLOCKS = 100 };
    struct buf *blocks[BLOCKS];
    size_t before = live_now();
    size_t expected = before;
    for (size_t i = 0; i < BLOCKS; i++) {
        blocks[i] = buf_new(i * i * 100);
        expected += blocks[i]->capacity;
    }
    assert_int_equal(live_now(), expected);
    for (size_t i = 0; i < BLOCKS; i++)
        buf_unref(blocks[i]);
    assert_int_equal(live_now(), before);
}

#define THREADS 4
#define ROUNDS 500000

static pthread_barrier_t all_started;

static void *reference_and_drop(void *context) {
    struct buf *b = context;
    (void)pthread_barrier_wait(&all_started);
    for (int i = 0; i < ROUNDS; i++) {
        struct buf *mine = buf_ref(b);
        if (mine->data[i % 64] != (uint8_t)(i % 64))
            return (void *)1;
        buf_unref(mine);
    }
    buf_unref(b); /* the one that was handed over */
    buf_thread_trim();
    return NULL;
}

static void a_shared_block_survives_threads_that_reference_it_at_once(void **state) {
    (void)state;
    size_t before = live_now();
    struct buf *b = buf_new(64);
    for (unsigned i = 0; i < 64; i++)
        b->data[i] = (uint8_t)i;
    buf_share(b);
    pthread_t threads[THREADS];
    assert_int_equal(pthread_barrier_init(&all_started, NULL, THREADS), 0);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, reference_and_drop, buf_ref(b)), 0);
    for (int i = 0; i < THREADS; i++) {
        void *failed;
        assert_int_equal(pthread_join(threads[i], &failed), 0);
        assert_null(failed);
    }
    (void)pthread_barrier_destroy(&all_started);
    assert_int_equal(refs_of(b), 1);
    buf_unref(b);
    assert_int_equal(live_now(), before);
}

static void *drop_all(void *context) {
    struct buf **blocks = context;
    for (; *blocks != NULL; blocks++)
        buf_unref(*blocks);
    buf_thread_trim();
    return NULL;
}

static void a_block_may_be_freed_by_another_thread(void **state) {
    (void)state;
    size_t before = live_now();
    struct buf *blocks[1001] = {0};
    for (size_t i = 0; i < 1000; i++) {
        blocks[i] = buf_new(i * 3);
        buf_share(blocks[i]);
    }
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, drop_all, blocks), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(live_now(), before);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_block_has_at_least_the_room_asked_for_in_powers_of_two),
        cmocka_unit_test(the_last_reference_frees),
        cmocka_unit_test(a_block_shared_while_referenced_keeps_its_count),
        cmocka_unit_test(dropping_nothing_is_allowed),
        cmocka_unit_test(a_companion_goes_with_its_block_unless_held_elsewhere),
        cmocka_unit_test(a_new_block_carries_nothing_over_from_a_freed_one),
        cmocka_unit_test(live_bytes_count_capacity_and_forget_freed_blocks),
        cmocka_unit_test(a_shared_block_survives_threads_that_reference_it_at_once),
        cmocka_unit_test(a_block_may_be_freed_by_another_thread),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    buf_thread_trim();
    return failed;
}
