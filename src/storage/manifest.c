/*
 * The manifest as text. Encoding is one pass of text_printf. Decoding takes the bytes line by line
 * with a cursor that only goes forward and accepts one spelling of everything; the checksum of the
 * last line is looked at first, so what comes after reads bytes that were written as they are, or
 * by somebody who meant it: names and ranges are checked all the same.
 */
#include "storage/manifest.h"

#include "base/check.h"
#include "storage/crc32.h"

#include <inttypes.h>
#include <stdlib.h>

#define HEADER "felix-backup "
#define END "end "
#define END_LINE_BYTES (sizeof END - 1 + 8 + 1)

bool manifest_name_valid(struct slice name) {
    if (name.len == 0 || name.len > MANIFEST_LOG_NAME_BYTES_MAX || name.data[0] == '.')
        return false;
    for (size_t i = 0; i < name.len; i++) {
        uint8_t c = name.data[i];
        bool good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                    c == '-' || c == '_' || c == '.';
        if (!good)
            return false;
    }
    return true;
}

/* ---- building ---- */

/* Makes room for one more item: lists double, beginning with four. */
static void *grow(void *items, size_t count, size_t item_bytes) {
    if (count != 0 && (count < 4 || (count & (count - 1)) != 0))
        return items;
    size_t capacity = count < 4 ? 4 : 2 * count;
    return xrealloc(items, capacity * item_bytes);
}

struct manifest_log *manifest_add_log(struct manifest *manifest, struct slice name) {
    INVARIANT(manifest_name_valid(name));
    manifest->logs = grow(manifest->logs, manifest->logs_count, sizeof *manifest->logs);
    struct manifest_log *log = &manifest->logs[manifest->logs_count++];
    *log = (struct manifest_log){.files = NULL};
    memcpy(log->name, name.data, name.len);
    return log;
}

struct manifest_file *manifest_add_file(struct manifest_log *log) {
    log->files = grow(log->files, log->files_count, sizeof *log->files);
    struct manifest_file *file = &log->files[log->files_count++];
    *file = (struct manifest_file){.segment = 0};
    return file;
}

void manifest_add_damage(struct manifest_log *log, uint64_t first, uint64_t end) {
    log->damage = grow(log->damage, log->damage_count, sizeof *log->damage);
    log->damage[log->damage_count++] = (struct manifest_range){.first = first, .end = end};
}

void manifest_deinit(struct manifest *manifest) {
    for (size_t i = 0; i < manifest->logs_count; i++) {
        free(manifest->logs[i].damage);
        free(manifest->logs[i].files);
    }
    free(manifest->logs);
    *manifest = (struct manifest){.logs = NULL};
}

/* ---- encoding ---- */

static void encode_log(const struct manifest_log *log, struct text *out) {
    text_printf(out, "log %s\nrange %" PRIu64 " %" PRIu64 "\n", log->name, log->range.first,
                log->range.end);
    for (size_t i = 0; i < log->damage_count; i++)
        text_printf(out, "damage %" PRIu64 " %" PRIu64 "\n", log->damage[i].first,
                    log->damage[i].end);
    for (size_t i = 0; i < log->files_count; i++) {
        const struct manifest_file *file = &log->files[i];
        text_printf(out, "file %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %08" PRIx32 "\n",
                    file->segment, file->first, file->end, file->bytes, file->crc);
    }
}

void manifest_encode(const struct manifest *manifest, struct text *out) {
    size_t start = out->len;
    text_printf(out, HEADER "1\nkind %s\nmade %" PRIu64 "\n", manifest->node ? "node" : "log",
                manifest->made_us);
    for (size_t i = 0; i < manifest->logs_count; i++)
        encode_log(&manifest->logs[i], out);
    uint32_t crc = crc32_update(0, text_str(out) + start, out->len - start);
    text_printf(out, END "%08" PRIx32 "\n", crc);
}

/* ---- decoding ---- */

struct lines {
    const uint8_t *at;
    const uint8_t *end;
    size_t line; /* counted from 1 */
    struct felix_error *reterr;
};

static enum felix_err wrong(const struct lines *lines, const char *what) {
    return error_set(lines->reterr, FELIX_MALFORMED, 0, "line %zu of the manifest: %s", lines->line,
                     what);
}

static bool take(struct lines *lines, const char *word) {
    size_t len = strlen(word);
    if ((size_t)(lines->end - lines->at) < len || memcmp(lines->at, word, len) != 0)
        return false;
    lines->at += len;
    return true;
}

static bool take_newline(struct lines *lines) {
    if (!take(lines, "\n"))
        return false;
    lines->line++;
    return true;
}

static bool take_u64(struct lines *lines, uint64_t *ret) {
    const uint8_t *at = lines->at;
    uint64_t value = 0;
    while (at < lines->end && *at >= '0' && *at <= '9') {
        if (value > (UINT64_MAX - (uint64_t)(*at - '0')) / 10)
            return false;
        value = value * 10 + (uint64_t)(*at++ - '0');
    }
    size_t digits = (size_t)(at - lines->at);
    if (digits == 0 || (digits > 1 && *lines->at == '0'))
        return false;
    lines->at = at;
    *ret = value;
    return true;
}

static bool take_crc(struct lines *lines, uint32_t *ret) {
    if (lines->end - lines->at < 8)
        return false;
    uint32_t value = 0;
    for (size_t i = 0; i < 8; i++) {
        uint8_t c = lines->at[i];
        if (c >= '0' && c <= '9')
            value = value << 4 | (uint32_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            value = value << 4 | (uint32_t)(c - 'a' + 10);
        else
            return false;
    }
    lines->at += 8;
    *ret = value;
    return true;
}

/* Two numbers and the end of the line. */
static bool take_range(struct lines *lines, struct manifest_range *ret) {
    return take_u64(lines, &ret->first) && take(lines, " ") && take_u64(lines, &ret->end) &&
           take_newline(lines);
}

static enum felix_err decode_damage(struct lines *lines, struct manifest_log *log) {
    struct manifest_range range;
    if (!take_range(lines, &range))
        return wrong(lines, "damage is two offsets");
    uint64_t from =
        log->damage_count > 0 ? log->damage[log->damage_count - 1].end : log->range.first;
    if (range.first < from || range.end <= range.first || range.end > log->range.end)
        return wrong(lines, "damage lies in the range and ascends");
    manifest_add_damage(log, range.first, range.end);
    return FELIX_OK;
}

static enum felix_err decode_file(struct lines *lines, struct manifest_log *log) {
    struct manifest_file file;
    bool good = take_u64(lines, &file.segment) && take(lines, " ") &&
                take_u64(lines, &file.first) && take(lines, " ") && take_u64(lines, &file.end) &&
                take(lines, " ") && take_u64(lines, &file.bytes) && take(lines, " ") &&
                take_crc(lines, &file.crc) && take_newline(lines);
    if (!good)
        return wrong(lines, "a file is segment, first, end, bytes and checksum");
    const struct manifest_file *last =
        log->files_count > 0 ? &log->files[log->files_count - 1] : NULL;
    uint64_t from = last != NULL ? last->end : log->range.first;
    if ((last != NULL && file.segment <= last->segment) || file.first < from ||
        file.end < file.first || file.end > log->range.end)
        return wrong(lines, "files ascend, and their records lie in the range");
    *manifest_add_file(log) = file;
    return FELIX_OK;
}

static enum felix_err decode_log(struct lines *lines, struct manifest *manifest) {
    const uint8_t *start = lines->at;
    while (lines->at < lines->end && *lines->at != '\n')
        lines->at++;
    struct slice name = slice_of(start, (size_t)(lines->at - start));
    if (!manifest_name_valid(name))
        return wrong(lines, "this is no name of a directory");
    struct manifest_log *log = manifest_add_log(manifest, name);
    if (manifest->logs_count > 1 && strcmp(log[-1].name, log->name) >= 0)
        return wrong(lines, "logs are sorted by name");
    if (!take_newline(lines) || !take(lines, "range ") || !take_range(lines, &log->range))
        return wrong(lines, "a log has a range of two offsets");
    if (log->range.end < log->range.first)
        return wrong(lines, "a range ends behind its first offset");
    enum felix_err err = FELIX_OK;
    while (err == FELIX_OK && take(lines, "damage "))
        err = decode_damage(lines, log);
    while (err == FELIX_OK && take(lines, "file "))
        err = decode_file(lines, log);
    return err;
}

static enum felix_err decode_lines(struct lines *lines, struct manifest *ret) {
    if (!take(lines, "kind ") || !(take(lines, "log\n") || take(lines, "node\n")))
        return wrong(lines, "the kind is log or node");
    ret->node = lines->at[-2] == 'e';
    lines->line++;
    if (!take(lines, "made ") || !take_u64(lines, &ret->made_us) || !take_newline(lines))
        return wrong(lines, "the time is a number");
    enum felix_err err = FELIX_OK;
    while (err == FELIX_OK && take(lines, "log "))
        err = decode_log(lines, ret);
    if (err == FELIX_OK && lines->at != lines->end)
        err = wrong(lines, "this is no line of a manifest");
    if (err == FELIX_OK && !ret->node && ret->logs_count != 1)
        err = wrong(lines, "the backup of a log has exactly one");
    return err;
}

enum felix_err manifest_decode(struct slice bytes, struct manifest *ret,
                               struct felix_error *reterr) {
    *ret = (struct manifest){.logs = NULL};
    const uint8_t *at = bytes.data != NULL ? bytes.data : (const uint8_t *)"";
    struct lines lines = {.at = at, .end = at + bytes.len, .line = 1, .reterr = reterr};
    if (bytes.len > MANIFEST_BYTES_MAX)
        return wrong(&lines, "it is longer than any manifest");
    uint64_t version;
    if (!take(&lines, HEADER) || !take_u64(&lines, &version) || !take_newline(&lines))
        return wrong(&lines, "this is no manifest of a backup");
    if (version != 1)
        return error_set(reterr, FELIX_UNSUPPORTED, 0,
                         "the backup is of version %" PRIu64 ", this program knows version 1",
                         version);
    uint32_t crc;
    if ((size_t)(lines.end - lines.at) < END_LINE_BYTES)
        return wrong(&lines, "it is cut off");
    lines.end -= END_LINE_BYTES;
    struct lines last = {.at = lines.end, .end = lines.end + END_LINE_BYTES};
    if (!take(&last, END) || !take_crc(&last, &crc) || !take(&last, "\n"))
        return wrong(&lines, "it is cut off");
    if (crc != crc32_update(0, bytes.data, bytes.len - END_LINE_BYTES))
        return wrong(&lines, "the checksum of the manifest is wrong");
    enum felix_err err = decode_lines(&lines, ret);
    if (err != FELIX_OK)
        manifest_deinit(ret);
    return err;
}
