/* latencydemo: makes the list of cases, runs one after the other, each with a new broker. */
#include "interrupt.h"
#include "latency_report.h"

#include "base/check.h"

#include <signal.h>
#include <stdlib.h>

/* Everything that one command line asks for. */
struct plan {
    struct latency_case *cases; /* owned */
    size_t count;
};

static struct plan make_plan(const struct latency_settings *s) {
    size_t most = s->payload_count * s->fanout_count;
    struct plan plan = {
        .cases = xcalloc(most > LATENCY_SWEEP_MAX ? most : LATENCY_SWEEP_MAX, sizeof *plan.cases)};
    switch (s->mode) {
    case MODE_ALL:
        plan.count = latency_plan_all(&s->base, s->fast, plan.cases);
        break;
    case MODE_MATRIX:
        for (size_t p = 0; p < s->payload_count; p++)
            for (size_t f = 0; f < s->fanout_count; f++) {
                struct latency_case *c = &plan.cases[plan.count++];
                *c = s->base;
                c->payload_bytes = s->payloads[p];
                c->fanout = s->fanouts[f];
            }
        break;
    case MODE_SMOKE:
        for (int dedicated = 0; dedicated <= 1; dedicated++) {
            struct latency_case *c = &plan.cases[plan.count++];
            *c = s->base;
            c->payload_bytes = 1024;
            c->fanout = 10;
            c->batch = 64;
            c->binary = false;
            c->dedicated = dedicated == 1;
        }
        break;
    case MODE_COMPARE_SHAPING:
        for (int shaping = 0; shaping <= 1; shaping++) {
            plan.cases[plan.count] = s->base;
            plan.cases[plan.count++].shaping = shaping == 1;
        }
        break;
    case MODE_SINGLE:
        plan.cases[plan.count++] = s->base;
        break;
    }
    return plan;
}

static int status_of(const struct latency_result *r) {
    if (r->err != FELIX_OK)
        return r->err == FELIX_NOT_FOUND ? EXIT_REFUSED : exit_code_of(r->err);
    return latency_result_good(r) ? EXIT_DONE : EXIT_NOTHING;
}

/* The first case that went wrong decides the exit code; the others run all the same. */
static int run_all(const struct latency_settings *s, const struct plan *plan) {
    int status = EXIT_DONE;
    for (size_t i = 0; i < plan->count && !interrupted(); i++) {
        struct latency_result result;
        latency_report_case(s, &plan->cases[i]);
        latency_run(s, &plan->cases[i], &result);
        latency_report_result(s, &plan->cases[i], &result);
        if (status == EXIT_DONE)
            status = status_of(&result);
        latency_result_deinit(&result);
    }
    return status;
}

int main(int argc, char **argv) {
    struct latency_settings settings;
    int status;
    out_program("latencydemo");
    (void)signal(SIGPIPE, SIG_IGN);
    if (!latency_settings_load(&settings, argc, argv, &status))
        return status;
    interrupt_catch();
    struct plan plan = make_plan(&settings);
    latency_report_begin(&settings, plan.count);
    status = run_all(&settings, &plan);
    latency_report_end(&settings);
    free(plan.cases);
    if (fflush(stdout) != 0 && status == EXIT_DONE && !out_reader_gone()) {
        out_error("cannot write the output: the disk is full or the device failed");
        status = EXIT_USAGE;
    }
    return status;
}
