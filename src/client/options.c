#include "client/options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "client/last_error.h"

#define TOKEN_BYTES_MAX (60u << 10) /* what fits the first frame of a stream */
#define DEFAULT_PORT "5000"

static const struct option_row rows[] = {
#define OPTION_TARGET struct client_settings
#define X OPTION_ROW
#include "client/options.def"
#undef X
#undef OPTION_TARGET
};

#define ROW_COUNT (sizeof rows / sizeof rows[0])

static bool is_set(const char *text) {
    return text[0] != '\0';
}

/* The directory that a development broker of this user keeps; false when there is none. */
static bool dev_directory(char *out, size_t capacity) {
    const char *set = getenv("FELIX_DATA_DIR");
    if (set != NULL && is_set(set))
        return snprintf(out, capacity, "%s", set) < (int)capacity;
    const char *state = getenv("XDG_STATE_HOME");
    if (state != NULL && is_set(state))
        return snprintf(out, capacity, "%s/felix/dev", state) < (int)capacity;
    const char *home = getenv("HOME");
    return home != NULL &&
           snprintf(out, capacity, "%s/.local/state/felix/dev", home) < (int)capacity;
}

static enum felix_err fill_from_file(struct felix_options *options, const char *key,
                                     const char *path) {
    if (access(path, R_OK) != 0)
        return FELIX_OK;
    return options_set_key(&options->options, OPTION_FROM_PROFILE, key, path, last_error());
}

/* What a development broker left: its certificate and a token. A token needs its tenant too. */
static enum felix_err fill_from_dev_broker(struct felix_options *options) {
    const struct client_settings *settings = &options->settings;
    char directory[3072];
    char path[4096];
    if (!dev_directory(directory, sizeof directory))
        return FELIX_OK;
    if (!is_set(settings->ca_file)) {
        (void)snprintf(path, sizeof path, "%s/ca.pem", directory);
        enum felix_err err = fill_from_file(options, "ca_file", path);
        if (err != FELIX_OK)
            return err;
    }
    if (!is_set(settings->token) && !is_set(settings->token_file)) {
        (void)snprintf(path, sizeof path, "%s/token", directory);
        return fill_from_file(options, "token_file", path);
    }
    return FELIX_OK;
}

static enum felix_err load(struct felix_options *options) {
    struct server_address ignored;
    enum felix_err err = options_load_env(&options->options, last_error());
    if (err == FELIX_OK && is_set(options->settings.profile))
        err = options_apply_profile(&options->options, options->settings.profile, last_error());
    if (err == FELIX_OK)
        err = options_split_server(options->settings.server, &ignored, last_error());
    if (err == FELIX_OK)
        err = fill_from_dev_broker(options);
    if (err == FELIX_OK && !is_set(options->settings.tenant))
        err = options_set_key(&options->options, OPTION_FROM_PROFILE, "auth_tenant", "t1",
                              last_error());
    return err;
}

felix_options *felix_options_new(void) {
    struct felix_options *options = xcalloc(1, sizeof *options);
    options_init(&options->options, rows, ROW_COUNT, &options->settings);
    if (load(options) != FELIX_OK) {
        felix_options_free(options);
        return NULL;
    }
    return options;
}

void felix_options_free(felix_options *options) {
    if (options == NULL)
        return;
    options_deinit(&options->options);
    free(options);
}

struct felix_options *options_copy(const struct felix_options *options) {
    struct felix_options *copy = xcalloc(1, sizeof *copy);
    options_init(&copy->options, rows, ROW_COUNT, &copy->settings);
    for (size_t i = 0; i < ROW_COUNT; i++) {
        struct text value = {0};
        options_value(&options->options, i, &value);
        enum felix_err err =
            options_set(&copy->options, i, OPTION_FROM_ARGS, rows[i].key, text_str(&value), NULL);
        INVARIANT(err == FELIX_OK);
        text_deinit(&value);
    }
    return copy;
}

void options_page(struct text *out) {
    struct felix_options defaults = {0};
    options_init(&defaults.options, rows, ROW_COUNT, &defaults.settings);
    text_add(out, "# Settings of libfelix\n\n"
                  "This page is made from src/client/options.def; a test says when it is not up to "
                  "date.\n\n"
                  "What the program sets with `felix_options_set` counts, else the environment, "
                  "else the profile, else the\ndefault. A value that cannot be used is refused "
                  "with its name, the value and what is allowed. Bytes take\nthe suffixes `KiB`, "
                  "`MiB` and `GiB`. Where two variables are named, the first one that is set "
                  "counts.\n");
    options_print_reference(&defaults.options, "Name", out);
    options_deinit(&defaults.options);
}

enum felix_err options_split_server(const char *text, struct server_address *ret,
                                    struct felix_error *reterr) {
    const char *host = text;
    const char *port = DEFAULT_PORT;
    size_t host_len = strlen(text);
    if (text[0] == '[') {
        const char *end = strchr(text, ']');
        if (end == NULL || (end[1] != '\0' && end[1] != ':'))
            return error_set(reterr, FELIX_INVALID_ARGUMENT, 0,
                             "server \"%s\" is not an address; write [::1]:5000", text);
        host = text + 1;
        host_len = (size_t)(end - host);
        if (end[1] == ':')
            port = end + 2;
    } else {
        const char *colon = strrchr(text, ':');
        if (colon != NULL && strchr(text, ':') == colon) {
            host_len = (size_t)(colon - text);
            port = colon + 1;
        }
    }
    char *end = NULL;
    unsigned long number = port[0] >= '0' && port[0] <= '9' ? strtoul(port, &end, 10) : 0;
    if (host_len == 0 || host_len >= sizeof ret->host || end == NULL || *end != '\0' ||
        number == 0 || number > 65535)
        return error_set(reterr, FELIX_INVALID_ARGUMENT, 0,
                         "server \"%s\" is not host:port with a port of 1 .. 65535", text);
    memcpy(ret->host, host, host_len);
    ret->host[host_len] = '\0';
    (void)snprintf(ret->port, sizeof ret->port, "%lu", number);
    return FELIX_OK;
}

static enum felix_err read_token_file(const char *path, char **ret, struct felix_error *reterr) {
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return error_set(reterr, FELIX_SYSTEM, errno, "cannot open the token file %s", path);
    char *token = xmalloc(TOKEN_BYTES_MAX + 1);
    size_t len = fread(token, 1, TOKEN_BYTES_MAX + 1, file);
    bool failed = ferror(file) != 0;
    (void)fclose(file);
    while (len > 0 && len <= TOKEN_BYTES_MAX && strchr(" \t\r\n", token[len - 1]) != NULL)
        len--;
    if (failed || len == 0 || len > TOKEN_BYTES_MAX) {
        free(token);
        return error_set(reterr, FELIX_SYSTEM, 0,
                         "the token file %s cannot be read, is empty or too long", path);
    }
    token[len] = '\0';
    *ret = token;
    return FELIX_OK;
}

enum felix_err options_token(const struct client_settings *settings, char **ret,
                             struct felix_error *reterr) {
    if (is_set(settings->token_file))
        return read_token_file(settings->token_file, ret, reterr);
    if (!is_set(settings->token))
        return error_set(reterr, FELIX_UNAUTHENTICATED, 0,
                         "no token: set FELIX_TOKEN_FILE or FELIX_AUTH_TOKEN, or start a broker "
                         "with --dev as the same user");
    *ret = xstrdup(settings->token);
    return FELIX_OK;
}

/* ---- what the application sets ---- */

static enum felix_err set_key(felix_options *options, const char *key, const char *value) {
    if (options == NULL || value == NULL)
        return last_error_set(FELIX_INVALID_ARGUMENT, "felix_options_set %s: no value", key);
    return options_set_key(&options->options, OPTION_FROM_ARGS, key, value, last_error());
}

static enum felix_err set_server(felix_options *options, const char *address) {
    struct server_address ignored;
    if (address != NULL) {
        enum felix_err err = options_split_server(address, &ignored, last_error());
        if (err != FELIX_OK)
            return err;
    }
    return set_key(options, "server", address);
}

enum felix_err felix_options_set_server(felix_options *options, const char *address) {
    return set_server(options, address);
}

enum felix_err felix_options_set_server_name(felix_options *options, const char *name) {
    return set_key(options, "server_name", name);
}

enum felix_err felix_options_set_ca_file(felix_options *options, const char *path) {
    return set_key(options, "ca_file", path != NULL ? path : "");
}

enum felix_err felix_options_set_tenant(felix_options *options, const char *tenant) {
    return set_key(options, "auth_tenant", tenant);
}

enum felix_err felix_options_set_token(felix_options *options, const char *token) {
    if (token != NULL && strlen(token) > TOKEN_BYTES_MAX)
        return last_error_set(FELIX_INVALID_ARGUMENT, "the token is longer than %u bytes",
                              TOKEN_BYTES_MAX);
    enum felix_err err = set_key(options, "auth_token", token);
    /* What was said last counts: a file found earlier would win otherwise. */
    if (err == FELIX_OK)
        err = set_key(options, "token_file", "");
    return err;
}

enum felix_err felix_options_set_token_file(felix_options *options, const char *path) {
    return set_key(options, "token_file", path);
}

enum felix_err felix_options_set(felix_options *options, const char *name, const char *value) {
    if (name == NULL)
        return last_error_set(FELIX_INVALID_ARGUMENT, "felix_options_set: no name");
    if (strcmp(name, "server") == 0)
        return set_server(options, value);
    if (strcmp(name, "auth_token") == 0)
        return felix_options_set_token(options, value);
    enum felix_err err = set_key(options, name, value);
    if (err == FELIX_OK && strcmp(name, "profile") == 0)
        err = options_apply_profile(&options->options, value, last_error());
    return err == FELIX_NOT_FOUND ? FELIX_INVALID_ARGUMENT : err;
}

const char *felix_options_server(const felix_options *options) {
    return options->settings.server;
}

const char *felix_options_tenant(const felix_options *options) {
    return options->settings.tenant;
}
