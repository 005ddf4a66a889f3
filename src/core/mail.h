/*
 * Messages between reactors. Each is a heap block with its kind first; whoever receives it owns
 * it and everything in it. Blocks inside were shared (buf_share) by the sender.
 */
#ifndef CORE_MAIL_H
#define CORE_MAIL_H

#include "core/batch.h"
#include "storage/log_service.h"
#include "wire/ack.h"
#include "wire/message.h"

enum mail_kind {
    MAIL_PUBLISH,     /* to a stream's owner: append this */
    MAIL_PUBLISHED,   /* back: the outcome, and the admission it held */
    MAIL_SUBSCRIBE,   /* to the owner: count one more subscription of mine, resolve its start */
    MAIL_SUBSCRIBED,  /* back: where it starts, with what is to be replayed */
    MAIL_UNSUBSCRIBE, /* to the owner: one less */
    MAIL_DELIVER,     /* from the owner: a batch for all my subscriptions of this stream */
    MAIL_DELIVERED,   /* back, now and then: so much of that was taken */
    MAIL_STALL,       /* to the owner: a blocking subscription of mine is full, or no longer */
    MAIL_REWIND,      /* from the owner: what followed this offset of a durable stream is gone */
    MAIL_GAP,         /* from the owner: what is missing below this offset will not be delivered */
    MAIL_LOGGED,      /* from the log to the owner: what is committed */
    MAIL_LOG_PAGE,    /* from the log: records that a subscription of mine asked for */
    MAIL_REMOVE,      /* to all: a stream or cache was deleted */
    MAIL_ADD,         /* to all: a stream or cache exists */
    MAIL_CACHE,       /* to a key's owner: put, get or delete */
    MAIL_CACHE_DONE,  /* back: the answer */
    MAIL_NODE         /* for the node itself; see node/mailbox.h */
};

struct mail {
    struct mail *next;
    enum mail_kind kind;
    unsigned from;        /* reactor */
    uint64_t incarnation; /* of the stream that it is about, where it is about one */
    struct buf *key;      /* the object's key (registry.h); one reference; NULL for MAIL_NODE */
};

/* Who wants to know how a publish or cache request ended. */
struct origin {
    uint64_t session;    /* number of the session on its reactor */
    uint64_t request_id; /* the session's own count; of a cache frame the client's */
    uint64_t admitted_bytes;
    uint32_t items;   /* of a publish */
    bool cache_frame; /* else a cache request in JSON */
};

struct mail_publish {
    struct mail mail;
    struct origin origin;
    struct buf *body;
    struct payload_list list;
    size_t headroom;
    uint64_t read_ns;
};

/* How a publish ended. */
struct publish_outcome {
    enum felix_err err;
    bool has_offset; /* of its first item, in the log of a durable stream */
    uint64_t offset;
    enum ack_level level;
};

struct mail_published {
    struct mail mail;
    struct origin origin;
    struct publish_outcome outcome;
};

struct mail_subscribe {
    struct mail mail;
    uint64_t handle;
    enum start_kind start;
    uint64_t offset;
    bool rejoins; /* it comes back from the log */
};

struct mail_subscribed {
    struct mail mail;
    uint64_t handle;
    enum felix_err err; /* WOULD_BLOCK: read on from `seq` first */
    uint64_t seq;       /* first sequence number, or what is available */
    uint64_t live_seq;  /* end of the stream */
    uint32_t first_item;
    uint32_t block_count;
    struct buf *blocks[]; /* to be replayed, one reference each */
};

struct mail_deliver {
    struct mail mail;
    struct buf *block;
};

struct mail_delivered {
    struct mail mail;
    size_t bytes;
};

struct mail_stall {
    struct mail mail;
    bool stalled;
};

struct mail_end { /* REWIND and GAP */
    struct mail mail;
    uint64_t end;
};

struct mail_logged {
    struct mail mail;
    struct log_commit commit;
};

struct mail_log_page {
    struct mail mail;      /* without key: the subscription's handle tells */
    struct log_read *read; /* owned */
};

enum cache_op { CACHE_OP_PUT, CACHE_OP_GET, CACHE_OP_DELETE };

struct mail_cache {
    struct mail mail;
    struct origin origin;
    enum cache_op op;
    bool has_ttl;
    uint64_t ttl_ms;
    struct buf *memory; /* holds entry_key and value; one reference */
    struct slice entry_key;
    struct slice value;
};

struct mail_cache_done {
    struct mail mail;
    struct origin origin;
    enum cache_op op;
    enum felix_err err; /* OK; NOT_FOUND: the cache does not exist; TOO_LARGE */
    bool found;
    struct buf *value_block; /* one reference when found */
    struct slice value;
};

/* Where a durable stream stands when it is added; a log of NULL: it lives in memory. */
struct stream_start {
    struct stream_log *log; /* one reference */
    uint64_t end;
    uint64_t epoch;
    enum felix_err err; /* not FELIX_OK: the log is out of order, publishes are refused with this */
};

struct mail_object {
    struct mail mail;
    bool is_cache;
    uint64_t max_bytes;        /* MAIL_ADD of a cache */
    struct stream_start start; /* MAIL_ADD of a stream; the reference is the receiver's */
};

/** Frees a message and the references it still holds. */
void mail_free(struct mail *mail);

#endif
