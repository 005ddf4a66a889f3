#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "fixture.h"

#define KEYS_T1 "{\"tenants\":{\"t1\":{\"keys\":[" JWK("k1", X_CONFORMANCE) "]}}}"
#define KEYS_ANY "{\"keys\":[" JWK("k1", X_CONFORMANCE) "]}"

struct world {
    struct mint_key key;
    struct auth_keyset *keys;
    struct token_cache cache;
};

static int world_open(void **state) {
    static struct world world;
    world.key = fixture_key(SEED_CONFORMANCE, "k1");
    world.keys = fixture_keyset(KEYS_T1);
    token_cache_init(&world.cache);
    *state = &world;
    return 0;
}

static int world_close(void **state) {
    struct world *w = *state;
    auth_keyset_unref(w->keys);
    token_cache_deinit(&w->cache);
    return 0;
}

static enum felix_err verify_for(struct world *w, const char *tenant, const char *token,
                                 int64_t now_s, struct principal **ret) {
    struct token_offer offer = {.tenant = slice_str(tenant), .token = slice_str(token)};
    return token_cache_verify(&w->cache, w->keys, &offer, now_s, TOKEN_LEEWAY_S, ret);
}

static char *token_of_subject(struct world *w, unsigned number) {
    char claims[512];
    (void)snprintf(
        claims, sizeof claims,
        "{\"iss\":\"felix-auth\",\"aud\":\"felix-broker\",\"tid\":\"t1\",\"sub\":\"p%u\","
        "\"iat\":1,\"exp\":1700000900,\"perms\":[]}",
        number);
    return fixture_sign(&w->key, HEADER_GOOD, claims);
}

static void forty_streams_verify_one_signature(void **state) {
    struct world *w = *state;
    struct principal *first = NULL;
    char *token = token_of_subject(w, 1);
    assert_int_equal(verify_for(w, "t1", token, FIXTURE_NOW_S, &first), FELIX_OK);
    for (int i = 1; i < 40; i++) {
        struct principal *p = NULL;
        assert_int_equal(verify_for(w, "t1", token, FIXTURE_NOW_S, &p), FELIX_OK);
        assert_ptr_equal(p, first);
        principal_unref(p);
    }
    assert_int_equal(w->cache.misses, 1);
    assert_int_equal(w->cache.hits, 39);
    assert_int_equal(first->refs, 2);
    principal_unref(first);
    free(token);
}

static void a_principal_outlives_the_cache(void **state) {
    struct world *w = *state;
    struct principal *p = NULL;
    char *token = token_of_subject(w, 1);
    assert_int_equal(verify_for(w, "t1", token, FIXTURE_NOW_S, &p), FELIX_OK);
    token_cache_deinit(&w->cache);
    token_cache_init(&w->cache);
    assert_true(slice_is(p->subject, "p1"));
    assert_int_equal(p->refs, 1);
    principal_unref(p);
    free(token);
}

static void a_cached_token_expires_on_time(void **state) {
    struct world *w = *state;
    struct principal *p = NULL;
    char *token = token_of_subject(w, 1);
    assert_int_equal(verify_for(w, "t1", token, FIXTURE_NOW_S, &p), FELIX_OK);
    principal_unref(p);
    assert_int_equal(verify_for(w, "t1", token, FIXTURE_NOW_S + 960, &p), FELIX_OK);
    principal_unref(p);
    assert_int_equal(verify_for(w, "t1", token, FIXTURE_NOW_S + 961, &p), FELIX_EXPIRED);
    assert_int_equal(w->cache.count, 0);
    assert_int_equal(verify_for(w, "t1", token, FIXTURE_NOW_S + 961, &p), FELIX_EXPIRED);
    free(token);
}

static void a_cached_token_serves_only_the_tenant_it_was_presented_for(void **state) {
    struct world *w = *state;
    struct principal *p = NULL;
    char *token = token_of_subject(w, 1);
    auth_keyset_unref(w->keys);
    w->keys = fixture_keyset(KEYS_ANY);
    assert_int_equal(verify_for(w, "t1", token, FIXTURE_NOW_S, &p), FELIX_OK);
    principal_unref(p);
    assert_int_equal(verify_for(w, "t2", token, FIXTURE_NOW_S, &p), FELIX_WRONG_TENANT);
    free(token);
}

static void a_byte_that_moves_from_token_to_tenant_makes_another_offer(void **state) {
    struct world *w = *state;
    struct principal *p = NULL;
    char *token = token_of_subject(w, 1);
    char *moved = NULL;
    assert_true(asprintf(&moved, "1%s", token) > 0);
    assert_int_equal(verify_for(w, "t1", token, FIXTURE_NOW_S, &p), FELIX_OK);
    principal_unref(p);
    assert_int_not_equal(verify_for(w, "t", moved, FIXTURE_NOW_S, &p), FELIX_OK);
    free(moved);
    free(token);
}

static void a_new_keyset_invalidates_everything(void **state) {
    struct world *w = *state;
    struct principal *p = NULL;
    char *token = token_of_subject(w, 1);
    assert_int_equal(verify_for(w, "t1", token, FIXTURE_NOW_S, &p), FELIX_OK);
    principal_unref(p);

    auth_keyset_unref(w->keys);
    w->keys = fixture_keyset("{\"tenants\":{\"t1\":{\"keys\":[" JWK("k1", X_DEMO) "]}}}");
    assert_int_equal(verify_for(w, "t1", token, FIXTURE_NOW_S, &p), FELIX_BAD_SIGNATURE);
    assert_int_equal(w->cache.count, 0);
    free(token);
}

static void failures_are_not_remembered(void **state) {
    struct world *w = *state;
    struct principal *p = NULL;
    assert_int_equal(verify_for(w, "t1", "a.b.c", FIXTURE_NOW_S, &p), FELIX_UNAUTHENTICATED);
    assert_int_equal(w->cache.count, 0);

    struct token_offer offer = {.tenant = slice_str("t1"), .token = slice_str("a.b.c")};
    assert_int_equal(token_cache_verify(&w->cache, NULL, &offer, FIXTURE_NOW_S, 0, &p),
                     FELIX_UNAUTHENTICATED);
}

static void the_cache_is_bounded_and_keeps_what_is_used(void **state) {
    struct world *w = *state;
    struct principal *p = NULL;
    const unsigned others = 3 * TOKEN_CACHE_ENTRIES;
    char *kept = token_of_subject(w, 0);
    for (unsigned i = 1; i <= others; i++) {
        char *token = token_of_subject(w, i);
        assert_int_equal(verify_for(w, "t1", token, FIXTURE_NOW_S, &p), FELIX_OK);
        principal_unref(p);
        assert_int_equal(verify_for(w, "t1", kept, FIXTURE_NOW_S, &p), FELIX_OK);
        principal_unref(p);
        free(token);
    }
    assert_in_range(w->cache.count, TOKEN_CACHE_ENTRIES / 2, TOKEN_CACHE_ENTRIES);
    assert_int_equal(w->cache.hits, others - 1);
    free(kept);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_open, world_close)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(forty_streams_verify_one_signature),
        TEST(a_principal_outlives_the_cache),
        TEST(a_cached_token_expires_on_time),
        TEST(a_cached_token_serves_only_the_tenant_it_was_presented_for),
        TEST(a_byte_that_moves_from_token_to_tenant_makes_another_offer),
        TEST(a_new_keyset_invalidates_everything),
        TEST(failures_are_not_remembered),
        TEST(the_cache_is_bounded_and_keeps_what_is_used),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
