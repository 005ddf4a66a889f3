/* felix log verify: check every record of a log, or a backup. Reads only. */
#include "cli/log_place.h"

#include "cli/log_view.h"
#include "storage/backup.h"
#include "storage/generated.h"

#include <inttypes.h>

struct verify {
    const struct cli *cli;
    uint64_t expect_at_least;
    uint64_t payload_bytes;
    bool check_payloads;
    uint64_t wrong_payloads; /* of the log at hand */
    uint64_t first_wrong;
};

static bool on_record(void *context, const struct survey_segment *segment, uint64_t position,
                      const struct record *record) {
    struct verify *v = context;
    if (!v->check_payloads ||
        generated_is(record->offset, (size_t)v->payload_bytes, record->payload))
        return true;
    if (v->wrong_payloads++ == 0)
        v->first_wrong = record->offset;
    return true;
}

static void print_json(const struct verify *v, const char *name, const struct survey *survey,
                       bool good) {
    struct text line = {0};
    text_add(&line, "{\"log\":");
    text_quoted(&line, slice_str(name));
    text_printf(&line,
                ",\"ok\":%s,\"base_offset\":%" PRIu64 ",\"tail_offset\":%" PRIu64
                ",\"records\":%" PRIu64 ",\"segments\":%zu,\"bytes\":%" PRIu64
                ",\"unfinished_bytes\":%" PRIu64,
                good ? "true" : "false", survey->oldest, survey->end, survey->records,
                survey->segments_count, survey->bytes, log_view_unfinished_bytes(survey));
    if (v->check_payloads)
        text_printf(&line, ",\"wrong_payloads\":%" PRIu64, v->wrong_payloads);
    text_add(&line, ",\"damage\":");
    log_view_damage_json(&line, survey);
    text_char(&line, '}');
    (void)puts(text_str(&line));
    text_deinit(&line);
}

static void print_plain(const struct verify *v, const char *name, const struct survey *survey) {
    if (v->cli->quiet)
        return;
    (void)printf("%s: %s records, offsets %" PRIu64 " up to %" PRIu64 ", %zu segment%s, %s bytes\n",
                 name, out_count(survey->records).text, survey->oldest, survey->end,
                 survey->segments_count, survey->segments_count == 1 ? "" : "s",
                 out_count(survey->bytes).text);
    if (log_view_unfinished_bytes(survey) > 0)
        (void)printf("%s: %s bytes of an unfinished write at the end, no damage\n", name,
                     out_count(log_view_unfinished_bytes(survey)).text);
}

static void say_what_is_wrong(const struct verify *v, const char *name,
                              const struct survey *survey) {
    for (size_t i = 0; i < survey->damage_count; i++)
        out_error("%s: %s", name, log_view_damage(&survey->damage[i]).text);
    if (v->wrong_payloads > 0)
        out_error("%s: %s payloads are not the generated ones of %zu bytes, the first at offset "
                  "%" PRIu64,
                  name, out_count(v->wrong_payloads).text,
                  generated_bytes((size_t)v->payload_bytes), v->first_wrong);
    if (survey->records < v->expect_at_least)
        out_error("%s: %" PRIu64 " records are fewer than the %" PRIu64 " expected", name,
                  survey->records, v->expect_at_least);
}

static int verify_log(void *context, const char *dir, const char *name) {
    struct verify *v = context;
    const struct survey_options options = {.on_record = on_record, .context = v};
    struct survey survey;
    struct felix_error error = {.text = ""};
    v->wrong_payloads = 0;
    enum felix_err err = survey_log(&disk_posix, dir, &options, &survey, &error);
    if (err != FELIX_OK)
        return log_place_failed(err, &error);
    bool good =
        survey.damage_count == 0 && v->wrong_payloads == 0 && survey.records >= v->expect_at_least;
    if (v->cli->json)
        print_json(v, name, &survey, good);
    else
        print_plain(v, name, &survey);
    say_what_is_wrong(v, name, &survey);
    survey_deinit(&survey);
    return good ? EXIT_DONE : EXIT_NOTHING;
}

/* A backup checks itself: every file and every record against its manifest. */
static int verify_backup(const struct verify *v, const char *path) {
    struct backup_result result;
    struct felix_error error = {.text = ""};
    enum felix_err err = backup_check(&disk_posix, path, &result, &error);
    if (err == FELIX_DAMAGED) {
        out_error("%s", error.text);
        return EXIT_NOTHING;
    }
    if (err != FELIX_OK)
        return log_place_failed(err, &error);
    size_t damaged = 0;
    for (size_t i = 0; i < result.manifest.logs_count; i++) {
        const struct manifest_log *log = &result.manifest.logs[i];
        damaged += log->damage_count > 0;
        if (v->cli->json)
            (void)printf("{\"log\":\"%s\",\"ok\":%s,\"base_offset\":%" PRIu64
                         ",\"tail_offset\":%" PRIu64 ",\"segments\":%zu,\"damaged_ranges\":%zu}\n",
                         log->name, log->damage_count == 0 ? "true" : "false", log->range.first,
                         log->range.end, log->files_count, log->damage_count);
        else if (!v->cli->quiet)
            (void)printf("%s: as the manifest says, offsets %" PRIu64 " up to %" PRIu64
                         ", %zu damaged ranges\n",
                         log->name, log->range.first, log->range.end, log->damage_count);
    }
    backup_result_deinit(&result);
    return damaged == 0 ? EXIT_DONE : EXIT_NOTHING;
}

static bool is_backup(const char *path) {
    char manifest[PATH_MAX];
    int bytes = snprintf(manifest, sizeof manifest, "%s/" MANIFEST_FILE_NAME, path);
    if (bytes < 0 || bytes >= PATH_MAX)
        return false;
    int file = disk_posix.ops->open(disk_posix.context, manifest, DISK_READ);
    if (file >= 0)
        (void)disk_posix.ops->close(disk_posix.context, file);
    return file >= 0;
}

int cmd_log_verify(struct cli *cli) {
    const char *dir = NULL;
    struct verify v = {.cli = cli};
    const struct arg_option options[] = {
        {.name = "--dir",
         .type = ARG_TEXT,
         .value = &dir,
         .meta = "DIR",
         .help = "a directory, as the argument is"},
        {.name = "--expect-at-least",
         .type = ARG_U64,
         .value = &v.expect_at_least,
         .meta = "N",
         .help = "fail unless a log has so many records"},
        {.name = "--payload-bytes",
         .type = ARG_U64,
         .value = &v.payload_bytes,
         .given = &v.check_payloads,
         .max = RECORD_PAYLOAD_BYTES_MAX,
         .meta = "N",
         .help = "fail unless payloads are those of 'felix log write', that long"},
        {.name = NULL},
    };
    const struct command_help help = {
        .name = "felix log verify",
        .summary = "check every record of a log, or a backup",
        .usage = "[DIR|STREAM|BACKUP]",
        .text = "Of the log in a directory, of each log in a directory of logs, or of a stream of\n"
                "the development broker; without an argument, of all of that broker's. Changes\n"
                "nothing; a broker may be serving the log meanwhile. Status 1 when something is\n"
                "damaged or not as expected, which is said with its offsets. What a crash left at\n"
                "the end of a log is no damage.",
        .examples = "  felix log verify orders\n  felix log verify /backups/monday",
    };
    struct args args = {.options = options};
    int status = cli_parse(cli, &args, &help, 0, 1);
    if (status != CLI_GO_ON)
        return status;
    struct log_place place;
    const char *named = dir != NULL ? dir : args.operands_count > 0 ? args.operands[0] : NULL;
    if (named != NULL && is_backup(named))
        return verify_backup(&v, named);
    status = log_place_find(cli, help.name, named, LOG_PLACE_ANY, &place);
    return status == CLI_GO_ON ? log_place_each(&place, verify_log, &v) : status;
}
