/*
 * Publish without waiting for each answer: the callback is told, once per publish, how it went.
 * So thousands can be on their way, and the network's round trip is paid once.
 *
 *     publish_async [STREAM [COUNT]]
 *
 * felix_publish itself waits only when FELIX_PUBLISH_INFLIGHT_BYTES are unanswered.
 */
#include <felix/felix.h>

#include <stdio.h>
#include <stdlib.h>

struct outcome {
    long done;
    long failed;
    char first_failure[128];
};

/* Runs on the library's background thread: short, and without blocking. */
static void on_done(void *context, const struct felix_publish_result *result) {
    struct outcome *outcome = context;
    outcome->done++;
    if (result->err != FELIX_OK && outcome->failed++ == 0)
        snprintf(outcome->first_failure, sizeof outcome->first_failure, "%s: %s",
                 felix_err_name(result->err), result->error_text);
}

int main(int argc, char **argv) {
    const char *stream = argc > 1 ? argv[1] : "orders";
    long count = argc > 2 ? strtol(argv[2], NULL, 10) : 10000;
    int status = 1;
    struct outcome outcome = {0, 0, ""};

    felix_options *options = felix_options_new();
    felix_client *client = NULL;
    if (options == NULL || felix_connect(options, 0, &client) != FELIX_OK)
        goto out;

    for (long i = 0; i < count; i++) {
        char text[32];
        struct felix_bytes payload = {text, (size_t)snprintf(text, sizeof text, "message %ld", i)};
        if (felix_publish(client, "default", stream, &payload, 1, FELIX_ACK_PER_MESSAGE, on_done,
                          &outcome) != FELIX_OK)
            goto out;
    }
    /* After this every callback has run, so `outcome` may be read. */
    if (felix_flush(client, 30000) != FELIX_OK)
        goto out;
    printf("%ld answers, %ld failures %s\n", outcome.done, outcome.failed, outcome.first_failure);
    status = outcome.done == count && outcome.failed == 0 ? 0 : 1;

out:
    if (status != 0)
        fprintf(stderr, "publish_async: %s\n", felix_last_error());
    felix_close(client, 1000); /* callbacks may still run in here: `outcome` must be alive */
    felix_options_free(options);
    return status;
}
