#include "auth/cert.h"

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

#include "auth/file.h"

#define CERT_BACKDATED_S 3600
#define CERT_VALID_S (365 * 24 * 3600)
#define CERT_SERIAL_BYTES 16u

/* Who the certificate is for. 0, or an error of GnuTLS. */
static int cert_fill_names(gnutls_x509_crt_t crt) {
    static const uint8_t loopback4[4] = {127, 0, 0, 1};
    static const uint8_t loopback6[16] = {[15] = 1};
    static const char name[] = "localhost";
    const unsigned name_bytes = sizeof name - 1;

    int err = gnutls_x509_crt_set_dn_by_oid(crt, GNUTLS_OID_X520_COMMON_NAME, 0, name, name_bytes);
    if (err == 0)
        err = gnutls_x509_crt_set_subject_alt_name(crt, GNUTLS_SAN_DNSNAME, name, name_bytes,
                                                   GNUTLS_FSAN_SET);
    if (err == 0)
        err = gnutls_x509_crt_set_subject_alt_name(crt, GNUTLS_SAN_IPADDRESS, loopback4,
                                                   sizeof loopback4, GNUTLS_FSAN_APPEND);
    if (err == 0)
        err = gnutls_x509_crt_set_subject_alt_name(crt, GNUTLS_SAN_IPADDRESS, loopback6,
                                                   sizeof loopback6, GNUTLS_FSAN_APPEND);
    return err;
}

/* What the certificate is good for, and when. */
static int cert_fill_use(gnutls_x509_crt_t crt, int64_t now_s) {
    int err = gnutls_x509_crt_set_version(crt, 3);
    if (err == 0)
        err = gnutls_x509_crt_set_activation_time(crt, (time_t)(now_s - CERT_BACKDATED_S));
    if (err == 0)
        err = gnutls_x509_crt_set_expiration_time(
            crt, (time_t)(now_s - CERT_BACKDATED_S + CERT_VALID_S));
    if (err == 0)
        err = gnutls_x509_crt_set_basic_constraints(crt, 0, -1);
    if (err == 0)
        err = gnutls_x509_crt_set_key_usage(crt, GNUTLS_KEY_DIGITAL_SIGNATURE);
    if (err == 0)
        err = gnutls_x509_crt_set_key_purpose_oid(crt, GNUTLS_KP_TLS_WWW_SERVER, 0);
    return err;
}

static int cert_fill_identity(gnutls_x509_crt_t crt, gnutls_x509_privkey_t key) {
    uint8_t serial[CERT_SERIAL_BYTES];
    uint8_t key_id[64];
    size_t key_id_bytes = sizeof key_id;

    int err = gnutls_rnd(GNUTLS_RND_NONCE, serial, sizeof serial);
    serial[0] = (uint8_t)((serial[0] & 0x7f) | 0x40); /* positive, without leading zeros */
    if (err == 0)
        err = gnutls_x509_crt_set_serial(crt, serial, sizeof serial);
    if (err == 0)
        err = gnutls_x509_crt_set_key(crt, key);
    if (err == 0)
        err = gnutls_x509_crt_get_key_id(crt, GNUTLS_KEYID_USE_SHA1, key_id, &key_id_bytes);
    if (err == 0)
        err = gnutls_x509_crt_set_subject_key_id(crt, key_id, key_id_bytes);
    return err;
}

static int cert_generate(int64_t now_s, gnutls_datum_t *ret_cert, gnutls_datum_t *ret_key) {
    gnutls_x509_crt_t crt = NULL;
    gnutls_x509_privkey_t key = NULL;
    const unsigned bits = GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1);

    int err = gnutls_x509_privkey_init(&key);
    if (err == 0)
        err = gnutls_x509_privkey_generate(key, GNUTLS_PK_ECDSA, bits, 0);
    if (err == 0)
        err = gnutls_x509_crt_init(&crt);
    if (err == 0)
        err = cert_fill_names(crt);
    if (err == 0)
        err = cert_fill_use(crt, now_s);
    if (err == 0)
        err = cert_fill_identity(crt, key);
    if (err == 0)
        err = gnutls_x509_crt_sign2(crt, crt, key, GNUTLS_DIG_SHA256, 0);
    if (err == 0)
        err = gnutls_x509_crt_export2(crt, GNUTLS_X509_FMT_PEM, ret_cert);
    if (err == 0)
        err = gnutls_x509_privkey_export2_pkcs8(key, GNUTLS_X509_FMT_PEM, NULL, GNUTLS_PKCS_PLAIN,
                                                ret_key);
    if (crt != NULL)
        gnutls_x509_crt_deinit(crt);
    if (key != NULL)
        gnutls_x509_privkey_deinit(key);
    return err;
}

enum felix_err cert_make_dev(const struct cert_paths *paths, int64_t now_s,
                             struct felix_error *reterr) {
    gnutls_datum_t cert = {0};
    gnutls_datum_t key = {0};
    enum felix_err err = FELIX_OK;

    int failed = cert_generate(now_s, &cert, &key);
    if (failed != 0) {
        err = error_set(reterr, FELIX_TLS, 0, "cannot make a certificate: %s",
                        gnutls_strerror(failed));
        goto out;
    }
    err = auth_file_write(paths->key, slice_of(key.data, key.size), 0600, reterr);
    if (err == FELIX_OK)
        err = auth_file_write(paths->cert, slice_of(cert.data, cert.size), 0644, reterr);
out:
    if (key.data != NULL)
        explicit_bzero(key.data, key.size);
    gnutls_free(key.data);
    gnutls_free(cert.data);
    return err;
}
