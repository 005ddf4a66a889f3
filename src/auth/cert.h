/*
 * A certificate for development: self-signed, for this machine only. Command line; blocks.
 * Source: wire specification, section 2.2.
 */
#ifndef AUTH_CERT_H
#define AUTH_CERT_H

#include <stdint.h>

#include "base/err.h"

struct cert_paths {
    const char *cert; /* PEM, mode 0644 */
    const char *key;  /* PEM (PKCS #8), mode 0600 */
};

/**
 * Make a key and a certificate for localhost, 127.0.0.1 and ::1, valid from an hour before `now_s`
 * (seconds since the epoch) for a year, and write both; what was there is replaced.
 *
 * A client trusts it by taking the certificate itself as its root. It is no CA, because several
 * TLS stacks refuse a CA as the certificate of a server, and it is version 3, because they refuse
 * others too. FELIX_TLS: GnuTLS failed. FELIX_SYSTEM: a file could not be written.
 */
enum felix_err cert_make_dev(const struct cert_paths *paths, int64_t now_s,
                             struct felix_error *reterr);

#endif
