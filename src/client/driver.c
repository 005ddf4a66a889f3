/*
 * Whose turn it is, is one word, exchanged by compare and swap. It is given up after every turn of
 * the background thread and kept by a caller until it has what it waited for.
 *
 * No wake-up is lost. Whoever posts first pushes, then reads who drives; a driver first gives up
 * its place (or declares itself asleep), then looks at the inbox. All of this is sequentially
 * consistent: one of the two sees the other.
 *
 * A caller leaves timers behind, mostly of acknowledgements that may wait. To wake the background
 * thread for each would cost more than the call; so it wakes by itself NAP_NS later while callers
 * come and go, and is woken only where that would be later than due. While one caller drives all
 * the time it sleeps without a limit.
 */
#include "client/driver.h"

#include <linux/futex.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "client/client.h"

#define NAP_NS (2 * NS_PER_MS) /* well below the 25 ms that a peer waits for acknowledgements */
#define TRIES_PER_CLOCK 64
#define SERVE_TURNS_MAX 16 /* the first sends, as far as the network takes it at once */
#define HOLDS_ENDING 0x80000000u

/* The clients whose turns this thread runs, innermost first: a callback of one may wait for an
 * answer of another. */
struct driven {
    const struct felix_client *client;
    struct driven *outer;
};

static _Thread_local struct driven *thread_driven;
static _Thread_local const struct felix_client *thread_expects;

static void push_driven(struct driven *driven, const struct felix_client *client) {
    *driven = (struct driven){.client = client, .outer = thread_driven};
    thread_driven = driven;
}

static void pop_driven(void) {
    thread_driven = thread_driven->outer;
}

bool driver_is_thread(const struct felix_client *client) {
    for (const struct driven *at = thread_driven; at != NULL; at = at->outer) {
        if (at->client == client)
            return true;
    }
    return false;
}

static bool take_place(struct driver *driver, enum driver_kind kind) {
    uint32_t none = DRIVER_NONE;
    return atomic_compare_exchange_strong(&driver->kind, &none, kind);
}

static void wake_driver(struct felix_client *client) {
    struct client_io *io = &client->io;
    bool caller = atomic_load(&io->driver.kind) == DRIVER_CALLER;
    loop_wake(caller ? &io->caller.loop : &io->background.loop);
}

void driver_wake(struct felix_client *client) {
    if (thread_expects != client)
        wake_driver(client);
}

static bool has_command(void *context) {
    return io_has_command(context);
}

/* ---- an application thread ---- */

/* Blocks that a driving thread frees join its free lists; they go when it ends. */
static void trim_at_exit(void *ignored) {
    buf_thread_trim();
}

static pthread_key_t trim_key;

static void make_trim_key(void) {
    (void)pthread_key_create(&trim_key, trim_at_exit);
}

static void trim_at_thread_end(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    static _Thread_local bool registered;
    if (registered)
        return;
    (void)pthread_once(&once, make_trim_key);
    registered = pthread_setspecific(trim_key, &trim_key) == 0;
}

/* What is due next may wait for the end of a nap, but not data that waits for the pacer: the next
 * packets would wait behind it, nap by nap. */
static uint64_t latest_turn_ns(const struct client_io *io) {
    if (io->due_ns == LOOP_NO_DEADLINE || quic_endpoint_is_paced(io->endpoint))
        return io->due_ns;
    return io->due_ns + NAP_NS;
}

/* Would the background thread wake too late for what is due then at the latest? */
static bool wakes_too_late(struct driver *driver, uint64_t last_ns) {
    return last_ns < atomic_load(&driver->wake_ns);
}

static void leave(struct felix_client *client) {
    struct client_io *io = &client->io;
    struct driver *driver = &io->driver;
    uint64_t last_ns = latest_turn_ns(io);
    bool again = io->stop || io->due_ns == 0;
    io->readable = false; /* who watches the socket sees what is there */
    io_watch_socket(client, &io->background, true);
    atomic_store(&driver->last_ns, last_ns);
    atomic_store(&driver->kind, DRIVER_NONE);
    if (again || wakes_too_late(driver, last_ns) || io_has_command(client))
        loop_wake(&io->background.loop);
}

/* Turns until `done`, the deadline or the client's end; whether it was one of the first two. */
static bool run_turns(struct felix_client *client, bool (*done)(void *), void *context,
                      uint64_t deadline_ns) {
    struct client_io *io = &client->io;
    for (;;) {
        uint64_t due_ns = io_turn(client, &io->caller);
        if (done(context) || io->now_ns >= deadline_ns)
            return true;
        if (io->stop)
            return false;
        if (due_ns != 0)
            loop_wait(&io->caller.loop, due_ns < deadline_ns ? due_ns : deadline_ns, has_command,
                      client);
    }
}

static bool drive(struct felix_client *client, bool (*done)(void *), void *context,
                  uint64_t deadline_ns) {
    struct driver *driver = &client->io.driver;
    if (!take_place(driver, DRIVER_CALLER)) {
        /* The background thread looks at the inbox before it sleeps; a caller may sleep now. */
        wake_driver(client);
        return false;
    }
    struct driven driven;
    int cancel_state = 0;
    (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
    trim_at_thread_end();
    push_driven(&driven, client);
    (void)atomic_fetch_add_explicit(&driver->drives, 1, memory_order_relaxed);
    io_watch_socket(client, &client->io.background, false);
    bool over = run_turns(client, done, context, deadline_ns);
    pop_driven();
    leave(client);
    (void)pthread_setcancelstate(cancel_state, NULL);
    return over;
}

void driver_expect(struct felix_client *client) {
    if (client->settings->caller_io && !driver_is_thread(client))
        thread_expects = client;
}

void driver_expect_not(struct felix_client *client) {
    if (thread_expects != client)
        return;
    thread_expects = NULL;
    if (io_has_command(client))
        wake_driver(client);
}

void driver_hold(struct felix_client *client) {
    (void)atomic_fetch_add(&client->io.driver.holds, 1);
}

static void release_hold(struct felix_client *client) {
    _Atomic uint32_t *holds = &client->io.driver.holds;
    /* The client may be gone right after; to wake its address does no harm then. */
    if (atomic_fetch_sub(holds, 1) == (HOLDS_ENDING | 1))
        (void)syscall(SYS_futex, holds, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static bool may_drive(const struct felix_client *client) {
    return client->settings->caller_io && !driver_is_thread(client);
}

bool driver_until(struct felix_client *client, bool (*done)(void *), void *context,
                  uint64_t deadline_ns) {
    thread_expects = NULL;
    if (!may_drive(client))
        return false;
    driver_hold(client);
    bool over = drive(client, done, context, deadline_ns);
    release_hold(client);
    return over;
}

struct serving {
    const struct client_io *io;
    unsigned turns;
};

static bool is_served(void *context) {
    struct serving *serving = context;
    bool quiet = !serving->io->readable && serving->io->due_ns != 0;
    return ++serving->turns == SERVE_TURNS_MAX || quiet;
}

void driver_serve(struct felix_client *client) {
    struct serving serving = {.io = &client->io};
    if (!driver_until(client, is_served, &serving, UINT64_MAX) && io_has_command(client))
        wake_driver(client);
}

static bool is_signalled(void *waiter) {
    return waiter_is_signalled(waiter);
}

/* Somebody else drives, and may be about to give up the place. */
static bool drive_or_spin(struct felix_client *client, struct waiter *waiter,
                          uint64_t deadline_ns) {
    if (drive(client, is_signalled, waiter, deadline_ns))
        return true;
    uint64_t until_ns = client->spin_ns > 0 ? clock_now_ns() + client->spin_ns : 0;
    for (unsigned i = 1; until_ns > 0; i++) {
        if (waiter_is_signalled(waiter))
            return true;
        if (atomic_load(&client->io.driver.kind) == DRIVER_NONE &&
            drive(client, is_signalled, waiter, deadline_ns))
            return true;
        waiter_pause();
        if (i % TRIES_PER_CLOCK == 0 && clock_now_ns() >= until_ns)
            break;
    }
    return false;
}

bool driver_wait_held(struct felix_client *client, struct waiter *waiter, uint64_t deadline_ns) {
    thread_expects = NULL;
    bool over = waiter_is_signalled(waiter);
    if (!over && may_drive(client)) {
        over = drive_or_spin(client, waiter, deadline_ns);
        release_hold(client);
        return over ? waiter_is_signalled(waiter) : waiter_wait(waiter, deadline_ns, 0);
    }
    uint64_t spin_ns = client->spin_ns;
    release_hold(client);
    return waiter_wait(waiter, deadline_ns, spin_ns);
}

bool driver_wait(struct felix_client *client, struct waiter *waiter, uint64_t deadline_ns) {
    if (waiter_is_signalled(waiter)) {
        thread_expects = NULL;
        return true;
    }
    driver_hold(client);
    return driver_wait_held(client, waiter, deadline_ns);
}

/* ---- the background thread ---- */

static bool has_background_work(void *context) {
    struct felix_client *client = context;
    struct driver *driver = &client->io.driver;
    if (atomic_load(&driver->kind) != DRIVER_NONE)
        return false;
    return io_has_command(client) || wakes_too_late(driver, atomic_load(&driver->last_ns));
}

/* Sleep until `due_ns`, or a little longer, up to `last_ns`, while callers come and go. */
static void sleep_until(struct felix_client *client, uint64_t due_ns, uint64_t last_ns) {
    struct driver *driver = &client->io.driver;
    uint64_t drives = atomic_load_explicit(&driver->drives, memory_order_relaxed);
    uint64_t nap_ns = clock_now_ns() + NAP_NS;
    bool callers = drives != driver->drives_seen;
    driver->drives_seen = drives;
    if (callers && (due_ns < nap_ns || due_ns == LOOP_NO_DEADLINE))
        due_ns = nap_ns < last_ns ? nap_ns : last_ns;
    atomic_store(&driver->wake_ns, due_ns);
    loop_wait(&client->io.background.loop, due_ns, has_background_work, client);
}

/* One turn, if nobody else drives, and then some sleep; false when the client closes. */
static bool run_background(struct felix_client *client) {
    struct client_io *io = &client->io;
    if (!take_place(&io->driver, DRIVER_BACKGROUND)) {
        sleep_until(client, LOOP_NO_DEADLINE, LOOP_NO_DEADLINE);
        return true;
    }
    if (io->stop)
        return false; /* and keep the place */
    uint64_t due_ns = io_turn(client, &io->background);
    bool again = due_ns == 0 || io->stop;
    uint64_t last_ns = latest_turn_ns(io);
    atomic_store(&io->driver.last_ns, last_ns);
    atomic_store(&io->driver.kind, DRIVER_NONE);
    if (!again)
        sleep_until(client, due_ns, last_ns);
    return true;
}

static void await_holders(struct driver *driver) {
    uint32_t holds;
    (void)atomic_fetch_or(&driver->holds, HOLDS_ENDING);
    while ((holds = atomic_load(&driver->holds)) != HOLDS_ENDING)
        (void)syscall(SYS_futex, &driver->holds, FUTEX_WAIT_PRIVATE, holds, NULL, NULL, 0);
}

static void *run_thread(void *argument) {
    struct felix_client *client = argument;
    struct driven driven;
    push_driven(&driven, client);
    while (run_background(client))
        continue;
    client_shut(client);
    /* What was posted while the thread ended is answered, not left hanging. */
    io_drain(client);
    /* Last: a subscription hands out holds until client_shut ended it. None of them drives, as this
     * thread keeps the place. */
    await_holders(&client->io.driver);
    pop_driven();
    buf_thread_trim();
    return NULL;
}

enum felix_err driver_start(struct felix_client *client) {
    struct driver *driver = &client->io.driver;
    /* The application's signals are for the application's threads. */
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&driver->thread, NULL, run_thread, client);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc != 0)
        return FELIX_SYSTEM;
    (void)pthread_setname_np(driver->thread, "felix-client");
    return FELIX_OK;
}

void driver_join(struct felix_client *client) {
    (void)pthread_join(client->io.driver.thread, NULL);
}
