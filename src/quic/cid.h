/*
 * Connection ids and the table from id to connection. One thread.
 *
 * Ids that we choose are CID_BYTES long: a tag, a random byte, the reactor's number, five random
 * bytes. The sockets' reuseport program reads the number out of the packet, so that a client
 * whose address changes still reaches its reactor. Clients' first ids are longer and random.
 */
#ifndef QUIC_CID_H
#define QUIC_CID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CID_BYTES 8u
#define CID_BYTES_MAX 20u
#define CID_TAG 0xf1u
#define CID_REACTOR_AT 2u

struct cid {
    uint8_t len;
    uint8_t bytes[CID_BYTES_MAX];
};

struct cid_entry {
    struct cid cid; /* len 0xff: free */
    void *conn;
};

/* Open addressing with linear probing and backward-shift deletion; seeded hash. */
struct cid_table {
    struct cid_entry *entries;
    size_t capacity; /* power of two */
    size_t count;
    uint64_t seed;
};

/** A fresh id of CID_BYTES that names `reactor`. */
struct cid cid_generate(uint8_t reactor);

/** The reactor that an id of ours names, or -1 for a foreign id. */
int cid_reactor(const uint8_t *bytes, size_t len);

void cid_table_init(struct cid_table *table);
void cid_table_deinit(struct cid_table *table);
void *cid_table_find(const struct cid_table *table, const uint8_t *bytes, size_t len);
/** Replaces an entry with the same id. */
void cid_table_insert(struct cid_table *table, const uint8_t *bytes, size_t len, void *conn);
void cid_table_remove(struct cid_table *table, const uint8_t *bytes, size_t len);
/** Remove every id of `conn`. Linear in the table: for the end of a connection use the ids. */
void cid_table_remove_conn(struct cid_table *table, const void *conn);

#endif
