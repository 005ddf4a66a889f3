#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "vectors.h"
#include "wire/event.h"
#include "wire/message.h"

#define NAME "\"tenant_id\":\"t\",\"namespace\":\"n\",\"stream\":\"s\""
#define ENTRY "\"tenant_id\":\"t\",\"namespace\":\"n\",\"cache\":\"c\",\"key\":\"k\""

static const char *const message_vectors[] = {
    "g09_auth",
    "g10_auth_ok",
    "g11_subscribe",
    "g12_subscribed",
    "g13_event_stream_hello",
    "g14_subscribe_cursor_error",
    "g15_cache_put",
    "g16_cache_value",
    "x_auth_ok_features",
    "x_publish_ok_offset",
    "x_subscribed_offsets",
    "x_subscription_lagged",
    "c_publish_ok_level",
};
#define VECTOR_COUNT (sizeof message_vectors / sizeof message_vectors[0])

static enum felix_err decode_bytes(const void *text, size_t len, struct message *ret) {
    uint8_t *copy = exact_copy(text, len);
    enum felix_err err = message_decode(slice_of(copy, len), ret);
    free(copy);
    return err;
}

static enum felix_err decode(const char *text, struct message *ret) {
    return decode_bytes(text, strlen(text), ret);
}

static void assert_bad(const char *text) {
    struct message m;
    if (decode(text, &m) != FELIX_BAD_JSON)
        fail_msg("accepted: %s", text);
}

static struct message good(const char *text) {
    struct message m;
    if (decode(text, &m) != FELIX_OK)
        fail_msg("refused: %s", text);
    return m;
}

static void assert_good(const char *text, enum message_type type) {
    struct message m = good(text);
    assert_int_equal(m.type, type);
    message_deinit(&m);
}

static void assert_slice(struct slice s, const char *text) {
    assert_true(slice_is(s, text));
}

/* Encodes and compares the text behind the header. */
static void assert_encodes(const struct message *m, const char *text) {
    size_t bytes;
    struct buf *frame = message_encode(m, &bytes);
    struct frame_header h;
    assert_int_equal(frame_header_decode(slice_of(frame->data, bytes), UINT32_MAX, &h), FELIX_OK);
    assert_int_equal(h.flags, 0);
    assert_int_equal(h.body_bytes, bytes - FRAME_HEADER_BYTES);
    struct slice body = slice_of(frame->data + FRAME_HEADER_BYTES, h.body_bytes);
    if (!slice_is(body, text))
        fail_msg("%.*s instead of %s", (int)body.len, (const char *)body.data, text);
    buf_unref(frame);
}

/* What is decoded from `text` must be encoded as the same text. */
static void assert_reproduced(const char *text) {
    struct message m = good(text);
    assert_encodes(&m, text);
    message_deinit(&m);
}

static void every_golden_frame_is_reproduced(void **state) {
    for (size_t i = 0; i < VECTOR_COUNT; i++) {
        struct vector v = vector_load(message_vectors[i]);
        struct message m;
        assert_int_equal(message_decode(v.body, &m), FELIX_OK);
        size_t bytes;
        struct buf *frame = message_encode(&m, &bytes);
        assert_int_equal(bytes, v.frame_bytes);
        assert_memory_equal(frame->data, v.frame, bytes);
        buf_unref(frame);
        message_deinit(&m);
        vector_free(&v);
    }
}

static void every_truncated_golden_body_is_bad(void **state) {
    for (size_t i = 0; i < VECTOR_COUNT; i++) {
        struct vector v = vector_load(message_vectors[i]);
        for (size_t len = 0; len < v.body.len; len++) {
            struct message m;
            assert_int_equal(decode_bytes(v.body.data, len, &m), FELIX_BAD_JSON);
        }
        vector_free(&v);
    }
}

static void decode_and_encode(uint16_t flags, struct slice body) {
    struct message m;
    if (message_decode(body, &m) != FELIX_OK)
        return;
    if (m.type != MESSAGE_UNKNOWN) {
        size_t bytes;
        buf_unref(message_encode(&m, &bytes));
    }
    message_deinit(&m);
}

static void every_flipped_bit_is_survived(void **state) {
    for (size_t i = 0; i < VECTOR_COUNT; i++) {
        struct vector v = vector_load(message_vectors[i]);
        mutate_body(v.flags, v.body, decode_and_encode);
        vector_free(&v);
    }
}

static void auth_words_are_read(void **state) {
    struct message m = good("{\"type\":\"auth\",\"tenant_id\":\"t1\",\"token\":\"a.b.c\","
                            "\"client_flags\":8191,\"client_features\":4218945535,"
                            "\"client_features_hi\":15}");
    assert_int_equal(m.type, MESSAGE_AUTH);
    assert_slice(m.tenant, "t1");
    assert_slice(m.token, "a.b.c");
    assert_true(m.has_client_flags && m.has_client_features);
    assert_int_equal(m.flags, 8191);
    assert_int_equal(m.features, 0xFB77FFFF);
    assert_int_equal(m.features_hi, 15);
    message_deinit(&m);
}

static void our_own_word_is_read_and_absent_is_zero(void **state) {
    struct message m = good("{\"type\":\"auth\",\"tenant_id\":\"t1\",\"token\":\"\","
                            "\"felix_c\":3}");
    assert_int_equal(m.own_features, 3);
    message_deinit(&m);
    m = good("{\"type\":\"auth_ok\",\"server_flags\":1,\"felix_c\":null}");
    assert_int_equal(m.own_features, 0);
    message_deinit(&m);
    assert_bad("{\"type\":\"auth_ok\",\"server_flags\":1,\"felix_c\":4294967296}");
    assert_bad("{\"type\":\"auth_ok\",\"server_flags\":1,\"felix_c\":{}}");
}

static void auth_of_an_old_client_has_no_words(void **state) {
    struct message m = good("{\"type\":\"auth\",\"tenant_id\":\"t1\",\"token\":\"\"}");
    assert_false(m.has_client_flags || m.has_client_features);
    message_deinit(&m);
    m = good("{\"type\":\"auth\",\"tenant_id\":\"t\",\"token\":\"\",\"client_flags\":null,"
             "\"client_features\":null}");
    assert_false(m.has_client_flags || m.has_client_features);
    message_deinit(&m);
}

static void extended_word_counts_only_with_its_bit(void **state) {
    struct message m = good("{\"type\":\"auth_ok\",\"server_flags\":1,\"server_features\":2,"
                            "\"server_features_hi\":3}");
    assert_int_equal(m.features, 2);
    assert_int_equal(m.features_hi, 0);
    message_deinit(&m);
}

static void flag_words_have_their_width(void **state) {
    assert_good("{\"type\":\"auth_ok\",\"server_flags\":65535}", MESSAGE_AUTH_OK);
    assert_bad("{\"type\":\"auth_ok\",\"server_flags\":65536}");
    assert_bad("{\"type\":\"auth_ok\",\"server_flags\":null}");
    assert_bad("{\"type\":\"auth_ok\"}");
    assert_good("{\"type\":\"auth_ok\",\"server_flags\":1,\"server_features\":4294967295}",
                MESSAGE_AUTH_OK);
    assert_bad("{\"type\":\"auth_ok\",\"server_flags\":1,\"server_features\":4294967296}");
    assert_bad("{\"type\":\"auth\",\"tenant_id\":\"t\",\"token\":\"\",\"client_flags\":65536}");
}

static void integers_are_exact_to_64_bits(void **state) {
    struct message m = good("{\"type\":\"cache_ok\",\"request_id\":18446744073709551615}");
    assert_true(m.has_request_id && m.request_id == UINT64_MAX);
    assert_encodes(&m, "{\"type\":\"cache_ok\",\"request_id\":18446744073709551615}");
    message_deinit(&m);
    static const char *const bad[] = {"1.0", "-1", "\"1\"", "18446744073709551616", "1e1", "null"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char text[128];
        (void)snprintf(text, sizeof text, "{\"type\":\"cache_ok\",\"request_id\":%s}", bad[i]);
        assert_bad(text);
    }
}

static void type_may_stand_anywhere(void **state) {
    struct message m = good("{\"x\":[{\"type\":\"ok\"}],\"request_id\":7,\"type\":\"cache_ok\"}");
    assert_int_equal(m.type, MESSAGE_CACHE_OK);
    assert_int_equal(m.request_id, 7);
    message_deinit(&m);
    assert_good("{\"\\u0074ype\":\"o\\u006b\"}", MESSAGE_OK);
    assert_good(" \n{ \"type\" : \"ok\" } \t", MESSAGE_OK);
}

static void object_without_a_string_type_is_bad(void **state) {
    assert_bad("{}");
    assert_bad("{\"type\":null}");
    assert_bad("{\"type\":1}");
    assert_bad("{\"types\":\"ok\"}");
    assert_bad("[\"ok\"]");
    assert_bad("\"ok\"");
    assert_bad("");
    assert_bad("[\"publish\",\"t1\",\"default\",\"s1\",\"aGk=\",9,\"per_message\"]");
}

static void repeated_known_member_is_bad_and_unknown_is_not(void **state) {
    assert_bad("{\"type\":\"ok\",\"type\":\"ok\"}");
    assert_bad("{\"type\":\"cache_ok\",\"request_id\":1,\"request_id\":1}");
    assert_bad("{\"request_id\":1,\"type\":\"cache_ok\",\"request_id\":1}");
    assert_bad("{\"type\":\"cache_ok\",\"request_id\":1,\"request\\u005fid\":1}");
    assert_bad("{\"type\":\"cache_get\"," ENTRY ",\"request_id\":null,\"request_id\":1}");
    assert_good("{\"type\":\"ok\",\"x\":1,\"x\":{\"x\":2},\"request_id\":\"a\",\"request_id\":0}",
                MESSAGE_OK);
    assert_good("{\"type\":\"subscribe\"," NAME ",\"shard\":0,\"queue_capacity\":5,\"shard\":1}",
                MESSAGE_SUBSCRIBE);
}

static void unknown_members_must_still_be_valid_json(void **state) {
    assert_bad("{\"type\":\"ok\",\"x\":01}");
    assert_bad("{\"type\":\"ok\",\"x\":\"\\ud800\"}");
    assert_bad("{\"type\":\"ok\",\"x\":\"\xff\"}");
    assert_bad("{\"type\":\"ok\",\"x\":\"a\nb\"}");
    assert_bad("{\"type\":\"ok\"}x");
    assert_bad("\xef\xbb\xbf{\"type\":\"ok\"}");
}

static void nesting_of_unknown_members_is_limited(void **state) {
    for (size_t inner = 127; inner <= 128; inner++) {
        char text[512] = "{\"type\":\"ok\",\"x\":";
        size_t len = strlen(text);
        memset(text + len, '[', inner);
        memset(text + len + inner, ']', inner);
        text[len + 2 * inner] = '}';
        struct message m = {0};
        assert_int_equal(decode_bytes(text, len + 2 * inner + 1, &m),
                         inner == 127 ? FELIX_OK : FELIX_BAD_JSON);
        message_deinit(&m);
    }
}

static void names_may_be_empty_hold_nul_and_escapes(void **state) {
    struct message m = good("{\"type\":\"cache_get\",\"tenant_id\":\"\",\"namespace\":\"*\","
                            "\"cache\":\"a\\/b\\u0000\",\"key\":\"\\ud83d\\ude00\xc3\xa4\"}");
    assert_int_equal(m.tenant.len, 0);
    assert_slice(m.namespace_, "*");
    assert_true(slice_equal(m.cache, slice_of("a/b\0", 4)));
    assert_slice(m.key, "\xf0\x9f\x98\x80\xc3\xa4");
    assert_encodes(&m, "{\"type\":\"cache_get\",\"tenant_id\":\"\",\"namespace\":\"*\","
                       "\"cache\":\"a/b\\u0000\",\"key\":\"\xf0\x9f\x98\x80\xc3\xa4\"}");
    message_deinit(&m);
}

static void publish_has_one_payload_in_binary_layout(void **state) {
    struct message m = good("{\"type\":\"publish\"," NAME ",\"payload\":\"aGk=\"}");
    assert_int_equal(m.payloads.count, 1);
    assert_int_equal(m.payloads.payload_bytes, 2);
    assert_true(slice_equal(m.payloads.bytes, slice_of("\0\0\0\1\0\0\0\2hi", 10)));
    assert_false(m.has_ack || m.has_request_id || m.has_record_key);
    assert_int_equal(m.ack_mode, PUBLISH_ACK_PER_MESSAGE);
    assert_slice(m.stream, "s");
    message_deinit(&m);
}

static void batch_has_all_payloads_in_binary_layout(void **state) {
    struct message m = good("{\"type\":\"publish_batch\"," NAME
                            ",\"payloads\":[\"QQ==\",\"\",\"eHl6\"],\"request_id\":4}");
    static const uint8_t expected[] = "\0\0\0\3\0\0\0\1A\0\0\0\0\0\0\0\3xyz";
    assert_true(slice_equal(m.payloads.bytes, slice_of(expected, sizeof expected - 1)));
    assert_int_equal(m.payloads.count, 3);
    assert_int_equal(m.payloads.payload_bytes, 4);
    assert_int_equal(m.ack_mode, PUBLISH_ACK_PER_BATCH);
    struct payload_list proven;
    assert_int_equal(payload_list_decode(m.payloads.bytes, &proven), FELIX_OK);
    assert_int_equal(proven.bytes.len, m.payloads.bytes.len);
    message_deinit(&m);
    assert_good("{\"type\":\"publish_batch\"," NAME ",\"payloads\":[]}", MESSAGE_PUBLISH_BATCH);
    assert_bad("{\"type\":\"publish_batch\"," NAME ",\"payloads\":[\"QQ==\",null]}");
    assert_bad("{\"type\":\"publish_batch\"," NAME ",\"payloads\":\"QQ==\"}");
    assert_bad("{\"type\":\"publish_batch\"," NAME ",\"payloads\":[\"QQ==\",]}");
}

static void event_prefix_fits_into_the_headroom_of_the_block(void **state) {
    struct message m = good("{\"type\":\"publish\"," NAME ",\"payload\":\"aGk=\"}");
    uint16_t flags = FRAME_EVENT_BATCH | FRAME_EVENT_OFFSETS;
    size_t in_front = event_prefix_bytes(flags) - 4;
    assert_true(in_front <= MESSAGE_HEADROOM_BYTES);
    uint8_t *list = m.block->data + (m.payloads.bytes.data - m.block->data);
    assert_true(list - m.block->data >= (ptrdiff_t)MESSAGE_HEADROOM_BYTES);
    (void)event_prefix_encode(flags, 5, 1000, m.payloads.count, m.payloads.bytes.len - 4,
                              list - in_front);
    struct event_batch batch;
    struct slice body = slice_of(list - in_front + FRAME_HEADER_BYTES, 16 + m.payloads.bytes.len);
    assert_int_equal(event_batch_decode(flags, body, &batch), FELIX_OK);
    assert_int_equal(batch.count, 1);
    assert_slice(m.tenant, "t");
    message_deinit(&m);
}

static void many_empty_payloads_fit_into_the_block(void **state) {
    static char text[1 << 16];
    strcpy(text, "{\"payloads\":[");
    size_t len = strlen(text);
    for (size_t i = 0; i < 20000; i++) {
        memcpy(text + len, "\"\",", 3);
        len += 3;
    }
    strcpy(text + len - 1, "],\"type\":\"publish_batch\"," NAME "}");
    struct message m = good(text);
    assert_int_equal(m.payloads.count, 20000);
    assert_int_equal(m.payloads.bytes.len, 80004);
    assert_slice(m.stream, "s");
    message_deinit(&m);
}

static void ack_modes_are_read(void **state) {
    struct message m = good("{\"type\":\"publish\"," NAME ",\"payload\":\"\",\"ack\":\"none\"}");
    assert_true(m.has_ack && m.ack_mode == PUBLISH_ACK_NONE);
    message_deinit(&m);
    m = good("{\"type\":\"publish\"," NAME ",\"payload\":\"\",\"ack\":\"per_batch\"}");
    assert_true(m.has_ack && m.ack_mode == PUBLISH_ACK_PER_BATCH);
    message_deinit(&m);
    m = good("{\"type\":\"publish_batch\"," NAME ",\"payloads\":[],\"ack\":\"per_message\"}");
    assert_true(m.has_ack && m.ack_mode == PUBLISH_ACK_PER_MESSAGE);
    message_deinit(&m);
    assert_bad("{\"type\":\"publish\"," NAME ",\"payload\":\"\",\"ack\":\"Per_Message\"}");
    assert_bad("{\"type\":\"publish\"," NAME ",\"payload\":\"\",\"ack\":1}");
}

static void record_key_is_decoded(void **state) {
    struct message m = good("{\"type\":\"publish\"," NAME ",\"payload\":\"\",\"key\":\"+/8=\"}");
    assert_true(m.has_record_key);
    assert_true(slice_equal(m.record_key, slice_of("\xfb\xff", 2)));
    message_deinit(&m);
    assert_bad("{\"type\":\"publish\"," NAME ",\"payload\":\"\",\"key\":\"k\"}");
}

static void base64_is_strict_and_may_be_escaped(void **state) {
    static const char *const bad[] = {"-_8=", "aGk", "aGl=", "aGk\\n", "aGk=\\n", " aGk=", "aGk=="};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char text[256];
        (void)snprintf(text, sizeof text, "{\"type\":\"publish\"," NAME ",\"payload\":\"%s\"}",
                       bad[i]);
        assert_bad(text);
        (void)snprintf(text, sizeof text, "{\"type\":\"cache_put\"," ENTRY ",\"value\":\"%s\"}",
                       bad[i]);
        assert_bad(text);
    }
    struct message m =
        good("{\"type\":\"publish_batch\"," NAME ",\"payloads\":[\"+\\/8\\u003d\",\"aGk=\"]}");
    assert_true(slice_equal(m.payloads.bytes, slice_of("\0\0\0\2\0\0\0\2\xfb\xff\0\0\0\2hi", 16)));
    message_deinit(&m);
}

static void start_positions_are_read(void **state) {
    struct message m = good("{\"type\":\"subscribe\"," NAME "}");
    assert_int_equal(m.start, START_NONE);
    message_deinit(&m);
    m = good("{\"type\":\"subscribe\"," NAME ",\"start\":null,\"subscription_id\":null}");
    assert_int_equal(m.start, START_NONE);
    assert_false(m.has_subscription_id);
    message_deinit(&m);
    m = good("{\"type\":\"subscribe\"," NAME ",\"start\":\"latest\",\"subscription_id\":0}");
    assert_int_equal(m.start, START_LATEST);
    assert_true(m.has_subscription_id);
    message_deinit(&m);
    m = good("{\"type\":\"subscribe\"," NAME ",\"start\":\"earliest\"}");
    assert_int_equal(m.start, START_EARLIEST);
    message_deinit(&m);
    m = good("{\"type\":\"subscribe\"," NAME ",\"start\":{\"offset\":18446744073709551615}}");
    assert_int_equal(m.start, START_OFFSET);
    assert_true(m.offset == UINT64_MAX);
    message_deinit(&m);
}

static void other_start_positions_are_bad(void **state) {
    static const char *const bad[] = {"\"Latest\"",
                                      "\"\"",
                                      "5",
                                      "{}",
                                      "[]",
                                      "{\"offset\":-1}",
                                      "{\"offset\":null}",
                                      "{\"offset\":1,\"x\":2}",
                                      "{\"offset\":1,\"offset\":1}",
                                      "{\"x\":1}",
                                      "true",
                                      "{\"offset\":\"1\"}",
                                      "{\"offset\":1.0}"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char text[256];
        (void)snprintf(text, sizeof text, "{\"type\":\"subscribe\"," NAME ",\"start\":%s}", bad[i]);
        assert_bad(text);
    }
}

static void cache_value_must_be_there_but_may_be_null(void **state) {
    struct message m = good("{\"type\":\"cache_value\"," ENTRY ",\"value\":null}");
    assert_false(m.has_value || m.has_request_id);
    message_deinit(&m);
    m = good("{\"type\":\"cache_value\"," ENTRY ",\"value\":\"\"}");
    assert_true(m.has_value && m.value.len == 0);
    message_deinit(&m);
    assert_bad("{\"type\":\"cache_value\"," ENTRY "}");
    assert_bad("{\"type\":\"cache_put\"," ENTRY ",\"value\":null}");
    assert_bad("{\"type\":\"cache_put\"," ENTRY "}");
}

static void required_members_may_not_be_absent_or_null(void **state) {
    assert_bad("{\"type\":\"auth\",\"token\":\"x\"}");
    assert_bad("{\"type\":\"auth\",\"tenant_id\":null,\"token\":\"x\"}");
    assert_bad("{\"type\":\"auth\",\"tenant_id\":5,\"token\":\"x\"}");
    assert_bad("{\"type\":\"publish\"," NAME "}");
    assert_bad("{\"type\":\"publish\",\"tenant_id\":\"t\",\"namespace\":\"n\",\"payload\":\"\"}");
    assert_bad("{\"type\":\"error\"}");
    assert_bad("{\"type\":\"subscribe_cursor_error\",\"reason\":\"x\",\"requested\":1,"
               "\"available\":1}");
    assert_bad("{\"type\":\"subscribed\"}");
}

static void error_code_and_retry_class_are_read(void **state) {
    struct message m = good("{\"type\":\"error\",\"message\":\"no\",\"code\":\"not_found\","
                            "\"retry\":\"retry_after\",\"detail\":{\"reason\":\"x\",\"y\":[1]}}");
    assert_slice(m.text, "no");
    assert_int_equal(m.code, WIRE_CODE_NOT_FOUND);
    assert_int_equal(m.retry, WIRE_RETRY_RETRY_AFTER);
    assert_encodes(&m, "{\"type\":\"error\",\"message\":\"no\",\"code\":\"not_found\","
                       "\"retry\":\"retry_after\"}");
    message_deinit(&m);
    m = good("{\"type\":\"error\",\"message\":\"no\",\"code\":\"brand_new\",\"retry\":\"odd\"}");
    assert_int_equal(m.code, WIRE_CODE_NONE);
    assert_int_equal(m.retry, WIRE_RETRY_NONE);
    message_deinit(&m);
    assert_bad("{\"type\":\"error\",\"message\":\"no\",\"code\":3}");
    assert_bad("{\"type\":\"error\",\"message\":\"no\",\"detail\":{\"reason\":}}");
}

static void code_without_retry_class_gets_its_default(void **state) {
    struct message m = {.type = MESSAGE_PUBLISH_ERROR,
                        .request_id = 3,
                        .text = slice_str("say \"no\""),
                        .code = WIRE_CODE_DRAINING};
    assert_encodes(&m,
                   "{\"type\":\"publish_error\",\"request_id\":3,\"message\":\"say \\\"no\\\"\","
                   "\"code\":\"draining\",\"retry\":\"retry\"}");
}

static void unknown_type_keeps_what_an_answer_needs(void **state) {
    struct message m = good("{\"type\":\"stream_shards\",\"request_id\":9,\"tenant_id\":5}");
    assert_int_equal(m.type, MESSAGE_UNKNOWN);
    assert_slice(m.text, "stream_shards");
    assert_true(m.has_request_id && m.request_id == 9);
    message_deinit(&m);
    m = good("{\"type\":\"Ok\",\"request_id\":\"a\",\"request_id\":2,\"name\":[1]}");
    assert_int_equal(m.type, MESSAGE_UNKNOWN);
    assert_false(m.has_request_id);
    message_deinit(&m);
    m = good("{\"type\":\"\",\"request_id\":18446744073709551616,\"name\":null}");
    assert_int_equal(m.type, MESSAGE_UNKNOWN);
    assert_false(m.has_request_id);
    message_deinit(&m);
    assert_bad("{\"type\":\"nonsense\",\"request_id\":01}");
    assert_bad("{\"type\":\"nonsense\"");
}

static void an_extension_keeps_its_body_as_the_text_that_it_is(void **state) {
    struct message m = good("{\"type\":\"extension\",\"name\":\"acme.x\",\"request_id\":9,\"body\":"
                            " {\"a\": [1,-2.5e3,true,null,\"\\u00e9\"] } }");
    assert_int_equal(m.type, MESSAGE_EXTENSION);
    assert_slice(m.extension, "acme.x");
    assert_true(m.has_request_id && m.request_id == 9);
    assert_slice(m.body, "{\"a\": [1,-2.5e3,true,null,\"\\u00e9\"] }");
    message_deinit(&m);
    m = good("{\"type\":\"extension\",\"name\":\"\",\"body\":null}");
    assert_int_equal(m.body.len, 0);
    message_deinit(&m);
    m = good("{\"type\":\"extension_result\",\"name\":\"e\",\"body\":0}");
    assert_slice(m.body, "0");
    message_deinit(&m);
    assert_bad("{\"type\":\"extension\",\"name\":\"x\",\"body\":{\"a\":}}");
    assert_bad("{\"type\":\"extension\",\"name\":\"x\",\"body\":}");
    assert_bad("{\"type\":\"extension_result\",\"body\":{}}");
    assert_bad("{\"type\":\"extension_result\",\"name\":1,\"body\":{}}");
}

static void an_extension_of_any_shape_can_be_answered(void **state) {
    struct message m = good("{\"type\":\"extension\",\"name\":[1],\"request_id\":-1,\"x\":2}");
    assert_int_equal(m.type, MESSAGE_EXTENSION);
    assert_int_equal(m.extension.len, 0);
    assert_false(m.has_request_id);
    message_deinit(&m);
}

static void every_type_is_reproduced_in_the_order_of_the_specification(void **state) {
    static const char *const texts[] = {
        "{\"type\":\"auth\",\"tenant_id\":\"t\",\"token\":\"x\",\"client_flags\":127,"
        "\"client_features\":2147493888,\"client_features_hi\":2,\"felix_c\":1}",
        "{\"type\":\"ok\"}",
        "{\"type\":\"auth_ok\",\"server_flags\":127,\"server_features\":2147483652,"
        "\"server_features_hi\":2,\"felix_c\":1}",
        "{\"type\":\"publish\"," NAME ",\"payload\":\"aGk=\",\"key\":\"QQ==\",\"request_id\":1,"
        "\"ack\":\"per_message\"}",
        "{\"type\":\"publish_batch\"," NAME ",\"payloads\":[\"aGk=\",\"\"],\"request_id\":1,"
        "\"ack\":\"none\"}",
        "{\"type\":\"publish_batch\"," NAME ",\"payloads\":[]}",
        "{\"type\":\"publish_ok\",\"request_id\":1}",
        "{\"type\":\"publish_ok\",\"request_id\":1,\"offset\":5}",
        "{\"type\":\"publish_ok\",\"request_id\":1,\"level\":\"memory\"}",
        "{\"type\":\"subscribed\",\"subscription_id\":1,\"live_offset\":0}",
        "{\"type\":\"publish_error\",\"request_id\":1,\"message\":\"m\"}",
        "{\"type\":\"subscribe\"," NAME ",\"subscription_id\":1,\"start\":\"latest\"}",
        "{\"type\":\"subscribe\"," NAME ",\"start\":\"earliest\"}",
        "{\"type\":\"event\"," NAME ",\"payload\":\"\",\"offset\":5}",
        "{\"type\":\"event_batch\"," NAME ",\"payloads\":[\"aGk=\"],\"base_offset\":5}",
        "{\"type\":\"subscribe_cursor_error\",\"reason\":\"in_future\",\"requested\":7,"
        "\"available\":4}",
        "{\"type\":\"cache_put\"," ENTRY ",\"value\":\"\",\"ttl_ms\":0}",
        "{\"type\":\"cache_get\"," ENTRY ",\"request_id\":1}",
        "{\"type\":\"cache_delete\"," ENTRY ",\"request_id\":1}",
        "{\"type\":\"cache_value\"," ENTRY ",\"value\":\"AA==\"}",
        "{\"type\":\"extension\",\"name\":\"e\",\"request_id\":1,\"body\":[{}, 1]}",
        "{\"type\":\"extension_result\",\"name\":\"e\",\"request_id\":1,\"body\":{\"a\":\"b\"}}",
        "{\"type\":\"extension_result\",\"name\":\"\"}",
        "{\"type\":\"unsupported\",\"request_type\":\"extension\",\"extension\":\"e\","
        "\"request_id\":1}",
        "{\"type\":\"unsupported\",\"request_type\":\"topology\"}",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        assert_reproduced(texts[i]);
}

static void later_optional_members_of_answers_are_skipped(void **state) {
    assert_good("{\"type\":\"subscribed\",\"subscription_id\":1,\"start_offset\":4,"
                "\"live_offset\":5,\"queue_capacity\":64}",
                MESSAGE_SUBSCRIBED);
    assert_good("{\"type\":\"auth_ok\",\"server_flags\":1,\"listener_ports\":[1,2],"
                "\"publish_window\":9}",
                MESSAGE_AUTH_OK);
    assert_good("{\"type\":\"cache_value\"," ENTRY ",\"value\":null,\"version\":3}",
                MESSAGE_CACHE_VALUE);
}

static void answers_of_durable_streams_carry_offsets_and_levels(void **state) {
    struct message m = good("{\"type\":\"publish_ok\",\"request_id\":1,\"offset\":"
                            "18446744073709551615,\"level\":\"written\"}");
    assert_true(m.has_offset && m.offset == UINT64_MAX);
    assert_true(m.has_level && m.level == ACK_LEVEL_WRITTEN);
    message_deinit(&m);
    m = good("{\"type\":\"publish_ok\",\"request_id\":1,\"level\":\"hewn\"}");
    assert_false(m.has_offset || m.has_level);
    message_deinit(&m);
    m = good(
        "{\"type\":\"subscribed\",\"subscription_id\":1,\"start_offset\":4,\"live_offset\":9}");
    assert_true(m.has_offset && m.offset == 4);
    assert_true(m.has_live_offset && m.live_offset == 9);
    message_deinit(&m);
    m = good("{\"type\":\"subscription_lagged\",\"subscription_id\":2,\"resume_from\":41}");
    assert_int_equal(m.subscription_id, 2);
    assert_int_equal(m.offset, 41);
    message_deinit(&m);
    assert_bad("{\"type\":\"subscription_lagged\",\"subscription_id\":2}");
    assert_bad("{\"type\":\"publish_ok\",\"request_id\":1,\"level\":2}");
}

static void types_have_names_and_directions(void **state) {
    for (int t = MESSAGE_UNKNOWN; t <= MESSAGE_UNSUPPORTED; t++) {
        assert_non_null(message_type_name((enum message_type)t));
        assert_int_equal(message_is_from_broker((enum message_type)t), t >= MESSAGE_AUTH_OK);
    }
    assert_string_equal(message_type_name(MESSAGE_UNKNOWN), "unknown");
    assert_string_equal(message_type_name(MESSAGE_EVENT_STREAM_HELLO), "event_stream_hello");
    struct message zero = {0};
    message_deinit(&zero);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_golden_frame_is_reproduced),
        cmocka_unit_test(every_truncated_golden_body_is_bad),
        cmocka_unit_test(every_flipped_bit_is_survived),
        cmocka_unit_test(auth_words_are_read),
        cmocka_unit_test(our_own_word_is_read_and_absent_is_zero),
        cmocka_unit_test(auth_of_an_old_client_has_no_words),
        cmocka_unit_test(extended_word_counts_only_with_its_bit),
        cmocka_unit_test(flag_words_have_their_width),
        cmocka_unit_test(integers_are_exact_to_64_bits),
        cmocka_unit_test(type_may_stand_anywhere),
        cmocka_unit_test(object_without_a_string_type_is_bad),
        cmocka_unit_test(repeated_known_member_is_bad_and_unknown_is_not),
        cmocka_unit_test(unknown_members_must_still_be_valid_json),
        cmocka_unit_test(nesting_of_unknown_members_is_limited),
        cmocka_unit_test(names_may_be_empty_hold_nul_and_escapes),
        cmocka_unit_test(publish_has_one_payload_in_binary_layout),
        cmocka_unit_test(batch_has_all_payloads_in_binary_layout),
        cmocka_unit_test(event_prefix_fits_into_the_headroom_of_the_block),
        cmocka_unit_test(many_empty_payloads_fit_into_the_block),
        cmocka_unit_test(ack_modes_are_read),
        cmocka_unit_test(record_key_is_decoded),
        cmocka_unit_test(base64_is_strict_and_may_be_escaped),
        cmocka_unit_test(start_positions_are_read),
        cmocka_unit_test(other_start_positions_are_bad),
        cmocka_unit_test(cache_value_must_be_there_but_may_be_null),
        cmocka_unit_test(required_members_may_not_be_absent_or_null),
        cmocka_unit_test(error_code_and_retry_class_are_read),
        cmocka_unit_test(code_without_retry_class_gets_its_default),
        cmocka_unit_test(unknown_type_keeps_what_an_answer_needs),
        cmocka_unit_test(an_extension_keeps_its_body_as_the_text_that_it_is),
        cmocka_unit_test(an_extension_of_any_shape_can_be_answered),
        cmocka_unit_test(every_type_is_reproduced_in_the_order_of_the_specification),
        cmocka_unit_test(later_optional_members_of_answers_are_skipped),
        cmocka_unit_test(answers_of_durable_streams_carry_offsets_and_levels),
        cmocka_unit_test(types_have_names_and_directions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
