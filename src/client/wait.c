#include "client/wait.h"

#include <errno.h>
#include <linux/futex.h>
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

bool waiter_is_signalled(struct waiter *waiter) {
    return atomic_load_explicit(&waiter->state, memory_order_acquire) == WAITER_SIGNALLED;
}

void waiter_pause(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static bool spin(struct waiter *waiter, uint64_t until_ns) {
    do {
        for (int i = 0; i < SPINS_PER_CLOCK; i++) {
            if (waiter_is_signalled(waiter))
                return true;
            waiter_pause();
        }
    } while (clock_now_ns() < until_ns);
    return waiter_is_signalled(waiter);
}

bool waiter_wait(struct waiter *waiter, uint64_t deadline_ns, uint64_t spin_ns) {
    if (waiter_is_signalled(waiter))
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
        if (waiter_is_signalled(waiter))
            return true;
        if (rc != 0 && errno == ETIMEDOUT)
            return false;
    }
}
