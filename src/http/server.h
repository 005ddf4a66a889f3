/*
 * Health and metrics over HTTP/1.1: /live, /healthz, /ready and /metrics, nothing else.
 *
 * libmicrohttpd runs on a thread of its own that sleeps while nobody asks; the callbacks run on
 * that thread and must not touch what belongs to a reactor (counters may be read). Bounded: 64
 * connections, 10 s without progress, 16 KiB of request line and headers, 4 KiB of body, which
 * nobody reads. Started and stopped by the main thread.
 */
#ifndef HTTP_SERVER_H
#define HTTP_SERVER_H

#include "base/err.h"
#include "base/text.h"

#include <sys/socket.h>

struct http_callbacks {
    bool (*ready)(void *context, struct text *why); /* /ready: 200, or 503 with the reason, which
                                                       is appended; "draining" when none is */
    void (*render_metrics)(void *context, struct text *page); /* appends the page of /metrics */
    void *context; /* borrowed until http_server_stop has returned */
};

struct http_server {
    struct MHD_Daemon *daemon; /* NULL while stopped */
    struct http_callbacks callbacks;
    struct sockaddr_storage addr; /* where it listens, with the real port */
    socklen_t addr_len;
};

/**
 * Binds, listens and starts the thread. `server` must stay where it is until stopped. Copies
 * `callbacks`.
 *
 *   FELIX_SYSTEM   the address cannot be used; reterr says which one and why
 */
enum felix_err http_server_start(struct http_server *server, const struct sockaddr *addr,
                                 socklen_t addr_len, const struct http_callbacks *callbacks,
                                 struct felix_error *reterr);

/** The port that it listens on, for binds to port 0. */
unsigned http_server_port(const struct http_server *server);

/** Closes all connections and waits for the thread. Accepts a zeroed or stopped server. */
void http_server_stop(struct http_server *server);

#endif
