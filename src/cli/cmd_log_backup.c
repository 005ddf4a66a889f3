/* felix log backup, restore: logs as files, elsewhere. Both need no broker and mind none. */
#include "cli/log_place.h"

#include "base/clock.h"
#include "storage/backup.h"

#include <inttypes.h>

static void print_json(const char *event, const char *target, const struct backup_result *result) {
    const struct manifest *manifest = &result->manifest;
    for (size_t i = 0; i < manifest->logs_count; i++) {
        const struct manifest_log *log = &manifest->logs[i];
        struct text line = {0};
        text_printf(&line, "{\"event\":\"%s\",\"log\":\"%s\",\"target\":", event, log->name);
        text_quoted(&line, slice_str(target));
        uint64_t bytes = 0;
        for (size_t f = 0; f < log->files_count; f++)
            bytes += log->files[f].bytes;
        text_printf(&line,
                    ",\"base_offset\":%" PRIu64 ",\"end_offset\":%" PRIu64
                    ",\"segments\":%zu,\"bytes\":%" PRIu64 ",\"damaged_ranges\":%zu}",
                    log->range.first, log->range.end, log->files_count, bytes, log->damage_count);
        (void)puts(text_str(&line));
        text_deinit(&line);
    }
}

static void print_plain(const char *done, const char *target, const struct backup_result *result) {
    const struct manifest *manifest = &result->manifest;
    for (size_t i = 0; i < manifest->logs_count; i++) {
        const struct manifest_log *log = &manifest->logs[i];
        (void)printf("%s: %s, every record from offset %" PRIu64 " up to %" PRIu64 " (%s)\n",
                     log->name, done, log->range.first, log->range.end,
                     out_count(log->range.end - log->range.first).text);
    }
    (void)printf("%zu log%s, %s bytes: %s\n", manifest->logs_count,
                 manifest->logs_count == 1 ? "" : "s", out_count(result->bytes).text, target);
}

/* Prints the result and what is not as good as it could be. */
static int report(const struct cli *cli, const char *event, const char *done, const char *target,
                  struct backup_result *result) {
    if (cli->json)
        print_json(event, target, result);
    else if (!cli->quiet)
        print_plain(done, target, result);
    int status = EXIT_DONE;
    for (size_t i = 0; i < result->manifest.logs_count; i++) {
        const struct manifest_log *log = &result->manifest.logs[i];
        for (size_t d = 0; d < log->damage_count; d++) {
            out_error("%s: the records %" PRIu64 " to %" PRIu64
                      " are damaged, in the copy as in the original",
                      log->name, log->damage[d].first, log->damage[d].end - 1);
            status = EXIT_NOTHING;
        }
    }
    if (result->removed_under_us > 0 && !cli->quiet)
        (void)fprintf(stderr, "%zu segment%s were removed by retention meanwhile and left out\n",
                      result->removed_under_us, result->removed_under_us == 1 ? "" : "s");
    backup_result_deinit(result);
    return status;
}

int cmd_log_backup(struct cli *cli) {
    const struct command_help help = {
        .name = "felix log backup",
        .summary = "copy the log of a stream, or all of a node",
        .usage = "DIR|STREAM TARGET",
        .text =
            "DIR is the directory of a log, or of several. TARGET is made. A broker may be\n"
            "serving meanwhile: what is in the backup of a log is every record up to the offset\n"
            "that is printed, at least what was on disk when its turn came. Blocks are shared\n"
            "where the file system can. Everything is flushed before the manifest is written,\n"
            "which makes it a backup. Status 1 when damaged records were copied as they are.",
        .examples = "  felix log backup orders /backups/orders-monday\n"
                    "  felix log backup /var/lib/felix/streams /backups/monday --json",
    };
    struct args args = {.options = NULL};
    int status = cli_parse(cli, &args, &help, 2, 2);
    if (status != CLI_GO_ON)
        return status;
    struct log_place place;
    status = log_place_find(cli, help.name, args.operands[0], LOG_PLACE_ANY, &place);
    if (status != CLI_GO_ON)
        return status;
    const struct backup_request request = {
        .source = place.path,
        .target = args.operands[1],
        .node = place.node,
        .now_us = clock_wall_ns() / NS_PER_US,
    };
    struct backup_result result;
    struct felix_error error = {.text = ""};
    enum felix_err err = backup_make(&disk_posix, &request, &result, &error);
    if (err != FELIX_OK)
        return log_place_failed(err, &error);
    return report(cli, "backup", "copied", request.target, &result);
}

int cmd_log_restore(struct cli *cli) {
    struct restore_request request = {.damaged_too = false};
    const struct arg_option options[] = {
        {.name = "--damaged-too",
         .type = ARG_FLAG,
         .value = &request.damaged_too,
         .help = "also when the backup was made of a damaged log"},
        {.name = NULL},
    };
    const struct command_help help = {
        .name = "felix log restore",
        .summary = "make logs of a backup",
        .usage = "BACKUP TARGET",
        .text = "TARGET becomes the directory of the log, or that of the node's logs; nothing is\n"
                "overwritten. Every file and every record is checked against the manifest before\n"
                "TARGET gets its name, so it is there as a whole or not at all.",
        .examples = "  felix log restore /backups/monday /var/lib/felix/streams",
    };
    struct args args = {.options = options};
    int status = cli_parse(cli, &args, &help, 2, 2);
    if (status != CLI_GO_ON)
        return status;
    request.source = args.operands[0];
    request.target = args.operands[1];
    struct backup_result result;
    struct felix_error error = {.text = ""};
    enum felix_err err = backup_restore(&disk_posix, &request, &result, &error);
    if (err != FELIX_OK)
        return log_place_failed(err, &error);
    return report(cli, "restore", "restored", request.target, &result);
}
