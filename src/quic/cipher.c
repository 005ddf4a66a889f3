/*
 * From a traffic secret to protected packets:
 *
 *   GnuTLS has a secret      -> install(): derive key, IV and header protection key, make objects
 *                               of libipsec-mb from them, give these to ngtcp2
 *   ngtcp2 wants the next    -> cipher_update_key(): the next secret, key and IV; the key of
 *   pair of keys                header protection stays
 *   a packet goes or comes   -> cipher_encrypt(), cipher_decrypt(), cipher_mask()
 *   a key is not needed      -> cipher_delete_aead(), cipher_delete_mask()
 *   any more
 *
 * What is not for libipsec-mb goes to the callback of the same purpose in the helper library.
 *
 * ngtcp2 carries our objects as `native_handle`s among those of the helper library. Ours have the
 * lowest bit set, which no pointer to allocated memory has, because the callbacks that delete are
 * told nothing else.
 */
#include "quic/cipher.h"

#include <ngtcp2/ngtcp2_crypto_gnutls.h>
#include <stdatomic.h>
#include <string.h>

#include "base/check.h"
#include "quic/ipsec_mb.h"

#define LABEL_BYTES_MAX 32u

/* Set before any key of it is made. */
static const struct ipsec_mb *_Atomic ipsec_mb;

/* Stands where the helper library keeps GnuTLS's number of an algorithm. */
struct algorithm {
    size_t key_bytes;
};
static struct algorithm aes_128_gcm = {16}, aes_256_gcm = {32};

static const struct algorithm *own_algorithm(const void *native_handle) {
    const bool own = native_handle == &aes_128_gcm || native_handle == &aes_256_gcm;
    return own ? native_handle : NULL;
}

static void *tagged(void *key) {
    return (char *)key + 1;
}

/* The key behind a handle of ours, NULL for the helper library's. */
static void *own_key(void *native_handle) {
    return ((uintptr_t)native_handle & 1) != 0 ? (char *)native_handle - 1 : NULL;
}

/* ---- choice ---- */

enum felix_err quic_cipher_choose(enum quic_cipher wanted, enum quic_cipher *ret,
                                  struct felix_error *reterr) {
    const char *why_not = NULL;
    *ret = QUIC_CIPHER_GNUTLS;
    if (wanted == QUIC_CIPHER_GNUTLS)
        return FELIX_OK;
    ipsec_mb = ipsec_mb_get(&why_not);
    if (ipsec_mb != NULL) {
        *ret = QUIC_CIPHER_IPSEC_MB;
        return FELIX_OK;
    }
    if (wanted == QUIC_CIPHER_AUTO)
        return FELIX_OK;
    return error_set(reterr, FELIX_INVALID_ARGUMENT, 0,
                     "the packet cipher ipsec-mb cannot be used: %s; set FELIX_QUIC_CIPHER to auto "
                     "or gnutls",
                     why_not);
}

const char *quic_cipher_text(enum quic_cipher chosen) {
    return chosen == QUIC_CIPHER_IPSEC_MB ? ipsec_mb->name : "gnutls";
}

void cipher_adopt(ngtcp2_crypto_ctx *ctx, enum quic_cipher chosen) {
    if (chosen != QUIC_CIPHER_IPSEC_MB)
        return;
    struct algorithm *algorithm = NULL;
    switch ((uintptr_t)ctx->aead.native_handle) {
    case GNUTLS_CIPHER_AES_128_GCM:
        algorithm = &aes_128_gcm;
        break;
    case GNUTLS_CIPHER_AES_256_GCM:
        algorithm = &aes_256_gcm;
        break;
    default:
        return;
    }
    ctx->aead.native_handle = algorithm;
    ctx->hp.native_handle = algorithm;
}

/* ---- keys ---- */

static size_t key_bytes_of(const ngtcp2_crypto_ctx *ctx) {
    const struct algorithm *own = own_algorithm(ctx->aead.native_handle);
    return own != NULL ? own->key_bytes : ngtcp2_crypto_aead_keylen(&ctx->aead);
}

/* HKDF-Expand-Label of TLS 1.3 with no context (RFC 8446, 7.1). */
static bool expand_label(const ngtcp2_crypto_ctx *ctx, const uint8_t *secret, size_t secret_bytes,
                         const char *label, uint8_t *ret, size_t ret_bytes) {
    static const char prefix[] = "tls13 ";
    const size_t prefix_bytes = sizeof prefix - 1, label_bytes = strlen(label);
    uint8_t info[4 + LABEL_BYTES_MAX];
    INVARIANT(prefix_bytes + label_bytes <= LABEL_BYTES_MAX);
    size_t len = 0;
    info[len++] = (uint8_t)(ret_bytes >> 8);
    info[len++] = (uint8_t)ret_bytes;
    info[len++] = (uint8_t)(prefix_bytes + label_bytes);
    memcpy(info + len, prefix, prefix_bytes);
    len += prefix_bytes;
    memcpy(info + len, label, label_bytes);
    len += label_bytes;
    info[len++] = 0;
    return ngtcp2_crypto_hkdf_expand(ret, ret_bytes, &ctx->md, secret, secret_bytes, info, len) ==
           0;
}

bool cipher_derive(const ngtcp2_crypto_ctx *ctx, const uint8_t *secret, size_t secret_bytes,
                   struct cipher_secrets *ret) {
    const size_t key_bytes = key_bytes_of(ctx);
    INVARIANT(key_bytes <= CIPHER_KEY_BYTES_MAX);
    return expand_label(ctx, secret, secret_bytes, "quic key", ret->key, key_bytes) &&
           expand_label(ctx, secret, secret_bytes, "quic iv", ret->iv, sizeof ret->iv) &&
           expand_label(ctx, secret, secret_bytes, "quic hp", ret->mask_key, key_bytes);
}

bool cipher_next_secret(const ngtcp2_crypto_ctx *ctx, const uint8_t *secret, size_t secret_bytes,
                        uint8_t *ret) {
    return expand_label(ctx, secret, secret_bytes, "quic ku", ret, secret_bytes);
}

bool cipher_aead_init(const ngtcp2_crypto_ctx *ctx, const uint8_t *key, bool seal,
                      ngtcp2_crypto_aead_ctx *ret) {
    const struct algorithm *own = own_algorithm(ctx->aead.native_handle);
    if (own != NULL) {
        ret->native_handle = tagged(ipsec_mb->gcm_key_new(key, own->key_bytes));
        return true;
    }
    return (seal ? ngtcp2_crypto_aead_ctx_encrypt_init(ret, &ctx->aead, key, CIPHER_IV_BYTES)
                 : ngtcp2_crypto_aead_ctx_decrypt_init(ret, &ctx->aead, key, CIPHER_IV_BYTES)) == 0;
}

void cipher_mask_init(const ngtcp2_crypto_ctx *ctx, const uint8_t *key,
                      ngtcp2_crypto_cipher_ctx *ret) {
    const struct algorithm *own = own_algorithm(ctx->hp.native_handle);
    INVARIANT(own != NULL);
    ret->native_handle = tagged(ipsec_mb->mask_key_new(key, own->key_bytes));
}

void cipher_delete_aead(ngtcp2_conn *conn, ngtcp2_crypto_aead_ctx *aead_ctx, void *user_data) {
    struct gcm_key *own = own_key(aead_ctx->native_handle);
    if (own != NULL)
        ipsec_mb->gcm_key_free(own);
    else
        ngtcp2_crypto_delete_crypto_aead_ctx_cb(conn, aead_ctx, user_data);
}

void cipher_delete_mask(ngtcp2_conn *conn, ngtcp2_crypto_cipher_ctx *hp_ctx, void *user_data) {
    struct mask_key *own = own_key(hp_ctx->native_handle);
    if (own != NULL)
        ipsec_mb->mask_key_free(own);
    else
        ngtcp2_crypto_delete_crypto_cipher_ctx_cb(conn, hp_ctx, user_data);
}

/* ---- secrets of a connection ---- */

/* ngtcp2 takes the objects, unless it refuses. */
static int give(ngtcp2_conn *conn, bool handshake, bool seal, const uint8_t *secret,
                size_t secret_bytes, const uint8_t *iv, const ngtcp2_crypto_aead_ctx *aead,
                const ngtcp2_crypto_cipher_ctx *mask) {
    if (handshake)
        return seal ? ngtcp2_conn_install_tx_handshake_key(conn, aead, iv, CIPHER_IV_BYTES, mask)
                    : ngtcp2_conn_install_rx_handshake_key(conn, aead, iv, CIPHER_IV_BYTES, mask);
    return seal ? ngtcp2_conn_install_tx_key(conn, secret, secret_bytes, aead, iv, CIPHER_IV_BYTES,
                                             mask)
                : ngtcp2_conn_install_rx_key(conn, secret, secret_bytes, aead, iv, CIPHER_IV_BYTES,
                                             mask);
}

static bool install_direction(ngtcp2_conn *conn, bool handshake, bool seal, const uint8_t *secret,
                              size_t secret_bytes) {
    const ngtcp2_crypto_ctx *ctx = ngtcp2_conn_get_crypto_ctx(conn);
    struct cipher_secrets secrets;
    ngtcp2_crypto_aead_ctx aead = {0};
    ngtcp2_crypto_cipher_ctx mask = {0};
    bool done = cipher_derive(ctx, secret, secret_bytes, &secrets) &&
                cipher_aead_init(ctx, secrets.key, seal, &aead);
    if (done) {
        cipher_mask_init(ctx, secrets.mask_key, &mask);
        done = give(conn, handshake, seal, secret, secret_bytes, secrets.iv, &aead, &mask) == 0;
        if (!done) {
            cipher_delete_aead(conn, &aead, NULL);
            cipher_delete_mask(conn, &mask, NULL);
        }
    }
    explicit_bzero(&secrets, sizeof secrets);
    return done;
}

/* As the helper library's own hook does it, for the suites that stay its own. */
static bool install_stock(ngtcp2_conn *conn, ngtcp2_encryption_level level,
                          const uint8_t *rx_secret, const uint8_t *tx_secret, size_t secret_bytes) {
    return (rx_secret == NULL ||
            ngtcp2_crypto_derive_and_install_rx_key(conn, NULL, NULL, NULL, level, rx_secret,
                                                    secret_bytes) == 0) &&
           (tx_secret == NULL || ngtcp2_crypto_derive_and_install_tx_key(
                                     conn, NULL, NULL, NULL, level, tx_secret, secret_bytes) == 0);
}

static int install(gnutls_session_t session, gnutls_record_encryption_level_t gnutls_level,
                   const void *rx_secret, const void *tx_secret, size_t secret_bytes) {
    ngtcp2_crypto_conn_ref *ref = gnutls_session_get_ptr(session);
    ngtcp2_conn *conn = ref->get_conn(ref);
    const ngtcp2_encryption_level level =
        ngtcp2_crypto_gnutls_from_gnutls_record_encryption_level(gnutls_level);
    const bool handshake = level == NGTCP2_ENCRYPTION_LEVEL_HANDSHAKE;
    if (!handshake && level != NGTCP2_ENCRYPTION_LEVEL_1RTT)
        return -1; /* early data is neither offered nor accepted */
    if (ngtcp2_conn_get_crypto_ctx(conn)->aead.native_handle == NULL) {
        ngtcp2_crypto_ctx ctx;
        if (ngtcp2_crypto_ctx_tls(&ctx, session) == NULL)
            return -1;
        cipher_adopt(&ctx, QUIC_CIPHER_IPSEC_MB);
        ngtcp2_conn_set_crypto_ctx(conn, &ctx);
    }
    if (own_algorithm(ngtcp2_conn_get_crypto_ctx(conn)->aead.native_handle) == NULL)
        return install_stock(conn, level, rx_secret, tx_secret, secret_bytes) ? 0 : -1;
    if (rx_secret != NULL && !install_direction(conn, handshake, false, rx_secret, secret_bytes))
        return -1;
    if (tx_secret != NULL && !install_direction(conn, handshake, true, tx_secret, secret_bytes))
        return -1;
    return 0;
}

void cipher_attach(gnutls_session_t session, enum quic_cipher chosen) {
    INVARIANT(chosen != QUIC_CIPHER_AUTO);
    if (chosen == QUIC_CIPHER_IPSEC_MB)
        gnutls_handshake_set_secret_function(session, install);
}

/* The next secret, IV and key of one direction. */
static bool update_direction(const ngtcp2_crypto_ctx *ctx, bool seal, const uint8_t *current,
                             size_t secret_bytes, uint8_t *secret, uint8_t *iv,
                             ngtcp2_crypto_aead_ctx *aead) {
    struct cipher_secrets secrets;
    const bool done = cipher_next_secret(ctx, current, secret_bytes, secret) &&
                      cipher_derive(ctx, secret, secret_bytes, &secrets) &&
                      cipher_aead_init(ctx, secrets.key, seal, aead);
    if (done)
        memcpy(iv, secrets.iv, sizeof secrets.iv);
    explicit_bzero(&secrets, sizeof secrets);
    return done;
}

// NOLINTNEXTLINE(readability-function-size): the parameters are those of ngtcp2
int cipher_update_key(ngtcp2_conn *conn, uint8_t *rx_secret, uint8_t *tx_secret,
                      ngtcp2_crypto_aead_ctx *rx_aead_ctx, uint8_t *rx_iv,
                      ngtcp2_crypto_aead_ctx *tx_aead_ctx, uint8_t *tx_iv,
                      const uint8_t *current_rx_secret, const uint8_t *current_tx_secret,
                      size_t secret_bytes, void *user_data) {
    const ngtcp2_crypto_ctx *ctx = ngtcp2_conn_get_crypto_ctx(conn);
    if (own_algorithm(ctx->aead.native_handle) == NULL)
        return ngtcp2_crypto_update_key_cb(conn, rx_secret, tx_secret, rx_aead_ctx, rx_iv,
                                           tx_aead_ctx, tx_iv, current_rx_secret, current_tx_secret,
                                           secret_bytes, user_data);
    if (!update_direction(ctx, false, current_rx_secret, secret_bytes, rx_secret, rx_iv,
                          rx_aead_ctx))
        return NGTCP2_ERR_CALLBACK_FAILURE;
    if (update_direction(ctx, true, current_tx_secret, secret_bytes, tx_secret, tx_iv, tx_aead_ctx))
        return 0;
    cipher_delete_aead(conn, rx_aead_ctx, NULL);
    rx_aead_ctx->native_handle = NULL;
    return NGTCP2_ERR_CALLBACK_FAILURE;
}

/* ---- packets ---- */

// NOLINTNEXTLINE(readability-function-size): the parameters are those of ngtcp2
int cipher_encrypt(uint8_t *dest, const ngtcp2_crypto_aead *aead,
                   const ngtcp2_crypto_aead_ctx *aead_ctx, const uint8_t *plain, size_t len,
                   const uint8_t *nonce, size_t nonce_bytes, const uint8_t *aad, size_t aad_bytes) {
    struct gcm_key *own = own_key(aead_ctx->native_handle);
    if (own == NULL)
        return ngtcp2_crypto_encrypt_cb(dest, aead, aead_ctx, plain, len, nonce, nonce_bytes, aad,
                                        aad_bytes);
    INVARIANT(nonce_bytes == GCM_NONCE_BYTES);
    ipsec_mb->gcm_seal(own, dest, plain, len, nonce, aad, aad_bytes);
    return 0;
}

// NOLINTNEXTLINE(readability-function-size): the parameters are those of ngtcp2
int cipher_decrypt(uint8_t *dest, const ngtcp2_crypto_aead *aead,
                   const ngtcp2_crypto_aead_ctx *aead_ctx, const uint8_t *sealed, size_t len,
                   const uint8_t *nonce, size_t nonce_bytes, const uint8_t *aad, size_t aad_bytes) {
    struct gcm_key *own = own_key(aead_ctx->native_handle);
    if (own == NULL)
        return ngtcp2_crypto_decrypt_cb(dest, aead, aead_ctx, sealed, len, nonce, nonce_bytes, aad,
                                        aad_bytes);
    INVARIANT(nonce_bytes == GCM_NONCE_BYTES);
    if (len < GCM_TAG_BYTES ||
        !ipsec_mb->gcm_open(own, dest, sealed, len - GCM_TAG_BYTES, nonce, aad, aad_bytes))
        return NGTCP2_ERR_DECRYPT;
    return 0;
}

int cipher_mask(uint8_t *dest, const ngtcp2_crypto_cipher *hp,
                const ngtcp2_crypto_cipher_ctx *hp_ctx, const uint8_t *sample) {
    const struct mask_key *own = own_key(hp_ctx->native_handle);
    if (own == NULL)
        return ngtcp2_crypto_hp_mask_cb(dest, hp, hp_ctx, sample);
    ipsec_mb->mask(own, dest, sample);
    return 0;
}
