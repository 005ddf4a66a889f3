/*
 * The cache calls of felix.h: arguments, the way that a call takes, and how blocking ones wait.
 */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "client/client.h"
#include "client/last_error.h"
#include "wire/utf8.h"

#define NOT_UTF8_TEXT "namespace, cache or key is not UTF-8"

/* The call as the application made it, not looked at yet. */
struct cache_call {
    enum kv_kind kind;
    const char *ns, *cache, *key;
    struct felix_bytes value;
    uint64_t ttl_ms;
    felix_cache_done done;
    void *context;
};

static enum felix_err check(struct felix_client *client, const struct cache_call *call) {
    if (client == NULL || call->ns == NULL || call->cache == NULL || call->key == NULL ||
        call->done == NULL || (call->value.data == NULL && call->value.len > 0))
        return last_error_set(FELIX_INVALID_ARGUMENT, "a cache call: an argument is NULL");
    if (!utf8_valid(slice_str(call->key)))
        return last_error_set(FELIX_INVALID_ARGUMENT, NOT_UTF8_TEXT);
    if (atomic_load_explicit(&client->closed, memory_order_relaxed))
        return last_error_set(FELIX_CLOSED, "the client is closed");
    return FELIX_OK;
}

/* Names that the short way knows were looked at when it learned them. */
static enum felix_err take_detour(struct felix_client *client, const struct kv_call *call) {
    if (!utf8_valid(slice_str(call->ns)) || !utf8_valid(slice_str(call->cache))) {
        kv_frames_arrived(&client->kv.frames);
        return last_error_set(FELIX_INVALID_ARGUMENT, NOT_UTF8_TEXT);
    }
    kv_post(client, kv_request_new(client, call));
    return FELIX_OK;
}

static enum felix_err start(struct felix_client *client, const struct cache_call *call) {
    enum felix_err err = check(client, call);
    if (err != FELIX_OK)
        return err;
    struct kv_call request = {
        .kind = call->kind,
        .ns = call->ns,
        .cache = call->cache,
        .key = slice_str(call->key),
        .value = slice_of(call->value.data, call->value.len),
        .ttl_ms = call->ttl_ms,
        .done = call->done,
        .context = call->context,
    };
    switch (kv_frames_stage(client, &request)) {
    case KV_STAGED:
        break;
    case KV_DETOUR:
        return take_detour(client, &request);
    case KV_TOO_LARGE:
        return last_error_set(FELIX_TOO_LARGE, "the request exceeds the frame limit of %zu bytes",
                              (size_t)client->settings->max_frame_bytes);
    case KV_TOO_MANY:
        return last_error_set(FELIX_LIMIT, "too many cache requests are unanswered");
    }
    return FELIX_OK;
}

enum felix_err felix_cache_put_async(felix_client *client, const char *ns, const char *cache,
                                     const char *key, struct felix_bytes value, uint64_t ttl_ms,
                                     felix_cache_done done, void *context) {
    return start(client,
                 &(struct cache_call){KV_PUT, ns, cache, key, value, ttl_ms, done, context});
}

enum felix_err felix_cache_get_async(felix_client *client, const char *ns, const char *cache,
                                     const char *key, felix_cache_done done, void *context) {
    return start(client, &(struct cache_call){.kind = KV_GET,
                                              .ns = ns,
                                              .cache = cache,
                                              .key = key,
                                              .done = done,
                                              .context = context});
}

enum felix_err felix_cache_delete_async(felix_client *client, const char *ns, const char *cache,
                                        const char *key, felix_cache_done done, void *context) {
    return start(client, &(struct cache_call){.kind = KV_DELETE,
                                              .ns = ns,
                                              .cache = cache,
                                              .key = key,
                                              .done = done,
                                              .context = context});
}

/* A call that waits: on the caller's stack. */
struct blocking_call {
    struct client_call call;
    bool found;
    bool wants_value;
    struct felix_bytes value; /* owned */
};

static void answer_blocking(void *context, enum felix_err err, const char *error_text, bool found,
                            struct felix_bytes value) {
    struct blocking_call *blocking = context;
    blocking->found = found;
    if (err == FELIX_OK && found && blocking->wants_value) {
        void *copy = xmalloc(value.len > 0 ? value.len : 1);
        if (value.len > 0)
            memcpy(copy, value.data, value.len);
        blocking->value = (struct felix_bytes){.data = copy, .len = value.len};
    }
    client_call_answer(&blocking->call, err, error_text);
}

static enum felix_err wait_for(struct felix_client *client, struct cache_call *call,
                               struct blocking_call *blocking) {
    if (client != NULL && driver_is_thread(client))
        return last_error_set(FELIX_INVALID_ARGUMENT,
                              "a blocking cache call from a callback; use the async one");
    if (client == NULL)
        return start(client, call); /* says so */
    client_call_begin(client, &blocking->call);
    call->done = answer_blocking;
    call->context = blocking;
    enum felix_err err = start(client, call);
    call->context = NULL;
    if (err == FELIX_OK)
        return client_call_wait(client, &blocking->call);
    driver_expect_not(client);
    return err;
}

enum felix_err felix_cache_put(felix_client *client, const char *ns, const char *cache,
                               const char *key, struct felix_bytes value, uint64_t ttl_ms) {
    struct blocking_call blocking = {0};
    struct cache_call call = {
        .kind = KV_PUT, .ns = ns, .cache = cache, .key = key, .value = value, .ttl_ms = ttl_ms};
    return wait_for(client, &call, &blocking);
}

static enum felix_err fetch(felix_client *client, struct cache_call *call,
                            struct felix_bytes *ret) {
    struct blocking_call blocking = {.wants_value = ret != NULL};
    enum felix_err err = wait_for(client, call, &blocking);
    if (err != FELIX_OK)
        return err;
    if (!blocking.found)
        return last_error_set(FELIX_NOT_FOUND, "no key \"%s\" in cache %s/%s", call->key, call->ns,
                              call->cache);
    if (ret != NULL)
        *ret = blocking.value;
    return FELIX_OK;
}

enum felix_err felix_cache_get(felix_client *client, const char *ns, const char *cache,
                               const char *key, struct felix_bytes *ret) {
    if (ret == NULL)
        return last_error_set(FELIX_INVALID_ARGUMENT, "felix_cache_get: ret is NULL");
    struct cache_call call = {.kind = KV_GET, .ns = ns, .cache = cache, .key = key};
    return fetch(client, &call, ret);
}

enum felix_err felix_cache_delete(felix_client *client, const char *ns, const char *cache,
                                  const char *key, struct felix_bytes *ret_old) {
    struct cache_call call = {.kind = KV_DELETE, .ns = ns, .cache = cache, .key = key};
    return fetch(client, &call, ret_old);
}
