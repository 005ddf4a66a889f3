/*
 * libipsec-mb through its direct calls: one packet in, one packet out, no jobs and no queues.
 *
 * The library finds out what the processor can do and hands out functions for it. They need only
 * the key and a scratch context, so what they came in (200 KiB of job queues) is freed again.
 *
 * Expanded keys take 1 KiB, and ngtcp2 holds two directions and, for a key update that may never
 * come, the next two. A key is therefore expanded when its first packet comes.
 */
#include "quic/ipsec_mb.h"

#include <gnutls/gnutls.h>
#include <immintrin.h>
#include <intel-ipsec-mb.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"

#define KEY_BYTES_MAX 32u
#define KEY_ALIGNMENT 64u
#define EXPANDED_BYTES                                                                             \
    ((sizeof(struct gcm_key_data) + KEY_ALIGNMENT - 1) / KEY_ALIGNMENT * KEY_ALIGNMENT)
#define ROUND_KEYS_MAX 15u

enum key_size { AES_128, AES_256, KEY_SIZES };

static struct {
    aes_gcm_pre_t expand[KEY_SIZES];
    aes_gcm_enc_dec_t seal[KEY_SIZES];
    aes_gcm_enc_dec_t open[KEY_SIZES];
    keyexp_t round_keys[KEY_SIZES];
} library;

struct gcm_key {
    struct gcm_key_data *expanded; /* NULL until the first packet */
    enum key_size size;
    uint8_t key[KEY_BYTES_MAX]; /* zero from then on */
};

struct mask_key {
    __m128i round_keys[ROUND_KEYS_MAX];
    unsigned rounds;
};

static enum key_size size_of(size_t key_bytes) {
    INVARIANT(key_bytes == 16 || key_bytes == 32);
    return key_bytes == 16 ? AES_128 : AES_256;
}

static struct gcm_key *gcm_key_new(const uint8_t *key, size_t key_bytes) {
    struct gcm_key *fresh = xcalloc(1, sizeof *fresh);
    fresh->size = size_of(key_bytes);
    memcpy(fresh->key, key, key_bytes);
    return fresh;
}

static void gcm_key_free(struct gcm_key *key) {
    if (key->expanded != NULL) {
        explicit_bzero(key->expanded, EXPANDED_BYTES);
        free(key->expanded);
    }
    explicit_bzero(key, sizeof *key);
    free(key);
}

__attribute__((noinline)) static void expand(struct gcm_key *key) {
    key->expanded = aligned_alloc(KEY_ALIGNMENT, EXPANDED_BYTES);
    INVARIANT(key->expanded != NULL);
    library.expand[key->size](key->key, key->expanded);
    explicit_bzero(key->key, sizeof key->key);
}

static void gcm_seal(struct gcm_key *key, uint8_t *dest, const uint8_t *plain, size_t len,
                     const uint8_t *nonce, const uint8_t *aad, size_t aad_bytes) {
    struct gcm_context_data scratch;
    if (key->expanded == NULL)
        expand(key);
    library.seal[key->size](key->expanded, &scratch, dest, plain, len, nonce, aad, aad_bytes,
                            dest + len, GCM_TAG_BYTES);
}

static bool gcm_open(struct gcm_key *key, uint8_t *dest, const uint8_t *sealed, size_t len,
                     const uint8_t *nonce, const uint8_t *aad, size_t aad_bytes) {
    struct gcm_context_data scratch;
    uint8_t tag[GCM_TAG_BYTES];
    if (key->expanded == NULL)
        expand(key);
    library.open[key->size](key->expanded, &scratch, dest, sealed, len, nonce, aad, aad_bytes, tag,
                            sizeof tag);
    return gnutls_memcmp(tag, sealed + len, sizeof tag) == 0;
}

static struct mask_key *mask_key_new(const uint8_t *key, size_t key_bytes) {
    struct mask_key *fresh = xcalloc(1, sizeof *fresh);
    __m128i for_decryption[ROUND_KEYS_MAX];
    fresh->rounds = key_bytes == 16 ? 10 : 14;
    library.round_keys[size_of(key_bytes)](key, fresh->round_keys, for_decryption);
    explicit_bzero(for_decryption, sizeof for_decryption);
    return fresh;
}

static void mask_key_free(struct mask_key *key) {
    explicit_bzero(key, sizeof *key);
    free(key);
}

/* The library's direct calls have no single block with a 256-bit key. */
__attribute__((target("aes"))) static void mask(const struct mask_key *key, uint8_t *dest,
                                                const uint8_t *sample) {
    __m128i block = _mm_loadu_si128((const __m128i_u *)(const void *)sample);
    block = _mm_xor_si128(block, key->round_keys[0]);
    for (unsigned i = 1; i < key->rounds; i++)
        block = _mm_aesenc_si128(block, key->round_keys[i]);
    block = _mm_aesenclast_si128(block, key->round_keys[key->rounds]);
    memcpy(dest, &block, MASK_BYTES);
}

/* ---- what the processor can do ---- */

static struct ipsec_mb functions = {
    .gcm_key_new = gcm_key_new,
    .gcm_key_free = gcm_key_free,
    .gcm_seal = gcm_seal,
    .gcm_open = gcm_open,
    .mask_key_new = mask_key_new,
    .mask_key_free = mask_key_free,
    .mask = mask,
};
static const char *unusable; /* why, or NULL */

static const char *name_of(IMB_ARCH arch, uint64_t features) {
    const uint64_t wide = IMB_FEATURE_VAES | IMB_FEATURE_VPCLMULQDQ;
    switch (arch) {
    case IMB_ARCH_SSE:
        return "ipsec-mb sse";
    case IMB_ARCH_AVX:
        return "ipsec-mb avx";
    case IMB_ARCH_AVX2:
        return "ipsec-mb avx2";
    case IMB_ARCH_AVX512:
        return (features & wide) == wide ? "ipsec-mb avx512-vaes" : "ipsec-mb avx512";
    case IMB_ARCH_NONE:
    case IMB_ARCH_NOAESNI:
    case IMB_ARCH_NUM:
    default:
        return NULL;
    }
}

/* Why the functions of `manager` are none for us, or NULL after taking them over. */
static const char *take_functions(const IMB_MGR *manager, IMB_ARCH arch) {
    const uint64_t needed = IMB_FEATURE_AESNI | IMB_FEATURE_PCLMULQDQ;
    functions.name = name_of(arch, manager->features);
    if ((manager->features & needed) != needed || functions.name == NULL)
        return "this processor has no AES-NI and PCLMULQDQ";
    if ((manager->features & IMB_FEATURE_SELF_TEST) != 0 &&
        (manager->features & IMB_FEATURE_SELF_TEST_PASS) == 0)
        return "libipsec-mb failed its own test on this processor";
    library.expand[AES_128] = manager->gcm128_pre;
    library.expand[AES_256] = manager->gcm256_pre;
    library.seal[AES_128] = manager->gcm128_enc;
    library.seal[AES_256] = manager->gcm256_enc;
    library.open[AES_128] = manager->gcm128_dec;
    library.open[AES_256] = manager->gcm256_dec;
    library.round_keys[AES_128] = manager->keyexp_128;
    library.round_keys[AES_256] = manager->keyexp_256;
    return NULL;
}

static void probe(void) {
    IMB_ARCH arch = IMB_ARCH_NONE;
    IMB_MGR *manager = alloc_mb_mgr(0);
    if (manager == NULL) {
        unusable = "libipsec-mb does not start";
        return;
    }
    init_mb_mgr_auto(manager, &arch);
    unusable = take_functions(manager, arch);
    free_mb_mgr(manager);
}

const struct ipsec_mb *ipsec_mb_get(const char **why_not) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, probe);
    *why_not = unusable;
    return unusable == NULL ? &functions : NULL;
}
