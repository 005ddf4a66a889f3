/*
 * GnuTLS 3.7 derives an Ed25519 public key only when it reads a private key in PKCS #8, so a seed
 * is wrapped into those 16 bytes of DER first. All keys come through there: a key whose halves do
 * not belong together cannot exist here.
 *
 * A minted token goes through claims_accept before it is handed out: what a broker would refuse is
 * an error where somebody can still read it.
 */
#include "auth/mint.h"

#include <gnutls/abstract.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "auth/claims.h"
#include "auth/file.h"
#include "auth/jws.h"
#include "base/check.h"
#include "wire/json.h"

#define KEY_FILE_BYTES_MAX ((size_t)64 << 10)
#define KID_RANDOM_BYTES 16u
#define PKCS8_PREFIX_BYTES 16u

/* RFC 8410, 7: version 0, algorithm 1.3.101.112, an OCTET STRING in an OCTET STRING. */
static const uint8_t pkcs8_prefix[PKCS8_PREFIX_BYTES] = {
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
};

static bool privkey_open(const uint8_t seed[ED25519_SEED_BYTES], gnutls_privkey_t *ret) {
    uint8_t der[PKCS8_PREFIX_BYTES + ED25519_SEED_BYTES];
    memcpy(der, pkcs8_prefix, sizeof pkcs8_prefix);
    memcpy(der + sizeof pkcs8_prefix, seed, ED25519_SEED_BYTES);

    gnutls_privkey_t key = NULL;
    gnutls_datum_t in = {.data = der, .size = sizeof der};
    bool good = gnutls_privkey_init(&key) == 0 &&
                gnutls_privkey_import_x509_raw(key, &in, GNUTLS_X509_FMT_DER, NULL, 0) == 0;
    explicit_bzero(der, sizeof der);
    if (!good) {
        gnutls_privkey_deinit(key);
        return false;
    }
    *ret = key;
    return true;
}

static bool seed_public(const uint8_t seed[ED25519_SEED_BYTES], uint8_t x[ED25519_KEY_BYTES]) {
    gnutls_privkey_t key = NULL;
    gnutls_datum_t out = {0};
    if (!privkey_open(seed, &key))
        return false;

    bool good = gnutls_privkey_export_ecc_raw2(key, NULL, &out, NULL, NULL, 0) == 0 &&
                out.size == ED25519_KEY_BYTES;
    if (good)
        memcpy(x, out.data, ED25519_KEY_BYTES);
    gnutls_free(out.data);
    gnutls_privkey_deinit(key);
    return good;
}

/* Can `text` stand in JSON, as a string that reads back? */
static bool text_is_utf8(const char *text) {
    struct slice in = slice_str(text);
    size_t bytes = json_quoted_bytes(in);
    uint8_t *quoted = xmalloc(bytes);
    bytes = json_quote(in, quoted);

    struct json j = json_open(slice_of(quoted, bytes));
    struct json_string back;
    bool good = json_take_string(&j, &back) && json_finish(&j);
    free(quoted);
    return good;
}

enum felix_err mint_key_from_seed(const uint8_t seed[ED25519_SEED_BYTES], const char *kid,
                                  struct mint_key *ret, struct felix_error *reterr) {
    size_t kid_bytes = strlen(kid);
    if (kid_bytes == 0 || kid_bytes >= sizeof ret->kid || !text_is_utf8(kid))
        return error_set(reterr, FELIX_INVALID_ARGUMENT, 0,
                         "key id: 1 to %zu bytes of UTF-8 are allowed", sizeof ret->kid - 1);

    struct mint_key key = {0};
    memcpy(key.seed, seed, sizeof key.seed);
    memcpy(key.kid, kid, kid_bytes);
    if (!seed_public(seed, key.x)) {
        mint_key_wipe(&key);
        return error_set(reterr, FELIX_TLS, 0, "GnuTLS cannot make an Ed25519 key");
    }
    *ret = key;
    mint_key_wipe(&key);
    return FELIX_OK;
}

enum felix_err mint_key_generate(const char *kid, struct mint_key *ret,
                                 struct felix_error *reterr) {
    uint8_t seed[ED25519_SEED_BYTES];
    uint8_t random[KID_RANDOM_BYTES];
    char random_kid[2 * KID_RANDOM_BYTES + 1];

    if (gnutls_rnd(GNUTLS_RND_KEY, seed, sizeof seed) != 0 ||
        gnutls_rnd(GNUTLS_RND_NONCE, random, sizeof random) != 0)
        return error_set(reterr, FELIX_TLS, 0, "GnuTLS has no randomness");
    for (size_t i = 0; i < sizeof random; i++)
        (void)snprintf(random_kid + 2 * i, 3, "%02x", random[i]);

    enum felix_err err = mint_key_from_seed(seed, kid != NULL ? kid : random_kid, ret, reterr);
    explicit_bzero(seed, sizeof seed);
    return err;
}

void mint_key_wipe(struct mint_key *key) {
    explicit_bzero(key, sizeof *key);
}

static void put_quoted(FILE *out, const char *text) {
    struct slice in = slice_str(text);
    uint8_t *quoted = xmalloc(json_quoted_bytes(in));
    size_t bytes = json_quote(in, quoted);
    (void)fwrite(quoted, 1, bytes, out);
    free(quoted);
}

static void put_base64url(FILE *out, const uint8_t bytes[32]) {
    uint8_t text[64];
    size_t len = base64url_encoded_bytes(32);
    INVARIANT(len <= sizeof text);
    base64url_encode(slice_of(bytes, 32), text);
    (void)fwrite(text, 1, len, out);
    explicit_bzero(text, sizeof text);
}

static void put_jwk(FILE *out, const struct mint_key *key, bool secret) {
    (void)fputs("{\"kty\":\"OKP\",\"kid\":", out);
    put_quoted(out, key->kid);
    (void)fputs(",\"alg\":\"EdDSA\",\"use\":\"sig\",\"crv\":\"Ed25519\",\"x\":\"", out);
    put_base64url(out, key->x);
    if (secret) {
        (void)fputs("\",\"d\":\"", out);
        put_base64url(out, key->seed);
    }
    (void)fputs("\"}", out);
}

/* Text that grows in memory; ends the process when there is none. */
static FILE *text_open(char **text, size_t *bytes) {
    FILE *out = open_memstream(text, bytes);
    INVARIANT(out != NULL);
    return out;
}

static void text_close(FILE *out) {
    INVARIANT(fclose(out) == 0);
}

enum felix_err mint_key_save(const struct mint_key *key, const char *path,
                             struct felix_error *reterr) {
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = text_open(&text, &bytes);
    put_jwk(out, key, true);
    (void)fputc('\n', out);
    text_close(out);

    enum felix_err err = auth_file_write(path, slice_of(text, bytes), 0600, reterr);
    explicit_bzero(text, bytes);
    free(text);
    return err;
}

struct jwk_texts {
    struct json_string kty;
    struct json_string crv;
    struct json_string kid;
    struct json_string x;
    struct json_string d;
};

static bool jwk_read(struct slice text, struct jwk_texts *ret) {
    struct json j = json_open(text);
    bool first = true;
    struct json_string name;
    const struct {
        const char *name;
        struct json_string *text;
    } members[] = {
        {"kty", &ret->kty}, {"crv", &ret->crv}, {"kid", &ret->kid}, {"x", &ret->x}, {"d", &ret->d},
    };

    if (!json_object_begin(&j))
        return false;
    while (json_member(&j, &first, &name)) {
        struct json_string *member = NULL;
        for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
            if (json_string_is(&name, members[i].name))
                member = members[i].text;
        }
        if (member != NULL && member->raw.data != NULL)
            return false; /* twice */
        if (!(member != NULL ? json_take_string(&j, member) : json_skip(&j)))
            return false;
    }
    return json_finish(&j) && json_string_is(&ret->kty, "OKP") &&
           json_string_is(&ret->crv, "Ed25519");
}

static bool jwk_bytes32(const struct json_string *text, uint8_t out[32]) {
    size_t bytes = 0;
    return !text->escaped && base64url_decoded_bytes(text->raw, &bytes) == FELIX_OK &&
           bytes == 32 && base64url_decode(text->raw, out) == FELIX_OK;
}

static enum felix_err mint_key_parse(struct slice text, struct mint_key *ret,
                                     struct felix_error *reterr) {
    struct jwk_texts jwk = {0};
    struct mint_key key = {0};
    if (!jwk_read(text, &jwk) || !jwk_bytes32(&jwk.d, key.seed) || jwk.kid.decoded_bytes == 0 ||
        jwk.kid.decoded_bytes >= sizeof key.kid) {
        mint_key_wipe(&key);
        return error_set(reterr, FELIX_BAD_JSON, 0,
                         "not a signing key: an Ed25519 JWK with kid, x and d is");
    }
    json_string_decode(&jwk.kid, (uint8_t *)key.kid);

    uint8_t x[ED25519_KEY_BYTES];
    enum felix_err err = mint_key_from_seed(key.seed, key.kid, ret, reterr);
    mint_key_wipe(&key);
    if (err != FELIX_OK)
        return err;
    if (jwk.x.raw.data != NULL && (!jwk_bytes32(&jwk.x, x) || memcmp(x, ret->x, sizeof x) != 0)) {
        mint_key_wipe(ret);
        return error_set(reterr, FELIX_BAD_JSON, 0, "x is not the public key of d");
    }
    return FELIX_OK;
}

enum felix_err mint_key_load(const char *path, struct mint_key *ret, struct felix_error *reterr) {
    uint8_t *text = NULL;
    size_t bytes = 0;
    enum felix_err err = auth_file_read(path, KEY_FILE_BYTES_MAX, &text, &bytes, reterr);
    if (err != FELIX_OK)
        return err;

    struct felix_error why = {0};
    err = mint_key_parse(slice_of(text, bytes), ret, &why);
    explicit_bzero(text, bytes);
    free(text);
    if (err != FELIX_OK)
        return error_set(reterr, err, 0, "%s: %s", path, why.text);
    return FELIX_OK;
}

enum felix_err mint_key_jwks(const struct mint_key *key, const char *tenant, char **ret,
                             struct felix_error *reterr) {
    if (tenant != NULL && (!name_valid(slice_str(tenant)) || !text_is_utf8(tenant)))
        return error_set(reterr, FELIX_INVALID_ARGUMENT, 0, "'%s' is not a tenant id", tenant);

    char *text = NULL;
    size_t bytes = 0;
    FILE *out = text_open(&text, &bytes);
    if (tenant != NULL) {
        (void)fputs("{\"tenants\":{", out);
        put_quoted(out, tenant);
        (void)fputc(':', out);
    }
    (void)fputs("{\"keys\":[", out);
    put_jwk(out, key, false);
    (void)fputs(tenant != NULL ? "]}}}" : "]}", out);
    text_close(out);
    *ret = text;
    return FELIX_OK;
}

/* Appends one part in base64url and returns where the next one starts. */
static char *sign_put(char *at, struct slice part) {
    base64url_encode(part, (uint8_t *)at);
    return at + base64url_encoded_bytes(part.len);
}

enum felix_err token_sign(const struct mint_key *key, const struct token_json *json, char **ret) {
    size_t message_bytes =
        base64url_encoded_bytes(json->header.len) + 1 + base64url_encoded_bytes(json->claims.len);
    size_t signature_bytes = base64url_encoded_bytes(ED25519_SIGNATURE_BYTES);
    char *token = xmalloc(message_bytes + 1 + signature_bytes + 1);

    char *at = sign_put(token, json->header);
    *at++ = '.';
    at = sign_put(at, json->claims);

    gnutls_privkey_t secret = NULL;
    gnutls_datum_t message = {.data = (uint8_t *)token, .size = (unsigned)message_bytes};
    gnutls_datum_t signature = {0};
    bool good = privkey_open(key->seed, &secret);
    if (good) {
        good = gnutls_privkey_sign_data2(secret, GNUTLS_SIGN_EDDSA_ED25519, 0, &message,
                                         &signature) == 0 &&
               signature.size == ED25519_SIGNATURE_BYTES;
        gnutls_privkey_deinit(secret);
    }
    if (good) {
        *at++ = '.';
        at = sign_put(at, slice_of(signature.data, signature.size));
        *at = 0;
        *ret = token;
    } else {
        free(token);
    }
    gnutls_free(signature.data);
    return good ? FELIX_OK : FELIX_TLS;
}

static enum felix_err mint_check(const struct mint_claims *claims, struct felix_error *reterr) {
    if (!name_valid(slice_str(claims->tenant)) || !text_is_utf8(claims->tenant))
        return error_set(reterr, FELIX_INVALID_ARGUMENT, 0, "'%s' is not a tenant id",
                         claims->tenant);
    if (!text_is_utf8(claims->subject))
        return error_set(reterr, FELIX_INVALID_ARGUMENT, 0, "the subject is not UTF-8");
    if (claims->ttl_s < 1 || claims->ttl_s > MINT_TTL_S_MAX)
        return error_set(reterr, FELIX_INVALID_ARGUMENT, 0,
                         "a lifetime of %" PRId64 " s: 1 to %" PRId64 " are allowed", claims->ttl_s,
                         MINT_TTL_S_MAX);
    for (size_t i = 0; i < claims->perms_count; i++) {
        struct grant grant;
        if (grant_parse(slice_str(claims->perms[i]), &grant) != FELIX_OK ||
            !text_is_utf8(claims->perms[i]))
            return error_set(reterr, FELIX_INVALID_ARGUMENT, 0,
                             "permission '%s': action:object is needed, for example "
                             "stream.publish:stream:%s/default/*",
                             claims->perms[i], claims->tenant);
    }
    return FELIX_OK;
}

static char *mint_claims_json(const struct mint_claims *claims, int64_t now_s) {
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = text_open(&text, &bytes);
    (void)fputs("{\"iss\":\"" TOKEN_ISSUER "\",\"aud\":\"" TOKEN_AUDIENCE "\",\"sub\":", out);
    put_quoted(out, claims->subject);
    (void)fputs(",\"tid\":", out);
    put_quoted(out, claims->tenant);
    (void)fprintf(out, ",\"iat\":%" PRId64 ",\"exp\":%" PRId64, now_s, now_s + claims->ttl_s);
    if (claims->not_before_s != 0)
        (void)fprintf(out, ",\"nbf\":%" PRId64, claims->not_before_s);
    (void)fputs(",\"perms\":[", out);
    for (size_t i = 0; i < claims->perms_count; i++) {
        if (i != 0)
            (void)fputc(',', out);
        put_quoted(out, claims->perms[i]);
    }
    (void)fputs("]}", out);
    text_close(out);
    return text;
}

static char *mint_header_json(const struct mint_key *key) {
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = text_open(&text, &bytes);
    (void)fputs("{\"typ\":\"JWT\",\"alg\":\"EdDSA\",\"kid\":", out);
    put_quoted(out, key->kid);
    (void)fputc('}', out);
    text_close(out);
    return text;
}

enum felix_err token_mint(const struct mint_key *key, const struct mint_claims *claims,
                          int64_t now_s, char **ret, struct felix_error *reterr) {
    enum felix_err err = mint_check(claims, reterr);
    if (err != FELIX_OK)
        return err;

    char *header = mint_header_json(key);
    char *body = mint_claims_json(claims, now_s);
    char *token = NULL;
    struct principal *principal = NULL;
    struct token_json json = {.header = slice_str(header), .claims = slice_str(body)};
    struct claims_expected expected = {
        .tenant = slice_str(claims->tenant),
        .now_s = claims->not_before_s > now_s ? claims->not_before_s : now_s,
    };

    err = claims_accept(json.claims, &expected, &principal);
    principal_unref(principal);
    if (err != FELIX_OK) {
        err = error_set(reterr, FELIX_INVALID_ARGUMENT, 0, "no broker would accept this token: %s",
                        err_text(err));
        goto out;
    }
    err = token_sign(key, &json, &token);
    if (err != FELIX_OK) {
        err = error_set(reterr, err, 0, "GnuTLS cannot sign");
        goto out;
    }
    if (strlen(token) > TOKEN_BYTES_MAX) {
        free(token);
        err = error_set(reterr, FELIX_LIMIT, 0,
                        "the token has more than %zu bytes: use fewer or wider permissions",
                        TOKEN_BYTES_MAX);
        goto out;
    }
    *ret = token;
out:
    free(header);
    free(body);
    return err;
}
