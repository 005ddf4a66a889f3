#include "client/io.h"

#include <errno.h>
#include <linux/errqueue.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/epoll.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/rand.h"
#include "client/client.h"

#define COMMAND_ROUNDS_PER_TURN 4
#define REFUSED_BYTES 64u /* of a refused datagram: its connection id is in them */

/* ---- the endpoint's handler ---- */

static void conn_ready(struct quic_conn *conn) {
    link_on_ready(conn->user);
}

static void conn_closed(struct quic_conn *conn, const struct quic_close *close) {
    link_on_closed(conn->user, close);
}

static void stream_opened(struct quic_stream *stream) {
    struct link *link = stream->conn->user;
    if (link->kind == POOL_EVENT && !stream->can_write) {
        subscriber_accept(link, stream);
        return;
    }
    /* A broker opens streams for events only. */
    quic_stream_stop(stream, 0);
    quic_stream_reset(stream, 0);
}

static void stream_data(struct quic_stream *stream, struct slice data, bool fin) {
    struct lane *lane = stream->user;
    if (lane == NULL) {
        quic_stream_consume(stream, data.len);
        return;
    }
    OBJ_CHECK(lane, LANE_MAGIC);
    lane_on_data(lane, data, fin);
}

static void stream_reset(struct quic_stream *stream, uint64_t app_code) {
    if (stream->user != NULL)
        lane_on_reset(stream->user);
}

static void stream_stopped(struct quic_stream *stream, uint64_t app_code) {
    if (stream->user != NULL)
        lane_on_stopped(stream->user);
}

static void stream_acked_upcall(struct quic_stream *stream) {
    struct lane *lane = stream->user;
    if (lane != NULL && lane->state != LANE_OVER && lane->ops->acked != NULL)
        lane->ops->acked(lane);
}

static void stream_sent(struct quic_stream *stream) {
    struct lane *lane = stream->user;
    if (lane != NULL && lane->state != LANE_OVER && lane->ops->sent != NULL)
        lane->ops->sent(lane);
}

static void stream_closed(struct quic_stream *stream) {
    struct lane *lane = stream->user;
    stream->user = NULL;
    if (lane != NULL)
        lane_on_closed(lane);
}

static void streams_available(struct quic_conn *conn) {
    link_pump(conn->user);
}

static void forward(struct quic_endpoint *endpoint, unsigned reactor,
                    const struct sockaddr_storage *local, const struct sockaddr_storage *peer,
                    struct slice packet) {
    /* One socket, one thread: a foreign id is a stray packet. */
}

static const struct quic_handler handler = {
    .conn_ready = conn_ready,
    .conn_closed = conn_closed,
    .stream_opened = stream_opened,
    .stream_data = stream_data,
    .stream_reset = stream_reset,
    .stream_stopped = stream_stopped,
    .stream_acked = stream_acked_upcall,
    .stream_sent = stream_sent,
    .stream_closed = stream_closed,
    .streams_available = streams_available,
    .forward = forward,
};

/* ---- set-up ---- */

/* Did the peer's host answer that nothing listens there? */
static bool is_refusal(struct msghdr *message) {
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c != NULL; c = CMSG_NXTHDR(message, c)) {
        struct sock_extended_err error;
        if ((c->cmsg_level != IPPROTO_IP || c->cmsg_type != IP_RECVERR) &&
            (c->cmsg_level != IPPROTO_IPV6 || c->cmsg_type != IPV6_RECVERR))
            continue;
        memcpy(&error, CMSG_DATA(c), sizeof error);
        if (error.ee_errno == ECONNREFUSED)
            return true;
    }
    return false;
}

/* Empty the socket's error queue. An entry may be old by now: it counts against the connection
 * whose datagram it gives back, and no other. */
static void take_refusals(struct felix_client *client) {
    for (;;) {
        _Alignas(struct cmsghdr) char control[512];
        uint8_t sent[REFUSED_BYTES];
        struct iovec iov = {.iov_base = sent, .iov_len = sizeof sent};
        struct msghdr message = {.msg_iov = &iov,
                                 .msg_iovlen = 1,
                                 .msg_control = control,
                                 .msg_controllen = sizeof control};
        ssize_t bytes = recvmsg(client->io.endpoint->udp.fd, &message, MSG_ERRQUEUE | MSG_DONTWAIT);
        if (bytes < 0)
            return;
        if (is_refusal(&message))
            client_refused(client, slice_of(sent, (size_t)bytes));
    }
}

static void on_socket(struct loop_source *source, uint32_t epoll_events) {
    struct io_watch *watch =
        (struct io_watch *)((char *)source - offsetof(struct io_watch, socket));
    watch->readable = true; /* EPOLLOUT is seen to by the flush */
    if ((epoll_events & EPOLLERR) != 0)
        watch->failed = true;
}

/* Without this a closed port is silence, and a broker that died is noticed by a timeout only. */
static void ask_for_errors(int fd, sa_family_t family) {
    int on = 1;
    if (family == AF_INET6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_RECVERR, &on, sizeof on);
    else
        (void)setsockopt(fd, IPPROTO_IP, IP_RECVERR, &on, sizeof on);
}

enum felix_err io_init(struct felix_client *client, struct felix_error *reterr) {
    struct client_io *io = &client->io;
    const struct client_settings *settings = client->settings;
    struct quic_settings quic = {
        .conn_recv_window_bytes = settings->event_conn_recv_window,
        .stream_recv_window_bytes = settings->event_stream_recv_window,
        .max_streams_bidi = 0,
        .max_streams_uni = CLIENT_EVENT_STREAMS_MAX,
        .idle_timeout_ms = settings->idle_timeout_ms,
        .keep_alive_ms = settings->keep_alive_ms,
        .handshake_timeout_ms = CLIENT_CONNECT_TIMEOUT_MS,
        .initial_mtu_bytes = settings->initial_mtu,
        .mtu_max_bytes = settings->mtu_upper_bound,
        .max_udp_payload_bytes = UDP_PAYLOAD_BYTES_MAX,
        .udp_send_buffer_bytes = (uint32_t)settings->udp_send_buffer,
        .udp_recv_buffer_bytes = (uint32_t)settings->udp_recv_buffer,
        .max_connections = UINT32_MAX,
        .max_half_open = UINT32_MAX,
    };
    struct quic_endpoint_options options = {
        .settings = &quic,
        .handler = &handler,
        .user = client,
        .bind.ss_family = client->peer.ss_family,
        .reactor_count = 1,
    };
    rand_bytes(options.static_secret, sizeof options.static_secret);
    if (loop_init(&io->background.loop, client->spin_ns) != FELIX_OK)
        return error_set(reterr, FELIX_SYSTEM, 0, "cannot open an event loop");
    if (loop_init(&io->caller.loop, client->spin_ns) != FELIX_OK) {
        loop_deinit(&io->background.loop);
        return error_set(reterr, FELIX_SYSTEM, 0, "cannot open an event loop");
    }
    enum felix_err err = quic_endpoint_new(&options, &io->endpoint, reterr);
    if (err != FELIX_OK) {
        io_deinit(client);
        return err;
    }
    ask_for_errors(io->endpoint->udp.fd, client->peer.ss_family);
    io->timer_due_ns = LOOP_NO_DEADLINE;
    io_watch_socket(client, &io->background, true);
    return FELIX_OK;
}

void io_deinit(struct felix_client *client) {
    quic_endpoint_free(client->io.endpoint);
    client->io.endpoint = NULL;
    loop_deinit(&client->io.background.loop);
    loop_deinit(&client->io.caller.loop);
}

static void watch_for(struct client_io *io, struct io_watch *watch, uint32_t events) {
    if (watch->added && watch->events == events)
        return;
    if (watch->added) {
        loop_change(&watch->loop, &watch->socket, events);
    } else {
        watch->socket = (struct loop_source){.fd = io->endpoint->udp.fd, .on_ready = on_socket};
        enum felix_err err = loop_add(&watch->loop, &watch->socket, events);
        INVARIANT(err == FELIX_OK);
        watch->added = true;
    }
    watch->events = events;
}

void io_watch_socket(struct felix_client *client, struct io_watch *watch, bool on) {
    struct client_io *io = &client->io;
    bool blocked = quic_endpoint_blocked(io->endpoint);
    watch_for(io, watch, on ? EPOLLIN | (blocked ? (uint32_t)EPOLLOUT : 0) : 0);
}

/* ---- commands ---- */

void io_post(struct felix_client *client, struct io_command *command) {
    struct client_io *io = &client->io;
    struct io_command *head = atomic_load_explicit(&io->inbox, memory_order_relaxed);
    do {
        command->next = head;
        /* Sequentially consistent, as the driver's look at the inbox before it sleeps or leaves
         * must be: loop.c, driver.c. */
    } while (!atomic_compare_exchange_weak(&io->inbox, &head, command));
    if (head == NULL)
        driver_wake(client);
}

bool io_has_command(const struct felix_client *client) {
    return atomic_load(&client->io.inbox) != NULL;
}

/* Run what is in the inbox, oldest first; false when it was empty. */
static bool run_commands(struct felix_client *client) {
    struct io_command *newest =
        atomic_exchange_explicit(&client->io.inbox, NULL, memory_order_acquire);
    struct io_command *oldest = NULL;
    while (newest != NULL) {
        struct io_command *next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    if (oldest == NULL)
        return false;
    while (oldest != NULL) {
        struct io_command *next = oldest->next;
        oldest->run(client, oldest);
        oldest = next;
    }
    return true;
}

void io_drain(struct felix_client *client) {
    while (run_commands(client))
        continue;
}

/* ---- timers ---- */

void io_timer_at(struct felix_client *client, uint64_t due_ns) {
    if (due_ns < client->io.timer_due_ns)
        client->io.timer_due_ns = due_ns;
}

static void run_timers(struct felix_client *client) {
    struct client_io *io = &client->io;
    if (io->timer_due_ns > io->now_ns)
        return;
    io->timer_due_ns = LOOP_NO_DEADLINE;
    uint64_t next_ns = client_expire(client, io->now_ns);
    io_timer_at(client, next_ns);
}

/* ---- a turn ---- */

static void take_events(struct felix_client *client, struct io_watch *watch) {
    struct client_io *io = &client->io;
    io->readable = io->readable || watch->readable;
    watch->readable = false;
    if (!watch->failed)
        return;
    watch->failed = false;
    take_refusals(client);
}

uint64_t io_turn(struct felix_client *client, struct io_watch *watch) {
    struct client_io *io = &client->io;
    uint64_t datagrams = counter_get(&io->endpoint->counters.datagrams_in);
    io->now_ns = clock_now_ns();
    take_events(client, watch);
    bool more = io->readable && quic_endpoint_receive(io->endpoint, io->now_ns);
    bool received = counter_get(&io->endpoint->counters.datagrams_in) != datagrams;
    bool worked = received;
    for (int round = 0; round < COMMAND_ROUNDS_PER_TURN && run_commands(client); round++)
        worked = true;
    run_timers(client);
    bool unsent = quic_endpoint_flush(io->endpoint, io->now_ns);
    client_after_turn(client);
    io_watch_socket(client, watch, true);
    if (worked)
        loop_mark_active(&watch->loop, io->now_ns);
    uint64_t due_ns = quic_endpoint_deadline(io->endpoint);
    if (unsent)
        due_ns = 0;
    io->due_ns = io->timer_due_ns < due_ns ? io->timer_due_ns : due_ns;
    /* Where something came, more may have come: the next turn looks before this thread sleeps. */
    io->readable = more || received || unsent;
    return io->readable ? 0 : io->due_ns;
}
