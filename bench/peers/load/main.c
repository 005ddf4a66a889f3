/*
 * peer-load: the work of latencydemo and cachedemo, done to other servers than Felix.
 *
 *     peer-load nats|redis|mqtt --port N [--ca FILE] [--payload BYTES] [--seconds S]
 *               [--warmup-ms N] [--idle-ms N] [--fanout N] [--acked] [--window-bytes N]
 *     peer-load cache:redis|cache:memcached --port N [--ca FILE] [--payload BYTES] [--seconds S]
 *               [--warmup-ms N] [--idle-ms N] --op put|get [--connections N] [--in-flight N]
 * [--keys N]
 *     peer-load durable:redis|durable:jetstream --port N [--payload BYTES] [--seconds S]
 *               [--warmup-ms N] [--connections N] [--in-flight N] [--records N] [--replay]
 *
 * Prints one JSON object. Exit status 1: the peer failed, or something was not delivered.
 */
#include "run.h"

#include "base/clock.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#define WARMUP_NS (300 * NS_PER_MS)
#define IDLE_NS (10 * NS_PER_S)
#define CACHE_PREFIX "cache:"
#define DURABLE_PREFIX "durable:"

enum option_id {
    OPTION_PORT,
    OPTION_CA,
    OPTION_PAYLOAD,
    OPTION_SECONDS,
    OPTION_WARMUP_MS,
    OPTION_IDLE_MS,
    OPTION_FANOUT,
    OPTION_ACKED,
    OPTION_WINDOW,
    OPTION_OP,
    OPTION_CONNECTIONS,
    OPTION_IN_FLIGHT,
    OPTION_KEYS,
    OPTION_RECORDS,
    OPTION_REPLAY,
};

static const struct option options[] = {
    {"port", required_argument, NULL, OPTION_PORT},
    {"ca", required_argument, NULL, OPTION_CA},
    {"payload", required_argument, NULL, OPTION_PAYLOAD},
    {"seconds", required_argument, NULL, OPTION_SECONDS},
    {"warmup-ms", required_argument, NULL, OPTION_WARMUP_MS},
    {"idle-ms", required_argument, NULL, OPTION_IDLE_MS},
    {"fanout", required_argument, NULL, OPTION_FANOUT},
    {"acked", no_argument, NULL, OPTION_ACKED},
    {"window-bytes", required_argument, NULL, OPTION_WINDOW},
    {"op", required_argument, NULL, OPTION_OP},
    {"connections", required_argument, NULL, OPTION_CONNECTIONS},
    {"in-flight", required_argument, NULL, OPTION_IN_FLIGHT},
    {"keys", required_argument, NULL, OPTION_KEYS},
    {"records", required_argument, NULL, OPTION_RECORDS},
    {"replay", no_argument, NULL, OPTION_REPLAY},
    {NULL, 0, NULL, 0},
};

static uint64_t number(const char *text, uint64_t least, uint64_t most) {
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || *text == '\0' || *end != '\0' || value < least || value > most)
        load_fail("'%s' is not a number from %llu to %llu", text, (unsigned long long)least,
                  (unsigned long long)most);
    return value;
}

static uint64_t seconds(const char *text) {
    char *end;
    double value = strtod(text, &end);
    if (*text == '\0' || *end != '\0' || !(value >= 0.01 && value <= 3600))
        load_fail("'%s' is not a number of seconds", text);
    return (uint64_t)(value * (double)NS_PER_S);
}

static void set_option(struct run_settings *s, int id, const char *value) {
    switch (id) {
    case OPTION_PORT:
        s->target.port = (uint16_t)number(value, 1, UINT16_MAX);
        break;
    case OPTION_CA:
        s->target.ca_file = value;
        break;
    case OPTION_PAYLOAD:
        s->payload_bytes = number(value, 0, LINK_IN_BYTES / 4);
        break;
    case OPTION_SECONDS:
        s->duration_ns = seconds(value);
        break;
    case OPTION_WARMUP_MS:
        s->warmup_ns = number(value, 1, 60000) * NS_PER_MS;
        break;
    case OPTION_IDLE_MS:
        s->idle_ns = number(value, 1, 600000) * NS_PER_MS;
        break;
    case OPTION_FANOUT:
        s->fanout = number(value, 1, 1000);
        break;
    case OPTION_ACKED:
        s->acked = true;
        break;
    case OPTION_WINDOW:
        s->window_bytes = number(value, 1, (uint64_t)1 << 40);
        break;
    case OPTION_OP:
        s->put = strcmp(value, "put") == 0;
        if (!s->put && strcmp(value, "get") != 0)
            load_fail("--op is put or get");
        break;
    case OPTION_CONNECTIONS:
        s->connections = number(value, 1, 1000);
        break;
    case OPTION_IN_FLIGHT:
        s->in_flight = number(value, 1, 100000);
        break;
    case OPTION_KEYS:
        s->keys = number(value, 1, 999999);
        break;
    case OPTION_RECORDS:
        s->records = number(value, 1, (uint64_t)1 << 40);
        break;
    case OPTION_REPLAY:
        s->replay = true;
        break;
    default:
        exit(2); /* getopt has said why */
    }
}

int main(int argc, char **argv) {
    struct run_settings settings = {.payload_bytes = 256,
                                    .duration_ns = NS_PER_S,
                                    .warmup_ns = WARMUP_NS,
                                    .idle_ns = IDLE_NS,
                                    .fanout = 1,
                                    .window_bytes = (uint64_t)2 << 20,
                                    .connections = 8,
                                    .in_flight = 32,
                                    .keys = 1024};
    int id;
    while ((id = getopt_long(argc, argv, "", options, NULL)) != -1)
        set_option(&settings, id, optarg);
    if (optind + 1 != argc || settings.target.port == 0)
        load_fail("needs a protocol and --port");
    if (settings.in_flight % settings.connections != 0)
        load_fail("--in-flight is no multiple of --connections");
    const char *name = argv[optind];
    if (strncmp(name, CACHE_PREFIX, strlen(CACHE_PREFIX)) == 0) {
        const struct cache_protocol *protocol = cache_protocol_find(name + strlen(CACHE_PREFIX));
        if (protocol == NULL)
            load_fail("there is no protocol '%s'", name);
        cache_run(&settings, protocol);
    } else if (strncmp(name, DURABLE_PREFIX, strlen(DURABLE_PREFIX)) == 0) {
        const struct durable_protocol *protocol =
            durable_protocol_find(name + strlen(DURABLE_PREFIX));
        if (protocol == NULL || (settings.replay && protocol->replay == NULL))
            load_fail("there is no protocol '%s' that can do that", name);
        durable_run(&settings, protocol);
    } else {
        const struct protocol *protocol = protocol_find(name);
        if (protocol == NULL)
            load_fail("there is no protocol '%s'", name);
        pubsub_run(&settings, protocol);
    }
    return 0;
}
