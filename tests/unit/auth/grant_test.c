#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "auth/grant.h"

static bool glob(const char *pattern, const char *text) {
    return grant_glob(slice_str(pattern), slice_str(text));
}

/* A principal of t1 on the stack. */
static bool allows_one(const char *perm, enum auth_action action, const char *namespace,
                       const char *name) {
    struct grant grant;
    assert_int_equal(grant_parse(slice_str(perm), &grant), FELIX_OK);
    struct principal p = {
        .refs = 1, .tenant = slice_str("t1"), .grants_count = 1, .grants = &grant};
    struct resource r = {
        .tenant = slice_str("t1"), .namespace = slice_str(namespace), .name = slice_str(name)};
    return principal_allows(&p, action, &r);
}

static void every_action_of_the_closed_list_parses(void **state) {
    static const char *const perms[] = {
        "rbac.view:x",     "rbac.policy.manage:x", "rbac.assignment.manage:x",
        "tenant.manage:x", "ns.manage:x",          "stream.manage:x",
        "cache.manage:x",  "stream.publish:x",     "stream.subscribe:x",
        "cache.read:x",    "cache.write:x",
    };
    for (size_t i = 0; i < sizeof perms / sizeof perms[0]; i++) {
        struct grant grant;
        assert_int_equal(grant_parse(slice_str(perms[i]), &grant), FELIX_OK);
        assert_int_equal(grant.action, i);
        assert_true(slice_is(grant.object, "x"));
        assert_int_equal(strncmp(perms[i], auth_action_name(grant.action), strlen(perms[i]) - 2),
                         0);
    }
}

static void a_permission_is_split_at_its_first_colon(void **state) {
    struct grant grant;
    assert_int_equal(grant_parse(slice_str("cache.read:cache:t1/a/b"), &grant), FELIX_OK);
    assert_true(slice_is(grant.object, "cache:t1/a/b"));
    assert_int_equal(grant_parse(slice_str("cache.read:"), &grant), FELIX_OK);
    assert_int_equal(grant.object.len, 0);
}

static void unknown_actions_and_missing_colons_are_malformed(void **state) {
    static const char *const bad[] = {"",
                                      ":",
                                      "stream.publish",
                                      "publish:stream:t1/*",
                                      "Stream.publish:x",
                                      " stream.publish:x",
                                      "stream.publish :x",
                                      "stream.publis:x",
                                      "stream.publishx:x",
                                      "*:x"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct grant grant;
        assert_int_equal(grant_parse(slice_str(bad[i]), &grant), FELIX_MALFORMED);
    }
}

static void a_star_matches_any_run_also_slashes_and_nothing(void **state) {
    assert_true(glob("*", ""));
    assert_true(glob("*", "a/b/c"));
    assert_true(glob("a*", "a"));
    assert_true(glob("a*c", "a/b/c"));
    assert_true(glob("**", "x"));
    assert_true(glob("*b*", "abc"));
    assert_true(glob("a*b*c", "aXbYbZc"));
    assert_false(glob("a*b*c", "aXbYbZ"));
    assert_false(glob("a*", "b"));
    assert_false(glob("*a", "ab"));
}

static void everything_but_the_star_stands_for_itself(void **state) {
    assert_true(glob("", ""));
    assert_false(glob("", "a"));
    assert_false(glob("a", ""));
    assert_false(glob("a?c", "abc"));
    assert_false(glob("[a]", "a"));
    assert_false(glob("A", "a"));
    assert_false(glob("a", "A"));
    assert_true(glob("a.c", "a.c"));
    assert_false(glob("a.c", "abc"));
    assert_true(glob("\\*", "\\x"));
    assert_true(grant_glob(slice_of("a\0*", 3), slice_of("a\0b", 3)));
    assert_false(grant_glob(slice_of("a\0c", 3), slice_of("a\0b", 3)));
}

static void a_star_in_the_text_is_only_a_byte(void **state) {
    assert_true(glob("a*c", "a*c"));
    assert_false(glob("abc", "a*c"));
}

/* Tried against the definition itself, on all short patterns and texts over two letters. */
static bool glob_naive(const char *p, const char *t) {
    if (*p == '*')
        return glob_naive(p + 1, t) || (*t != 0 && glob_naive(p, t + 1));
    if (*p == 0 || *t == 0)
        return *p == *t;
    return *p == *t && glob_naive(p + 1, t + 1);
}

static void word_of(unsigned number, const char *letters, unsigned letters_count, char *out) {
    for (; number != 0; number /= letters_count + 1) {
        unsigned digit = number % (letters_count + 1);
        if (digit != 0)
            *out++ = letters[digit - 1];
    }
    *out = 0;
}

static void the_matcher_agrees_with_the_definition(void **state) {
    char pattern[16];
    char text[16];
    for (unsigned i = 0; i < 1024; i++) {
        word_of(i, "*ab", 3, pattern);
        for (unsigned k = 0; k < 729; k++) {
            word_of(k, "ab", 2, text);
            assert_int_equal(glob(pattern, text), glob_naive(pattern, text));
        }
    }
}

static void many_stars_do_not_explode(void **state) {
    char pattern[8192];
    char text[700];
    for (size_t i = 0; i < sizeof pattern; i += 2) {
        pattern[i] = '*';
        pattern[i + 1] = i < 1000 ? 'a' : '*';
    }
    memset(text, 'a', sizeof text);
    assert_true(grant_glob(slice_of(pattern, sizeof pattern), slice_of(text, sizeof text)));
    pattern[sizeof pattern - 1] = 'b';
    assert_false(grant_glob(slice_of(pattern, sizeof pattern), slice_of(text, sizeof text)));
}

static void grants_match_below_tenant_namespace_and_name(void **state) {
    assert_true(allows_one("stream.publish:stream:t1/*", AUTH_STREAM_PUBLISH, "default", "orders"));
    assert_true(allows_one("stream.publish:stream:t1/*/*", AUTH_STREAM_PUBLISH, "d", "orders"));
    assert_true(allows_one("stream.publish:stream:t1/d/ord*", AUTH_STREAM_PUBLISH, "d", "orders"));
    assert_true(allows_one("stream.publish:stream:t1/d/ord*", AUTH_STREAM_PUBLISH, "d", "ord"));
    assert_true(allows_one("stream.publish:*", AUTH_STREAM_PUBLISH, "d", "orders"));
    assert_true(allows_one("stream.publish:*s", AUTH_STREAM_PUBLISH, "d", "orders"));
    assert_true(allows_one("cache.read:cache:t1/d/c", AUTH_CACHE_READ, "d", "c"));
    assert_true(allows_one("cache.write:cache:t1/d/c", AUTH_CACHE_WRITE, "d", "c"));
    assert_true(allows_one("stream.subscribe:stream:t1/d/c", AUTH_STREAM_SUBSCRIBE, "d", "c"));
    assert_true(allows_one("stream.manage:stream:t1/d/c", AUTH_STREAM_MANAGE, "d", "c"));

    assert_false(allows_one("stream.publish:stream:t1/d/ord*", AUTH_STREAM_PUBLISH, "d", "Orders"));
    assert_false(allows_one("stream.publish:stream:t1/d/", AUTH_STREAM_PUBLISH, "d", "orders"));
    assert_false(allows_one("stream.publish:stream:t1/d", AUTH_STREAM_PUBLISH, "d", "orders"));
    assert_false(allows_one("stream.publish:t1/d/orders", AUTH_STREAM_PUBLISH, "d", "orders"));
    assert_false(allows_one("stream.publish:stream:t2/*", AUTH_STREAM_PUBLISH, "d", "orders"));
    assert_false(allows_one("stream.publish:", AUTH_STREAM_PUBLISH, "", ""));
}

static void the_action_must_be_the_same_and_so_must_the_kind(void **state) {
    assert_false(allows_one("stream.publish:*", AUTH_STREAM_SUBSCRIBE, "d", "s"));
    assert_false(allows_one("cache.write:*", AUTH_CACHE_READ, "d", "c"));
    assert_false(allows_one("cache.read:stream:t1/*", AUTH_CACHE_READ, "d", "c"));
    assert_false(allows_one("stream.manage:*", AUTH_STREAM_PUBLISH, "d", "s"));
    assert_false(allows_one("stream.publish:*", AUTH_STREAM_MANAGE, "d", "s"));
    assert_false(allows_one("stream.manage:namespace:t1/*", AUTH_STREAM_MANAGE, "d", "s"));
    assert_false(allows_one("ns.manage:*", AUTH_NS_MANAGE, "d", "s"));
}

static void the_name_star_asks_for_every_name(void **state) {
    assert_true(allows_one("stream.manage:stream:t1/d/*", AUTH_STREAM_MANAGE, "d", "*"));
    assert_true(allows_one("stream.manage:stream:t1/*", AUTH_STREAM_MANAGE, "d", "*"));
    assert_false(allows_one("stream.manage:stream:t1/d/a*", AUTH_STREAM_MANAGE, "d", "*"));
    assert_false(allows_one("stream.manage:stream:t1/x/*", AUTH_STREAM_MANAGE, "d", "*"));
}

static void any_grant_that_matches_is_enough_and_none_is_not(void **state) {
    struct grant grants[3];
    struct resource r = {
        .tenant = slice_str("t1"), .namespace = slice_str("d"), .name = slice_str("s")};
    assert_int_equal(grant_parse(slice_str("cache.read:*"), &grants[0]), FELIX_OK);
    assert_int_equal(grant_parse(slice_str("stream.publish:stream:t1/x/*"), &grants[1]), FELIX_OK);
    assert_int_equal(grant_parse(slice_str("stream.publish:stream:t1/d/*"), &grants[2]), FELIX_OK);
    struct principal p = {
        .refs = 1, .tenant = slice_str("t1"), .grants_count = 3, .grants = grants};
    assert_true(principal_allows(&p, AUTH_STREAM_PUBLISH, &r));
    p.grants_count = 2;
    assert_false(principal_allows(&p, AUTH_STREAM_PUBLISH, &r));
    p.grants_count = 0;
    assert_false(principal_allows(&p, AUTH_STREAM_PUBLISH, &r));
}

static void another_tenant_is_never_permitted(void **state) {
    struct grant grant;
    struct resource r = {
        .tenant = slice_str("t2"), .namespace = slice_str("d"), .name = slice_str("s")};
    assert_int_equal(grant_parse(slice_str("stream.publish:*"), &grant), FELIX_OK);
    struct principal p = {
        .refs = 1, .tenant = slice_str("t1"), .grants_count = 1, .grants = &grant};
    assert_false(principal_allows(&p, AUTH_STREAM_PUBLISH, &r));
}

static void a_slash_in_the_namespace_cannot_pose_as_another_stream(void **state) {
    assert_true(allows_one("stream.publish:stream:t1/a/b/c", AUTH_STREAM_PUBLISH, "a", "b/c"));
    assert_false(allows_one("stream.publish:stream:t1/a/b/c", AUTH_STREAM_PUBLISH, "a/b", "c"));
}

static void a_name_at_the_cap_is_permitted_one_more_byte_is_not(void **state) {
    char name[NAME_VALID_BYTES_MAX + 2] = {0};
    memset(name, 'n', NAME_VALID_BYTES_MAX);
    assert_true(allows_one("stream.publish:*", AUTH_STREAM_PUBLISH, "d", name));
    assert_true(name_valid(slice_str(name)));
    name[NAME_VALID_BYTES_MAX] = 'n';
    assert_false(allows_one("stream.publish:*", AUTH_STREAM_PUBLISH, "d", name));
    assert_false(name_valid(slice_str(name)));
}

static void names_have_no_separators_stars_or_control_characters(void **state) {
    assert_true(name_valid(slice_str("orders-1.eu_west")));
    assert_true(name_valid(slice_str("\xc3\xa9t\xc3\xa9")));
    static const char *const bad[] = {"", "a/b", "a:b", "*", "ord*", "a\nb", "\x7f", "a\tb"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(name_valid(slice_str(bad[i])));
    assert_false(name_valid(slice_of("a\0b", 3)));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_action_of_the_closed_list_parses),
        cmocka_unit_test(a_permission_is_split_at_its_first_colon),
        cmocka_unit_test(unknown_actions_and_missing_colons_are_malformed),
        cmocka_unit_test(a_star_matches_any_run_also_slashes_and_nothing),
        cmocka_unit_test(everything_but_the_star_stands_for_itself),
        cmocka_unit_test(a_star_in_the_text_is_only_a_byte),
        cmocka_unit_test(the_matcher_agrees_with_the_definition),
        cmocka_unit_test(many_stars_do_not_explode),
        cmocka_unit_test(grants_match_below_tenant_namespace_and_name),
        cmocka_unit_test(the_action_must_be_the_same_and_so_must_the_kind),
        cmocka_unit_test(the_name_star_asks_for_every_name),
        cmocka_unit_test(any_grant_that_matches_is_enough_and_none_is_not),
        cmocka_unit_test(another_tenant_is_never_permitted),
        cmocka_unit_test(a_slash_in_the_namespace_cannot_pose_as_another_stream),
        cmocka_unit_test(a_name_at_the_cap_is_permitted_one_more_byte_is_not),
        cmocka_unit_test(names_have_no_separators_stars_or_control_characters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
