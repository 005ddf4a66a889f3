/*
 * A reactor's mailbox: any thread puts messages in, the owner takes all at once.
 *
 * One atomic exchange a message, no lock. Messages of one sender keep their order. The memory of
 * messages under way is bounded by the admission that publishes hold (session/publish_step.c) until
 * they are appended, and by deliver_bytes_max of the core from then on.
 */
#ifndef NODE_MAILBOX_H
#define NODE_MAILBOX_H

#include "core/mail.h"
#include "quic/endpoint.h"

#include <stdatomic.h>

struct mailbox {
    _Atomic(struct mail *) head; /* newest first */
};

/** Takes `mail`. Any thread; wake the owner's loop afterwards. */
void mailbox_put(struct mailbox *mailbox, struct mail *mail);

/** Everything that is there, oldest first, linked by `next`; NULL when empty. Owner only. */
struct mail *mailbox_take(struct mailbox *mailbox);

static inline bool mailbox_empty(struct mailbox *mailbox) {
    return atomic_load(&mailbox->head) == NULL;
}

/* Messages for the node itself (MAIL_NODE). */
enum node_mail_kind {
    NODE_PACKET,        /* from a reactor: a datagram that belongs to the receiver */
    NODE_TLS,           /* from the node: new credentials, one reference */
    NODE_KEYS,          /* from the node: a new key set, one reference */
    NODE_GATHER,        /* from admin: what do you know about streams? */
    NODE_STREAM_ANSWER, /* from admin: to the request of a session */
    NODE_DRAIN,         /* from the node: take no more requests */
    NODE_CLOSE,         /* from the node: close all connections */
    NODE_STOP           /* from the node: leave the loop */
};

struct gather;

struct node_mail {
    struct mail mail;
    enum node_mail_kind kind;
    struct quic_tls *tls;
    struct auth_keyset *keys;
    struct sockaddr_storage local, peer;
    struct gather *gather; /* borrowed until it is answered */
    uint64_t session;
    enum felix_err err;
    size_t packet_bytes; /* of NODE_STREAM_ANSWER: the answer, or the text of the error */
    uint8_t packet[];
};

#endif
