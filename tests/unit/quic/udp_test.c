/* Real sockets on loopback; sendmsg can be made to fail. */
#include "quic/udp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/check.h"
#include "quic/cid.h"

#define BUFFER_BYTES ((uint32_t)1 << 20)
#define REACTORS 4u

/* ---- sendmsg ---- */

static int send_error;         /* what every call fails with; 0: none */
static unsigned sends_allowed; /* that many succeed before */
static int segment_error;      /* what calls with UDP_SEGMENT fail with */
static unsigned segmented_sends;

ssize_t __real_sendmsg(int fd, const struct msghdr *message, int flags);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags);

static bool is_segmented(const struct msghdr *message) {
    const struct cmsghdr *c = message->msg_control;
    return message->msg_controllen > 0 && c->cmsg_level == IPPROTO_UDP;
}

ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags) {
    bool segmented = is_segmented(message);
    segmented_sends += segmented;
    if (segmented && segment_error != 0) {
        errno = segment_error;
        return -1;
    }
    if (send_error != 0 && sends_allowed == 0) {
        errno = send_error;
        return -1;
    }
    sends_allowed -= sends_allowed > 0;
    return __real_sendmsg(fd, message, flags);
}

/* ---- help ---- */

struct got {
    size_t count, bytes;
    size_t lens[256];
    uint8_t data[512 << 10];
    struct sockaddr_storage local, peer;
};

static struct got got;

static void on_packet(void *context, const struct udp_packet *packet) {
    struct got *into = context;
    INVARIANT(into->count < 256 && into->bytes + packet->data.len <= sizeof into->data);
    into->lens[into->count++] = packet->data.len;
    memcpy(into->data + into->bytes, packet->data.data, packet->data.len);
    into->bytes += packet->data.len;
    into->local = *packet->local;
    into->peer = *packet->peer;
}

static struct sockaddr_storage address4(const char *ip, unsigned port) {
    struct sockaddr_storage out = {0};
    struct sockaddr_in *in = (void *)&out;
    in->sin_family = AF_INET;
    in->sin_port = htons((uint16_t)port);
    assert_int_equal(inet_pton(AF_INET, ip, &in->sin_addr), 1);
    return out;
}

static struct sockaddr_storage address6(const char *ip, unsigned port) {
    struct sockaddr_storage out = {0};
    struct sockaddr_in6 *in = (void *)&out;
    in->sin6_family = AF_INET6;
    in->sin6_port = htons((uint16_t)port);
    assert_int_equal(inet_pton(AF_INET6, ip, &in->sin6_addr), 1);
    return out;
}

static uint16_t port_of(const struct udp_socket *udp) {
    return ntohs(((const struct sockaddr_in *)(const void *)&udp->local)->sin_port);
}

static void open_at(struct udp_socket *udp, struct sockaddr_storage address, bool reuseport) {
    assert_int_equal(udp_open(udp, &address, reuseport, BUFFER_BYTES, BUFFER_BYTES, NULL),
                     FELIX_OK);
}

static struct udp_socket from, to;

static int setup(void **) {
    send_error = segment_error = 0;
    sends_allowed = segmented_sends = 0;
    got = (struct got){0};
    open_at(&from, address4("127.0.0.1", 0), false);
    open_at(&to, address4("127.0.0.1", 0), false);
    return 0;
}

static int teardown(void **) {
    udp_close(&from);
    udp_close(&to);
    return 0;
}

/* Until `count` datagrams came; loopback delivers them, if not at once. */
static void receive(struct udp_socket *udp, size_t count) {
    while (got.count < count) {
        struct pollfd wait = {.fd = udp->fd, .events = POLLIN};
        assert_int_equal(poll(&wait, 1, 20000), 1);
        (void)udp_receive(udp, on_packet, &got);
    }
    assert_int_equal(udp_receive(udp, on_packet, &got), 0);
    assert_int_equal(got.count, count);
}

static uint8_t bytes[60000];

static void fill(void) {
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 7 + (i >> 8) * 13);
}

static void send_train(size_t len, size_t segment_bytes) {
    fill();
    udp_send(&from, &from.local, &to.local, bytes, len, segment_bytes);
}

static void assert_train(size_t len, size_t segment_bytes) {
    size_t count = (len + segment_bytes - 1) / segment_bytes;
    receive(&to, count);
    for (size_t i = 0; i + 1 < count; i++)
        assert_int_equal(got.lens[i], segment_bytes);
    assert_int_equal(got.lens[count - 1], len - (count - 1) * segment_bytes);
    assert_int_equal(got.bytes, len);
    assert_memory_equal(got.data, bytes, len);
    assert_true(sockaddr_equal(&got.peer, &from.local));
    assert_true(sockaddr_equal(&got.local, &to.local));
}

/* ---- trains ---- */

static void train_arrives_as_its_datagrams(void **) {
    send_train(40 * 1200 + 5, 1200);
    assert_train(40 * 1200 + 5, 1200);
    assert_true(from.send_calls == 1 || !from.gso);
}

static void single_datagram_needs_no_segmentation(void **) {
    send_train(1200, 1200);
    assert_train(1200, 1200);
    assert_int_equal(segmented_sends, 0);
}

static void kernel_that_refuses_trains_gets_them_one_by_one(void **) {
    static const int errors[] = {EIO, EINVAL, EOPNOTSUPP};
    for (size_t i = 0; i < 3; i++) {
        segment_error = errors[i];
        from.gso = true;
        got = (struct got){0};
        segmented_sends = 0;
        send_train(10 * 1000 + 1, 1000);
        assert_train(10 * 1000 + 1, 1000);
        assert_false(from.gso);
        assert_int_equal(segmented_sends, 1);
        got = (struct got){0};
        send_train(5000, 1000);
        assert_train(5000, 1000);
        assert_int_equal(segmented_sends, 1); /* it is not asked again */
    }
}

static void largest_datagram_passes(void **) {
    static uint8_t large[65493];
    udp_send(&from, &from.local, &to.local, large, sizeof large, sizeof large);
    receive(&to, 1);
    assert_int_equal(got.lens[0], sizeof large);
}

static void one_call_receives_a_bounded_number(void **) {
    for (size_t i = 0; i < 3 * UDP_RECV_BATCH; i++)
        send_train(10 + i, 2000);
    struct pollfd wait = {.fd = to.fd, .events = POLLIN};
    assert_int_equal(poll(&wait, 1, 20000), 1);
    assert_true(udp_receive(&to, on_packet, &got) <= UDP_RECV_BATCH);
    receive(&to, 3 * UDP_RECV_BATCH);
}

static void empty_datagram_is_nobody_s(void **) {
    assert_int_equal(
        sendto(from.fd, "", 0, 0, (struct sockaddr *)&to.local, sockaddr_bytes(&to.local)), 0);
    send_train(10, 10);
    assert_train(10, 10);
}

/* ---- a full send buffer ---- */

static void what_a_full_buffer_refused_leaves_in_order_later(void **) {
    fill();
    send_error = EAGAIN;
    sends_allowed = 1;
    for (size_t i = 0; i < 4; i++)
        udp_send(&from, &from.local, &to.local, bytes + i * 3000, 3000, 1000);
    assert_true(udp_blocked(&from));
    sends_allowed = 1; /* there is room again, but others are first */
    udp_send(&from, &from.local, &to.local, bytes + 12000, 3000, 1000);
    sends_allowed = 0;
    assert_false(udp_retry(&from));
    sends_allowed = 2;
    assert_false(udp_retry(&from));
    send_error = 0;
    assert_true(udp_retry(&from));
    assert_false(udp_blocked(&from));
    assert_train(15000, 1000);
}

static void half_a_train_is_not_sent_twice(void **) {
    from.gso = false;
    send_error = EAGAIN;
    sends_allowed = 4;
    send_train(10001, 1000);
    assert_true(udp_blocked(&from));
    sends_allowed = 3;
    assert_false(udp_retry(&from));
    send_error = 0;
    assert_true(udp_retry(&from));
    assert_train(10001, 1000);
}

static void other_errors_are_a_loss_and_block_nothing(void **) {
    /* ENOBUFS is the device's queue, of which the socket's readiness knows nothing. */
    static const int errors[] = {ECONNREFUSED, EMSGSIZE, ENETUNREACH, EPERM, ENOBUFS};
    for (size_t i = 0; i < 5; i++) {
        send_error = errors[i];
        send_train(1000, 1000);
        assert_false(udp_blocked(&from));
        assert_int_equal(from.send_errors, i + 1);
    }
    send_error = 0;
    send_train(1000, 1000);
    assert_train(1000, 1000);
}

static void closing_frees_what_was_kept(void **) {
    send_error = EAGAIN;
    send_train(10000, 1000);
    send_train(10000, 1000);
    assert_true(udp_blocked(&from)); /* the teardown closes; the leak checker judges */
}

/* ---- addresses ---- */

static void wildcard_socket_tells_and_keeps_the_address_that_was_asked(void **) {
    udp_close(&to);
    open_at(&to, address4("0.0.0.0", 0), false);
    assert_true(to.wildcard);
    struct sockaddr_storage second = address4("127.0.0.2", port_of(&to));
    fill();
    udp_send(&from, &from.local, &second, bytes, 3000, 1000);
    receive(&to, 3);
    assert_true(sockaddr_equal(&got.local, &second));

    struct sockaddr_storage local = got.local, peer = got.peer;
    got = (struct got){0};
    udp_send(&to, &local, &peer, bytes, 3000, 1000);
    receive(&from, 3);
    assert_true(sockaddr_equal(&got.peer, &second));
    assert_memory_equal(got.data, bytes, 3000);
}

static void ipv6_works_the_same(void **) {
    int probe = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct sockaddr_storage loopback = address6("::1", 0);
    bool has =
        probe >= 0 && bind(probe, (struct sockaddr *)&loopback, sizeof(struct sockaddr_in6)) == 0;
    if (probe >= 0)
        (void)close(probe);
    if (!has) {
        print_message("no IPv6 on this machine\n");
        skip();
    }
    udp_close(&from);
    udp_close(&to);
    open_at(&from, address6("::1", 0), false);
    open_at(&to, address6("::", 0), false);
    struct sockaddr_storage target = address6("::1", port_of(&to));
    fill();
    udp_send(&from, &from.local, &target, bytes, 30000, 1200);
    receive(&to, 25);
    assert_memory_equal(got.data, bytes, 30000);
    assert_true(sockaddr_equal(&got.local, &target));
    struct sockaddr_storage peer = got.peer;
    got = (struct got){0};
    udp_send(&to, &target, &peer, bytes, 30000, 1200);
    receive(&from, 25);
    assert_true(sockaddr_equal(&got.peer, &target));
}

static void port_that_is_taken_is_an_error_with_its_address(void **) {
    struct udp_socket second;
    struct felix_error error;
    char text[64];
    assert_int_equal(udp_open(&second, &to.local, false, BUFFER_BYTES, BUFFER_BYTES, &error),
                     FELIX_SYSTEM);
    assert_non_null(strstr(error.text, sockaddr_text(&to.local, text)));
    assert_int_equal(error.sys_errno, EADDRINUSE);
}

static void addresses_compare_and_print(void **) {
    struct sockaddr_storage a = address4("127.0.0.1", 5000), b = address4("10.0.0.1", 5000);
    struct sockaddr_storage c = address6("::1", 5000), d = address6("::ffff:127.9.9.9", 5000);
    struct sockaddr_storage e = address6("2001:db8::1", 5000), f = address4("127.0.0.1", 5001);
    char text[64];
    assert_true(sockaddr_equal(&a, &a) && sockaddr_equal(&c, &c));
    assert_false(sockaddr_equal(&a, &b) || sockaddr_equal(&a, &c) || sockaddr_equal(&c, &e));
    assert_false(sockaddr_equal(&a, &f));
    assert_true(sockaddr_is_loopback(&a) && sockaddr_is_loopback(&c) && sockaddr_is_loopback(&d));
    assert_false(sockaddr_is_loopback(&b) || sockaddr_is_loopback(&e));
    assert_string_equal(sockaddr_text(&a, text), "127.0.0.1:5000");
    assert_string_equal(sockaddr_text(&e, text), "[2001:db8::1]:5000");
}

/* ---- steering ---- */

static struct udp_socket reactors[REACTORS];

static void open_reactors(void) {
    open_at(&reactors[0], address4("127.0.0.1", 0), true);
    for (unsigned i = 1; i < REACTORS; i++)
        open_at(&reactors[i], reactors[0].local, true);
    assert_int_equal(udp_attach_steering(&reactors[REACTORS - 1]), FELIX_OK);
}

static void close_reactors(void) {
    for (unsigned i = 0; i < REACTORS; i++)
        udp_close(&reactors[i]);
}

/* Which socket gets this one; fails when none or two do. */
static unsigned who_gets(struct udp_socket *sender, const uint8_t *packet, size_t len) {
    struct pollfd wait[REACTORS];
    unsigned who = REACTORS;
    for (unsigned i = 0; i < REACTORS; i++)
        wait[i] = (struct pollfd){.fd = reactors[i].fd, .events = POLLIN};
    udp_send(sender, &sender->local, &reactors[0].local, packet, len, len);
    assert_int_equal(poll(wait, REACTORS, 20000), 1);
    for (unsigned i = 0; i < REACTORS; i++) {
        got = (struct got){0};
        if (udp_receive(&reactors[i], on_packet, &got) > 0) {
            assert_int_equal(who, REACTORS);
            who = i;
        }
    }
    return who;
}

static size_t short_packet(uint8_t *packet, struct cid cid) {
    packet[0] = 0x40;
    memcpy(packet + 1, cid.bytes, CID_BYTES);
    return 40;
}

static size_t long_packet(uint8_t *packet, struct cid cid) {
    memcpy(packet, "\xc0\0\0\0\1\x08", 6);
    memcpy(packet + 6, cid.bytes, CID_BYTES);
    return 60;
}

static void ids_lead_to_the_reactor_that_they_name(void **) {
    uint8_t packet[64] = {0};
    open_reactors();
    for (unsigned round = 0; round < 20; round++) {
        struct udp_socket sender; /* another port, so another hash of the addresses */
        open_at(&sender, address4("127.0.0.1", 0), false);
        for (unsigned reactor = 0; reactor < REACTORS; reactor++) {
            struct cid cid = cid_generate((uint8_t)reactor);
            assert_int_equal(who_gets(&sender, packet, short_packet(packet, cid)), reactor);
            assert_int_equal(who_gets(&sender, packet, long_packet(packet, cid)), reactor);
        }
        udp_close(&sender);
    }
    close_reactors();
}

/* Whatever stands in an id, somebody gets the packet, and always the same for one address. */
static void tampered_and_foreign_ids_stay_with_one_reactor(void **) {
    uint8_t packet[64] = {0};
    open_reactors();
    struct cid cid = cid_generate(200); /* there are not so many */
    unsigned home = who_gets(&from, packet, short_packet(packet, cid));
    assert_int_equal(who_gets(&from, packet, long_packet(packet, cid)), home);
    cid = cid_generate((uint8_t)((home + 1) % REACTORS));
    cid.bytes[0] ^= 1; /* not our tag: what follows is not a reactor */
    assert_int_equal(who_gets(&from, packet, short_packet(packet, cid)), home);
    assert_int_equal(who_gets(&from, packet, long_packet(packet, cid)), home);
    cid.bytes[0] ^= 1;
    (void)long_packet(packet, cid);
    packet[5] = 9; /* not our length */
    assert_int_equal(who_gets(&from, packet, 60), home);
    for (size_t len = 1; len < 12; len++) {
        assert_true(who_gets(&from, packet, len) < REACTORS);
        uint8_t first = packet[0];
        packet[0] = 0x40;
        assert_true(who_gets(&from, packet, len) < REACTORS);
        packet[0] = first;
    }
    close_reactors();
}

#define UDP_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        UDP_TEST(train_arrives_as_its_datagrams),
        UDP_TEST(single_datagram_needs_no_segmentation),
        UDP_TEST(kernel_that_refuses_trains_gets_them_one_by_one),
        UDP_TEST(largest_datagram_passes),
        UDP_TEST(one_call_receives_a_bounded_number),
        UDP_TEST(empty_datagram_is_nobody_s),
        UDP_TEST(what_a_full_buffer_refused_leaves_in_order_later),
        UDP_TEST(half_a_train_is_not_sent_twice),
        UDP_TEST(other_errors_are_a_loss_and_block_nothing),
        UDP_TEST(closing_frees_what_was_kept),
        UDP_TEST(wildcard_socket_tells_and_keeps_the_address_that_was_asked),
        UDP_TEST(ipv6_works_the_same),
        UDP_TEST(port_that_is_taken_is_an_error_with_its_address),
        UDP_TEST(addresses_compare_and_print),
        UDP_TEST(ids_lead_to_the_reactor_that_they_name),
        UDP_TEST(tampered_and_foreign_ids_stay_with_one_reactor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
