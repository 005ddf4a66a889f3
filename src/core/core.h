/*
 * The broker's core on one reactor: registry, topics, fan-out, the reactor's part of the caches.
 *
 * No I/O: time comes as an argument, and what is to happen outside goes through `core_host`
 * (messages to other reactors, answers to sessions) or stands in the list of subscriptions that
 * have something new (core_next_ready). With one reactor no message is ever posted.
 *
 * Every function belongs to the reactor's thread.
 */
#ifndef CORE_CORE_H
#define CORE_CORE_H

#include "base/counter.h"
#include "base/map.h"
#include "cache/cache.h"
#include "core/mail.h"
#include "core/subscription.h"
#include "core/topic.h"

#define CORE_REACTORS_MAX 64u

struct core_settings {
    struct topic_limits topic;
    size_t replay_total_bytes_max; /* of all rings of this reactor */
    enum queue_policy queue_policy;
    uint32_t queue_batches_max;
    size_t queue_bytes_max;
    size_t deliver_bytes_max; /* under way from one reactor to another, see stream.c */
    uint64_t cache_max_bytes; /* of this reactor's part */
    uint64_t cache_max_bytes_per_cache;
    bool make_on_first_use; /* a development broker */
    struct slice dev_tenant, dev_namespace;
    uint32_t made_streams_max;
};

struct core_counters {
    counter publish_batches, publish_items, publish_bytes;
    counter enqueued_batches, enqueued_items, dequeued_items;
    counter dropped_new_items, dropped_old_items, dropped_ended_items;
    counter subscriptions, streams, caches, pending_bytes, ring_bytes;
    counter logged_publishes, refused_publishes, history_pages, history_items;
    counter stopped_subscriptions;
    counter cache_requests;
};

struct cache_answer {
    struct origin origin;
    enum cache_op op;
    enum felix_err err;
    bool found;
    struct buf *value_block; /* NULL without a value */
    struct slice value;
};

/* What the core asks of the node. */
struct core_host {
    /* Takes `mail`. */
    void (*post)(void *context, unsigned reactor, struct mail *mail);
    /* A publish that was not finished at once is now; its admission is free again. */
    void (*published)(void *context, const struct origin *origin,
                      const struct publish_outcome *outcome);
    /* The answer to core_subscribe. OK: `seq` is the first sequence number; cursor errors: what
     * is available. On failure the subscription is not attached and the owner deinits it. */
    void (*subscribed)(void *context, struct subscription *sub, enum felix_err err, uint64_t seq);
    /* The stream was deleted; what is queued may still be sent, then the client is told. */
    void (*ended)(void *context, struct subscription *sub);
    /* A subscription to a durable stream gets nothing more after what is queued. FELIX_LAGGED: it
     * fell behind, and records from `resume_from` on are there; other codes: its log cannot be
     * read. */
    void (*stopped)(void *context, struct subscription *sub, enum felix_err err,
                    uint64_t resume_from);
    /* Of durable streams (storage/log_service.h). The answers come as MAIL_LOGGED to the owner and
     * MAIL_LOG_PAGE to read->reactor. Takes `batch`; takes `read`. */
    void (*log_append)(void *context, struct stream_log *log, struct log_batch *batch);
    void (*log_read)(void *context, struct log_read *read);
    /* A page's memory is free again. */
    void (*log_page_done)(void *context, size_t bytes);
    /* Drops a reference. */
    void (*log_release)(void *context, struct stream_log *log);
    /* Wall clock, microseconds. */
    uint64_t (*wall_us)(void *context);
    /* The answer to a core_cache that another reactor had to run; borrowed. */
    void (*cache_done)(void *context, const struct cache_answer *answer);
};

struct pending_publish {
    struct pending_publish *next;
    struct origin origin;
    unsigned from;
    struct buf *body;
    struct payload_list list;
    size_t headroom;
    uint64_t read_ns;
};

/* A publish to a durable stream that waits for its log. */
struct log_wait {
    struct origin origin;
    unsigned from; /* reactor */
    uint64_t first, end;
};

/* What the owner of a durable stream gave to its log, oldest first (core/durable.c). */
struct uncommitted {
    struct log_wait *waits; /* a ring; capacity a power of two */
    uint32_t wait_capacity, wait_head, wait_count;
    struct buf **blocks; /* the same */
    uint32_t block_capacity, block_head, block_count;
    uint64_t epoch;
    enum felix_err err;    /* the log takes nothing at present */
    bool unopened;         /* nor can it be read, and nobody knows where it ends */
    uint64_t gap_reactors; /* bit set: told that the last batches were left out */
};

/* A Felix stream as this reactor knows it: its subscriptions here, and, on the owner, its topic. */
struct fanout {
    struct buf *key;
    uint64_t incarnation; /* messages about another stream of this name are not for this one */
    uint64_t hash;
    unsigned owner;
    uint32_t refs; /* the registry's and the sessions' route caches' */
    bool deleted;
    bool made_by_use; /* counts towards made_streams */

    struct subscription *subs; /* attached, here */
    uint32_t stalling_subs;
    struct stream_log *log; /* of a durable stream; one reference */

    /* The owner's part. */
    struct topic topic;
    uint32_t remote_subs[CORE_REACTORS_MAX]; /* this reactor included */
    uint64_t stalled_reactors;               /* bit set */
    struct pending_publish *pending_head, *pending_tail;
    struct uncommitted uncommitted;
    bool open; /* in the list of topics with lone items */
    struct fanout *open_next;
    struct fanout *all_prev, *all_next; /* owned topics, for trimming */
};

struct cache_entry_point {
    struct buf *key;
    uint64_t hash;
    uint32_t refs;
    bool deleted;
    struct cache *cache; /* this reactor's part */
};

struct core {
    unsigned reactor, reactor_count;
    struct core_settings settings;
    const struct core_host *host;
    void *host_context;
    struct map streams;  /* key -> fanout */
    struct map caches;   /* key -> cache_entry_point */
    struct map_u64 subs; /* handle -> subscription */
    struct cache_shard *cache_shard;
    uint64_t next_handle;
    struct subscription *ready_head, *ready_tail;
    struct fanout *open_head;
    struct fanout *topics; /* owned, all */
    struct fanout *trim_hand;
    struct fanout *resume_hand; /* who goes on first when a reactor can take more */
    size_t ring_bytes;
    size_t deliver_bytes[CORE_REACTORS_MAX]; /* under way to each reactor */
    size_t taken_bytes[CORE_REACTORS_MAX];   /* from each, and not yet told to it */
    uint64_t full_reactors;                  /* bit set: nothing more is to be sent to these */
    uint32_t made_streams;
    uint64_t generation; /* changes when an object is removed */
    struct core_counters counters;
};

void core_init(struct core *core, unsigned reactor, unsigned reactor_count,
               const struct core_settings *settings, const struct core_host *host,
               void *host_context);
/** All subscriptions must have been removed. */
void core_deinit(struct core *core);

/* ---- registry ---- */

/**
 * The key of an object: the three names, each preceded by its length in two bytes, exactly as
 * they stand in a binary publish. core_key_write needs core_key_bytes of room.
 */
size_t core_key_bytes(struct slice tenant, struct slice namespace_, struct slice name);
void core_key_write(uint8_t *out, struct slice tenant, struct slice namespace_, struct slice name);

/** A block that holds a copy of key bytes, returned owned, and the bytes in it. */
struct buf *core_key_new(struct slice key);
struct slice core_key_slice(const struct buf *key);

/** Look a stream or cache up by its key bytes. A development broker makes it on first use, in
 * its own namespace, until made_streams_max. NULL: not found. Borrowed: fanout_ref to keep. */
struct fanout *core_find_stream(struct core *core, struct slice key);
struct cache_entry_point *core_find_cache(struct core *core, struct slice key);

/** The reactor that owns the stream of this key, among so many. Any thread. */
unsigned core_owner(struct slice key, unsigned reactor_count);

/** The same without making anything. */
struct fanout *core_get_stream(const struct core *core, struct slice key);

/**
 * Make one here; no effect when it exists. The node calls it on every reactor. `incarnation` tells
 * the streams apart that have this name one after the other, while messages about the one before
 * may still be under way: the same on all reactors, and greater than the last one's.
 * `start` is NULL for a stream in memory; its reference to the log is taken over, also when the
 * stream exists.
 */
void core_add_stream(struct core *core, struct slice key, uint64_t incarnation,
                     const struct stream_start *start);
void core_add_cache(struct core *core, struct slice key, uint64_t max_bytes);

/**
 * Delete one here, at once: subscriptions end (host->ended), pending publishes are answered with
 * FELIX_NOT_FOUND, ring and entries are freed. False: there was none. The node calls it on
 * every reactor.
 */
bool core_remove_stream(struct core *core, struct slice key);
bool core_remove_cache(struct core *core, struct slice key);

struct fanout *fanout_ref(struct fanout *fanout);
void fanout_unref(struct fanout *fanout);
struct cache_entry_point *cache_point_ref(struct cache_entry_point *point);
void cache_point_unref(struct cache_entry_point *point);

/* ---- streams ---- */

/**
 * Publish at least one item. Takes one reference of `body`. True: done, as *ret says: the publish
 * is in its stream, or was refused. False: host->published will tell, because the stream lives on
 * another reactor, its log has to commit it, or a blocking subscriber holds it up; until then
 * `origin->admitted_bytes` stay admitted.
 */
bool core_publish(struct core *core, struct fanout *fanout, struct buf *body,
                  const struct payload_list *list, size_t headroom, uint64_t read_ns,
                  const struct origin *origin, struct publish_outcome *ret);

/** Bind `sub` (subscription_init done with core_next_handle) to a stream; host->subscribed
 * answers, perhaps before this returns. Shares `fanout`. */
void core_subscribe(struct core *core, struct fanout *fanout, struct subscription *sub,
                    enum start_kind start, uint64_t offset);
uint64_t core_next_handle(struct core *core);

/** Detach in any state and forget; the caller then deinits it. Drops are counted. */
void core_unsubscribe(struct core *core, struct subscription *sub);

/** The next subscription that got something new; NULL when none is left. */
struct subscription *core_next_ready(struct core *core);

/** Call after popping `entry` from a subscription's queue, before its reference is dropped: counts,
 * lets blocked publishers go on, reads on in a log. */
void core_popped(struct core *core, struct subscription *sub, const struct queued_batch *entry);

/** Deliver the lone items of this turn. Call before the turn's ready subscriptions are served. */
void core_tick(struct core *core);

/* ---- caches ---- */

struct cache_request {
    struct cache_entry_point *point;
    struct origin origin;
    enum cache_op op;
    struct slice entry_key;
    struct slice value;
    bool has_ttl;
    uint64_t ttl_ms;
};

/** Run a request; borrows its slices. True: the key lives here, the answer is in `ret`, and the
 * reference to its value_block is the caller's. False: host->cache_done will tell. */
bool core_cache(struct core *core, const struct cache_request *request, uint64_t now_ns,
                struct cache_answer *ret);

/* ---- messages ---- */

/** Handle a message of any kind but MAIL_NODE. Takes it. */
void core_receive(struct core *core, struct mail *mail, uint64_t now_ns);

/* Shared by the files of the core. */
struct mail *core_mail_new(const struct core *core, enum mail_kind kind, size_t bytes,
                           struct buf *key, uint64_t incarnation);
void core_mark_ready(struct core *core, struct subscription *sub);
void core_answer_published(struct core *core, unsigned reactor, struct buf *key,
                           const struct origin *origin, const struct publish_outcome *outcome);
/** Hand a batch to all subscriptions, on every reactor. */
void core_deliver(struct core *core, struct fanout *fanout, struct buf *block);
void core_leave_ready(struct core *core, struct subscription *sub);
void core_attach(struct core *core, struct fanout *fanout, struct subscription *sub);
void core_detach(struct core *core, struct subscription *sub);
void core_enqueue_replay(struct core *core, struct subscription *sub, struct buf *block,
                         uint32_t first_item);
/** Ask the owner whether a subscription that is behind has caught up. */
void core_rejoin(struct core *core, struct subscription *sub);
/** Keep all rings under their common bound, after `fanout`'s grew. */
void core_trim_rings(struct core *core, struct fanout *fanout);
void core_close_topic(struct core *core, struct fanout *fanout);
/** NULL also when the name belongs to another stream now. */
struct fanout *core_fanout_of(struct core *core, const struct mail *mail);
/** Detach, and let host->stopped tell. */
void core_stop(struct core *core, struct subscription *sub, enum felix_err err,
               uint64_t resume_from);

/* subscribe.c */
void subscribe_asked(struct core *core, const struct mail_subscribe *mail);
void subscribe_answered(struct core *core, const struct mail_subscribed *mail);

/* durable.c: the owner's side of a log. */
void durable_wait(struct core *core, struct fanout *fanout, const struct log_wait *wait);
void durable_append(struct core *core, struct fanout *fanout, struct buf *block);
void durable_logged(struct core *core, const struct mail_logged *mail);
void durable_rewound(struct core *core, const struct mail_end *mail);
/** A batch is not sent to a reactor that does not keep up: it is told once in a row. */
void durable_left_out(struct core *core, struct fanout *fanout, unsigned reactor, uint64_t end);
void durable_gap(struct core *core, const struct mail_end *mail);
/** Nothing more will be committed: answer with `err` whoever waits. */
void durable_fail(struct core *core, struct fanout *fanout, enum felix_err err);

/* history.c: a subscription that reads its stream's log. */
void history_go_on(struct core *core, struct subscription *sub, uint64_t seq, uint64_t live_seq);
void history_popped(struct core *core, struct subscription *sub, const struct queued_batch *entry);
void history_page(struct core *core, struct log_read *read);

void core_stream_mail(struct core *core, struct mail *mail);
void core_cache_mail(struct core *core, struct mail *mail, uint64_t now_ns);
void core_fanout_end(struct core *core, struct fanout *fanout);

#endif
