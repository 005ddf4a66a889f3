/* How long the broker inside took for its stages during one measurement. The main thread's. */
#ifndef DEMOS_STAGES_H
#define DEMOS_STAGES_H

#include "base/text.h"
#include "target.h"

struct stages;

/** Start of the measurement. Returns owned; NULL when the broker is elsewhere or times nothing. */
struct stages *stages_begin(const struct target *target);

/** End of it: keeps what came between. Accepts NULL. */
void stages_end(struct stages *stages, const struct target *target);

/** Accepts NULL. */
void stages_free(struct stages *stages);

/** Append "broker_read p50=12 us p99=40 us p999=51 us broker_decode ...". */
void stages_line(const struct stages *stages, struct text *out);

/** Append a JSON object: {"read":{"count":..,"p50_us":..},..}. */
void stages_json(const struct stages *stages, struct text *out);

#endif
