/* Cache operations as binary frames: negotiation, answers, their order, and what is refused. */
#include "hear.h"
#include "wire/cache_frame.h"

#include <stdlib.h>

static const char *const names[] = {"a", "b", "c", "d", "e", "f", "g", "h"};

static struct world *world;
static struct peer *peer;

static void begin_with_cache(unsigned reactors, uint64_t cache_max_bytes) {
    struct world_options options = world_options();
    options.reactors = reactors;
    options.core.cache_max_bytes = cache_max_bytes;
    world = world_begin(&options);
    peer = world_connect(world, 0);
}

static void begin(unsigned reactors) {
    begin_with_cache(reactors, 8192);
}

/* ---- saying ---- */

static void say_request(struct peer_stream *stream, const struct cache_frame_request *request) {
    size_t bytes = cache_frame_request_bytes(request);
    uint8_t *frame = malloc(bytes);
    cache_frame_request_encode(request, frame);
    peer_send(stream, slice_of(frame, bytes), false);
    free(frame);
}

static void say_bind(struct peer_stream *stream, uint16_t handle, const char *tenant,
                     const char *cache) {
    struct cache_frame_request bind = {
        .op = CACHE_FRAME_BIND,
        .handle = handle,
        .tenant = slice_str(tenant),
        .namespace_ = slice_str("n"),
        .cache = slice_str(cache),
    };
    say_request(stream, &bind);
}

/* On handle 0. A put's value is its key. */
static void say(struct peer_stream *stream, enum cache_frame_op op, const char *key, uint64_t id) {
    struct cache_frame_request request = {.op = op, .request_id = id, .key = slice_str(key)};
    if (op == CACHE_FRAME_PUT)
        request.value = request.key;
    say_request(stream, &request);
}

static void say_body(struct peer_stream *stream, const void *body, size_t len) {
    uint8_t header[FRAME_HEADER_BYTES];
    frame_header_encode(header, FRAME_CACHE, (uint32_t)len);
    peer_send(stream, slice_of(header, sizeof header), false);
    peer_send(stream, slice_of(body, len), false);
}

static struct peer_stream *open_bound(enum world_person person) {
    struct peer_stream *stream = open_ready(world, peer, person);
    say_bind(stream, 0, "t1", "k");
    return stream;
}

/* ---- hearing ---- */

static struct cache_frame_reply hear_reply(struct peer_stream *stream) {
    struct frame_header frame;
    struct slice body;
    struct cache_frame_reply reply = {0};
    assert_true(world_hear(stream, &frame, &body));
    assert_int_equal(frame.flags, FRAME_CACHE);
    assert_int_equal(cache_frame_reply_decode(body, &reply), FELIX_OK);
    return reply;
}

static void hear(struct peer_stream *stream, enum cache_frame_status status, uint64_t id,
                 const char *rest) {
    struct cache_frame_reply reply = hear_reply(stream);
    assert_int_equal(reply.status, status);
    assert_int_equal(reply.request_id, id);
    assert_true(slice_is(reply.rest, rest));
    if (status != CACHE_FRAME_REFUSED)
        assert_int_equal(reply.code, 0);
}

static void hear_refusal(struct peer_stream *stream, enum wire_code code, uint64_t id,
                         const char *text) {
    struct cache_frame_reply reply = hear_reply(stream);
    assert_int_equal(reply.status, CACHE_FRAME_REFUSED);
    assert_int_equal(reply.code, code);
    assert_int_equal(reply.request_id, id);
    assert_true(slice_is(reply.rest, text));
}

/* ---- negotiation ---- */

static struct peer_stream *open_with_word(uint32_t own_features, uint32_t *ret_answer) {
    struct peer_stream *stream = peer_open(peer, true);
    struct message auth = {
        .type = MESSAGE_AUTH,
        .tenant = world_tenant(WORLD_ALL),
        .token = world_token(WORLD_ALL),
        .has_client_flags = true,
        .flags = CLIENT_FLAGS,
        .own_features = own_features,
    };
    struct message answer;
    world_say(stream, &auth);
    peer_flush(peer);
    hear_message(stream, MESSAGE_AUTH_OK, &answer);
    *ret_answer = answer.own_features;
    message_deinit(&answer);
    return stream;
}

static void auth_ok_names_what_both_know_and_nothing_unasked(void **) {
    uint32_t answer;
    begin(1);
    (void)open_with_word(0xffffffff, &answer);
    assert_int_equal(answer, OWN_FEATURES);
    (void)open_with_word(OWN_CACHE_FRAMES, &answer);
    assert_int_equal(answer, OWN_CACHE_FRAMES);
    (void)open_with_word(0x80000000, &answer);
    assert_int_equal(answer, 0);
    (void)open_with_word(0, &answer);
    assert_int_equal(answer, 0);
    world_end(world);
}

static void without_the_word_a_frame_has_unknown_flags_and_is_skipped(void **) {
    uint32_t answer;
    struct message error;
    begin(1);
    struct peer_stream *stream = open_with_word(0, &answer);
    say(stream, CACHE_FRAME_PUT, "one", 1);
    struct message get = request(MESSAGE_CACHE_GET);
    get.key = slice_str("one");
    get.has_request_id = true;
    world_say(stream, &get);
    world_settle(world);
    hear_message(stream, MESSAGE_ERROR, &error);
    assert_true(slice_is(error.text, "unsupported frame flags"));
    message_deinit(&error);
    hear_message(stream, MESSAGE_CACHE_VALUE, &error);
    assert_false(error.has_value);
    message_deinit(&error);
    hear_silence(stream);
    world_end(world);
}

static void before_auth_a_frame_has_unknown_flags(void **) {
    begin(1);
    struct peer_stream *stream = peer_open(peer, true);
    say(stream, CACHE_FRAME_GET, "one", 1);
    world_say_auth(stream, WORLD_ALL, CLIENT_FEATURES);
    world_settle(world);
    hear_error(stream, WIRE_CODE_NONE);
    hear_message(stream, MESSAGE_AUTH_OK, NULL);
    hear_silence(stream);
    world_end(world);
}

static void flags_that_are_nearly_ours_are_unknown(void **) {
    static const uint16_t flags[] = {0x8000, 0x8002, 0x8004, 0x8007, 0x8016, 0xffff};
    begin(1);
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
        struct peer_stream *stream = open_bound(WORLD_ALL);
        uint8_t header[FRAME_HEADER_BYTES];
        frame_header_encode(header, flags[i], 0);
        peer_send(stream, slice_of(header, sizeof header), false);
        world_settle(world);
        hear_error(stream, WIRE_CODE_INVALID_REQUEST);
        hear_silence(stream);
    }
    world_end(world);
}

static void a_uni_stream_does_not_carry_them(void **) {
    begin(1);
    struct peer_stream *stream = peer_open(peer, false);
    world_say_auth(stream, WORLD_ALL, CLIENT_FEATURES);
    say(stream, CACHE_FRAME_PUT, "one", 1);
    world_settle(world);
    assert_true(stream->stopped);
    world_end(world);
}

/* ---- answers ---- */

static void what_was_put_is_what_is_got(void **) {
    begin(1);
    struct peer_stream *stream = open_bound(WORLD_ALL);
    say(stream, CACHE_FRAME_GET, "one", 1);
    say(stream, CACHE_FRAME_PUT, "one", 2);
    say(stream, CACHE_FRAME_GET, "one", 3);
    say(stream, CACHE_FRAME_DELETE, "one", 4);
    say(stream, CACHE_FRAME_DELETE, "one", 5);
    world_settle(world);
    hear(stream, CACHE_FRAME_MISS, 1, "");
    hear(stream, CACHE_FRAME_DONE, 2, "");
    hear(stream, CACHE_FRAME_VALUE, 3, "one");
    hear(stream, CACHE_FRAME_VALUE, 4, "one");
    hear(stream, CACHE_FRAME_MISS, 5, "");
    hear_silence(stream);
    world_end(world);
}

static void empty_keys_and_values_are_keys_and_values(void **) {
    begin(1);
    struct peer_stream *stream = open_bound(WORLD_ALL);
    say(stream, CACHE_FRAME_PUT, "", 1);
    say(stream, CACHE_FRAME_GET, "", 2);
    world_settle(world);
    hear(stream, CACHE_FRAME_DONE, 1, "");
    hear(stream, CACHE_FRAME_VALUE, 2, "");
    world_end(world);
}

static void frames_in_pieces_are_put_together(void **) {
    begin(1);
    struct peer_stream *stream = open_ready(world, peer, WORLD_ALL);
    uint8_t bytes[256];
    size_t len = 0;
    struct cache_frame_request requests[] = {
        {.op = CACHE_FRAME_BIND,
         .tenant = slice_str("t1"),
         .namespace_ = slice_str("n"),
         .cache = slice_str("k")},
        {.op = CACHE_FRAME_PUT,
         .request_id = 1,
         .key = slice_str("one"),
         .value = slice_str("value"),
         .has_ttl = true,
         .ttl_ms = 1000},
        {.op = CACHE_FRAME_GET, .request_id = 2, .key = slice_str("one")},
    };
    for (size_t i = 0; i < 3; i++) {
        cache_frame_request_encode(&requests[i], bytes + len);
        len += cache_frame_request_bytes(&requests[i]);
    }
    for (size_t i = 0; i < len; i++)
        peer_send(stream, slice_of(bytes + i, 1), false);
    world_settle(world);
    hear(stream, CACHE_FRAME_DONE, 1, "");
    hear(stream, CACHE_FRAME_VALUE, 2, "value");
    world_end(world);
}

static void an_entry_lives_as_long_as_its_ttl(void **) {
    begin(1);
    struct peer_stream *stream = open_bound(WORLD_ALL);
    struct cache_frame_request put = {
        .op = CACHE_FRAME_PUT, .key = slice_str("one"), .has_ttl = true, .ttl_ms = 1000};
    say_request(stream, &put);
    world->now_ns += NS_PER_S - 1;
    world_turn(world, 0);
    say(stream, CACHE_FRAME_GET, "one", 1);
    world->now_ns += 1;
    world_turn(world, 0);
    say(stream, CACHE_FRAME_GET, "one", 2);
    world_settle(world);
    hear(stream, CACHE_FRAME_DONE, 0, "");
    hear(stream, CACHE_FRAME_VALUE, 1, "");
    hear(stream, CACHE_FRAME_MISS, 2, "");
    world_end(world);
}

static void json_and_binary_requests_see_one_cache(void **) {
    begin(1);
    struct peer_stream *stream = open_bound(WORLD_ALL);
    struct message get = request(MESSAGE_CACHE_GET), answer;
    get.has_request_id = true;
    say(stream, CACHE_FRAME_PUT, "key", 1);
    world_say(stream, &get);
    say(stream, CACHE_FRAME_GET, "key", 2);
    world_settle(world);
    hear(stream, CACHE_FRAME_DONE, 1, "");
    hear_message(stream, MESSAGE_CACHE_VALUE, &answer);
    assert_true(slice_is(answer.value, "key"));
    message_deinit(&answer);
    hear(stream, CACHE_FRAME_VALUE, 2, "key");
    world_end(world);
}

/* What is sent from where it lies stays what it was when it was asked for. */
static void a_long_value_is_that_of_its_time(void **) {
    static char old[20000], new[20000];
    memset(old, 'o', sizeof old);
    memset(new, 'n', sizeof new);
    begin_with_cache(1, 1 << 20);
    struct peer_stream *stream = open_bound(WORLD_ALL);
    struct cache_frame_request put = {
        .op = CACHE_FRAME_PUT, .key = slice_str("one"), .value = slice_of(old, sizeof old)};
    say_request(stream, &put);
    say(stream, CACHE_FRAME_GET, "one", 1);
    put.value = slice_of(new, sizeof new);
    say_request(stream, &put);
    say(stream, CACHE_FRAME_GET, "one", 2);
    world_settle(world);
    hear(stream, CACHE_FRAME_DONE, 0, "");
    struct cache_frame_reply reply = hear_reply(stream);
    assert_true(slice_equal(reply.rest, slice_of(old, sizeof old)));
    hear(stream, CACHE_FRAME_DONE, 0, "");
    reply = hear_reply(stream);
    assert_true(slice_equal(reply.rest, slice_of(new, sizeof new)));
    world_end(world);
}

/* ---- several reactors ---- */

/* All keys are asked for in one turn: those of this reactor are answered before the others. */
static void answers_come_as_they_complete_and_each_once(void **) {
    bool heard[8] = {0};
    bool overtaken = false;
    uint64_t last = 0;
    begin(2);
    struct peer_stream *stream = open_bound(WORLD_ALL);
    for (unsigned i = 0; i < 8; i++)
        say(stream, CACHE_FRAME_PUT, names[i], i);
    world_settle(world);
    for (unsigned i = 0; i < 8; i++) {
        struct cache_frame_reply reply = hear_reply(stream);
        assert_int_equal(reply.status, CACHE_FRAME_DONE);
        assert_true(reply.request_id < 8 && !heard[reply.request_id]);
        heard[reply.request_id] = true;
        overtaken = overtaken || reply.request_id < last;
        last = reply.request_id;
    }
    assert_true(overtaken);
    hear_silence(stream);
    world_end(world);
}

static void requests_for_one_key_take_effect_in_their_order(void **) {
    begin(3);
    struct peer_stream *stream = open_bound(WORLD_ALL);
    for (unsigned i = 0; i < 8; i++) {
        say(stream, CACHE_FRAME_PUT, names[i], 1);
        say(stream, CACHE_FRAME_DELETE, names[i], 2);
        say(stream, CACHE_FRAME_GET, names[i], 3);
    }
    world_settle(world);
    unsigned values = 0, misses = 0;
    for (unsigned i = 0; i < 24; i++) {
        struct cache_frame_reply reply = hear_reply(stream);
        values += reply.status == CACHE_FRAME_VALUE && reply.request_id == 2;
        misses += reply.status == CACHE_FRAME_MISS && reply.request_id == 3;
    }
    assert_int_equal(values, 8);
    assert_int_equal(misses, 8);
    world_end(world);
}

static const struct session *session_of(const struct peer_stream *stream) {
    return ((const struct stream_user *)stream->quic->user)->session;
}

/* A key that the other reactor owns. */
static const char *far_key(struct peer_stream *stream) {
    for (unsigned i = 0; i < 8; i++) {
        say(stream, CACHE_FRAME_GET, names[i], 0);
        bool far = session_of(stream)->frames_awaited > 0;
        world_settle(world);
        while (stream->read_at < stream->in_bytes)
            (void)hear_reply(stream);
        if (far)
            return names[i];
    }
    fail_msg("no key is far away");
    return NULL;
}

static void no_more_than_so_many_answers_are_awaited_and_all_come(void **) {
    begin(2);
    struct peer_stream *stream = open_bound(WORLD_ALL);
    const char *key = far_key(stream);
    for (unsigned i = 0; i < 1000; i++)
        say(stream, CACHE_FRAME_GET, key, i);
    assert_int_equal(session_of(stream)->frames_awaited, 256);
    assert_true(peer->credit_bytes < peer->sent_bytes);
    world_settle(world);
    for (unsigned i = 0; i < 1000; i++)
        hear(stream, CACHE_FRAME_MISS, i, "");
    hear_silence(stream);
    assert_int_equal(peer->credit_bytes, peer->sent_bytes);
    assert_int_equal(session_of(stream)->frames_awaited_bytes, 0);
    world_end(world);
}

static void no_more_than_so_many_bytes_are_on_their_way(void **) {
    static char large[300000];
    begin_with_cache(2, 16 << 20);
    struct peer_stream *stream = open_bound(WORLD_ALL);
    const char *key = far_key(stream);
    struct cache_frame_request put = {
        .op = CACHE_FRAME_PUT, .key = slice_str(key), .value = slice_of(large, sizeof large)};
    for (unsigned i = 0; i < 10; i++)
        say_request(stream, &put);
    assert_int_equal(session_of(stream)->frames_awaited, 4);
    world_settle(world);
    for (unsigned i = 0; i < 10; i++)
        hear(stream, CACHE_FRAME_DONE, 0, "");
    world_end(world);
}

static void awaited(struct peer_stream *stream, const char *key, unsigned gets, uint32_t expect) {
    for (unsigned i = 0; i < gets; i++)
        say(stream, CACHE_FRAME_GET, key, i);
    assert_in_range(session_of(stream)->frames_awaited, 1, expect);
    world_settle(world);
    for (unsigned i = 0; i < gets; i++)
        (void)hear_reply(stream);
    assert_int_equal(session_of(stream)->frames_awaited_bytes, 0);
}

/* One may always be on its way, of whatever size. */
static void gets_of_large_values_are_awaited_by_what_they_answer(void **) {
    static char large[5 << 20];
    begin_with_cache(2, 32 << 20);
    const char *key = far_key(open_bound(WORLD_ALL));
    struct peer_stream *stream = open_bound(WORLD_ALL); /* that got nothing yet */
    struct cache_frame_request put = {
        .op = CACHE_FRAME_PUT, .key = slice_str(key), .value = slice_of(large, 1 << 20)};
    say_request(stream, &put);
    world_settle(world);
    (void)hear_reply(stream);
    awaited(stream, key, 50, 16); /* before the first answer */
    awaited(stream, key, 50, 4);  /* 4 MiB of values */
    put.value = slice_of(large, sizeof large);
    say_request(stream, &put);
    world_settle(world);
    (void)hear_reply(stream);
    awaited(stream, key, 20, 4);
    awaited(stream, key, 20, 1);
    world_end(world);
}

static void an_end_while_answers_are_awaited_comes_after_them(void **) {
    begin(2);
    struct peer_stream *stream = open_bound(WORLD_ALL);
    const char *key = far_key(stream);
    say(stream, CACHE_FRAME_GET, key, 1);
    say(stream, CACHE_FRAME_GET, key, 2);
    peer_send(stream, slice_of(NULL, 0), true);
    assert_false(server_drained(&world->reactors[0].server));
    world_settle(world);
    hear(stream, CACHE_FRAME_MISS, 1, "");
    hear(stream, CACHE_FRAME_MISS, 2, "");
    hear_end(stream);
    world_end(world);
}

static void a_client_that_leaves_while_answers_are_awaited_leaves_nothing(void **) {
    begin(2);
    struct peer_stream *stream = open_bound(WORLD_ALL);
    const char *key = far_key(stream);
    for (unsigned i = 0; i < 8; i++)
        say(stream, CACHE_FRAME_PUT, key, i);
    peer_close(peer);
    world_settle(world);
    world_end(world);
}

/* ---- refusals; none ends the stream ---- */

static void a_value_over_the_limit_is_refused(void **) {
    static char large[9000];
    begin(1);
    struct peer_stream *stream = open_bound(WORLD_ALL);
    struct cache_frame_request put = {.op = CACHE_FRAME_PUT,
                                      .request_id = 1,
                                      .key = slice_str("one"),
                                      .value = slice_of(large, sizeof large)};
    say_request(stream, &put);
    world_settle(world);
    hear_refusal(stream, WIRE_CODE_LIMIT_EXCEEDED, 1, "value exceeds the cache's byte limit");
    hear_silence(stream);
    world_end(world);
}

static void a_cache_that_is_not_there_is_not_found_until_it_is(void **) {
    begin(1);
    struct peer_stream *stream = open_ready(world, peer, WORLD_ALL);
    say_bind(stream, 0, "t1", "zz");
    say(stream, CACHE_FRAME_GET, "one", 1);
    world_settle(world);
    hear_refusal(stream, WIRE_CODE_NOT_FOUND, 1, "cache scope not found: t1/n/zz");

    uint8_t key[64];
    struct slice t = slice_str("t1"), n = slice_str("n"), c = slice_str("zz");
    core_key_write(key, t, n, c);
    struct slice route = slice_of(key, core_key_bytes(t, n, c));
    core_add_cache(&world->reactors[0].server.core, route, 0);
    say(stream, CACHE_FRAME_PUT, "one", 2);
    world_settle(world);
    hear(stream, CACHE_FRAME_DONE, 2, "");

    (void)core_remove_cache(&world->reactors[0].server.core, route);
    say(stream, CACHE_FRAME_GET, "one", 3);
    world_settle(world);
    hear_refusal(stream, WIRE_CODE_NOT_FOUND, 3, "cache scope not found: t1/n/zz");

    core_add_cache(&world->reactors[0].server.core, route, 0);
    say(stream, CACHE_FRAME_GET, "one", 4);
    world_settle(world);
    hear(stream, CACHE_FRAME_MISS, 4, "");
    world_end(world);
}

static void without_permission_each_request_is_refused(void **) {
    begin(1);
    struct peer_stream *stream = open_bound(WORLD_SOME);
    say(stream, CACHE_FRAME_GET, "one", 1);
    say(stream, CACHE_FRAME_PUT, "one", 2);
    world_settle(world);
    hear_refusal(stream, WIRE_CODE_FORBIDDEN, 1, "forbidden");
    hear_refusal(stream, WIRE_CODE_FORBIDDEN, 2, "forbidden");
    hear_silence(stream);
    world_end(world);
}

static void another_tenant_is_refused_whether_it_exists_or_not(void **) {
    begin(1);
    struct peer_stream *stream = open_ready(world, peer, WORLD_ALL);
    say_bind(stream, 0, "t2", "k");
    say(stream, CACHE_FRAME_GET, "one", 1);
    say_bind(stream, 0, "t2", "zz");
    say(stream, CACHE_FRAME_DELETE, "one", 2);
    world_settle(world);
    hear_refusal(stream, WIRE_CODE_FORBIDDEN, 1, "tenant mismatch");
    hear_refusal(stream, WIRE_CODE_FORBIDDEN, 2, "tenant mismatch");
    hear_silence(stream);
    world_end(world);
}

static void a_handle_that_was_not_bound_is_refused(void **) {
    begin(1);
    struct peer_stream *stream = open_ready(world, peer, WORLD_ALL);
    say(stream, CACHE_FRAME_GET, "one", 1);
    say_bind(stream, 2, "t1", "k");
    say(stream, CACHE_FRAME_GET, "one", 2);
    struct cache_frame_request far = {.op = CACHE_FRAME_GET, .handle = 65535, .request_id = 3};
    say_request(stream, &far);
    world_settle(world);
    for (uint64_t id = 1; id <= 3; id++)
        hear_refusal(stream, WIRE_CODE_INVALID_REQUEST, id, "cache handle is not bound");
    hear_silence(stream);
    world_end(world);
}

static void the_last_handle_can_be_bound_and_one_more_ends_the_stream(void **) {
    begin(1);
    struct peer_stream *stream = open_ready(world, peer, WORLD_ALL);
    say_bind(stream, 255, "t1", "k");
    struct cache_frame_request get = {.op = CACHE_FRAME_GET, .handle = 255, .request_id = 1};
    say_request(stream, &get);
    say_bind(stream, 256, "t1", "k");
    world_settle(world);
    hear(stream, CACHE_FRAME_MISS, 1, "");
    hear_error(stream, WIRE_CODE_LIMIT_EXCEEDED);
    hear_end(stream);
    world_end(world);
}

static void a_malformed_request_is_refused_when_its_id_can_be_read(void **) {
    uint8_t body[32] = {CACHE_FRAME_GET, 0xff};
    body[11] = 7;
    begin(1);
    struct peer_stream *stream = open_bound(WORLD_ALL);
    say_body(stream, body, 12);
    say_body(stream, body, sizeof body);
    body[0] = 99;
    say_body(stream, body, sizeof body);
    say(stream, CACHE_FRAME_GET, "\xff", 7);
    say(stream, CACHE_FRAME_GET, "one", 8);
    world_settle(world);
    for (unsigned i = 0; i < 4; i++)
        hear_refusal(stream, WIRE_CODE_INVALID_REQUEST, 7, "malformed cache request");
    hear(stream, CACHE_FRAME_MISS, 8, "");
    hear_silence(stream);
    assert_int_equal(counter_get(&world->reactors[0].server.counters.malformed_frames), 4);
    world_end(world);
}

static void without_an_id_or_in_a_bind_it_ends_the_stream(void **) {
    uint8_t body[32] = {CACHE_FRAME_GET};
    begin(1);
    for (size_t len = 0; len < 12; len++) {
        struct peer_stream *stream = open_bound(WORLD_ALL);
        say_body(stream, body, len);
        world_settle(world);
        hear_end(stream);
    }
    body[0] = CACHE_FRAME_BIND;
    struct peer_stream *stream = open_bound(WORLD_ALL);
    say_body(stream, body, sizeof body);
    world_settle(world);
    hear_end(stream);
    world_end(world);
}

/* ---- bounds ---- */

/* A few bytes ask for many large values: reading stops until the client has taken them. */
static void a_client_that_does_not_read_values_is_not_read(void **) {
    static char large[1 << 20];
    uint8_t many[50][FRAME_HEADER_BYTES + CACHE_FRAME_REQUEST_BYTES + 3];
    begin_with_cache(1, 16 << 20);
    struct peer_stream *stream = open_bound(WORLD_ALL);
    struct cache_frame_request put = {
        .op = CACHE_FRAME_PUT, .key = slice_str("key"), .value = slice_of(large, sizeof large)};
    say_request(stream, &put);
    struct cache_frame_request get = {.op = CACHE_FRAME_GET, .key = slice_str("key")};
    for (unsigned i = 0; i < 50; i++)
        cache_frame_request_encode(&get, many[i]);
    peer_send(stream, slice_of(many, sizeof many), false);
    assert_true(stream->quic->unacked_bytes < 6 * sizeof large);
    world_settle(world);
    assert_true(stream->in_bytes > 50 * sizeof large);
    world_end(world);
}

static void replies_of_a_turn_leave_as_few_runs_of_bytes(void **) {
    begin(1);
    struct peer_stream *stream = open_bound(WORLD_ALL);
    for (unsigned i = 0; i < 100; i++)
        say(stream, CACHE_FRAME_GET, "one", i);
    assert_true(stream->quic->piece_count <= 4);
    world_settle(world);
    for (unsigned i = 0; i < 100; i++)
        hear(stream, CACHE_FRAME_MISS, i, "");
    assert_null(session_of(stream)->out);
    world_end(world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(auth_ok_names_what_both_know_and_nothing_unasked),
        cmocka_unit_test(without_the_word_a_frame_has_unknown_flags_and_is_skipped),
        cmocka_unit_test(before_auth_a_frame_has_unknown_flags),
        cmocka_unit_test(flags_that_are_nearly_ours_are_unknown),
        cmocka_unit_test(a_uni_stream_does_not_carry_them),
        cmocka_unit_test(what_was_put_is_what_is_got),
        cmocka_unit_test(empty_keys_and_values_are_keys_and_values),
        cmocka_unit_test(frames_in_pieces_are_put_together),
        cmocka_unit_test(an_entry_lives_as_long_as_its_ttl),
        cmocka_unit_test(json_and_binary_requests_see_one_cache),
        cmocka_unit_test(a_long_value_is_that_of_its_time),
        cmocka_unit_test(answers_come_as_they_complete_and_each_once),
        cmocka_unit_test(requests_for_one_key_take_effect_in_their_order),
        cmocka_unit_test(no_more_than_so_many_answers_are_awaited_and_all_come),
        cmocka_unit_test(no_more_than_so_many_bytes_are_on_their_way),
        cmocka_unit_test(gets_of_large_values_are_awaited_by_what_they_answer),
        cmocka_unit_test(an_end_while_answers_are_awaited_comes_after_them),
        cmocka_unit_test(a_client_that_leaves_while_answers_are_awaited_leaves_nothing),
        cmocka_unit_test(a_value_over_the_limit_is_refused),
        cmocka_unit_test(a_cache_that_is_not_there_is_not_found_until_it_is),
        cmocka_unit_test(without_permission_each_request_is_refused),
        cmocka_unit_test(another_tenant_is_refused_whether_it_exists_or_not),
        cmocka_unit_test(a_handle_that_was_not_bound_is_refused),
        cmocka_unit_test(the_last_handle_can_be_bound_and_one_more_ends_the_stream),
        cmocka_unit_test(a_malformed_request_is_refused_when_its_id_can_be_read),
        cmocka_unit_test(without_an_id_or_in_a_bind_it_ends_the_stream),
        cmocka_unit_test(a_client_that_does_not_read_values_is_not_read),
        cmocka_unit_test(replies_of_a_turn_leave_as_few_runs_of_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
