/* Who runs a client's turns while threads of the application wait. */
#include "client_driver.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define READERS_MAX 16

/* ---- where callbacks run ---- */

struct seen {
    pthread_t thread;
    sem_t came;
};

static void note_thread(void *context, felix_subscription *subscription,
                        const struct felix_message *messages, size_t count) {
    struct seen *seen = context;
    seen->thread = pthread_self();
    (void)sem_post(&seen->came);
}

/* The callback of a message that arrives while this thread waits for its acknowledgement: does it
 * run on this thread? Asked `count` times, because the background thread may be in a turn just
 * then. Says how often it did. */
void run_callback_threads(char **words) {
    struct seen seen = {0};
    struct felix_subscribe_options options = {.on_messages = note_thread, .context = &seen};
    felix_subscription *subscription = NULL;
    struct felix_bytes payload = {"m", 1};
    unsigned long here = 0;
    (void)sem_init(&seen.came, 0, 0);
    enum felix_err err =
        felix_subscribe(driver.client, NAMESPACE, words[1], &options, &subscription);
    for (unsigned long i = 0; i < number(words[2]) && err == FELIX_OK; i++) {
        err = felix_publish(driver.client, NAMESPACE, words[1], &payload, 1, FELIX_ACK_PER_MESSAGE,
                            NULL, NULL);
        if (err != FELIX_OK)
            break;
        (void)sem_wait(&seen.came);
        here += pthread_equal(seen.thread, pthread_self()) != 0;
    }
    felix_unsubscribe(subscription);
    (void)sem_destroy(&seen.came);
    if (err == FELIX_OK)
        printf("ok %lu\n", here);
    else
        printf("error %s %s\n", felix_err_name(err), felix_last_error());
}

/* ---- closing under threads that wait ---- */

struct waiting_reader {
    pthread_t thread;
    felix_subscription *subscription;
    sem_t *waiting;
    enum felix_err err;
};

static void *read_until_closed(void *context) {
    struct waiting_reader *reader = context;
    struct felix_message message;
    (void)sem_post(reader->waiting);
    do {
        reader->err = felix_next(reader->subscription, UINT32_MAX, &message);
    } while (reader->err == FELIX_OK);
    return NULL;
}

/* `count` threads wait for messages, the first of them reads and writes the connections; then the
 * client is closed. Says how many were told that it is. */
void run_close_under_readers(char **words) {
    struct waiting_reader readers[READERS_MAX] = {0};
    unsigned long count = number(words[2]), closed = 0;
    sem_t waiting;
    (void)sem_init(&waiting, 0, 0);
    if (count > READERS_MAX)
        abort();
    for (unsigned long i = 0; i < count; i++) {
        readers[i].waiting = &waiting;
        if (felix_subscribe(driver.client, NAMESPACE, words[1], NULL, &readers[i].subscription) !=
                FELIX_OK ||
            pthread_create(&readers[i].thread, NULL, read_until_closed, &readers[i]) != 0)
            abort();
        (void)sem_wait(&waiting);
    }
    felix_close(driver.client, 5000);
    driver.client = NULL;
    for (unsigned long i = 0; i < count; i++) {
        (void)pthread_join(readers[i].thread, NULL);
        closed += readers[i].err == FELIX_CLOSED;
        felix_unsubscribe(readers[i].subscription);
    }
    (void)sem_destroy(&waiting);
    printf("ok %lu\n", closed);
}

/* ---- unsubscribing while on_end runs ---- */

struct ending {
    bool inside; /* unsubscribes itself */
    sem_t running, returned;
    bool early; /* felix_unsubscribe returned while on_end ran */
};

static void slow_end(void *context, felix_subscription *subscription, enum felix_err err,
                     const char *error_text) {
    struct ending *ending = context;
    if (ending->inside)
        felix_unsubscribe(subscription);
    (void)sem_post(&ending->running);
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 1;
    ending->early = !ending->inside && sem_timedwait(&ending->returned, &until) == 0;
}

static void *close_client(void *context) {
    felix_close(context, 0);
    return NULL;
}

/* Close the client, and unsubscribe from inside on_end or while that runs. Says whether on_end was
 * over, as it has to be, when felix_unsubscribe returned. */
void run_unsubscribe_at_the_end(char **words) {
    struct ending ending = {.inside = strcmp(words[2], "inside") == 0};
    struct felix_subscribe_options options = {.on_end = slow_end, .context = &ending};
    felix_subscription *subscription = NULL;
    pthread_t closing;
    (void)sem_init(&ending.running, 0, 0);
    (void)sem_init(&ending.returned, 0, 0);
    if (felix_subscribe(driver.client, NAMESPACE, words[1], &options, &subscription) != FELIX_OK ||
        pthread_create(&closing, NULL, close_client, driver.client) != 0)
        abort();
    (void)sem_wait(&ending.running);
    if (!ending.inside)
        felix_unsubscribe(subscription);
    (void)sem_post(&ending.returned);
    (void)pthread_join(closing, NULL);
    driver.client = NULL;
    (void)sem_destroy(&ending.running);
    (void)sem_destroy(&ending.returned);
    printf("ok %s\n", ending.early ? "early" : "over");
}
