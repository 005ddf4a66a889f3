/*
 * The cache: put, get, delete, and values that expire by themselves.
 *
 *     cache [KEY]
 */
#include <felix/felix.h>

#include <stdio.h>
#include <string.h>
#include <time.h>

#define CACHE "default", "sessions" /* namespace and cache */

/* Prints what is stored; a miss is no failure. */
static enum felix_err show(felix_client *client, const char *key) {
    struct felix_bytes value;
    enum felix_err err = felix_cache_get(client, CACHE, key, &value);
    if (err == FELIX_NOT_FOUND) {
        printf("%s is not there\n", key);
        return FELIX_OK;
    }
    if (err != FELIX_OK)
        return err;
    printf("%s = %.*s\n", key, (int)value.len, (const char *)value.data);
    felix_free(value.data); /* it was returned owned */
    return FELIX_OK;
}

int main(int argc, char **argv) {
    const char *key = argc > 1 ? argv[1] : "alice";
    struct felix_bytes value = {"42", 2};
    struct timespec pause = {0, 60 * 1000 * 1000};
    int status = 1;

    felix_options *options = felix_options_new();
    felix_client *client = NULL;
    if (options == NULL || felix_connect(options, 0, &client) != FELIX_OK)
        goto out;

    /* Without a time to live it stays until it is deleted, or evicted for want of space. */
    if (felix_cache_put(client, CACHE, key, value, 0) != FELIX_OK || show(client, key) != FELIX_OK)
        goto out;
    if (felix_cache_delete(client, CACHE, key, NULL) != FELIX_OK || show(client, key) != FELIX_OK)
        goto out;
    /* With one of 50 ms it is gone after that. */
    if (felix_cache_put(client, CACHE, key, value, 50) != FELIX_OK)
        goto out;
    nanosleep(&pause, NULL);
    if (show(client, key) != FELIX_OK)
        goto out;
    status = 0;

out:
    if (status != 0)
        fprintf(stderr, "cache: %s\n", felix_last_error());
    felix_close(client, 1000);
    felix_options_free(options);
    return status;
}
