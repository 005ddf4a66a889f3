/*
 * Keysets. Properties: what is accepted has a usable key and serves somebody; what is refused says
 * why; the same text gives the same keys again, as another generation.
 */
#include <stdlib.h>

#include "auth/keys.h"
#include "base/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const uint8_t signature[ED25519_SIGNATURE_BYTES];
    struct slice json = slice_of(data, size);
    struct felix_error error = {0};
    struct auth_keyset *keys = NULL;
    struct auth_keyset *again = NULL;

    enum felix_err err = auth_keyset_parse_jwks(json, &keys, &error);
    if (err != FELIX_OK) {
        INVARIANT(keys == NULL && error.code == err && error.text[0] != 0);
        return 0;
    }
    INVARIANT(auth_keyset_keys(keys) > 0 && auth_keyset_keys(keys) >= auth_keyset_tenants(keys));
    INVARIANT(auth_keyset_tenants(keys) <= AUTH_TENANTS_MAX);
    if (auth_keyset_tenants(keys) == 0)
        INVARIANT(auth_keyset_serves(keys, slice_str("anybody")));

    struct auth_signed what = {.message = slice_str("a.b"), .signature = signature};
    (void)auth_keyset_verify(keys, slice_str("t1"), slice_str("k1"), &what);

    INVARIANT(auth_keyset_parse_jwks(json, &again, NULL) == FELIX_OK);
    INVARIANT(auth_keyset_keys(again) == auth_keyset_keys(keys));
    INVARIANT(auth_keyset_skipped(again) == auth_keyset_skipped(keys));
    INVARIANT(auth_keyset_generation(again) != auth_keyset_generation(keys));
    auth_keyset_unref(again);
    auth_keyset_unref(keys);
    return 0;
}
