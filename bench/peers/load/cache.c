/*
 * Closed loop on one thread, as in cachedemo: `in_flight` operations are on their way, spread over
 * the connections, and the answer to one issues the next. The operations that the answers of one
 * read allow leave in one write, which is the best that a pipelining client can do.
 *
 * A delay is the time from the write to the read that brought the answer.
 */
#include "run.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/hist.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#define READY_MAX 64

struct connection {
    struct link link;
    struct text out;      /* requests of this turn */
    uint64_t *start_ns;   /* ring of the requests on their way, oldest at `oldest` */
    size_t oldest, count; /* of the ring */
    size_t depth;         /* its size */
};

struct load {
    const struct run_settings *settings;
    const struct cache_protocol *protocol;
    struct connection *connections;
    struct text request;
    size_t key_at, value_at;
    uint64_t next_key;
    struct hist hist;
    uint64_t finished;
    int epoll;
};

/* The value of a key: its number, then bytes that follow from it. */
static void fill_value(uint8_t *out, size_t len, uint64_t key) {
    for (size_t i = 0; i < len; i++)
        out[i] = (uint8_t)(key + i * 31);
}

static void make_request(struct load *load, bool put) {
    text_reset(&load->request);
    load->key_at =
        put ? load->protocol->put(&load->request, load->settings->payload_bytes, &load->value_at)
            : load->protocol->get(&load->request);
}

static void add_request(struct load *load, struct connection *c, bool put) {
    uint64_t key = load->next_key++ % load->settings->keys;
    char digits[24];
    (void)snprintf(digits, sizeof digits, "%0*llu", CACHE_KEY_DIGITS, (unsigned long long)key);
    memcpy(load->request.data + load->key_at, digits, CACHE_KEY_DIGITS);
    if (put)
        load->request.data[load->value_at] = (char)key; /* no two puts in a row are alike */
    text_bytes(&c->out, slice_of(load->request.data, load->request.len));
    c->count++;
}

/* Sends what this turn made: the last `fresh` requests of the ring begin now. */
static void send_requests(struct connection *c, size_t fresh) {
    uint64_t now_ns = clock_now_ns();
    for (size_t i = c->count - fresh; i < c->count; i++)
        c->start_ns[(c->oldest + i) % c->depth] = now_ns;
    if (c->out.len > 0)
        link_write(&c->link, c->out.data, c->out.len);
    text_reset(&c->out);
}

static void take_answer(struct load *load, struct connection *c, uint64_t now_ns, bool put,
                        struct item item) {
    if (item.kind != ITEM_ANSWER || c->count == 0)
        load_fail("the peer sent what nobody asked for");
    if (!put && item.payload.len != load->settings->payload_bytes)
        load_fail("a value of %zu bytes instead of %llu", item.payload.len,
                  (unsigned long long)load->settings->payload_bytes);
    hist_record(&load->hist, now_ns - c->start_ns[c->oldest]);
    c->oldest = (c->oldest + 1) % c->depth;
    c->count--;
    load->finished++;
}

/* Takes in answers of one connection, and issues as many requests unless the time is up. */
static void serve(struct load *load, struct connection *c, bool put, uint64_t end_ns) {
    if (!link_fill(&c->link))
        return;
    uint64_t now_ns = clock_now_ns();
    size_t fresh = 0;
    for (;;) {
        struct item item = protocol_take(&c->link, load->protocol->next);
        if (item.kind == ITEM_INCOMPLETE)
            break;
        take_answer(load, c, now_ns, put, item);
        if (now_ns < end_ns) {
            add_request(load, c, put);
            fresh++;
        }
    }
    send_requests(c, fresh);
}

static uint64_t in_flight(const struct load *load) {
    uint64_t sum = 0;
    for (size_t i = 0; i < load->settings->connections; i++)
        sum += load->connections[i].count;
    return sum;
}

/* Returns the nanoseconds until the last answer. */
static uint64_t run_phase(struct load *load, bool put, uint64_t duration_ns) {
    make_request(load, put);
    hist_reset(&load->hist);
    load->finished = 0;
    int idle_ms = (int)(load->settings->idle_ns / NS_PER_MS);
    uint64_t start_ns = clock_now_ns();
    for (size_t i = 0; i < load->settings->connections; i++) {
        struct connection *c = &load->connections[i];
        for (size_t k = 0; k < c->depth; k++)
            add_request(load, c, put);
        send_requests(c, c->depth);
    }
    while (in_flight(load) > 0) {
        struct epoll_event ready[READY_MAX];
        int count = epoll_wait(load->epoll, ready, READY_MAX, idle_ms);
        if (count == 0)
            load_fail("%llu answers are missing", (unsigned long long)in_flight(load));
        for (int i = 0; i < count; i++) {
            struct connection *c = ready[i].data.ptr;
            do {
                serve(load, c, put, start_ns + duration_ns);
            } while (link_pending(&c->link));
        }
    }
    return clock_now_ns() - start_ns;
}

/* Stores every key with its value and reads one back. */
static void store_keys(struct load *load) {
    struct link *link = &load->connections[0].link;
    size_t len = load->settings->payload_bytes;
    uint8_t *value = xmalloc(len + 1);
    char digits[24];
    make_request(load, true);
    for (uint64_t key = 0; key < load->settings->keys; key++) {
        (void)snprintf(digits, sizeof digits, "%0*llu", CACHE_KEY_DIGITS, (unsigned long long)key);
        memcpy(load->request.data + load->key_at, digits, CACHE_KEY_DIGITS);
        fill_value(value, len, key);
        memcpy(load->request.data + load->value_at, value, len);
        (void)protocol_ask(link, load->request.data, load->request.len, load->protocol->next,
                           ITEM_ANSWER);
    }
    make_request(load, false);
    memcpy(load->request.data + load->key_at, digits, CACHE_KEY_DIGITS);
    struct item item = protocol_ask(link, load->request.data, load->request.len,
                                    load->protocol->next, ITEM_ANSWER);
    if (!slice_equal(item.payload, slice_of(value, len)))
        load_fail("a value came back changed");
    free(value);
}

static void open_connections(struct load *load) {
    const struct run_settings *settings = load->settings;
    load->connections = xcalloc(settings->connections, sizeof *load->connections);
    load->epoll = epoll_create1(EPOLL_CLOEXEC);
    for (size_t i = 0; i < settings->connections; i++) {
        struct connection *c = &load->connections[i];
        link_open(&c->link, &settings->target);
        c->depth = settings->in_flight / settings->connections;
        c->start_ns = xcalloc(c->depth, sizeof *c->start_ns);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        if (epoll_ctl(load->epoll, EPOLL_CTL_ADD, c->link.fd, &event) != 0)
            load_fail("epoll: %s", strerror(errno));
    }
}

void cache_run(const struct run_settings *settings, const struct cache_protocol *protocol) {
    static struct load load;
    load.settings = settings;
    load.protocol = protocol;
    open_connections(&load);
    store_keys(&load);
    (void)run_phase(&load, settings->put, settings->warmup_ns);
    uint64_t elapsed_ns = run_phase(&load, settings->put, settings->duration_ns);
    (void)printf("{\"operations\":%llu,\"elapsed_us\":%.1f,\"throughput\":%.2f,\"p50_us\":%.3f,"
                 "\"p99_us\":%.3f}\n",
                 (unsigned long long)load.finished, (double)elapsed_ns / 1e3,
                 (double)load.finished * 1e9 / (double)elapsed_ns,
                 (double)hist_percentile_ns(&load.hist, 50) / 1e3,
                 (double)hist_percentile_ns(&load.hist, 99) / 1e3);
    for (size_t i = 0; i < settings->connections; i++) {
        link_close(&load.connections[i].link);
        text_deinit(&load.connections[i].out);
        free(load.connections[i].start_ns);
    }
    free(load.connections);
    text_deinit(&load.request);
}
