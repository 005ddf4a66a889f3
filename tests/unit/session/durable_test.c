/* Durable streams as a client sees them: when a publish is answered, and where events come from. */
#include "hear.h"
#include "wire/event.h"

static struct world *world;
static struct peer *peer;

static void begin(unsigned reactors, unsigned replay_items) {
    struct world_options options = world_options();
    options.reactors = reactors;
    options.core.topic.replay_items_max = replay_items;
    world = world_begin(&options);
    world_add_durable(world, "t1", "d");
    peer = world_connect(world, 0);
}

static struct peer_stream *publish(uint64_t request_id, uint32_t count, uint8_t fill) {
    struct peer_stream *from = open_ready(world, peer, WORLD_ALL);
    world_say_publish(from, &(struct world_publish){.flags = FRAME_PUBLISH_ACKED,
                                                    .request_id = request_id,
                                                    .tenant = "t1",
                                                    .stream = "d",
                                                    .count = count,
                                                    .item_bytes = 1,
                                                    .fill = fill});
    world_settle(world);
    return from;
}

static struct peer_stream *subscribe_from(enum start_kind start, uint64_t offset) {
    struct peer_stream *control = open_ready(world, peer, WORLD_ALL);
    struct message subscribe = request(MESSAGE_SUBSCRIBE);
    subscribe.stream = slice_str("d");
    subscribe.start = start;
    subscribe.offset = offset;
    world_say(control, &subscribe);
    world_settle(world);
    return control;
}

static struct peer_stream *newest_events(void) {
    struct peer_stream *events = NULL, *next;
    while ((next = peer_next_event_stream(peer, events)) != NULL)
        events = next;
    return events;
}

/* The next frame on an event stream; its items' first bytes as text. */
static const char *hear_batch(struct peer_stream *events, uint16_t flags, uint64_t base) {
    static char text[128];
    struct frame_header header;
    struct event_batch batch;
    struct slice body, payload;
    size_t len = 0;
    assert_true(world_hear(events, &header, &body));
    assert_int_equal(header.flags, flags);
    assert_int_equal(event_batch_decode(header.flags, body, &batch), FELIX_OK);
    assert_int_equal(batch.base_offset, base);
    struct event_cursor cursor = event_walk(&batch);
    while (event_next(&cursor, &payload))
        text[len++] = (char)payload.data[0];
    text[len] = '\0';
    return text;
}

static void a_publish_is_answered_when_the_log_has_it(void **state) {
    (void)state;
    for (unsigned reactors = 1; reactors <= 2; reactors++) {
        begin(reactors, 64);
        world->log->held = true;
        struct peer_stream *from = publish(7, 3, 'a');
        hear_silence(from);
        world->log->held = false;
        world_settle(world);
        hear_ack(from, 7, true);
        assert_int_equal(world->log->end, 3);
        world_end(world);
    }
}

static void events_do_not_leave_before_the_log_has_them(void **state) {
    (void)state;
    begin(1, 64);
    hear_message(subscribe_from(START_NONE, 0), MESSAGE_SUBSCRIBED, NULL);
    hear_message(newest_events(), MESSAGE_EVENT_STREAM_HELLO, NULL);
    world->log->held = true;
    (void)publish(1, 2, 'a');
    hear_silence(newest_events());
    world->log->held = false;
    world_settle(world);
    assert_string_equal(
        hear_batch(newest_events(), FRAME_EVENT_BATCH_SHARED | FRAME_EVENT_OFFSETS, 0), "ab");
    (void)publish(2, 1, 'c');
    assert_string_equal(
        hear_batch(newest_events(), FRAME_EVENT_BATCH_SHARED | FRAME_EVENT_OFFSETS, 2), "c");
    world_end(world);
}

static void what_the_ring_forgot_comes_from_the_log(void **state) {
    (void)state;
    for (unsigned reactors = 1; reactors <= 2; reactors++) {
        begin(reactors, 4);
        for (uint8_t i = 0; i < 10; i++)
            (void)publish(i, 2, (uint8_t)('a' + 2 * i));
        hear_message(subscribe_from(START_EARLIEST, 0), MESSAGE_SUBSCRIBED, NULL);
        struct peer_stream *events = newest_events();
        assert_string_equal(hear_events(events), "abcdefghijklmnopqrst");
        (void)publish(99, 1, 'u');
        assert_string_equal(hear_batch(events, FRAME_EVENT_BATCH_SHARED | FRAME_EVENT_OFFSETS, 20),
                            "u");
        world_end(world);
    }
}

static void a_start_that_is_gone_is_too_old(void **state) {
    (void)state;
    struct message answer;
    begin(1, 4);
    for (uint8_t i = 0; i < 10; i++)
        (void)publish(i, 2, (uint8_t)('a' + 2 * i));
    world->log->oldest = 6;
    hear_message(subscribe_from(START_OFFSET, 5), MESSAGE_SUBSCRIBE_CURSOR_ERROR, &answer);
    assert_int_equal(answer.reason, CURSOR_REASON_TOO_OLD);
    assert_int_equal(answer.requested, 5);
    assert_int_equal(answer.available, 6);
    message_deinit(&answer);
    hear_message(subscribe_from(START_OFFSET, 21), MESSAGE_SUBSCRIBE_CURSOR_ERROR, &answer);
    assert_int_equal(answer.reason, CURSOR_REASON_IN_FUTURE);
    assert_int_equal(answer.available, 20);
    message_deinit(&answer);
    hear_message(subscribe_from(START_EARLIEST, 0), MESSAGE_SUBSCRIBED, NULL);
    assert_string_equal(hear_events(newest_events()), "ghijklmnopqrst");
    world_end(world);
}

static void a_refused_publish_gives_its_offset_to_the_next(void **state) {
    (void)state;
    begin(1, 64);
    (void)publish(1, 1, 'a');
    hear_message(subscribe_from(START_EARLIEST, 0), MESSAGE_SUBSCRIBED, NULL);
    world->log->fails = FELIX_DISK_FULL;
    struct message refusal;
    hear_message(publish(2, 1, 'b'), MESSAGE_PUBLISH_ERROR, &refusal);
    assert_int_equal(refusal.code, WIRE_CODE_STORAGE);
    message_deinit(&refusal);
    hear_ack(publish(3, 1, 'c'), 3, true);
    assert_string_equal(hear_events(newest_events()), "ac");
    assert_int_equal(world->log->end, 2);
    world_end(world);
}

static void a_failed_log_refuses_at_once(void **state) {
    (void)state;
    begin(2, 64);
    world->log->fails = FELIX_STORAGE;
    hear_message(publish(1, 1, 'a'), MESSAGE_PUBLISH_ERROR, NULL);
    hear_message(publish(2, 1, 'b'), MESSAGE_PUBLISH_ERROR, NULL);
    assert_null(world->log->head);
    world_end(world);
}

/* The log of the world holds what was published; now its stream begins as if the log could not be
 * opened. */
static void begin_unopened(unsigned reactors, uint8_t items) {
    begin(reactors, 64);
    (void)publish(1, items, 'a');
    struct core *core = &world->reactors[world->log->owner].server.core;
    struct fanout *fanout = core_find_stream(core, core_key_slice(world->log->key));
    while (topic_trim(&fanout->topic) > 0)
        continue;
    core->ring_bytes = 0;
    topic_begin(&fanout->topic, 0);
    fanout->uncommitted.err = FELIX_STORAGE;
    fanout->uncommitted.unopened = true;
}

static void a_log_that_opens_late_goes_on_where_it_ends(void **state) {
    (void)state;
    for (unsigned reactors = 1; reactors <= 2; reactors++) {
        struct message refusal;
        begin_unopened(reactors, 3);
        hear_message(publish(2, 1, 'x'), MESSAGE_PUBLISH_ERROR, NULL);
        hear_message(subscribe_from(START_OFFSET, 2), MESSAGE_ERROR, &refusal);
        assert_int_equal(refusal.code, WIRE_CODE_STORAGE);
        message_deinit(&refusal);
        world_log_recover(world->log);
        world_settle(world);
        hear_ack(publish(3, 1, 'd'), 3, true);
        assert_int_equal(world->log->end, 4);
        hear_message(subscribe_from(START_OFFSET, 2), MESSAGE_SUBSCRIBED, NULL);
        assert_string_equal(hear_events(newest_events()), "cd");
        world_end(world);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_publish_is_answered_when_the_log_has_it),
        cmocka_unit_test(events_do_not_leave_before_the_log_has_them),
        cmocka_unit_test(what_the_ring_forgot_comes_from_the_log),
        cmocka_unit_test(a_start_that_is_gone_is_too_old),
        cmocka_unit_test(a_refused_publish_gives_its_offset_to_the_next),
        cmocka_unit_test(a_failed_log_refuses_at_once),
        cmocka_unit_test(a_log_that_opens_late_goes_on_where_it_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
