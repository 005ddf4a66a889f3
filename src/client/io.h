/*
 * The background thread of a client: an event loop, an endpoint, a queue of commands.
 *
 * Commands are how application threads hand over work: a node inside their own object, pushed
 * without a lock, run on the background thread in the order of pushing (per pushing thread). The
 * loop is woken by whoever finds the queue empty, with a system call only when it sleeps.
 */
#ifndef CLIENT_IO_H
#define CLIENT_IO_H

#include "base/loop.h"
#include "quic/endpoint.h"

#include <pthread.h>

struct felix_client;

struct io_command {
    struct io_command *next;
    void (*run)(struct felix_client *client, struct io_command *command);
};

struct client_io {
    struct loop loop;
    struct loop_source socket;
    struct quic_endpoint *endpoint;
    pthread_t thread;
    _Atomic(struct io_command *) inbox; /* newest first */
    uint64_t now_ns;                    /* of this turn */
    uint64_t timer_due_ns;              /* earliest timer of ours; a scan finds whose */
    bool readable;
    bool awaits_writable;
    bool stop;
};

/** Open loop and socket towards the client's peer; FELIX_SYSTEM with the reason in reterr. */
enum felix_err io_init(struct felix_client *client, struct felix_error *reterr);
enum felix_err io_start(struct felix_client *client);
/** After the thread has ended, or when it never started. */
void io_deinit(struct felix_client *client);

/** Hand `command` over; the background thread runs it and then no longer touches the node. Any
 * thread. It must not be pushed again before it has run. */
void io_post(struct felix_client *client, struct io_command *command);

/** Is this the client's background thread (a callback)? Any thread. */
bool io_is_thread(const struct felix_client *client);

/** Look at all timers at `due_ns` at the latest. Background thread. */
void io_timer_at(struct felix_client *client, uint64_t due_ns);

#endif
