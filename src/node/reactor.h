/*
 * One reactor: a thread with its loop, its endpoint, its server and its mailbox.
 * Created and joined by the node; everything inside belongs to its own thread while it runs.
 */
#ifndef NODE_REACTOR_H
#define NODE_REACTOR_H

#include "base/loop.h"
#include "node/mailbox.h"
#include "session/server.h"

#include <pthread.h>
#include <semaphore.h>

struct reactor {
    unsigned index;
    struct reactor *all; /* array of all reactors of the node */
    unsigned count;
    struct loop loop;
    struct loop_source socket;
    bool readable;
    bool write_armed;
    struct mailbox mailbox;
    struct quic_endpoint *endpoint;
    struct server server;
    struct hist *stages; /* STAGE_COUNT, or NULL */
    counter wakeups;
    bool draining;
    bool drain_told;
    bool stopping;
    uint64_t conn_stats_ns; /* period of the transport statistics in the log; 0: none */
    uint64_t next_stats_ns;
    sem_t *drained; /* posted once when everything is delivered */
    struct admin *admin;
    pthread_t thread;
    bool started;
};

struct reactor_options {
    unsigned index, count;
    struct reactor *all;
    uint64_t spin_ns;
    bool timings;
    uint64_t conn_stats_ns;
    const struct quic_endpoint_options *endpoint; /* handler and user are set here */
    const struct server_settings *server;
    const struct core_settings *core;
    sem_t *drained;
    struct admin *admin; /* takes what clients ask about streams */
};

/** Opens the socket and prepares everything; no thread yet. */
enum felix_err reactor_init(struct reactor *reactor, const struct reactor_options *options,
                            struct felix_error *reterr);
enum felix_err reactor_start(struct reactor *reactor);
/** After NODE_STOP was posted. */
void reactor_join(struct reactor *reactor);
/** Once all are joined. What this one still has to say to others goes to their mailboxes. */
void reactor_deinit(struct reactor *reactor);
/** Once all are deinitialised: nobody says anything any more. */
void reactor_drop_mail(struct reactor *reactor);

/** Put a message into the mailbox and wake the loop if it sleeps. Takes `mail`. Any thread. */
void reactor_post(struct reactor *reactor, struct mail *mail);

/** A message of the node's, with its fields to be filled. Returned owned. */
struct node_mail *node_mail_new(enum node_mail_kind kind, size_t packet_bytes);

#endif
