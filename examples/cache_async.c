/*
 * Many cache requests at once. Each `put` starts its own `get` from its callback: functions that
 * are marked "may be called from a callback" never block there.
 *
 *     cache_async [PREFIX [COUNT]]
 */
#include <felix/felix.h>

#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CACHE "default", "sessions" /* namespace and cache */

struct item {
    felix_client *client;
    sem_t *finished;
    char key[64];
    int right; /* the value came back as it went */
};

static void on_get(void *context, enum felix_err err, const char *error_text, bool found,
                   struct felix_bytes value) {
    struct item *item = context;
    if (err != FELIX_OK)
        fprintf(stderr, "%s: %s\n", item->key, error_text);
    item->right = err == FELIX_OK && found && value.len == strlen(item->key) &&
                  memcmp(value.data, item->key, value.len) == 0;
    sem_post(item->finished);
}

static void on_put(void *context, enum felix_err err, const char *error_text, bool found,
                   struct felix_bytes value) {
    struct item *item = context;
    (void)found, (void)value;
    if (err == FELIX_OK)
        err = felix_cache_get_async(item->client, CACHE, item->key, on_get, item);
    if (err != FELIX_OK)
        on_get(item, err, error_text, false, (struct felix_bytes){NULL, 0});
}

int main(int argc, char **argv) {
    const char *prefix = argc > 1 ? argv[1] : "item";
    size_t count = argc > 2 ? strtoul(argv[2], NULL, 10) : 1000;
    size_t right = 0, started = 0;
    sem_t finished;
    sem_init(&finished, 0, 0);

    felix_options *options = felix_options_new();
    felix_client *client = NULL;
    struct item *items = calloc(count > 0 ? count : 1, sizeof *items);
    if (items == NULL || options == NULL || felix_connect(options, 0, &client) != FELIX_OK)
        goto out;

    for (; started < count; started++) {
        struct item *item = &items[started];
        item->client = client;
        item->finished = &finished;
        int len = snprintf(item->key, sizeof item->key, "%s-%zu", prefix, started);
        struct felix_bytes value = {item->key, (size_t)len};
        if (felix_cache_put_async(client, CACHE, item->key, value, 0, on_put, item) != FELIX_OK)
            break;
    }
    for (size_t i = 0; i < started; i++) {
        while (sem_wait(&finished) != 0) /* a signal came: go on waiting */
            continue;
    }
    for (size_t i = 0; i < started; i++)
        right += items[i].right ? 1 : 0;
    printf("%zu of %zu values came back\n", right, count);

out:
    if (started < count)
        fprintf(stderr, "cache_async: %s\n", felix_last_error());
    felix_close(client, 1000);
    felix_options_free(options);
    free(items);
    sem_destroy(&finished);
    return right == count ? 0 : 1;
}
