/* The driver's subscriptions: by felix_next, by callback, and callbacks that call back. */
#include "client_driver.h"

#include <stdio.h>
#include <string.h>

/* ---- callbacks ---- */

static void on_echoed(void *context, const struct felix_publish_result *result) {
    (void)context;
    tally_answer(result->err);
}

static void echo(const struct reader *reader, const struct felix_message *message) {
    struct felix_bytes payload = {message->data, message->len};
    tally_start();
    enum felix_err err = felix_publish(driver.client, NAMESPACE, reader->echo_to, &payload, 1,
                                       FELIX_ACK_PER_MESSAGE, on_echoed, NULL);
    if (err != FELIX_OK)
        tally_answer(err);
}

/* Everything that would block. None of it may: each is refused. */
static void misuse(const struct reader *reader) {
    felix_subscription *subscription = NULL;
    struct felix_bytes payload = {"x", 1}, value;
    uint64_t ns;
    enum felix_err publish = felix_publish(driver.client, NAMESPACE, "misuse", &payload, 1,
                                           FELIX_ACK_PER_MESSAGE, NULL, NULL);
    enum felix_err subscribe =
        felix_subscribe(driver.client, NAMESPACE, "misuse", NULL, &subscription);
    enum felix_err flush = felix_flush(driver.client, 1000);
    enum felix_err ping = felix_ping(driver.client, 1000, &ns);
    enum felix_err get = felix_cache_get(driver.client, NAMESPACE, "misuse", "k", &value);
    printf("event %u misuse publish=%s subscribe=%s flush=%s ping=%s get=%s\n", reader->id,
           felix_err_name(publish), felix_err_name(subscribe), felix_err_name(flush),
           felix_err_name(ping), felix_err_name(get));
}

static void on_messages(void *context, felix_subscription *subscription,
                        const struct felix_message *messages, size_t count) {
    const struct reader *reader = context;
    (void)subscription;
    if (reader->misuse)
        misuse(reader);
    for (size_t i = 0; i < count; i++) {
        if (reader->echo_to[0] != '\0')
            echo(reader, &messages[i]);
        else
            say_message("event", reader->id, &messages[i]);
    }
}

static void on_end(void *context, felix_subscription *subscription, enum felix_err err,
                   const char *error_text) {
    const struct reader *reader = context;
    (void)subscription;
    printf("end %u %s %s\n", reader->id, felix_err_name(err), error_text);
}

/* ---- commands ---- */

static void set_start(struct felix_subscribe_options *how, const char *word) {
    if (strcmp(word, "live") == 0) {
        how->start = FELIX_START_LIVE;
    } else if (strcmp(word, "latest") == 0) {
        how->start = FELIX_START_LATEST;
    } else if (strcmp(word, "earliest") == 0) {
        how->start = FELIX_START_EARLIEST;
    } else {
        how->start = FELIX_START_OFFSET;
        how->offset = number(word);
    }
}

static struct reader *free_reader(void) {
    for (unsigned id = 0; id < SUBSCRIPTIONS_MAX; id++) {
        if (driver.readers[id].subscription == NULL) {
            driver.readers[id] = (struct reader){.id = id};
            return &driver.readers[id];
        }
    }
    return NULL;
}

/* MODE: next, once (next, without resubscribing), callback, echo (to stream TARGET), misuse. */
void run_subscribe(char **words) {
    struct reader *reader = free_reader();
    struct felix_subscribe_options how = {.queue_messages_max = number(words[5])};
    const char *mode = words[3];
    if (reader == NULL) {
        printf("error USAGE too many subscriptions\n");
        return;
    }
    set_start(&how, words[2]);
    how.context = reader;
    how.on_end = on_end;
    how.no_resubscribe = strcmp(mode, "once") == 0;
    if (strcmp(mode, "next") != 0 && strcmp(mode, "once") != 0)
        how.on_messages = on_messages;
    if (strcmp(mode, "echo") == 0)
        (void)snprintf(reader->echo_to, sizeof reader->echo_to, "%s", words[4]);
    reader->misuse = strcmp(mode, "misuse") == 0;
    if (strcmp(words[6], "drop_new") == 0)
        how.policy = FELIX_QUEUE_DROP_NEW;
    else if (strcmp(words[6], "drop_old") == 0)
        how.policy = FELIX_QUEUE_DROP_OLD;
    felix_subscription *subscription = NULL;
    enum felix_err err = felix_subscribe(driver.client, NAMESPACE, words[1], &how, &subscription);
    reader->subscription = subscription;
    if (err == FELIX_OK)
        printf("ok %u\n", reader->id);
    else
        say_result(err);
}

static struct reader *reader_of(const char *word) {
    unsigned long id = number(word);
    return id < SUBSCRIPTIONS_MAX ? &driver.readers[id] : NULL;
}

static enum felix_err take_one(struct reader *reader, const char *timeout_ms) {
    struct felix_message message;
    enum felix_err err = felix_next(reader->subscription, (uint32_t)number(timeout_ms), &message);
    if (err == FELIX_OK)
        say_message("message", reader->id, &message);
    return err;
}

void run_next(char **words) {
    enum felix_err err = take_one(reader_of(words[1]), words[2]);
    if (err != FELIX_OK)
        say_result(err);
}

/* COUNT messages, each within TIMEOUT_MS, then the result. */
void run_take(char **words) {
    enum felix_err err = FELIX_OK;
    for (unsigned long i = 0; i < number(words[2]) && err == FELIX_OK; i++)
        err = take_one(reader_of(words[1]), words[3]);
    say_result(err);
}

void run_dropped(char **words) {
    printf("ok %llu\n",
           (unsigned long long)felix_subscription_dropped(reader_of(words[1])->subscription));
}

void run_lagged(char **words) {
    printf("ok %llu\n",
           (unsigned long long)felix_subscription_lagged(reader_of(words[1])->subscription));
}

void run_unsubscribe(char **words) {
    struct reader *reader = reader_of(words[1]);
    felix_unsubscribe(reader->subscription);
    reader->subscription = NULL;
    say_result(FELIX_OK);
}
