/*
 * Appends to a durable stream, each answered: closed loop on one thread, `in_flight` appends on
 * their way, spread over the connections; the answer to one issues the next. What the answers of
 * one read allow leaves in one write, and what one look at all connections brought is served
 * before the next look.
 *
 * Reading back: all records from the first on, on one connection. A record of another length ends
 * the program.
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
    struct text request, out;
    uint64_t *start_ns; /* ring of the appends on their way, oldest at `oldest` */
    size_t oldest, count, depth;
};

struct load {
    const struct run_settings *settings;
    const struct durable_protocol *protocol;
    struct connection *connections;
    uint64_t counted_ns, end_ns, last_ns; /* answers within these count */
    uint64_t issued, counted, in_flight;
    struct hist hist;
    int epoll;
};

static bool may_issue(const struct load *load, uint64_t now_ns) {
    if (load->settings->records != 0)
        return load->issued < load->settings->records;
    return now_ns < load->end_ns;
}

static void add_request(struct load *load, struct connection *c, uint64_t now_ns) {
    text_bytes(&c->out, slice_of(c->request.data, c->request.len));
    c->start_ns[(c->oldest + c->count) % c->depth] = now_ns;
    c->count++;
    load->in_flight++;
    load->issued++;
}

static void send_requests(struct connection *c) {
    if (c->out.len > 0)
        link_write(&c->link, c->out.data, c->out.len);
    text_reset(&c->out);
}

static void take_answer(struct load *load, struct connection *c, uint64_t now_ns) {
    uint64_t start_ns = c->start_ns[c->oldest];
    if (c->count == 0)
        load_fail("the peer answered what nobody asked");
    c->oldest = (c->oldest + 1) % c->depth;
    c->count--;
    load->in_flight--;
    if (start_ns < load->counted_ns || now_ns > load->end_ns)
        return;
    hist_record(&load->hist, now_ns - start_ns);
    load->counted++;
    load->last_ns = now_ns;
}

static void serve(struct load *load, struct connection *c) {
    if (!link_fill(&c->link))
        return;
    uint64_t now_ns = clock_now_ns();
    for (;;) {
        struct item item = protocol_take(&c->link, load->protocol->next);
        if (item.kind == ITEM_INCOMPLETE)
            break;
        if (item.kind != ITEM_ANSWER)
            continue;
        take_answer(load, c, now_ns);
        if (may_issue(load, now_ns))
            add_request(load, c, now_ns);
    }
    send_requests(c);
}

static void begin(struct load *load) {
    const struct run_settings *settings = load->settings;
    uint64_t now_ns = clock_now_ns();
    bool timed = settings->records == 0;
    load->counted_ns = now_ns + (timed ? settings->warmup_ns : 0);
    load->end_ns = timed ? load->counted_ns + settings->duration_ns : UINT64_MAX;
    for (size_t i = 0; i < settings->connections; i++) {
        struct connection *c = &load->connections[i];
        for (size_t k = 0; k < c->depth && may_issue(load, now_ns); k++)
            add_request(load, c, now_ns);
        send_requests(c);
    }
}

static void append_all(struct load *load) {
    int idle_ms = (int)(load->settings->idle_ns / NS_PER_MS);
    begin(load);
    while (load->in_flight > 0) {
        struct epoll_event ready[READY_MAX];
        int count = epoll_wait(load->epoll, ready, READY_MAX, idle_ms);
        if (count == 0)
            load_fail("%llu answers are missing", (unsigned long long)load->in_flight);
        for (int i = 0; i < count; i++) {
            struct connection *c = ready[i].data.ptr;
            do {
                serve(load, c);
            } while (link_pending(&c->link));
        }
    }
    double seconds = (double)(load->last_ns - load->counted_ns) / 1e9;
    double rate = load->counted == 0 ? 0 : (double)load->counted / seconds;
    (void)printf("{\"records\":%llu,\"seconds\":%.3f,\"records_per_s\":%.1f,\"bytes_per_s\":%.0f,"
                 "\"p50_us\":%.3f,\"p99_us\":%.3f}\n",
                 (unsigned long long)load->counted, seconds, rate,
                 rate * (double)load->settings->payload_bytes,
                 (double)hist_percentile_ns(&load->hist, 50) / 1e3,
                 (double)hist_percentile_ns(&load->hist, 99) / 1e3);
}

static void read_all(struct load *load) {
    struct link *link = &load->connections[0].link;
    uint64_t received = 0, start_ns = clock_now_ns();
    load->protocol->replay(link);
    link->wait = true;
    while (received < load->settings->records) {
        struct item item = protocol_take(link, load->protocol->next);
        if (item.kind == ITEM_INCOMPLETE)
            (void)link_fill(link);
        if (item.kind != ITEM_MESSAGE)
            continue;
        if (item.payload.len != load->settings->payload_bytes)
            load_fail("a record of %zu bytes", item.payload.len);
        received++;
    }
    double seconds = (double)(clock_now_ns() - start_ns) / 1e9;
    (void)printf("{\"records\":%llu,\"seconds\":%.3f,\"bytes_per_s\":%.0f}\n",
                 (unsigned long long)received, seconds,
                 (double)received * (double)load->settings->payload_bytes / seconds);
}

static void open_connections(struct load *load) {
    const struct run_settings *settings = load->settings;
    load->connections = xcalloc(settings->connections, sizeof *load->connections);
    load->epoll = epoll_create1(EPOLL_CLOEXEC);
    for (size_t i = 0; i < settings->connections; i++) {
        struct connection *c = &load->connections[i];
        link_open(&c->link, &settings->target);
        load->protocol->greet(&c->link, (unsigned)i);
        if (i == 0 && !settings->replay)
            load->protocol->make(&c->link);
        (void)load->protocol->append(&c->request, settings->payload_bytes, (unsigned)i);
        c->depth = settings->in_flight / settings->connections;
        c->start_ns = xcalloc(c->depth, sizeof *c->start_ns);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        if (epoll_ctl(load->epoll, EPOLL_CTL_ADD, c->link.fd, &event) != 0)
            load_fail("epoll: %s", strerror(errno));
    }
}

void durable_run(const struct run_settings *settings, const struct durable_protocol *protocol) {
    static struct load load;
    load.settings = settings;
    load.protocol = protocol;
    open_connections(&load);
    if (settings->replay)
        read_all(&load);
    else
        append_all(&load);
    for (size_t i = 0; i < settings->connections; i++) {
        struct connection *c = &load.connections[i];
        link_close(&c->link);
        text_deinit(&c->request);
        text_deinit(&c->out);
        free(c->start_ns);
    }
    free(load.connections);
}
