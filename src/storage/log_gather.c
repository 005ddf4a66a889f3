/*
 * Publishers that wait for their answer before they publish again come back one after the other.
 * If the first one's flush began at once, the rest would wait for its end and be flushed then, and
 * each publish would take two flushes. So after a flush, the next one begins when as many records
 * have come as the last one answered, or half as much time has gone by as that took, whatever is
 * first. Where waiting does not pay, it is given up for a while.
 */
#include "storage/stream_log.h"

#include "base/clock.h"

/* So many waits in vain in a row, and the next flushes go without; ever more of them. */
#define MISSES_ALLOWED 4u
#define SKIPS_DOUBLED_MAX 6u

void log_gather_count(struct stream_log *log, uint64_t records) {
    uint64_t appended = atomic_fetch_add(&log->appended, records) + records;
    uint64_t awaited = atomic_load(&log->gather_until);
    if (awaited != 0 && appended >= awaited && atomic_exchange(&log->gather_until, 0) != 0)
        log_pool_wake_word(&log->gather_wakes);
}

/* Wait until `appended` comes to `target`; how long that took. */
static uint64_t wait_for(struct stream_log *log, uint64_t target, uint64_t limit_ns) {
    uint64_t begin_ns = clock_now_ns(), waited_ns = 0;
    uint32_t seen = atomic_load(&log->gather_wakes);
    atomic_store(&log->gather_until, target);
    while (waited_ns < limit_ns && atomic_load(&log->appended) < target) {
        log_pool_wait_word(&log->gather_wakes, seen, limit_ns - waited_ns);
        waited_ns = clock_now_ns() - begin_ns;
    }
    atomic_store(&log->gather_until, 0);
    return waited_ns;
}

void log_gather(struct stream_log *log) {
    struct log_flushed *last = &log->flushed;
    uint64_t target = last->appended + last->records;
    uint64_t present = atomic_load(&log->appended);
    if (present >= target)
        return; /* as many as there were: a lone publisher never waits */
    uint64_t window_ns = last->took_ns / 2, max_ns = log->service->settings.gather_ns_max;
    window_ns = window_ns < max_ns ? window_ns : max_ns;
    uint64_t now_ns = clock_now_ns();
    if (now_ns >= last->ended_ns + window_ns)
        return;
    if (log->gather_skips > 0) {
        log->gather_skips--;
        return;
    }
    uint64_t delayed = atomic_load(&log->written) - atomic_load(&log->durable) + present -
                       atomic_load(&log->consumed);
    uint64_t waited_ns = wait_for(log, target, last->ended_ns + window_ns - now_ns);
    /* Those who came are served a flush earlier; those who waited, later by the wait. More is asked
     * for than what would have come in that time anyway. */
    uint64_t came = atomic_load(&log->appended) - present;
    if (2 * came * last->took_ns >= 3 * delayed * waited_ns) {
        log->gather_misses = 0;
        return;
    }
    if (log->gather_misses < MISSES_ALLOWED + SKIPS_DOUBLED_MAX)
        log->gather_misses++;
    if (log->gather_misses >= MISSES_ALLOWED)
        log->gather_skips = 1u << (log->gather_misses - MISSES_ALLOWED);
}
