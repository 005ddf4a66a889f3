/*
 * Publish one message and wait until the broker has it, and has it as safely as the stream
 * promises.
 *
 *     publish [STREAM [TEXT]]
 *
 * Where the broker is and who we are comes from FELIX_SERVER, FELIX_CA_FILE and FELIX_TOKEN_FILE,
 * or from a development broker (felix-broker --dev) that runs on this machine.
 */
#include <felix/felix.h>

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv) {
    const char *stream = argc > 1 ? argv[1] : "orders";
    const char *text = argc > 2 ? argv[2] : "hello";
    int status = 1;

    felix_options *options = felix_options_new();
    felix_client *client = NULL;
    if (options == NULL || felix_connect(options, 0, &client) != FELIX_OK)
        goto out;

    struct felix_bytes payload = {text, strlen(text)};
    struct felix_publish_result result;
    if (felix_publish_confirmed(client, "default", stream, NULL, &payload, 1, &result) != FELIX_OK)
        goto out;
    printf("the broker has \"%s\"", text);
    if (result.has_offset) /* a durable stream */
        printf(", %s at offset %" PRIu64, felix_level_name(result.level), result.offset);
    printf("\n");
    status = 0;

out:
    if (status != 0)
        fprintf(stderr, "publish: %s\n", felix_last_error());
    felix_close(client, 1000);
    felix_options_free(options);
    return status;
}
