/*
 * Publishing: shards, each with one publish lane, shared by application threads and the
 * background thread.
 *
 * A call encodes its frame straight into the shard's current chunk, under the shard's lock; the
 * background thread takes what has gathered and hands the chunk's bytes to the transport by
 * reference. So a small publish costs one copy of the payload, no allocation of its own, and a
 * wake-up only when the background thread sleeps.
 */
#ifndef CLIENT_PUBLISHER_H
#define CLIENT_PUBLISHER_H

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
    size_t budget_bytes; /* of its frames that get no answer: free once the peer has the bytes */
    uint64_t last_id;    /* of the newest request in it or before it */
};

/* A ring that grows. */
struct region_ring {
    struct region *items;
    size_t head, count, capacity;
};

enum request_kind {
    REQUEST_DONE, /* answered; its place is not reclaimed yet */
    REQUEST_ACKED,
    REQUEST_UNACKED, /* its callback runs when the bytes were given to the network */
};

struct request {
    enum request_kind kind;
    felix_publish_done done;
    void *context;
    uint64_t deadline_ns;
    uint64_t end_bytes; /* shard->staged_bytes after its frame */
    size_t budget_bytes;
};

struct shard {
    pthread_mutex_t lock;
    /* Under the lock. */
    struct io_command command;
    bool posted;
    struct region_ring ready;
    struct buf *tail; /* chunk that is being filled */
    size_t tail_used;
    size_t tail_taken; /* handed over up to here */
    size_t tail_budget_bytes;
    struct buf *spare;     /* next chunk, from the background thread's free list */
    uint64_t staged_bytes; /* ever */
    struct request *requests; /* ring: ids first_id .. next_id - 1 */
    size_t request_capacity;
    uint64_t first_id, next_id;
    uint64_t published, publish_bytes;

    /* Background thread. */
    struct felix_client *client;
    struct link *link;
    struct lane *lane;
    struct backoff backoff;
    uint64_t ready_ns;     /* when the lane became ready */
    uint64_t handed_bytes; /* ever, of staged_bytes */
    uint64_t handed_id;
    uint64_t unacked_scan_id; /* no open REQUEST_UNACKED lies before it */
    struct region_ring sent;  /* len: position after it, in handed_bytes; no buf */
    bool finished;
};

/* Bytes of publishes that are not finished. */
struct budget {
    _Atomic size_t used;
    size_t max;
    _Atomic uint32_t waiting;
    pthread_mutex_t lock;
    pthread_cond_t room;
};

struct publisher {
    struct shard *shards;
    unsigned shard_count;
    _Atomic unsigned next_shard; /* for round robin */
    struct budget budget;
};

void publisher_init(struct publisher *publisher, struct felix_client *client);
void publisher_deinit(struct publisher *publisher);

/** Open the first lane, before anybody publishes. */
void publisher_open_first(struct felix_client *client);

/** Open due lanes of the shards on `link`. */
void publisher_pump(struct link *link);

/** Fail overdue requests, reopen lanes; returns when to look again. */
uint64_t publisher_expire(struct felix_client *client, uint64_t now_ns);

/** What was published up to now, per shard, for felix_flush. */
struct publisher_mark {
    uint64_t staged_bytes;
    uint64_t next_id;
};
/** `marks` has room for shard_count. Any thread. */
void publisher_mark(struct publisher *publisher, struct publisher_mark *marks);
/** Is everything up to the marks answered or given to the network? Background thread. */
bool publisher_reached(struct publisher *publisher, const struct publisher_mark *marks);

/** Finish all lanes: nothing more will be published. */
void publisher_finish(struct felix_client *client);
/** Have the lanes ended after publisher_finish? */
bool publisher_is_finished(const struct publisher *publisher);

/** Answer everything unfinished and let waiting publishers go. */
void publisher_shut(struct felix_client *client, enum felix_err err, const char *text);

void publisher_stats(struct publisher *publisher, struct felix_stats *ret);

#endif
