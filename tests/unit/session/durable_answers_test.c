/* What only clients of durable streams are told: offsets, levels, times, lag, disks that fail. Each
 * only where both sides named it. */
#include "hear.h"
#include "wire/event.h"

static struct world *world;
static struct peer *peer;

static const struct client_words ours = {
    .flags = CLIENT_FLAGS, .features = CLIENT_FEATURES, .own_features = OWN_FEATURES};
static const struct client_words ours_with_times = {.flags = CLIENT_FLAGS | FRAME_EVENT_TIMESTAMPS,
                                                    .features = CLIENT_FEATURES};
static const struct client_words plain = {.flags = FRAME_FLAGS_ORIGINAL_V1};

static struct world_options durable_options(void) {
    struct world_options options = world_options();
    options.server.flags |= SERVER_FLAGS_DURABLE;
    options.server.features |= SERVER_FEATURES_DURABLE;
    return options;
}

static void begin_with(const struct world_options *options) {
    world = world_begin(options);
    world_add_durable(world, "t1", "d");
    peer = world_connect(world, 0);
}

static void begin(void) {
    struct world_options options = durable_options();
    begin_with(&options);
}

static void say_publish(struct peer_stream *from, const char *stream, uint32_t count,
                        uint8_t fill) {
    world_say_publish(from, &(struct world_publish){.flags = FRAME_PUBLISH_ACKED,
                                                    .request_id = 7,
                                                    .stream = stream,
                                                    .count = count,
                                                    .fill = fill});
}

static struct peer_stream *publish_as(const struct client_words *words, const char *stream,
                                      uint32_t count, uint8_t fill) {
    struct peer_stream *from = open_with_words(peer, words);
    say_publish(from, stream, count, fill);
    world_settle(world);
    return from;
}

static struct peer_stream *subscribe_as(const struct client_words *words, const char *stream,
                                        enum start_kind start, uint64_t offset) {
    struct peer_stream *control = open_with_words(peer, words);
    struct message subscribe = request(MESSAGE_SUBSCRIBE);
    subscribe.stream = slice_str(stream);
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

/* ---- acknowledgements ---- */

static void an_acknowledgement_tells_offset_and_level(void **) {
    begin();
    struct publish_ack ack;
    uint16_t flags = hear_stored(publish_as(&ours, "d", 3, 'a'), &ack);
    assert_int_equal(flags, FRAME_PUBLISH_ACK | FRAME_ACK_OFFSET | FRAME_ACK_LEVEL);
    assert_int_equal(ack.offset, 0);
    assert_int_equal(ack.level, ACK_LEVEL_FLUSHED);
    (void)hear_stored(publish_as(&ours, "d", 1, 'd'), &ack);
    assert_int_equal(ack.offset, 3);
    world_end(world);
}

static void a_stream_in_memory_has_a_level_and_no_offset(void **) {
    begin();
    struct publish_ack ack;
    uint16_t flags = hear_stored(publish_as(&ours, "a", 3, 'a'), &ack);
    assert_int_equal(flags, FRAME_PUBLISH_ACK | FRAME_ACK_LEVEL);
    assert_int_equal(ack.level, ACK_LEVEL_MEMORY);
    world_end(world);
}

static void nobody_is_told_what_he_did_not_list(void **) {
    begin();
    struct publish_ack ack;
    assert_int_equal(hear_stored(publish_as(&plain, "d", 1, 'a'), &ack), FRAME_PUBLISH_ACK);
    struct client_words offsets = {.flags = FRAME_FLAGS_ORIGINAL_V1 | FRAME_ACK_OFFSET};
    assert_int_equal(hear_stored(publish_as(&offsets, "d", 1, 'a'), &ack),
                     FRAME_PUBLISH_ACK | FRAME_ACK_OFFSET);
    world_end(world);
    struct world_options memory_only = world_options();
    begin_with(&memory_only);
    assert_int_equal(hear_stored(publish_as(&offsets, "d", 1, 'a'), &ack), FRAME_PUBLISH_ACK);
    world_end(world);
}

static void a_json_publish_is_told_the_same(void **) {
    begin();
    (void)publish_as(&ours, "d", 2, 'a');
    struct peer_stream *from = open_with_words(peer, &ours);
    uint8_t list[] = {0, 0, 0, 1, 0, 0, 0, 1, 'x'};
    struct message publish = request(MESSAGE_PUBLISH), answer;
    publish.stream = slice_str("d");
    publish.has_request_id = true;
    publish.request_id = 9;
    publish.payloads =
        (struct payload_list){.bytes = slice_of(list, sizeof list), .count = 1, .payload_bytes = 1};
    world_say(from, &publish);
    world_settle(world);
    hear_message(from, MESSAGE_PUBLISH_OK, &answer);
    assert_int_equal(answer.request_id, 9);
    assert_true(answer.has_offset && answer.offset == 2);
    assert_true(answer.has_level && answer.level == ACK_LEVEL_FLUSHED);
    message_deinit(&answer);
    world_end(world);
}

static void each_failure_of_a_disk_has_its_retry_class(void **) {
    static const struct {
        enum felix_err err;
        enum wire_retry retry;
    } failures[] = {{FELIX_DISK_FULL, WIRE_RETRY_RETRY_AFTER},
                    {FELIX_DAMAGED, WIRE_RETRY_FATAL},
                    {FELIX_STORAGE, WIRE_RETRY_OUTCOME_UNKNOWN}};
    for (size_t i = 0; i < sizeof failures / sizeof failures[0]; i++) {
        struct message refusal;
        begin();
        world->log->fails = failures[i].err;
        struct peer_stream *from = publish_as(&ours, "d", 1, 'a');
        hear_message(from, MESSAGE_PUBLISH_ERROR, &refusal);
        assert_int_equal(refusal.code, WIRE_CODE_STORAGE);
        assert_int_equal(refusal.retry, failures[i].retry);
        assert_true(refusal.text.len > 0 && !refusal.has_offset && !refusal.has_level);
        message_deinit(&refusal);
        hear_silence(from); /* the stream goes on */
        world_end(world);
    }
}

/* ---- subscribing ---- */

static void assert_place(struct peer_stream *control, uint64_t start, uint64_t live) {
    struct message answer;
    hear_message(control, MESSAGE_SUBSCRIBED, &answer);
    assert_true(answer.has_offset && answer.has_live_offset);
    assert_int_equal(answer.offset, start);
    assert_int_equal(answer.live_offset, live);
    message_deinit(&answer);
}

static void subscribed_tells_where_it_begins_and_where_live_begins(void **) {
    struct world_options options = durable_options();
    options.core.topic.replay_items_max = 4;
    begin_with(&options);
    for (uint8_t i = 0; i < 5; i++)
        (void)publish_as(&ours, "d", 2, (uint8_t)('a' + 2 * i));
    assert_place(subscribe_as(&ours, "d", START_NONE, 0), 10, 10);
    assert_place(subscribe_as(&ours, "d", START_LATEST, 0), 10, 10);
    assert_place(subscribe_as(&ours, "d", START_OFFSET, 8), 8, 10); /* in the ring */
    assert_place(subscribe_as(&ours, "d", START_OFFSET, 3), 3, 10); /* in the log */
    assert_place(subscribe_as(&ours, "d", START_EARLIEST, 0), 0, 10);
    world->log->oldest = 2;
    assert_place(subscribe_as(&ours, "d", START_EARLIEST, 0), 2, 10);
    world_end(world);
}

static void places_are_told_of_durable_streams_to_who_reads_offsets(void **) {
    begin();
    struct message answer;
    (void)publish_as(&ours, "a", 2, 'a');
    hear_message(subscribe_as(&ours, "a", START_EARLIEST, 0), MESSAGE_SUBSCRIBED, &answer);
    assert_false(answer.has_offset || answer.has_live_offset);
    message_deinit(&answer);
    hear_message(subscribe_as(&plain, "d", START_NONE, 0), MESSAGE_SUBSCRIBED, &answer);
    assert_false(answer.has_offset || answer.has_live_offset);
    message_deinit(&answer);
    world_end(world);
}

/* ---- times ---- */

/* The next frame's flags; its items' first bytes, and that their times are those of the log. */
static uint16_t hear_stamped(struct peer_stream *events, const char *expected) {
    struct frame_header header;
    struct event_batch batch;
    struct slice body, payload;
    assert_true(world_hear(events, &header, &body));
    assert_int_equal(event_batch_decode(header.flags, body, &batch), FELIX_OK);
    assert_true(batch.has_timestamps && batch.has_offsets);
    assert_int_equal(batch.count, strlen(expected));
    struct event_cursor cursor = event_walk(&batch);
    for (uint64_t at = batch.base_offset; event_next(&cursor, &payload); at++) {
        assert_int_equal(payload.data[0], *expected++);
        assert_int_equal(payload.data[0], world->log->records[at].payload.data[0]);
        assert_int_equal(cursor.timestamp_us, world->log->records[at].time_us);
        assert_int_not_equal(cursor.timestamp_us, 0);
    }
    return header.flags;
}

static void times_come_with_live_events_with_the_ring_and_with_the_log(void **) {
    struct world_options options = durable_options();
    options.core.topic.replay_items_max = 4;
    options.server.event_items_max = 3;
    begin_with(&options);
    hear_message(subscribe_as(&ours_with_times, "d", START_NONE, 0), MESSAGE_SUBSCRIBED, NULL);
    struct peer_stream *live = newest_events();
    hear_message(live, MESSAGE_EVENT_STREAM_HELLO, NULL);
    uint16_t shared = FRAME_EVENT_BATCH_SHARED | FRAME_EVENT_OFFSETS | FRAME_EVENT_TIMESTAMPS;
    uint16_t addressed = FRAME_EVENT_BATCH | FRAME_EVENT_OFFSETS | FRAME_EVENT_TIMESTAMPS;
    (void)publish_as(&ours, "d", 4, 'a');
    assert_int_equal(hear_stamped(live, "abcd"), shared);
    (void)publish_as(&ours, "d", 2, 'e');
    assert_int_equal(hear_stamped(live, "ef"), shared);

    hear_message(subscribe_as(&ours_with_times, "d", START_OFFSET, 5), MESSAGE_SUBSCRIBED, NULL);
    struct peer_stream *ring = newest_events();
    hear_message(ring, MESSAGE_EVENT_STREAM_HELLO, NULL);
    assert_int_equal(hear_stamped(ring, "f"), addressed);
    hear_message(subscribe_as(&ours_with_times, "d", START_OFFSET, 1), MESSAGE_SUBSCRIBED, NULL);
    struct peer_stream *log = newest_events();
    hear_message(log, MESSAGE_EVENT_STREAM_HELLO, NULL);
    assert_int_equal(hear_stamped(log, "bcd"), addressed);
    assert_int_equal(hear_stamped(log, "ef"), addressed);
    world_end(world);
}

static void a_large_publish_is_stamped_frame_by_frame(void **) {
    struct world_options options = durable_options();
    options.core.topic.frame.items_max = 3;
    begin_with(&options);
    (void)subscribe_as(&ours_with_times, "d", START_NONE, 0);
    struct peer_stream *live = newest_events();
    hear_message(live, MESSAGE_EVENT_STREAM_HELLO, NULL);
    (void)publish_as(&ours, "d", 8, 'a');
    (void)hear_stamped(live, "abc");
    (void)hear_stamped(live, "def");
    (void)hear_stamped(live, "gh");
    world_end(world);
}

static void hear_flags(struct peer_stream *events, uint16_t flags) {
    struct frame_header header;
    struct slice body;
    hear_message(events, MESSAGE_EVENT_STREAM_HELLO, NULL);
    assert_true(world_hear(events, &header, &body));
    assert_int_equal(header.flags, flags);
}

static void a_stream_in_memory_has_no_times(void **) {
    begin();
    (void)subscribe_as(&ours_with_times, "a", START_NONE, 0);
    struct peer_stream *live = newest_events();
    (void)publish_as(&ours, "a", 2, 'a');
    hear_flags(live, FRAME_EVENT_BATCH_SHARED);
    (void)subscribe_as(&ours_with_times, "a", START_EARLIEST, 0);
    hear_flags(newest_events(), FRAME_EVENT_BATCH | FRAME_EVENT_OFFSETS);
    world_end(world);
}

static void times_without_offsets_are_possible(void **) {
    begin();
    struct client_words words = {.flags = FRAME_FLAGS_ORIGINAL_V1 | FRAME_EVENT_TIMESTAMPS};
    (void)subscribe_as(&words, "d", START_NONE, 0);
    struct peer_stream *live = newest_events();
    (void)publish_as(&ours, "d", 2, 'a');
    hear_flags(live, FRAME_EVENT_BATCH_SHARED | FRAME_EVENT_TIMESTAMPS);
    world_end(world);
}

/* ---- falling behind ---- */

/* A subscriber that takes nothing while ten publishes of two come; then it takes all. */
static struct peer_stream *fall_behind(const struct client_words *words) {
    struct world_options options = durable_options();
    options.server.send_window_bytes = 50;
    options.core.queue_batches_max = 2;
    begin_with(&options);
    (void)subscribe_as(words, "d", START_NONE, 0);
    struct peer_stream *events = newest_events();
    struct peer *other = world_connect(world, 0);
    struct peer_stream *from = open_with_words(other, &plain);
    for (uint8_t i = 0; i < 10; i++) {
        say_publish(from, "d", 2, (uint8_t)('a' + 2 * i));
        world_turn(world, 0);
        (void)world_log_turn(world->log);
        world_turn(world, 0);
    }
    world_settle(world);
    return events;
}

/* Events until another message comes, which is returned; how many stands in *ret_count. */
static enum message_type hear_until_message(struct peer_stream *events, uint64_t *ret_count,
                                            struct message *ret) {
    struct frame_header header;
    struct slice body;
    *ret_count = 0;
    hear_message(events, MESSAGE_EVENT_STREAM_HELLO, NULL);
    while (world_hear(events, &header, &body)) {
        struct event_batch batch;
        if (header.flags == 0) {
            assert_int_equal(message_decode(body, ret), FELIX_OK);
            return ret->type;
        }
        assert_int_equal(event_batch_decode(header.flags, body, &batch), FELIX_OK);
        if (batch.has_offsets)
            assert_int_equal(batch.base_offset, *ret_count);
        *ret_count += batch.count;
    }
    return MESSAGE_UNKNOWN;
}

static void who_falls_behind_is_told_where_to_go_on(void **) {
    struct message last;
    uint64_t count;
    struct peer_stream *events = fall_behind(&ours);
    assert_int_equal(hear_until_message(events, &count, &last), MESSAGE_SUBSCRIPTION_LAGGED);
    assert_true(count > 0 && count < 20);
    assert_int_equal(last.offset, count); /* all before it was delivered */
    assert_true(last.has_subscription_id);
    message_deinit(&last);
    hear_end(events);

    hear_message(subscribe_as(&ours, "d", START_OFFSET, count), MESSAGE_SUBSCRIBED, NULL);
    const char *rest = hear_events(newest_events());
    assert_int_equal(strlen(rest), 20 - count);
    assert_int_equal(rest[0], 'a' + (int)count);
    world_end(world);
}

static void who_does_not_know_the_message_loses_items_and_goes_on(void **) {
    struct message last;
    uint64_t count;
    struct peer_stream *events = fall_behind(&plain);
    assert_int_equal(hear_until_message(events, &count, &last), MESSAGE_UNKNOWN);
    assert_true(count > 0 && count < 20);
    hear_silence(events);
    (void)publish_as(&ours, "d", 1, 'z');
    assert_string_equal(hear_events(events), "z");
    world_end(world);
}

/* A subscription that has begun to read 120 records and cannot go on. */
static struct peer_stream *read_half(const struct client_words *words) {
    struct world_options options = durable_options();
    options.core.topic.replay_items_max = 4;
    options.server.send_window_bytes = 60;
    begin_with(&options);
    for (unsigned i = 0; i < 12; i++)
        (void)publish_as(&plain, "d", 10, 'a');
    struct peer_stream *control = open_with_words(peer, words);
    struct message subscribe = request(MESSAGE_SUBSCRIBE);
    subscribe.stream = slice_str("d");
    subscribe.start = START_EARLIEST;
    world_say(control, &subscribe);
    for (unsigned i = 0; i < 4; i++) {
        world_turn(world, 0);
        (void)world_log_turn(world->log);
    }
    return newest_events();
}

static void history_that_is_removed_while_it_is_read_is_a_lag(void **) {
    struct message last;
    uint64_t count;
    struct peer_stream *events = read_half(&ours);
    world->log->oldest = 115;
    world_settle(world);
    assert_int_equal(hear_until_message(events, &count, &last), MESSAGE_SUBSCRIPTION_LAGGED);
    assert_true(count > 0 && count < 115);
    assert_int_equal(last.offset, 115);
    message_deinit(&last);
    hear_end(events);
    world_end(world);

    events = read_half(&plain);
    world->log->oldest = 115;
    world_settle(world);
    assert_int_equal(hear_until_message(events, &count, &last), MESSAGE_UNKNOWN);
    assert_true(count > 0 && count < 115);
    hear_end(events);
    world_end(world);
}

static void a_log_that_cannot_be_read_on_is_an_error_at_the_end(void **) {
    struct message last;
    uint64_t count;
    struct peer_stream *events = read_half(&ours);
    world->log->read_fails = FELIX_STORAGE;
    world_settle(world);
    assert_int_equal(hear_until_message(events, &count, &last), MESSAGE_ERROR);
    assert_true(count > 0 && count < 120);
    assert_int_equal(last.code, WIRE_CODE_STORAGE);
    assert_int_equal(last.retry, WIRE_RETRY_OUTCOME_UNKNOWN);
    message_deinit(&last);
    hear_end(events);
    world_end(world);
}

static void a_log_that_cannot_be_read_at_all_refuses_the_subscription(void **) {
    struct world_options options = durable_options();
    options.core.topic.replay_items_max = 4;
    begin_with(&options);
    (void)publish_as(&plain, "d", 10, 'a');
    struct message answer;
    world->log->read_fails = FELIX_STORAGE;
    struct peer_stream *control = subscribe_as(&ours, "d", START_EARLIEST, 0);
    hear_message(control, MESSAGE_ERROR, &answer);
    assert_int_equal(answer.code, WIRE_CODE_STORAGE);
    assert_int_equal(answer.retry, WIRE_RETRY_OUTCOME_UNKNOWN);
    assert_true(answer.text.len > 0 && memcmp(answer.text.data, "durable storage", 15) == 0);
    message_deinit(&answer);
    hear_end(control);
    world_end(world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_acknowledgement_tells_offset_and_level),
        cmocka_unit_test(a_stream_in_memory_has_a_level_and_no_offset),
        cmocka_unit_test(nobody_is_told_what_he_did_not_list),
        cmocka_unit_test(a_json_publish_is_told_the_same),
        cmocka_unit_test(each_failure_of_a_disk_has_its_retry_class),
        cmocka_unit_test(subscribed_tells_where_it_begins_and_where_live_begins),
        cmocka_unit_test(places_are_told_of_durable_streams_to_who_reads_offsets),
        cmocka_unit_test(times_come_with_live_events_with_the_ring_and_with_the_log),
        cmocka_unit_test(a_large_publish_is_stamped_frame_by_frame),
        cmocka_unit_test(a_stream_in_memory_has_no_times),
        cmocka_unit_test(times_without_offsets_are_possible),
        cmocka_unit_test(history_that_is_removed_while_it_is_read_is_a_lag),
        cmocka_unit_test(a_log_that_cannot_be_read_on_is_an_error_at_the_end),
        cmocka_unit_test(a_log_that_cannot_be_read_at_all_refuses_the_subscription),
        cmocka_unit_test(who_falls_behind_is_told_where_to_go_on),
        cmocka_unit_test(who_does_not_know_the_message_loses_items_and_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
