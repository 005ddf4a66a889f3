#include "node/catalog.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "auth/file.h"
#include "base/check.h"
#include "base/name.h"
#include "base/text.h"
#include "node/scope.h"
#include "wire/json.h"

#define VERSION 1u
#define NAME_BYTES (NAME_VALID_BYTES_MAX + 1u)
#define SECRET_MODE 0600 /* names of streams are nobody else's business */

static void item_free(struct scope_item *item) {
    free(item->tenant);
    free(item->space);
    free(item->name);
}

static struct scope_item item_copy(const struct scope_item *item) {
    struct scope_item copy = *item;
    copy.kind = SCOPE_STREAM;
    copy.tenant = xstrdup(item->tenant);
    copy.space = xstrdup(item->space);
    copy.name = xstrdup(item->name);
    return copy;
}

/* Where the item with these names is, or belongs. */
static size_t place_of(const struct catalog *catalog, const struct scope_item *like, bool *found) {
    size_t low = 0, high = catalog->count;
    *found = false;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = scope_item_compare(&catalog->items[middle], like);
        if (order == 0) {
            *found = true;
            return middle;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void insert(struct catalog *catalog, size_t at, struct scope_item item) {
    catalog->items = xrealloc(catalog->items, (catalog->count + 1) * sizeof *catalog->items);
    memmove(&catalog->items[at + 1], &catalog->items[at],
            (catalog->count - at) * sizeof *catalog->items);
    catalog->items[at] = item;
    catalog->count++;
}

static struct scope_item take_out(struct catalog *catalog, size_t at) {
    struct scope_item item = catalog->items[at];
    catalog->count--;
    memmove(&catalog->items[at], &catalog->items[at + 1],
            (catalog->count - at) * sizeof *catalog->items);
    return item;
}

static void clear(struct catalog *catalog) {
    for (size_t i = 0; i < catalog->count; i++)
        item_free(&catalog->items[i]);
    free(catalog->items);
    catalog->items = NULL;
    catalog->count = 0;
}

void catalog_deinit(struct catalog *catalog) {
    clear(catalog);
    free(catalog->path);
    free(catalog->damage);
    *catalog = (struct catalog){0};
}

/* ---- reading ---- */

static bool take_name(struct json *json, char out[NAME_BYTES]) {
    return json_take_text(json, out, NAME_BYTES) && name_valid(slice_str(out));
}

/* One stream; false: something is missing, repeated, unknown or of another kind. */
static bool take_stream(struct json *json, struct catalog *catalog) {
    char tenant[NAME_BYTES] = "", space[NAME_BYTES] = "", name[NAME_BYTES] = "";
    struct scope_item item = {.kind = SCOPE_STREAM, .tenant = tenant, .space = space, .name = name};
    struct json_string member;
    bool ok = json_object_begin(json), has_durable = false;
    for (bool first = true; ok && json_member(json, &first, &member);) {
        if (json_string_is(&member, "tenant"))
            ok = tenant[0] == '\0' && take_name(json, tenant);
        else if (json_string_is(&member, "namespace"))
            ok = space[0] == '\0' && take_name(json, space);
        else if (json_string_is(&member, "stream"))
            ok = name[0] == '\0' && take_name(json, name);
        else if (json_string_is(&member, "durable"))
            ok = !has_durable && (has_durable = json_take_bool(json, &item.durable));
        else if (json_string_is(&member, "retention_bytes"))
            ok = json_take_u64(json, &item.retention_bytes) &&
                 item.retention_bytes <= RETENTION_BYTES_MAX;
        else if (json_string_is(&member, "retention_seconds"))
            ok = json_take_u64(json, &item.retention_seconds) &&
                 item.retention_seconds <= RETENTION_SECONDS_MAX;
        else
            ok = false;
    }
    bool found = false;
    if (!ok || json->failed || tenant[0] == '\0' || space[0] == '\0' || name[0] == '\0')
        return false;
    size_t at = place_of(catalog, &item, &found);
    if (found)
        return false;
    insert(catalog, at, item_copy(&item));
    return true;
}

static enum felix_err parse(struct catalog *catalog, struct slice text,
                            struct felix_error *reterr) {
    struct json json = json_open(text);
    struct json_string member;
    uint64_t version = 0;
    bool ok = text.len > 0 && json_object_begin(&json), has_streams = false;
    for (bool first = true; ok && json_member(&json, &first, &member);) {
        if (json_string_is(&member, "version")) {
            ok = version == 0 && json_take_u64(&json, &version);
        } else if (json_string_is(&member, "streams") && !has_streams) {
            has_streams = true;
            ok = json_array_begin(&json);
            for (bool first_stream = true; ok && json_element(&json, &first_stream);)
                ok = take_stream(&json, catalog);
        } else {
            ok = false;
        }
    }
    if (version > VERSION)
        return error_set(reterr, FELIX_DAMAGED, 0, "%s is of version %llu, this is version %u",
                         catalog->path, (unsigned long long)version, VERSION);
    if (ok && json_finish(&json) && version == VERSION && has_streams)
        return FELIX_OK;
    return error_set(
        reterr, FELIX_DAMAGED, 0,
        "%s is no catalog of streams that this version understands (behind stream %zu)",
        catalog->path, catalog->count);
}

enum felix_err catalog_load(struct catalog *catalog, const char *path, struct felix_error *reterr) {
    struct felix_error error = {0};
    uint8_t *bytes = NULL;
    size_t len = 0;
    *catalog = (struct catalog){.path = xstrdup(path)};
    if (access(path, F_OK) != 0 && errno == ENOENT)
        return FELIX_OK;
    enum felix_err err = auth_file_read(path, CATALOG_BYTES_MAX, &bytes, &len, &error);
    if (err == FELIX_OK)
        err = parse(catalog, slice_of(bytes, len), &error);
    free(bytes);
    if (err == FELIX_OK)
        return FELIX_OK;
    clear(catalog);
    catalog->damage = xstrdup(error.text);
    return error_set(reterr, err, error.sys_errno, "%s", error.text);
}

/* ---- writing ---- */

static void put_name(struct text *out, const char *member, const char *name) {
    text_printf(out, "\"%s\":", member);
    text_quoted(out, slice_str(name));
    text_char(out, ',');
}

static void render(const struct catalog *catalog, struct text *out) {
    text_printf(out, "{\"version\":%u,\"streams\":[", VERSION);
    for (size_t i = 0; i < catalog->count; i++) {
        const struct scope_item *item = &catalog->items[i];
        text_add(out, i == 0 ? "\n{" : ",\n{");
        put_name(out, "tenant", item->tenant);
        put_name(out, "namespace", item->space);
        put_name(out, "stream", item->name);
        text_printf(out, "\"durable\":%s", item->durable ? "true" : "false");
        if (item->retention_bytes != 0)
            text_printf(out, ",\"retention_bytes\":%llu",
                        (unsigned long long)item->retention_bytes);
        if (item->retention_seconds != 0)
            text_printf(out, ",\"retention_seconds\":%llu",
                        (unsigned long long)item->retention_seconds);
        text_char(out, '}');
    }
    text_add(out, "\n]}\n");
}

static enum felix_err check_writable(const struct catalog *catalog, struct felix_error *reterr) {
    if (catalog->damage == NULL)
        return FELIX_OK;
    return error_set(
        reterr, FELIX_STORAGE, 0,
        "the catalog of streams cannot be read, so it is not changed: repair the file, "
        "or move it away, and restart the broker (%.200s)",
        catalog->damage);
}

static enum felix_err save(const struct catalog *catalog, struct felix_error *reterr) {
    struct text text = {0};
    struct felix_error error = {0};
    enum felix_err err;
    render(catalog, &text);
    if (text.len > CATALOG_BYTES_MAX)
        err = error_set(reterr, FELIX_LIMIT, 0,
                        "the catalog of streams is full (%zu MiB): delete some first",
                        CATALOG_BYTES_MAX >> 20);
    else if (auth_file_write(catalog->path, slice_of(text_str(&text), text.len), SECRET_MODE,
                             &error) != FELIX_OK)
        err = error_set(reterr, FELIX_STORAGE, error.sys_errno,
                        "the catalog of streams cannot be written: %s", error.text);
    else
        err = FELIX_OK;
    text_deinit(&text);
    return err;
}

const struct scope_item *catalog_find(const struct catalog *catalog,
                                      const struct scope_item *like) {
    bool found;
    size_t at = place_of(catalog, like, &found);
    return found ? &catalog->items[at] : NULL;
}

enum felix_err catalog_put(struct catalog *catalog, const struct scope_item *item,
                           struct felix_error *reterr) {
    bool found;
    struct scope_item before = {0};
    enum felix_err err = check_writable(catalog, reterr);
    if (err != FELIX_OK)
        return err;
    size_t at = place_of(catalog, item, &found);
    if (found)
        before = take_out(catalog, at);
    insert(catalog, at, item_copy(item));
    err = save(catalog, reterr);
    if (err != FELIX_OK) {
        struct scope_item refused = take_out(catalog, at);
        item_free(&refused);
        if (found)
            insert(catalog, at, before);
    } else if (found) {
        item_free(&before);
    }
    return err;
}

enum felix_err catalog_remove(struct catalog *catalog, const struct scope_item *like,
                              struct felix_error *reterr) {
    bool found;
    size_t at = place_of(catalog, like, &found);
    if (!found)
        return FELIX_OK;
    enum felix_err err = check_writable(catalog, reterr);
    if (err != FELIX_OK)
        return err;
    struct scope_item item = take_out(catalog, at);
    err = save(catalog, reterr);
    if (err == FELIX_OK)
        item_free(&item);
    else
        insert(catalog, at, item);
    return err;
}
