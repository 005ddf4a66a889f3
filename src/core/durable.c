/*
 * The owner's side of a durable stream: what was given to the log and is not committed.
 *
 *   publish -- offset --> batch -- log_append --> ...        a publish waits, with its admission
 *   notice: committed to E --> ring, deliver, answer everyone below E, in offset order
 *   notice: failed from E  --> answer everyone with the error; the next offset is E again
 *
 * Batches under an older epoch are thrown away by the log, so what was under way when it failed
 * needs no recall. Lone items that were merged into one batch are answered one by one.
 */
#include <stdlib.h>

#include "base/check.h"
#include "core/core.h"

#define RING_MIN 16u

static void wait_push(struct uncommitted *u, const struct log_wait *wait) {
    if (u->wait_count == u->wait_capacity) {
        uint32_t capacity = u->wait_capacity == 0 ? RING_MIN : u->wait_capacity * 2;
        struct log_wait *waits = xmalloc(capacity * sizeof *waits);
        for (uint32_t i = 0; i < u->wait_count; i++)
            waits[i] = u->waits[(u->wait_head + i) & (u->wait_capacity - 1)];
        free(u->waits);
        u->waits = waits;
        u->wait_capacity = capacity;
        u->wait_head = 0;
    }
    u->waits[(u->wait_head + u->wait_count) & (u->wait_capacity - 1)] = *wait;
    u->wait_count++;
}

static void block_push(struct uncommitted *u, struct buf *block) {
    if (u->block_count == u->block_capacity) {
        uint32_t capacity = u->block_capacity == 0 ? RING_MIN : u->block_capacity * 2;
        struct buf **blocks = xmalloc(capacity * sizeof(struct buf *));
        for (uint32_t i = 0; i < u->block_count; i++)
            blocks[i] = u->blocks[(u->block_head + i) & (u->block_capacity - 1)];
        free(u->blocks);
        u->blocks = blocks;
        u->block_capacity = capacity;
        u->block_head = 0;
    }
    u->blocks[(u->block_head + u->block_count) & (u->block_capacity - 1)] = block;
    u->block_count++;
}

/* The oldest wait, if it ends by `end`; taken. */
static bool wait_take(struct uncommitted *u, uint64_t end, struct log_wait *ret) {
    if (u->wait_count == 0 || u->waits[u->wait_head].end > end)
        return false;
    *ret = u->waits[u->wait_head];
    u->wait_head = (u->wait_head + 1) & (u->wait_capacity - 1);
    u->wait_count--;
    return true;
}

/* The same of batches; the reference passes to the caller. NULL: there is none. */
static struct buf *block_take(struct uncommitted *u, uint64_t end) {
    if (u->block_count == 0)
        return NULL;
    struct buf *block = u->blocks[u->block_head];
    const struct batch *batch = batch_of(block);
    if (batch->base_seq + batch->list.count > end)
        return NULL;
    u->block_head = (u->block_head + 1) & (u->block_capacity - 1);
    u->block_count--;
    return block;
}

void durable_wait(struct core *core, struct fanout *fanout, const struct log_wait *wait) {
    wait_push(&fanout->uncommitted, wait);
    counter_add(&core->counters.logged_publishes, 1);
}

void durable_append(struct core *core, struct fanout *fanout, struct buf *block) {
    struct batch *batch = batch_of(block);
    batch->time_us = core->host->wall_us(core->host_context);
    batch_share(block);
    block_push(&fanout->uncommitted, buf_ref(block));
    struct log_batch *append = xmalloc(sizeof *append);
    *append = (struct log_batch){
        .block = buf_ref(block),
        .list = batch->list,
        .base_offset = batch->base_seq,
        .timestamp_us = batch->time_us,
        .epoch = fanout->uncommitted.epoch,
    };
    core->host->log_append(core->host_context, fanout->log, append);
}

static void commit(struct core *core, struct fanout *fanout, uint64_t end, enum ack_level level) {
    struct uncommitted *u = &fanout->uncommitted;
    struct buf *block;
    struct log_wait wait;
    size_t before = fanout->topic.ring_bytes;
    while ((block = block_take(u, end)) != NULL) {
        topic_commit(&fanout->topic, &core->settings.topic, block);
        core_deliver(core, fanout, block);
        buf_unref(block);
    }
    core->ring_bytes += fanout->topic.ring_bytes - before;
    core_trim_rings(core, fanout);
    while (wait_take(u, end, &wait)) {
        struct publish_outcome outcome = {.has_offset = true, .offset = wait.first, .level = level};
        core_answer_published(core, wait.from, fanout->key, &wait.origin, &outcome);
    }
}

void durable_fail(struct core *core, struct fanout *fanout, enum felix_err err) {
    struct uncommitted *u = &fanout->uncommitted;
    struct buf *block;
    struct log_wait wait;
    while ((block = block_take(u, UINT64_MAX)) != NULL)
        buf_unref(block);
    while (wait_take(u, UINT64_MAX, &wait)) {
        struct publish_outcome outcome = {.err = err};
        core_answer_published(core, wait.from, fanout->key, &wait.origin, &outcome);
    }
}

/* Subscribers here have seen items from `end` on that are no longer there. Whoever can be told is;
 * the others go on with what takes their place. */
static void rewind_here(struct core *core, struct fanout *fanout, uint64_t end) {
    for (struct subscription *sub = fanout->subs, *next; sub != NULL; sub = next) {
        next = sub->fanout_next;
        if (sub->next_seq <= end)
            continue;
        if (sub->end_on_loss || sub->behind)
            core_stop(core, sub, FELIX_LAGGED, end);
        else
            sub->next_seq = end;
    }
}

static void rewind_all(struct core *core, struct fanout *fanout, uint64_t end) {
    for (unsigned r = 0; r < core->reactor_count; r++) {
        if (r == core->reactor)
            continue;
        struct mail_end *mail = (struct mail_end *)core_mail_new(core, MAIL_REWIND, sizeof *mail,
                                                                 fanout->key, fanout->incarnation);
        mail->end = end;
        core->host->post(core->host_context, r, &mail->mail);
    }
    rewind_here(core, fanout, end);
}

void durable_rewound(struct core *core, const struct mail_end *mail) {
    struct fanout *fanout = core_fanout_of(core, &mail->mail);
    if (fanout != NULL)
        rewind_here(core, fanout, mail->end);
}

void durable_left_out(struct core *core, struct fanout *fanout, unsigned reactor, uint64_t end) {
    uint64_t bit = (uint64_t)1 << reactor;
    if ((fanout->uncommitted.gap_reactors & bit) != 0)
        return;
    fanout->uncommitted.gap_reactors |= bit;
    struct mail_end *mail = (struct mail_end *)core_mail_new(core, MAIL_GAP, sizeof *mail,
                                                             fanout->key, fanout->incarnation);
    mail->end = end;
    core->host->post(core->host_context, reactor, &mail->mail);
}

void durable_gap(struct core *core, const struct mail_end *mail) {
    struct fanout *fanout = core_fanout_of(core, &mail->mail);
    if (fanout == NULL)
        return;
    for (struct subscription *sub = fanout->subs, *next; sub != NULL; sub = next) {
        next = sub->fanout_next;
        if (sub->end_on_loss && !sub->behind && sub->next_seq < mail->end)
            core_stop(core, sub, FELIX_LAGGED, sub->next_seq);
    }
}

static void fail_from(struct core *core, struct fanout *fanout, const struct log_commit *notice) {
    struct uncommitted *u = &fanout->uncommitted;
    core_close_topic(core, fanout); /* lone items of this turn fail with the rest */
    durable_fail(core, fanout, notice->err);
    u->epoch = notice->epoch;
    size_t before = fanout->topic.ring_bytes;
    bool seen = notice->end < fanout->topic.visible_seq;
    topic_rewind(&fanout->topic, notice->end);
    core->ring_bytes += fanout->topic.ring_bytes - before;
    if (seen)
        rewind_all(core, fanout, notice->end);
}

void durable_logged(struct core *core, const struct mail_logged *mail) {
    const struct log_commit *notice = &mail->commit;
    struct fanout *fanout = core_fanout_of(core, &mail->mail);
    if (fanout == NULL || fanout->log == NULL)
        return;
    if (fanout->uncommitted.unopened && notice->available) {
        fanout->uncommitted.unopened = false;
        topic_begin(&fanout->topic, notice->end);
    }
    commit(core, fanout, notice->end, notice->flushed ? ACK_LEVEL_FLUSHED : ACK_LEVEL_WRITTEN);
    if (notice->err != FELIX_OK)
        fail_from(core, fanout, notice);
    /* A full disk is tried again with the next publish; a failed log says when it is back. */
    fanout->uncommitted.err = notice->available ? FELIX_OK : notice->err;
}
