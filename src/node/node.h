/*
 * A broker node inside a process: reactors, listeners, drain. felix-broker is this plus signals;
 * the measuring programs start one beside their clients.
 *
 * node_start and node_stop belong to one thread (the caller's); everything else is any thread.
 */
#ifndef NODE_NODE_H
#define NODE_NODE_H

#include "base/err.h"
#include "node/config.h"
#include "session/stages.h"

#include <stdbool.h>
#include <stdint.h>

struct node;

/**
 * Start a node: makes or loads the certificate, keys and scope that `config` asks for, binds the
 * QUIC and, unless metrics_bind has port 0 and is not wanted, the HTTP listener, and starts the
 * reactor threads. Returns owned when the node serves. Borrows `config` until node_stop.
 * With config->dev set the data directory holds ca.pem, token and port files for clients.
 * FELIX_SYSTEM, FELIX_TLS, FELIX_INVALID_ARGUMENT with what to do in reterr.
 */
enum felix_err node_start(const struct config *config, struct node **ret,
                          struct felix_error *reterr);

/** UDP port of the QUIC listener and TCP port of the HTTP listener (0: none). */
uint16_t node_quic_port(const struct node *node);
uint16_t node_http_port(const struct node *node);

/** Paths of the certificate and, on a development node, of the token (NULL otherwise). */
const char *node_ca_path(const struct node *node);
const char *node_token_path(const struct node *node);

const char *node_data_dir(const struct node *node);
unsigned node_reactors(const struct node *node);

/** Load FELIX_TLS_CERT and FELIX_TLS_KEY and the key set again; old ones stay on failure. */
enum felix_err node_reload(struct node *node, struct felix_error *reterr);

struct node_scope_changes {
    size_t added, removed;
    size_t altered; /* other settings than before that count from the next start on: all but the
                       retention of durable streams */
};

/**
 * Let the scope be `items`: streams and caches that are new are made, those that are not among them
 * are deleted at once (subscriptions end, publishes are refused). Takes `items` as config_load
 * makes them, also on failure. The thread of node_start. FELIX_INVALID_ARGUMENT when an item cannot
 * be kept; then nothing changes.
 */
enum felix_err node_set_scope(struct node *node, struct scope_item *items, size_t count,
                              struct node_scope_changes *ret, struct felix_error *reterr);

/**
 * Drain within `budget_ms`: not ready, no new connections, what is queued is delivered, then
 * connections are closed with a reason. Returns true when everything was delivered in time.
 * Blocks. node_stop afterwards frees all.
 */
bool node_drain(struct node *node, uint32_t budget_ms);
void node_stop(struct node *node);

struct hist;
/** Name of a stage ("read") and a merged copy of its histogram over all reactors (ns). */
const char *node_stage_name(enum stage stage);
void node_stage_snapshot(const struct node *node, enum stage stage, struct hist *ret);

/* What the demos print and the metrics page shows; sums over all reactors. */
struct node_stats {
    uint64_t connections, streams_authenticated, subscriptions;
    uint64_t publish_frames, publish_items, publish_bytes, acks_sent;
    uint64_t delivered_items, delivered_frames, delivered_bytes; /* given to the network */
    uint64_t dropped_items;                                      /* all reasons */
    uint64_t dropped_queue_full_new, dropped_queue_full_old, dropped_ingress, dropped_no_stream;
    uint64_t cache_requests;
    uint64_t recv_calls, send_calls, datagrams_in, datagrams_out, wakeups;
};
void node_stats(const struct node *node, struct node_stats *ret);

#endif
