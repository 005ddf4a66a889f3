/*
 * TLS credentials for QUIC connections: certificate and key of a broker, trust of a client.
 *
 * Immutable after creation and reference counted atomically: every connection holds a reference,
 * so a reload makes new credentials while old connections keep theirs. Any thread.
 */
#ifndef QUIC_TLS_H
#define QUIC_TLS_H

#include "base/err.h"
#include "quic/cipher.h"

#include <gnutls/gnutls.h>
#include <ngtcp2/ngtcp2_crypto.h>
#include <stdbool.h>

struct quic_tls;

/**
 * Credentials of a broker from PEM files. With `require_alpn` a client hello without "felix/1"
 * is refused; otherwise one without ALPN is served, one that offers "felix/1" gets it, and one
 * that offers only other names fails with no_application_protocol.
 * `cipher` protects the packets. Returns owned in *ret. FELIX_TLS with what was tried in reterr,
 * FELIX_INVALID_ARGUMENT when the cipher cannot be had.
 * Source: wire extensions, section 1.1.
 */
enum felix_err quic_tls_server_new(const char *cert_path, const char *key_path, bool require_alpn,
                                   enum quic_cipher cipher, struct quic_tls **ret,
                                   struct felix_error *reterr);

/** Trust of a client: the PEM file `ca_path`, or the system's store when NULL. No ALPN offered.
 * FELIX_SYSTEM: the file cannot be read; FELIX_TLS: it holds no certificate; cipher as above. */
enum felix_err quic_tls_client_new(const char *ca_path, enum quic_cipher cipher,
                                   struct quic_tls **ret, struct felix_error *reterr);

struct quic_tls *quic_tls_ref(struct quic_tls *tls);
void quic_tls_unref(struct quic_tls *tls);

/**
 * Make the GnuTLS session of one connection, configured for QUIC, with `conn_ref` as its pointer.
 * `server_name` is verified and, unless it is an IP literal, sent as SNI (client only).
 * Returns owned in *ret.
 */
enum felix_err quic_tls_session_new(struct quic_tls *tls, const char *server_name,
                                    ngtcp2_crypto_conn_ref *conn_ref, gnutls_session_t *ret);

/** Why this side refused the peer's certificate, in words, into `out` of `capacity` bytes. Returns
 * the length; 0 when it was not refused or the session is a broker's. */
size_t quic_tls_refusal(gnutls_session_t session, char *out, size_t capacity);

#endif
