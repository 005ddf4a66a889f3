/*
 * The load of a benchmark.
 *
 * Closed loop: the main thread issues the first operation of every slot and then only watches the
 * time. The end of an operation issues the slot's next one on the client's thread. When the client
 * cannot take it there (bytes in flight are used up), the slot is parked, and the main thread,
 * which may wait, issues it.
 * Open loop: operation n is due at start + n / rate, and that is where its latency begins. The
 * main thread sleeps until then; operations are allocated one by one and freed at their end.
 *
 * Every message is counted when it is claimed (sent), and again when it ends (done or failed);
 * what is missing in the end is lost.
 */
#include "cli/bench.h"

#include "base/check.h"
#include "base/clock.h"

#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>

#define WATCH_NS (2 * NS_PER_MS)

void bench_options(struct bench *b, unsigned rows, struct arg_option ret[BENCH_OPTIONS]) {
    /* clang-format off */
    const struct {
        unsigned row; /* 0: every command has it */
        struct arg_option option;
    } all[] = {
        {0, {.name = "--duration", .type = ARG_DURATION, .value = &b->duration_ns,
             .given = &b->duration_given, .min = NS_PER_MS, .meta = "TIME",
             .help = "how long (5s)"}},
        {0, {.name = "--count", .type = ARG_U64, .value = &b->count, .min = 1, .meta = "N",
             .help = "end after N messages or operations"}},
        {BENCH_SIZE, {.name = "--size", .type = ARG_U64, .value = &b->size_bytes,
                      .max = 16u << 20, .meta = "BYTES",
                      .help = "of each payload or value (256)"}},
        {BENCH_RATE, {.name = "--rate", .type = ARG_RATE, .value = &b->rate, .meta = "N",
                      .help = "open loop at N per second (default: closed loop)"}},
        {BENCH_BATCH, {.name = "--batch", .type = ARG_U64, .value = &b->batch, .min = 1,
                       .max = 65536, .meta = "N", .help = "messages in one publish (1)"}},
        {BENCH_FANOUT, {.name = "--fanout", .type = ARG_U64, .value = &b->fanout, .min = 1,
                        .max = 1000, .meta = "N", .help = "subscriptions (1)"}},
        {BENCH_CONCURRENCY, {.name = "--concurrency", .type = ARG_U64,
                             .value = &b->concurrency, .min = 1, .max = 65536, .meta = "N",
                             .help = "closed loop: operations in flight"}},
        {BENCH_ACK, {.name = "--ack", .type = ARG_CHOICE, .value = &b->ack,
                     .words = "none|message|batch", .help = b->ack == FELIX_ACK_NONE
                         ? "what the broker confirms (none)"
                         : "what the broker confirms (message)"}},
        {BENCH_KEYS, {.name = "--keys", .type = ARG_U64, .value = &b->keys, .min = 1,
                      .max = 1u << 24, .meta = "N", .help = "size of the key space (1024)"}},
        {BENCH_OP, {.name = "--op", .type = ARG_CHOICE, .value = &b->op, .words = "get|put",
                    .help = "what is measured (get)"}},
    };
    /* clang-format on */
    size_t n = 0;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        if (all[i].row == 0 || (rows & all[i].row) != 0)
            ret[n++] = all[i].option;
    INVARIANT(n < BENCH_OPTIONS);
    ret[n] = (struct arg_option){.name = NULL};
}

static bool time_is_up(const struct load *load, uint64_t now_ns) {
    bool by_time = load->bench->count == 0 || load->bench->duration_given;
    return by_time && now_ns - load->start_ns >= load->bench->duration_ns;
}

/* Makes `op` the next operation. False when enough were issued. */
static bool claim(struct load *load, struct load_op *op, uint64_t now_ns) {
    const struct bench *bench = load->bench;
    uint64_t number = atomic_load_explicit(&load->issued, memory_order_relaxed);
    uint64_t weight;
    do {
        uint64_t before = number * bench->batch;
        if (atomic_load_explicit(&load->stop, memory_order_relaxed) || time_is_up(load, now_ns) ||
            (bench->count != 0 && before >= bench->count))
            return false;
        weight = bench->batch;
        if (bench->count != 0 && weight > bench->count - before)
            weight = bench->count - before;
    } while (!atomic_compare_exchange_weak(&load->issued, &number, number + 1));
    op->number = number;
    op->weight = weight;
    op->intended_ns = now_ns;
    (void)atomic_fetch_add_explicit(&load->sent, weight, memory_order_relaxed);
    return true;
}

static void remember_error(struct load *load, enum felix_err err, const char *text) {
    int none = FELIX_OK;
    if (atomic_compare_exchange_strong(&load->first_err, &none, (int)err))
        (void)snprintf(load->first_error_text, sizeof load->first_error_text, "%s",
                       text != NULL && text[0] != '\0' ? text : felix_err_text(err));
}

static void count_end(struct load_op *op, enum felix_err err, const char *error_text) {
    struct load *load = op->load;
    if (err == FELIX_OK) {
        (void)atomic_fetch_add_explicit(&load->done, op->weight, memory_order_relaxed);
    } else {
        remember_error(load, err, error_text);
        (void)atomic_fetch_add_explicit(&load->failed, op->weight, memory_order_relaxed);
        /* An identity or a stream that is wrong now is wrong for every further operation. */
        if (err != FELIX_OVERLOADED && err != FELIX_OUTCOME_UNKNOWN)
            atomic_store(&load->stop, true);
    }
    (void)atomic_fetch_add_explicit(&load->ended, 1, memory_order_release);
}

static void park(struct load *load, struct load_op *op) {
    op->next = atomic_load(&load->parked);
    while (!atomic_compare_exchange_weak(&load->parked, &op->next, op))
        continue;
}

/* Issues an operation that was claimed. A slot that the client's thread cannot issue is parked. */
static void issue(struct load *load, struct load_op *op) {
    enum felix_err err = load->issue(load, op);
    if (err == FELIX_OK)
        return;
    if (err == FELIX_WOULD_BLOCK && op->is_slot) {
        park(load, op);
        return;
    }
    count_end(op, err, felix_last_error());
    atomic_store(&load->stop, true);
    if (!op->is_slot)
        free(op);
}

static void slot_issue(struct load *load, struct load_op *op) {
    if (claim(load, op, clock_now_ns()))
        issue(load, op);
    else
        atomic_store_explicit(&load->stop, true, memory_order_relaxed);
}

static void end(struct load_op *op, enum felix_err err, const char *error_text) {
    struct load *load = op->load;
    count_end(op, err, error_text);
    if (op->is_slot)
        slot_issue(load, op);
    else
        free(op);
}

void load_done(struct load_op *op, enum felix_err err, const char *error_text) {
    uint64_t now_ns = clock_now_ns();
    if (err == FELIX_OK) {
        hist_record(&op->load->latency, now_ns - op->intended_ns);
        atomic_store_explicit(&op->load->last_done_ns, now_ns, memory_order_relaxed);
    }
    end(op, err, error_text);
}

void load_end(struct load_op *op, enum felix_err err, const char *error_text) {
    end(op, err, error_text);
}

bool load_on_main(const struct load *load) {
    return pthread_equal(pthread_self(), load->main_thread) != 0;
}

static void issue_parked(struct load *load) {
    struct load_op *op = atomic_exchange(&load->parked, NULL);
    while (op != NULL) {
        struct load_op *next = op->next;
        issue(load, op);
        op = next;
    }
}

static void run_closed(struct load *load) {
    load->slots_count = load->bench->concurrency;
    load->slots = xcalloc(load->slots_count, sizeof *load->slots);
    for (uint32_t i = 0; i < load->slots_count; i++) {
        load->slots[i] = (struct load_op){.load = load, .slot = i, .is_slot = true};
        slot_issue(load, &load->slots[i]);
    }
    while (!atomic_load(&load->stop) && !cli_interrupted && !time_is_up(load, clock_now_ns())) {
        cli_sleep_until(clock_now_ns() + WATCH_NS);
        issue_parked(load);
    }
    atomic_store(&load->stop, true);
}

static void run_open(struct load *load) {
    double interval_ns = 1e9 * (double)load->bench->batch / load->bench->rate;
    for (uint64_t n = 0; !atomic_load(&load->stop) && !cli_interrupted; n++) {
        uint64_t due_ns = load->start_ns + (uint64_t)((double)n * interval_ns);
        struct load_op *op = xcalloc(1, sizeof *op);
        op->load = load;
        if (!claim(load, op, due_ns)) {
            free(op);
            break;
        }
        if (clock_now_ns() < due_ns)
            cli_sleep_until(due_ns);
        issue(load, op);
    }
}

/* Waits until everything that was issued has ended, as long as something still ends. Whoever
 * interrupts wants this end too, and may interrupt again. */
static void wait_for_the_rest(struct load *load) {
    const struct timespec pause = {.tv_nsec = (long)NS_PER_MS / 2};
    uint64_t seen = 0, seen_ns = clock_now_ns();
    for (;;) {
        uint64_t ended = atomic_load_explicit(&load->ended, memory_order_acquire);
        uint64_t now_ns = clock_now_ns();
        if (ended == atomic_load(&load->issued))
            return;
        if (ended != seen)
            seen_ns = now_ns;
        else if (now_ns - seen_ns > load->bench->cli->timeout_ns)
            return;
        seen = ended;
        issue_parked(load);
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
    }
}

struct load_result load_run(struct load *load) {
    (void)prctl(PR_SET_TIMERSLACK, 1000ul);
    load->main_thread = pthread_self();
    load->start_ns = clock_now_ns();
    if (load->bench->rate > 0)
        run_open(load);
    else
        run_closed(load);
    wait_for_the_rest(load);
    struct load_result r = {
        .sent = atomic_load(&load->sent),
        .done = atomic_load(&load->done),
        .failed = atomic_load(&load->failed),
    };
    r.lost = r.sent - r.done - r.failed;
    uint64_t last_ns = atomic_load(&load->last_done_ns);
    r.elapsed_ns = last_ns > load->start_ns ? last_ns - load->start_ns : 0;
    return r;
}

void load_deinit(struct load *load) {
    free(load->slots);
    load->slots = NULL;
}

int load_verdict(const struct load *load, const struct load_result *result) {
    if (result->failed > 0) {
        char what[64];
        (void)snprintf(what, sizeof what, "%llu of %llu failed", (unsigned long long)result->failed,
                       (unsigned long long)result->sent);
        return cli_failed(what, (enum felix_err)atomic_load(&load->first_err),
                          load->first_error_text);
    }
    return bench_verdict(load->bench, result->lost);
}

int bench_verdict(const struct bench *bench, uint64_t lost) {
    if (cli_interrupted)
        return EXIT_INTERRUPTED;
    if (lost == 0)
        return EXIT_DONE;
    out_error("%llu are lost: nothing more came within %s", (unsigned long long)lost,
              out_duration(bench->cli->timeout_ns).text);
    return EXIT_TIMEOUT;
}
