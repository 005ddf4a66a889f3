/*
 * The packet cipher by itself: published vectors, the two libraries against each other, and what
 * must be refused. Where libipsec-mb cannot be had, GnuTLS alone is tested.
 */
#include "quic/cipher.h"

#include <gnutls/crypto.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/check.h"
#include "base/rand.h"

#define TAG_BYTES 16u
#define LARGEST_BYTES ((size_t)65 << 10)

static enum quic_cipher ciphers[] = {QUIC_CIPHER_GNUTLS, QUIC_CIPHER_IPSEC_MB};
static size_t cipher_count = 2;

static const gnutls_cipher_algorithm_t suites[] = {GNUTLS_CIPHER_AES_128_GCM,
                                                   GNUTLS_CIPHER_AES_256_GCM};

/* ---- keys of either library ---- */

static ngtcp2_crypto_ctx ctx_of(enum quic_cipher cipher, gnutls_cipher_algorithm_t suite) {
    const uintptr_t block =
        suite == GNUTLS_CIPHER_AES_256_GCM ? GNUTLS_CIPHER_AES_256_CBC : GNUTLS_CIPHER_AES_128_CBC;
    ngtcp2_crypto_ctx ctx = {
        .aead = {.native_handle = (void *)(uintptr_t)suite, .max_overhead = TAG_BYTES},
        .md = {.native_handle = (void *)(uintptr_t)GNUTLS_DIG_SHA256},
        .hp = {.native_handle = (void *)block},
    };
    cipher_adopt(&ctx, cipher);
    return ctx;
}

static ngtcp2_crypto_cipher_ctx mask_key_of(const ngtcp2_crypto_ctx *ctx, enum quic_cipher cipher,
                                            const uint8_t *key, size_t key_bytes) {
    ngtcp2_crypto_cipher_ctx ret = {0};
    if (cipher == QUIC_CIPHER_IPSEC_MB) {
        cipher_mask_init(ctx, key, &ret);
        return ret;
    }
    gnutls_datum_t datum = {.data = (unsigned char *)(uintptr_t)key, .size = (unsigned)key_bytes};
    gnutls_cipher_hd_t handle = NULL;
    assert_int_equal(
        gnutls_cipher_init(&handle,
                           key_bytes == 32 ? GNUTLS_CIPHER_AES_256_CBC : GNUTLS_CIPHER_AES_128_CBC,
                           &datum, NULL),
        0);
    ret.native_handle = handle;
    return ret;
}

struct sealer {
    ngtcp2_crypto_ctx ctx;
    ngtcp2_crypto_aead_ctx seal, open;
};

static struct sealer sealer_new(enum quic_cipher cipher, gnutls_cipher_algorithm_t suite,
                                const uint8_t *key) {
    struct sealer ret = {.ctx = ctx_of(cipher, suite)};
    assert_true(cipher_aead_init(&ret.ctx, key, true, &ret.seal));
    assert_true(cipher_aead_init(&ret.ctx, key, false, &ret.open));
    return ret;
}

static void sealer_free(struct sealer *sealer) {
    cipher_delete_aead(NULL, &sealer->seal, NULL);
    cipher_delete_aead(NULL, &sealer->open, NULL);
}

static int seal(const struct sealer *sealer, uint8_t *dest, const uint8_t *plain, size_t len,
                const uint8_t *nonce, const uint8_t *aad, size_t aad_bytes) {
    return cipher_encrypt(dest, &sealer->ctx.aead, &sealer->seal, plain, len, nonce, 12, aad,
                          aad_bytes);
}

/* `len` with the tag. */
static int open_sealed(const struct sealer *sealer, uint8_t *dest, const uint8_t *sealed,
                       size_t len, const uint8_t *nonce, const uint8_t *aad, size_t aad_bytes) {
    return cipher_decrypt(dest, &sealer->ctx.aead, &sealer->open, sealed, len, nonce, 12, aad,
                          aad_bytes);
}

/* ---- vectors ---- */

static size_t unhex(const char *hex, uint8_t *out, size_t capacity) {
    size_t len = strlen(hex) / 2;
    INVARIANT(len <= capacity);
    for (size_t i = 0; i < len; i++) {
        const char pair[3] = {hex[2 * i], hex[2 * i + 1], '\0'};
        out[i] = (uint8_t)strtoul(pair, NULL, 16);
    }
    return len;
}

static void assert_hex(const uint8_t *bytes, const char *hex) {
    uint8_t expected[512];
    size_t len = unhex(hex, expected, sizeof expected);
    assert_memory_equal(bytes, expected, len);
}

/* RFC 9001, A.1: the keys of a server's Initial packets, and A.5: 32-byte keys and the next secret;
 * all with SHA-256. */
static void rfc_9001_keys_come_from_their_secrets(void **) {
    uint8_t secret[32], next[32];
    struct cipher_secrets got;
    for (size_t i = 0; i < cipher_count; i++) {
        ngtcp2_crypto_ctx ctx = ctx_of(ciphers[i], GNUTLS_CIPHER_AES_128_GCM);
        (void)unhex("3c199828fd139efd216c155ad844cc81fb82fa8d7446fa7d78be803acdda951b", secret, 32);
        assert_true(cipher_derive(&ctx, secret, sizeof secret, &got));
        assert_hex(got.key, "cf3a5331653c364c88f0f379b6067e37");
        assert_hex(got.iv, "0ac1493ca1905853b0bba03e");
        assert_hex(got.mask_key, "c206b8d9b9f0f37644430b490eeaa314");

        ctx = ctx_of(ciphers[i], GNUTLS_CIPHER_AES_256_GCM);
        (void)unhex("9ac312a7f877468ebe69422748ad00a15443f18203a07d6060f688f30f21632b", secret, 32);
        assert_true(cipher_derive(&ctx, secret, sizeof secret, &got));
        assert_hex(got.key, "c6d98ff3441c3fe1b2182094f69caa2ed4b716b65488960a7a984979fb23e1c8");
        assert_hex(got.iv, "e0459b3474bdd0e44a41c144");
        assert_hex(got.mask_key,
                   "25a282b9e82f06f21f488917a4fc8f1b73573685608597d0efcb076b0ab7a7a4");
        assert_true(cipher_next_secret(&ctx, secret, sizeof secret, next));
        assert_hex(next, "1223504755036d556342ee9361d253421a826c9ecdf3c7148684b36b714881f9");
    }
}

/* RFC 9001, A.3: the payload is sealed with the header as AAD, and the first two bytes that a
 * sample from it masks are the packet type with packet number. */
static void rfc_9001_server_initial_is_protected(void **) {
    static const char payload_hex[] = "02000000000600405a020000560303eefce7f7b37ba1d1632e96677825dd"
                                      "f73988cfc79825df566dc5430b9a045a"
                                      "1200130100002e00330024001d00209d3c940d89690b84d08a60993c144e"
                                      "ca684d1081287c834d5311bcf32bb9da"
                                      "1a002b00020304";
    static const char sealed_hex[] = "5a482cd0991cd25b0aac406a5816b6394100f37a1c69797554780bb38cc5a"
                                     "99f5ede4cf73c3ec2493a1839b3dbcb"
                                     "a3f6ea46c5b7684df3548e7ddeb9c3bf9c73cc3f3bded74b562bfb19fb840"
                                     "22f8ef4cdd93795d77d06edbb7aaf2f"
                                     "58891850abbdca3d20398c276456cbc42158407dd074ee";
    uint8_t header[20], payload[128], sealed[160], key[16], mask_key[16], nonce[12], mask[5];
    (void)unhex("c1000000010008f067a5502a4262b50040750001", header, sizeof header);
    (void)unhex("cf3a5331653c364c88f0f379b6067e37", key, sizeof key);
    (void)unhex("c206b8d9b9f0f37644430b490eeaa314", mask_key, sizeof mask_key);
    (void)unhex("0ac1493ca1905853b0bba03f", nonce, sizeof nonce); /* IV and packet number 1 */
    for (size_t i = 0; i < cipher_count; i++) {
        struct sealer sealer = sealer_new(ciphers[i], GNUTLS_CIPHER_AES_128_GCM, key);
        ngtcp2_crypto_cipher_ctx hp = mask_key_of(&sealer.ctx, ciphers[i], mask_key, 16);
        size_t len = unhex(payload_hex, payload, sizeof payload);
        assert_int_equal(seal(&sealer, sealed, payload, len, nonce, header, sizeof header), 0);
        assert_hex(sealed, sealed_hex);
        assert_int_equal(cipher_mask(mask, &sealer.ctx.hp, &hp, sealed + 2), 0);
        assert_hex(mask, "2ec0d8356a");
        cipher_delete_mask(NULL, &hp, NULL);
        sealer_free(&sealer);
    }
}

/* Test cases 4 and 16 of the specification of GCM that NIST took over. */
static void nist_gcm_vectors_are_met(void **) {
    static const char *const keys[] = {
        "feffe9928665731c6d6a8f9467308308",
        "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308"};
    static const char *const sealed_hex[] = {
        "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e21d514b25466931c7d8f6a5aac"
        "84"
        "aa051ba30b396a0aac973d58e0915bc94fbc3221a5db94fae95ae7121a47",
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056"
        "82"
        "8838c5f61e6393ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b"};
    uint8_t key[32], plain[60], aad[20], nonce[12], sealed[76], opened[60];
    (void)unhex(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf"
        "0e2449a6b525b16aedf5aa0de657ba637b39",
        plain, sizeof plain);
    (void)unhex("feedfacedeadbeeffeedfacedeadbeefabaddad2", aad, sizeof aad);
    (void)unhex("cafebabefacedbaddecaf888", nonce, sizeof nonce);
    for (size_t i = 0; i < cipher_count; i++) {
        for (size_t j = 0; j < 2; j++) {
            (void)unhex(keys[j], key, sizeof key);
            struct sealer sealer = sealer_new(ciphers[i], suites[j], key);
            assert_int_equal(seal(&sealer, sealed, plain, 60, nonce, aad, sizeof aad), 0);
            assert_hex(sealed, sealed_hex[j]);
            assert_int_equal(open_sealed(&sealer, opened, sealed, 76, nonce, aad, sizeof aad), 0);
            assert_memory_equal(opened, plain, sizeof plain);
            sealer_free(&sealer);
        }
    }
}

/* FIPS 197, appendix C: header protection is one block of AES. */
static void fips_197_blocks_are_the_masks(void **) {
    static const char *const masks[] = {"69c4e0d86a", "8ea2b7ca51"};
    uint8_t key[32], sample[16], mask[5];
    for (size_t i = 0; i < sizeof key; i++)
        key[i] = (uint8_t)i;
    for (size_t i = 0; i < sizeof sample; i++)
        sample[i] = (uint8_t)(i * 0x11);
    for (size_t i = 0; i < cipher_count; i++) {
        for (size_t j = 0; j < 2; j++) {
            ngtcp2_crypto_ctx ctx = ctx_of(ciphers[i], suites[j]);
            ngtcp2_crypto_cipher_ctx hp = mask_key_of(&ctx, ciphers[i], key, j == 0 ? 16 : 32);
            assert_int_equal(cipher_mask(mask, &ctx.hp, &hp, sample), 0);
            assert_hex(mask, masks[j]);
            cipher_delete_mask(NULL, &hp, NULL);
        }
    }
}

/* ---- one library against the other ---- */

static struct rng rng;

static uint64_t next_random(void) {
    return rng_next(&rng);
}

static void fill(uint8_t *bytes, size_t len) {
    for (size_t i = 0; i < len; i++)
        bytes[i] = (uint8_t)next_random();
}

/* Seal with one, open with the other, at odd addresses, sometimes in place. */
static void exchange(const struct sealer *from, const struct sealer *to, size_t len,
                     const uint8_t *content, uint8_t *sealed_room, uint8_t *opened_room) {
    uint8_t nonce[12], aad[64];
    size_t aad_bytes = 1 + next_random() % sizeof aad;
    uint8_t *sealed = sealed_room + next_random() % 64, *opened = opened_room + next_random() % 64;
    bool in_place = next_random() % 2 == 0;
    fill(nonce, sizeof nonce);
    fill(aad, aad_bytes);
    if (in_place)
        memcpy(sealed, content, len);
    assert_int_equal(seal(from, sealed, in_place ? sealed : content, len, nonce, aad, aad_bytes),
                     0);
    assert_int_equal(open_sealed(to, opened, sealed, len + TAG_BYTES, nonce, aad, aad_bytes), 0);
    assert_memory_equal(opened, content, len);
}

static void either_opens_what_the_other_seals(void **) {
    uint8_t *content = malloc(LARGEST_BYTES), *sealed = malloc(LARGEST_BYTES + 128);
    uint8_t *opened = malloc(LARGEST_BYTES + 128), key[32];
    assert_true(content != NULL && sealed != NULL && opened != NULL);
    fill(content, LARGEST_BYTES);
    for (size_t suite = 0; suite < 2; suite++) {
        fill(key, sizeof key);
        struct sealer one = sealer_new(ciphers[0], suites[suite], key);
        struct sealer other = sealer_new(ciphers[cipher_count - 1], suites[suite], key);
        for (size_t len = 0; len <= 300; len++) {
            exchange(&one, &other, len, content, sealed, opened);
            exchange(&other, &one, len, content, sealed, opened);
        }
        for (unsigned round = 0; round < 150; round++) {
            size_t len = round == 0 ? LARGEST_BYTES : next_random() % LARGEST_BYTES;
            exchange(&one, &other, len, content, sealed, opened);
            exchange(&other, &one, len, content, sealed, opened);
        }
        sealer_free(&one);
        sealer_free(&other);
    }
    free(content);
    free(sealed);
    free(opened);
}

static void either_makes_the_same_masks(void **) {
    uint8_t key[32], sample[16], first[5], second[5];
    for (unsigned round = 0; round < 200; round++) {
        size_t suite = round % 2, key_bytes = suite == 0 ? 16 : 32;
        fill(key, sizeof key);
        fill(sample, sizeof sample);
        uint8_t *const masks[] = {first, second};
        for (size_t i = 0; i < 2; i++) {
            enum quic_cipher cipher = ciphers[i * (cipher_count - 1)];
            ngtcp2_crypto_ctx ctx = ctx_of(cipher, suites[suite]);
            ngtcp2_crypto_cipher_ctx hp = mask_key_of(&ctx, cipher, key, key_bytes);
            assert_int_equal(cipher_mask(masks[i], &ctx.hp, &hp, sample), 0);
            cipher_delete_mask(NULL, &hp, NULL);
        }
        assert_memory_equal(first, second, sizeof first);
    }
}

/* ---- forgeries ---- */

static void every_changed_bit_is_refused(void **) {
    enum { LEN = 37, AAD = 13 };
    uint8_t key[32], nonce[12], aad[AAD], plain[LEN], sealed[LEN + TAG_BYTES], opened[LEN];
    fill(key, sizeof key);
    fill(nonce, sizeof nonce);
    fill(aad, sizeof aad);
    fill(plain, sizeof plain);
    for (size_t i = 0; i < cipher_count * 2; i++) {
        struct sealer sealer = sealer_new(ciphers[i / 2], suites[i % 2], key);
        assert_int_equal(seal(&sealer, sealed, plain, LEN, nonce, aad, AAD), 0);
        for (unsigned bit = 0; bit < 8 * sizeof sealed; bit++) {
            sealed[bit / 8] ^= (uint8_t)(1u << bit % 8);
            assert_int_equal(open_sealed(&sealer, opened, sealed, sizeof sealed, nonce, aad, AAD),
                             NGTCP2_ERR_DECRYPT);
            sealed[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        for (unsigned bit = 0; bit < 8 * sizeof aad; bit++) {
            aad[bit / 8] ^= (uint8_t)(1u << bit % 8);
            assert_int_equal(open_sealed(&sealer, opened, sealed, sizeof sealed, nonce, aad, AAD),
                             NGTCP2_ERR_DECRYPT);
            aad[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        nonce[11] ^= 1;
        assert_int_equal(open_sealed(&sealer, opened, sealed, sizeof sealed, nonce, aad, AAD),
                         NGTCP2_ERR_DECRYPT);
        nonce[11] ^= 1;
        assert_int_equal(open_sealed(&sealer, opened, sealed, sizeof sealed, nonce, aad, AAD), 0);
        sealer_free(&sealer);
    }
}

static void packets_shorter_than_a_tag_are_refused(void **) {
    uint8_t key[32] = {1}, nonce[12] = {2}, aad[1] = {3}, sealed[TAG_BYTES], opened[1];
    for (size_t i = 0; i < cipher_count; i++) {
        struct sealer sealer = sealer_new(ciphers[i], GNUTLS_CIPHER_AES_128_GCM, key);
        assert_int_equal(seal(&sealer, sealed, NULL, 0, nonce, aad, 1), 0);
        assert_int_equal(open_sealed(&sealer, opened, sealed, TAG_BYTES, nonce, aad, 1), 0);
        for (size_t len = 0; len < TAG_BYTES; len++)
            assert_int_equal(open_sealed(&sealer, opened, sealed, len, nonce, aad, 1),
                             NGTCP2_ERR_DECRYPT);
        sealer_free(&sealer);
    }
}

/* ---- choice ---- */

static void auto_is_the_best_that_can_be_had(void **) {
    enum quic_cipher chosen;
    assert_int_equal(quic_cipher_choose(QUIC_CIPHER_AUTO, &chosen, NULL), FELIX_OK);
    assert_int_equal(chosen, ciphers[cipher_count - 1]);
    assert_int_equal(quic_cipher_choose(QUIC_CIPHER_GNUTLS, &chosen, NULL), FELIX_OK);
    assert_int_equal(chosen, QUIC_CIPHER_GNUTLS);
    assert_string_equal(quic_cipher_text(chosen), "gnutls");
}

static void other_suites_stay_with_gnutls(void **) {
    ngtcp2_crypto_ctx ctx = ctx_of(QUIC_CIPHER_IPSEC_MB, GNUTLS_CIPHER_CHACHA20_POLY1305);
    assert_int_equal((uintptr_t)ctx.aead.native_handle, GNUTLS_CIPHER_CHACHA20_POLY1305);
}

int main(void) {
    enum quic_cipher chosen;
    struct felix_error error = {0};
    rng_seed(&rng, 1);
    if (quic_cipher_choose(QUIC_CIPHER_IPSEC_MB, &chosen, &error) != FELIX_OK) {
        print_message("GnuTLS alone: %s\n", error.text);
        cipher_count = 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rfc_9001_keys_come_from_their_secrets),
        cmocka_unit_test(rfc_9001_server_initial_is_protected),
        cmocka_unit_test(nist_gcm_vectors_are_met),
        cmocka_unit_test(fips_197_blocks_are_the_masks),
        cmocka_unit_test(either_opens_what_the_other_seals),
        cmocka_unit_test(either_makes_the_same_masks),
        cmocka_unit_test(every_changed_bit_is_refused),
        cmocka_unit_test(packets_shorter_than_a_tag_are_refused),
        cmocka_unit_test(auto_is_the_best_that_can_be_had),
        cmocka_unit_test(other_suites_stay_with_gnutls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
