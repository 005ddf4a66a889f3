/*
 * Opening: resolve the address, open a socket and the background thread, then wait until one
 * publish stream is authenticated; every other connection opens when it is first needed. An
 * address with several results is tried one after the other within the time.
 *
 * Closing: no new work is taken; what is staged is sent and answered; publish streams are finished
 * and the broker's own end of them awaited, which proves that it read everything; then the
 * thread ends, tells everybody who still waits, and says goodbye on the connections.
 */
#include "client/client.h"

#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/cpu.h"
#include "client/last_error.h"
#include "quic/tls.h"

#define ADDRESSES_MAX 8

/* ---- memory ---- */

static bool is_loopback(const struct sockaddr_storage *address) {
    if (address->ss_family == AF_INET6)
        return IN6_IS_ADDR_LOOPBACK(
            &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr);
    const struct sockaddr_in *ipv4 = (const struct sockaddr_in *)(const void *)address;
    return (ntohl(ipv4->sin_addr.s_addr) >> 24) == 127;
}

static void open_pools(struct felix_client *client) {
    const struct client_settings *settings = client->settings;
    client->link_count[POOL_PUBLISH] = settings->pub_conn_pool;
    client->link_count[POOL_CACHE] = settings->cache_conn_pool;
    client->link_count[POOL_EVENT] = settings->event_conn_pool;
    for (unsigned kind = 0; kind < POOL_KINDS; kind++) {
        client->links[kind] = xcalloc(client->link_count[kind], sizeof(struct link));
        for (unsigned i = 0; i < client->link_count[kind]; i++)
            link_init(&client->links[kind][i], client, (enum pool_kind)kind, i);
    }
    publisher_init(&client->publisher, client);
    kv_init(&client->kv, client);
}

static struct felix_client *client_new(const struct felix_options *options, struct quic_tls *tls,
                                       const struct server_address *address,
                                       const struct sockaddr_storage *peer) {
    struct felix_client *client = xcalloc(1, sizeof *client);
    client->magic = CLIENT_MAGIC;
    client->options = options_copy(options);
    const struct client_settings *settings = &client->options->settings;
    client->settings = settings;
    bool named = settings->server_name[0] != '\0';
    client->server_name = xstrdup(named ? settings->server_name : address->host);
    client->peer = *peer;
    client->tls = quic_tls_ref(tls);
    client->peer_on_host = is_loopback(peer);
    client->spin_ns = cpu_usable() > 1 ? settings->spin_us * NS_PER_US : 0;
    client->timeout_ns = settings->request_timeout_ms * NS_PER_MS;
    client->closing_due_ns = UINT64_MAX;
    rng_seed(&client->rng, rand_u64());
    open_pools(client);
    return client;
}

/* The thread has ended or never started; io_deinit was done. */
static void client_free(struct felix_client *client) {
    for (unsigned kind = 0; kind < POOL_KINDS; kind++) {
        for (unsigned i = 0; i < client->link_count[kind]; i++)
            link_deinit(&client->links[kind][i]);
    }
    publisher_deinit(&client->publisher);
    kv_deinit(&client->kv);
    for (unsigned kind = 0; kind < POOL_KINDS; kind++)
        free(client->links[kind]);
    quic_tls_unref(client->tls);
    free(client->server_name);
    felix_options_free(client->options);
    client->magic = 0;
    free(client);
}

/* ---- opening ---- */

static void opening_answer(struct felix_client *client, enum felix_err err, const char *text) {
    struct client_call *opening = client->opening;
    client->opening = NULL;
    if (opening != NULL)
        client_call_answer(opening, err, text);
}

void client_opened(struct felix_client *client) {
    opening_answer(client, FELIX_OK, "");
}

/* Silence may end: the broker may be starting. A verdict on certificate or token stays. */
void client_open_failed(struct felix_client *client, enum felix_err err, const char *text) {
    if (err == FELIX_TLS || err == FELIX_UNAUTHENTICATED || err == FELIX_FORBIDDEN ||
        err == FELIX_SYSTEM)
        opening_answer(client, err, text);
}

void client_refused(struct felix_client *client, struct slice datagram) {
    opening_answer(client, FELIX_NOT_CONNECTED, "nothing listens there");
    /* From elsewhere anybody could have sent the message; the kernel's own is believed. */
    if (!client->peer_on_host)
        return;
    for (unsigned kind = 0; kind < POOL_KINDS; kind++) {
        for (unsigned i = 0; i < client->link_count[kind]; i++) {
            struct link *link = &client->links[kind][i];
            if (link->conn != NULL && quic_conn_wrote(link->conn, datagram))
                quic_conn_close(link->conn, 0, "nothing listens at the broker's address");
        }
    }
}

static void run_opening(struct felix_client *client, struct io_command *command) {
    client->opening = client_call_of(command);
    publisher_open_first(client);
}

static void stop_opening(struct felix_client *client, struct io_command *command) {
    opening_answer(client, FELIX_TIMED_OUT, "no answer");
    client_call_answer(client_call_of(command), FELIX_OK, "");
}

/* Wait for the first stream until `deadline_ns`. */
static enum felix_err await_open(struct felix_client *client, uint64_t deadline_ns, char *text,
                                 size_t capacity) {
    struct client_call call = {.command.run = run_opening};
    client_call_begin(client, &call);
    io_post(client, &call.command);
    if (!driver_wait(client, &call.waiter, deadline_ns)) {
        /* The answer may come before this is run, so it is this that is waited for. */
        struct client_call stop = {.command.run = stop_opening};
        client_call_begin(client, &stop);
        io_post(client, &stop.command);
        (void)driver_wait(client, &stop.waiter, UINT64_MAX);
    }
    (void)snprintf(text, capacity, "%s", call.text);
    return call.err;
}

/* Open a client towards one address. Returns owned in *ret; the reason in the last error. */
static enum felix_err try_address(const struct felix_options *options, struct quic_tls *tls,
                                  const struct server_address *address,
                                  const struct sockaddr_storage *peer, uint64_t deadline_ns,
                                  struct felix_client **ret) {
    struct felix_client *client = client_new(options, tls, address, peer);
    enum felix_err err = io_init(client, last_error());
    if (err != FELIX_OK) {
        client_free(client);
        return err;
    }
    if (driver_start(client) != FELIX_OK) {
        io_deinit(client);
        client_free(client);
        return last_error_set(FELIX_SYSTEM, "cannot start a thread");
    }
    char text[256];
    err = await_open(client, deadline_ns, text, sizeof text);
    if (err == FELIX_OK) {
        *ret = client;
        return FELIX_OK;
    }
    felix_close(client, 0);
    return last_error_set(err, "cannot connect to %s:%s: %s%s", address->host, address->port, text,
                          err == FELIX_TIMED_OUT || err == FELIX_NOT_CONNECTED
                              ? "; is a Felix broker running at that address?"
                              : "");
}

/* IPv4 first, as the other clients of Felix know only that. */
static enum felix_err resolve(const struct server_address *address,
                              struct sockaddr_storage out[ADDRESSES_MAX], size_t *ret_count) {
    struct addrinfo hints = {.ai_socktype = SOCK_DGRAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *all = NULL;
    int rc = getaddrinfo(address->host, address->port, &hints, &all);
    if (rc != 0)
        return last_error_set(FELIX_NOT_FOUND, "cannot resolve the server's name \"%s\": %s",
                              address->host, gai_strerror(rc));
    size_t count = 0;
    static const int families[] = {AF_INET, AF_INET6};
    for (size_t f = 0; f < sizeof families / sizeof families[0]; f++) {
        for (const struct addrinfo *at = all; at != NULL && count < ADDRESSES_MAX;
             at = at->ai_next) {
            if (at->ai_family != families[f])
                continue;
            out[count] = (struct sockaddr_storage){0};
            memcpy(&out[count++], at->ai_addr, at->ai_addrlen);
        }
    }
    freeaddrinfo(all);
    if (count == 0)
        return last_error_set(FELIX_NOT_FOUND, "\"%s\" has no address of the Internet",
                              address->host);
    *ret_count = count;
    return FELIX_OK;
}

enum felix_err felix_connect(const felix_options *options, uint32_t timeout_ms,
                             felix_client **ret) {
    if (options == NULL || ret == NULL)
        return last_error_set(FELIX_INVALID_ARGUMENT, "felix_connect: an argument is NULL");
    struct server_address address;
    enum felix_err err = options_split_server(options->settings.server, &address, last_error());
    if (err != FELIX_OK)
        return err;
    struct sockaddr_storage peers[ADDRESSES_MAX];
    size_t count = 0;
    err = resolve(&address, peers, &count);
    if (err != FELIX_OK)
        return err;
    const char *ca_file = options->settings.ca_file;
    struct quic_tls *tls = NULL;
    err = quic_tls_client_new(ca_file[0] != '\0' ? ca_file : NULL,
                              (enum quic_cipher)options->settings.quic_cipher, &tls, last_error());
    if (err != FELIX_OK)
        return err;
    uint64_t now_ns = clock_now_ns();
    uint64_t left_ns = (timeout_ms > 0 ? timeout_ms : CLIENT_CONNECT_TIMEOUT_MS) * NS_PER_MS;
    uint64_t deadline_ns = now_ns + left_ns;
    for (size_t i = 0; i < count; i++) {
        uint64_t share_ns = (deadline_ns - now_ns) / (count - i);
        err = try_address(options, tls, &address, &peers[i], now_ns + share_ns, ret);
        now_ns = clock_now_ns();
        if ((err != FELIX_TIMED_OUT && err != FELIX_NOT_CONNECTED) || now_ns >= deadline_ns)
            break;
    }
    quic_tls_unref(tls);
    return err;
}

/* ---- the driver ---- */

uint64_t client_expire(struct felix_client *client, uint64_t now_ns) {
    uint64_t next_ns = client->closing_due_ns;
    for (unsigned kind = 0; kind < POOL_KINDS; kind++) {
        for (unsigned i = 0; i < client->link_count[kind]; i++) {
            uint64_t due_ns = link_expire(&client->links[kind][i], now_ns);
            next_ns = due_ns < next_ns ? due_ns : next_ns;
        }
    }
    const uint64_t others_ns[] = {
        publisher_expire(client, now_ns),
        kv_expire(client, now_ns),
        subscriber_expire(client, now_ns),
        calls_expire(client, now_ns),
    };
    for (size_t i = 0; i < sizeof others_ns / sizeof others_ns[0]; i++)
        next_ns = others_ns[i] < next_ns ? others_ns[i] : next_ns;
    return next_ns;
}

/* Closing, step by step; every turn may be the one that brings the next step. */
static void go_on_closing(struct felix_client *client) {
    struct client_io *io = &client->io;
    struct publisher *publisher = &client->publisher;
    if (io->now_ns >= client->closing_due_ns) {
        io->stop = true;
        return;
    }
    if (!client->finishing) {
        if (!publisher_is_drained(publisher) || !kv_is_idle(client))
            return;
        client->finishing = true;
        publisher_finish(client);
        /* The FINs leave with the next turn, which nothing else would bring. */
        io_timer_at(client, io->now_ns);
    }
    if (publisher_is_finished(publisher))
        io->stop = true;
}

void client_after_turn(struct felix_client *client) {
    if (client->flushes != NULL)
        calls_after_turn(client);
    if (client->closing)
        go_on_closing(client);
}

void client_shut(struct felix_client *client) {
    opening_answer(client, FELIX_CLOSED, "the client was closed");
    calls_shut(client);
    subscriber_shut(client);
    publisher_shut(client);
    kv_shut(client);
    for (unsigned kind = 0; kind < POOL_KINDS; kind++) {
        for (unsigned i = 0; i < client->link_count[kind]; i++) {
            if (client->links[kind][i].conn != NULL)
                quic_conn_close(client->links[kind][i].conn, 0, "");
        }
    }
    (void)quic_endpoint_flush(client->io.endpoint, clock_now_ns());
}

/* ---- closing ---- */

static void run_ending(struct felix_client *client, struct io_command *command) {
    client->closing = true;
    client->closing_due_ns = client->ending.due_ns;
    io_timer_at(client, client->closing_due_ns);
}

void felix_close(felix_client *client, uint32_t timeout_ms) {
    if (client == NULL)
        return;
    OBJ_CHECK(client, CLIENT_MAGIC);
    INVARIANT(!driver_is_thread(client));
    atomic_store_explicit(&client->closed, true, memory_order_relaxed);
    client->ending.command.run = run_ending;
    client->ending.due_ns = clock_now_ns() + timeout_ms * NS_PER_MS;
    io_post(client, &client->ending.command);
    driver_join(client);
    io_deinit(client);
    client_free(client);
    buf_thread_trim();
}

const char *felix_version(void) {
    return FELIX_VERSION;
}

void felix_free(const void *memory) {
    free((void *)(uintptr_t)memory);
}
