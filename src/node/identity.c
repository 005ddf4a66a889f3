#include "node/identity.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "auth/cert.h"
#include "auth/file.h"
#include "auth/mint.h"
#include "base/check.h"
#include "base/log.h"

#define CERT_RENEW_S ((time_t)300 * 24 * 3600) /* certificates of ours last a year */
#define DEV_TOKEN_TTL_S ((int64_t)30 * 24 * 3600)
#define PUBLIC_MODE 0644
#define SECRET_MODE 0600

static const char *const dev_perms[] = {
    "stream.publish:stream:" DEV_TENANT "/*", "stream.subscribe:stream:" DEV_TENANT "/*",
    "stream.manage:stream:" DEV_TENANT "/*",  "cache.read:cache:" DEV_TENANT "/*",
    "cache.write:cache:" DEV_TENANT "/*",
};

static bool is_set(const char *text) {
    return text != NULL && text[0] != '\0';
}

/* FELIX_DATA_DIR, else $XDG_STATE_HOME/felix/dev (or broker), else below ~/.local/state. */
static void find_data_dir(const struct config *config, struct identity *identity) {
    const char *leaf = config->dev ? "dev" : "broker";
    const char *state = getenv("XDG_STATE_HOME");
    const char *home = getenv("HOME");
    if (is_set(config->data_dir))
        (void)snprintf(identity->data_dir, sizeof identity->data_dir, "%s", config->data_dir);
    else if (is_set(state))
        (void)snprintf(identity->data_dir, sizeof identity->data_dir, "%s/felix/%s", state, leaf);
    else
        (void)snprintf(identity->data_dir, sizeof identity->data_dir, "%s/.local/state/felix/%s",
                       is_set(home) ? home : "/var/lib", leaf);
}

static enum felix_err make_dirs(const char *path, struct felix_error *reterr) {
    char part[4096];
    (void)snprintf(part, sizeof part, "%s", path);
    for (char *slash = strchr(part + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        (void)mkdir(part, 0755);
        *slash = '/';
    }
    if (mkdir(part, 0700) != 0 && errno != EEXIST)
        return error_set(reterr, FELIX_SYSTEM, errno,
                         "cannot create the data directory %s (FELIX_DATA_DIR or --data-dir)",
                         path);
    return FELIX_OK;
}

static void path_in(const struct identity *identity, const char *name, char out[4200]) {
    (void)snprintf(out, 4200, "%s/%s", identity->data_dir, name);
}

static enum felix_err prepare_cert(const struct config *config, struct identity *identity,
                                   struct felix_error *reterr) {
    bool have_cert = is_set(config->tls_cert), have_key = is_set(config->tls_key);
    if (have_cert != have_key)
        return error_set(reterr, FELIX_INVALID_ARGUMENT, 0,
                         "FELIX_TLS_CERT and FELIX_TLS_KEY belong together: set both or none");
    if (have_cert) {
        (void)snprintf(identity->cert_path, sizeof identity->cert_path, "%s", config->tls_cert);
        (void)snprintf(identity->key_path, sizeof identity->key_path, "%s", config->tls_key);
        return FELIX_OK;
    }
    identity->self_signed = true;
    path_in(identity, "ca.pem", identity->cert_path);
    path_in(identity, "key.pem", identity->key_path);
    struct stat cert, key;
    time_t now = time(NULL);
    if (stat(identity->cert_path, &cert) == 0 && stat(identity->key_path, &key) == 0 &&
        now - cert.st_mtime < CERT_RENEW_S && cert.st_mtime <= now)
        return FELIX_OK;
    struct cert_paths paths = {.cert = identity->cert_path, .key = identity->key_path};
    return cert_make_dev(&paths, now, reterr);
}

static enum felix_err export_cert(const struct config *config, const struct identity *identity,
                                  struct felix_error *reterr) {
    uint8_t *pem = NULL;
    size_t bytes = 0;
    if (!is_set(config->tls_cert_export))
        return FELIX_OK;
    enum felix_err err = auth_file_read(identity->cert_path, (size_t)1 << 20, &pem, &bytes, reterr);
    if (err == FELIX_OK)
        err = auth_file_write(config->tls_cert_export, slice_of(pem, bytes), PUBLIC_MODE, reterr);
    free(pem);
    return err;
}

static enum felix_err prepare_secret(struct identity *identity, struct felix_error *reterr) {
    char path[4200];
    uint8_t *bytes = NULL;
    size_t len = 0;
    path_in(identity, "quic-secret", path);
    if (access(path, R_OK) == 0 &&
        auth_file_read(path, sizeof identity->static_secret, &bytes, &len, NULL) == FELIX_OK &&
        len == sizeof identity->static_secret) {
        memcpy(identity->static_secret, bytes, len);
        free(bytes);
        return FELIX_OK;
    }
    free(bytes);
    ssize_t got = getrandom(identity->static_secret, sizeof identity->static_secret, 0);
    INVARIANT(got == (ssize_t)sizeof identity->static_secret);
    return auth_file_write(path, slice_of(identity->static_secret, sizeof identity->static_secret),
                           SECRET_MODE, reterr);
}

static enum felix_err dev_key(const struct identity *identity, struct mint_key *ret,
                              struct felix_error *reterr) {
    char path[4200];
    path_in(identity, "signing-key.jwk", path);
    if (access(path, R_OK) == 0)
        return mint_key_load(path, ret, reterr);
    enum felix_err err = mint_key_generate(NULL, ret, reterr);
    if (err == FELIX_OK)
        err = mint_key_save(ret, path, reterr);
    return err;
}

static enum felix_err write_dev_token(struct identity *identity, struct felix_error *reterr) {
    struct mint_key key;
    char *token = NULL;
    enum felix_err err = dev_key(identity, &key, reterr);
    if (err != FELIX_OK)
        return err;
    struct mint_claims claims = {
        .tenant = DEV_TENANT,
        .subject = "p:dev",
        .ttl_s = DEV_TOKEN_TTL_S,
        .perms = dev_perms,
        .perms_count = sizeof dev_perms / sizeof dev_perms[0],
    };
    err = token_mint(&key, &claims, (int64_t)time(NULL), &token, reterr);
    mint_key_wipe(&key);
    if (err != FELIX_OK)
        return err;
    path_in(identity, "token", identity->token_path);
    err = auth_file_write(identity->token_path, slice_str(token), SECRET_MODE, reterr);
    explicit_bzero(token, strlen(token));
    free(token);
    return err;
}

enum felix_err identity_prepare(const struct config *config, struct identity *ret,
                                struct felix_error *reterr) {
    *ret = (struct identity){0};
    if (!config->dev && !is_set(config->auth_jwks_file))
        return error_set(
            reterr, FELIX_INVALID_ARGUMENT, 0,
            "no keys to verify clients with: set FELIX_AUTH_JWKS_FILE (--auth-jwks-file) to a JSON "
            "file with the tenants' public keys (`felix token keygen` makes one), or start with "
            "--dev for a development broker that needs nothing");
    find_data_dir(config, ret);
    enum felix_err err = make_dirs(ret->data_dir, reterr);
    if (err == FELIX_OK)
        err = prepare_cert(config, ret, reterr);
    if (err == FELIX_OK)
        err = export_cert(config, ret, reterr);
    if (err == FELIX_OK)
        err = prepare_secret(ret, reterr);
    if (err == FELIX_OK && config->dev)
        err = write_dev_token(ret, reterr);
    return err;
}

enum felix_err identity_load_tls(const struct config *config, const struct identity *identity,
                                 struct quic_tls **ret, struct felix_error *reterr) {
    return quic_tls_server_new(identity->cert_path, identity->key_path, config->tls_require_alpn,
                               (enum quic_cipher)config->quic_cipher, ret, reterr);
}

enum felix_err identity_load_keys(const struct config *config, const struct identity *identity,
                                  struct auth_keyset **ret, struct felix_error *reterr) {
    if (is_set(config->auth_jwks_file))
        return auth_keyset_load_file(config->auth_jwks_file, ret, reterr);
    struct mint_key key;
    char *jwks = NULL;
    enum felix_err err = dev_key(identity, &key, reterr);
    if (err == FELIX_OK)
        err = mint_key_jwks(&key, DEV_TENANT, &jwks, reterr);
    if (err == FELIX_OK)
        err = auth_keyset_parse_jwks(slice_str(jwks), ret, reterr);
    mint_key_wipe(&key);
    free(jwks);
    return err;
}
