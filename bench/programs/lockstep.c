/*
 * A load in lock step, of which a broker's costs can be counted: nearly the same each time.
 *
 *     lockstep pubsub STREAM FANOUT BATCH BYTES WINDOW ACK WARMUP ROUNDS
 *     lockstep put|get CACHE BYTES WINDOW WARMUP ROUNDS
 *
 * A round is WINDOW publishes of BATCH messages, or WINDOW cache requests, all issued in one turn
 * of the client's thread; the next begins when every delivery (with ACK 1 every acknowledgement
 * too), or every answer, of this one has come. So what a broker finds when it looks depends on the
 * round and hardly on who was faster, above all when it runs in an instrument that makes it slow.
 *
 * After WARMUP rounds it prints "ready". Then each line on its standard input makes it run ROUNDS
 * more and print "done" with the number of messages or operations; the end of its input ends it.
 * The broker is found as every client finds it: FELIX_SERVER, FELIX_DATA_DIR.
 *
 * Callbacks, and with them everything but the first round of a phase, run on the client's thread.
 */
#include "felix/felix.h"

#include "base/check.h"

#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONNECT_MS 30000
#define SPACE "default"
#define KEYS 1024

enum kind { PUBSUB, CACHE_PUT, CACHE_GET };

struct load {
    enum kind kind;
    const char *target; /* stream or cache */
    uint64_t fanout, batch, bytes, window, ack;
    uint64_t warmup, rounds;
    felix_client *client;
    struct felix_bytes *payloads; /* `batch` of them; of a cache: the value */
    uint64_t number;              /* of the next cache request: chooses its key */
    _Atomic uint64_t rounds_left;
    _Atomic uint64_t left; /* what is missing of this round */
    sem_t done;
};

static void fail(const char *what, enum felix_err err, const char *text) {
    (void)fprintf(stderr, "lockstep: %s: %s: %s\n", what, felix_err_name(err), text);
    exit(1);
}

static void begin_round(struct load *load);

static void arrived(struct load *load, uint64_t count) {
    if (atomic_fetch_sub(&load->left, count) != count)
        return;
    if (atomic_fetch_sub(&load->rounds_left, 1) == 1)
        (void)sem_post(&load->done);
    else
        begin_round(load);
}

static void on_messages(void *context, felix_subscription *subscription,
                        const struct felix_message *messages, size_t count) {
    arrived(context, count);
}

static void on_published(void *context, const struct felix_publish_result *result) {
    struct load *load = context;
    if (result->err != FELIX_OK)
        fail("publish", result->err, result->error_text);
    if (load->ack != 0)
        arrived(load, 1);
}

static void on_answer(void *context, enum felix_err err, const char *error_text, bool found,
                      struct felix_bytes value) {
    struct load *load = context;
    if (err != FELIX_OK || (load->kind == CACHE_GET && !found))
        fail("cache", err, found ? error_text : "a key is missing");
    arrived(load, 1);
}

static enum felix_err issue(struct load *load) {
    if (load->kind == PUBSUB)
        return felix_publish(load->client, SPACE, load->target, load->payloads, load->batch,
                             load->ack != 0 ? FELIX_ACK_PER_BATCH : FELIX_ACK_NONE, on_published,
                             load);
    char key[32];
    (void)snprintf(key, sizeof key, "key-%llu", (unsigned long long)(load->number++ % KEYS));
    if (load->kind == CACHE_PUT)
        return felix_cache_put_async(load->client, SPACE, load->target, key, load->payloads[0], 0,
                                     on_answer, load);
    return felix_cache_get_async(load->client, SPACE, load->target, key, on_answer, load);
}

static void begin_round(struct load *load) {
    uint64_t each = 1;
    if (load->kind == PUBSUB)
        each = load->batch * load->fanout + (load->ack != 0 ? 1 : 0);
    atomic_store(&load->left, load->window * each);
    for (uint64_t i = 0; i < load->window; i++) {
        enum felix_err err = issue(load);
        if (err != FELIX_OK)
            fail("cannot issue", err, felix_last_error());
    }
}

static void run_rounds(struct load *load, uint64_t rounds) {
    if (rounds == 0)
        return;
    atomic_store(&load->rounds_left, rounds);
    begin_round(load);
    while (sem_wait(&load->done) != 0)
        continue;
}

/* What is to be fetched must be there. */
static void fill(struct load *load) {
    if (load->kind != CACHE_GET)
        return;
    load->kind = CACHE_PUT;
    run_rounds(load, (KEYS + load->window - 1) / load->window);
    load->kind = CACHE_GET;
}

static void prepare(struct load *load) {
    uint8_t *zeros = xcalloc(1, load->bytes + 1);
    load->payloads = xcalloc(load->batch, sizeof *load->payloads);
    for (uint64_t i = 0; i < load->batch; i++)
        load->payloads[i] = (struct felix_bytes){.data = zeros, .len = load->bytes};
    (void)sem_init(&load->done, 0, 0);
    felix_options *options = felix_options_new();
    enum felix_err err = options == NULL ? FELIX_INVALID_ARGUMENT
                                         : felix_connect(options, CONNECT_MS, &load->client);
    if (err != FELIX_OK)
        fail("cannot connect", err, felix_last_error());
    felix_options_free(options);
}

static void subscribe_all(struct load *load, felix_subscription **subscriptions) {
    const struct felix_subscribe_options options = {.on_messages = on_messages, .context = load};
    for (uint64_t i = 0; i < load->fanout; i++) {
        enum felix_err err =
            felix_subscribe(load->client, SPACE, load->target, &options, &subscriptions[i]);
        if (err != FELIX_OK)
            fail("cannot subscribe", err, felix_last_error());
    }
}

static bool next_line(void) {
    int c;
    do
        c = getchar();
    while (c != '\n' && c != EOF);
    return c != EOF;
}

static int run(struct load *load) {
    prepare(load);
    felix_subscription **subscriptions = xcalloc(load->fanout + 1, sizeof *subscriptions);
    subscribe_all(load, subscriptions);
    fill(load);
    run_rounds(load, load->warmup);
    (void)printf("ready\n");
    (void)fflush(stdout);
    while (next_line()) {
        run_rounds(load, load->rounds);
        (void)printf("done %llu\n",
                     (unsigned long long)(load->rounds * load->window * load->batch));
        (void)fflush(stdout);
    }
    for (uint64_t i = 0; i < load->fanout; i++)
        felix_unsubscribe(subscriptions[i]);
    felix_close(load->client, 0);
    free(subscriptions);
    free(load->payloads);
    return 0;
}

static bool numbers(char **argv, int count, uint64_t **fields) {
    for (int i = 0; i < count; i++) {
        char *end;
        *fields[i] = strtoull(argv[i], &end, 10);
        if (end == argv[i] || *end != '\0')
            return false;
    }
    return true;
}

int main(int argc, char **argv) {
    struct load load = {.batch = 1};
    uint64_t *pubsub[] = {&load.fanout, &load.batch,  &load.bytes, &load.window,
                          &load.ack,    &load.warmup, &load.rounds};
    uint64_t *cache[] = {&load.bytes, &load.window, &load.warmup, &load.rounds};
    const char *kind = argc > 2 ? argv[1] : "";
    load.target = argv[argc > 2 ? 2 : 0];
    bool good = false;
    if (strcmp(kind, "pubsub") == 0 && argc == 10) {
        good = numbers(argv + 3, 7, pubsub) && load.fanout > 0 && load.batch > 0;
    } else if ((strcmp(kind, "put") == 0 || strcmp(kind, "get") == 0) && argc == 7) {
        load.kind = kind[0] == 'p' ? CACHE_PUT : CACHE_GET;
        good = numbers(argv + 3, 4, cache);
    }
    if (!good || load.window == 0) {
        (void)fprintf(stderr, "usage: lockstep pubsub STREAM FANOUT BATCH BYTES WINDOW ACK WARMUP "
                              "ROUNDS\n       lockstep put|get CACHE BYTES WINDOW WARMUP ROUNDS\n");
        return 2;
    }
    return run(&load);
}
