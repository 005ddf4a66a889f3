/*
 * The load of a benchmark.
 *
 * Closed loop: the main thread issues the first operation of every slot and then only watches the
 * time. The end of an operation issues the slot's next one on the client's thread. When the client
 * cannot take it there (bytes in flight are used up), the slot is parked in `blocked_slots` and the
 * main thread, which may wait, issues it.
 * Open loop: operation n is due at start + n / rate. The main thread sleeps until then; operations
 * are allocated one by one and freed at their end.
 * The load ends when enough were issued and all of them have ended, or did not within the timeout.
 */
#include "cli/bench.h"

#include "base/check.h"
#include "base/clock.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/prctl.h>

#define SLOTS_PARKABLE 64u
#define WATCH_NS (2 * NS_PER_MS)

void bench_options(struct bench *bench, unsigned rows, struct arg_option ret[BENCH_OPTIONS]) {
    size_t n = 0;
    ret[n++] = (struct arg_option){.name = "--duration",
                                   .type = ARG_DURATION,
                                   .value = &bench->duration_ns,
                                   .given = &bench->duration_given,
                                   .min = NS_PER_MS,
                                   .meta = "TIME",
                                   .help = "how long (5s)"};
    ret[n++] = (struct arg_option){.name = "--count",
                                   .type = ARG_U64,
                                   .value = &bench->count,
                                   .min = 1,
                                   .meta = "N",
                                   .help = "end after N messages or operations"};
    if (rows & BENCH_SIZE)
        ret[n++] = (struct arg_option){.name = "--size",
                                       .type = ARG_U64,
                                       .value = &bench->size_bytes,
                                       .max = 16u << 20,
                                       .meta = "BYTES",
                                       .help = "of each payload or value (256)"};
    if (rows & BENCH_RATE)
        ret[n++] = (struct arg_option){.name = "--rate",
                                       .type = ARG_RATE,
                                       .value = &bench->rate,
                                       .meta = "N",
                                       .help = "open loop at N per second (default: closed loop)"};
    if (rows & BENCH_BATCH)
        ret[n++] = (struct arg_option){.name = "--batch",
                                       .type = ARG_U64,
                                       .value = &bench->batch,
                                       .min = 1,
                                       .max = 65536,
                                       .meta = "N",
                                       .help = "messages in one publish (1)"};
    if (rows & BENCH_FANOUT)
        ret[n++] = (struct arg_option){.name = "--fanout",
                                       .type = ARG_U64,
                                       .value = &bench->fanout,
                                       .min = 1,
                                       .max = 1000,
                                       .meta = "N",
                                       .help = "subscriptions (1)"};
    if (rows & BENCH_CONCURRENCY)
        ret[n++] = (struct arg_option){.name = "--concurrency",
                                       .type = ARG_U64,
                                       .value = &bench->concurrency,
                                       .min = 1,
                                       .max = 65536,
                                       .meta = "N",
                                       .help = "closed loop: operations in flight"};
    if (rows & BENCH_ACK)
        ret[n++] = (struct arg_option){.name = "--ack",
                                       .type = ARG_CHOICE,
                                       .value = &bench->ack,
                                       .words = "none|message|batch",
                                       .help = "what the broker confirms (message)"};
    if (rows & BENCH_KEYS)
        ret[n++] = (struct arg_option){.name = "--keys",
                                       .type = ARG_U64,
                                       .value = &bench->keys,
                                       .min = 1,
                                       .max = 1u << 24,
                                       .meta = "N",
                                       .help = "size of the key space (1024)"};
    if (rows & BENCH_OP)
        ret[n++] = (struct arg_option){.name = "--op",
                                       .type = ARG_CHOICE,
                                       .value = &bench->op,
                                       .words = "get|put",
                                       .help = "what is measured (get)"};
    INVARIANT(n < BENCH_OPTIONS);
    ret[n] = (struct arg_option){.name = NULL};
}

static bool issued_enough(const struct load *load, uint64_t number, uint64_t now_ns) {
    const struct bench *bench = load->bench;
    if (bench->count != 0 && number * load->weight >= bench->count)
        return true;
    bool by_time = bench->count == 0 || bench->duration_given;
    return by_time && now_ns - load->start_ns >= bench->duration_ns;
}

static void remember_error(struct load *load, enum felix_err err, const char *text) {
    int none = FELIX_OK;
    if (atomic_compare_exchange_strong(&load->first_err, &none, (int)err))
        (void)snprintf(load->first_error_text, sizeof load->first_error_text, "%s",
                       text != NULL && text[0] != '\0' ? text : felix_err_text(err));
}

/* Issues the next operation of a closed-loop slot, unless the load is over. */
static void slot_issue(struct load *load, struct load_op *op) {
    uint64_t now_ns = clock_now_ns();
    uint64_t number = atomic_load_explicit(&load->issued, memory_order_relaxed);
    if (atomic_load_explicit(&load->stop, memory_order_relaxed) ||
        issued_enough(load, number, now_ns)) {
        atomic_store_explicit(&load->stop, true, memory_order_relaxed);
        return;
    }
    op->number = atomic_fetch_add(&load->issued, 1);
    op->intended_ns = now_ns;
    enum felix_err err = load->issue(load, op);
    if (err == FELIX_OK)
        return;
    (void)atomic_fetch_sub(&load->issued, 1);
    if (err == FELIX_WOULD_BLOCK && op->slot < SLOTS_PARKABLE) {
        (void)atomic_fetch_or(&load->blocked_slots, 1ull << op->slot);
        return;
    }
    if (err == FELIX_WOULD_BLOCK)
        return; /* the first 64 slots go on; that is concurrency enough to fill every buffer */
    remember_error(load, err, felix_last_error());
    atomic_store(&load->stop, true);
}

void load_done(struct load_op *op, enum felix_err err, const char *error_text) {
    struct load *load = op->load;
    uint64_t now_ns = clock_now_ns();
    if (err == FELIX_OK) {
        hist_record(load->latency, now_ns - op->intended_ns);
    } else {
        remember_error(load, err, error_text);
        (void)atomic_fetch_add_explicit(&load->failed, 1, memory_order_relaxed);
        /* An identity or a stream that is wrong now is wrong for every further operation. */
        if (err != FELIX_OVERLOADED && err != FELIX_OUTCOME_UNKNOWN)
            atomic_store(&load->stop, true);
    }
    atomic_store_explicit(&load->last_done_ns, now_ns, memory_order_relaxed);
    bool again = op->owned_by_slot;
    if (!again)
        free(op);
    (void)atomic_fetch_add_explicit(&load->finished, 1, memory_order_release);
    if (again)
        slot_issue(load, op);
}

static void sleep_until(uint64_t due_ns) {
    struct timespec due = {.tv_sec = (time_t)(due_ns / NS_PER_S),
                           .tv_nsec = (long)(due_ns % NS_PER_S)};
    while (!cli_interrupted && clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL) == EINTR)
        continue;
}

static void issue_parked(struct load *load) {
    uint64_t parked = atomic_exchange(&load->blocked_slots, 0);
    for (uint32_t slot = 0; parked != 0; slot++, parked >>= 1)
        if (parked & 1)
            slot_issue(load, &load->slots[slot]);
}

static void run_closed(struct load *load) {
    load->slots_count = load->bench->concurrency;
    load->slots = xcalloc(load->slots_count, sizeof *load->slots);
    for (uint32_t i = 0; i < load->slots_count; i++) {
        load->slots[i] = (struct load_op){.load = load, .slot = i, .owned_by_slot = true};
        slot_issue(load, &load->slots[i]);
    }
    while (!atomic_load(&load->stop) && !cli_interrupted) {
        sleep_until(clock_now_ns() + WATCH_NS);
        issue_parked(load);
        if (issued_enough(load, atomic_load(&load->issued), clock_now_ns()))
            break;
    }
    atomic_store(&load->stop, true);
}

static void run_open(struct load *load) {
    double interval_ns = 1e9 * (double)load->weight / load->bench->rate;
    for (uint64_t n = 0; !atomic_load(&load->stop) && !cli_interrupted; n++) {
        uint64_t due_ns = load->start_ns + (uint64_t)((double)n * interval_ns);
        if (issued_enough(load, n, due_ns))
            break;
        if (clock_now_ns() < due_ns)
            sleep_until(due_ns);
        struct load_op *op = xcalloc(1, sizeof *op);
        *op = (struct load_op){.load = load, .number = n, .intended_ns = due_ns};
        (void)atomic_fetch_add(&load->issued, 1);
        enum felix_err err = load->issue(load, op);
        if (err == FELIX_OK)
            continue;
        (void)atomic_fetch_sub(&load->issued, 1);
        free(op);
        remember_error(load, err, felix_last_error());
        break;
    }
}

/* Waits until everything that was issued has ended. False: not within the timeout. */
static bool wait_for_the_rest(struct load *load) {
    uint64_t deadline_ns = clock_now_ns() + load->bench->cli->timeout_ns;
    while (atomic_load_explicit(&load->finished, memory_order_acquire) !=
           atomic_load(&load->issued)) {
        if (clock_now_ns() > deadline_ns)
            return false;
        sleep_until(clock_now_ns() + NS_PER_MS / 2);
        if (cli_interrupted)
            return true;
    }
    return true;
}

int load_run(struct load *load) {
    (void)prctl(PR_SET_TIMERSLACK, 1000ul);
    load->start_ns = clock_now_ns();
    if (load->bench->rate > 0)
        run_open(load);
    else
        run_closed(load);
    bool complete = wait_for_the_rest(load);
    uint64_t last_ns = atomic_load(&load->last_done_ns);
    load->elapsed_ns = last_ns > load->start_ns ? last_ns - load->start_ns : 0;

    enum felix_err err = (enum felix_err)atomic_load(&load->first_err);
    uint64_t good = atomic_load(&load->finished) - atomic_load(&load->failed);
    if (err != FELIX_OK && good == 0)
        return cli_failed(load->bench->cli, "the benchmark cannot run", err,
                          load->first_error_text);
    if (err != FELIX_OK)
        out_error("some operations failed: %s", load->first_error_text);
    if (!complete)
        out_error("%llu operations got no answer in time",
                  (unsigned long long)(atomic_load(&load->issued) - atomic_load(&load->finished)));
    return complete ? CLI_GO_ON : EXIT_TIMEOUT;
}
