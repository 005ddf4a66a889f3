/*
 * A broker's session layer and core under arbitrary clients, without a network: one or two
 * reactors, several connections, streams of both kinds. The input is a list of steps (below); the
 * bytes of a frame may be made by our own encoders, or be the input's own, or be both in turn.
 *
 * Properties: what the server writes are whole frames that our decoders take, of the kinds that
 * belong on that stream; a stream that presented no good token hears errors, nothing else; when
 * nothing moves any more nobody holds budget or unhandled input; and when all clients are gone
 * every account is back at zero (world_free) and no block is left.
 *
 *   byte 0      options: see options_of
 *   each step   byte: operation in the low half, operand x in the high half; then its arguments
 */
#include "base/check.h"
#include "base/cursor.h"
#include "support/world.h"
#include "wire/ack.h"
#include "wire/cache_frame.h"

#define STEPS_MAX 100u
#define STREAMS_MAX 12u
#define PIECES_MAX 64u /* of one frame: more of them are slow and show nothing new */
#define PEERS_MAX 4u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct play {
    struct world *world;
    struct peer *peers[PEERS_MAX];
    unsigned peer_count;
    struct peer_stream *streams[STREAMS_MAX];
    bool presented[STREAMS_MAX]; /* a good token was sent on it */
    unsigned stream_count;
    unsigned at;  /* the stream that steps are about */
    size_t chunk; /* frames are sent in pieces of this size; 0: whole */
    struct reader in;
};

static struct world_options options_of(uint8_t byte) {
    struct world_options options = world_options();
    options.reactors = 1 + (byte & 1);
    options.core.queue_policy =
        (byte & 6) == 6 ? QUEUE_DROP_NEW : (enum queue_policy)(byte >> 1 & 3);
    options.server.ingress_wait = (byte & 8) != 0;
    if ((byte & 16) != 0) {
        options.server.conn_inflight_bytes = 64 + 2 * PUBLISH_CHARGE_BYTES;
        options.server.total_inflight_bytes = 100 + 3 * PUBLISH_CHARGE_BYTES;
        options.server.recv_memory_bytes = 100000;
    }
    if ((byte & 32) != 0) {
        options.core.queue_batches_max = 2;
        options.server.send_window_bytes = 256;
        options.server.max_subscriptions_per_conn = 2;
    }
    if ((byte & 64) != 0) {
        options.core.topic.frame.items_max = 3;
        options.core.topic.replay_items_max = 5;
        options.server.event_items_max = 2;
        options.core.replay_total_bytes_max = 500;
        options.core.cache_max_bytes = 400;
    }
    if ((byte & 128) != 0) {
        options.core.make_on_first_use = true;
        options.core.dev_tenant = slice_str("t1");
        options.core.dev_namespace = slice_str("x");
        options.core.made_streams_max = 2;
    }
    return options;
}

/* ---- bytes on the current stream ---- */

static struct peer_stream *current(const struct play *play) {
    return play->stream_count == 0 ? NULL : play->streams[play->at];
}

static void say(struct play *play, struct slice bytes) {
    struct peer_stream *stream = current(play);
    size_t piece = play->chunk == 0 ? bytes.len : play->chunk;
    if (piece * PIECES_MAX < bytes.len)
        piece = bytes.len / PIECES_MAX + 1;
    for (size_t at = 0; stream != NULL && at < bytes.len; at += piece) {
        size_t left = bytes.len - at;
        peer_send(stream, slice_of(bytes.data + at, left < piece ? left : piece), false);
    }
}

static void send_message(struct play *play, const struct message *message) {
    size_t bytes = 0;
    struct buf *frame = message_encode(message, &bytes);
    say(play, slice_of(frame->data, bytes));
    buf_unref(frame);
}

static void step_auth(struct play *play, unsigned x) {
    uint8_t how = reader_u8(&play->in);
    enum world_person person = (enum world_person)(x % WORLD_PEOPLE);
    bool good = x < 2 * WORLD_PEOPLE;
    struct message auth = {
        .type = MESSAGE_AUTH,
        .tenant = (how & 8) == 0 ? world_tenant(person) : slice_str("t9"),
        .token = good ? world_token(person) : slice_str("not.a.token"),
        .has_client_flags = (how & 1) == 0,
        .flags = (how & 32) != 0 ? CLIENT_FLAGS | FRAME_EVENT_TIMESTAMPS : CLIENT_FLAGS,
        .has_client_features = (how & 2) == 0,
        .features = (how & 2) != 0   ? 0
                    : (how & 4) != 0 ? 0xffffffffu
                                     : CLIENT_FEATURES,
        .own_features = (how & 16) == 0 ? OWN_FEATURES : 0,
    };
    if (play->stream_count != 0)
        play->presented[play->at] = play->presented[play->at] || (good && (how & 8) == 0);
    send_message(play, &auth);
}

static void step_frame(struct play *play) {
    uint8_t header[FRAME_HEADER_BYTES];
    uint16_t flags = reader_u16(&play->in);
    size_t len = reader_u8(&play->in);
    struct slice body =
        reader_take(&play->in, len < reader_left(&play->in) ? len : reader_left(&play->in));
    frame_header_encode(header, flags, (uint32_t)body.len);
    say(play, slice_of(header, sizeof header));
    say(play, body);
}

/* ---- what frames are about ---- */

struct target {
    struct slice tenant, namespace_, stream, cache, key;
};

static struct target target_of(uint8_t byte) {
    static const char *const tenants[] = {"t1", "t1", "t2", "zz"};
    static const char *const streams[] = {"a", "b", "c", "none"};
    static const char *const entries[] = {"k0", "k1", "k2", ""};
    return (struct target){
        .tenant = slice_str(tenants[byte & 3]),
        .namespace_ = slice_str((byte & 128) == 0 ? "n" : "x"),
        .stream = slice_str(streams[byte >> 2 & 3]),
        .cache = slice_str((byte & 16) == 0 ? "k" : "none"),
        .key = slice_str(entries[byte >> 5 & 3]),
    };
}

static void step_publish(struct play *play, unsigned x) {
    static uint8_t frame[300000];
    uint16_t flags = FRAME_PUBLISH_BATCH | ((x & 1) != 0 ? FRAME_PUBLISH_ACKED : 0) |
                     ((x & 2) != 0 ? FRAME_PUBLISH_KEYED : 0);
    struct target target = target_of(reader_u8(&play->in));
    struct publish_head head = {
        .request_id = reader_u8(&play->in),
        .ack_mode = (x & 4) != 0 ? PUBLISH_ACK_PER_BATCH : PUBLISH_ACK_PER_MESSAGE,
        .key = target.key,
        .tenant = target.tenant,
        .namespace_ = target.namespace_,
        .stream = target.stream,
    };
    uint32_t count = reader_u8(&play->in);
    uint32_t item_bytes = reader_u8(&play->in);
    struct writer w = writer_of(frame + FRAME_HEADER_BYTES, sizeof frame - FRAME_HEADER_BYTES);
    INVARIANT(publish_head_encode(flags, &head, w.at) == FELIX_OK);
    w.at += publish_head_bytes(flags, &head);
    writer_u32(&w, count);
    for (uint32_t i = 0; i < count; i++) {
        writer_u32(&w, item_bytes);
        memset(w.at, (uint8_t)i, item_bytes);
        w.at += item_bytes;
    }
    size_t body_bytes = (size_t)(w.at - frame) - FRAME_HEADER_BYTES;
    frame_header_encode(frame, flags, (uint32_t)body_bytes);
    say(play, slice_of(frame, FRAME_HEADER_BYTES + body_bytes));
}

static void step_message(struct play *play, unsigned x) {
    static const uint8_t value[] = "a value of some length, of which the input chooses how much";
    static const enum message_type types[] = {
        MESSAGE_PUBLISH,       MESSAGE_PUBLISH_BATCH, MESSAGE_SUBSCRIBE,  MESSAGE_CACHE_PUT,
        MESSAGE_CACHE_GET,     MESSAGE_CACHE_DELETE,  MESSAGE_CACHE_GET,  MESSAGE_SUBSCRIBE,
        MESSAGE_AUTH_OK,       MESSAGE_ERROR,         MESSAGE_SUBSCRIBED, MESSAGE_CACHE_VALUE,
        MESSAGE_PUBLISH_ERROR, MESSAGE_UNSUPPORTED,   MESSAGE_OK,         MESSAGE_CACHE_PUT};
    uint8_t items[4 + 2 * (4 + 1)] = {0, 0, 0, 1, 0, 0, 0, 1, 'i', 0, 0, 0, 1, 'j'};
    struct target target = target_of(reader_u8(&play->in));
    uint8_t how = reader_u8(&play->in);
    uint8_t number = reader_u8(&play->in);
    bool two = types[x] == MESSAGE_PUBLISH_BATCH && (how & 64) != 0;
    items[3] = two ? 2 : 1;
    struct message message = {
        .type = types[x],
        .tenant = target.tenant,
        .namespace_ = target.namespace_,
        .stream = target.stream,
        .cache = target.cache,
        .key = target.key,
        .payloads = {.bytes = slice_of(items, two ? sizeof items : 9),
                     .count = items[3],
                     .payload_bytes = items[3]},
        .has_value = true,
        .value = slice_of(value, number % sizeof value),
        .text = slice_str("text"),
        .has_request_id = (how & 1) != 0,
        .request_id = number,
        .has_subscription_id = (how & 2) != 0,
        .subscription_id = number % 4,
        .has_ttl = (how & 2) != 0,
        .ttl_ms = (uint64_t)number * 100,
        .has_ack = (how & 4) != 0,
        .ack_mode = (uint8_t)((how >> 3 & 3) % 3),
        .start = (enum start_kind)(how >> 3 & 3),
        .offset = number % 16,
    };
    send_message(play, &message);
}

/* x: the operation; in its high part how the handle is chosen and whether there is a time to live.
 */
static void step_cache_frame(struct play *play, unsigned x) {
    static uint8_t frame[FRAME_HEADER_BYTES + 70000];
    static const uint8_t value[66000] = "a value";
    struct target target = target_of(reader_u8(&play->in));
    uint8_t number = reader_u8(&play->in);
    struct cache_frame_request request = {
        .op = (enum cache_frame_op)(CACHE_FRAME_BIND + x % 4),
        .handle = (x & 8) == 0 ? number % 4 : (uint16_t)(number + 4),
        .request_id = number,
        .key = target.key,
        .tenant = target.tenant,
        .namespace_ = target.namespace_,
        .cache = target.cache,
    };
    if (request.op == CACHE_FRAME_PUT) {
        request.value = slice_of(value, (number & 128) == 0 ? number : (size_t)number * 258);
        request.has_ttl = (x & 4) != 0;
        request.ttl_ms = (uint64_t)number * 100;
    }
    cache_frame_request_encode(&request, frame);
    say(play, slice_of(frame, cache_frame_request_bytes(&request)));
}

/* ---- connections, streams, time ---- */

static void step_connect(struct play *play, unsigned x) {
    if (play->peer_count < PEERS_MAX)
        play->peers[play->peer_count++] = world_connect(play->world, x % play->world->count);
}

static void step_open(struct play *play, unsigned x) {
    if (play->peer_count == 0)
        step_connect(play, 0);
    if (play->stream_count == STREAMS_MAX)
        return;
    struct peer *peer = play->peers[(x >> 1) % play->peer_count];
    struct peer_stream *stream = peer_open(peer, (x & 1) == 0);
    if (stream == NULL)
        return;
    play->at = play->stream_count;
    play->streams[play->stream_count++] = stream;
}

static void step_end(struct play *play, unsigned x) {
    struct peer_stream *stream = current(play);
    if (stream == NULL)
        return;
    if (x % 3 == 0)
        peer_send(stream, slice_of(NULL, 0), true);
    else if (x % 3 == 1)
        peer_reset(stream);
    else
        peer_refuse(stream);
}

static void step_turn(struct play *play, unsigned x) {
    for (unsigned r = 0; r < play->world->count; r++) {
        if ((x & 1u << r) == 0)
            world_turn(play->world, r);
    }
}

static void step_network(struct play *play, unsigned x) {
    size_t bytes = (size_t)reader_u8(&play->in) * 16;
    for (unsigned i = 0; i < play->peer_count; i++) {
        if ((x & 1) == 0)
            peer_take(play->peers[i], bytes);
        if ((x & 2) == 0 && !play->peers[i]->closed)
            peer_acknowledge(play->peers[i], bytes);
    }
}

static void step_log(struct world_log *log, uint8_t which) {
    if (which == 216)
        log->fails = FELIX_DISK_FULL;
    else if (which == 217)
        log->fails = FELIX_STORAGE;
    else if (which == 218)
        world_log_recover(log);
    else
        log->oldest = log->end - (log->end - log->oldest) / 2;
}

static void step_rare(struct play *play, unsigned x) {
    static const char *const streams[] = {"a", "b", "c", "d"};
    struct peer *peer = play->peer_count == 0 ? NULL : play->peers[x % play->peer_count];
    uint8_t which = reader_u8(&play->in);
    if (which < 64 && peer != NULL) {
        peer->uni_grant = which % 3;
    } else if (which < 128 && peer != NULL) {
        peer_close(peer);
    } else if (which < 160) {
        world_remove_stream(play->world, x < 8 ? "t1" : "t2", streams[which % 4]);
    } else if (which < 192) {
        world_add_stream(play->world, x < 8 ? "t1" : "t2", streams[which % 4]);
    } else if (which < 208) {
        server_drain_begin(&play->world->reactors[x % play->world->count].server);
    } else if (which < 216) {
        server_close_all(&play->world->reactors[x % play->world->count].server, "over");
    } else if (which < 220 && play->world->log != NULL) {
        step_log(play->world->log, which);
    } else if (peer != NULL) { /* unsubscribe one */
        struct peer_stream *events = peer_next_event_stream(peer, NULL);
        for (unsigned i = 0; i < which % 4 && events != NULL; i++)
            events = peer_next_event_stream(peer, events);
        if (events != NULL)
            peer_refuse(events);
    }
}

static void step(struct play *play) {
    uint8_t byte = reader_u8(&play->in);
    unsigned x = byte >> 4;
    switch (byte & 15) {
    case 0:
        step_connect(play, x);
        break;
    case 1:
        step_open(play, x);
        break;
    case 2:
        play->at = play->stream_count == 0 ? 0 : x % play->stream_count;
        break;
    case 3:
        step_auth(play, x);
        break;
    case 4:
        step_frame(play);
        break;
    case 5: {
        size_t len = reader_u8(&play->in);
        size_t left = reader_left(&play->in);
        say(play, reader_take(&play->in, len < left ? len : left));
        break;
    }
    case 6:
        step_publish(play, x);
        break;
    case 7:
        step_message(play, x);
        break;
    case 8:
        play->chunk = x;
        break;
    case 9:
        step_end(play, x);
        break;
    case 10:
        step_turn(play, x);
        break;
    case 11:
        step_network(play, x);
        break;
    case 12:
        play->world->now_ns += x * NS_PER_S;
        if (x == 0)
            (void)world_log_turn(play->world->log);
        break;
    case 13:
        step_rare(play, x);
        break;
    case 14:
        step_cache_frame(play, x);
        break;
    default:
        world_settle(play->world);
        break;
    }
}

/* ---- what the server wrote ---- */

static void check_reply(const struct frame_header *frame, struct slice body, bool *authenticated) {
    if ((frame->flags & FRAME_PUBLISH_ACK) != 0) {
        struct publish_ack ack;
        uint16_t modifiers = FRAME_ACK_OFFSET | FRAME_ACK_LEVEL;
        INVARIANT((frame->flags & ~(FRAME_PUBLISH_ACK | modifiers)) == 0);
        INVARIANT(*authenticated && ack_decode(frame->flags, body, &ack) == FELIX_OK);
        return;
    }
    if (frame->flags == FRAME_CACHE) {
        struct cache_frame_reply reply;
        INVARIANT(*authenticated && cache_frame_reply_decode(body, &reply) == FELIX_OK);
        return;
    }
    struct message message;
    INVARIANT(frame->flags == 0 && message_decode(body, &message) == FELIX_OK);
    INVARIANT(message_is_from_broker(message.type));
    INVARIANT(message.type != MESSAGE_EVENT && message.type != MESSAGE_EVENT_BATCH);
    if (message.type == MESSAGE_OK || message.type == MESSAGE_AUTH_OK)
        *authenticated = true;
    else if (message.type != MESSAGE_ERROR)
        INVARIANT(*authenticated);
    message_deinit(&message);
}

static void check_replies(struct peer_stream *stream, bool presented) {
    struct frame_header frame;
    struct slice body;
    bool authenticated = false;
    while (world_hear(stream, &frame, &body)) {
        check_reply(&frame, body, &authenticated);
        INVARIANT(presented || !authenticated);
    }
}

/* Hello, events, and perhaps a last word. */
static void check_events(struct peer_stream *stream) {
    struct frame_header frame;
    struct slice body;
    bool first = true, last = false;
    while (world_hear(stream, &frame, &body)) {
        struct message message;
        struct event_batch batch;
        INVARIANT(!last);
        if (first || frame.flags == 0) {
            INVARIANT(frame.flags == 0 && message_decode(body, &message) == FELIX_OK);
            INVARIANT(first ? message.type == MESSAGE_EVENT_STREAM_HELLO
                            : message.type == MESSAGE_SUBSCRIPTION_LAGGED);
            last = !first;
            message_deinit(&message);
        } else {
            INVARIANT(event_batch_decode(frame.flags, body, &batch) == FELIX_OK);
            INVARIANT(batch.count > 0);
        }
        first = false;
    }
}

/* Everything was taken by now, but for streams that ended early. */
static void check_output(const struct play *play) {
    for (unsigned i = 0; i < play->stream_count; i++)
        check_replies(play->streams[i], play->presented[i]);
    for (unsigned i = 0; i < play->peer_count; i++) {
        const struct peer_stream *s = play->peers[i]->streams;
        for (; s != NULL; s = s->next) {
            if (!s->ours)
                check_events((struct peer_stream *)(uintptr_t)s);
            else if (!s->bidi)
                INVARIANT(s->in_bytes == 0);
            if (s->in_fin || s->quic != NULL)
                INVARIANT(s->refused || s->in_reset || s->read_at == s->in_bytes);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct play play = {.in = reader_of(slice_of(data, size))};
    struct world_options options = options_of(reader_u8(&play.in));
    bool durable = size > 0 && (data[0] & 6) == 6;
    if (durable) {
        options.server.flags |= SERVER_FLAGS_DURABLE;
        options.server.features |= SERVER_FEATURES_DURABLE;
    }
    play.world = world_new(&options);
    if (durable) {
        world_remove_stream(play.world, "t1", "c");
        world_add_durable(play.world, "t1", "c");
    }
    for (unsigned i = 0; i < STEPS_MAX && reader_left(&play.in) > 0; i++)
        step(&play);
    world_settle(play.world);
    world_check_rest(play.world);
    check_output(&play);
    world_free(play.world);
    buf_thread_trim();
    INVARIANT(buf_live_bytes() == 0);
    return 0;
}
