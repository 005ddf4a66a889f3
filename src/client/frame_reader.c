#include "client/frame_reader.h"

#include <string.h>

void frame_reader_init(struct frame_reader *reader, uint32_t max_body_bytes) {
    *reader = (struct frame_reader){.max_body_bytes = max_body_bytes};
}

void frame_reader_deinit(struct frame_reader *reader) {
    buf_unref(reader->block);
    reader->block = NULL;
    reader->have = 0;
}

bool frame_reader_is_partial(const struct frame_reader *reader) {
    return reader->have > 0;
}

static void take_front(struct slice *data, size_t bytes) {
    data->data += bytes;
    data->len -= bytes;
}

/* Go on with a frame that began in an earlier piece. Takes from `data` what belongs to it;
 * FELIX_OK when the frame is complete, FELIX_INCOMPLETE when `data` is used up. */
static enum felix_err assemble(struct frame_reader *reader, struct slice *data) {
    if (reader->have < FRAME_HEADER_BYTES) {
        size_t wanted = FRAME_HEADER_BYTES - reader->have;
        size_t got = data->len < wanted ? data->len : wanted;
        memcpy(reader->header + reader->have, data->data, got);
        reader->have += got;
        take_front(data, got);
        if (reader->have < FRAME_HEADER_BYTES)
            return FELIX_INCOMPLETE;
        enum felix_err err = frame_header_decode(slice_of(reader->header, FRAME_HEADER_BYTES),
                                                 reader->max_body_bytes, &reader->decoded);
        if (err != FELIX_OK)
            return err;
    }
    if (reader->block == NULL)
        reader->block = buf_new(FRAME_READER_HEADROOM_BYTES + (size_t)reader->decoded.body_bytes);
    size_t have_body = reader->have - FRAME_HEADER_BYTES;
    size_t wanted = reader->decoded.body_bytes - have_body;
    size_t got = data->len < wanted ? data->len : wanted;
    if (got > 0)
        memcpy(reader->block->data + FRAME_READER_HEADROOM_BYTES + have_body, data->data, got);
    reader->have += got;
    take_front(data, got);
    return got == wanted ? FELIX_OK : FELIX_INCOMPLETE;
}

/* Hand over the assembled frame. The reader is empty before the handler runs. */
static bool hand_over(struct frame_reader *reader, frame_reader_on_frame on_frame, void *context) {
    struct buf *block = reader->block;
    struct frame frame = {
        .header = reader->decoded,
        .body = slice_of(block->data + FRAME_READER_HEADROOM_BYTES, reader->decoded.body_bytes),
        .block = block,
    };
    reader->block = NULL;
    reader->have = 0;
    bool go_on = on_frame(context, &frame);
    buf_unref(frame.block);
    return go_on;
}

enum felix_err frame_reader_feed(struct frame_reader *reader, struct slice data,
                                 frame_reader_on_frame on_frame, void *context) {
    while (data.len > 0) {
        if (reader->have == 0 && data.len >= FRAME_HEADER_BYTES) {
            struct frame frame = {0};
            enum felix_err err = frame_header_decode(data, reader->max_body_bytes, &frame.header);
            if (err != FELIX_OK)
                return err;
            size_t frame_bytes = FRAME_HEADER_BYTES + (size_t)frame.header.body_bytes;
            if (data.len >= frame_bytes) {
                frame.body = slice_of(data.data + FRAME_HEADER_BYTES, frame.header.body_bytes);
                if (!on_frame(context, &frame))
                    return FELIX_OK;
                take_front(&data, frame_bytes);
                continue;
            }
        }
        enum felix_err err = assemble(reader, &data);
        if (err == FELIX_INCOMPLETE)
            return FELIX_OK;
        if (err != FELIX_OK)
            return err;
        if (!hand_over(reader, on_frame, context))
            return FELIX_OK;
    }
    return FELIX_OK;
}
