/*
 * Work on a log without a broker: write generated records, measure writing and reading, check what
 * is there. What `felix log write|bench` and felix-log-tool do; these read the arguments.
 * Source: broker specification 7.
 */
#ifndef CLI_LOG_WORK_H
#define CLI_LOG_WORK_H

#include "base/err.h"
#include "storage/record_log.h"

#include <signal.h>

struct log_work {
    const char *dir; /* of the log itself; made when it is not there */
    struct record_log_settings log;
    uint64_t sync_interval_ns; /* LOG_SYNC_PERIODIC */
    uint64_t records;          /* write: 0 is until stopped */
    uint64_t payload_bytes;
    uint64_t batch; /* at least 1, as concurrency */
    uint64_t concurrency;
    uint64_t warmup_records;
    const char *label;
    bool report_acks;
    bool clean_shutdown;
    uint64_t expect_at_least;
    bool check_payloads; /* verify: they are generated ones of payload_bytes */
    bool json;
    bool quiet;
    const volatile sig_atomic_t *stop; /* write ends in order when it is set */
};

/** What the tools do unless told otherwise. */
struct log_work log_work_defaults(void);

#define LOG_WORK_RECORDS_MAX ((uint64_t)1 << 40)
#define LOG_WORK_BATCH_MAX 65536u
#define LOG_WORK_BATCH_BYTES_MAX ((uint64_t)256 << 20)
#define LOG_WORK_CONCURRENCY_MAX 65536u

/** Is one batch small enough to be made? FELIX_INVALID_ARGUMENT with a text. */
enum felix_err log_work_check(const struct log_work *work, struct felix_error *reterr);

struct fsync_text {
    char text[48];
};
/** "none", "on_commit", "periodic:250ms". */
struct fsync_text log_work_fsync(const struct log_work *work);

/** Append generated records at the end of the log; prints `opened`, `ack` for each append once its
 * policy is satisfied, `done`. */
enum felix_err log_work_write(const struct log_work *work, struct felix_error *reterr);

/** Open the log as the broker does, which repairs it, and read all of it; prints `verified`.
 * FELIX_DAMAGED: a payload or a count is not what was expected. */
enum felix_err log_work_verify(const struct log_work *work, struct felix_error *reterr);

/** Measure appends through the threads that serve a broker's logs; prints `bench`. */
enum felix_err log_work_bench_write(const struct log_work *work, struct felix_error *reterr);

/** Measure reading all of the log in the same way, one page ahead; prints `bench_read`. */
enum felix_err log_work_bench_read(const struct log_work *work, struct felix_error *reterr);

/** Fill `block`, of at least log_work_batch_bytes(), with `count` generated records. */
void log_work_fill(const struct log_work *work, uint64_t offset, uint32_t count, struct buf *block,
                   struct payload_list *ret);
size_t log_work_batch_bytes(const struct log_work *work);

#endif
