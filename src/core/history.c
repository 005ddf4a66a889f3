/*
 * History of a durable stream, read from its log by the reactor of the subscription.
 *
 *   subscribe --> owner: lies before the ring --> behind: read a page, send it, read the next
 *   a page that reaches the committed end --> owner: does the ring reach back to here?
 *     no:  more was published meanwhile: read on
 *     yes: joined: the rest from the ring, then live
 *
 * One page is on its way to the client while the next is read; nothing else of the history is in
 * memory. A publisher that stays faster than the subscription is simply followed through the log:
 * nothing is dropped, and nobody waits for anybody. The owner may be behind the log by what it has
 * not been told yet: batches below the subscription's place are skipped when it has joined.
 */
#include <stdlib.h>

#include "base/check.h"
#include "core/core.h"

#define PAGE_BYTES ((size_t)384 << 10) /* with its lengths and times it fits a pooled block */

static void read_page(struct core *core, struct subscription *sub) {
    struct log_read *read = xmalloc(sizeof *read);
    *read = (struct log_read){
        .log = sub->fanout->log,
        .offset = sub->next_seq,
        .bytes_max = PAGE_BYTES,
        .reactor = core->reactor,
        .handle = sub->handle,
    };
    sub->reading = true;
    core->host->log_read(core->host_context, read);
}

/* The next one while the last is sent, not more. */
static void read_on(struct core *core, struct subscription *sub) {
    if (sub->behind && !sub->reading && sub->history.count <= 1)
        read_page(core, sub);
}

void history_go_on(struct core *core, struct subscription *sub, uint64_t seq, uint64_t live_seq) {
    if (!sub->answered)
        sub->live_seq = live_seq;
    sub->behind = true;
    sub->next_seq = seq;
    read_on(core, sub);
}

static void answer(struct core *core, struct subscription *sub, enum felix_err err, uint64_t seq) {
    sub->answered = true;
    core->host->subscribed(core->host_context, sub, err, seq);
}

/* The earliest that there is, when that was asked for; else what cannot be read ends it. */
static void refused(struct core *core, struct subscription *sub, const struct log_read *read) {
    bool skipped = read->err == FELIX_CURSOR_TOO_OLD || read->err == FELIX_DAMAGED;
    if (!sub->answered && sub->from_earliest && read->err == FELIX_CURSOR_TOO_OLD) {
        sub->next_seq = read->available;
        read_on(core, sub);
    } else if (!sub->answered) {
        answer(core, sub, skipped ? FELIX_CURSOR_TOO_OLD : read->err, read->available);
    } else {
        core_stop(core, sub, skipped ? FELIX_LAGGED : read->err,
                  skipped ? read->available : sub->next_seq);
    }
}

static void push_page(struct core *core, struct subscription *sub, struct log_page *page) {
    struct buf *block =
        batch_new(&core->settings.topic.frame, page->block, page->list, page->headroom, true);
    size_t bytes = page->block->capacity;
    page->block = NULL;
    batch_number(block, page->first);
    batch_of(block)->timestamps = page->timestamps;
    sub->next_seq = page->first + page->list.count;
    counter_add(&core->counters.history_pages, 1);
    counter_add(&core->counters.history_items, page->list.count);
    counter_add(&core->counters.enqueued_batches, 1);
    counter_add(&core->counters.enqueued_items, page->list.count);
    subscription_push_history(sub, block, 0, bytes);
    buf_unref(block);
    core_mark_ready(core, sub);
}

/* The page of someone who is gone. */
static void give_back(struct core *core, const struct log_read *read) {
    if (read->page.block != NULL)
        core->host->log_page_done(core->host_context, read->page.block->capacity);
}

void history_page(struct core *core, struct log_read *read) {
    struct subscription *sub = map_u64_get(&core->subs, read->handle);
    if (sub == NULL || sub->fanout->deleted || !sub->behind) {
        give_back(core, read);
        if (sub != NULL && !sub->answered)
            answer(core, sub, FELIX_NOT_FOUND, 0);
        return;
    }
    INVARIANT(sub->reading);
    sub->reading = false;
    if (read->err != FELIX_OK) {
        refused(core, sub, read);
        return;
    }
    if (!sub->answered) {
        core_attach(core, sub->fanout, sub);
        answer(core, sub, FELIX_OK, sub->next_seq);
        if (map_u64_get(&core->subs, read->handle) == NULL) { /* it could not be served */
            give_back(core, read);
            return;
        }
    }
    if (read->page.list.count > 0)
        push_page(core, sub, &read->page);
    if (read->at_end)
        core_rejoin(core, sub);
    else
        read_on(core, sub);
}

void history_popped(struct core *core, struct subscription *sub, const struct queued_batch *entry) {
    core->host->log_page_done(core->host_context, entry->page_bytes);
    read_on(core, sub);
}
