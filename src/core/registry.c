/*
 * What exists. Each reactor has its own copy of the registry, so that no look-up takes a lock;
 * whoever feeds it (the configuration now, a control plane later) tells every reactor.
 */
#include <stdlib.h>

#include "base/check.h"
#include "base/cursor.h"
#include "base/name.h"
#include "core/core.h"

/* A key block is the length in four bytes, then the bytes. */
#define KEY_AT 4u

size_t core_key_bytes(struct slice tenant, struct slice namespace_, struct slice name) {
    return 6 + tenant.len + namespace_.len + name.len;
}

void core_key_write(uint8_t *out, struct slice tenant, struct slice namespace_, struct slice name) {
    struct writer w = writer_of(out, core_key_bytes(tenant, namespace_, name));
    const struct slice parts[] = {tenant, namespace_, name};
    for (size_t i = 0; i < 3; i++) {
        writer_u16(&w, (uint16_t)parts[i].len);
        writer_bytes(&w, parts[i]);
    }
}

struct buf *core_key_new(struct slice key) {
    struct buf *block = buf_new(KEY_AT + key.len);
    be32_store(block->data, (uint32_t)key.len);
    memcpy(block->data + KEY_AT, key.data, key.len);
    buf_share(block); /* it travels in messages */
    return block;
}

struct slice core_key_slice(const struct buf *key) {
    return slice_of(key->data + KEY_AT, be32_load(key->data));
}

static struct slice fanout_key(const void *entry) {
    return core_key_slice(((const struct fanout *)entry)->key);
}

static struct slice cache_point_key(const void *entry) {
    return core_key_slice(((const struct cache_entry_point *)entry)->key);
}

void core_init(struct core *core, unsigned reactor, unsigned reactor_count,
               const struct core_settings *settings, const struct core_host *host,
               void *host_context) {
    INVARIANT(reactor_count >= 1 && reactor_count <= CORE_REACTORS_MAX);
    *core = (struct core){
        .reactor = reactor,
        .reactor_count = reactor_count,
        .settings = *settings,
        .host = host,
        .host_context = host_context,
        .next_handle = 1,
        .generation = 1,
    };
    map_init(&core->streams, fanout_key);
    map_init(&core->caches, cache_point_key);
    core->cache_shard = cache_shard_new(settings->cache_max_bytes);
}

void core_deinit(struct core *core) {
    size_t at = 0;
    struct fanout *fanout;
    core_tick(core);
    while ((fanout = map_next(&core->streams, &at)) != NULL) {
        INVARIANT(fanout->subs == NULL);
        core_fanout_end(core, fanout);
        fanout_unref(fanout);
    }
    map_deinit(&core->streams);
    at = 0;
    struct cache_entry_point *point;
    while ((point = map_next(&core->caches, &at)) != NULL)
        cache_point_unref(point);
    map_deinit(&core->caches);
    cache_shard_free(core->cache_shard);
    map_u64_deinit(&core->subs);
}

struct fanout *fanout_ref(struct fanout *fanout) {
    fanout->refs++;
    return fanout;
}

void fanout_unref(struct fanout *fanout) {
    if (fanout == NULL || --fanout->refs > 0)
        return;
    topic_deinit(&fanout->topic);
    free(fanout->uncommitted.waits);
    free(fanout->uncommitted.blocks);
    buf_unref(fanout->key);
    free(fanout);
}

struct cache_entry_point *cache_point_ref(struct cache_entry_point *point) {
    point->refs++;
    return point;
}

void cache_point_unref(struct cache_entry_point *point) {
    if (point == NULL || --point->refs > 0)
        return;
    buf_unref(point->key);
    free(point);
}

unsigned core_owner(struct slice key, unsigned reactor_count) {
    return (unsigned)(map_hash(key) % reactor_count);
}

static struct fanout *add_stream(struct core *core, struct slice key, uint64_t hash,
                                 uint64_t incarnation, const struct stream_start *start) {
    struct fanout *fanout = xcalloc(1, sizeof *fanout);
    fanout->key = core_key_new(key);
    fanout->incarnation = incarnation;
    fanout->hash = hash;
    fanout->owner = core_owner(key, core->reactor_count);
    fanout->refs = 1;
    if (start != NULL && start->log != NULL) {
        topic_init(&fanout->topic, true, start->end);
        fanout->log = start->log;
        fanout->uncommitted.epoch = start->epoch;
        fanout->uncommitted.err = start->err;
        fanout->uncommitted.unopened = start->err != FELIX_OK;
    }
    if (fanout->owner == core->reactor) {
        fanout->all_next = core->topics;
        if (core->topics != NULL)
            core->topics->all_prev = fanout;
        core->topics = fanout;
    }
    (void)map_put_hashed(&core->streams, fanout, hash);
    if (fanout->owner == core->reactor)
        counter_add(&core->counters.streams, 1);
    return fanout;
}

static struct cache_entry_point *add_cache(struct core *core, struct slice key, uint64_t hash,
                                           uint64_t max_bytes) {
    struct cache_entry_point *point = xcalloc(1, sizeof *point);
    point->key = core_key_new(key);
    point->hash = hash;
    point->refs = 1;
    point->cache = cache_open(core->cache_shard, key, max_bytes);
    (void)map_put_hashed(&core->caches, point, hash);
    counter_add(&core->counters.caches, 1);
    return point;
}

/* Is this a name in the development namespace that may come into being by being used? */
static bool may_make(struct core *core, struct slice key) {
    struct reader r = reader_of(key);
    if (!core->settings.make_on_first_use || core->made_streams >= core->settings.made_streams_max)
        return false;
    struct slice tenant = reader_take(&r, reader_u16(&r));
    struct slice namespace_ = reader_take(&r, reader_u16(&r));
    struct slice name = reader_take(&r, reader_u16(&r));
    return !r.failed && slice_equal(tenant, core->settings.dev_tenant) &&
           slice_equal(namespace_, core->settings.dev_namespace) && name_valid(name);
}

struct fanout *core_find_stream(struct core *core, struct slice key) {
    uint64_t hash = map_hash(key);
    struct fanout *fanout = map_get_hashed(&core->streams, key, hash);
    if (fanout == NULL && may_make(core, key)) {
        fanout = add_stream(core, key, hash, 0, NULL);
        fanout->made_by_use = true;
        core->made_streams++;
    }
    return fanout;
}

struct fanout *core_get_stream(const struct core *core, struct slice key) {
    return map_get(&core->streams, key);
}

struct cache_entry_point *core_find_cache(struct core *core, struct slice key) {
    uint64_t hash = map_hash(key);
    struct cache_entry_point *point = map_get_hashed(&core->caches, key, hash);
    if (point == NULL && may_make(core, key)) {
        point = add_cache(core, key, hash, core->settings.cache_max_bytes_per_cache);
        core->made_streams++;
    }
    return point;
}

void core_add_stream(struct core *core, struct slice key, uint64_t incarnation,
                     const struct stream_start *start) {
    uint64_t hash = map_hash(key);
    if (map_get_hashed(&core->streams, key, hash) == NULL)
        (void)add_stream(core, key, hash, incarnation, start);
    else if (start != NULL && start->log != NULL)
        core->host->log_release(core->host_context, start->log);
}

void core_add_cache(struct core *core, struct slice key, uint64_t max_bytes) {
    uint64_t hash = map_hash(key);
    if (map_get_hashed(&core->caches, key, hash) == NULL)
        (void)add_cache(core, key, hash,
                        max_bytes != 0 ? max_bytes : core->settings.cache_max_bytes_per_cache);
}

static void leave_topics(struct core *core, struct fanout *fanout) {
    if (fanout->owner != core->reactor)
        return;
    if (core->trim_hand == fanout)
        core->trim_hand = fanout->all_next;
    if (core->resume_hand == fanout)
        core->resume_hand = fanout->all_next;
    if (fanout->all_prev != NULL)
        fanout->all_prev->all_next = fanout->all_next;
    else
        core->topics = fanout->all_next;
    if (fanout->all_next != NULL)
        fanout->all_next->all_prev = fanout->all_prev;
}

bool core_remove_stream(struct core *core, struct slice key) {
    struct fanout *fanout = map_remove(&core->streams, key);
    if (fanout == NULL)
        return false;
    core->generation++;
    core->made_streams -= fanout->made_by_use;
    if (fanout->owner == core->reactor)
        counter_sub(&core->counters.streams, 1);
    leave_topics(core, fanout);
    core_fanout_end(core, fanout);
    fanout_unref(fanout);
    return true;
}

bool core_remove_cache(struct core *core, struct slice key) {
    struct cache_entry_point *point = map_remove(&core->caches, key);
    if (point == NULL)
        return false;
    core->generation++;
    counter_sub(&core->counters.caches, 1);
    point->deleted = true;
    cache_close(point->cache);
    point->cache = NULL;
    cache_point_unref(point);
    return true;
}

void core_receive(struct core *core, struct mail *mail, uint64_t now_ns) {
    const struct mail_object *object = (const struct mail_object *)mail;
    switch (mail->kind) {
    case MAIL_REMOVE:
        if (object->is_cache)
            (void)core_remove_cache(core, core_key_slice(mail->key));
        else
            (void)core_remove_stream(core, core_key_slice(mail->key));
        mail_free(mail);
        return;
    case MAIL_ADD:
        if (object->is_cache)
            core_add_cache(core, core_key_slice(mail->key), object->max_bytes);
        else
            core_add_stream(core, core_key_slice(mail->key), mail->incarnation, &object->start);
        mail_free(mail);
        return;
    case MAIL_CACHE:
    case MAIL_CACHE_DONE:
        core_cache_mail(core, mail, now_ns);
        return;
    case MAIL_PUBLISH:
    case MAIL_PUBLISHED:
    case MAIL_SUBSCRIBE:
    case MAIL_SUBSCRIBED:
    case MAIL_UNSUBSCRIBE:
    case MAIL_DELIVER:
    case MAIL_DELIVERED:
    case MAIL_STALL:
    case MAIL_REWIND:
    case MAIL_GAP:
    case MAIL_LOGGED:
    case MAIL_LOG_PAGE:
        core_stream_mail(core, mail);
        return;
    case MAIL_NODE:
        UNREACHED();
    }
}
