/*
 * libfelix under the hand of a test: one client, one command per line on stdin, one answer per
 * line on stdout ("ok ...", "message ...", "error CODE text"). What callbacks have to say comes
 * between the answers, as lines that begin with "event" or "end".
 *
 * Payloads are generated, "PREFIX3....." being the fourth of a run, padded to its size; a message
 * whose padding is damaged is shown as CORRUPT. test_client_library.py is the other half.
 */
#include "client_driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct driver driver = {.lock = PTHREAD_MUTEX_INITIALIZER, .settled = PTHREAD_COND_INITIALIZER};

#define WORDS_MAX 16

void say_result(enum felix_err err) {
    if (err == FELIX_OK)
        printf("ok\n");
    else
        printf("error %s %s\n", felix_err_name(err), felix_last_error());
}

void say_message(const char *what, unsigned id, const struct felix_message *message) {
    const char *text = message->data;
    const char *padding = message->len > 0 ? memchr(text, '.', message->len) : NULL;
    size_t text_bytes = padding != NULL ? (size_t)(padding - text) : message->len;
    bool intact = true;
    for (size_t i = text_bytes; i < message->len; i++)
        intact = intact && text[i] == '.';
    char offset[48] = "-";
    if (message->has_offset && message->has_timestamp)
        (void)snprintf(offset, sizeof offset, "%llu@%llu", (unsigned long long)message->offset,
                       (unsigned long long)message->timestamp_us);
    else if (message->has_offset)
        (void)snprintf(offset, sizeof offset, "%llu", (unsigned long long)message->offset);
    printf("%s %u %s %zu %.*s\n", what, id, offset, message->len, (int)text_bytes,
           intact ? text : "CORRUPT");
}

unsigned long number(const char *word) {
    return strtoul(word, NULL, 10);
}

/* ---- options and the client's life ---- */

static void run_set(char **words) {
    say_result(felix_options_set(driver.options, words[1], words[2]));
}

static void run_connect(char **words) {
    say_result(felix_connect(driver.options, (uint32_t)number(words[1]), &driver.client));
}

static void run_close(char **words) {
    felix_close(driver.client, (uint32_t)number(words[1]));
    driver.client = NULL;
    say_result(FELIX_OK);
}

static void *close_elsewhere(void *context) {
    felix_close(driver.client, *(uint32_t *)context);
    return NULL;
}

static void run_close_elsewhere(char **words) {
    uint32_t timeout_ms = (uint32_t)number(words[1]);
    pthread_t thread;
    if (pthread_create(&thread, NULL, close_elsewhere, &timeout_ms) != 0)
        abort();
    (void)pthread_join(thread, NULL);
    driver.client = NULL;
    say_result(FELIX_OK);
}

static void run_flush(char **words) {
    say_result(felix_flush(driver.client, (uint32_t)number(words[1])));
}

static void run_ping(char **words) {
    uint64_t ns = 0;
    enum felix_err err = felix_ping(driver.client, (uint32_t)number(words[1]), &ns);
    if (err == FELIX_OK)
        printf("ok %llu\n", (unsigned long long)ns);
    else
        say_result(err);
}

static void run_stats(char **words) {
    struct felix_stats stats;
    felix_client_stats(driver.client, &stats);
#define FIELD(name) printf(" " #name "=%llu", (unsigned long long)stats.name)
    printf("ok");
    FIELD(connections);
    FIELD(connects);
    FIELD(reconnects);
    FIELD(published);
    FIELD(publish_bytes);
    FIELD(publish_acked);
    FIELD(publish_failed);
    FIELD(received);
    FIELD(receive_bytes);
    FIELD(receive_dropped);
    FIELD(cache_requests);
    FIELD(cache_failures);
    FIELD(datagrams_in);
    FIELD(datagrams_out);
    FIELD(bytes_in);
    FIELD(bytes_out);
#undef FIELD
    printf("\n");
}

/* ---- cache ---- */

static void say_value(enum felix_err err, const struct felix_bytes *value) {
    if (err == FELIX_OK) {
        struct felix_message message = {.data = value->data, .len = value->len};
        say_message("value", 0, &message);
        felix_free(value->data);
    } else {
        say_result(err);
    }
}

/* put CACHE KEY SIZE PREFIX TTL_MS */
static void run_put(char **words) {
    size_t size = number(words[3]);
    char *data = make_payload(words[4], 0, size);
    struct felix_bytes value = {data, size};
    say_result(
        felix_cache_put(driver.client, NAMESPACE, words[1], words[2], value, number(words[5])));
    free(data);
}

static void run_get(char **words) {
    struct felix_bytes value = {0};
    say_value(felix_cache_get(driver.client, NAMESPACE, words[1], words[2], &value), &value);
}

static void run_del(char **words) {
    struct felix_bytes old = {0};
    say_value(felix_cache_delete(driver.client, NAMESPACE, words[1], words[2], &old), &old);
}

/* cursor: what felix_cursor_error says about the last failure of this thread. */
static void run_cursor(char **words) {
    struct felix_cursor_error cursor;
    (void)words;
    if (felix_last_cursor_error(&cursor))
        printf("ok %llu %llu\n", (unsigned long long)cursor.requested,
               (unsigned long long)cursor.available);
    else
        printf("error NOT_FOUND it was no cursor error\n");
}

/* ---- commands ---- */

static const struct command {
    const char *name;
    int words; /* that must follow */
    void (*run)(char **words);
} commands[] = {
    {"set", 2, run_set},
    {"connect", 1, run_connect},
    {"close", 1, run_close},
    {"close_elsewhere", 1, run_close_elsewhere},
    {"flush", 1, run_flush},
    {"ping", 1, run_ping},
    {"stats", 0, run_stats},
    {"put", 5, run_put},
    {"get", 2, run_get},
    {"del", 2, run_del},
    {"publish", 5, run_publish},
    {"batch", 5, run_batch},
    {"keyed", 5, run_keyed},
    {"confirm", 5, run_confirm},
    {"cursor", 0, run_cursor},
    {"pipeline", 5, run_pipeline},
    {"cache_pipeline", 4, run_cache_pipeline},
    {"settle", 1, run_settle},
    {"publish_threads", 4, run_publish_threads},
    {"mixed_threads", 3, run_mixed_threads},
    {"subscribe", 6, run_subscribe},
    {"next", 2, run_next},
    {"take", 3, run_take},
    {"dropped", 1, run_dropped},
    {"lagged", 1, run_lagged},
    {"unsubscribe", 1, run_unsubscribe},
    {"callback_threads", 2, run_callback_threads},
    {"close_under_readers", 2, run_close_under_readers},
    {"unsubscribe_at_the_end", 2, run_unsubscribe_at_the_end},
};

static void run_line(char *line) {
    char *words[WORDS_MAX + 1] = {0};
    int count = 0;
    char *rest = NULL;
    for (char *word = strtok_r(line, " \n", &rest); word != NULL && count < WORDS_MAX;
         word = strtok_r(NULL, " \n", &rest))
        words[count++] = word;
    for (size_t i = 0; count > 0 && i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(words[0], commands[i].name) == 0 && count - 1 == commands[i].words) {
            commands[i].run(words);
            return;
        }
    }
    printf("error USAGE %s with %d words\n", count > 0 ? words[0] : "nothing", count - 1);
}

int main(void) {
    static char line[16384];
    (void)setvbuf(stdout, NULL, _IOLBF, 1 << 16);
    driver.options = felix_options_new();
    if (driver.options == NULL) {
        printf("error OPTIONS %s\n", felix_last_error());
        return 1;
    }
    printf("ok %s\n", felix_version());
    while (fgets(line, sizeof line, stdin) != NULL)
        run_line(line);
    for (unsigned id = 0; id < SUBSCRIPTIONS_MAX; id++)
        felix_unsubscribe(driver.readers[id].subscription);
    felix_close(driver.client, 1000);
    felix_options_free(driver.options);
    return 0;
}
