/*
 * The tail of the latency of an open loop, or, with RATE 0, what a closed loop gets through.
 *
 *     tails STREAM BYTES RATE SECONDS
 *
 * Open loop: message n is due at start + n / RATE, and its latency counts from there to the
 * hand-over by the subscriber's callback, whenever it was really published: who falls behind delays
 * all that follow, and all of them count. What is due is published at once, in one call of at most
 * BATCH_MAX. Closed loop: as many calls as keep IN_FLIGHT_MAX messages on the way, each full.
 * Publisher and subscriber are a client each, in one process, with one clock; the broker is found
 * as every client finds it. The first second warms up and is not counted.
 *
 * Prints one JSON object: percentiles of all, how late the publisher's thread was, and of each
 * second what arrived, the worst latency and when it was seen; the last of them stands for all that
 * came after the end.
 */
#include "felix/felix.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/cursor.h"
#include "base/hist.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#define SPACE "default"
#define CONNECT_MS 10000
#define BATCH_MAX 64u
#define IN_FLIGHT_MAX 8192u
#define STAMP_BYTES 8u
#define WARMUP_NS NS_PER_S
#define SECONDS_MAX 86400u
#define DRAIN_NS (5 * NS_PER_S)

struct second {
    uint64_t count, worst_ns, worst_at_ns;
};

struct run {
    const char *stream;
    uint64_t bytes, rate, seconds;
    felix_client *client;
    uint64_t start_ns, counted_ns; /* beginning, and end of the warm-up */
    uint8_t *memory;               /* of a batch */
    struct felix_bytes payloads[BATCH_MAX];
    /* the client's thread */
    struct hist latency;
    struct second *each; /* by the second in which it was handed over, warm-up excluded */
    _Atomic uint64_t received;
    uint64_t counted;
    /* the main thread */
    struct hist late;
    uint64_t sent, calls;
};

static void fail(const char *what, const char *text) {
    (void)fprintf(stderr, "tails: %s: %s\n", what, text);
    exit(1);
}

static void on_messages(void *context, felix_subscription *subscription,
                        const struct felix_message *messages, size_t count) {
    struct run *run = context;
    uint64_t now_ns = clock_now_ns();
    for (size_t i = 0; i < count; i++) {
        if (messages[i].len != run->bytes)
            fail("a message", "of another length");
        uint64_t due_ns = be64_load(messages[i].data);
        if (due_ns < run->counted_ns)
            continue;
        uint64_t took_ns = now_ns - due_ns;
        uint64_t at = (now_ns - run->counted_ns) / NS_PER_S;
        struct second *second = &run->each[at < run->seconds ? at : run->seconds];
        hist_record(&run->latency, took_ns);
        second->count++;
        run->counted++;
        if (took_ns > second->worst_ns) {
            second->worst_ns = took_ns;
            second->worst_at_ns = now_ns - run->counted_ns;
        }
    }
    (void)atomic_fetch_add_explicit(&run->received, count, memory_order_release);
}

static felix_client *connect_client(void) {
    felix_client *client = NULL;
    felix_options *options = felix_options_new();
    if (options == NULL || felix_connect(options, CONNECT_MS, &client) != FELIX_OK)
        fail("cannot connect", felix_last_error());
    felix_options_free(options);
    return client;
}

static uint64_t due_at(const struct run *run, uint64_t number) {
    uint64_t whole = number / run->rate, rest = number % run->rate;
    return run->start_ns + whole * NS_PER_S + rest * NS_PER_S / run->rate;
}

/* Publish `count` messages, each stamped with when it is due; 0: now. */
static void publish(struct run *run, uint64_t count, uint64_t now_ns) {
    for (uint64_t i = 0; i < count; i++)
        be64_store(run->memory + i * run->bytes,
                   run->rate == 0 ? now_ns : due_at(run, run->sent + i));
    if (felix_publish(run->client, SPACE, run->stream, run->payloads, count, FELIX_ACK_NONE, NULL,
                      NULL) != FELIX_OK)
        fail("cannot publish", felix_last_error());
    run->sent += count;
    run->calls++;
}

static void sleep_until(uint64_t due_ns) {
    struct timespec due = {.tv_sec = (time_t)(due_ns / NS_PER_S),
                           .tv_nsec = (long)(due_ns % NS_PER_S)};
    (void)clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
}

/* How many of the messages that are due by now were not sent yet. */
static uint64_t due_count(const struct run *run, uint64_t now_ns) {
    uint64_t elapsed_ns = now_ns - run->start_ns;
    uint64_t due =
        elapsed_ns / NS_PER_S * run->rate + elapsed_ns % NS_PER_S * run->rate / NS_PER_S + 1;
    return due > run->sent ? due - run->sent : 0;
}

static void open_loop(struct run *run, uint64_t end_ns) {
    for (uint64_t now_ns = run->start_ns; now_ns < end_ns; now_ns = clock_now_ns()) {
        uint64_t count = due_count(run, now_ns);
        uint64_t due_ns = due_at(run, run->sent);
        if (count == 0) {
            sleep_until(due_ns);
            continue;
        }
        if (due_ns >= run->counted_ns)
            hist_record(&run->late, now_ns > due_ns ? now_ns - due_ns : 0);
        publish(run, count < BATCH_MAX ? count : BATCH_MAX, now_ns);
    }
}

static void closed_loop(struct run *run, uint64_t end_ns) {
    const struct timespec pause = {.tv_nsec = 20000};
    for (uint64_t now_ns = run->start_ns; now_ns < end_ns; now_ns = clock_now_ns()) {
        if (run->sent - atomic_load_explicit(&run->received, memory_order_acquire) + BATCH_MAX <=
            IN_FLIGHT_MAX)
            publish(run, BATCH_MAX, now_ns);
        else
            (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
    }
}

static void drain(const struct run *run) {
    const struct timespec pause = {.tv_nsec = (long)NS_PER_MS};
    uint64_t end_ns = clock_now_ns() + DRAIN_NS;
    while (atomic_load(&run->received) < run->sent && clock_now_ns() < end_ns)
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
}

static void print_hist(const char *name, const struct hist *h) {
    (void)printf("\"%s\":{\"count\":%llu,\"mean_us\":%.1f,\"p50_us\":%.1f,\"p90_us\":%.1f,"
                 "\"p99_us\":%.1f,\"p999_us\":%.1f,\"p9999_us\":%.1f,\"max_us\":%.1f},",
                 name, (unsigned long long)hist_count(h), (double)hist_mean_ns(h) / 1e3,
                 (double)hist_percentile_ns(h, 50) / 1e3, (double)hist_percentile_ns(h, 90) / 1e3,
                 (double)hist_percentile_ns(h, 99) / 1e3, (double)hist_percentile_ns(h, 99.9) / 1e3,
                 (double)hist_percentile_ns(h, 99.99) / 1e3, (double)hist_max_ns(h) / 1e3);
}

static void print_result(const struct run *run) {
    (void)printf("{\"sent\":%llu,\"received\":%llu,\"calls\":%llu,\"rate\":%.0f,",
                 (unsigned long long)run->sent, (unsigned long long)atomic_load(&run->received),
                 (unsigned long long)run->calls, (double)run->counted / (double)run->seconds);
    print_hist("latency", &run->latency);
    print_hist("publisher_late", &run->late);
    (void)printf("\"seconds\":[");
    for (uint64_t i = 0; i <= run->seconds; i++)
        (void)printf("%s{\"count\":%llu,\"worst_us\":%.1f,\"worst_at_s\":%.3f}", i > 0 ? "," : "",
                     (unsigned long long)run->each[i].count, (double)run->each[i].worst_ns / 1e3,
                     (double)run->each[i].worst_at_ns / 1e9);
    (void)printf("]}\n");
}

static void measure(struct run *run) {
    felix_subscription *subscription = NULL;
    const struct felix_subscribe_options options = {.on_messages = on_messages, .context = run};
    run->client = connect_client();
    run->start_ns = clock_now_ns();
    run->counted_ns = run->start_ns + WARMUP_NS;
    if (felix_subscribe(run->client, SPACE, run->stream, &options, &subscription) != FELIX_OK)
        fail("cannot subscribe", felix_last_error());
    /* The first line: from here on seconds are counted, for whoever watches the system beside. */
    (void)printf("{\"counted_from_ns\":%llu}\n", (unsigned long long)run->counted_ns);
    (void)fflush(stdout);
    uint64_t end_ns = run->counted_ns + run->seconds * NS_PER_S;
    if (run->rate > 0)
        open_loop(run, end_ns);
    else
        closed_loop(run, end_ns);
    drain(run);
    felix_unsubscribe(subscription);
    felix_close(run->client, 0);
    print_result(run);
}

int main(int argc, char **argv) {
    static struct run run;
    uint64_t *numbers[] = {&run.bytes, &run.rate, &run.seconds};
    bool good = argc == 5;
    for (int i = 0; good && i < 3; i++) {
        char *end;
        *numbers[i] = strtoull(argv[2 + i], &end, 10);
        good = end != argv[2 + i] && *end == '\0';
    }
    if (!good || run.bytes < STAMP_BYTES || run.bytes > 1u << 20 || run.seconds == 0 ||
        run.seconds > SECONDS_MAX) {
        (void)fprintf(stderr, "usage: tails STREAM BYTES RATE SECONDS\n");
        return 2;
    }
    run.stream = argv[1];
    run.each = xcalloc(run.seconds + 1, sizeof *run.each);
    run.memory = xcalloc(BATCH_MAX, run.bytes);
    for (size_t i = 0; i < BATCH_MAX; i++)
        run.payloads[i] =
            (struct felix_bytes){.data = run.memory + i * run.bytes, .len = run.bytes};
    (void)prctl(PR_SET_TIMERSLACK, 1000ul);
    measure(&run);
    free(run.each);
    free(run.memory);
    return atomic_load(&run.received) == run.sent ? 0 : 1;
}
