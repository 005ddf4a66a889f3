/* Cache requests: answers, their order, and what is refused. */
#include "hear.h"

#include <stdlib.h>

static struct world *world;
static struct peer *peer;

static void begin(unsigned reactors) {
    struct world_options options = world_options();
    options.reactors = reactors;
    options.core.cache_max_bytes = 4096;
    world = world_begin(&options);
    peer = world_connect(world, 0);
}

static struct message with_id(enum message_type type, const char *key, uint64_t id) {
    struct message message = request(type);
    message.key = slice_str(key);
    message.has_request_id = true;
    message.request_id = id;
    message.has_value = true;
    message.value = slice_str(key); /* a put's value is its key, unless the test says otherwise */
    return message;
}

static void hear_value(struct peer_stream *stream, uint64_t id, const char *value) {
    struct message answer;
    hear_message(stream, MESSAGE_CACHE_VALUE, &answer);
    assert_int_equal(answer.request_id, id);
    assert_int_equal(answer.has_value, value != NULL);
    if (value != NULL)
        assert_true(slice_is(answer.value, value));
    message_deinit(&answer);
}

static void say(struct peer_stream *stream, struct message message) {
    world_say(stream, &message);
}

static void what_was_put_is_what_is_got(void **) {
    begin(1);
    struct peer_stream *stream = open_ready(world, peer, WORLD_ALL);
    say(stream, with_id(MESSAGE_CACHE_PUT, "one", 1));
    say(stream, with_id(MESSAGE_CACHE_GET, "one", 2));
    world_settle(world);
    hear_message(stream, MESSAGE_CACHE_OK, NULL);
    hear_value(stream, 2, "one");
    hear_silence(stream);
    world_end(world);
}

static void the_answer_repeats_the_names(void **) {
    begin(1);
    struct peer_stream *stream = open_ready(world, peer, WORLD_ALL);
    struct message answer;
    say(stream, with_id(MESSAGE_CACHE_GET, "one", 2));
    world_settle(world);
    hear_message(stream, MESSAGE_CACHE_VALUE, &answer);
    assert_true(slice_is(answer.tenant, "t1") && slice_is(answer.namespace_, "n"));
    assert_true(slice_is(answer.cache, "k") && slice_is(answer.key, "one"));
    message_deinit(&answer);
    world_end(world);
}

static void a_miss_is_an_answer_without_a_value(void **) {
    begin(1);
    struct peer_stream *stream = open_ready(world, peer, WORLD_ALL);
    say(stream, with_id(MESSAGE_CACHE_GET, "one", 2));
    world_settle(world);
    hear_value(stream, 2, NULL);
    world_end(world);
}

static void a_delete_answers_what_was_there_and_removes_it(void **) {
    begin(1);
    struct peer_stream *stream = open_ready(world, peer, WORLD_ALL);
    say(stream, with_id(MESSAGE_CACHE_PUT, "one", 1));
    say(stream, with_id(MESSAGE_CACHE_DELETE, "one", 2));
    say(stream, with_id(MESSAGE_CACHE_GET, "one", 3));
    world_settle(world);
    hear_message(stream, MESSAGE_CACHE_OK, NULL);
    hear_value(stream, 2, "one");
    hear_value(stream, 3, NULL);
    world_end(world);
}

static void an_entry_lives_as_long_as_its_ttl(void **) {
    begin(1);
    struct peer_stream *stream = open_ready(world, peer, WORLD_ALL);
    struct message put = with_id(MESSAGE_CACHE_PUT, "one", 1);
    put.has_ttl = true;
    put.ttl_ms = 1000;
    say(stream, put);
    world->now_ns += NS_PER_S - 1;
    world_turn(world, 0);
    say(stream, with_id(MESSAGE_CACHE_GET, "one", 2));
    world->now_ns += 1;
    world_turn(world, 0);
    say(stream, with_id(MESSAGE_CACHE_GET, "one", 3));
    world_settle(world);
    hear_message(stream, MESSAGE_CACHE_OK, NULL);
    hear_value(stream, 2, "one");
    hear_value(stream, 3, NULL);
    world_end(world);
}

static void a_request_without_an_id_is_answered_once_and_ends_the_stream(void **) {
    static const enum message_type types[] = {MESSAGE_CACHE_PUT, MESSAGE_CACHE_GET,
                                              MESSAGE_CACHE_DELETE};
    static const enum message_type answers[] = {MESSAGE_OK, MESSAGE_CACHE_VALUE,
                                                MESSAGE_CACHE_VALUE};
    begin(1);
    for (unsigned i = 0; i < 3; i++) {
        struct peer_stream *stream = open_ready(world, peer, WORLD_ALL);
        struct message lone = with_id(types[i], "one", 0);
        lone.has_request_id = false;
        say(stream, lone);
        say(stream, with_id(MESSAGE_CACHE_GET, "one", 9));
        world_settle(world);
        hear_message(stream, answers[i], NULL);
        hear_end(stream);
    }
    world_end(world);
}

/* Keys of both reactors in turn: an answer from afar holds back those that are here already. */
static void answers_keep_the_order_of_requests(void **) {
    static const char *const names[] = {"a", "b", "c", "d", "e", "f", "g", "h"};
    begin(2);
    struct peer_stream *stream = open_ready(world, peer, WORLD_ALL);
    for (unsigned i = 0; i < 8; i++)
        say(stream, with_id(MESSAGE_CACHE_GET, names[i], i));
    world_settle(world);
    for (unsigned i = 0; i < 8; i++)
        hear_value(stream, i, NULL);
    for (unsigned r = 0; r < 2; r++)
        assert_true(counter_get(&world->reactors[r].server.core.counters.cache_requests) > 0);
    world_end(world);
}

/* What waits behind an answer is not consumed, so that the client's window holds it up; then it is,
 * to the last byte. */
static void credit_is_given_when_a_request_is_handled(void **) {
    static const char *const names[] = {"a", "b", "c", "d", "e", "f", "g", "h"};
    begin(2);
    struct peer_stream *stream = open_ready(world, peer, WORLD_ALL);
    for (unsigned i = 0; i < 8; i++)
        say(stream, with_id(MESSAGE_CACHE_GET, names[i], i));
    assert_true(peer->credit_bytes < peer->sent_bytes);
    world_settle(world);
    assert_int_equal(peer->credit_bytes, peer->sent_bytes);
    world_end(world);
}

/* The client has not answered our STOP_SENDING: the stream stays, what it sent must not. */
static void what_follows_the_last_request_is_given_up(void **) {
    static const char *const names[] = {"a", "b", "c", "d", "e", "f", "g", "h"};
    begin(2);
    for (unsigned i = 0; i < 8; i++) {
        struct peer_stream *stream = open_ready(world, peer, WORLD_ALL);
        struct message lone = with_id(MESSAGE_CACHE_GET, names[i], 0);
        lone.has_request_id = false;
        say(stream, lone);
        say(stream, with_id(MESSAGE_CACHE_GET, names[i], 9));
        world_settle(world);
        assert_non_null(stream->quic);
    }
    assert_int_equal(peer->credit_bytes, peer->sent_bytes);
    assert_int_equal(world->reactors[0].server.recv_held_bytes, 0);
    world_end(world);
}

static void all_reactors_see_one_cache(void **) {
    static const char *const names[] = {"a", "b", "c", "d", "e", "f", "g", "h"};
    begin(2);
    struct peer_stream *from = open_ready(world, peer, WORLD_ALL);
    struct peer *other = world_connect(world, 1);
    struct peer_stream *to = open_ready(world, other, WORLD_ALL);
    for (unsigned i = 0; i < 8; i++)
        say(from, with_id(MESSAGE_CACHE_PUT, names[i], i));
    world_settle(world);
    for (unsigned i = 0; i < 8; i++)
        say(to, with_id(MESSAGE_CACHE_GET, names[i], i));
    world_settle(world);
    for (unsigned i = 0; i < 8; i++)
        hear_value(to, i, names[i]);
    world_end(world);
}

static void an_end_while_an_answer_is_awaited_comes_after_it(void **) {
    static const char *const names[] = {"a", "b", "c", "d", "e", "f", "g", "h"};
    begin(2);
    for (unsigned i = 0; i < 8; i++) {
        struct peer_stream *stream = open_ready(world, peer, WORLD_ALL);
        say(stream, with_id(MESSAGE_CACHE_GET, names[i], 1));
        peer_send(stream, slice_of(NULL, 0), true);
        world_settle(world);
        hear_value(stream, 1, NULL);
        hear_end(stream);
    }
    world_end(world);
}

/* A few bytes ask for many large values: reading stops until the client has taken them. */
static void a_client_that_does_not_read_values_is_not_read(void **) {
    static char large[1 << 20];
    struct world_options options = world_options();
    options.core.cache_max_bytes = 16 << 20;
    world = world_begin(&options);
    peer = world_connect(world, 0);
    struct peer_stream *stream = open_ready(world, peer, WORLD_ALL);
    struct message put = with_id(MESSAGE_CACHE_PUT, "one", 1);
    put.value = slice_of(large, sizeof large);
    say(stream, put);

    struct message get = with_id(MESSAGE_CACHE_GET, "one", 2);
    size_t bytes = 0;
    struct buf *frame = message_encode(&get, &bytes);
    uint8_t *many = malloc(50 * bytes);
    for (unsigned i = 0; i < 50; i++)
        memcpy(many + i * bytes, frame->data, bytes);
    peer_send(stream, slice_of(many, 50 * bytes), false);
    assert_true(stream->quic->unacked_bytes < 6 * sizeof large);
    world_settle(world);
    assert_true(stream->in_bytes > 50 * sizeof large);
    free(many);
    buf_unref(frame);
    world_end(world);
}

static void a_value_over_the_limit_is_refused(void **) {
    static char large[5000];
    begin(1);
    struct peer_stream *stream = open_ready(world, peer, WORLD_ALL);
    struct message put = with_id(MESSAGE_CACHE_PUT, "one", 1);
    put.value = slice_of(large, sizeof large);
    say(stream, put);
    world_settle(world);
    struct message error;
    hear_message(stream, MESSAGE_ERROR, &error);
    assert_int_equal(error.code, WIRE_CODE_LIMIT_EXCEEDED);
    assert_true(slice_is(error.text, "value exceeds the cache's byte limit"));
    message_deinit(&error);
    hear_silence(stream);
    world_end(world);
}

static void a_cache_that_is_not_there_is_not_found_and_the_stream_goes_on(void **) {
    begin(1);
    struct peer_stream *stream = open_ready(world, peer, WORLD_ALL);
    struct message get = with_id(MESSAGE_CACHE_GET, "one", 1);
    get.cache = slice_str("zz");
    say(stream, get);
    world_settle(world);
    hear_error(stream, WIRE_CODE_NOT_FOUND);
    hear_silence(stream);
    world_end(world);
}

static void forbidden(enum world_person person) {
    struct peer_stream *stream = open_ready(world, peer, person);
    say(stream, with_id(MESSAGE_CACHE_PUT, "one", 1));
    world_settle(world);
    hear_error(stream, WIRE_CODE_FORBIDDEN);
    hear_end(stream);
}

static void without_permission_a_request_ends_the_stream(void **) {
    begin(1);
    forbidden(WORLD_SOME);
    world_end(world);
}

static void another_tenant_ends_the_stream(void **) {
    begin(1);
    forbidden(WORLD_OTHER);
    world_end(world);
}

static void a_client_that_leaves_while_an_answer_is_awaited_leaves_nothing(void **) {
    static const char *const names[] = {"a", "b", "c", "d", "e", "f", "g", "h"};
    begin(2);
    for (unsigned i = 0; i < 8; i++)
        say(open_ready(world, peer, WORLD_ALL), with_id(MESSAGE_CACHE_GET, names[i], 1));
    peer_close(peer);
    world_settle(world);
    world_end(world);
}

static void an_unknown_request_is_answered_by_unsupported(void **) {
    static const char json[] = "{\"type\":\"cache_touch\",\"request_id\":8}";
    uint8_t frame[FRAME_HEADER_BYTES + sizeof json - 1];
    struct message answer;
    begin(1);
    struct peer_stream *stream = open_ready(world, peer, WORLD_ALL);
    frame_header_encode(frame, 0, sizeof json - 1);
    memcpy(frame + FRAME_HEADER_BYTES, json, sizeof json - 1);
    peer_send(stream, slice_of(frame, sizeof frame), false);
    world_settle(world);
    hear_message(stream, MESSAGE_UNSUPPORTED, &answer);
    assert_int_equal(answer.request_id, 8);
    message_deinit(&answer);
    hear_silence(stream);
    world_end(world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_put_is_what_is_got),
        cmocka_unit_test(the_answer_repeats_the_names),
        cmocka_unit_test(a_miss_is_an_answer_without_a_value),
        cmocka_unit_test(a_delete_answers_what_was_there_and_removes_it),
        cmocka_unit_test(an_entry_lives_as_long_as_its_ttl),
        cmocka_unit_test(a_request_without_an_id_is_answered_once_and_ends_the_stream),
        cmocka_unit_test(answers_keep_the_order_of_requests),
        cmocka_unit_test(credit_is_given_when_a_request_is_handled),
        cmocka_unit_test(what_follows_the_last_request_is_given_up),
        cmocka_unit_test(all_reactors_see_one_cache),
        cmocka_unit_test(an_end_while_an_answer_is_awaited_comes_after_it),
        cmocka_unit_test(a_client_that_does_not_read_values_is_not_read),
        cmocka_unit_test(a_value_over_the_limit_is_refused),
        cmocka_unit_test(a_cache_that_is_not_there_is_not_found_and_the_stream_goes_on),
        cmocka_unit_test(without_permission_a_request_ends_the_stream),
        cmocka_unit_test(another_tenant_ends_the_stream),
        cmocka_unit_test(a_client_that_leaves_while_an_answer_is_awaited_leaves_nothing),
        cmocka_unit_test(an_unknown_request_is_answered_by_unsupported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
