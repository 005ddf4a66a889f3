/*
 * Receiving: one recvmmsg of UDP_RECV_BATCH messages of 64 KiB, each possibly a train of
 * datagrams that the kernel joined (GRO); its control message tells their size.
 * Sending: one sendmsg per train (GSO). A kernel or device that refuses GSO gets the datagrams
 * one by one from then on. A full socket buffer keeps what was refused in a list, because
 * ngtcp2 already counts it as sent.
 */
#include "quic/udp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"
#include "quic/cid.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

#define RECV_BYTES ((size_t)65536)
#define BUFFER_BYTES_MIN ((uint32_t)64 << 10)

struct udp_pending {
    struct udp_pending *next;
    struct sockaddr_storage local, peer;
    size_t len, segment_bytes;
    uint8_t data[];
};

socklen_t sockaddr_bytes(const struct sockaddr_storage *address) {
    return address->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6)
                                          : sizeof(struct sockaddr_in);
}

bool sockaddr_equal(const struct sockaddr_storage *a, const struct sockaddr_storage *b) {
    if (a->ss_family != b->ss_family)
        return false;
    if (a->ss_family == AF_INET6) {
        const struct sockaddr_in6 *x = (const void *)a, *y = (const void *)b;
        return x->sin6_port == y->sin6_port &&
               memcmp(&x->sin6_addr, &y->sin6_addr, sizeof x->sin6_addr) == 0;
    }
    const struct sockaddr_in *x = (const void *)a, *y = (const void *)b;
    return x->sin_port == y->sin_port && x->sin_addr.s_addr == y->sin_addr.s_addr;
}

bool sockaddr_is_loopback(const struct sockaddr_storage *address) {
    if (address->ss_family == AF_INET6) {
        const struct in6_addr *in6 =
            &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr;
        return IN6_IS_ADDR_LOOPBACK(in6) || (IN6_IS_ADDR_V4MAPPED(in6) && in6->s6_addr[12] == 127);
    }
    return (ntohl(((const struct sockaddr_in *)(const void *)address)->sin_addr.s_addr) >> 24) ==
           127;
}

const char *sockaddr_text(const struct sockaddr_storage *address, char out[64]) {
    char ip[INET6_ADDRSTRLEN] = "?";
    if (address->ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const void *)address;
        (void)inet_ntop(AF_INET6, &in6->sin6_addr, ip, sizeof ip);
        (void)snprintf(out, 64, "[%s]:%u", ip, ntohs(in6->sin6_port));
    } else {
        const struct sockaddr_in *in = (const void *)address;
        (void)inet_ntop(AF_INET, &in->sin_addr, ip, sizeof ip);
        (void)snprintf(out, 64, "%s:%u", ip, ntohs(in->sin_port));
    }
    return out;
}

/* Ask for `bytes`, beyond the system's limit where we may; halve until it is granted. */
static int set_buffer(int fd, int force_option, int option, uint32_t bytes) {
    for (; bytes >= BUFFER_BYTES_MIN; bytes /= 2) {
        int value = (int)bytes;
        if (setsockopt(fd, SOL_SOCKET, force_option, &value, sizeof value) == 0 ||
            setsockopt(fd, SOL_SOCKET, option, &value, sizeof value) == 0)
            break;
    }
    int granted = 0;
    socklen_t len = sizeof granted;
    (void)getsockopt(fd, SOL_SOCKET, option, &granted, &len);
    return granted / 2; /* the kernel reports twice what it was asked for */
}

static bool is_wildcard(const struct sockaddr_storage *address) {
    if (address->ss_family == AF_INET6)
        return IN6_IS_ADDR_UNSPECIFIED(
            &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr);
    return ((const struct sockaddr_in *)(const void *)address)->sin_addr.s_addr == INADDR_ANY;
}

static void set_options(struct udp_socket *udp, int family) {
    int one = 1;
    int probe = IP_PMTUDISC_PROBE; /* never fragment: path MTU discovery is QUIC's own */
    if (family == AF_INET6) {
        int probe6 = IPV6_PMTUDISC_PROBE;
        (void)setsockopt(udp->fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, &probe6, sizeof probe6);
        if (udp->wildcard)
            (void)setsockopt(udp->fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &one, sizeof one);
    } else {
        (void)setsockopt(udp->fd, IPPROTO_IP, IP_MTU_DISCOVER, &probe, sizeof probe);
        if (udp->wildcard)
            (void)setsockopt(udp->fd, IPPROTO_IP, IP_PKTINFO, &one, sizeof one);
    }
    (void)setsockopt(udp->fd, IPPROTO_UDP, UDP_GRO, &one, sizeof one);
}

enum felix_err udp_open(struct udp_socket *udp, const struct sockaddr_storage *bind_address,
                        bool reuseport, uint32_t recv_buffer_bytes, uint32_t send_buffer_bytes,
                        struct felix_error *reterr) {
    char text[64];
    *udp = (struct udp_socket){.gso = true, .wildcard = is_wildcard(bind_address)};
    udp->fd = socket(bind_address->ss_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (udp->fd < 0)
        return error_set(reterr, FELIX_SYSTEM, errno, "cannot open a UDP socket");

    int one = 1;
    if (reuseport)
        (void)setsockopt(udp->fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
    if (bind(udp->fd, (const struct sockaddr *)bind_address, sockaddr_bytes(bind_address)) != 0) {
        int saved = errno;
        (void)close(udp->fd);
        return error_set(reterr, FELIX_SYSTEM, saved, "cannot listen on UDP %s",
                         sockaddr_text(bind_address, text));
    }
    socklen_t len = sizeof udp->local;
    (void)getsockname(udp->fd, (struct sockaddr *)&udp->local, &len);

    set_options(udp, bind_address->ss_family);
    udp->recv_buffer_bytes = set_buffer(udp->fd, SO_RCVBUFFORCE, SO_RCVBUF, recv_buffer_bytes);
    udp->send_buffer_bytes = set_buffer(udp->fd, SO_SNDBUFFORCE, SO_SNDBUF, send_buffer_bytes);
    udp->recv_memory = xmalloc(UDP_RECV_BATCH * RECV_BYTES);
    return FELIX_OK;
}

void udp_close(struct udp_socket *udp) {
    while (udp->pending_head != NULL) {
        struct udp_pending *pending = udp->pending_head;
        udp->pending_head = pending->next;
        free(pending);
    }
    free(udp->recv_memory);
    (void)close(udp->fd);
}

/*
 * Classic BPF over the UDP payload: a short header carries our id at byte 1, a long header with
 * an 8-byte id at byte 6; both name the reactor when the tag matches. Anything else returns an
 * index that does not exist, and the kernel falls back to its hash of the addresses.
 */
enum felix_err udp_attach_steering(struct udp_socket *udp) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 0),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 0x80, 4, 0),
        /* short header */
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 1),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, CID_TAG, 0, 7),
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 1 + CID_REACTOR_AT),
        BPF_STMT(BPF_RET | BPF_A, 0),
        /* long header */
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 5),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, CID_BYTES, 0, 3),
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 6),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, CID_TAG, 2, 0),
        BPF_STMT(BPF_RET | BPF_K, 0xffffffff),
        BPF_STMT(BPF_RET | BPF_K, 0xffffffff),
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 6 + CID_REACTOR_AT),
        BPF_STMT(BPF_RET | BPF_A, 0),
    };
    struct sock_fprog program = {.len = sizeof code / sizeof code[0], .filter = code};
    if (setsockopt(udp->fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof program) != 0)
        return FELIX_SYSTEM;
    return FELIX_OK;
}

/* Aligned as a control message header must be. */
struct control {
    _Alignas(struct cmsghdr)
        uint8_t bytes[CMSG_SPACE(sizeof(int)) + CMSG_SPACE(sizeof(struct in6_pktinfo))];
};

/* Segment size of a joined train, and the address that the packet was sent to. */
static size_t read_control(const struct udp_socket *udp, struct msghdr *message,
                           struct sockaddr_storage *local) {
    size_t segment_bytes = 0;
    *local = udp->local;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c != NULL; c = CMSG_NXTHDR(message, c)) {
        if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO) {
            int size = 0;
            memcpy(&size, CMSG_DATA(c), sizeof size);
            segment_bytes = size > 0 ? (size_t)size : 0;
        } else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
            struct in_pktinfo info;
            memcpy(&info, CMSG_DATA(c), sizeof info);
            ((struct sockaddr_in *)(void *)local)->sin_addr = info.ipi_addr;
        } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
            struct in6_pktinfo info;
            memcpy(&info, CMSG_DATA(c), sizeof info);
            ((struct sockaddr_in6 *)(void *)local)->sin6_addr = info.ipi6_addr;
        }
    }
    return segment_bytes;
}

unsigned udp_receive(struct udp_socket *udp, udp_on_packet on_packet, void *context) {
    struct mmsghdr messages[UDP_RECV_BATCH];
    struct iovec vectors[UDP_RECV_BATCH];
    struct sockaddr_storage peers[UDP_RECV_BATCH];
    struct control controls[UDP_RECV_BATCH];

    for (unsigned i = 0; i < UDP_RECV_BATCH; i++) {
        vectors[i] =
            (struct iovec){.iov_base = udp->recv_memory + i * RECV_BYTES, .iov_len = RECV_BYTES};
        messages[i].msg_hdr = (struct msghdr){
            .msg_name = &peers[i],
            .msg_namelen = sizeof peers[i],
            .msg_iov = &vectors[i],
            .msg_iovlen = 1,
            // cppcheck-suppress [uninitvar,legacyUninitvar] ; only the address is taken
            .msg_control = controls[i].bytes,
            .msg_controllen = sizeof controls[i],
        };
    }
    udp->recv_calls++;
    int count = recvmmsg(udp->fd, messages, UDP_RECV_BATCH, MSG_DONTWAIT, NULL);
    for (int i = 0; i < count; i++) {
        struct sockaddr_storage local;
        size_t segment_bytes = read_control(udp, &messages[i].msg_hdr, &local);
        const uint8_t *at = udp->recv_memory + (size_t)i * RECV_BYTES;
        size_t left = messages[i].msg_len;
        if (segment_bytes == 0)
            segment_bytes = left;
        while (left > 0) {
            size_t len = left < segment_bytes ? left : segment_bytes;
            struct udp_packet packet = {
                .data = slice_of(at, len), .local = &local, .peer = &peers[i]};
            on_packet(context, &packet);
            at += len;
            left -= len;
        }
    }
    return count > 0 ? (unsigned)count : 0;
}

static size_t put_control(const struct udp_socket *udp, struct control *control,
                          struct msghdr *message, const struct sockaddr_storage *local,
                          uint16_t segment_bytes) {
    message->msg_control = control->bytes;
    message->msg_controllen = sizeof *control;
    struct cmsghdr *c = CMSG_FIRSTHDR(message);
    size_t used = 0;
    if (segment_bytes != 0) {
        c->cmsg_level = IPPROTO_UDP;
        c->cmsg_type = UDP_SEGMENT;
        c->cmsg_len = CMSG_LEN(sizeof segment_bytes);
        memcpy(CMSG_DATA(c), &segment_bytes, sizeof segment_bytes);
        used += CMSG_SPACE(sizeof segment_bytes);
        c = (struct cmsghdr *)(void *)(control->bytes + used);
    }
    if (!udp->wildcard)
        return used;
    if (local->ss_family == AF_INET6) {
        struct in6_pktinfo info = {
            .ipi6_addr = ((const struct sockaddr_in6 *)(const void *)local)->sin6_addr};
        c->cmsg_level = IPPROTO_IPV6;
        c->cmsg_type = IPV6_PKTINFO;
        c->cmsg_len = CMSG_LEN(sizeof info);
        memcpy(CMSG_DATA(c), &info, sizeof info);
        return used + CMSG_SPACE(sizeof info);
    }
    struct in_pktinfo info = {.ipi_spec_dst =
                                  ((const struct sockaddr_in *)(const void *)local)->sin_addr};
    c->cmsg_level = IPPROTO_IP;
    c->cmsg_type = IP_PKTINFO;
    c->cmsg_len = CMSG_LEN(sizeof info);
    memcpy(CMSG_DATA(c), &info, sizeof info);
    return used + CMSG_SPACE(sizeof info);
}

/* One system call. 0, or the error number. */
static int send_once(struct udp_socket *udp, const struct sockaddr_storage *local,
                     const struct sockaddr_storage *peer, const uint8_t *data, size_t len,
                     size_t segment_bytes) {
    struct control control;
    memset(&control, 0, sizeof control);
    struct iovec vector = {.iov_base = (void *)(uintptr_t)data, .iov_len = len};
    struct msghdr message = {
        .msg_name = (void *)(uintptr_t)peer,
        .msg_namelen = sockaddr_bytes(peer),
        .msg_iov = &vector,
        .msg_iovlen = 1,
    };
    uint16_t segment = len > segment_bytes ? (uint16_t)segment_bytes : 0;
    size_t control_bytes = put_control(udp, &control, &message, local, segment);
    message.msg_controllen = control_bytes;
    if (control_bytes == 0)
        message.msg_control = NULL;
    udp->send_calls++;
    return sendmsg(udp->fd, &message, MSG_DONTWAIT) < 0 ? errno : 0;
}

static void keep(struct udp_socket *udp, const struct sockaddr_storage *local,
                 const struct sockaddr_storage *peer, const uint8_t *data, size_t len,
                 size_t segment_bytes) {
    struct udp_pending *pending = xmalloc(sizeof *pending + len);
    *pending = (struct udp_pending){
        .local = *local, .peer = *peer, .len = len, .segment_bytes = segment_bytes};
    memcpy(pending->data, data, len);
    if (udp->pending_tail != NULL)
        udp->pending_tail->next = pending;
    else
        udp->pending_head = pending;
    udp->pending_tail = pending;
}

/* Returns false when the socket buffer is full; *ret_done tells how many bytes went out. */
static bool send_all(struct udp_socket *udp, const struct sockaddr_storage *local,
                     const struct sockaddr_storage *peer, const uint8_t *data, size_t len,
                     size_t segment_bytes, size_t *ret_done) {
    size_t done = 0;
    while (done < len) {
        size_t chunk = udp->gso                     ? len - done
                       : len - done < segment_bytes ? len - done
                                                    : segment_bytes;
        int error = send_once(udp, local, peer, data + done, chunk, segment_bytes);
        if (error == EAGAIN || error == EWOULDBLOCK) {
            *ret_done = done;
            return false;
        }
        if ((error == EIO || error == EINVAL || error == EOPNOTSUPP) && udp->gso &&
            chunk > segment_bytes) {
            udp->gso = false;
            LOG_WARN(quic, "gso_off", F_STR("reason", strerror(error)),
                     F_U64("segment_bytes", segment_bytes));
            continue;
        }
        /* Any other error is lost datagrams: the transport recovers. */
        if (error != 0)
            udp->send_errors++;
        done += chunk;
    }
    *ret_done = done;
    return true;
}

void udp_send(struct udp_socket *udp, const struct sockaddr_storage *local,
              const struct sockaddr_storage *peer, const uint8_t *data, size_t len,
              size_t segment_bytes) {
    size_t done = 0;
    if (udp->pending_head != NULL) {
        keep(udp, local, peer, data, len, segment_bytes);
        return;
    }
    if (!send_all(udp, local, peer, data, len, segment_bytes, &done))
        keep(udp, local, peer, data + done, len - done, segment_bytes);
}

bool udp_blocked(const struct udp_socket *udp) {
    return udp->pending_head != NULL;
}

bool udp_retry(struct udp_socket *udp) {
    while (udp->pending_head != NULL) {
        struct udp_pending *pending = udp->pending_head;
        size_t done = 0;
        bool sent = send_all(udp, &pending->local, &pending->peer, pending->data, pending->len,
                             pending->segment_bytes, &done);
        if (!sent) {
            memmove(pending->data, pending->data + done, pending->len - done);
            pending->len -= done;
            return false;
        }
        udp->pending_head = pending->next;
        if (udp->pending_head == NULL)
            udp->pending_tail = NULL;
        free(pending);
    }
    return true;
}
