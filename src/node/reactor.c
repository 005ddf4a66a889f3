/*
 * A turn: read everything that is there, handle it, then write everything once. While a turn found
 * work, the next one looks at the socket directly; only a turn without any goes to loop_wait,
 * which spins for a bounded time and then sleeps until a packet, a message or a timer comes.
 */
#include "node/reactor.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "node/admin.h"
#include "node/gather.h"

struct node_mail *node_mail_new(enum node_mail_kind kind, size_t packet_bytes) {
    struct node_mail *mail = xcalloc(1, sizeof *mail + packet_bytes);
    mail->mail.kind = MAIL_NODE;
    mail->kind = kind;
    mail->packet_bytes = packet_bytes;
    return mail;
}

void reactor_post(struct reactor *reactor, struct mail *mail) {
    mailbox_put(&reactor->mailbox, mail);
    loop_wake(&reactor->loop);
}

static void post_to(struct server *server, unsigned target, struct mail *mail) {
    struct reactor *reactor = server->node;
    reactor_post(&reactor->all[target], mail);
}

static void forward_to(struct server *server, unsigned target, const struct sockaddr_storage *local,
                       const struct sockaddr_storage *peer, struct slice packet) {
    struct reactor *reactor = server->node;
    struct node_mail *mail = node_mail_new(NODE_PACKET, packet.len);
    mail->local = *local;
    mail->peer = *peer;
    memcpy(mail->packet, packet.data, packet.len);
    reactor_post(&reactor->all[target], &mail->mail);
}

static void ask_admin(struct server *server, uint64_t session,
                      const struct stream_request *request) {
    struct reactor *reactor = server->node;
    admin_post(reactor->admin, reactor->index, session, request);
}

static void on_socket(struct loop_source *source, uint32_t events) {
    struct reactor *reactor =
        (struct reactor *)(void *)((char *)source - offsetof(struct reactor, socket));
    if ((events & EPOLLIN) != 0)
        reactor->readable = true;
}

enum felix_err reactor_init(struct reactor *reactor, const struct reactor_options *options,
                            struct felix_error *reterr) {
    *reactor = (struct reactor){
        .index = options->index,
        .all = options->all,
        .count = options->count,
        .conn_stats_ns = options->conn_stats_ns,
        .drained = options->drained,
        .admin = options->admin,
    };
    enum felix_err err = loop_init(&reactor->loop, options->spin_ns);
    if (err != FELIX_OK)
        return error_set(reterr, err, errno, "cannot create the event loop of reactor %u",
                         options->index);
    server_init(&reactor->server, options->index, options->count, options->server, options->core);
    reactor->server.node = reactor;
    reactor->server.post = post_to;
    reactor->server.forward = forward_to;
    reactor->server.ask_admin = ask_admin;
    if (options->timings) {
        reactor->stages = xcalloc(STAGE_COUNT, sizeof *reactor->stages);
        reactor->server.stages = reactor->stages;
    }
    struct quic_endpoint_options endpoint = *options->endpoint;
    endpoint.handler = &server_quic_handler;
    endpoint.user = &reactor->server;
    endpoint.reactor = options->index;
    endpoint.reactor_count = options->count;
    err = quic_endpoint_new(&endpoint, &reactor->endpoint, reterr);
    if (err != FELIX_OK) {
        server_deinit(&reactor->server);
        loop_deinit(&reactor->loop);
        free(reactor->stages);
        return err;
    }
    reactor->socket = (struct loop_source){.fd = reactor->endpoint->udp.fd, .on_ready = on_socket};
    return loop_add(&reactor->loop, &reactor->socket, EPOLLIN);
}

void reactor_deinit(struct reactor *reactor) {
    quic_endpoint_free(reactor->endpoint);
    server_deinit(&reactor->server);
    loop_deinit(&reactor->loop);
    free(reactor->stages);
}

void reactor_drop_mail(struct reactor *reactor) {
    for (struct mail *mail = mailbox_take(&reactor->mailbox); mail != NULL;) {
        struct mail *next = mail->next;
        if (mail->kind == MAIL_NODE) {
            struct node_mail *node = (struct node_mail *)mail;
            quic_tls_unref(node->tls);
            auth_keyset_unref(node->keys);
        }
        if (mail->kind == MAIL_ADD)
            stream_log_unref(((struct mail_object *)mail)->start.log);
        mail_free(mail);
        mail = next;
    }
}

static void on_node_mail(struct reactor *reactor, struct node_mail *mail, uint64_t now_ns) {
    switch (mail->kind) {
    case NODE_PACKET:
        quic_endpoint_deliver(reactor->endpoint, &mail->local, &mail->peer,
                              slice_of(mail->packet, mail->packet_bytes), now_ns);
        break;
    case NODE_TLS:
        quic_endpoint_set_tls(reactor->endpoint, mail->tls);
        quic_tls_unref(mail->tls);
        break;
    case NODE_KEYS:
        auth_keyset_unref(reactor->server.keys);
        reactor->server.keys = mail->keys;
        break;
    case NODE_GATHER:
        gather_answer(mail->gather, &reactor->server.core);
        break;
    case NODE_STREAM_ANSWER:
        server_stream_answer(&reactor->server, mail->session, mail->err,
                             slice_of(mail->packet, mail->packet_bytes));
        break;
    case NODE_DRAIN:
        reactor->draining = true;
        quic_endpoint_accept(reactor->endpoint, false);
        server_drain_begin(&reactor->server);
        break;
    case NODE_CLOSE:
        server_close_all(&reactor->server, "broker shutting down");
        break;
    case NODE_STOP:
        reactor->stopping = true;
        break;
    }
    mail_free(&mail->mail);
}

static bool receive_mail(struct reactor *reactor, uint64_t now_ns) {
    struct mail *mail = mailbox_take(&reactor->mailbox);
    bool any = mail != NULL;
    while (mail != NULL) {
        struct mail *next = mail->next;
        if (mail->kind == MAIL_NODE)
            on_node_mail(reactor, (struct node_mail *)mail, now_ns);
        else
            core_receive(&reactor->server.core, mail, now_ns);
        mail = next;
    }
    return any;
}

/* EPOLLOUT is awaited only while the socket's buffer is full. */
static void arm_write(struct reactor *reactor) {
    bool blocked = quic_endpoint_blocked(reactor->endpoint);
    if (blocked == reactor->write_armed)
        return;
    reactor->write_armed = blocked;
    loop_change(&reactor->loop, &reactor->socket, blocked ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

static void check_drained(struct reactor *reactor) {
    if (!reactor->draining || reactor->drain_told || !server_drained(&reactor->server))
        return;
    reactor->drain_told = true;
    (void)sem_post(reactor->drained);
}

/* One line for each connection, every conn_stats_ns. */
static void log_conn_stats(struct reactor *reactor, uint64_t now_ns) {
    if (reactor->conn_stats_ns == 0 || now_ns < reactor->next_stats_ns)
        return;
    reactor->next_stats_ns = now_ns + reactor->conn_stats_ns;
    for (struct quic_conn *conn = reactor->endpoint->conns; conn != NULL; conn = conn->all_next) {
        struct quic_conn_info info;
        char peer[64];
        if (conn->state != CONN_READY)
            continue;
        quic_conn_info(conn, &info);
        LOG_INFO(
            quic, "conn_stats", F_STR("peer", quic_conn_peer_text(conn, peer)),
            F_U64("rtt_us", info.smoothed_rtt_ns / NS_PER_US), F_U64("cwnd_bytes", info.cwnd_bytes),
            F_U64("in_flight_bytes", info.bytes_in_flight), F_U64("mtu_bytes", info.path_mtu_bytes),
            F_U64("streams", conn->stream_count), F_U64("unacked_bytes", conn->unacked_bytes),
            F_U64("packets_in", conn->packets_in), F_U64("packets_out", conn->packets_out),
            F_U64("bytes_in", conn->bytes_in), F_U64("bytes_out", conn->bytes_out));
    }
}

/* The next statistics are due only while there is a connection to report on. */
static uint64_t stats_deadline(const struct reactor *reactor) {
    bool wanted = reactor->conn_stats_ns != 0 && reactor->endpoint->conns != NULL;
    return wanted ? reactor->next_stats_ns : LOOP_NO_DEADLINE;
}

static bool has_work(void *context) {
    struct reactor *reactor = context;
    return !mailbox_empty(&reactor->mailbox);
}

/* Returns whether there is more to do right away. */
static bool turn(struct reactor *reactor) {
    struct server *server = &reactor->server;
    uint64_t now_ns = clock_now_ns();
    uint64_t datagrams = counter_get(&reactor->endpoint->counters.datagrams_in);
    bool more = false;
    server->now_ns = now_ns;
    if (reactor->readable) {
        more = quic_endpoint_receive(reactor->endpoint, now_ns);
        reactor->readable = more;
    }
    bool received = counter_get(&reactor->endpoint->counters.datagrams_in) != datagrams;
    if (received)
        stage_end(server, STAGE_READ, now_ns);
    bool mail = receive_mail(reactor, now_ns);
    if (server->stages != NULL)
        now_ns = clock_now_ns();
    server_turn(server, now_ns);
    uint64_t sends = reactor->endpoint->udp.send_calls;
    uint64_t begin_ns = stage_begin(server);
    bool unfinished = quic_endpoint_flush(reactor->endpoint, now_ns);
    if (reactor->endpoint->udp.send_calls != sends)
        stage_end(server, STAGE_SEND, begin_ns);
    arm_write(reactor);
    check_drained(reactor);
    log_conn_stats(reactor, now_ns);
    if (received || mail) {
        loop_mark_active(&reactor->loop, now_ns);
        reactor->readable = true; /* look at the socket before anything else */
    }
    return more || received || mail || unfinished || server_has_work(server);
}

static void *run(void *context) {
    struct reactor *reactor = context;
    struct server *server = &reactor->server;
    while (!reactor->stopping) {
        if (turn(reactor))
            continue;
        uint64_t deadline_ns = quic_endpoint_deadline(reactor->endpoint);
        uint64_t server_ns = server_deadline(server), stats_ns = stats_deadline(reactor);
        if (server_ns < deadline_ns)
            deadline_ns = server_ns;
        if (stats_ns < deadline_ns)
            deadline_ns = stats_ns;
        loop_wait(&reactor->loop, deadline_ns, has_work, reactor);
        counter_set(&reactor->wakeups, reactor->loop.wakeups);
    }
    (void)turn(reactor); /* what was said last still goes out */
    buf_thread_trim();
    return NULL;
}

enum felix_err reactor_start(struct reactor *reactor) {
    char name[16];
    if (pthread_create(&reactor->thread, NULL, run, reactor) != 0)
        return FELIX_SYSTEM;
    (void)snprintf(name, sizeof name, "felix-shard-%u", reactor->index % 100);
    (void)pthread_setname_np(reactor->thread, name);
    reactor->started = true;
    return FELIX_OK;
}

void reactor_join(struct reactor *reactor) {
    if (reactor->started)
        (void)pthread_join(reactor->thread, NULL);
    reactor->started = false;
}
