/* The send queue alone: a stream of a connection that has no ngtcp2 behind it. */
#include "quic/stream.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/rand.h"
#include "quic/endpoint.h"

static struct quic_endpoint endpoint;
static struct quic_conn conn;
static size_t live_before;

static int setup(void **) {
    endpoint = (struct quic_endpoint){0};
    conn = (struct quic_conn){.magic = CONN_MAGIC, .endpoint = &endpoint, .state = CONN_READY};
    live_before = buf_live_bytes();
    return 0;
}

/* A test frees its streams; then nothing may be left over. */
static int teardown(void **) {
    while (conn.streams != NULL)
        stream_free(conn.streams);
    bool clean = conn.unacked_bytes == 0 && conn.rx_held_bytes == 0 && conn.send_tail == NULL &&
                 conn.stream_count == 0 && buf_live_bytes() == live_before;
    return clean ? 0 : -1;
}

static bool write_bytes(struct quic_stream *stream, size_t len) {
    struct buf *block = buf_new(len > 0 ? len : 1);
    return quic_stream_write(stream, block, block->data, len);
}

static size_t unsent_vecs(struct quic_stream *stream, size_t vec_max, size_t bytes_max,
                          size_t *ret_bytes, bool *ret_all) {
    ngtcp2_vec vecs[16];
    assert_true(vec_max <= 16);
    size_t count = stream_unsent_vecs(stream, vecs, vec_max, bytes_max, ret_all);
    *ret_bytes = 0;
    for (size_t i = 0; i < count; i++)
        *ret_bytes += vecs[i].len;
    return count;
}

static void a_block_goes_when_its_last_byte_is_acknowledged(void **) {
    struct quic_stream *stream = stream_new(&conn, 0, true, true);
    struct buf *block = buf_ref(buf_new(100));
    assert_true(quic_stream_write(stream, block, block->data, 100));
    assert_int_equal(block->refs, 2);
    stream_given(stream, 100);
    stream_acked(stream, 99);
    assert_int_equal(block->refs, 2);
    assert_int_equal(stream->unacked_bytes, 1);
    stream_acked(stream, 1);
    assert_int_equal(block->refs, 1);
    assert_int_equal(conn.unacked_bytes, 0);
    buf_unref(block);
}

static void one_acknowledgement_may_cover_many_blocks(void **) {
    struct quic_stream *stream = stream_new(&conn, 0, true, true);
    for (size_t i = 1; i <= 20; i++)
        assert_true(write_bytes(stream, i));
    stream_given(stream, 210);
    stream_acked(stream, 209);
    assert_int_equal(stream->piece_count, 1);
    assert_int_equal(stream->unacked_bytes, 1);
    stream_acked(stream, 1);
    assert_int_equal(stream->piece_count, 0);
}

static void unsent_bytes_are_shown_in_order_from_the_middle_of_a_block(void **) {
    struct quic_stream *stream = stream_new(&conn, 0, true, true);
    struct buf *block = buf_new(10);
    uint8_t *data = block->data;
    (void)buf_ref(block);
    assert_true(quic_stream_write(stream, block, data + 6, 4));
    assert_true(quic_stream_write(stream, block, data, 6));
    stream_given(stream, 3);
    ngtcp2_vec vecs[4];
    bool all = false;
    assert_int_equal(stream_unsent_vecs(stream, vecs, 4, 1000, &all), 2);
    assert_true(all);
    assert_ptr_equal(vecs[0].base, data + 9);
    assert_int_equal(vecs[0].len, 1);
    assert_ptr_equal(vecs[1].base, data);
    assert_int_equal(vecs[1].len, 6);
}

static void what_follows_in_the_same_block_joins_the_run_before_it(void **) {
    struct quic_stream *stream = stream_new(&conn, 0, true, true);
    struct buf *block = buf_new(30);
    size_t bytes;
    bool all;
    assert_true(quic_stream_write(stream, buf_ref(block), block->data, 10));
    assert_true(quic_stream_write(stream, buf_ref(block), block->data + 10, 5));
    assert_int_equal(unsent_vecs(stream, 16, 1000, &bytes, &all), 1);
    assert_int_equal(bytes, 15);
    stream_given(stream, 12);
    assert_true(quic_stream_write(stream, buf_ref(block), block->data + 15, 5));
    assert_int_equal(unsent_vecs(stream, 16, 1000, &bytes, &all), 1);
    assert_int_equal(bytes, 8);
    assert_int_equal(block->refs, 2);

    /* Not to a run that was given whole, and not across a gap. */
    stream_given(stream, 8);
    assert_true(quic_stream_write(stream, buf_ref(block), block->data + 20, 4));
    assert_true(quic_stream_write(stream, buf_ref(block), block->data + 25, 4));
    assert_int_equal(unsent_vecs(stream, 16, 1000, &bytes, &all), 2);
    assert_int_equal(block->refs, 4);
    stream_given(stream, 8);
    stream_acked(stream, 28);
    assert_int_equal(block->refs, 1);
    buf_unref(block);
}

static void what_does_not_fit_is_not_called_all(void **) {
    struct quic_stream *stream = stream_new(&conn, 0, true, true);
    size_t bytes = 0;
    bool all = true;
    for (size_t i = 0; i < 5; i++)
        assert_true(write_bytes(stream, 10));
    assert_int_equal(unsent_vecs(stream, 4, 1000, &bytes, &all), 4);
    assert_false(all);
    assert_int_equal(unsent_vecs(stream, 16, 20, &bytes, &all), 2);
    assert_false(all);
    assert_int_equal(unsent_vecs(stream, 5, 1000, &bytes, &all), 5);
    assert_true(all);
    stream_given(stream, 50);
    assert_int_equal(unsent_vecs(stream, 5, 1000, &bytes, &all), 0);
    assert_true(all);
}

static void empty_write_leaves_nothing(void **) {
    struct quic_stream *stream = stream_new(&conn, 0, true, true);
    assert_true(write_bytes(stream, 0));
    assert_int_equal(stream->piece_count, 0);
    assert_null(conn.send_tail);
}

static void writing_after_the_end_is_refused_and_drops_the_block(void **) {
    struct quic_stream *stream = stream_new(&conn, 0, true, true);
    assert_true(write_bytes(stream, 5));
    quic_stream_finish(stream);
    assert_false(write_bytes(stream, 5));
    assert_int_equal(stream->unsent_bytes, 5);
    struct quic_stream *read_only = stream_new(&conn, 3, true, false);
    assert_false(write_bytes(read_only, 5));
    quic_stream_finish(read_only);
    assert_false(read_only->fin_queued);
}

/* What ngtcp2 has seen stays until the stream ends, because a retransmission may look at it. */
static void shut_stream_keeps_only_what_was_given(void **) {
    struct quic_stream *stream = stream_new(&conn, 0, true, true);
    struct buf *blocks[3];
    for (size_t i = 0; i < 3; i++) {
        blocks[i] = buf_ref(buf_new(10));
        assert_true(quic_stream_write(stream, blocks[i], blocks[i]->data, 10));
    }
    stream_given(stream, 11);
    stream_shut_write(stream);
    assert_int_equal(blocks[0]->refs, 2);
    assert_int_equal(blocks[1]->refs, 2);
    assert_int_equal(blocks[2]->refs, 1);
    assert_int_equal(stream->unacked_bytes, 0);
    assert_int_equal(conn.unacked_bytes, 0);
    assert_false(stream->in_send_list);
    stream_acked(stream, 11);
    assert_false(write_bytes(stream, 1));
    stream_free(stream);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(blocks[i]->refs, 1);
        buf_unref(blocks[i]);
    }
}

static void streams_wait_in_the_order_in_which_they_came(void **) {
    struct quic_stream *streams[4];
    for (size_t i = 0; i < 4; i++) {
        streams[i] = stream_new(&conn, (int64_t)i * 4, true, true);
        assert_true(write_bytes(streams[i], 1));
        assert_true(write_bytes(streams[i], 1)); /* not a second place */
    }
    const struct quic_stream *at = conn.send_tail->send_next;
    for (size_t i = 0; i < 4; i++, at = at->send_next)
        assert_ptr_equal(at, streams[i]);
    assert_ptr_equal(at, streams[0]);
    stream_leave_send_list(streams[3]);
    assert_ptr_equal(conn.send_tail, streams[2]);
    stream_leave_send_list(streams[0]);
    assert_ptr_equal(conn.send_tail->send_next, streams[1]);
    stream_leave_send_list(streams[1]);
    stream_leave_send_list(streams[2]);
    assert_null(conn.send_tail);
}

static void blocked_stream_does_not_ask_to_send(void **) {
    struct quic_stream *stream = stream_new(&conn, 0, true, true);
    stream->blocked = true;
    conn.blocked_count = 1;
    assert_true(write_bytes(stream, 5));
    assert_null(conn.send_tail);
    assert_int_equal(stream->unsent_bytes, 5);
    stream_unblock(stream);
    assert_ptr_equal(conn.send_tail, stream);
    assert_int_equal(conn.blocked_count, 0);
}

static void consuming_gives_back_what_was_held(void **) {
    struct quic_stream *stream = stream_new(&conn, 0, true, true);
    stream->rx_held_bytes = conn.rx_held_bytes = 50;
    quic_stream_consume(stream, 20);
    assert_int_equal(stream->rx_held_bytes, 30);
    assert_int_equal(conn.rx_held_bytes, 30);
}

static void held_alone_it_counts_against_the_stream_only(void **) {
    struct quic_stream *stream = stream_new(&conn, 0, true, true);
    stream->rx_held_bytes = conn.rx_held_bytes = 50;
    quic_stream_hold_alone(stream);
    assert_int_equal(stream->rx_held_bytes, 50);
    assert_int_equal(conn.rx_held_bytes, 0);
    stream->rx_held_bytes += 30;
    conn.rx_held_bytes += 30;
    quic_stream_consume(stream, 60); /* the oldest first */
    assert_int_equal(stream->rx_held_bytes, 20);
    assert_int_equal(conn.rx_held_bytes, 20);
    quic_stream_hold_alone(stream);
    quic_stream_consume(stream, 5);
    assert_int_equal(conn.rx_held_bytes, 0);
}

/* Random writes, givings and acknowledgements against plain sums. */
static void counts_agree_with_sums(void **) {
    struct quic_stream *stream = stream_new(&conn, 0, true, true);
    size_t written = 0, given = 0, acked = 0;
    struct rng rng;
    rng_seed(&rng, 5);
    for (size_t step = 0; step < 20000; step++) {
        size_t most = 0;
        switch (rng_below(&rng, 3)) {
        case 0:
            most = 1 + rng_below(&rng, 40);
            assert_true(write_bytes(stream, most));
            written += most;
            break;
        case 1:
            most = rng_below(&rng, written - given + 1);
            stream_given(stream, most);
            given += most;
            break;
        default:
            most = rng_below(&rng, given - acked + 1);
            stream_acked(stream, most);
            acked += most;
            break;
        }
        assert_int_equal(stream->unsent_bytes, written - given);
        assert_int_equal(stream->unacked_bytes, written - acked);
        assert_int_equal(conn.unacked_bytes, written - acked);
        if (written == acked)
            assert_int_equal(stream->piece_count, 0);
    }
}

#define STREAM_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        STREAM_TEST(a_block_goes_when_its_last_byte_is_acknowledged),
        STREAM_TEST(one_acknowledgement_may_cover_many_blocks),
        STREAM_TEST(unsent_bytes_are_shown_in_order_from_the_middle_of_a_block),
        STREAM_TEST(what_follows_in_the_same_block_joins_the_run_before_it),
        STREAM_TEST(what_does_not_fit_is_not_called_all),
        STREAM_TEST(empty_write_leaves_nothing),
        STREAM_TEST(writing_after_the_end_is_refused_and_drops_the_block),
        STREAM_TEST(shut_stream_keeps_only_what_was_given),
        STREAM_TEST(streams_wait_in_the_order_in_which_they_came),
        STREAM_TEST(blocked_stream_does_not_ask_to_send),
        STREAM_TEST(consuming_gives_back_what_was_held),
        STREAM_TEST(held_alone_it_counts_against_the_stream_only),
        STREAM_TEST(counts_agree_with_sums),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
