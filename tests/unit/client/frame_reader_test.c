/* Frames out of a byte stream, however it is cut. */
#include "client/frame_reader.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define MAX_BODY 64u
#define FRAMES_MAX 8

/* What a handler saw. */
struct seen {
    size_t count;
    uint16_t flags[FRAMES_MAX];
    char bodies[FRAMES_MAX][MAX_BODY + 1];
    bool in_block[FRAMES_MAX];
    size_t stop_after; /* 0: never */
    struct buf *taken; /* the block of the last frame, if the handler is to take it */
    bool take;
};

static struct frame_reader reader;
static struct seen seen;

static int fresh(void **state) {
    (void)state;
    frame_reader_init(&reader, MAX_BODY);
    seen = (struct seen){0};
    return 0;
}

static int done(void **state) {
    (void)state;
    frame_reader_deinit(&reader);
    buf_unref(seen.taken);
    return 0;
}

static bool on_frame(void *context, struct frame *frame) {
    struct seen *at = context;
    assert_true(at->count < FRAMES_MAX);
    at->flags[at->count] = frame->header.flags;
    memcpy(at->bodies[at->count], frame->body.data, frame->body.len);
    at->bodies[at->count][frame->body.len] = '\0';
    at->in_block[at->count] = frame->block != NULL;
    at->count++;
    if (at->take) {
        at->taken = frame->block;
        frame->block = NULL;
    }
    return at->count != at->stop_after;
}

/* Append a frame to `out`; returns the bytes so far. */
static size_t add_frame(uint8_t *out, size_t at, uint16_t flags, const char *body) {
    frame_header_encode(out + at, flags, (uint32_t)strlen(body));
    memcpy(out + at + FRAME_HEADER_BYTES, body, strlen(body));
    return at + FRAME_HEADER_BYTES + strlen(body);
}

static enum felix_err feed(const uint8_t *data, size_t len) {
    return frame_reader_feed(&reader, slice_of(data, len), on_frame, &seen);
}

static void frames_in_one_piece_are_not_copied(void **state) {
    (void)state;
    uint8_t data[256];
    size_t len = add_frame(data, 0, 0, "{}");
    len = add_frame(data, len, FRAME_EVENT_BATCH, "second");
    assert_int_equal(feed(data, len), FELIX_OK);
    assert_int_equal(seen.count, 2);
    assert_string_equal(seen.bodies[0], "{}");
    assert_string_equal(seen.bodies[1], "second");
    assert_int_equal(seen.flags[1], FRAME_EVENT_BATCH);
    assert_false(seen.in_block[0] || seen.in_block[1]);
    assert_false(frame_reader_is_partial(&reader));
}

static void frames_cut_anywhere_come_out_the_same(void **state) {
    (void)state;
    uint8_t data[256];
    size_t len = add_frame(data, 0, 4, "first");
    len = add_frame(data, len, 8, "");
    len = add_frame(data, len, 2, "the third one");
    for (size_t a = 0; a <= len; a++) {
        for (size_t b = a; b <= len; b++) {
            seen = (struct seen){0};
            assert_int_equal(feed(data, a), FELIX_OK);
            assert_int_equal(feed(data + a, b - a), FELIX_OK);
            assert_int_equal(feed(data + b, len - b), FELIX_OK);
            assert_int_equal(seen.count, 3);
            assert_string_equal(seen.bodies[0], "first");
            assert_string_equal(seen.bodies[1], "");
            assert_string_equal(seen.bodies[2], "the third one");
            assert_int_equal(seen.flags[2], 2);
            assert_false(frame_reader_is_partial(&reader));
        }
    }
}

static void a_begun_frame_is_partial_until_its_last_byte(void **state) {
    (void)state;
    uint8_t data[64];
    size_t len = add_frame(data, 0, 0, "x");
    for (size_t i = 0; i < len; i++) {
        assert_int_equal(frame_reader_is_partial(&reader), i > 0);
        assert_int_equal(feed(data + i, 1), FELIX_OK);
    }
    assert_false(frame_reader_is_partial(&reader));
    assert_int_equal(seen.count, 1);
}

static void the_handler_may_keep_the_block_of_a_frame_that_came_in_pieces(void **state) {
    (void)state;
    uint8_t data[64];
    size_t len = add_frame(data, 0, 0, "payload");
    seen.take = true;
    assert_int_equal(feed(data, 15), FELIX_OK);
    assert_int_equal(feed(data + 15, len - 15), FELIX_OK);
    assert_non_null(seen.taken);
    assert_memory_equal(seen.taken->data + FRAME_READER_HEADROOM_BYTES, "payload", 7);
}

static void a_body_at_the_limit_is_taken_one_more_is_refused(void **state) {
    (void)state;
    uint8_t data[FRAME_HEADER_BYTES + MAX_BODY + 1];
    memset(data, 'x', sizeof data);
    frame_header_encode(data, 0, MAX_BODY);
    assert_int_equal(feed(data, FRAME_HEADER_BYTES + MAX_BODY), FELIX_OK);
    assert_int_equal(seen.count, 1);
    frame_header_encode(data, 0, MAX_BODY + 1);
    assert_int_equal(feed(data, sizeof data), FELIX_TOO_LARGE);
    /* Refused by its header: nobody waits for such a body, or makes room for it. */
    assert_int_equal(feed(data, 5), FELIX_OK);
    assert_int_equal(feed(data + 5, FRAME_HEADER_BYTES - 5), FELIX_TOO_LARGE);
    assert_null(reader.block);
    assert_int_equal(seen.count, 1);
}

static void what_is_no_frame_is_refused(void **state) {
    (void)state;
    uint8_t data[64];
    size_t len = add_frame(data, 0, 0, "x");
    data[0] ^= 1;
    assert_int_equal(feed(data, len), FELIX_BAD_MAGIC);
    data[0] ^= 1;
    data[5] = 9;
    assert_int_equal(feed(data, len), FELIX_BAD_VERSION);
    assert_int_equal(seen.count, 0);
}

static void a_handler_that_says_so_ends_the_feeding(void **state) {
    (void)state;
    uint8_t data[256];
    size_t one = add_frame(data, 0, 0, "one");
    size_t len = add_frame(data, one, 0, "two");
    len = add_frame(data, len, 0, "three");
    seen.stop_after = 2;
    assert_int_equal(feed(data, len), FELIX_OK);
    assert_int_equal(seen.count, 2);
    seen = (struct seen){.stop_after = 1};
    assert_int_equal(feed(data, one - 1), FELIX_OK);
    assert_int_equal(feed(data + one - 1, len - one + 1), FELIX_OK);
    assert_int_equal(seen.count, 1);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fresh, done)
    const struct CMUnitTest tests[] = {
        TEST(frames_in_one_piece_are_not_copied),
        TEST(frames_cut_anywhere_come_out_the_same),
        TEST(a_begun_frame_is_partial_until_its_last_byte),
        TEST(the_handler_may_keep_the_block_of_a_frame_that_came_in_pieces),
        TEST(a_body_at_the_limit_is_taken_one_more_is_refused),
        TEST(what_is_no_frame_is_refused),
        TEST(a_handler_that_says_so_ends_the_feeding),
    };
    return cmocka_run_group_tests_name("client_frame_reader", tests, NULL, NULL);
}
