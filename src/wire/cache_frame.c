#include "wire/cache_frame.h"

#include "base/check.h"
#include "base/cursor.h"
#include "wire/utf8.h"

#define TTL_BYTES 8u
#define NAME_LENGTH_BYTES 2u
#define BIND_BYTES 4u /* before the names */
#define REQUEST_ID_AT 4u

static enum felix_err decode_bind(struct slice body, struct cache_frame_request *ret) {
    struct reader in = reader_of(body);
    in.at += BIND_BYTES;
    const uint8_t *names = in.at;
    struct slice tenant = reader_take(&in, reader_u16(&in));
    struct slice namespace_ = reader_take(&in, reader_u16(&in));
    struct slice cache = reader_take(&in, reader_u16(&in));
    if (in.failed || reader_left(&in) > 0 || body.data[1] != 0 || !utf8_valid(tenant) ||
        !utf8_valid(namespace_) || !utf8_valid(cache))
        return FELIX_MALFORMED;
    *ret = (struct cache_frame_request){
        .op = CACHE_FRAME_BIND,
        .handle = be16_load(body.data + 2),
        .route = slice_of(names, body.len - BIND_BYTES),
        .tenant = tenant,
        .namespace_ = namespace_,
        .cache = cache,
    };
    return FELIX_OK;
}

enum felix_err cache_frame_request_decode(struct slice body, struct cache_frame_request *ret) {
    if (body.len < BIND_BYTES)
        return FELIX_MALFORMED;
    uint8_t op = body.data[0];
    if (op == CACHE_FRAME_BIND)
        return decode_bind(body, ret);
    if (op > CACHE_FRAME_DELETE || op < CACHE_FRAME_BIND || body.len < CACHE_FRAME_REQUEST_BYTES)
        return FELIX_MALFORMED;
    bool put = op == CACHE_FRAME_PUT;
    uint8_t flags = body.data[1];
    if ((flags & ~(put ? CACHE_FRAME_HAS_TTL : 0u)) != 0)
        return FELIX_MALFORMED;
    size_t key_at = CACHE_FRAME_REQUEST_BYTES + (flags != 0 ? TTL_BYTES : 0);
    size_t key_bytes = be32_load(body.data + 12);
    if (body.len < key_at || body.len - key_at < key_bytes ||
        (!put && body.len - key_at > key_bytes))
        return FELIX_MALFORMED;
    struct slice key = slice_of(body.data + key_at, key_bytes);
    if (!utf8_valid(key))
        return FELIX_MALFORMED;
    ret->op = (enum cache_frame_op)op;
    ret->handle = be16_load(body.data + 2);
    ret->has_ttl = flags != 0;
    ret->request_id = be64_load(body.data + REQUEST_ID_AT);
    ret->ttl_ms = flags != 0 ? be64_load(body.data + CACHE_FRAME_REQUEST_BYTES) : 0;
    ret->key = key;
    ret->value = slice_of(key.data + key_bytes, body.len - key_at - key_bytes);
    return FELIX_OK;
}

enum felix_err cache_frame_request_id(struct slice body, uint64_t *ret) {
    if (body.len < REQUEST_ID_AT + sizeof *ret || body.data[0] == CACHE_FRAME_BIND)
        return FELIX_MALFORMED;
    *ret = be64_load(body.data + REQUEST_ID_AT);
    return FELIX_OK;
}

static size_t body_bytes(const struct cache_frame_request *request) {
    if (request->op == CACHE_FRAME_BIND)
        return BIND_BYTES + 3 * NAME_LENGTH_BYTES + request->tenant.len + request->namespace_.len +
               request->cache.len;
    return CACHE_FRAME_REQUEST_BYTES + (request->has_ttl ? TTL_BYTES : 0) + request->key.len +
           request->value.len;
}

size_t cache_frame_request_bytes(const struct cache_frame_request *request) {
    return FRAME_HEADER_BYTES + body_bytes(request);
}

static uint8_t *write_name(uint8_t *out, struct slice name) {
    INVARIANT(name.len <= NAME_BYTES_MAX);
    be16_store(out, (uint16_t)name.len);
    if (name.len > 0)
        memcpy(out + NAME_LENGTH_BYTES, name.data, name.len);
    return out + NAME_LENGTH_BYTES + name.len;
}

void cache_frame_request_encode(const struct cache_frame_request *request, uint8_t *out) {
    size_t bytes = body_bytes(request);
    INVARIANT(bytes <= UINT32_MAX);
    frame_header_encode(out, FRAME_CACHE, (uint32_t)bytes);
    out += FRAME_HEADER_BYTES;
    out[0] = (uint8_t)request->op;
    out[1] = request->has_ttl ? CACHE_FRAME_HAS_TTL : 0;
    be16_store(out + 2, request->handle);
    if (request->op == CACHE_FRAME_BIND) {
        out = write_name(out + BIND_BYTES, request->tenant);
        out = write_name(out, request->namespace_);
        (void)write_name(out, request->cache);
        return;
    }
    be64_store(out + REQUEST_ID_AT, request->request_id);
    be32_store(out + 12, (uint32_t)request->key.len);
    out += CACHE_FRAME_REQUEST_BYTES;
    if (request->has_ttl) {
        be64_store(out, request->ttl_ms);
        out += TTL_BYTES;
    }
    if (request->key.len > 0)
        memcpy(out, request->key.data, request->key.len);
    if (request->value.len > 0)
        memcpy(out + request->key.len, request->value.data, request->value.len);
}

void cache_frame_request_address(uint8_t *frame, uint16_t handle, uint64_t request_id) {
    be16_store(frame + FRAME_HEADER_BYTES + 2, handle);
    be64_store(frame + FRAME_HEADER_BYTES + REQUEST_ID_AT, request_id);
}

enum felix_err cache_frame_reply_decode(struct slice body, struct cache_frame_reply *ret) {
    if (body.len < CACHE_FRAME_REPLY_BYTES)
        return FELIX_MALFORMED;
    uint8_t status = body.data[0];
    uint16_t code = be16_load(body.data + 2);
    struct slice rest =
        slice_of(body.data + CACHE_FRAME_REPLY_BYTES, body.len - CACHE_FRAME_REPLY_BYTES);
    if (status > CACHE_FRAME_REFUSED || body.data[1] != 0)
        return FELIX_MALFORMED;
    if (status == CACHE_FRAME_REFUSED ? !utf8_valid(rest) : code != 0)
        return FELIX_MALFORMED;
    if ((status == CACHE_FRAME_DONE || status == CACHE_FRAME_MISS) && rest.len > 0)
        return FELIX_MALFORMED;
    *ret = (struct cache_frame_reply){
        .status = (enum cache_frame_status)status,
        .code = code,
        .request_id = be64_load(body.data + REQUEST_ID_AT),
        .rest = rest,
    };
    return FELIX_OK;
}

void cache_frame_reply_encode_head(const struct cache_frame_reply *reply, uint8_t *out) {
    INVARIANT(reply->rest.len <= UINT32_MAX - CACHE_FRAME_REPLY_BYTES);
    frame_header_encode(out, FRAME_CACHE, CACHE_FRAME_REPLY_BYTES + (uint32_t)reply->rest.len);
    out += FRAME_HEADER_BYTES;
    out[0] = (uint8_t)reply->status;
    out[1] = 0;
    be16_store(out + 2, reply->code);
    be64_store(out + REQUEST_ID_AT, reply->request_id);
}
