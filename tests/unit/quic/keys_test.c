/* Connections whose two sides have the same or different packet ciphers, with every suite. */
#include "pair.h"

#include "quic/cipher.h"

#define CHANGES 6u

static bool ipsec_mb_usable;

struct suite {
    gnutls_cipher_algorithm_t cipher;
    const char *priority; /* of the client; NULL: as it is */
};

#define PRIORITY(cipher)                                                                           \
    "NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+" cipher                                           \
    ":-GROUP-ALL:+GROUP-X25519:%DISABLE_TLS13_COMPAT_MODE"

static const struct suite usual = {GNUTLS_CIPHER_AES_128_GCM, NULL};
static const struct suite large_key = {GNUTLS_CIPHER_AES_256_GCM, PRIORITY("AES-256-GCM")};
static const struct suite other = {GNUTLS_CIPHER_CHACHA20_POLY1305, PRIORITY("CHACHA20-POLY1305")};

/* Does this side protect packets with GnuTLS, whose algorithms are small numbers? */
static bool by_gnutls(const struct party *party) {
    return (uintptr_t)ngtcp2_conn_get_crypto_ctx(party->conn->conn)->aead.native_handle < 1024;
}

static void connect_with(const struct suite *suite) {
    struct quic_conn *conn = party_connect(&pair.client, NULL);
    if (suite->priority != NULL)
        assert_int_equal(gnutls_priority_set_direct(conn->session, suite->priority, NULL), 0);
    assert_true(pair_run(both_ready, HANDSHAKE_MS));
    assert_int_equal(gnutls_cipher_get(pair.server.conn->session), suite->cipher);
}

/* Bytes both ways while the sides change keys in turns. */
static void change_keys(void) {
    unsigned changes = 0;
    struct traffic *up = party_send(&pair.client, true, 1, false);
    struct traffic *down = party_send(&pair.server, true, 1, false);
    for (unsigned round = 0; round < 500 && changes < CHANGES; round++) {
        struct party *by = changes % 2 == 0 ? &pair.client : &pair.server;
        changes += quic_conn_update_key(by->conn) == FELIX_OK;
        traffic_send(up, 20000, false);
        traffic_send(down, 20000, false);
        pair_pass(10);
    }
    assert_int_equal(changes, CHANGES);
    traffic_send(up, 50000, true);
    traffic_send(down, 50000, true);
    assert_true(pair_run(all_arrived, 2000));
    assert_all_right();
}

static void check_pairing(enum quic_cipher server, enum quic_cipher client,
                          const struct suite *suite) {
    if (!ipsec_mb_usable)
        skip();
    pair_restart(server, client);
    connect_with(suite);
    const bool gcm = suite->cipher != GNUTLS_CIPHER_CHACHA20_POLY1305;
    assert_int_equal(by_gnutls(&pair.server), !gcm || server == QUIC_CIPHER_GNUTLS);
    assert_int_equal(by_gnutls(&pair.client), !gcm || client == QUIC_CIPHER_GNUTLS);
    change_keys();
}

static void keys_change_with_ipsec_mb_on_both_sides(void **) {
    check_pairing(QUIC_CIPHER_IPSEC_MB, QUIC_CIPHER_IPSEC_MB, &usual);
}

static void keys_change_with_gnutls_on_both_sides(void **) {
    check_pairing(QUIC_CIPHER_GNUTLS, QUIC_CIPHER_GNUTLS, &usual);
}

static void keys_change_with_ipsec_mb_at_the_server(void **) {
    check_pairing(QUIC_CIPHER_IPSEC_MB, QUIC_CIPHER_GNUTLS, &usual);
}

static void keys_change_with_ipsec_mb_at_the_client(void **) {
    check_pairing(QUIC_CIPHER_GNUTLS, QUIC_CIPHER_IPSEC_MB, &usual);
}

static void large_keys_change_with_ipsec_mb_on_both_sides(void **) {
    check_pairing(QUIC_CIPHER_IPSEC_MB, QUIC_CIPHER_IPSEC_MB, &large_key);
}

static void large_keys_change_with_ipsec_mb_at_the_server(void **) {
    check_pairing(QUIC_CIPHER_IPSEC_MB, QUIC_CIPHER_GNUTLS, &large_key);
}

static void large_keys_change_with_ipsec_mb_at_the_client(void **) {
    check_pairing(QUIC_CIPHER_GNUTLS, QUIC_CIPHER_IPSEC_MB, &large_key);
}

static void chacha20_falls_back_to_gnutls(void **) {
    check_pairing(QUIC_CIPHER_IPSEC_MB, QUIC_CIPHER_IPSEC_MB, &other);
}

int main(void) {
    enum quic_cipher chosen;
    ipsec_mb_usable = quic_cipher_choose(QUIC_CIPHER_IPSEC_MB, &chosen, NULL) == FELIX_OK;
    const struct CMUnitTest tests[] = {
        PAIR_TEST(keys_change_with_ipsec_mb_on_both_sides),
        PAIR_TEST(keys_change_with_gnutls_on_both_sides),
        PAIR_TEST(keys_change_with_ipsec_mb_at_the_server),
        PAIR_TEST(keys_change_with_ipsec_mb_at_the_client),
        PAIR_TEST(large_keys_change_with_ipsec_mb_on_both_sides),
        PAIR_TEST(large_keys_change_with_ipsec_mb_at_the_server),
        PAIR_TEST(large_keys_change_with_ipsec_mb_at_the_client),
        PAIR_TEST(chacha20_falls_back_to_gnutls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
