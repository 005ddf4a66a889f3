/*
 * MQTT 3.1.1. Publishing without acknowledgement is QoS 0, with it QoS 1: PUBACK answers. There is
 * one such message at a time, so all carry the same packet identifier. Subscriptions are QoS 0: a
 * subscriber of Felix does not acknowledge either.
 */
#include "protocol.h"

#include <string.h>

#define MQTT_CONNACK 2
#define MQTT_PUBLISH 3
#define MQTT_PUBACK 4
#define MQTT_SUBACK 9
#define MQTT_LENGTH_BYTES_MAX 4

static void add_u16(struct text *out, size_t value) {
    text_char(out, (char)(value >> 8));
    text_char(out, (char)(value & 0xff));
}

static void add_string(struct text *out, const char *string) {
    add_u16(out, strlen(string));
    text_add(out, string);
}

static void add_header(struct text *out, unsigned first, size_t rest_bytes) {
    text_char(out, (char)first);
    do {
        text_char(out, (char)((rest_bytes & 0x7f) | (rest_bytes > 0x7f ? 0x80 : 0)));
        rest_bytes >>= 7;
    } while (rest_bytes > 0);
}

static struct item mqtt_next(struct slice in) {
    size_t len = 0;
    size_t at = 1;
    for (;; at++) {
        if (at >= in.len)
            return (struct item){.kind = ITEM_INCOMPLETE};
        if (at > MQTT_LENGTH_BYTES_MAX)
            load_fail("the peer sent a length of more than four bytes");
        len |= (size_t)(in.data[at] & 0x7f) << (7 * (at - 1));
        if ((in.data[at] & 0x80) == 0)
            break;
    }
    at++;
    struct item item = {.kind = ITEM_ANSWER, .bytes = at + len};
    if (in.len < item.bytes)
        return (struct item){.kind = ITEM_INCOMPLETE};
    switch (in.data[0] >> 4) {
    case MQTT_PUBLISH: {
        size_t before = 2 + strlen(PROTOCOL_SUBJECT);
        if (len < before || (in.data[0] & 0x06) != 0)
            load_fail("the peer sent a delivery that was not asked for");
        item.kind = ITEM_MESSAGE;
        item.payload = (struct slice){.data = in.data + at + before, .len = len - before};
        break;
    }
    case MQTT_CONNACK:
        if (len != 2 || in.data[at + 1] != 0)
            load_fail("the peer refused the connection");
        break;
    case MQTT_SUBACK:
        if (len != 3 || in.data[at + 2] != 0)
            load_fail("the peer refused the subscription");
        break;
    case MQTT_PUBACK:
        break;
    default:
        item.kind = ITEM_OTHER;
    }
    return item;
}

static void mqtt_greet(struct link *link, bool acked) {
    struct text out = {0};
    add_header(&out, 0x10, 12);
    add_string(&out, "MQTT");
    text_char(&out, 4); /* version 3.1.1 */
    text_char(&out, 2); /* clean session */
    add_u16(&out, 0);   /* no keep-alive */
    add_u16(&out, 0);   /* the broker makes a name */
    (void)protocol_ask(link, out.data, out.len, mqtt_next, ITEM_ANSWER);
    text_deinit(&out);
}

static void mqtt_subscribe(struct link *link) {
    struct text out = {0};
    add_header(&out, 0x82, 2 + 2 + strlen(PROTOCOL_SUBJECT) + 1);
    add_u16(&out, 1);
    add_string(&out, PROTOCOL_SUBJECT);
    text_char(&out, 0); /* QoS */
    (void)protocol_ask(link, out.data, out.len, mqtt_next, ITEM_ANSWER);
    text_deinit(&out);
}

static size_t mqtt_message(struct text *out, size_t payload_bytes, bool acked) {
    add_header(out, acked ? 0x32 : 0x30,
               2 + strlen(PROTOCOL_SUBJECT) + (acked ? 2 : 0) + payload_bytes);
    add_string(out, PROTOCOL_SUBJECT);
    if (acked)
        add_u16(out, 1);
    return protocol_room(out, payload_bytes);
}

const struct protocol protocol_mqtt = {"mqtt", mqtt_greet, mqtt_subscribe, mqtt_message, mqtt_next};
