/*
 * AES-GCM and the AES block of header protection from libipsec-mb, for the packet cipher alone
 * (quic/cipher.h). Compiled as ipsec_mb.c where the library is, else as ipsec_mb_absent.c.
 */
#ifndef QUIC_IPSEC_MB_H
#define QUIC_IPSEC_MB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GCM_TAG_BYTES ((size_t)16)
#define GCM_NONCE_BYTES ((size_t)12)
#define MASK_BYTES ((size_t)5)
#define MASK_SAMPLE_BYTES ((size_t)16)

struct gcm_key;
struct mask_key;

/* One thread at a time uses a key; different keys may be used at once. Raw keys are 16
 * or 32 bytes, returned owned, and wiped when they are freed. */
struct ipsec_mb {
    const char *name; /* "ipsec-mb" and which code the processor gets */

    struct gcm_key *(*gcm_key_new)(const uint8_t *key, size_t key_bytes);
    void (*gcm_key_free)(struct gcm_key *key);
    /* Writes `len` + GCM_TAG_BYTES bytes at `dest`, which may be `plain`. */
    void (*gcm_seal)(struct gcm_key *key, uint8_t *dest, const uint8_t *plain, size_t len,
                     const uint8_t *nonce, const uint8_t *aad, size_t aad_bytes);
    /* `len` is without the tag, which follows. False: forged or damaged, `dest` means nothing. */
    bool (*gcm_open)(struct gcm_key *key, uint8_t *dest, const uint8_t *sealed, size_t len,
                     const uint8_t *nonce, const uint8_t *aad, size_t aad_bytes);

    struct mask_key *(*mask_key_new)(const uint8_t *key, size_t key_bytes);
    void (*mask_key_free)(struct mask_key *key);
    void (*mask)(const struct mask_key *key, uint8_t *dest, const uint8_t *sample);
};

/**
 * The functions, the same at every call; NULL when this build or this processor has none, with the
 * reason in words in *why_not. The first call probes the processor and lets the library test
 * itself (about 2 ms). Any thread.
 */
const struct ipsec_mb *ipsec_mb_get(const char **why_not);

#endif
