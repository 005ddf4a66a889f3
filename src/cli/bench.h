/*
 * What the four `felix bench` commands share: their options, the load, and the report.
 *
 * A load issues operations and measures each from the time it was *meant* to start:
 *   open loop (--rate)  the main thread issues operations when they are due, whatever became of
 *                       earlier ones, so a stall counts for everything that it delayed;
 *   closed loop         `concurrency` operations are in flight; the end of one, on the client's
 *                       thread, issues the next.
 * The histogram is recorded by the client's thread only. A load has one client.
 */
#ifndef CLI_BENCH_H
#define CLI_BENCH_H

#include "base/hist.h"
#include "cli/cli.h"

#include <pthread.h>

struct bench {
    struct cli *cli;
    const char *name;   /* "pub" */
    const char *target; /* stream or cache */
    uint64_t duration_ns;
    bool duration_given;
    uint64_t count; /* operations; 0: as many as the duration allows */
    uint64_t size_bytes;
    uint64_t batch;
    uint64_t fanout;
    uint64_t concurrency;
    uint64_t keys;
    double rate; /* messages or operations per second; 0: closed loop */
    uint32_t ack;
    uint32_t op; /* cache: get, put */
};

/* Room for a command's option table: the shared rows and the final empty one. */
#define BENCH_OPTIONS 12

/* Bits of bench_options: which rows a command wants. */
enum bench_row {
    BENCH_BATCH = 1,
    BENCH_FANOUT = 2,
    BENCH_CONCURRENCY = 4,
    BENCH_ACK = 8,
    BENCH_KEYS = 16,
    BENCH_OP = 32,
    BENCH_RATE = 64,
    BENCH_SIZE = 128,
};

/** Fill `ret` with the options of a bench command; they point into `bench`. */
void bench_options(struct bench *b, unsigned rows, struct arg_option ret[BENCH_OPTIONS]);

struct load;

/* One operation. Of the closed loop: a slot of the load, used again and again. */
struct load_op {
    struct load *load;
    struct load_op *next; /* of the parked ones */
    uint64_t intended_ns; /* when it was meant to start */
    uint64_t number;      /* 0, 1, 2 ... */
    uint64_t weight;      /* messages in it */
    uint32_t slot;
    uint32_t parts_left; /* for operations that end in several places */
    bool is_slot;        /* closed loop: issued again when it ends */
};

/** Start one operation of `op->weight` messages; load_done or load_end must follow when FELIX_OK
 * is returned. From the main thread, or, in the closed loop, from the client's: then it may return
 * FELIX_WOULD_BLOCK. */
typedef enum felix_err (*load_issue)(struct load *load, struct load_op *op);

struct load {
    const struct bench *bench;
    felix_client *client;
    load_issue issue;
    void *context; /* of the command */
    struct hist latency;
    pthread_t main_thread;

    uint64_t start_ns;
    _Atomic uint64_t last_done_ns;
    _Atomic uint64_t issued; /* operations */
    _Atomic uint64_t ended;
    _Atomic uint64_t failed_ops;
    _Atomic uint64_t sent; /* messages, as are the next two */
    _Atomic uint64_t done;
    _Atomic uint64_t failed;
    _Atomic int first_err;
    _Atomic bool stop;
    struct load_op *_Atomic parked; /* slots that the main thread has to issue */
    struct load_op *slots;
    uint64_t slots_count;
    char first_error_text[256];
};

/* What became of a load, in messages or operations. */
struct load_result {
    uint64_t sent;
    uint64_t done;
    uint64_t failed;
    uint64_t lost;       /* never ended */
    uint64_t elapsed_ns; /* start to the end of the last good operation */
};

/** Run the load to its end: until enough was issued and everything has ended, or nothing more did
 * for the length of the timeout. The load must live until the client is closed: late answers come
 * with that. */
struct load_result load_run(struct load *load);
void load_deinit(struct load *load);

/** An operation has ended, and when it is good its latency counts; load_end: does not count. On
 * the client's thread. */
void load_done(struct load_op *op, enum felix_err err, const char *error_text);
void load_end(struct load_op *op, enum felix_err err, const char *error_text);

/** Is this the thread that runs load_run? */
bool load_on_main(const struct load *load);

/** Say what went wrong, if anything did. Returns the benchmark's exit code. */
int load_verdict(const struct load *load, const struct load_result *result);
int bench_verdict(const struct bench *bench, uint64_t lost);

struct bench_count {
    const char *name; /* "sent"; NULL ends the list */
    uint64_t value;
};

#define BENCH_COUNTS 6

struct bench_report {
    const struct bench *bench;
    const char *unit; /* "msg" or "op" */
    uint64_t count;   /* what the rate is made of */
    struct bench_count counts[BENCH_COUNTS];
    uint64_t elapsed_ns;
    uint64_t bytes_each;
    const char *latency_name;
    const struct hist *latency; /* NULL or empty: none was measured */
    const char *note;           /* one line for people; may be NULL */
};

void bench_print(const struct bench_report *report);

#endif
