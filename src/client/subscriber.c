/*
 * The public calls, and the pairing of event streams with subscriptions.
 *
 * The broker opens one uni stream per subscription; its first frame, the hello, names the id that
 * `subscribed` also names, and either may come first. A stream whose hello comes first waits, with
 * its frames, while requests without an answer are out on its connection; otherwise nobody will
 * claim it and it is stopped.
 */
#include "client/subscriber.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "client/client.h"
#include "client/last_error.h"
#include "wire/utf8.h"

#define UNPAIRED_MAX 64u
#define UNPAIRED_TIMEOUT_NS (10 * NS_PER_S)

/* A frame that came before its stream was claimed. */
struct early_frame {
    struct early_frame *next;
    struct frame frame;
};

/* An event stream without its subscription yet. */
struct event_lane {
    struct event_lane *next; /* in the link's list */
    struct link *link;
    struct lane *lane;
    bool has_id;
    bool finished; /* the broker ended it already */
    uint64_t id;
    uint64_t due_ns;
    struct early_frame *first, **last;
};

/* ---- event streams ---- */

static void unlink_unpaired(struct event_lane *unpaired) {
    struct event_lane **at = &unpaired->link->unpaired;
    while (*at != unpaired)
        at = &(*at)->next;
    *at = unpaired->next;
    unpaired->link->unpaired_count--;
}

static void unpaired_free(struct event_lane *unpaired) {
    while (unpaired->first != NULL) {
        struct early_frame *early = unpaired->first;
        unpaired->first = early->next;
        buf_unref(early->frame.block);
        free(early);
    }
    free(unpaired);
}

static void drop_unpaired(struct event_lane *unpaired) {
    unlink_unpaired(unpaired);
    lane_abandon(unpaired->lane);
    unpaired_free(unpaired);
}

static void keep_early(struct event_lane *unpaired, struct frame *frame) {
    struct early_frame *early = xcalloc(1, sizeof *early);
    early->frame = *frame;
    if (frame->block == NULL) {
        early->frame.block = buf_new(FRAME_READER_HEADROOM_BYTES + frame->body.len);
        uint8_t *copy = early->frame.block->data + FRAME_READER_HEADROOM_BYTES;
        if (frame->body.len > 0)
            memcpy(copy, frame->body.data, frame->body.len);
        early->frame.body.data = copy;
    }
    frame->block = NULL;
    *unpaired->last = early;
    unpaired->last = &early->next;
}

/* Give the stream, and what it brought so far, to its subscription. */
static void pair(struct felix_subscription *subscription, struct event_lane *unpaired) {
    struct lane *lane = unpaired->lane;
    unlink_unpaired(unpaired);
    subscription_pair(subscription, lane);
    bool ok = true;
    while (ok && unpaired->first != NULL) {
        struct early_frame *early = unpaired->first;
        unpaired->first = early->next;
        ok = subscription_frame(subscription, &early->frame);
        buf_unref(early->frame.block);
        free(early);
    }
    if (ok && unpaired->finished)
        lane->ops->finished(lane);
    unpaired_free(unpaired);
}

static struct felix_subscription *find_pairing(struct felix_client *client, const struct link *link,
                                               uint64_t id) {
    for (struct felix_subscription *s = client->subscriber.first; s != NULL; s = s->next) {
        if (s->state == SUBSCRIPTION_PAIRING && s->link == link && s->id == id)
            return s;
    }
    return NULL;
}

static bool on_hello(struct event_lane *unpaired, const struct frame *frame) {
    struct link *link = unpaired->link;
    struct message message;
    lane_consume(unpaired->lane, FRAME_HEADER_BYTES + frame->body.len);
    if (message_decode(frame->body, &message) != FELIX_OK) {
        drop_unpaired(unpaired);
        return false;
    }
    bool hello = message.type == MESSAGE_EVENT_STREAM_HELLO;
    unpaired->id = message.subscription_id;
    unpaired->has_id = hello;
    message_deinit(&message);
    struct felix_subscription *subscription =
        hello ? find_pairing(link->client, link, unpaired->id) : NULL;
    if (subscription != NULL) {
        pair(subscription, unpaired);
        return true;
    }
    if (hello && link->subscribing > 0)
        return true;
    drop_unpaired(unpaired);
    return false;
}

static bool unpaired_frame(struct lane *lane, struct frame *frame) {
    struct event_lane *unpaired = lane->owner;
    if (!unpaired->has_id)
        return on_hello(unpaired, frame);
    keep_early(unpaired, frame);
    return true;
}

static void unpaired_finished(struct lane *lane) {
    struct event_lane *unpaired = lane->owner;
    unpaired->finished = true;
}

static void unpaired_over(struct lane *lane, enum felix_err err, const char *text) {
    struct event_lane *unpaired = lane->owner;
    unlink_unpaired(unpaired);
    unpaired_free(unpaired);
}

static const struct lane_ops unpaired_ops = {
    .frame = unpaired_frame,
    .finished = unpaired_finished,
    .over = unpaired_over,
};

void subscriber_accept(struct link *link, struct quic_stream *stream) {
    struct felix_client *client = link->client;
    if (link->unpaired_count >= UNPAIRED_MAX + link->subscribing) {
        quic_stream_stop(stream, 0);
        return;
    }
    struct event_lane *unpaired = xcalloc(1, sizeof *unpaired);
    unpaired->link = link;
    unpaired->last = &unpaired->first;
    unpaired->due_ns = client->io.now_ns + UNPAIRED_TIMEOUT_NS;
    unpaired->lane = lane_accept(link, stream, &unpaired_ops, unpaired);
    unpaired->lane->holds_credit = true;
    unpaired->next = link->unpaired;
    link->unpaired = unpaired;
    link->unpaired_count++;
    io_timer_at(client, unpaired->due_ns);
}

void subscriber_claim(struct felix_subscription *subscription) {
    for (struct event_lane *at = subscription->link->unpaired; at != NULL; at = at->next) {
        if (at->has_id && at->id == subscription->id) {
            pair(subscription, at);
            return;
        }
    }
}

/* ---- all of them ---- */

void subscriber_pump(struct link *link) {
    struct felix_subscription *next = NULL;
    for (struct felix_subscription *s = link->client->subscriber.first; s != NULL; s = next) {
        next = s->next;
        if (s->link == link)
            subscription_try(s);
    }
}

static uint64_t expire_unpaired(struct link *link, uint64_t now_ns) {
    uint64_t next_ns = UINT64_MAX;
    struct event_lane *next = NULL;
    for (struct event_lane *at = link->unpaired; at != NULL; at = next) {
        next = at->next;
        if (at->due_ns <= now_ns)
            drop_unpaired(at);
        else if (at->due_ns < next_ns)
            next_ns = at->due_ns;
    }
    return next_ns;
}

/* A callback on the way may end other subscriptions: start over after each that ended. */
uint64_t subscriber_expire(struct felix_client *client, uint64_t now_ns) {
    uint64_t next_ns = UINT64_MAX;
    for (unsigned i = 0; i < client->link_count[POOL_EVENT]; i++) {
        uint64_t due_ns = expire_unpaired(&client->links[POOL_EVENT][i], now_ns);
        next_ns = due_ns < next_ns ? due_ns : next_ns;
    }
    struct felix_subscription *s = client->subscriber.first;
    while (s != NULL) {
        (void)atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
        uint64_t due_ns = subscription_expire(s, now_ns);
        next_ns = due_ns < next_ns ? due_ns : next_ns;
        struct felix_subscription *next =
            s->state == SUBSCRIPTION_ENDED ? client->subscriber.first : s->next;
        subscription_unref(s);
        s = next;
    }
    return next_ns;
}

void subscriber_shut(struct felix_client *client) {
    while (client->subscriber.first != NULL)
        subscription_end(client->subscriber.first, FELIX_CLOSED, "the client was closed");
    for (unsigned i = 0; i < client->link_count[POOL_EVENT]; i++) {
        while (client->links[POOL_EVENT][i].unpaired != NULL)
            // NOLINTNEXTLINE(clang-analyzer-unix.Malloc): dropping takes it off the list
            drop_unpaired(client->links[POOL_EVENT][i].unpaired);
    }
}

/* ---- the calls ---- */

static void run_collect(struct felix_client *client, struct io_command *command) {
    struct felix_subscription *s =
        (struct felix_subscription *)((char *)command -
                                      offsetof(struct felix_subscription, collect));
    (void)pthread_mutex_lock(&s->client_lock);
    s->collecting = false;
    (void)pthread_mutex_unlock(&s->client_lock);
    size_t credit_bytes = message_queue_collect(&s->queue);
    if (s->events != NULL)
        lane_consume(s->events, credit_bytes);
    subscription_unref(s);
}

static void post_collect(struct felix_subscription *s) {
    (void)pthread_mutex_lock(&s->client_lock);
    if (s->client != NULL && !s->collecting) {
        s->collecting = true;
        s->collect.run = run_collect;
        (void)atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
        io_post(s->client, &s->collect);
    }
    (void)pthread_mutex_unlock(&s->client_lock);
}

/* The first connection that is not full, so that what arrives together comes in few packets; when
 * all are, the one with the fewest. */
static struct link *choose_link(struct felix_client *client) {
    struct link *links = client->links[POOL_EVENT];
    struct link *fewest = &links[0];
    for (unsigned i = 0; i < client->link_count[POOL_EVENT]; i++) {
        if (links[i].subscriptions < client->settings->event_conn_subscriptions)
            return &links[i];
        if (links[i].subscriptions < fewest->subscriptions)
            fewest = &links[i];
    }
    return fewest;
}

static void run_start(struct felix_client *client, struct io_command *command) {
    struct felix_subscription *s =
        (struct felix_subscription *)((char *)command - offsetof(struct felix_subscription, start));
    struct subscriber *subscriber = &client->subscriber;
    if (client->closing) {
        struct client_call *opening = s->opening;
        s->client = NULL;
        s->state = SUBSCRIPTION_ENDED;
        subscription_unref(s);
        client_call_answer(opening, FELIX_CLOSED, "the client is closed");
        return;
    }
    s->next = subscriber->first;
    if (s->next != NULL)
        s->next->prev = s;
    subscriber->first = s;
    s->link = choose_link(client);
    s->link->subscriptions++;
    s->due_ns = client->io.now_ns + client->timeout_ns;
    io_timer_at(client, s->due_ns);
    subscription_try(s);
}

static struct felix_subscription *new_subscription(struct felix_client *client, const char *ns,
                                                   const char *stream,
                                                   const struct felix_subscribe_options *options) {
    const struct client_settings *settings = client->settings;
    struct felix_subscription *s = xcalloc(1, sizeof *s);
    s->magic = SUBSCRIPTION_MAGIC;
    atomic_init(&s->refs, 2); /* the handle and the client's list */
    s->ns = xstrdup(ns);
    s->stream = xstrdup(stream);
    if (options != NULL)
        s->options = *options;
    enum felix_queue_policy policy = s->options.policy;
    if (policy == FELIX_QUEUE_BLOCK)
        policy = (enum felix_queue_policy)settings->sub_queue_policy;
    size_t messages_max = s->options.queue_messages_max;
    message_queue_init(&s->queue, policy,
                       messages_max > 0 ? messages_max : settings->sub_queue_capacity,
                       settings->event_stream_recv_window);
    (void)pthread_mutex_init(&s->client_lock, NULL);
    s->client = client;
    s->start.run = run_start;
    return s;
}

enum felix_err felix_subscribe(felix_client *client, const char *ns, const char *stream,
                               const struct felix_subscribe_options *options,
                               felix_subscription **ret) {
    if (client == NULL || ns == NULL || stream == NULL || ret == NULL)
        return last_error_set(FELIX_INVALID_ARGUMENT, "felix_subscribe: an argument is NULL");
    if (driver_is_thread(client))
        return last_error_set(FELIX_INVALID_ARGUMENT, "felix_subscribe from a callback");
    if (!utf8_valid(slice_str(ns)) || !utf8_valid(slice_str(stream)))
        return last_error_set(FELIX_INVALID_ARGUMENT, "namespace or stream is not UTF-8");
    if (options != NULL && ((unsigned)options->start > FELIX_START_OFFSET ||
                            (unsigned)options->policy > FELIX_QUEUE_DROP_OLD))
        return last_error_set(FELIX_INVALID_ARGUMENT, "felix_subscribe: unknown start or policy");
    if (atomic_load_explicit(&client->closed, memory_order_relaxed))
        return last_error_set(FELIX_CLOSED, "the client is closed");
    struct client_call call;
    struct felix_subscription *s = new_subscription(client, ns, stream, options);
    client_call_begin(client, &call);
    s->opening = &call;
    io_post(client, &s->start);
    enum felix_err err = client_call_wait(client, &call);
    if (err != FELIX_OK) {
        subscription_unref(s);
        return err;
    }
    *ret = s;
    return FELIX_OK;
}

/* The client may end at any moment, the subscription knows when. */
static bool await_messages(struct felix_subscription *subscription, uint64_t deadline_ns) {
    (void)pthread_mutex_lock(&subscription->client_lock);
    struct felix_client *client = subscription->client;
    if (client != NULL)
        driver_hold(client);
    (void)pthread_mutex_unlock(&subscription->client_lock);
    struct waiter *waiter = &subscription->queue.waiter;
    return client != NULL ? driver_wait_held(client, waiter, deadline_ns)
                          : waiter_wait(waiter, deadline_ns, 0);
}

static enum felix_err ended(const struct felix_subscription *subscription) {
    last_error_set_cursor(subscription->cursor);
    return last_error_set(subscription->queue.end_err, "%s", subscription->queue.end_text);
}

enum felix_err felix_next(felix_subscription *subscription, uint32_t timeout_ms,
                          struct felix_message *ret) {
    if (subscription == NULL || ret == NULL || subscription->options.on_messages != NULL)
        return last_error_set(FELIX_INVALID_ARGUMENT,
                              "felix_next: an argument is NULL, or messages go to a callback");
    uint64_t deadline_ns = 0;
    for (;;) {
        bool collect = false;
        enum queue_take taken = message_queue_take(&subscription->queue, ret, &collect);
        if (collect)
            post_collect(subscription);
        if (taken == QUEUE_TAKEN)
            return FELIX_OK;
        if (taken == QUEUE_ENDED)
            return ended(subscription);
        if (timeout_ms == 0)
            return FELIX_TIMED_OUT;
        if (timeout_ms == UINT32_MAX)
            deadline_ns = UINT64_MAX;
        else if (deadline_ns == 0)
            deadline_ns = clock_now_ns() + timeout_ms * NS_PER_MS;
        if (!await_messages(subscription, deadline_ns))
            return last_error_set(FELIX_TIMED_OUT, "no message in %u ms", timeout_ms);
    }
}

struct leave_call {
    struct client_call call;
    struct felix_subscription *subscription;
};

static void run_leave(struct felix_client *client, struct io_command *command) {
    struct client_call *call = client_call_of(command);
    struct leave_call *leave = (struct leave_call *)call;
    subscription_leave(leave->subscription);
    client_call_answer(call, FELIX_OK, "");
}

void felix_unsubscribe(felix_subscription *subscription) {
    if (subscription == NULL)
        return;
    struct leave_call leave = {.subscription = subscription, .call.command.run = run_leave};
    (void)pthread_mutex_lock(&subscription->client_lock);
    struct felix_client *client = subscription->client;
    bool inside = client != NULL && driver_is_thread(client);
    if (client != NULL && !inside) {
        driver_hold(client);
        client_call_begin(client, &leave.call);
        io_post(client, &leave.call.command);
    }
    (void)pthread_mutex_unlock(&subscription->client_lock);
    if (inside)
        subscription_leave(subscription);
    else if (client != NULL)
        (void)driver_wait_held(client, &leave.call.waiter, UINT64_MAX);
    subscription_unref(subscription);
    /* What the queue held went to this thread's free lists, which it has no use for. */
    if (!inside)
        buf_thread_trim();
}

uint64_t felix_subscription_dropped(const felix_subscription *subscription) {
    /* Only the lock inside is touched. */
    return message_queue_dropped((struct message_queue *)(uintptr_t)&subscription->queue);
}

uint64_t felix_subscription_lagged(const felix_subscription *subscription) {
    return counter_get(&subscription->lagged);
}
