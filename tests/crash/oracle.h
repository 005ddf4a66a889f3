/*
 * What a log under test was given, record by record, and what it may give back.
 *
 * An offset can be used more than once: what failed or was killed before it was safe leaves its
 * offset to the next record. So each offset has variants, and one of them becomes the true one
 * when it is acknowledged.
 */
#ifndef CRASH_ORACLE_H
#define CRASH_ORACLE_H

#include "base/rand.h"
#include "base/slice.h"
#include "wire/publish.h"

#define ORACLE_OFFSETS_MAX 2048u
#define ORACLE_VARIANTS_MAX 6u
#define ORACLE_PAYLOAD_MAX 40000u

struct oracle_record {
    uint8_t variants;
    uint8_t acknowledged; /* which of them, + 1; 0: none yet */
    struct {
        uint64_t timestamp_us;
        uint64_t tag; /* the payload follows from it */
        uint32_t bytes;
    } variant[ORACLE_VARIANTS_MAX];
};

struct oracle {
    struct oracle_record *records; /* ORACLE_OFFSETS_MAX */
    uint64_t acknowledged;         /* offsets below are */
};

void oracle_init(struct oracle *oracle);
void oracle_deinit(struct oracle *oracle);
void oracle_copy(struct oracle *to, const struct oracle *from);

/** Make a batch of `count` records of up to `bytes_max`, remember it at `offset`, and write it as
 * a list of the wire into `out`, which has room for count * (4 + ORACLE_PAYLOAD_MAX) + 4. False:
 * no room is left in the oracle. */
bool oracle_append(struct oracle *oracle, struct rng *rng, uint64_t offset, uint32_t count,
                   uint32_t bytes_max, uint64_t timestamp_us, uint8_t *out,
                   struct payload_list *ret_list);

/** What was appended last below `end` is acknowledged. */
void oracle_acknowledge(struct oracle *oracle, uint64_t end);

enum oracle_answer {
    ORACLE_UNKNOWN, /* the log was never given this at this offset */
    ORACLE_KNOWN,
    ORACLE_ACKNOWLEDGED, /* and it is, at some time, the acknowledged one */
};

/** What is a record that came out of the log? */
enum oracle_answer oracle_ask(const struct oracle *oracle, uint64_t offset, uint64_t timestamp_us,
                              struct slice payload);

/** A record that was recovered counts as acknowledged from now on. */
enum oracle_answer oracle_settle(struct oracle *oracle, uint64_t offset, uint64_t timestamp_us,
                                 struct slice payload);

#endif
