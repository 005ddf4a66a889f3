/*
 * Cache requests. A key belongs to the reactor that its hash names; a request for a key that
 * lives elsewhere travels there and its answer back. Every reactor holds its own part of every
 * cache, within its own part of the byte limits.
 */
#include <stdlib.h>

#include "base/check.h"
#include "base/clock.h"
#include "core/core.h"

/* Key bytes decide, not the cache's name: one hot cache spreads over all reactors. */
static unsigned key_owner(const struct core *core, struct slice entry_key) {
    return core->reactor_count == 1 ? 0 : (unsigned)(map_hash(entry_key) % core->reactor_count);
}

static uint64_t ttl_ns_of(bool has_ttl, uint64_t ttl_ms) {
    if (!has_ttl || ttl_ms >= CACHE_NO_TTL / NS_PER_MS)
        return CACHE_NO_TTL;
    return ttl_ms * NS_PER_MS;
}

struct run {
    enum cache_op op;
    struct slice entry_key;
    struct slice value;
    uint64_t ttl_ns;
};

/* Run on the owner. The block in the answer carries one reference for the caller. */
static void run(struct core *core, struct cache *cache, const struct run *request, uint64_t now_ns,
                struct cache_answer *answer) {
    struct cache_value found = {0};
    counter_add(&core->counters.cache_requests, 1);
    switch (request->op) {
    case CACHE_OP_PUT:
        answer->err = cache_put(cache, request->entry_key, request->value, request->ttl_ns, now_ns);
        return;
    case CACHE_OP_GET:
        answer->found = cache_get(cache, request->entry_key, now_ns, &found);
        break;
    case CACHE_OP_DELETE:
        answer->found = cache_delete(cache, request->entry_key, now_ns, &found);
        break;
    }
    answer->value_block = found.block;
    answer->value = found.bytes;
}

bool core_cache(struct core *core, const struct cache_request *request, uint64_t now_ns,
                struct cache_answer *ret) {
    unsigned owner = key_owner(core, request->entry_key);
    if (owner == core->reactor) {
        *ret = (struct cache_answer){.origin = request->origin, .op = request->op};
        struct run what = {
            .op = request->op,
            .entry_key = request->entry_key,
            .value = request->value,
            .ttl_ns = ttl_ns_of(request->has_ttl, request->ttl_ms),
        };
        run(core, request->point->cache, &what, now_ns, ret);
        return true;
    }
    struct mail_cache *mail = xcalloc(1, sizeof *mail);
    mail->mail = (struct mail){
        .kind = MAIL_CACHE, .from = core->reactor, .key = buf_ref(request->point->key)};
    mail->origin = request->origin;
    mail->op = request->op;
    mail->has_ttl = request->has_ttl;
    mail->ttl_ms = request->ttl_ms;
    mail->memory = buf_new(request->entry_key.len + request->value.len);
    buf_share(mail->memory);
    memcpy(mail->memory->data, request->entry_key.data, request->entry_key.len);
    if (request->value.len > 0)
        memcpy(mail->memory->data + request->entry_key.len, request->value.data,
               request->value.len);
    mail->entry_key = slice_of(mail->memory->data, request->entry_key.len);
    mail->value = slice_of(mail->memory->data + request->entry_key.len, request->value.len);
    core->host->post(core->host_context, owner, &mail->mail);
    return false;
}

static void on_request(struct core *core, const struct mail_cache *mail, uint64_t now_ns) {
    struct cache_entry_point *point = core_find_cache(core, core_key_slice(mail->mail.key));
    struct cache_answer answer = {.origin = mail->origin, .op = mail->op, .err = FELIX_NOT_FOUND};
    if (point != NULL) {
        struct run what = {
            .op = mail->op,
            .entry_key = mail->entry_key,
            .value = mail->value,
            .ttl_ns = ttl_ns_of(mail->has_ttl, mail->ttl_ms),
        };
        answer.err = FELIX_OK;
        run(core, point->cache, &what, now_ns, &answer);
    }
    struct mail_cache_done *reply = xcalloc(1, sizeof *reply);
    reply->mail = (struct mail){
        .kind = MAIL_CACHE_DONE, .from = core->reactor, .key = buf_ref(mail->mail.key)};
    reply->origin = mail->origin;
    reply->op = mail->op;
    reply->err = answer.err;
    reply->found = answer.found;
    if (answer.value_block != NULL) {
        /* An entry's block is replaced or freed by its shard alone and counts without atomics;
         * what leaves the reactor is therefore a copy. */
        reply->value_block = buf_new(answer.value.len);
        buf_share(reply->value_block);
        memcpy(reply->value_block->data, answer.value.data, answer.value.len);
        reply->value = slice_of(reply->value_block->data, answer.value.len);
        buf_unref(answer.value_block);
    }
    core->host->post(core->host_context, mail->mail.from, &reply->mail);
}

void core_cache_mail(struct core *core, struct mail *mail, uint64_t now_ns) {
    if (mail->kind == MAIL_CACHE) {
        on_request(core, (const struct mail_cache *)mail, now_ns);
    } else {
        const struct mail_cache_done *done = (const struct mail_cache_done *)mail;
        struct cache_answer answer = {
            .origin = done->origin,
            .op = done->op,
            .err = done->err,
            .found = done->found,
            .value_block = done->value_block,
            .value = done->value,
        };
        core->host->cache_done(core->host_context, &answer);
    }
    mail_free(mail);
}
