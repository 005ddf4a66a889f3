#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/slice.h"
#include "node/catalog.h"

static char directory[64];
static char path[128];

static int begin(void **state) {
    (void)snprintf(directory, sizeof directory, "/tmp/felix-catalog-XXXXXX");
    assert_non_null(mkdtemp(directory));
    (void)snprintf(path, sizeof path, "%s/" CATALOG_FILE, directory);
    return 0;
}

static int end(void **state) {
    (void)chmod(directory, 0700);
    (void)unlink(path);
    return rmdir(directory); /* nothing else was left in it */
}

static struct scope_item item(const char *name) {
    static char tenant[] = "t1", space[] = "default";
    return (struct scope_item){
        .kind = SCOPE_STREAM, .tenant = tenant, .space = space, .name = (char *)(uintptr_t)name};
}

static struct catalog load(void) {
    struct catalog catalog;
    struct felix_error error = {0};
    if (catalog_load(&catalog, path, &error) != FELIX_OK)
        fail_msg("not loaded: %s", error.text);
    return catalog;
}

static void put(struct catalog *catalog, const char *name, bool durable) {
    struct scope_item stream = item(name);
    struct felix_error error = {0};
    stream.durable = durable;
    if (catalog_put(catalog, &stream, &error) != FELIX_OK)
        fail_msg("not put: %s", error.text);
}

static const struct scope_item *find(const struct catalog *catalog, const char *name) {
    struct scope_item like = item(name);
    return catalog_find(catalog, &like);
}

static void write_file(const char *text) {
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    assert_int_equal(fputs(text, file) >= 0, true);
    assert_int_equal(fclose(file), 0);
}

static char *read_file(void) {
    static char text[4096];
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    assert_int_equal(fclose(file), 0);
    return text;
}

static void no_file_is_an_empty_catalog_and_makes_none(void **state) {
    struct catalog catalog = load();
    assert_int_equal(catalog.count, 0);
    assert_null(find(&catalog, "a"));
    catalog_deinit(&catalog);
    assert_int_not_equal(access(path, F_OK), 0);
}

static void what_was_put_is_there_after_a_restart(void **state) {
    struct catalog catalog = load();
    struct scope_item stream = item("b \"quoted\" \xc3\xa9");
    stream.durable = true;
    stream.retention_bytes = RETENTION_BYTES_MAX;
    stream.retention_seconds = 60;
    assert_int_equal(catalog_put(&catalog, &stream, NULL), FELIX_OK);
    put(&catalog, "c", false);
    put(&catalog, "a", false);
    catalog_deinit(&catalog);

    catalog = load();
    assert_int_equal(catalog.count, 3);
    const struct scope_item *found = catalog_find(&catalog, &stream);
    assert_true(found != NULL && found->durable);
    assert_true(found->retention_bytes == RETENTION_BYTES_MAX && found->retention_seconds == 60);
    assert_true(find(&catalog, "a") != NULL && !find(&catalog, "a")->durable);
    assert_string_equal(find(&catalog, "c")->space, "default");
    assert_null(find(&catalog, "d"));
    catalog_deinit(&catalog);
}

static void put_again_replaces(void **state) {
    struct catalog catalog = load();
    put(&catalog, "a", false);
    put(&catalog, "a", true);
    assert_int_equal(catalog.count, 1);
    catalog_deinit(&catalog);
    catalog = load();
    assert_int_equal(catalog.count, 1);
    assert_true(find(&catalog, "a")->durable);
    catalog_deinit(&catalog);
}

static void what_was_removed_is_gone_after_a_restart(void **state) {
    struct catalog catalog = load();
    struct scope_item a = item("a");
    put(&catalog, "a", false);
    put(&catalog, "b", false);
    assert_int_equal(catalog_remove(&catalog, &a, NULL), FELIX_OK);
    assert_int_equal(catalog_remove(&catalog, &a, NULL), FELIX_OK);
    catalog_deinit(&catalog);
    catalog = load();
    assert_null(find(&catalog, "a"));
    assert_non_null(find(&catalog, "b"));
    catalog_deinit(&catalog);
}

static void the_file_is_for_its_owner_alone(void **state) {
    struct catalog catalog = load();
    struct stat st;
    put(&catalog, "a", false);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    catalog_deinit(&catalog);
}

static void names_that_differ_in_any_part_are_different_streams(void **state) {
    struct catalog catalog = load();
    static char other[] = "other";
    struct scope_item in_space = item("a"), in_tenant = item("a");
    in_space.space = other;
    in_tenant.tenant = other;
    put(&catalog, "a", false);
    assert_null(catalog_find(&catalog, &in_space));
    assert_int_equal(catalog_put(&catalog, &in_space, NULL), FELIX_OK);
    assert_int_equal(catalog_put(&catalog, &in_tenant, NULL), FELIX_OK);
    assert_int_equal(catalog.count, 3);
    catalog_deinit(&catalog);
}

static void a_file_that_cannot_be_read_is_left_alone(void **state) {
    static const char *const texts[] = {
        "",
        "{\"version\":1,\"streams\":[",
        "{\"version\":2,\"streams\":[]}",
        "{\"streams\":[]}",
        "{\"version\":1}",
        "{\"version\":1,\"streams\":[],\"more\":1}",
        "{\"version\":1,\"streams\":[{\"tenant\":\"t\",\"namespace\":\"n\"}]}",
        "{\"version\":1,\"streams\":[{\"tenant\":\"t\",\"namespace\":\"n\",\"stream\":\"a/b\"}]}",
        "{\"version\":1,\"streams\":[{\"tenant\":\"t\",\"namespace\":\"n\",\"stream\":\"a\",\"x\":"
        "1}]}",
        "{\"version\":1,\"streams\":[{\"tenant\":\"t\",\"namespace\":\"n\",\"stream\":\"a\"},"
        "{\"tenant\":\"t\",\"namespace\":\"n\",\"stream\":\"a\"}]}",
        "{\"version\":1,\"streams\":[{\"tenant\":\"t\",\"namespace\":\"n\",\"stream\":\"a\"}]} x",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct catalog catalog;
        struct felix_error error = {0};
        struct scope_item a = item("a");
        write_file(texts[i]);
        if (catalog_load(&catalog, path, &error) != FELIX_DAMAGED)
            fail_msg("read: %s", texts[i]);
        assert_non_null(strstr(error.text, path));
        assert_int_equal(catalog.count, 0);
        assert_int_equal(catalog_put(&catalog, &a, &error), FELIX_STORAGE);
        assert_non_null(strstr(error.text, "repair the file"));
        assert_string_equal(read_file(), texts[i]);
        catalog_deinit(&catalog);
    }
}

static void a_file_of_a_later_version_is_named_as_such(void **state) {
    struct catalog catalog;
    struct felix_error error = {0};
    write_file("{\"version\":7,\"streams\":[],\"later\":{}}");
    assert_int_equal(catalog_load(&catalog, path, &error), FELIX_DAMAGED);
    assert_non_null(strstr(error.text, "version 7"));
    catalog_deinit(&catalog);
}

/* A directory in its place: neither root nor anybody else can write a file there. */
static void what_cannot_be_written_has_not_changed(void **state) {
    struct catalog catalog = load();
    struct scope_item a = item("a"), b = item("b"), durable = item("a");
    struct felix_error error = {0};
    durable.durable = true;
    put(&catalog, "a", false);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(catalog_put(&catalog, &b, &error), FELIX_STORAGE);
    assert_non_null(strstr(error.text, "cannot be written"));
    assert_null(catalog_find(&catalog, &b));
    assert_int_equal(catalog_put(&catalog, &durable, NULL), FELIX_STORAGE);
    assert_false(catalog_find(&catalog, &a)->durable);
    assert_int_equal(catalog_remove(&catalog, &a, NULL), FELIX_STORAGE);
    assert_non_null(catalog_find(&catalog, &a));
    assert_int_equal(catalog.count, 1);
    assert_int_equal(rmdir(path), 0);
    catalog_deinit(&catalog);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(no_file_is_an_empty_catalog_and_makes_none, begin, end),
        cmocka_unit_test_setup_teardown(what_was_put_is_there_after_a_restart, begin, end),
        cmocka_unit_test_setup_teardown(put_again_replaces, begin, end),
        cmocka_unit_test_setup_teardown(what_was_removed_is_gone_after_a_restart, begin, end),
        cmocka_unit_test_setup_teardown(the_file_is_for_its_owner_alone, begin, end),
        cmocka_unit_test_setup_teardown(names_that_differ_in_any_part_are_different_streams, begin,
                                        end),
        cmocka_unit_test_setup_teardown(a_file_that_cannot_be_read_is_left_alone, begin, end),
        cmocka_unit_test_setup_teardown(a_file_of_a_later_version_is_named_as_such, begin, end),
        cmocka_unit_test_setup_teardown(what_cannot_be_written_has_not_changed, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
