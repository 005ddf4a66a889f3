/*
 * Counters of a client, for a metrics page or a log line, and the round trip to the broker.
 *
 *     statistics [STREAM]
 */
#include <felix/felix.h>

#include <inttypes.h>
#include <stdio.h>

int main(int argc, char **argv) {
    const char *stream = argc > 1 ? argv[1] : "orders";
    int status = 1;

    felix_options *options = felix_options_new();
    felix_client *client = NULL;
    if (options == NULL || felix_connect(options, 0, &client) != FELIX_OK)
        goto out;

    struct felix_bytes payload = {"hello", 5};
    for (int i = 0; i < 100; i++) {
        if (felix_publish(client, "default", stream, &payload, 1, FELIX_ACK_PER_MESSAGE, NULL,
                          NULL) != FELIX_OK)
            goto out;
    }
    uint64_t round_trip_ns = 0;
    if (felix_ping(client, 1000, &round_trip_ns) != FELIX_OK)
        goto out;

    struct felix_stats stats;
    felix_client_stats(client, &stats); /* cheap, from any thread, also from a callback */
    printf("round trip %.3f ms\n", (double)round_trip_ns / 1e6);
    printf("connections %" PRIu64 ", reconnects %" PRIu64 "\n", stats.connections,
           stats.reconnects);
    printf("published %" PRIu64 " (%" PRIu64 " bytes), acknowledged %" PRIu64 ", failed %" PRIu64
           "\n",
           stats.published, stats.publish_bytes, stats.publish_acked, stats.publish_failed);
    printf("datagrams %" PRIu64 " out, %" PRIu64 " in\n", stats.datagrams_out, stats.datagrams_in);
    status = 0;

out:
    if (status != 0)
        fprintf(stderr, "statistics: %s\n", felix_last_error());
    felix_close(client, 1000);
    felix_options_free(options);
    return status;
}
