/*
 * Cache requests as binary frames (docs/cache-frames.md), on lanes where both sides offer them.
 *
 * Any thread stages: under one lock it takes a record for the request and encodes the frame
 * straight into the current chunk, from which the transport sends. So a request costs one copy of
 * its value and no allocation; the driver is told once for all that is staged. A reply
 * names its record, so matching is an index; records are used again.
 */
#ifndef CLIENT_KV_FRAMES_H
#define CLIENT_KV_FRAMES_H

#include <felix/felix.h>

#include "base/buf.h"
#include "client/io.h"

#include <pthread.h>

struct kv_queue;
struct kv_worker;

enum kv_kind { KV_PUT, KV_GET, KV_DELETE };

/* One cache call as the caller made it; borrowed. */
struct kv_call {
    enum kv_kind kind;
    const char *ns, *cache;
    struct slice key;
    struct slice value;
    uint64_t ttl_ms; /* 0: none */
    felix_cache_done done;
    void *context;
};

#define KV_SCOPES_MAX 256u /* caches that one client names by handle: one byte is enough */
#define KV_RECORD_CHUNKS 18u
#define KV_RECORD_KEY_BYTES 64u

/* A cache by its names; its place in the table is its handle on every lane. Immutable. */
struct kv_scope {
    char *ns, *cache; /* owned */
};

/* A request that was staged and is not answered, or a free place for one. */
struct kv_record {
    /* 0: free. Written last by who stages, so that the driver, which finds the record
     * by what a broker says, sees all of it or nothing. */
    _Atomic uint64_t id;
    felix_cache_done done; /* NULL: answered by its deadline; the broker's reply still comes */
    void *context;
    uint64_t deadline_ns;
    struct kv_worker *worker;
    struct kv_record *next; /* of the free ones */
    uint32_t slot;          /* its place, which its id carries */
    /* What a get needs to be asked again after the loss of its lane. */
    uint32_t key_bytes;
    uint8_t scope;
    uint8_t kind; /* enum kv_kind */
    union {
        uint8_t key[KV_RECORD_KEY_BYTES];
        uint8_t *long_key; /* owned */
    };
};

/* A run of staged bytes. */
struct kv_piece {
    struct buf *buf; /* one reference */
    const uint8_t *data;
    size_t len;
};

/* A worker's part. */
struct kv_frames_lane {
    bool agreed;                        /* the lane is ready and carries cache frames */
    uint64_t answered;                  /* ever */
    uint64_t issued;                    /* ever; under the lock */
    uint64_t bound[KV_SCOPES_MAX / 64]; /* bit set of handles; under the lock */
};

struct kv_frames {
    pthread_mutex_t lock;
    /* Under the lock. */
    struct kv_worker *current; /* what is staged goes to it; NULL: the long way is the only one */
    unsigned detours; /* requests that wait on the long way; while there are any, all take it */
    bool shut;
    bool posted;
    struct io_command command;
    struct kv_piece *ready;
    size_t ready_count, ready_capacity;
    struct buf *tail; /* the chunk that is being filled */
    size_t tail_used;
    size_t tail_taken; /* handed over up to here */
    struct buf *spare; /* the next chunk, from the driver's free lists */
    struct kv_record *free;
    struct kv_record *chunks[KV_RECORD_CHUNKS];
    unsigned chunk_count;
    uint64_t next_sequence;
    struct kv_scope scopes[KV_SCOPES_MAX];
    unsigned scope_count, scope_last;
    uint64_t issued; /* ever */

    _Atomic uint32_t record_count; /* written under the lock, read by the driver */

    /* The driver. */
    struct kv_record *freed, *freed_last; /* to join the free ones */
    uint64_t answered;                    /* ever */
    uint64_t counted;                     /* of issued, in the client's statistics */
    bool timer_set;
};

void kv_frames_init(struct kv_frames *frames);
void kv_frames_deinit(struct kv_frames *frames);

enum kv_staged {
    KV_STAGED,
    KV_DETOUR,    /* send it the long way; kv_frames_detour was done */
    KV_TOO_LARGE, /* for a frame */
    KV_TOO_MANY,  /* are unanswered */
};

/** Stage a call. Any thread. */
enum kv_staged kv_frames_stage(struct felix_client *client, const struct kv_call *call);

/* ---- the driver ---- */

/** A request takes the long way once more. */
void kv_frames_detour(struct kv_frames *frames);
/** A request that took the long way is staged, written or failed: it waits no longer. */
void kv_frames_arrived(struct kv_frames *frames);

/** Stage a call that took the long way. False: not by this way, at the moment or at all. */
bool kv_frames_stage_late(struct felix_client *client, const struct kv_call *call,
                          uint64_t deadline_ns);

/** The worker's lane is ready, and carries cache frames. */
void kv_frames_ready(struct kv_worker *worker);
/** Staging goes to the best ready worker, as soon as there is one. */
void kv_frames_choose(struct felix_client *client);
/** A reply came. False when that was the end of the lane. */
bool kv_frames_on_reply(struct kv_worker *worker, struct slice body);
/** The worker's lane is lost. Its gets are appended to `again` in their order; of the rest nobody
 * knows, and they are answered so. */
void kv_frames_lost(struct kv_worker *worker, struct kv_queue *again, const char *text);

/** Requests of a worker without a reply. */
uint64_t kv_frames_outstanding(struct kv_worker *worker);
/** Answer the overdue ones; returns when to look again. */
uint64_t kv_frames_expire(struct felix_client *client, uint64_t now_ns);
bool kv_frames_is_idle(struct felix_client *client);
/** Answer all with FELIX_CLOSED, and take no more. */
void kv_frames_shut(struct felix_client *client);

#endif
