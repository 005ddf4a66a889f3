/*
 * Logs on a disk in memory, written byte by byte with the encoders of the format: what a log
 * should look like, whatever the code under test makes of it.
 */
#ifndef UNIT_STORAGE_LOG_FIXTURE_H
#define UNIT_STORAGE_LOG_FIXTURE_H

#include "storage/checkpoint.h"
#include "storage/segment.h"
#include "support/memory_disk.h"

/* Payload bytes of each record, and what a record takes. */
#define FIXTURE_PAYLOAD 40u
#define FIXTURE_RECORD (RECORD_HEADER_BYTES + FIXTURE_PAYLOAD)

/** Add segment `id` with generated records first .. end-1; returns its file's number. */
int fixture_segment(struct memory_disk *disk, const char *dir, uint64_t id, uint64_t first,
                    uint64_t end);

/** A log in `dir` (made): 3 segments of 10 records each, offsets 0 .. 29. */
void fixture_log(struct memory_disk *disk, const char *dir);

/** The file of a segment. */
struct memory_file *fixture_file(struct memory_disk *disk, const char *dir, uint64_t id);

/** Flip one bit of a segment's file. */
void fixture_flip(struct memory_disk *disk, const char *dir, uint64_t id, uint64_t at);

/** Write the checkpoint. */
void fixture_checkpoint(struct memory_disk *disk, const char *dir, struct log_mark mark);

#endif
