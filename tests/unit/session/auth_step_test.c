/* The first exchange of a stream, and what is served without it: errors. */
#include "hear.h"

static struct world *world;
static struct peer *peer;

static struct message plain_auth(void) {
    return (struct message){
        .type = MESSAGE_AUTH, .tenant = world_tenant(WORLD_ALL), .token = world_token(WORLD_ALL)};
}

static void begin(void) {
    struct world_options options = world_options();
    world = world_begin(&options);
    peer = world_connect(world, 0);
}

static void a_good_token_is_answered_with_what_the_broker_can(void **) {
    begin();
    struct message answer;
    struct peer_stream *stream = peer_open(peer, true);
    world_say_auth(stream, WORLD_ALL, CLIENT_FEATURES);
    peer_flush(peer);
    hear_message(stream, MESSAGE_AUTH_OK, &answer);
    assert_int_equal(answer.flags, SERVER_FLAGS);
    assert_int_equal(answer.features, SERVER_FEATURES);
    message_deinit(&answer);
    hear_silence(stream);
    world_end(world);
}

static void a_client_without_flags_hears_a_plain_ok(void **) {
    begin();
    struct peer_stream *stream = peer_open(peer, true);
    struct message auth = plain_auth();
    world_say(stream, &auth);
    peer_flush(peer);
    hear_message(stream, MESSAGE_OK, NULL);
    world_end(world);
}

static void a_bad_token_ends_the_stream_with_an_error(void **) {
    begin();
    struct peer_stream *stream = peer_open(peer, true);
    struct message auth = {
        .type = MESSAGE_AUTH, .tenant = slice_str("t1"), .token = slice_str("a.b.c")};
    world_say(stream, &auth);
    peer_flush(peer);
    hear_error(stream, WIRE_CODE_NONE);
    hear_end(stream);
    assert_true(stream->stopped);
    world_end(world);
}

static void a_token_of_another_tenant_is_refused(void **) {
    begin();
    struct peer_stream *stream = peer_open(peer, true);
    struct message auth = {
        .type = MESSAGE_AUTH, .tenant = world_tenant(WORLD_OTHER), .token = world_token(WORLD_ALL)};
    world_say(stream, &auth);
    peer_flush(peer);
    hear_error(stream, WIRE_CODE_NONE);
    hear_end(stream);
    world_end(world);
}

static void nothing_but_auth_is_served_before_auth(void **) {
    begin();
    static const enum message_type types[] = {MESSAGE_PUBLISH_BATCH, MESSAGE_SUBSCRIBE,
                                              MESSAGE_CACHE_PUT, MESSAGE_CACHE_GET,
                                              MESSAGE_CACHE_DELETE};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        uint8_t none[4] = {0};
        struct peer_stream *stream = peer_open(peer, true);
        struct message message = request(types[i]);
        message.has_request_id = true;
        message.payloads.bytes = slice_of(none, sizeof none);
        world_say(stream, &message);
        peer_flush(peer);
        hear_error(stream, WIRE_CODE_NONE);
        hear_end(stream);
    }
    assert_int_equal(counter_get(&world->reactors[0].server.counters.cache_requests), 0);
    world_end(world);
}

static void a_binary_publish_before_auth_is_refused(void **) {
    begin();
    struct peer_stream *stream = peer_open(peer, true);
    world_say_publish(stream, &(struct world_publish){.flags = 0});
    peer_flush(peer);
    hear_error(stream, WIRE_CODE_NONE);
    hear_end(stream);
    assert_int_equal(counter_get(&world->reactors[0].server.counters.publish_frames), 0);
    world_end(world);
}

static void a_second_auth_is_refused(void **) {
    begin();
    struct peer_stream *stream = open_ready(world, peer, WORLD_ALL);
    world_say_auth(stream, WORLD_ALL, CLIENT_FEATURES);
    peer_flush(peer);
    hear_error(stream, WIRE_CODE_INVALID_REQUEST);
    hear_end(stream);
    world_end(world);
}

static void who_does_not_authenticate_in_time_is_sent_away(void **) {
    begin();
    struct peer_stream *late = peer_open(peer, true);
    struct peer_stream *good = open_ready(world, peer, WORLD_ALL);
    uint64_t limit_ns = world->reactors[0].server.settings.auth_timeout_ns;
    world->now_ns += limit_ns - 1;
    world_settle(world);
    hear_silence(late);
    world->now_ns += 1;
    world_settle(world);
    hear_error(late, WIRE_CODE_NONE);
    hear_end(late);
    hear_silence(good);
    world_end(world);
}

/* Sends the header alone of a frame with a body of `bytes`. */
static struct peer_stream *announce(struct peer_stream *stream, uint32_t bytes) {
    uint8_t header[FRAME_HEADER_BYTES];
    frame_header_encode(header, 0, bytes);
    peer_send(stream, slice_of(header, sizeof header), false);
    peer_flush(peer);
    return stream;
}

static void a_frame_over_64_kib_is_for_who_has_authenticated(void **) {
    begin();
    hear_silence(announce(peer_open(peer, true), FRAME_MAX_BYTES_UNAUTHENTICATED));
    hear_end(announce(peer_open(peer, true), FRAME_MAX_BYTES_UNAUTHENTICATED + 1));
    hear_silence(announce(open_ready(world, peer, WORLD_ALL), FRAME_MAX_BYTES_DEFAULT));
    hear_end(announce(open_ready(world, peer, WORLD_ALL), FRAME_MAX_BYTES_DEFAULT + 1));
    world_end(world);
}

static void a_broker_that_shuts_down_takes_nobody_in(void **) {
    begin();
    server_drain_begin(&world->reactors[0].server);
    struct peer_stream *stream = peer_open(peer, true);
    world_say_auth(stream, WORLD_ALL, CLIENT_FEATURES);
    peer_flush(peer);
    hear_error(stream, WIRE_CODE_DRAINING);
    hear_end(stream);
    world_end(world);
}

static void an_auth_in_pieces_is_the_same_auth(void **) {
    begin();
    struct message auth = plain_auth();
    size_t bytes = 0;
    struct buf *frame = message_encode(&auth, &bytes);
    for (size_t cut = 1; cut < bytes; cut++) {
        struct peer_stream *stream = peer_open(peer, true);
        peer_send(stream, slice_of(frame->data, cut), false);
        peer_send(stream, slice_of(frame->data + cut, bytes - cut), false);
        peer_flush(peer);
        hear_message(stream, MESSAGE_OK, NULL);
    }
    buf_unref(frame);
    world_end(world);
}

static void an_end_inside_a_frame_gets_no_answer(void **) {
    begin();
    struct peer_stream *stream = peer_open(peer, true);
    uint8_t header[FRAME_HEADER_BYTES];
    frame_header_encode(header, 0, 10);
    peer_send(stream, slice_of(header, sizeof header), false);
    peer_send(stream, slice_str("{"), true);
    peer_flush(peer);
    hear_end(stream);
    world_end(world);
}

/* ---- memory before authentication ---- */

static struct peer_stream *open_with_header(struct peer *by, uint32_t body_bytes) {
    uint8_t header[FRAME_HEADER_BYTES];
    struct peer_stream *stream = peer_open(by, true);
    frame_header_encode(header, 0, body_bytes);
    peer_send(stream, slice_of(header, sizeof header), false);
    return stream;
}

static void before_auth_a_promised_body_costs_what_came_of_it(void **) {
    begin();
    const struct server *server = &world->reactors[0].server;
    struct peer_stream *stream = open_with_header(peer, FRAME_MAX_BYTES_UNAUTHENTICATED);
    assert_int_equal(server->recv_held_bytes, 0);
    peer_send(stream, slice_str("{"), false);
    assert_in_range(server->recv_held_bytes, 1, 1024);
    assert_int_equal(server->unauth_held_bytes, server->recv_held_bytes);
    world_end(world);
}

static void strangers_use_up_their_share_and_no_more(void **) {
    static uint8_t part[40000];
    struct world_options options = world_options();
    options.server.recv_memory_bytes = 16u << 20;
    world = world_begin(&options);
    peer = world_connect(world, 0);
    struct peer *stranger = world_connect(world, 0);
    const struct server *server = &world->reactors[0].server;
    struct peer_stream *stream = open_ready(world, peer, WORLD_ALL);
    for (unsigned i = 0; i < 1000 && !stranger->quic.close_wanted; i++)
        peer_send(open_with_header(stranger, FRAME_MAX_BYTES_UNAUTHENTICATED),
                  slice_of(part, sizeof part), false);
    assert_true(stranger->quic.close_wanted);
    assert_in_range(server->recv_held_bytes, 1u << 20, (1u << 20) + (128u << 10));
    world_say_publish(stream,
                      &(struct world_publish){.flags = FRAME_PUBLISH_ACKED, .request_id = 1});
    world_settle(world);
    assert_false(peer->quic.close_wanted);
    hear_ack(stream, 1, true);
    assert_int_equal(server->unauth_held_bytes, 0);
    world_end(world);
}

/* Where a sixteenth is less than the largest frame, that may come all the same. */
static void the_largest_frame_before_auth_fits_the_smallest_share(void **) {
    struct world_options options = world_options();
    options.server.recv_memory_bytes = 256u << 10;
    world = world_begin(&options);
    peer = world_connect(world, 0);
    static uint8_t part[FRAME_MAX_BYTES_UNAUTHENTICATED - 1];
    struct peer_stream *stream = open_with_header(peer, FRAME_MAX_BYTES_UNAUTHENTICATED);
    peer_send(stream, slice_of(part, sizeof part), false);
    assert_false(peer->quic.close_wanted);
    world_end(world);
}

static void what_is_held_at_auth_is_no_longer_charged_to_strangers(void **) {
    begin();
    struct peer_stream *stream = peer_open(peer, true);
    struct message auth = plain_auth();
    size_t bytes = 0;
    struct buf *frame = message_encode(&auth, &bytes);
    for (size_t i = 0; i < bytes; i++)
        peer_send(stream, slice_of(frame->data + i, 1), false);
    buf_unref(frame);
    peer_flush(peer);
    hear_message(stream, MESSAGE_OK, NULL);
    assert_int_equal(world->reactors[0].server.unauth_held_bytes, 0);
    world_end(world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_token_is_answered_with_what_the_broker_can),
        cmocka_unit_test(a_client_without_flags_hears_a_plain_ok),
        cmocka_unit_test(a_bad_token_ends_the_stream_with_an_error),
        cmocka_unit_test(a_token_of_another_tenant_is_refused),
        cmocka_unit_test(nothing_but_auth_is_served_before_auth),
        cmocka_unit_test(a_binary_publish_before_auth_is_refused),
        cmocka_unit_test(a_second_auth_is_refused),
        cmocka_unit_test(who_does_not_authenticate_in_time_is_sent_away),
        cmocka_unit_test(a_frame_over_64_kib_is_for_who_has_authenticated),
        cmocka_unit_test(a_broker_that_shuts_down_takes_nobody_in),
        cmocka_unit_test(an_auth_in_pieces_is_the_same_auth),
        cmocka_unit_test(an_end_inside_a_frame_gets_no_answer),
        cmocka_unit_test(before_auth_a_promised_body_costs_what_came_of_it),
        cmocka_unit_test(strangers_use_up_their_share_and_no_more),
        cmocka_unit_test(the_largest_frame_before_auth_fits_the_smallest_share),
        cmocka_unit_test(what_is_held_at_auth_is_no_longer_charged_to_strangers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
