/* The metrics page of a node: sums over its reactors. Called by the HTTP thread, which reads the
 * reactors' counters while they run; each counter has one writer and is never torn. */
#ifndef NODE_METRICS_H
#define NODE_METRICS_H

#include "base/text.h"
#include "node/reactor.h"

/** Append the Prometheus page to `out`. */
void metrics_render_node(const struct reactor *reactors, unsigned count, bool ready,
                         struct text *out);

#endif
