/*
 * Publish with a routing key: messages of one key keep their order, whatever the stream is split
 * into. Use what identifies the thing that changes, such as an account number.
 *
 *     publish_keyed [STREAM]
 */
#include <felix/felix.h>

#include <stdio.h>
#include <string.h>

static struct felix_bytes bytes(const char *text) {
    struct felix_bytes result = {text, strlen(text)};
    return result;
}

int main(int argc, char **argv) {
    const char *stream = argc > 1 ? argv[1] : "orders";
    static const char *const orders[][2] = {
        {"account-7", "open"}, {"account-9", "open"}, {"account-7", "pay"}, {"account-7", "close"}};
    int status = 1;

    felix_options *options = felix_options_new();
    felix_client *client = NULL;
    if (options == NULL || felix_connect(options, 0, &client) != FELIX_OK)
        goto out;

    for (size_t i = 0; i < sizeof orders / sizeof orders[0]; i++) {
        if (felix_publish_keyed(client, "default", stream, bytes(orders[i][0]), bytes(orders[i][1]),
                                FELIX_ACK_PER_MESSAGE, NULL, NULL) != FELIX_OK)
            goto out;
        printf("%s: %s\n", orders[i][0], orders[i][1]);
    }
    status = 0;

out:
    if (status != 0)
        fprintf(stderr, "publish_keyed: %s\n", felix_last_error());
    felix_close(client, 1000);
    felix_options_free(options);
    return status;
}
