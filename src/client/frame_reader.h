/*
 * From stream bytes to frames, without a copy when a whole frame lies in one piece.
 *
 * A frame that arrives in pieces is put together in a block; whoever gets it may take the block
 * instead of copying the body once more. One thread, embedded in its owner.
 */
#ifndef CLIENT_FRAME_READER_H
#define CLIENT_FRAME_READER_H

#include "base/buf.h"
#include "base/err.h"
#include "base/slice.h"
#include "wire/frame.h"

/* Left free at the start of a block, for the list node of whoever takes it. */
#define FRAME_READER_HEADROOM_BYTES 64u

struct frame {
    struct frame_header header;
    struct slice body; /* borrowed for the call */
    /* The block that holds the body behind FRAME_READER_HEADROOM_BYTES, or NULL when the body
     * lies in the transport's memory. The handler may take it by storing NULL here. */
    struct buf *block;
};

struct frame_reader {
    uint32_t max_body_bytes;
    uint8_t header[FRAME_HEADER_BYTES];
    size_t have; /* bytes of the frame so far, header included */
    struct frame_header decoded;
    struct buf *block; /* present from the first body byte on */
};

/** Called for each frame; false ends the feeding (the owner may be gone by then). */
typedef bool (*frame_reader_on_frame)(void *context, struct frame *frame);

void frame_reader_init(struct frame_reader *reader, uint32_t max_body_bytes);
void frame_reader_deinit(struct frame_reader *reader);

/** Is a frame begun and not finished? */
bool frame_reader_is_partial(const struct frame_reader *reader);

/**
 * Take `data`. FELIX_OK also when the handler ended it; then the reader is not touched after
 * the handler's return.
 *
 *   FELIX_BAD_MAGIC, FELIX_BAD_VERSION, FELIX_TOO_LARGE   as frame_header_decode
 */
enum felix_err frame_reader_feed(struct frame_reader *reader, struct slice data,
                                 frame_reader_on_frame on_frame, void *context);

#endif
