/*
 * A plain UDP echo on loopback, client and server as two processes: the floor that stands beside
 * every latency of ours.
 *
 *     udp_echo [BYTES [COUNT]]
 *
 * Both block in the kernel, one datagram is on its way at a time. Prints one JSON object.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hist.h"

#define WARMUP 1000

static int udp_socket(struct sockaddr_in *ret) {
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    socklen_t len = sizeof *ret;
    *ret = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (fd < 0 || bind(fd, (struct sockaddr *)(void *)ret, len) != 0 ||
        getsockname(fd, (struct sockaddr *)(void *)ret, &len) != 0) {
        perror("udp_echo: socket");
        exit(1);
    }
    return fd;
}

static void echo(int fd, long count) {
    static unsigned char bytes[65536];
    for (long i = 0; i < count; i++) {
        struct sockaddr_in from;
        socklen_t len = sizeof from;
        ssize_t n = recvfrom(fd, bytes, sizeof bytes, 0, (struct sockaddr *)(void *)&from, &len);
        if (n < 0 || sendto(fd, bytes, (size_t)n, 0, (struct sockaddr *)(void *)&from, len) != n)
            _exit(1);
    }
    _exit(0);
}

int main(int argc, char **argv) {
    size_t bytes = argc > 1 ? strtoul(argv[1], NULL, 10) : 256;
    long count = argc > 2 ? strtol(argv[2], NULL, 10) : 20000;
    static unsigned char out[65536], in[65536];
    if (bytes > sizeof out || count < 1) {
        (void)fprintf(stderr, "udp_echo: at most %zu bytes, at least 1 datagram\n", sizeof out);
        return 2;
    }
    struct sockaddr_in server_address, client_address;
    int server = udp_socket(&server_address);
    int client = udp_socket(&client_address);
    pid_t child = fork();
    if (child == 0)
        echo(server, WARMUP + count);
    static struct hist hist;
    for (long i = 0; i < WARMUP + count; i++) {
        uint64_t start_ns = clock_now_ns();
        if (sendto(client, out, bytes, 0, (struct sockaddr *)(void *)&server_address,
                   sizeof server_address) != (ssize_t)bytes ||
            recv(client, in, sizeof in, 0) != (ssize_t)bytes) {
            perror("udp_echo: round trip");
            return 1;
        }
        if (i >= WARMUP)
            hist_record(&hist, clock_now_ns() - start_ns);
    }
    (void)waitpid(child, NULL, 0);
    (void)printf("{\"bytes\":%zu,\"count\":%ld,\"p50_us\":%.3f,\"p99_us\":%.3f}\n", bytes, count,
                 (double)hist_percentile_ns(&hist, 50) / 1e3,
                 (double)hist_percentile_ns(&hist, 99) / 1e3);
    return 0;
}
