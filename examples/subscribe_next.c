/*
 * Subscribe and take messages one by one, on your own thread and at your own pace. When you are
 * slow the queue fills; under FELIX_QUEUE_BLOCK, the default, nothing is lost and the broker is
 * slowed down instead.
 *
 *     subscribe_next [STREAM [TIMEOUT_MS]]     ends when nothing came for so long
 */
#include <felix/felix.h>

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    const char *stream = argc > 1 ? argv[1] : "orders";
    uint32_t timeout_ms = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 10000;
    int status = 1;

    felix_options *options = felix_options_new();
    felix_client *client = NULL;
    felix_subscription *subscription = NULL;
    if (options == NULL || felix_connect(options, 0, &client) != FELIX_OK ||
        felix_subscribe(client, "default", stream, NULL, &subscription) != FELIX_OK)
        goto out;
    fprintf(stderr, "subscribed to %s\n", stream);

    for (;;) {
        struct felix_message message; /* its bytes stay valid until the next felix_next */
        enum felix_err err = felix_next(subscription, timeout_ms, &message);
        if (err == FELIX_TIMED_OUT || err == FELIX_CLOSED) {
            status = 0;
            break;
        }
        if (err != FELIX_OK)
            break;
        printf("%.*s\n", (int)message.len, (const char *)message.data);
    }

out:
    if (status != 0)
        fprintf(stderr, "subscribe_next: %s\n", felix_last_error());
    felix_unsubscribe(subscription);
    felix_close(client, 1000);
    felix_options_free(options);
    return status;
}
