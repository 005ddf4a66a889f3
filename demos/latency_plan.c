#include "latency_plan.h"

#define MIB (1ull << 20)
#define BY_VOLUME_BYTES (192 * MIB)
#define FLOOR_BYTES (136 * MIB)
#define DELIVERIES_MAX 1500000ull
#define MESSAGES_MIN 5000ull
#define MESSAGES_MAX_EMPTY 200000ull

static uint64_t divide_up(uint64_t n, uint64_t by) {
    return (n + by - 1) / by;
}

static uint64_t least(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

static uint64_t most(uint64_t a, uint64_t b) {
    return a > b ? a : b;
}

uint64_t latency_sweep_total(uint64_t payload_bytes, uint64_t fanout) {
    uint64_t by_time = DELIVERIES_MAX / fanout;
    if (payload_bytes == 0)
        return least(most(by_time, MESSAGES_MIN), MESSAGES_MAX_EMPTY);
    uint64_t wanted = least(divide_up(BY_VOLUME_BYTES, payload_bytes), by_time);
    uint64_t floor = divide_up(FLOOR_BYTES, payload_bytes);
    return most(wanted, floor * fanout <= DELIVERIES_MAX ? floor : MESSAGES_MIN);
}

struct plan {
    struct latency_case *cases;
    size_t count;
};

static struct latency_case *add(struct plan *plan, const struct latency_case *base) {
    struct latency_case *c = &plan->cases[plan->count++];
    *c = *base;
    c->warmup = 200;
    c->total = 2000;
    return c;
}

static void add_latency(struct plan *plan, const struct latency_case *base, uint64_t payload_bytes,
                        uint64_t fanout) {
    struct latency_case *c = add(plan, base);
    c->payload_bytes = payload_bytes;
    c->fanout = fanout;
    c->batch = 1;
    c->counted = true;
}

static void add_throughput(struct plan *plan, const struct latency_case *base,
                           uint64_t payload_bytes, uint64_t fanout, bool binary) {
    struct latency_case *c = add(plan, base);
    c->total = latency_sweep_total(payload_bytes, fanout);
    c->payload_bytes = payload_bytes;
    c->fanout = fanout;
    c->batch = 64;
    c->binary = binary;
    c->counted = true;
}

static void add_pool(struct plan *plan, const struct latency_case *base, uint64_t payload_bytes,
                     uint64_t conns, uint64_t streams) {
    struct latency_case *c = add(plan, base);
    c->total = latency_sweep_total(payload_bytes, 1);
    c->payload_bytes = payload_bytes;
    c->fanout = 1;
    c->batch = 64;
    c->pub_conns = conns;
    c->pub_streams_per_conn = streams;
}

size_t latency_plan_all(const struct latency_case *base, bool fast,
                        struct latency_case ret[LATENCY_SWEEP_MAX]) {
    static const uint64_t latency_payloads[] = {0, 256, 1024};
    static const uint64_t throughput_payloads[] = {0, 1024, 4096};
    static const uint64_t fanouts[] = {1, 10};
    struct plan plan = {.cases = ret};
    size_t payload_count = fast ? 1 : 3;
    size_t fanout_count = fast ? 1 : 2;

    for (size_t p = 0; p < payload_count; p++)
        for (size_t f = 0; f < fanout_count; f++)
            add_latency(&plan, base, latency_payloads[p], fanouts[f]);
    for (size_t p = 0; p < payload_count; p++)
        for (size_t f = 0; f < fanout_count; f++)
            for (int binary = base->binary ? 1 : 0; binary <= 1; binary++)
                add_throughput(&plan, base, throughput_payloads[p], fanouts[f], binary == 1);
    add_pool(&plan, base, fast ? 0 : 256, 1, 1);
    add_pool(&plan, base, fast ? 0 : 256, 4, 2);
    for (size_t i = 0; fast && i < plan.count; i++) {
        ret[i].warmup = 1;
        ret[i].total = 5;
    }
    return plan.count;
}
