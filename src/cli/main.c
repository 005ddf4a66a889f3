/* felix: finds the command among the arguments and runs it. */
#include "cli/cli.h"

#include "base/clock.h"
#include "base/options.h"

#include <stdlib.h>
#include <string.h>

struct command {
    const char *group;
    const char *name; /* second word, or NULL */
    const char *summary;
    int (*run)(struct cli *cli);
};

static int cmd_help(struct cli *cli);

static const struct command commands[] = {
    {"pub", NULL, "publish messages to a stream", cmd_pub},
    {"sub", NULL, "subscribe to a stream and print what arrives", cmd_sub},
    {"stream", "create", "make a stream", cmd_stream_create},
    {"stream", "list", "show the streams of a namespace", cmd_stream_list},
    {"stream", "show", "show one stream", cmd_stream_show},
    {"stream", "delete", "delete a stream", cmd_stream_delete},
    {"cache", "put", "store a value", cmd_cache_put},
    {"cache", "get", "fetch a value", cmd_cache_get},
    {"cache", "del", "delete a value", cmd_cache_del},
    {"ping", NULL, "measure the round trip to the broker", cmd_ping},
    {"bench", "pub", "publish as fast as possible, or at a rate", cmd_bench_pub},
    {"bench", "sub", "count what arrives on a stream", cmd_bench_sub},
    {"bench", "cache", "put and get in a loop, or at a rate", cmd_bench_cache},
    {"bench", "latency", "time from publish to delivery", cmd_bench_latency},
    {"log", "inspect", "show segments, offsets, indexes, damage", cmd_log_inspect},
    {"log", "dump", "print records from the files of a log", cmd_log_dump},
    {"log", "verify", "check every record of a log, or a backup", cmd_log_verify},
    {"log", "repair", "do what opening does: cut, rebuild indexes", cmd_log_repair},
    {"log", "backup", "copy the log of a stream, or all of a node", cmd_log_backup},
    {"log", "restore", "make logs of a backup", cmd_log_restore},
    {"log", "write", "write generated records into a log", cmd_log_write},
    {"log", "bench", "measure writing to, or reading from, a log", cmd_log_bench},
    {"token", "mint", "sign a token", cmd_token_mint},
    {"token", "inspect", "show what a token says", cmd_token_inspect},
    {"token", "keygen", "make a signing key", cmd_token_keygen},
    {"version", NULL, "print the version", cmd_version},
    {"help", NULL, "print help for a command", cmd_help},
};

#define COMMANDS (sizeof commands / sizeof commands[0])

static void print_overview(struct cli *cli, FILE *out) {
    (void)fprintf(out, "felix: talk to a Felix message broker\n\n"
                       "usage: felix COMMAND [ARGUMENT...] [OPTION...]\n\ncommands:\n");
    for (size_t i = 0; i < COMMANDS; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "%s%s%s", commands[i].group,
                       commands[i].name != NULL ? " " : "",
                       commands[i].name != NULL ? commands[i].name : "");
        (void)fprintf(out, "  %-14s  %s\n", name, commands[i].summary);
    }
    struct arg_option globals[CLI_GLOBALS];
    cli_globals(cli, globals);
    (void)fprintf(out, "\nglobal options, before or after the command:\n");
    args_print_options(globals, out);
    (void)fprintf(
        out,
        "\nA development broker (felix-broker --dev) on this machine is found without any\n"
        "option. 'felix COMMAND --help' says more about a command.\n\n%s",
        cli_exit_codes);
}

/* Says which command was probably meant; `group` is NULL for the first word. */
static int unknown_command(const char *word, const char *group) {
    const char *names[COMMANDS + 1];
    size_t count = 0;
    for (size_t i = 0; i < COMMANDS; i++) {
        if (group == NULL)
            names[count++] = commands[i].group;
        else if (strcmp(commands[i].group, group) == 0 && commands[i].name != NULL)
            names[count++] = commands[i].name;
    }
    names[count] = NULL;
    const char *nearest = option_nearest(word, names);
    out_error("there is no command '%s%s%.40s'%s%s%s", group != NULL ? group : "",
              group != NULL ? " " : "", word, nearest != NULL ? "; did you mean '" : "",
              nearest != NULL ? nearest : "", nearest != NULL ? "'?" : "; see 'felix help'");
    return EXIT_USAGE;
}

static int group_help(const char *group) {
    (void)printf("usage: felix %s COMMAND [ARGUMENT...] [OPTION...]\n\ncommands:\n", group);
    for (size_t i = 0; i < COMMANDS; i++)
        if (strcmp(commands[i].group, group) == 0)
            (void)printf("  %-14s  %s\n", commands[i].name, commands[i].summary);
    (void)printf("\n'felix %s COMMAND --help' says more.\n", group);
    return EXIT_DONE;
}

/* The position of the next argument that is no global option, or argc. Unknown options end the
 * search too: they get their error from the command, or from the caller when there is none. */
static int next_word(struct cli *cli, int argc, char **argv, int at, int *ret_status) {
    struct arg_option globals[CLI_GLOBALS];
    cli_globals(cli, globals);
    *ret_status = CLI_GO_ON;
    while (at < argc && argv[at][0] == '-' && argv[at][1] != '\0') {
        struct felix_error error;
        enum felix_err err = args_take(globals, argc, argv, &at, &error);
        if (err == FELIX_OK)
            continue;
        if (err == FELIX_NOT_FOUND)
            (void)args_unknown(argv[at], NULL, globals, &error);
        *ret_status = out_usage("felix", error.text);
        break;
    }
    return at;
}

static bool is_group(const char *word) {
    for (size_t i = 0; i < COMMANDS; i++)
        if (commands[i].name != NULL && strcmp(commands[i].group, word) == 0)
            return true;
    return false;
}

static const struct command *find_command(const char *group, const char *name) {
    for (size_t i = 0; i < COMMANDS; i++) {
        const struct command *c = &commands[i];
        if (strcmp(c->group, group) == 0 &&
            (c->name == NULL ? name == NULL : name != NULL && strcmp(c->name, name) == 0))
            return c;
    }
    return NULL;
}

/* Runs the command that argv names. Its words are taken out; the options before them were applied
 * while looking and are dropped. */
static int dispatch(struct cli *cli, int argc, char **argv) {
    int status;
    int at = next_word(cli, argc, argv, 0, &status);
    if (status != CLI_GO_ON)
        return status;
    if (at == argc) {
        print_overview(cli, cli->help ? stdout : stderr);
        return cli->help ? EXIT_DONE : EXIT_USAGE;
    }
    const char *group = argv[at++];
    const char *name = NULL;
    if (is_group(group)) {
        at = next_word(cli, argc, argv, at, &status);
        if (status != CLI_GO_ON)
            return status;
        if (at == argc && cli->help)
            return group_help(group);
        if (at == argc) {
            char text[64];
            (void)snprintf(text, sizeof text, "which %s command?", group);
            char help[64];
            (void)snprintf(help, sizeof help, "felix %s", group);
            return out_usage(help, text);
        }
        name = argv[at++];
    }
    const struct command *command = find_command(group, name);
    if (command == NULL)
        return name != NULL ? unknown_command(name, group) : unknown_command(group, NULL);
    cli->argc = argc - at;
    cli->argv = argv + at;
    return command->run(cli);
}

static int cmd_help(struct cli *cli) {
    struct args args = {.options = NULL};
    const struct command_help help = {
        .name = "felix help",
        .summary = "print help for a command",
        .usage = "[COMMAND...]",
    };
    int status = cli_parse(cli, &args, &help, 0, 2);
    if (status != CLI_GO_ON)
        return status;
    if (args.operands_count == 0) {
        print_overview(cli, stdout);
        return EXIT_DONE;
    }
    cli->help = true;
    char copies[2][32];
    char *words[2];
    for (size_t i = 0; i < args.operands_count; i++) {
        (void)snprintf(copies[i], sizeof copies[i], "%s", args.operands[i]);
        words[i] = copies[i];
    }
    return dispatch(cli, (int)args.operands_count, words);
}

int cmd_version(struct cli *cli) {
    struct args args = {.options = NULL};
    const struct command_help help = {
        .name = "felix version",
        .summary = "print the version",
        .usage = "",
    };
    int status = cli_parse(cli, &args, &help, 0, 0);
    if (status != CLI_GO_ON)
        return status;
    if (cli->json)
        (void)printf("{\"name\":\"felix\",\"version\":\"%s\"}\n", felix_version());
    else
        (void)printf("felix %s\n", felix_version());
    return EXIT_DONE;
}

int main(int argc, char **argv) {
    /* A reader that went away is an error code of write(2), not a death. */
    (void)signal(SIGPIPE, SIG_IGN);
    struct cli cli = {.timeout_ns = 10 * NS_PER_S};
    cli.space = getenv("FELIX_NAMESPACE");
    if (cli.space == NULL || cli.space[0] == '\0')
        cli.space = "default";
    /* The library knows FELIX_AUTH_TENANT; people write FELIX_TENANT. */
    const char *tenant = getenv("FELIX_TENANT");
    if (tenant != NULL && tenant[0] != '\0')
        cli.tenant = tenant;

    int status;
    if (argc == 2 && strcmp(argv[1], "--version") == 0)
        status = cmd_version(&cli);
    else
        status = dispatch(&cli, argc - 1, argv + 1);
    felix_options_free(cli.options);
    bool written = fflush(stdout) == 0 && !ferror(stdout);
    if (!written && status == EXIT_DONE && !out_reader_gone()) {
        out_error("cannot write the output: the disk is full or the device failed");
        status = EXIT_USAGE;
    }
    return status;
}
