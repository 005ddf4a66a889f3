/* What the broker makes of its four sources: precedence, unusable values, pages, the scope. */
#include "node/config.h"

#include "base/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static struct config config;
static struct felix_error error;
static char path[64];

static int fresh(void **) {
    /* What the one who runs the tests has set must not matter. */
    (void)clearenv();
    error = (struct felix_error){0};
    config = (struct config){0};
    path[0] = '\0';
    return 0;
}

static int done(void **) {
    config_deinit(&config);
    if (path[0] != '\0')
        (void)unlink(path);
    return 0;
}

/* Writes the file and returns its name, valid for the test. */
static char *write_file(const char *yaml) {
    (void)strcpy(path, "/tmp/felix-config-test-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, yaml, strlen(yaml)), strlen(yaml));
    (void)close(fd);
    return path;
}

static enum felix_err load(char *const *argv) {
    int argc = 0;
    while (argv[argc] != NULL)
        argc++;
    config_deinit(&config);
    return config_load(&config, argc, argv, &error);
}

#define LOAD(...) load((char *const[]){"felix-broker", __VA_ARGS__ __VA_OPT__(, ) NULL})

static enum felix_err parse(const char *yaml) {
    config_deinit(&config);
    config_init(&config);
    return config_parse_yaml(&config, slice_str(yaml), "f.yml", &error);
}

static void without_anything_the_defaults_of_the_specification_hold(void **) {
    assert_int_equal(LOAD(), FELIX_OK);
    struct text addr = {0};
    option_addr_text(&config.quic_bind, &addr);
    text_char(&addr, ' ');
    option_addr_text(&config.metrics_bind, &addr);
    assert_string_equal(text_str(&addr), "0.0.0.0:5000 0.0.0.0:8080");
    text_deinit(&addr);
    assert_int_equal(config.max_frame_bytes, 16777216);
    assert_int_equal(config.shutdown_drain_timeout_ms, 25000);
    assert_int_equal(config.cache_conn_recv_window, 268435456);
    assert_int_equal(config.cache_stream_recv_window, 67108864);
    assert_int_equal(config.cache_send_window, 268435456);
    assert_int_equal(config.event_batch_max_events, 64);
    assert_int_equal(config.event_batch_max_bytes, 65536);
    assert_int_equal(config.event_batch_max_delay_us, 250);
    assert_int_equal(config.fanout_batch_size, 64);
    assert_int_equal(config.pub_inflight_bytes, 67108864);
    assert_int_equal(config.pub_conn_inflight_bytes, 16777216);
    assert_int_equal(config.subscriber_queue_capacity, 512);
    assert_int_equal(config.max_subscriptions_per_conn, 4096);
    assert_int_equal(config.subscriber_queue_policy, CONFIG_QUEUE_DROP_NEW);
    assert_int_equal(config.durable_fsync_mode, CONFIG_FSYNC_ON_COMMIT); /* ours */
    assert_int_equal(config.durable_fsync_interval_ms, 250);
    assert_int_equal(config.durable_segment_bytes, 268435456);
    assert_int_equal(config.durable_index_spacing_bytes, 4096);
    assert_int_equal(config.durable_max_records_per_read, 10000);
    assert_true(config.durable_preallocate);
    assert_false(config.durable_verify_all_on_open);
    assert_false(config.durable_repair_checksum_tail);
    assert_int_equal(config.durable_retention_bytes, 0);
    assert_int_equal(config.durable_retention_seconds, 0);
    assert_int_equal(config.durable_retention_interval_seconds, 60);
    assert_int_equal(config.initial_mtu, 1200);
    assert_false(config.initial_mtu_set);
    assert_int_equal(config.mtu_upper_bound, 65507);
    assert_int_equal(config.warning_count, 0);
    assert_int_equal(config.scope_count, 0);
    assert_int_equal(config.action, CONFIG_RUN);
}

/* Every set of sources: profile, file, environment, command line; the highest one decides. */
static void the_highest_source_decides(void **) {
    for (unsigned set = 0; set < 16; set++) {
        (void)clearenv();
        char *file = write_file(set & 2 ? "event_batch_max_delay_us: 20\n" : "{}\n");
        char *const argv[] = {"b",
                              "--config",
                              file,
                              set & 1 ? "--profile=high_memory" : "--dev",
                              set & 8 ? "--event-batch-max-delay-us=40" : "--dev",
                              NULL};
        if (set & 4)
            assert_int_equal(setenv("FELIX_EVENT_BATCH_MAX_DELAY_US", "30", 1), 0);
        assert_int_equal(load(argv), FELIX_OK);
        uint32_t want = set & 8 ? 40 : set & 4 ? 30 : set & 2 ? 20 : 250;
        assert_int_equal(config.event_batch_max_delay_us, want);
        size_t row = options_find_key(&config.options, "event_batch_max_delay_us");
        enum option_source source = set & 8   ? OPTION_FROM_ARGS
                                    : set & 4 ? OPTION_FROM_ENV
                                    : set & 2 ? OPTION_FROM_FILE
                                    : set & 1 ? OPTION_FROM_PROFILE
                                              : OPTION_FROM_DEFAULT;
        assert_int_equal(config.options.sources[row], source);
        (void)unlink(path);
    }
}

static void profile_sets_values_that_single_settings_override(void **) {
    assert_int_equal(setenv("FELIX_PROFILE", "high_memory", 1), 0);
    assert_int_equal(LOAD(), FELIX_OK);
    assert_true(config.disable_timings);
    assert_int_equal(setenv("FELIX_DISABLE_TIMINGS", "0", 1), 0);
    assert_int_equal(LOAD(), FELIX_OK);
    assert_false(config.disable_timings);
}

static void file_is_named_by_flag_or_variable_and_must_exist_then(void **) {
    assert_int_equal(LOAD("--config", "/nonexistent/felix.yml"), FELIX_NOT_FOUND);
    assert_non_null(strstr(error.text, "/nonexistent/felix.yml"));
    assert_int_equal(LOAD("--config=/tmp"), FELIX_SYSTEM);
    assert_int_equal(setenv("FELIX_BROKER_CONFIG", write_file("max_frame_bytes: 1MiB"), 1), 0);
    assert_int_equal(LOAD(), FELIX_OK);
    assert_int_equal(config.max_frame_bytes, 1 << 20);
    (void)unlink(path);
}

static void aliases_of_variables_work(void **) {
    assert_int_equal(setenv("FELIX_SUB_QUEUE_CAPACITY", "9", 1), 0);
    assert_int_equal(LOAD(), FELIX_OK);
    assert_int_equal(config.subscriber_queue_capacity, 9);
    assert_int_equal(setenv("FELIX_SUBSCRIBER_QUEUE_CAPACITY", "10", 1), 0);
    assert_int_equal(LOAD(), FELIX_OK);
    assert_int_equal(config.subscriber_queue_capacity, 10);
}

/* Each number is refused just outside its range, from all three sources, and named in the error. */
static void values_outside_the_range_stop_the_start_and_are_named(void **) {
    config_init(&config);
    struct options table = config.options; /* rows are static */
    config_deinit(&config);
    size_t tried = 0;
    for (size_t i = 0; i < table.count; i++) {
        const struct option_row *row = &table.rows[i];
        bool number =
            row->type == OPTION_U32 || row->type == OPTION_BYTES || row->type == OPTION_DURATION_MS;
        if (row->type == OPTION_STRING || row->type == OPTION_PATH)
            continue;
        char value[32] = "nonsense";
        for (int round = 0; round < 3; round++) {
            if (number && round == 1)
                (void)snprintf(value, sizeof value, "%llu", (unsigned long long)row->max + 1);
            else if (number && round == 2 && row->min > 0)
                (void)snprintf(value, sizeof value, "%llu", (unsigned long long)row->min - 1);
            else if (round > 0)
                continue;
            char env[64];
            char arg[160];
            (void)snprintf(env, sizeof env, "%.*s", (int)strcspn(row->env, "|"), row->env);
            assert_int_equal(setenv(env, value, 1), 0);
            assert_int_equal(LOAD(), FELIX_INVALID_ARGUMENT);
            assert_non_null(strstr(error.text, env));
            assert_non_null(strstr(error.text, value));
            assert_int_equal(unsetenv(env), 0);

            (void)snprintf(arg, sizeof arg, "--%s=%s", row->flag, value);
            assert_int_equal(LOAD(arg), FELIX_INVALID_ARGUMENT);
            assert_non_null(strstr(error.text, row->flag));

            (void)snprintf(arg, sizeof arg, "\n%s: %s\n", row->key, value);
            assert_int_equal(parse(arg), FELIX_INVALID_ARGUMENT);
            assert_non_null(strstr(error.text, row->key));
            assert_memory_equal(error.text, "f.yml:2: ", 9);
            tried++;
        }
    }
    assert_true(tried > 80);
}

static void values_that_contradict_each_other_stop_the_start(void **) {
    assert_int_equal(LOAD("--tls-cert=/c.pem"), FELIX_INVALID_ARGUMENT);
    assert_non_null(strstr(error.text, "FELIX_TLS_KEY"));
    assert_int_equal(LOAD("--tls-key=/k.pem"), FELIX_INVALID_ARGUMENT);
    assert_int_equal(LOAD("--tls-key=/k.pem", "--tls-cert=/c.pem"), FELIX_OK);
    assert_int_equal(LOAD("--initial-mtu=1500", "--mtu-upper-bound=1400"), FELIX_INVALID_ARGUMENT);
    assert_int_equal(LOAD("--initial-mtu=1200"), FELIX_OK);
    assert_true(config.initial_mtu_set);
}

static void yaml_errors_are_refused_with_their_line(void **) {
    const struct {
        const char *yaml;
        enum felix_err err;
        const char *text;
    } cases[] = {
        {"max_frame_byte: 5", FELIX_NOT_FOUND, "did you mean \"max_frame_bytes\"?"},
        {"zzz_unheard_of: 5", FELIX_NOT_FOUND, "unknown key \"zzz_unheard_of\""},
        {"spin_us: 5\nspin_us: 6", FELIX_INVALID_ARGUMENT, "f.yml:2: spin_us is given more than"},
        {"spin_us: [5]", FELIX_INVALID_ARGUMENT, "spin_us must be a single value"},
        {"spin_us: {a: 5}", FELIX_INVALID_ARGUMENT, "spin_us must be a single value"},
        {"spin_us: \"\"", FELIX_INVALID_ARGUMENT, "spin_us=\"\": must be a number 0 .. 1000"},
        {"spin_us: 'null'", FELIX_INVALID_ARGUMENT, "must be a number"},
        {"- a\n- b", FELIX_INVALID_ARGUMENT, "mapping of keys to values"},
        {"just text", FELIX_INVALID_ARGUMENT, "mapping of keys to values"},
        {"a: b: c", FELIX_INVALID_ARGUMENT, "not valid YAML"},
        {"\tx: 1", FELIX_INVALID_ARGUMENT, "f.yml:1: not valid YAML"},
        {"spin_us: \"5", FELIX_INVALID_ARGUMENT, "not valid YAML"},
        {"spin_us: 5\n---\nspin_us: 6", FELIX_INVALID_ARGUMENT, "only one YAML document"},
        {"? [a]\n: 5", FELIX_INVALID_ARGUMENT, "a key must be a plain text"},
        {"\"spin\\0us\": 5", FELIX_INVALID_ARGUMENT, "a key must be a plain text"},
        {"log: \"a\\0b\"", FELIX_INVALID_ARGUMENT, "log must be a single value"},
        {"\xff\xfe\xff", FELIX_INVALID_ARGUMENT, "not valid YAML"},
        {"mtls_ca_path: x", FELIX_NOT_FOUND, "unknown key \"mtls_ca_path\""},
        {"scope: 5", FELIX_INVALID_ARGUMENT, "scope must be a mapping"},
        {"scope: {tenant: {}}", FELIX_NOT_FOUND, "no other key than tenants"},
        {"scope: {tenants: [a]}", FELIX_INVALID_ARGUMENT, "must be mappings"},
        {"scope: {tenants: {a: b}}", FELIX_INVALID_ARGUMENT, "a tenant must be a mapping"},
        {"scope: {tenants: {a: {streams: {}}}}", FELIX_NOT_FOUND, "no other key than namespaces"},
        {"scope: {tenants: {a: {namespaces: {b: {topics: []}}}}}", FELIX_NOT_FOUND,
         "no other keys than streams and caches"},
        {"scope: {tenants: {a: {namespaces: {b: {streams: s}}}}}", FELIX_INVALID_ARGUMENT,
         "a mapping or a list"},
        {"scope: {tenants: {a: {namespaces: {b: {streams: [[s]]}}}}}", FELIX_INVALID_ARGUMENT,
         "a name in the scope"},
        {"scope: {tenants: {a: {namespaces: {b: {streams: {s: {shards: 2}}}}}}}", FELIX_NOT_FOUND,
         "no other settings than durable"},
        {"scope: {tenants: {a: {namespaces: {b: {streams: {s: {durable: 5}}}}}}}",
         FELIX_INVALID_ARGUMENT, "durable must be"},
        {"scope: {tenants: {a: {namespaces: {b: {streams: {s: {durable: on, retention_bytes: "
         "0}}}}}}}",
         FELIX_INVALID_ARGUMENT, "retention_bytes must be"},
        {"scope: {tenants: {a: {namespaces: {b: {streams: {s: {durable: on, "
         "retention_seconds: 1KiB}}}}}}}",
         FELIX_INVALID_ARGUMENT, "retention_seconds must be"},
        {"scope: {tenants: {a: {namespaces: {b: {streams: {s: {retention_seconds: 1}}}}}}}",
         FELIX_INVALID_ARGUMENT, "add durable: true"},
        {"scope: {tenants: {a: {namespaces: {b: {caches: {c: {max_bytes: 5 MB}}}}}}}",
         FELIX_INVALID_ARGUMENT, "max_bytes must be"},
        {"scope: {tenants: {\"\": {}}}", FELIX_INVALID_ARGUMENT, "1 .. 65535 bytes"},
        {"scope: {tenants: {a: {namespaces: {b: {streams: [s, t, s]}}}}}", FELIX_INVALID_ARGUMENT,
         "a/b/s more than once"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(parse(cases[i].yaml), cases[i].err);
        if (strstr(error.text, cases[i].text) == NULL)
            fail_msg("%s: got \"%s\"", cases[i].yaml, error.text);
        assert_memory_equal(error.text, "f.yml:", 6);
    }
}

static void empty_documents_and_nulls_change_nothing(void **) {
    const char *const files[] = {"",
                                 "\n# nothing\n",
                                 "---\n",
                                 "null",
                                 "~",
                                 "{}",
                                 "spin_us:\nlog: ~\nscope: null\ncontrolplane_url: null\n"};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        assert_int_equal(parse(files[i]), FELIX_OK);
        assert_int_equal(config.spin_us, 50);
        assert_string_equal(config.log, "info");
        assert_int_equal(config.warning_count, 0);
    }
    assert_int_equal(config_parse_yaml(&config, (struct slice){0}, "f.yml", &error), FELIX_OK);
}

static void settings_without_effect_warn_once_with_the_reason(void **) {
    assert_int_equal(setenv("FELIX_BROKER_PUB_WORKERS_PER_CONN", "whatever", 1), 0);
    assert_int_equal(setenv("FELIX_DURABLE_ROLLOVER_THRESHOLD_PERCENT", "80", 1), 0);
    assert_int_equal(setenv("FELIX_CONTROLPLANE_URL", "http://x", 1), 0);
    assert_int_equal(LOAD(), FELIX_OK);
    assert_int_equal(config.warning_count, 3);
    size_t workers = 0;
    for (size_t i = 0; i < config.warning_count; i++)
        workers += strstr(config.warnings[i], "FELIX_BROKER_PUB_WORKERS_PER_CONN has no effect: "
                                              "streams belong to reactors") != NULL;
    assert_int_equal(workers, 1);

    assert_int_equal(parse("pub_queue_depth: 4\nsub_stream_mode: [any]\n"), FELIX_OK);
    assert_int_equal(config.warning_count, 2);
    assert_string_equal(config.warnings[1],
                        "sub_stream_mode in f.yml has no effect: every subscription has a stream "
                        "of its own");
}

static void unknown_variables_give_one_warning_and_those_of_clients_none(void **) {
    assert_int_equal(setenv("FELIX_PUB_CONN_POOL", "4", 1), 0);
    assert_int_equal(setenv("FELIX_EVENT_CONN_RECV_WINDOW", "4", 1), 0);
    assert_int_equal(setenv("FELIX_CACHE_BENCH_OPS", "4", 1), 0);
    assert_int_equal(setenv("FELIX_SERVER", "h:1", 1), 0);
    assert_int_equal(setenv("FELIX_CA_FILE", "ca.pem", 1), 0);
    assert_int_equal(setenv("FELIX_TOKEN_FILE", "token", 1), 0);
    assert_int_equal(setenv("FELIXIR", "4", 1), 0);
    assert_int_equal(LOAD(), FELIX_OK);
    assert_int_equal(config.warning_count, 0);
    assert_int_equal(setenv("FELIX_QUIC_BINDING", "4", 1), 0);
    assert_int_equal(setenv("FELIX_TYPO", "4", 1), 0);
    assert_int_equal(LOAD(), FELIX_OK);
    assert_int_equal(config.warning_count, 1);
    assert_non_null(strstr(config.warnings[0], "FELIX_QUIC_BINDING"));
    assert_non_null(strstr(config.warnings[0], "FELIX_TYPO"));
}

static void log_filter_is_checked_but_that_of_other_programs_is_forgiven(void **) {
    assert_int_equal(LOAD("--log=quic=loud"), FELIX_INVALID_ARGUMENT);
    assert_non_null(strstr(error.text, "quic=loud"));
    assert_int_equal(setenv("RUST_LOG", "hyper::proto=trace,quic=debug", 1), 0);
    assert_int_equal(LOAD(), FELIX_OK);
    assert_int_equal(config.warning_count, 0);
    assert_int_equal(setenv("RUST_LOG", "my_crate[span]", 1), 0);
    assert_int_equal(LOAD(), FELIX_OK);
    assert_string_equal(config.log, "info");
    assert_int_equal(config.warning_count, 1);
    assert_int_equal(setenv("FELIX_LOG", "core=trace", 1), 0);
    assert_int_equal(LOAD(), FELIX_OK);
    config_apply_log(&config);
    assert_true(log_enabled(LOG_MODULE_core, LOG_LEVEL_TRACE));
    assert_int_equal(log_configure("", LOG_UNKNOWN_REFUSED, NULL), FELIX_OK);
}

/* One variable, and whether it can be used. */
static bool usable(const char *name, const char *value) {
    (void)clearenv();
    assert_int_equal(setenv(name, value, 1), 0);
    enum felix_err err = LOAD();
    if (err != FELIX_OK) {
        assert_int_equal(err, FELIX_INVALID_ARGUMENT);
        assert_non_null(strstr(error.text, name));
    }
    return err == FELIX_OK;
}

static void settings_of_durable_streams_are_strict(void **) {
    assert_false(usable("FELIX_DURABLE_FSYNC_MODE", ""));
    assert_false(usable("FELIX_DURABLE_FSYNC_MODE", "always"));
    assert_false(usable("FELIX_DURABLE_SEGMENT_BYTES", "59"));
    assert_false(usable("FELIX_DURABLE_INDEX_SPACING_BYTES", "0"));
    assert_false(usable("FELIX_DURABLE_MAX_RECORDS_PER_READ", "0"));
    assert_false(usable("FELIX_DURABLE_PREALLOCATE", "maybe"));
    assert_false(usable("FELIX_DURABLE_RETENTION_BYTES", "0"));
    assert_false(usable("FELIX_DURABLE_RETENTION_SECONDS", "0"));
    assert_false(usable("FELIX_DURABLE_THREADS", "1"));
    assert_true(usable("FELIX_DURABLE_SEGMENT_BYTES", " 60 "));
    assert_int_equal(config.durable_segment_bytes, 60);
    assert_true(usable("FELIX_DURABLE_SEGMENT_BYTES", "  "));
    assert_int_equal(config.durable_segment_bytes, 268435456);
    assert_true(usable("FELIX_DURABLE_RETENTION_BYTES", " "));
    assert_int_equal(config.durable_retention_bytes, 0);
    assert_true(usable("FELIX_DURABLE_RETENTION_BYTES", "1GiB"));
    assert_int_equal(config.durable_retention_bytes, 1u << 30);
    assert_true(usable("FELIX_DURABLE_PREALLOCATE", "Off"));
    assert_false(config.durable_preallocate);
}

static void fsync_modes_have_the_names_of_the_original(void **) {
    static const struct {
        const char *value;
        enum config_fsync_mode mode;
    } words[] = {
        {"none", CONFIG_FSYNC_NONE},           {"OFF", CONFIG_FSYNC_NONE},
        {"Periodic", CONFIG_FSYNC_PERIODIC},   {"on_commit", CONFIG_FSYNC_ON_COMMIT},
        {"on-commit", CONFIG_FSYNC_ON_COMMIT}, {"commit", CONFIG_FSYNC_ON_COMMIT},
    };
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        assert_true(usable("FELIX_DURABLE_FSYNC_MODE", words[i].value));
        assert_int_equal(config.durable_fsync_mode, words[i].mode);
    }
}

static void a_pause_of_nothing_is_refused_only_where_it_counts(void **) {
    assert_true(usable("FELIX_DURABLE_FSYNC_INTERVAL_MS", "0"));
    assert_int_equal(LOAD("--durable-fsync-mode=periodic"), FELIX_INVALID_ARGUMENT);
    assert_true(usable("FELIX_DURABLE_RETENTION_INTERVAL_SECONDS", "0"));
    assert_int_equal(LOAD("--durable-retention-seconds=5"), FELIX_INVALID_ARGUMENT);
    char *file = write_file("scope: {tenants: {a: {namespaces: {b: {streams: {s: {durable: on, "
                            "retention_bytes: 1}}}}}}}");
    assert_int_equal(LOAD("--config", file), FELIX_INVALID_ARGUMENT);
}

static void scope_becomes_items_with_parents_first(void **) {
    assert_int_equal(parse("scope:\n"
                           "  tenants:\n"
                           "    t1:\n"
                           "      namespaces:\n"
                           "        default:\n"
                           "          streams:\n"
                           "            orders: {durable: yes, retention_bytes: 2KiB, "
                           "retention_seconds: 9}\n"
                           "            logs:\n"
                           "          caches:\n"
                           "            primary: {max_bytes: 64MiB}\n"
                           "        other: {caches: [a, b]}\n"
                           "    t2:\n"),
                     FELIX_OK);
    const struct scope_item want[] = {
        {.kind = SCOPE_TENANT, .tenant = "t1"},
        {.kind = SCOPE_NAMESPACE, .tenant = "t1", .space = "default"},
        {.kind = SCOPE_STREAM,
         .tenant = "t1",
         .space = "default",
         .name = "orders",
         .durable = true,
         .retention_bytes = 2048,
         .retention_seconds = 9},
        {.kind = SCOPE_STREAM, .tenant = "t1", .space = "default", .name = "logs"},
        {.kind = SCOPE_CACHE,
         .tenant = "t1",
         .space = "default",
         .name = "primary",
         .max_bytes = 64u << 20},
        {.kind = SCOPE_NAMESPACE, .tenant = "t1", .space = "other"},
        {.kind = SCOPE_CACHE, .tenant = "t1", .space = "other", .name = "a"},
        {.kind = SCOPE_CACHE, .tenant = "t1", .space = "other", .name = "b"},
        {.kind = SCOPE_TENANT, .tenant = "t2"},
    };
    assert_int_equal(config.scope_count, sizeof want / sizeof want[0]);
    for (size_t i = 0; i < config.scope_count; i++) {
        const struct scope_item *got = &config.scope[i];
        assert_int_equal(got->kind, want[i].kind);
        assert_string_equal(got->tenant, want[i].tenant);
        if (want[i].space != NULL)
            assert_string_equal(got->space, want[i].space);
        else
            assert_null(got->space);
        if (want[i].name != NULL)
            assert_string_equal(got->name, want[i].name);
        else
            assert_null(got->name);
        assert_int_equal(got->durable, want[i].durable);
        assert_int_equal(got->max_bytes, want[i].max_bytes);
        assert_int_equal(got->retention_bytes, want[i].retention_bytes);
        assert_int_equal(got->retention_seconds, want[i].retention_seconds);
    }
}

static void printed_configuration_can_be_read_back(void **) {
    assert_int_equal(
        parse("spin_us: 7\nlog: quic=debug\ndata_dir: \"/a \\\"b\\\" \\u0085\\u2028\"\n"
              "quic_bind: \"[::1]:0\"\nsubscriber_queue_policy: block\npub_ingress_wait: on\n"
              "durable_retention_bytes: 7KiB\n"
              "scope: {tenants: {\"t:\\n1\": {namespaces: {n: {streams: {a: {durable: on, "
              "retention_bytes: 3, retention_seconds: 4}}, caches: {c: "
              "{max_bytes: 5}}}}}, t2: }}"),
        FELIX_OK);
    struct text first = {0};
    config_print_yaml(&config, &first);
    assert_int_equal(parse(text_str(&first)), FELIX_OK);
    struct text second = {0};
    config_print_yaml(&config, &second);
    assert_int_equal(parse(text_str(&second)), FELIX_OK);
    struct text third = {0};
    config_print_yaml(&config, &third);
    assert_string_equal(text_str(&second), text_str(&third));
    assert_non_null(strstr(text_str(&first), "spin_us: 7  # file\n"));
    assert_non_null(strstr(text_str(&first), "max_half_open: 1024  # default\n"));
    assert_string_equal(config.data_dir, "/a \"b\" \xc2\x85\xe2\x80\xa8");
    assert_string_equal(config.scope[0].tenant, "t:\n1");
    assert_int_equal(config.scope_count, 5);
    assert_int_equal(config.durable_retention_bytes, 7168);
    assert_int_equal(config.durable_retention_seconds, 0);
    assert_int_equal(config.scope[2].retention_bytes, 3);
    assert_int_equal(config.scope[2].retention_seconds, 4);
    text_deinit(&first);
    text_deinit(&second);
    text_deinit(&third);
}

/* YAML finds the colon of a key within 1024 characters or not at all. */
static void long_names_are_printed_so_that_they_can_be_read_back(void **) {
    char name[1100], yaml[6000];
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    (void)snprintf(
        yaml, sizeof yaml,
        "scope: {tenants: {? %s : {namespaces: {? %s : {streams: [%s], caches: [%s]}}}}}", name,
        name, name, name);
    assert_int_equal(parse(yaml), FELIX_OK);
    struct text printed = {0};
    config_print_yaml(&config, &printed);
    assert_int_equal(parse(text_str(&printed)), FELIX_OK);
    assert_int_equal(config.scope_count, 4);
    assert_string_equal(config.scope[0].tenant, name);
    assert_string_equal(config.scope[1].space, name);
    assert_string_equal(config.scope[2].name, name);
    assert_string_equal(config.scope[3].name, name);
    text_deinit(&printed);
}

static void pages_work_while_the_environment_is_broken(void **) {
    const struct {
        char *flag;
        const char *starts;
    } pages[] = {
        {"--help", "Usage: felix-broker"},
        {"-h", "Usage: felix-broker"},
        {"--version", "felix-broker "},
        {"--print-config-reference", "# Configuration of the broker\n"},
    };
    assert_int_equal(setenv("FELIX_SPIN_US", "broken", 1), 0);
    for (size_t i = 0; i < sizeof pages / sizeof pages[0]; i++) {
        struct text out = {0};
        assert_int_equal(LOAD(pages[i].flag), FELIX_OK);
        assert_true(config_answer(&config, "felix-broker", &out));
        assert_memory_equal(text_str(&out), pages[i].starts, strlen(pages[i].starts));
        text_deinit(&out);
    }
    assert_int_equal(LOAD("--check-config"), FELIX_INVALID_ARGUMENT);
    assert_int_equal(LOAD("--print-config"), FELIX_INVALID_ARGUMENT);
    assert_int_equal(LOAD("--hepl"), FELIX_NOT_FOUND);
}

static void check_config_reports_warnings(void **) {
    struct text out = {0};
    assert_int_equal(setenv("FELIX_TYPO", "4", 1), 0);
    assert_int_equal(LOAD("--check-config"), FELIX_OK);
    assert_true(config_answer(&config, "b", &out));
    assert_string_equal(text_str(&out),
                        "warning: unknown variables in the environment: FELIX_TYPO\n"
                        "the configuration can be used\n");
    text_reset(&out);
    assert_int_equal(LOAD(), FELIX_OK);
    assert_false(config_answer(&config, "b", &out));
    text_deinit(&out);
}

/* A new setting without a new page: felix-broker --print-config-reference > the page. */
static void committed_reference_page_is_the_generated_one(void **) {
    struct text page = {0};
    struct text committed = {0};
    FILE *file = fopen(CONFIG_PAGE, "r");
    assert_non_null(file);
    char block[4096];
    for (size_t n; (n = fread(block, 1, sizeof block, file)) > 0;)
        text_bytes(&committed, slice_of(block, n));
    (void)fclose(file);
    config_init(&config);
    config_print_reference(&config, &page);
    assert_string_equal(text_str(&page), text_str(&committed));
    text_deinit(&page);
    text_deinit(&committed);
}

static void keys_variables_and_flags_follow_one_rule(void **) {
    config_init(&config);
    for (size_t i = 0; i < config.options.count; i++) {
        const struct option_row *row = &config.options.rows[i];
        assert_memory_equal(row->env, "FELIX_", 6);
        if (row->key != NULL)
            assert_int_equal(options_find_key(&config.options, row->key), i);
        for (const char *c = row->flag; *c != '\0'; c++)
            assert_true((*c >= 'a' && *c <= 'z') || (*c >= '0' && *c <= '9') || *c == '-');
        /* A flag alone turns it on. */
        if (row->type == OPTION_BOOL && strcmp(row->env, "FELIX_DURABLE_PREALLOCATE") != 0)
            assert_string_equal(row->initial, "false");
        assert_null(config_ignored_key(row->key != NULL ? row->key : ""));
    }
}

#define CONFIG_TEST(name) cmocka_unit_test_setup_teardown(name, fresh, done)

int main(void) {
    const struct CMUnitTest tests[] = {
        CONFIG_TEST(without_anything_the_defaults_of_the_specification_hold),
        CONFIG_TEST(the_highest_source_decides),
        CONFIG_TEST(profile_sets_values_that_single_settings_override),
        CONFIG_TEST(file_is_named_by_flag_or_variable_and_must_exist_then),
        CONFIG_TEST(aliases_of_variables_work),
        CONFIG_TEST(values_outside_the_range_stop_the_start_and_are_named),
        CONFIG_TEST(values_that_contradict_each_other_stop_the_start),
        CONFIG_TEST(yaml_errors_are_refused_with_their_line),
        CONFIG_TEST(empty_documents_and_nulls_change_nothing),
        CONFIG_TEST(settings_without_effect_warn_once_with_the_reason),
        CONFIG_TEST(unknown_variables_give_one_warning_and_those_of_clients_none),
        CONFIG_TEST(log_filter_is_checked_but_that_of_other_programs_is_forgiven),
        CONFIG_TEST(settings_of_durable_streams_are_strict),
        CONFIG_TEST(fsync_modes_have_the_names_of_the_original),
        CONFIG_TEST(a_pause_of_nothing_is_refused_only_where_it_counts),
        CONFIG_TEST(scope_becomes_items_with_parents_first),
        CONFIG_TEST(printed_configuration_can_be_read_back),
        CONFIG_TEST(long_names_are_printed_so_that_they_can_be_read_back),
        CONFIG_TEST(pages_work_while_the_environment_is_broken),
        CONFIG_TEST(check_config_reports_warnings),
        CONFIG_TEST(committed_reference_page_is_the_generated_one),
        CONFIG_TEST(keys_variables_and_flags_follow_one_rule),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
