#include "wire/ack.h"

#include "base/cursor.h"
#include "wire/frame.h"
#include "wire/utf8.h"

enum { ACK_STATUS_OK = 0, ACK_STATUS_ERROR = 1 };

size_t ack_frame_encode(uint16_t flags, const struct publish_ack *ack,
                        uint8_t out[ACK_FRAME_BYTES_MAX]) {
    /* A code on a success means nothing; an offset on a failure makes clients drop the stream. */
    flags &= FRAME_PUBLISH_ACK | (ack->ok ? FRAME_ACK_OFFSET | FRAME_ACK_LEVEL : FRAME_ACK_CODE);
    struct slice message = {0};
    if (!ack->ok)
        message = slice_of(ack->message.data, utf8_cut(ack->message, ACK_MESSAGE_BYTES_MAX));

    struct writer w = writer_of(out + FRAME_HEADER_BYTES, ACK_FRAME_BYTES_MAX - FRAME_HEADER_BYTES);
    writer_u8(&w, ack->ok ? ACK_STATUS_OK : ACK_STATUS_ERROR);
    writer_u64(&w, ack->request_id);
    writer_u16(&w, (uint16_t)message.len);
    writer_bytes(&w, message);
    if (flags & FRAME_ACK_CODE) {
        writer_u16(&w, ack->code);
        writer_u8(&w, ack->retry);
    }
    if (flags & FRAME_ACK_OFFSET)
        writer_u64(&w, ack->offset);
    if (flags & FRAME_ACK_LEVEL)
        writer_u8(&w, (uint8_t)ack->level);

    size_t frame_bytes = (size_t)(w.at - out);
    frame_header_encode(out, flags, (uint32_t)(frame_bytes - FRAME_HEADER_BYTES));
    return frame_bytes;
}

static struct slice read_text(struct reader *in) {
    struct slice text = reader_take(in, reader_u16(in));
    if (!utf8_valid(text))
        in->failed = true;
    return text;
}

enum felix_err ack_decode(uint16_t flags, struct slice body, struct publish_ack *ret) {
    struct reader in = reader_of(body);
    struct publish_ack ack = {0};

    uint8_t status = reader_u8(&in);
    if (status != ACK_STATUS_OK && status != ACK_STATUS_ERROR)
        return FELIX_MALFORMED;
    ack.ok = status == ACK_STATUS_OK;
    if (!ack.ok && (flags & (FRAME_ACK_OFFSET | FRAME_ACK_LEVEL)))
        return FELIX_MALFORMED;
    if ((flags & FRAME_ACK_DETAIL) && !(flags & FRAME_ACK_CODE))
        return FELIX_MALFORMED;

    ack.request_id = reader_u64(&in);
    ack.message = read_text(&in);
    if (flags & FRAME_ACK_CODE) {
        ack.code = reader_u16(&in);
        ack.retry = reader_u8(&in);
    }
    if (flags & FRAME_ACK_DETAIL) {
        ack.reason = read_text(&in);
        ack.retry_after_ms = reader_u64(&in);
    }
    if (flags & FRAME_ACK_OWNER) {
        ack.owner_node = read_text(&in);
        ack.owner_addr = read_text(&in);
        ack.owner_generation = reader_u64(&in);
    }
    if (flags & FRAME_ACK_OFFSET)
        ack.offset = reader_u64(&in);
    if (flags & FRAME_ACK_LEVEL) {
        uint8_t level = reader_u8(&in);
        if (level > ACK_LEVEL_FLUSHED)
            return FELIX_MALFORMED;
        ack.level = (enum ack_level)level;
    }
    if (in.failed)
        return FELIX_MALFORMED;
    *ret = ack;
    return FELIX_OK;
}

static const char *const level_names[] = {
    [ACK_LEVEL_MEMORY] = "memory",
    [ACK_LEVEL_WRITTEN] = "written",
    [ACK_LEVEL_FLUSHED] = "flushed",
};

const char *ack_level_name(enum ack_level level) {
    return level_names[level];
}

bool ack_level_parse(struct slice name, enum ack_level *ret) {
    for (size_t i = 0; i < sizeof level_names / sizeof level_names[0]; i++) {
        if (slice_is(name, level_names[i])) {
            *ret = (enum ack_level)i;
            return true;
        }
    }
    return false;
}
