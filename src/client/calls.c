/*
 * Calls that wait for the driver: how they wait, flush, ping, statistics.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/clock.h"
#include "client/client.h"
#include "client/last_error.h"
#include "client/request.h"

void client_call_begin(struct felix_client *client, struct client_call *call) {
    waiter_reset(&call->waiter);
    call->cursor = (struct felix_cursor_error){0};
    driver_expect(client);
}

enum felix_err client_call_wait(struct felix_client *client, struct client_call *call) {
    (void)driver_wait(client, &call->waiter, UINT64_MAX);
    if (call->err == FELIX_OK)
        return FELIX_OK;
    last_error_set_cursor(call->cursor);
    return last_error_set(call->err, "%s", call->text);
}

void client_call_answer(struct client_call *call, enum felix_err err, const char *text) {
    call->err = err;
    (void)snprintf(call->text, sizeof call->text, "%s", text);
    waiter_signal(&call->waiter);
}

static enum felix_err check_blocking(struct felix_client *client, const char *what) {
    if (client == NULL)
        return last_error_set(FELIX_INVALID_ARGUMENT, "%s: client is NULL", what);
    if (driver_is_thread(client))
        return last_error_set(FELIX_INVALID_ARGUMENT, "%s from a callback", what);
    if (atomic_load_explicit(&client->closed, memory_order_relaxed))
        return last_error_set(FELIX_CLOSED, "the client is closed");
    return FELIX_OK;
}

/* ---- flush ---- */

struct client_flush {
    struct client_call call; /* first: client_call_of gives the flush */
    struct client_flush *next;
    struct publisher_mark *marks;
    uint64_t due_ns;
};

static void run_flush(struct felix_client *client, struct io_command *command) {
    struct client_flush *flush = (struct client_flush *)client_call_of(command);
    if (client->closing) {
        client_call_answer(&flush->call, FELIX_CLOSED, "the client is closed");
        return;
    }
    flush->next = client->flushes;
    client->flushes = flush;
    io_timer_at(client, flush->due_ns);
}

enum felix_err felix_flush(felix_client *client, uint32_t timeout_ms) {
    enum felix_err err = check_blocking(client, "felix_flush");
    if (err != FELIX_OK)
        return err;
    struct client_flush flush = {
        .call.command.run = run_flush,
        .marks = xcalloc(client->publisher.shard_count, sizeof *flush.marks),
        .due_ns = clock_now_ns() + timeout_ms * NS_PER_MS,
    };
    publisher_mark(&client->publisher, flush.marks);
    client_call_begin(client, &flush.call);
    io_post(client, &flush.call.command);
    err = client_call_wait(client, &flush.call);
    free(flush.marks);
    return err;
}

/* Take the flush at `at` out of the list and answer it. */
static void answer_flush(struct client_flush **at, enum felix_err err, const char *text) {
    struct client_flush *flush = *at;
    *at = flush->next;
    client_call_answer(&flush->call, err, text);
}

void calls_after_turn(struct felix_client *client) {
    struct client_flush **at = &client->flushes;
    while (*at != NULL) {
        if (publisher_reached(&client->publisher, (*at)->marks))
            answer_flush(at, FELIX_OK, "");
        else
            at = &(*at)->next;
    }
}

static uint64_t expire_flushes(struct felix_client *client, uint64_t now_ns) {
    uint64_t next_ns = UINT64_MAX;
    struct client_flush **at = &client->flushes;
    while (*at != NULL) {
        if ((*at)->due_ns <= now_ns) {
            answer_flush(at, FELIX_TIMED_OUT, "not everything was answered or sent in time");
            continue;
        }
        if ((*at)->due_ns < next_ns)
            next_ns = (*at)->due_ns;
        at = &(*at)->next;
    }
    return next_ns;
}

/* ---- ping ---- */

/* The protocol has no ping of its own; the shortest question that a broker answers is `auth` on a
 * new stream. */
struct client_ping {
    struct client_call call; /* first: client_call_of gives the ping */
    struct client_ping *next;
    struct lane *lane;
    uint64_t start_ns, rtt_ns, due_ns;
};

static void answer_ping(struct client_ping *ping, struct felix_client *client, enum felix_err err,
                        const char *text) {
    struct client_ping **at = &client->pings;
    while (*at != ping)
        at = &(*at)->next;
    *at = ping->next;
    client_call_answer(&ping->call, err, text);
}

static void ping_ready(struct lane *lane) {
    struct client_ping *ping = lane->owner;
    ping->rtt_ns = clock_now_ns() - ping->start_ns;
    lane_release(lane);
    answer_ping(ping, lane->client, FELIX_OK, "");
}

static bool ping_frame(struct lane *lane, struct frame *frame) {
    return false; /* released when it was ready: none comes */
}

static void ping_over(struct lane *lane, enum felix_err err, const char *text) {
    answer_ping(lane->owner, lane->client, err, text);
}

static const struct lane_ops ping_ops = {
    .ready = ping_ready,
    .frame = ping_frame,
    .over = ping_over,
};

static void run_ping(struct felix_client *client, struct io_command *command) {
    struct client_ping *ping = (struct client_ping *)client_call_of(command);
    struct link *link = &client->links[POOL_PUBLISH][0];
    if (client->closing) {
        client_call_answer(&ping->call, FELIX_CLOSED, "the client is closed");
        return;
    }
    if (link->state != LINK_OPEN) {
        client_call_answer(&ping->call, FELIX_NOT_CONNECTED, "the connection is lost at present");
        return;
    }
    ping->lane = lane_open(link, &ping_ops, ping);
    if (ping->lane == NULL) {
        client_call_answer(&ping->call, FELIX_LIMIT, "the broker grants no more streams");
        return;
    }
    ping->next = client->pings;
    client->pings = ping;
    io_timer_at(client, ping->due_ns);
}

enum felix_err felix_ping(felix_client *client, uint32_t timeout_ms, uint64_t *ret_ns) {
    enum felix_err err = check_blocking(client, "felix_ping");
    if (err != FELIX_OK)
        return err;
    struct client_ping ping = {.call.command.run = run_ping, .start_ns = clock_now_ns()};
    ping.due_ns = ping.start_ns + timeout_ms * NS_PER_MS;
    client_call_begin(client, &ping.call);
    io_post(client, &ping.call.command);
    err = client_call_wait(client, &ping.call);
    if (err == FELIX_OK && ret_ns != NULL)
        *ret_ns = ping.rtt_ns;
    return err;
}

static uint64_t expire_pings(struct felix_client *client, uint64_t now_ns) {
    uint64_t next_ns = UINT64_MAX;
    for (struct client_ping *ping = client->pings, *next = NULL; ping != NULL; ping = next) {
        next = ping->next;
        if (ping->due_ns <= now_ns) {
            lane_abandon(ping->lane);
            answer_ping(ping, client, FELIX_TIMED_OUT, "no answer in time");
        } else if (ping->due_ns < next_ns) {
            next_ns = ping->due_ns;
        }
    }
    return next_ns;
}

/* ---- all ---- */

uint64_t calls_expire(struct felix_client *client, uint64_t now_ns) {
    uint64_t next_ns = expire_flushes(client, now_ns);
    uint64_t ping_ns = expire_pings(client, now_ns);
    uint64_t request_ns = requests_expire(client, now_ns);
    next_ns = ping_ns < next_ns ? ping_ns : next_ns;
    return request_ns < next_ns ? request_ns : next_ns;
}

void calls_shut(struct felix_client *client) {
    while (client->flushes != NULL)
        answer_flush(&client->flushes, FELIX_CLOSED, "the client was closed");
    while (client->pings != NULL) {
        lane_abandon(client->pings->lane);
        answer_ping(client->pings, client, FELIX_CLOSED, "the client was closed");
    }
    requests_shut(client);
}

/* ---- statistics ---- */

void felix_client_stats(felix_client *client, struct felix_stats *ret) {
    *ret = (struct felix_stats){0};
    if (client == NULL)
        return;
    const struct client_counters *counters = &client->counters;
    const struct quic_counters *quic = &client->io.endpoint->counters;
    ret->connections = counter_get(&counters->connections);
    ret->connects = counter_get(&counters->connects);
    ret->reconnects = counter_get(&counters->reconnects);
    publisher_stats(&client->publisher, ret);
    ret->publish_acked = counter_get(&counters->publish_acked);
    ret->publish_failed = counter_get(&counters->publish_failed);
    ret->received = counter_get(&counters->received);
    ret->receive_bytes = counter_get(&counters->receive_bytes);
    ret->receive_dropped = counter_get(&counters->receive_dropped);
    ret->cache_requests = counter_get(&counters->cache_requests);
    ret->cache_failures = counter_get(&counters->cache_failures);
    ret->datagrams_in = counter_get(&quic->datagrams_in);
    ret->datagrams_out = counter_get(&quic->datagrams_out);
    ret->bytes_in = counter_get(&quic->bytes_in);
    ret->bytes_out = counter_get(&quic->bytes_out);
}
