/*
 * A log under test, with records whose bytes follow from their offsets: appends, and reads that
 * check every byte.
 */
#ifndef SUPPORT_LOG_DRIVER_H
#define SUPPORT_LOG_DRIVER_H

#include "storage/record_log.h"

/* Small segments, no retention. */
struct record_log_settings log_test_settings(enum log_sync sync);

/** The bytes of the record `offset`, `bytes` of them. */
void log_test_fill(uint64_t offset, uint8_t *out, size_t bytes);

/** Append `count` records of `bytes` each from `offset` on as one batch, at `timestamp_us`. */
enum felix_err log_test_append(struct record_log *log, uint64_t offset, uint32_t count,
                               size_t bytes, uint64_t timestamp_us);

/** The same, then record_log_write and record_log_sync, all of which must succeed. */
void log_test_put(struct record_log *log, uint64_t offset, uint32_t count, size_t bytes);

/** Read [from, to) in pages of at most `bytes_max`: asserts that they are there without a gap, and
 * that every payload is what log_test_fill gives. */
void log_test_expect(struct record_log *log, uint64_t from, uint64_t to, size_t bytes_max);

/** record_log_info. */
struct record_log_info log_test_info(struct record_log *log);

#endif
