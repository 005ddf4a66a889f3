/*
 * One thread waits, another one signals: a flag to spin on for a moment and a futex to sleep on.
 *
 * A waiter may lie on the waiting thread's stack: the signalling thread does not touch it after
 * the waiting one can have seen the signal (a late wake-up of the address is harmless).
 */
#ifndef CLIENT_WAIT_H
#define CLIENT_WAIT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct waiter {
    _Atomic uint32_t state;
};

/** Ready to wait for the next signal. By the waiting thread, while nobody can signal, or under
 * the lock that signalling threads take. */
void waiter_reset(struct waiter *waiter);

/** Let the waiting thread go on. A system call only when it sleeps. Any thread. */
void waiter_signal(struct waiter *waiter);

bool waiter_is_signalled(struct waiter *waiter);

/** A moment for the processor's other thread, between two looks. */
void waiter_pause(void);

/** Wait for the signal until the monotonic `deadline_ns`, spinning at most `spin_ns` first.
 * False when the time was up. */
bool waiter_wait(struct waiter *waiter, uint64_t deadline_ns, uint64_t spin_ns);

#endif
