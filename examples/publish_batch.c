/*
 * Publish many messages with one call: they travel as one frame and stay together and in order.
 * A batch costs far less per message than single publishes, for both sides.
 *
 *     publish_batch [STREAM [COUNT]]
 */
#include <felix/felix.h>

#include <stdio.h>
#include <stdlib.h>

#define COUNT_MAX 1000

int main(int argc, char **argv) {
    const char *stream = argc > 1 ? argv[1] : "orders";
    long count = argc > 2 ? strtol(argv[2], NULL, 10) : 100;
    int status = 1;
    if (count < 1 || count > COUNT_MAX) {
        fprintf(stderr, "publish_batch: a count of 1 .. %d, please\n", COUNT_MAX);
        return 2;
    }

    felix_options *options = felix_options_new();
    felix_client *client = NULL;
    if (options == NULL || felix_connect(options, 0, &client) != FELIX_OK)
        goto out;

    static char texts[COUNT_MAX][32];
    static struct felix_bytes payloads[COUNT_MAX];
    for (long i = 0; i < count; i++) {
        int len = snprintf(texts[i], sizeof texts[i], "message %ld", i);
        payloads[i].data = texts[i];
        payloads[i].len = (size_t)len;
    }
    if (felix_publish(client, "default", stream, payloads, (size_t)count, FELIX_ACK_PER_BATCH, NULL,
                      NULL) != FELIX_OK)
        goto out;
    printf("the broker has all %ld\n", count);
    status = 0;

out:
    if (status != 0)
        fprintf(stderr, "publish_batch: %s\n", felix_last_error());
    felix_close(client, 1000);
    felix_options_free(options);
    return status;
}
