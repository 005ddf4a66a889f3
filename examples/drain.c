/*
 * Closing loses nothing: felix_close sends what is queued, waits for the answers, and returns only
 * when the broker has read everything or the time is up. Even for publishes that ask for no
 * acknowledgement.
 *
 *     drain [STREAM [COUNT]]
 */
#include <felix/felix.h>

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    const char *stream = argc > 1 ? argv[1] : "orders";
    long count = argc > 2 ? strtol(argv[2], NULL, 10) : 10000;
    long published = 0;

    felix_options *options = felix_options_new();
    felix_client *client = NULL;
    if (options == NULL || felix_connect(options, 0, &client) != FELIX_OK)
        goto out;

    /* Fire and forget: each call returns when the message is queued in this process. */
    for (; published < count; published++) {
        char text[32];
        struct felix_bytes payload = {
            text, (size_t)snprintf(text, sizeof text, "message %ld", published)};
        if (felix_publish(client, "default", stream, &payload, 1, FELIX_ACK_NONE, NULL, NULL) !=
            FELIX_OK)
            break;
    }

out:
    if (published < count)
        fprintf(stderr, "drain: %s\n", felix_last_error());
    felix_close(client, 30000);
    felix_options_free(options);
    printf("%ld published and delivered to the broker\n", published);
    return published == count ? 0 : 1;
}
