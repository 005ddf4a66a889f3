/* Real requests over loopback to a server on a port of the system's choice. */
#include "http/server.h"

#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static struct http_server server;
static _Atomic bool ready;
static char reply[16384];

static const char *reason;

static bool is_ready(void *context, struct text *why) {
    assert_ptr_equal(context, &ready);
    if (reason != NULL)
        text_add(why, reason);
    return atomic_load(&ready);
}

static void render(void *context, struct text *page) {
    text_add(page, "# TYPE x counter\nx 1\n");
}

static struct sockaddr_in loopback(unsigned port) {
    return (struct sockaddr_in){.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static enum felix_err start(struct http_server *s, unsigned port, struct felix_error *error) {
    const struct http_callbacks callbacks = {
        .ready = is_ready, .render_metrics = render, .context = &ready};
    struct sockaddr_in addr = loopback(port);
    return http_server_start(s, (struct sockaddr *)&addr, sizeof addr, &callbacks, error);
}

static int start_server(void **) {
    atomic_store(&ready, true);
    return start(&server, 0, NULL) == FELIX_OK ? 0 : -1;
}

static int stop_server(void **) {
    http_server_stop(&server);
    http_server_stop(&server); /* a second time does nothing */
    return 0;
}

static int dial(void) {
    struct sockaddr_in addr = loopback(http_server_port(&server));
    struct timeval patience = {.tv_sec = 20};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof addr), 0);
    return fd;
}

/* Sends `request` and reads until the server closes. */
static const char *ask(const char *request) {
    size_t used = 0;
    int fd = dial();
    assert_int_equal(send(fd, request, strlen(request), MSG_NOSIGNAL), strlen(request));
    for (;;) {
        ssize_t n = read(fd, reply + used, sizeof reply - 1 - used);
        if (n <= 0)
            break;
        used += (size_t)n;
    }
    reply[used] = '\0';
    (void)close(fd);
    return reply;
}

static unsigned status_of(const char *method, const char *url) {
    char request[256];
    (void)snprintf(request, sizeof request,
                   "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", method, url);
    const char *got = ask(request);
    assert_memory_equal(got, "HTTP/1.1 ", 9);
    return (unsigned)strtoul(got + 9, NULL, 10);
}

static const char *body(void) {
    const char *at = strstr(reply, "\r\n\r\n");
    assert_non_null(at);
    return at + 4;
}

static void live_is_ok_even_while_draining(void **) {
    atomic_store(&ready, false);
    assert_int_equal(status_of("GET", "/live"), 200);
    assert_string_equal(body(), "ok");
    assert_int_equal(status_of("GET", "/healthz"), 200);
    assert_string_equal(body(), "ok");
}

static void ready_follows_the_node(void **) {
    assert_int_equal(status_of("GET", "/ready"), 200);
    assert_string_equal(body(), "ok");
    atomic_store(&ready, false);
    assert_int_equal(status_of("GET", "/ready"), 503);
    assert_string_equal(body(), "draining");
}

static void not_ready_says_why_where_there_is_a_reason(void **) {
    reason = "log t/n/s: damaged on disk\n";
    assert_int_equal(status_of("GET", "/ready"), 200);
    assert_string_equal(body(), "ok");
    atomic_store(&ready, false);
    assert_int_equal(status_of("GET", "/ready"), 503);
    assert_string_equal(body(), reason);
    reason = NULL;
}

static void metrics_have_the_type_that_prometheus_wants(void **) {
    assert_int_equal(status_of("GET", "/metrics"), 200);
    assert_string_equal(body(), "# TYPE x counter\nx 1\n");
    assert_non_null(strstr(reply, "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
}

static void head_has_the_same_status_and_no_body(void **) {
    assert_int_equal(status_of("HEAD", "/metrics"), 200);
    assert_string_equal(body(), "");
    assert_non_null(strstr(reply, "Content-Length: 21\r\n"));
    atomic_store(&ready, false);
    assert_int_equal(status_of("HEAD", "/ready"), 503);
    assert_string_equal(body(), "");
}

static void other_methods_are_405_and_other_paths_404(void **) {
    const char *const methods[] = {"POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"};
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++) {
        assert_int_equal(status_of(methods[i], "/ready"), 405);
        assert_non_null(strstr(reply, "Allow: GET, HEAD\r\n"));
    }
    const char *const paths[] = {"/", "/health", "/live/", "/metrics/x", "/../live", "//live"};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++)
        assert_int_equal(status_of("GET", paths[i]), 404);
    assert_int_equal(status_of("GET", "/metrics?name=x"), 200);
}

static void small_body_is_thrown_away_and_a_large_one_ends_the_connection(void **) {
    assert_non_null(strstr(ask("GET /live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                               "Content-Length: 5\r\n\r\nhello"),
                           " 200 "));
    char request[8192];
    int head = snprintf(request, sizeof request,
                        "GET /live HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n");
    memset(request + head, 'x', 5000);
    request[head + 5000] = '\0';
    assert_null(strstr(ask(request), " 200 "));
}

static void connection_serves_several_requests(void **) {
    const char *got = ask("GET /live HTTP/1.1\r\nHost: x\r\n\r\n"
                          "GET /ready HTTP/1.1\r\nHost: x\r\n\r\n"
                          "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    size_t answers = 0;
    for (const char *at = got; (at = strstr(at, "HTTP/1.1 200")) != NULL; at++)
        answers++;
    assert_int_equal(answers, 3);
}

static void headers_without_end_and_garbage_are_refused(void **) {
    char request[20000];
    int head = snprintf(request, sizeof request, "GET /live HTTP/1.1\r\nHost: x\r\nA: ");
    memset(request + head, 'x', sizeof request - (size_t)head - 1);
    request[sizeof request - 1] = '\0';
    assert_null(strstr(ask(request), " 200 "));
    assert_null(strstr(ask("\x16\x03\x01\x02\r\n\r\n"), " 200 "));
    assert_int_equal(status_of("GET", "/live"), 200);
}

static void port_that_is_taken_is_an_error_with_its_address(void **) {
    struct http_server second;
    struct felix_error error;
    char where[64];
    assert_int_equal(start(&second, http_server_port(&server), &error), FELIX_SYSTEM);
    (void)snprintf(where, sizeof where, "127.0.0.1:%u", http_server_port(&server));
    assert_non_null(strstr(error.text, where));
    assert_non_null(strstr(error.text, "FELIX_BROKER_METRICS_BIND"));
    assert_non_null(strstr(error.text, "Address already in use"));
    http_server_stop(&second);
}

#define SERVER_TEST(name) cmocka_unit_test_setup_teardown(name, start_server, stop_server)

int main(void) {
    const struct CMUnitTest tests[] = {
        SERVER_TEST(live_is_ok_even_while_draining),
        SERVER_TEST(ready_follows_the_node),
        SERVER_TEST(not_ready_says_why_where_there_is_a_reason),
        SERVER_TEST(metrics_have_the_type_that_prometheus_wants),
        SERVER_TEST(head_has_the_same_status_and_no_body),
        SERVER_TEST(other_methods_are_405_and_other_paths_404),
        SERVER_TEST(small_body_is_thrown_away_and_a_large_one_ends_the_connection),
        SERVER_TEST(connection_serves_several_requests),
        SERVER_TEST(headers_without_end_and_garbage_are_refused),
        SERVER_TEST(port_that_is_taken_is_an_error_with_its_address),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
