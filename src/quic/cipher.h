/*
 * Packet protection of Handshake and 1-RTT packets (RFC 9001, 5): keys, AEAD, header protection.
 *
 * GnuTLS, through ngtcp2's helper library, serves every cipher suite on every machine. libipsec-mb
 * serves the two AES-GCM suites, which nearly every connection has, two to three times as fast.
 * Both stand behind the same ngtcp2 callbacks, and which one a connection has is seen in its keys.
 * Initial packets and Retry, whose keys protect nothing, are GnuTLS's always.
 */
#ifndef QUIC_CIPHER_H
#define QUIC_CIPHER_H

#include "base/err.h"

#include <gnutls/gnutls.h>
#include <ngtcp2/ngtcp2.h>
#include <ngtcp2/ngtcp2_crypto.h>
#include <stdbool.h>

/* In the order of the words of the settings: auto|ipsec-mb|gnutls. */
enum quic_cipher { QUIC_CIPHER_AUTO, QUIC_CIPHER_IPSEC_MB, QUIC_CIPHER_GNUTLS };

/**
 * Which of the two `wanted` means on this machine; the same at every call. Any thread.
 * FELIX_INVALID_ARGUMENT: ipsec-mb is wanted and cannot be had; reterr says why.
 */
enum felix_err quic_cipher_choose(enum quic_cipher wanted, enum quic_cipher *ret,
                                  struct felix_error *reterr);

/** What was chosen, for people: "gnutls" or "ipsec-mb avx512-vaes". */
const char *quic_cipher_text(enum quic_cipher chosen);

/* ---- for tls.c and conn.c; the tests and benchmarks of the cipher use it as well ---- */

/** Let the session's secrets become packet keys of the chosen cipher. Called after the helper
 * library has configured the session, and overrides it. */
void cipher_attach(gnutls_session_t session, enum quic_cipher chosen);

/** Let the AES-GCM algorithms in `ctx`, as the helper library has filled it, be those of `chosen`;
 * other suites stay what they are. */
void cipher_adopt(ngtcp2_crypto_ctx *ctx, enum quic_cipher chosen);

#define CIPHER_KEY_BYTES_MAX ((size_t)32)
#define CIPHER_IV_BYTES ((size_t)12)

/* Of one direction. Wipe after use. */
struct cipher_secrets {
    uint8_t key[CIPHER_KEY_BYTES_MAX];
    uint8_t iv[CIPHER_IV_BYTES];
    uint8_t mask_key[CIPHER_KEY_BYTES_MAX];
};

/** Keys from a traffic secret (RFC 9001, 5.1). False: GnuTLS refused. */
bool cipher_derive(const ngtcp2_crypto_ctx *ctx, const uint8_t *secret, size_t secret_bytes,
                   struct cipher_secrets *ret);
/** The traffic secret after this one (RFC 9001, 6.1), as long as it. */
bool cipher_next_secret(const ngtcp2_crypto_ctx *ctx, const uint8_t *secret, size_t secret_bytes,
                        uint8_t *ret);

/** Objects for the callbacks, returned owned in *ret; freed by cipher_delete_aead and
 * cipher_delete_mask. The mask only for algorithms that cipher_adopt has changed. */
bool cipher_aead_init(const ngtcp2_crypto_ctx *ctx, const uint8_t *key, bool seal,
                      ngtcp2_crypto_aead_ctx *ret);
void cipher_mask_init(const ngtcp2_crypto_ctx *ctx, const uint8_t *key,
                      ngtcp2_crypto_cipher_ctx *ret);

/** Callbacks of ngtcp2; its types say what they do. */
int cipher_encrypt(uint8_t *dest, const ngtcp2_crypto_aead *aead,
                   const ngtcp2_crypto_aead_ctx *aead_ctx, const uint8_t *plain, size_t len,
                   const uint8_t *nonce, size_t nonce_bytes, const uint8_t *aad, size_t aad_bytes);
int cipher_decrypt(uint8_t *dest, const ngtcp2_crypto_aead *aead,
                   const ngtcp2_crypto_aead_ctx *aead_ctx, const uint8_t *sealed, size_t len,
                   const uint8_t *nonce, size_t nonce_bytes, const uint8_t *aad, size_t aad_bytes);
int cipher_mask(uint8_t *dest, const ngtcp2_crypto_cipher *hp,
                const ngtcp2_crypto_cipher_ctx *hp_ctx, const uint8_t *sample);
int cipher_update_key(ngtcp2_conn *conn, uint8_t *rx_secret, uint8_t *tx_secret,
                      ngtcp2_crypto_aead_ctx *rx_aead_ctx, uint8_t *rx_iv,
                      ngtcp2_crypto_aead_ctx *tx_aead_ctx, uint8_t *tx_iv,
                      const uint8_t *current_rx_secret, const uint8_t *current_tx_secret,
                      size_t secret_bytes, void *user_data);
void cipher_delete_aead(ngtcp2_conn *conn, ngtcp2_crypto_aead_ctx *aead_ctx, void *user_data);
void cipher_delete_mask(ngtcp2_conn *conn, ngtcp2_crypto_cipher_ctx *hp_ctx, void *user_data);

#endif
