#include "kill_ledger.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEAD_BYTES 16u
#define NUMBER_BITS 40u
#define NOWHERE UINT64_MAX

/* What is known of a record: its offset, by acknowledgement and by reading. */
struct record_state {
    uint64_t acked, seen; /* NOWHERE: neither */
};

struct source {
    struct record_state *records; /* by number */
    uint64_t count, capacity;
    uint64_t last; /* number that was seen last, plus one */
};

static void *grown(void *memory, size_t bytes) {
    void *more = realloc(memory, bytes);
    if (more == NULL)
        abort();
    return more;
}

static struct source *source_of(struct ledger *ledger, unsigned stream, unsigned source) {
    return &ledger->all[stream * ledger->sources + source];
}

void ledger_init(struct ledger *ledger, unsigned streams, unsigned sources, uint64_t seed,
                 enum felix_level level) {
    *ledger = (struct ledger){.streams = streams, .sources = sources, .seed = seed, .level = level};
    (void)pthread_mutex_init(&ledger->lock, NULL);
    ledger->all = calloc((size_t)streams * sources, sizeof *ledger->all);
    ledger->histories = calloc(streams, sizeof *ledger->histories);
    if (ledger->all == NULL || ledger->histories == NULL)
        abort();
}

void ledger_deinit(struct ledger *ledger) {
    for (unsigned i = 0; i < ledger->streams * ledger->sources; i++)
        free(ledger->all[i].records);
    for (unsigned i = 0; i < ledger->streams; i++)
        free(ledger->histories[i].records);
    free(ledger->all);
    free(ledger->histories);
    (void)pthread_mutex_destroy(&ledger->lock);
}

__attribute__((format(printf, 2, 0))) static void say_wrong(struct ledger *ledger,
                                                            const char *format, va_list arguments) {
    if (ledger->wrong[0] == '\0')
        (void)vsnprintf(ledger->wrong, sizeof ledger->wrong, format, arguments);
}

void ledger_wrong(struct ledger *ledger, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    (void)pthread_mutex_lock(&ledger->lock);
    say_wrong(ledger, format, arguments);
    (void)pthread_mutex_unlock(&ledger->lock);
    va_end(arguments);
}

/* With the lock held; returns false. */
static bool wrong(struct ledger *ledger, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static bool wrong(struct ledger *ledger, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    say_wrong(ledger, format, arguments);
    va_end(arguments);
    return false;
}

/* ---- records ---- */

static uint64_t mixed(uint64_t value) {
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
    return value ^ (value >> 31);
}

static void put(uint8_t *at, uint64_t value, size_t bytes) {
    for (size_t i = 0; i < bytes; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

static uint64_t take(const uint8_t *at, size_t bytes) {
    uint64_t value = 0;
    for (size_t i = 0; i < bytes; i++)
        value |= (uint64_t)at[i] << (8 * i);
    return value;
}

size_t ledger_record(const struct ledger *ledger, unsigned stream, unsigned source, uint64_t number,
                     uint8_t out[RECORD_BYTES_MAX]) {
    uint64_t state =
        mixed(ledger->seed ^ mixed((uint64_t)stream << 32 | source) ^ mixed(number + 1));
    /* Most are small; some fill a page. */
    size_t room = (state & 15) == 0 ? RECORD_BYTES_MAX - HEAD_BYTES : 200;
    size_t len = HEAD_BYTES + (state >> 8) % room;
    put(out, stream, 4);
    put(out + 4, source, 4);
    put(out + 8, number, 8);
    for (size_t i = HEAD_BYTES; i < len; i++) {
        if (i % 8 == 0)
            state = mixed(state + i);
        out[i] = (uint8_t)(state >> (8 * (i % 8)));
    }
    return len;
}

/* ---- publishing ---- */

uint64_t ledger_claim(struct ledger *ledger, unsigned stream, unsigned source, size_t count) {
    struct source *s = source_of(ledger, stream, source);
    (void)pthread_mutex_lock(&ledger->lock);
    uint64_t first = s->count;
    s->count += count;
    if (s->count > s->capacity) {
        s->capacity = 2 * s->count + 1024;
        s->records = grown(s->records, s->capacity * sizeof *s->records);
    }
    for (uint64_t number = first; number < s->count; number++)
        s->records[number] = (struct record_state){.acked = NOWHERE, .seen = NOWHERE};
    (void)pthread_mutex_unlock(&ledger->lock);
    return first;
}

/* With the lock held. */
static void acknowledge(struct ledger *ledger, unsigned stream, unsigned source, uint64_t first,
                        size_t count, const struct felix_publish_result *result) {
    struct source *s = source_of(ledger, stream, source);
    ledger->acked += count;
    if (!result->has_offset || result->level != ledger->level) {
        (void)wrong(ledger, "stream %u: record %llu of publisher %u was acknowledged as %s, %s",
                    stream, (unsigned long long)first, source, felix_level_name(result->level),
                    result->has_offset ? "with its offset" : "without an offset");
        return;
    }
    for (size_t i = 0; i < count; i++)
        s->records[first + i].acked = result->offset + i;
}

void ledger_answered(struct ledger *ledger, unsigned stream, unsigned source, uint64_t first,
                     size_t count, const struct felix_publish_result *result) {
    (void)pthread_mutex_lock(&ledger->lock);
    if (result->err == FELIX_OK)
        acknowledge(ledger, stream, source, first, count, result);
    else if (result->err == FELIX_OUTCOME_UNKNOWN)
        ledger->unknown += count;
    else
        ledger->refused += count;
    (void)pthread_mutex_unlock(&ledger->lock);
}

/* ---- reading ---- */

/* The record at the end of what was known of the stream. */
static bool append(struct ledger *ledger, unsigned stream, uint64_t record) {
    struct history *history = &ledger->histories[stream];
    unsigned source = (unsigned)(record >> NUMBER_BITS);
    uint64_t number = record & (((uint64_t)1 << NUMBER_BITS) - 1);
    struct source *s = source_of(ledger, stream, source);
    if (number >= s->count)
        return wrong(ledger,
                     "stream %u offset %zu: record %llu of publisher %u was never published",
                     stream, history->count, (unsigned long long)number, source);
    if (number < s->last)
        return wrong(ledger, "stream %u offset %zu: record %llu of publisher %u %s, after %llu",
                     stream, history->count, (unsigned long long)number, source,
                     s->records[number].seen != NOWHERE ? "comes twice" : "comes late",
                     (unsigned long long)(s->last - 1));
    s->last = number + 1;
    s->records[number].seen = history->count;
    if (history->count == history->capacity) {
        history->capacity = 2 * history->capacity + 4096;
        history->records = grown(history->records, history->capacity * sizeof *history->records);
    }
    history->records[history->count++] = record;
    return true;
}

/* The record that a message says it is; false when it is none or damaged. */
static bool identify(struct ledger *ledger, const struct view *view,
                     const struct felix_message *message, uint64_t *ret) {
    const uint8_t *data = message->data;
    uint8_t expected[RECORD_BYTES_MAX];
    if (message->len < HEAD_BYTES || take(data, 4) != view->stream ||
        take(data + 4, 4) >= ledger->sources || take(data + 8, 8) >> NUMBER_BITS != 0)
        return wrong(ledger, "stream %u offset %llu: %zu bytes that nobody published", view->stream,
                     (unsigned long long)message->offset, message->len);
    unsigned source = (unsigned)take(data + 4, 4);
    uint64_t number = take(data + 8, 8);
    size_t len = ledger_record(ledger, view->stream, source, number, expected);
    if (len != message->len || memcmp(data, expected, len) != 0)
        return wrong(ledger, "stream %u offset %llu: record %llu of publisher %u is damaged",
                     view->stream, (unsigned long long)message->offset, (unsigned long long)number,
                     source);
    *ret = (uint64_t)source << NUMBER_BITS | number;
    return true;
}

static bool deliver(struct ledger *ledger, struct view *view, const struct felix_message *message) {
    const struct history *history = &ledger->histories[view->stream];
    uint64_t record = 0;
    if (!message->has_offset || message->offset != view->next)
        return wrong(ledger, "stream %u: offset %llu came instead of %llu", view->stream,
                     (unsigned long long)(message->has_offset ? message->offset : UINT64_MAX),
                     (unsigned long long)view->next);
    if (!identify(ledger, view, message, &record))
        return false;
    if (view->next < history->count) {
        if (history->records[view->next] != record)
            return wrong(ledger, "stream %u offset %llu: another record than was read there before",
                         view->stream, (unsigned long long)view->next);
    } else if (!append(ledger, view->stream, record)) {
        return false;
    }
    view->next++;
    return true;
}

bool ledger_delivered(struct ledger *ledger, struct view *view,
                      const struct felix_message *message) {
    (void)pthread_mutex_lock(&ledger->lock);
    bool good = ledger->wrong[0] == '\0' && deliver(ledger, view, message);
    (void)pthread_mutex_unlock(&ledger->lock);
    return good;
}

static bool complete(struct ledger *ledger, unsigned stream, uint64_t end) {
    if (end != ledger->histories[stream].count)
        return wrong(ledger, "stream %u ends at offset %llu, but %zu records were read from it",
                     stream, (unsigned long long)end, ledger->histories[stream].count);
    for (unsigned i = 0; i < ledger->sources; i++) {
        const struct source *s = source_of(ledger, stream, i);
        for (uint64_t number = 0; number < s->count; number++) {
            const struct record_state *record = &s->records[number];
            if (record->acked != NOWHERE && record->acked != record->seen)
                return wrong(ledger,
                             "stream %u: record %llu of publisher %u was acknowledged at "
                             "offset %llu and %s",
                             stream, (unsigned long long)number, i,
                             (unsigned long long)record->acked,
                             record->seen == NOWHERE ? "is missing" : "is elsewhere");
        }
    }
    return true;
}

bool ledger_is_complete(struct ledger *ledger, unsigned stream, uint64_t end) {
    (void)pthread_mutex_lock(&ledger->lock);
    bool good = ledger->wrong[0] == '\0' && complete(ledger, stream, end);
    (void)pthread_mutex_unlock(&ledger->lock);
    return good;
}

bool ledger_is_mark(struct ledger *ledger, unsigned stream, uint64_t offset, uint64_t number) {
    (void)pthread_mutex_lock(&ledger->lock);
    const struct history *history = &ledger->histories[stream];
    uint64_t mark = (uint64_t)(ledger->sources - 1) << NUMBER_BITS | number;
    bool is = offset < history->count && history->records[offset] == mark;
    (void)pthread_mutex_unlock(&ledger->lock);
    return is;
}
