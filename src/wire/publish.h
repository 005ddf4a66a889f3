/*
 * Publish batch bodies: plain, acknowledged, keyed, idempotent.
 * Source: wire specification 4.1 and 4.2; wire extensions 3.1.
 *
 *   ACKED       8 request_id, 1 ack_mode
 *   IDEMPOTENT  8 producer_id, 8 sequence       (only together with ACKED)
 *   KEYED       2 + n key
 *   always      2 + n tenant, 2 + n namespace, 2 + n stream, 4 count, count x (4 + n payload)
 *
 * From `count` to the end the body is laid out exactly as an event batch is, so the broker hands
 * those bytes on without touching them.
 */
#ifndef WIRE_PUBLISH_H
#define WIRE_PUBLISH_H

#include "base/err.h"
#include "base/slice.h"
#include "wire/utf8.h"

enum publish_ack_mode {
    PUBLISH_ACK_NONE = 0, /* never on the wire in a binary body */
    PUBLISH_ACK_PER_MESSAGE = 1,
    PUBLISH_ACK_PER_BATCH = 2,
};

/* The head of a publish batch: everything before `count`. Slices borrow the input. */
struct publish_head {
    uint64_t request_id; /* with ACKED */
    uint64_t producer_id;
    uint64_t sequence;
    uint8_t ack_mode; /* enum publish_ack_mode; NONE without ACKED */
    bool keyed;
    struct slice key;   /* with KEYED; an empty key is a key */
    struct slice route; /* the raw bytes of the three counted names: one comparison tells
                           whether two batches go to the same stream */
    struct slice tenant;
    struct slice namespace_;
    struct slice stream;
};

/* The counted payloads of a batch, proven to lie inside `bytes`. */
struct payload_list {
    struct slice bytes; /* `count` field and items, without anything that follows them */
    uint32_t count;
    uint64_t payload_bytes; /* sum of the payload lengths */
};

struct payload_cursor {
    const uint8_t *at;
    uint32_t left;
};

/**
 * Decode only request id and ack mode of an acknowledged body, so that a body that is malformed
 * further on can still be answered. Pure; borrows `body`; `ret_*` written on FELIX_OK only.
 *
 *   FELIX_MALFORMED   shorter than 9 bytes, or the ack mode is neither 1 nor 2
 */
enum felix_err publish_prefix_decode(struct slice body, uint64_t *ret_request_id,
                                     uint8_t *ret_ack_mode);

/**
 * Decode a whole publish batch body under the header flags `flags`, of which PUBLISH_ACKED,
 * PUBLISH_KEYED and PUBLISH_IDEMPOTENT count. All lengths are proven once; bytes after the last
 * payload are ignored. Pure, no allocation; the results borrow `body`.
 *
 *   FELIX_MALFORMED   truncated, a count larger than the remaining bytes / 4, an ack mode
 *                     other than 1 or 2, a name that is not UTF-8, IDEMPOTENT without ACKED
 */
enum felix_err publish_decode(uint16_t flags, struct slice body, struct publish_head *ret_head,
                              struct payload_list *ret_payloads);

/** Prove a `count` field and its items at the start of `in`. FELIX_MALFORMED as above. Pure. */
enum felix_err payload_list_decode(struct slice in, struct payload_list *ret);

/** Walk a proven list; payload_next returns false at its end and cannot fail. */
struct payload_cursor payload_walk(const struct payload_list *list);
bool payload_next(struct payload_cursor *cursor, struct slice *ret_payload);

/** Bytes that publish_head_encode writes for `head` under `flags` (body only, no header). */
size_t publish_head_bytes(uint16_t flags, const struct publish_head *head);

/**
 * Write the head (everything before `count`) of a publish body. `out` has room for
 * publish_head_bytes(). `head->route` is ignored. FELIX_TOO_LARGE for a name or key over 65535.
 */
enum felix_err publish_head_encode(uint16_t flags, const struct publish_head *head, uint8_t *out);

#endif
