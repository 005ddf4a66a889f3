/*
 * One table row per metric: name, type, help, where the number stands. Names are those that users
 * of the original know where they exist there (broker specification 2.9); the rest is ours.
 */
#include "node/metrics.h"

#include <stddef.h>
#include <stdio.h>

#include "node/node.h"

enum place { PLACE_SERVER, PLACE_CORE, PLACE_QUIC, PLACE_CACHE, PLACE_REACTOR };

struct metric {
    const char *name;
    const char *type;
    const char *help;
    const char *labels; /* "" or `reason="..."`; rows of one name stand together */
    enum place place;
    size_t offset;
};

#define SERVER(field) PLACE_SERVER, offsetof(struct server_counters, field)
#define CORE(field) PLACE_CORE, offsetof(struct core_counters, field)
#define QUIC(field) PLACE_QUIC, offsetof(struct quic_counters, field)
#define CACHE(field) PLACE_CACHE, offsetof(struct cache_stats, field)
#define DROPPED(reason) CACHE(dropped[CACHE_DROP_##reason].items)

static const struct metric metrics[] = {
    {"felix_connections", "gauge", "QUIC connections", "", SERVER(conns_now)},
    {"felix_connections_opened_total", "counter", "handshakes completed", "", SERVER(conns_opened)},
    {"felix_handshakes_failed_total", "counter", "handshakes that failed or timed out", "",
     QUIC(handshakes_failed)},
    {"felix_connections_refused_total", "counter", "connections refused: full or draining", "",
     QUIC(conns_refused)},
    {"felix_connections_over_memory_total", "counter",
     "connections closed because received data exceeded the memory limit", "",
     SERVER(conns_over_memory)},
    {"felix_retry_sent_total", "counter", "Retry packets sent: many half-open handshakes", "",
     QUIC(retries_sent)},
    {"felix_stateless_resets_sent_total", "counter", "stateless resets sent", "",
     QUIC(resets_sent)},
    {"felix_datagrams_received_total", "counter", "UDP datagrams received", "", QUIC(datagrams_in)},
    {"felix_datagrams_sent_total", "counter", "UDP datagrams sent", "", QUIC(datagrams_out)},
    {"felix_datagrams_dropped_total", "counter", "datagrams that belong to nothing", "",
     QUIC(datagrams_dropped)},
    {"felix_network_receive_bytes_total", "counter", "UDP payload bytes received", "",
     QUIC(bytes_in)},
    {"felix_network_send_bytes_total", "counter", "UDP payload bytes sent", "", QUIC(bytes_out)},
    {"felix_receive_calls_total", "counter", "receive system calls", "", QUIC(recv_calls)},
    {"felix_send_calls_total", "counter", "send system calls", "", QUIC(send_calls)},
    {"felix_wakeups_total", "counter", "returns from a blocking wait", "", PLACE_REACTOR, 0},
    {"felix_sessions", "gauge", "streams that clients have open", "", SERVER(sessions_now)},
    {"felix_sessions_authenticated_total", "counter", "streams that authenticated", "",
     SERVER(sessions_authenticated)},
    {"felix_auth_failures_total", "counter", "authentications refused", "", SERVER(auth_failed)},
    {"felix_auth_timeouts_total", "counter", "streams ended because they did not authenticate", "",
     SERVER(auth_timeouts)},
    {"felix_forbidden_total", "counter", "requests refused for want of permission", "",
     SERVER(forbidden)},
    {"felix_not_found_total", "counter", "requests for what does not exist", "", SERVER(not_found)},
    {"felix_malformed_frames_total", "counter", "frames that could not be decoded", "",
     SERVER(malformed_frames)},
    {"felix_frames_received_total", "counter", "frames received", "", SERVER(frames_in)},
    {"felix_receive_held_bytes", "gauge", "received and not yet handled", "",
     SERVER(recv_held_bytes)},
    {"felix_publish_requests_total", "counter", "publishes accepted", "", SERVER(publish_frames)},
    {"felix_publish_items_total", "counter", "items published", "", CORE(publish_items)},
    {"felix_publish_bytes_total", "counter", "payload bytes published", "", CORE(publish_bytes)},
    {"felix_publish_acks_total", "counter", "publish acknowledgements sent", "", SERVER(acks_sent)},
    {"felix_broker_ingress_dropped_total", "counter",
     "items of unacknowledged publishes dropped before they entered a stream",
     "reason=\"no_budget\"", SERVER(dropped_ingress_items)},
    {"felix_broker_ingress_dropped_total", "counter", "", "reason=\"no_stream\"",
     SERVER(dropped_no_stream_items)},
    {"felix_broker_ingress_waited_total", "counter", "publishes that waited for budget", "",
     SERVER(ingress_waits)},
    {"felix_broker_pending_bytes", "gauge", "payload bytes held up by blocking subscribers", "",
     CORE(pending_bytes)},
    {"felix_streams", "gauge", "Felix streams that exist (per reactor, summed)", "", CORE(streams)},
    {"felix_replay_bytes", "gauge", "memory of all replay rings", "", CORE(ring_bytes)},
    {"felix_subscribe_requests_total", "counter", "subscribe requests", "", SERVER(subscribes)},
    {"felix_subscribe_failed_total", "counter", "subscribe requests refused", "",
     SERVER(subscribe_failed)},
    {"felix_broker_subscribe_conn_limit_rejected_total", "counter",
     "subscriptions refused by the limit per connection", "", SERVER(subscription_limit)},
    {"felix_subscriptions", "gauge", "subscriptions", "", CORE(subscriptions)},
    {"felix_sub_shared_batch_handles_total", "counter", "batches placed in subscriber queues", "",
     CORE(enqueued_batches)},
    {"felix_sub_queue_enqueued_total", "counter", "items into subscriber queues", "",
     CORE(enqueued_items)},
    {"felix_sub_queue_dequeued_total", "counter", "items out of subscriber queues", "",
     CORE(dequeued_items)},
    {"felix_sub_queue_dropped_total", "counter", "items dropped at a subscriber's queue",
     "reason=\"queue_full_new\"", CORE(dropped_new_items)},
    {"felix_sub_queue_dropped_total", "counter", "", "reason=\"queue_full_old\"",
     CORE(dropped_old_items)},
    {"felix_sub_queue_dropped_total", "counter", "", "reason=\"subscription_ended\"",
     CORE(dropped_ended_items)},
    {"felix_delivered_items_total", "counter", "items given to subscribers' streams", "",
     SERVER(delivered_items)},
    {"felix_delivered_frames_total", "counter", "frames given to subscribers' streams", "",
     SERVER(delivered_frames)},
    {"felix_delivered_bytes_total", "counter", "frame bytes given to subscribers' streams", "",
     SERVER(delivered_bytes)},
    {"felix_cache_requests_total", "counter", "cache requests", "", SERVER(cache_requests)},
    {"felix_cache_items", "gauge", "cache entries", "", CACHE(items)},
    {"felix_cache_bytes", "gauge", "memory of cache entries", "", CACHE(bytes)},
    {"felix_cache_hits_total", "counter", "gets that found a value", "", CACHE(hits)},
    {"felix_cache_misses_total", "counter", "gets that found none", "", CACHE(misses)},
    {"felix_cache_puts_total", "counter", "values stored", "", CACHE(puts)},
    {"felix_cache_refused_total", "counter", "values larger than the limit", "",
     CACHE(refused_items)},
    {"felix_cache_dropped_total", "counter", "entries that left, by reason",
     "reason=\"evicted_cache_limit\"", DROPPED(EVICTED_CACHE_LIMIT)},
    {"felix_cache_dropped_total", "counter", "", "reason=\"evicted_total_limit\"",
     DROPPED(EVICTED_TOTAL_LIMIT)},
    {"felix_cache_dropped_total", "counter", "", "reason=\"expired\"", DROPPED(EXPIRED)},
    {"felix_cache_dropped_total", "counter", "", "reason=\"replaced\"", DROPPED(REPLACED)},
    {"felix_cache_dropped_total", "counter", "", "reason=\"deleted\"", DROPPED(DELETED)},
    {"felix_cache_dropped_total", "counter", "", "reason=\"cache_removed\"",
     DROPPED(CACHE_REMOVED)},
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

static const uint64_t bucket_bounds_ns[] = {
    1000,      2500,      5000,       10000,      25000,      50000,      100000,   250000,
    500000,    1000000,   2500000,    5000000,    10000000,   25000000,   50000000, 100000000,
    250000000, 500000000, 1000000000, 2500000000, 5000000000, 10000000000};

static void render_stage(const struct reactor *reactors, unsigned count, enum stage stage,
                         struct text *out) {
    const char *name = node_stage_name(stage);
    uint64_t total = 0, sum_ns = 0;
    for (size_t b = 0; b < sizeof bucket_bounds_ns / sizeof bucket_bounds_ns[0]; b++) {
        uint64_t at_most = 0;
        for (unsigned i = 0; i < count; i++)
            at_most += hist_count_at_most(&reactors[i].stages[stage], bucket_bounds_ns[b]);
        text_printf(out, "felix_stage_seconds_bucket{stage=\"%s\",le=\"%g\"} %llu\n", name,
                    (double)bucket_bounds_ns[b] / 1e9, (unsigned long long)at_most);
    }
    for (unsigned i = 0; i < count; i++) {
        total += hist_count(&reactors[i].stages[stage]);
        sum_ns += hist_sum_ns(&reactors[i].stages[stage]);
    }
    text_printf(out, "felix_stage_seconds_bucket{stage=\"%s\",le=\"+Inf\"} %llu\n", name,
                (unsigned long long)total);
    text_printf(out, "felix_stage_seconds_sum{stage=\"%s\"} %.9f\n", name, (double)sum_ns / 1e9);
    text_printf(out, "felix_stage_seconds_count{stage=\"%s\"} %llu\n", name,
                (unsigned long long)total);
}

void metrics_render_node(const struct reactor *reactors, unsigned count, bool ready,
                         struct text *out) {
    for (size_t i = 0; i < sizeof metrics / sizeof metrics[0]; i++) {
        const struct metric *metric = &metrics[i];
        if (metric->help[0] != '\0')
            text_printf(out, "# HELP %s %s\n# TYPE %s %s\n", metric->name, metric->help,
                        metric->name, metric->type);
        bool labelled = metric->labels[0] != '\0';
        text_printf(out, "%s%s%s%s %llu\n", metric->name, labelled ? "{" : "", metric->labels,
                    labelled ? "}" : "", (unsigned long long)sum(reactors, count, metric));
    }
    text_printf(out, "# HELP felix_sub_queue_len items in all subscriber queues\n"
                     "# TYPE felix_sub_queue_len gauge\n");
    uint64_t in = 0, gone = 0;
    for (unsigned i = 0; i < count; i++) {
        const struct core_counters *core = &reactors[i].server.core.counters;
        gone += counter_get(&core->dequeued_items) + counter_get(&core->dropped_old_items) +
                counter_get(&core->dropped_ended_items);
        in += counter_get(&core->enqueued_items);
    }
    text_printf(out, "felix_sub_queue_len %llu\n", (unsigned long long)(in > gone ? in - gone : 0));
    text_printf(out,
                "# HELP felix_ready whether the node takes traffic\n"
                "# TYPE felix_ready gauge\nfelix_ready %d\n",
                ready ? 1 : 0);
    if (count == 0 || reactors[0].stages == NULL)
        return;
    text_add(out, "# HELP felix_stage_seconds time spent in a stage of the data path\n"
                  "# TYPE felix_stage_seconds histogram\n");
    for (enum stage stage = 0; stage < STAGE_COUNT; stage++)
        render_stage(reactors, count, stage, out);
}
