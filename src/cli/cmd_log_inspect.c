/* felix log inspect: what is in the directory of a log. Reads only, also while a broker serves. */
#include "cli/log_place.h"

#include "cli/log_view.h"

#include <inttypes.h>

static void print_range(uint64_t first, uint64_t end) {
    if (end > first)
        (void)printf("%" PRIu64 " to %" PRIu64, first, end - 1);
    else
        (void)printf("none, next is %" PRIu64, end);
}

static void print_tail(const struct survey_segment *segment) {
    struct duration_text bytes = out_count(segment->tail_bytes);
    switch (segment->tail) {
    case SURVEY_TAIL_NONE:
        break;
    case SURVEY_TAIL_ZEROS:
        (void)printf("; %s bytes set ahead", bytes.text);
        break;
    case SURVEY_TAIL_TORN:
        (void)printf("; %s bytes of an unfinished write", bytes.text);
        break;
    case SURVEY_TAIL_DOUBTFUL:
        (void)printf("; %s bytes behind the last record", bytes.text);
        break;
    }
}

static void print_segment(const struct survey_segment *segment) {
    char range[64];
    if (segment->end > segment->first)
        (void)snprintf(range, sizeof range, "%" PRIu64 " .. %" PRIu64, segment->first,
                       segment->end - 1);
    else
        (void)snprintf(range, sizeof range, "%" PRIu64 " ..", segment->first);
    (void)printf("  %7" PRIu64 "  %-25s %13s  %15s  %-27s  ", segment->id, range,
                 out_count(segment->records).text, out_count(segment->used_bytes).text,
                 segment->created_us != 0 ? out_time(segment->created_us).text : "-");
    (void)printf("%s, index %s", segment->newest ? "newest" : "sealed",
                 survey_index_name(segment->index));
    if (segment->header != SEGMENT_HEADER_OK)
        (void)printf("; %s", segment_header_fault_text(segment->header));
    if (segment->leftover)
        (void)printf("; behind the end of the log, opening removes it or puts it aside");
    print_tail(segment);
    (void)printf("\n");
}

static void print_checkpoint(const struct checkpoint *checkpoint) {
    if (!checkpoint->valid) {
        (void)printf("  checkpoint  none\n");
        return;
    }
    (void)printf("  checkpoint  everything below %" PRIu64 " was on disk (segment %" PRIu64
                 ", byte %" PRIu64 ")%s\n",
                 checkpoint->mark.offset, checkpoint->mark.segment, checkpoint->mark.position,
                 checkpoint->clean ? ", closed in order" : "");
}

static void print_damage(const struct survey *survey) {
    for (size_t i = 0; i < survey->damage_count; i++)
        (void)printf("  damage      %s\n", log_view_damage(&survey->damage[i]).text);
    for (size_t i = 0; i < survey->torn_count; i++)
        (void)printf("  torn file   %s, %s bytes that recovery cut off\n", survey->torn[i].name,
                     out_count(survey->torn[i].bytes).text);
}

static void print_log(const char *dir, const char *name, const struct survey *survey) {
    (void)printf("%s\n  directory   %s\n  records     ", name, dir);
    print_range(survey->oldest, survey->end);
    (void)printf(" (%s), %s bytes in %zu segment%s\n", out_count(survey->records).text,
                 out_count(survey->bytes).text, survey->segments_count,
                 survey->segments_count == 1 ? "" : "s");
    print_checkpoint(&survey->checkpoint);
    print_damage(survey);
    (void)printf("  %7s  %-25s %13s  %15s  %-27s  %s\n", "segment", "offsets", "records", "bytes",
                 "created", "state");
    for (size_t i = 0; i < survey->segments_count; i++)
        print_segment(&survey->segments[i]);
}

/* ---- JSON ---- */

static void add_segment(struct text *line, const struct survey_segment *s) {
    text_printf(line,
                "{\"segment\":%" PRIu64 ",\"state\":\"%s\",\"base_offset\":%" PRIu64
                ",\"end_offset\":%" PRIu64 ",\"records\":%" PRIu64 ",\"bytes\":%" PRIu64
                ",\"file_bytes\":%" PRIu64,
                s->id,
                s->leftover ? "leftover"
                : s->newest ? "newest"
                            : "sealed",
                s->first, s->end, s->records, s->used_bytes, s->file_bytes);
    if (s->created_us != 0)
        text_printf(line, ",\"created_us\":%" PRIu64, s->created_us);
    if (s->records > 0)
        text_printf(line, ",\"first_timestamp_us\":%" PRIu64 ",\"last_timestamp_us\":%" PRIu64,
                    s->first_timestamp_us, s->last_timestamp_us);
    text_printf(line, ",\"index\":\"%s\",\"index_entries\":%" PRIu32 ",\"tail\":\"%s\"",
                survey_index_name(s->index), s->index_entries, survey_tail_name(s->tail));
    text_printf(line, ",\"tail_bytes\":%" PRIu64 ",\"header\":", s->tail_bytes);
    text_quoted(line, slice_str(segment_header_fault_text(s->header)));
    text_char(line, '}');
}

static void print_log_json(const char *dir, const char *name, const struct survey *survey) {
    struct text line = {0};
    text_add(&line, "{\"log\":");
    text_quoted(&line, slice_str(name));
    text_add(&line, ",\"dir\":");
    text_quoted(&line, slice_str(dir));
    text_printf(&line,
                ",\"base_offset\":%" PRIu64 ",\"end_offset\":%" PRIu64 ",\"records\":%" PRIu64
                ",\"bytes\":%" PRIu64 ",\"checkpoint\":",
                survey->oldest, survey->end, survey->records, survey->bytes);
    const struct checkpoint *c = &survey->checkpoint;
    if (c->valid)
        text_printf(&line,
                    "{\"offset\":%" PRIu64 ",\"segment\":%" PRIu64 ",\"position\":%" PRIu64
                    ",\"clean\":%s}",
                    c->mark.offset, c->mark.segment, c->mark.position, c->clean ? "true" : "false");
    else
        text_add(&line, "null");
    text_add(&line, ",\"segments\":[");
    for (size_t i = 0; i < survey->segments_count; i++) {
        text_add(&line, i > 0 ? "," : "");
        add_segment(&line, &survey->segments[i]);
    }
    text_add(&line, "],\"damage\":");
    log_view_damage_json(&line, survey);
    text_add(&line, ",\"torn_files\":[");
    for (size_t i = 0; i < survey->torn_count; i++) {
        text_printf(&line, "%s{\"bytes\":%" PRIu64 ",\"name\":", i > 0 ? "," : "",
                    survey->torn[i].bytes);
        text_quoted(&line, slice_str(survey->torn[i].name));
        text_char(&line, '}');
    }
    text_add(&line, "]}");
    (void)puts(text_str(&line));
    text_deinit(&line);
}

static int inspect(void *context, const char *dir, const char *name) {
    const struct cli *cli = context;
    struct survey survey;
    struct felix_error error = {.text = ""};
    enum felix_err err = survey_log(&disk_posix, dir, NULL, &survey, &error);
    if (err != FELIX_OK)
        return log_place_failed(err, &error);
    if (cli->json)
        print_log_json(dir, name, &survey);
    else
        print_log(dir, name, &survey);
    survey_deinit(&survey);
    return EXIT_DONE;
}

int cmd_log_inspect(struct cli *cli) {
    const char *dir = NULL;
    const struct arg_option options[] = {
        {.name = "--dir",
         .type = ARG_TEXT,
         .value = &dir,
         .meta = "DIR",
         .help = "a directory, as the argument is"},
        {.name = NULL},
    };
    const struct command_help help = {
        .name = "felix log inspect",
        .summary = "show segments, offsets, indexes, damage",
        .usage = "[DIR|STREAM]",
        .text =
            "Of the log in a directory, of each log in a directory of logs, or of a stream of\n"
            "the development broker; without an argument, of all of that broker's. Reads every\n"
            "record and changes nothing; a broker may be serving the log meanwhile.",
        .examples = "  felix log inspect orders\n  felix log inspect /var/lib/felix/streams --json",
    };
    struct args args = {.options = options};
    int status = cli_parse(cli, &args, &help, 0, 1);
    if (status != CLI_GO_ON)
        return status;
    struct log_place place;
    const char *named = dir != NULL ? dir : args.operands_count > 0 ? args.operands[0] : NULL;
    status = log_place_find(cli, help.name, named, LOG_PLACE_ANY, &place);
    return status == CLI_GO_ON ? log_place_each(&place, inspect, cli) : status;
}
