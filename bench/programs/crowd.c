/*
 * Many connections with many subscriptions each of one stream: how long until one update has
 * reached them all?
 *
 *     crowd ADDRESS DATA_DIR STREAM CONNECTIONS SUBSCRIPTIONS SOCKETS BYTES WARMUP UPDATES
 *
 * One thread, one loop, the connections spread over SOCKETS sockets; straight on the layers quic
 * and wire, because a thousand clients of libfelix would be a thousand threads. Prints "ready" when
 * every subscription is confirmed and its event stream is there. A line on the standard input
 * starts the updates: each is published on a connection without subscriptions when the one before
 * has reached everybody, and INTERVAL later; its payload tells when. Prints one JSON object with
 * the time from publish to hand-over of each delivery, and of the last delivery of each update. The
 * end of the input ends it. Idle or not, it answers what the broker asks.
 */
#include "base/check.h"
#include "base/clock.h"
#include "base/cursor.h"
#include "base/hist.h"
#include "base/loop.h"
#include "base/rand.h"
#include "client/frame_reader.h"
#include "quic/endpoint.h"
#include "wire/event.h"
#include "wire/features.h"
#include "wire/message.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define TENANT "t1"
#define SPACE "default"
#define HANDSHAKES_AT_ONCE 32u
#define INTERVAL_NS (20 * NS_PER_MS)
#define UPDATE_TIMEOUT_NS (10 * NS_PER_S)
#define STAMP_BYTES 16u
#define FRAME_BYTES_MAX (1u << 20)

struct socket {
    struct loop_source source;
    struct crowd *crowd;
    struct quic_endpoint *endpoint;
    bool readable, awaits_writable;
};

struct crowd {
    struct loop loop;
    struct loop_source input;
    struct sockaddr_storage broker;
    struct quic_tls *tls;
    char *token;
    const char *stream;
    uint64_t connections, subscriptions, sockets_count, bytes, warmup, updates;
    struct socket *sockets;
    uint64_t started, connected; /* connections */
    uint64_t waiting;            /* subscriptions that are not complete yet */
    struct quic_stream *publisher;
    bool begun, input_ended;
    uint64_t update; /* number of the present one; 0: none yet */
    uint64_t update_ns, next_ns, left, late;
    struct hist deliveries, everybody;
    uint64_t slowest_ns, slowest_update, first_ns;
};

/* Of one QUIC stream: what the peer says on it. */
struct ear {
    struct crowd *crowd;
    struct frame_reader reader;
};

static void die(const char *what, const char *why) {
    (void)fprintf(stderr, "crowd: %s: %s\n", what, why);
    exit(1);
}

/* ---- saying ---- */

static struct ear *ear_new(struct crowd *crowd) {
    struct ear *ear = xcalloc(1, sizeof *ear);
    ear->crowd = crowd;
    frame_reader_init(&ear->reader, FRAME_BYTES_MAX);
    return ear;
}

static void say(struct quic_stream *stream, const struct message *message) {
    size_t bytes;
    struct buf *frame = message_encode(message, &bytes);
    (void)quic_stream_write(stream, frame, frame->data, bytes);
}

static struct quic_stream *open_authenticated(struct crowd *crowd, struct quic_conn *conn) {
    struct quic_stream *stream = quic_open_bidi(conn, ear_new(crowd));
    if (stream == NULL)
        die("open a stream", "the broker grants none");
    say(stream, &(struct message){.type = MESSAGE_AUTH,
                                  .tenant = slice_str(TENANT),
                                  .token = slice_str(crowd->token),
                                  .has_client_flags = true,
                                  .flags = CLIENT_FLAGS,
                                  .has_client_features = true,
                                  .features = CLIENT_FEATURES});
    return stream;
}

static void publish_update(struct crowd *crowd, uint64_t now_ns) {
    struct publish_head head = {.tenant = slice_str(TENANT),
                                .namespace_ = slice_str(SPACE),
                                .stream = slice_str(crowd->stream)};
    size_t head_bytes = publish_head_bytes(FRAME_PUBLISH_BATCH, &head);
    size_t body_bytes = head_bytes + 8 + crowd->bytes;
    struct buf *frame = buf_new(FRAME_HEADER_BYTES + body_bytes);
    frame_header_encode(frame->data, FRAME_PUBLISH_BATCH, (uint32_t)body_bytes);
    uint8_t *at = frame->data + FRAME_HEADER_BYTES;
    if (publish_head_encode(FRAME_PUBLISH_BATCH, &head, at) != FELIX_OK)
        die("publish", "a name is too long");
    at += head_bytes;
    be32_store(at, 1);
    be32_store(at + 4, (uint32_t)crowd->bytes);
    memset(at + 8, 0, crowd->bytes);
    be64_store(at + 8, ++crowd->update);
    be64_store(at + 16, now_ns);
    crowd->update_ns = now_ns;
    crowd->left = crowd->connections * crowd->subscriptions;
    (void)quic_stream_write(crowd->publisher, frame, frame->data, FRAME_HEADER_BYTES + body_bytes);
}

/* ---- hearing ---- */

static void all_have_it(struct crowd *crowd, uint64_t now_ns) {
    uint64_t took_ns = now_ns - crowd->update_ns;
    crowd->next_ns = now_ns + INTERVAL_NS;
    if (crowd->update <= crowd->warmup)
        return;
    hist_record(&crowd->everybody, took_ns);
    if (took_ns > crowd->slowest_ns) {
        crowd->slowest_ns = took_ns;
        crowd->slowest_update = crowd->update - crowd->warmup;
    }
}

static void on_events(struct crowd *crowd, const struct frame *frame) {
    struct event_batch batch;
    struct slice payload;
    if (event_batch_decode(frame->header.flags, frame->body, &batch) != FELIX_OK)
        die("an event frame", "malformed");
    struct event_cursor cursor = event_walk(&batch);
    while (event_next(&cursor, &payload)) {
        uint64_t now_ns = clock_now_ns();
        if (payload.len != crowd->bytes || be64_load(payload.data) != crowd->update) {
            crowd->late++;
            continue;
        }
        if (crowd->update > crowd->warmup)
            hist_record(&crowd->deliveries, now_ns - be64_load(payload.data + 8));
        if (--crowd->left == 0)
            all_have_it(crowd, now_ns);
    }
}

static bool on_frame(void *context, struct frame *frame) {
    struct ear *ear = context;
    struct crowd *crowd = ear->crowd;
    struct message message;
    if ((frame->header.flags & (FRAME_EVENT_BATCH | FRAME_EVENT_BATCH_SHARED)) != 0) {
        on_events(crowd, frame);
        return true;
    }
    if (message_decode(frame->body, &message) != FELIX_OK)
        die("a message", "malformed");
    /* `subscribed` on the request's stream, the hello on the event stream: both are waited for. */
    if (message.type == MESSAGE_SUBSCRIBED || message.type == MESSAGE_EVENT_STREAM_HELLO) {
        crowd->waiting--;
    } else if (message.type != MESSAGE_AUTH_OK && message.type != MESSAGE_OK) {
        (void)fprintf(stderr, "crowd: the broker answers %s: %.*s\n",
                      message_type_name(message.type), (int)message.text.len,
                      (const char *)message.text.data);
        exit(1);
    }
    message_deinit(&message);
    return true;
}

/* ---- the endpoints' handler ---- */

/* A stream of requests takes one subscribe and ends with it. */
static void subscribe(struct crowd *crowd, struct quic_conn *conn) {
    struct quic_stream *stream = open_authenticated(crowd, conn);
    say(stream, &(struct message){.type = MESSAGE_SUBSCRIBE,
                                  .tenant = slice_str(TENANT),
                                  .namespace_ = slice_str(SPACE),
                                  .stream = slice_str(crowd->stream)});
    quic_stream_finish(stream);
}

static void conn_ready(struct quic_conn *conn) {
    struct crowd *crowd = conn->user;
    crowd->connected++;
    if (crowd->publisher == NULL) {
        crowd->publisher = open_authenticated(crowd, conn);
        return;
    }
    for (uint64_t i = 0; i < crowd->subscriptions; i++)
        subscribe(crowd, conn);
}

static void conn_closed(struct quic_conn *conn, const struct quic_close *close) {
    struct crowd *crowd = conn->user;
    if (!crowd->input_ended)
        die("a connection was lost",
            close->reason[0] != '\0' ? close->reason : err_text(close->err));
}

static void stream_opened(struct quic_stream *stream) {
    stream->user = ear_new(stream->conn->user);
}

static void stream_data(struct quic_stream *stream, struct slice data, bool fin) {
    struct ear *ear = stream->user;
    if (frame_reader_feed(&ear->reader, data, on_frame, ear) != FELIX_OK)
        die("a frame", "malformed");
    quic_stream_consume(stream, data.len);
}

static void stream_over(struct quic_stream *stream, uint64_t app_code) {
    die("a stream", "was reset or refused by the broker");
}

static void stream_closed(struct quic_stream *stream) {
    struct ear *ear = stream->user;
    frame_reader_deinit(&ear->reader);
    free(ear);
}

static void stream_ignored(struct quic_stream *stream) {
}

static void conn_ignored(struct quic_conn *conn) {
}

static void forward(struct quic_endpoint *endpoint, unsigned reactor,
                    const struct sockaddr_storage *local, const struct sockaddr_storage *peer,
                    struct slice packet) {
}

static const struct quic_handler handler = {
    .conn_ready = conn_ready,
    .conn_closed = conn_closed,
    .stream_opened = stream_opened,
    .stream_data = stream_data,
    .stream_reset = stream_over,
    .stream_stopped = stream_over,
    .stream_acked = stream_ignored,
    .stream_sent = stream_ignored,
    .stream_closed = stream_closed,
    .streams_available = conn_ignored,
    .forward = forward,
};

/* ---- set-up ---- */

static void on_socket(struct loop_source *source, uint32_t epoll_events) {
    ((struct socket *)(void *)source)->readable = true;
}

static void open_socket(struct crowd *crowd, struct socket *socket) {
    const struct quic_settings settings = {
        .conn_recv_window_bytes = 16u << 20,
        .stream_recv_window_bytes = 1u << 20,
        .max_streams_uni = (uint32_t)crowd->subscriptions,
        .idle_timeout_ms = 60000,
        .keep_alive_ms = 10000,
        .handshake_timeout_ms = 60000,
        .initial_mtu_bytes = 1200,
        .mtu_max_bytes = 1452, /* as libfelix does where it only subscribes */
        .max_udp_payload_bytes = UDP_PAYLOAD_BYTES_MAX,
        .udp_send_buffer_bytes = 8u << 20,
        .udp_recv_buffer_bytes = 8u << 20,
        .max_connections = UINT32_MAX,
        .max_half_open = UINT32_MAX,
    };
    struct quic_endpoint_options options = {.settings = &settings,
                                            .handler = &handler,
                                            .user = crowd,
                                            .bind.ss_family = crowd->broker.ss_family,
                                            .reactor_count = 1};
    struct felix_error error = {0};
    rand_bytes(options.static_secret, sizeof options.static_secret);
    if (quic_endpoint_new(&options, &socket->endpoint, &error) != FELIX_OK)
        die("open a socket", error.text);
    socket->crowd = crowd;
    socket->source = (struct loop_source){.fd = socket->endpoint->udp.fd, .on_ready = on_socket};
    if (loop_add(&crowd->loop, &socket->source, EPOLLIN) != FELIX_OK)
        die("open a socket", "the loop takes no more");
}

/* The publisher, then the others, a few handshakes at a time. */
static void connect_more(struct crowd *crowd, uint64_t now_ns) {
    while (crowd->started <= crowd->connections &&
           crowd->started - crowd->connected <
               (crowd->publisher == NULL ? 1 : HANDSHAKES_AT_ONCE)) {
        struct socket *socket = &crowd->sockets[crowd->started++ % crowd->sockets_count];
        struct quic_target target = {
            .tls = crowd->tls, .server_name = "localhost", .peer = &crowd->broker};
        if (quic_connect(socket->endpoint, &target, crowd, now_ns) == NULL)
            die("connect", "TLS cannot be set up");
    }
}

static void on_input(struct loop_source *source, uint32_t epoll_events) {
    struct crowd *crowd = (struct crowd *)((char *)source - offsetof(struct crowd, input));
    char line[64];
    ssize_t got = read(source->fd, line, sizeof line);
    crowd->begun = crowd->begun || got > 0;
    if (got > 0)
        return;
    crowd->input_ended = true;
    loop_remove(&crowd->loop, &crowd->input);
}

/* ---- running ---- */

static void print_hist(const char *name, const struct hist *h) {
    (void)printf("\"%s\":{\"count\":%llu,\"p50_us\":%.1f,\"p90_us\":%.1f,\"p99_us\":%.1f,"
                 "\"max_us\":%.1f}",
                 name, (unsigned long long)hist_count(h), (double)hist_percentile_ns(h, 50) / 1e3,
                 (double)hist_percentile_ns(h, 90) / 1e3, (double)hist_percentile_ns(h, 99) / 1e3,
                 (double)hist_max_ns(h) / 1e3);
}

static void print_result(const struct crowd *crowd) {
    (void)printf("{\"connections\":%llu,\"subscribers\":%llu,\"updates\":%llu,\"bytes\":%llu,",
                 (unsigned long long)crowd->connections,
                 (unsigned long long)(crowd->connections * crowd->subscriptions),
                 (unsigned long long)hist_count(&crowd->everybody),
                 (unsigned long long)crowd->bytes);
    print_hist("delivery", &crowd->deliveries);
    (void)printf(",");
    print_hist("everybody", &crowd->everybody);
    (void)printf(",\"slowest_update\":%llu,\"missing\":%llu,\"unexpected\":%llu}\n",
                 (unsigned long long)crowd->slowest_update, (unsigned long long)crowd->left,
                 (unsigned long long)crowd->late);
    (void)fflush(stdout);
}

/* What is due of the updates. Returns false when they are over. */
static bool advance(struct crowd *crowd, uint64_t now_ns) {
    if (crowd->left > 0)
        return now_ns < crowd->update_ns + UPDATE_TIMEOUT_NS;
    if (crowd->update == crowd->warmup + crowd->updates)
        return false;
    if (now_ns >= crowd->next_ns)
        publish_update(crowd, now_ns);
    return true;
}

static void turn(struct crowd *crowd) {
    uint64_t now_ns = clock_now_ns();
    uint64_t due_ns = LOOP_NO_DEADLINE;
    for (uint64_t i = 0; i < crowd->sockets_count; i++) {
        struct socket *socket = &crowd->sockets[i];
        if (socket->readable)
            socket->readable = quic_endpoint_receive(socket->endpoint, now_ns);
        bool more = quic_endpoint_flush(socket->endpoint, now_ns);
        bool blocked = quic_endpoint_blocked(socket->endpoint);
        if (blocked != socket->awaits_writable)
            loop_change(&crowd->loop, &socket->source,
                        EPOLLIN | (blocked ? (uint32_t)EPOLLOUT : 0));
        socket->awaits_writable = blocked;
        uint64_t deadline_ns = quic_endpoint_deadline(socket->endpoint);
        if (deadline_ns < due_ns)
            due_ns = deadline_ns;
        if (more || socket->readable)
            due_ns = 0;
    }
    if (crowd->begun && crowd->left == 0 && crowd->next_ns < due_ns)
        due_ns = crowd->next_ns;
    loop_wait(&crowd->loop, due_ns, NULL, NULL);
}

static void run(struct crowd *crowd) {
    bool ready = false, over = false;
    while (!crowd->input_ended) {
        uint64_t now_ns = clock_now_ns();
        connect_more(crowd, now_ns);
        if (!ready && crowd->connected > crowd->connections && crowd->waiting == 0) {
            ready = true;
            (void)printf("ready\n");
            (void)fflush(stdout);
        }
        if (ready && crowd->begun && !over && !advance(crowd, now_ns)) {
            over = true;
            crowd->next_ns = LOOP_NO_DEADLINE;
            print_result(crowd);
        }
        turn(crowd);
    }
}

static char *read_token(const char *directory) {
    char path[4096];
    char text[8192];
    (void)snprintf(path, sizeof path, "%s/token", directory);
    FILE *file = fopen(path, "r");
    if (file == NULL || fgets(text, sizeof text, file) == NULL)
        die(path, "cannot be read");
    (void)fclose(file);
    text[strcspn(text, "\r\n")] = '\0';
    return xstrdup(text);
}

static void find_broker(struct crowd *crowd, const char *address, const char *directory) {
    char host[64];
    char path[4096];
    const char *colon = strrchr(address, ':');
    struct sockaddr_in in = {.sin_family = AF_INET};
    if (colon == NULL || (size_t)(colon - address) >= sizeof host)
        die(address, "not an address");
    (void)snprintf(host, sizeof host, "%.*s", (int)(colon - address), address);
    in.sin_port = htons((uint16_t)strtoul(colon + 1, NULL, 10));
    if (inet_pton(AF_INET, host, &in.sin_addr) != 1)
        die(address, "not an IPv4 address");
    memcpy(&crowd->broker, &in, sizeof in);
    struct felix_error error = {0};
    (void)snprintf(path, sizeof path, "%s/ca.pem", directory);
    if (quic_tls_client_new(path, QUIC_CIPHER_AUTO, &crowd->tls, &error) != FELIX_OK)
        die(path, error.text);
    crowd->token = read_token(directory);
}

int main(int argc, char **argv) {
    static struct crowd crowd;
    uint64_t *numbers[] = {&crowd.connections, &crowd.subscriptions, &crowd.sockets_count,
                           &crowd.bytes,       &crowd.warmup,        &crowd.updates};
    bool good = argc == 10;
    for (int i = 0; good && i < 6; i++) {
        char *end;
        *numbers[i] = strtoull(argv[4 + i], &end, 10);
        good = *end == '\0' && (*numbers[i] > 0 || numbers[i] == &crowd.warmup);
    }
    if (!good || crowd.bytes < STAMP_BYTES) {
        (void)fprintf(stderr, "usage: crowd ADDRESS DATA_DIR STREAM CONNECTIONS SUBSCRIPTIONS "
                              "SOCKETS BYTES WARMUP UPDATES\n");
        return 2;
    }
    find_broker(&crowd, argv[1], argv[2]);
    crowd.stream = argv[3];
    crowd.waiting = 2 * crowd.connections * crowd.subscriptions;
    crowd.sockets = xcalloc(crowd.sockets_count, sizeof *crowd.sockets);
    crowd.input = (struct loop_source){.fd = STDIN_FILENO, .on_ready = on_input};
    if (loop_init(&crowd.loop, 0) != FELIX_OK ||
        loop_add(&crowd.loop, &crowd.input, EPOLLIN) != FELIX_OK)
        die("the event loop", "cannot be made");
    for (uint64_t i = 0; i < crowd.sockets_count; i++)
        open_socket(&crowd, &crowd.sockets[i]);
    run(&crowd);
    return 0;
}
