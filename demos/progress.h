/*
 * A bar on the terminal for runs that take a while: on standard error, and only when that is a
 * terminal. Drawn by the thread that works, ten times a second at most, so that it costs a
 * comparison otherwise.
 */
#ifndef DEMOS_PROGRESS_H
#define DEMOS_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
    bool shown; /* is there a terminal? */
    bool drawn; /* is there something to wipe? */
    uint64_t next_ns;
    char what[32];
};

/** Starts a bar with this label; `wanted` false keeps it away. */
void progress_start(struct progress *progress, const char *what, bool wanted);

/** Is it time to draw again? */
static inline bool progress_due(const struct progress *progress, uint64_t now_ns) {
    return progress->shown && now_ns >= progress->next_ns;
}

void progress_draw(struct progress *progress, uint64_t now_ns, uint64_t done, uint64_t total);

/** Wipes the bar. */
void progress_end(struct progress *progress);

#endif
