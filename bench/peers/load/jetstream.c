/*
 * JetStream: an append is a publish with a subject for the answer, {"stream":"felix","seq":7}.
 * Answers and records are deliveries; a record has the subject that it was published to. Each
 * connection has a subject of its own for answers, or it would get those of the others, too.
 */
#include "durable.h"

#include <string.h>

#define STREAM PROTOCOL_SUBJECT
#define ANSWERS "_INBOX.answers."
#define RECORDS "_INBOX.records"

static bool contains(struct slice text, const char *word) {
    return memmem(text.data, text.len, word, strlen(word)) != NULL;
}

static struct item jetstream_next(struct slice in) {
    static const char record[] = "MSG " STREAM " ";
    struct item item = protocol_nats.next(in);
    if (item.kind != ITEM_MESSAGE ||
        (in.len >= sizeof record && memcmp(in.data, record, sizeof record - 1) == 0))
        return item;
    item.kind = contains(item.payload, "\"error\"") ? ITEM_ERROR : ITEM_ANSWER;
    return item;
}

static void jetstream_greet(struct link *link, unsigned number) {
    struct text request = {0};
    protocol_nats.greet(link, true);
    text_printf(&request, "SUB " ANSWERS "%u 1\r\nPING\r\n", number);
    (void)protocol_ask(link, request.data, request.len, protocol_nats.next, ITEM_ANSWER);
    text_deinit(&request);
}

/* A request of JetStream's own interface; its answer will come to the first connection. */
static void jetstream_request(struct link *link, const char *subject, const char *document) {
    struct text request = {0};
    text_printf(&request, "PUB $JS.API.%s " ANSWERS "0 %zu\r\n%s\r\n", subject, strlen(document),
                document);
    link_write(link, request.data, request.len);
    text_deinit(&request);
}

static void jetstream_make(struct link *link) {
    jetstream_request(link, "STREAM.CREATE." STREAM,
                      "{\"name\":\"" STREAM "\",\"subjects\":[\"" STREAM "\"],\"storage\":"
                      "\"file\",\"retention\":\"limits\",\"num_replicas\":1}");
    (void)protocol_ask(link, NULL, 0, jetstream_next, ITEM_ANSWER);
}

static size_t jetstream_append(struct text *out, size_t payload_bytes, unsigned number) {
    text_printf(out, "PUB " STREAM " " ANSWERS "%u %zu\r\n", number, payload_bytes);
    size_t at = protocol_room(out, payload_bytes);
    text_add(out, "\r\n");
    return at;
}

/* A consumer that is pushed to and acknowledges nothing: the fastest way to read that there is. The
 * first records may come before the answer that it was made. */
static void jetstream_replay(struct link *link) {
    static const char subscribe[] = "SUB " RECORDS " 2\r\n";
    link_write(link, subscribe, sizeof subscribe - 1);
    jetstream_request(link, "CONSUMER.CREATE." STREAM,
                      "{\"stream_name\":\"" STREAM "\",\"config\":{\"deliver_subject\":\"" RECORDS
                      "\",\"deliver_policy\":\"all\",\"ack_policy\":\"none\",\"mem_storage\":"
                      "true}}");
}

const struct durable_protocol durable_protocol_jetstream = {"jetstream",      jetstream_greet,
                                                            jetstream_make,   jetstream_append,
                                                            jetstream_replay, jetstream_next};
