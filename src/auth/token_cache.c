/*
 * A set-associative table: the SHA-256 of tenant and token picks a set of four entries, of which
 * any may hold it; when all four are taken, the one used longest ago gives way. No chains, no
 * growth. Only tokens that verified come in, so a stranger cannot push out anything, and a set that
 * is too small costs another verification, nothing else.
 */
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <stdlib.h>

#include "auth/token.h"
#include "base/check.h"
#include "base/cursor.h"

#define DIGEST_BYTES 32u
#define SET_ENTRIES 4u
#define SETS (TOKEN_CACHE_ENTRIES / SET_ENTRIES)

struct token_entry {
    struct principal *principal; /* NULL: free */
    uint64_t used;               /* turn of the last use */
    uint8_t digest[DIGEST_BYTES];
};

void token_cache_init(struct token_cache *cache) {
    *cache = (struct token_cache){
        .entries = xcalloc(TOKEN_CACHE_ENTRIES, sizeof *cache->entries),
    };
}

static void entry_clear(struct token_cache *cache, struct token_entry *entry) {
    if (entry->principal == NULL)
        return;
    principal_unref(entry->principal);
    entry->principal = NULL;
    cache->count--;
}

static void cache_clear(struct token_cache *cache) {
    for (size_t i = 0; i < TOKEN_CACHE_ENTRIES && cache->count != 0; i++)
        entry_clear(cache, &cache->entries[i]);
}

void token_cache_deinit(struct token_cache *cache) {
    if (cache->entries != NULL)
        cache_clear(cache);
    free(cache->entries);
    *cache = (struct token_cache){0};
}

/* The length of the tenant goes in first, so that no two offers make the same bytes. */
static bool offer_digest(const struct token_offer *offer, uint8_t digest[DIGEST_BYTES]) {
    uint8_t tenant_bytes[8];
    gnutls_hash_hd_t hash = NULL;

    be64_store(tenant_bytes, offer->tenant.len);
    if (gnutls_hash_init(&hash, GNUTLS_DIG_SHA256) != 0)
        return false;
    bool good = gnutls_hash(hash, tenant_bytes, sizeof tenant_bytes) == 0 &&
                gnutls_hash(hash, offer->tenant.data, offer->tenant.len) == 0 &&
                gnutls_hash(hash, offer->token.data, offer->token.len) == 0;
    gnutls_hash_deinit(hash, digest);
    return good;
}

static struct token_entry *set_find(struct token_entry *set, const uint8_t *digest) {
    for (size_t i = 0; i < SET_ENTRIES; i++) {
        if (set[i].principal != NULL && memcmp(set[i].digest, digest, DIGEST_BYTES) == 0)
            return &set[i];
    }
    return NULL;
}

/* A free entry, or else the one used longest ago. */
static struct token_entry *set_victim(struct token_entry *set) {
    struct token_entry *victim = &set[0];
    for (size_t i = 0; i < SET_ENTRIES; i++) {
        if (set[i].principal == NULL)
            return &set[i];
        if (set[i].used < victim->used)
            victim = &set[i];
    }
    return victim;
}

enum felix_err token_cache_verify(struct token_cache *cache, const struct auth_keyset *keys,
                                  const struct token_offer *offer, int64_t now_s, uint32_t leeway_s,
                                  struct principal **ret) {
    uint8_t digest[DIGEST_BYTES];
    if (keys == NULL || offer->tenant.len > NAME_VALID_BYTES_MAX ||
        offer->token.len > TOKEN_BYTES_MAX)
        return FELIX_UNAUTHENTICATED;
    if (!offer_digest(offer, digest))
        return token_verify(keys, offer, now_s, leeway_s, ret);

    if (cache->generation != auth_keyset_generation(keys)) {
        cache_clear(cache);
        cache->generation = auth_keyset_generation(keys);
    }

    struct token_entry *set = &cache->entries[(size_t)be32_load(digest) % SETS * SET_ENTRIES];
    struct token_entry *entry = set_find(set, digest);
    if (entry != NULL && entry->principal->exp_s < now_s - (int64_t)leeway_s) {
        entry_clear(cache, entry);
        return FELIX_EXPIRED;
    }
    if (entry != NULL) {
        cache->hits++;
        entry->used = ++cache->turn;
        *ret = principal_ref(entry->principal);
        return FELIX_OK;
    }

    cache->misses++;
    enum felix_err err = token_verify(keys, offer, now_s, leeway_s, ret);
    if (err != FELIX_OK)
        return err;

    entry = set_victim(set);
    entry_clear(cache, entry);
    *entry = (struct token_entry){.principal = principal_ref(*ret), .used = ++cache->turn};
    memcpy(entry->digest, digest, DIGEST_BYTES);
    cache->count++;
    return FELIX_OK;
}
