/* felix cache put, get, del: one value in one cache. */
#include "cli/cli.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

struct cache_target {
    const char *cache;
    const char *key;
};

static int cache_failed(const char *verb, const struct cache_target *target, enum felix_err err) {
    char what[400];
    (void)snprintf(what, sizeof what, "cannot %s '%.100s' in cache '%.100s'", verb, target->key,
                   target->cache);
    return cli_failed(what, err, NULL);
}

static int not_there(const struct cli *cli, const struct cache_target *target, const char *field) {
    if (cli->json)
        (void)printf("{\"%s\":false}\n", field);
    if (!cli->quiet)
        out_error("no value '%s' in cache '%s'", target->key, target->cache);
    return EXIT_NOTHING;
}

int cmd_cache_put(struct cli *cli) {
    const char *file = NULL;
    uint64_t ttl_ns = 0;
    const struct arg_option options[] = {
        {.name = "--ttl",
         .type = ARG_DURATION,
         .value = &ttl_ns,
         .min = NS_PER_MS,
         .meta = "TIME",
         .help = "forget it after 500ms, 5s, 1h (never)"},
        {.name = "--file",
         .type = ARG_TEXT,
         .value = &file,
         .meta = "FILE",
         .help = "the value is the content of FILE; - is standard input"},
        {.name = NULL},
    };
    const struct command_help help = {
        .name = "felix cache put",
        .summary = "store a value",
        .usage = "CACHE KEY [VALUE]",
        .text = "Without VALUE and --file, the value is standard input, byte for byte.",
        .examples = "  felix cache put sessions alice 'logged in' --ttl 1h\n"
                    "  felix cache put pictures logo < logo.png",
    };
    struct args args = {.options = options};
    int status = cli_parse(cli, &args, &help, 2, 3);
    if (status != CLI_GO_ON)
        return status;
    const char *literal = args.operands_count == 3 ? args.operands[2] : NULL;
    if (literal != NULL && file != NULL)
        return out_usage(help.name, "VALUE and --file exclude each other");
    struct cache_target target = {args.operands[0], args.operands[1]};

    struct text content = {0};
    struct felix_error error;
    if (literal != NULL)
        text_add(&content, literal);
    else if (cli_read_file(file != NULL ? file : "-", &content, &error) != FELIX_OK) {
        out_error("nothing was stored: %s", error.text);
        text_deinit(&content);
        return EXIT_USAGE;
    }
    felix_client *client;
    status = cli_connect(cli, &client);
    if (status == CLI_GO_ON) {
        struct felix_bytes value = {.data = text_str(&content), .len = content.len};
        uint64_t ttl_ms = (ttl_ns + NS_PER_MS - 1) / NS_PER_MS;
        enum felix_err err =
            felix_cache_put(client, cli->space, target.cache, target.key, value, ttl_ms);
        status = err == FELIX_OK ? EXIT_DONE : cache_failed("put", &target, err);
        if (err == FELIX_OK && cli->json)
            (void)printf("{\"stored\":true,\"bytes\":%zu,\"ttl_ms\":%llu}\n", value.len,
                         (unsigned long long)ttl_ms);
        else if (err == FELIX_OK && !cli->quiet && out_is_terminal())
            (void)printf("stored %zu bytes as '%s' in cache '%s'%s%s\n", value.len, target.key,
                         target.cache, ttl_ns != 0 ? " for " : "",
                         ttl_ns != 0 ? out_duration(ttl_ns).text : "");
        felix_close(client, 0);
    }
    text_deinit(&content);
    return status;
}

/* Prints a value: exact bytes for a pipe, a line for a terminal. */
static void print_value(const struct cli *cli, struct slice value) {
    struct text text = {0};
    if (cli->json) {
        text_add(&text, "{\"found\":true,");
        out_json_payload(&text, "value", value);
        text_add(&text, "}\n");
    } else if (out_is_terminal()) {
        out_printable(&text, value);
        text_char(&text, '\n');
    } else {
        text_bytes(&text, value);
    }
    (void)fwrite(text_str(&text), 1, text.len, stdout);
    text_deinit(&text);
}

int cmd_cache_get(struct cli *cli) {
    const struct command_help help = {
        .name = "felix cache get",
        .summary = "fetch a value",
        .usage = "CACHE KEY",
        .text =
            "Prints the value; into a pipe or file byte for byte, without a newline. Exits with 1\n"
            "when there is no such key, or its time is over.",
        .examples = "  felix cache get sessions alice\n"
                    "  felix cache get pictures logo > logo.png",
    };
    struct args args = {.options = NULL};
    int status = cli_parse(cli, &args, &help, 2, 2);
    if (status != CLI_GO_ON)
        return status;
    struct cache_target target = {args.operands[0], args.operands[1]};
    felix_client *client;
    status = cli_connect(cli, &client);
    if (status != CLI_GO_ON)
        return status;
    struct felix_bytes value = {0};
    enum felix_err err = felix_cache_get(client, cli->space, target.cache, target.key, &value);
    if (err == FELIX_OK) {
        print_value(cli, slice_of(value.data, value.len));
        status = EXIT_DONE;
    } else {
        status = err == FELIX_NOT_FOUND ? not_there(cli, &target, "found")
                                        : cache_failed("get", &target, err);
    }
    felix_free((void *)(uintptr_t)value.data);
    felix_close(client, 0);
    return status;
}

int cmd_cache_del(struct cli *cli) {
    const struct command_help help = {
        .name = "felix cache del",
        .summary = "delete a value",
        .usage = "CACHE KEY",
        .text = "Exits with 1 when there is no such key.",
        .examples = "  felix cache del sessions alice",
    };
    struct args args = {.options = NULL};
    int status = cli_parse(cli, &args, &help, 2, 2);
    if (status != CLI_GO_ON)
        return status;
    struct cache_target target = {args.operands[0], args.operands[1]};
    felix_client *client;
    status = cli_connect(cli, &client);
    if (status != CLI_GO_ON)
        return status;
    enum felix_err err = felix_cache_delete(client, cli->space, target.cache, target.key, NULL);
    if (err == FELIX_OK) {
        if (cli->json)
            (void)printf("{\"deleted\":true}\n");
        else if (!cli->quiet && out_is_terminal())
            (void)printf("deleted '%s' from cache '%s'\n", target.key, target.cache);
        status = EXIT_DONE;
    } else {
        status = err == FELIX_NOT_FOUND ? not_there(cli, &target, "deleted")
                                        : cache_failed("delete", &target, err);
    }
    felix_close(client, 0);
    return status;
}
