#include "stages.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/hist.h"
#include "samples.h"

#include <stdlib.h>

struct stages {
    struct hist before[STAGE_COUNT];
    struct hist during[STAGE_COUNT];
};

struct stages *stages_begin(const struct target *target) {
    if (target->node == NULL || target->config.disable_timings)
        return NULL;
    struct stages *stages = xcalloc(1, sizeof *stages);
    for (unsigned i = 0; i < STAGE_COUNT; i++)
        node_stage_snapshot(target->node, (enum stage)i, &stages->before[i]);
    return stages;
}

void stages_end(struct stages *stages, const struct target *target) {
    if (stages == NULL)
        return;
    for (unsigned i = 0; i < STAGE_COUNT; i++) {
        node_stage_snapshot(target->node, (enum stage)i, &stages->during[i]);
        hist_subtract(&stages->during[i], &stages->before[i]);
    }
}

void stages_free(struct stages *stages) {
    free(stages);
}

/* Most stages take less than a microsecond: whole ones would all read 0. */
static struct duration_text stage_duration(uint64_t ns) {
    struct duration_text d;
    if (ns >= 10 * NS_PER_US)
        return demo_duration(ns);
    (void)snprintf(d.text, sizeof d.text, "%.3f us", (double)ns / 1e3);
    return d;
}

void stages_line(const struct stages *stages, struct text *out) {
    for (unsigned i = 0; i < STAGE_COUNT; i++) {
        const struct hist *hist = &stages->during[i];
        text_printf(out, "%sbroker_%s", i == 0 ? "" : " ", node_stage_name((enum stage)i));
        if (hist_count(hist) == 0) {
            text_add(out, " p50=n/a p99=n/a p999=n/a");
            continue;
        }
        text_printf(out, " p50=%s p99=%s p999=%s",
                    stage_duration(hist_percentile_ns(hist, 50)).text,
                    stage_duration(hist_percentile_ns(hist, 99)).text,
                    stage_duration(hist_percentile_ns(hist, 99.9)).text);
    }
}

void stages_json(const struct stages *stages, struct text *out) {
    text_char(out, '{');
    for (unsigned i = 0; i < STAGE_COUNT; i++) {
        const struct hist *hist = &stages->during[i];
        text_printf(
            out, "%s\"%s\":{\"count\":%llu,\"p50_us\":%.3f,\"p99_us\":%.3f,\"p999_us\":%.3f}",
            i == 0 ? "" : ",", node_stage_name((enum stage)i), (unsigned long long)hist_count(hist),
            (double)hist_percentile_ns(hist, 50) / 1e3, (double)hist_percentile_ns(hist, 99) / 1e3,
            (double)hist_percentile_ns(hist, 99.9) / 1e3);
    }
    text_char(out, '}');
}
