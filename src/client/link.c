#include "client/link.h"

#include <stdlib.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "client/client.h"

#define BACKOFF_FIRST_NS (50 * NS_PER_MS)
#define BACKOFF_MAX_NS (5 * NS_PER_S)
#define BACKOFF_DOUBLINGS_MAX 7u

/* A client that subscribes sends little but acknowledgements. The largest datagram that the broker
 * has received is the size of a buffer that it keeps for the connection. */
#define EVENT_MTU_MAX_BYTES 1452u

/* A connection that lived this long was a good one: the next pause is short again. */
#define GOOD_LIFE_NS NS_PER_S

void backoff_reset(struct backoff *backoff) {
    *backoff = (struct backoff){0};
}

void backoff_fail(struct backoff *backoff, struct felix_client *client, uint64_t now_ns) {
    unsigned doublings =
        backoff->failures < BACKOFF_DOUBLINGS_MAX ? backoff->failures : BACKOFF_DOUBLINGS_MAX;
    uint64_t pause_ns = BACKOFF_FIRST_NS << doublings;
    if (pause_ns > BACKOFF_MAX_NS)
        pause_ns = BACKOFF_MAX_NS;
    pause_ns -= rng_below(&client->rng, pause_ns / 2);
    backoff->failures++;
    backoff->due_ns = now_ns + pause_ns;
    io_timer_at(client, backoff->due_ns);
}

void link_init(struct link *link, struct felix_client *client, enum pool_kind kind,
               unsigned index) {
    *link = (struct link){.client = client, .kind = kind, .index = index};
}

void link_deinit(struct link *link) {
    INVARIANT(link->lanes == NULL);
    free(link->token);
    link->token = NULL;
}

static void pause_after(struct link *link, enum felix_err err, const char *text) {
    link->state = LINK_BACKOFF;
    link->conn = NULL;
    LOG_DEBUG(client, "connection_failed", F_STR("error", err_name(err)), F_STR("reason", text));
    backoff_fail(&link->backoff, link->client, link->client->io.now_ns);
    client_open_failed(link->client, err, text);
}

static enum felix_err read_token(struct link *link, struct felix_error *reterr) {
    char *token = NULL;
    enum felix_err err = options_token(link->client->settings, &token, reterr);
    if (err != FELIX_OK)
        return err;
    free(link->token);
    link->token = token;
    return FELIX_OK;
}

const char *link_token(struct link *link) {
    struct felix_error ignored = {0};
    (void)read_token(link, &ignored);
    return link->token;
}

static void open_link(struct link *link) {
    struct felix_client *client = link->client;
    struct felix_error error = {0};
    enum felix_err err = read_token(link, &error);
    if (err != FELIX_OK) {
        pause_after(link, err, error.text);
        return;
    }
    link->state = LINK_CONNECTING;
    struct quic_target target = {
        .tls = client->tls,
        .server_name = client->server_name,
        .peer = &client->peer,
        .mtu_max_bytes = link->kind == POOL_EVENT ? EVENT_MTU_MAX_BYTES : 0,
    };
    link->conn = quic_connect(client->io.endpoint, &target, link, client->io.now_ns);
    if (link->conn == NULL)
        pause_after(link, FELIX_TLS, "cannot start a TLS session");
}

void link_want(struct link *link) {
    if (link->state == LINK_UNUSED)
        open_link(link);
}

void link_pump(struct link *link) {
    if (link->state != LINK_OPEN)
        return;
    switch (link->kind) {
    case POOL_PUBLISH:
        publisher_pump(link);
        break;
    case POOL_CACHE:
        kv_pump(link);
        break;
    case POOL_EVENT:
        subscriber_pump(link);
        break;
    case POOL_KINDS:
        UNREACHED();
    }
}

uint64_t link_expire(struct link *link, uint64_t now_ns) {
    uint64_t next_ns = lane_expire(link, now_ns);
    if (link->state != LINK_BACKOFF)
        return next_ns;
    if (link->backoff.due_ns <= now_ns)
        open_link(link);
    if (link->state == LINK_BACKOFF && link->backoff.due_ns < next_ns)
        next_ns = link->backoff.due_ns;
    return next_ns;
}

void link_on_ready(struct link *link) {
    struct felix_client *client = link->client;
    link->state = LINK_OPEN;
    link->opened_ns = client->io.now_ns;
    counter_add(&client->counters.connections, 1);
    counter_add(&client->counters.connects, 1);
    if (link->was_open)
        counter_add(&client->counters.reconnects, 1);
    link->was_open = true;
    link_pump(link);
}

static const char *close_text(const struct quic_close *close) {
    if (close->reason[0] != '\0')
        return close->reason;
    return close->by_peer ? "closed by the broker" : err_text(close->err);
}

void link_on_closed(struct link *link, const struct quic_close *close) {
    struct felix_client *client = link->client;
    if (link->state == LINK_OPEN) {
        counter_sub(&client->counters.connections, 1);
        if (client->io.now_ns - link->opened_ns >= GOOD_LIFE_NS)
            backoff_reset(&link->backoff);
    }
    enum felix_err err = close->err != FELIX_OK ? close->err : FELIX_NOT_CONNECTED;
    pause_after(link, err, close_text(close));
}
