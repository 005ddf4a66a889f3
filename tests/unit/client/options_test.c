/* Where a client's settings come from, and what is refused. */
#include "client/options.h"

#include <ftw.h>
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

#include "base/check.h"

extern char **environ;

static char home[256];
static felix_options *options;
static const char *page_to_write; /* read before the environment is cleaned */

/* No FELIX_* and a home directory of our own, so that this machine's broker is not found. */
static int fresh(void **state) {
    (void)state;
    char *names[64];
    size_t count = 0;
    for (char **at = environ; *at != NULL && count < 64; at++) {
        if (strncmp(*at, "FELIX_", 6) == 0)
            names[count++] = strndup(*at, strcspn(*at, "="));
    }
    for (size_t i = 0; i < count; i++) {
        (void)unsetenv(names[i]);
        free(names[i]);
    }
    (void)unsetenv("XDG_STATE_HOME");
    (void)snprintf(home, sizeof home, "/tmp/felix-options-XXXXXX");
    options = NULL;
    return mkdtemp(home) == NULL || setenv("HOME", home, 1) != 0;
}

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *ftw) {
    (void)status, (void)type, (void)ftw;
    return remove(path);
}

static int done(void **state) {
    (void)state;
    felix_options_free(options);
    return nftw(home, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static const char *path_in(const char *name) {
    static char path[512];
    (void)snprintf(path, sizeof path, "%s/%s", home, name);
    return path;
}

static void write_file(const char *path, const char *text) {
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    (void)fputs(text, file);
    (void)fclose(file);
}

static void make(void) {
    options = felix_options_new();
    assert_non_null(options);
}

static void defaults_are_those_of_the_balanced_profile(void **state) {
    (void)state;
    make();
    const struct client_settings *settings = &options->settings;
    assert_string_equal(felix_options_server(options), "127.0.0.1:5000");
    assert_string_equal(felix_options_tenant(options), "t1");
    assert_int_equal(settings->pub_conn_pool, 4);
    assert_int_equal(settings->pub_streams_per_conn, 2);
    assert_int_equal(settings->event_conn_pool, 8);
    assert_int_equal(settings->event_conn_recv_window, 268435456);
    assert_int_equal(settings->event_stream_recv_window, 67108864);
    assert_int_equal(settings->event_send_window, 268435456);
    assert_int_equal(settings->publish_chunk_bytes, 16384);
    assert_int_equal(settings->cache_conn_pool, 8);
    assert_int_equal(settings->cache_streams_per_conn, 4);
}

static void a_profile_sets_what_nobody_else_did(void **state) {
    (void)state;
    (void)setenv("FELIX_PROFILE", "high_memory", 1);
    (void)setenv("FELIX_PUBLISH_CHUNK_BYTES", "4096", 1);
    make();
    assert_int_equal(options->settings.event_conn_recv_window, 536870912);
    assert_int_equal(options->settings.event_stream_recv_window, 134217728);
    assert_int_equal(options->settings.publish_chunk_bytes, 4096);
    assert_int_equal(options->settings.pub_conn_pool, 4);
}

static void a_profile_that_is_set_later_leaves_single_settings_alone(void **state) {
    (void)state;
    make();
    assert_int_equal(felix_options_set(options, "publish_chunk_bytes", "2048"), FELIX_OK);
    assert_int_equal(felix_options_set(options, "profile", "high_memory"), FELIX_OK);
    assert_int_equal(options->settings.publish_chunk_bytes, 2048);
    assert_int_equal(options->settings.event_stream_recv_window, 134217728);
}

static void the_environment_is_read_and_the_program_overrides_it(void **state) {
    (void)state;
    (void)setenv("FELIX_SERVER", "broker.example:7000", 1);
    (void)setenv("FELIX_AUTH_TENANT", "acme", 1);
    (void)setenv("FELIX_CACHE_CONN_POOL", "3", 1);
    make();
    assert_string_equal(felix_options_server(options), "broker.example:7000");
    assert_string_equal(felix_options_tenant(options), "acme");
    assert_int_equal(felix_options_set(options, "cache_conn_pool", "5"), FELIX_OK);
    assert_int_equal(options->settings.cache_conn_pool, 5);
    assert_int_equal(felix_options_set_server(options, "[::1]"), FELIX_OK);
    assert_string_equal(felix_options_server(options), "[::1]");
}

static void a_variable_that_cannot_be_used_is_named(void **state) {
    (void)state;
    static const char *const bad[][2] = {
        {"FELIX_PUB_CONN_POOL", "0"}, {"FELIX_PUB_CONN_POOL", "many"},  {"FELIX_SPIN_US", "1001"},
        {"FELIX_PROFILE", "huge"},    {"FELIX_PUB_SHARDING", "random"}, {"FELIX_SERVER", "host:0"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        (void)setenv(bad[i][0], bad[i][1], 1);
        assert_null(felix_options_new());
        assert_non_null(strstr(felix_last_error(), bad[i][1]));
        (void)unsetenv(bad[i][0]);
    }
}

static void a_setting_that_cannot_be_used_is_refused_and_changes_nothing(void **state) {
    (void)state;
    make();
    assert_int_equal(felix_options_set(options, "event_conn_pool", "257"), FELIX_INVALID_ARGUMENT);
    assert_non_null(strstr(felix_last_error(), "1 .. 256"));
    assert_int_equal(options->settings.event_conn_pool, 8);
    assert_int_equal(felix_options_set(options, "no_such_setting", "1"), FELIX_INVALID_ARGUMENT);
    assert_non_null(strstr(felix_last_error(), "no_such_setting"));
    assert_int_equal(felix_options_set(options, NULL, "1"), FELIX_INVALID_ARGUMENT);
    assert_int_equal(felix_options_set(options, "event_conn_pool", NULL), FELIX_INVALID_ARGUMENT);
    assert_int_equal(felix_options_set_server(options, "host:99999"), FELIX_INVALID_ARGUMENT);
    assert_string_equal(felix_options_server(options), "127.0.0.1:5000");
}

static void assert_address(const char *text, const char *host, const char *port) {
    struct server_address address;
    struct felix_error error = {0};
    assert_int_equal(options_split_server(text, &address, &error), FELIX_OK);
    assert_string_equal(address.host, host);
    assert_string_equal(address.port, port);
}

static void addresses_are_split_into_host_and_port(void **state) {
    (void)state;
    assert_address("broker.example", "broker.example", "5000");
    assert_address("broker.example:1", "broker.example", "1");
    assert_address("10.0.0.1:65535", "10.0.0.1", "65535");
    assert_address("[::1]", "::1", "5000");
    assert_address("[fe80::1%eth0]:443", "fe80::1%eth0", "443");
    assert_address("::1", "::1", "5000");
}

static void what_is_no_address_is_refused(void **state) {
    (void)state;
    static const char *const bad[] = {"",        ":5000",  "host:",  "host:x", "host:-1",
                                      "host:0",  "[::1",   "[]:1",   "[::1]x", "host:65536",
                                      "host:1x", "[::1]:", "host: 1"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct server_address address;
        struct felix_error error = {0};
        if (options_split_server(bad[i], &address, &error) == FELIX_OK)
            fail_msg("\"%s\" was taken as %s port %s", bad[i], address.host, address.port);
        assert_non_null(strstr(error.text, bad[i]));
    }
    char longest[300];
    struct server_address address;
    memset(longest, 'h', sizeof longest);
    longest[255] = '\0';
    assert_int_equal(options_split_server(longest, &address, NULL), FELIX_OK);
    longest[255] = 'h';
    longest[256] = '\0';
    assert_int_equal(options_split_server(longest, &address, NULL), FELIX_INVALID_ARGUMENT);
}

/* ---- the token ---- */

static enum felix_err token(char **ret, struct felix_error *error) {
    *ret = NULL;
    return options_token(&options->settings, ret, error);
}

static void assert_token(const char *wanted) {
    char *got;
    struct felix_error error = {0};
    assert_int_equal(token(&got, &error), FELIX_OK);
    assert_string_equal(got, wanted);
    free(got);
}

static void without_a_token_it_is_said_what_to_do(void **state) {
    (void)state;
    char *got;
    struct felix_error error = {0};
    make();
    assert_int_equal(token(&got, &error), FELIX_UNAUTHENTICATED);
    assert_non_null(strstr(error.text, "FELIX_TOKEN_FILE"));
}

static void a_token_file_is_read_anew_each_time_without_its_line_end(void **state) {
    (void)state;
    make();
    write_file(path_in("token"), "first\r\n\n");
    assert_int_equal(felix_options_set_token_file(options, path_in("token")), FELIX_OK);
    assert_token("first");
    write_file(path_in("token"), "second");
    assert_token("second");
}

static void a_token_that_is_set_last_wins_over_a_file_found_earlier(void **state) {
    (void)state;
    write_file(path_in("token"), "from-file");
    (void)setenv("FELIX_TOKEN_FILE", path_in("token"), 1);
    make();
    assert_token("from-file");
    assert_int_equal(felix_options_set_token(options, "from-program"), FELIX_OK);
    assert_token("from-program");
    assert_int_equal(felix_options_set_token_file(options, path_in("token")), FELIX_OK);
    assert_token("from-file");
}

static void a_token_file_without_a_token_is_refused_by_name(void **state) {
    (void)state;
    char *got;
    struct felix_error error = {0};
    make();
    write_file(path_in("empty"), " \n");
    static const char *const names[] = {"missing", "empty", ""}; /* "": the directory itself */
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        assert_int_equal(felix_options_set_token_file(options, path_in(names[i])), FELIX_OK);
        assert_int_equal(token(&got, &error), FELIX_SYSTEM);
        assert_non_null(strstr(error.text, path_in(names[i])));
    }
}

static void a_token_fits_the_first_frame_or_is_refused(void **state) {
    (void)state;
    size_t longest = 60u << 10;
    char *text = xmalloc(longest + 2);
    char *got;
    struct felix_error error = {0};
    make();
    memset(text, 't', longest + 1);
    text[longest + 1] = '\0';
    assert_int_equal(felix_options_set_token(options, text), FELIX_INVALID_ARGUMENT);
    write_file(path_in("token"), text);
    assert_int_equal(felix_options_set_token_file(options, path_in("token")), FELIX_OK);
    assert_int_equal(token(&got, &error), FELIX_SYSTEM);
    text[longest] = '\0';
    write_file(path_in("token"), text);
    assert_token(text);
    assert_int_equal(felix_options_set_token(options, text), FELIX_OK);
    assert_token(text);
    free(text);
}

/* ---- what a development broker left ---- */

/* `below` is a path below the home directory, each part of which is made. */
static const char *make_dev_files(const char *below) {
    static char directory[512];
    char path[600];
    (void)snprintf(directory, sizeof directory, "%s%s", home, below);
    for (char *at = directory + strlen(home) + 1; strlen(below) > 0 && at != NULL; at++) {
        at = strchr(at, '/');
        if (at != NULL)
            *at = '\0';
        assert_int_equal(mkdir(directory, 0700), 0);
        if (at == NULL)
            break;
        *at = '/';
    }
    (void)snprintf(path, sizeof path, "%s/ca.pem", directory);
    write_file(path, "certificate");
    (void)snprintf(path, sizeof path, "%s/token", directory);
    write_file(path, "dev-token");
    return directory;
}

static void assert_found(const char *directory) {
    char path[600];
    make();
    (void)snprintf(path, sizeof path, "%s/ca.pem", directory);
    assert_string_equal(options->settings.ca_file, path);
    assert_token("dev-token");
}

static void a_development_broker_is_found_in_the_home_directory(void **state) {
    (void)state;
    assert_found(make_dev_files("/.local/state/felix/dev"));
}

static void a_development_broker_is_found_below_the_state_home(void **state) {
    (void)state;
    (void)setenv("XDG_STATE_HOME", home, 1);
    assert_found(make_dev_files("/felix/dev"));
}

static void a_development_broker_is_found_in_the_data_directory(void **state) {
    (void)state;
    (void)setenv("FELIX_DATA_DIR", home, 1);
    assert_found(make_dev_files(""));
}

static void what_is_set_wins_over_a_development_broker(void **state) {
    (void)state;
    (void)make_dev_files("");
    (void)setenv("FELIX_DATA_DIR", home, 1);
    (void)setenv("FELIX_CA_FILE", "/etc/mine.pem", 1);
    (void)setenv("FELIX_AUTH_TOKEN", "mine", 1);
    make();
    assert_string_equal(options->settings.ca_file, "/etc/mine.pem");
    assert_token("mine");
}

static void a_copy_is_whole_and_its_own(void **state) {
    (void)state;
    (void)setenv("FELIX_PROFILE", "high_memory", 1);
    make();
    assert_int_equal(felix_options_set(options, "pub_sharding", "rr"), FELIX_OK);
    assert_int_equal(felix_options_set_token(options, "secret"), FELIX_OK);
    felix_options *copy = options_copy(options);
    felix_options_free(options);
    options = copy;
    assert_token("secret");
    assert_int_equal(options->settings.pub_sharding, PUB_SHARDING_ROUND_ROBIN);
    assert_int_equal(options->settings.event_conn_recv_window, 536870912);
    assert_string_equal(felix_options_tenant(options), "t1");
}

/* A new setting without a new page: the program writes the page that should be committed to the
 * file that FELIX_WRITE_PAGE names. */
static void the_committed_page_of_settings_is_the_generated_one(void **state) {
    (void)state;
    struct text page = {0};
    struct text committed = {0};
    char block[4096];
    options_page(&page);
    if (page_to_write != NULL)
        write_file(page_to_write, text_str(&page));
    FILE *file = fopen(SETTINGS_PAGE, "r");
    assert_non_null(file);
    for (size_t n; (n = fread(block, 1, sizeof block, file)) > 0;)
        text_bytes(&committed, slice_of(block, n));
    (void)fclose(file);
    assert_string_equal(text_str(&page), text_str(&committed));
    text_deinit(&page);
    text_deinit(&committed);
}

int main(void) {
    page_to_write = getenv("FELIX_WRITE_PAGE");
#define TEST(name) cmocka_unit_test_setup_teardown(name, fresh, done)
    const struct CMUnitTest tests[] = {
        TEST(defaults_are_those_of_the_balanced_profile),
        TEST(a_profile_sets_what_nobody_else_did),
        TEST(a_profile_that_is_set_later_leaves_single_settings_alone),
        TEST(the_environment_is_read_and_the_program_overrides_it),
        TEST(a_variable_that_cannot_be_used_is_named),
        TEST(a_setting_that_cannot_be_used_is_refused_and_changes_nothing),
        TEST(addresses_are_split_into_host_and_port),
        TEST(what_is_no_address_is_refused),
        TEST(without_a_token_it_is_said_what_to_do),
        TEST(a_token_file_is_read_anew_each_time_without_its_line_end),
        TEST(a_token_that_is_set_last_wins_over_a_file_found_earlier),
        TEST(a_token_file_without_a_token_is_refused_by_name),
        TEST(a_token_fits_the_first_frame_or_is_refused),
        TEST(a_development_broker_is_found_in_the_home_directory),
        TEST(a_development_broker_is_found_below_the_state_home),
        TEST(a_development_broker_is_found_in_the_data_directory),
        TEST(what_is_set_wins_over_a_development_broker),
        TEST(a_copy_is_whole_and_its_own),
        TEST(the_committed_page_of_settings_is_the_generated_one),
    };
    return cmocka_run_group_tests_name("client_options", tests, NULL, NULL);
}
