/* NATS: lines of text. A publish has no answer; PING after it has one, PONG, and the server answers
 * a connection's requests in order: that is what client libraries call flush. */
#include "protocol.h"

#include <string.h>

static struct item nats_next(struct slice in) {
    size_t line = protocol_line(in);
    if (line < 2)
        return (struct item){.kind = ITEM_INCOMPLETE};
    struct item item = {.kind = ITEM_OTHER, .bytes = line}; /* INFO, PING, +OK */
    if (in.data[0] == 'M') {
        size_t len = protocol_number_before(in, line - 2);
        item = (struct item){.kind = ITEM_MESSAGE,
                             .bytes = line + len + 2,
                             .payload = {.data = in.data + line, .len = len}};
        if (in.len < item.bytes)
            item.kind = ITEM_INCOMPLETE;
    } else if (line >= 4 && memcmp(in.data, "PONG", 4) == 0) {
        item.kind = ITEM_ANSWER;
    } else if (in.data[0] == '-') {
        item = (struct item){
            .kind = ITEM_ERROR, .bytes = line, .payload = {.data = in.data, .len = line - 2}};
    }
    return item;
}

static void nats_greet(struct link *link, bool acked) {
    static const char hello[] = "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":false,"
                                "\"name\":\"peer-load\",\"lang\":\"c\",\"protocol\":1}\r\nPING\r\n";
    (void)protocol_ask(link, NULL, 0, nats_next, ITEM_OTHER); /* INFO */
    (void)protocol_ask(link, hello, sizeof hello - 1, nats_next, ITEM_ANSWER);
}

static void nats_subscribe(struct link *link) {
    static const char request[] = "SUB " PROTOCOL_SUBJECT " 1\r\nPING\r\n";
    (void)protocol_ask(link, request, sizeof request - 1, nats_next, ITEM_ANSWER);
}

static size_t nats_message(struct text *out, size_t payload_bytes, bool acked) {
    text_printf(out, "PUB " PROTOCOL_SUBJECT " %zu\r\n", payload_bytes);
    size_t at = protocol_room(out, payload_bytes);
    text_add(out, acked ? "\r\nPING\r\n" : "\r\n");
    return at;
}

const struct protocol protocol_nats = {"nats", nats_greet, nats_subscribe, nats_message, nats_next};
