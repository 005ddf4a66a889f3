/*
 * Redis: RESP2. PUBLISH is answered with the number of receivers; a publisher that does not want
 * that says CLIENT REPLY OFF once.
 *
 * A delivery is an array of three bulk strings: "message", the subject, the payload. A cache
 * answers with a bulk string or with a line.
 */
#include "durable.h"

#include <string.h>

static const char delivery_start[] = "*3\r\n$7\r\nmessage\r\n$5\r\n" PROTOCOL_SUBJECT "\r\n";

/* A bulk string at `at`: "$5\r\nhello\r\n". */
static struct item bulk_at(struct slice in, size_t at) {
    struct slice rest = {.data = in.data + at, .len = in.len - at};
    size_t line = protocol_line(rest);
    if (line < 3)
        return (struct item){.kind = ITEM_INCOMPLETE};
    if (rest.data[0] != '$' || rest.data[1] == '-')
        load_fail("the peer sent no bulk string");
    size_t len = protocol_number_before(rest, line - 2);
    struct item item = {.kind = ITEM_ANSWER,
                        .bytes = at + line + len + 2,
                        .payload = {.data = rest.data + line, .len = len}};
    if (in.len < item.bytes)
        item.kind = ITEM_INCOMPLETE;
    return item;
}

static struct item redis_next(struct slice in) {
    size_t line = protocol_line(in);
    if (line < 3)
        return (struct item){.kind = ITEM_INCOMPLETE};
    if (in.data[0] == '$')
        return bulk_at(in, 0);
    if (in.data[0] == '-')
        return (struct item){
            .kind = ITEM_ERROR, .bytes = line, .payload = {.data = in.data, .len = line - 2}};
    if (in.data[0] != '*')
        return (struct item){.kind = ITEM_ANSWER, .bytes = line};
    if (in.len < sizeof delivery_start - 1)
        return (struct item){.kind = ITEM_INCOMPLETE};
    if (memcmp(in.data, delivery_start, sizeof delivery_start - 1) != 0)
        return (struct item){.kind = ITEM_OTHER, .bytes = line}; /* the answer to SUBSCRIBE */
    struct item item = bulk_at(in, sizeof delivery_start - 1);
    if (item.kind == ITEM_ANSWER)
        item.kind = ITEM_MESSAGE;
    return item;
}

static void redis_greet(struct link *link, bool acked) {
    static const char ping[] = "PING\r\n", quiet[] = "CLIENT REPLY OFF\r\n";
    (void)protocol_ask(link, ping, sizeof ping - 1, redis_next, ITEM_ANSWER);
    if (!acked)
        link_write(link, quiet, sizeof quiet - 1);
}

/* The answer is an array whose last line, the number of subscriptions, reads as an answer; the two
 * strings before it do as well. */
static void redis_subscribe(struct link *link) {
    static const char request[] = "SUBSCRIBE " PROTOCOL_SUBJECT "\r\n";
    (void)protocol_ask(link, request, sizeof request - 1, redis_next, ITEM_ANSWER);
    (void)protocol_ask(link, NULL, 0, redis_next, ITEM_ANSWER);
    (void)protocol_ask(link, NULL, 0, redis_next, ITEM_ANSWER);
}

static size_t redis_message(struct text *out, size_t payload_bytes, bool acked) {
    text_printf(out, "*3\r\n$7\r\nPUBLISH\r\n$%zu\r\n" PROTOCOL_SUBJECT "\r\n$%zu\r\n",
                strlen(PROTOCOL_SUBJECT), payload_bytes);
    size_t at = protocol_room(out, payload_bytes);
    text_add(out, "\r\n");
    return at;
}

static size_t key_digits(struct text *out) {
    text_printf(out, "$%d\r\nkey:", CACHE_KEY_DIGITS + 4); /* "key:" */
    size_t at = out->len;
    text_printf(out, "%0*d\r\n", CACHE_KEY_DIGITS, 0);
    return at;
}

static size_t redis_put(struct text *out, size_t value_bytes, size_t *ret_value) {
    text_add(out, "*3\r\n$3\r\nSET\r\n");
    size_t at = key_digits(out);
    text_printf(out, "$%zu\r\n", value_bytes);
    *ret_value = protocol_room(out, value_bytes);
    text_add(out, "\r\n");
    return at;
}

static size_t redis_get(struct text *out) {
    text_add(out, "*2\r\n$3\r\nGET\r\n");
    return key_digits(out);
}

const struct protocol protocol_redis = {"redis", redis_greet, redis_subscribe, redis_message,
                                        redis_next};
const struct cache_protocol cache_protocol_redis = {"redis", redis_put, redis_get, redis_next};

/* A stream; its answer is the new entry's id. */
static void redis_durable_greet(struct link *link, unsigned number) {
    redis_greet(link, true);
}

static void redis_durable_make(struct link *link) {
}

static size_t redis_append(struct text *out, size_t payload_bytes, unsigned number) {
    text_printf(
        out, "*5\r\n$4\r\nXADD\r\n$%zu\r\n" PROTOCOL_SUBJECT "\r\n$1\r\n*\r\n$1\r\np\r\n$%zu\r\n",
        strlen(PROTOCOL_SUBJECT), payload_bytes);
    size_t at = protocol_room(out, payload_bytes);
    text_add(out, "\r\n");
    return at;
}

const struct durable_protocol durable_protocol_redis = {
    "redis", redis_durable_greet, redis_durable_make, redis_append, NULL, redis_next};
