#include "net.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <sys/random.h>

#include "base/check.h"
#include "base/clock.h"
#include "quic/cid.h"

struct net net;

/* What the linker puts in place of the functions of udp.c, and of getrandom. */
enum felix_err __wrap_udp_open(struct udp_socket *udp, const struct sockaddr_storage *bind,
                               bool reuseport, uint32_t recv_buffer_bytes,
                               uint32_t send_buffer_bytes, struct felix_error *reterr);
void __wrap_udp_close(struct udp_socket *udp);
unsigned __wrap_udp_receive(struct udp_socket *udp, udp_on_packet on_packet, void *context);
void __wrap_udp_send(struct udp_socket *udp, const struct sockaddr_storage *local,
                     const struct sockaddr_storage *peer, const uint8_t *data, size_t len,
                     size_t segment_bytes);
bool __wrap_udp_blocked(const struct udp_socket *udp);
bool __wrap_udp_retry(struct udp_socket *udp);
ssize_t __wrap_getrandom(void *out, size_t len, unsigned flags);

void net_init(uint64_t seed) {
    net = (struct net){.now_ns = 1000 * NS_PER_S, .seed = seed, .steer_to = -1};
    net.to_server.delay_ns = net.to_client.delay_ns = 5 * NS_PER_MS;
    rng_seed(&net.rng, seed);
}

static void free_packets(struct net_packet **list) {
    while (*list != NULL) {
        struct net_packet *packet = *list;
        *list = packet->next;
        free(packet);
    }
}

void net_forget_strays(void) {
    for (size_t i = 0; i < net.stray_count; i++)
        free(net.strays[i]);
    net.stray_count = 0;
}

void net_deinit(void) {
    net_forget_strays();
    for (size_t i = 0; i < NET_SOCKETS_MAX; i++) {
        free_packets(&net.sockets[i].inbox);
        free_packets(&net.sockets[i].kept);
    }
}

struct sockaddr_storage net_address(unsigned a, unsigned b, unsigned c, unsigned d, unsigned port) {
    struct sockaddr_storage out = {0};
    struct sockaddr_in *in = (void *)&out;
    in->sin_family = AF_INET;
    in->sin_port = htons((uint16_t)port);
    in->sin_addr.s_addr = htonl(a << 24 | b << 16 | c << 8 | d);
    return out;
}

static bool is_server(const struct sockaddr_storage *address) {
    return ((const struct sockaddr_in *)(const void *)address)->sin_port == htons(NET_SERVER_PORT);
}

struct net_socket *net_socket_of(const struct udp_socket *udp) {
    for (size_t i = 0; i < NET_SOCKETS_MAX; i++) {
        if (net.sockets[i].udp == udp)
            return &net.sockets[i];
    }
    return NULL;
}

/* Which of the server's sockets: the one that the id names, as the program in the kernel does. */
static unsigned steer(const struct net_packet *packet) {
    bool short_header = packet->len > 0 && (packet->data[0] & 0x80) == 0;
    size_t at = short_header ? 1 : 6;
    if (net.steer_to >= 0)
        return (unsigned)net.steer_to;
    if (packet->len < at + CID_BYTES || (!short_header && packet->data[5] != CID_BYTES))
        return 0;
    int reactor = cid_reactor(packet->data + at, CID_BYTES);
    return reactor < 0 ? 0 : (unsigned)reactor;
}

static struct net_socket *find_socket(const struct net_packet *packet) {
    unsigned skip = is_server(&packet->to) ? steer(packet) : 0;
    struct net_socket *first = NULL;
    for (size_t i = 0; i < NET_SOCKETS_MAX; i++) {
        struct net_socket *s = &net.sockets[i];
        if (s->udp == NULL || !sockaddr_equal(&s->udp->local, &packet->to))
            continue;
        if (first == NULL)
            first = s;
        if (skip-- == 0)
            return s;
    }
    return first;
}

static void keep_stray(struct net_packet *packet) {
    if (net.stray_count == NET_STRAYS_MAX) {
        free(packet);
        return;
    }
    net.strays[net.stray_count++] = packet;
}

/* Takes `packet`; behind all that are due earlier or at the same time. */
static void arrive(struct net_packet *packet) {
    bool natted = net.nat_to.ss_family != 0;
    if (natted && sockaddr_equal(&packet->to, &net.nat_from))
        packet->to = (struct sockaddr_storage){.ss_family = AF_INET};
    else if (natted && sockaddr_equal(&packet->to, &net.nat_to))
        packet->to = net.nat_from;
    struct net_socket *socket = find_socket(packet);
    if (socket == NULL) {
        keep_stray(packet);
        return;
    }
    struct net_packet **at = &socket->inbox;
    while (*at != NULL && (*at)->due_ns <= packet->due_ns)
        at = &(*at)->next;
    packet->next = *at;
    *at = packet;
}

static struct net_packet *packet_new(const struct sockaddr_storage *from,
                                     const struct sockaddr_storage *to, const uint8_t *data,
                                     size_t len, uint64_t due_ns) {
    struct net_packet *packet = xmalloc(sizeof *packet + len);
    *packet = (struct net_packet){.from = *from, .to = *to, .len = len, .due_ns = due_ns};
    if (len > 0)
        memcpy(packet->data, data, len);
    return packet;
}

static bool chance(unsigned permille) {
    return permille > 0 && rng_below(&net.rng, 1000) < permille;
}

void net_inject(const struct sockaddr_storage *from, const struct sockaddr_storage *to,
                const void *data, size_t len) {
    arrive(packet_new(from, to, data, len, net.now_ns));
}

static void transmit(const struct sockaddr_storage *from, const struct sockaddr_storage *to,
                     const uint8_t *data, size_t len) {
    bool up = is_server(to);
    const struct net_rule *rule = up ? &net.to_server : &net.to_client;
    struct net_packet *packet = packet_new(from, to, data, len, net.now_ns + rule->delay_ns);
    if (net.nat_to.ss_family != 0 && sockaddr_equal(from, &net.nat_from))
        packet->from = net.nat_to;
    net.sent[up]++;
    bool passes = net.tap == NULL || net.tap(&net, up, packet->data, len);
    if (!passes || (rule->mtu_bytes != 0 && len > rule->mtu_bytes) || chance(rule->lose_permille)) {
        net.lost[up]++;
        free(packet);
        return;
    }
    if (chance(rule->damage_permille)) {
        net.damaged[up]++;
        packet->data[rng_below(&net.rng, len)] ^= (uint8_t)(1 << rng_below(&net.rng, 8));
    }
    if (chance(rule->late_permille))
        packet->due_ns += rule->late_ns;
    if (len > net.largest[up])
        net.largest[up] = len;
    if (chance(rule->double_permille))
        arrive(packet_new(&packet->from, &packet->to, packet->data, len, packet->due_ns));
    arrive(packet);
}

uint64_t net_next_arrival(void) {
    uint64_t next_ns = NET_NEVER;
    for (size_t i = 0; i < NET_SOCKETS_MAX; i++) {
        const struct net_packet *first = net.sockets[i].inbox;
        if (net.sockets[i].udp != NULL && first != NULL && first->due_ns < next_ns)
            next_ns = first->due_ns;
    }
    return next_ns;
}

/* ---- in place of udp.c ---- */

enum felix_err __wrap_udp_open(struct udp_socket *udp, const struct sockaddr_storage *bind,
                               bool reuseport, uint32_t recv_buffer_bytes,
                               uint32_t send_buffer_bytes, struct felix_error *reterr) {
    struct net_socket *socket = net_socket_of(NULL);
    INVARIANT(socket != NULL);
    *udp = (struct udp_socket){.fd = -1, .gso = true, .local = *bind};
    *socket = (struct net_socket){.udp = udp};
    return FELIX_OK;
}

void __wrap_udp_close(struct udp_socket *udp) {
    struct net_socket *socket = net_socket_of(udp);
    free_packets(&socket->inbox);
    free_packets(&socket->kept);
    *socket = (struct net_socket){0};
}

unsigned __wrap_udp_receive(struct udp_socket *udp, udp_on_packet on_packet, void *context) {
    struct net_socket *socket = net_socket_of(udp);
    unsigned count = 0;
    while (count < UDP_RECV_BATCH && socket->inbox != NULL && socket->inbox->due_ns <= net.now_ns) {
        struct net_packet *packet = socket->inbox;
        socket->inbox = packet->next;
        struct udp_packet one = {.data = slice_of(packet->data, packet->len),
                                 .local = &udp->local,
                                 .peer = &packet->from};
        if (packet->len > 0) /* recvmmsg reports empty ones; udp_receive has nothing to hand on */
            on_packet(context, &one);
        free(packet);
        count++;
    }
    return count;
}

void __wrap_udp_send(struct udp_socket *udp, const struct sockaddr_storage *local,
                     const struct sockaddr_storage *peer, const uint8_t *data, size_t len,
                     size_t segment_bytes) {
    struct net_socket *socket = net_socket_of(udp);
    const struct net_rule *rule = is_server(peer) ? &net.to_server : &net.to_client;
    if (len > segment_bytes && rule->mtu_bytes > 0 && segment_bytes > rule->mtu_bytes) {
        net.refused_trains++; /* the system refuses all of it */
        return;
    }
    for (size_t at = 0; at < len; at += segment_bytes) {
        size_t bytes = len - at < segment_bytes ? len - at : segment_bytes;
        if (!socket->full) {
            transmit(local, peer, data + at, bytes);
            continue;
        }
        struct net_packet **tail = &socket->kept;
        while (*tail != NULL)
            tail = &(*tail)->next;
        *tail = packet_new(local, peer, data + at, bytes, 0);
        socket->kept_datagrams++;
    }
}

bool __wrap_udp_blocked(const struct udp_socket *udp) {
    return net_socket_of(udp)->kept != NULL;
}

bool __wrap_udp_retry(struct udp_socket *udp) {
    struct net_socket *socket = net_socket_of(udp);
    while (socket->kept != NULL && !socket->full) {
        struct net_packet *packet = socket->kept;
        socket->kept = packet->next;
        transmit(&packet->from, &packet->to, packet->data, packet->len);
        free(packet);
        socket->kept_datagrams--;
    }
    return socket->kept == NULL;
}

ssize_t __wrap_getrandom(void *out, size_t len, unsigned flags) {
    uint8_t *at = out;
    for (size_t i = 0; i < len; i++)
        at[i] = (uint8_t)rng_next(&net.rng);
    return (ssize_t)len;
}
