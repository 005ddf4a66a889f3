/*
 * Cache operations as binary frames: ours alone, only between two peers that both named
 * OWN_CACHE_FRAMES in the member `felix_c` of auth and auth_ok. Source: docs/cache-frames.md.
 *
 *   bind      1 op, 1 zero, 2 handle, then tenant, namespace and cache, each 2 + n bytes
 *   request   1 op, 1 flags, 2 handle, 8 request_id, 4 key_bytes, 8 ttl_ms (put with TTL only),
 *             key, and for a put the value, which is the rest of the body
 *   reply     1 status, 1 zero, 2 code (refusals only), 8 request_id, then the value of a hit or
 *             the text of a refusal, which is the rest of the body
 *
 * One request or reply in a frame; many frames stand back to back. A bind names a cache once per
 * stream and has no reply; replies come in the order of completion.
 */
#ifndef WIRE_CACHE_FRAME_H
#define WIRE_CACHE_FRAME_H

#include "base/err.h"
#include "base/slice.h"
#include "wire/frame.h"

enum cache_frame_op {
    CACHE_FRAME_BIND = 1,
    CACHE_FRAME_GET = 2,
    CACHE_FRAME_PUT = 3,
    CACHE_FRAME_DELETE = 4,
};

enum cache_frame_status {
    CACHE_FRAME_DONE = 0,    /* the put is in the cache */
    CACHE_FRAME_VALUE = 1,   /* of a get, or what a delete removed */
    CACHE_FRAME_MISS = 2,    /* nothing was there */
    CACHE_FRAME_REFUSED = 3, /* not done: code and text say why */
};

#define CACHE_FRAME_HAS_TTL 0x01u /* the one flag */

#define CACHE_FRAME_REQUEST_BYTES 16u /* before ttl_ms, key and value */
#define CACHE_FRAME_REPLY_BYTES 12u   /* before value or text */

/* Everything that comes before the value or text of a reply, the frame header included. */
#define CACHE_FRAME_REPLY_HEAD_BYTES (FRAME_HEADER_BYTES + CACHE_FRAME_REPLY_BYTES)

/* Key, value, request_id, ttl_ms and has_ttl are those of a request, the names those of a bind; in
 * the other kind they mean nothing. */
struct cache_frame_request {
    enum cache_frame_op op;
    uint16_t handle;
    bool has_ttl;        /* put */
    uint64_t request_id; /* not of a bind */
    uint64_t ttl_ms;
    struct slice key, value;

    /* bind */
    struct slice route; /* decoded: the raw bytes of the three counted names */
    struct slice tenant, namespace_, cache;
};

struct cache_frame_reply {
    enum cache_frame_status status;
    uint16_t code; /* enum wire_code, unknown ones too; 0 unless refused */
    uint64_t request_id;
    struct slice rest; /* the value, or the text: UTF-8 */
};

/**
 * Decode the body of a frame of a client. Pure; the slices borrow `body`; `ret` is written on
 * FELIX_OK only.
 *
 *   FELIX_MALFORMED   shorter than its parts, longer (but for a put), an unknown operation or
 *                     flag, a key or name that is not UTF-8
 */
enum felix_err cache_frame_request_decode(struct slice body, struct cache_frame_request *ret);

/** The request id of a body that may be malformed further on, so that it can be answered.
 * FELIX_MALFORMED: none can be read, or it is no request. Pure. */
enum felix_err cache_frame_request_id(struct slice body, uint64_t *ret);

/** Bytes of the whole frame, header included. Pure. */
size_t cache_frame_request_bytes(const struct cache_frame_request *request);

/** Write a whole frame into `out`, which has room for cache_frame_request_bytes(). `route` is
 * ignored; names are at most NAME_BYTES_MAX, and the body fits 32 bits. Pure. */
void cache_frame_request_encode(const struct cache_frame_request *request, uint8_t *out);

/** Write handle and request id into an encoded request's frame. Pure. */
void cache_frame_request_address(uint8_t *frame, uint16_t handle, uint64_t request_id);

/** Decode the body of a frame of a broker. Pure; borrows; FELIX_MALFORMED as above, also for a
 * text that is not UTF-8. */
enum felix_err cache_frame_reply_decode(struct slice body, struct cache_frame_reply *ret);

/** Write the first CACHE_FRAME_REPLY_HEAD_BYTES of a reply's frame; its `rest` follows. Pure. */
void cache_frame_reply_encode_head(const struct cache_frame_reply *reply, uint8_t *out);

#endif
