/*
 * Start order: identity, then all sockets (in the order of their reactors, because the steering
 * program counts them), then the logs of durable streams, then the HTTP listener, then the threads.
 * Whatever fails undoes the rest and says why; nothing is served half.
 *
 * Drain: not ready; no new connections and requests; what was accepted is delivered; then every
 * connection is closed with a reason; then the threads stop.
 */
#include "node/node.h"

#include <errno.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/cpu.h"
#include "base/log.h"
#include "http/server.h"
#include "node/admin.h"
#include "node/identity.h"
#include "node/logs.h"
#include "node/metrics.h"
#include "node/objects.h"
#include "node/reactor.h"

/* Of deliveries under way between two reactors: some milliseconds of a fast publisher. */
#define DELIVER_BYTES_MAX ((size_t)16 << 20)
#define CLOSE_LINGER_NS (50 * NS_PER_MS) /* for the CONNECTION_CLOSE packets to leave */

struct node {
    const struct config *config;
    struct identity identity;
    struct reactor *reactors;
    unsigned reactor_count; /* initialised ones */
    struct http_server http;
    sem_t drained;
    _Atomic bool ready;
    bool draining;
    struct logs *logs;
    struct objects objects;
    struct admin *admin;
};

/* All cores but one, which is left to the kernel's and the clients' work: on two cores a second
 * reactor costs every hop a wake-up and wins nothing (docs/decisions/005-default-reactors.md). */
static unsigned choose_reactors(const struct config *config) {
    unsigned cpus = cpu_usable();
    unsigned count = config->core_shards != 0 ? config->core_shards : cpus > 1 ? cpus - 1 : 1;
    return count < CORE_REACTORS_MAX ? count : CORE_REACTORS_MAX;
}

static struct quic_settings quic_settings_of(const struct config *config) {
    return (struct quic_settings){
        .conn_recv_window_bytes = config->cache_conn_recv_window,
        .stream_recv_window_bytes = config->cache_stream_recv_window,
        .max_streams_bidi = 1024,
        .max_streams_uni = 1024,
        .idle_timeout_ms = (uint32_t)config->idle_timeout_ms,
        .keep_alive_ms = (uint32_t)config->keep_alive_ms,
        .handshake_timeout_ms = (uint32_t)config->auth_timeout_ms,
        .initial_mtu_bytes = config->initial_mtu,
        .mtu_max_bytes = config->mtu_upper_bound,
        .max_udp_payload_bytes = config->max_udp_payload,
        .udp_send_buffer_bytes = (uint32_t)config->udp_send_buffer,
        .udp_recv_buffer_bytes = (uint32_t)config->udp_recv_buffer,
        .max_connections = config->max_connections,
        .max_half_open = config->max_half_open,
    };
}

/* A reactor's share of a limit of the whole node. */
static uint64_t share(uint64_t total, unsigned reactors) {
    uint64_t part = total / reactors;
    return part > 0 ? part : 1;
}

/* May this node keep durable streams, now or later? What comes with them is then advertised. */
static bool may_keep_durable(const struct config *config) {
    return config->dev || config->durable_storage_dir[0] != '\0';
}

static struct server_settings server_settings_of(const struct config *config, unsigned reactors) {
    bool durable = may_keep_durable(config);
    return (struct server_settings){
        .flags = durable ? SERVER_FLAGS | SERVER_FLAGS_DURABLE : SERVER_FLAGS,
        .features = durable ? SERVER_FEATURES | SERVER_FEATURES_DURABLE : SERVER_FEATURES,
        .max_frame_bytes = (uint32_t)config->max_frame_bytes,
        .max_subscriptions_per_conn = config->max_subscriptions_per_conn,
        .conn_inflight_bytes = config->pub_conn_inflight_bytes,
        .total_inflight_bytes = share(config->pub_inflight_bytes, reactors),
        .ingress_wait = config->pub_ingress_wait,
        .recv_memory_bytes = share(config->recv_memory_bytes, reactors),
        .send_window_bytes = config->cache_send_window,
        .auth_timeout_ns = config->auth_timeout_ms * NS_PER_MS,
        .cache_sweep_ns = config->cache_sweep_ms * NS_PER_MS,
        .event_items_max = config->event_batch_max_events,
        .event_payload_bytes_max = (uint32_t)config->event_batch_max_bytes,
    };
}

static struct core_settings core_settings_of(const struct config *config, unsigned reactors) {
    uint32_t items = config->event_batch_max_events;
    if (config->fanout_batch_size < items)
        items = config->fanout_batch_size;
    return (struct core_settings){
        .topic =
            {
                .replay_items_max = config->replay_items,
                .replay_bytes_max = config->replay_bytes,
                .frame = {.items_max = items,
                          .payload_bytes_max = (uint32_t)config->event_batch_max_bytes},
            },
        .replay_total_bytes_max = share(config->replay_total_bytes, reactors),
        .queue_policy = (enum queue_policy)config->subscriber_queue_policy,
        .queue_batches_max = config->subscriber_queue_capacity,
        .queue_bytes_max = config->subscriber_queue_bytes,
        .deliver_bytes_max = DELIVER_BYTES_MAX,
        .cache_max_bytes = share(config->cache_max_bytes, reactors),
        .cache_max_bytes_per_cache = config->cache_max_bytes_per_cache == 0
                                         ? 0
                                         : share(config->cache_max_bytes_per_cache, reactors),
        .make_on_first_use = config->dev,
        .dev_tenant = slice_str(DEV_TENANT),
        .dev_namespace = slice_str(DEV_NAMESPACE),
        .made_streams_max = config->max_streams_per_namespace,
    };
}

static enum felix_err open_reactors(struct node *node, unsigned count, struct quic_tls *tls,
                                    struct auth_keyset *keys, struct felix_error *reterr) {
    const struct config *config = node->config;
    struct quic_settings quic = quic_settings_of(config);
    struct server_settings server = server_settings_of(config, count);
    struct core_settings core = core_settings_of(config, count);
    struct quic_endpoint_options endpoint = {
        .settings = &quic, .bind = config->quic_bind.storage, .tls = tls};
    memcpy(endpoint.static_secret, node->identity.static_secret, sizeof endpoint.static_secret);
    node->reactors = xcalloc(count, sizeof *node->reactors);
    for (unsigned i = 0; i < count; i++) {
        struct reactor_options options = {
            .index = i,
            .count = count,
            .all = node->reactors,
            .spin_ns = cpu_usable() > 1 ? config->spin_us * NS_PER_US : 0,
            .timings = !config->disable_timings,
            .conn_stats_ns = config->conn_stats_ms * NS_PER_MS,
            .endpoint = &endpoint,
            .server = &server,
            .core = &core,
            .drained = &node->drained,
            .admin = node->admin,
        };
        enum felix_err err = reactor_init(&node->reactors[i], &options, reterr);
        if (err != FELIX_OK)
            return err;
        node->reactor_count++;
        node->reactors[i].server.keys = auth_keyset_ref(keys);
        /* With port 0 the first socket chooses, the others follow. */
        endpoint.bind = node->reactors[0].endpoint->udp.local;
    }
    if (count > 1 && udp_attach_steering(&node->reactors[count - 1].endpoint->udp) != FELIX_OK)
        LOG_WARN(node, "steering_unavailable", F_STR("effect", "packets may change reactors"));
    return FELIX_OK;
}

static bool http_ready(void *context, struct text *why) {
    struct node *node = context;
    return atomic_load(&node->ready) && !logs_failed(node->logs, why);
}

static void http_metrics(void *context, struct text *out) {
    struct node *node = context;
    struct text ignored = {0};
    bool ready = http_ready(node, &ignored);
    text_deinit(&ignored);
    metrics_render_node(node->reactors, node->reactor_count, ready, out);
    logs_render_metrics(node->logs, out);
}

static enum felix_err start_http(struct node *node, struct felix_error *reterr) {
    struct http_callbacks callbacks = {
        .ready = http_ready, .render_metrics = http_metrics, .context = node};
    const struct option_addr *bind = &node->config->metrics_bind;
    return http_server_start(&node->http, (const struct sockaddr *)&bind->storage, bind->len,
                             &callbacks, reterr);
}

enum felix_err node_start(const struct config *config, struct node **ret,
                          struct felix_error *reterr) {
    struct quic_tls *tls = NULL;
    struct auth_keyset *keys = NULL;
    struct node *node = xcalloc(1, sizeof *node);
    node->config = config;
    (void)sem_init(&node->drained, 0, 0);

    enum felix_err err = identity_prepare(config, &node->identity, reterr);
    if (err == FELIX_OK)
        err = identity_load_tls(config, &node->identity, &tls, reterr);
    if (err == FELIX_OK)
        err = identity_load_keys(config, &node->identity, &keys, reterr);
    if (err == FELIX_OK) {
        node->logs = logs_new(config, node->identity.data_dir);
        objects_init(&node->objects, config, node->identity.data_dir, node->logs);
        node->admin = admin_new(config, &node->objects);
    }
    if (err == FELIX_OK)
        err = open_reactors(node, choose_reactors(config), tls, keys, reterr);
    if (err == FELIX_OK) {
        logs_attach(node->logs, node->reactors, node->reactor_count);
        err = objects_begin(&node->objects, node->reactors, node->reactor_count, reterr);
    }
    if (err == FELIX_OK)
        err = start_http(node, reterr);
    quic_tls_unref(tls);
    auth_keyset_unref(keys);
    for (unsigned i = 0; err == FELIX_OK && i < node->reactor_count; i++) {
        if (reactor_start(&node->reactors[i]) != FELIX_OK)
            err = error_set(reterr, FELIX_SYSTEM, errno, "cannot start reactor thread %u", i);
    }
    if (err == FELIX_OK && admin_start(node->admin) != FELIX_OK)
        err = error_set(reterr, FELIX_SYSTEM, errno, "cannot start the thread that makes streams");
    if (err != FELIX_OK) {
        node_stop(node);
        return err;
    }
    atomic_store(&node->ready, true);
    *ret = node;
    return FELIX_OK;
}

static void post_all(struct node *node, enum node_mail_kind kind) {
    for (unsigned i = 0; i < node->reactor_count; i++)
        reactor_post(&node->reactors[i], &node_mail_new(kind, 0)->mail);
}

static struct timespec deadline_in(uint64_t ns) {
    uint64_t at = clock_wall_ns() + ns;
    return (struct timespec){.tv_sec = (time_t)(at / NS_PER_S), .tv_nsec = (long)(at % NS_PER_S)};
}

bool node_drain(struct node *node, uint32_t budget_ms) {
    atomic_store(&node->ready, false);
    node->draining = true;
    post_all(node, NODE_DRAIN);
    struct timespec deadline = deadline_in(budget_ms * NS_PER_MS);
    bool all = true;
    for (unsigned i = 0; i < node->reactor_count && all; i++) {
        while (sem_timedwait(&node->drained, &deadline) != 0) {
            if (errno == EINTR)
                continue;
            all = false;
            break;
        }
    }
    post_all(node, NODE_CLOSE);
    struct timespec linger = {.tv_nsec = (long)CLOSE_LINGER_NS};
    (void)nanosleep(&linger, NULL);
    return all;
}

void node_stop(struct node *node) {
    if (node == NULL)
        return;
    atomic_store(&node->ready, false);
    http_server_stop(&node->http);
    admin_stop(node->admin);
    post_all(node, NODE_STOP);
    for (unsigned i = 0; i < node->reactor_count; i++)
        reactor_join(&node->reactors[i]);
    if (node->logs != NULL)
        logs_close(node->logs);
    for (unsigned i = 0; i < node->reactor_count; i++)
        reactor_deinit(&node->reactors[i]);
    for (unsigned i = 0; i < node->reactor_count; i++)
        reactor_drop_mail(&node->reactors[i]);
    free(node->reactors);
    admin_free(node->admin);
    objects_deinit(&node->objects);
    logs_free(node->logs);
    (void)sem_destroy(&node->drained);
    explicit_bzero(node->identity.static_secret, sizeof node->identity.static_secret);
    free(node);
}

enum felix_err node_reload(struct node *node, struct felix_error *reterr) {
    struct quic_tls *tls = NULL;
    struct auth_keyset *keys = NULL;
    enum felix_err err = identity_load_tls(node->config, &node->identity, &tls, reterr);
    if (err == FELIX_OK)
        err = identity_load_keys(node->config, &node->identity, &keys, reterr);
    for (unsigned i = 0; err == FELIX_OK && i < node->reactor_count; i++) {
        struct node_mail *new_tls = node_mail_new(NODE_TLS, 0);
        new_tls->tls = quic_tls_ref(tls);
        reactor_post(&node->reactors[i], &new_tls->mail);
        struct node_mail *new_keys = node_mail_new(NODE_KEYS, 0);
        new_keys->keys = auth_keyset_ref(keys);
        reactor_post(&node->reactors[i], &new_keys->mail);
    }
    quic_tls_unref(tls);
    auth_keyset_unref(keys);
    return err;
}

enum felix_err node_set_scope(struct node *node, struct scope_item *items, size_t count,
                              struct node_scope_changes *ret, struct felix_error *reterr) {
    return objects_set_scope(&node->objects, items, count, ret, reterr);
}

uint16_t node_quic_port(const struct node *node) {
    return quic_endpoint_port(node->reactors[0].endpoint);
}

uint16_t node_http_port(const struct node *node) {
    return (uint16_t)http_server_port(&node->http);
}

const char *node_ca_path(const struct node *node) {
    return node->identity.cert_path;
}

const char *node_token_path(const struct node *node) {
    return node->config->dev ? node->identity.token_path : NULL;
}

const char *node_data_dir(const struct node *node) {
    return node->identity.data_dir;
}

unsigned node_reactors(const struct node *node) {
    return node->reactor_count;
}

const char *node_stage_name(enum stage stage) {
#define STAGE_NAME(name, text, what) [STAGE_##name] = (text),
    static const char *const names[STAGE_COUNT] = {STAGE_MAP(STAGE_NAME)};
#undef STAGE_NAME
    return names[stage];
}

void node_stage_snapshot(const struct node *node, enum stage stage, struct hist *ret) {
    hist_reset(ret);
    for (unsigned i = 0; i < node->reactor_count; i++) {
        if (node->reactors[i].stages != NULL)
            hist_merge(ret, &node->reactors[i].stages[stage]);
    }
}

static void add_stats(const struct reactor *reactor, struct node_stats *ret) {
    const struct server_counters *server = &reactor->server.counters;
    const struct core_counters *core = &reactor->server.core.counters;
    const struct quic_counters *quic = &reactor->endpoint->counters;
    ret->connections += counter_get(&server->conns_now);
    ret->streams_authenticated += counter_get(&server->sessions_authenticated);
    ret->subscriptions += counter_get(&core->subscriptions);
    ret->publish_frames += counter_get(&server->publish_frames);
    ret->publish_items += counter_get(&core->publish_items);
    ret->publish_bytes += counter_get(&core->publish_bytes);
    ret->acks_sent += counter_get(&server->acks_sent);
    ret->delivered_items += counter_get(&server->delivered_items);
    ret->delivered_frames += counter_get(&server->delivered_frames);
    ret->delivered_bytes += counter_get(&server->delivered_bytes);
    ret->dropped_queue_full_new += counter_get(&core->dropped_new_items);
    ret->dropped_queue_full_old += counter_get(&core->dropped_old_items);
    ret->dropped_ingress += counter_get(&server->dropped_ingress_items);
    ret->dropped_no_stream += counter_get(&server->dropped_no_stream_items);
    ret->cache_requests += counter_get(&server->cache_requests);
    ret->recv_calls += counter_get(&quic->recv_calls);
    ret->send_calls += counter_get(&quic->send_calls);
    ret->datagrams_in += counter_get(&quic->datagrams_in);
    ret->datagrams_out += counter_get(&quic->datagrams_out);
    ret->wakeups += counter_get(&reactor->wakeups);
}

void node_stats(const struct node *node, struct node_stats *ret) {
    *ret = (struct node_stats){0};
    for (unsigned i = 0; i < node->reactor_count; i++)
        add_stats(&node->reactors[i], ret);
    ret->dropped_items = ret->dropped_queue_full_new + ret->dropped_queue_full_old +
                         ret->dropped_ingress + ret->dropped_no_stream;
}
