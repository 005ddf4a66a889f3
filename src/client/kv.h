/*
 * Cache requests: workers, each one cache lane, with many requests outstanding on each.
 *
 * Two ways lead to a broker. The short one, kv_frames.h, is for a lane that is ready and carries
 * binary cache frames: the calling thread encodes straight into the chunk that is sent. The long
 * one is for everything else (no lane is ready yet, a broker that only knows JSON, more caches than
 * a stream has handles): a kv_request with a copy of the call goes to the driver.
 *
 * Further workers open when all open ones are busy, so a lone caller keeps one connection. Answers
 * in JSON are matched by request id; an error carries none and belongs to the oldest request,
 * because a broker answers JSON in order. The driver, but for the calls of felix.h.
 */
#ifndef CLIENT_KV_H
#define CLIENT_KV_H

#include "client/kv_frames.h"
#include "client/link.h"

/* A request on the long way, with copies of what the caller gave. */
struct kv_request {
    struct io_command command;
    struct kv_request *next;
    struct kv_call call; /* points into `memory`; done is NULL when answered already, its place in
                            the order is kept */
    const char *tenant;  /* of the client's settings */
    uint64_t id;
    uint64_t deadline_ns;
    char memory[];
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
    bool wanted;
    uint64_t ready_ns;           /* 0: not authenticated */
    struct kv_queue outstanding; /* written in JSON, in order */
    struct kv_frames_lane frames;
};

struct kv {
    struct kv_worker *workers;
    unsigned worker_count;
    struct kv_worker **wanted; /* workers in use, in the order in which they were opened */
    unsigned wanted_count;
    struct kv_queue waiting; /* no worker is ready */
    _Atomic uint64_t next_id;
    struct kv_frames frames;
};

void kv_init(struct kv *kv, struct felix_client *client);
void kv_deinit(struct kv *kv);

/** Open the lanes of the workers on `link`. */
void kv_pump(struct link *link);

/** Fail overdue requests, reopen lanes; returns when to look again. */
uint64_t kv_expire(struct felix_client *client, uint64_t now_ns);

/** Is every request answered? */
bool kv_is_idle(struct felix_client *client);

/** Answer everything unfinished with FELIX_CLOSED. */
void kv_shut(struct felix_client *client);

/* ---- between kv.c, kv_calls.c and kv_frames.c ---- */

/** A copy of `call`, returned owned. Any thread. */
struct kv_request *kv_request_new(struct felix_client *client, const struct kv_call *call);
void kv_queue_push(struct kv_queue *queue, struct kv_request *request);
/** Send it the long way; the detour was counted. Takes it. Any thread. */
void kv_post(struct felix_client *client, struct kv_request *request);
/** Take one more worker into use: on a connection that has none yet if `spread`. */
void kv_want_another(struct kv *kv, bool spread);

#endif
