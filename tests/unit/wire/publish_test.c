#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/cursor.h"
#include "vectors.h"
#include "wire/publish.h"

static const char *const publish_vectors[] = {
    "g01_publish",           "g02_publish_acked",    "w_publish",
    "x_publish_plain",       "x_publish_keyed",      "x_publish_acked",
    "x_publish_acked_keyed", "x_publish_idempotent",
};
#define VECTOR_COUNT (sizeof publish_vectors / sizeof publish_vectors[0])

static void assert_slice(struct slice s, const char *text) {
    assert_true(slice_is(s, text));
}

static void walk_equals_sums(const struct payload_list *list) {
    struct payload_cursor cursor = payload_walk(list);
    struct slice payload;
    uint32_t count = 0;
    uint64_t bytes = 0;
    while (payload_next(&cursor, &payload)) {
        count++;
        bytes += payload.len;
        assert_true(payload.data + payload.len <= list->bytes.data + list->bytes.len);
    }
    assert_int_equal(count, list->count);
    assert_int_equal(bytes, list->payload_bytes);
    assert_int_equal(list->bytes.len, 4 + 4 * (size_t)count + bytes);
}

static void decode_and_walk(uint16_t flags, struct slice body) {
    struct publish_head head;
    struct payload_list list;
    if (publish_decode(flags, body, &head, &list) == FELIX_OK)
        walk_equals_sums(&list);
}

static void golden_plain_batch_is_decoded(void **state) {
    struct vector v = vector_load("g01_publish");
    struct publish_head head;
    struct payload_list list;
    assert_int_equal(publish_decode(v.flags, v.body, &head, &list), FELIX_OK);
    assert_slice(head.tenant, "acme");
    assert_slice(head.namespace_, "ns");
    assert_slice(head.stream, "jobs");
    assert_int_equal(head.route.len, 16);
    assert_ptr_equal(head.route.data, v.body.data);
    assert_int_equal(head.ack_mode, PUBLISH_ACK_NONE);
    assert_false(head.keyed);
    assert_int_equal(list.count, 3);
    assert_int_equal(list.payload_bytes, 4);
    assert_ptr_equal(list.bytes.data, v.body.data + 16);
    assert_int_equal(list.bytes.len, 20);

    struct payload_cursor cursor = payload_walk(&list);
    struct slice payload;
    static const char *const expected[] = {"A", "", "xyz"};
    for (size_t i = 0; i < 3; i++) {
        assert_true(payload_next(&cursor, &payload));
        assert_slice(payload, expected[i]);
    }
    assert_false(payload_next(&cursor, &payload));
    vector_free(&v);
}

static void golden_acked_batch_carries_request_and_mode(void **state) {
    struct vector v = vector_load("g02_publish_acked");
    struct publish_head head;
    struct payload_list list;
    assert_int_equal(publish_decode(v.flags, v.body, &head, &list), FELIX_OK);
    assert_int_equal(head.request_id, 258);
    assert_int_equal(head.ack_mode, PUBLISH_ACK_PER_MESSAGE);
    uint64_t request_id;
    uint8_t mode;
    assert_int_equal(publish_prefix_decode(v.body, &request_id, &mode), FELIX_OK);
    assert_int_equal(request_id, 258);
    assert_int_equal(mode, PUBLISH_ACK_PER_MESSAGE);
    vector_free(&v);
}

static void golden_idempotent_batch_carries_all_prefixes(void **state) {
    struct vector v = vector_load("x_publish_idempotent");
    struct publish_head head;
    struct payload_list list;
    assert_int_equal(publish_decode(v.flags, v.body, &head, &list), FELIX_OK);
    assert_int_equal(head.request_id, 7);
    assert_int_equal(head.ack_mode, PUBLISH_ACK_PER_BATCH);
    assert_int_equal(head.producer_id, 5);
    assert_int_equal(head.sequence, 3);
    assert_true(head.keyed);
    assert_slice(head.key, "ab");
    assert_slice(head.stream, "st");
    vector_free(&v);
}

static void every_golden_body_is_reproduced(void **state) {
    for (size_t i = 0; i < VECTOR_COUNT; i++) {
        struct vector v = vector_load(publish_vectors[i]);
        struct publish_head head;
        struct payload_list list;
        assert_int_equal(publish_decode(v.flags, v.body, &head, &list), FELIX_OK);
        size_t head_bytes = publish_head_bytes(v.flags, &head);
        assert_int_equal(head_bytes + list.bytes.len, v.body.len);
        uint8_t *out = malloc(head_bytes);
        assert_int_equal(publish_head_encode(v.flags, &head, out), FELIX_OK);
        assert_memory_equal(out, v.body.data, head_bytes);
        free(out);
        vector_free(&v);
    }
}

static void every_truncated_golden_body_is_malformed(void **state) {
    for (size_t i = 0; i < VECTOR_COUNT; i++) {
        struct vector v = vector_load(publish_vectors[i]);
        for (size_t len = 0; len < v.body.len; len++) {
            uint8_t *copy = exact_copy(v.body.data, len);
            struct publish_head head;
            struct payload_list list;
            assert_int_equal(publish_decode(v.flags, slice_of(copy, len), &head, &list),
                             FELIX_MALFORMED);
            free(copy);
        }
        vector_free(&v);
    }
}

static void every_flipped_bit_is_survived(void **state) {
    for (size_t i = 0; i < VECTOR_COUNT; i++) {
        struct vector v = vector_load(publish_vectors[i]);
        mutate_body(v.flags, v.body, decode_and_walk);
        for (unsigned bit = 0; bit < 16; bit++)
            decode_and_walk((uint16_t)(v.flags ^ (1u << bit)), v.body);
        vector_free(&v);
    }
}

static void bytes_after_the_last_payload_are_ignored(void **state) {
    struct vector v = vector_load("x_publish_plain");
    uint8_t longer[64] = {0};
    memcpy(longer, v.body.data, v.body.len);
    struct publish_head head;
    struct payload_list list;
    assert_int_equal(publish_decode(v.flags, slice_of(longer, v.body.len + 9), &head, &list),
                     FELIX_OK);
    assert_int_equal(list.bytes.len, 10);
    vector_free(&v);
}

static void count_beyond_a_quarter_of_the_rest_is_malformed(void **state) {
    uint8_t body[4 + 12] = {0, 0, 0, 3};
    struct payload_list list;
    assert_int_equal(payload_list_decode(slice_of(body, sizeof body), &list), FELIX_OK);
    assert_int_equal(list.count, 3);
    body[3] = 4;
    assert_int_equal(payload_list_decode(slice_of(body, sizeof body), &list), FELIX_MALFORMED);
    memset(body, 0xff, 4);
    assert_int_equal(payload_list_decode(slice_of(body, sizeof body), &list), FELIX_MALFORMED);
}

static void empty_list_is_legal(void **state) {
    static const uint8_t body[4] = {0};
    struct payload_list list;
    assert_int_equal(payload_list_decode(slice_of(body, 4), &list), FELIX_OK);
    assert_int_equal(list.count, 0);
    assert_int_equal(list.bytes.len, 4);
    walk_equals_sums(&list);
}

static void ack_mode_other_than_one_or_two_is_malformed(void **state) {
    struct vector v = vector_load("g02_publish_acked");
    static const uint8_t modes[] = {0, 3, 255};
    for (size_t i = 0; i < sizeof modes; i++) {
        v.frame[FRAME_HEADER_BYTES + 8] = modes[i];
        struct publish_head head;
        struct payload_list list;
        uint64_t id;
        uint8_t mode;
        assert_int_equal(publish_decode(v.flags, v.body, &head, &list), FELIX_MALFORMED);
        assert_int_equal(publish_prefix_decode(v.body, &id, &mode), FELIX_MALFORMED);
    }
    vector_free(&v);
}

static void prefix_of_nine_bytes_is_readable_though_the_body_is_malformed(void **state) {
    struct vector v = vector_load("g02_publish_acked");
    struct slice nine = slice_of(v.body.data, 9);
    struct publish_head head;
    struct payload_list list;
    uint64_t id;
    uint8_t mode;
    assert_int_equal(publish_decode(v.flags, nine, &head, &list), FELIX_MALFORMED);
    assert_int_equal(publish_prefix_decode(nine, &id, &mode), FELIX_OK);
    assert_int_equal(id, 258);
    assert_int_equal(publish_prefix_decode(slice_of(v.body.data, 8), &id, &mode), FELIX_MALFORMED);
    vector_free(&v);
}

static void idempotent_without_acked_is_malformed(void **state) {
    struct vector v = vector_load("x_publish_idempotent");
    struct publish_head head;
    struct payload_list list;
    uint16_t flags = (uint16_t)(v.flags & ~FRAME_PUBLISH_ACKED);
    assert_int_equal(publish_decode(flags, v.body, &head, &list), FELIX_MALFORMED);
    vector_free(&v);
}

static void names_must_be_utf8_but_keys_need_not(void **state) {
    struct vector v = vector_load("x_publish_keyed");
    struct publish_head head;
    struct payload_list list;
    v.frame[FRAME_HEADER_BYTES + 2] = 0xff; /* first byte of the key */
    assert_int_equal(publish_decode(v.flags, v.body, &head, &list), FELIX_OK);
    v.frame[FRAME_HEADER_BYTES + 6] = 0xff; /* first byte of the tenant */
    assert_int_equal(publish_decode(v.flags, v.body, &head, &list), FELIX_MALFORMED);
    vector_free(&v);
}

static void empty_key_is_a_key(void **state) {
    struct publish_head head = {.tenant = slice_str("t"), .key = slice_str("")};
    uint8_t body[64] = {0};
    size_t bytes = publish_head_bytes(FRAME_PUBLISH_KEYED, &head);
    assert_int_equal(publish_head_encode(FRAME_PUBLISH_KEYED, &head, body), FELIX_OK);
    struct publish_head again;
    struct payload_list list;
    assert_int_equal(publish_decode(FRAME_PUBLISH_KEYED, slice_of(body, bytes + 4), &again, &list),
                     FELIX_OK);
    assert_true(again.keyed);
    assert_int_equal(again.key.len, 0);
}

static void name_at_the_cap_is_encoded_one_more_is_not(void **state) {
    uint8_t *name = calloc(1, NAME_BYTES_MAX + 1);
    struct publish_head head = {.stream = slice_of(name, NAME_BYTES_MAX)};
    uint8_t *out = malloc(publish_head_bytes(0, &head));
    assert_int_equal(publish_head_encode(0, &head, out), FELIX_OK);
    head.stream.len++;
    assert_int_equal(publish_head_encode(0, &head, out), FELIX_TOO_LARGE);
    head.stream.len = 0;
    head.key = slice_of(name, NAME_BYTES_MAX + 1);
    assert_int_equal(publish_head_encode(FRAME_PUBLISH_KEYED, &head, out), FELIX_TOO_LARGE);
    assert_int_equal(publish_head_encode(0, &head, out), FELIX_OK);
    free(out);
    free(name);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_plain_batch_is_decoded),
        cmocka_unit_test(golden_acked_batch_carries_request_and_mode),
        cmocka_unit_test(golden_idempotent_batch_carries_all_prefixes),
        cmocka_unit_test(every_golden_body_is_reproduced),
        cmocka_unit_test(every_truncated_golden_body_is_malformed),
        cmocka_unit_test(every_flipped_bit_is_survived),
        cmocka_unit_test(bytes_after_the_last_payload_are_ignored),
        cmocka_unit_test(count_beyond_a_quarter_of_the_rest_is_malformed),
        cmocka_unit_test(empty_list_is_legal),
        cmocka_unit_test(ack_mode_other_than_one_or_two_is_malformed),
        cmocka_unit_test(prefix_of_nine_bytes_is_readable_though_the_body_is_malformed),
        cmocka_unit_test(idempotent_without_acked_is_malformed),
        cmocka_unit_test(names_must_be_utf8_but_keys_need_not),
        cmocka_unit_test(empty_key_is_a_key),
        cmocka_unit_test(name_at_the_cap_is_encoded_one_more_is_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
