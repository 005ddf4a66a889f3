/*
 * Publishers and subscribers that outlive a broker which is killed again and again, and a checker
 * that knows everything that was acknowledged.
 *
 *     kill_load STREAM_PREFIX STREAMS PUBLISHERS SEED LEVEL
 *
 * The streams are PREFIX0, PREFIX1 ...; each has PUBLISHERS threads, each with up to WINDOW
 * acknowledged publishes on their way, single records and batches, and LIVING subscriptions from
 * the earliest record on, which the client resumes after each loss. Every acknowledgement has to
 * name LEVEL ("flushed", "written"). The broker is found as every
 * client finds it (FELIX_SERVER, FELIX_DATA_DIR) and has to come back at the same address.
 *
 * One command a line, one answer a line:
 *   run     publish until further notice
 *   pause   publish no more; answered when every publish was
 *   check   pause; then write a mark to each stream, read each from its earliest record and from
 *           an offset in between up to the mark, wait until the living subscriptions are there, and
 *           compare: "ok records=N acked=N unknown=N refused=N" or "wrong TEXT"
 * The end of the input ends it. Exit status 1: it could not do its work.
 */
#include "kill_ledger.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SPACE "default"
#define CONNECT_MS 30000
#define WINDOW 8u
#define BATCH_MAX 48u
#define LIVING 2u
#define PATIENCE_S 60
#define PAUSE_US 2000

struct publisher {
    struct load *load;
    unsigned stream, source;
    uint64_t random;
    pthread_t thread;
};

struct reader {
    struct load *load;
    felix_subscription *subscription;
    struct view view;
};

struct load {
    const char *prefix;
    unsigned streams, publishers;
    felix_client *client;
    struct ledger ledger;
    struct publisher *all;
    struct reader *living; /* LIVING for each stream */
    pthread_mutex_t lock;  /* what follows */
    pthread_cond_t changed;
    unsigned pending; /* publishes without an answer */
    bool running, quit;
};

/* A publish on its way. */
struct publish {
    struct publisher *publisher;
    atomic_uint *window;
    uint64_t first;
    size_t count;
};

static void die(const char *what) {
    (void)fprintf(stderr, "kill_load: %s: %s\n", what, felix_last_error());
    exit(1);
}

static void stream_name(const struct load *load, unsigned stream, char out[256]) {
    (void)snprintf(out, 256, "%s%u", load->prefix, stream);
}

static uint64_t next_random(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

/* ---- publishing ---- */

static void settle(struct publish *publish, const struct felix_publish_result *result) {
    struct publisher *p = publish->publisher;
    struct load *load = p->load;
    ledger_answered(&load->ledger, p->stream, p->source, publish->first, publish->count, result);
    (void)pthread_mutex_lock(&load->lock);
    (void)atomic_fetch_sub(publish->window, 1);
    load->pending--;
    (void)pthread_cond_broadcast(&load->changed);
    (void)pthread_mutex_unlock(&load->lock);
    free(publish);
}

static void on_published(void *context, const struct felix_publish_result *result) {
    settle(context, result);
}

/* The result is that of `publish`, or, when that is NULL, waited for and returned. */
static struct felix_publish_result send_records(struct publisher *p, uint64_t first, size_t count,
                                                struct publish *publish) {
    static _Thread_local uint8_t memory[BATCH_MAX][RECORD_BYTES_MAX];
    struct felix_bytes payloads[BATCH_MAX];
    struct felix_publish_result result = {0};
    char name[256];
    for (size_t i = 0; i < count; i++)
        payloads[i] = (struct felix_bytes){
            memory[i], ledger_record(&p->load->ledger, p->stream, p->source, first + i, memory[i])};
    stream_name(p->load, p->stream, name);
    if (publish != NULL)
        result.err = felix_publish(p->load->client, SPACE, name, payloads, count,
                                   count == 1 ? FELIX_ACK_PER_MESSAGE : FELIX_ACK_PER_BATCH,
                                   on_published, publish);
    else
        (void)felix_publish_confirmed(p->load->client, SPACE, name, NULL, payloads, count, &result);
    return result;
}

/* Waits until this publisher may publish; false at the end. */
static bool may_publish(struct load *load, atomic_uint *window) {
    (void)pthread_mutex_lock(&load->lock);
    while (!load->quit && (!load->running || atomic_load(window) >= WINDOW))
        (void)pthread_cond_wait(&load->changed, &load->lock);
    bool may = !load->quit;
    if (may) {
        (void)atomic_fetch_add(window, 1);
        load->pending++;
    }
    (void)pthread_mutex_unlock(&load->lock);
    return may;
}

static void *publish_on(void *context) {
    struct publisher *p = context;
    atomic_uint window = 0;
    while (may_publish(p->load, &window)) {
        struct publish *publish = malloc(sizeof *publish);
        if (publish == NULL)
            abort();
        bool single = next_random(&p->random) % 2 == 0;
        size_t count = single ? 1 : 2 + next_random(&p->random) % (BATCH_MAX - 1);
        *publish = (struct publish){
            p, &window, ledger_claim(&p->load->ledger, p->stream, p->source, count), count};
        struct felix_publish_result result = send_records(p, publish->first, count, publish);
        if (result.err != FELIX_OK) {
            settle(publish, &result);
            (void)usleep(PAUSE_US); /* refused at once: not a million times a second */
        }
    }
    return NULL;
}

static void set_running(struct load *load, bool running) {
    (void)pthread_mutex_lock(&load->lock);
    load->running = running;
    (void)pthread_cond_broadcast(&load->changed);
    while (!running && load->pending > 0)
        (void)pthread_cond_wait(&load->changed, &load->lock);
    (void)pthread_mutex_unlock(&load->lock);
}

/* ---- reading ---- */

static void on_messages(void *context, felix_subscription *subscription,
                        const struct felix_message *messages, size_t count) {
    struct reader *reader = context;
    for (size_t i = 0; i < count; i++)
        if (!ledger_delivered(&reader->load->ledger, &reader->view, &messages[i]))
            return;
}

static void on_end(void *context, felix_subscription *subscription, enum felix_err err,
                   const char *error_text) {
    struct reader *reader = context;
    if (err != FELIX_CLOSED)
        ledger_wrong(&reader->load->ledger,
                     "a subscription of stream %u ended at offset %llu: %s: %s",
                     reader->view.stream, (unsigned long long)reader->view.next,
                     felix_err_name(err), error_text);
}

static bool open_reader(struct load *load, struct reader *reader, unsigned stream,
                        uint64_t offset) {
    char name[256];
    stream_name(load, stream, name);
    *reader = (struct reader){.load = load, .view = {.stream = stream, .next = offset}};
    const struct felix_subscribe_options options = {.start = offset == 0 ? FELIX_START_EARLIEST
                                                                         : FELIX_START_OFFSET,
                                                    .offset = offset,
                                                    .on_messages = on_messages,
                                                    .on_end = on_end,
                                                    .context = reader};
    enum felix_err err =
        felix_subscribe(load->client, SPACE, name, &options, &reader->subscription);
    if (err != FELIX_OK)
        ledger_wrong(&load->ledger, "cannot subscribe to stream %u from offset %llu: %s", stream,
                     (unsigned long long)offset, felix_last_error());
    return err == FELIX_OK;
}

static bool is_wrong(struct load *load) {
    (void)pthread_mutex_lock(&load->ledger.lock);
    bool wrong = load->ledger.wrong[0] != '\0';
    (void)pthread_mutex_unlock(&load->ledger.lock);
    return wrong;
}

static uint64_t position(struct load *load, const struct reader *reader) {
    (void)pthread_mutex_lock(&load->ledger.lock);
    uint64_t next = reader->view.next;
    (void)pthread_mutex_unlock(&load->ledger.lock);
    return next;
}

/* Until the reader's last record was the mark; false when that does not come. */
static bool reads_mark(struct load *load, const struct reader *reader, uint64_t mark) {
    time_t end = time(NULL) + PATIENCE_S;
    while (!is_wrong(load)) {
        uint64_t next = position(load, reader);
        if (next > 0 && ledger_is_mark(&load->ledger, reader->view.stream, next - 1, mark))
            return true;
        if (time(NULL) > end)
            ledger_wrong(&load->ledger, "stream %u: nothing comes after offset %llu",
                         reader->view.stream, (unsigned long long)next);
        (void)usleep(PAUSE_US);
    }
    return false;
}

/* Writes the stream's last record; returns its number. */
static uint64_t write_mark(struct load *load, unsigned stream) {
    struct publisher marker = {.load = load, .stream = stream, .source = load->publishers};
    time_t end = time(NULL) + PATIENCE_S;
    for (;;) {
        uint64_t number = ledger_claim(&load->ledger, stream, marker.source, 1);
        struct felix_publish_result result = send_records(&marker, number, 1, NULL);
        ledger_answered(&load->ledger, stream, marker.source, number, 1, &result);
        if (result.err == FELIX_OK)
            return number;
        if (time(NULL) > end) {
            ledger_wrong(&load->ledger, "stream %u accepts nothing: %s: %s", stream,
                         felix_err_name(result.err), result.error_text);
            return number;
        }
        (void)usleep(PAUSE_US);
    }
}

/* From `offset` to the mark and, when everything was read, whether that is all. */
static void check_from(struct load *load, unsigned stream, uint64_t offset, uint64_t mark) {
    struct reader reader;
    if (is_wrong(load) || !open_reader(load, &reader, stream, offset))
        return;
    if (reads_mark(load, &reader, mark) && offset == 0)
        (void)ledger_is_complete(&load->ledger, stream, position(load, &reader));
    felix_unsubscribe(reader.subscription);
}

static void check(struct load *load) {
    uint64_t records = 0;
    set_running(load, false);
    for (unsigned stream = 0; stream < load->streams; stream++) {
        uint64_t mark = write_mark(load, stream);
        check_from(load, stream, 0, mark);
        for (unsigned i = 0; i < LIVING && !is_wrong(load); i++)
            (void)reads_mark(load, &load->living[stream * LIVING + i], mark);
        size_t count = load->ledger.histories[stream].count;
        if (count > 1)
            check_from(load, stream, 1 + next_random(&load->all[0].random) % (count - 1), mark);
        records += count;
    }
    if (is_wrong(load))
        (void)printf("wrong %s\n", load->ledger.wrong);
    else
        (void)printf("ok records=%llu acked=%llu unknown=%llu refused=%llu\n",
                     (unsigned long long)records, (unsigned long long)load->ledger.acked,
                     (unsigned long long)load->ledger.unknown,
                     (unsigned long long)load->ledger.refused);
}

/* ---- life ---- */

static void begin(struct load *load, uint64_t seed, enum felix_level level) {
    ledger_init(&load->ledger, load->streams, load->publishers + 1, seed, level);
    (void)pthread_mutex_init(&load->lock, NULL);
    (void)pthread_cond_init(&load->changed, NULL);
    felix_options *options = felix_options_new();
    if (options == NULL || felix_options_set(options, "keep_alive_ms", "100") != FELIX_OK ||
        felix_connect(options, CONNECT_MS, &load->client) != FELIX_OK)
        die("cannot connect");
    felix_options_free(options);
    load->living = calloc((size_t)load->streams * LIVING, sizeof *load->living);
    load->all = calloc((size_t)load->streams * load->publishers, sizeof *load->all);
    if (load->living == NULL || load->all == NULL)
        abort();
    for (unsigned i = 0; i < load->streams * LIVING; i++)
        if (!open_reader(load, &load->living[i], i / LIVING, 0))
            die("cannot subscribe");
    for (unsigned i = 0; i < load->streams * load->publishers; i++) {
        load->all[i] = (struct publisher){.load = load,
                                          .stream = i / load->publishers,
                                          .source = i % load->publishers,
                                          .random = seed + i};
        if (pthread_create(&load->all[i].thread, NULL, publish_on, &load->all[i]) != 0)
            die("cannot make a thread");
    }
}

static void end(struct load *load) {
    set_running(load, false);
    (void)pthread_mutex_lock(&load->lock);
    load->quit = true;
    (void)pthread_cond_broadcast(&load->changed);
    (void)pthread_mutex_unlock(&load->lock);
    for (unsigned i = 0; i < load->streams * load->publishers; i++)
        (void)pthread_join(load->all[i].thread, NULL);
    for (unsigned i = 0; i < load->streams * LIVING; i++)
        felix_unsubscribe(load->living[i].subscription);
    felix_close(load->client, 0);
    ledger_deinit(&load->ledger);
    free(load->living);
    free(load->all);
}

static enum felix_level level_named(const char *name) {
    for (enum felix_level level = FELIX_LEVEL_MEMORY; level <= FELIX_LEVEL_FLUSHED; level++)
        if (strcmp(name, felix_level_name(level)) == 0)
            return level;
    return FELIX_LEVEL_UNKNOWN;
}

int main(int argc, char **argv) {
    static struct load load;
    char line[64];
    (void)setvbuf(stdout, NULL, _IOLBF, 1 << 12);
    enum felix_level level = argc == 6 ? level_named(argv[5]) : FELIX_LEVEL_UNKNOWN;
    if (level == FELIX_LEVEL_UNKNOWN || strlen(argv[1]) > 200 || atoi(argv[2]) < 1 ||
        atoi(argv[3]) < 1) {
        (void)fprintf(stderr, "usage: kill_load STREAM_PREFIX STREAMS PUBLISHERS SEED LEVEL\n");
        return 2;
    }
    load.prefix = argv[1];
    load.streams = (unsigned)atoi(argv[2]);
    load.publishers = (unsigned)atoi(argv[3]);
    begin(&load, strtoull(argv[4], NULL, 10), level);
    (void)printf("ok ready\n");
    while (fgets(line, sizeof line, stdin) != NULL) {
        if (strcmp(line, "check\n") == 0) {
            check(&load);
            continue;
        }
        bool run = strcmp(line, "run\n") == 0;
        if (!run && strcmp(line, "pause\n") != 0) {
            (void)printf("error USAGE\n");
            continue;
        }
        set_running(&load, run);
        (void)printf("ok\n");
    }
    end(&load);
    return 0;
}
