/*
 * GnuTLS reads a record in two small steps and writes records one by one. Both go through buffers
 * here: one recv() brings as many records as have arrived, one send() takes all that a write made.
 */
#include "link.h"

#include "base/check.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define RAW_BYTES ((size_t)512 << 10)
#define CERTIFICATE_NAME "localhost"
#define PRIORITY "NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-128-GCM"

void load_fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    (void)fputs("peer-load: ", stderr);
    (void)vfprintf(stderr, format, arguments);
    (void)fputc('\n', stderr);
    va_end(arguments);
    _exit(1);
}

/* ---- the socket ---- */

static void send_all(int fd, const uint8_t *data, size_t len) {
    while (len > 0) {
        ssize_t n = send(fd, data, len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            load_fail("send: %s", strerror(errno));
        data += n;
        len -= (size_t)n;
    }
}

/* Bytes received; 0 when nothing is there and `wait` is not asked for. */
static size_t receive(int fd, bool wait, uint8_t *data, size_t room) {
    for (;;) {
        ssize_t n = recv(fd, data, room, wait ? 0 : MSG_DONTWAIT);
        if (n > 0)
            return (size_t)n;
        if (n == 0)
            load_fail("the peer closed the connection");
        if (errno == EAGAIN || errno == EWOULDBLOCK)
            return 0;
        if (errno != EINTR)
            load_fail("recv: %s", strerror(errno));
    }
}

static int connect_to(uint16_t port) {
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)(void *)&address, sizeof address) != 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0)
        load_fail("cannot connect to port %u: %s", port, strerror(errno));
    return fd;
}

/* ---- TLS ---- */

static void tls_flush(struct link *link) {
    send_all(link->fd, link->out, link->out_len);
    link->out_len = 0;
}

static ssize_t tls_pull(gnutls_transport_ptr_t context, void *data, size_t room) {
    struct link *link = context;
    if (link->raw_at == link->raw_end) {
        tls_flush(link); /* the handshake waits for an answer to what it said */
        link->raw_at = link->raw_end = 0;
        if (link->wait || !link->emptied)
            link->raw_end = receive(link->fd, link->wait, link->raw, RAW_BYTES);
        link->emptied = true;
    }
    size_t n = link->raw_end - link->raw_at;
    if (n == 0) {
        gnutls_transport_set_errno(link->tls, EAGAIN);
        return -1;
    }
    n = n < room ? n : room;
    memcpy(data, link->raw + link->raw_at, n);
    link->raw_at += n;
    return (ssize_t)n;
}

static ssize_t tls_push(gnutls_transport_ptr_t context, const void *data, size_t len) {
    struct link *link = context;
    if (link->out_len + len > link->out_capacity) {
        link->out_capacity = 2 * (link->out_len + len);
        link->out = xrealloc(link->out, link->out_capacity);
    }
    memcpy(link->out + link->out_len, data, len);
    link->out_len += len;
    return (ssize_t)len;
}

static void tls_check(int result, const char *what) {
    if (result < 0)
        load_fail("%s: %s", what, gnutls_strerror(result));
}

static void tls_open(struct link *link, const char *ca_file) {
    tls_check(gnutls_certificate_allocate_credentials(&link->credentials), "TLS");
    tls_check(
        gnutls_certificate_set_x509_trust_file(link->credentials, ca_file, GNUTLS_X509_FMT_PEM),
        ca_file);
    tls_check(gnutls_init(&link->tls, GNUTLS_CLIENT), "TLS");
    tls_check(gnutls_priority_set_direct(link->tls, PRIORITY, NULL), "TLS priority");
    tls_check(gnutls_credentials_set(link->tls, GNUTLS_CRD_CERTIFICATE, link->credentials), "TLS");
    tls_check(gnutls_server_name_set(link->tls, GNUTLS_NAME_DNS, CERTIFICATE_NAME,
                                     strlen(CERTIFICATE_NAME)),
              "TLS");
    gnutls_session_set_verify_cert(link->tls, CERTIFICATE_NAME, 0);
    gnutls_transport_set_ptr(link->tls, link);
    gnutls_transport_set_pull_function(link->tls, tls_pull);
    gnutls_transport_set_push_function(link->tls, tls_push);
    link->raw = xmalloc(RAW_BYTES);
    link->wait = true;
    int result;
    do {
        result = gnutls_handshake(link->tls);
    } while (result < 0 && !gnutls_error_is_fatal(result));
    tls_check(result, "TLS handshake");
    tls_flush(link);
    link->wait = false;
}

static void tls_write(struct link *link, const uint8_t *data, size_t len) {
    while (len > 0) {
        ssize_t n = gnutls_record_send(link->tls, data, len);
        tls_check((int)(n < 0 ? n : 0), "TLS send");
        data += n;
        len -= (size_t)n;
    }
    tls_flush(link);
}

/* Decrypts into the buffer while there is room and something was received. */
static size_t tls_fill(struct link *link, uint8_t *data, size_t room) {
    size_t have = 0;
    link->emptied = link->raw_at < link->raw_end; /* first what is here already */
    while (have < room) {
        ssize_t n = gnutls_record_recv(link->tls, data + have, room - have);
        /* It says "again" after a session ticket, too: then there is more. */
        if (n == GNUTLS_E_INTERRUPTED || (n == GNUTLS_E_AGAIN && link->raw_at < link->raw_end))
            continue;
        if (n == GNUTLS_E_AGAIN)
            break;
        if (n == 0)
            load_fail("the peer closed the connection");
        tls_check((int)(n < 0 ? n : 0), "TLS receive");
        have += (size_t)n;
        if (link->wait && !link_pending(link))
            break;
    }
    return have;
}

bool link_pending(const struct link *link) {
    return link->tls != NULL &&
           (link->raw_at < link->raw_end || gnutls_record_check_pending(link->tls) > 0);
}

/* ---- the connection ---- */

void link_open(struct link *link, const struct link_target *target) {
    *link = (struct link){.fd = connect_to(target->port), .in = xmalloc(LINK_IN_BYTES)};
    if (target->ca_file != NULL)
        tls_open(link, target->ca_file);
}

void link_close(struct link *link) {
    if (link->tls != NULL) {
        gnutls_deinit(link->tls);
        gnutls_certificate_free_credentials(link->credentials);
    }
    (void)close(link->fd);
    free(link->raw);
    free(link->out);
    free(link->in);
    *link = (struct link){.fd = -1};
}

void link_write(struct link *link, const void *data, size_t len) {
    if (link->tls != NULL)
        tls_write(link, data, len);
    else
        send_all(link->fd, data, len);
}

bool link_fill(struct link *link) {
    size_t rest = link->in_end - link->in_at;
    if (link->in_at > 0)
        memmove(link->in, link->in + link->in_at, rest);
    link->in_at = 0;
    link->in_end = rest;
    uint8_t *free_part = link->in + rest;
    size_t room = LINK_IN_BYTES - rest;
    if (room == 0)
        load_fail("the peer sent more than %zu bytes that make no message", LINK_IN_BYTES);
    size_t n = link->tls != NULL ? tls_fill(link, free_part, room)
                                 : receive(link->fd, link->wait, free_part, room);
    link->in_end += n;
    return n > 0;
}
