/*
 * One thread publishes on one connection; another takes in what the subscribers get, each of which
 * has a connection. A message begins with 16 bytes, its number and the time of its building, as in
 * latencydemo. Every subscriber must get every message once and in order: another number than the
 * next one fails the run at once, and so does silence of `idle_ns` while something is missing.
 *
 * Without acknowledgements: messages leave in blocks of many, and the publisher stays at most
 * `window_bytes` ahead of the slowest subscriber. Peers do not hold a publisher back for a slow
 * subscriber, they queue and in the end drop; the window keeps them at what they are good at.
 * Acknowledged: a message, then its answer, then the next one.
 */
#include "run.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/cursor.h"
#include "base/hist.h"
#include "base/rand.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#define STAMP_BYTES 16
#define BATCH 64                       /* messages that share a time, as in latencydemo's batches */
#define BLOCK_BYTES ((size_t)64 << 10) /* at least, of one write */
#define READY_MAX 64
#define CACHE_LINE 64

struct subscriber {
    struct link link;
    uint64_t received;
};

struct run {
    const struct run_settings *settings;
    const struct protocol *protocol;
    size_t message_bytes; /* with the stamp */

    /* The publisher's. */
    struct link link;
    struct text block; /* `block_count` messages, `stride` bytes each */
    size_t block_count, stride, stamp_at;
    uint64_t sent;

    /* The subscribing thread's, until it has ended. */
    struct subscriber *subscribers;
    struct hist hist; /* of the first one's delays */

    /* Shared. */
    uint64_t first; /* what stands for number 0: messages of somebody else do not fit */
    _Alignas(CACHE_LINE) _Atomic uint64_t measured_from; /* the number where warming up ends */
    _Alignas(CACHE_LINE) _Atomic uint64_t low;           /* what every subscriber has received */
    _Atomic uint64_t last_ns;                            /* when the last delivery came */
    _Atomic uint64_t wanted; /* the publisher waits for `low` to reach this */
    _Atomic bool stop;
    sem_t wake;
};

/* ---- the subscribing thread ---- */

static void count_messages(struct run *run, struct subscriber *s) {
    bool sampled = s == run->subscribers;
    uint64_t measured_from = atomic_load_explicit(&run->measured_from, memory_order_relaxed);
    uint64_t now_ns = clock_now_ns();
    for (;;) {
        struct item item = protocol_take(&s->link, run->protocol->next);
        if (item.kind == ITEM_INCOMPLETE)
            break;
        if (item.kind != ITEM_MESSAGE)
            continue;
        if (item.payload.len != run->message_bytes)
            load_fail("a delivery of %zu bytes instead of %zu", item.payload.len,
                      run->message_bytes);
        uint64_t number = be64_load(item.payload.data) - run->first;
        if (number != s->received)
            load_fail("deliveries are missing or come twice: number %llu instead of %llu",
                      (unsigned long long)number, (unsigned long long)s->received);
        s->received++;
        if (sampled && number >= measured_from)
            hist_record(&run->hist, now_ns - be64_load(item.payload.data + 8));
    }
    atomic_store_explicit(&run->last_ns, now_ns, memory_order_relaxed);
}

static void tell_publisher(struct run *run) {
    uint64_t low = UINT64_MAX;
    for (size_t i = 0; i < run->settings->fanout; i++)
        low = run->subscribers[i].received < low ? run->subscribers[i].received : low;
    atomic_store(&run->low, low);
    uint64_t wanted = atomic_load(&run->wanted);
    if (wanted != 0 && low >= wanted && atomic_compare_exchange_strong(&run->wanted, &wanted, 0))
        (void)sem_post(&run->wake);
}

static void *subscribe_loop(void *context) {
    struct run *run = context;
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    for (size_t i = 0; i < run->settings->fanout; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &run->subscribers[i]};
        if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, run->subscribers[i].link.fd, &event) != 0)
            load_fail("epoll: %s", strerror(errno));
    }
    while (!atomic_load_explicit(&run->stop, memory_order_relaxed)) {
        struct epoll_event ready[READY_MAX];
        int count = epoll_wait(epoll, ready, READY_MAX, 100);
        for (int i = 0; i < count; i++) {
            struct subscriber *s = ready[i].data.ptr;
            do {
                if (link_fill(&s->link))
                    count_messages(run, s);
            } while (link_pending(&s->link));
        }
        if (count > 0)
            tell_publisher(run);
    }
    return NULL;
}

/* ---- the publishing thread ---- */

/* Waits until every subscriber has received `count` messages since the start. */
static void wait_for(struct run *run, uint64_t count) {
    while (atomic_load(&run->low) < count) {
        atomic_store(&run->wanted, count);
        if (atomic_load(&run->low) >= count)
            break;
        struct timespec until;
        (void)clock_gettime(CLOCK_REALTIME, &until);
        uint64_t end_ns = (uint64_t)until.tv_nsec + run->settings->idle_ns;
        until.tv_sec += (time_t)(end_ns / NS_PER_S);
        until.tv_nsec = (long)(end_ns % NS_PER_S);
        int status;
        while ((status = sem_timedwait(&run->wake, &until)) != 0 && errno == EINTR) {
        }
        if (status == 0)
            continue;
        uint64_t last_ns = atomic_load(&run->last_ns);
        if (clock_now_ns() > last_ns + run->settings->idle_ns)
            load_fail("deliveries are missing: the slowest subscriber has %llu of %llu",
                      (unsigned long long)atomic_load(&run->low), (unsigned long long)count);
    }
    atomic_store(&run->wanted, 0);
}

/* Message `index` of the block becomes the one after all that were sent and those before it. */
static void stamp(struct run *run, size_t index, uint64_t now_ns) {
    uint8_t *at = (uint8_t *)run->block.data + index * run->stride + run->stamp_at;
    be64_store(at, run->first + run->sent + index);
    be64_store(at + 8, now_ns);
}

static void publish_blocks(struct run *run, uint64_t end_ns) {
    uint64_t window = run->settings->window_bytes / run->message_bytes;
    window = window < 2 * run->block_count ? 2 * run->block_count : window;
    do {
        for (size_t i = 0; i < run->block_count; i += BATCH) {
            uint64_t now_ns = clock_now_ns();
            for (size_t k = i; k < i + BATCH; k++)
                stamp(run, k, now_ns);
        }
        uint64_t after = run->sent + run->block_count;
        if (after > atomic_load_explicit(&run->low, memory_order_relaxed) + window)
            wait_for(run, after - window / 2);
        link_write(&run->link, run->block.data, run->block.len);
        run->sent = after;
    } while (clock_now_ns() < end_ns);
}

static void publish_singly(struct run *run, uint64_t end_ns) {
    uint64_t now_ns = clock_now_ns();
    do {
        stamp(run, 0, now_ns);
        (void)protocol_ask(&run->link, run->block.data, run->stride, run->protocol->next,
                           ITEM_ANSWER);
        run->sent++;
        now_ns = clock_now_ns();
    } while (now_ns < end_ns);
}

struct phase_result {
    uint64_t sent, elapsed_ns;
};

static struct phase_result run_phase(struct run *run, uint64_t duration_ns) {
    uint64_t sent_before = run->sent;
    uint64_t start_ns = clock_now_ns();
    if (run->settings->acked)
        publish_singly(run, start_ns + duration_ns);
    else
        publish_blocks(run, start_ns + duration_ns);
    wait_for(run, run->sent);
    return (struct phase_result){.sent = run->sent - sent_before,
                                 .elapsed_ns = atomic_load(&run->last_ns) - start_ns};
}

/* ---- a run ---- */

static void prepare_block(struct run *run) {
    struct text one = {0};
    run->stamp_at = run->protocol->message(&one, run->message_bytes, run->settings->acked);
    run->stride = one.len;
    size_t batches = run->settings->acked ? 1 : 1 + BLOCK_BYTES / (BATCH * one.len);
    run->block_count = batches * BATCH;
    for (size_t i = 0; i < run->block_count; i++)
        text_bytes(&run->block, slice_of(one.data, one.len));
    text_deinit(&one);
}

static void report(struct run *run, const struct phase_result *result) {
    uint64_t expected = result->sent * run->settings->fanout;
    uint64_t delivered = 0;
    for (size_t i = 0; i < run->settings->fanout; i++)
        delivered += run->subscribers[i].received - (run->sent - result->sent);
    if (delivered != expected)
        load_fail("%llu deliveries instead of %llu", (unsigned long long)delivered,
                  (unsigned long long)expected);
    double rate = (double)delivered * 1e9 / (double)result->elapsed_ns;
    (void)printf("{\"sent\":%llu,\"expected\":%llu,\"delivered\":%llu,\"elapsed_us\":%.1f,"
                 "\"delivered_throughput\":%.2f,\"p50_us\":%.3f,\"p99_us\":%.3f}\n",
                 (unsigned long long)result->sent, (unsigned long long)expected,
                 (unsigned long long)delivered, (double)result->elapsed_ns / 1e3, rate,
                 (double)hist_percentile_ns(&run->hist, 50) / 1e3,
                 (double)hist_percentile_ns(&run->hist, 99) / 1e3);
}

void pubsub_run(const struct run_settings *settings, const struct protocol *protocol) {
    static struct run run;
    run.settings = settings;
    run.protocol = protocol;
    run.first = rand_u64();
    run.measured_from = UINT64_MAX;
    run.message_bytes = STAMP_BYTES + settings->payload_bytes;
    (void)sem_init(&run.wake, 0, 0);
    run.subscribers = xcalloc(settings->fanout, sizeof *run.subscribers);
    for (size_t i = 0; i < settings->fanout; i++) {
        link_open(&run.subscribers[i].link, &settings->target);
        protocol->greet(&run.subscribers[i].link, true);
        protocol->subscribe(&run.subscribers[i].link);
    }
    link_open(&run.link, &settings->target);
    protocol->greet(&run.link, settings->acked);
    prepare_block(&run);

    pthread_t thread;
    if (pthread_create(&thread, NULL, subscribe_loop, &run) != 0)
        load_fail("cannot start a thread");
    (void)run_phase(&run, settings->warmup_ns);
    atomic_store(&run.measured_from, run.sent);
    struct phase_result result = run_phase(&run, settings->duration_ns);
    atomic_store(&run.stop, true);
    (void)pthread_join(thread, NULL);
    report(&run, &result);

    for (size_t i = 0; i < settings->fanout; i++)
        link_close(&run.subscribers[i].link);
    link_close(&run.link);
    text_deinit(&run.block);
    free(run.subscribers);
}
