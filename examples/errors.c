/*
 * Errors: every call returns a code to decide by, and felix_last_error() says in words what was
 * tried and what to do. This program fails on purpose, five times.
 */
#include <felix/felix.h>

#include <stdio.h>
#include <string.h>

static void report(const char *what, enum felix_err err) {
    printf("%-28s %s: %s\n", what, felix_err_name(err), felix_last_error());
}

/* What a program can do about each kind of failure. */
static const char *advice(enum felix_err err) {
    if (err == FELIX_OUTCOME_UNKNOWN)
        return "it may have happened: send it again only if twice does no harm";
    if (err == FELIX_OVERLOADED || err == FELIX_DRAINING || err == FELIX_TIMED_OUT)
        return "try again, after a pause that grows";
    if (err == FELIX_UNAUTHENTICATED || err == FELIX_FORBIDDEN)
        return "another token is needed";
    return "the program or its configuration is wrong";
}

int main(void) {
    felix_options *options = felix_options_new();
    felix_client *client = NULL;
    if (options == NULL || felix_connect(options, 0, &client) != FELIX_OK) {
        fprintf(stderr, "errors: %s\n", felix_last_error());
        felix_options_free(options);
        return 1;
    }
    struct felix_bytes payload = {"x", 1};
    struct felix_bytes large = {NULL, (size_t)1 << 30}; /* refused before anybody looks at it */
    struct felix_bytes value;
    struct felix_subscribe_options future = {0};
    future.start = FELIX_START_OFFSET;
    future.offset = 1000000000;
    felix_subscription *subscription = NULL;

    enum felix_err err = felix_options_set(options, "pub_conn_pool", "many");
    report("a setting out of range", err);
    err = felix_publish(client, "default", "errors", &large, 1, FELIX_ACK_PER_MESSAGE, NULL, NULL);
    report("a payload of 1 GiB", err);
    err =
        felix_publish(client, "nowhere", "errors", &payload, 1, FELIX_ACK_PER_MESSAGE, NULL, NULL);
    report("an unknown namespace", err);
    printf("%-28s %s\n", "", advice(err));
    err = felix_subscribe(client, "default", "errors", &future, &subscription);
    report("an offset to come", err);
    err = felix_cache_get(client, "default", "sessions", "nobody wrote this", &value);
    report("a key that is not there", err);

    felix_close(client, 1000);
    felix_options_free(options);
    return 0;
}
