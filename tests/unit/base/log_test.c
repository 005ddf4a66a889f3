/* Lines as a reader sees them: read back through a pipe. */
#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static int pipe_fds[2];
static char got[16384];

static int open_pipe(void **) {
    if (pipe2(pipe_fds, O_NONBLOCK | O_CLOEXEC) != 0)
        return -1;
    log_set_fd(pipe_fds[1]);
    log_set_format(LOG_FORMAT_LOGFMT);
    assert_int_equal(log_configure("", LOG_UNKNOWN_REFUSED, NULL), FELIX_OK);
    return 0;
}

static int close_pipe(void **) {
    log_set_fd(STDERR_FILENO);
    (void)close(pipe_fds[0]);
    (void)close(pipe_fds[1]);
    return 0;
}

/* All that was written, without the timestamps' changing part checked by one test only. */
static const char *read_all(void) {
    ssize_t n = read(pipe_fds[0], got, sizeof got - 1);
    got[n > 0 ? n : 0] = '\0';
    return got;
}

static const char *after_event(void) {
    const char *at = strstr(read_all(), "event");
    return at != NULL ? at : "";
}

static void a_line_has_time_level_module_event_and_fields(void **) {
    LOG_WARN(quic, "handshake_failed", F_STR("peer", "127.0.0.1:5"), F_U64("code", 7),
             F_I64("left", -3), F_BOOL("retry", true), F_ERR(FELIX_TLS));
    const char *line = read_all();
    assert_int_equal(strlen("ts=2026-01-31T12:00:00.000123Z"), strcspn(line, " "));
    assert_memory_equal(line, "ts=20", 5);
    assert_int_equal(line[3 + 19], '.');
    assert_int_equal(line[3 + 26], 'Z');
    assert_string_equal(strchr(line, ' '),
                        " level=warn module=quic event=handshake_failed peer=127.0.0.1:5 code=7 "
                        "left=-3 retry=true err=TLS\n");
}

static void an_event_needs_no_fields(void **) {
    LOG_INFO(node, "started");
    assert_string_equal(after_event(), "event=started\n");
}

static void json_line_is_one_object(void **) {
    log_set_format(LOG_FORMAT_JSON);
    LOG_ERROR(node, "x", F_STR("a", "q\"b\\\n"), F_U64("n", 1), F_BOOL("t", false),
              F_SLICE("raw", slice_of("\xff\x01z", 3)));
    const char *line = read_all();
    assert_memory_equal(line, "{\"ts\":\"20", 9);
    assert_string_equal(
        strstr(line, ",\"level\""),
        ",\"level\":\"error\",\"module\":\"node\",\"event\":\"x\","
        "\"a\":\"q\\\"b\\\\\\n\",\"n\":1,\"t\":false,\"raw\":\"\\ufffd\\u0001z\"}\n");
}

static void bytes_of_a_peer_are_escaped(void **) {
    const struct {
        const char *bytes;
        size_t len;
        const char *logged;
    } cases[] = {
        {"plain-1.2:3", 11, "plain-1.2:3"},
        {"", 0, "\"\""},
        {"two words", 9, "\"two words\""},
        {"a=b", 3, "\"a=b\""},
        {"say \"hi\"", 8, "\"say \\\"hi\\\"\""},
        {"back\\slash", 10, "\"back\\\\slash\""},
        {"line\nfeed\r\t", 11, "\"line\\nfeed\\r\\t\""},
        {"nul\0in", 6, "\"nul\\x00in\""},
        {"\x1b[31mred", 8, "\"\\x1b[31mred\""},
        {"del\x7f", 4, "\"del\\x7f\""},
        {"caf\xc3\xa9", 5, "\"caf\xc3\xa9\""},
        {"\xf0\x9f\x98\x80", 4, "\"\xf0\x9f\x98\x80\""},
        {"c1\xc2\x9b", 4, "\"c1\\x9b\""},                    /* a control sequence introducer */
        {"\xff\xfe", 2, "\"\\xff\\xfe\""},                   /* never in UTF-8 */
        {"cut\xe2\x82", 5, "\"cut\\xe2\\x82\""},             /* ends inside a character */
        {"\xc0\xaf", 2, "\"\\xc0\\xaf\""},                   /* overlong */
        {"\xe0\x80\xaf", 3, "\"\\xe0\\x80\\xaf\""},          /* overlong, three bytes */
        {"\xed\xa0\x80", 3, "\"\\xed\\xa0\\x80\""},          /* surrogate */
        {"\xf4\x90\x80\x80", 4, "\"\\xf4\\x90\\x80\\x80\""}, /* above U+10FFFF */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char want[128];
        (void)snprintf(want, sizeof want, "event=e v=%s\n", cases[i].logged);
        LOG_INFO(node, "e", F_SLICE("v", slice_of(cases[i].bytes, cases[i].len)));
        assert_string_equal(after_event(), want);
    }
}

static void hex_and_secret_show_no_raw_bytes(void **) {
    LOG_INFO(auth, "e", F_HEX("id", slice_of("\x01\xab\xff", 3)));
    assert_string_equal(after_event(), "event=e id=01abff\n");
    LOG_INFO(auth, "e", F_SECRET("token", slice_str("hunter2")));
    const char *line = after_event();
    assert_null(strstr(line, "hunter2"));
    assert_memory_equal(line, "event=e token=secret:", 21);
}

static void long_value_is_cut_between_characters(void **) {
    char value[3000];
    for (size_t i = 0; i < sizeof value; i += 2)
        memcpy(value + i, "\xc3\xa9", 2);
    LOG_INFO(node, "e", F_SLICE("v", slice_of(value + 1, sizeof value - 1)));
    const char *line = after_event();
    assert_true(strlen(line) < 1100);
    assert_null(strstr(line + strlen("event=e v=\"\\xa9"), "\\x"));
}

static void line_that_is_too_long_says_so_and_ends(void **) {
    char value[1024];
    memset(value, '"', sizeof value);
    struct slice v = slice_of(value, sizeof value);
    LOG_INFO(node, "e", F_SLICE("a", v), F_SLICE("b", v), F_SLICE("c", v), F_U64("d", 1));
    const char *line = read_all();
    assert_true(strlen(line) <= LOG_LINE_BYTES_MAX);
    assert_string_equal(strstr(line, " truncated"), " truncated=true\n");
    assert_null(strstr(line, " b="));

    log_set_format(LOG_FORMAT_JSON);
    LOG_INFO(node, "e", F_SLICE("a", v), F_SLICE("b", v), F_SLICE("c", v));
    line = read_all();
    assert_string_equal(strstr(line, ",\"truncated"), ",\"truncated\":true}\n");
}

static int evaluated;

static uint64_t evaluate(void) {
    evaluated++;
    return 1;
}

static void a_level_that_is_off_writes_and_evaluates_nothing(void **) {
    evaluated = 0;
    LOG_DEBUG(core, "e", F_U64("n", evaluate()));
    assert_int_equal(evaluated, 0);
    assert_string_equal(read_all(), "");
    assert_int_equal(log_configure("core=debug", LOG_UNKNOWN_REFUSED, NULL), FELIX_OK);
    LOG_DEBUG(core, "e", F_U64("n", evaluate()));
    assert_int_equal(evaluated, 1);
    assert_string_equal(after_event(), "event=e n=1\n");
}

static void filter_sets_levels_by_module_in_any_order(void **) {
    assert_int_equal(log_configure(" quic=TRACE , error,session = off", LOG_UNKNOWN_REFUSED, NULL),
                     FELIX_OK);
    assert_true(log_enabled(LOG_MODULE_quic, LOG_LEVEL_TRACE));
    assert_true(log_enabled(LOG_MODULE_core, LOG_LEVEL_ERROR));
    assert_false(log_enabled(LOG_MODULE_core, LOG_LEVEL_WARN));
    assert_false(log_enabled(LOG_MODULE_session, LOG_LEVEL_ERROR));
    assert_int_equal(log_configure("", LOG_UNKNOWN_REFUSED, NULL), FELIX_OK);
    assert_true(log_enabled(LOG_MODULE_session, LOG_LEVEL_INFO));
    assert_false(log_enabled(LOG_MODULE_quic, LOG_LEVEL_DEBUG));
}

static void unusable_filter_changes_nothing(void **) {
    struct felix_error error;
    const char *bad[] = {"loud",  "quic=loud", "nosuch=debug",
                         "quic=", "=debug",    "debug,nosuch=warn"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(log_configure(bad[i], LOG_UNKNOWN_REFUSED, &error),
                         FELIX_INVALID_ARGUMENT);
        assert_false(log_enabled(LOG_MODULE_quic, LOG_LEVEL_DEBUG));
    }
    assert_int_equal(log_configure("hyper=warn,quic=debug", LOG_UNKNOWN_SKIPPED, &error), FELIX_OK);
    assert_true(log_enabled(LOG_MODULE_quic, LOG_LEVEL_DEBUG));
}

static void bucket_passes_ten_and_reports_the_suppressed(void **) {
    struct log_rate rate = {0};
    uint64_t suppressed = 99;
    uint64_t now_ns = 5 * NS_PER_S;
    for (int i = 0; i < LOG_RATE_LINES; i++) {
        assert_true(log_rate_pass(&rate, now_ns, &suppressed));
        assert_int_equal(suppressed, 0);
    }
    for (int i = 0; i < 25; i++)
        assert_false(log_rate_pass(&rate, now_ns, &suppressed));
    now_ns += NS_PER_S / LOG_RATE_LINES;
    assert_true(log_rate_pass(&rate, now_ns, &suppressed));
    assert_int_equal(suppressed, 25);
    assert_false(log_rate_pass(&rate, now_ns, &suppressed));

    now_ns += 100 * NS_PER_S;
    int passed = 0;
    while (log_rate_pass(&rate, now_ns, &suppressed))
        passed++;
    assert_int_equal(passed, LOG_RATE_LINES);
}

static void rate_limited_line_is_written_with_fields(void **) {
    for (int i = 0; i < 50; i++)
        LOG_RATE(quic, WARN, "bad_packet", F_U64("n", 5));
    const char *line = read_all();
    int lines = 0;
    for (const char *at = line; (at = strchr(at, '\n')) != NULL; at++)
        lines++;
    assert_in_range(lines, LOG_RATE_LINES, LOG_RATE_LINES + 1);
    assert_non_null(strstr(line, "event=bad_packet n=5\n"));
}

static void line_that_cannot_be_written_is_counted_and_errno_kept(void **) {
    uint64_t before = log_lost_lines();
    char block[4096] = {0};
    while (write(pipe_fds[1], block, sizeof block) > 0) {
    }
    errno = EDOM;
    LOG_INFO(node, "e");
    assert_int_equal(errno, EDOM);
    assert_int_equal(log_lost_lines(), before + 1);
}

static void *log_from_a_thread(void *context) {
    for (int i = 0; i < 500; i++) {
        LOG_INFO(core, "from_thread", F_STR("who", context), F_STR("tail", "last words"));
        LOG_RATE(core, INFO, "limited", F_STR("who", context));
    }
    return NULL;
}

static void lines_of_several_threads_do_not_mix(void **) {
    static char names[4][2] = {"a", "b", "c", "d"};
    pthread_t threads[4];
    FILE *file = tmpfile();
    assert_non_null(file);
    log_set_fd(fileno(file));
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, log_from_a_thread, names[i]), 0);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);

    rewind(file);
    const char *end = " tail=\"last words\"\n";
    char line[256];
    size_t whole = 0;
    while (fgets(line, sizeof line, file) != NULL) {
        char who = 0;
        if (sscanf(line, "ts=%*s level=info module=core event=from_thread who=%c", &who) != 1)
            continue;
        size_t len = strlen(line);
        assert_string_equal(line + len - strlen(end), end);
        whole++;
    }
    assert_int_equal(whole, 4 * 500);
    (void)fclose(file);
}

#define LOG_TEST(name) cmocka_unit_test_setup_teardown(name, open_pipe, close_pipe)

int main(void) {
    const struct CMUnitTest tests[] = {
        LOG_TEST(a_line_has_time_level_module_event_and_fields),
        LOG_TEST(an_event_needs_no_fields),
        LOG_TEST(json_line_is_one_object),
        LOG_TEST(bytes_of_a_peer_are_escaped),
        LOG_TEST(hex_and_secret_show_no_raw_bytes),
        LOG_TEST(long_value_is_cut_between_characters),
        LOG_TEST(line_that_is_too_long_says_so_and_ends),
        LOG_TEST(a_level_that_is_off_writes_and_evaluates_nothing),
        LOG_TEST(filter_sets_levels_by_module_in_any_order),
        LOG_TEST(unusable_filter_changes_nothing),
        LOG_TEST(bucket_passes_ten_and_reports_the_suppressed),
        LOG_TEST(rate_limited_line_is_written_with_fields),
        LOG_TEST(lines_of_several_threads_do_not_mix),
        LOG_TEST(line_that_cannot_be_written_is_counted_and_errno_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
