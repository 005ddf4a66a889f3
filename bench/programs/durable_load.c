/*
 * The load of bench/durable.py on a stream of Felix.
 *
 *     durable_load publish STREAM PUBLISHERS CONNECTIONS BATCH BYTES RATE WARMUP_MS MS
 *     durable_load fill STREAM COUNT BATCH BYTES
 *     durable_load replay STREAM COUNT BYTES
 *
 * publish: each publisher has one publish of BATCH records on its way, acknowledged, and begins the
 * next when that is answered: what a connection of a peer does that waits for each answer. One
 * publisher is a thread that blocks in felix_publish. Several are callbacks of one client over
 * CONNECTIONS connections in turns, as the peers' 64 connections are served by one thread of
 * peer-load; with CONNECTIONS 1 they share one QUIC stream, as the threads of one program do. With
 * a RATE (publishes a second, of all publishers) the publishes are due at fixed times instead.
 * fill: COUNT records, as many at a time as fit on the way. replay: reads COUNT records from the
 * earliest on, checks that offsets are without a gap and lengths right, and ends.
 *
 * An answer that is no success ends the program with status 1. The broker is found as every client
 * finds it: FELIX_SERVER, FELIX_DATA_DIR. Prints one JSON object.
 */
#include "felix/felix.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/hist.h"

#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#define SPACE "default"
#define CONNECT_MS 30000
#define SILENCE_S 30
#define FILL_BYTES_MAX ((uint64_t)16 << 20) /* on their way */

struct load {
    const char *stream;
    uint64_t publishers, connections, batch, bytes, rate, warmup_ms, ms;
    uint64_t count;
    felix_client *client;
    uint8_t *memory;
    struct felix_bytes *payloads; /* of a batch */
    /* publish: the thread that runs callbacks */
    uint64_t counted_ns, end_ns, last_ns;
    uint64_t counted; /* publishes that were answered within */
    struct hist latency;
    _Atomic uint64_t left; /* publishers, or publishes, that are not over yet */
    sem_t over;
    /* replay: the same thread */
    uint64_t expected, received;
};

/* One publish that is on its way. */
struct publish {
    struct load *load;
    uint64_t start_ns;
};

static void fail(const char *what, enum felix_err err, const char *text) {
    (void)fprintf(stderr, "durable_load: %s: %s: %s\n", what, felix_err_name(err), text);
    exit(1);
}

static void wait_for(sem_t *over, const char *what) {
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += SILENCE_S;
    while (sem_timedwait(over, &until) != 0)
        if (clock_wall_ns() / NS_PER_S > (uint64_t)until.tv_sec)
            fail(what, FELIX_TIMED_OUT, "nothing more came");
}

static void sleep_until(uint64_t due_ns) {
    struct timespec due = {.tv_sec = (time_t)(due_ns / NS_PER_S),
                           .tv_nsec = (long)(due_ns % NS_PER_S)};
    (void)clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
}

static void connect_client(struct load *load) {
    char pool[24];
    felix_options *options = felix_options_new();
    (void)snprintf(pool, sizeof pool, "%llu", (unsigned long long)load->connections);
    bool turns = load->connections > 1;
    enum felix_err err = options == NULL ? FELIX_INVALID_ARGUMENT
                                         : felix_options_set(options, "pub_conn_pool", pool);
    if (err == FELIX_OK && turns)
        err = felix_options_set(options, "pub_streams_per_conn", "1");
    if (err == FELIX_OK && turns)
        err = felix_options_set(options, "pub_sharding", "rr");
    if (err == FELIX_OK)
        err = felix_options_set(options, "publish_inflight_bytes", "67108864");
    if (err == FELIX_OK)
        err = felix_connect(options, CONNECT_MS, &load->client);
    if (err != FELIX_OK)
        fail("cannot connect", err, felix_last_error());
    felix_options_free(options);
}

/* Payloads that neither compress nor repeat within a batch. */
static void prepare(struct load *load) {
    uint64_t state = 0x9e3779b97f4a7c15u;
    load->memory = xmalloc(load->batch * load->bytes + 1);
    load->payloads = xcalloc(load->batch, sizeof *load->payloads);
    for (uint64_t i = 0; i < load->batch * load->bytes; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        load->memory[i] = (uint8_t)(state >> 56);
    }
    for (uint64_t i = 0; i < load->batch; i++)
        load->payloads[i] =
            (struct felix_bytes){.data = load->memory + i * load->bytes, .len = load->bytes};
    (void)sem_init(&load->over, 0, 0);
    connect_client(load);
}

/* ---- publish ---- */

static void count_answer(struct load *load, uint64_t start_ns, uint64_t now_ns) {
    if (start_ns < load->counted_ns || now_ns > load->end_ns)
        return;
    hist_record(&load->latency, now_ns - start_ns);
    load->counted++;
    load->last_ns = now_ns;
}

static void on_published(void *context, const struct felix_publish_result *result);

static void issue(struct publish *publish) {
    struct load *load = publish->load;
    enum felix_err err = felix_publish(load->client, SPACE, load->stream, load->payloads,
                                       load->batch, FELIX_ACK_PER_BATCH, on_published, publish);
    if (err != FELIX_OK)
        fail("cannot publish", err, felix_last_error());
}

static void one_is_over(struct load *load) {
    if (atomic_fetch_sub(&load->left, 1) == 1)
        (void)sem_post(&load->over);
}

static void on_published(void *context, const struct felix_publish_result *result) {
    struct publish *publish = context;
    struct load *load = publish->load;
    uint64_t now_ns = clock_now_ns();
    if (result->err != FELIX_OK)
        fail("publish", result->err, result->error_text);
    count_answer(load, publish->start_ns, now_ns);
    if (load->rate != 0) {
        free(publish);
        one_is_over(load);
    } else if (now_ns < load->end_ns) {
        publish->start_ns = now_ns;
        issue(publish);
    } else {
        one_is_over(load);
    }
}

static void publish_blocking(struct load *load) {
    for (uint64_t start_ns = clock_now_ns(); start_ns < load->end_ns;) {
        enum felix_err err = felix_publish(load->client, SPACE, load->stream, load->payloads,
                                           load->batch, FELIX_ACK_PER_BATCH, NULL, NULL);
        uint64_t now_ns = clock_now_ns();
        if (err != FELIX_OK)
            fail("publish", err, felix_last_error());
        count_answer(load, start_ns, now_ns);
        start_ns = now_ns;
    }
}

static void publish_closed(struct load *load) {
    struct publish *all = xcalloc(load->publishers, sizeof *all);
    atomic_store(&load->left, load->publishers);
    for (uint64_t i = 0; i < load->publishers; i++) {
        all[i] = (struct publish){.load = load, .start_ns = clock_now_ns()};
        issue(&all[i]);
    }
    sleep_until(load->end_ns);
    wait_for(&load->over, "publish");
    free(all);
}

static void publish_paced(struct load *load, uint64_t start_ns) {
    (void)prctl(PR_SET_TIMERSLACK, 1000ul);
    atomic_store(&load->left, 1);
    for (uint64_t n = 0;; n++) {
        uint64_t due_ns = start_ns + (uint64_t)((double)n * 1e9 / (double)load->rate);
        if (due_ns >= load->end_ns)
            break;
        sleep_until(due_ns);
        struct publish *publish = xmalloc(sizeof *publish);
        *publish = (struct publish){.load = load, .start_ns = due_ns};
        atomic_fetch_add(&load->left, 1);
        issue(publish);
    }
    one_is_over(load);
    wait_for(&load->over, "publish");
}

static void run_publish(struct load *load) {
    prepare(load);
    uint64_t start_ns = clock_now_ns();
    load->counted_ns = start_ns + load->warmup_ms * NS_PER_MS;
    load->end_ns = load->counted_ns + load->ms * NS_PER_MS;
    if (load->rate != 0)
        publish_paced(load, start_ns);
    else if (load->publishers == 1)
        publish_blocking(load);
    else
        publish_closed(load);
    double seconds = (double)(load->last_ns - load->counted_ns) / 1e9;
    double records = load->counted == 0 ? 0 : (double)(load->counted * load->batch) / seconds;
    (void)printf("{\"publishes\":%llu,\"records_per_s\":%.1f,\"bytes_per_s\":%.0f,"
                 "\"p50_us\":%.3f,\"p99_us\":%.3f,\"max_us\":%.3f}\n",
                 (unsigned long long)load->counted, records, records * (double)load->bytes,
                 (double)hist_percentile_ns(&load->latency, 50) / 1e3,
                 (double)hist_percentile_ns(&load->latency, 99) / 1e3,
                 (double)hist_max_ns(&load->latency) / 1e3);
}

/* ---- fill ---- */

static void on_filled(void *context, const struct felix_publish_result *result) {
    if (result->err != FELIX_OK)
        fail("publish", result->err, result->error_text);
    (void)sem_post(&((struct load *)context)->over);
}

static void run_fill(struct load *load) {
    prepare(load);
    uint64_t room = FILL_BYTES_MAX / (load->batch * load->bytes + 1) + 1;
    uint64_t calls = (load->count + load->batch - 1) / load->batch, answered = 0;
    uint64_t start_ns = clock_now_ns();
    for (uint64_t i = 0; i < calls; i++) {
        if (i - answered >= room) {
            wait_for(&load->over, "publish");
            answered++;
        }
        uint64_t size = i + 1 < calls ? load->batch : load->count - i * load->batch;
        enum felix_err err = felix_publish(load->client, SPACE, load->stream, load->payloads, size,
                                           FELIX_ACK_PER_BATCH, on_filled, load);
        if (err != FELIX_OK)
            fail("cannot publish", err, felix_last_error());
    }
    for (; answered < calls; answered++)
        wait_for(&load->over, "publish");
    double seconds = (double)(clock_now_ns() - start_ns) / 1e9;
    (void)printf("{\"records\":%llu,\"seconds\":%.3f,\"bytes_per_s\":%.0f}\n",
                 (unsigned long long)load->count, seconds,
                 (double)(load->count * load->bytes) / seconds);
}

/* ---- replay ---- */

static void on_messages(void *context, felix_subscription *subscription,
                        const struct felix_message *messages, size_t count) {
    struct load *load = context;
    if (load->received == load->count)
        return;
    for (size_t i = 0; i < count; i++) {
        if (messages[i].len != load->bytes)
            fail("a record", FELIX_MALFORMED, "of another length");
        if (!messages[i].has_offset || messages[i].offset != load->expected)
            fail("a record", FELIX_MALFORMED, "with an offset that does not follow");
        load->expected++;
    }
    load->received += count < load->count - load->received ? count : load->count - load->received;
    if (load->received == load->count)
        (void)sem_post(&load->over);
}

static void on_end(void *context, felix_subscription *subscription, enum felix_err err,
                   const char *error_text) {
    fail("the subscription ended", err, error_text);
}

static void run_replay(struct load *load) {
    load->batch = 1;
    prepare(load);
    struct felix_subscribe_options options = {.start = FELIX_START_EARLIEST,
                                              .on_messages = on_messages,
                                              .on_end = on_end,
                                              .context = load};
    felix_subscription *subscription = NULL;
    uint64_t start_ns = clock_now_ns();
    enum felix_err err =
        felix_subscribe(load->client, SPACE, load->stream, &options, &subscription);
    if (err != FELIX_OK)
        fail("cannot subscribe", err, felix_last_error());
    while (sem_wait(&load->over) != 0)
        continue;
    double seconds = (double)(clock_now_ns() - start_ns) / 1e9;
    (void)printf("{\"records\":%llu,\"seconds\":%.3f,\"bytes_per_s\":%.0f}\n",
                 (unsigned long long)load->count, seconds,
                 (double)(load->count * load->bytes) / seconds);
    felix_unsubscribe(subscription);
}

/* ---- the command line ---- */

static const struct command {
    const char *name;
    int words; /* behind the stream */
    void (*run)(struct load *load);
} commands[] = {{"publish", 7, run_publish}, {"fill", 3, run_fill}, {"replay", 2, run_replay}};

static bool numbers(char **words, uint64_t *const *fields, int count) {
    for (int i = 0; i < count; i++) {
        char *end;
        *fields[i] = strtoull(words[i], &end, 10);
        if (end == words[i] || *end != '\0')
            return false;
    }
    return true;
}

static const struct command *parse(int argc, char **argv, struct load *load) {
    uint64_t *publish[] = {&load->publishers, &load->connections, &load->batch, &load->bytes,
                           &load->rate,       &load->warmup_ms,   &load->ms};
    uint64_t *fill[] = {&load->count, &load->batch, &load->bytes};
    uint64_t *replay[] = {&load->count, &load->bytes};
    uint64_t *const *const fields[] = {publish, fill, replay};
    for (size_t i = 0; argc > 2 && i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(argv[1], commands[i].name) != 0 || argc - 3 != commands[i].words)
            continue;
        load->stream = argv[2];
        bool good = numbers(argv + 3, fields[i], commands[i].words) && load->batch > 0 &&
                    load->connections > 0 && load->publishers > 0 && load->count > 0;
        return good ? &commands[i] : NULL;
    }
    return NULL;
}

int main(int argc, char **argv) {
    static struct load load = {.publishers = 1, .connections = 1, .batch = 1, .count = 1};
    const struct command *command = parse(argc, argv, &load);
    if (command == NULL) {
        (void)fprintf(stderr, "usage: durable_load publish STREAM PUBLISHERS CONNECTIONS BATCH "
                              "BYTES RATE WARMUP_MS MS\n"
                              "       durable_load fill STREAM COUNT BATCH BYTES\n"
                              "       durable_load replay STREAM COUNT BYTES\n");
        return 2;
    }
    command->run(&load);
    felix_close(load.client, 5000);
    free(load.payloads);
    free(load.memory);
    return 0;
}
