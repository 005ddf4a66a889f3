/*
 * Loading goes from the highest source to the lowest: the command line may name the file, the
 * environment may too, and `options` lets a lower source never replace a higher one. The profile
 * comes last, because any source may choose it, and lies under all of them but the defaults.
 *
 * Then what single rows cannot see is checked: values that contradict each other, and the log
 * filter, which has a grammar of its own.
 */
#include "node/config.h"

#include "base/check.h"
#include "base/log.h"
#include "node/config_file.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEFAULT_FILE "/usr/local/felix/config.yml"
#define FILE_BYTES_MAX ((size_t)1 << 20)

#define OPTION_TARGET struct config
static const struct option_row rows[] = {
#define X OPTION_ROW
#include "node/options.def"
};
#define ROW_COUNT (sizeof rows / sizeof rows[0])
static_assert(ROW_COUNT <= OPTION_ROWS_MAX, "struct options has room for fewer rows");

struct ignored {
    const char *env;
    const char *key;
    const char *reason;
};

#define IGNORED(env_, key_, reason_) {env_, key_, reason_},
static const struct ignored ignored[] = {
#include "node/options.def"
};
#define IGNORED_COUNT (sizeof ignored / sizeof ignored[0])

#define FOREIGN(env) env,
static const char *const foreign[] = {
#include "node/options.def"
};
#define FOREIGN_COUNT (sizeof foreign / sizeof foreign[0])

extern char **environ;

void config_init(struct config *config) {
    *config = (struct config){0};
    options_init(&config->options, rows, ROW_COUNT, config);
}

void config_deinit(struct config *config) {
    options_deinit(&config->options);
    scope_free(config->scope, config->scope_count);
    for (size_t i = 0; i < config->warning_count; i++)
        free(config->warnings[i]);
    free(config->warnings);
    *config = (struct config){0};
}

void config_warn(struct config *config, const char *format, ...) {
    char *text = NULL;
    va_list args;
    va_start(args, format);
    INVARIANT(vasprintf(&text, format, args) >= 0);
    va_end(args);
    config->warnings =
        xrealloc(config->warnings, (config->warning_count + 1) * sizeof *config->warnings);
    config->warnings[config->warning_count++] = text;
}

const char *config_ignored_key(const char *key) {
    for (size_t i = 0; i < IGNORED_COUNT; i++) {
        if (ignored[i].key != NULL && strcmp(ignored[i].key, key) == 0)
            return ignored[i].reason;
    }
    return NULL;
}

/* True when `name`, which ends before '=', is `pattern` or starts with what stands before '*'. */
static bool env_matches(const char *pattern, const char *name) {
    size_t len = strcspn(name, "=");
    size_t pattern_len = strlen(pattern);
    if (pattern[pattern_len - 1] == '*')
        return len >= pattern_len - 1 && strncmp(pattern, name, pattern_len - 1) == 0;
    return len == pattern_len && strncmp(pattern, name, len) == 0;
}

static size_t find_ignored(const char *name) {
    size_t i = 0;
    while (i < IGNORED_COUNT && !env_matches(ignored[i].env, name))
        i++;
    return i;
}

static bool is_foreign(const char *name) {
    for (size_t i = 0; i < FOREIGN_COUNT; i++) {
        if (env_matches(foreign[i], name))
            return true;
    }
    return false;
}

static bool is_setting(const struct config *config, const char *name) {
    char own[64];
    size_t len = strcspn(name, "=");
    if (len >= sizeof own)
        return false;
    memcpy(own, name, len);
    own[len] = '\0';
    return options_find_env(&config->options, own) < config->options.count;
}

/* Looks at all variables for those without effect and those that nobody knows. */
static void check_environment(struct config *config) {
    bool warned[IGNORED_COUNT] = {false};
    struct text unknown = {0};

    for (char **at = environ; at != NULL && *at != NULL; at++) {
        int len = (int)strcspn(*at, "=");
        size_t i = find_ignored(*at);
        if (i < IGNORED_COUNT) {
            if (!warned[i])
                config_warn(config, "%.*s has no effect: %s", len, *at, ignored[i].reason);
            warned[i] = true;
            continue;
        }
        if (strncmp(*at, "FELIX_", 6) != 0 || is_setting(config, *at) || is_foreign(*at))
            continue;
        text_printf(&unknown, "%s%.*s", unknown.len == 0 ? "" : ", ", len, *at);
    }
    if (unknown.len != 0)
        config_warn(config, "unknown variables in the environment: %s", text_str(&unknown));
    text_deinit(&unknown);
}

static enum felix_err take_args(struct config *config, int argc, char *const *argv,
                                struct felix_error *reterr) {
    static const struct {
        const char *flag;
        enum config_action action;
    } actions[] = {
        {"--help", CONFIG_HELP},          {"-h", CONFIG_HELP},
        {"--version", CONFIG_VERSION},    {"--print-config", CONFIG_PRINT},
        {"--check-config", CONFIG_CHECK}, {"--print-config-reference", CONFIG_REFERENCE},
    };
    const size_t action_count = sizeof actions / sizeof actions[0];

    for (int at = 1; at < argc;) {
        size_t i = 0;
        while (i < action_count && strcmp(argv[at], actions[i].flag) != 0)
            i++;
        if (i < action_count) {
            if (config->action == CONFIG_RUN)
                config->action = actions[i].action;
            at++;
            continue;
        }
        enum felix_err err = options_take_arg(&config->options, argc, argv, &at, reterr);
        if (err != FELIX_OK)
            return err;
    }
    return FELIX_OK;
}

/* Reads the whole file into `ret` (owned by the caller). */
static enum felix_err read_file(const char *path, struct text *ret, struct felix_error *reterr) {
    enum felix_err err = FELIX_OK;
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_set(reterr, errno == ENOENT ? FELIX_NOT_FOUND : FELIX_SYSTEM, errno,
                         "cannot open the configuration file %s", path);
    if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode)) {
        err =
            error_set(reterr, FELIX_SYSTEM, EISDIR, "cannot read the configuration file %s", path);
        goto out;
    }
    for (;;) {
        char block[4096];
        ssize_t n = read(fd, block, sizeof block);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            err = error_set(reterr, FELIX_SYSTEM, errno, "cannot read the configuration file %s",
                            path);
        if (n <= 0)
            break;
        text_bytes(ret, slice_of(block, (size_t)n));
        if (ret->len > FILE_BYTES_MAX) {
            err = error_set(reterr, FELIX_TOO_LARGE, 0,
                            "the configuration file %s is larger than %zu bytes", path,
                            FILE_BYTES_MAX);
            break;
        }
    }
out:
    (void)close(fd);
    return err;
}

static enum felix_err load_file(struct config *config, struct felix_error *reterr) {
    bool named = config->config[0] != '\0';
    const char *path = named ? config->config : DEFAULT_FILE;
    struct text yaml = {0};
    struct felix_error error = {0};

    enum felix_err err = read_file(path, &yaml, &error);
    if (err == FELIX_NOT_FOUND && !named)
        err = FELIX_OK;
    else if (err == FELIX_OK)
        err = config_parse_yaml(config, slice_of(text_str(&yaml), yaml.len), path, &error);
    text_deinit(&yaml);
    if (err != FELIX_OK && reterr != NULL)
        *reterr = error;
    return err;
}

static enum option_source source_of(const struct config *config, const char *key) {
    return (enum option_source)config->options.sources[options_find_key(&config->options, key)];
}

/* The filter of RUST_LOG may be meant for other programs, so it is never a reason not to start. */
static enum felix_err check_log(struct config *config, struct felix_error *reterr) {
    bool foreign_filter =
        source_of(config, "log") == OPTION_FROM_ENV && getenv("FELIX_LOG") == NULL;
    enum log_unknown unknown = foreign_filter ? LOG_UNKNOWN_SKIPPED : LOG_UNKNOWN_REFUSED;
    struct felix_error error = {0};

    enum felix_err err = log_check(config->log, unknown, &error);
    if (err == FELIX_OK)
        return FELIX_OK;
    if (!foreign_filter)
        return error_set(reterr, err, 0, "FELIX_LOG (log, --log): %s", error.text);
    config_warn(config, "RUST_LOG is not used, the level is info: %s", error.text);
    free(config->log);
    config->log = xstrdup("info");
    return FELIX_OK;
}

static bool retention_is_bounded(const struct config *config) {
    bool bounded = config->durable_retention_bytes != 0 || config->durable_retention_seconds != 0;
    for (size_t i = 0; i < config->scope_count; i++)
        bounded |= config->scope[i].retention_bytes != 0 || config->scope[i].retention_seconds != 0;
    return bounded;
}

static enum felix_err check_together(struct config *config, struct felix_error *reterr) {
    if ((config->tls_cert[0] == '\0') != (config->tls_key[0] == '\0'))
        return error_set(reterr, FELIX_INVALID_ARGUMENT, 0,
                         "FELIX_TLS_CERT and FELIX_TLS_KEY must be given together; only %s is",
                         config->tls_cert[0] != '\0' ? "FELIX_TLS_CERT" : "FELIX_TLS_KEY");
    if (config->initial_mtu > config->mtu_upper_bound)
        return error_set(reterr, FELIX_INVALID_ARGUMENT, 0,
                         "FELIX_INITIAL_MTU=%u must not be above FELIX_MTU_UPPER_BOUND=%u",
                         config->initial_mtu, config->mtu_upper_bound);
    if (config->durable_fsync_mode == CONFIG_FSYNC_PERIODIC &&
        config->durable_fsync_interval_ms == 0)
        return error_set(reterr, FELIX_INVALID_ARGUMENT, 0,
                         "FELIX_DURABLE_FSYNC_INTERVAL_MS=0: must be above 0 with "
                         "FELIX_DURABLE_FSYNC_MODE=periodic");
    if (config->durable_retention_interval_seconds == 0 && retention_is_bounded(config))
        return error_set(reterr, FELIX_INVALID_ARGUMENT, 0,
                         "FELIX_DURABLE_RETENTION_INTERVAL_SECONDS=0: must be above 0 where a log "
                         "has a retention bound");
    return check_log(config, reterr);
}

enum felix_err config_load(struct config *config, int argc, char *const *argv,
                           struct felix_error *reterr) {
    config_init(config);
    enum felix_err err = take_args(config, argc, argv, reterr);
    if (err != FELIX_OK)
        return err;
    if (config->action == CONFIG_HELP || config->action == CONFIG_VERSION ||
        config->action == CONFIG_REFERENCE)
        return FELIX_OK;

    err = options_load_env(&config->options, reterr);
    if (err != FELIX_OK)
        return err;
    err = load_file(config, reterr);
    if (err != FELIX_OK)
        return err;
    static const char *const profiles[] = {"balanced", "high_memory"};
    if (source_of(config, "profile") != OPTION_FROM_DEFAULT) {
        err = options_apply_profile(&config->options, profiles[config->profile], reterr);
        if (err != FELIX_OK)
            return err;
    }
    config->initial_mtu_set = source_of(config, "initial_mtu") != OPTION_FROM_DEFAULT;
    check_environment(config);
    return check_together(config, reterr);
}

void config_apply_log(const struct config *config) {
    log_set_format(config->log_format == 1 ? LOG_FORMAT_JSON : LOG_FORMAT_LOGFMT);
    enum felix_err err = log_configure(config->log, LOG_UNKNOWN_SKIPPED, NULL);
    INVARIANT(err == FELIX_OK); /* config_load has checked it */
    for (size_t i = 0; i < config->warning_count; i++)
        LOG_WARN(config, "configuration_warning", F_STR("detail", config->warnings[i]));
}

bool config_answer(const struct config *config, const char *program, struct text *out) {
    switch (config->action) {
    case CONFIG_RUN:
        return false;
    case CONFIG_HELP:
        config_print_help(config, program, out);
        return true;
    case CONFIG_VERSION:
        text_add(out, "felix-broker " FELIX_VERSION "\n");
        return true;
    case CONFIG_PRINT:
        config_print_yaml(config, out);
        return true;
    case CONFIG_CHECK:
        for (size_t i = 0; i < config->warning_count; i++)
            text_printf(out, "warning: %s\n", config->warnings[i]);
        text_add(out, "the configuration can be used\n");
        return true;
    case CONFIG_REFERENCE:
        config_print_reference(config, out);
        return true;
    }
    return false;
}

void config_print_help(const struct config *config, const char *program, struct text *out) {
    text_printf(out,
                "Usage: %s [flags]\n\n"
                "The Felix broker. Every setting is a flag, an environment variable and a key of "
                "the YAML\nfile; the command line wins over the environment, the environment over "
                "the file.\n\n"
                "Pages:\n"
                "  --help                    this page\n"
                "  --version                 the version\n"
                "  --print-config            all values in effect with their source, as YAML\n"
                "  --check-config            read everything, report, and stop\n"
                "  --print-config-reference  all settings as a Markdown page\n",
                program);
    options_print_help(&config->options, out);
}

void config_print_yaml(const struct config *config, struct text *out) {
    options_print_yaml(&config->options, out);
    scope_print_yaml(config->scope, config->scope_count, out);
}

void config_print_reference(const struct config *config, struct text *out) {
    text_add(out,
             "# Configuration of the broker\n\n"
             "This page is made by `felix-broker --print-config-reference`; do not edit it.\n\n"
             "A value comes from the command line, else from the environment, else from the YAML "
             "file, else from the\nprofile, else it is the default. A value that cannot be used "
             "stops the start: the message names the\nsetting, the value and what is allowed. "
             "`--check-config` reads everything and stops, `--print-config`\nprints what is in "
             "effect and where it came from.\n\n"
             "Truth values are `1 true yes on` and `0 false no off` in any case. Bytes take the "
             "suffixes `KiB`, `MiB`\nand `GiB`, times take `ms` and `s`. An empty text or path "
             "means that it is not set. Where two variables\nare named, the first one that is set "
             "counts.\n");
    options_print_reference(&config->options, "YAML key", out);
    text_add(out, "\n## Scope\n\n"
                  "The file may name what exists from the start. Streams and caches may also be "
                  "plain lists of names.\n\n"
                  "```yaml\n"
                  "scope:\n"
                  "  tenants:\n"
                  "    t1:\n"
                  "      namespaces:\n"
                  "        default:\n"
                  "          streams:\n"
                  "            orders: {durable: true, retention_bytes: 10GiB, "
                  "retention_seconds: 604800}\n"
                  "            prices:\n"
                  "          caches:\n"
                  "            primary: {max_bytes: 64MiB}\n"
                  "```\n\n"
                  "## Accepted without effect\n\n"
                  "Each of these gives one warning at start.\n\n"
                  "| Variable | YAML key | Why |\n|---|---|---|\n");
    for (size_t i = 0; i < IGNORED_COUNT; i++) {
        text_printf(out, "| `%s` | ", ignored[i].env);
        if (ignored[i].key != NULL)
            text_printf(out, "`%s`", ignored[i].key);
        text_printf(out, " | %s |\n", ignored[i].reason);
    }
    text_add(out, "\nVariables of clients, demos and the control plane are accepted in silence; "
                  "of other unknown `FELIX_*`\nvariables one warning tells the names.\n");
}
