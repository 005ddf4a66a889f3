/* Subscribing: the answer, the event stream, where it starts and how it ends. */
#include "hear.h"

#include "wire/utf8.h"

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

static void publish(const char *stream, uint32_t count, uint8_t fill) {
    struct peer_stream *from = open_ready(world, peer, WORLD_ALL);
    world_say_publish(
        from, &(struct world_publish){
                  .tenant = "t1", .stream = stream, .count = count, .item_bytes = 1, .fill = fill});
    world_settle(world);
    peer_send(from, slice_of(NULL, 0), true);
    peer_flush(peer);
}

static struct peer_stream *ask(const struct message *subscribe, enum world_person person) {
    struct peer_stream *control = open_ready(world, peer, person);
    world_say(control, subscribe);
    world_settle(world);
    return control;
}

static struct peer_stream *newest_events(void) {
    struct peer_stream *events = NULL, *next;
    while ((next = peer_next_event_stream(peer, events)) != NULL)
        events = next;
    return events;
}

static struct peer_stream *subscribe_from(const char *stream, enum start_kind start,
                                          uint64_t offset) {
    struct message subscribe = request(MESSAGE_SUBSCRIBE);
    subscribe.stream = slice_str(stream);
    subscribe.start = start;
    subscribe.offset = offset;
    struct peer_stream *control = ask(&subscribe, WORLD_ALL);
    hear_message(control, MESSAGE_SUBSCRIBED, NULL);
    return newest_events();
}

static void the_answer_and_the_hello_name_one_subscription(void **) {
    begin_plain(1);
    struct message subscribe = request(MESSAGE_SUBSCRIBE), answer, hello;
    subscribe.has_subscription_id = true;
    subscribe.subscription_id = 42;
    struct peer_stream *control = ask(&subscribe, WORLD_ALL);
    hear_message(control, MESSAGE_SUBSCRIBED, &answer);
    hear_message(newest_events(), MESSAGE_EVENT_STREAM_HELLO, &hello);
    assert_int_equal(answer.subscription_id, 42);
    assert_int_equal(hello.subscription_id, 42);
    message_deinit(&answer);
    message_deinit(&hello);
    world_end(world);
}

static void the_control_stream_ends_after_the_answer(void **) {
    for (unsigned reactors = 1; reactors <= 2; reactors++) {
        begin_plain(reactors);
        struct message subscribe = request(MESSAGE_SUBSCRIBE);
        subscribe.stream = slice_str(stream_owned(world, 0, reactors == 1));
        struct peer_stream *control = ask(&subscribe, WORLD_ALL);
        hear_message(control, MESSAGE_SUBSCRIBED, NULL);
        hear_end(control);
        world_end(world);
    }
}

static void ids_that_the_broker_chooses_are_not_in_use(void **) {
    begin_plain(1);
    struct message chosen = request(MESSAGE_SUBSCRIBE), answer;
    chosen.has_subscription_id = true;
    chosen.subscription_id = 1;
    (void)ask(&chosen, WORLD_ALL);
    struct message free_choice = request(MESSAGE_SUBSCRIBE);
    hear_message(ask(&free_choice, WORLD_ALL), MESSAGE_SUBSCRIBED, &answer);
    assert_int_not_equal(answer.subscription_id, 1);
    message_deinit(&answer);
    world_end(world);
}

static void without_a_start_only_what_follows_is_heard(void **) {
    begin_plain(1);
    publish("a", 2, 'a');
    struct peer_stream *events = subscribe_from("a", START_NONE, 0);
    publish("a", 2, 'c');
    assert_string_equal(hear_events(events), "cd");
    world_end(world);
}

/* The 100 bytes that are shown of a name would end inside of a character. */
static void a_long_name_is_told_without_half_a_character(void **) {
    begin_plain(1);
    char name[160] = "x";
    for (size_t i = 1; i + 2 < sizeof name; i += 2)
        memcpy(name + i, "\xc3\xa9", 2);
    struct message subscribe = request(MESSAGE_SUBSCRIBE), answer;
    subscribe.stream = slice_of(name, 155);
    hear_message(ask(&subscribe, WORLD_ALL), MESSAGE_ERROR, &answer);
    assert_true(utf8_valid(answer.text));
    assert_int_equal(answer.code, WIRE_CODE_NOT_FOUND);
    message_deinit(&answer);
    world_end(world);
}

static void history_comes_before_what_follows(void **) {
    for (unsigned reactors = 1; reactors <= 2; reactors++) {
        begin_plain(reactors);
        const char *name = stream_owned(world, 0, reactors == 1);
        publish(name, 3, 'a');
        struct peer_stream *earliest = subscribe_from(name, START_EARLIEST, 0);
        struct peer_stream *offset = subscribe_from(name, START_OFFSET, 1);
        publish(name, 1, 'd');
        char all[8];
        (void)strcpy(all, hear_events(earliest));
        assert_string_equal(all, "abcd");
        assert_string_equal(hear_events(offset), "bcd");
        world_end(world);
    }
}

static void replayed_frames_carry_offsets(void **) {
    begin_plain(1);
    publish("a", 3, 'a');
    struct peer_stream *events = subscribe_from("a", START_OFFSET, 1);
    struct frame_header frame;
    struct slice body;
    struct event_batch batch;
    hear_message(events, MESSAGE_EVENT_STREAM_HELLO, NULL);
    assert_true(world_hear(events, &frame, &body));
    assert_int_equal(event_batch_decode(frame.flags, body, &batch), FELIX_OK);
    assert_true(batch.has_offsets);
    assert_int_equal(batch.base_offset, 1);
    world_end(world);
}

static void a_replay_is_cut_into_frames_of_bounded_size(void **) {
    struct world_options options = world_options();
    options.server.event_items_max = 2;
    begin(&options);
    publish("a", 5, 'a');
    struct peer_stream *events = subscribe_from("a", START_EARLIEST, 0);
    struct frame_header frame;
    struct slice body;
    struct event_batch batch;
    uint64_t next = 0;
    hear_message(events, MESSAGE_EVENT_STREAM_HELLO, NULL);
    while (world_hear(events, &frame, &body)) {
        assert_int_equal(event_batch_decode(frame.flags, body, &batch), FELIX_OK);
        assert_true(batch.count <= 2);
        assert_int_equal(batch.base_offset, next);
        next += batch.count;
    }
    assert_int_equal(next, 5);
    world_end(world);
}

static void refused_start(enum start_kind start, uint64_t offset, enum cursor_reason reason,
                          uint64_t available) {
    struct message subscribe = request(MESSAGE_SUBSCRIBE), answer;
    subscribe.start = start;
    subscribe.offset = offset;
    struct peer_stream *control = ask(&subscribe, WORLD_ALL);
    hear_message(control, MESSAGE_SUBSCRIBE_CURSOR_ERROR, &answer);
    assert_int_equal(answer.reason, reason);
    assert_int_equal(answer.requested, offset);
    assert_int_equal(answer.available, available);
    message_deinit(&answer);
    hear_end(control);
    assert_null(newest_events());
}

static void an_offset_that_is_gone_is_refused_with_the_oldest(void **) {
    struct world_options options = world_options();
    options.core.topic.replay_items_max = 2;
    begin(&options);
    for (unsigned i = 0; i < 5; i++)
        publish("a", 1, 'a');
    refused_start(START_OFFSET, 1, CURSOR_REASON_TOO_OLD, 3);
    world_end(world);
}

static void an_offset_to_come_is_refused_with_the_next(void **) {
    begin_plain(1);
    publish("a", 2, 'a');
    refused_start(START_OFFSET, 3, CURSOR_REASON_IN_FUTURE, 2);
    world_end(world);
}

static void refused(const struct message *subscribe, enum world_person person,
                    enum wire_code code) {
    struct peer_stream *control = ask(subscribe, person);
    hear_error(control, code);
    hear_end(control);
}

static void another_tenant_is_forbidden(void **) {
    begin_plain(1);
    struct message subscribe = request(MESSAGE_SUBSCRIBE);
    refused(&subscribe, WORLD_OTHER, WIRE_CODE_FORBIDDEN);
    world_end(world);
}

static void a_stream_without_permission_is_forbidden_there_or_not(void **) {
    begin_plain(1);
    struct message subscribe = request(MESSAGE_SUBSCRIBE);
    subscribe.stream = slice_str("b");
    refused(&subscribe, WORLD_SOME, WIRE_CODE_FORBIDDEN);
    subscribe.stream = slice_str("zz");
    refused(&subscribe, WORLD_SOME, WIRE_CODE_FORBIDDEN);
    world_end(world);
}

static void a_stream_that_is_not_there_is_not_found(void **) {
    begin_plain(1);
    struct message subscribe = request(MESSAGE_SUBSCRIBE);
    subscribe.stream = slice_str("zz");
    refused(&subscribe, WORLD_ALL, WIRE_CODE_NOT_FOUND);
    world_end(world);
}

static void an_id_in_use_is_refused(void **) {
    begin_plain(1);
    struct message subscribe = request(MESSAGE_SUBSCRIBE);
    subscribe.has_subscription_id = true;
    subscribe.subscription_id = 3;
    hear_message(ask(&subscribe, WORLD_ALL), MESSAGE_SUBSCRIBED, NULL);
    refused(&subscribe, WORLD_ALL, WIRE_CODE_INVALID_REQUEST);
    world_end(world);
}

static void one_subscription_more_than_allowed_is_refused(void **) {
    struct world_options options = world_options();
    options.server.max_subscriptions_per_conn = 2;
    begin(&options);
    struct message subscribe = request(MESSAGE_SUBSCRIBE);
    for (unsigned i = 0; i < 2; i++)
        hear_message(ask(&subscribe, WORLD_ALL), MESSAGE_SUBSCRIBED, NULL);
    refused(&subscribe, WORLD_ALL, WIRE_CODE_LIMIT_EXCEEDED);
    peer_refuse(newest_events());
    publish("a", 1, 'a'); /* the refusal is noticed when something is to be sent */
    hear_message(ask(&subscribe, WORLD_ALL), MESSAGE_SUBSCRIBED, NULL);
    world_end(world);
}

static void a_client_that_grants_no_stream_is_told(void **) {
    begin_plain(1);
    struct message subscribe = request(MESSAGE_SUBSCRIBE);
    peer->uni_grant = 0;
    refused(&subscribe, WORLD_ALL, WIRE_CODE_LIMIT_EXCEEDED);
    assert_int_equal(counter_get(&world->reactors[0].server.core.counters.subscriptions), 0);
    world_end(world);
}

static void refusing_the_event_stream_unsubscribes(void **) {
    begin_plain(1);
    struct peer_stream *events = subscribe_from("a", START_NONE, 0);
    struct peer_stream *from = open_ready(world, world_connect(world, 0), WORLD_ALL);
    peer_refuse(events);
    world_say_publish(from, &(struct world_publish){.fill = 'a'});
    world_turn(world, 0);
    peer_take(peer, SIZE_MAX); /* offered, refused; the transport is not done with the stream */
    assert_non_null(events->quic);
    assert_int_equal(counter_get(&world->reactors[0].server.core.counters.subscriptions), 0);
    world_end(world);
}

static void a_deleted_stream_ends_its_event_streams_after_what_is_queued(void **) {
    struct world_options options = world_options();
    options.server.send_window_bytes = 50;
    begin(&options);
    struct peer_stream *events = subscribe_from("a", START_NONE, 0);
    struct peer_stream *from = open_ready(world, world_connect(world, 0), WORLD_ALL);
    for (unsigned i = 0; i < 3; i++) {
        world_say_publish(from, &(struct world_publish){
                                    .count = 2, .item_bytes = 40, .fill = (uint8_t)('a' + 2 * i)});
        world_turn(world, 0);
    }
    world_remove_stream(world, "t1", "a");
    world_settle(world);
    assert_string_equal(hear_events(events), "abcdef");
    hear_end(events);
    world_end(world);
}

/* The client takes nothing: the stream gets so much, the rest waits in the subscription. */
static void a_client_that_does_not_read_is_served_when_it_does(void **) {
    struct world_options options = world_options();
    options.server.send_window_bytes = 100;
    begin(&options);
    struct peer *other = world_connect(world, 0);
    struct peer_stream *events = subscribe_from("a", START_NONE, 0);
    struct peer_stream *from = open_ready(world, other, WORLD_ALL);
    for (unsigned i = 0; i < 5; i++) {
        world_say_publish(from, &(struct world_publish){.tenant = "t1",
                                                        .stream = "a",
                                                        .count = 2,
                                                        .item_bytes = 40,
                                                        .fill = (uint8_t)('a' + 2 * i)});
        world_turn(world, 0);
    }
    assert_true(events->quic->unsent_bytes < 300);
    peer_flush(peer);
    assert_string_equal(hear_events(events), "abcdefghij");
    world_end(world);
}

/* The window of the connection is full of one subscription's bytes when another one gets news.
 * Nothing happens on that one's stream that would bring it back. */
static struct peer_stream *begin_with_a_full_window(struct peer_stream **ret_first) {
    struct world_options options = world_options();
    options.server.send_window_bytes = 100;
    begin(&options);
    *ret_first = subscribe_from("a", START_NONE, 0);
    struct peer_stream *second = subscribe_from("b", START_NONE, 0);
    struct peer_stream *from = open_ready(world, world_connect(world, 0), WORLD_ALL);
    world_say_publish(from, &(struct world_publish){.item_bytes = 200, .fill = 'a'});
    world_turn(world, 0);
    peer_take(peer, SIZE_MAX);
    world_say_publish(from, &(struct world_publish){.stream = "b", .fill = 'b'});
    world_turn(world, 0);
    assert_int_equal(second->quic->unacked_bytes, 0);
    return second;
}

static void a_window_that_opens_lets_all_subscriptions_go_on(void **) {
    struct peer_stream *first, *second = begin_with_a_full_window(&first);
    world_settle(world);
    assert_string_equal(hear_events(second), "b");
    world_end(world);
}

/* The acknowledgement comes on the stream that filled the window and has more. */
static void who_waits_for_the_window_goes_before_who_filled_it(void **) {
    struct peer_stream *first, *second = begin_with_a_full_window(&first);
    struct peer_stream *from = open_ready(world, world_connect(world, 0), WORLD_ALL);
    world_say_publish(from, &(struct world_publish){.item_bytes = 200, .fill = 'c'});
    world_turn(world, 0);
    peer_acknowledge(peer, SIZE_MAX);
    world_turn(world, 0);
    peer_take(peer, SIZE_MAX);
    assert_string_equal(hear_events(second), "b");
    world_settle(world);
    assert_string_equal(hear_events(first), "ac");
    world_end(world);
}

static void a_subscription_that_ends_leaves_its_window_to_the_others(void **) {
    struct peer_stream *first, *second = begin_with_a_full_window(&first);
    peer_refuse(first);
    peer_close_refused(first);
    world_settle(world);
    assert_string_equal(hear_events(second), "b");
    world_end(world);
}

static void leaving_before_the_answer_leaves_nothing(void **) {
    begin_plain(2);
    struct peer_stream *control = open_ready(world, peer, WORLD_ALL);
    struct message subscribe = request(MESSAGE_SUBSCRIBE);
    subscribe.stream = slice_str(stream_owned(world, 0, false));
    world_say(control, &subscribe);
    peer_close(peer);
    world_settle(world);
    for (unsigned r = 0; r < 2; r++)
        assert_int_equal(counter_get(&world->reactors[r].server.core.counters.subscriptions), 0);
    world_end(world);
}

static void nothing_is_read_after_a_subscribe(void **) {
    begin_plain(2);
    struct peer_stream *control = open_ready(world, peer, WORLD_ALL);
    struct message subscribe = request(MESSAGE_SUBSCRIBE);
    subscribe.stream = slice_str(stream_owned(world, 0, false));
    world_say(control, &subscribe);
    struct message get = request(MESSAGE_CACHE_GET);
    get.has_request_id = true;
    world_say(control, &get);
    world_settle(world);
    hear_message(control, MESSAGE_SUBSCRIBED, NULL);
    hear_end(control);
    world_end(world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_answer_and_the_hello_name_one_subscription),
        cmocka_unit_test(the_control_stream_ends_after_the_answer),
        cmocka_unit_test(ids_that_the_broker_chooses_are_not_in_use),
        cmocka_unit_test(without_a_start_only_what_follows_is_heard),
        cmocka_unit_test(a_long_name_is_told_without_half_a_character),
        cmocka_unit_test(history_comes_before_what_follows),
        cmocka_unit_test(replayed_frames_carry_offsets),
        cmocka_unit_test(a_replay_is_cut_into_frames_of_bounded_size),
        cmocka_unit_test(an_offset_that_is_gone_is_refused_with_the_oldest),
        cmocka_unit_test(an_offset_to_come_is_refused_with_the_next),
        cmocka_unit_test(another_tenant_is_forbidden),
        cmocka_unit_test(a_stream_without_permission_is_forbidden_there_or_not),
        cmocka_unit_test(a_stream_that_is_not_there_is_not_found),
        cmocka_unit_test(an_id_in_use_is_refused),
        cmocka_unit_test(one_subscription_more_than_allowed_is_refused),
        cmocka_unit_test(a_client_that_grants_no_stream_is_told),
        cmocka_unit_test(refusing_the_event_stream_unsubscribes),
        cmocka_unit_test(a_deleted_stream_ends_its_event_streams_after_what_is_queued),
        cmocka_unit_test(a_client_that_does_not_read_is_served_when_it_does),
        cmocka_unit_test(a_window_that_opens_lets_all_subscriptions_go_on),
        cmocka_unit_test(who_waits_for_the_window_goes_before_who_filled_it),
        cmocka_unit_test(a_subscription_that_ends_leaves_its_window_to_the_others),
        cmocka_unit_test(leaving_before_the_answer_leaves_nothing),
        cmocka_unit_test(nothing_is_read_after_a_subscribe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
