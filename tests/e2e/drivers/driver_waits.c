/* Who runs a client's turns while threads of the application wait. */
#include "client_driver.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>

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
