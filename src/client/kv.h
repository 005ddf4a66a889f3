/*
 * Cache requests: workers, each one cache lane, with several requests outstanding on each.
 *
 * Further workers open when all open ones are busy, so a lone caller keeps one connection.
 * Answers are matched by request id; an error carries none and belongs to the oldest request,
 * because a broker answers in order. The driver, but for the calls of felix.h.
 */
#ifndef CLIENT_KV_H
#define CLIENT_KV_H

#include <felix/felix.h>

#include "client/io.h"
#include "client/link.h"

enum kv_kind { KV_PUT, KV_GET, KV_DELETE };

struct kv_request {
    struct io_command command;
    struct kv_request *next;
    enum kv_kind kind;
    uint64_t id;
    uint64_t deadline_ns;
    struct buf *frame; /* until it is written; a get keeps it, to be asked again */
    size_t frame_bytes;
    felix_cache_done done; /* NULL: answered already, its place in the order is kept */
    void *context;
};

struct kv_queue {
    struct kv_request *first, *last;
    unsigned count;
};

struct kv_worker {
    struct felix_client *client;
    struct link *link;
    struct lane *lane;
    struct backoff backoff;
    uint64_t ready_ns;           /* 0: not authenticated */
    struct kv_queue outstanding; /* written, in order */
};

struct kv {
    struct kv_worker *workers;
    unsigned worker_count;
    unsigned wanted_count; /* workers 0 .. wanted_count - 1 are in use */
    unsigned next_worker;
    struct kv_queue waiting; /* no worker is ready */
    _Atomic uint64_t next_id;
};

void kv_init(struct kv *kv, struct felix_client *client);
void kv_deinit(struct kv *kv);

/** Open the lanes of the workers on `link`. */
void kv_pump(struct link *link);

/** Fail overdue requests, reopen lanes; returns when to look again. */
uint64_t kv_expire(struct felix_client *client, uint64_t now_ns);

/** Is every request answered? */
bool kv_is_idle(const struct kv *kv);

/** Answer everything unfinished with FELIX_CLOSED. */
void kv_shut(struct felix_client *client);

#endif
