/*
 * A request is first seen without its body: a wrong method or path is answered at once, which
 * ends the connection, as nobody will read a body. Otherwise the answer waits until the body, if
 * there is one, has been thrown away, so that the connection can be used again.
 *
 * The listening socket is made here and not by the library, because a port that is taken must
 * stop the start with the reason.
 */
#include "http/server.h"

#include "base/check.h"
#include "base/log.h"
#include "base/options.h"
#include "http/metrics.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <microhttpd.h>

#define CONNECTIONS_MAX 64u
#define IDLE_TIMEOUT_S 10u
#define HEADER_BYTES_MAX ((size_t)16 << 10)
#define BODY_BYTES_MAX ((size_t)4 << 10)
#define TEXT_TYPE "text/plain; charset=utf-8"

/* One request in progress: what the library keeps for us between its calls. */
struct request {
    size_t body_bytes;
};

/* Takes `body` (from malloc) when `owned`, else it is static. */
static enum MHD_Result answer(struct MHD_Connection *connection, unsigned status, const char *type,
                              char *body, size_t len, bool owned) {
    enum MHD_ResponseMemoryMode mode = owned ? MHD_RESPMEM_MUST_FREE : MHD_RESPMEM_PERSISTENT;
    struct MHD_Response *response = MHD_create_response_from_buffer(len, body, mode);
    if (response == NULL) {
        if (owned)
            free(body);
        return MHD_NO;
    }
    enum MHD_Result result = MHD_add_response_header(response, "Content-Type", type);
    if (result == MHD_YES && status == MHD_HTTP_METHOD_NOT_ALLOWED)
        result = MHD_add_response_header(response, "Allow", "GET, HEAD");
    if (result == MHD_YES)
        result = MHD_queue_response(connection, status, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result answer_word(struct MHD_Connection *connection, unsigned status, char *word) {
    return answer(connection, status, TEXT_TYPE, word, strlen(word), false);
}

static enum MHD_Result answer_page(struct http_server *server, struct MHD_Connection *connection,
                                   const char *url) {
    static char ok[] = "ok";
    static char draining[] = "draining";
    if (strcmp(url, "/ready") == 0) {
        struct text why = {0};
        bool ready = server->callbacks.ready(server->callbacks.context, &why);
        size_t len = why.len;
        if (!ready && len > 0)
            return answer(connection, MHD_HTTP_SERVICE_UNAVAILABLE, TEXT_TYPE, text_take(&why), len,
                          true);
        text_deinit(&why);
        return ready ? answer_word(connection, MHD_HTTP_OK, ok)
                     : answer_word(connection, MHD_HTTP_SERVICE_UNAVAILABLE, draining);
    }
    if (strcmp(url, "/metrics") == 0) {
        struct text page = {0};
        server->callbacks.render_metrics(server->callbacks.context, &page);
        size_t len = page.len;
        return answer(connection, MHD_HTTP_OK, METRICS_CONTENT_TYPE, text_take(&page), len, true);
    }
    return answer_word(connection, MHD_HTTP_OK, ok);
}

static bool is_page(const char *url) {
    return strcmp(url, "/live") == 0 || strcmp(url, "/healthz") == 0 ||
           strcmp(url, "/ready") == 0 || strcmp(url, "/metrics") == 0;
}

static enum MHD_Result on_request(void *context, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *upload_data,
                                  size_t *upload_data_size, void **state) {
    static char not_found[] = "not found";
    static char not_allowed[] = "method not allowed";
    struct http_server *server = context;
    struct request *request = *state;

    if (request == NULL) {
        if (!is_page(url))
            return answer_word(connection, MHD_HTTP_NOT_FOUND, not_found);
        if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0)
            return answer_word(connection, MHD_HTTP_METHOD_NOT_ALLOWED, not_allowed);
        *state = xcalloc(1, sizeof *request);
        return MHD_YES;
    }
    if (*upload_data_size != 0) {
        request->body_bytes += *upload_data_size;
        *upload_data_size = 0;
        return request->body_bytes <= BODY_BYTES_MAX ? MHD_YES : MHD_NO;
    }
    return answer_page(server, connection, url);
}

static void on_completed(void *context, struct MHD_Connection *connection, void **state,
                         enum MHD_RequestTerminationCode code) {
    free(*state);
    *state = NULL;
}

static void on_library_log(void *context, const char *format, va_list args)
    __attribute__((format(printf, 2, 0)));

static void on_library_log(void *context, const char *format, va_list args) {
    char text[256];
    int wrote = vsnprintf(text, sizeof text, format, args);
    if (wrote <= 0)
        return;
    text[strcspn(text, "\r\n")] = '\0';
    LOG_RATE(http, DEBUG, "library_message", F_STR("text", text));
}

/* The listening socket, or -1 with `*reterr` filled. */
static int listen_on(const struct sockaddr *addr, socklen_t addr_len, struct felix_error *reterr) {
    const int on = 1;
    const char *step = "socket";
    struct option_addr shown = {.len = addr_len};
    struct text where = {0};

    INVARIANT(addr_len <= sizeof shown.storage);
    memcpy(&shown.storage, addr, addr_len);
    int fd = socket(addr->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        goto fail;
    step = "bind";
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, addr, addr_len) != 0)
        goto fail;
    step = "listen";
    if (listen(fd, (int)CONNECTIONS_MAX) != 0)
        goto fail;
    return fd;
fail:;
    int sys_errno = errno;
    option_addr_text(&shown, &where);
    enum felix_err err =
        error_set(reterr, FELIX_SYSTEM, sys_errno,
                  "metrics and health listener on %s (FELIX_BROKER_METRICS_BIND): %s",
                  text_str(&where), step);
    (void)err;
    text_deinit(&where);
    if (fd >= 0)
        (void)close(fd);
    return -1;
}

enum felix_err http_server_start(struct http_server *server, const struct sockaddr *addr,
                                 socklen_t addr_len, const struct http_callbacks *callbacks,
                                 struct felix_error *reterr) {
    *server = (struct http_server){.callbacks = *callbacks};
    int fd = listen_on(addr, addr_len, reterr);
    if (fd < 0)
        return FELIX_SYSTEM;
    server->addr_len = sizeof server->addr;
    (void)getsockname(fd, (struct sockaddr *)&server->addr, &server->addr_len);

    server->daemon = MHD_start_daemon(
        MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_EPOLL | MHD_USE_ERROR_LOG, 0, NULL, NULL,
        on_request, server, MHD_OPTION_EXTERNAL_LOGGER, on_library_log, NULL,
        MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL,
        MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT, IDLE_TIMEOUT_S,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, HEADER_BYTES_MAX, MHD_OPTION_END);
    if (server->daemon == NULL) {
        int sys_errno = errno;
        (void)close(fd);
        return error_set(reterr, FELIX_SYSTEM, sys_errno,
                         "cannot start the metrics and health listener");
    }
    return FELIX_OK;
}

unsigned http_server_port(const struct http_server *server) {
    if (server->addr.ss_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, &server->addr, sizeof in6);
        return ntohs(in6.sin6_port);
    }
    struct sockaddr_in in;
    memcpy(&in, &server->addr, sizeof in);
    return ntohs(in.sin_port);
}

void http_server_stop(struct http_server *server) {
    if (server->daemon == NULL)
        return;
    MHD_stop_daemon(server->daemon); /* closes the listening socket too */
    server->daemon = NULL;
}
