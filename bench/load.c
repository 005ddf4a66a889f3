/*
 * Load on a broker from one thread: one publisher, some subscribers, each a connection of its own,
 * straight on the transport, so that what is measured is the broker and as little else as can be.
 *
 *     load --server HOST:PORT --data-dir DIR [--fanout N] [--batch N] [--payload BYTES]
 *          [--total N] [--acked] [--busy]
 *
 * Without --acked: unacknowledged batches as fast as the window allows; prints messages and
 * deliveries a second. With --acked: one batch at a time, the next when the acknowledgement and
 * all deliveries are there; prints the time from publish to each delivery and to the
 * acknowledgement. --busy polls instead of sleeping between packets. Every payload is 16 bytes
 * longer than asked, as in latencydemo. Lossless: ends with status 1 when something is missing.
 */
#include <arpa/inet.h>
#include <getopt.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/cursor.h"
#include "base/hist.h"
#include "quic/endpoint.h"
#include "wire/frame.h"
#include "wire/message.h"

#define STAMP_BYTES 16u
#define QUEUED_BYTES_MAX ((size_t)4 << 20)
#define UNDELIVERED_BYTES_MAX                                                                      \
    ((uint64_t)32 << 20) /* per subscriber: keeps the run out of buffers */
#define RUN_NS_MAX (60 * NS_PER_S)
#define EVENT_HEAD_BYTES (FRAME_HEADER_BYTES + 4u)

struct options {
    const char *server;
    const char *data_dir;
    uint32_t fanout, batch, payload_bytes;
    uint64_t total;
    bool acked, busy;
};

enum step { STEP_AUTH, STEP_SUBSCRIBE, STEP_READY };

struct peer {
    struct quic_conn *conn;
    struct quic_stream *control;
    bool publishes;
    enum step step;
    /* reading event frames */
    uint8_t head[EVENT_HEAD_BYTES];
    size_t head_have, body_left;
    bool shared;
};

static struct options options = {
    .server = "127.0.0.1:5000", .fanout = 1, .batch = 64, .payload_bytes = 256, .total = 1000000};
static char token[16384];
static char stream_name[64];
static struct peer *peers;
static uint32_t subscribed;
static bool publisher_ready;
static uint64_t sent, delivered, acks, sent_ns;
static struct hist delivery_times, ack_times;

static void send_message(struct quic_stream *stream, const struct message *message) {
    size_t bytes;
    struct buf *frame = message_encode(message, &bytes);
    (void)quic_stream_write(stream, frame, frame->data, bytes);
}

static void on_ready(struct quic_conn *conn) {
    struct peer *peer = conn->user;
    peer->control = quic_open_bidi(conn, peer);
    INVARIANT(peer->control != NULL);
    struct message auth = {.type = MESSAGE_AUTH,
                           .tenant = slice_str("t1"),
                           .token = slice_str(token),
                           .has_client_flags = true,
                           .flags = 63};
    send_message(peer->control, &auth);
}

static void on_closed(struct quic_conn *conn, const struct quic_close *why) {
    if (why->err == FELIX_CLOSED && !why->by_peer)
        return;
    (void)fprintf(stderr, "load: connection lost: %s %s\n", err_text(why->err), why->reason);
    exit(1);
}

static void on_opened(struct quic_stream *stream) {
    stream->user = stream->conn->user;
}

static void on_control(struct peer *peer) {
    if (peer->publishes) {
        if (peer->step == STEP_AUTH) {
            peer->step = STEP_READY;
            publisher_ready = true;
            return;
        }
        acks++;
        hist_record(&ack_times, clock_now_ns() - sent_ns);
        return;
    }
    if (peer->step == STEP_AUTH) {
        struct message subscribe = {.type = MESSAGE_SUBSCRIBE,
                                    .tenant = slice_str("t1"),
                                    .namespace_ = slice_str("default"),
                                    .stream = slice_str(stream_name)};
        send_message(peer->control, &subscribe);
        quic_stream_finish(peer->control);
        peer->step = STEP_SUBSCRIBE;
    } else if (peer->step == STEP_SUBSCRIBE) {
        peer->step = STEP_READY;
        subscribed++;
    }
}

/* Counts the items of whole shared frames; the hello is skipped. */
static void on_events(struct peer *peer, struct slice data) {
    struct reader in = reader_of(data);
    while (reader_left(&in) > 0) {
        if (peer->body_left > 0) {
            size_t take = reader_left(&in) < peer->body_left ? reader_left(&in) : peer->body_left;
            (void)reader_take(&in, take);
            peer->body_left -= take;
        } else {
            size_t want = EVENT_HEAD_BYTES - peer->head_have;
            size_t take = reader_left(&in) < want ? reader_left(&in) : want;
            struct slice part = reader_take(&in, take);
            memcpy(peer->head + peer->head_have, part.data, part.len);
            peer->head_have += take;
            if (peer->head_have < EVENT_HEAD_BYTES)
                return;
            struct frame_header header;
            enum felix_err err = frame_header_decode(slice_of(peer->head, FRAME_HEADER_BYTES),
                                                     FRAME_MAX_BYTES_DEFAULT, &header);
            INVARIANT(err == FELIX_OK && header.body_bytes >= 4);
            peer->shared = (header.flags & FRAME_EVENT_BATCH_SHARED) != 0;
            peer->body_left = header.body_bytes - 4;
        }
        if (peer->body_left == 0) {
            peer->head_have = 0;
            if (!peer->shared)
                continue;
            delivered += be32_load(peer->head + FRAME_HEADER_BYTES);
            if (options.acked)
                hist_record(&delivery_times, clock_now_ns() - sent_ns);
        }
    }
}

static void on_data(struct quic_stream *stream, struct slice data, bool fin) {
    struct peer *peer = stream->conn->user;
    if (stream != peer->control)
        on_events(peer, data);
    else if (data.len > 0)
        on_control(peer);
    quic_stream_consume(stream, data.len);
}

static void ignore_code(struct quic_stream *stream, uint64_t code) {
}
static void ignore_stream(struct quic_stream *stream) {
}
static void ignore_conn(struct quic_conn *conn) {
}
static void ignore_forward(struct quic_endpoint *endpoint, unsigned reactor,
                           const struct sockaddr_storage *local,
                           const struct sockaddr_storage *peer, struct slice packet) {
}

static const struct quic_handler handler = {
    .conn_ready = on_ready,
    .conn_closed = on_closed,
    .stream_opened = on_opened,
    .stream_data = on_data,
    .stream_reset = ignore_code,
    .stream_stopped = ignore_code,
    .stream_acked = ignore_stream,
    .stream_sent = ignore_stream,
    .stream_closed = ignore_stream,
    .streams_available = ignore_conn,
    .forward = ignore_forward,
};

static void publish_batch(struct quic_stream *stream) {
    uint16_t flags =
        options.acked ? FRAME_PUBLISH_BATCH | FRAME_PUBLISH_ACKED : FRAME_PUBLISH_BATCH;
    uint32_t item_bytes = options.payload_bytes + STAMP_BYTES;
    struct publish_head head = {.request_id = sent + 1,
                                .ack_mode = PUBLISH_ACK_PER_BATCH,
                                .tenant = slice_str("t1"),
                                .namespace_ = slice_str("default"),
                                .stream = slice_str(stream_name)};
    size_t head_bytes = publish_head_bytes(flags, &head);
    size_t body_bytes = head_bytes + 4 + (size_t)options.batch * (4 + item_bytes);
    struct buf *frame = buf_new(FRAME_HEADER_BYTES + body_bytes);
    frame_header_encode(frame->data, flags, (uint32_t)body_bytes);
    enum felix_err err = publish_head_encode(flags, &head, frame->data + FRAME_HEADER_BYTES);
    INVARIANT(err == FELIX_OK);
    uint8_t *at = frame->data + FRAME_HEADER_BYTES + head_bytes;
    be32_store(at, options.batch);
    at += 4;
    for (uint32_t i = 0; i < options.batch; i++) {
        be32_store(at, item_bytes);
        memset(at + 4, 0, item_bytes);
        at += 4 + item_bytes;
    }
    sent_ns = clock_now_ns();
    (void)quic_stream_write(stream, frame, frame->data, FRAME_HEADER_BYTES + body_bytes);
    sent += options.batch;
}

static void publish_more(void) {
    struct quic_stream *stream = peers[0].control;
    uint64_t item_bytes = options.payload_bytes + STAMP_BYTES;
    if (options.acked) {
        if (acks * options.batch == sent && delivered == sent * options.fanout &&
            sent < options.total)
            publish_batch(stream);
        return;
    }
    while (sent < options.total && stream->unacked_bytes < QUEUED_BYTES_MAX &&
           (sent * options.fanout - delivered) * item_bytes <
               UNDELIVERED_BYTES_MAX * options.fanout)
        publish_batch(stream);
}

static bool finished(void) {
    return sent >= options.total && delivered == sent * options.fanout &&
           (!options.acked || acks * options.batch == sent);
}

static void wait_for_packets(struct quic_endpoint *endpoint) {
    struct pollfd poll_fd = {.fd = endpoint->udp.fd, .events = POLLIN};
    uint64_t now_ns = clock_now_ns(), due_ns = quic_endpoint_deadline(endpoint);
    uint64_t wait_ns = due_ns > now_ns ? due_ns - now_ns : 0;
    if (wait_ns > NS_PER_S)
        wait_ns = NS_PER_S;
    struct timespec timeout = {.tv_sec = (time_t)(wait_ns / NS_PER_S),
                               .tv_nsec = (long)(wait_ns % NS_PER_S)};
    (void)ppoll(&poll_fd, 1, &timeout, NULL);
}

static void report(double seconds) {
    (void)printf("fanout=%u batch=%u payload=%u: %.0f msg/s, %.0f deliveries/s, %.0f MB/s; "
                 "sent %llu, delivered %llu, missing 0\n",
                 options.fanout, options.batch, options.payload_bytes, (double)sent / seconds,
                 (double)delivered / seconds,
                 (double)delivered * (options.payload_bytes + STAMP_BYTES) / seconds / 1e6,
                 (unsigned long long)sent, (unsigned long long)delivered);
    if (!options.acked)
        return;
    (void)printf("  publish to delivery: p50 %.1f us, p99 %.1f us, p99.9 %.1f us; "
                 "to acknowledgement: p50 %.1f us, p99 %.1f us\n",
                 (double)hist_percentile_ns(&delivery_times, 50) / 1e3,
                 (double)hist_percentile_ns(&delivery_times, 99) / 1e3,
                 (double)hist_percentile_ns(&delivery_times, 99.9) / 1e3,
                 (double)hist_percentile_ns(&ack_times, 50) / 1e3,
                 (double)hist_percentile_ns(&ack_times, 99) / 1e3);
}

static int run(struct quic_endpoint *endpoint) {
    uint64_t begin_ns = clock_now_ns(), start_ns = 0;
    while (!finished() || start_ns == 0) {
        bool more = quic_endpoint_receive(endpoint, clock_now_ns());
        if (publisher_ready && subscribed == options.fanout) {
            if (start_ns == 0)
                start_ns = clock_now_ns();
            publish_more();
        }
        bool unfinished = quic_endpoint_flush(endpoint, clock_now_ns());
        if (!more && !unfinished && !options.busy && !finished())
            wait_for_packets(endpoint);
        if (clock_now_ns() - begin_ns > RUN_NS_MAX) {
            (void)fprintf(stderr, "load: given up after 60 s: sent %llu, delivered %llu of %llu\n",
                          (unsigned long long)sent, (unsigned long long)delivered,
                          (unsigned long long)sent * options.fanout);
            return 1;
        }
    }
    report((double)(clock_now_ns() - start_ns) / 1e9);
    for (uint32_t i = 0; i <= options.fanout; i++)
        quic_conn_close(peers[i].conn, 0, "done");
    while (quic_endpoint_flush(endpoint, clock_now_ns()))
        continue;
    return 0;
}

static void usage(FILE *out) {
    (void)fputs(
        "load --server HOST:PORT --data-dir DIR [--fanout N] [--batch N] [--payload BYTES]\n"
        "     [--total N] [--acked] [--busy]\n"
        "Load on a development broker from one thread; see bench/load.c.\n",
        out);
}

static bool parse(int argc, char **argv) {
    static const struct option flags[] = {{"server", 1, NULL, 's'},  {"data-dir", 1, NULL, 'd'},
                                          {"fanout", 1, NULL, 'f'},  {"batch", 1, NULL, 'b'},
                                          {"payload", 1, NULL, 'p'}, {"total", 1, NULL, 't'},
                                          {"acked", 0, NULL, 'a'},   {"busy", 0, NULL, 'y'},
                                          {"help", 0, NULL, 'h'},    {0}};
    for (int c; (c = getopt_long(argc, argv, "", flags, NULL)) != -1;) {
        switch (c) {
        case 's':
            options.server = optarg;
            break;
        case 'd':
            options.data_dir = optarg;
            break;
        case 'f':
            options.fanout = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        case 'b':
            options.batch = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        case 'p':
            options.payload_bytes = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        case 't':
            options.total = strtoull(optarg, NULL, 10);
            break;
        case 'a':
            options.acked = true;
            break;
        case 'y':
            options.busy = true;
            break;
        case 'h':
            usage(stdout);
            exit(0);
        default:
            return false;
        }
    }
    return options.data_dir != NULL && options.fanout > 0 && options.batch > 0 && optind == argc;
}

static bool parse_server(struct sockaddr_storage *ret) {
    char host[64];
    struct sockaddr_in *in = (void *)ret;
    const char *colon = strrchr(options.server, ':');
    if (colon == NULL || (size_t)(colon - options.server) >= sizeof host)
        return false;
    (void)snprintf(host, sizeof host, "%.*s", (int)(colon - options.server), options.server);
    *ret = (struct sockaddr_storage){.ss_family = AF_INET};
    in->sin_port = htons((uint16_t)strtoul(colon + 1, NULL, 10));
    return inet_pton(AF_INET, host, &in->sin_addr) == 1;
}

int main(int argc, char **argv) {
    struct sockaddr_storage server;
    if (!parse(argc, argv) || !parse_server(&server)) {
        usage(stderr);
        return 2;
    }
    char path[4200];
    (void)snprintf(path, sizeof path, "%s/token", options.data_dir);
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        perror(path);
        return 1;
    }
    token[fread(token, 1, sizeof token - 1, file)] = '\0';
    (void)fclose(file);
    (void)snprintf(path, sizeof path, "%s/ca.pem", options.data_dir);
    (void)snprintf(stream_name, sizeof stream_name, "load-%llu",
                   (unsigned long long)clock_wall_ns());

    struct felix_error error;
    struct quic_tls *tls;
    struct quic_endpoint *endpoint;
    struct quic_settings settings = {.conn_recv_window_bytes = (uint64_t)256 << 20,
                                     .stream_recv_window_bytes = (uint64_t)64 << 20,
                                     .max_streams_bidi = 16,
                                     .max_streams_uni = 16,
                                     .idle_timeout_ms = 30000,
                                     .keep_alive_ms = 10000,
                                     .handshake_timeout_ms = 10000,
                                     .initial_mtu_bytes = 1200,
                                     .mtu_max_bytes = 65507,
                                     .max_udp_payload_bytes = 65527,
                                     .udp_send_buffer_bytes = 8u << 20,
                                     .udp_recv_buffer_bytes = 8u << 20};
    struct quic_endpoint_options endpoint_options = {
        .settings = &settings, .handler = &handler, .reactor_count = 1};
    endpoint_options.bind.ss_family = AF_INET;
    if (quic_tls_client_new(path, &tls, &error) != FELIX_OK ||
        quic_endpoint_new(&endpoint_options, &endpoint, &error) != FELIX_OK) {
        (void)fprintf(stderr, "load: %s\n", error.text);
        return 1;
    }
    peers = xcalloc(options.fanout + 1, sizeof *peers);
    for (uint32_t i = 0; i <= options.fanout; i++) {
        peers[i].publishes = i == 0;
        peers[i].conn =
            quic_connect(endpoint, tls, "localhost", &server, &peers[i], clock_now_ns());
        INVARIANT(peers[i].conn != NULL);
    }
    int status = run(endpoint);
    quic_endpoint_free(endpoint);
    quic_tls_unref(tls);
    free(peers);
    return status;
}
