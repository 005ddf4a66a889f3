#include "cli/stream_view.h"

#include "base/check.h"

#include <stdlib.h>
#include <string.h>

#define COLUMNS 9u

struct stream_view_cell stream_view_bytes(uint64_t bytes) {
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    struct stream_view_cell cell;
    size_t unit = 0;
    double value = (double)bytes;
    while (value >= 1024 && unit + 1 < sizeof units / sizeof units[0]) {
        value /= 1024;
        unit++;
    }
    (void)snprintf(cell.text, sizeof cell.text, unit == 0 ? "%.0f %s" : "%.1f %s", value,
                   units[unit]);
    return cell;
}

/* Returned owned. */
static char *retention_of(const struct stream_entry *entry) {
    struct text text = {0};
    if (entry->retention_bytes != 0)
        text_add(&text, stream_view_bytes(entry->retention_bytes).text);
    if (entry->retention_seconds != 0)
        text_printf(&text, "%s%s", text.len > 0 ? ", " : "",
                    out_span(entry->retention_seconds).text);
    if (text.len == 0)
        text_add(&text, entry->durable ? "all" : "-");
    return text_take(&text);
}

static const char *kind_of(const struct stream_entry *entry) {
    return entry->durable ? "durable" : "memory";
}

static void print_plain(const struct stream_entry *entry) {
    (void)printf("%s\t%s\t%s\t%llu\t%llu\t%llu\t%llu\t%llu\t%llu\t%llu\n", entry->stream,
                 kind_of(entry), stream_state_name(entry->state), (unsigned long long)entry->oldest,
                 (unsigned long long)entry->end, (unsigned long long)entry->bytes,
                 (unsigned long long)entry->segments, (unsigned long long)entry->retention_bytes,
                 (unsigned long long)entry->retention_seconds,
                 (unsigned long long)entry->subscriptions);
}

/* One line of the table, its cells owned by the caller (text_take). */
struct row {
    char *cells[COLUMNS];
};

char *stream_view_name(const char *text) {
    struct text out = {0};
    out_printable(&out, slice_str(text));
    return text_take(&out);
}

static struct row row_of(const struct stream_entry *entry) {
    return (struct row){{
        stream_view_name(entry->stream),
        xstrdup(kind_of(entry)),
        xstrdup(stream_state_name(entry->state)),
        xstrdup(out_count(entry->oldest).text),
        xstrdup(out_count(entry->end).text),
        xstrdup(stream_view_bytes(entry->bytes).text),
        xstrdup(out_count(entry->segments).text),
        retention_of(entry),
        xstrdup(out_count(entry->subscriptions).text),
    }};
}

/* Characters, not bytes: what a terminal shows of them, but for the wide ones. */
static int width_of(const char *text) {
    int width = 0;
    for (; *text != '\0'; text++)
        width += ((unsigned char)*text & 0xC0) != 0x80;
    return width;
}

static void print_row(const struct row *row, const int widths[COLUMNS]) {
    static const bool right[COLUMNS] = {[3] = true, [4] = true, [5] = true, [6] = true, [8] = true};
    for (size_t c = 0; c < COLUMNS; c++) {
        int pad = widths[c] - width_of(row->cells[c]);
        bool last = c + 1 == COLUMNS;
        (void)printf("%*s%s%*s", right[c] ? pad : 0, "", row->cells[c],
                     !right[c] && !last ? pad : 0, "");
        (void)fputs(last ? "\n" : "  ", stdout);
    }
}

static void print_table(const struct stream_entry *entries, size_t count) {
    static const struct row head = {
        {(char *)(uintptr_t)"STREAM", (char *)(uintptr_t)"KIND", (char *)(uintptr_t)"STATE",
         (char *)(uintptr_t)"OLDEST", (char *)(uintptr_t)"END", (char *)(uintptr_t)"BYTES",
         (char *)(uintptr_t)"FILES", (char *)(uintptr_t)"KEPT", (char *)(uintptr_t)"SUBSCRIBERS"}};
    struct row *rows = xcalloc(count + 1, sizeof *rows);
    int widths[COLUMNS] = {0};
    rows[0] = head;
    for (size_t i = 0; i < count; i++)
        rows[i + 1] = row_of(&entries[i]);
    for (size_t i = 0; i <= count; i++)
        for (size_t c = 0; c < COLUMNS; c++) {
            int width = width_of(rows[i].cells[c]);
            widths[c] = width > widths[c] ? width : widths[c];
        }
    for (size_t i = 0; i <= count; i++)
        print_row(&rows[i], widths);
    for (size_t i = 1; i <= count; i++)
        for (size_t c = 0; c < COLUMNS; c++)
            free(rows[i].cells[c]);
    free(rows);
}

static void print_json(const struct stream_entry *entry) {
    struct text line = {0};
    stream_entry_encode(entry, &line);
    (void)puts(text_str(&line));
    text_deinit(&line);
}

void stream_view_list(const struct cli *cli, const struct stream_entry *entries, size_t count) {
    if (!cli->json && out_is_terminal()) {
        print_table(entries, count);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        if (cli->json)
            print_json(&entries[i]);
        else
            print_plain(&entries[i]);
    }
}

/* One stream for people. */
void stream_view_details(const struct stream_entry *entry) {
    static const char *const origins[] = {
        [STREAM_ORIGIN_USE] = "by its first use",
        [STREAM_ORIGIN_CATALOG] = "by command",
        [STREAM_ORIGIN_SCOPE] = "by the broker's configuration",
    };
    char *name = stream_view_name(entry->stream);
    char *reason = stream_view_name(entry->reason);
    char *kept = retention_of(entry);
    uint64_t records = entry->end - entry->oldest;
    (void)printf("stream         %s\n", name);
    (void)printf("kind           %s, made %s\n", kind_of(entry), origins[entry->origin]);
    (void)printf("state          %s%s%s\n", stream_state_name(entry->state),
                 reason[0] != '\0' ? ": " : "", reason);
    (void)printf("records        %s", out_count(records).text);
    if (records > 0)
        (void)printf(", from offset %s to %s", out_count(entry->oldest).text,
                     out_count(entry->end - 1).text);
    (void)printf("\nsize           %s", stream_view_bytes(entry->bytes).text);
    if (entry->durable)
        (void)printf(" in %s files", out_count(entry->segments).text);
    (void)printf("\nkept           %s\n", kept);
    (void)printf("subscriptions  %s\n", out_count(entry->subscriptions).text);
    for (size_t i = 0; i < entry->damage_count && i < STREAM_DAMAGE_MAX; i++)
        (void)printf("damaged        offsets %s to %s cannot be read\n",
                     out_count(entry->damage[i].first).text,
                     out_count(entry->damage[i].end - 1).text);
    if (entry->damage_count > STREAM_DAMAGE_MAX)
        (void)printf("damaged        and %s ranges more\n",
                     out_count(entry->damage_count - STREAM_DAMAGE_MAX).text);
    free(name);
    free(reason);
    free(kept);
}

/* The outcome of create or delete. */
void stream_view_outcome(const struct cli *cli, const struct stream_answer *answer) {
    const struct stream_entry *entry = &answer->entries[0];
    if (cli->json) {
        struct text line = {0};
        text_printf(&line, "{\"outcome\":\"%s\",\"entry\":", stream_outcome_name(answer->outcome));
        stream_entry_encode(entry, &line);
        text_add(&line, "}");
        (void)puts(text_str(&line));
        text_deinit(&line);
        return;
    }
    if (cli->quiet || !out_is_terminal())
        return;
    static const char *const words[] = {
        [STREAM_OUTCOME_LISTED] = "is there",
        [STREAM_OUTCOME_MADE] = "is made",
        [STREAM_OUTCOME_EXISTS] = "exists already, with these settings",
        [STREAM_OUTCOME_CHANGED] = "existed; its retention is changed",
        [STREAM_OUTCOME_DELETED] = "is deleted",
    };
    char *name = stream_view_name(entry->stream);
    (void)printf("stream '%s' (%s) %s", name, entry->durable ? "durable" : "in memory",
                 words[answer->outcome]);
    if (answer->outcome == STREAM_OUTCOME_MADE && entry->end > entry->oldest)
        (void)printf(", with %s records of one before it",
                     out_count(entry->end - entry->oldest).text);
    (void)printf("\n");
    free(name);
}
