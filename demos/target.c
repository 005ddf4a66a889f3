#include "target.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "cli/out.h"
#include "node/identity.h"

#include <errno.h>
#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define OPEN_DIRECTORIES 8

void target_args(struct target_options *options, struct arg_option ret[TARGET_ARGS]) {
    *options = (struct target_options){.space = DEV_NAMESPACE, .timeout_ns = 10 * NS_PER_S};
    ret[0] = (struct arg_option){.name = "--connect",
                                 .type = ARG_TEXT,
                                 .value = &options->connect,
                                 .meta = "HOST:PORT",
                                 .help = "measure this broker instead of one in this process"};
    ret[1] = (struct arg_option){.name = "--ca",
                                 .type = ARG_TEXT,
                                 .value = &options->ca_file,
                                 .meta = "FILE",
                                 .help = "with --connect: certificates to trust (FELIX_CA_FILE)"};
    ret[2] = (struct arg_option){.name = "--token-file",
                                 .type = ARG_TEXT,
                                 .value = &options->token_file,
                                 .meta = "FILE",
                                 .help = "with --connect: access token (FELIX_TOKEN_FILE)"};
    ret[3] = (struct arg_option){.name = "--tenant",
                                 .type = ARG_TEXT,
                                 .value = &options->tenant,
                                 .meta = "NAME",
                                 .help = "with --connect: tenant of the token"};
    ret[4] = (struct arg_option){.name = "--namespace",
                                 .type = ARG_TEXT,
                                 .value = &options->space,
                                 .meta = "NAME",
                                 .help = "with --connect: namespace (default)"};
    ret[5] = (struct arg_option){.name = NULL};
}

static bool env_set(const char *name) {
    const char *value = getenv(name);
    return value != NULL && value[0] != '\0';
}

static bool log_is_wanted(void) {
    return env_set("FELIX_LOG") || env_set("RUST_LOG");
}

static enum felix_err make_directory(struct target *target, struct felix_error *reterr) {
    const char *parent = env_set("TMPDIR") ? getenv("TMPDIR") : "/tmp";
    int len = snprintf(target->directory, sizeof target->directory, "%s/felix-demo-XXXXXX", parent);
    if (len < 0 || (size_t)len >= sizeof target->directory) {
        target->directory[0] = '\0';
        return error_set(reterr, FELIX_INVALID_ARGUMENT, 0, "TMPDIR is too long");
    }
    if (mkdtemp(target->directory) == NULL) {
        target->directory[0] = '\0';
        return error_set(reterr, FELIX_SYSTEM, errno, "cannot make a directory below %s: %s",
                         parent, strerror(errno));
    }
    return FELIX_OK;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw) {
    (void)remove(path);
    return 0;
}

/* Settings that a queue or an admission could drop by. What the user set stays, and is said. */
static size_t add_lossless(struct target *target, const char **argv, size_t argc) {
    static const struct {
        const char *env, *flag;
    } rows[] = {
        {"FELIX_SUB_QUEUE_POLICY", "--subscriber-queue-policy=block"},
        {"FELIX_PUB_INGRESS_WAIT", "--pub-ingress-wait=1"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (env_set(rows[i].env)) {
            target->may_drop = true;
            continue;
        }
        argv[argc++] = rows[i].flag;
    }
    return argc;
}

/* The environment's settings, but neither its addresses nor its identities: the broker is ours. */
static enum felix_err load_config(struct target *target, const char *const *flags,
                                  struct felix_error *reterr) {
    const char *argv[48] = {"demo",
                            "--dev",
                            "--data-dir",
                            target->directory,
                            "--quic-bind",
                            "127.0.0.1:0",
                            "--metrics-bind",
                            "127.0.0.1:0",
                            "--tls-cert",
                            "",
                            "--tls-key",
                            "",
                            "--tls-cert-export",
                            "",
                            "--auth-jwks-file",
                            ""};
    size_t argc = 16;
    argc = add_lossless(target, argv, argc);
    if (!log_is_wanted()) {
        argv[argc++] = "--log";
        argv[argc++] = "error";
    }
    for (size_t i = 0; flags != NULL && flags[i] != NULL; i++) {
        INVARIANT(i < TARGET_FLAGS_MAX);
        argv[argc++] = flags[i];
    }
    char *words[48];
    for (size_t i = 0; i < argc; i++)
        words[i] = xstrdup(argv[i]);
    enum felix_err err = config_load(&target->config, (int)argc, words, reterr);
    for (size_t i = 0; i < argc; i++)
        free(words[i]);
    return err;
}

/* Once for the process: a sweep starts many brokers with the same environment. */
static void say_warnings(const struct target *target) {
    static bool said;
    for (size_t i = 0; i < target->config.warning_count && !said; i++)
        out_error("warning: %s", target->config.warnings[i]);
    said = true;
}

enum felix_err target_start(struct target *target, const struct target_options *options,
                            const char *const *flags, struct felix_error *reterr) {
    *target = (struct target){.options = options};
    if (options->connect != NULL) {
        if (!log_is_wanted())
            (void)log_configure("error", LOG_UNKNOWN_SKIPPED, NULL);
        (void)snprintf(target->address, sizeof target->address, "%s", options->connect);
        return FELIX_OK;
    }
    enum felix_err err = make_directory(target, reterr);
    if (err == FELIX_OK)
        err = load_config(target, flags, reterr);
    if (err == FELIX_OK) {
        say_warnings(target);
        log_set_format(target->config.log_format == 1 ? LOG_FORMAT_JSON : LOG_FORMAT_LOGFMT);
        err = log_configure(target->config.log, LOG_UNKNOWN_SKIPPED, reterr);
    }
    if (err == FELIX_OK)
        err = node_start(&target->config, &target->node, reterr);
    if (err != FELIX_OK) {
        target_stop(target);
        return err;
    }
    (void)snprintf(target->address, sizeof target->address, "127.0.0.1:%u",
                   (unsigned)node_quic_port(target->node));
    return FELIX_OK;
}

void target_stop(struct target *target) {
    node_stop(target->node);
    target->node = NULL;
    config_deinit(&target->config);
    if (target->directory[0] != '\0')
        (void)nftw(target->directory, remove_entry, OPEN_DIRECTORIES, FTW_DEPTH | FTW_PHYS);
    target->directory[0] = '\0';
}

/* Set in order; a NULL value is skipped. */
static bool set_all(felix_options *options, const char *const (*pairs)[2], size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (pairs[i][1] != NULL && felix_options_set(options, pairs[i][0], pairs[i][1]) != FELIX_OK)
            return false;
    }
    return true;
}

felix_options *target_client_options(const struct target *target) {
    felix_options *options = felix_options_new();
    if (options == NULL)
        return NULL;
    bool inside = target->node != NULL;
    const struct target_options *given = target->options;
    const char *const pairs[][2] = {
        {"server", target->address},
        {"server_name", inside ? "" : NULL},
        {"ca_file", inside ? node_ca_path(target->node) : given->ca_file},
        {"token_file", inside ? node_token_path(target->node) : given->token_file},
        {"auth_tenant", inside ? DEV_TENANT : given->tenant},
    };
    if (set_all(options, pairs, sizeof pairs / sizeof pairs[0]))
        return options;
    felix_options_free(options);
    return NULL;
}

enum felix_err target_connect(const struct target *target, felix_options *options,
                              felix_client **ret) {
    return felix_connect(options, (uint32_t)(target->options->timeout_ns / NS_PER_MS), ret);
}

const char *target_space(const struct target *target) {
    return target->node != NULL ? DEV_NAMESPACE : target->options->space;
}

const char *target_name(const struct target *target) {
    return target->node != NULL ? "in-process" : target->address;
}
