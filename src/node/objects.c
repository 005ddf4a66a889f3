#include "node/objects.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/log.h"
#include "node/config_file.h"
#include "node/identity.h"
#include "node/logs.h"
#include "node/scope.h"

struct buf *objects_key(const struct scope_item *item) {
    struct slice tenant = slice_str(item->tenant);
    struct slice namespace_ = slice_str(item->space);
    struct slice name = slice_str(item->name);
    size_t bytes = core_key_bytes(tenant, namespace_, name);
    uint8_t *key = xmalloc(bytes);
    core_key_write(key, tenant, namespace_, name);
    struct buf *block = core_key_new(slice_of(key, bytes));
    free(key);
    return block;
}

static bool is_leaf(const struct scope_item *item) {
    return item->kind == SCOPE_STREAM || item->kind == SCOPE_CACHE;
}

/* On a development node this namespace's streams and caches come by being used. */
static bool made_by_use(const struct objects *objects, const struct scope_item *item) {
    return objects->config->dev && strcmp(item->tenant, DEV_TENANT) == 0 &&
           strcmp(item->space, DEV_NAMESPACE) == 0;
}

static struct scope present_scope(const struct objects *objects) {
    if (objects->scope_replaced)
        return (struct scope){objects->scope, objects->scope_count};
    return (struct scope){objects->config->scope, objects->config->scope_count};
}

static const struct scope_item *find_item(const struct scope_item *items, size_t count,
                                          const struct scope_item *like) {
    for (size_t i = 0; i < count; i++) {
        if (scope_item_compare(&items[i], like) == 0)
            return &items[i];
    }
    return NULL;
}

/* ---- both sources as one scope ---- */

static int compare_items(const void *left, const void *right) {
    return scope_item_compare(left, right);
}

/* The items of `scope`, and those of the catalog that it does not name; their strings are
 * borrowed. The array is returned owned. */
static struct scope merge(const struct objects *objects, struct scope scope) {
    const struct catalog *catalog = &objects->catalog;
    struct scope_item *items = xcalloc(scope.count + catalog->count + 1, sizeof *items);
    size_t count = 0;
    for (size_t i = 0; i < scope.count; i++)
        if (is_leaf(&scope.items[i]))
            items[count++] = scope.items[i];
    qsort(items, count, sizeof *items, compare_items);
    size_t named = count;
    for (size_t i = 0; i < catalog->count; i++) {
        const struct scope_item *item = &catalog->items[i];
        if (bsearch(item, items, named, sizeof *items, compare_items) == NULL)
            items[count++] = *item;
        else
            LOG_WARN(node, "stream_named_twice", F_STR("tenant", item->tenant),
                     F_STR("namespace", item->space), F_STR("stream", item->name),
                     F_STR("effect", "it is as the scope section says, not the catalog"));
    }
    return (struct scope){items, count};
}

/* ---- life ---- */

void objects_init(struct objects *objects, const struct config *config, const char *data_dir,
                  struct logs *logs) {
    struct felix_error error = {0};
    char path[4200];
    *objects = (struct objects){.config = config, .logs = logs, .incarnation = 1};
    (void)pthread_mutex_init(&objects->lock, NULL);
    if (!config->dev)
        return;
    (void)snprintf(path, sizeof path, "%s/" CATALOG_FILE, data_dir);
    if (catalog_load(&objects->catalog, path, &error) != FELIX_OK)
        LOG_WARN(node, "catalog_unreadable", F_STR("error", error.text),
                 F_STR("effect", "streams that were made by command are missing, and none is made "
                                 "or deleted until the file is repaired or moved away"));
}

void objects_deinit(struct objects *objects) {
    if (objects->config == NULL)
        return;
    catalog_deinit(&objects->catalog);
    scope_free(objects->scope, objects->scope_count);
    (void)pthread_mutex_destroy(&objects->lock);
    *objects = (struct objects){0};
}

/* A reactor's share of the limit of a cache; 0: none of its own. */
static uint64_t share_of(const struct objects *objects, uint64_t max_bytes) {
    uint64_t share = max_bytes / objects->reactor_count;
    return share > 0 || max_bytes == 0 ? share : 1;
}

static bool is_durable(const struct scope_item *item) {
    return item->kind == SCOPE_STREAM && item->durable;
}

static bool any_durable(const struct scope_item *items, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (is_durable(&items[i]))
            return true;
    return false;
}

/* On every reactor, before they run. */
static void begin_item(const struct objects *objects, const struct scope_item *item,
                       struct stream_log *log) {
    struct buf *key = objects_key(item);
    for (unsigned r = 0; r < objects->reactor_count; r++) {
        struct core *core = &objects->reactors[r].server.core;
        struct stream_start start = {0};
        if (log != NULL)
            logs_start(log, &start);
        if (item->kind == SCOPE_CACHE)
            core_add_cache(core, core_key_slice(key), share_of(objects, item->max_bytes));
        else
            core_add_stream(core, core_key_slice(key), objects->incarnation, &start);
    }
    buf_unref(key);
}

/* Open all logs together. */
static void begin_all(struct objects *objects, struct scope all) {
    struct logs_opening *openings = xcalloc(all.count + 1, sizeof *openings);
    size_t count = 0;
    for (size_t i = 0; i < all.count; i++)
        if (is_durable(&all.items[i]))
            openings[count++] =
                (struct logs_opening){.item = &all.items[i], .incarnation = objects->incarnation};
    logs_open(objects->logs, openings, count);
    size_t opened = 0;
    for (size_t i = 0; i < all.count; i++)
        begin_item(objects, &all.items[i],
                   is_durable(&all.items[i]) ? openings[opened++].log : NULL);
    free(openings);
}

enum felix_err objects_begin(struct objects *objects, struct reactor *reactors,
                             unsigned reactor_count, struct felix_error *reterr) {
    objects->reactors = reactors;
    objects->reactor_count = reactor_count;
    struct scope all = merge(objects, present_scope(objects));
    enum felix_err err = FELIX_OK;
    /* A directory that was named is taken at once, so that two brokers do not find out later that
     * they share it. */
    if (any_durable(all.items, all.count) || objects->config->durable_storage_dir[0] != '\0')
        err = logs_prepare(objects->logs, reterr);
    if (err == FELIX_OK)
        begin_all(objects, all);
    free((void *)(uintptr_t)all.items);
    return err;
}

/* ---- changes ---- */

static void tell_reactors(const struct objects *objects, enum mail_kind kind,
                          const struct scope_item *item, uint64_t incarnation) {
    struct buf *key = objects_key(item);
    struct logs_opening opening = {.item = item, .incarnation = incarnation};
    if (kind == MAIL_ADD && is_durable(item))
        logs_open(objects->logs, &opening, 1);
    for (unsigned r = 0; r < objects->reactor_count; r++) {
        struct mail_object *mail = xcalloc(1, sizeof *mail);
        mail->mail.kind = kind;
        mail->mail.key = buf_ref(key);
        mail->mail.incarnation = incarnation;
        mail->is_cache = item->kind == SCOPE_CACHE;
        mail->max_bytes = share_of(objects, item->max_bytes);
        if (opening.log != NULL)
            logs_start(opening.log, &mail->start);
        reactor_post(&objects->reactors[r], &mail->mail);
    }
    buf_unref(key);
}

struct scope_update {
    struct objects *objects;
    struct node_scope_changes *changes;
};

static void apply_change(void *context, enum scope_change change, const struct scope_item *item) {
    struct scope_update *update = context;
    struct objects *objects = update->objects;
    /* Durable before and now: only its retention can be another. */
    if (change == SCOPE_ALTERED && is_durable(item) && logs_set_retention(objects->logs, item))
        return;
    if (change == SCOPE_ALTERED || (made_by_use(objects, item) && !is_durable(item))) {
        update->changes->altered++;
        return;
    }
    if (change == SCOPE_ADDED)
        update->changes->added++;
    else
        update->changes->removed++;
    /* One in memory that is there by its use gives way. */
    if (change == SCOPE_REMOVED || made_by_use(objects, item))
        tell_reactors(objects, MAIL_REMOVE, item, objects->incarnation);
    if (change == SCOPE_REMOVED)
        logs_leave(objects->logs, item, false);
    else
        tell_reactors(objects, MAIL_ADD, item, objects->incarnation);
}

enum felix_err objects_set_scope(struct objects *objects, struct scope_item *items, size_t count,
                                 struct node_scope_changes *ret, struct felix_error *reterr) {
    enum felix_err err = FELIX_OK;
    (void)pthread_mutex_lock(&objects->lock);
    if (any_durable(items, count))
        err = logs_prepare(objects->logs, reterr);
    if (err != FELIX_OK) {
        (void)pthread_mutex_unlock(&objects->lock);
        scope_free(items, count);
        return err;
    }
    struct scope before = merge(objects, present_scope(objects));
    struct scope after = merge(objects, (struct scope){items, count});
    *ret = (struct node_scope_changes){0};
    objects->incarnation++;
    scope_diff(before, after, apply_change,
               &(struct scope_update){.objects = objects, .changes = ret});
    free((void *)(uintptr_t)before.items);
    free((void *)(uintptr_t)after.items);
    scope_free(objects->scope, objects->scope_count);
    objects->scope = items;
    objects->scope_count = count;
    objects->scope_replaced = true;
    (void)pthread_mutex_unlock(&objects->lock);
    return FELIX_OK;
}

struct object_facts objects_find(struct objects *objects, const struct scope_item *like) {
    struct object_facts facts = {0};
    (void)pthread_mutex_lock(&objects->lock);
    struct scope scope = present_scope(objects);
    const struct scope_item *in_scope = find_item(scope.items, scope.count, like);
    const struct scope_item *in_catalog = catalog_find(&objects->catalog, like);
    const struct scope_item *item = in_scope != NULL ? in_scope : in_catalog;
    if (item != NULL)
        facts = (struct object_facts){
            .in_scope = in_scope != NULL,
            .in_catalog = in_catalog != NULL,
            .durable = item->durable,
            .retention_bytes = item->retention_bytes,
            .retention_seconds = item->retention_seconds,
        };
    (void)pthread_mutex_unlock(&objects->lock);
    return facts;
}

size_t objects_made(struct objects *objects) {
    (void)pthread_mutex_lock(&objects->lock);
    size_t count = objects->catalog.count;
    (void)pthread_mutex_unlock(&objects->lock);
    return count;
}

enum felix_err objects_make(struct objects *objects, const struct scope_item *item,
                            struct felix_error *reterr) {
    (void)pthread_mutex_lock(&objects->lock);
    enum felix_err err = item->durable ? logs_prepare(objects->logs, reterr) : FELIX_OK;
    if (err == FELIX_OK)
        err = catalog_put(&objects->catalog, item, reterr);
    if (err == FELIX_OK && made_by_use(objects, item) && !item->durable) {
        tell_reactors(objects, MAIL_ADD, item, 0); /* the same as by its first use */
    } else if (err == FELIX_OK) {
        if (made_by_use(objects, item))
            tell_reactors(objects, MAIL_REMOVE, item, 0);
        tell_reactors(objects, MAIL_ADD, item, ++objects->incarnation);
    }
    (void)pthread_mutex_unlock(&objects->lock);
    return err;
}

enum felix_err objects_set_retention(struct objects *objects, const struct scope_item *item,
                                     struct felix_error *reterr) {
    (void)pthread_mutex_lock(&objects->lock);
    enum felix_err err = catalog_put(&objects->catalog, item, reterr);
    if (err == FELIX_OK)
        (void)logs_set_retention(objects->logs, item);
    (void)pthread_mutex_unlock(&objects->lock);
    return err;
}

bool objects_log_state(struct objects *objects, const struct scope_item *like,
                       struct stream_log_state *ret) {
    return logs_state(objects->logs, like, ret);
}

enum felix_err objects_delete(struct objects *objects, const struct scope_item *like, bool purge,
                              struct felix_error *reterr) {
    (void)pthread_mutex_lock(&objects->lock);
    enum felix_err err = catalog_remove(&objects->catalog, like, reterr);
    if (err == FELIX_OK) {
        tell_reactors(objects, MAIL_REMOVE, like, 0);
        logs_leave(objects->logs, like, purge);
    }
    (void)pthread_mutex_unlock(&objects->lock);
    return err;
}
