#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "vectors.h"
#include "wire/ack.h"
#include "wire/features.h"
#include "wire/utf8.h"

static const char *const ack_vectors[] = {
    "g03_ack_ok",         "g04_ack_error",   "w_ack_ok",
    "x_ack_ok",           "x_ack_ok_offset", "x_ack_ok_owner_offset",
    "x_ack_error_detail", "c_ack_level",     "c_ack_offset_level",
};
#define VECTOR_COUNT (sizeof ack_vectors / sizeof ack_vectors[0])

static struct publish_ack decode_vector(struct vector *v) {
    struct publish_ack ack;
    assert_int_equal(ack_decode(v->flags, v->body, &ack), FELIX_OK);
    return ack;
}

static void frames_that_we_emit_equal_the_golden_ones(void **state) {
    static const char *const emitted[] = {"g03_ack_ok",        "g04_ack_error",   "w_ack_ok",
                                          "x_ack_ok",          "x_ack_ok_offset", "c_ack_level",
                                          "c_ack_offset_level"};
    for (size_t i = 0; i < sizeof emitted / sizeof emitted[0]; i++) {
        struct vector v = vector_load(emitted[i]);
        struct publish_ack ack = decode_vector(&v);
        uint8_t out[ACK_FRAME_BYTES_MAX];
        assert_int_equal(ack_frame_encode(v.flags, &ack, out), v.frame_bytes);
        assert_memory_equal(out, v.frame, v.frame_bytes);
        vector_free(&v);
    }
}

static void golden_error_carries_id_and_text(void **state) {
    struct vector v = vector_load("g04_ack_error");
    struct publish_ack ack = decode_vector(&v);
    assert_false(ack.ok);
    assert_int_equal(ack.request_id, 258);
    assert_true(slice_is(ack.message, "forbidden"));
    vector_free(&v);
}

static void golden_detail_and_owner_are_understood(void **state) {
    struct vector v = vector_load("x_ack_error_detail");
    struct publish_ack ack = decode_vector(&v);
    assert_int_equal(ack.code, WIRE_CODE_SHARD_UNAVAILABLE);
    assert_int_equal(ack.retry, WIRE_RETRY_RETRY);
    assert_true(slice_is(ack.reason, "moving"));
    assert_int_equal(ack.retry_after_ms, 50);
    vector_free(&v);

    v = vector_load("x_ack_ok_owner_offset");
    ack = decode_vector(&v);
    assert_true(ack.ok);
    assert_true(slice_is(ack.owner_node, "n2"));
    assert_true(slice_is(ack.owner_addr, "h:5"));
    assert_int_equal(ack.owner_generation, 9);
    assert_int_equal(ack.offset, 42);
    vector_free(&v);
}

static void golden_level_follows_the_offset(void **state) {
    struct vector v = vector_load("c_ack_offset_level");
    struct publish_ack ack = decode_vector(&v);
    assert_int_equal(ack.offset, 42);
    assert_int_equal(ack.level, ACK_LEVEL_FLUSHED);
    vector_free(&v);
}

static void unknown_level_and_level_on_a_failure_are_malformed(void **state) {
    struct vector v = vector_load("c_ack_level");
    struct publish_ack ack;
    v.frame[v.frame_bytes - 1] = 3;
    assert_int_equal(ack_decode(v.flags, v.body, &ack), FELIX_MALFORMED);
    v.frame[v.frame_bytes - 1] = 1;
    assert_int_equal(ack_decode(v.flags, v.body, &ack), FELIX_OK);
    assert_int_equal(ack.level, ACK_LEVEL_WRITTEN);
    v.frame[FRAME_HEADER_BYTES] = 1;
    assert_int_equal(ack_decode(v.flags, v.body, &ack), FELIX_MALFORMED);
    vector_free(&v);
}

static void levels_have_names(void **state) {
    for (int i = ACK_LEVEL_MEMORY; i <= ACK_LEVEL_FLUSHED; i++) {
        enum ack_level level;
        assert_true(ack_level_parse(slice_str(ack_level_name((enum ack_level)i)), &level));
        assert_int_equal(level, i);
    }
    enum ack_level level;
    assert_false(ack_level_parse(slice_str("Flushed"), &level));
}

static void every_truncated_golden_body_is_malformed(void **state) {
    for (size_t i = 0; i < VECTOR_COUNT; i++) {
        struct vector v = vector_load(ack_vectors[i]);
        for (size_t len = 0; len < v.body.len; len++) {
            uint8_t *copy = exact_copy(v.body.data, len);
            struct publish_ack ack;
            assert_int_equal(ack_decode(v.flags, slice_of(copy, len), &ack), FELIX_MALFORMED);
            free(copy);
        }
        vector_free(&v);
    }
}

static void decode_only(uint16_t flags, struct slice body) {
    struct publish_ack ack;
    if (ack_decode(flags, body, &ack) == FELIX_OK)
        assert_true(utf8_valid(ack.message) && utf8_valid(ack.reason) &&
                    utf8_valid(ack.owner_node) && utf8_valid(ack.owner_addr));
}

static void every_flipped_bit_is_survived(void **state) {
    for (size_t i = 0; i < VECTOR_COUNT; i++) {
        struct vector v = vector_load(ack_vectors[i]);
        mutate_body(v.flags, v.body, decode_only);
        for (unsigned bit = 0; bit < 16; bit++)
            decode_only((uint16_t)(v.flags ^ (1u << bit)), v.body);
        vector_free(&v);
    }
}

static void status_other_than_zero_or_one_is_malformed(void **state) {
    struct vector v = vector_load("g03_ack_ok");
    v.frame[FRAME_HEADER_BYTES] = 2;
    struct publish_ack ack;
    assert_int_equal(ack_decode(v.flags, v.body, &ack), FELIX_MALFORMED);
    vector_free(&v);
}

static void message_that_is_not_utf8_is_malformed(void **state) {
    struct vector v = vector_load("g04_ack_error");
    v.frame[v.frame_bytes - 1] = 0xc3;
    struct publish_ack ack;
    assert_int_equal(ack_decode(v.flags, v.body, &ack), FELIX_MALFORMED);
    vector_free(&v);
}

static void offset_on_a_failure_and_detail_without_code_are_malformed(void **state) {
    uint8_t body[64] = {1};
    struct publish_ack ack;
    struct slice in = slice_of(body, sizeof body);
    assert_int_equal(ack_decode(FRAME_PUBLISH_ACK, in, &ack), FELIX_OK);
    assert_int_equal(ack_decode(FRAME_PUBLISH_ACK | FRAME_ACK_OFFSET, in, &ack), FELIX_MALFORMED);
    assert_int_equal(ack_decode(FRAME_PUBLISH_ACK | FRAME_ACK_DETAIL, in, &ack), FELIX_MALFORMED);
    assert_int_equal(ack_decode(FRAME_PUBLISH_ACK | FRAME_ACK_CODE | FRAME_ACK_DETAIL, in, &ack),
                     FELIX_OK);
}

static void modifiers_that_do_not_fit_the_outcome_are_left_out(void **state) {
    uint16_t flags = FRAME_PUBLISH_ACK | FRAME_ACK_CODE | FRAME_ACK_OFFSET | FRAME_ACK_LEVEL;
    uint8_t out[ACK_FRAME_BYTES_MAX];
    struct publish_ack ack = {.ok = true, .request_id = 1, .code = 3, .offset = 9};
    assert_int_equal(ack_frame_encode(flags, &ack, out), FRAME_HEADER_BYTES + 11 + 9);
    assert_int_equal(out[6] << 8 | out[7], FRAME_PUBLISH_ACK | FRAME_ACK_OFFSET | FRAME_ACK_LEVEL);
    ack.ok = false;
    assert_int_equal(ack_frame_encode(flags, &ack, out), FRAME_HEADER_BYTES + 11 + 3);
    assert_int_equal(out[6] << 8 | out[7], FRAME_PUBLISH_ACK | FRAME_ACK_CODE);
}

static void message_is_cut_to_the_cap_at_a_character(void **state) {
    char text[ACK_MESSAGE_BYTES_MAX + 8];
    memset(text, 'x', sizeof text);
    memcpy(text + ACK_MESSAGE_BYTES_MAX - 1, "\xc3\xa4", 2);
    struct publish_ack ack = {
        .message = slice_of(text, sizeof text), .code = 3, .retry = WIRE_RETRY_FATAL};
    uint8_t *out = malloc(ACK_FRAME_BYTES_MAX);
    size_t bytes = ack_frame_encode(FRAME_PUBLISH_ACK | FRAME_ACK_CODE, &ack, out);
    struct publish_ack again;
    struct slice body = slice_of(out + FRAME_HEADER_BYTES, bytes - FRAME_HEADER_BYTES);
    assert_int_equal(ack_decode(FRAME_PUBLISH_ACK | FRAME_ACK_CODE, body, &again), FELIX_OK);
    assert_int_equal(again.message.len, ACK_MESSAGE_BYTES_MAX - 1);
    assert_int_equal(again.code, 3);
    free(out);
}

static void message_at_the_cap_fills_the_frame(void **state) {
    char text[ACK_MESSAGE_BYTES_MAX];
    memset(text, 'x', sizeof text);
    struct publish_ack ack = {.message = slice_of(text, sizeof text)};
    uint8_t *out = malloc(ACK_FRAME_BYTES_MAX);
    assert_int_equal(ack_frame_encode(FRAME_PUBLISH_ACK | FRAME_ACK_CODE, &ack, out),
                     ACK_FRAME_BYTES_MAX);
    free(out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_that_we_emit_equal_the_golden_ones),
        cmocka_unit_test(golden_error_carries_id_and_text),
        cmocka_unit_test(golden_detail_and_owner_are_understood),
        cmocka_unit_test(golden_level_follows_the_offset),
        cmocka_unit_test(unknown_level_and_level_on_a_failure_are_malformed),
        cmocka_unit_test(levels_have_names),
        cmocka_unit_test(every_truncated_golden_body_is_malformed),
        cmocka_unit_test(every_flipped_bit_is_survived),
        cmocka_unit_test(status_other_than_zero_or_one_is_malformed),
        cmocka_unit_test(message_that_is_not_utf8_is_malformed),
        cmocka_unit_test(offset_on_a_failure_and_detail_without_code_are_malformed),
        cmocka_unit_test(modifiers_that_do_not_fit_the_outcome_are_left_out),
        cmocka_unit_test(message_is_cut_to_the_cap_at_a_character),
        cmocka_unit_test(message_at_the_cap_fills_the_frame),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
