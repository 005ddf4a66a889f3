#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "vectors.h"
#include "wire/stream_admin.h"

#define WHERE "\"tenant\":\"t1\",\"namespace\":\"default\""
#define NUMBERS                                                                                    \
    "\"bytes\":1,\"segments\":2,\"oldest\":3,\"end\":4,\"subscriptions\":5,\"retention_bytes\":6," \
    "\"retention_seconds\":7"
#define ENTRY "{\"stream\":\"a\",\"durable\":true,\"origin\":\"scope\",\"state\":\"ok\"," NUMBERS

static enum felix_err decode(const char *text, struct stream_request *ret,
                             struct felix_error *reterr) {
    uint8_t *copy = exact_copy(text, strlen(text));
    enum felix_err err = stream_request_decode(slice_of(copy, strlen(text)), ret, reterr);
    free(copy);
    return err;
}

static struct stream_request good(const char *text) {
    struct stream_request request;
    struct felix_error error = {0};
    if (decode(text, &request, &error) != FELIX_OK)
        fail_msg("refused: %s (%s)", text, error.text);
    return request;
}

static void assert_refused(const char *text, const char *why) {
    struct stream_request request;
    struct felix_error error = {0};
    if (decode(text, &request, &error) != FELIX_INVALID_ARGUMENT)
        fail_msg("accepted: %s", text);
    if (strstr(error.text, why) == NULL)
        fail_msg("'%s' does not say '%s'", error.text, why);
}

static void a_request_is_read_as_it_was_written(void **state) {
    struct stream_request request =
        good("{\"op\":\"create\"," WHERE ",\"stream\":\"or\\u0064ers\",\"durable\":true,"
             "\"retention_bytes\":18446744073709551615,\"retention_seconds\":0}");
    assert_int_equal(request.op, STREAM_OP_CREATE);
    assert_string_equal(request.tenant, "t1");
    assert_string_equal(request.space, "default");
    assert_string_equal(request.stream, "orders");
    assert_true(request.durable && !request.purge);
    assert_true(request.has_retention_bytes && request.retention_bytes == UINT64_MAX);
    assert_true(request.has_retention_seconds && request.retention_seconds == 0);
}

static void what_is_not_given_is_not_set(void **state) {
    struct stream_request request = good("{\"op\":\"list\"," WHERE "}");
    assert_false(request.durable || request.has_retention_bytes || request.has_retention_seconds);
    assert_string_equal(request.after, "");
}

static void requests_are_reproduced(void **state) {
    static const char *const texts[] = {
        "{\"op\":\"create\"," WHERE ",\"stream\":\"s\"}",
        "{\"op\":\"create\"," WHERE ",\"stream\":\"s\",\"durable\":true,\"retention_bytes\":0}",
        "{\"op\":\"create\"," WHERE ",\"stream\":\"s\",\"durable\":true,\"retention_seconds\":9}",
        "{\"op\":\"list\"," WHERE ",\"after\":\"a \\\"b\\\"\"}",
        "{\"op\":\"show\"," WHERE ",\"stream\":\"s\"}",
        "{\"op\":\"delete\"," WHERE ",\"stream\":\"s\",\"purge\":true}",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct stream_request request = good(texts[i]);
        struct text text = {0};
        stream_request_encode(&request, &text);
        assert_string_equal(text_str(&text), texts[i]);
        text_deinit(&text);
    }
}

static void what_is_wrong_with_a_request_is_said(void **state) {
    assert_refused("", "no object");
    assert_refused("[]", "no object");
    assert_refused("{" WHERE ",\"stream\":\"s\"}", "op is missing");
    assert_refused("{\"op\":\"make\"," WHERE "}", "op must be one of create, list, show, delete");
    assert_refused("{\"op\":\"show\"," WHERE "}", "stream is missing");
    assert_refused("{\"op\":\"show\",\"namespace\":\"n\",\"stream\":\"s\"}", "tenant is missing");
    assert_refused("{\"op\":\"show\"," WHERE ",\"stream\":5}", "stream must be a name");
    assert_refused("{\"op\":\"show\"," WHERE ",\"stream\":\"a/b\"}", "stream must be a name");
    assert_refused("{\"op\":\"show\"," WHERE ",\"stream\":\"a\\u0000b\"}", "stream must be a name");
    assert_refused("{\"op\":\"show\"," WHERE ",\"stream\":\"\"}", "stream must be a name");
    assert_refused("{\"op\":\"show\"," WHERE ",\"stream\":\"s\",\"stream\":\"s\"}", "twice");
    assert_refused("{\"op\":\"list\"," WHERE ",\"stream\":\"s\"}", "no meaning for list");
    assert_refused("{\"op\":\"show\"," WHERE ",\"stream\":\"s\",\"after\":\"a\"}", "list only");
    assert_refused("{\"op\":\"show\"," WHERE ",\"stream\":\"s\",\"durable\":true}", "create only");
    assert_refused("{\"op\":\"show\"," WHERE ",\"stream\":\"s\",\"purge\":true}", "delete only");
    assert_refused("{\"op\":\"create\"," WHERE ",\"stream\":\"s\",\"retention_bytes\":1}",
                   "only a durable stream");
    assert_refused("{\"op\":\"create\"," WHERE ",\"stream\":\"s\",\"durable\":1}",
                   "durable must be true or false");
    assert_refused("{\"op\":\"create\"," WHERE ",\"stream\":\"s\",\"durable\":true,"
                   "\"retention_bytes\":-1}",
                   "retention_bytes must be a whole number");
    assert_refused("{\"op\":\"show\"," WHERE ",\"stream\":\"s\"} x", "no JSON");
}

/* It may be a setting that somebody counts on. */
static void a_member_that_is_not_known_is_refused(void **state) {
    assert_refused("{\"op\":\"create\"," WHERE ",\"stream\":\"s\",\"replicas\":3}", "'replicas'");
}

static void a_name_of_255_bytes_is_allowed_one_more_is_not(void **state) {
    char name[257], text[400];
    memset(name, 'n', sizeof name);
    name[255] = '\0';
    (void)snprintf(text, sizeof text, "{\"op\":\"show\"," WHERE ",\"stream\":\"%s\"}", name);
    assert_string_equal(good(text).stream, name);
    name[255] = 'n';
    name[256] = '\0';
    (void)snprintf(text, sizeof text, "{\"op\":\"show\"," WHERE ",\"stream\":\"%s\"}", name);
    assert_refused(text, "stream must be a name");
}

static void every_truncated_request_is_refused(void **state) {
    const char *text = "{\"op\":\"create\"," WHERE ",\"stream\":\"s\",\"durable\":true}";
    for (size_t len = 0; len < strlen(text); len++) {
        struct stream_request request;
        uint8_t *copy = exact_copy(text, len);
        assert_int_equal(stream_request_decode(slice_of(copy, len), &request, NULL),
                         FELIX_INVALID_ARGUMENT);
        free(copy);
    }
}

/* ---- answers ---- */

static bool answers(const char *text) {
    struct stream_answer answer;
    uint8_t *copy = exact_copy(text, strlen(text));
    enum felix_err err = stream_answer_decode(slice_of(copy, strlen(text)), &answer);
    free(copy);
    if (err != FELIX_OK)
        return false;
    stream_answer_deinit(&answer);
    return true;
}

static void answers_are_reproduced(void **state) {
    static const char *const texts[] = {
        "{\"outcome\":\"listed\",\"streams\":[]}",
        "{\"outcome\":\"made\",\"streams\":[" ENTRY ",\"damaged_ranges\":0}]}",
        "{\"outcome\":\"listed\",\"streams\":[" ENTRY ",\"damaged_ranges\":0}," ENTRY
        ",\"damaged_ranges\":2,\"damage\":[{\"first\":1,\"end\":2},{\"first\":5,\"end\":9}]}],"
        "\"more\":true}",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct stream_answer answer;
        struct text text = {0};
        assert_int_equal(stream_answer_decode(slice_str(texts[i]), &answer), FELIX_OK);
        stream_answer_encode(&answer, &text);
        assert_string_equal(text_str(&text), texts[i]);
        text_deinit(&text);
        stream_answer_deinit(&answer);
    }
}

static void an_answer_is_read_as_it_was_written(void **state) {
    struct stream_answer answer;
    const char *text = "{\"outcome\":\"changed\",\"new\":[1],\"streams\":[{\"stream\":\"a\","
                       "\"durable\":true,\"origin\":\"command\",\"state\":\"failed\","
                       "\"reason\":\"no \\\"disk\\\"\"," NUMBERS ",\"damaged_ranges\":1,"
                       "\"damage\":[{\"first\":10,\"end\":11,\"new\":0}],\"new\":{}}]}";
    assert_int_equal(stream_answer_decode(slice_str(text), &answer), FELIX_OK);
    assert_int_equal(answer.outcome, STREAM_OUTCOME_CHANGED);
    assert_int_equal(answer.count, 1);
    assert_false(answer.more);
    const struct stream_entry *entry = answer.entries;
    assert_string_equal(entry->stream, "a");
    assert_true(entry->durable);
    assert_int_equal(entry->origin, STREAM_ORIGIN_CATALOG);
    assert_int_equal(entry->state, STREAM_STATE_FAILED);
    assert_string_equal(entry->reason, "no \"disk\"");
    assert_int_equal(entry->bytes, 1);
    assert_int_equal(entry->segments, 2);
    assert_int_equal(entry->oldest, 3);
    assert_int_equal(entry->end, 4);
    assert_int_equal(entry->subscriptions, 5);
    assert_int_equal(entry->retention_bytes, 6);
    assert_int_equal(entry->retention_seconds, 7);
    assert_int_equal(entry->damage_count, 1);
    assert_int_equal(entry->damage[0].first, 10);
    assert_int_equal(entry->damage[0].end, 11);
    stream_answer_deinit(&answer);
}

static void what_is_no_answer_is_malformed(void **state) {
    assert_false(answers(""));
    assert_false(answers("{\"streams\":[]}"));
    assert_false(answers("{\"outcome\":\"listed\"}"));
    assert_false(answers("{\"outcome\":\"done\",\"streams\":[]}"));
    assert_false(answers("{\"outcome\":\"listed\",\"streams\":[],\"streams\":[]}"));
    assert_false(answers("{\"outcome\":\"listed\",\"streams\":[{}]}"));
    assert_false(answers("{\"outcome\":\"listed\",\"streams\":[" ENTRY "}]}"));
    assert_false(answers("{\"outcome\":\"listed\",\"streams\":[" ENTRY ",\"damaged_ranges\":1}]}"));
    assert_false(answers("{\"outcome\":\"listed\",\"streams\":[" ENTRY
                         ",\"damaged_ranges\":1,\"damage\":[{\"first\":2,\"end\":2}]}]}"));
    assert_false(answers("{\"outcome\":\"listed\",\"streams\":[" ENTRY
                         ",\"damaged_ranges\":0,\"damage\":[{\"first\":2,\"end\":3}]}]}"));
    assert_true(answers("{\"outcome\":\"listed\",\"streams\":[" ENTRY ",\"damaged_ranges\":0}]}"));
}

/* A list as `count` of the same entry. */
static char *list_of(size_t count) {
    struct text text = {0};
    text_add(&text, "{\"outcome\":\"listed\",\"streams\":[");
    for (size_t i = 0; i < count; i++) {
        text_add(&text, i == 0 ? "" : ",");
        text_add(&text, ENTRY ",\"damaged_ranges\":0}");
    }
    text_add(&text, "]}");
    return text_take(&text);
}

static void a_full_answer_is_allowed_one_entry_more_is_not(void **state) {
    char *full = list_of(STREAM_ANSWER_ENTRIES_MAX);
    char *more = list_of(STREAM_ANSWER_ENTRIES_MAX + 1);
    assert_true(answers(full));
    assert_false(answers(more));
    free(full);
    free(more);
}

static void a_stream_with_more_damage_than_fits_is_still_read(void **state) {
    struct stream_entry entry = {.stream = "a", .damage_count = 100};
    for (size_t i = 0; i < STREAM_DAMAGE_MAX; i++)
        entry.damage[i] = (struct stream_damage){2 * i, 2 * i + 1};
    struct text text = {0};
    stream_answer_encode(&(struct stream_answer){.entries = &entry, .count = 1}, &text);
    struct stream_answer answer;
    assert_int_equal(stream_answer_decode(slice_of(text_str(&text), text.len), &answer), FELIX_OK);
    assert_int_equal(answer.entries[0].damage_count, 100);
    assert_int_equal(answer.entries[0].damage[STREAM_DAMAGE_MAX - 1].end,
                     2 * STREAM_DAMAGE_MAX - 1);
    stream_answer_deinit(&answer);
    text_deinit(&text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_is_read_as_it_was_written),
        cmocka_unit_test(what_is_not_given_is_not_set),
        cmocka_unit_test(requests_are_reproduced),
        cmocka_unit_test(what_is_wrong_with_a_request_is_said),
        cmocka_unit_test(a_member_that_is_not_known_is_refused),
        cmocka_unit_test(a_name_of_255_bytes_is_allowed_one_more_is_not),
        cmocka_unit_test(every_truncated_request_is_refused),
        cmocka_unit_test(answers_are_reproduced),
        cmocka_unit_test(an_answer_is_read_as_it_was_written),
        cmocka_unit_test(what_is_no_answer_is_malformed),
        cmocka_unit_test(a_full_answer_is_allowed_one_entry_more_is_not),
        cmocka_unit_test(a_stream_with_more_damage_than_fits_is_still_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
