/*
 * Random publishes, subscriptions, slow consumers and deletions on one to three reactors whose
 * messages are delivered in random order (in order between two reactors), against an oracle that
 * knows one thing: the order in which the items of a stream reached its owner. An item's place in
 * that log must be its sequence number, and from there follows what each subscription must see.
 *
 *   - every item a subscription gets is the one that the log has at that sequence number;
 *   - sequence numbers go up; under QUEUE_BLOCK by one, else a gap is made of counted drops;
 *   - in the end each subscription got or lost, counted, everything since its start;
 *   - every publish is answered once, and what it held of the budget comes back.
 *
 * FELIX_TEST_SEED repeats a run; FELIX_TEST_STEPS is how many steps each combination of policy and
 * reactors gets.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/cursor.h"
#include "core/core.h"

#define REACTORS_MAX 3u
#define STREAMS 3u
#define SUBS 12u
#define STEPS_DEFAULT 500000u
#define HEADROOM ((size_t)16)
#define BUDGET_BYTES ((uint64_t)600) /* of unanswered publishes of one reactor */
#define QUEUE_BYTES ((size_t)400)
#define QUEUE_BATCHES 6u
#define REPLAY_ITEMS 20u
#define ITEM_BYTES_MAX 60u
#define BATCH_BYTES_MAX ((size_t)500) /* of what one publish, or the lone ones of a turn, make */
#define UNKNOWN UINT64_MAX

/* The oracle: one stream's items in the order in which they reached the owner. */
struct log {
    uint32_t *items;
    size_t count, capacity;
    uint64_t answered; /* items whose publish was answered with OK */
    bool removing;
};

struct consumer {
    struct subscription sub;
    bool used, answered, refused, ended;
    unsigned reactor, stream;
    enum start_kind start;
    uint64_t offset;
    uint64_t answered_before; /* items of the log, when it subscribed */
    uint64_t next_seq;        /* that it must see, if nothing is dropped */
    uint64_t missed;          /* sequence numbers that were jumped over */
};

struct mail_queue {
    struct mail *head, *tail;
};

struct publish {
    bool open;
    unsigned reactor, stream;
    uint32_t count;
    uint64_t bytes;
};

struct run {
    struct core cores[REACTORS_MAX];
    unsigned count;
    enum queue_policy policy;
    struct mail_queue mail[REACTORS_MAX][REACTORS_MAX]; /* [to][from] */
    struct log logs[STREAMS];
    struct consumer consumers[SUBS];
    struct publish *publishes;
    size_t publish_count, publish_capacity;
    uint64_t admitted[REACTORS_MAX];
    uint32_t next_item;
    uint64_t incarnation; /* of the stream that was added last */
    uint64_t random;
    uint64_t items_seen, items_dropped, refused_starts, removals,
        waited; /* did it happen at all? */
};

static uint64_t seed;
static size_t bytes_before; /* of blocks: a test that failed leaves its own behind */
static unsigned steps = STEPS_DEFAULT;
static struct run *run;

static uint64_t next_random(void) {
    run->random += 0x9e3779b97f4a7c15;
    uint64_t z = run->random;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

static uint64_t below(uint64_t bound) {
    return next_random() % bound;
}

static struct slice key_of(unsigned stream) {
    static uint8_t bytes[STREAMS][32];
    static const char *const names[STREAMS] = {"a", "b", "c"};
    struct slice t = slice_str("t1"), n = slice_str("n"), s = slice_str(names[stream]);
    core_key_write(bytes[stream], t, n, s);
    return slice_of(bytes[stream], core_key_bytes(t, n, s));
}

static unsigned stream_of(const struct mail *mail) {
    unsigned stream = 0;
    while (!slice_equal(core_key_slice(mail->key), key_of(stream)))
        stream++;
    return stream;
}

/* ---- the oracle ---- */

static void oracle_append(unsigned stream, const struct payload_list *list) {
    struct log *log = &run->logs[stream];
    struct payload_cursor cursor = payload_walk(list);
    struct slice payload;
    while (payload_next(&cursor, &payload)) {
        if (log->count == log->capacity) {
            log->capacity = log->capacity == 0 ? 1024 : log->capacity * 2;
            log->items = realloc(log->items, log->capacity * sizeof *log->items);
            assert_non_null(log->items);
        }
        log->items[log->count++] = be32_load(payload.data);
    }
}

static void publish_answered(size_t index, uint64_t bytes, enum felix_err err) {
    assert_true(index < run->publish_count);
    struct publish *publish = &run->publishes[index];
    assert_true(publish->open);
    publish->open = false;
    struct log *log = &run->logs[publish->stream];
    assert_true(err == FELIX_OK || (err == FELIX_NOT_FOUND && log->removing));
    if (err == FELIX_OK)
        log->answered += publish->count;
    assert_int_equal(bytes, publish->bytes);
}

/* Where may a subscription begin? */
static void check_start(const struct consumer *c, enum felix_err err, uint64_t seq) {
    const struct log *log = &run->logs[c->stream];
    if (err == FELIX_NOT_FOUND) {
        assert_true(log->removing);
        return;
    }
    assert_true(seq <= log->count);
    if (err == FELIX_CURSOR_IN_FUTURE) {
        assert_true(c->start == START_OFFSET && c->offset > seq && seq >= c->answered_before);
    } else if (err == FELIX_CURSOR_TOO_OLD) {
        assert_true(c->start == START_OFFSET && c->offset < seq);
        assert_true(seq + REPLAY_ITEMS <= log->count);
    } else if (c->start == START_OFFSET) {
        assert_int_equal(seq, c->offset);
    } else if (c->start == START_EARLIEST) {
        assert_true(seq == 0 || seq + REPLAY_ITEMS <= log->count);
    } else {
        assert_true(seq >= c->answered_before);
    }
}

static void check_item(struct consumer *c, uint64_t seq, struct slice payload) {
    const struct log *log = &run->logs[c->stream];
    assert_true(seq >= c->next_seq && seq < log->count);
    if (run->policy == QUEUE_BLOCK)
        assert_int_equal(seq, c->next_seq);
    assert_int_equal(be32_load(payload.data), log->items[seq]);
    c->missed += seq - c->next_seq;
    c->next_seq = seq + 1;
    run->items_seen++;
}

/* Everything is at rest: what it did not get was dropped, and counted. */
static void check_complete(const struct consumer *c) {
    const struct log *log = &run->logs[c->stream];
    assert_int_equal(c->missed + (log->count - c->next_seq), c->sub.dropped_items);
    if (run->policy == QUEUE_BLOCK)
        assert_int_equal(c->sub.dropped_items, 0);
}

/* ---- the core's host ---- */

static void host_post(void *context, unsigned reactor, struct mail *mail) {
    struct mail_queue *queue = &run->mail[reactor][mail->from];
    mail->next = NULL;
    if (queue->tail != NULL)
        queue->tail->next = mail;
    else
        queue->head = mail;
    queue->tail = mail;
}

static void host_published(void *context, const struct origin *origin,
                           const struct publish_outcome *outcome) {
    publish_answered(origin->request_id, origin->admitted_bytes, outcome->err);
    uint64_t *admitted = &run->admitted[run->publishes[origin->request_id].reactor];
    assert_true(*admitted >= origin->admitted_bytes);
    *admitted -= origin->admitted_bytes;
}

static void host_subscribed(void *context, struct subscription *sub, enum felix_err err,
                            uint64_t seq) {
    struct consumer *c = sub->user;
    assert_false(c->answered);
    check_start(c, err, seq);
    c->answered = true;
    c->refused = err != FELIX_OK;
    c->next_seq = seq;
    run->refused_starts += c->refused;
}

static void host_ended(void *context, struct subscription *sub) {
    struct consumer *c = sub->user;
    assert_true(c->answered && !c->ended && run->logs[c->stream].removing);
    c->ended = true;
}

static void host_cache_done(void *context, const struct cache_answer *answer) {
}

static const struct core_host host = {
    .post = host_post,
    .published = host_published,
    .subscribed = host_subscribed,
    .ended = host_ended,
    .cache_done = host_cache_done,
};

/* ---- steps ---- */

static struct buf *body_new(uint32_t count, struct payload_list *ret) {
    size_t bytes = 4;
    uint32_t sizes[8];
    for (uint32_t i = 0; i < count; i++) {
        sizes[i] = 4 + (uint32_t)below(ITEM_BYTES_MAX - 4);
        bytes += 4 + sizes[i];
    }
    struct buf *body = buf_new(HEADROOM + bytes);
    uint8_t *at = body->data + HEADROOM;
    *ret = (struct payload_list){
        .bytes = slice_of(at, bytes), .count = count, .payload_bytes = bytes - 4 - 4 * count};
    be32_store(at, count);
    at += 4;
    for (uint32_t i = 0; i < count; i++) {
        memset(at, 0, 4 + sizes[i]);
        be32_store(at, sizes[i]);
        be32_store(at + 4, run->next_item++);
        at += 4 + sizes[i];
    }
    return body;
}

static size_t publish_new(const struct publish *publish) {
    if (run->publish_count == run->publish_capacity) {
        run->publish_capacity = run->publish_capacity == 0 ? 1024 : run->publish_capacity * 2;
        run->publishes = realloc(run->publishes, run->publish_capacity * sizeof *run->publishes);
        assert_non_null(run->publishes);
    }
    run->publishes[run->publish_count] = *publish;
    return run->publish_count++;
}

static void step_publish(void) {
    unsigned reactor = (unsigned)below(run->count), stream = (unsigned)below(STREAMS);
    struct core *core = &run->cores[reactor];
    struct fanout *fanout = core_find_stream(core, key_of(stream));
    if (fanout == NULL || run->admitted[reactor] >= BUDGET_BYTES)
        return;
    struct payload_list list;
    struct buf *body = body_new(1 + (uint32_t)(below(2) == 0 ? 0 : below(6)), &list);
    if (fanout->owner == reactor)
        oracle_append(stream, &list);
    size_t index = publish_new(&(struct publish){.open = true,
                                                 .reactor = reactor,
                                                 .stream = stream,
                                                 .count = list.count,
                                                 .bytes = list.bytes.len});
    struct origin origin = {.request_id = index, .admitted_bytes = list.bytes.len};
    run->admitted[reactor] += list.bytes.len;
    struct publish_outcome outcome;
    if (core_publish(core, fanout, body, &list, HEADROOM, 0, &origin, &outcome)) {
        host_published(NULL, &origin, &outcome);
    } else if (fanout->owner == reactor) {
        assert_int_equal(run->policy, QUEUE_BLOCK);
        run->waited++;
    }
}

/* One message: the oldest between two reactors. */
static bool deliver(unsigned to, unsigned from) {
    struct mail_queue *queue = &run->mail[to][from];
    struct mail *mail = queue->head;
    if (mail == NULL)
        return false;
    queue->head = mail->next;
    if (queue->head == NULL)
        queue->tail = NULL;
    if (mail->kind == MAIL_PUBLISH &&
        core_find_stream(&run->cores[to], core_key_slice(mail->key)) != NULL)
        oracle_append(stream_of(mail), &((const struct mail_publish *)mail)->list);
    core_receive(&run->cores[to], mail, 0);
    return true;
}

static void pop(struct consumer *c) {
    struct core *core = &run->cores[c->reactor];
    struct queued_batch entry;
    if (!subscription_pop(&c->sub, &entry))
        return;
    const struct batch *batch = batch_of(entry.block);
    struct payload_cursor cursor = payload_walk(&batch->list);
    struct slice payload;
    for (uint32_t i = 0; payload_next(&cursor, &payload); i++) {
        if (i >= entry.first_item)
            check_item(c, batch->base_seq + i, payload);
    }
    assert_true(queued_items(&entry) > 0);
    uint32_t in_frames = 0;
    for (uint32_t i = 0; i < batch->frame_count; i++)
        in_frames += batch->frames[i].items;
    assert_int_equal(in_frames, batch->list.count);
    core_popped(core, &c->sub, &entry);
    buf_unref(entry.block);
}

/* What is live is within its limits, unless it blocks: then it may exceed them by one batch and
 * what was under way. History is as long as the ring. */
static void check_bound(const struct consumer *c) {
    const struct subscription *sub = &c->sub;
    assert_true(sub->history.count <= REPLAY_ITEMS + 8);
    if (sub->live.count < 2)
        return;
    if (run->policy == QUEUE_BLOCK)
        assert_true(sub->live_bytes <=
                    QUEUE_BYTES + BATCH_BYTES_MAX + run->count * (BUDGET_BYTES + BATCH_BYTES_MAX));
    else
        assert_true(sub->live_bytes <= QUEUE_BYTES && sub->live.count <= QUEUE_BATCHES);
}

static void step_subscribe(void) {
    struct consumer *c = &run->consumers[below(SUBS)];
    unsigned reactor = (unsigned)below(run->count), stream = (unsigned)below(STREAMS);
    struct core *core = &run->cores[reactor];
    struct fanout *fanout = core_find_stream(core, key_of(stream));
    if (c->used || fanout == NULL)
        return;
    const struct log *log = &run->logs[stream];
    *c = (struct consumer){
        .used = true,
        .reactor = reactor,
        .stream = stream,
        .start = (enum start_kind)below(4),
        .offset = log->count < 30 ? below(log->count + 3) : log->count - 30 + below(33),
        .answered_before = log->answered,
        .next_seq = UNKNOWN,
    };
    subscription_init(&c->sub, core_next_handle(core), run->policy, QUEUE_BATCHES, QUEUE_BYTES);
    c->sub.user = c;
    core_subscribe(core, fanout, &c->sub, c->start, c->offset);
}

static void leave(struct consumer *c) {
    if (!c->used)
        return;
    assert_true(c->missed <= c->sub.dropped_items);
    run->items_dropped += c->sub.dropped_items;
    core_unsubscribe(&run->cores[c->reactor], &c->sub);
    subscription_deinit(&c->sub);
    c->used = false;
}

static void tick(unsigned reactor) {
    struct core *core = &run->cores[reactor];
    struct subscription *sub;
    core_tick(core);
    while ((sub = core_next_ready(core)) != NULL)
        check_bound(sub->user);
}

static void settle(void) {
    for (bool any = true; any;) {
        any = false;
        for (unsigned r = 0; r < run->count; r++) {
            tick(r);
            for (unsigned from = 0; from < run->count; from++)
                any = deliver(r, from) || any;
        }
        for (unsigned i = 0; i < SUBS; i++) {
            struct consumer *c = &run->consumers[i];
            while (c->used && !subscription_is_empty(&c->sub)) {
                pop(c);
                any = true;
            }
        }
    }
}

/* The stream goes, everywhere, while everything else goes on; later it is there again, empty. */
static void step_remove(void) {
    unsigned stream = (unsigned)below(STREAMS), from = (unsigned)below(run->count);
    if (run->logs[stream].removing)
        return;
    run->logs[stream].removing = true;
    for (unsigned r = 0; r < run->count; r++) {
        struct mail_object *mail = calloc(1, sizeof *mail);
        assert_non_null(mail);
        mail->mail =
            (struct mail){.kind = MAIL_REMOVE, .from = from, .key = core_key_new(key_of(stream))};
        host_post(NULL, r, &mail->mail);
    }
    run->removals++;
}

static void step_add_again(void) {
    settle();
    for (unsigned s = 0; s < STREAMS; s++) {
        struct log *log = &run->logs[s];
        if (!log->removing)
            continue;
        for (unsigned i = 0; i < SUBS; i++) {
            struct consumer *c = &run->consumers[i];
            if (c->used && c->stream == s) {
                assert_true(c->answered && (c->refused || c->ended));
                leave(c);
            }
        }
        *log = (struct log){.items = log->items, .capacity = log->capacity};
        run->incarnation++;
        for (unsigned r = 0; r < run->count; r++)
            core_add_stream(&run->cores[r], key_of(s), run->incarnation, NULL);
    }
}

static void step(void) {
    uint64_t what = below(1000);
    struct consumer *c = &run->consumers[below(SUBS)];
    if (what < 350)
        step_publish();
    else if (what < 750)
        (void)deliver((unsigned)below(run->count), (unsigned)below(run->count));
    else if (what < 900 && c->used && below(1 + (uint64_t)(c - run->consumers)) == 0)
        pop(c); /* the higher its number, the slower */
    else if (what < 950)
        tick((unsigned)below(run->count));
    else if (what < 980)
        step_subscribe();
    else if (what < 990)
        leave(c);
    else if (what == 990 && below(4) == 0)
        step_remove();
    else if (what == 991)
        step_add_again();
    if (c->used && c->refused)
        leave(c);
}

/* ---- a run ---- */

static void begin(unsigned reactors, enum queue_policy policy) {
    struct core_settings settings = {
        .topic = {.replay_items_max = REPLAY_ITEMS,
                  .replay_bytes_max = (size_t)1 << 20,
                  .frame = {.items_max = 4, .payload_bytes_max = 200}},
        .replay_total_bytes_max = (size_t)1 << 20,
        .queue_policy = policy,
        /* Under the other policies the drops it leads to are counted by stream, not by consumer. */
        .deliver_bytes_max = policy == QUEUE_BLOCK ? 1000 : (size_t)1 << 20,
        .cache_max_bytes = 1,
    };
    buf_thread_trim();
    bytes_before = buf_live_bytes();
    run = calloc(1, sizeof *run);
    assert_non_null(run);
    run->count = reactors;
    run->policy = policy;
    run->random = seed + reactors * 16 + policy;
    for (unsigned r = 0; r < reactors; r++) {
        core_init(&run->cores[r], r, reactors, &settings, &host, NULL);
        for (unsigned s = 0; s < STREAMS; s++)
            core_add_stream(&run->cores[r], key_of(s), 0, NULL);
    }
}

static void check_books(const struct core *core) {
    const struct core_counters *n = &core->counters;
    assert_int_equal(counter_get(&n->enqueued_items), counter_get(&n->dequeued_items) +
                                                          counter_get(&n->dropped_old_items) +
                                                          counter_get(&n->dropped_ended_items));
    assert_int_equal(counter_get(&n->subscriptions), 0);
    assert_int_equal(counter_get(&n->pending_bytes), 0);
    assert_int_equal(core->subs.count, 0);
    size_t at = 0, ring_bytes = 0;
    const struct fanout *fanout;
    while ((fanout = map_next(&core->streams, &at)) != NULL) {
        ring_bytes += fanout->topic.ring_bytes;
        assert_int_equal(fanout->stalled_reactors, 0);
        for (unsigned r = 0; r < REACTORS_MAX; r++)
            assert_int_equal(fanout->remote_subs[r], 0);
    }
    assert_int_equal(core->ring_bytes, ring_bytes);
}

static void end(void) {
    step_add_again(); /* settled, and no stream is half removed */
    for (unsigned i = 0; i < SUBS; i++) {
        struct consumer *c = &run->consumers[i];
        if (c->used && !c->refused)
            check_complete(c);
        leave(c);
    }
    settle();
    for (unsigned s = 0; s < STREAMS; s++) {
        assert_int_equal(run->logs[s].answered, run->logs[s].count);
        free(run->logs[s].items);
    }
    for (size_t i = 0; i < run->publish_count; i++)
        assert_false(run->publishes[i].open);
    for (unsigned r = 0; r < run->count; r++) {
        assert_int_equal(run->admitted[r], 0);
        check_books(&run->cores[r]);
        core_deinit(&run->cores[r]);
    }
    free(run->publishes);
    free(run);
    buf_thread_trim();
    assert_int_equal(buf_live_bytes(), bytes_before);
}

static void run_steps(enum queue_policy policy) {
    for (unsigned reactors = 1; reactors <= REACTORS_MAX; reactors++) {
        begin(reactors, policy);
        for (unsigned i = 0; i < steps; i++)
            step();
        /* A run in which nothing happened would show nothing. */
        assert_true(run->items_seen > steps / 10 && run->refused_starts > 0 && run->removals > 0);
        assert_true(policy == QUEUE_BLOCK ? run->waited > 0 : run->items_dropped > 0);
        end();
    }
}

static void under_block_nothing_is_lost(void **state) {
    (void)state;
    run_steps(QUEUE_BLOCK);
}

static void under_drop_new_every_loss_is_counted(void **state) {
    (void)state;
    run_steps(QUEUE_DROP_NEW);
}

static void under_drop_old_every_loss_is_counted(void **state) {
    (void)state;
    run_steps(QUEUE_DROP_OLD);
}

int main(void) {
    const char *text = getenv("FELIX_TEST_SEED");
    const char *steps_text = getenv("FELIX_TEST_STEPS");
    seed = text != NULL ? strtoull(text, NULL, 0) : clock_wall_ns();
    if (steps_text != NULL)
        steps = (unsigned)strtoul(steps_text, NULL, 0);
    map_hash_fix((const uint64_t[2]){seed, 0});
    (void)printf("FELIX_TEST_SEED=%llu FELIX_TEST_STEPS=%u\n", (unsigned long long)seed, steps);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(under_block_nothing_is_lost),
        cmocka_unit_test(under_drop_new_every_loss_is_counted),
        cmocka_unit_test(under_drop_old_every_loss_is_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
