/* felix log dump: the records of a log, straight from its files. Reads only. */
#include "cli/log_place.h"

#include "base/check.h"
#include "cli/log_view.h"
#include "wire/base64.h"

#include <inttypes.h>
#include <stdlib.h>

enum payload_form { PAYLOAD_TEXT, PAYLOAD_BASE64, PAYLOAD_HEX, PAYLOAD_NONE };

/* What is waiting to be written is given away when it is this much. */
#define CHUNK_BYTES ((size_t)64 << 10)

struct dump {
    const struct cli *cli;
    uint32_t form; /* enum payload_form */
    uint64_t left; /* records */
    struct text text;
    bool failed, gone; /* writing did; because nobody reads */
};

static void add_base64(struct text *text, struct slice payload) {
    size_t bytes = base64_encoded_bytes(payload.len);
    uint8_t *encoded = xmalloc(bytes + 1);
    base64_encode(payload, encoded);
    text_bytes(text, slice_of(encoded, bytes));
    free(encoded);
}

static void add_hex(struct text *text, struct slice payload) {
    for (size_t i = 0; i < payload.len; i++)
        text_printf(text, "%02x", payload.data[i]);
}

static void add_plain(struct dump *dump, const struct record *record) {
    struct text *text = &dump->text;
    bool terminal = out_is_terminal();
    text_printf(text, terminal ? "%10" PRIu64 "  " : "%" PRIu64 "\t", record->offset);
    if (terminal)
        text_printf(text, "%s  ", out_time(record->timestamp_us).text);
    else
        text_printf(text, "%" PRIu64 "\t", record->timestamp_us);
    text_printf(text, terminal ? "%8zu  " : "%zu\t", record->payload.len);
    switch ((enum payload_form)dump->form) {
    case PAYLOAD_TEXT:
        out_printable(text, record->payload);
        break;
    case PAYLOAD_BASE64:
        add_base64(text, record->payload);
        break;
    case PAYLOAD_HEX:
        add_hex(text, record->payload);
        break;
    case PAYLOAD_NONE:
        break;
    }
    text_char(text, '\n');
}

static void add_json(struct dump *dump, const struct record *record, uint64_t segment,
                     uint64_t position) {
    struct text *text = &dump->text;
    text_printf(text,
                "{\"offset\":%" PRIu64 ",\"timestamp_us\":%" PRIu64 ",\"bytes\":%zu"
                ",\"segment\":%" PRIu64 ",\"position\":%" PRIu64,
                record->offset, record->timestamp_us, record->payload.len, segment, position);
    switch ((enum payload_form)dump->form) {
    case PAYLOAD_TEXT:
        text_char(text, ',');
        out_json_payload(text, "payload", record->payload);
        break;
    case PAYLOAD_BASE64:
        text_add(text, ",\"payload_base64\":\"");
        add_base64(text, record->payload);
        text_char(text, '"');
        break;
    case PAYLOAD_HEX:
        text_add(text, ",\"payload_hex\":\"");
        add_hex(text, record->payload);
        text_char(text, '"');
        break;
    case PAYLOAD_NONE:
        break;
    }
    text_add(text, "}\n");
}

static void write_out(struct dump *dump) {
    if (!dump->failed && !out_write(&dump->text, &dump->gone))
        dump->failed = true;
}

static bool on_record(void *context, const struct survey_segment *segment, uint64_t position,
                      const struct record *record) {
    struct dump *dump = context;
    if (dump->left == 0)
        return false;
    dump->left--;
    if (dump->cli->json)
        add_json(dump, record, segment->id, position);
    else
        add_plain(dump, record);
    if (dump->text.len >= CHUNK_BYTES)
        write_out(dump);
    return !dump->failed && dump->left > 0;
}

/* Whoever reads the records has to know of those that are not among them. */
static int tell_damage(const struct survey *survey, uint64_t from) {
    int status = EXIT_DONE;
    for (size_t i = 0; i < survey->damage_count; i++) {
        const struct survey_damage *d = &survey->damage[i];
        if (d->end <= from || d->end == d->first)
            continue;
        out_error("%s", log_view_damage(d).text);
        status = EXIT_NOTHING;
    }
    return status;
}

static int dump_log(struct dump *dump, const char *dir, uint64_t from) {
    const struct survey_options options = {.on_record = on_record, .context = dump, .from = from};
    struct survey survey;
    struct felix_error error = {.text = ""};
    enum felix_err err = survey_log(&disk_posix, dir, &options, &survey, &error);
    write_out(dump);
    text_deinit(&dump->text);
    if (err != FELIX_OK)
        return log_place_failed(err, &error);
    int status = tell_damage(&survey, from);
    survey_deinit(&survey);
    if (dump->failed && !dump->gone) {
        out_error("cannot write the output: the disk is full or the device failed");
        return EXIT_USAGE;
    }
    return status;
}

int cmd_log_dump(struct cli *cli) {
    const char *dir = NULL;
    uint64_t from = 0;
    struct dump dump = {.cli = cli, .left = UINT64_MAX};
    const struct arg_option options[] = {
        {.name = "--dir",
         .type = ARG_TEXT,
         .value = &dir,
         .meta = "DIR",
         .help = "a directory, as the argument is"},
        {.name = "--from",
         .type = ARG_U64,
         .value = &from,
         .meta = "OFFSET",
         .help = "begin there (the oldest record)"},
        {.name = "--count",
         .type = ARG_U64,
         .value = &dump.left,
         .min = 1,
         .meta = "N",
         .help = "end after so many records"},
        {.name = "--payload",
         .type = ARG_CHOICE,
         .value = &dump.form,
         .words = "text|base64|hex|none",
         .help = "how payloads are shown (text, with what is no text escaped)"},
        {.name = NULL},
    };
    const struct command_help help = {
        .name = "felix log dump",
        .summary = "print records from the files of a log",
        .usage = "DIR|STREAM",
        .text =
            "Offset, time, bytes and payload of each record; into a pipe the time is in\n"
            "microseconds and fields are split by tabs. Changes nothing; a broker may be serving\n"
            "the log meanwhile. Status 1 when records cannot be read.",
        .examples = "  felix log dump orders --from 1000 --count 10\n"
                    "  felix log dump ./acme_default_orders_0-0d3aed4b998d2798 --json",
    };
    struct args args = {.options = options};
    int status = cli_parse(cli, &args, &help, 0, 1);
    if (status != CLI_GO_ON)
        return status;
    struct log_place place;
    const char *named = dir != NULL ? dir : args.operands_count > 0 ? args.operands[0] : NULL;
    status = log_place_find(cli, help.name, named, LOG_PLACE_ONE, &place);
    return status == CLI_GO_ON ? dump_log(&dump, place.path, from) : status;
}
