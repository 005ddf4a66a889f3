/*
 * felix stream create, list, show, delete: the streams of a namespace.
 *
 * The broker decides; this asks, and prints what it says: a table on a terminal, fields split by
 * tabs into a pipe, one JSON object a line with --json.
 */
#include "cli/cli.h"

#include "base/check.h"
#include "base/options.h"
#include "cli/stream_view.h"
#include "client/request.h"
#include "wire/stream_admin.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- asking ---- */

/* Copies a name that the request has room for. */
static bool set_name(char out[STREAM_NAME_BYTES], const char *name) {
    if (!name_valid(slice_str(name)))
        return false;
    memcpy(out, name, strlen(name) + 1);
    return true;
}

/* Fills the names. Returns CLI_GO_ON, or the exit code after saying which one cannot be. */
static int set_names(const struct cli *cli, const char *stream, struct stream_request *ret) {
    const char *tenant = felix_options_tenant(cli->options);
    const char *wrong = NULL;
    if (!set_name(ret->tenant, tenant))
        wrong = tenant;
    else if (!set_name(ret->space, cli->space))
        wrong = cli->space;
    else if (stream != NULL && !set_name(ret->stream, stream))
        wrong = stream;
    if (wrong == NULL)
        return CLI_GO_ON;
    out_error("'%.100s' cannot be a name: 1 to 255 bytes without '/', ':', '*' and control "
              "characters",
              wrong);
    return EXIT_USAGE;
}

static enum felix_err ask(const struct cli *cli, felix_client *client,
                          const struct stream_request *request, struct stream_answer *ret) {
    struct text body = {0}, answer = {0};
    stream_request_encode(request, &body);
    struct extension_request extension = {
        .name = STREAM_ADMIN_EXTENSION,
        .body = slice_of(text_str(&body), body.len),
        .own_features = OWN_ADMIN,
        .timeout_ms = cli_timeout_ms(cli),
    };
    enum felix_err err = client_request(client, &extension, &answer);
    if (err == FELIX_OK)
        err = stream_answer_decode(slice_of(text_str(&answer), answer.len), ret);
    text_deinit(&body);
    text_deinit(&answer);
    return err;
}

/* What the broker does not take is a refusal, not a mistake in the arguments: those were looked at
 * here. */
static int refused(const char *verb, const char *stream, enum felix_err err) {
    char what[200];
    (void)snprintf(what, sizeof what, "cannot %s stream '%.100s'", verb, stream);
    int status = cli_failed(what, err, err == FELIX_MALFORMED ? "unreadable answer" : NULL);
    return err == FELIX_INVALID_ARGUMENT ? EXIT_REFUSED : status;
}

/* Connect and ask for one stream. CLI_GO_ON with *ret, which needs stream_answer_deinit. */
static int ask_once(struct cli *cli, struct stream_request *request, const char *stream,
                    struct stream_answer *ret) {
    felix_client *client;
    int status = cli_connect(cli, &client);
    if (status != CLI_GO_ON)
        return status;
    status = set_names(cli, stream, request);
    if (status == CLI_GO_ON) {
        enum felix_err err = ask(cli, client, request, ret);
        if (err == FELIX_OK && ret->count == 0)
            err = FELIX_MALFORMED;
        if (err != FELIX_OK)
            status = refused(stream_op_name(request->op), stream, err);
    }
    felix_close(client, 0);
    return status;
}

/* ---- the commands ---- */

static int parse_retention(const char *name, const char *bytes, struct stream_request *request) {
    if (bytes != NULL && !option_bytes_parse(bytes, &request->retention_bytes))
        return out_usage(name, "--retention-bytes: not a number of bytes, such as 500MiB");
    request->has_retention_bytes = bytes != NULL;
    if (!request->durable && (request->has_retention_bytes || request->has_retention_seconds))
        return out_usage(name, "only a durable stream has retention: add --durable");
    return CLI_GO_ON;
}

int cmd_stream_create(struct cli *cli) {
    struct stream_request request = {.op = STREAM_OP_CREATE};
    const char *bytes = NULL;
    const struct arg_option options[] = {
        {.name = "--durable",
         .type = ARG_FLAG,
         .value = &request.durable,
         .help = "keep it on disk: acknowledged means written there"},
        {.name = "--retention-bytes",
         .type = ARG_TEXT,
         .value = &bytes,
         .meta = "N",
         .help = "keep at most so much: 500MiB, 10GiB; 0: the broker's default"},
        {.name = "--retention-seconds",
         .type = ARG_U64,
         .value = &request.retention_seconds,
         .given = &request.has_retention_seconds,
         .meta = "N",
         .help = "keep records for that long; 0: the broker's default"},
        {.name = NULL},
    };
    const struct command_help help = {
        .name = "felix stream create",
        .summary = "make a stream",
        .usage = "STREAM",
        .text =
            "On a development broker. The stream is kept in its data directory and there again\n"
            "after a restart. A stream that exists with these settings is no failure; another\n"
            "retention is changed, and what was not given stays as it is.",
        .examples = "  felix stream create orders --durable\n"
                    "  felix stream create audit --durable --retention-bytes 10GiB",
    };
    struct args args = {.options = options};
    int status = cli_parse(cli, &args, &help, 1, 1);
    if (status == CLI_GO_ON)
        status = parse_retention(help.name, bytes, &request);
    if (status != CLI_GO_ON)
        return status;
    struct stream_answer answer = {0};
    status = ask_once(cli, &request, args.operands[0], &answer);
    if (status == CLI_GO_ON) {
        stream_view_outcome(cli, &answer);
        status = EXIT_DONE;
    }
    stream_answer_deinit(&answer);
    return status;
}

/* Page after page, because one answer holds so many only. */
static int list_all(struct cli *cli, felix_client *client, struct stream_answer *ret) {
    struct stream_request request = {.op = STREAM_OP_LIST};
    int status = set_names(cli, NULL, &request);
    bool more = status == CLI_GO_ON;
    while (more) {
        struct stream_answer page = {0};
        enum felix_err err = ask(cli, client, &request, &page);
        /* An answer that leads nowhere would be asked for without end. */
        if (err == FELIX_OK && page.more &&
            (page.count == 0 || strcmp(page.entries[0].stream, request.after) <= 0))
            err = FELIX_MALFORMED;
        if (err != FELIX_OK) {
            stream_answer_deinit(&page);
            return refused("list", "*", err);
        }
        ret->entries = xrealloc(ret->entries, (ret->count + page.count + 1) * sizeof *ret->entries);
        memcpy(&ret->entries[ret->count], page.entries, page.count * sizeof *page.entries);
        ret->count += page.count;
        more = page.more;
        if (more)
            memcpy(request.after, page.entries[page.count - 1].stream, sizeof request.after);
        stream_answer_deinit(&page);
    }
    return status;
}

int cmd_stream_list(struct cli *cli) {
    const struct command_help help = {
        .name = "felix stream list",
        .summary = "show the streams of a namespace",
        .usage = "",
        .text =
            "Into a pipe: name, memory or durable, state, oldest and next offset, bytes, files,\n"
            "retention in bytes and in seconds, and subscriptions, split by tabs.",
        .examples = "  felix stream list\n"
                    "  felix stream list --json | jq -r 'select(.durable).stream'",
    };
    struct args args = {.options = NULL};
    int status = cli_parse(cli, &args, &help, 0, 0);
    if (status != CLI_GO_ON)
        return status;
    felix_client *client;
    status = cli_connect(cli, &client);
    if (status != CLI_GO_ON)
        return status;
    struct stream_answer all = {0};
    status = list_all(cli, client, &all);
    felix_close(client, 0);
    if (status == CLI_GO_ON) {
        stream_view_list(cli, all.entries, all.count);
        status = EXIT_DONE;
    }
    stream_answer_deinit(&all);
    return status;
}

int cmd_stream_show(struct cli *cli) {
    struct stream_request request = {.op = STREAM_OP_SHOW};
    const struct command_help help = {
        .name = "felix stream show",
        .summary = "show one stream",
        .usage = "STREAM",
        .text = "Into a pipe: the fields of 'felix stream list'. Exits with 1 when there is none.",
        .examples = "  felix stream show orders",
    };
    struct args args = {.options = NULL};
    int status = cli_parse(cli, &args, &help, 1, 1);
    if (status != CLI_GO_ON)
        return status;
    struct stream_answer answer = {0};
    status = ask_once(cli, &request, args.operands[0], &answer);
    if (status == CLI_GO_ON) {
        if (!cli->json && out_is_terminal())
            stream_view_details(&answer.entries[0]);
        else
            stream_view_list(cli, answer.entries, 1);
        status = EXIT_DONE;
    }
    stream_answer_deinit(&answer);
    return status;
}

/* Ask before records are lost for good. CLI_GO_ON, or the exit code. */
static int confirm(struct cli *cli, felix_client *client, const struct stream_request *delete) {
    struct stream_request request = *delete;
    struct stream_answer answer = {0};
    char line[16] = "";
    request.op = STREAM_OP_SHOW;
    request.purge = false;
    enum felix_err err = ask(cli, client, &request, &answer);
    if (err == FELIX_OK && answer.count == 0)
        err = FELIX_MALFORMED;
    if (err != FELIX_OK) {
        stream_answer_deinit(&answer);
        return refused("delete", request.stream, err);
    }
    const struct stream_entry *entry = &answer.entries[0];
    char *name = stream_view_name(entry->stream);
    (void)fprintf(stderr, "delete stream '%s' and its %s records (%s) for good? [y/N] ", name,
                  out_count(entry->end - entry->oldest).text, stream_view_bytes(entry->bytes).text);
    free(name);
    stream_answer_deinit(&answer);
    if (fgets(line, sizeof line, stdin) != NULL && (line[0] == 'y' || line[0] == 'Y'))
        return CLI_GO_ON;
    out_error("nothing was deleted");
    return EXIT_NOTHING;
}

static int delete_stream(struct cli *cli, felix_client *client, const char *stream,
                         struct stream_request *request, bool yes) {
    struct stream_answer answer = {0};
    int status = set_names(cli, stream, request);
    if (status == CLI_GO_ON && request->purge && !yes)
        status = confirm(cli, client, request);
    if (status != CLI_GO_ON)
        return status;
    enum felix_err err = ask(cli, client, request, &answer);
    if (err == FELIX_OK && answer.count == 0)
        err = FELIX_MALFORMED;
    if (err == FELIX_OK)
        stream_view_outcome(cli, &answer);
    stream_answer_deinit(&answer);
    return err == FELIX_OK ? EXIT_DONE : refused("delete", stream, err);
}

int cmd_stream_delete(struct cli *cli) {
    struct stream_request request = {.op = STREAM_OP_DELETE};
    bool yes = false;
    const struct arg_option options[] = {
        {.name = "--purge",
         .type = ARG_FLAG,
         .value = &request.purge,
         .help = "delete the records on disk too"},
        {.name = "--yes", .alias = "-y", .type = ARG_FLAG, .value = &yes, .help = "do not ask"},
        {.name = NULL},
    };
    const struct command_help help = {
        .name = "felix stream delete",
        .summary = "delete a stream",
        .usage = "STREAM",
        .text =
            "On a development broker. Subscriptions end. The files of a durable stream stay, and\n"
            "a stream that is made again under this name has their records; --purge deletes\n"
            "them for good, and asks before. Exits with 1 when there is no such stream.",
        .examples = "  felix stream delete orders\n"
                    "  felix stream delete orders --purge --yes",
    };
    struct args args = {.options = options};
    int status = cli_parse(cli, &args, &help, 1, 1);
    if (status != CLI_GO_ON)
        return status;
    if (request.purge && !yes && isatty(STDIN_FILENO) != 1)
        return out_usage(help.name, "--purge asks on a terminal, and this is none: add --yes");
    felix_client *client;
    status = cli_connect(cli, &client);
    if (status != CLI_GO_ON)
        return status;
    status = delete_stream(cli, client, args.operands[0], &request, yes);
    felix_close(client, 0);
    return status;
}
