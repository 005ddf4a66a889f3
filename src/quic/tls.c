#include "quic/tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ngtcp2/ngtcp2_crypto_gnutls.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"

/* AES-128 first: 256-bit keys cost up to 16 % more cipher time. The compatibility mode of TLS 1.3
 * must be off in QUIC (RFC 9001, 8.4). */
static const char priority[] =
    "NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-128-GCM:+AES-256-GCM:+CHACHA20-POLY1305:"
    "-GROUP-ALL:+GROUP-X25519:+GROUP-SECP256R1:+GROUP-SECP384R1:%DISABLE_TLS13_COMPAT_MODE:"
    "%SERVER_PRECEDENCE";

static const unsigned char alpn_name[] = "felix/1";

#define ALPN_EXTENSION 16u

struct quic_tls {
    _Atomic uint32_t refs;
    bool server;
    bool require_alpn;
    enum quic_cipher cipher; /* as chosen, never auto */
    gnutls_certificate_credentials_t credentials;
    gnutls_priority_t priorities;
};

static enum felix_err tls_new(bool server, enum quic_cipher cipher, struct quic_tls **ret,
                              struct felix_error *reterr) {
    enum quic_cipher chosen;
    enum felix_err err = quic_cipher_choose(cipher, &chosen, reterr);
    if (err != FELIX_OK)
        return err;
    struct quic_tls *tls = xcalloc(1, sizeof *tls);
    tls->server = server;
    tls->cipher = chosen;
    atomic_init(&tls->refs, 1);
    int rc = gnutls_certificate_allocate_credentials(&tls->credentials);
    if (rc == 0)
        rc = gnutls_priority_init(&tls->priorities, priority, NULL);
    if (rc != 0) {
        quic_tls_unref(tls);
        return error_set(reterr, FELIX_TLS, 0, "cannot set up TLS: %s", gnutls_strerror(rc));
    }
    *ret = tls;
    return FELIX_OK;
}

enum felix_err quic_tls_server_new(const char *cert_path, const char *key_path, bool require_alpn,
                                   enum quic_cipher cipher, struct quic_tls **ret,
                                   struct felix_error *reterr) {
    struct quic_tls *tls = NULL;
    enum felix_err err = tls_new(true, cipher, &tls, reterr);
    if (err != FELIX_OK)
        return err;
    tls->require_alpn = require_alpn;
    int rc = gnutls_certificate_set_x509_key_file(tls->credentials, cert_path, key_path,
                                                  GNUTLS_X509_FMT_PEM);
    if (rc < 0) {
        quic_tls_unref(tls);
        return error_set(reterr, FELIX_TLS, 0,
                         "cannot load certificate %s with key %s: %s; both must be PEM files and "
                         "belong together",
                         cert_path, key_path, gnutls_strerror(rc));
    }
    *ret = tls;
    return FELIX_OK;
}

enum felix_err quic_tls_client_new(const char *ca_path, enum quic_cipher cipher,
                                   struct quic_tls **ret, struct felix_error *reterr) {
    struct quic_tls *tls = NULL;
    if (ca_path != NULL && access(ca_path, R_OK) != 0)
        return error_set(reterr, FELIX_SYSTEM, errno, "cannot read the trusted certificates in %s",
                         ca_path);
    enum felix_err err = tls_new(false, cipher, &tls, reterr);
    if (err != FELIX_OK)
        return err;
    int rc = ca_path != NULL ? gnutls_certificate_set_x509_trust_file(tls->credentials, ca_path,
                                                                      GNUTLS_X509_FMT_PEM)
                             : gnutls_certificate_set_x509_system_trust(tls->credentials);
    if (rc <= 0) {
        quic_tls_unref(tls);
        return error_set(reterr, FELIX_TLS, 0, "cannot load trusted certificates from %s: %s",
                         ca_path != NULL ? ca_path : "the system's store",
                         rc == 0 ? "it holds no certificate" : gnutls_strerror(rc));
    }
    *ret = tls;
    return FELIX_OK;
}

struct quic_tls *quic_tls_ref(struct quic_tls *tls) {
    atomic_fetch_add_explicit(&tls->refs, 1, memory_order_relaxed);
    return tls;
}

void quic_tls_unref(struct quic_tls *tls) {
    if (tls == NULL || atomic_fetch_sub_explicit(&tls->refs, 1, memory_order_acq_rel) != 1)
        return;
    if (tls->credentials != NULL)
        gnutls_certificate_free_credentials(tls->credentials);
    if (tls->priorities != NULL)
        gnutls_priority_deinit(tls->priorities);
    free(tls);
}

struct alpn_seen {
    bool offered;
};

static int note_extension(void *context, unsigned id, const unsigned char *data, unsigned size) {
    struct alpn_seen *seen = context;
    if (id == ALPN_EXTENSION)
        seen->offered = true;
    return 0;
}

/* In strict mode a hello without the extension is refused before anything is answered. */
static int on_client_hello(gnutls_session_t session, unsigned type, unsigned when,
                           unsigned incoming, const gnutls_datum_t *message) {
    struct alpn_seen seen = {0};
    int rc =
        gnutls_ext_raw_parse(&seen, note_extension, message, GNUTLS_EXT_RAW_FLAG_TLS_CLIENT_HELLO);
    if (rc < 0)
        return rc;
    return seen.offered ? 0 : GNUTLS_E_NO_APPLICATION_PROTOCOL;
}

static int configure_server(struct quic_tls *tls, gnutls_session_t session) {
    int rc = ngtcp2_crypto_gnutls_configure_server_session(session);
    if (rc != 0)
        return rc;
    if (tls->require_alpn)
        gnutls_handshake_set_hook_function(session, GNUTLS_HANDSHAKE_CLIENT_HELLO, GNUTLS_HOOK_PRE,
                                           on_client_hello);
    /* GnuTLS looks at ALPN only when the client sent it, so "mandatory" means: if you offer
     * anything, offer ours. */
    gnutls_datum_t name = {.data = (unsigned char *)(uintptr_t)alpn_name,
                           .size = sizeof alpn_name - 1};
    return gnutls_alpn_set_protocols(session, &name, 1, GNUTLS_ALPN_MANDATORY);
}

static bool is_ip_literal(const char *name) {
    unsigned char binary[sizeof(struct in6_addr)];
    return inet_pton(AF_INET, name, binary) == 1 || inet_pton(AF_INET6, name, binary) == 1;
}

static int configure_client(gnutls_session_t session, const char *server_name) {
    int rc = ngtcp2_crypto_gnutls_configure_client_session(session);
    if (rc != 0)
        return rc;
    if (!is_ip_literal(server_name)) {
        rc = gnutls_server_name_set(session, GNUTLS_NAME_DNS, server_name, strlen(server_name));
        if (rc != 0)
            return rc;
    }
    gnutls_session_set_verify_cert(session, server_name, 0);
    return 0;
}

size_t quic_tls_refusal(gnutls_session_t session, char *out, size_t capacity) {
    unsigned status = gnutls_session_get_verify_cert_status(session);
    gnutls_datum_t text = {0};
    if (status == 0 || status == (unsigned)-1 || capacity == 0 ||
        gnutls_certificate_verification_status_print(status, GNUTLS_CRT_X509, &text, 0) != 0)
        return 0;
    size_t len = text.size < capacity ? text.size : capacity - 1;
    memcpy(out, text.data, len);
    while (len > 0 && (out[len - 1] == ' ' || out[len - 1] == '\0'))
        len--;
    out[len] = '\0';
    gnutls_free(text.data);
    return len;
}

enum felix_err quic_tls_session_new(struct quic_tls *tls, const char *server_name,
                                    ngtcp2_crypto_conn_ref *conn_ref, gnutls_session_t *ret) {
    gnutls_session_t session = NULL;
    unsigned flags = tls->server ? GNUTLS_SERVER | GNUTLS_NO_AUTO_SEND_TICKET | GNUTLS_NO_TICKETS
                                 : GNUTLS_CLIENT;
    if (gnutls_init(&session, flags | GNUTLS_NO_END_OF_EARLY_DATA) != 0)
        return FELIX_TLS;
    gnutls_session_set_ptr(session, conn_ref);

    int rc = gnutls_priority_set(session, tls->priorities);
    if (rc == 0)
        rc = gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, tls->credentials);
    if (rc == 0)
        rc = tls->server ? configure_server(tls, session) : configure_client(session, server_name);
    if (rc != 0) {
        gnutls_deinit(session);
        return FELIX_TLS;
    }
    cipher_attach(session, tls->cipher);
    *ret = session;
    return FELIX_OK;
}
