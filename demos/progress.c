#include "progress.h"

#include "base/clock.h"
#include "cli/out.h"

#include <stdio.h>
#include <string.h>

#define BAR_CELLS 30u
#define PERIOD_NS (100 * NS_PER_MS)

void progress_start(struct progress *progress, const char *what, bool wanted) {
    *progress = (struct progress){.shown = wanted && out_errors_are_terminal()};
    (void)snprintf(progress->what, sizeof progress->what, "%s", what);
    progress->next_ns = clock_now_ns() + PERIOD_NS;
}

void progress_draw(struct progress *progress, uint64_t now_ns, uint64_t done, uint64_t total) {
    char bar[BAR_CELLS + 1];
    if (total == 0 || done > total)
        done = total;
    double part = total == 0 ? 1.0 : (double)done / (double)total;
    size_t filled = (size_t)(part * BAR_CELLS);
    memset(bar, ' ', BAR_CELLS);
    memset(bar, '#', filled);
    bar[BAR_CELLS] = '\0';
    (void)fprintf(stderr, "\r  %-12s [%s] %3.0f %% (%s of %s)\033[K", progress->what, bar,
                  part * 100.0, out_count(done).text, out_count(total).text);
    (void)fflush(stderr);
    progress->drawn = true;
    progress->next_ns = now_ns + PERIOD_NS;
}

void progress_end(struct progress *progress) {
    if (progress->drawn)
        (void)fprintf(stderr, "\r\033[K");
    progress->drawn = false;
    progress->shown = false;
}
