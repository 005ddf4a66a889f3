/* Requests about streams: who may ask, what is passed on, and how answers come back. */
#include "hear.h"

#include <stdio.h>
#include <string.h>

static struct world *world;
static struct peer *peer;

/* What was handed to the node. */
static struct stream_request asked;
static uint64_t asking_session;
static unsigned asked_count;

static void ask_admin(struct server *server, uint64_t session,
                      const struct stream_request *request) {
    asked = *request;
    asking_session = session;
    asked_count++;
}

static void begin(void) {
    struct world_options options = world_options();
    world = world_begin(&options);
    world->reactors[0].server.ask_admin = ask_admin;
    peer = world_connect(world, 0);
    asked_count = 0;
}

static void answer(enum felix_err err, const char *text) {
    server_stream_answer(&world->reactors[0].server, asking_session, err, slice_str(text));
    world_settle(world);
}

static void say(struct peer_stream *stream, const char *body) {
    struct message message = {
        .type = MESSAGE_EXTENSION,
        .extension = slice_str(STREAM_ADMIN_EXTENSION),
        .has_request_id = true,
        .request_id = 7,
        .body = slice_str(body),
    };
    world_say(stream, &message);
    world_settle(world);
}

#define SHOW "{\"op\":\"show\",\"tenant\":\"t1\",\"namespace\":\"n\",\"stream\":\"a\"}"
#define LIST "{\"op\":\"list\",\"tenant\":\"t1\",\"namespace\":\"n\"}"

static void a_full_disk_may_be_tried_again_later(void **) {
    begin();
    struct peer_stream *stream = open_ready(world, peer, WORLD_ALL);
    say(stream, SHOW);
    answer(FELIX_DISK_FULL, "no room");
    struct message message;
    hear_message(stream, MESSAGE_ERROR, &message);
    assert_int_equal(message.code, WIRE_CODE_STORAGE);
    assert_int_equal(message.retry, WIRE_RETRY_RETRY_AFTER);
    message_deinit(&message);
    world_end(world);
}

static void hear_text(struct peer_stream *stream, enum wire_code code, const char *text) {
    struct message message;
    hear_message(stream, MESSAGE_ERROR, &message);
    assert_int_equal(message.code, code);
    char copy[512];
    (void)snprintf(copy, sizeof copy, "%.*s", (int)message.text.len,
                   (const char *)message.text.data);
    assert_string_equal(copy, text);
    message_deinit(&message);
}

static void a_request_is_passed_on_and_its_answer_comes_back(void **) {
    begin();
    struct peer_stream *stream = open_ready(world, peer, WORLD_ALL);
    say(stream, SHOW);
    assert_int_equal(asked_count, 1);
    assert_int_equal(asked.op, STREAM_OP_SHOW);
    assert_string_equal(asked.stream, "a");
    hear_silence(stream);
    answer(FELIX_OK, "{\"outcome\":\"listed\"}");
    struct message message;
    hear_message(stream, MESSAGE_EXTENSION_RESULT, &message);
    assert_true(slice_is(message.extension, "felix.streams"));
    assert_true(message.has_request_id && message.request_id == 7);
    assert_true(slice_is(message.body, "{\"outcome\":\"listed\"}"));
    message_deinit(&message);
    hear_silence(stream);
    world_end(world);
}

static void a_refusal_carries_its_code_and_text_and_the_stream_goes_on(void **) {
    begin();
    struct peer_stream *stream = open_ready(world, peer, WORLD_ALL);
    say(stream, SHOW);
    answer(FELIX_NOT_FOUND, "there is none");
    hear_text(stream, WIRE_CODE_NOT_FOUND, "there is none");
    say(stream, SHOW);
    answer(FELIX_STORAGE, "the disk failed");
    hear_text(stream, WIRE_CODE_STORAGE, "the disk failed");
    hear_silence(stream);
    world_end(world);
}

/* What follows a request waits for its answer. */
static void requests_of_a_stream_are_served_one_after_the_other(void **) {
    begin();
    struct peer_stream *stream = open_ready(world, peer, WORLD_ALL);
    say(stream, SHOW);
    say(stream, LIST);
    assert_int_equal(asked_count, 1);
    answer(FELIX_OK, "{}");
    assert_int_equal(asked_count, 2);
    assert_int_equal(asked.op, STREAM_OP_LIST);
    hear_message(stream, MESSAGE_EXTENSION_RESULT, NULL);
    hear_silence(stream);
    answer(FELIX_OK, "{}");
    hear_message(stream, MESSAGE_EXTENSION_RESULT, NULL);
    world_end(world);
}

static void a_stream_that_was_finished_is_answered_first(void **) {
    begin();
    struct peer_stream *stream = open_ready(world, peer, WORLD_ALL);
    say(stream, SHOW);
    peer_send(stream, slice_of(NULL, 0), true);
    world_settle(world);
    hear_silence(stream);
    answer(FELIX_OK, "{}");
    hear_message(stream, MESSAGE_EXTENSION_RESULT, NULL);
    hear_end(stream);
    world_end(world);
}

static void a_drain_waits_for_the_answer(void **) {
    begin();
    struct peer_stream *stream = open_ready(world, peer, WORLD_ALL);
    struct server *server = &world->reactors[0].server;
    say(stream, SHOW);
    server_drain_begin(server);
    world_settle(world);
    assert_false(server_drained(server));
    answer(FELIX_OK, "{}");
    hear_message(stream, MESSAGE_EXTENSION_RESULT, NULL);
    hear_end(stream);
    assert_true(server_drained(server));
    world_end(world);
}

static void an_answer_to_who_is_gone_is_dropped(void **) {
    begin();
    struct peer_stream *stream = open_ready(world, peer, WORLD_ALL);
    say(stream, SHOW);
    world_end(world);
    begin();
    answer(FELIX_OK, "{}");
    assert_int_equal(counter_get(&world->reactors[0].server.counters.errors_sent), 0);
    world_end(world);
}

static void what_is_wrong_with_the_body_is_said(void **) {
    begin();
    struct peer_stream *stream = open_ready(world, peer, WORLD_ALL);
    say(stream, "{\"op\":\"show\",\"tenant\":\"t1\",\"namespace\":\"n\"}");
    hear_text(stream, WIRE_CODE_INVALID_REQUEST, "felix.streams: stream is missing");
    say(stream, "");
    hear_error(stream, WIRE_CODE_INVALID_REQUEST);
    assert_int_equal(asked_count, 0);
    hear_silence(stream);
    world_end(world);
}

static void who_may_not_is_told_what_the_token_lacks(void **) {
    begin();
    struct peer_stream *stream = open_ready(world, peer, WORLD_SOME);
    say(stream, "{\"op\":\"show\",\"tenant\":\"t1\",\"namespace\":\"n\",\"stream\":\"b\"}");
    hear_text(stream, WIRE_CODE_FORBIDDEN,
              "forbidden: the token lacks stream.manage:stream:t1/n/b");
    hear_end(stream);
    stream = open_ready(world, peer, WORLD_ALL);
    say(stream, "{\"op\":\"list\",\"tenant\":\"t1\",\"namespace\":\"x/y\"}");
    hear_error(stream, WIRE_CODE_INVALID_REQUEST);
    stream = open_ready(world, peer, WORLD_OTHER);
    say(stream, SHOW);
    hear_text(stream, WIRE_CODE_FORBIDDEN, "tenant mismatch");
    assert_int_equal(asked_count, 0);
    world_end(world);
}

/* WORLD_SOME manages stream a and no other. */
static void a_list_needs_a_permission_for_every_name(void **) {
    begin();
    struct peer_stream *stream = open_ready(world, peer, WORLD_SOME);
    say(stream, SHOW);
    assert_int_equal(asked_count, 1);
    answer(FELIX_OK, "{}");
    hear_message(stream, MESSAGE_EXTENSION_RESULT, NULL);
    say(stream, LIST);
    hear_text(stream, WIRE_CODE_FORBIDDEN,
              "forbidden: the token lacks stream.manage:stream:t1/n/*");
    assert_int_equal(asked_count, 1);
    world_end(world);
}

static void hear_unsupported(struct peer_stream *stream, const char *name) {
    struct message message;
    hear_message(stream, MESSAGE_UNSUPPORTED, &message);
    assert_true(slice_is(message.text, "extension"));
    assert_true(slice_is(message.extension, name));
    assert_int_equal(message.request_id, 7);
    message_deinit(&message);
    hear_silence(stream);
}

static void another_extension_is_unsupported(void **) {
    begin();
    struct peer_stream *stream = open_ready(world, peer, WORLD_ALL);
    struct message message = {.type = MESSAGE_EXTENSION,
                              .extension = slice_str("acme.x"),
                              .has_request_id = true,
                              .request_id = 7};
    world_say(stream, &message);
    world_settle(world);
    hear_unsupported(stream, "acme.x");
    world_end(world);
}

static void who_did_not_agree_on_it_gets_unsupported(void **) {
    begin();
    struct peer_stream *stream = peer_open(peer, true);
    struct message auth = {
        .type = MESSAGE_AUTH,
        .tenant = world_tenant(WORLD_ALL),
        .token = world_token(WORLD_ALL),
        .has_client_flags = true,
        .flags = CLIENT_FLAGS,
        .has_client_features = true,
        .features = CLIENT_FEATURES,
        .own_features = OWN_FEATURES & ~OWN_ADMIN,
    };
    world_say(stream, &auth);
    peer_flush(peer);
    hear_message(stream, MESSAGE_AUTH_OK, NULL);
    say(stream, SHOW);
    hear_unsupported(stream, "felix.streams");
    assert_int_equal(asked_count, 0);
    world_end(world);
}

static void where_nobody_answers_it_is_unsupported(void **) {
    begin();
    world->reactors[0].server.ask_admin = NULL;
    struct peer_stream *stream = open_ready(world, peer, WORLD_ALL);
    say(stream, SHOW);
    hear_unsupported(stream, "felix.streams");
    world_end(world);
}

static void before_authentication_it_is_refused(void **) {
    begin();
    struct peer_stream *stream = peer_open(peer, true);
    say(stream, SHOW);
    hear_error(stream, WIRE_CODE_NONE);
    hear_end(stream);
    assert_int_equal(asked_count, 0);
    world_end(world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_is_passed_on_and_its_answer_comes_back),
        cmocka_unit_test(a_refusal_carries_its_code_and_text_and_the_stream_goes_on),
        cmocka_unit_test(a_full_disk_may_be_tried_again_later),
        cmocka_unit_test(requests_of_a_stream_are_served_one_after_the_other),
        cmocka_unit_test(a_stream_that_was_finished_is_answered_first),
        cmocka_unit_test(a_drain_waits_for_the_answer),
        cmocka_unit_test(an_answer_to_who_is_gone_is_dropped),
        cmocka_unit_test(what_is_wrong_with_the_body_is_said),
        cmocka_unit_test(who_may_not_is_told_what_the_token_lacks),
        cmocka_unit_test(a_list_needs_a_permission_for_every_name),
        cmocka_unit_test(another_extension_is_unsupported),
        cmocka_unit_test(who_did_not_agree_on_it_gets_unsupported),
        cmocka_unit_test(where_nobody_answers_it_is_unsupported),
        cmocka_unit_test(before_authentication_it_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
