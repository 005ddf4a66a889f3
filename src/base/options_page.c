/* The pages that are made from a table: help, printed configuration, reference. */
#include "base/options.h"
#include "base/options_rule.h"

#define HELP_COLUMNS 92u

static void add_words(const char *words, const char *between, struct text *out) {
    for (const char *at = words; *at != '\0';) {
        text_bytes(out, slice_of(at, strcspn(at, "|=")));
        at += strcspn(at, "|");
        if (*at == '\0')
            return;
        text_add(out, between);
        at++;
    }
}

/* 67108864 is hard to read, 64 MiB is not. */
static void add_bytes(uint64_t bytes, struct text *out) {
    static const char *const units[] = {"KiB", "MiB", "GiB"};
    size_t unit = 0;
    uint64_t value = bytes;
    while (unit < 3 && value >= 1024 && value % 1024 == 0) {
        value /= 1024;
        unit++;
    }
    if (unit == 0)
        text_printf(out, "%llu", (unsigned long long)bytes);
    else
        text_printf(out, "%llu %s", (unsigned long long)value, units[unit - 1]);
}

static void add_range(const struct option_row *row, struct text *out) {
    uint64_t max = option_row_max(row);
    bool bytes = row->type == OPTION_BYTES;
    if (bytes)
        add_bytes(row->min, out);
    else
        text_printf(out, "%llu", (unsigned long long)row->min);
    if (max == UINT64_MAX) {
        text_add(out, " or more");
        return;
    }
    text_add(out, " .. ");
    if (bytes)
        add_bytes(max, out);
    else
        text_printf(out, "%llu", (unsigned long long)max);
}

void option_row_rule(const struct option_row *row, struct text *out) {
    switch (row->type) {
    case OPTION_U32:
    case OPTION_U64:
        text_add(out, "a number ");
        add_range(row, out);
        return;
    case OPTION_BYTES:
        text_add(out, "a number of bytes (KiB, MiB, GiB may follow) ");
        add_range(row, out);
        return;
    case OPTION_DURATION_MS:
        text_add(out, "a time in milliseconds (ms or s may follow) ");
        add_range(row, out);
        return;
    case OPTION_BOOL:
        text_add(out, "one of 1, true, yes, on, 0, false, no, off");
        return;
    case OPTION_ENUM:
        text_add(out, "one of ");
        add_words(row->words, ", ", out);
        return;
    case OPTION_ADDR:
        text_add(out, "a numeric address with port: 127.0.0.1:5000 or [::1]:5000");
        return;
    case OPTION_STRING:
    case OPTION_PATH:
        text_add(out, "a text");
        return;
    }
}

void options_value(const struct options *options, size_t row_index, struct text *out) {
    const struct option_row *row = &options->rows[row_index];
    const void *field = (const char *)options->target + row->offset;
    bool unset = row->initial[0] == '\0' && options->sources[row_index] == OPTION_FROM_DEFAULT;
    switch (row->type) {
    case OPTION_U32:
        if (!unset)
            text_printf(out, "%u", *(const uint32_t *)field);
        return;
    case OPTION_U64:
    case OPTION_BYTES:
    case OPTION_DURATION_MS:
        if (!unset)
            text_printf(out, "%llu", (unsigned long long)*(const uint64_t *)field);
        return;
    case OPTION_BOOL:
        text_add(out, *(const bool *)field ? "true" : "false");
        return;
    case OPTION_STRING:
    case OPTION_PATH:
        text_add(out, *(char *const *)field);
        return;
    case OPTION_ADDR:
        option_addr_text(field, out);
        return;
    case OPTION_ENUM: {
        const char *at = row->words;
        for (uint32_t i = *(const uint32_t *)field; i > 0; i--)
            at += strcspn(at, "|") + 1;
        text_bytes(out, slice_of(at, strcspn(at, "|=")));
        return;
    }
    }
}

static bool starts_group(const struct options *options, size_t row) {
    return row == 0 || strcmp(options->rows[row].group, options->rows[row - 1].group) != 0;
}

static const char *placeholder(const struct option_row *row) {
    static const char *const names[] = {
        [OPTION_U32] = "N",          [OPTION_U64] = "N",        [OPTION_BYTES] = "BYTES",
        [OPTION_DURATION_MS] = "MS", [OPTION_BOOL] = "",        [OPTION_STRING] = "TEXT",
        [OPTION_PATH] = "PATH",      [OPTION_ADDR] = "IP:PORT", [OPTION_ENUM] = "WORD",
    };
    return names[row->type];
}

/* `words` broken into lines behind an indent of six columns. */
static void add_wrapped(const char *words, struct text *out) {
    size_t column = 0;
    for (const char *at = words; *at != '\0';) {
        size_t len = strcspn(at, " ");
        if (column == 0 || column + 1 + len > HELP_COLUMNS) {
            text_add(out, column == 0 ? "      " : "\n      ");
            column = 6;
        } else {
            text_char(out, ' ');
            column++;
        }
        text_bytes(out, slice_of(at, len));
        column += len;
        at += len;
        at += strspn(at, " ");
    }
    text_char(out, '\n');
}

void options_print_help(const struct options *options, struct text *out) {
    for (size_t i = 0; i < options->count; i++) {
        const struct option_row *row = &options->rows[i];
        if (starts_group(options, i))
            text_printf(out, "\n%s:\n", row->group);

        if (row->flag != NULL)
            text_printf(out, "  --%s%s%s", row->flag, row->type == OPTION_BOOL ? "" : " ",
                        placeholder(row));
        if (row->env != NULL) {
            text_add(out, "  [");
            add_words(row->env, " or ", out);
            text_add(out, "]");
        }
        text_char(out, '\n');

        struct text help = {0};
        text_printf(&help, "%s", row->help);
        if (row->type == OPTION_ENUM) {
            text_add(&help, ": ");
            add_words(row->words, ", ", &help);
        }
        if (row->initial[0] != '\0')
            text_printf(&help, " (default %s)", row->initial);
        add_wrapped(text_str(&help), out);
        text_deinit(&help);
    }
}

void options_print_yaml(const struct options *options, struct text *out) {
    struct text value = {0};
    for (size_t i = 0; i < options->count; i++) {
        const struct option_row *row = &options->rows[i];
        if (starts_group(options, i))
            text_printf(out, "%s# %s\n", i == 0 ? "" : "\n", row->group);

        text_reset(&value);
        options_value(options, i, &value);
        struct slice bytes = slice_of(text_str(&value), value.len);
        bool quoted = row->type == OPTION_STRING || row->type == OPTION_PATH ||
                      row->type == OPTION_ADDR || row->type == OPTION_ENUM;
        if (row->key == NULL)
            text_printf(out, "# --%s: ", row->flag);
        else
            text_printf(out, "%s: ", row->key);
        if (quoted)
            text_quoted(out, bytes);
        else
            text_bytes(out, bytes);
        text_printf(out, "  # %s\n", options_source_name(options->sources[i]));
    }
    text_deinit(&value);
}

static void add_code_words(const char *words, struct text *out) {
    text_char(out, '`');
    add_words(words, "`, `", out);
    text_char(out, '`');
}

static void add_reference_limits(const struct option_row *row, struct text *out) {
    switch (row->type) {
    case OPTION_U32:
    case OPTION_U64:
    case OPTION_BYTES:
    case OPTION_DURATION_MS:
        add_range(row, out);
        if (row->type == OPTION_DURATION_MS)
            text_add(out, " ms");
        return;
    case OPTION_BOOL:
        text_add(out, "`true`, `false`");
        return;
    case OPTION_ENUM:
        add_code_words(row->words, out);
        return;
    case OPTION_ADDR:
        text_add(out, "`ip:port`");
        return;
    case OPTION_STRING:
        text_add(out, "text");
        return;
    case OPTION_PATH:
        text_add(out, "path");
        return;
    }
}

static bool any_flag(const struct options *options) {
    for (size_t i = 0; i < options->count; i++) {
        if (options->rows[i].flag != NULL)
            return true;
    }
    return false;
}

static void add_reference_row(const struct option_row *row, bool flags, struct text *out) {
    text_add(out, "| ");
    if (row->env != NULL)
        add_code_words(row->env, out);
    text_add(out, " | ");
    if (row->key != NULL)
        text_printf(out, "`%s`", row->key);
    text_add(out, " | ");
    if (row->flag != NULL)
        text_printf(out, "`--%s`", row->flag);
    if (flags)
        text_add(out, " | ");
    if (row->initial[0] == '\0')
        text_add(out, "not set");
    else
        text_printf(out, "`%s`", row->initial);
    text_add(out, " | ");
    add_reference_limits(row, out);
    text_printf(out, " | %s |\n", row->help);
}

void options_print_reference(const struct options *options, const char *key_title,
                             struct text *out) {
    bool flags = any_flag(options);
    for (size_t i = 0; i < options->count; i++) {
        const struct option_row *row = &options->rows[i];
        if (starts_group(options, i))
            text_printf(out,
                        "\n## %s\n\n| Variable | %s |%s Default | Allowed | Meaning |\n"
                        "|---|---|---|---|---|%s\n",
                        row->group, key_title, flags ? " Flag |" : "", flags ? "---|" : "");
        add_reference_row(row, flags, out);
    }
}
