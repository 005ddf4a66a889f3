/* A log's directory as the original leaves it: segments of format version 2, and nothing else. */
#ifndef CRASH_ORIGINAL_H
#define CRASH_ORIGINAL_H

#include "oracle.h"
#include "support/memory_disk.h"

/** Put a log of one to three segments on the disk, and what is in it into the oracle, as
 * acknowledged. Written here byte by byte, from the specification. */
void make_original(struct memory_disk *disk, struct oracle *oracle, uint64_t seed);

#endif
