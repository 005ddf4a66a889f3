#include "client/wait.h"

#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"

enum { WAITER_PENDING, WAITER_ASLEEP, WAITER_SIGNALLED };

#define SPINS_PER_CLOCK 16

void waiter_reset(struct waiter *waiter) {
    atomic_store_explicit(&waiter->state, WAITER_PENDING, memory_order_relaxed);
}

void waiter_signal(struct waiter *waiter) {
    /* Release: what was done before is seen by the thread that waited. */
    if (atomic_exchange_explicit(&waiter->state, WAITER_SIGNALLED, memory_order_acq_rel) ==
        WAITER_ASLEEP)
        (void)syscall(SYS_futex, &waiter->state, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static bool is_signalled(struct waiter *waiter) {
    return atomic_load_explicit(&waiter->state, memory_order_acquire) == WAITER_SIGNALLED;
}

static void pause_briefly(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static bool spin(struct waiter *waiter, uint64_t until_ns) {
    do {
        for (int i = 0; i < SPINS_PER_CLOCK; i++) {
            if (is_signalled(waiter))
                return true;
            pause_briefly();
        }
    } while (clock_now_ns() < until_ns);
    return is_signalled(waiter);
}

bool waiter_wait(struct waiter *waiter, uint64_t deadline_ns, uint64_t spin_ns) {
    if (is_signalled(waiter))
        return true;
    if (spin_ns > 0) {
        uint64_t until_ns = clock_now_ns() + spin_ns;
        if (spin(waiter, until_ns < deadline_ns ? until_ns : deadline_ns))
            return true;
    }
    for (;;) {
        uint32_t expected = WAITER_PENDING;
        if (!atomic_compare_exchange_strong_explicit(&waiter->state, &expected, WAITER_ASLEEP,
                                                     memory_order_acquire, memory_order_acquire) &&
            expected == WAITER_SIGNALLED)
            return true;
        struct timespec until = {.tv_sec = (time_t)(deadline_ns / NS_PER_S),
                                 .tv_nsec = (long)(deadline_ns % NS_PER_S)};
        /* FUTEX_WAIT_BITSET takes an absolute time of the monotonic clock. */
        long rc = syscall(SYS_futex, &waiter->state, FUTEX_WAIT_BITSET_PRIVATE, WAITER_ASLEEP,
                          deadline_ns == UINT64_MAX ? NULL : &until, NULL, FUTEX_BITSET_MATCH_ANY);
        if (is_signalled(waiter))
            return true;
        if (rc != 0 && errno == ETIMEDOUT)
            return false;
    }
}

bool wait_may_spin(bool peer_on_host) {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return false;
    return CPU_COUNT(&set) > (peer_on_host ? 3 : 1);
}
