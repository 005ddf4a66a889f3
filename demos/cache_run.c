#include "cache_run.h"

#include "base/check.h"
#include "base/clock.h"
#include "interrupt.h"

#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VALUES_BYTES_MAX ((size_t)64 << 20)
#define WAIT_SLICE_NS (100 * NS_PER_MS)

struct load;

/* One of the operations in flight. */
struct slot {
    struct load *load;
    uint64_t index; /* of its operation */
    uint64_t start_ns;
};

/* Until the client's thread runs the first operation the main thread owns all of it, afterwards
 * the client's thread does. */
struct load {
    const struct cache_settings *settings;
    const struct cache_phase *phase;
    const char *space;
    felix_client *client;
    struct cache_phase_result *result;
    struct cache_values values;
    struct slot *slots;
    uint64_t issued;
    _Atomic uint64_t finished;
    bool stop; /* after a failure */
    uint64_t in_flight;
    uint8_t *expected; /* room for a value to compare with */
    uint64_t end_ns;
    _Atomic bool ended; /* what comes with `over`, in words that every tool understands */
    sem_t over;
};

void cache_value_fill(uint8_t *out, size_t len, uint64_t key_index, uint64_t op_index) {
    uint64_t state = len ^ (key_index << 32) ^ op_index ^ 0x9e3779b97f4a7c15u;
    for (size_t i = 0; i < len; i++) {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state *= 0x2545f4914f6cdd1du;
        out[i] = (uint8_t)state;
    }
}

static struct cache_values make_values(const struct load *load) {
    const struct cache_phase *phase = load->phase;
    struct cache_values values = {.len = phase->payload_bytes, .count = phase->count};
    if (phase->op != CACHE_PUT || values.len == 0)
        return values;
    if (values.count > VALUES_BYTES_MAX / values.len)
        values.count = VALUES_BYTES_MAX / values.len;
    values.bytes = xcalloc(values.count, values.len);
    for (size_t i = 0; i < values.count; i++)
        cache_value_fill(values.bytes + i * values.len, values.len, i % load->settings->keys, i);
    return values;
}

static void fail(struct load *load, enum felix_err err, const char *text) {
    struct cache_phase_result *r = load->result;
    if (r->err == FELIX_OK) {
        r->err = err;
        (void)snprintf(r->error, sizeof r->error, "%s", text);
    }
    load->stop = true;
}

static void on_answer(void *context, enum felix_err err, const char *error_text, bool found,
                      struct felix_bytes value);

static enum felix_err issue(struct slot *slot) {
    struct load *load = slot->load;
    const struct cache_phase *phase = load->phase;
    char key[64];
    (void)snprintf(key, sizeof key, "%s%llu-%llu", phase->prefix,
                   (unsigned long long)phase->payload_bytes,
                   (unsigned long long)(slot->index % load->settings->keys));
    slot->start_ns = clock_now_ns();
    if (phase->op != CACHE_PUT)
        return felix_cache_get_async(load->client, load->space, CACHE_NAME, key, on_answer, slot);
    struct felix_bytes value = {.len = load->values.len};
    if (value.len > 0)
        value.data = load->values.bytes + slot->index % load->values.count * load->values.len;
    return felix_cache_put_async(load->client, load->space, CACHE_NAME, key, value,
                                 load->settings->ttl_ms, on_answer, slot);
}

/* The slot's next operation, or one less in flight; the last one ends the phase. */
static void go_on(struct slot *slot) {
    struct load *load = slot->load;
    if (load->issued < load->phase->count && !load->stop && !interrupted()) {
        slot->index = load->issued++;
        enum felix_err err = issue(slot);
        if (err == FELIX_OK)
            return;
        fail(load, err, felix_last_error());
    }
    if (--load->in_flight == 0) {
        load->end_ns = clock_now_ns();
        atomic_store_explicit(&load->ended, true, memory_order_release);
        (void)sem_post(&load->over);
    }
}

static void check_hit(struct load *load, const struct slot *slot, struct felix_bytes value) {
    uint64_t key_index = slot->index % load->settings->keys;
    size_t len = load->phase->payload_bytes;
    cache_value_fill(load->expected, len, key_index, key_index);
    if (value.len != len || (len > 0 && memcmp(value.data, load->expected, len) != 0))
        load->result->wrong++;
}

static void on_answer(void *context, enum felix_err err, const char *error_text, bool found,
                      struct felix_bytes value) {
    struct slot *slot = context;
    struct load *load = slot->load;
    if (err == FELIX_NOT_FOUND && load->phase->op != CACHE_PUT) {
        err = FELIX_OK;
        found = false;
    }
    if (err != FELIX_OK)
        fail(load, err, error_text);
    else if (load->phase->op != CACHE_PUT && !found)
        load->result->misses++;
    else if (load->phase->validate)
        check_hit(load, slot, value);
    samples_add(&load->result->samples, clock_now_ns() - slot->start_ns);
    (void)atomic_fetch_add_explicit(&load->finished, 1, memory_order_relaxed);
    go_on(slot);
}

/* The first operations are issued from the client's thread, like all
 * others, so that nothing here needs a lock. */
static void on_kick(void *context, enum felix_err err, const char *error_text, bool found,
                    struct felix_bytes value) {
    struct load *load = context;
    uint64_t count = load->phase->concurrency;
    if (count > load->phase->count)
        count = load->phase->count;
    load->in_flight = count;
    load->result->elapsed_ns = clock_now_ns();
    if (err != FELIX_OK && err != FELIX_NOT_FOUND)
        fail(load, err, error_text);
    for (uint64_t i = 0; i < count; i++) {
        load->slots[i].load = load;
        go_on(&load->slots[i]);
    }
}

static void await_end(struct load *load, struct progress *progress) {
    for (;;) {
        uint64_t until_ns = clock_now_ns() + WAIT_SLICE_NS;
        struct timespec until = {.tv_sec = (time_t)(until_ns / NS_PER_S),
                                 .tv_nsec = (long)(until_ns % NS_PER_S)};
        if (sem_clockwait(&load->over, CLOCK_MONOTONIC, &until) == 0) {
            INVARIANT(atomic_load_explicit(&load->ended, memory_order_acquire));
            return;
        }
        uint64_t now_ns = clock_now_ns();
        if (progress_due(progress, now_ns))
            progress_draw(progress, now_ns,
                          atomic_load_explicit(&load->finished, memory_order_relaxed),
                          load->phase->count);
    }
}

void cache_phase_run(const struct cache_settings *settings, felix_client *client, const char *space,
                     const struct cache_phase *phase, struct progress *progress,
                     struct cache_phase_result *ret) {
    struct load load = {
        .settings = settings, .phase = phase, .space = space, .client = client, .result = ret};
    *ret = (struct cache_phase_result){.err = FELIX_OK};
    if (phase->count == 0)
        return;
    (void)sem_init(&load.over, 0, 0);
    samples_reset(&ret->samples, phase->count);
    load.values = make_values(&load);
    load.slots = xcalloc(phase->concurrency, sizeof *load.slots);
    load.expected = xmalloc(phase->payload_bytes + 1);
    enum felix_err err = felix_cache_get_async(client, space, CACHE_NAME, "kick", on_kick, &load);
    if (err != FELIX_OK)
        fail(&load, err, felix_last_error());
    else
        await_end(&load, progress);
    ret->elapsed_ns = load.end_ns - ret->elapsed_ns;
    samples_sort(&ret->samples);
    (void)sem_destroy(&load.over);
    free(load.values.bytes);
    free(load.slots);
    free(load.expected);
}
