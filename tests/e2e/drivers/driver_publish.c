/* The driver's publishing: blocking, by callback, and from many threads. */
#include "client_driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define THREADS_MAX 32

static enum felix_ack ack_of(const char *word) {
    if (strcmp(word, "none") == 0)
        return FELIX_ACK_NONE;
    return strcmp(word, "batch") == 0 ? FELIX_ACK_PER_BATCH : FELIX_ACK_PER_MESSAGE;
}

char *make_payload(const char *prefix, unsigned long index, size_t size) {
    char text[128];
    int len = snprintf(text, sizeof text, "%s%lu", prefix, index);
    size_t text_bytes = (size_t)len < sizeof text ? (size_t)len : sizeof text - 1;
    char *payload = malloc(size > 0 ? size : 1);
    if (payload == NULL)
        abort();
    memset(payload, '.', size);
    memcpy(payload, text, text_bytes < size ? text_bytes : size);
    return payload;
}

/* ---- blocking ---- */

static enum felix_err publish_run(const char *stream, enum felix_ack ack, unsigned long count,
                                  size_t size, const char *prefix) {
    enum felix_err err = FELIX_OK;
    for (unsigned long i = 0; i < count && err == FELIX_OK; i++) {
        char *payload = make_payload(prefix, i, size);
        struct felix_bytes bytes = {payload, size};
        err = felix_publish(driver.client, NAMESPACE, stream, &bytes, 1, ack, NULL, NULL);
        free(payload);
    }
    return err;
}

void run_publish(char **words) {
    say_result(
        publish_run(words[1], ack_of(words[2]), number(words[3]), number(words[4]), words[5]));
}

void run_batch(char **words) {
    size_t count = number(words[3]), size = number(words[4]);
    struct felix_bytes *payloads = calloc(count > 0 ? count : 1, sizeof *payloads);
    if (payloads == NULL)
        abort();
    for (size_t i = 0; i < count; i++)
        payloads[i] = (struct felix_bytes){make_payload(words[5], i, size), size};
    say_result(felix_publish(driver.client, NAMESPACE, words[1], payloads, count, ack_of(words[2]),
                             NULL, NULL));
    for (size_t i = 0; i < count; i++)
        free((char *)(uintptr_t)payloads[i].data);
    free(payloads);
}

void run_keyed(char **words) {
    size_t size = number(words[4]);
    char *payload = make_payload(words[5], 0, size);
    struct felix_bytes key = {words[3], strlen(words[3])};
    struct felix_bytes bytes = {payload, size};
    say_result(felix_publish_keyed(driver.client, NAMESPACE, words[1], key, bytes, ack_of(words[2]),
                                   NULL, NULL));
    free(payload);
}

void run_confirm(char **words) {
    size_t count = number(words[3]), size = number(words[4]);
    struct felix_bytes *payloads = calloc(count > 0 ? count : 1, sizeof *payloads);
    struct felix_bytes key = {words[2], strlen(words[2])};
    struct felix_publish_result result;
    if (payloads == NULL)
        abort();
    for (size_t i = 0; i < count; i++)
        payloads[i] = (struct felix_bytes){make_payload(words[5], i, size), size};
    bool keyed = strcmp(words[2], "-") != 0;
    if (felix_publish_confirmed(driver.client, NAMESPACE, words[1], keyed ? &key : NULL, payloads,
                                count, &result) != FELIX_OK)
        printf("error %s %s\n", felix_err_name(result.err), result.error_text);
    else if (result.has_offset)
        printf("ok %llu %s\n", (unsigned long long)result.offset, felix_level_name(result.level));
    else
        printf("ok - %s\n", felix_level_name(result.level));
    for (size_t i = 0; i < count; i++)
        free((char *)(uintptr_t)payloads[i].data);
    free(payloads);
}

/* ---- by callback ---- */

void tally_start(void) {
    (void)pthread_mutex_lock(&driver.lock);
    driver.tally.pending++;
    (void)pthread_mutex_unlock(&driver.lock);
}

void tally_answer(enum felix_err err) {
    struct tally *tally = &driver.tally;
    (void)pthread_mutex_lock(&driver.lock);
    tally->pending--;
    for (size_t i = 0; i < TALLY_MAX; i++) {
        if (tally->codes[i].count == 0 || tally->codes[i].err == err) {
            tally->codes[i].err = err;
            tally->codes[i].count++;
            break;
        }
    }
    if (tally->pending == 0)
        (void)pthread_cond_broadcast(&driver.settled);
    (void)pthread_mutex_unlock(&driver.lock);
}

static void on_published(void *context, const struct felix_publish_result *result) {
    (void)context;
    tally_answer(result->err);
}

void run_pipeline(char **words) {
    enum felix_ack ack = ack_of(words[2]);
    size_t size = number(words[4]);
    enum felix_err err = FELIX_OK;
    for (unsigned long i = 0; i < number(words[3]) && err == FELIX_OK; i++) {
        char *payload = make_payload(words[5], i, size);
        struct felix_bytes bytes = {payload, size};
        tally_start();
        err = felix_publish(driver.client, NAMESPACE, words[1], &bytes, 1, ack, on_published, NULL);
        if (err != FELIX_OK)
            tally_answer(err);
        free(payload);
    }
    say_result(err);
}

static void on_cached(void *context, enum felix_err err, const char *error_text, bool found,
                      struct felix_bytes value) {
    (void)context, (void)error_text, (void)value;
    tally_answer(err == FELIX_OK && !found ? FELIX_NOT_FOUND : err);
}

/* Puts, and gets of the same keys right behind them. */
void run_cache_pipeline(char **words) {
    size_t size = number(words[3]);
    enum felix_err err = FELIX_OK;
    for (unsigned long i = 0; i < number(words[2]) && err == FELIX_OK; i++) {
        char *payload = make_payload(words[4], i, size);
        struct felix_bytes value = {payload, size};
        char key[160];
        (void)snprintf(key, sizeof key, "%s%lu", words[4], i);
        tally_start();
        err = felix_cache_put_async(driver.client, NAMESPACE, words[1], key, value, 0, on_cached,
                                    NULL);
        if (err != FELIX_OK)
            tally_answer(err);
        free(payload);
    }
    say_result(err);
}

/* Waits until nothing is pending, then says how often which code came, and forgets it. */
void run_settle(char **words) {
    unsigned long timeout_ms = number(words[1]);
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += (time_t)(timeout_ms / 1000);
    int rc = 0;
    (void)pthread_mutex_lock(&driver.lock);
    while (driver.tally.pending > 0 && rc == 0)
        rc = pthread_cond_timedwait(&driver.settled, &driver.lock, &until);
    struct tally tally = driver.tally;
    driver.tally = (struct tally){.pending = tally.pending};
    (void)pthread_mutex_unlock(&driver.lock);
    printf("ok pending=%lu", tally.pending);
    for (size_t i = 0; i < TALLY_MAX && tally.codes[i].count > 0; i++)
        printf(" %s=%lu", felix_err_name(tally.codes[i].err), tally.codes[i].count);
    printf("\n");
}

/* ---- from many threads ---- */

struct worker {
    pthread_t thread;
    const char *name; /* of the stream and of the cache */
    unsigned index;
    unsigned long count;
    size_t size;
    enum felix_err err;
    char text[256];
};

static void *publish_worker(void *context) {
    struct worker *worker = context;
    char prefix[32];
    (void)snprintf(prefix, sizeof prefix, "t%u-", worker->index);
    worker->err =
        publish_run(worker->name, FELIX_ACK_PER_MESSAGE, worker->count, worker->size, prefix);
    (void)snprintf(worker->text, sizeof worker->text, "%s", felix_last_error());
    return NULL;
}

/* Everything that a client can do, in turn. */
static enum felix_err mixed_step(const struct worker *worker, unsigned long i) {
    char key[64];
    (void)snprintf(key, sizeof key, "%s-%u-%lu", worker->name, worker->index, i % 8);
    struct felix_bytes bytes = {key, strlen(key)};
    struct felix_bytes value = {0};
    struct felix_stats stats;
    felix_client_stats(driver.client, &stats);
    enum felix_err err = felix_publish(driver.client, NAMESPACE, worker->name, &bytes, 1,
                                       FELIX_ACK_PER_MESSAGE, NULL, NULL);
    if (err == FELIX_OK)
        err = felix_cache_put(driver.client, NAMESPACE, "mixed", key, bytes, 0);
    if (err == FELIX_OK)
        err = felix_cache_get(driver.client, NAMESPACE, "mixed", key, &value);
    felix_free(value.data);
    if (err == FELIX_OK && i % 16 == 0)
        err = felix_flush(driver.client, 10000);
    if (err == FELIX_OK && i % 16 == 8) {
        felix_subscription *subscription = NULL;
        err = felix_subscribe(driver.client, NAMESPACE, worker->name, NULL, &subscription);
        felix_unsubscribe(subscription);
    }
    return err;
}

static void *mixed_worker(void *context) {
    struct worker *worker = context;
    for (unsigned long i = 0; i < worker->count && worker->err == FELIX_OK; i++)
        worker->err = mixed_step(worker, i);
    (void)snprintf(worker->text, sizeof worker->text, "%s", felix_last_error());
    return NULL;
}

static void run_workers(void *(*run)(void *), const char *name, unsigned long count,
                        unsigned long each, size_t size) {
    struct worker workers[THREADS_MAX] = {0};
    if (count > THREADS_MAX)
        abort();
    for (unsigned i = 0; i < count; i++) {
        workers[i] = (struct worker){.name = name, .index = i, .count = each, .size = size};
        if (pthread_create(&workers[i].thread, NULL, run, &workers[i]) != 0)
            abort();
    }
    const struct worker *failed = NULL;
    for (unsigned i = 0; i < count; i++) {
        (void)pthread_join(workers[i].thread, NULL);
        if (workers[i].err != FELIX_OK)
            failed = &workers[i];
    }
    if (failed != NULL)
        printf("error %s %s\n", felix_err_name(failed->err), failed->text);
    else
        printf("ok\n");
}

void run_publish_threads(char **words) {
    run_workers(publish_worker, words[1], number(words[2]), number(words[3]), number(words[4]));
}

void run_mixed_threads(char **words) {
    run_workers(mixed_worker, words[1], number(words[2]), number(words[3]), 0);
}
