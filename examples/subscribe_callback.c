/*
 * Subscribe with a callback: messages are handed over in runs, on the library's thread, the moment
 * they arrive. The fastest way to receive; what takes long belongs on a thread of yours.
 *
 *     subscribe_callback [STREAM [COUNT]]      ends after COUNT messages, or when the stream does
 */
#include <felix/felix.h>

#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>

struct reader {
    long wanted;
    sem_t finished;
};

/* `messages` and their bytes are ours until this returns. */
static void on_messages(void *context, felix_subscription *subscription,
                        const struct felix_message *messages, size_t count) {
    struct reader *reader = context;
    (void)subscription;
    for (size_t i = 0; i < count && reader->wanted > 0; i++) {
        printf("%.*s\n", (int)messages[i].len, (const char *)messages[i].data);
        if (--reader->wanted == 0)
            sem_post(&reader->finished);
    }
}

/* Not called for a lost connection: the library subscribes again by itself. */
static void on_end(void *context, felix_subscription *subscription, enum felix_err err,
                   const char *error_text) {
    struct reader *reader = context;
    (void)subscription;
    fprintf(stderr, "the subscription ended: %s: %s\n", felix_err_name(err), error_text);
    sem_post(&reader->finished);
}

int main(int argc, char **argv) {
    const char *stream = argc > 1 ? argv[1] : "orders";
    struct reader reader = {argc > 2 ? strtol(argv[2], NULL, 10) : 10, {{0}}};
    int status = 1;
    sem_init(&reader.finished, 0, 0);

    felix_options *options = felix_options_new();
    felix_client *client = NULL;
    felix_subscription *subscription = NULL;
    struct felix_subscribe_options how = {0};
    how.on_messages = on_messages;
    how.on_end = on_end;
    how.context = &reader;
    if (options == NULL || felix_connect(options, 0, &client) != FELIX_OK ||
        felix_subscribe(client, "default", stream, &how, &subscription) != FELIX_OK)
        goto out;
    fprintf(stderr, "subscribed to %s\n", stream);
    while (sem_wait(&reader.finished) != 0) /* a signal came: go on waiting */
        continue;
    status = 0;

out:
    if (status != 0)
        fprintf(stderr, "subscribe_callback: %s\n", felix_last_error());
    felix_unsubscribe(subscription); /* after this no callback runs any more */
    felix_close(client, 1000);
    felix_options_free(options);
    sem_destroy(&reader.finished);
    return status;
}
