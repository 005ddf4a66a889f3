#include "quic/cid.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/check.h"

#define FREE_ENTRY 0xffu
#define CAPACITY_MIN ((size_t)64)

static void random_bytes(void *out, size_t len) {
    ssize_t got = getrandom(out, len, 0);
    INVARIANT(got == (ssize_t)len);
}

struct cid cid_generate(uint8_t reactor) {
    struct cid cid = {.len = CID_BYTES};
    random_bytes(cid.bytes, CID_BYTES);
    cid.bytes[0] = CID_TAG;
    cid.bytes[CID_REACTOR_AT] = reactor;
    return cid;
}

int cid_reactor(const uint8_t *bytes, size_t len) {
    if (len != CID_BYTES || bytes[0] != CID_TAG)
        return -1;
    return bytes[CID_REACTOR_AT];
}

/* Peers choose ids, but never see the seed. */
static uint64_t cid_hash(const struct cid_table *table, const uint8_t *bytes, size_t len) {
    uint64_t hash = table->seed ^ len;
    for (size_t at = 0; at < len; at += 8) {
        uint64_t word = 0;
        memcpy(&word, bytes + at, len - at < 8 ? len - at : 8);
        hash = (hash ^ word) * 0x9e3779b97f4a7c15ull;
        hash ^= hash >> 29;
    }
    hash *= 0xbf58476d1ce4e5b9ull;
    return hash ^ (hash >> 32);
}

static void entries_init(struct cid_table *table, size_t capacity) {
    table->capacity = capacity;
    table->entries = xmalloc(capacity * sizeof *table->entries);
    for (size_t i = 0; i < capacity; i++)
        table->entries[i].cid.len = FREE_ENTRY;
}

void cid_table_init(struct cid_table *table) {
    *table = (struct cid_table){0};
    random_bytes(&table->seed, sizeof table->seed);
    entries_init(table, CAPACITY_MIN);
}

void cid_table_deinit(struct cid_table *table) {
    free(table->entries);
    table->entries = NULL;
}

/* The entry of the id, or the free entry where it would go. */
static size_t find_slot(const struct cid_table *table, const uint8_t *bytes, size_t len) {
    size_t mask = table->capacity - 1;
    size_t at = cid_hash(table, bytes, len) & mask;
    for (;;) {
        const struct cid_entry *entry = &table->entries[at];
        if (entry->cid.len == FREE_ENTRY ||
            (entry->cid.len == len && memcmp(entry->cid.bytes, bytes, len) == 0))
            return at;
        at = (at + 1) & mask;
    }
}

void *cid_table_find(const struct cid_table *table, const uint8_t *bytes, size_t len) {
    if (len > CID_BYTES_MAX)
        return NULL;
    const struct cid_entry *entry = &table->entries[find_slot(table, bytes, len)];
    return entry->cid.len == FREE_ENTRY ? NULL : entry->conn;
}

static void grow(struct cid_table *table) {
    struct cid_entry *old = table->entries;
    size_t old_capacity = table->capacity;
    entries_init(table, old_capacity * 2);
    for (size_t i = 0; i < old_capacity; i++) {
        if (old[i].cid.len == FREE_ENTRY)
            continue;
        table->entries[find_slot(table, old[i].cid.bytes, old[i].cid.len)] = old[i];
    }
    free(old);
}

void cid_table_insert(struct cid_table *table, const uint8_t *bytes, size_t len, void *conn) {
    INVARIANT(len <= CID_BYTES_MAX);
    if ((table->count + 1) * 4 > table->capacity * 3)
        grow(table);
    struct cid_entry *entry = &table->entries[find_slot(table, bytes, len)];
    if (entry->cid.len == FREE_ENTRY)
        table->count++;
    entry->cid.len = (uint8_t)len;
    memcpy(entry->cid.bytes, bytes, len);
    entry->conn = conn;
}

static void remove_at(struct cid_table *table, size_t hole) {
    size_t mask = table->capacity - 1;
    table->count--;
    for (size_t at = (hole + 1) & mask;; at = (at + 1) & mask) {
        struct cid_entry *entry = &table->entries[at];
        if (entry->cid.len == FREE_ENTRY)
            break;
        size_t home = cid_hash(table, entry->cid.bytes, entry->cid.len) & mask;
        if (((at - home) & mask) < ((at - hole) & mask))
            continue; /* it must stay at or after its home */
        table->entries[hole] = *entry;
        hole = at;
    }
    table->entries[hole].cid.len = FREE_ENTRY;
}

void cid_table_remove(struct cid_table *table, const uint8_t *bytes, size_t len) {
    if (len > CID_BYTES_MAX)
        return;
    size_t at = find_slot(table, bytes, len);
    if (table->entries[at].cid.len != FREE_ENTRY)
        remove_at(table, at);
}

void cid_table_remove_conn(struct cid_table *table, const void *conn) {
    for (size_t at = 0; at < table->capacity;) {
        if (table->entries[at].cid.len != FREE_ENTRY && table->entries[at].conn == conn)
            remove_at(table, at); /* something may have moved here: look again */
        else
            at++;
    }
}
