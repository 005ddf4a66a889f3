/* The manifest of a backup: its one spelling, and what is refused. */
#include "storage/crc32.h"
#include "storage/manifest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static const char golden[] = "felix-backup 1\n"
                             "kind node\n"
                             "made 1767225600000000\n"
                             "log acme_default_orders_0-0d3aed4b998d2798\n"
                             "range 0 1200\n"
                             "damage 17 18\n"
                             "file 0 0 1000 92032 5a0c31d7\n"
                             "file 1 1000 1200 18432 12ab34cd\n"
                             "log acme_default_other_0-0123456789abcdef\n"
                             "range 5 5\n";

/* `body` with the line that makes it a manifest. */
static struct text whole(const char *body) {
    struct text text = {0};
    text_add(&text, body);
    text_printf(&text, "end %08x\n", crc32_update(0, body, strlen(body)));
    return text;
}

static enum felix_err decode(const char *body, struct manifest *ret, struct felix_error *error) {
    struct text text = whole(body);
    enum felix_err err = manifest_decode(slice_of(text.data, text.len), ret, error);
    text_deinit(&text);
    return err;
}

static void assert_refused(const char *body, const char *why) {
    struct manifest manifest;
    struct felix_error error;
    assert_int_equal(decode(body, &manifest, &error), FELIX_MALFORMED);
    assert_non_null(strstr(error.text, why));
    assert_null(manifest.logs);
}

static void a_manifest_encodes_to_the_documented_lines(void **) {
    struct manifest manifest = {.node = true, .made_us = 1767225600000000};
    struct manifest_log *log =
        manifest_add_log(&manifest, slice_str("acme_default_orders_0-0d3aed4b998d2798"));
    log->range = (struct manifest_range){0, 1200};
    manifest_add_damage(log, 17, 18);
    *manifest_add_file(log) = (struct manifest_file){0, 0, 1000, 92032, 0x5a0c31d7};
    *manifest_add_file(log) = (struct manifest_file){1, 1000, 1200, 18432, 0x12ab34cd};
    log = manifest_add_log(&manifest, slice_str("acme_default_other_0-0123456789abcdef"));
    log->range = (struct manifest_range){5, 5};

    struct text expected = whole(golden), text = {0};
    manifest_encode(&manifest, &text);
    assert_string_equal(text_str(&text), text_str(&expected));
    text_deinit(&text);
    text_deinit(&expected);
    manifest_deinit(&manifest);
}

static void what_was_encoded_decodes_to_the_same(void **) {
    struct manifest manifest;
    struct felix_error error;
    assert_int_equal(decode(golden, &manifest, &error), FELIX_OK);
    assert_true(manifest.node);
    assert_int_equal(manifest.logs_count, 2);
    assert_int_equal(manifest.logs[0].files_count, 2);
    assert_int_equal(manifest.logs[0].files[1].end, 1200);
    assert_int_equal(manifest.logs[0].damage_count, 1);
    assert_int_equal(manifest.logs[1].range.first, 5);
    struct text expected = whole(golden), text = {0};
    manifest_encode(&manifest, &text);
    assert_string_equal(text_str(&text), text_str(&expected));
    text_deinit(&text);
    text_deinit(&expected);
    manifest_deinit(&manifest);
}

static void every_shorter_manifest_is_refused(void **) {
    struct text text = whole(golden);
    struct manifest manifest;
    for (size_t len = 0; len < text.len; len++)
        assert_int_equal(manifest_decode(slice_of(text.data, len), &manifest, NULL),
                         FELIX_MALFORMED);
    text_deinit(&text);
}

static void every_flipped_bit_is_noticed(void **) {
    struct text text = whole(golden);
    struct manifest manifest;
    for (size_t bit = 0; bit < text.len * 8; bit++) {
        text.data[bit / 8] = (char)(text.data[bit / 8] ^ (1 << bit % 8));
        assert_int_not_equal(manifest_decode(slice_of(text.data, text.len), &manifest, NULL),
                             FELIX_OK);
        text.data[bit / 8] = (char)(text.data[bit / 8] ^ (1 << bit % 8));
    }
    text_deinit(&text);
}

#define HEAD "felix-backup 1\nkind node\nmade 1\n"

static void names_that_lead_out_of_the_backup_are_refused(void **) {
    assert_refused(HEAD "log ..\nrange 0 0\n", "line 4");
    assert_refused(HEAD "log a/b\nrange 0 0\n", "no name");
    assert_refused(HEAD "log /\nrange 0 0\n", "no name");
    assert_refused(HEAD "log \nrange 0 0\n", "no name");
}

static void what_overlaps_or_descends_is_refused(void **) {
    assert_refused(HEAD "log b\nrange 0 0\nlog a\nrange 0 0\n", "sorted");
    assert_refused(HEAD "log a\nrange 2 1\n", "behind its first");
    assert_refused(HEAD "log a\nrange 0 9\ndamage 3 3\n", "damage");
    assert_refused(HEAD "log a\nrange 0 9\ndamage 3 5\ndamage 4 6\n", "damage");
    assert_refused(HEAD "log a\nrange 0 9\nfile 0 0 5 1 00000000\nfile 1 4 9 1 00000000\n",
                   "files ascend");
    assert_refused(HEAD "log a\nrange 0 9\nfile 0 0 10 1 00000000\n", "files ascend");
    assert_refused(HEAD "log a\nrange 00 9\n", "two offsets");
    assert_refused(HEAD "log a\nrange 0 18446744073709551616\n", "two offsets");
}

static void a_later_version_is_told_from_damage(void **) {
    struct manifest manifest;
    struct felix_error error;
    assert_int_equal(decode("felix-backup 2\n", &manifest, &error), FELIX_UNSUPPORTED);
    assert_non_null(strstr(error.text, "version 2"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_manifest_encodes_to_the_documented_lines),
        cmocka_unit_test(what_was_encoded_decodes_to_the_same),
        cmocka_unit_test(every_shorter_manifest_is_refused),
        cmocka_unit_test(every_flipped_bit_is_noticed),
        cmocka_unit_test(names_that_lead_out_of_the_backup_are_refused),
        cmocka_unit_test(what_overlaps_or_descends_is_refused),
        cmocka_unit_test(a_later_version_is_told_from_damage),
    };
    return cmocka_run_group_tests_name("storage/manifest", tests, NULL, NULL);
}
