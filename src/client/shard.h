/*
 * A shard: one publish lane and what waits for it. Shared by application threads, who stage
 * frames under its lock, and the driver, who hands them to the transport.
 *
 * Frames are encoded straight into the shard's current chunk, and the transport sends from that
 * chunk by reference. So a small publish costs one copy of its payload, no allocation of its own,
 * and a wake-up only when the driver sleeps.
 */
#ifndef CLIENT_SHARD_H
#define CLIENT_SHARD_H

#include <felix/felix.h>

#include "base/buf.h"
#include "client/io.h"
#include "client/link.h"

#include <pthread.h>

/* Bytes encoded and not yet handed to the transport, in order. */
struct region {
    struct buf *buf; /* one reference */
    const uint8_t *data;
    size_t len;
    size_t budget_bytes; /* of its frames that await no answer: free once the peer has the bytes */
    uint64_t last_id;    /* newest request in it or before it */
    uint64_t end_bytes;  /* position after it, counted in staged_bytes */
};

/* A queue that grows. */
struct region_queue {
    struct region *items;
    size_t head, count, capacity; /* capacity is a power of two */
};

enum request_kind {
    REQUEST_OVER,    /* answered; its place is not reclaimed yet */
    REQUEST_ACKED,   /* the broker answers */
    REQUEST_UNACKED, /* over when its bytes were given to the network */
};

struct request {
    enum request_kind kind;
    felix_publish_done done;
    void *context;
    uint64_t deadline_ns;
    uint64_t end_bytes; /* position after its frame, counted in staged_bytes */
    size_t budget_bytes;
};

struct shard {
    pthread_mutex_t lock;
    /* Under the lock. */
    struct io_command command;
    bool posted;
    struct region_queue ready;
    struct buf *tail; /* the chunk that is being filled */
    size_t tail_used;
    size_t tail_taken; /* handed over up to here */
    size_t tail_budget_bytes;
    struct buf *spare;        /* the next chunk, from the driver's free list */
    uint64_t staged_bytes;    /* ever */
    uint64_t staged_id;       /* newest request whose frame was staged */
    struct request *requests; /* ring indexed by id: first_id .. next_id - 1 */
    size_t request_capacity;  /* power of two */
    uint64_t first_id, next_id;
    uint64_t published, publish_bytes;

    /* The driver. */
    struct felix_client *client;
    struct link *link;
    struct lane *lane;
    struct backoff backoff;
    bool was_ready; /* at least once: opens again by itself */
    bool finished;
    uint64_t ready_ns;
    uint64_t handed_bytes; /* ever, of staged_bytes */
    uint64_t handed_id;
    uint64_t unacked_scan_id; /* no open REQUEST_UNACKED lies before it */
    struct region_queue sent; /* handed over, not acknowledged, with a budget; no buf */
    char refusal[128];        /* what the broker said last on this lane */
};

void shard_init(struct shard *shard, struct felix_client *client, struct link *link);
void shard_deinit(struct shard *shard);

/* ---- staging; any thread ---- */

void shard_lock(struct shard *shard);
/** Unlocks and, if something was staged, tells the driver. */
void shard_unlock(struct shard *shard);

/** A new request; its frame is to be staged next, under the same lock. Returns its id. */
uint64_t shard_add_request(struct shard *shard, const struct request *request);
/** Take the newest request back: its frame could not be made. */
void shard_undo_request(struct shard *shard);

/** Room for `bytes`, at most a chunk, to be written now and then staged with shard_commit. */
uint8_t *shard_room(struct shard *shard, size_t bytes);
void shard_commit(struct shard *shard, size_t bytes, size_t budget_bytes);

/** Stage a block of its own. Takes `buf`. */
void shard_stage_block(struct shard *shard, struct buf *buf, size_t bytes, size_t budget_bytes);

/* ---- the driver ---- */

/** Open the lane if it is wanted and may be. */
void shard_open(struct shard *shard, bool eager);
/** Is anything staged? */
bool shard_has_staged(struct shard *shard);
/** Fail overdue requests, open the lane when due; returns when to look again. */
uint64_t shard_expire(struct shard *shard, uint64_t now_ns);
/** Is everything before the mark answered or given to the network? */
bool shard_reached(struct shard *shard, uint64_t staged_bytes, uint64_t next_id);
/** Answer all requests with `err` and forget what is staged. */
void shard_fail(struct shard *shard, enum felix_err err, const char *text);

#endif
