/*
 * From a subscribe to a place in the stream, and out of it.
 *
 * The owner resolves the start and counts the subscription for its reactor, so that batches from
 * then on are sent there; what the ring holds from the start on travels with the answer. A start
 * before the ring of a durable stream is not counted: the subscription reads the log first
 * (history.c) and asks again, with the place it has reached.
 */
#include "core/core.h"

/* What an owner says to a subscription. */
struct admission {
    enum felix_err err; /* OK: counted; WOULD_BLOCK: read from `seq` on first */
    uint64_t seq;
    uint64_t live_seq;
    struct topic_position at; /* OK: replay from here */
};

uint64_t core_next_handle(struct core *core) {
    /* Unique in the node: each reactor counts in its own residue class. */
    return core->next_handle++ * core->reactor_count + core->reactor;
}

/* On the owner. Who comes back from the log may know more than the owner was told. */
static struct admission admit(struct core *core, struct fanout *fanout, unsigned reactor,
                              enum start_kind start, uint64_t offset, bool rejoins) {
    struct admission ret = {0};
    if (fanout->uncommitted.unopened) {
        ret.err = fanout->uncommitted.err;
        return ret;
    }
    core_close_topic(core, fanout); /* lone items of this turn belong to those who were there */
    ret.live_seq = fanout->topic.visible_seq;
    if (rejoins && offset > ret.live_seq) {
        ret.seq = offset;
        ret.at.ring_index = fanout->topic.ring_count;
    } else {
        ret.err = topic_seek(&fanout->topic, &core->settings.topic,
                             start == START_NONE ? START_LATEST : start, offset, &ret.seq, &ret.at);
    }
    if (ret.err == FELIX_OK) {
        fanout->remote_subs[reactor]++;
        fanout->uncommitted.gap_reactors &= ~((uint64_t)1 << reactor); /* this one was not told */
    }
    return ret;
}

static void release_at_owner(struct core *core, struct fanout *fanout) {
    if (fanout->deleted)
        return;
    if (fanout->owner == core->reactor) {
        fanout->remote_subs[core->reactor]--;
        return;
    }
    struct mail *mail =
        core_mail_new(core, MAIL_UNSUBSCRIBE, sizeof *mail, fanout->key, fanout->incarnation);
    core->host->post(core->host_context, fanout->owner, mail);
}

/* It was admitted: live from here on, after the replay that the caller queues. */
static void join(struct core *core, struct subscription *sub, uint64_t seq) {
    if (!sub->attached)
        core_attach(core, sub->fanout, sub);
    sub->behind = false;
    sub->next_seq = seq;
}

/* The end of the answer, also of one that says no. The subscription may be gone afterwards. */
static void conclude(struct core *core, struct subscription *sub, enum felix_err err, uint64_t seq,
                     uint64_t live_seq) {
    sub->reading = false;
    if (err == FELIX_WOULD_BLOCK) {
        history_go_on(core, sub, seq, live_seq);
        return;
    }
    if (sub->answered)
        return;
    sub->live_seq = live_seq;
    sub->answered = true;
    core->host->subscribed(core->host_context, sub, err, seq);
}

static void ask_owner(struct core *core, struct subscription *sub, enum start_kind start,
                      uint64_t offset) {
    struct fanout *fanout = sub->fanout;
    if (fanout->owner != core->reactor) {
        struct mail_subscribe *mail = (struct mail_subscribe *)core_mail_new(
            core, MAIL_SUBSCRIBE, sizeof *mail, fanout->key, fanout->incarnation);
        mail->handle = sub->handle;
        mail->start = start;
        mail->offset = offset;
        mail->rejoins = sub->answered;
        core->host->post(core->host_context, fanout->owner, &mail->mail);
        return;
    }
    struct admission a = admit(core, fanout, core->reactor, start, offset, sub->answered);
    if (a.err == FELIX_OK) {
        struct buf *block;
        join(core, sub, a.seq);
        for (uint32_t i = a.at.ring_index; (block = topic_ring_at(&fanout->topic, i)) != NULL; i++)
            core_enqueue_replay(core, sub, block, i == a.at.ring_index ? a.at.first_item : 0);
    }
    conclude(core, sub, a.err, a.seq, a.live_seq);
}

void core_subscribe(struct core *core, struct fanout *fanout, struct subscription *sub,
                    enum start_kind start, uint64_t offset) {
    sub->fanout = fanout_ref(fanout);
    sub->from_earliest = start == START_EARLIEST;
    (void)map_u64_put(&core->subs, sub->handle, sub);
    ask_owner(core, sub, start, offset);
}

void core_rejoin(struct core *core, struct subscription *sub) {
    sub->reading = true;
    ask_owner(core, sub, START_OFFSET, sub->next_seq);
}

void subscribe_asked(struct core *core, const struct mail_subscribe *mail) {
    struct fanout *fanout = core_fanout_of(core, &mail->mail);
    struct admission a = {.err = FELIX_NOT_FOUND};
    uint32_t count = 0;
    if (fanout != NULL)
        a = admit(core, fanout, mail->mail.from, mail->start, mail->offset, mail->rejoins);
    if (a.err == FELIX_OK)
        count = fanout->topic.ring_count - a.at.ring_index;
    struct mail_subscribed *reply = (struct mail_subscribed *)core_mail_new(
        core, MAIL_SUBSCRIBED, sizeof *reply + count * sizeof(struct buf *), mail->mail.key,
        mail->mail.incarnation);
    reply->handle = mail->handle;
    reply->err = a.err;
    reply->seq = a.seq;
    reply->live_seq = a.live_seq;
    reply->first_item = a.at.first_item;
    reply->block_count = count;
    for (uint32_t i = 0; i < count; i++) {
        struct buf *block = topic_ring_at(&fanout->topic, a.at.ring_index + i);
        batch_share(block);
        reply->blocks[i] = buf_ref(block);
    }
    core->host->post(core->host_context, mail->mail.from, &reply->mail);
}

void subscribe_answered(struct core *core, const struct mail_subscribed *mail) {
    struct subscription *sub = map_u64_get(&core->subs, mail->handle);
    bool stopped = sub != NULL && sub->answered && !sub->behind;
    if (sub == NULL || stopped) { /* it left meanwhile */
        struct fanout *fanout = core_fanout_of(core, &mail->mail);
        if (mail->err == FELIX_OK && fanout != NULL)
            release_at_owner(core, fanout);
        return;
    }
    enum felix_err err = sub->fanout->deleted ? FELIX_NOT_FOUND : mail->err;
    if (err == FELIX_OK) {
        join(core, sub, mail->seq);
        for (uint32_t i = 0; i < mail->block_count; i++)
            core_enqueue_replay(core, sub, mail->blocks[i], i == 0 ? mail->first_item : 0);
    }
    conclude(core, sub, err, mail->seq, mail->live_seq);
}

/* Nothing arrives any more. */
static void leave(struct core *core, struct subscription *sub) {
    bool counted = sub->attached && !sub->behind;
    core_detach(core, sub);
    if (counted)
        release_at_owner(core, sub->fanout);
}

void core_stop(struct core *core, struct subscription *sub, enum felix_err err,
               uint64_t resume_from) {
    leave(core, sub);
    counter_add(&core->counters.stopped_subscriptions, 1);
    core->host->stopped(core->host_context, sub, err, resume_from);
}

/* Pages that will not be sent. */
static void give_pages_back(struct core *core, const struct subscription *sub) {
    size_t bytes = 0;
    for (uint32_t i = 0; i < sub->history.count; i++) {
        uint32_t at = (sub->history.head + i) & (sub->history.capacity - 1);
        bytes += sub->history.entries[at].page_bytes;
    }
    if (bytes > 0)
        core->host->log_page_done(core->host_context, bytes);
}

void core_unsubscribe(struct core *core, struct subscription *sub) {
    struct fanout *fanout = sub->fanout;
    if (fanout == NULL)
        return;
    (void)map_u64_remove(&core->subs, sub->handle);
    core_leave_ready(core, sub);
    counter_add(&core->counters.dropped_ended_items, sub->queued_items);
    give_pages_back(core, sub);
    leave(core, sub);
    sub->fanout = NULL;
    fanout_unref(fanout);
}
