/* What latencydemo prints. Text for people and for the parsers of the performance scripts, line by
 * line as those expect it; or one JSON document, case by case. The main thread's. */
#ifndef DEMOS_LATENCY_REPORT_H
#define DEMOS_LATENCY_REPORT_H

#include "latency_run.h"

/** Before the first case; `cases` is how many come. */
void latency_report_begin(const struct latency_settings *settings, size_t cases);

/** Before a case runs: what it is (text only). */
void latency_report_case(const struct latency_settings *settings, const struct latency_case *c);

/** After it ran. */
void latency_report_result(const struct latency_settings *settings, const struct latency_case *c,
                           const struct latency_result *r);

void latency_report_end(const struct latency_settings *settings);

#endif
