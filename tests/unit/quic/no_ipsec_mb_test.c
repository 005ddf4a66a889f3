/* A build without libipsec-mb; it is linked from the sources that such a build takes. */
#include "quic/cipher.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void auto_is_gnutls(void **) {
    enum quic_cipher chosen;
    assert_int_equal(quic_cipher_choose(QUIC_CIPHER_AUTO, &chosen, NULL), FELIX_OK);
    assert_int_equal(chosen, QUIC_CIPHER_GNUTLS);
}

static void wanting_ipsec_mb_is_refused_with_the_reason(void **) {
    enum quic_cipher chosen;
    struct felix_error error = {0};
    assert_int_equal(quic_cipher_choose(QUIC_CIPHER_IPSEC_MB, &chosen, &error),
                     FELIX_INVALID_ARGUMENT);
    assert_string_equal(error.text,
                        "the packet cipher ipsec-mb cannot be used: this build has no libipsec-mb; "
                        "set FELIX_QUIC_CIPHER to auto or gnutls");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(auto_is_gnutls),
        cmocka_unit_test(wanting_ipsec_mb_is_refused_with_the_reason),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
