/*
 * A UDP socket with batched receive (recvmmsg and GRO) and segmented send (GSO). One thread.
 */
#ifndef QUIC_UDP_H
#define QUIC_UDP_H

#include "base/err.h"
#include "base/slice.h"

#include <sys/socket.h>

/* A super-datagram and its headers must stay below 64 KiB, else the kernel segments in software
 * at half the speed. */
#define UDP_GSO_BYTES_MAX 65493u
#define UDP_GSO_SEGMENTS_MAX 64u
#define UDP_PAYLOAD_BYTES_MAX 65527u
#define UDP_RECV_BATCH 8u

struct udp_socket {
    int fd;
    bool wildcard; /* bound to any address: the local address comes with each packet */
    bool gso;      /* the kernel takes UDP_SEGMENT */
    struct sockaddr_storage local;
    int recv_buffer_bytes, send_buffer_bytes; /* granted */
    uint8_t *recv_memory;
    /* What a full send buffer left over, in order. */
    struct udp_pending *pending_head, *pending_tail;
    uint64_t send_calls, recv_calls;
    uint64_t send_errors; /* calls whose datagrams the system refused */
};

struct udp_packet {
    struct slice data;
    const struct sockaddr_storage *local;
    const struct sockaddr_storage *peer;
};

/** Called for each datagram; borrows everything. */
typedef void (*udp_on_packet)(void *context, const struct udp_packet *packet);

/**
 * Open and bind. With `reuseport_count` > 1 the port is shared by as many sockets, and the
 * packets are steered by the connection id (cid.h); all sockets must be opened in the order of
 * their reactors, and udp_attach_steering called on the last.
 */
enum felix_err udp_open(struct udp_socket *udp, const struct sockaddr_storage *bind, bool reuseport,
                        uint32_t recv_buffer_bytes, uint32_t send_buffer_bytes,
                        struct felix_error *reterr);
void udp_close(struct udp_socket *udp);

/** Attach the program that steers packets to the socket whose index stands in the id. */
enum felix_err udp_attach_steering(struct udp_socket *udp);

/** One recvmmsg; calls `on_packet` for each datagram. Returns the number of messages received
 * (super-datagrams), 0 when the socket is empty. */
unsigned udp_receive(struct udp_socket *udp, udp_on_packet on_packet, void *context);

/** Send `len` bytes as datagrams of `segment_bytes` (the last may be shorter). A full send
 * buffer keeps a copy: see udp_blocked. Errors of the network are the transport's loss. */
void udp_send(struct udp_socket *udp, const struct sockaddr_storage *local,
              const struct sockaddr_storage *peer, const uint8_t *data, size_t len,
              size_t segment_bytes);

/** Is something left over? Nothing may be sent until udp_retry has returned true. */
bool udp_blocked(const struct udp_socket *udp);
bool udp_retry(struct udp_socket *udp);

socklen_t sockaddr_bytes(const struct sockaddr_storage *address);
bool sockaddr_equal(const struct sockaddr_storage *a, const struct sockaddr_storage *b);
bool sockaddr_is_loopback(const struct sockaddr_storage *address);
/** "127.0.0.1:5000" or "[::1]:5000". */
const char *sockaddr_text(const struct sockaddr_storage *address, char out[64]);

#endif
