/*
 * The turns of a client: an endpoint, timers, a queue of commands. Who runs them: driver.h.
 *
 * Commands are how application threads hand over work: a node inside their own object, pushed
 * without a lock, run by the driver in the order of pushing (per pushing thread). The driver is
 * woken by whoever finds the queue empty, with a system call only when it sleeps.
 *
 * Everything here belongs to the driver of the moment unless it says otherwise.
 */
#ifndef CLIENT_IO_H
#define CLIENT_IO_H

#include "base/loop.h"
#include "client/driver.h"
#include "quic/endpoint.h"

struct felix_client;

struct io_command {
    struct io_command *next;
    void (*run)(struct felix_client *client, struct io_command *command);
};

/* A loop that watches the client's socket: a driver has one to sleep in. */
struct io_watch {
    struct loop loop;
    struct loop_source socket;
    uint32_t events; /* that the socket is watched for at present */
    bool added;
    bool readable, failed; /* what the loop saw; by the thread that sleeps in it */
};

struct client_io {
    struct driver driver;
    struct io_watch background; /* the background thread's */
    struct io_watch caller;     /* of the application thread that drives */
    struct quic_endpoint *endpoint;
    _Atomic(struct io_command *) inbox; /* newest first */
    uint64_t now_ns;                    /* of this turn */
    uint64_t timer_due_ns;              /* earliest timer of ours; a scan finds whose */
    uint64_t due_ns;                    /* of the next turn, if nothing comes; 0: at once */
    bool readable;                      /* look at the socket before sleeping */
    bool stop;
};

/** Open loop and socket towards the client's peer; FELIX_SYSTEM with the reason in reterr. */
enum felix_err io_init(struct felix_client *client, struct felix_error *reterr);
/** After the thread has ended, or when it never started. */
void io_deinit(struct felix_client *client);

/** Hand `command` over; the driver runs it and then no longer touches the node. Any thread. It
 * must not be pushed again before it has run. */
void io_post(struct felix_client *client, struct io_command *command);

/** Was something posted that no turn has run? Any thread. */
bool io_has_command(const struct felix_client *client);

/** Look at all timers at `due_ns` at the latest. */
void io_timer_at(struct felix_client *client, uint64_t due_ns);

/**
 * One turn: read what the socket holds (frames reach their owners, callbacks run), run the
 * commands, look at due timers, then let the endpoint write everything at once. `watch` is what
 * this thread sleeps in. Returns when the next turn is due at the latest, 0 when right away.
 */
uint64_t io_turn(struct felix_client *client, struct io_watch *watch);

/** Watch the socket with `watch`, or no longer. The thread that sleeps in it need not be this. */
void io_watch_socket(struct felix_client *client, struct io_watch *watch, bool on);

/** The thread ends: answer what was posted meanwhile. */
void io_drain(struct felix_client *client);

#endif
