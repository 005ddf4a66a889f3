/* A byte that says request or reply, then a body: what decodes lies inside the body and is encoded
 * as the same bytes; a request that does not decode still tells its id, or is no request. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/cursor.h"
#include "wire/cache_frame.h"
#include "wire/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_inside(struct slice part, struct slice body) {
    INVARIANT(part.data >= body.data && part.len <= body.len &&
              part.data + part.len <= body.data + body.len);
}

static void check_header(const uint8_t *frame, size_t frame_bytes, struct slice body) {
    struct frame_header header;
    enum felix_err err = frame_header_decode(slice_of(frame, frame_bytes), UINT32_MAX, &header);
    INVARIANT(err == FELIX_OK && header.flags == FRAME_CACHE && header.body_bytes == body.len);
}

static void check_request(struct slice body) {
    struct cache_frame_request request = {.op = CACHE_FRAME_GET};
    uint64_t id = 0;
    enum felix_err id_err = cache_frame_request_id(body, &id);
    if (cache_frame_request_decode(body, &request) != FELIX_OK)
        return;
    if (request.op == CACHE_FRAME_BIND) {
        INVARIANT(id_err != FELIX_OK);
        check_inside(request.route, body);
        check_inside(request.cache, body);
        INVARIANT(utf8_valid(request.tenant) && utf8_valid(request.namespace_));
    } else {
        INVARIANT(id_err == FELIX_OK && id == request.request_id);
        check_inside(request.key, body);
        check_inside(request.value, body);
        INVARIANT(utf8_valid(request.key));
        INVARIANT(request.op == CACHE_FRAME_PUT || (request.value.len == 0 && !request.has_ttl));
    }
    size_t frame_bytes = cache_frame_request_bytes(&request);
    INVARIANT(frame_bytes == FRAME_HEADER_BYTES + body.len);
    uint8_t *frame = malloc(frame_bytes);
    cache_frame_request_encode(&request, frame);
    check_header(frame, frame_bytes, body);
    INVARIANT(memcmp(frame + FRAME_HEADER_BYTES, body.data, body.len) == 0);
    free(frame);
}

static void check_reply(struct slice body) {
    struct cache_frame_reply reply;
    if (cache_frame_reply_decode(body, &reply) != FELIX_OK)
        return;
    check_inside(reply.rest, body);
    INVARIANT(reply.status == CACHE_FRAME_REFUSED ? utf8_valid(reply.rest) : reply.code == 0);
    uint8_t head[CACHE_FRAME_REPLY_HEAD_BYTES];
    cache_frame_reply_encode_head(&reply, head);
    check_header(head, sizeof head, body);
    INVARIANT(memcmp(head + FRAME_HEADER_BYTES, body.data, CACHE_FRAME_REPLY_BYTES) == 0);
    INVARIANT(reply.rest.len == body.len - CACHE_FRAME_REPLY_BYTES);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1)
        return 0;
    struct slice body = slice_of(data + 1, size - 1);
    if ((data[0] & 1) == 0)
        check_request(body);
    else
        check_reply(body);
    return 0;
}
