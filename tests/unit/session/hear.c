#include "hear.h"

static size_t bytes_before;

struct world *world_begin(const struct world_options *options) {
    buf_thread_trim();
    bytes_before = buf_live_bytes();
    return world_new(options);
}

void world_end(struct world *world) {
    world_free(world);
    buf_thread_trim();
    assert_int_equal(buf_live_bytes(), bytes_before);
}

void hear_message(struct peer_stream *stream, enum message_type type, struct message *ret) {
    struct frame_header frame;
    struct slice body;
    struct message message = {0};
    assert_true(world_hear(stream, &frame, &body));
    assert_int_equal(frame.flags, 0);
    assert_int_equal(message_decode(body, &message), FELIX_OK);
    assert_string_equal(message_type_name(message.type), message_type_name(type));
    if (ret != NULL)
        *ret = message;
    else
        message_deinit(&message);
}

void hear_error(struct peer_stream *stream, enum wire_code code) {
    struct message message;
    hear_message(stream, MESSAGE_ERROR, &message);
    assert_int_equal(message.code, code);
    message_deinit(&message);
}

void hear_ack(struct peer_stream *stream, uint64_t request_id, bool ok) {
    struct frame_header frame;
    struct slice body;
    struct publish_ack ack = {0};
    assert_true(world_hear(stream, &frame, &body));
    assert_int_equal(frame.flags & ~(FRAME_ACK_OFFSET | FRAME_ACK_LEVEL), FRAME_PUBLISH_ACK);
    assert_int_equal(ack_decode(frame.flags, body, &ack), FELIX_OK);
    assert_int_equal(ack.request_id, request_id);
    assert_int_equal(ack.ok, ok);
}

uint16_t hear_stored(struct peer_stream *stream, struct publish_ack *ret) {
    struct frame_header frame;
    struct slice body;
    assert_true(world_hear(stream, &frame, &body));
    assert_int_equal(ack_decode(frame.flags, body, ret), FELIX_OK);
    assert_true(ret->ok);
    return frame.flags;
}

static void hear_nothing(struct peer_stream *stream) {
    struct frame_header frame;
    struct slice body;
    assert_false(world_hear(stream, &frame, &body));
    assert_int_equal(stream->read_at, stream->in_bytes);
}

void hear_silence(struct peer_stream *stream) {
    hear_nothing(stream);
    assert_false(stream->in_fin);
}

void hear_end(struct peer_stream *stream) {
    hear_nothing(stream);
    assert_true(stream->in_fin);
}

const char *hear_events(struct peer_stream *events) {
    static char text[1024];
    size_t len = 0;
    struct frame_header frame;
    struct slice body, payload;
    if (events->read_at == 0)
        hear_message(events, MESSAGE_EVENT_STREAM_HELLO, NULL);
    while (world_hear(events, &frame, &body)) {
        struct event_batch batch;
        assert_int_equal(event_batch_decode(frame.flags, body, &batch), FELIX_OK);
        struct event_cursor cursor = event_walk(&batch);
        while (event_next(&cursor, &payload) && len + 1 < sizeof text)
            text[len++] = (char)payload.data[0];
    }
    text[len] = '\0';
    return text;
}

struct peer_stream *open_ready(struct world *world, struct peer *peer, enum world_person person) {
    struct peer_stream *stream = peer_open(peer, true);
    world_say_auth(stream, person, CLIENT_FEATURES);
    peer_flush(peer);
    hear_message(stream, MESSAGE_AUTH_OK, NULL);
    return stream;
}

struct peer_stream *open_with_words(struct peer *peer, const struct client_words *words) {
    struct peer_stream *stream = peer_open(peer, true);
    struct message auth = {
        .type = MESSAGE_AUTH,
        .tenant = world_tenant(WORLD_ALL),
        .token = world_token(WORLD_ALL),
        .has_client_flags = true,
        .flags = words->flags,
        .has_client_features = true,
        .features = words->features,
        .own_features = words->own_features,
    };
    world_say(stream, &auth);
    peer_flush(peer);
    hear_message(stream, MESSAGE_AUTH_OK, NULL);
    return stream;
}

const char *stream_owned(struct world *world, unsigned reactor, bool owned) {
    static const char *const names[] = {"a", "b", "c"};
    const struct core *core = &world->reactors[reactor].server.core;
    struct fanout *fanout;
    size_t at = 0;
    while ((fanout = map_next(&core->streams, &at)) != NULL) {
        for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
            uint8_t key[64];
            struct slice t = slice_str("t1"), n = slice_str("n"), s = slice_str(names[i]);
            core_key_write(key, t, n, s);
            if (slice_equal(core_key_slice(fanout->key), slice_of(key, core_key_bytes(t, n, s))) &&
                (fanout->owner == reactor) == owned)
                return names[i];
        }
    }
    fail_msg("no stream is %s by reactor %u", owned ? "owned" : "not owned", reactor);
    return NULL;
}

struct message request(enum message_type type) {
    return (struct message){
        .type = type,
        .tenant = slice_str("t1"),
        .namespace_ = slice_str("n"),
        .stream = slice_str("a"),
        .cache = slice_str("k"),
        .key = slice_str("key"),
    };
}
