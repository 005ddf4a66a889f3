/*
 * A TCP connection to a peer of Felix, plain or with TLS 1.3, as fast as a client can make one:
 * TCP_NODELAY, large reads, one system call for all records of a write.
 *
 * Belongs to one thread. Whatever goes wrong ends the program with the reason: half a measurement
 * is worth nothing.
 */
#ifndef PEERS_LOAD_LINK_H
#define PEERS_LOAD_LINK_H

#include <gnutls/gnutls.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LINK_IN_BYTES ((size_t)512 << 10)

struct link_target {
    uint16_t port;       /* on 127.0.0.1 */
    const char *ca_file; /* PEM of the certificate to trust; NULL: no TLS */
};

struct link {
    int fd;
    bool wait;    /* link_fill blocks until something comes */
    bool emptied; /* this link_fill has read from the socket; only with TLS */
    gnutls_session_t tls;
    gnutls_certificate_credentials_t credentials;
    uint8_t *raw; /* received, not decrypted; only with TLS */
    size_t raw_at, raw_end;
    uint8_t *out; /* encrypted, not sent; only with TLS */
    size_t out_len, out_capacity;
    uint8_t *in; /* received and decrypted, not consumed: in_at .. in_end */
    size_t in_at, in_end;
};

/** Connects and, with TLS, shakes hands. Accepts an uninitialised object; `target` is borrowed. */
void link_open(struct link *link, const struct link_target *target);
void link_close(struct link *link);

/** Sends all of it; waits while the peer does not take it. */
void link_write(struct link *link, const void *data, size_t len);

/**
 * Takes in what one read of the socket brings, after moving what was not consumed to the front of
 * the buffer. Returns false when that makes no byte. A connection that the peer closed ends the
 * program.
 *
 * One read, because a peer that answers at once would keep a loop at this connection for as long as
 * it asks for more, and the others would starve.
 */
bool link_fill(struct link *link);

/** Whether bytes were received that link_fill did not take in yet: waiting on `fd` will not tell.
 */
bool link_pending(const struct link *link);

/** Prints "peer-load: REASON" to standard error and exits with status 1. Any thread. */
_Noreturn void load_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
