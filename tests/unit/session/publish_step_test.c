/* Publishing: who hears what, in which order, and when there is no room. */
#include "hear.h"

static struct world *world;
static struct peer *peer;

static void begin(const struct world_options *options) {
    world = world_begin(options);
    peer = world_connect(world, 0);
}

static void begin_plain(unsigned reactors) {
    struct world_options options = world_options();
    options.reactors = reactors;
    begin(&options);
}

static const struct server_counters *counters(void) {
    return &world->reactors[0].server.counters;
}

static struct peer_stream *subscribed(struct peer *to, const char *stream) {
    struct peer_stream *control = open_ready(world, to, WORLD_ALL);
    struct message subscribe = request(MESSAGE_SUBSCRIBE);
    subscribe.stream = slice_str(stream);
    world_say(control, &subscribe);
    world_settle(world);
    hear_message(control, MESSAGE_SUBSCRIBED, NULL);
    struct peer_stream *events = NULL, *next = NULL;
    while ((next = peer_next_event_stream(to, events)) != NULL)
        events = next;
    return events;
}

#define SAY(stream_, ...) world_say_publish(stream_, &(struct world_publish){__VA_ARGS__})

static void an_acknowledged_publish_is_delivered_and_acknowledged(void **) {
    begin_plain(1);
    struct peer_stream *events = subscribed(peer, "a");
    struct peer_stream *stream = open_ready(world, peer, WORLD_ALL);
    SAY(stream, .flags = FRAME_PUBLISH_ACKED, .request_id = 77, .count = 3, .fill = 'x');
    world_settle(world);
    hear_ack(stream, 77, true);
    hear_silence(stream);
    assert_string_equal(hear_events(events), "xyz");
    world_end(world);
}

static void an_unacknowledged_publish_is_delivered_in_silence(void **) {
    begin_plain(1);
    struct peer_stream *events = subscribed(peer, "a");
    struct peer_stream *stream = open_ready(world, peer, WORLD_ALL);
    SAY(stream, .fill = 'x');
    world_settle(world);
    hear_silence(stream);
    assert_string_equal(hear_events(events), "x");
    world_end(world);
}

static void a_keyed_publish_delivers_its_payloads(void **) {
    begin_plain(1);
    struct peer_stream *events = subscribed(peer, "a");
    struct peer_stream *stream = open_ready(world, peer, WORLD_ALL);
    SAY(stream, .flags = FRAME_PUBLISH_KEYED, .count = 2, .fill = 'x');
    world_settle(world);
    assert_string_equal(hear_events(events), "xy");
    world_end(world);
}

static void a_uni_stream_publishes_and_hears_nothing(void **) {
    begin_plain(1);
    struct peer_stream *events = subscribed(peer, "a");
    struct peer_stream *stream = peer_open(peer, false);
    world_say_auth(stream, WORLD_ALL, CLIENT_FEATURES);
    SAY(stream, .flags = FRAME_PUBLISH_ACKED, .fill = 'x');
    world_settle(world);
    assert_string_equal(hear_events(events), "x");
    assert_int_equal(stream->in_bytes, 0);
    world_end(world);
}

static void a_refused_publish_ends_a_uni_stream_acknowledged_or_not(void **) {
    begin_plain(1);
    struct peer_stream *stream = peer_open(peer, false);
    world_say_auth(stream, WORLD_SOME, CLIENT_FEATURES);
    SAY(stream, .flags = FRAME_PUBLISH_ACKED, .stream = "b");
    world_settle(world);
    assert_true(stream->stopped);
    world_end(world);
}

static void one_stream_publishes_to_many(void **) {
    begin_plain(1);
    struct peer_stream *a = subscribed(peer, "a"), *b = subscribed(peer, "b");
    struct peer_stream *stream = open_ready(world, peer, WORLD_ALL);
    SAY(stream, .stream = "a", .fill = '1');
    SAY(stream, .stream = "b", .fill = '2');
    SAY(stream, .stream = "a", .fill = '3');
    world_settle(world);
    assert_string_equal(hear_events(a), "13");
    assert_string_equal(hear_events(b), "2");
    world_end(world);
}

static void a_deleted_stream_is_not_published_to_any_more(void **) {
    begin_plain(1);
    struct peer_stream *stream = open_ready(world, peer, WORLD_ALL);
    SAY(stream, .flags = FRAME_PUBLISH_ACKED, .request_id = 1);
    world_settle(world);
    hear_ack(stream, 1, true);
    world_remove_stream(world, "t1", "a");
    SAY(stream, .flags = FRAME_PUBLISH_ACKED, .request_id = 2);
    world_settle(world);
    hear_message(stream, MESSAGE_PUBLISH_ERROR, NULL);
    world_end(world);
}

/* Whatever the cut, a frame is the same frame. */
static void a_publish_in_two_pieces_is_the_same_publish(void **) {
    begin_plain(1);
    struct peer_stream *events = subscribed(peer, "a");
    struct peer_stream *stream = open_ready(world, peer, WORLD_ALL);
    static const uint8_t body[] = "\0\0\0\0\0\0\0\7\2\0\2t1\0\1n\0\1a\0\0\0\1\0\0\0\1z";
    uint8_t frame[FRAME_HEADER_BYTES + sizeof body - 1];
    frame_header_encode(frame, FRAME_PUBLISH_BATCH | FRAME_PUBLISH_ACKED, sizeof body - 1);
    memcpy(frame + FRAME_HEADER_BYTES, body, sizeof body - 1);
    for (size_t cut = 1; cut < sizeof frame; cut++) {
        peer_send(stream, slice_of(frame, cut), false);
        peer_send(stream, slice_of(frame + cut, sizeof frame - cut), false);
        world_settle(world);
        hear_ack(stream, 7, true);
        assert_string_equal(hear_events(events), "z");
    }
    world_end(world);
}

static void acknowledgements_keep_the_order_of_requests(void **) {
    begin_plain(2);
    struct peer_stream *stream = open_ready(world, peer, WORLD_ALL);
    SAY(stream, .flags = FRAME_PUBLISH_ACKED, .request_id = 1,
        .stream = stream_owned(world, 0, false));
    SAY(stream, .flags = FRAME_PUBLISH_ACKED, .request_id = 2,
        .stream = stream_owned(world, 0, true));
    peer_flush(peer);
    hear_silence(stream); /* the second is done, the first is under way */
    world_settle(world);
    hear_ack(stream, 1, true);
    hear_ack(stream, 2, true);
    world_end(world);
}

/* The rows of the table in publish_step.c: what follows a publish that is refused. */
static void say_refused(struct peer_stream *stream, uint16_t flags, const char *tenant,
                        const char *name) {
    SAY(stream, .flags = flags, .request_id = 5, .tenant = tenant, .stream = name);
    world_settle(world);
}

static void a_refused_acknowledged_publish_says_so_and_goes_on(void **) {
    static const struct {
        const char *tenant, *name;
    } rows[] = {{"t2", "a"}, {"t1", "b"}, {"t1", "zz"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        begin_plain(1);
        struct peer_stream *stream = open_ready(world, peer, i == 1 ? WORLD_SOME : WORLD_ALL);
        say_refused(stream, FRAME_PUBLISH_ACKED, rows[i].tenant, rows[i].name);
        struct message error;
        hear_message(stream, MESSAGE_PUBLISH_ERROR, &error);
        assert_int_equal(error.request_id, 5);
        assert_int_equal(error.code, i == 2 ? WIRE_CODE_NOT_FOUND : WIRE_CODE_FORBIDDEN);
        message_deinit(&error);
        hear_silence(stream);
        world_end(world);
    }
}

static void a_client_without_codes_gets_binary_refusals(void **) {
    begin_plain(1);
    struct peer_stream *stream = peer_open(peer, true);
    world_say_auth(stream, WORLD_ALL, 0);
    world_settle(world);
    hear_message(stream, MESSAGE_AUTH_OK, NULL);
    say_refused(stream, FRAME_PUBLISH_ACKED, "t1", "zz");
    hear_ack(stream, 5, false);
    hear_silence(stream);
    world_end(world);
}

static void a_forbidden_unacknowledged_publish_ends_the_stream_silently(void **) {
    for (unsigned i = 0; i < 2; i++) {
        begin_plain(1);
        struct peer_stream *stream = open_ready(world, peer, WORLD_SOME);
        say_refused(stream, 0, i == 0 ? "t2" : "t1", "b");
        hear_end(stream);
        world_end(world);
    }
}

static void an_unacknowledged_publish_to_nothing_is_dropped_and_counted(void **) {
    begin_plain(1);
    struct peer_stream *stream = open_ready(world, peer, WORLD_ALL);
    SAY(stream, .stream = "zz", .count = 3);
    world_settle(world);
    hear_silence(stream);
    assert_int_equal(counter_get(&counters()->dropped_no_stream_items), 3);
    world_end(world);
}

static void say_raw(struct peer_stream *stream, uint16_t flags, const char *bytes, size_t len) {
    uint8_t frame[FRAME_HEADER_BYTES + 64];
    frame_header_encode(frame, flags, (uint32_t)len);
    memcpy(frame + FRAME_HEADER_BYTES, bytes, len);
    peer_send(stream, slice_of(frame, FRAME_HEADER_BYTES + len), false);
    world_settle(world);
}

static void a_malformed_publish_is_answered_as_long_as_its_id_can_be_read(void **) {
    begin_plain(1);
    struct peer_stream *stream = open_ready(world, peer, WORLD_ALL);
    struct message error;
    say_raw(stream, FRAME_PUBLISH_BATCH | FRAME_PUBLISH_ACKED, "\0\0\0\0\0\0\0\7\2", 9);
    hear_message(stream, MESSAGE_PUBLISH_ERROR, &error);
    assert_int_equal(error.request_id, 7);
    message_deinit(&error);
    hear_silence(stream);
    say_raw(stream, FRAME_PUBLISH_BATCH | FRAME_PUBLISH_ACKED, "\0\0\0\0\0\0\0\7", 8);
    hear_end(stream);
    world_end(world);
}

static void a_malformed_unacknowledged_publish_ends_the_stream(void **) {
    begin_plain(1);
    struct peer_stream *stream = open_ready(world, peer, WORLD_ALL);
    say_raw(stream, FRAME_PUBLISH_BATCH, "\0\2t1", 4);
    hear_end(stream);
    world_end(world);
}

static struct message json_publish(const char *tenant, const char *name) {
    static const uint8_t one[] = {0, 0, 0, 1, 0, 0, 0, 1, 'j'};
    struct message publish = request(MESSAGE_PUBLISH);
    publish.tenant = slice_str(tenant);
    publish.stream = slice_str(name);
    publish.has_request_id = true;
    publish.request_id = 6;
    publish.has_ack = true;
    publish.ack_mode = PUBLISH_ACK_PER_MESSAGE;
    publish.payloads =
        (struct payload_list){.bytes = slice_of(one, sizeof one), .count = 1, .payload_bytes = 1};
    return publish;
}

static void a_json_publish_is_delivered_and_answered_in_json(void **) {
    begin_plain(1);
    struct peer_stream *events = subscribed(peer, "a");
    struct peer_stream *stream = open_ready(world, peer, WORLD_ALL);
    struct message publish = json_publish("t1", "a"), answer;
    world_say(stream, &publish);
    world_settle(world);
    hear_message(stream, MESSAGE_PUBLISH_OK, &answer);
    assert_int_equal(answer.request_id, 6);
    message_deinit(&answer);
    assert_string_equal(hear_events(events), "j");
    world_end(world);
}

static void a_json_publish_to_nothing_is_refused_and_the_stream_goes_on(void **) {
    begin_plain(1);
    struct peer_stream *stream = open_ready(world, peer, WORLD_ALL);
    struct message publish = json_publish("t1", "zz");
    world_say(stream, &publish);
    world_settle(world);
    hear_message(stream, MESSAGE_PUBLISH_ERROR, NULL);
    hear_silence(stream);
    world_end(world);
}

static void a_forbidden_json_publish_is_refused_and_the_stream_ends(void **) {
    begin_plain(1);
    struct peer_stream *stream = open_ready(world, peer, WORLD_SOME);
    struct message publish = json_publish("t1", "b");
    world_say(stream, &publish);
    world_settle(world);
    hear_message(stream, MESSAGE_PUBLISH_ERROR, NULL);
    hear_end(stream);
    world_end(world);
}

static void a_json_publish_of_another_tenant_ends_with_an_error(void **) {
    begin_plain(1);
    struct peer_stream *stream = open_ready(world, peer, WORLD_ALL);
    struct message publish = json_publish("t2", "a");
    world_say(stream, &publish);
    world_settle(world);
    hear_error(stream, WIRE_CODE_FORBIDDEN);
    hear_end(stream);
    world_end(world);
}

static void an_acknowledged_json_publish_needs_a_request_id(void **) {
    begin_plain(1);
    struct peer_stream *stream = open_ready(world, peer, WORLD_ALL);
    struct message publish = json_publish("t1", "a");
    publish.has_request_id = false;
    world_say(stream, &publish);
    world_settle(world);
    hear_error(stream, WIRE_CODE_INVALID_REQUEST);
    hear_silence(stream);
    world_end(world);
}

/* ---- budget: two reactors, so that publishes to the other one stay under way ---- */

static const char *remote;

static void begin_tight(uint64_t conn_bytes, uint64_t total_bytes, bool ingress_wait) {
    struct world_options options = world_options();
    options.reactors = 2;
    options.server.conn_inflight_bytes = conn_bytes;
    options.server.total_inflight_bytes = total_bytes;
    options.server.ingress_wait = ingress_wait;
    begin(&options);
    remote = stream_owned(world, 0, false);
}

static void without_budget_an_acknowledged_publish_waits(void **) {
    begin_tight(100, 1000, false);
    struct peer_stream *stream = open_ready(world, peer, WORLD_ALL);
    for (uint64_t id = 1; id <= 3; id++)
        SAY(stream, .flags = FRAME_PUBLISH_ACKED, .request_id = id, .stream = remote,
            .item_bytes = 60);
    assert_int_equal(counter_get(&counters()->publish_frames), 1);
    world_settle(world);
    for (uint64_t id = 1; id <= 3; id++)
        hear_ack(stream, id, true);
    world_end(world);
}

static void without_budget_an_unacknowledged_publish_is_dropped_and_counted(void **) {
    begin_tight(100, 1000, false);
    struct peer_stream *stream = open_ready(world, peer, WORLD_ALL);
    for (unsigned i = 0; i < 3; i++)
        SAY(stream, .stream = remote, .count = 2, .item_bytes = 30);
    assert_int_equal(counter_get(&counters()->dropped_ingress_items), 4);
    world_end(world);
}

static void without_budget_an_unacknowledged_publish_waits_where_it_is_set_so(void **) {
    begin_tight(100, 1000, true);
    struct peer_stream *stream = open_ready(world, peer, WORLD_ALL);
    struct peer_stream *events = subscribed(peer, remote);
    for (unsigned i = 0; i < 3; i++)
        SAY(stream, .stream = remote, .item_bytes = 60, .fill = (uint8_t)('a' + i));
    world_settle(world);
    assert_int_equal(counter_get(&counters()->dropped_ingress_items), 0);
    assert_string_equal(hear_events(events), "abc");
    world_end(world);
}

static void a_publish_over_the_whole_budget_goes_when_it_is_alone(void **) {
    begin_tight(100, 1000, false);
    struct peer_stream *stream = open_ready(world, peer, WORLD_ALL);
    SAY(stream, .flags = FRAME_PUBLISH_ACKED, .request_id = 1, .stream = remote,
        .item_bytes = 2000);
    world_settle(world);
    hear_ack(stream, 1, true);
    world_end(world);
}

static void many_small_publishes_use_up_the_budget_as_few_large_ones_do(void **) {
    begin_tight(4 * (4 + 4 + 1 + PUBLISH_CHARGE_BYTES), 1u << 20, false);
    struct peer_stream *stream = open_ready(world, peer, WORLD_ALL);
    for (uint64_t id = 1; id <= 5; id++)
        SAY(stream, .flags = FRAME_PUBLISH_ACKED, .request_id = id, .stream = remote);
    assert_int_equal(counter_get(&counters()->publish_frames), 4);
    world_settle(world);
    for (uint64_t id = 1; id <= 5; id++)
        hear_ack(stream, id, true);
    world_end(world);
}

static void the_budget_of_a_stream_that_ended_goes_back_to_its_connection(void **) {
    begin_tight(1200, 10000, false);
    struct peer_stream *first = open_ready(world, peer, WORLD_ALL);
    SAY(first, .stream = remote, .item_bytes = 90);
    peer_send(first, slice_of(NULL, 0), true);
    peer_flush(peer); /* gone before the other reactor answers */
    assert_null(first->quic);
    world_settle(world);
    struct peer_stream *second = open_ready(world, peer, WORLD_ALL);
    SAY(second, .stream = remote, .item_bytes = 60);
    SAY(second, .stream = remote, .item_bytes = 40);
    assert_int_equal(counter_get(&counters()->dropped_ingress_items), 0);
    world_end(world);
}

static void the_budget_of_a_stream_that_ended_wakes_who_waits_for_it(void **) {
    begin_tight(1200, 10000, false);
    struct peer_stream *first = open_ready(world, peer, WORLD_ALL);
    struct peer_stream *second = open_ready(world, peer, WORLD_ALL);
    SAY(first, .stream = remote, .item_bytes = 1000);
    SAY(second, .flags = FRAME_PUBLISH_ACKED, .request_id = 2, .stream = remote);
    assert_int_equal(counter_get(&counters()->publish_frames), 1);
    peer_send(first, slice_of(NULL, 0), true);
    peer_flush(peer);
    world_turn(world, 0); /* nothing was answered yet */
    assert_int_equal(counter_get(&counters()->publish_frames), 2);
    world_settle(world);
    hear_ack(second, 2, true);
    world_end(world);
}

/* Nothing of its own is under way, so that only the other's answer can wake it. */
static void budget_that_comes_free_wakes_who_waits_on_another_connection(void **) {
    begin_tight(100, 100, false);
    struct peer *other = world_connect(world, 0);
    struct peer_stream *first = open_ready(world, peer, WORLD_ALL);
    struct peer_stream *second = open_ready(world, other, WORLD_ALL);
    SAY(first, .flags = FRAME_PUBLISH_ACKED, .stream = remote, .item_bytes = 90);
    SAY(second, .flags = FRAME_PUBLISH_ACKED, .request_id = 2, .stream = remote, .item_bytes = 20);
    world_settle(world);
    hear_ack(second, 2, true);
    world_end(world);
}

static void a_waiting_stream_whose_connection_closes_leaves_nothing(void **) {
    begin_tight(100, 100, false);
    struct peer_stream *stream = open_ready(world, peer, WORLD_ALL);
    for (uint64_t id = 1; id <= 3; id++)
        SAY(stream, .flags = FRAME_PUBLISH_ACKED, .request_id = id, .stream = remote,
            .item_bytes = 60);
    assert_int_equal(world->reactors[0].server.waiting_sessions, 1);
    peer_close(peer);
    world_settle(world);
    assert_int_equal(world->reactors[0].server.waiting_sessions, 0);
    assert_int_equal(world->reactors[0].server.admitted_bytes, 0);
    world_end(world);
}

/* ---- what is dropped late is counted, too ---- */

static void a_publish_whose_stream_is_gone_at_its_owner_is_counted(void **) {
    begin_tight(1u << 20, 1u << 20, false);
    struct peer_stream *stream = open_ready(world, peer, WORLD_ALL);
    SAY(stream, .stream = remote, .count = 3);
    SAY(stream, .flags = FRAME_PUBLISH_ACKED, .request_id = 1, .stream = remote, .count = 2);
    world_remove_stream(world, "t1", remote);
    world_settle(world);
    hear_message(stream, MESSAGE_PUBLISH_ERROR, NULL); /* who is told counts for itself */
    assert_int_equal(counter_get(&counters()->dropped_no_stream_items), 3);
    world_end(world);
}

static void a_publish_that_waits_when_its_stream_ends_is_counted(void **) {
    for (unsigned i = 0; i < 3; i++) {
        begin_tight(100, 1000, true);
        struct peer_stream *stream = open_ready(world, peer, WORLD_ALL);
        SAY(stream, .stream = remote);
        SAY(stream, .flags = i == 2 ? FRAME_PUBLISH_ACKED : 0, .stream = remote, .count = 3);
        assert_int_equal(counter_get(&counters()->publish_frames), 1);
        if (i == 0)
            peer_close(peer);
        else
            peer_reset(stream);
        world_turn(world, 0);
        assert_int_equal(counter_get(&counters()->dropped_ingress_items), i == 2 ? 0 : 3);
        world_settle(world);
        assert_int_equal(counter_get(&counters()->dropped_ingress_items), i == 2 ? 0 : 3);
        world_end(world);
    }
}

static void a_connection_that_takes_all_receive_memory_is_closed(void **) {
    struct world_options options = world_options();
    options.server.recv_memory_bytes = (uint64_t)100 << 10;
    begin(&options);
    uint8_t header[FRAME_HEADER_BYTES];
    frame_header_encode(header, FRAME_PUBLISH_BATCH, 1u << 20);
    for (unsigned i = 0; i < 2; i++) {
        struct peer_stream *stream = open_ready(world, peer, WORLD_ALL);
        peer_send(stream, slice_of(header, sizeof header), false);
        assert_false(peer->quic.close_wanted);
        peer_send(stream, slice_str("x"), false);
    }
    assert_true(peer->quic.close_wanted);
    world_end(world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_acknowledged_publish_is_delivered_and_acknowledged),
        cmocka_unit_test(an_unacknowledged_publish_is_delivered_in_silence),
        cmocka_unit_test(a_keyed_publish_delivers_its_payloads),
        cmocka_unit_test(a_uni_stream_publishes_and_hears_nothing),
        cmocka_unit_test(a_refused_publish_ends_a_uni_stream_acknowledged_or_not),
        cmocka_unit_test(one_stream_publishes_to_many),
        cmocka_unit_test(a_deleted_stream_is_not_published_to_any_more),
        cmocka_unit_test(a_publish_in_two_pieces_is_the_same_publish),
        cmocka_unit_test(acknowledgements_keep_the_order_of_requests),
        cmocka_unit_test(a_refused_acknowledged_publish_says_so_and_goes_on),
        cmocka_unit_test(a_client_without_codes_gets_binary_refusals),
        cmocka_unit_test(a_forbidden_unacknowledged_publish_ends_the_stream_silently),
        cmocka_unit_test(an_unacknowledged_publish_to_nothing_is_dropped_and_counted),
        cmocka_unit_test(a_malformed_publish_is_answered_as_long_as_its_id_can_be_read),
        cmocka_unit_test(a_malformed_unacknowledged_publish_ends_the_stream),
        cmocka_unit_test(a_json_publish_is_delivered_and_answered_in_json),
        cmocka_unit_test(a_json_publish_to_nothing_is_refused_and_the_stream_goes_on),
        cmocka_unit_test(a_forbidden_json_publish_is_refused_and_the_stream_ends),
        cmocka_unit_test(a_json_publish_of_another_tenant_ends_with_an_error),
        cmocka_unit_test(an_acknowledged_json_publish_needs_a_request_id),
        cmocka_unit_test(without_budget_an_acknowledged_publish_waits),
        cmocka_unit_test(without_budget_an_unacknowledged_publish_is_dropped_and_counted),
        cmocka_unit_test(without_budget_an_unacknowledged_publish_waits_where_it_is_set_so),
        cmocka_unit_test(a_publish_over_the_whole_budget_goes_when_it_is_alone),
        cmocka_unit_test(many_small_publishes_use_up_the_budget_as_few_large_ones_do),
        cmocka_unit_test(the_budget_of_a_stream_that_ended_goes_back_to_its_connection),
        cmocka_unit_test(the_budget_of_a_stream_that_ended_wakes_who_waits_for_it),
        cmocka_unit_test(budget_that_comes_free_wakes_who_waits_on_another_connection),
        cmocka_unit_test(a_waiting_stream_whose_connection_closes_leaves_nothing),
        cmocka_unit_test(a_publish_whose_stream_is_gone_at_its_owner_is_counted),
        cmocka_unit_test(a_publish_that_waits_when_its_stream_ends_is_counted),
        cmocka_unit_test(a_connection_that_takes_all_receive_memory_is_closed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
