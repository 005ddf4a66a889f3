/* Frame header: what is decoded is encoded as the same bytes; the limit is kept. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/check.h"
#include "wire/frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct frame_header header;
    enum felix_err err =
        frame_header_decode(slice_of(data, size), FRAME_MAX_BYTES_DEFAULT, &header);
    INVARIANT((err == FELIX_INCOMPLETE) == (size < FRAME_HEADER_BYTES));
    if (err != FELIX_OK)
        return 0;
    INVARIANT(header.body_bytes <= FRAME_MAX_BYTES_DEFAULT);
    uint8_t again[FRAME_HEADER_BYTES];
    frame_header_encode(again, header.flags, header.body_bytes);
    INVARIANT(memcmp(again, data, sizeof again) == 0);
    return 0;
}
