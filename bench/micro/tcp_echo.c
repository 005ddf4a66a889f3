/*
 * A plain TCP echo on loopback, client and server as two processes, without Nagle's delay: stands
 * beside the UDP echo where peers that use TCP are measured.
 *
 *     tcp_echo [BYTES [COUNT]]
 *
 * Both block in the kernel, one message is on its way at a time. Prints one JSON object.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hist.h"

#define WARMUP 1000

static void fail(const char *what) {
    perror(what);
    _exit(1);
}

static int no_delay(int fd) {
    int on = 1;
    if (fd < 0 || setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0)
        fail("tcp_echo: socket");
    return fd;
}

static void echo(int listener, size_t len, long count) {
    static unsigned char bytes[65536];
    int fd = no_delay(accept(listener, NULL, NULL));
    for (long i = 0; i < count; i++) {
        if (recv(fd, bytes, len, MSG_WAITALL) != (ssize_t)len ||
            send(fd, bytes, len, 0) != (ssize_t)len)
            _exit(1);
    }
    _exit(0);
}

int main(int argc, char **argv) {
    size_t bytes = argc > 1 ? strtoul(argv[1], NULL, 10) : 256;
    long count = argc > 2 ? strtol(argv[2], NULL, 10) : 20000;
    static unsigned char out[65536], in[65536];
    if (bytes < 1 || bytes > sizeof out || count < 1) {
        (void)fprintf(stderr, "tcp_echo: 1 to %zu bytes, at least 1 message\n", sizeof out);
        return 2;
    }
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)(void *)&address, len) != 0 ||
        listen(listener, 1) != 0 ||
        getsockname(listener, (struct sockaddr *)(void *)&address, &len) != 0)
        fail("tcp_echo: listen");
    pid_t child = fork();
    if (child == 0)
        echo(listener, bytes, WARMUP + count);
    int fd = no_delay(socket(AF_INET, SOCK_STREAM, 0));
    if (connect(fd, (struct sockaddr *)(void *)&address, len) != 0)
        fail("tcp_echo: connect");
    static struct hist hist;
    for (long i = 0; i < WARMUP + count; i++) {
        uint64_t start_ns = clock_now_ns();
        if (send(fd, out, bytes, 0) != (ssize_t)bytes ||
            recv(fd, in, bytes, MSG_WAITALL) != (ssize_t)bytes)
            fail("tcp_echo: round trip");
        if (i >= WARMUP)
            hist_record(&hist, clock_now_ns() - start_ns);
    }
    (void)waitpid(child, NULL, 0);
    (void)printf("{\"bytes\":%zu,\"count\":%ld,\"p50_us\":%.3f,\"p99_us\":%.3f}\n", bytes, count,
                 (double)hist_percentile_ns(&hist, 50) / 1e3,
                 (double)hist_percentile_ns(&hist, 99) / 1e3);
    return 0;
}
