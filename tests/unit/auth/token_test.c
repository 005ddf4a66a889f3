#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/clock.h"
#include "fixture.h"
#include "wire/json.h"

struct world {
    struct mint_key key;
    struct mint_key stranger;
    struct auth_keyset *keys;
};

static int world_open(void **state) {
    static struct world world;
    world.key = fixture_key(SEED_CONFORMANCE, "k1");
    world.stranger = fixture_key(SEED_DEMO, "k1");
    world.keys = fixture_keyset("{\"tenants\":{\"t1\":{\"keys\":[" JWK("k1", X_CONFORMANCE) "]}}}");
    *state = &world;
    return 0;
}

static int world_close(void **state) {
    struct world *w = *state;
    auth_keyset_unref(w->keys);
    return 0;
}

/* What verification says of a token with these two texts, signed by the right key. */
static enum felix_err verify_texts(struct world *w, const char *header, const char *claims) {
    char *token = fixture_sign(&w->key, header, claims);
    enum felix_err err = fixture_verify(w->keys, token);
    free(token);
    return err;
}

static enum felix_err verify_claims(struct world *w, const char *claims) {
    return verify_texts(w, HEADER_GOOD, claims);
}

static enum felix_err verify_at(struct world *w, const char *claims, int64_t now_s) {
    char *token = fixture_sign(&w->key, HEADER_GOOD, claims);
    struct principal *p = NULL;
    struct token_offer offer = {.tenant = slice_str("t1"), .token = slice_str(token)};
    enum felix_err err = token_verify(w->keys, &offer, now_s, TOKEN_LEEWAY_S, &p);
    principal_unref(p);
    free(token);
    return err;
}

/* Made by another implementation (Python's cryptography) with the conformance key. */
#define FOREIGN_TOKEN                                                                              \
    "eyJ0eXAiOiJKV1QiLCJhbGciOiJFZERTQSIsImtpZCI6ImsxIn0.eyJpc3MiOiJmZWxpeC1hdXRoIiwiYXVkIjoi"     \
    "ZmVsaXgtYnJva2VyIiwic3ViIjoicDpjb25mb3JtYW5jZSIsInRpZCI6InQxIiwiaWF0IjoxNzAwMDAwMDAwLCJl"     \
    "eHAiOjE3MDAwMDA5MDAsInBlcm1zIjpbInN0cmVhbS5wdWJsaXNoOnN0cmVhbTp0MS9kZWZhdWx0LyoiXX0.8vls"     \
    "pP4l02weIwwn1YDKJDp3WQ8IlC0tpR8rDM5AjZhT7VzIZwRht8fsUyXnoBrAQW9v9BaYoAHAAepgOYwwAQ"

static void a_token_of_another_implementation_is_accepted(void **state) {
    struct world *w = *state;
    struct principal *p = NULL;
    struct token_offer offer = {.tenant = slice_str("t1"), .token = slice_str(FOREIGN_TOKEN)};
    assert_int_equal(token_verify(w->keys, &offer, FIXTURE_NOW_S, TOKEN_LEEWAY_S, &p), FELIX_OK);
    assert_true(slice_is(p->subject, "p:conformance"));
    assert_true(slice_is(p->tenant, "t1"));
    assert_int_equal(p->exp_s, FIXTURE_NOW_S + 900);
    assert_int_equal(p->grants_count, 1);

    struct resource r = {
        .tenant = slice_str("t1"), .namespace = slice_str("default"), .name = slice_str("any")};
    assert_true(principal_allows(p, AUTH_STREAM_PUBLISH, &r));
    assert_false(principal_allows(p, AUTH_STREAM_SUBSCRIBE, &r));
    principal_unref(p);
}

static void good_claims_are_accepted_also_with_more_members(void **state) {
    assert_int_equal(verify_claims(*state, CLAIMS_GOOD), FELIX_OK);
    assert_int_equal(verify_claims(*state, " " CLAIMS_HEAD "\"iat\":1,\"exp\":1700000900,"
                                           "\"jti\":\"x\",\"more\":{\"iss\":1},\"perms\":[]}\n"),
                     FELIX_OK);
}

static void escaped_claims_mean_what_they_spell(void **state) {
    assert_int_equal(verify_claims(*state,
                                   "{\"\\u0069ss\":\"felix\\u002dauth\",\"aud\":\"felix-broker\","
                                   "\"sub\":\"\\u00e9\",\"tid\":\"t\\u0031\",\"iat\":1,"
                                   "\"exp\":1700000900,\"perms\":[\"cache.read\\u003ax\"]}"),
                     FELIX_OK);
}

static void expiry_has_a_leeway_of_a_minute_and_no_more(void **state) {
    const int64_t exp_s = FIXTURE_NOW_S + 900;
    assert_int_equal(verify_at(*state, CLAIMS_GOOD, exp_s), FELIX_OK);
    assert_int_equal(verify_at(*state, CLAIMS_GOOD, exp_s + 60), FELIX_OK);
    assert_int_equal(verify_at(*state, CLAIMS_GOOD, exp_s + 61), FELIX_EXPIRED);
    assert_int_equal(verify_claims(*state, CLAIMS_HEAD "\"iat\":1,\"exp\":-9223372036854775808,"
                                                       "\"perms\":[]}"),
                     FELIX_EXPIRED);
    assert_int_equal(verify_claims(*state, CLAIMS_HEAD "\"iat\":1,\"exp\":9223372036854775807,"
                                                       "\"perms\":[]}"),
                     FELIX_OK);
}

static void not_before_is_honoured_with_the_same_leeway(void **state) {
    const char *claims =
        CLAIMS_HEAD "\"iat\":1,\"exp\":1700009999,\"nbf\":1700000100,\"perms\":[]}";
    assert_int_equal(verify_at(*state, claims, 1700000100), FELIX_OK);
    assert_int_equal(verify_at(*state, claims, 1700000040), FELIX_OK);
    assert_int_equal(verify_at(*state, claims, 1700000039), FELIX_NOT_YET_VALID);
}

static void the_tenant_of_the_token_must_be_the_tenant_of_the_message(void **state) {
    struct world *w = *state;
    struct principal *p = NULL;
    struct auth_keyset *any = fixture_keyset("{\"keys\":[" JWK("k1", X_CONFORMANCE) "]}");
    char *token = fixture_sign(&w->key, HEADER_GOOD, CLAIMS_GOOD);
    struct token_offer offer = {.tenant = slice_str("t2"), .token = slice_str(token)};

    assert_int_equal(token_verify(any, &offer, FIXTURE_NOW_S, 0, &p), FELIX_WRONG_TENANT);
    offer.tenant = slice_str("t");
    assert_int_equal(token_verify(any, &offer, FIXTURE_NOW_S, 0, &p), FELIX_WRONG_TENANT);
    offer.tenant = slice_str("");
    assert_int_not_equal(token_verify(any, &offer, FIXTURE_NOW_S, 0, &p), FELIX_OK);
    offer.tenant = slice_str("t2");
    assert_int_equal(token_verify(w->keys, &offer, FIXTURE_NOW_S, 0, &p), FELIX_UNAUTHENTICATED);
    offer.tenant = slice_str("t1");
    assert_int_equal(token_verify(any, &offer, FIXTURE_NOW_S, 0, &p), FELIX_OK);
    principal_unref(p);
    free(token);
    auth_keyset_unref(any);
}

static void nobody_is_let_in_without_keys(void **state) {
    struct world *w = *state;
    char *token = fixture_sign(&w->key, HEADER_GOOD, CLAIMS_GOOD);
    assert_int_equal(fixture_verify(NULL, token), FELIX_UNAUTHENTICATED);
    free(token);
}

static void the_signature_of_a_stranger_is_bad_even_with_a_known_kid(void **state) {
    struct world *w = *state;
    char *token = fixture_sign(&w->stranger, HEADER_GOOD, CLAIMS_GOOD);
    assert_int_equal(fixture_verify(w->keys, token), FELIX_BAD_SIGNATURE);
    free(token);
}

static void nothing_is_said_about_claims_that_nobody_signed(void **state) {
    struct world *w = *state;
    char *token =
        fixture_sign(&w->stranger, HEADER_GOOD, CLAIMS_HEAD "\"iat\":1,\"exp\":1,\"perms\":[]}");
    assert_int_equal(fixture_verify(w->keys, token), FELIX_BAD_SIGNATURE);
    free(token);
}

static void only_eddsa_is_an_algorithm(void **state) {
    static const char *const headers[] = {
        "{\"alg\":\"none\"}",
        "{\"alg\":\"None\"}",
        "{\"alg\":\"HS256\"}",
        "{\"alg\":\"RS256\"}",
        "{\"alg\":\"ES256\"}",
        "{\"alg\":\"eddsa\"}",
        "{\"alg\":\"EDDSA\"}",
        "{\"alg\":\"EdDSA \"}",
        "{\"alg\":\"\"}",
        "{\"alg\":null}",
        "{\"alg\":[\"EdDSA\"]}",
        "{\"typ\":\"JWT\"}",
        "{}",
        "[]",
        "\"EdDSA\"",
        "",
    };
    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++)
        assert_int_equal(verify_texts(*state, headers[i], CLAIMS_GOOD), FELIX_UNAUTHENTICATED);
}

static void the_header_says_everything_once(void **state) {
    assert_int_equal(verify_texts(*state, "{\"alg\":\"EdDSA\",\"alg\":\"EdDSA\"}", CLAIMS_GOOD),
                     FELIX_UNAUTHENTICATED);
    assert_int_equal(verify_texts(*state, "{\"alg\":\"EdDSA\",\"alg\":\"none\"}", CLAIMS_GOOD),
                     FELIX_UNAUTHENTICATED);
    assert_int_equal(
        verify_texts(*state, "{\"alg\":\"EdDSA\",\"kid\":\"a\",\"kid\":\"b\"}", CLAIMS_GOOD),
        FELIX_UNAUTHENTICATED);
    assert_int_equal(verify_texts(*state, "{\"alg\":\"EdDSA\"} ", CLAIMS_GOOD), FELIX_OK);
    assert_int_equal(verify_texts(*state, "{\"alg\":\"EdDSA\"}{}", CLAIMS_GOOD),
                     FELIX_UNAUTHENTICATED);
}

static void critical_extensions_are_refused(void **state) {
    assert_int_equal(
        verify_texts(*state, "{\"alg\":\"EdDSA\",\"crit\":[\"b64\"],\"b64\":false}", CLAIMS_GOOD),
        FELIX_UNAUTHENTICATED);
}

static void the_kid_only_orders_the_attempts(void **state) {
    struct world *w = *state;
    struct auth_keyset *keys = fixture_keyset(
        "{\"tenants\":{\"t1\":{\"keys\":[" JWK("k9", X_DEMO) "," JWK("k1", X_CONFORMANCE) "]}}}");
    static const char *const headers[] = {
        HEADER_GOOD,
        "{\"alg\":\"EdDSA\"}",
        "{\"alg\":\"EdDSA\",\"kid\":\"\"}",
        "{\"alg\":\"EdDSA\",\"kid\":\"k9\"}",
        "{\"alg\":\"EdDSA\",\"kid\":\"unknown\"}",
        "{\"alg\":\"EdDSA\",\"kid\":\"k\\u0031\"}",
    };
    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++) {
        char *by_first = fixture_sign(&w->stranger, headers[i], CLAIMS_GOOD);
        char *by_second = fixture_sign(&w->key, headers[i], CLAIMS_GOOD);
        assert_int_equal(fixture_verify(keys, by_first), FELIX_OK);
        assert_int_equal(fixture_verify(keys, by_second), FELIX_OK);
        free(by_first);
        free(by_second);
    }
    auth_keyset_unref(keys);
}

static void a_kid_longer_than_any_of_ours_is_only_unknown(void **state) {
    char header[1024];
    (void)snprintf(header, sizeof header, "{\"alg\":\"EdDSA\",\"kid\":\"%0600d\"}", 1);
    assert_int_equal(verify_texts(*state, header, CLAIMS_GOOD), FELIX_OK);
    assert_int_equal(verify_texts(*state, "{\"alg\":\"EdDSA\",\"kid\":7}", CLAIMS_GOOD),
                     FELIX_UNAUTHENTICATED);
}

static void each_claim_is_required_once_and_of_its_kind(void **state) {
    static const struct {
        const char *name;
        const char *good;
        const char *bad[5];
    } claims[] = {
        {"iss", "\"felix-auth\"", {"\"felix-auth2\"", "\"\"", "null", "[\"felix-auth\"]", "1"}},
        {"aud",
         "\"felix-broker\"",
         {"[\"felix-broker\"]", "\"felix\"", "null", "\"Felix-broker\"", "{}"}},
        {"sub", "\"p\"", {"null", "7", "[]", "{}", "true"}},
        {"iat", "1", {"null", "\"1\"", "1.5", "[]", "99999999999999999999"}},
        {"exp", "1700000900", {"null", "\"1700000900\"", "1700000900.5", "{}", "true"}},
        {"perms", "[]", {"null", "{}", "\"cache.read:x\"", "[7]", "[null]"}},
        {"tid", "\"t1\"", {"null", "1", "[\"t1\"]", "{}", "true"}},
    };
    const size_t count = sizeof claims / sizeof claims[0];
    /* variant 0: all good; 1: one is missing; 2: one is there twice; 3..: one is bad */
    for (size_t variant = 0; variant < 8; variant++) {
        for (size_t victim = 0; victim < count; victim++) {
            char text[1024] = "{\"x\":0";
            for (size_t i = 0; i < count; i++) {
                const char *value = claims[i].good;
                if (i == victim && variant == 1)
                    continue;
                if (i == victim && variant >= 3)
                    value = claims[i].bad[variant - 3];
                size_t used = strlen(text);
                (void)snprintf(text + used, sizeof text - used, ",\"%s\":%s", claims[i].name,
                               value);
                used = strlen(text);
                if (i == victim && variant == 2)
                    (void)snprintf(text + used, sizeof text - used, ",\"%s\":%s", claims[i].name,
                                   value);
            }
            strcat(text, "}");
            enum felix_err expected = variant == 0 ? FELIX_OK : FELIX_UNAUTHENTICATED;
            if (verify_claims(*state, text) != expected)
                fail_msg("not %s: %s", err_name(expected), text);
        }
    }
}

static void not_before_is_a_single_integer_too(void **state) {
    static const char *const bad[] = {"null", "\"1\"", "1.5", "1,\"nbf\":1"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char text[512];
        (void)snprintf(text, sizeof text, "%s\"iat\":1,\"exp\":1700000900,\"perms\":[],\"nbf\":%s}",
                       CLAIMS_HEAD, bad[i]);
        assert_int_equal(verify_claims(*state, text), FELIX_UNAUTHENTICATED);
    }
}

static void claims_that_are_not_json_are_refused(void **state) {
    static const char *const bad[] = {
        "", "{", "[]", "null", CLAIMS_GOOD "x", "{\"iss\":}", CLAIMS_HEAD "\"\x01\":1}"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(verify_claims(*state, bad[i]), FELIX_UNAUTHENTICATED);
}

static enum felix_err verify_perms(struct world *w, const char *perms) {
    char text[1024];
    (void)snprintf(text, sizeof text, "%s\"iat\":1,\"exp\":1700000900,\"perms\":[%s]}", CLAIMS_HEAD,
                   perms);
    return verify_claims(w, text);
}

static void one_bad_permission_fails_the_whole_authentication(void **state) {
    assert_int_equal(verify_perms(*state, "\"cache.read:a\",\"tenant.manage:tenant:t1\""),
                     FELIX_OK);
    assert_int_equal(verify_perms(*state, "\"cache.read:a\",\"cache.eat:b\",\"cache.write:c\""),
                     FELIX_UNAUTHENTICATED);
    assert_int_equal(verify_perms(*state, "\"cache.read:a\",\"cache.read\""),
                     FELIX_UNAUTHENTICATED);
    assert_int_equal(verify_perms(*state, "\"cache.read:a\",\"\""), FELIX_UNAUTHENTICATED);
    assert_int_equal(verify_perms(*state, "\"cache.read:a\",7"), FELIX_UNAUTHENTICATED);
}

static void every_truncation_of_a_token_is_refused(void **state) {
    struct world *w = *state;
    char *token = fixture_sign(&w->key, HEADER_GOOD, CLAIMS_GOOD);
    for (size_t len = 0; len < strlen(token); len++) {
        /* A copy of the exact size, so that AddressSanitizer sees a byte too many. */
        char *cut = malloc(len + 1);
        memcpy(cut, token, len);
        cut[len] = 0;
        assert_int_not_equal(fixture_verify(w->keys, cut), FELIX_OK);
        free(cut);
    }
    assert_int_equal(fixture_verify(w->keys, token), FELIX_OK);
    free(token);
}

static void every_flipped_bit_of_a_token_is_refused(void **state) {
    struct world *w = *state;
    char *token = fixture_sign(&w->key, HEADER_GOOD, CLAIMS_GOOD);
    for (size_t bit = 0; bit < 8 * strlen(token); bit++) {
        token[bit / 8] = (char)(token[bit / 8] ^ (1 << bit % 8));
        assert_int_not_equal(fixture_verify(w->keys, token), FELIX_OK);
        token[bit / 8] = (char)(token[bit / 8] ^ (1 << bit % 8));
    }
    assert_int_equal(fixture_verify(w->keys, token), FELIX_OK);
    free(token);
}

static void a_tampered_payload_breaks_the_signature(void **state) {
    struct world *w = *state;
    char *mine = fixture_sign(&w->key, HEADER_GOOD, CLAIMS_GOOD);
    char *wanted = fixture_sign(&w->key, HEADER_GOOD,
                                CLAIMS_HEAD "\"iat\":1,\"exp\":1700000900,"
                                            "\"perms\":[\"cache.write:*\"]}");
    char *forged = NULL;
    *strrchr(wanted, '.') = 0;
    assert_true(asprintf(&forged, "%s%s", wanted, strrchr(mine, '.')) > 0);
    assert_int_equal(fixture_verify(w->keys, forged), FELIX_BAD_SIGNATURE);
    free(mine);
    free(wanted);
    free(forged);
}

static void what_is_not_three_parts_is_refused(void **state) {
    struct world *w = *state;
    char *token = fixture_sign(&w->key, HEADER_GOOD, CLAIMS_GOOD);
    static const char *const forms[] = {"%s.", ".%s", "%s=", "%s\n", " %s", "%s.AAAA", "Bearer %s"};
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        char text[2048];
        /* The forms are those just above. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        (void)snprintf(text, sizeof text, forms[i], token);
#pragma GCC diagnostic pop
        assert_int_equal(fixture_verify(w->keys, text), FELIX_UNAUTHENTICATED);
    }
    static const char *const texts[] = {"", ".", "..", "...", "a.b.c", "{}.{}.{}"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        assert_int_equal(fixture_verify(w->keys, texts[i]), FELIX_UNAUTHENTICATED);
    free(token);
}

static void an_unsigned_token_is_refused(void **state) {
    struct world *w = *state;
    char *token = fixture_sign(&w->key, "{\"alg\":\"none\"}", CLAIMS_GOOD);
    strrchr(token, '.')[1] = 0;
    assert_int_equal(fixture_verify(w->keys, token), FELIX_UNAUTHENTICATED);
    free(token);

    token = fixture_sign(&w->key, HEADER_GOOD, CLAIMS_GOOD);
    strrchr(token, '.')[1] = 0;
    assert_int_equal(fixture_verify(w->keys, token), FELIX_UNAUTHENTICATED);
    free(token);
}

/* A good token of a chosen number of bytes, as near as base64 allows. */
static char *token_of_bytes(struct world *w, size_t bytes) {
    size_t fixed = strlen(HEADER_GOOD) * 4 / 3 + 1 + 1 + 86 + 2;
    size_t claims_bytes = (bytes - fixed) / 4 * 3;
    char *claims = malloc(claims_bytes + 1);
    const char *head = CLAIMS_HEAD "\"iat\":1,\"exp\":1700000900,\"perms\":[]";
    memset(claims, ' ', claims_bytes);
    memcpy(claims, head, strlen(head));
    claims[claims_bytes - 1] = '}';
    claims[claims_bytes] = 0;
    char *token = fixture_sign(&w->key, HEADER_GOOD, claims);
    free(claims);
    return token;
}

static void a_token_below_the_cap_is_allowed_one_above_is_not(void **state) {
    struct world *w = *state;
    char *below = token_of_bytes(w, TOKEN_BYTES_MAX - 4);
    char *above = token_of_bytes(w, TOKEN_BYTES_MAX + 8);
    assert_in_range(strlen(below), TOKEN_BYTES_MAX - 12, TOKEN_BYTES_MAX);
    assert_true(strlen(above) > TOKEN_BYTES_MAX);
    assert_int_equal(fixture_verify(w->keys, below), FELIX_OK);
    assert_int_equal(fixture_verify(w->keys, above), FELIX_UNAUTHENTICATED);
    free(below);
    free(above);
}

static void inspect_shows_what_nobody_verified(void **state) {
    struct world *w = *state;
    struct token_text text;
    char *token = fixture_sign(&w->stranger, "{\"alg\":\"none\"}", "{\"sub\":\"\\u001b[31m\"}");
    strrchr(token, '.')[1] = 0;
    assert_int_equal(token_inspect(slice_str(token), &text), FELIX_OK);
    assert_string_equal(text.header, "{\"alg\":\"none\"}");
    assert_string_equal(text.claims, "{\"sub\":\"\\u001b[31m\"}");
    token_text_deinit(&text);
    free(token);
}

static void inspect_shows_nothing_but_json(void **state) {
    struct world *w = *state;
    struct token_text text;
    static const char *const claims[] = {"", "[]", "{", "{\"a\":\"\x1b[31m\"}", "{}\x1b"};
    for (size_t i = 0; i < sizeof claims / sizeof claims[0]; i++) {
        char *token = fixture_sign(&w->key, HEADER_GOOD, claims[i]);
        assert_int_equal(token_inspect(slice_str(token), &text), FELIX_MALFORMED);
        free(token);
    }
    assert_int_equal(token_inspect(slice_str(""), &text), FELIX_MALFORMED);
    assert_int_equal(token_inspect(slice_str("a.b"), &text), FELIX_MALFORMED);
}

static void a_verification_costs_what_it_costs(void **state) {
    struct world *w = *state;
    enum { ROUNDS = 200 };
    char *token = fixture_sign(&w->key, HEADER_GOOD, CLAIMS_GOOD);
    uint64_t start_ns = clock_now_ns();
    for (int i = 0; i < ROUNDS; i++)
        assert_int_equal(fixture_verify(w->keys, token), FELIX_OK);
    print_message("token_verify: %.1f us\n",
                  (double)(clock_now_ns() - start_ns) / (double)(ROUNDS * NS_PER_US));
    free(token);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_token_of_another_implementation_is_accepted),
        cmocka_unit_test(good_claims_are_accepted_also_with_more_members),
        cmocka_unit_test(escaped_claims_mean_what_they_spell),
        cmocka_unit_test(expiry_has_a_leeway_of_a_minute_and_no_more),
        cmocka_unit_test(not_before_is_honoured_with_the_same_leeway),
        cmocka_unit_test(the_tenant_of_the_token_must_be_the_tenant_of_the_message),
        cmocka_unit_test(nobody_is_let_in_without_keys),
        cmocka_unit_test(the_signature_of_a_stranger_is_bad_even_with_a_known_kid),
        cmocka_unit_test(nothing_is_said_about_claims_that_nobody_signed),
        cmocka_unit_test(only_eddsa_is_an_algorithm),
        cmocka_unit_test(the_header_says_everything_once),
        cmocka_unit_test(critical_extensions_are_refused),
        cmocka_unit_test(the_kid_only_orders_the_attempts),
        cmocka_unit_test(a_kid_longer_than_any_of_ours_is_only_unknown),
        cmocka_unit_test(each_claim_is_required_once_and_of_its_kind),
        cmocka_unit_test(not_before_is_a_single_integer_too),
        cmocka_unit_test(claims_that_are_not_json_are_refused),
        cmocka_unit_test(one_bad_permission_fails_the_whole_authentication),
        cmocka_unit_test(every_truncation_of_a_token_is_refused),
        cmocka_unit_test(every_flipped_bit_of_a_token_is_refused),
        cmocka_unit_test(a_tampered_payload_breaks_the_signature),
        cmocka_unit_test(what_is_not_three_parts_is_refused),
        cmocka_unit_test(an_unsigned_token_is_refused),
        cmocka_unit_test(a_token_below_the_cap_is_allowed_one_above_is_not),
        cmocka_unit_test(inspect_shows_what_nobody_verified),
        cmocka_unit_test(inspect_shows_nothing_but_json),
        cmocka_unit_test(a_verification_costs_what_it_costs),
    };
    return cmocka_run_group_tests(tests, world_open, world_close);
}
