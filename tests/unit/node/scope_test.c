/* What scope_diff reports of two scopes. */
#include "node/scope.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct scope_item stream(const char *space, const char *name) {
    return (struct scope_item){.kind = SCOPE_STREAM,
                               .tenant = (char *)(uintptr_t)"t",
                               .space = (char *)(uintptr_t)space,
                               .name = (char *)(uintptr_t)name};
}

static struct scope_item cache(const char *name, uint64_t max_bytes) {
    struct scope_item item = stream("n", name);
    item.kind = SCOPE_CACHE;
    item.max_bytes = max_bytes;
    return item;
}

/* Writes what is reported as "+s:n/a" for an added stream, "-" removed, "~" altered. */
static void note(void *context, enum scope_change change, const struct scope_item *item) {
    char *out = context;
    static const char signs[] = {[SCOPE_ADDED] = '+', [SCOPE_REMOVED] = '-', [SCOPE_ALTERED] = '~'};
    (void)sprintf(out + strlen(out), "%s%c%c:%s/%s", out[0] != '\0' ? " " : "", signs[change],
                  item->kind == SCOPE_CACHE ? 'c' : 's', item->space, item->name);
}

static void expect(const struct scope_item *before, size_t before_count,
                   const struct scope_item *after, size_t after_count, const char *changes) {
    char seen[256] = "";
    scope_diff((struct scope){before, before_count}, (struct scope){after, after_count}, note,
               seen);
    assert_string_equal(seen, changes);
}

static void equal_scopes_in_another_order_do_not_differ(void **) {
    struct scope_item before[] = {stream("n", "a"), cache("a", 5), stream("n", "b")};
    struct scope_item after[] = {stream("n", "b"), stream("n", "a"), cache("a", 5)};
    expect(before, 3, after, 3, "");
}

static void removals_come_before_additions(void **) {
    struct scope_item before[] = {stream("n", "b"), stream("n", "d")};
    struct scope_item after[] = {stream("n", "a"), stream("n", "b"), stream("n", "c")};
    expect(before, 2, after, 3, "-s:n/d +s:n/a +s:n/c");
}

static void a_stream_is_no_cache_and_a_namespace_is_no_other(void **) {
    struct scope_item before[] = {stream("n", "a")};
    struct scope_item after[] = {cache("a", 0), stream("m", "a")};
    expect(before, 1, after, 2, "-s:n/a +s:m/a +c:n/a");
}

static void other_retention_is_reported_as_altered(void **) {
    struct scope_item before[] = {stream("n", "a"), stream("n", "b")};
    struct scope_item after[] = {stream("n", "a"), stream("n", "b")};
    after[0].retention_bytes = 1;
    after[1].retention_seconds = 1;
    expect(before, 2, after, 2, "~s:n/a ~s:n/b");
}

static void other_settings_are_reported_as_altered(void **) {
    struct scope_item before[] = {cache("a", 1)};
    struct scope_item after[] = {cache("a", 2)};
    expect(before, 1, after, 1, "~c:n/a");
}

static void empty_scopes_differ_by_everything(void **) {
    struct scope_item some[] = {stream("n", "a"), cache("a", 0)};
    expect(some, 2, NULL, 0, "-s:n/a -c:n/a");
    expect(NULL, 0, some, 2, "+s:n/a +c:n/a");
    expect(NULL, 0, NULL, 0, "");
}

static void tenants_and_namespaces_are_not_reported(void **) {
    struct scope_item after[] = {{.kind = SCOPE_TENANT, .tenant = (char *)(uintptr_t)"t"},
                                 {.kind = SCOPE_NAMESPACE,
                                  .tenant = (char *)(uintptr_t)"t",
                                  .space = (char *)(uintptr_t)"n"}};
    expect(NULL, 0, after, 2, "");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_scopes_in_another_order_do_not_differ),
        cmocka_unit_test(removals_come_before_additions),
        cmocka_unit_test(a_stream_is_no_cache_and_a_namespace_is_no_other),
        cmocka_unit_test(other_retention_is_reported_as_altered),
        cmocka_unit_test(other_settings_are_reported_as_altered),
        cmocka_unit_test(empty_scopes_differ_by_everything),
        cmocka_unit_test(tenants_and_namespaces_are_not_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
