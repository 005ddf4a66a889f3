/*
 * From a publish to the subscribers' queues.
 *
 *   publisher's reactor          owner's reactor               subscribers' reactors
 *   core_publish  -- PUBLISH -->  sequence, ring, merge
 *                 <- PUBLISHED -  deliver  ------ DELIVER --->  every attached subscription
 *
 * Where publisher, owner or subscriber share a reactor the message is a function call. One
 * DELIVER goes to each reactor that has subscriptions, however many. Messages between two
 * reactors keep their order, so a subscription sees SUBSCRIBED with its history before the first
 * DELIVER that follows it: no item falls between, none comes twice.
 *
 * Blocking. A subscription with QUEUE_BLOCK that becomes full stalls its stream: the owner parks
 * further publishes with their admission until it has room again, and publishers' streams are no
 * longer read once their connection's budget is used up. Batches that were already on their way
 * are queued beyond the bound.
 *
 * A reactor that does not keep up. Admission ends when the owner has appended, so what is under way
 * to a reactor with subscriptions has a bound of its own, deliver_bytes_max from each owner; the
 * reactor tells now and then how much it took. Beyond that a blocking broker parks further
 * publishes of streams with subscriptions there, and the others drop for these and count.
 *
 * Durable streams go through their log between the sequence number and the ring (durable.c), and a
 * subscription that begins before the ring reads the log first (history.c).
 */
#include "core/core.h"

#include <stdlib.h>

#include "base/check.h"

/* ---- subscriptions of this reactor ---- */

void core_mark_ready(struct core *core, struct subscription *sub) {
    if (sub->ready)
        return;
    sub->ready = true;
    sub->ready_next = NULL;
    if (core->ready_tail != NULL)
        core->ready_tail->ready_next = sub;
    else
        core->ready_head = sub;
    core->ready_tail = sub;
}

struct subscription *core_next_ready(struct core *core) {
    struct subscription *sub = core->ready_head;
    if (sub == NULL)
        return NULL;
    core->ready_head = sub->ready_next;
    if (core->ready_head == NULL)
        core->ready_tail = NULL;
    sub->ready = false;
    return sub;
}

void core_leave_ready(struct core *core, struct subscription *sub) {
    struct subscription *before = NULL;
    if (!sub->ready)
        return;
    for (struct subscription *s = core->ready_head; s != sub; s = s->ready_next)
        before = s;
    if (before != NULL)
        before->ready_next = sub->ready_next;
    else
        core->ready_head = sub->ready_next;
    if (core->ready_tail == sub)
        core->ready_tail = before;
    sub->ready = false;
}

static void tell_stall(struct core *core, struct fanout *fanout, bool stalled);

static void drop_oldest(struct core *core, struct subscription *sub, size_t bytes) {
    struct queued_batch old;
    while (!subscription_has_room(sub, bytes) && subscription_pop_live(sub, &old)) {
        uint32_t items = queued_items(&old);
        sub->dropped_items += items;
        counter_add(&core->counters.dropped_old_items, items);
        buf_unref(old.block);
    }
}

/* Of a durable stream: what of a batch is new to a subscription, from *ret_first on; false when
 * nothing is. A gap is a loss. */
static bool is_news(struct core *core, struct subscription *sub, const struct batch *batch,
                    uint32_t *ret_first) {
    uint64_t end = batch->base_seq + batch->list.count;
    if (sub->behind || end <= sub->next_seq)
        return false;
    if (batch->base_seq > sub->next_seq && sub->end_on_loss) {
        core_stop(core, sub, FELIX_LAGGED, sub->next_seq);
        return false;
    }
    *ret_first = batch->base_seq < sub->next_seq ? (uint32_t)(sub->next_seq - batch->base_seq) : 0;
    return true;
}

static void drop_new(struct core *core, struct subscription *sub, uint32_t items) {
    sub->dropped_items += items;
    counter_add(&core->counters.dropped_new_items, items);
}

static void enqueue(struct core *core, struct subscription *sub, struct buf *block) {
    const struct batch *batch = batch_of(block);
    const struct payload_list *list = &batch->list;
    uint32_t first = 0;
    bool durable = sub->fanout->log != NULL;
    if (durable && !is_news(core, sub, batch, &first))
        return;
    if (!subscription_has_room(sub, list->bytes.len)) {
        if (durable && sub->end_on_loss && sub->policy != QUEUE_BLOCK) {
            drop_new(core, sub, list->count - first);
            core_stop(core, sub, FELIX_LAGGED, batch->base_seq + first);
            return;
        }
        switch (sub->policy) {
        case QUEUE_DROP_NEW:
            drop_new(core, sub, list->count - first);
            sub->next_seq = batch->base_seq + list->count;
            return;
        case QUEUE_DROP_OLD:
            drop_oldest(core, sub, list->bytes.len);
            break;
        case QUEUE_BLOCK:
            break;
        }
    }
    subscription_push(sub, block, first);
    sub->next_seq = batch->base_seq + list->count;
    counter_add(&core->counters.enqueued_batches, 1);
    counter_add(&core->counters.enqueued_items, list->count - first);
    core_mark_ready(core, sub);
    if (sub->policy == QUEUE_BLOCK && !sub->stalling && !subscription_has_room(sub, 0)) {
        sub->stalling = true;
        if (sub->fanout->stalling_subs++ == 0)
            tell_stall(core, sub->fanout, true);
    }
}

void core_enqueue_replay(struct core *core, struct subscription *sub, struct buf *block,
                         uint32_t first_item) {
    subscription_push_history(sub, block, first_item, 0);
    sub->next_seq = batch_of(block)->base_seq + batch_of(block)->list.count;
    counter_add(&core->counters.enqueued_batches, 1);
    counter_add(&core->counters.enqueued_items, batch_of(block)->list.count - first_item);
    core_mark_ready(core, sub);
}

static void deliver_here(struct core *core, struct fanout *fanout, struct buf *block) {
    for (struct subscription *sub = fanout->subs, *next; sub != NULL; sub = next) {
        next = sub->fanout_next; /* it may be stopped */
        enqueue(core, sub, block);
    }
}

void core_attach(struct core *core, struct fanout *fanout, struct subscription *sub) {
    sub->attached = true;
    sub->fanout_prev = NULL;
    sub->fanout_next = fanout->subs;
    if (fanout->subs != NULL)
        fanout->subs->fanout_prev = sub;
    fanout->subs = sub;
    counter_add(&core->counters.subscriptions, 1);
}

static void end_stalling(struct core *core, struct subscription *sub) {
    if (!sub->stalling)
        return;
    sub->stalling = false;
    if (--sub->fanout->stalling_subs == 0)
        tell_stall(core, sub->fanout, false);
}

void core_detach(struct core *core, struct subscription *sub) {
    struct fanout *fanout = sub->fanout;
    if (!sub->attached)
        return;
    sub->attached = false;
    sub->behind = false;
    if (sub->fanout_prev != NULL)
        sub->fanout_prev->fanout_next = sub->fanout_next;
    else
        fanout->subs = sub->fanout_next;
    if (sub->fanout_next != NULL)
        sub->fanout_next->fanout_prev = sub->fanout_prev;
    counter_sub(&core->counters.subscriptions, 1);
    end_stalling(core, sub);
}

void core_popped(struct core *core, struct subscription *sub, const struct queued_batch *entry) {
    counter_add(&core->counters.dequeued_items, queued_items(entry));
    if (entry->page_bytes > 0)
        history_popped(core, sub, entry);
    if (sub->stalling && sub->live.count <= sub->batches_max / 2 &&
        sub->live_bytes <= sub->bytes_max / 2)
        end_stalling(core, sub);
}

/* ---- the owner's part ---- */

struct delivery {
    struct core *core;
    struct fanout *fanout;
};

struct mail *core_mail_new(const struct core *core, enum mail_kind kind, size_t bytes,
                           struct buf *key, uint64_t incarnation) {
    struct mail *mail = xcalloc(1, bytes);
    mail->kind = kind;
    mail->from = core->reactor;
    mail->key = buf_ref(key);
    mail->incarnation = incarnation;
    return mail;
}

/* What a batch under way counts for, mail included. */
static size_t deliver_bytes_of(struct buf *block) {
    return sizeof(struct mail_deliver) + batch_of(block)->list.bytes.len;
}

static bool is_full(const struct core *core, unsigned reactor) {
    return (core->full_reactors >> reactor & 1) != 0;
}

static void count_under_way(struct core *core, unsigned reactor, struct buf *block) {
    core->deliver_bytes[reactor] += deliver_bytes_of(block);
    if (core->deliver_bytes[reactor] >= core->settings.deliver_bytes_max)
        core->full_reactors |= (uint64_t)1 << reactor;
}

void core_deliver(struct core *core, struct fanout *fanout, struct buf *block) {
    for (unsigned r = 0; r < core->reactor_count; r++) {
        if (fanout->remote_subs[r] == 0 || r == core->reactor)
            continue;
        if (is_full(core, r) && core->settings.queue_policy != QUEUE_BLOCK) {
            const struct batch *batch = batch_of(block);
            counter_add(&core->counters.dropped_new_items,
                        (uint64_t)batch->list.count * fanout->remote_subs[r]);
            if (fanout->log != NULL)
                durable_left_out(core, fanout, r, batch->base_seq + batch->list.count);
            continue;
        }
        fanout->uncommitted.gap_reactors &= ~((uint64_t)1 << r);
        count_under_way(core, r, block);
        batch_share(block);
        struct mail_deliver *mail = (struct mail_deliver *)core_mail_new(
            core, MAIL_DELIVER, sizeof *mail, fanout->key, fanout->incarnation);
        mail->block = buf_ref(block);
        core->host->post(core->host_context, r, &mail->mail);
    }
    deliver_here(core, fanout, block);
}

/* A batch got its sequence numbers. */
static void emitted(void *context, struct buf *block) {
    const struct delivery *delivery = context;
    if (delivery->fanout->log != NULL)
        durable_append(delivery->core, delivery->fanout, block);
    else
        core_deliver(delivery->core, delivery->fanout, block);
}

/* This topic pays first, then the others in turn. */
void core_trim_rings(struct core *core, struct fanout *fanout) {
    while (core->ring_bytes > core->settings.replay_total_bytes_max) {
        size_t won = fanout->topic.ring_count > 1 ? topic_trim(&fanout->topic) : 0;
        if (won == 0) {
            struct fanout *victim = core->trim_hand != NULL ? core->trim_hand : core->topics;
            if (victim == NULL)
                return;
            core->trim_hand = victim->all_next;
            if (victim == fanout && victim->all_next == NULL && core->topics == fanout)
                return;
            won = topic_trim(&victim->topic);
            if (won == 0 && core->trim_hand == NULL)
                return;
        }
        core->ring_bytes -= won;
    }
}

static void append(struct core *core, struct fanout *fanout, const struct pending_publish *what) {
    const struct payload_list *list = &what->list;
    struct delivery delivery = {.core = core, .fanout = fanout};
    size_t before = fanout->topic.ring_bytes;
    if (fanout->log != NULL) {
        uint64_t first = topic_tail(&fanout->topic);
        durable_wait(core, fanout,
                     &(struct log_wait){.origin = what->origin,
                                        .from = what->from,
                                        .first = first,
                                        .end = first + list->count});
    }
    counter_add(&core->counters.publish_batches, 1);
    counter_add(&core->counters.publish_items, list->count);
    counter_add(&core->counters.publish_bytes, list->payload_bytes);
    topic_publish(&fanout->topic, &core->settings.topic, what->body, list, what->headroom,
                  what->read_ns, emitted, &delivery);
    core->ring_bytes += fanout->topic.ring_bytes - before;
    core_trim_rings(core, fanout);
    if (topic_is_open(&fanout->topic) && !fanout->open) {
        fanout->open = true;
        fanout->open_next = core->open_head;
        core->open_head = fanout_ref(fanout);
    }
}

void core_close_topic(struct core *core, struct fanout *fanout) {
    struct delivery delivery = {.core = core, .fanout = fanout};
    size_t before = fanout->topic.ring_bytes;
    topic_tick(&fanout->topic, &core->settings.topic, emitted, &delivery);
    core->ring_bytes += fanout->topic.ring_bytes - before;
}

void core_tick(struct core *core) {
    while (core->open_head != NULL) {
        struct fanout *fanout = core->open_head;
        core->open_head = fanout->open_next;
        fanout->open = false;
        if (!fanout->deleted)
            core_close_topic(core, fanout);
        fanout_unref(fanout);
    }
    counter_set(&core->counters.ring_bytes, core->ring_bytes);
}

void core_answer_published(struct core *core, unsigned reactor, struct buf *key,
                           const struct origin *origin, const struct publish_outcome *outcome) {
    if (reactor == core->reactor) {
        core->host->published(core->host_context, origin, outcome);
        return;
    }
    struct mail_published *mail =
        (struct mail_published *)core_mail_new(core, MAIL_PUBLISHED, sizeof *mail, key, 0);
    mail->origin = *origin;
    mail->outcome = *outcome;
    core->host->post(core->host_context, reactor, &mail->mail);
}

static void park(struct core *core, struct fanout *fanout, const struct pending_publish *what) {
    struct pending_publish *pending = xmalloc(sizeof *pending);
    *pending = *what;
    pending->next = NULL;
    if (fanout->pending_tail != NULL)
        fanout->pending_tail->next = pending;
    else
        fanout->pending_head = pending;
    fanout->pending_tail = pending;
    counter_add(&core->counters.pending_bytes, what->list.payload_bytes);
}

static struct pending_publish *unpark(struct core *core, struct fanout *fanout) {
    struct pending_publish *pending = fanout->pending_head;
    if (pending == NULL)
        return NULL;
    fanout->pending_head = pending->next;
    if (fanout->pending_head == NULL)
        fanout->pending_tail = NULL;
    counter_sub(&core->counters.pending_bytes, pending->list.payload_bytes);
    return pending;
}

/* Does a full queue, or a reactor that does not keep up, hold publishes of this stream up? */
static bool is_held_up(const struct core *core, const struct fanout *fanout) {
    if (fanout->stalled_reactors != 0)
        return true;
    if (core->full_reactors == 0 || core->settings.queue_policy != QUEUE_BLOCK)
        return false;
    for (unsigned r = 0; r < core->reactor_count; r++) {
        if (is_full(core, r) && fanout->remote_subs[r] > 0)
            return true;
    }
    return false;
}

static void refuse(struct core *core, struct buf *body, enum felix_err err,
                   struct publish_outcome *ret) {
    buf_unref(body);
    *ret = (struct publish_outcome){.err = err};
    counter_add(&core->counters.refused_publishes, 1);
}

/* Whether that was all: it was appended or refused, as *ret says. Else it waits, behind those that
 * do or for its log. Takes the reference of its body. */
static bool append_or_park(struct core *core, struct fanout *fanout,
                           const struct pending_publish *what, struct publish_outcome *ret) {
    *ret = (struct publish_outcome){0};
    if (fanout->uncommitted.err != FELIX_OK) {
        refuse(core, what->body, fanout->uncommitted.err, ret);
        return true;
    }
    if (fanout->pending_head != NULL || is_held_up(core, fanout)) {
        park(core, fanout, what);
        return false;
    }
    append(core, fanout, what);
    return fanout->log == NULL;
}

static void go_on(struct core *core, struct fanout *fanout) {
    while (fanout->pending_head != NULL && !is_held_up(core, fanout)) {
        struct pending_publish *pending = unpark(core, fanout);
        struct publish_outcome outcome = {0};
        bool refused = fanout->uncommitted.err != FELIX_OK;
        if (refused)
            refuse(core, pending->body, fanout->uncommitted.err, &outcome);
        else
            append(core, fanout, pending);
        if (refused || fanout->log == NULL)
            core_answer_published(core, pending->from, fanout->key, &pending->origin, &outcome);
        free(pending);
    }
}

static void set_stalled(struct core *core, struct fanout *fanout, unsigned reactor, bool stalled) {
    uint64_t bit = (uint64_t)1 << reactor;
    if (stalled)
        fanout->stalled_reactors |= bit;
    else
        fanout->stalled_reactors &= ~bit;
    go_on(core, fanout);
}

static void tell_stall(struct core *core, struct fanout *fanout, bool stalled) {
    if (fanout->deleted)
        return;
    if (fanout->owner == core->reactor) {
        set_stalled(core, fanout, core->reactor, stalled);
        return;
    }
    struct mail_stall *mail = (struct mail_stall *)core_mail_new(core, MAIL_STALL, sizeof *mail,
                                                                 fanout->key, fanout->incarnation);
    mail->stalled = stalled;
    core->host->post(core->host_context, fanout->owner, &mail->mail);
}

bool core_publish(struct core *core, struct fanout *fanout, struct buf *body,
                  const struct payload_list *list, size_t headroom, uint64_t read_ns,
                  const struct origin *origin, struct publish_outcome *ret) {
    if (fanout->owner == core->reactor) {
        return append_or_park(core, fanout,
                              &(struct pending_publish){.origin = *origin,
                                                        .from = core->reactor,
                                                        .body = body,
                                                        .list = *list,
                                                        .headroom = headroom,
                                                        .read_ns = read_ns},
                              ret);
    }
    struct mail_publish *mail = (struct mail_publish *)core_mail_new(
        core, MAIL_PUBLISH, sizeof *mail, fanout->key, fanout->incarnation);
    buf_share(body);
    mail->origin = *origin;
    mail->body = body;
    mail->list = *list;
    mail->headroom = headroom;
    mail->read_ns = read_ns;
    core->host->post(core->host_context, fanout->owner, &mail->mail);
    return false;
}

/* The stream is deleted: everyone here is told; what is queued may still be sent. */
void core_fanout_end(struct core *core, struct fanout *fanout) {
    fanout->deleted = true;
    struct pending_publish *pending;
    while ((pending = unpark(core, fanout)) != NULL) {
        buf_unref(pending->body);
        core_answer_published(core, pending->from, fanout->key, &pending->origin,
                              &(struct publish_outcome){.err = FELIX_NOT_FOUND});
        free(pending);
    }
    durable_fail(core, fanout, FELIX_NOT_FOUND);
    while (fanout->subs != NULL) {
        struct subscription *sub = fanout->subs;
        core_detach(core, sub);
        core->host->ended(core->host_context, sub);
    }
    core->ring_bytes -= fanout->topic.ring_bytes;
    topic_deinit(&fanout->topic);
    if (fanout->log != NULL)
        core->host->log_release(core->host_context, fanout->log);
    fanout->log = NULL;
}

/* ---- messages ---- */

struct fanout *core_fanout_of(struct core *core, const struct mail *mail) {
    struct fanout *fanout = core_find_stream(core, core_key_slice(mail->key));
    return fanout != NULL && fanout->incarnation == mail->incarnation ? fanout : NULL;
}

static void on_publish(struct core *core, struct mail_publish *mail) {
    struct fanout *fanout = core_fanout_of(core, &mail->mail);
    if (fanout == NULL) {
        core_answer_published(core, mail->mail.from, mail->mail.key, &mail->origin,
                              &(struct publish_outcome){.err = FELIX_NOT_FOUND});
        return;
    }
    struct buf *body = mail->body;
    struct publish_outcome outcome;
    mail->body = NULL;
    if (append_or_park(core, fanout,
                       &(struct pending_publish){.origin = mail->origin,
                                                 .from = mail->mail.from,
                                                 .body = body,
                                                 .list = mail->list,
                                                 .headroom = mail->headroom,
                                                 .read_ns = mail->read_ns},
                       &outcome))
        core_answer_published(core, mail->mail.from, fanout->key, &mail->origin, &outcome);
}

static void on_deliver(struct core *core, const struct mail_deliver *mail) {
    unsigned from = mail->mail.from;
    struct fanout *fanout = core_fanout_of(core, &mail->mail);
    core->taken_bytes[from] += deliver_bytes_of(mail->block);
    if (fanout != NULL)
        deliver_here(core, fanout, mail->block);
    if (core->taken_bytes[from] < core->settings.deliver_bytes_max / 4)
        return;
    struct mail_delivered *taken = (struct mail_delivered *)core_mail_new(
        core, MAIL_DELIVERED, sizeof *taken, mail->mail.key, mail->mail.incarnation);
    taken->bytes = core->taken_bytes[from];
    core->taken_bytes[from] = 0;
    core->host->post(core->host_context, from, &taken->mail);
}

/* Half of the bound is free again: whoever was held up for this reactor goes on, in turns. */
static void on_delivered(struct core *core, const struct mail_delivered *mail) {
    unsigned from = mail->mail.from;
    core->deliver_bytes[from] -= mail->bytes;
    if (!is_full(core, from) || core->deliver_bytes[from] > core->settings.deliver_bytes_max / 2)
        return;
    core->full_reactors &= ~((uint64_t)1 << from);
    struct fanout *first = core->resume_hand != NULL ? core->resume_hand : core->topics;
    for (struct fanout *fanout = first; fanout != NULL && !is_full(core, from);) {
        struct fanout *next = fanout->all_next != NULL ? fanout->all_next : core->topics;
        go_on(core, fanout);
        core->resume_hand = next;
        fanout = next != first ? next : NULL;
    }
}

void core_stream_mail(struct core *core, struct mail *mail) {
    struct fanout *fanout;
    switch (mail->kind) {
    case MAIL_PUBLISH:
        on_publish(core, (struct mail_publish *)mail);
        break;
    case MAIL_PUBLISHED: {
        const struct mail_published *published = (const struct mail_published *)mail;
        core->host->published(core->host_context, &published->origin, &published->outcome);
        break;
    }
    case MAIL_SUBSCRIBE:
        subscribe_asked(core, (const struct mail_subscribe *)mail);
        break;
    case MAIL_SUBSCRIBED:
        subscribe_answered(core, (const struct mail_subscribed *)mail);
        break;
    case MAIL_UNSUBSCRIBE:
        fanout = core_fanout_of(core, mail);
        if (fanout != NULL && fanout->remote_subs[mail->from] > 0) {
            fanout->remote_subs[mail->from]--;
            go_on(core, fanout); /* it may have waited for that reactor only */
        }
        break;
    case MAIL_DELIVER:
        on_deliver(core, (const struct mail_deliver *)mail);
        break;
    case MAIL_DELIVERED:
        on_delivered(core, (const struct mail_delivered *)mail);
        break;
    case MAIL_STALL:
        fanout = core_fanout_of(core, mail);
        if (fanout != NULL)
            set_stalled(core, fanout, mail->from, ((const struct mail_stall *)mail)->stalled);
        break;
    case MAIL_REWIND:
        durable_rewound(core, (const struct mail_end *)mail);
        break;
    case MAIL_GAP:
        durable_gap(core, (const struct mail_end *)mail);
        break;
    case MAIL_LOGGED:
        durable_logged(core, (const struct mail_logged *)mail);
        break;
    case MAIL_LOG_PAGE:
        history_page(core, ((const struct mail_log_page *)mail)->read);
        break;
    case MAIL_REMOVE:
    case MAIL_ADD:
    case MAIL_CACHE:
    case MAIL_CACHE_DONE:
    case MAIL_NODE:
        UNREACHED();
    }
    mail_free(mail);
}
