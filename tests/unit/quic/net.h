/*
 * A network in memory that stands in for quic/udp.c: the programs here are linked with
 * --wrap=udp_*, so endpoints send into it and receive out of it without knowing. It drops, doubles,
 * delays, reorders and damages datagrams as its rules say, moves a client to another address, and
 * stands still until the test moves its clock. Everything random comes from one seed.
 */
#ifndef TESTS_QUIC_NET_H
#define TESTS_QUIC_NET_H

#include "base/rand.h"
#include "quic/udp.h"

#include <stdbool.h>
#include <stdint.h>

#define NET_SERVER_PORT 4433u /* whoever is bound to it is the server */
#define NET_SOCKETS_MAX 8u
#define NET_STRAYS_MAX 64u
#define NET_NEVER UINT64_MAX

/* What happens to datagrams of one direction. */
struct net_rule {
    uint64_t delay_ns;
    unsigned lose_permille, double_permille, damage_permille;
    unsigned late_permille; /* arrives late_ns later than those behind it */
    uint64_t late_ns;
    size_t mtu_bytes; /* larger ones vanish, as on a path without ICMP */
};

struct net_packet {
    struct net_packet *next;
    uint64_t due_ns;
    struct sockaddr_storage from, to;
    size_t len;
    uint8_t data[];
};

struct net_socket {
    struct udp_socket *udp; /* NULL: free */
    bool full;              /* its send buffer takes nothing: what is sent is kept */
    size_t kept_datagrams;
    struct net_packet *inbox, *kept;
};

struct net {
    uint64_t now_ns, seed;
    struct rng rng;
    struct net_rule to_server, to_client;
    struct net_socket sockets[NET_SOCKETS_MAX];
    /* While nat_to has a family, the client at nat_from is seen by the server as nat_to, and what
     * is sent to nat_from itself goes nowhere. */
    struct sockaddr_storage nat_from, nat_to;
    int steer_to; /* index among the server's sockets that gets everything; -1: by id */
    /* Looks at, or changes, every datagram before its fate is decided; false drops it. */
    bool (*tap)(struct net *net, bool to_server, uint8_t *data, size_t len);
    /* Datagrams to addresses where nobody is, oldest first. */
    struct net_packet *strays[NET_STRAYS_MAX];
    size_t stray_count;
    uint64_t sent[2], lost[2], damaged[2]; /* by to_server */
    size_t largest[2];                     /* that arrived */
    uint64_t refused_trains;               /* whose segments were larger than the path */
};

/* The only one: udp.h has no place for a context. */
extern struct net net;

/** An empty network at some time, without faults, delay 5 ms each way. */
void net_init(uint64_t seed);
void net_deinit(void);
void net_forget_strays(void);

struct sockaddr_storage net_address(unsigned a, unsigned b, unsigned c, unsigned d, unsigned port);

/** A datagram from an address where nobody needs to be. */
void net_inject(const struct sockaddr_storage *from, const struct sockaddr_storage *to,
                const void *data, size_t len);

/** When the next datagram arrives; NET_NEVER when nothing is under way. */
uint64_t net_next_arrival(void);

struct net_socket *net_socket_of(const struct udp_socket *udp);

#endif
