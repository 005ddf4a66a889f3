/*
 * What the packet cipher costs: sealing and opening packets of several sizes, and the mask of
 * header protection, with each library that is there.
 *
 *     cipher [rounds]
 *
 * Packets are sealed in place and opened into a second buffer, as ngtcp2 does it, with 13 bytes of
 * AAD and a new nonce each time. Prints the median over the rounds (7), taken in turns, and the
 * span from the fastest to the slowest round.
 */
#include <gnutls/crypto.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "quic/cipher.h"

#define ROUNDS_MAX 101u
#define ROUND_NS (30 * NS_PER_MS)
#define AAD_BYTES 13u
#define TAG_BYTES 16u
#define LARGEST_BYTES 65488u

enum operation { SEAL, OPEN, MASK, OPERATIONS };
static const char *const operation_names[] = {"seal", "open", "mask"};
static const size_t sizes[] = {100, 1200, 1452, 8192, 16384, LARGEST_BYTES};
#define SIZE_COUNT (sizeof sizes / sizeof sizes[0])

struct subject {
    enum quic_cipher cipher;
    unsigned bits;
    ngtcp2_crypto_ctx ctx;
    ngtcp2_crypto_aead_ctx seal, open;
    ngtcp2_crypto_cipher_ctx mask;
    double ns[OPERATIONS][SIZE_COUNT][ROUNDS_MAX];
};

static uint8_t packet[LARGEST_BYTES + TAG_BYTES], opened[LARGEST_BYTES];
static uint8_t nonce[12], aad[AAD_BYTES];

static void subject_init(struct subject *subject, enum quic_cipher cipher, unsigned bits) {
    static uint8_t key[32] = {1, 2, 3};
    const bool large = bits == 256;
    const uintptr_t suite = large ? GNUTLS_CIPHER_AES_256_GCM : GNUTLS_CIPHER_AES_128_GCM;
    const gnutls_cipher_algorithm_t block =
        large ? GNUTLS_CIPHER_AES_256_CBC : GNUTLS_CIPHER_AES_128_CBC;
    subject->cipher = cipher;
    subject->bits = bits;
    subject->ctx.aead = (ngtcp2_crypto_aead){(void *)suite, TAG_BYTES};
    subject->ctx.hp.native_handle = (void *)(uintptr_t)block;
    cipher_adopt(&subject->ctx, cipher);
    INVARIANT(cipher_aead_init(&subject->ctx, key, true, &subject->seal));
    INVARIANT(cipher_aead_init(&subject->ctx, key, false, &subject->open));
    if (cipher == QUIC_CIPHER_IPSEC_MB) {
        cipher_mask_init(&subject->ctx, key, &subject->mask);
        return;
    }
    gnutls_datum_t datum = {.data = key, .size = bits / 8};
    gnutls_cipher_hd_t handle = NULL;
    INVARIANT(gnutls_cipher_init(&handle, block, &datum, NULL) == 0);
    subject->mask.native_handle = handle;
}

static void subject_deinit(struct subject *subject) {
    cipher_delete_aead(NULL, &subject->seal, NULL);
    cipher_delete_aead(NULL, &subject->open, NULL);
    cipher_delete_mask(NULL, &subject->mask, NULL);
}

static void one(const struct subject *subject, enum operation operation, size_t len) {
    int rc = 0;
    switch (operation) {
    case SEAL:
        nonce[0]++;
        rc = cipher_encrypt(packet, &subject->ctx.aead, &subject->seal, packet, len, nonce,
                            sizeof nonce, aad, sizeof aad);
        break;
    case OPEN:
        rc = cipher_decrypt(opened, &subject->ctx.aead, &subject->open, packet, len + TAG_BYTES,
                            nonce, sizeof nonce, aad, sizeof aad);
        break;
    case MASK:
        rc = cipher_mask(packet + 16, &subject->ctx.hp, &subject->mask, packet + 16);
        break;
    case OPERATIONS:
    default:
        UNREACHED();
    }
    INVARIANT(rc == 0);
}

/* Nanoseconds for one operation. */
static double measure(const struct subject *subject, enum operation operation, size_t len) {
    one(subject, SEAL, len); /* what is opened must be right */
    uint64_t start_ns = clock_now_ns(), spent_ns = 0, count = 0;
    while (spent_ns < ROUND_NS) {
        for (unsigned i = 0; i < 64; i++)
            one(subject, operation, len);
        count += 64;
        spent_ns = clock_now_ns() - start_ns;
    }
    return (double)spent_ns / (double)count;
}

static int by_value(const void *left, const void *right) {
    double difference = *(const double *)left - *(const double *)right;
    return (difference > 0) - (difference < 0);
}

static void report(struct subject *subject, enum operation operation, size_t size,
                   unsigned rounds) {
    double *ns = subject->ns[operation][size];
    qsort(ns, rounds, sizeof *ns, by_value);
    double median = ns[rounds / 2];
    (void)printf("AES-%u  %-22s %s", subject->bits, quic_cipher_text(subject->cipher),
                 operation_names[operation]);
    if (operation == MASK)
        (void)printf("                %8.1f ns (%.1f to %.1f)\n", median, ns[0], ns[rounds - 1]);
    else
        (void)printf("  %5zu bytes  %8.0f ns (%.0f to %.0f)  %6.2f GB/s\n", sizes[size], median,
                     ns[0], ns[rounds - 1], (double)sizes[size] / median);
}

int main(int argc, char **argv) {
    static struct subject subjects[4];
    unsigned rounds = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 7, count = 0;
    if (rounds == 0 || rounds > ROUNDS_MAX) {
        (void)fprintf(stderr, "cipher: 1 to %u rounds\n", ROUNDS_MAX);
        return 2;
    }
    enum quic_cipher chosen;
    for (unsigned bits = 128; bits <= 256; bits += 128) {
        subject_init(&subjects[count++], QUIC_CIPHER_GNUTLS, bits);
        if (quic_cipher_choose(QUIC_CIPHER_IPSEC_MB, &chosen, NULL) == FELIX_OK)
            subject_init(&subjects[count++], chosen, bits);
    }
    for (unsigned round = 0; round < rounds; round++) {
        for (enum operation operation = SEAL; operation < OPERATIONS; operation++) {
            for (size_t size = 0; size < (operation == MASK ? 1 : SIZE_COUNT); size++) {
                for (unsigned i = 0; i < count; i++)
                    subjects[i].ns[operation][size][round] =
                        measure(&subjects[i], operation, sizes[size]);
            }
        }
    }
    for (unsigned i = 0; i < count; i++) {
        for (enum operation operation = SEAL; operation < OPERATIONS; operation++) {
            for (size_t size = 0; size < (operation == MASK ? 1 : SIZE_COUNT); size++)
                report(&subjects[i], operation, size, rounds);
        }
        subject_deinit(&subjects[i]);
    }
    return 0;
}
