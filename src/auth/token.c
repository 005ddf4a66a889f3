/*
 * One token, from the cheap to the dear:
 *
 *   1. form: at most 16 KiB, two dots, a signature of 64 bytes, a header that says EdDSA;
 *   2. a tenant that has keys;
 *   3. the signature, with the key that `kid` names first;
 *   4. the claims. Nothing is believed, and nothing is reported, of claims that nobody signed.
 *
 * The algorithm is fixed by us: "none", or an HMAC with the public key as its secret, ends in
 * step 1. So does `crit`, which demands extensions that we do not have (RFC 7515, 4.1.11).
 */
#include "auth/token.h"

#include <stdlib.h>

#include "auth/claims.h"
#include "base/check.h"
#include "wire/json.h"

struct token_header {
    bool algorithm_good;
    bool kid_seen;
    size_t kid_bytes; /* 0 without a kid, or with one longer than any of ours */
    uint8_t kid[NAME_VALID_BYTES_MAX];
};

static bool header_read_kid(struct json *j, struct token_header *h) {
    struct json_string kid;
    if (h->kid_seen || !json_take_string(j, &kid))
        return false;
    h->kid_seen = true;
    if (kid.decoded_bytes <= sizeof h->kid) {
        json_string_decode(&kid, h->kid);
        h->kid_bytes = kid.decoded_bytes;
    }
    return true;
}

static bool header_read(struct slice json, struct token_header *h) {
    struct json j = json_open(json);
    bool first = true;
    struct json_string name;

    if (!json_object_begin(&j))
        return false;
    while (json_member(&j, &first, &name)) {
        bool good = true;
        if (json_string_is(&name, "alg")) {
            struct json_string alg;
            good =
                !h->algorithm_good && json_take_string(&j, &alg) && json_string_is(&alg, "EdDSA");
            h->algorithm_good = good;
        } else if (json_string_is(&name, "kid")) {
            good = header_read_kid(&j, h);
        } else if (json_string_is(&name, "crit")) {
            good = false;
        } else {
            good = json_skip(&j);
        }
        if (!good)
            return false;
    }
    return json_finish(&j) && h->algorithm_good;
}

enum felix_err token_verify(const struct auth_keyset *keys, const struct token_offer *offer,
                            int64_t now_s, uint32_t leeway_s, struct principal **ret) {
    uint8_t part[JWS_PART_BYTES_MAX];
    uint8_t signature[ED25519_SIGNATURE_BYTES];
    struct slice json;
    size_t signature_bytes = 0;
    struct jws jws;

    if (!jws_split(offer->token, &jws))
        return FELIX_UNAUTHENTICATED;
    if (base64url_decoded_bytes(jws.signature, &signature_bytes) != FELIX_OK ||
        signature_bytes != sizeof signature ||
        base64url_decode(jws.signature, signature) != FELIX_OK)
        return FELIX_UNAUTHENTICATED;

    struct token_header header = {0};
    if (!jws_decode(jws.header, part, &json) || !header_read(json, &header))
        return FELIX_UNAUTHENTICATED;

    if (keys == NULL || !auth_keyset_serves(keys, offer->tenant))
        return FELIX_UNAUTHENTICATED;

    struct auth_signed what = {.message = jws.message, .signature = signature};
    struct slice kid = slice_of(header.kid, header.kid_bytes);
    if (!auth_keyset_verify(keys, offer->tenant, kid, &what))
        return FELIX_BAD_SIGNATURE;

    if (!jws_decode(jws.claims, part, &json))
        return FELIX_UNAUTHENTICATED;
    struct claims_expected expected = {
        .tenant = offer->tenant, .now_s = now_s, .leeway_s = leeway_s};
    return claims_accept(json, &expected, ret);
}

/* Decodes one part as a string of C; NULL when it is not a JSON object. */
static char *inspect_part(struct slice part) {
    uint8_t *text = xmalloc(JWS_PART_BYTES_MAX + 1);
    struct slice json = {0};
    if (jws_decode(part, text, &json)) {
        struct json j = json_open(json);
        if (json_peek(&j) == JSON_OBJECT && json_skip(&j) && json_finish(&j)) {
            text[json.len] = 0;
            return (char *)text;
        }
    }
    free(text);
    return NULL;
}

enum felix_err token_inspect(struct slice token, struct token_text *ret) {
    struct jws jws;
    if (!jws_split(token, &jws))
        return FELIX_MALFORMED;

    struct token_text text = {.header = inspect_part(jws.header)};
    if (text.header != NULL)
        text.claims = inspect_part(jws.claims);
    if (text.claims == NULL) {
        token_text_deinit(&text);
        return FELIX_MALFORMED;
    }
    *ret = text;
    return FELIX_OK;
}

void token_text_deinit(struct token_text *text) {
    free(text->header);
    free(text->claims);
    *text = (struct token_text){0};
}
