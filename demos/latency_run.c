/*
 * Every message begins with a stamp: the number of its phase, which nobody else uses, and the
 * monotonic time of its building, as one big-endian number of 128 bits. What does not carry the
 * number of the present phase is somebody else's and not counted.
 *
 * A phase (warmup, then the measured messages) ends when each subscriber has its share, when what
 * is missing was reported as dropped, or when nothing came for --idle-ms. The subscriber that
 * takes its last message tells so; the one that is last of all wakes the main thread.
 */
#include "latency_run.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/cursor.h"
#include "base/rand.h"
#include "interrupt.h"
#include "progress.h"

#include <errno.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define WAIT_SLICE_NS (50 * NS_PER_MS)
#define CLOSE_MS 2000
#define CACHE_LINE 64

struct run;

struct subscriber {
    _Alignas(CACHE_LINE) struct run *run;
    felix_subscription *handle;
    bool sampled;
    uint64_t expected; /* in this phase; written between phases */
    _Atomic uint64_t received, last_ns;
};

struct run {
    const struct latency_settings *settings;
    const struct latency_case *c;
    struct latency_result *result;
    struct target target;
    felix_client *publisher;
    felix_client **clients; /* of the subscriptions */
    size_t client_count;
    struct subscriber *subscribers; /* by stream, then by number */
    size_t subscriber_count;
    char (*names)[32]; /* of the streams */
    struct felix_bytes *batch;
    uint8_t *bytes; /* of the batch */
    struct progress progress;

    _Atomic uint64_t phase;
    _Atomic size_t left; /* subscribers that miss some of this phase */
    _Atomic int ended;   /* a subscription ended: the error */
    char ended_text[256];
    sem_t wake;
};

/* ---- failing ---- */

static enum felix_err fail(struct run *run, enum felix_err err, const char *what, const char *why) {
    run->result->err = err;
    (void)snprintf(run->result->error, sizeof run->result->error, "%s%s%s", what,
                   what[0] != '\0' ? ": " : "", why);
    return err;
}

static enum felix_err fail_last(struct run *run, enum felix_err err, const char *what) {
    return fail(run, err, what, felix_last_error());
}

/* ---- subscribers; on the clients' threads ---- */

static void on_messages(void *context, felix_subscription *subscription,
                        const struct felix_message *messages, size_t count) {
    struct subscriber *s = context;
    struct run *run = s->run;
    struct samples *samples = &run->result->samples;
    uint64_t now_ns = clock_now_ns();
    uint64_t phase = atomic_load_explicit(&run->phase, memory_order_acquire);
    uint64_t ours = 0;
    for (size_t i = 0; i < count; i++) {
        const uint8_t *stamp = messages[i].data;
        if (messages[i].len < STAMP_BYTES || be64_load(stamp) != phase)
            continue;
        ours++;
        if (s->sampled)
            samples_add(samples, now_ns - be64_load(stamp + 8));
    }
    if (ours == 0)
        return;
    uint64_t before = atomic_load_explicit(&s->received, memory_order_relaxed);
    atomic_store_explicit(&s->last_ns, now_ns, memory_order_relaxed);
    atomic_store_explicit(&s->received, before + ours, memory_order_release);
    if (before < s->expected && before + ours >= s->expected &&
        atomic_fetch_sub(&run->left, 1) == 1)
        (void)sem_post(&run->wake);
}

static void on_end(void *context, felix_subscription *subscription, enum felix_err err,
                   const char *error_text) {
    struct subscriber *s = context;
    int none = FELIX_OK;
    (void)snprintf(s->run->ended_text, sizeof s->run->ended_text, "%s", error_text);
    (void)atomic_compare_exchange_strong(&s->run->ended, &none,
                                         (int)(err != FELIX_OK ? err : FELIX_CLOSED));
    (void)sem_post(&s->run->wake);
}

/* ---- set-up ---- */

static size_t broker_flags(const struct run *run, const char *flags[TARGET_FLAGS_MAX],
                           char numbers[2][24]) {
    const struct latency_case *c = run->c;
    size_t n = 0;
    (void)snprintf(numbers[0], sizeof numbers[0], "%llu",
                   (unsigned long long)(c->batch > 64 ? c->batch : 64));
    if (!c->shaping) {
        flags[n++] = "--event-batch-max-events=1";
        flags[n++] = "--event-batch-max-bytes=1024";
        flags[n++] = "--event-batch-max-delay-us=0";
    } else if (c->batch > 64) {
        flags[n++] = "--event-batch-max-events";
        flags[n++] = numbers[0];
        flags[n++] = "--fanout-batch";
        flags[n++] = numbers[0];
    }
    if (run->settings->log_capacity != 0) {
        (void)snprintf(numbers[1], sizeof numbers[1], "%llu",
                       (unsigned long long)run->settings->log_capacity);
        flags[n++] = "--replay-items";
        flags[n++] = numbers[1];
    }
    flags[n] = NULL;
    return n;
}

static enum felix_err start_broker(struct run *run) {
    const char *flags[TARGET_FLAGS_MAX];
    char numbers[2][24];
    struct felix_error error = {0};
    (void)broker_flags(run, flags, numbers);
    enum felix_err err = target_start(&run->target, &run->settings->target, flags, &error);
    return err == FELIX_OK ? err : fail(run, err, "cannot start a broker", error.text);
}

static bool set_pools(felix_options *options, const struct run *run) {
    static const char *const sharding[] = {"hash_stream", "rr"};
    char conns[24];
    char streams[24];
    (void)snprintf(conns, sizeof conns, "%llu", (unsigned long long)run->c->pub_conns);
    (void)snprintf(streams, sizeof streams, "%llu",
                   (unsigned long long)run->c->pub_streams_per_conn);
    return felix_options_set(options, "pub_conn_pool", conns) == FELIX_OK &&
           felix_options_set(options, "pub_streams_per_conn", streams) == FELIX_OK &&
           felix_options_set(options, "pub_sharding", sharding[run->settings->sharding]) ==
               FELIX_OK;
}

static enum felix_err connect_client(struct run *run, bool publishes, felix_client **ret) {
    felix_options *options = target_client_options(&run->target);
    if (options == NULL || (publishes && !set_pools(options, run))) {
        felix_options_free(options);
        return fail_last(run, FELIX_INVALID_ARGUMENT, "settings of the client");
    }
    enum felix_err err = target_connect(&run->target, options, ret);
    felix_options_free(options);
    return err == FELIX_OK ? err : fail_last(run, err, "");
}

static enum felix_err connect_all(struct run *run) {
    enum felix_err err = connect_client(run, true, &run->publisher);
    size_t wanted = run->c->sub_conns + (run->c->dedicated ? 1 : 0);
    run->clients = xcalloc(wanted + 1, sizeof *run->clients);
    while (err == FELIX_OK && run->client_count < wanted) {
        err = connect_client(run, false, &run->clients[run->client_count]);
        if (err == FELIX_OK)
            run->client_count++;
    }
    return err;
}

/* The client of subscription `index`: the dedicated one is the last of the list. */
static felix_client *client_of(const struct run *run, size_t index) {
    const struct latency_case *c = run->c;
    if (c->dedicated && index == 0)
        return run->clients[run->client_count - 1];
    return c->sub_conns == 0 ? run->publisher : run->clients[index % c->sub_conns];
}

static enum felix_err subscribe_all(struct run *run) {
    const struct latency_case *c = run->c;
    run->subscriber_count = c->stream_count * c->fanout;
    run->subscribers = aligned_alloc(CACHE_LINE, run->subscriber_count * sizeof *run->subscribers);
    INVARIANT(run->subscribers != NULL);
    for (size_t i = 0; i < run->subscriber_count; i++)
        run->subscribers[i] = (struct subscriber){.run = run, .sampled = i == 0};
    for (size_t i = 0; i < run->subscriber_count; i++) {
        struct subscriber *s = &run->subscribers[i];
        struct felix_subscribe_options options = {
            .on_messages = on_messages, .on_end = on_end, .context = s, .no_resubscribe = true};
        const char *name = run->names[i / c->fanout];
        enum felix_err err = felix_subscribe(client_of(run, i), target_space(&run->target), name,
                                             &options, &s->handle);
        if (err != FELIX_OK)
            return fail_last(run, err, "cannot subscribe");
    }
    return FELIX_OK;
}

static void prepare_messages(struct run *run) {
    const struct latency_case *c = run->c;
    size_t message_bytes = STAMP_BYTES + c->payload_bytes;
    run->names = xcalloc(c->stream_count, sizeof *run->names);
    for (size_t i = 0; i < c->stream_count; i++) {
        if (c->stream_count == 1)
            (void)snprintf(run->names[i], sizeof run->names[i], "latency");
        else
            (void)snprintf(run->names[i], sizeof run->names[i], "latency-%zu", i);
    }
    run->bytes = xcalloc(c->batch, message_bytes);
    run->batch = xcalloc(c->batch, sizeof *run->batch);
    for (size_t i = 0; i < c->batch; i++)
        run->batch[i] =
            (struct felix_bytes){.data = run->bytes + i * message_bytes, .len = message_bytes};
}

/* ---- a phase ---- */

static uint64_t delivered_now(const struct run *run) {
    uint64_t sum = 0;
    for (size_t i = 0; i < run->subscriber_count; i++)
        sum += atomic_load_explicit(&run->subscribers[i].received, memory_order_relaxed);
    return sum;
}

/* Deliveries that will not come: a subscriber's queue counts each, a publish that was not
 * accepted costs every subscriber one. Ever, so that callers take differences. */
static uint64_t dropped_ever(const struct run *run) {
    struct felix_stats stats;
    uint64_t sum = 0;
    for (size_t i = 0; i < run->client_count; i++) {
        felix_client_stats(run->clients[i], &stats);
        sum += stats.receive_dropped;
    }
    if (run->target.node != NULL) {
        struct node_stats node;
        node_stats(run->target.node, &node);
        sum += node.dropped_queue_full_new + node.dropped_queue_full_old +
               (node.dropped_ingress + node.dropped_no_stream) * run->c->fanout;
    }
    return sum;
}

static void begin_phase(struct run *run, uint64_t messages) {
    const struct latency_case *c = run->c;
    size_t left = 0;
    for (size_t i = 0; i < run->subscriber_count; i++) {
        struct subscriber *s = &run->subscribers[i];
        s->expected = latency_share(messages, c->stream_count, i / c->fanout);
        left += s->expected > 0 ? 1 : 0;
        atomic_store(&s->received, 0);
    }
    samples_reset(&run->result->samples, run->subscribers[0].expected);
    samples_reset(&run->result->acks, latency_acked(c) ? messages : 0);
    atomic_store(&run->left, left);
    atomic_store_explicit(&run->phase, rand_u64(), memory_order_release);
}

static bool must_stop(const struct run *run) {
    return interrupted() || atomic_load_explicit(&run->ended, memory_order_relaxed) != 0;
}

/* Build `count` messages and hand them over. */
static enum felix_err publish_batch(struct run *run, size_t stream, size_t count,
                                    uint64_t *ret_now_ns) {
    const struct latency_case *c = run->c;
    uint64_t phase = atomic_load_explicit(&run->phase, memory_order_relaxed);
    size_t message_bytes = STAMP_BYTES + c->payload_bytes;
    for (size_t i = 0; i < count; i++) {
        uint8_t *stamp = run->bytes + i * message_bytes;
        *ret_now_ns = clock_now_ns();
        be64_store(stamp, phase);
        be64_store(stamp + 8, *ret_now_ns);
    }
    enum felix_ack ack = latency_acked(c) ? FELIX_ACK_PER_MESSAGE : FELIX_ACK_NONE;
    enum felix_err err = felix_publish(run->publisher, target_space(&run->target),
                                       run->names[stream], run->batch, count, ack, NULL, NULL);
    if (ack != FELIX_ACK_NONE)
        samples_add(&run->result->acks, clock_now_ns() - *ret_now_ns);
    return err == FELIX_OK ? err : fail_last(run, err, "cannot publish");
}

/* Streams take turns, batch by batch, until each has its share. */
static enum felix_err publish_all(struct run *run, uint64_t messages, uint64_t *ret_sent) {
    const struct latency_case *c = run->c;
    uint64_t *left = xcalloc(c->stream_count, sizeof *left);
    uint64_t batches = 0;
    enum felix_err err = FELIX_OK;
    for (size_t i = 0; i < c->stream_count; i++)
        left[i] = latency_share(messages, c->stream_count, i);
    *ret_sent = 0;
    while (*ret_sent < messages && err == FELIX_OK) {
        for (size_t i = 0; i < c->stream_count && err == FELIX_OK; i++) {
            uint64_t now_ns = 0;
            size_t count = left[i] < c->batch ? left[i] : c->batch;
            if (count == 0)
                continue;
            if (must_stop(run))
                goto out;
            err = publish_batch(run, i, count, &now_ns);
            left[i] -= count;
            *ret_sent += count;
            if (run->settings->yield_batches != 0 && ++batches % run->settings->yield_batches == 0)
                (void)sched_yield();
            if (progress_due(&run->progress, now_ns))
                progress_draw(&run->progress, now_ns, delivered_now(run), messages * c->fanout);
        }
    }
out:
    free(left);
    return err;
}

static void wait_slice(struct run *run) {
    uint64_t until_ns = clock_now_ns() + WAIT_SLICE_NS;
    struct timespec until = {.tv_sec = (time_t)(until_ns / NS_PER_S),
                             .tv_nsec = (long)(until_ns % NS_PER_S)};
    (void)sem_clockwait(&run->wake, CLOCK_MONOTONIC, &until);
}

/* Until everything arrived, or nothing more will. */
static void await_deliveries(struct run *run, uint64_t expected, uint64_t dropped_before) {
    uint64_t idle_ns = run->settings->idle_ms * NS_PER_MS;
    uint64_t seen = delivered_now(run);
    uint64_t due_ns = clock_now_ns() + idle_ns;
    while (atomic_load(&run->left) > 0 && !must_stop(run)) {
        wait_slice(run);
        uint64_t now_ns = clock_now_ns();
        uint64_t delivered = delivered_now(run);
        if (progress_due(&run->progress, now_ns))
            progress_draw(&run->progress, now_ns, delivered, expected);
        if (delivered != seen) {
            seen = delivered;
            due_ns = now_ns + idle_ns;
        } else if (now_ns >= due_ns || delivered + dropped_ever(run) - dropped_before >= expected) {
            break;
        }
    }
}

static enum felix_err check_subscriptions(struct run *run) {
    int ended = atomic_load(&run->ended);
    return ended == FELIX_OK
               ? FELIX_OK
               : fail(run, (enum felix_err)ended, "a subscription ended", run->ended_text);
}

static enum felix_err warm_up(struct run *run) {
    uint64_t sent = 0;
    uint64_t expected = run->c->warmup * run->c->fanout;
    uint64_t dropped = dropped_ever(run);
    begin_phase(run, run->c->warmup);
    progress_start(&run->progress, "warmup", true);
    enum felix_err err = publish_all(run, run->c->warmup, &sent);
    if (err == FELIX_OK)
        await_deliveries(run, expected, dropped);
    progress_end(&run->progress);
    if (err == FELIX_OK)
        err = check_subscriptions(run);
    if (err != FELIX_OK || interrupted())
        return err;
    uint64_t delivered = delivered_now(run);
    if (delivered + dropped_ever(run) - dropped < expected) {
        char text[96];
        (void)snprintf(text, sizeof text, "%llu of %llu deliveries arrived",
                       (unsigned long long)delivered, (unsigned long long)expected);
        return fail(run, FELIX_TIMED_OUT, "warmup", text);
    }
    return FELIX_OK;
}

/* ---- the account ---- */

static void settle(struct run *run, uint64_t start_ns, uint64_t published_ns, uint64_t dropped) {
    struct latency_result *r = run->result;
    uint64_t last_ns = published_ns;
    uint64_t missing = 0;
    r->expected = run->c->total * run->c->fanout;
    r->sampled = run->subscribers[0].expected;
    for (size_t i = 0; i < run->subscriber_count; i++) {
        const struct subscriber *s = &run->subscribers[i];
        uint64_t received = atomic_load(&s->received);
        uint64_t at_ns = atomic_load(&s->last_ns);
        last_ns = received > 0 && at_ns > last_ns ? at_ns : last_ns;
        r->delivered += received;
        missing += s->expected > received ? s->expected - received : 0;
        r->duplicates += received > s->expected ? received - s->expected : 0;
    }
    r->dropped = dropped < missing ? dropped : missing;
    r->unaccounted = missing - r->dropped;
    r->publish_ns = published_ns - start_ns;
    r->elapsed_ns = last_ns - start_ns;
}

static enum felix_err measure(struct run *run) {
    struct latency_result *r = run->result;
    uint64_t dropped = dropped_ever(run);
    begin_phase(run, run->c->total);
    r->stages = stages_begin(&run->target);
    progress_start(&run->progress, "measure", true);
    uint64_t start_ns = clock_now_ns();
    enum felix_err err = publish_all(run, run->c->total, &r->sent);
    uint64_t published_ns = clock_now_ns();
    if (err == FELIX_OK)
        await_deliveries(run, run->c->total * run->c->fanout, dropped);
    progress_end(&run->progress);
    stages_end(r->stages, &run->target);
    settle(run, start_ns, published_ns, dropped_ever(run) - dropped);
    return err == FELIX_OK ? check_subscriptions(run) : err;
}

static void take_stats(struct run *run) {
    if (run->publisher != NULL)
        felix_client_stats(run->publisher, &run->result->pub);
    run->result->inside = run->target.node != NULL;
    if (run->result->inside)
        node_stats(run->target.node, &run->result->node);
}

static void tear_down(struct run *run) {
    for (size_t i = 0; i < run->subscriber_count; i++)
        felix_unsubscribe(run->subscribers[i].handle);
    for (size_t i = 0; i < run->client_count; i++)
        felix_close(run->clients[i], 0);
    felix_close(run->publisher, interrupted() ? 0 : CLOSE_MS);
    target_stop(&run->target);
    free(run->clients);
    free(run->subscribers);
    free(run->names);
    free(run->batch);
    free(run->bytes);
}

void latency_run(const struct latency_settings *settings, const struct latency_case *c,
                 struct latency_result *ret) {
    struct run run = {.settings = settings, .c = c, .result = ret};
    *ret = (struct latency_result){.err = FELIX_OK};
    (void)sem_init(&run.wake, 0, 0);
    prepare_messages(&run);
    enum felix_err err = start_broker(&run);
    if (err == FELIX_OK)
        err = connect_all(&run);
    if (err == FELIX_OK)
        err = subscribe_all(&run);
    if (err == FELIX_OK && !interrupted())
        err = warm_up(&run);
    if (err == FELIX_OK && !interrupted())
        (void)measure(&run); /* it says itself what went wrong */
    take_stats(&run);
    tear_down(&run);
    (void)sem_destroy(&run.wake);
    samples_sort(&ret->samples);
    samples_sort(&ret->acks);
    ret->interrupted = interrupted();
}

void latency_result_deinit(struct latency_result *result) {
    samples_deinit(&result->samples);
    samples_deinit(&result->acks);
    stages_free(result->stages);
    *result = (struct latency_result){.err = FELIX_OK};
}
