#include "support/world_log.h"

#include <stdlib.h>

#include "base/check.h"
#include "base/cursor.h"
#include "support/world.h"

#define PAGE_ITEMS 50u

static struct world_log *log_of(struct stream_log *log) {
    return (struct world_log *)(void *)log;
}

static void on_append(void *context, struct stream_log *stream_log, struct log_batch *batch) {
    struct world_log *log = log_of(stream_log);
    batch->next = NULL;
    if (log->tail != NULL)
        log->tail->next = batch;
    else
        log->head = batch;
    log->tail = batch;
}

static void on_read(void *context, struct log_read *read) {
    struct world_log *log = log_of(read->log);
    read->next = log->reads;
    log->reads = read;
}

static void on_page_done(void *context, size_t bytes) {
    struct world *world = context;
    INVARIANT(bytes <= world->log->pages_out);
    world->log->pages_out -= bytes;
}

static void on_release(void *context, struct stream_log *log) {
    INVARIANT(log_of(log)->references > 0);
    log_of(log)->references--;
}

const struct server_logs world_logs = {
    .append = on_append, .read = on_read, .page_done = on_page_done, .release = on_release};

static void post(struct world_log *log, unsigned reactor, struct mail *mail) {
    mail->from = reactor;
    struct mail **queue = &log->world->reactors[reactor].mail[reactor];
    mail->next = *queue;
    *queue = mail;
}

static void notice(struct world_log *log, enum felix_err err) {
    struct mail_logged *mail = xcalloc(1, sizeof *mail);
    mail->mail.kind = MAIL_LOGGED;
    mail->mail.key = buf_ref(log->key);
    mail->mail.incarnation = log->incarnation;
    mail->commit = (struct log_commit){.end = log->end,
                                       .err = err,
                                       .epoch = log->epoch,
                                       .flushed = true,
                                       .available = err != FELIX_STORAGE};
    post(log, log->owner, &mail->mail);
}

static void keep(struct world_log *log, const struct log_batch *batch) {
    struct payload_cursor cursor = payload_walk(&batch->list);
    struct slice payload;
    INVARIANT(batch->base_offset == log->end);
    while (payload_next(&cursor, &payload)) {
        if (log->end == log->capacity) {
            log->capacity = log->capacity == 0 ? 64 : log->capacity * 2;
            struct world_record *records = xmalloc(log->capacity * sizeof *records);
            for (uint64_t i = 0; i < log->end; i++)
                records[i] = log->records[i];
            free(log->records);
            log->records = records;
        }
        log->records[log->end++] = (struct world_record){
            .block = buf_ref(batch->block), .payload = payload, .time_us = batch->timestamp_us};
    }
}

static bool commit(struct world_log *log) {
    if (log->fails != FELIX_OK) {
        log->epoch++;
        notice(log, log->fails);
        log->fails = FELIX_OK;
        return true;
    }
    uint64_t before = log->end;
    bool any = log->head != NULL;
    while (log->head != NULL) {
        struct log_batch *batch = log->head;
        log->head = batch->next;
        if (batch->epoch == log->epoch)
            keep(log, batch);
        buf_unref(batch->block);
        free(batch);
    }
    log->tail = NULL;
    if (log->end != before)
        notice(log, FELIX_OK);
    return any;
}

/* The page has the layout of record_log_read's. */
static void fill(struct world_log *log, struct log_read *read, uint32_t count) {
    size_t bytes = 4;
    for (uint32_t i = 0; i < count; i++)
        bytes += 4 + log->records[read->offset + i].payload.len;
    size_t times_at = (LOG_PAGE_HEADROOM + bytes + 7) & ~(size_t)7;
    struct buf *block = buf_new(times_at + count * sizeof(uint64_t));
    uint64_t *times = (uint64_t *)(void *)(block->data + times_at);
    struct writer w = writer_of(block->data + LOG_PAGE_HEADROOM, bytes);
    writer_u32(&w, count);
    for (uint32_t i = 0; i < count; i++) {
        const struct world_record *record = &log->records[read->offset + i];
        writer_u32(&w, (uint32_t)record->payload.len);
        writer_bytes(&w, record->payload);
        times[i] = record->time_us;
    }
    read->page = (struct log_page){
        .block = block,
        .list = {.bytes = slice_of(block->data + LOG_PAGE_HEADROOM, bytes),
                 .count = count,
                 .payload_bytes = bytes - 4 - 4 * (uint64_t)count},
        .headroom = LOG_PAGE_HEADROOM,
        .timestamps = times,
        .first = read->offset,
    };
    log->pages_out += block->capacity;
}

static void answer(struct world_log *log, struct log_read *read) {
    if (log->read_fails != FELIX_OK) {
        read->err = log->read_fails;
    } else if (read->offset < log->oldest) {
        read->err = FELIX_CURSOR_TOO_OLD;
        read->available = log->oldest;
    } else if (read->offset > log->end) {
        read->err = FELIX_CURSOR_IN_FUTURE;
        read->available = log->end;
    } else {
        uint64_t left = log->end - read->offset;
        uint32_t count = left < PAGE_ITEMS ? (uint32_t)left : PAGE_ITEMS;
        if (count > 0)
            fill(log, read, count);
        read->at_end = count == left;
    }
    struct mail_log_page *mail = xcalloc(1, sizeof *mail);
    mail->mail.kind = MAIL_LOG_PAGE;
    mail->read = read;
    post(log, read->reactor, &mail->mail);
}

bool world_log_turn(struct world_log *log) {
    if (log == NULL || log->held)
        return false;
    bool any = commit(log);
    while (log->reads != NULL) {
        struct log_read *read = log->reads;
        log->reads = read->next;
        answer(log, read);
        any = true;
    }
    return any;
}

void world_log_recover(struct world_log *log) {
    notice(log, FELIX_OK);
}

void world_log_free(struct world_log *log) {
    if (log == NULL)
        return;
    INVARIANT(log->references == 0 && log->pages_out == 0 && log->reads == NULL);
    while (log->head != NULL) {
        struct log_batch *batch = log->head;
        log->head = batch->next;
        buf_unref(batch->block);
        free(batch);
    }
    for (uint64_t i = 0; i < log->end; i++)
        buf_unref(log->records[i].block);
    free(log->records);
    buf_unref(log->key);
    free(log);
}
