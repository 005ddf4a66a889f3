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
void bench_options(struct bench *bench, unsigned rows, struct arg_option ret[BENCH_OPTIONS]);

struct load;

/* One operation in flight. Owned by the load. */
struct load_op {
    struct load *load;
    struct load_op *next; /* of those that wait to be issued */
    uint64_t intended_ns; /* when it was meant to start */
    uint64_t number;      /* 0, 1, 2 ... */
    uint32_t slot;
    uint32_t parts_left; /* for operations that end in several places */
    bool owned_by_slot;  /* closed loop: issued again when it ends */
};

/** Start one operation; load_done must follow when FELIX_OK is returned. From the main thread, or
 * from the client's thread: then it may return FELIX_WOULD_BLOCK. */
typedef enum felix_err (*load_issue)(struct load *load, struct load_op *op);

struct load {
    struct bench *bench;
    felix_client *client;
    load_issue issue;
    void *context;   /* of the command */
    uint64_t weight; /* messages in one operation */
    struct hist *latency;

    uint64_t start_ns;
    uint64_t elapsed_ns; /* start to the end of the last operation */
    _Atomic uint64_t issued;
    _Atomic uint64_t finished;
    _Atomic uint64_t failed;
    _Atomic uint64_t last_done_ns;
    _Atomic int first_err;
    _Atomic bool stop;
    _Atomic uint64_t blocked_slots; /* bit set: closed-loop slots below 64 to issue again */
    char first_error_text[256];
    struct load_op *slots;
    uint64_t slots_count;
};

/** Run the load to its end. Returns CLI_GO_ON, or an exit code after saying why it failed. */
int load_run(struct load *load);

/** An operation has ended. On the client's thread. */
void load_done(struct load_op *op, enum felix_err err, const char *error_text);

struct bench_report {
    const struct bench *bench;
    const char *unit; /* "msg" or "op" */
    const char *latency_name;
    uint64_t count; /* messages or operations */
    uint64_t failed;
    uint64_t elapsed_ns;
    uint64_t bytes_each;
    const struct hist *latency; /* NULL or empty: none was measured */
    const char *note;           /* one line for people; may be NULL */
};

void bench_print(const struct bench_report *report);

#endif
