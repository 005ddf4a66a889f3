/*
 * Publishing: picks the shard, encodes, keeps the budget of bytes in flight.
 */
#ifndef CLIENT_PUBLISHER_H
#define CLIENT_PUBLISHER_H

#include "client/shard.h"

/* Bytes of publishes that are not finished. Any thread takes, the driver gives. */
struct budget {
    _Atomic size_t used;
    size_t max;
    _Atomic uint32_t waiting;
    _Atomic bool closed;
    pthread_mutex_t lock;
    pthread_cond_t room;
};

struct publisher {
    struct shard *shards;
    unsigned shard_count;
    _Atomic unsigned next_shard;   /* for round robin */
    _Atomic uint64_t published_ns; /* when the last unacknowledged publish began */
    struct budget budget;
};

void publisher_init(struct publisher *publisher, struct felix_client *client);
void publisher_deinit(struct publisher *publisher);

/** Give back what a finished publish held. The driver. */
void budget_release(struct budget *budget, size_t bytes);

/** Open the first lane, before anybody publishes. */
void publisher_open_first(struct felix_client *client);

/** Open due lanes of the shards on `link`. */
void publisher_pump(struct link *link);

/** Fail overdue requests, reopen lanes; returns when to look again. */
uint64_t publisher_expire(struct felix_client *client, uint64_t now_ns);

/* What was published up to a moment, per shard. */
struct publisher_mark {
    uint64_t staged_bytes;
    uint64_t next_id;
};
/** `marks` has room for shard_count. Any thread. */
void publisher_mark(struct publisher *publisher, struct publisher_mark *marks);
/** Is everything up to the marks answered or given to the network? The driver. */
bool publisher_reached(struct publisher *publisher, const struct publisher_mark *marks);

/** Is everything that was ever published answered or given to the network? The driver. */
bool publisher_is_drained(struct publisher *publisher);

/** Finish all lanes: nothing more will be published. */
void publisher_finish(struct felix_client *client);
/** Have the lanes ended since? */
bool publisher_is_finished(const struct publisher *publisher);

/** Answer everything unfinished and let waiting publishers go. */
void publisher_shut(struct felix_client *client);

void publisher_stats(struct publisher *publisher, struct felix_stats *ret);

#endif
