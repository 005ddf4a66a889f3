/*
 * What a node is and whom it believes: certificate, verification keys, secrets, and, for a
 * development node, the files that clients on this machine find. At start and reload; blocks.
 */
#ifndef NODE_IDENTITY_H
#define NODE_IDENTITY_H

#include "auth/keys.h"
#include "node/config.h"
#include "quic/tls.h"

#define DEV_TENANT "t1"
#define DEV_NAMESPACE "default"

struct identity {
    char data_dir[4096];
    char cert_path[4200];
    char key_path[4200];
    char token_path[4200]; /* development only, else empty */
    bool self_signed;
    uint8_t static_secret[32]; /* Retry tokens and stateless resets; kept in the data directory */
};

/**
 * Find or make what `config` asks for. A development node makes a certificate (renewed before it
 * expires), a signing key and a token in its data directory; any other needs keys from
 * FELIX_AUTH_JWKS_FILE, and makes a self-signed certificate when none is configured.
 * FELIX_INVALID_ARGUMENT: no keys; reterr says what to do.
 */
enum felix_err identity_prepare(const struct config *config, struct identity *ret,
                                struct felix_error *reterr);

/** Load the credentials and the keys; each returned owned. Also for a reload. */
enum felix_err identity_load_tls(const struct config *config, const struct identity *identity,
                                 struct quic_tls **ret, struct felix_error *reterr);
enum felix_err identity_load_keys(const struct config *config, const struct identity *identity,
                                  struct auth_keyset **ret, struct felix_error *reterr);

#endif
