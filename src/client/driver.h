/*
 * Who runs a client's turns: its background thread, or an application thread that waits.
 *
 * A thread that waits for an answer runs the turns itself, so that the answer is handed over
 * where its bytes arrive: nobody has to be woken. There is one driver at a time. While a caller
 * drives, the background thread does not watch the socket; when the caller leaves, it does again.
 * Who finds the place taken waits to be signalled.
 */
#ifndef CLIENT_DRIVER_H
#define CLIENT_DRIVER_H

#include "base/err.h"
#include "client/wait.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct felix_client;

enum driver_kind { DRIVER_NONE, DRIVER_BACKGROUND, DRIVER_CALLER };

struct driver {
    pthread_t thread;
    _Atomic uint32_t kind;    /* enum driver_kind: who runs turns at present */
    _Atomic uint32_t holds;   /* threads for which the client must stay; a flag that it ends */
    _Atomic uint64_t drives;  /* how often callers began to drive */
    _Atomic uint64_t last_ns; /* when the next turn is due at the latest, nap and all */
    _Atomic uint64_t wake_ns; /* when the background thread wakes by itself */
    uint64_t drives_seen;     /* by the background thread */
};

/** Start the background thread. FELIX_SYSTEM when the system refuses. */
enum felix_err driver_start(struct felix_client *client);
/** Wait until the background thread has ended, which io.stop makes it do. */
void driver_join(struct felix_client *client);

/** Does this thread run the client's turns at present (is this a callback)? Any thread. */
bool driver_is_thread(const struct felix_client *client);

/** Make whoever drives look at the inbox. Any thread; a system call only when it sleeps. A thread
 * between driver_expect and its wait wakes nobody: it is going to look itself. */
void driver_wake(struct felix_client *client);

/** This thread goes on to driver_wait or driver_until at once, after posting. */
void driver_expect(struct felix_client *client);
/** It does not after all; what it posted is seen to. */
void driver_expect_not(struct felix_client *client);

/**
 * Wait for the signal until the monotonic `deadline_ns`, driving if nobody else does. False when
 * the time was up. The client may be gone when this returns true: do not touch it.
 */
bool driver_wait(struct felix_client *client, struct waiter *waiter, uint64_t deadline_ns);

/** Run a few turns on this thread, as long as there is more to do at once, if nobody else drives:
 * after driver_expect and posting, for who has so much to send that waking another thread for it
 * would be a waste. What goes on arriving is the background thread's. */
void driver_serve(struct felix_client *client);

/** Keep the client from ending until driver_wait_held, which is a driver_wait and releases. By who
 * knows that it has not ended yet. */
void driver_hold(struct felix_client *client);
bool driver_wait_held(struct felix_client *client, struct waiter *waiter, uint64_t deadline_ns);

/**
 * Drive until `done(context)`, asked after each turn, or until `deadline_ns`: true. False, at once
 * or when the client closes, if this thread cannot drive: then it must wait otherwise.
 */
bool driver_until(struct felix_client *client, bool (*done)(void *), void *context,
                  uint64_t deadline_ns);

#endif
