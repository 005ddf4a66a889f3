/*
 * The way from flags to a connected client.
 *
 * The library reads the environment and finds a development broker by itself (felix_options_new);
 * flags are laid over that. Then it connects. Whatever fails says what was tried, why it failed
 * and what to do, and decides the exit code in one place.
 */
#include "cli/cli.h"

#include "auth/token.h"
#include "base/clock.h"
#include "cli/token_view.h"
#include "client/options.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#define FILE_BYTES_MAX ((size_t)1 << 30)
#define CONNECT_TIMEOUT_MS 5000u

const char cli_exit_codes[] =
    "exit codes: 0 done, 1 not found or nothing received, 2 usage or a file, 3 connection,\n"
    "            4 refused (identity, permission, limit), 5 timeout or loss, 130 interrupted\n";

volatile sig_atomic_t cli_interrupted;

static void on_signal(int number) {
    cli_interrupted = 1;
}

void cli_catch_signals(void) {
    /* Without SA_RESTART, so that a sleep ends too. Once: the second Ctrl-C kills. */
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    (void)sigemptyset(&action.sa_mask);
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
}

void cli_globals(struct cli *cli, struct arg_option ret[CLI_GLOBALS]) {
    const struct arg_option table[CLI_GLOBALS] = {
        {.name = "--server",
         .type = ARG_TEXT,
         .value = &cli->server,
         .meta = "HOST:PORT",
         .help = "the broker (FELIX_SERVER; 127.0.0.1:5000)"},
        {.name = "--ca",
         .type = ARG_TEXT,
         .value = &cli->ca_file,
         .meta = "FILE",
         .help = "PEM file of trusted certificates (FELIX_CA_FILE)"},
        {.name = "--token-file",
         .type = ARG_TEXT,
         .value = &cli->token_file,
         .meta = "FILE",
         .help = "file with the access token (FELIX_TOKEN_FILE)"},
        {.name = "--tenant",
         .type = ARG_TEXT,
         .value = &cli->tenant,
         .meta = "NAME",
         .help = "tenant that the token belongs to (FELIX_TENANT)"},
        {.name = "--namespace",
         .type = ARG_TEXT,
         .value = &cli->space,
         .meta = "NAME",
         .help = "namespace of streams and caches (FELIX_NAMESPACE; default)"},
        {.name = "--timeout",
         .type = ARG_DURATION,
         .value = &cli->timeout_ns,
         .given = &cli->timeout_given,
         .min = NS_PER_MS,
         .max = 3600 * NS_PER_S,
         .meta = "TIME",
         .help = "longest wait for an answer: 500ms, 5s, 1m (10s)"},
        {.name = "--json", .type = ARG_FLAG, .value = &cli->json, .help = "print results as JSON"},
        {.name = "--quiet",
         .alias = "-q",
         .type = ARG_FLAG,
         .value = &cli->quiet,
         .help = "print nothing that was not asked for"},
        {.name = "--help",
         .alias = "-h",
         .type = ARG_FLAG,
         .value = &cli->help,
         .help = "this text"},
        {.name = NULL},
    };
    memcpy(ret, table, sizeof table);
}

static void print_help(const struct command_help *help, const struct arg_option *options,
                       const struct arg_option *globals) {
    (void)printf("%s: %s\n\nusage: %s %s%s[OPTION...]\n", help->name, help->summary, help->name,
                 help->usage, help->usage[0] != '\0' ? " " : "");
    if (help->text != NULL)
        (void)printf("\n%s\n", help->text);
    if (options != NULL && options->name != NULL) {
        (void)printf("\noptions:\n");
        args_print_options(options, stdout);
    }
    (void)printf("\nglobal options, before or after the command:\n");
    args_print_options(globals, stdout);
    if (help->examples != NULL)
        (void)printf("\nexamples:\n%s\n", help->examples);
    (void)printf("\n%s", cli_exit_codes);
}

int cli_parse(struct cli *cli, struct args *args, const struct command_help *help, size_t min,
              size_t max) {
    struct arg_option globals[CLI_GLOBALS];
    cli_globals(cli, globals);
    args->globals = globals;
    struct felix_error error;
    enum felix_err err = args_parse(args, cli->argc, cli->argv, &error);
    args->globals = NULL;
    if (cli->help) {
        print_help(help, args->options, globals);
        return EXIT_DONE;
    }
    if (err != FELIX_OK)
        return out_usage(help->name, error.text);
    char text[256];
    if (args->operands_count < min) {
        (void)snprintf(text, sizeof text, "too few arguments: %s %s", help->name, help->usage);
        return out_usage(help->name, text);
    }
    if (args->operands_count > max) {
        (void)snprintf(text, sizeof text, "one argument too many, '%.80s': %s %s",
                       args->operands[max], help->name, help->usage);
        return out_usage(help->name, text);
    }
    return CLI_GO_ON;
}

uint32_t cli_timeout_ms(const struct cli *cli) {
    return (uint32_t)(cli->timeout_ns / NS_PER_MS);
}

int cli_failed(const char *what, enum felix_err err, const char *why) {
    if (why == NULL || why[0] == '\0')
        why = felix_last_error();
    if (why[0] == '\0')
        why = felix_err_text(err);
    out_error("%s: %s", what, why);
    return exit_code_of(err);
}

static enum felix_err set_all(struct cli *cli) {
    enum felix_err err = FELIX_OK;
    felix_options *options = cli->options;
    if (cli->server != NULL)
        err = felix_options_set_server(options, cli->server);
    if (err == FELIX_OK && cli->ca_file != NULL)
        err = felix_options_set_ca_file(options, cli->ca_file);
    if (err == FELIX_OK && cli->token_file != NULL)
        err = felix_options_set_token_file(options, cli->token_file);
    if (err == FELIX_OK && cli->tenant != NULL)
        err = felix_options_set_tenant(options, cli->tenant);
    if (err != FELIX_OK || !cli->timeout_given)
        return err;
    char timeout_ms[24];
    uint32_t ms = cli_timeout_ms(cli);
    (void)snprintf(timeout_ms, sizeof timeout_ms, "%u", ms < 10 ? 10 : ms);
    return felix_options_set(options, "request_timeout_ms", timeout_ms);
}

/* What is wrong with the token that the broker refused, as far as it can be seen from here. */
static void explain_token(const struct client_settings *settings, char *ret, size_t capacity) {
    const char *path = settings->token_file;
    struct text content = {0};
    struct token_text token = {0};
    struct felix_error error;
    (void)snprintf(ret, capacity,
                   "the token is not one of tenant '%s', or the broker does not know the key that "
                   "signed it",
                   settings->tenant);
    if (path[0] == '\0' || cli_read_file(path, &content, &error) != FELIX_OK)
        goto out;
    size_t len = content.len;
    while (len > 0 && strchr(" \t\r\n", text_str(&content)[len - 1]) != NULL)
        len--;
    if (token_inspect(slice_of(text_str(&content), len), &token) != FELIX_OK) {
        (void)snprintf(ret, capacity, "%s holds no token", path);
        goto out;
    }
    struct token_validity validity =
        token_validity(token.claims, (int64_t)(clock_wall_ns() / NS_PER_S));
    struct slice tenant = token_claim(token.claims, "tid");
    if (!validity.now)
        (void)snprintf(ret, capacity, "the token in %s: %s", path, validity.words);
    else if (!slice_is(tenant, settings->tenant))
        (void)snprintf(ret, capacity,
                       "the token in %s is for tenant '%.*s', not '%s'; see --tenant", path,
                       (int)tenant.len, (const char *)tenant.data, settings->tenant);
    else
        (void)snprintf(ret, capacity,
                       "the broker does not know the key that signed the token in %s", path);
out:
    token_text_deinit(&token);
    text_deinit(&content);
}

/* Says why there is no connection and what to do about it; returns the exit code. */
static int connect_failed(const struct cli *cli, enum felix_err err) {
    const struct client_settings *settings = &cli->options->settings;
    char advice[600] = "";
    int status = exit_code_of(err);
    switch ((int)err) {
    case FELIX_TIMED_OUT:
    case FELIX_NOT_CONNECTED:
        (void)snprintf(advice, sizeof advice,
                       "start one with 'felix-broker --dev', or name another with --server");
        break;
    case FELIX_TLS:
        (void)snprintf(advice, sizeof advice, "trusted: %s; see --ca",
                       settings->ca_file[0] != '\0' ? settings->ca_file : "the system's list");
        break;
    case FELIX_UNAUTHENTICATED:
        if (settings->token_file[0] != '\0' || settings->token[0] != '\0')
            explain_token(settings, advice, sizeof advice);
        break;
    default:
        break;
    }
    out_error("%s%s%s", felix_last_error(), advice[0] != '\0' ? "\n       " : "", advice);
    /* An unknown name and silence are no missing value and no slow answer. */
    return status == EXIT_TIMEOUT || status == EXIT_NOTHING ? EXIT_CONNECTION : status;
}

int cli_connect(struct cli *cli, felix_client **ret) {
    cli->options = felix_options_new();
    if (cli->options == NULL) {
        out_error("the environment cannot be used: %s", felix_last_error());
        return EXIT_USAGE;
    }
    enum felix_err err = set_all(cli);
    if (err == FELIX_OK && cli->event_timestamps)
        err = felix_options_set(cli->options, "event_timestamps", "1");
    if (err != FELIX_OK)
        return cli_failed("an option cannot be used", err, NULL);
    uint32_t timeout_ms = cli->timeout_given ? cli_timeout_ms(cli) : CONNECT_TIMEOUT_MS;
    err = felix_connect(cli->options, timeout_ms, ret);
    return err == FELIX_OK ? CLI_GO_ON : connect_failed(cli, err);
}

void cli_sleep_until(uint64_t due_ns) {
    struct timespec due = {.tv_sec = (time_t)(due_ns / NS_PER_S),
                           .tv_nsec = (long)(due_ns % NS_PER_S)};
    while (!cli_interrupted && clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL) == EINTR)
        continue;
}

enum felix_err cli_read_file(const char *path, struct text *ret, struct felix_error *reterr) {
    bool is_stdin = strcmp(path, "-") == 0;
    FILE *file = is_stdin ? stdin : fopen(path, "re");
    if (file == NULL)
        return error_set(reterr, FELIX_SYSTEM, errno, "cannot open %s", path);
    static uint8_t block[65536];
    enum felix_err err = FELIX_OK;
    while (err == FELIX_OK && !feof(file) && !ferror(file)) {
        text_bytes(ret, slice_of(block, fread(block, 1, sizeof block, file)));
        if (ret->len > FILE_BYTES_MAX)
            err = error_set(reterr, FELIX_TOO_LARGE, 0, "%s has more than %zu MiB", path,
                            FILE_BYTES_MAX >> 20);
    }
    if (err == FELIX_OK && ferror(file))
        err = error_set(reterr, FELIX_SYSTEM, errno, "cannot read %s", path);
    if (!is_stdin)
        (void)fclose(file);
    return err;
}
