/*
 * The manifest of a backup. What decodes encodes to the same bytes, and leads nowhere outside of
 * the backup: names are plain, ranges ascend. The input is tried as it is and, because nobody
 * guesses a checksum, as the lines before the last one.
 */
#include "base/check.h"
#include "storage/crc32.h"
#include "storage/manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_log(const struct manifest_log *log) {
    struct slice name = slice_str(log->name);
    INVARIANT(manifest_name_valid(name) && memchr(name.data, '/', name.len) == NULL);
    INVARIANT(log->range.first <= log->range.end);
    uint64_t from = log->range.first;
    for (size_t i = 0; i < log->damage_count; i++) {
        INVARIANT(log->damage[i].first >= from && log->damage[i].end > log->damage[i].first);
        from = log->damage[i].end;
    }
    INVARIANT(from <= log->range.end);
    from = log->range.first;
    for (size_t i = 0; i < log->files_count; i++) {
        INVARIANT(log->files[i].first >= from && log->files[i].end >= log->files[i].first);
        INVARIANT(i == 0 || log->files[i].segment > log->files[i - 1].segment);
        from = log->files[i].end;
    }
    INVARIANT(from <= log->range.end);
}

static void check(struct slice bytes) {
    struct manifest manifest;
    struct felix_error error = {0};
    if (manifest_decode(bytes, &manifest, &error) != FELIX_OK) {
        INVARIANT(error.text[0] != '\0' && manifest.logs == NULL);
        return;
    }
    INVARIANT(manifest.node || manifest.logs_count == 1);
    for (size_t i = 0; i < manifest.logs_count; i++) {
        INVARIANT(i == 0 || strcmp(manifest.logs[i - 1].name, manifest.logs[i].name) < 0);
        check_log(&manifest.logs[i]);
    }
    struct text again = {0};
    manifest_encode(&manifest, &again);
    INVARIANT(slice_equal(slice_of(again.data, again.len), bytes));
    text_deinit(&again);
    manifest_deinit(&manifest);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct slice bytes = slice_of(data, size);
    check(bytes);
    struct text whole = {0};
    text_bytes(&whole, bytes);
    text_printf(&whole, "end %08x\n", crc32_update(0, data, size));
    check(slice_of(whole.data, whole.len));
    text_deinit(&whole);
    return 0;
}
