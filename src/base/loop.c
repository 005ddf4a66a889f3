/*
 * Sleeping without losing a wake-up: the owner stores ASLEEP, then looks at its queues once more
 * (has_work), then blocks. A waker first queues, then exchanges the state for AWAKE; only if it
 * found ASLEEP does it pay the system call. Both sides use sequentially consistent operations:
 * either the owner sees the queued work or the waker sees ASLEEP.
 */
#include "base/loop.h"

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"

enum { LOOP_AWAKE, LOOP_ASLEEP };

#define EVENTS_PER_WAIT 16
#define LOOKS_PER_YIELD 8

/* A look takes less than a microsecond; who comes back after this was not running. */
#define PREEMPTED_NS (40 * NS_PER_US)
#define PAUSE_MIN_NS (50 * NS_PER_US)
#define PAUSE_MAX_NS (128 * NS_PER_MS)
/* So many spins in vain, and the next waits go without; ever more of them. */
#define MISSES_ALLOWED 4
#define SKIPS_MAX 64

enum felix_err loop_init(struct loop *loop, uint64_t spin_ns) {
    *loop = (struct loop){.spin_ns = spin_ns};
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (loop->epoll_fd < 0)
        return FELIX_SYSTEM;
    loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (loop->wake_fd < 0) {
        (void)close(loop->epoll_fd);
        return FELIX_SYSTEM;
    }
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->wake_fd, &event) != 0) {
        loop_deinit(loop);
        return FELIX_SYSTEM;
    }
    return FELIX_OK;
}

void loop_deinit(struct loop *loop) {
    (void)close(loop->wake_fd);
    (void)close(loop->epoll_fd);
}

enum felix_err loop_add(struct loop *loop, struct loop_source *source, uint32_t epoll_events) {
    struct epoll_event event = {.events = epoll_events, .data.ptr = source};
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, source->fd, &event) != 0)
        return FELIX_SYSTEM;
    return FELIX_OK;
}

void loop_change(struct loop *loop, struct loop_source *source, uint32_t epoll_events) {
    struct epoll_event event = {.events = epoll_events, .data.ptr = source};
    int rc = epoll_ctl(loop->epoll_fd, EPOLL_CTL_MOD, source->fd, &event);
    INVARIANT(rc == 0);
}

void loop_remove(struct loop *loop, struct loop_source *source) {
    (void)epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
}

void loop_wake(struct loop *loop) {
    if (atomic_exchange(&loop->state, LOOP_AWAKE) != LOOP_ASLEEP)
        return;
    uint64_t one = 1;
    ssize_t written = write(loop->wake_fd, &one, sizeof one);
    INVARIANT(written == (ssize_t)sizeof one || errno == EAGAIN);
}

/* Whole milliseconds, rounded up: a timer may be late, never early. */
static int milliseconds_of(const struct timespec *timeout) {
    if (timeout == NULL)
        return -1;
    if (timeout->tv_sec >= INT_MAX / 1000 - 1)
        return INT_MAX;
    long ms = (timeout->tv_nsec + 999999) / 1000000;
    return (int)(timeout->tv_sec * 1000 + ms);
}

/* Nanoseconds where the system knows them: not under valgrind or some system call filters. */
static int wait_events(int fd, struct epoll_event *events, const struct timespec *timeout) {
    static _Atomic bool milliseconds_only;
    if (!atomic_load_explicit(&milliseconds_only, memory_order_relaxed)) {
        int count = epoll_pwait2(fd, events, EVENTS_PER_WAIT, timeout, NULL);
        if (count >= 0 || (errno != ENOSYS && errno != EPERM))
            return count;
        atomic_store_explicit(&milliseconds_only, true, memory_order_relaxed);
    }
    return epoll_wait(fd, events, EVENTS_PER_WAIT, milliseconds_of(timeout));
}

static int dispatch(struct loop *loop, const struct timespec *timeout) {
    struct epoll_event events[EVENTS_PER_WAIT];
    int count = wait_events(loop->epoll_fd, events, timeout);
    for (int i = 0; i < count; i++) {
        struct loop_source *source = events[i].data.ptr;
        if (source != NULL) {
            source->on_ready(source, events[i].events);
            continue;
        }
        uint64_t ignored;
        ssize_t got = read(loop->wake_fd, &ignored, sizeof ignored);
        INVARIANT(got == (ssize_t)sizeof ignored || errno == EAGAIN);
    }
    return count;
}

static struct timespec timespec_of(uint64_t ns) {
    return (struct timespec){.tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S)};
}

static uint64_t spin_time_ns(const struct loop *loop) {
    return loop->spin.longer ? SPIN_LONGER * loop->spin_ns : loop->spin_ns;
}

static bool may_spin(struct loop *loop, uint64_t now_ns) {
    struct loop_spin *spin = &loop->spin;
    if (now_ns - loop->last_active_ns >= spin_time_ns(loop) || now_ns < spin->paused_ns)
        return false;
    if (spin->skips == 0)
        return true;
    spin->skips--;
    return false;
}

/* Something came `idle_ns` after the last work. */
static void note_arrival(struct loop *loop, uint64_t idle_ns) {
    struct loop_spin *spin = &loop->spin;
    spin->longer = idle_ns >= loop->spin_ns && idle_ns < SPIN_LONGER * loop->spin_ns;
    if (idle_ns < SPIN_LONGER * loop->spin_ns)
        spin->misses = spin->skips = 0;
}

static void spin_miss(struct loop_spin *spin) {
    if (++spin->misses < MISSES_ALLOWED)
        return;
    uint32_t excess = spin->misses - MISSES_ALLOWED;
    spin->skips = excess < 6 ? (uint32_t)1 << excess : SKIPS_MAX;
}

static void spin_preempted(struct loop_spin *spin, uint64_t now_ns) {
    spin->pause_ns = spin->pause_ns * 2 < PAUSE_MAX_NS ? spin->pause_ns * 2 : PAUSE_MAX_NS;
    if (spin->pause_ns < PAUSE_MIN_NS)
        spin->pause_ns = PAUSE_MIN_NS;
    spin->paused_ns = now_ns + spin->pause_ns;
}

/* Look again until the spin time is over; whether something was found. */
static bool spin(struct loop *loop, uint64_t *now_ns, uint64_t deadline_ns,
                 bool (*has_work)(void *), void *context) {
    static const struct timespec no_wait = {0};
    unsigned looks = 0;
    while (*now_ns < deadline_ns && *now_ns - loop->last_active_ns < spin_time_ns(loop)) {
        uint64_t before_ns = *now_ns;
        if (dispatch(loop, &no_wait) > 0 || (has_work != NULL && has_work(context))) {
            note_arrival(loop, *now_ns - loop->last_active_ns);
            loop->spin.pause_ns /= 2;
            return true;
        }
        /* Whoever else wants this processor gets it now, not at the end of our slice. */
        if (++looks % LOOKS_PER_YIELD == 0)
            (void)sched_yield();
        *now_ns = clock_now_ns();
        if (*now_ns - before_ns > PREEMPTED_NS) {
            spin_preempted(&loop->spin, *now_ns);
            return false;
        }
    }
    spin_miss(&loop->spin);
    return false;
}

void loop_wait(struct loop *loop, uint64_t deadline_ns, bool (*has_work)(void *), void *context) {
    static const struct timespec no_wait = {0};
    if (has_work != NULL && has_work(context))
        return;
    uint64_t now_ns = clock_now_ns();
    if (may_spin(loop, now_ns) && spin(loop, &now_ns, deadline_ns, has_work, context))
        return;
    if (now_ns >= deadline_ns) {
        (void)dispatch(loop, &no_wait);
        return;
    }

    atomic_store(&loop->state, LOOP_ASLEEP);
    if (has_work == NULL || !has_work(context)) {
        struct timespec timeout = timespec_of(deadline_ns - now_ns);
        int count = dispatch(loop, deadline_ns == LOOP_NO_DEADLINE ? NULL : &timeout);
        if (count > 0 && loop->spin_ns > 0)
            note_arrival(loop, clock_now_ns() - loop->last_active_ns);
        loop->wakeups++;
    }
    atomic_store(&loop->state, LOOP_AWAKE);
}
