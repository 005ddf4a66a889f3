#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

#include "auth/cert.h"
#include "auth/file.h"
#include "fixture.h"

struct world {
    char *cert_path;
    char *key_path;
    gnutls_datum_t pem;
    gnutls_x509_crt_t crt;
};

static const int64_t year_s = 365 * 24 * 3600;

static int world_open(void **state) {
    static struct world world;
    size_t bytes = 0;
    world.cert_path = fixture_path("cert.pem");
    world.key_path = fixture_path("key.pem");
    struct cert_paths paths = {.cert = world.cert_path, .key = world.key_path};
    assert_int_equal(cert_make_dev(&paths, FIXTURE_NOW_S, NULL), FELIX_OK);
    assert_int_equal(auth_file_read(world.cert_path, 65536, &world.pem.data, &bytes, NULL),
                     FELIX_OK);
    world.pem.size = (unsigned)bytes;
    assert_int_equal(gnutls_x509_crt_init(&world.crt), 0);
    assert_int_equal(gnutls_x509_crt_import(world.crt, &world.pem, GNUTLS_X509_FMT_PEM), 0);
    *state = &world;
    return 0;
}

static int world_close(void **state) {
    struct world *w = *state;
    gnutls_x509_crt_deinit(w->crt);
    free(w->pem.data);
    fixture_remove_folder(w->cert_path);
    fixture_remove_folder(w->key_path);
    return 0;
}

static void the_certificate_is_public_and_the_key_private(void **state) {
    struct world *w = *state;
    struct stat status;
    assert_int_equal(stat(w->cert_path, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0644);
    assert_int_equal(stat(w->key_path, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0600);
}

static void it_is_version_3_and_no_ca(void **state) {
    struct world *w = *state;
    unsigned critical = 0;
    unsigned ca = 1;
    int path_len = 0;
    assert_int_equal(gnutls_x509_crt_get_version(w->crt), 3);
    assert_true(gnutls_x509_crt_get_basic_constraints(w->crt, &critical, &ca, &path_len) >= 0);
    assert_int_equal(critical, 1);
    assert_int_equal(ca, 0);
    assert_int_equal(gnutls_x509_crt_get_pk_algorithm(w->crt, NULL), GNUTLS_PK_ECDSA);
}

static void it_is_for_this_machine_and_for_servers(void **state) {
    struct world *w = *state;
    char purpose[64];
    size_t purpose_bytes = sizeof purpose;
    assert_int_equal(gnutls_x509_crt_check_hostname(w->crt, "localhost"), 1);
    assert_int_equal(gnutls_x509_crt_check_hostname(w->crt, "127.0.0.1"), 1);
    assert_int_equal(gnutls_x509_crt_check_hostname(w->crt, "::1"), 1);
    assert_int_equal(gnutls_x509_crt_check_hostname(w->crt, "example.com"), 0);
    assert_int_equal(gnutls_x509_crt_check_hostname(w->crt, "127.0.0.2"), 0);
    assert_int_equal(gnutls_x509_crt_get_key_purpose_oid(w->crt, 0, purpose, &purpose_bytes, NULL),
                     0);
    assert_string_equal(purpose, GNUTLS_KP_TLS_WWW_SERVER);
}

static void it_is_valid_from_an_hour_ago_for_a_year(void **state) {
    struct world *w = *state;
    assert_int_equal(gnutls_x509_crt_get_activation_time(w->crt), FIXTURE_NOW_S - 3600);
    assert_int_equal(gnutls_x509_crt_get_expiration_time(w->crt), FIXTURE_NOW_S - 3600 + year_s);
}

static void the_key_belongs_to_the_certificate(void **state) {
    struct world *w = *state;
    gnutls_certificate_credentials_t credentials = NULL;
    assert_int_equal(gnutls_certificate_allocate_credentials(&credentials), 0);
    assert_true(gnutls_certificate_set_x509_key_file(credentials, w->cert_path, w->key_path,
                                                     GNUTLS_X509_FMT_PEM) >= 0);
    gnutls_certificate_free_credentials(credentials);
}

static time_t frozen_now(time_t *ret) {
    time_t now = (time_t)FIXTURE_NOW_S;
    if (ret != NULL)
        *ret = now;
    return now;
}

static void it_verifies_with_itself_as_the_root(void **state) {
    struct world *w = *state;
    gnutls_x509_trust_list_t roots = NULL;
    unsigned status = 1;
    char name[] = "localhost";
    char purpose[] = GNUTLS_KP_TLS_WWW_SERVER;
    gnutls_typed_vdata_st wanted[] = {
        {.type = GNUTLS_DT_DNS_HOSTNAME, .data = (unsigned char *)name, .size = sizeof name - 1},
        {.type = GNUTLS_DT_KEY_PURPOSE_OID,
         .data = (unsigned char *)purpose,
         .size = sizeof purpose - 1},
    };
    gnutls_global_set_time_function(frozen_now);
    assert_int_equal(gnutls_x509_trust_list_init(&roots, 0), 0);
    assert_int_equal(
        gnutls_x509_trust_list_add_trust_mem(roots, &w->pem, NULL, GNUTLS_X509_FMT_PEM, 0, 0), 1);
    assert_int_equal(
        gnutls_x509_trust_list_verify_crt2(roots, &w->crt, 1, wanted, 2, 0, &status, NULL), 0);
    assert_int_equal(status, 0);
    gnutls_x509_trust_list_deinit(roots, 1);
    gnutls_global_set_time_function(time);
}

static void a_folder_that_is_missing_is_named_in_the_error(void **state) {
    struct felix_error error = {0};
    struct cert_paths paths = {.cert = "/nonexistent/cert.pem", .key = "/nonexistent/key.pem"};
    assert_int_equal(cert_make_dev(&paths, FIXTURE_NOW_S, &error), FELIX_SYSTEM);
    assert_non_null(strstr(error.text, "/nonexistent/key.pem"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_certificate_is_public_and_the_key_private),
        cmocka_unit_test(it_is_version_3_and_no_ca),
        cmocka_unit_test(it_is_for_this_machine_and_for_servers),
        cmocka_unit_test(it_is_valid_from_an_hour_ago_for_a_year),
        cmocka_unit_test(the_key_belongs_to_the_certificate),
        cmocka_unit_test(it_verifies_with_itself_as_the_root),
        cmocka_unit_test(a_folder_that_is_missing_is_named_in_the_error),
    };
    return cmocka_run_group_tests(tests, world_open, world_close);
}
