/*
 * One table row per metric: name, type, help, where the number stands. Names are those that users
 * of the original know where they exist there (broker specification 2.9); the rest is ours.
 */
#include "node/metrics.h"

#include <stddef.h>
#include <stdlib.h>

#include "base/check.h"
#include "http/metrics.h"
#include "node/node.h"

enum place { PLACE_SERVER, PLACE_CORE, PLACE_QUIC, PLACE_CACHE, PLACE_REACTOR };

struct metric {
    const char *name;
    enum metric_type type;
    const char *help;
    const char *reason; /* label, NULL for none; rows of one name stand together */
    enum place place;
    size_t offset;
};

#define SERVER(field) PLACE_SERVER, offsetof(struct server_counters, field)
#define CORE(field) PLACE_CORE, offsetof(struct core_counters, field)
#define QUIC(field) PLACE_QUIC, offsetof(struct quic_counters, field)
#define CACHE(field) PLACE_CACHE, offsetof(struct cache_stats, field)
#define DROPPED(reason) CACHE(dropped[CACHE_DROP_##reason].items)

static const struct metric metrics[] = {
    {"felix_connections", METRIC_GAUGE, "QUIC connections", NULL, SERVER(conns_now)},
    {"felix_connections_opened_total", METRIC_COUNTER, "handshakes completed", NULL,
     SERVER(conns_opened)},
    {"felix_half_open", METRIC_GAUGE, "handshakes in progress", NULL, QUIC(half_open)},
    {"felix_handshakes_failed_total", METRIC_COUNTER, "handshakes that failed or timed out", NULL,
     QUIC(handshakes_failed)},
    {"felix_connections_refused_total", METRIC_COUNTER, "connections refused: full or draining",
     NULL, QUIC(conns_refused)},
    {"felix_connections_over_memory_total", METRIC_COUNTER,
     "connections closed because received data exceeded the memory limit", NULL,
     SERVER(conns_over_memory)},
    {"felix_retry_sent_total", METRIC_COUNTER, "Retry packets sent: many half-open handshakes",
     NULL, QUIC(retries_sent)},
    {"felix_stateless_resets_sent_total", METRIC_COUNTER, "stateless resets sent", NULL,
     QUIC(resets_sent)},
    {"felix_datagrams_received_total", METRIC_COUNTER, "UDP datagrams received", NULL,
     QUIC(datagrams_in)},
    {"felix_datagrams_sent_total", METRIC_COUNTER, "UDP datagrams sent", NULL, QUIC(datagrams_out)},
    {"felix_datagrams_dropped_total", METRIC_COUNTER, "datagrams that belong to nothing", NULL,
     QUIC(datagrams_dropped)},
    {"felix_network_receive_bytes_total", METRIC_COUNTER, "UDP payload bytes received", NULL,
     QUIC(bytes_in)},
    {"felix_network_send_bytes_total", METRIC_COUNTER, "UDP payload bytes sent", NULL,
     QUIC(bytes_out)},
    {"felix_receive_calls_total", METRIC_COUNTER, "receive system calls", NULL, QUIC(recv_calls)},
    {"felix_send_calls_total", METRIC_COUNTER, "send system calls", NULL, QUIC(send_calls)},
    {"felix_send_errors_total", METRIC_COUNTER, "send system calls whose datagrams were refused",
     NULL, QUIC(send_errors)},
    {"felix_wakeups_total", METRIC_COUNTER, "returns from a blocking wait", NULL, PLACE_REACTOR, 0},
    {"felix_sessions", METRIC_GAUGE, "streams that clients have open", NULL, SERVER(sessions_now)},
    {"felix_sessions_authenticated_total", METRIC_COUNTER, "streams that authenticated", NULL,
     SERVER(sessions_authenticated)},
    {"felix_auth_failures_total", METRIC_COUNTER, "authentications refused", NULL,
     SERVER(auth_failed)},
    {"felix_auth_timeouts_total", METRIC_COUNTER, "streams ended because they did not authenticate",
     NULL, SERVER(auth_timeouts)},
    {"felix_forbidden_total", METRIC_COUNTER, "requests refused for want of permission", NULL,
     SERVER(forbidden)},
    {"felix_not_found_total", METRIC_COUNTER, "requests for what does not exist", NULL,
     SERVER(not_found)},
    {"felix_malformed_frames_total", METRIC_COUNTER, "frames that could not be decoded", NULL,
     SERVER(malformed_frames)},
    {"felix_frames_received_total", METRIC_COUNTER, "frames received", NULL, SERVER(frames_in)},
    {"felix_receive_held_bytes", METRIC_GAUGE, "received and not yet handled", NULL,
     SERVER(recv_held_bytes)},
    {"felix_publish_requests_total", METRIC_COUNTER, "publishes accepted", NULL,
     SERVER(publish_frames)},
    {"felix_publish_items_total", METRIC_COUNTER, "items published", NULL, CORE(publish_items)},
    {"felix_publish_bytes_total", METRIC_COUNTER, "payload bytes published", NULL,
     CORE(publish_bytes)},
    {"felix_publish_acks_total", METRIC_COUNTER, "publish acknowledgements sent", NULL,
     SERVER(acks_sent)},
    {"felix_broker_ingress_dropped_total", METRIC_COUNTER,
     "items of unacknowledged publishes dropped before they entered a stream", "no_budget",
     SERVER(dropped_ingress_items)},
    {"felix_broker_ingress_dropped_total", METRIC_COUNTER, NULL, "no_stream",
     SERVER(dropped_no_stream_items)},
    {"felix_broker_ingress_dropped_total", METRIC_COUNTER, NULL, "storage",
     SERVER(dropped_storage_items)},
    {"felix_broker_ingress_waited_total", METRIC_COUNTER, "publishes that waited for budget", NULL,
     SERVER(ingress_waits)},
    {"felix_broker_pending_bytes", METRIC_GAUGE, "payload bytes held up by blocking subscribers",
     NULL, CORE(pending_bytes)},
    {"felix_streams", METRIC_GAUGE, "Felix streams that exist", NULL, CORE(streams)},
    {"felix_replay_bytes", METRIC_GAUGE, "memory of all replay rings", NULL, CORE(ring_bytes)},
    {"felix_subscribe_requests_total", METRIC_COUNTER, "subscribe requests", NULL,
     SERVER(subscribes)},
    {"felix_subscribe_failed_total", METRIC_COUNTER, "subscribe requests refused", NULL,
     SERVER(subscribe_failed)},
    {"felix_broker_subscribe_conn_limit_rejected_total", METRIC_COUNTER,
     "subscriptions refused by the limit per connection", NULL, SERVER(subscription_limit)},
    {"felix_subscriptions", METRIC_GAUGE, "subscriptions", NULL, CORE(subscriptions)},
    {"felix_subscriptions_stopped_total", METRIC_COUNTER,
     "subscriptions to durable streams that ended because they fell behind or their log could not "
     "be read",
     NULL, CORE(stopped_subscriptions)},
    {"felix_history_pages_total", METRIC_COUNTER, "pages read from logs for subscriptions", NULL,
     CORE(history_pages)},
    {"felix_history_items_total", METRIC_COUNTER, "items in these pages", NULL,
     CORE(history_items)},
    {"felix_sub_shared_batch_handles_total", METRIC_COUNTER, "batches placed in subscriber queues",
     NULL, CORE(enqueued_batches)},
    {"felix_sub_queue_enqueued_total", METRIC_COUNTER, "items into subscriber queues", NULL,
     CORE(enqueued_items)},
    {"felix_sub_queue_dequeued_total", METRIC_COUNTER, "items out of subscriber queues", NULL,
     CORE(dequeued_items)},
    {"felix_sub_queue_dropped_total", METRIC_COUNTER, "items dropped at a subscriber's queue",
     "queue_full_new", CORE(dropped_new_items)},
    {"felix_sub_queue_dropped_total", METRIC_COUNTER, NULL, "queue_full_old",
     CORE(dropped_old_items)},
    {"felix_sub_queue_dropped_total", METRIC_COUNTER, NULL, "subscription_ended",
     CORE(dropped_ended_items)},
    {"felix_delivered_items_total", METRIC_COUNTER, "items given to subscribers' streams", NULL,
     SERVER(delivered_items)},
    {"felix_delivered_frames_total", METRIC_COUNTER, "frames given to subscribers' streams", NULL,
     SERVER(delivered_frames)},
    {"felix_delivered_bytes_total", METRIC_COUNTER, "frame bytes given to subscribers' streams",
     NULL, SERVER(delivered_bytes)},
    {"felix_stream_requests_total", METRIC_COUNTER,
     "requests to make, list, show or delete streams", NULL, SERVER(stream_requests)},
    {"felix_cache_requests_total", METRIC_COUNTER, "cache requests", NULL, SERVER(cache_requests)},
    {"felix_cache_items", METRIC_GAUGE, "cache entries", NULL, CACHE(items)},
    {"felix_cache_bytes", METRIC_GAUGE, "memory of cache entries", NULL, CACHE(bytes)},
    {"felix_cache_hits_total", METRIC_COUNTER, "gets that found a value", NULL, CACHE(hits)},
    {"felix_cache_misses_total", METRIC_COUNTER, "gets that found none", NULL, CACHE(misses)},
    {"felix_cache_puts_total", METRIC_COUNTER, "values stored", NULL, CACHE(puts)},
    {"felix_cache_refused_total", METRIC_COUNTER, "values larger than the limit", NULL,
     CACHE(refused_items)},
    {"felix_cache_dropped_total", METRIC_COUNTER, "entries that left, by reason",
     "evicted_cache_limit", DROPPED(EVICTED_CACHE_LIMIT)},
    {"felix_cache_dropped_total", METRIC_COUNTER, NULL, "evicted_total_limit",
     DROPPED(EVICTED_TOTAL_LIMIT)},
    {"felix_cache_dropped_total", METRIC_COUNTER, NULL, "expired", DROPPED(EXPIRED)},
    {"felix_cache_dropped_total", METRIC_COUNTER, NULL, "replaced", DROPPED(REPLACED)},
    {"felix_cache_dropped_total", METRIC_COUNTER, NULL, "deleted", DROPPED(DELETED)},
    {"felix_cache_dropped_total", METRIC_COUNTER, NULL, "cache_removed", DROPPED(CACHE_REMOVED)},
};

static const void *base_of(const struct reactor *reactor, enum place place) {
    switch (place) {
    case PLACE_SERVER:
        return &reactor->server.counters;
    case PLACE_CORE:
        return &reactor->server.core.counters;
    case PLACE_QUIC:
        return &reactor->endpoint->counters;
    case PLACE_CACHE:
        return &reactor->server.core.cache_shard->stats;
    case PLACE_REACTOR:
        break;
    }
    return &reactor->wakeups;
}

static uint64_t sum(const struct reactor *reactors, unsigned count, const struct metric *metric) {
    uint64_t total = 0;
    for (unsigned i = 0; i < count; i++) {
        const char *base = base_of(&reactors[i], metric->place);
        total += counter_get((const counter *)(const void *)(base + metric->offset));
    }
    return total;
}

static void render_stages(const struct reactor *reactors, unsigned count, struct text *out) {
    struct hist *merged = xmalloc(sizeof *merged);
    metric_family(out, "felix_stage_seconds", METRIC_HISTOGRAM,
                  "time spent in a stage of the data path");
    for (enum stage stage = 0; stage < STAGE_COUNT; stage++) {
        hist_reset(merged);
        for (unsigned i = 0; i < count; i++)
            hist_merge(merged, &reactors[i].stages[stage]);
        struct metric_label label = {"stage", slice_str(node_stage_name(stage))};
        metric_histogram(out, "felix_stage_seconds", &label, 1, merged);
    }
    free(merged);
}

/* Items that entered subscriber queues and have not left them for any reason. */
static uint64_t queued_items_now(const struct reactor *reactors, unsigned count) {
    uint64_t in = 0, gone = 0;
    for (unsigned i = 0; i < count; i++) {
        const struct core_counters *core = &reactors[i].server.core.counters;
        gone += counter_get(&core->dequeued_items) + counter_get(&core->dropped_old_items) +
                counter_get(&core->dropped_ended_items);
        in += counter_get(&core->enqueued_items);
    }
    return in > gone ? in - gone : 0;
}

void metrics_render_node(const struct reactor *reactors, unsigned count, bool ready,
                         struct text *out) {
    for (size_t i = 0; i < sizeof metrics / sizeof metrics[0]; i++) {
        const struct metric *metric = &metrics[i];
        if (metric->help != NULL)
            metric_family(out, metric->name, metric->type, metric->help);
        struct metric_label label = {"reason", slice_str(metric->reason ? metric->reason : "")};
        metric_sample_labelled(out, metric->name, &label, metric->reason != NULL ? 1 : 0,
                               sum(reactors, count, metric));
    }
    metric_gauge(out, "felix_sub_queue_len", "items in all subscriber queues",
                 queued_items_now(reactors, count));
    metric_gauge(out, "felix_ready", "whether the node takes traffic", ready ? 1 : 0);
    if (count > 0 && reactors[0].stages != NULL)
        render_stages(reactors, count, out);
}
