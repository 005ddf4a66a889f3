/* memcached: its meta commands, of which a request carries nothing but key and value. */
#include "protocol.h"

static struct item memcached_next(struct slice in) {
    size_t line = protocol_line(in);
    if (line < 4)
        return (struct item){.kind = ITEM_INCOMPLETE};
    if (in.data[0] == 'H' && in.data[1] == 'D')
        return (struct item){.kind = ITEM_ANSWER, .bytes = line};
    if (in.data[0] != 'V' || in.data[1] != 'A')
        return (struct item){
            .kind = ITEM_ERROR, .bytes = line, .payload = {.data = in.data, .len = line - 2}};
    size_t len = protocol_number_before(in, line - 2);
    struct item item = {.kind = ITEM_ANSWER,
                        .bytes = line + len + 2,
                        .payload = {.data = in.data + line, .len = len}};
    if (in.len < item.bytes)
        item.kind = ITEM_INCOMPLETE;
    return item;
}

static size_t memcached_put(struct text *out, size_t value_bytes, size_t *ret_value) {
    text_add(out, "ms key:");
    size_t at = out->len;
    text_printf(out, "%0*d %zu\r\n", CACHE_KEY_DIGITS, 0, value_bytes);
    *ret_value = protocol_room(out, value_bytes);
    text_add(out, "\r\n");
    return at;
}

static size_t memcached_get(struct text *out) {
    text_add(out, "mg key:");
    size_t at = out->len;
    text_printf(out, "%0*d v\r\n", CACHE_KEY_DIGITS, 0);
    return at;
}

const struct cache_protocol cache_protocol_memcached = {"memcached", memcached_put, memcached_get,
                                                        memcached_next};
