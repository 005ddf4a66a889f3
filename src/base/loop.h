/*
 * The event loop of one thread: epoll, a wake-up from other threads, a deadline, a bounded spin.
 *
 * The owner runs `loop_wait` and then does its work; nothing here calls a timer or a queue. All
 * functions belong to the owning thread but loop_wake.
 */
#ifndef BASE_LOOP_H
#define BASE_LOOP_H

#include "base/err.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define LOOP_NO_DEADLINE UINT64_MAX

/* Something with a descriptor. Embedded in its owner, who keeps it alive while it is added. */
struct loop_source {
    int fd;
    void (*on_ready)(struct loop_source *source, uint32_t epoll_events);
};

/* Whether to look again before blocking: not where it rarely finds anything, nor where other
 * threads want the processor. SPIN_LONGER times as long where sleeping was a little too early: two
 * sides that wait for one another would each find the other asleep for ever. */
#define SPIN_LONGER 4u

struct loop_spin {
    bool longer;        /* the last wait ended within SPIN_LONGER times spin_ns */
    uint32_t misses;    /* spins in a row that found nothing */
    uint32_t skips;     /* waits that still go without one */
    uint64_t paused_ns; /* until then nobody spins, because we were preempted while we did */
    uint64_t pause_ns;  /* how long, doubled each time */
};

struct loop {
    int epoll_fd;
    int wake_fd;
    uint64_t spin_ns;        /* how long to look again before blocking; 0: never */
    uint64_t last_active_ns; /* when work was last done */
    struct loop_spin spin;
    _Atomic uint32_t state; /* awake, asleep, or woken: see loop.c */
    uint64_t wakeups;       /* returns from a blocking wait */
};

/** Opens the descriptors. FELIX_SYSTEM when the system refuses. */
enum felix_err loop_init(struct loop *loop, uint64_t spin_ns);
void loop_deinit(struct loop *loop);

/** Watch `source->fd` for `epoll_events`; loop_change alters the set. Borrows until removed. */
enum felix_err loop_add(struct loop *loop, struct loop_source *source, uint32_t epoll_events);
void loop_change(struct loop *loop, struct loop_source *source, uint32_t epoll_events);
void loop_remove(struct loop *loop, struct loop_source *source);

/** Make a sleeping or soon sleeping loop return from loop_wait. Any thread; a system call only
 * when the loop is asleep. Whoever queues work first makes it visible, then calls this. */
void loop_wake(struct loop *loop);

/** The owner did work at `now_ns`: the spin starts anew. */
static inline void loop_mark_active(struct loop *loop, uint64_t now_ns) {
    loop->last_active_ns = now_ns;
}

/**
 * Dispatch what is ready; when nothing is, spin for the rest of the spin time, where that has
 * helped lately, and then block until something is ready, loop_wake is called or the monotonic
 * clock reaches `deadline_ns`. `has_work` (may be NULL) is asked right before blocking, after the
 * loop has declared itself asleep: true keeps it from blocking, so that a wake-up between two looks
 * is never lost.
 */
void loop_wait(struct loop *loop, uint64_t deadline_ns, bool (*has_work)(void *), void *context);

#endif
