#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/cursor.h"
#include "vectors.h"
#include "wire/cache_frame.h"
#include "wire/features.h"

static const char *const request_vectors[] = {"c_bind", "c_get", "c_put", "c_put_ttl", "c_delete"};
static const char *const reply_vectors[] = {"c_done", "c_value", "c_miss", "c_refused"};
#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static struct cache_frame_request decode(const struct vector *v) {
    struct cache_frame_request request = {.op = CACHE_FRAME_GET};
    assert_int_equal(v->flags, FRAME_CACHE);
    assert_int_equal(cache_frame_request_decode(v->body, &request), FELIX_OK);
    return request;
}

static void golden_bind_names_a_cache(void **state) {
    struct vector v = vector_load("c_bind");
    struct cache_frame_request bind = decode(&v);
    assert_int_equal(bind.op, CACHE_FRAME_BIND);
    assert_int_equal(bind.handle, 3);
    assert_true(slice_is(bind.tenant, "t1") && slice_is(bind.namespace_, "default"));
    assert_true(slice_is(bind.cache, "sessions"));
    assert_int_equal(bind.route.len, v.body.len - 4);
    vector_free(&v);
}

static void golden_requests_carry_key_value_and_ttl(void **state) {
    struct vector v = vector_load("c_put");
    struct cache_frame_request put = decode(&v);
    assert_int_equal(put.op, CACHE_FRAME_PUT);
    assert_int_equal(put.request_id, 8);
    assert_true(slice_is(put.key, "alice") && slice_is(put.value, "42") && !put.has_ttl);
    vector_free(&v);

    v = vector_load("c_put_ttl");
    put = decode(&v);
    assert_true(put.has_ttl && put.ttl_ms == 30000 && put.value.len == 0);
    assert_true(put.request_id == 0x0102030405060708);
    vector_free(&v);

    v = vector_load("c_delete");
    struct cache_frame_request delete = decode(&v);
    assert_int_equal(delete.op, CACHE_FRAME_DELETE);
    assert_int_equal(delete.key.len, 0);
    vector_free(&v);
}

static void golden_replies_carry_status_id_and_rest(void **state) {
    struct cache_frame_reply reply;
    struct vector v = vector_load("c_value");
    assert_int_equal(cache_frame_reply_decode(v.body, &reply), FELIX_OK);
    assert_int_equal(reply.status, CACHE_FRAME_VALUE);
    assert_int_equal(reply.request_id, 7);
    assert_true(slice_is(reply.rest, "42"));
    vector_free(&v);

    v = vector_load("c_refused");
    assert_int_equal(cache_frame_reply_decode(v.body, &reply), FELIX_OK);
    assert_int_equal(reply.status, CACHE_FRAME_REFUSED);
    assert_int_equal(reply.code, WIRE_CODE_FORBIDDEN);
    assert_true(slice_is(reply.rest, "forbidden"));
    vector_free(&v);
}

static void frames_that_we_emit_equal_the_golden_ones(void **state) {
    uint8_t out[128];
    for (size_t i = 0; i < COUNT(request_vectors); i++) {
        struct vector v = vector_load(request_vectors[i]);
        struct cache_frame_request request = decode(&v);
        assert_int_equal(cache_frame_request_bytes(&request), v.frame_bytes);
        cache_frame_request_encode(&request, out);
        assert_memory_equal(out, v.frame, v.frame_bytes);
        vector_free(&v);
    }
    for (size_t i = 0; i < COUNT(reply_vectors); i++) {
        struct vector v = vector_load(reply_vectors[i]);
        struct cache_frame_reply reply;
        assert_int_equal(cache_frame_reply_decode(v.body, &reply), FELIX_OK);
        cache_frame_reply_encode_head(&reply, out);
        assert_memory_equal(out, v.frame, CACHE_FRAME_REPLY_HEAD_BYTES);
        vector_free(&v);
    }
}

/* But for a put, whose value is whatever is left, and the texts and values of replies. */
static void every_short_request_is_malformed(void **state) {
    for (size_t i = 0; i < COUNT(request_vectors); i++) {
        struct vector v = vector_load(request_vectors[i]);
        struct cache_frame_request whole = decode(&v), request;
        for (size_t len = 0; len < v.body.len - whole.value.len; len++) {
            uint8_t *copy = exact_copy(v.body.data, len);
            assert_int_equal(cache_frame_request_decode(slice_of(copy, len), &request),
                             FELIX_MALFORMED);
            free(copy);
        }
        vector_free(&v);
    }
}

static void every_short_reply_is_malformed(void **state) {
    struct vector v = vector_load("c_done");
    struct cache_frame_reply reply;
    for (size_t len = 0; len < v.body.len; len++) {
        uint8_t *copy = exact_copy(v.body.data, len);
        assert_int_equal(cache_frame_reply_decode(slice_of(copy, len), &reply), FELIX_MALFORMED);
        free(copy);
    }
    vector_free(&v);
}

static void decode_both(uint16_t flags, struct slice body) {
    struct cache_frame_request request = {.op = CACHE_FRAME_GET};
    struct cache_frame_reply reply;
    uint64_t id;
    uint8_t out[256];
    if (cache_frame_request_decode(body, &request) == FELIX_OK &&
        cache_frame_request_bytes(&request) <= sizeof out)
        cache_frame_request_encode(&request, out);
    if (cache_frame_reply_decode(body, &reply) == FELIX_OK)
        cache_frame_reply_encode_head(&reply, out);
    (void)cache_frame_request_id(body, &id);
}

static void every_flipped_bit_is_survived(void **state) {
    for (size_t i = 0; i < COUNT(request_vectors); i++) {
        struct vector v = vector_load(request_vectors[i]);
        mutate_body(v.flags, v.body, decode_both);
        vector_free(&v);
    }
    for (size_t i = 0; i < COUNT(reply_vectors); i++) {
        struct vector v = vector_load(reply_vectors[i]);
        mutate_body(v.flags, v.body, decode_both);
        vector_free(&v);
    }
}

/* Load a golden body, set one byte, perhaps append one; the outcome of decoding it. */
static enum felix_err changed(const char *name, size_t at, uint8_t byte, bool longer, bool reply) {
    struct vector v = vector_load(name);
    uint8_t body[128] = {0};
    memcpy(body, v.body.data, v.body.len);
    struct slice in = slice_of(body, v.body.len + (longer ? 1 : 0));
    vector_free(&v);
    body[at] = byte;
    struct cache_frame_request request;
    struct cache_frame_reply answer;
    return reply ? cache_frame_reply_decode(in, &answer) : cache_frame_request_decode(in, &request);
}

static void unknown_operations_flags_and_statuses_are_malformed(void **state) {
    assert_int_equal(changed("c_get", 0, 0, false, false), FELIX_MALFORMED);
    assert_int_equal(changed("c_get", 0, 5, false, false), FELIX_MALFORMED);
    assert_int_equal(changed("c_get", 1, 1, false, false), FELIX_MALFORMED);
    assert_int_equal(changed("c_put", 1, 2, false, false), FELIX_MALFORMED);
    assert_int_equal(changed("c_bind", 1, 1, false, false), FELIX_MALFORMED);
    assert_int_equal(changed("c_done", 0, 4, false, true), FELIX_MALFORMED);
    assert_int_equal(changed("c_done", 1, 1, false, true), FELIX_MALFORMED);
    assert_int_equal(changed("c_value", 3, 1, false, true), FELIX_MALFORMED);
}

static void what_follows_the_last_field_is_malformed(void **state) {
    assert_int_equal(changed("c_get", 0, CACHE_FRAME_GET, true, false), FELIX_MALFORMED);
    assert_int_equal(changed("c_bind", 0, CACHE_FRAME_BIND, true, false), FELIX_MALFORMED);
    assert_int_equal(changed("c_done", 0, CACHE_FRAME_DONE, true, true), FELIX_MALFORMED);
    assert_int_equal(changed("c_miss", 0, CACHE_FRAME_MISS, true, true), FELIX_MALFORMED);
    assert_int_equal(changed("c_put", 0, CACHE_FRAME_PUT, true, false), FELIX_OK);
}

static void a_key_longer_than_the_body_is_malformed(void **state) {
    struct vector v = vector_load("c_put");
    struct cache_frame_request request;
    be32_store(v.frame + FRAME_HEADER_BYTES + 12, 7); /* all of key and value */
    assert_int_equal(cache_frame_request_decode(v.body, &request), FELIX_OK);
    assert_true(slice_is(request.key, "alice42") && request.value.len == 0);
    be32_store(v.frame + FRAME_HEADER_BYTES + 12, 8);
    assert_int_equal(cache_frame_request_decode(v.body, &request), FELIX_MALFORMED);
    be32_store(v.frame + FRAME_HEADER_BYTES + 12, UINT32_MAX);
    assert_int_equal(cache_frame_request_decode(v.body, &request), FELIX_MALFORMED);
    vector_free(&v);
}

static void keys_names_and_texts_are_utf8_and_values_anything(void **state) {
    assert_int_equal(changed("c_get", 16, 0xff, false, false), FELIX_MALFORMED);
    assert_int_equal(changed("c_bind", 6, 0xff, false, false), FELIX_MALFORMED);
    assert_int_equal(changed("c_put", 21, 0xff, false, false), FELIX_OK);
    assert_int_equal(changed("c_refused", 12, 0xff, false, true), FELIX_MALFORMED);
    assert_int_equal(changed("c_value", 12, 0xff, false, true), FELIX_OK);
}

static void the_id_of_a_broken_request_can_still_be_read(void **state) {
    static const uint8_t broken[12] = {CACHE_FRAME_GET, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2};
    static const uint8_t unknown[12] = {99, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5};
    static const uint8_t bind[12] = {CACHE_FRAME_BIND};
    uint64_t id = 0;
    assert_int_equal(cache_frame_request_id(slice_of(broken, 12), &id), FELIX_OK);
    assert_int_equal(id, 258);
    assert_int_equal(cache_frame_request_id(slice_of(unknown, 12), &id), FELIX_OK);
    assert_int_equal(id, 5);
    assert_int_equal(cache_frame_request_id(slice_of(broken, 11), &id), FELIX_MALFORMED);
    assert_int_equal(cache_frame_request_id(slice_of(bind, 12), &id), FELIX_MALFORMED);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_bind_names_a_cache),
        cmocka_unit_test(golden_requests_carry_key_value_and_ttl),
        cmocka_unit_test(golden_replies_carry_status_id_and_rest),
        cmocka_unit_test(frames_that_we_emit_equal_the_golden_ones),
        cmocka_unit_test(every_short_request_is_malformed),
        cmocka_unit_test(every_short_reply_is_malformed),
        cmocka_unit_test(every_flipped_bit_is_survived),
        cmocka_unit_test(unknown_operations_flags_and_statuses_are_malformed),
        cmocka_unit_test(what_follows_the_last_field_is_malformed),
        cmocka_unit_test(a_key_longer_than_the_body_is_malformed),
        cmocka_unit_test(keys_names_and_texts_are_utf8_and_values_anything),
        cmocka_unit_test(the_id_of_a_broken_request_can_still_be_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
