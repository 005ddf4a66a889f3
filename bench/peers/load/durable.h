/* What a durable stream of a peer speaks, beside protocol.h: appends that are answered, and reading
 * back. There is one stream, PROTOCOL_SUBJECT. */
#ifndef PEERS_LOAD_DURABLE_H
#define PEERS_LOAD_DURABLE_H

#include "protocol.h"

struct durable_protocol {
    const char *name;
    /** On new connection `number`; comes back when the peer is ready for requests. */
    void (*greet)(struct link *link, unsigned number);
    /** Makes the stream; once, on one connection. */
    void (*make)(struct link *link);
    /** Appends one request of connection `number` that appends a record of `payload_bytes` zeros;
     * returns where they begin. Every one is answered, in order. */
    size_t (*append)(struct text *out, size_t payload_bytes, unsigned number);
    /** Asks for all records from the first on, each an ITEM_MESSAGE of `next`. NULL: cannot. */
    void (*replay)(struct link *link);
    struct item (*next)(struct slice in);
};

/** NULL when the name is unknown. */
const struct durable_protocol *durable_protocol_find(const char *name);

extern const struct durable_protocol durable_protocol_redis, durable_protocol_jetstream;

#endif
