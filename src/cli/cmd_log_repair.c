/*
 * felix log repair: do what opening a log does, now, and say it; or only say it (--dry-run).
 *
 * Nothing here decides what is done: record_log does, as in a broker. The dry run opens the log
 * read-only for the verdict and takes the particulars from a survey.
 */
#include "cli/log_place.h"

#include "cli/log_lock.h"
#include "cli/log_view.h"
#include "storage/record_log.h"

#include <inttypes.h>

struct repair {
    const struct cli *cli;
    struct record_log_settings settings;
    bool dry_run;
};

/* What is done, or would be, to one log. */
struct actions {
    uint64_t removed_segments; /* behind the end; put aside when there is something in them */
    uint64_t cut_bytes;        /* behind the last record, of an unfinished write or zeros */
    uint64_t kept_bytes;       /* of these, what is kept in a .torn file */
    uint64_t indexes;          /* made anew */
    uint64_t damaged_ranges;
};

static void count_segment(const struct survey_segment *segment, struct actions *actions) {
    if (segment->leftover) {
        actions->removed_segments++;
        return;
    }
    if (segment->index != SURVEY_INDEX_GOOD)
        actions->indexes++;
    if (segment->tail == SURVEY_TAIL_NONE || segment->tail_damaged)
        return;
    actions->cut_bytes += segment->tail_bytes;
    if (segment->tail == SURVEY_TAIL_DOUBTFUL)
        actions->kept_bytes += segment->tail_bytes;
}

static void count_actions(const struct survey *survey, struct actions *ret) {
    *ret = (struct actions){.damaged_ranges = survey->damage_count};
    for (size_t i = 0; i < survey->segments_count; i++)
        count_segment(&survey->segments[i], ret);
}

static void print_json(const struct repair *r, const char *name, const struct actions *a,
                       enum felix_err err, const struct felix_error *error) {
    struct text line = {0};
    text_add(&line, "{\"log\":");
    text_quoted(&line, slice_str(name));
    text_printf(&line,
                ",\"dry_run\":%s,\"opens\":%s,\"removed_segments\":%" PRIu64
                ",\"cut_bytes\":%" PRIu64 ",\"kept_bytes\":%" PRIu64 ",\"indexes\":%" PRIu64
                ",\"damaged_ranges\":%" PRIu64,
                r->dry_run ? "true" : "false", err == FELIX_OK ? "true" : "false",
                a->removed_segments, a->cut_bytes, a->kept_bytes, a->indexes, a->damaged_ranges);
    if (err != FELIX_OK) {
        text_add(&line, ",\"error\":");
        text_quoted(&line, slice_str(error->text));
    }
    text_add(&line, "}");
    (void)puts(text_str(&line));
    text_deinit(&line);
}

static void print_plain(const struct repair *r, const char *name, const struct actions *a) {
    const char *will = r->dry_run ? "would be " : "";
    if (a->removed_segments > 0)
        (void)printf("%s: %" PRIu64
                     " segment%s behind the end %sremoved, or put aside unless empty\n",
                     name, a->removed_segments, a->removed_segments == 1 ? "" : "s", will);
    if (a->cut_bytes > 0)
        (void)printf("%s: %s bytes behind the last record %scut off, %s of them %skept aside\n",
                     name, out_count(a->cut_bytes).text, will, out_count(a->kept_bytes).text, will);
    if (a->indexes > 0)
        (void)printf("%s: %" PRIu64 " index%s %smade anew\n", name, a->indexes,
                     a->indexes == 1 ? "" : "es", will);
    if (a->damaged_ranges > 0)
        (void)printf("%s: %" PRIu64 " damaged range%s: what is in the files %sleft as it is, the "
                     "records are not served\n",
                     name, a->damaged_ranges, a->damaged_ranges == 1 ? "" : "s", will);
    if (a->removed_segments + a->cut_bytes + a->indexes + a->damaged_ranges == 0)
        (void)printf("%s: nothing %s\n", name, r->dry_run ? "would be done" : "to do");
}

static int report(const struct repair *r, const char *name, const struct actions *actions,
                  enum felix_err err, const struct felix_error *error) {
    if (r->cli->json)
        print_json(r, name, actions, err, error);
    else if (!r->cli->quiet && (err == FELIX_OK || r->dry_run))
        print_plain(r, name, actions);
    if (err != FELIX_OK)
        return log_place_failed(err, error);
    return actions->damaged_ranges > 0 ? EXIT_NOTHING : EXIT_DONE;
}

static int dry_run(const struct repair *r, const char *dir, const char *name) {
    struct survey survey;
    struct actions actions;
    struct felix_error error = {.text = ""};
    enum felix_err err = survey_log(&disk_posix, dir, NULL, &survey, &error);
    if (err != FELIX_OK)
        return log_place_failed(err, &error);
    count_actions(&survey, &actions);
    survey_deinit(&survey);
    struct record_log *log = NULL;
    err = record_log_open_read_only(&disk_posix, dir, name, &r->settings, &log, NULL, &error);
    if (log != NULL)
        record_log_abandon(log);
    return report(r, name, &actions, err, &error);
}

/* Opens the log, checks every sealed segment, which makes the indexes anew, and closes it. */
static enum felix_err open_and_close(const struct repair *r, const char *dir, const char *name,
                                     struct felix_error *reterr) {
    struct record_log *log = NULL;
    enum felix_err err = record_log_open(&disk_posix, dir, name, &r->settings, &log, NULL, reterr);
    bool more = true;
    while (err == FELIX_OK && more)
        err = record_log_verify_next(log, &more, reterr);
    if (log != NULL && err == FELIX_OK) {
        err = record_log_close(log);
        if (err != FELIX_OK)
            err = error_set(reterr, err, 0, "%s could not be closed in order", dir);
    } else if (log != NULL) {
        record_log_abandon(log);
    }
    return err;
}

static int repair(const struct repair *r, const char *dir, const char *name) {
    struct survey survey;
    struct actions actions;
    struct log_lock lock;
    struct felix_error error = {.text = ""};
    enum felix_err err = log_lock_take(&lock, dir, &error);
    if (err != FELIX_OK)
        return log_place_failed(err, &error);
    err = survey_log(&disk_posix, dir, NULL, &survey, &error);
    if (err == FELIX_OK) {
        count_actions(&survey, &actions);
        survey_deinit(&survey);
        err = open_and_close(r, dir, name, &error);
    } else {
        actions = (struct actions){.indexes = 0};
    }
    log_lock_drop(&lock);
    return report(r, name, &actions, err, &error);
}

static int each(void *context, const char *dir, const char *name) {
    const struct repair *r = context;
    return r->dry_run ? dry_run(r, dir, name) : repair(r, dir, name);
}

int cmd_log_repair(struct cli *cli) {
    const char *dir = NULL;
    struct repair r = {
        .cli = cli,
        .settings =
            {
                .sync = LOG_SYNC_ON_COMMIT,
                .segment_bytes = (uint64_t)256 << 20,
                .index_spacing_bytes = 4096,
                .read_records_max = 10000,
            },
    };
    const struct arg_option options[] = {
        {.name = "--dir",
         .type = ARG_TEXT,
         .value = &dir,
         .meta = "DIR",
         .help = "a directory, as the argument is"},
        {.name = "--dry-run",
         .type = ARG_FLAG,
         .value = &r.dry_run,
         .help = "say what would be done, change nothing"},
        {.name = "--repair-checksum-tail",
         .type = ARG_FLAG,
         .value = &r.settings.repair_checksum_tail,
         .help = "without a checkpoint: a damaged record at the very end may go, too"},
        {.name = NULL},
    };
    const struct command_help help = {
        .name = "felix log repair",
        .summary = "do what opening does: cut, rebuild indexes",
        .usage = "DIR|STREAM",
        .text =
            "Cuts off what an unfinished write left behind the last record, with the segments\n"
            "behind that, makes indexes anew and flushes the log. Bytes\n"
            "that may have been more than an unfinished write are kept in a file NNN.torn-BYTE.\n"
            "Damaged records stay in their files and are not served; status 1 when there are\n"
            "any. A broker does the same when it opens the log. Not while one serves it.",
        .examples =
            "  felix log repair orders --dry-run\n  felix log repair /data/streams/orders_0-1",
    };
    struct args args = {.options = options};
    int status = cli_parse(cli, &args, &help, 0, 1);
    if (status != CLI_GO_ON)
        return status;
    struct log_place place;
    const char *named = dir != NULL ? dir : args.operands_count > 0 ? args.operands[0] : NULL;
    if (named == NULL)
        return out_usage(help.name, "which log? Name a directory or a stream");
    status = log_place_find(cli, help.name, named, LOG_PLACE_ANY, &place);
    return status == CLI_GO_ON ? log_place_each(&place, each, &r) : status;
}
