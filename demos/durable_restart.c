/*
 * durable-restart: a durable stream outlives its broker.
 *
 *     durable-restart [ORDERS]
 *
 * A publisher sends orders and counts what was acknowledged. In the middle, with publishes on their
 * way, felix-broker is killed (SIGKILL) and started again with the same data. Two subscribers read
 * along: "billing" stays and is resumed by the library; "audit" has stopped before, and goes on
 * after the restart at the offset where it left off. In the end the stream is read from its first
 * record: nothing that was acknowledged may be missing, and nobody may have missed a record or got
 * one twice. Exit status 0 only if all of that is so.
 *
 * Callbacks run on the client's thread; they and the main thread share what `lock` guards.
 */
#include "broker_process.h"

#include "base/check.h"
#include "base/clock.h"
#include "cli/args.h"
#include "cli/out.h"
#include "node/identity.h"

#include <felix/felix.h>

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef unsigned long long ull;

#define STREAM "orders"
#define ORDERS 4000u
#define ORDERS_MAX 1000000u
#define IN_FLIGHT 64u
#define ORDER_BYTES 32u
#define WAIT_MS 20000u

enum outcome { OPEN, ACKNOWLEDGED, UNANSWERED };

/* Somebody who reads orders and knows which offset has to come. */
struct reader {
    struct demo *demo;
    uint64_t next, received;
    uint64_t left_at; /* offset that had to come when it stopped, or its broker died */
    bool wrong;       /* a gap, a repeat, or an order out of its place */
    long last;        /* number of the last order */
};

struct demo {
    struct broker_process broker;
    felix_client *client;
    uint64_t orders;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* under the lock */
    uint8_t *outcomes;
    uint64_t in_flight, acknowledged, unanswered, refused;
    uint64_t last_offset; /* of what was acknowledged */
    struct reader billing;
};

struct order {
    struct demo *demo;
    uint64_t number;
};

static int failed(const char *what, const char *why) {
    out_error("%s: %s", what, why);
    return EXIT_NOTHING;
}

/* ---- the publisher ---- */

static void on_published(void *context, const struct felix_publish_result *result) {
    struct order *order = context;
    struct demo *demo = order->demo;
    (void)pthread_mutex_lock(&demo->lock);
    demo->in_flight--;
    if (result->err == FELIX_OK && result->has_offset && result->level == FELIX_LEVEL_FLUSHED) {
        demo->outcomes[order->number] = ACKNOWLEDGED;
        demo->acknowledged++;
        if (result->offset > demo->last_offset)
            demo->last_offset = result->offset;
    } else if (result->err == FELIX_OUTCOME_UNKNOWN) {
        demo->outcomes[order->number] = UNANSWERED;
        demo->unanswered++;
    } else {
        demo->refused++;
    }
    (void)pthread_cond_broadcast(&demo->changed);
    (void)pthread_mutex_unlock(&demo->lock);
    free(order);
}

static enum felix_err publish_order(struct demo *demo, uint64_t number) {
    char text[ORDER_BYTES];
    struct order *order = xmalloc(sizeof *order);
    *order = (struct order){demo, number};
    int len = snprintf(text, sizeof text, "order %llu", (ull)number);
    enum felix_err err =
        felix_publish(demo->client, DEV_NAMESPACE, STREAM, &(struct felix_bytes){text, (size_t)len},
                      1, FELIX_ACK_PER_MESSAGE, on_published, order);
    if (err != FELIX_OK)
        free(order);
    return err;
}

/* Publishes orders `from` .. `to`, so many at a time; with `kill`, the broker dies as soon as half
 * of all orders are acknowledged and more are on their way. Returns the number of the next order.
 */
static uint64_t publish_orders(struct demo *demo, uint64_t from, uint64_t to, bool kill) {
    uint64_t number = from;
    bool dead = false;
    for (; number < to && !dead; number++) {
        (void)pthread_mutex_lock(&demo->lock);
        while (demo->in_flight >= IN_FLIGHT)
            (void)pthread_cond_wait(&demo->changed, &demo->lock);
        dead = kill && demo->acknowledged >= demo->orders / 2;
        demo->in_flight++;
        (void)pthread_mutex_unlock(&demo->lock);
        if (publish_order(demo, number) != FELIX_OK) {
            (void)pthread_mutex_lock(&demo->lock);
            demo->in_flight--;
            demo->refused++;
            (void)pthread_mutex_unlock(&demo->lock);
        }
        if (dead)
            broker_process_kill(&demo->broker);
    }
    return number;
}

static void wait_for_answers(struct demo *demo) {
    (void)pthread_mutex_lock(&demo->lock);
    while (demo->in_flight > 0)
        (void)pthread_cond_wait(&demo->changed, &demo->lock);
    (void)pthread_mutex_unlock(&demo->lock);
}

/* ---- the subscribers ---- */

/* One more message. Orders come in the order in which they were published; some may be missing,
 * because they were never stored. */
static void take(struct reader *reader, const struct felix_message *message) {
    char text[ORDER_BYTES + 1] = {0};
    if (message->len <= ORDER_BYTES)
        memcpy(text, message->data, message->len);
    char *end = text;
    long number = strncmp(text, "order ", 6) == 0 ? strtol(text + 6, &end, 10) : -1;
    if (!message->has_offset || message->offset != reader->next || end == text ||
        number <= reader->last)
        reader->wrong = true;
    reader->last = number;
    reader->next = message->offset + 1;
    reader->received++;
}

static void on_messages(void *context, felix_subscription *subscription,
                        const struct felix_message *messages, size_t count) {
    struct reader *reader = context;
    (void)pthread_mutex_lock(&reader->demo->lock);
    for (size_t i = 0; i < count; i++)
        take(reader, &messages[i]);
    (void)pthread_cond_broadcast(&reader->demo->changed);
    (void)pthread_mutex_unlock(&reader->demo->lock);
}

/* Takes `count` messages from `reader->next` on; counts in `found` how many orders of each outcome
 * they were. Nothing is on its way. */
static enum felix_err read_orders(struct demo *demo, struct reader *reader, uint64_t count,
                                  uint64_t found[3]) {
    const struct felix_subscribe_options options = {.start = FELIX_START_OFFSET,
                                                    .offset = reader->next};
    felix_subscription *subscription = NULL;
    enum felix_err err =
        felix_subscribe(demo->client, DEV_NAMESPACE, STREAM, &options, &subscription);
    for (uint64_t i = 0; i < count && err == FELIX_OK; i++) {
        struct felix_message message;
        err = felix_next(subscription, WAIT_MS, &message);
        if (err != FELIX_OK)
            break;
        take(reader, &message);
        if (reader->last >= 0 && (uint64_t)reader->last < demo->orders)
            found[demo->outcomes[reader->last]]++;
    }
    felix_unsubscribe(subscription);
    return err;
}

static bool billing_reaches(struct demo *demo, uint64_t offset) {
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += WAIT_MS / 1000;
    int rc = 0;
    (void)pthread_mutex_lock(&demo->lock);
    while (demo->billing.next <= offset && rc == 0)
        rc = pthread_cond_timedwait(&demo->changed, &demo->lock, &until);
    bool reached = demo->billing.next > offset;
    (void)pthread_mutex_unlock(&demo->lock);
    return reached;
}

/* ---- the story ---- */

static enum felix_err connect_client(struct demo *demo) {
    char path[4200];
    felix_options *options = felix_options_new();
    enum felix_err err = options == NULL ? FELIX_INVALID_ARGUMENT
                                         : felix_options_set_server(options, demo->broker.address);
    (void)snprintf(path, sizeof path, "%s/ca.pem", demo->broker.directory);
    if (err == FELIX_OK)
        err = felix_options_set_ca_file(options, path);
    (void)snprintf(path, sizeof path, "%s/token", demo->broker.directory);
    if (err == FELIX_OK)
        err = felix_options_set_token_file(options, path);
    if (err == FELIX_OK)
        err = felix_options_set_tenant(options, DEV_TENANT);
    /* A subscription that sends nothing notices soon that its broker is gone. */
    if (err == FELIX_OK)
        err = felix_options_set(options, "keep_alive_ms", "200");
    if (err == FELIX_OK)
        err = felix_connect(options, WAIT_MS, &demo->client);
    felix_options_free(options);
    return err;
}

static int begin(struct demo *demo, const char *argv0) {
    static const char *const create[] = {"stream", "create", STREAM, "--durable", "--quiet", NULL};
    struct felix_error error = {0};
    if (broker_process_init(&demo->broker, argv0, &error) != FELIX_OK ||
        broker_process_start(&demo->broker, &error) != FELIX_OK ||
        broker_process_felix(&demo->broker, create, &error) != FELIX_OK)
        return failed("cannot begin", error.text);
    if (connect_client(demo) != FELIX_OK)
        return failed("cannot connect", felix_last_error());
    (void)printf("1. A broker, process %d, and a durable stream: an acknowledgement means that the "
                 "record is on the disk.\n",
                 (int)demo->broker.pid);
    return EXIT_DONE;
}

static int subscribe_billing(struct demo *demo, felix_subscription **ret) {
    demo->billing = (struct reader){.demo = demo, .last = -1};
    const struct felix_subscribe_options options = {
        .start = FELIX_START_EARLIEST, .on_messages = on_messages, .context = &demo->billing};
    if (felix_subscribe(demo->client, DEV_NAMESPACE, STREAM, &options, ret) != FELIX_OK)
        return failed("cannot subscribe", felix_last_error());
    return EXIT_DONE;
}

/* Until half of the orders are acknowledged and the broker is dead. */
static int first_half(struct demo *demo, struct reader *audit, uint64_t *ret_next) {
    uint64_t quarter = demo->orders / 4, found[3] = {0};
    (void)publish_orders(demo, 0, quarter, false);
    wait_for_answers(demo);
    if (read_orders(demo, audit, quarter / 2, found) != FELIX_OK)
        return failed("audit cannot read", felix_last_error());
    (void)printf(
        "2. \"billing\" reads along. \"audit\" has read %llu orders and stops; it goes on at "
        "offset %llu one day.\n",
        (ull)audit->received, (ull)audit->next);
    audit->left_at = audit->next;
    *ret_next = publish_orders(demo, quarter, demo->orders, true);
    (void)pthread_mutex_lock(&demo->lock);
    demo->billing.left_at = demo->billing.next;
    uint64_t acknowledged = demo->acknowledged;
    (void)pthread_mutex_unlock(&demo->lock);
    (void)printf("3. kill -9 while orders are on their way: %llu were acknowledged by then.\n",
                 (ull)acknowledged);
    return EXIT_DONE;
}

static int restart(struct demo *demo) {
    struct felix_error error = {0};
    uint64_t start_ns = clock_now_ns();
    if (broker_process_start(&demo->broker, &error) != FELIX_OK)
        return failed("cannot start again", error.text);
    (void)printf("4. Started again with the same data, process %d: ready after %s.\n",
                 (int)demo->broker.pid, out_duration(clock_now_ns() - start_ns).text);
    return EXIT_DONE;
}

static int second_half(struct demo *demo, uint64_t next) {
    wait_for_answers(demo);
    (void)publish_orders(demo, next, demo->orders, false);
    wait_for_answers(demo);
    (void)printf("5. The publisher goes on: %llu orders, %llu acknowledged, %llu never answered, "
                 "%llu refused.\n",
                 (ull)demo->orders, (ull)demo->acknowledged, (ull)demo->unanswered,
                 (ull)demo->refused);
    if (!billing_reaches(demo, demo->last_offset))
        return failed("billing", "does not come back");
    return EXIT_DONE;
}

static bool show_reader(const char *name, const struct reader *reader, uint64_t last) {
    bool good = !reader->wrong && reader->next == last + 1 && reader->received == last + 1;
    (void)printf("   \"%s\" went on at offset %llu and has all %llu records, none twice: %s\n",
                 name, (ull)reader->left_at, (ull)reader->received, good ? "yes" : "NO");
    return good;
}

static int verdict(struct demo *demo, struct reader *audit) {
    struct reader check = {.demo = demo, .last = -1};
    uint64_t found[3] = {0}, ignored[3] = {0}, last = demo->last_offset;
    if (read_orders(demo, audit, last + 1 - audit->next, ignored) != FELIX_OK ||
        read_orders(demo, &check, last + 1, found) != FELIX_OK)
        return failed("cannot read", felix_last_error());
    bool all = found[ACKNOWLEDGED] == demo->acknowledged && !check.wrong;
    (void)printf(
        "6. Read from the first record: %llu of %llu acknowledged orders are there, in order: "
        "%s\n   (and %llu of the %llu that nobody answered)\n",
        (ull)found[ACKNOWLEDGED], (ull)demo->acknowledged, all ? "yes" : "NO",
        (ull)found[UNANSWERED], (ull)demo->unanswered);
    bool billing = show_reader("billing", &demo->billing, last);
    bool resumed = show_reader("audit", audit, last);
    bool good = all && billing && resumed && demo->acknowledged > demo->orders / 2;
    (void)printf("%s\n", good ? "Nothing that was acknowledged is missing."
                              : "FAILED: this broker did not keep its word.");
    return good ? EXIT_DONE : EXIT_NOTHING;
}

static int run(struct demo *demo, const char *argv0) {
    struct reader audit = {.demo = demo, .last = -1};
    felix_subscription *billing = NULL;
    struct felix_error error = {0};
    uint64_t next = 0;
    int status = begin(demo, argv0);
    if (status == EXIT_DONE)
        status = subscribe_billing(demo, &billing);
    if (status == EXIT_DONE)
        status = first_half(demo, &audit, &next);
    if (status == EXIT_DONE)
        status = restart(demo);
    if (status == EXIT_DONE)
        status = second_half(demo, next);
    if (status == EXIT_DONE)
        status = verdict(demo, &audit);
    felix_unsubscribe(billing);
    felix_close(demo->client, 0);
    if (status == EXIT_DONE && broker_process_stop(&demo->broker, &error) != FELIX_OK)
        status = failed("the end", error.text);
    return status;
}

int main(int argc, char **argv) {
    struct demo demo = {.orders = ORDERS};
    struct args args = {0};
    struct felix_error error = {0};
    out_program("durable-restart");
    (void)signal(SIGPIPE, SIG_IGN);
    (void)setvbuf(stdout, NULL, _IOLBF, 1 << 12);
    if (args_parse(&args, argc - 1, argv + 1, &error) != FELIX_OK || args.operands_count > 1 ||
        (args.operands_count == 1 && (!arg_u64_parse(args.operands[0], &demo.orders) ||
                                      demo.orders < 400 || demo.orders > ORDERS_MAX))) {
        (void)fprintf(stderr, "usage: durable-restart [ORDERS]   (400 to %u; %u)\n", ORDERS_MAX,
                      ORDERS);
        return EXIT_USAGE;
    }
    (void)pthread_mutex_init(&demo.lock, NULL);
    (void)pthread_cond_init(&demo.changed, NULL);
    demo.outcomes = xcalloc(demo.orders, 1);
    int status = run(&demo, argv[0]);
    broker_process_deinit(&demo.broker);
    free(demo.outcomes);
    return status;
}
