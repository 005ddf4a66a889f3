#include "durable.h"

#include <string.h>

const struct protocol *protocol_find(const char *name) {
    static const struct protocol *const all[] = {&protocol_nats, &protocol_redis, &protocol_mqtt};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (strcmp(all[i]->name, name) == 0)
            return all[i];
    }
    return NULL;
}

const struct cache_protocol *cache_protocol_find(const char *name) {
    static const struct cache_protocol *const all[] = {&cache_protocol_redis,
                                                       &cache_protocol_memcached};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (strcmp(all[i]->name, name) == 0)
            return all[i];
    }
    return NULL;
}

const struct durable_protocol *durable_protocol_find(const char *name) {
    static const struct durable_protocol *const all[] = {&durable_protocol_redis,
                                                         &durable_protocol_jetstream};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (strcmp(all[i]->name, name) == 0)
            return all[i];
    }
    return NULL;
}

struct item protocol_take(struct link *link, struct item (*next)(struct slice)) {
    struct slice in = {.data = link->in + link->in_at, .len = link->in_end - link->in_at};
    struct item item = next(in);
    if (item.kind == ITEM_ERROR)
        load_fail("the peer says: %.*s", (int)item.payload.len, (const char *)item.payload.data);
    if (item.kind != ITEM_INCOMPLETE)
        link->in_at += item.bytes;
    return item;
}

size_t protocol_line(struct slice in) {
    const uint8_t *end = in.len == 0 ? NULL : memchr(in.data, '\n', in.len);
    return end == NULL ? 0 : (size_t)(end - in.data) + 1;
}

size_t protocol_number_before(struct slice in, size_t end) {
    size_t value = 0;
    size_t weight = 1;
    while (end > 0 && in.data[end - 1] >= '0' && in.data[end - 1] <= '9') {
        value += weight * (size_t)(in.data[--end] - '0');
        weight *= 10;
    }
    return value;
}

size_t protocol_room(struct text *out, size_t count) {
    size_t at = out->len;
    for (size_t i = 0; i < count; i++)
        text_char(out, '\0');
    return at;
}

struct item protocol_ask(struct link *link, const void *data, size_t len,
                         struct item (*next)(struct slice), int wanted) {
    if (len > 0)
        link_write(link, data, len);
    link->wait = true;
    for (;;) {
        struct item item = protocol_take(link, next);
        if (item.kind == ITEM_INCOMPLETE)
            (void)link_fill(link);
        else if ((int)item.kind == wanted) {
            link->wait = false;
            return item;
        }
    }
}
