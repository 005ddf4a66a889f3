/*
 * A durable stream in the core, on one to three reactors whose messages are delivered in random
 * order, above a log that the test plays: it commits what it was given when it likes, refuses it,
 * fails and comes back, forgets its oldest records, and answers reads late.
 *
 * The oracle is the log's own array of items. From it follows:
 *   - a publish that was answered with OK lies at the offset that it was told, and one that was
 *     refused lies nowhere;
 *   - a subscription gets the items of the array one after the other, from where it began: no gap,
 *     no repeat, whether they come from pages, from the ring or live;
 *   - one that is stopped is told the first item that it did not get;
 *   - in the end each that was not stopped has got everything.
 *
 * FELIX_TEST_SEED repeats a run; FELIX_TEST_STEPS is how many steps each number of reactors gets.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/cursor.h"
#include "core/core.h"

#define REACTORS_MAX 3u
#define SUBS 10u
#define STEPS_DEFAULT 400000u
#define HEADROOM ((size_t)32)
#define UNANSWERED_MAX 12u
#define REPLAY_ITEMS 12u
#define QUEUE_BATCHES 8u
#define PAGE_ITEMS_MAX 9u
#define OWNER_MAIL REACTORS_MAX /* the log's place among the senders */

struct consumer {
    struct subscription sub;
    bool used, answered, refused, stopped;
    unsigned reactor;
    enum start_kind start;
    uint64_t offset, next_seq, resume_from;
    uint64_t end_before; /* of the log, when it subscribed: answered publishes lie below */
};

struct mail_queue {
    struct mail *head, *tail;
};

struct publish {
    bool open;
    unsigned reactor;
    uint32_t first_item, count;
};

/* What the test plays. */
struct played_log {
    uint32_t *items; /* committed; items[0] is offset 0 */
    uint64_t end, oldest, capacity;
    struct log_batch *head, *tail; /* given to it */
    uint64_t epoch;
    bool failed;
    struct log_read *reads; /* asked of it, newest first */
    size_t pages_out;       /* bytes that were not given back */
    unsigned references;
};

static struct {
    struct core cores[REACTORS_MAX];
    unsigned count;
    struct mail_queue mail[REACTORS_MAX][REACTORS_MAX + 1]; /* [to][from] */
    struct played_log log;
    struct consumer consumers[SUBS];
    struct publish *publishes;
    size_t publish_count, publish_capacity;
    unsigned unanswered;
    uint32_t next_item;
    uint64_t answered_end; /* no answered publish ends above */
    uint64_t random;
    uint64_t items_seen, pages, stops, refusals, failures, too_old;
} run;

static uint64_t seed;
static unsigned steps = STEPS_DEFAULT;

static uint64_t next_random(void) {
    run.random += 0x9e3779b97f4a7c15;
    uint64_t z = run.random;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

static uint64_t below(uint64_t bound) {
    return next_random() % bound;
}

static struct slice key(void) {
    static uint8_t bytes[32];
    struct slice t = slice_str("t1"), n = slice_str("n"), s = slice_str("d");
    core_key_write(bytes, t, n, s);
    return slice_of(bytes, core_key_bytes(t, n, s));
}

static struct fanout *fanout_at(unsigned reactor) {
    return core_find_stream(&run.cores[reactor], key());
}

static struct stream_log *the_log(void) {
    return (struct stream_log *)(void *)&run.log; /* nobody looks inside */
}

/* ---- messages ---- */

static void put_mail(unsigned to, unsigned from, struct mail *mail) {
    struct mail_queue *queue = &run.mail[to][from];
    mail->next = NULL;
    if (queue->tail != NULL)
        queue->tail->next = mail;
    else
        queue->head = mail;
    queue->tail = mail;
}

static bool deliver_mail(unsigned to, unsigned from) {
    struct mail_queue *queue = &run.mail[to][from];
    struct mail *mail = queue->head;
    if (mail == NULL)
        return false;
    queue->head = mail->next;
    if (queue->head == NULL)
        queue->tail = NULL;
    core_receive(&run.cores[to], mail, 0);
    return true;
}

/* ---- the log ---- */

static void notice(enum felix_err err, bool available) {
    struct mail_logged *mail = calloc(1, sizeof *mail);
    const struct fanout *fanout = fanout_at(0);
    assert_non_null(mail);
    mail->mail = (struct mail){
        .kind = MAIL_LOGGED, .incarnation = fanout->incarnation, .key = buf_ref(fanout->key)};
    mail->commit = (struct log_commit){.end = run.log.end,
                                       .err = err,
                                       .epoch = run.log.epoch,
                                       .flushed = true,
                                       .available = available};
    put_mail(fanout->owner, OWNER_MAIL, &mail->mail);
}

static struct log_batch *take_batch(void) {
    struct log_batch *batch = run.log.head;
    if (batch == NULL)
        return NULL;
    run.log.head = batch->next;
    if (run.log.head == NULL)
        run.log.tail = NULL;
    return batch;
}

static void free_batch(struct log_batch *batch) {
    buf_unref(batch->block);
    free(batch);
}

static void keep(const struct log_batch *batch) {
    struct payload_cursor cursor = payload_walk(&batch->list);
    struct slice payload;
    assert_int_equal(batch->base_offset, run.log.end);
    while (payload_next(&cursor, &payload)) {
        if (run.log.end == run.log.capacity) {
            run.log.capacity = run.log.capacity == 0 ? 1024 : run.log.capacity * 2;
            run.log.items = realloc(run.log.items, run.log.capacity * sizeof *run.log.items);
            assert_non_null(run.log.items);
        }
        run.log.items[run.log.end++] = be32_load(payload.data);
    }
}

static void step_commit(void) {
    uint64_t before = run.log.end;
    for (uint64_t left = 1 + below(6); left > 0; left--) {
        struct log_batch *batch = take_batch();
        if (batch == NULL)
            break;
        if (batch->epoch == run.log.epoch && !run.log.failed)
            keep(batch);
        free_batch(batch);
    }
    if (run.log.end != before)
        notice(FELIX_OK, true);
}

static void step_fail(void) {
    bool full = below(2) == 0;
    if (run.log.failed)
        return;
    run.failures++;
    run.log.epoch++;
    run.log.failed = !full;
    notice(full ? FELIX_DISK_FULL : FELIX_STORAGE, full);
}

static void step_recover(void) {
    if (!run.log.failed)
        return;
    run.log.failed = false;
    notice(FELIX_OK, true);
}

static void step_forget(void) {
    if (run.log.end > run.log.oldest)
        run.log.oldest += below(run.log.end - run.log.oldest) / 2;
}

static void fill_page(struct log_read *read, uint32_t count) {
    size_t list_bytes = 4 + (size_t)count * 8;
    struct buf *block = buf_new(HEADROOM + list_bytes + 8 + count * sizeof(uint64_t));
    uint8_t *at = block->data + HEADROOM;
    uint64_t *times =
        (uint64_t *)(void *)(block->data + ((HEADROOM + list_bytes + 7) & ~(size_t)7));
    read->page = (struct log_page){
        .block = block,
        .list = {.bytes = slice_of(at, list_bytes), .count = count, .payload_bytes = 4 * count},
        .headroom = HEADROOM,
        .timestamps = times,
        .first = read->offset,
    };
    be32_store(at, count);
    for (uint32_t i = 0; i < count; i++) {
        be32_store(at + 4 + 8 * i, 4);
        be32_store(at + 8 + 8 * i, run.log.items[read->offset + i]);
        times[i] = read->offset + i;
    }
    run.log.pages_out += block->capacity;
    run.pages++;
}

/* Any of the reads, not the oldest. */
static void step_read(void) {
    unsigned n = 0;
    for (struct log_read *r = run.log.reads; r != NULL; r = r->next)
        n++;
    if (n == 0)
        return;
    struct log_read **link = &run.log.reads;
    for (uint64_t skip = below(n); skip > 0; skip--)
        link = &(*link)->next;
    struct log_read *read = *link;
    *link = read->next;
    if (read->offset < run.log.oldest) {
        read->err = FELIX_CURSOR_TOO_OLD;
        read->available = run.log.oldest;
        run.too_old++;
    } else {
        uint64_t left = run.log.end - read->offset;
        uint32_t count = (uint32_t)(left < PAGE_ITEMS_MAX ? left : 1 + below(PAGE_ITEMS_MAX));
        assert_true(read->offset <= run.log.end);
        if (count > 0)
            fill_page(read, count);
        read->at_end = read->offset + count == run.log.end;
    }
    struct mail_log_page *mail = calloc(1, sizeof *mail);
    assert_non_null(mail);
    mail->mail.kind = MAIL_LOG_PAGE;
    mail->read = read;
    put_mail(read->reactor, OWNER_MAIL, &mail->mail);
}

/* ---- the core's host ---- */

static void host_post(void *context, unsigned reactor, struct mail *mail) {
    put_mail(reactor, mail->from, mail);
}

static void host_log_append(void *context, struct stream_log *log, struct log_batch *batch) {
    assert_ptr_equal(log, the_log());
    batch->next = NULL;
    if (run.log.tail != NULL)
        run.log.tail->next = batch;
    else
        run.log.head = batch;
    run.log.tail = batch;
}

static void host_log_read(void *context, struct log_read *read) {
    assert_ptr_equal(read->log, the_log());
    read->next = run.log.reads;
    run.log.reads = read;
}

static void host_log_page_done(void *context, size_t bytes) {
    assert_true(bytes > 0 && bytes <= run.log.pages_out);
    run.log.pages_out -= bytes;
}

static void host_log_release(void *context, struct stream_log *log) {
    run.log.references--;
}

static uint64_t host_wall_us(void *context) {
    return 1;
}

static void answered(size_t index, const struct publish_outcome *outcome) {
    struct publish *publish = &run.publishes[index];
    assert_true(publish->open);
    publish->open = false;
    run.unanswered--;
    if (outcome->err != FELIX_OK) {
        assert_true(outcome->err == FELIX_DISK_FULL || outcome->err == FELIX_STORAGE);
        run.refusals++;
        return;
    }
    assert_true(outcome->has_offset && outcome->level == ACK_LEVEL_FLUSHED);
    assert_true(outcome->offset + publish->count <= run.log.end);
    for (uint32_t i = 0; i < publish->count; i++)
        assert_int_equal(run.log.items[outcome->offset + i], publish->first_item + i);
    if (run.answered_end < outcome->offset + publish->count)
        run.answered_end = outcome->offset + publish->count;
}

static void host_published(void *context, const struct origin *origin,
                           const struct publish_outcome *outcome) {
    answered(origin->request_id, outcome);
}

static void host_subscribed(void *context, struct subscription *sub, enum felix_err err,
                            uint64_t seq) {
    struct consumer *c = sub->user;
    assert_false(c->answered);
    c->answered = true;
    c->refused = err != FELIX_OK;
    c->next_seq = seq;
    if (err == FELIX_CURSOR_IN_FUTURE)
        assert_true(c->start == START_OFFSET && c->offset > seq && seq >= c->end_before);
    else if (err == FELIX_CURSOR_TOO_OLD)
        assert_true(c->start == START_OFFSET && c->offset < seq && seq <= run.log.oldest);
    else if (err != FELIX_OK)
        fail_msg("subscribe ended with %d", (int)err);
    else if (c->start == START_OFFSET)
        assert_int_equal(seq, c->offset);
    else if (c->start == START_EARLIEST)
        assert_true(seq <= run.log.oldest);
    else
        assert_true(seq >= c->end_before);
    if (err == FELIX_OK)
        assert_true(sub->live_seq <= run.log.end);
}

static void host_ended(void *context, struct subscription *sub) {
    fail_msg("nobody deleted the stream");
}

static void host_stopped(void *context, struct subscription *sub, enum felix_err err,
                         uint64_t resume_from) {
    struct consumer *c = sub->user;
    assert_true(c->answered && !c->refused && !c->stopped);
    assert_int_equal(err, FELIX_LAGGED);
    c->stopped = true;
    c->resume_from = resume_from;
    run.stops++;
}

static void host_cache_done(void *context, const struct cache_answer *answer) {
}

static const struct core_host host = {
    .post = host_post,
    .published = host_published,
    .subscribed = host_subscribed,
    .ended = host_ended,
    .stopped = host_stopped,
    .log_append = host_log_append,
    .log_read = host_log_read,
    .log_page_done = host_log_page_done,
    .log_release = host_log_release,
    .wall_us = host_wall_us,
    .cache_done = host_cache_done,
};

/* ---- steps ---- */

static void step_publish(void) {
    unsigned reactor = (unsigned)below(run.count);
    uint32_t count = below(2) == 0 ? 1 : 1 + (uint32_t)below(7);
    if (run.unanswered >= UNANSWERED_MAX)
        return;
    struct buf *body = buf_new(HEADROOM + 4 + count * 8);
    uint8_t *at = body->data + HEADROOM;
    struct payload_list list = {
        .bytes = slice_of(at, 4 + count * 8), .count = count, .payload_bytes = count * 4};
    be32_store(at, count);
    for (uint32_t i = 0; i < count; i++) {
        be32_store(at + 4 + 8 * i, 4);
        be32_store(at + 8 + 8 * i, run.next_item + i);
    }
    if (run.publish_count == run.publish_capacity) {
        run.publish_capacity = run.publish_capacity == 0 ? 1024 : run.publish_capacity * 2;
        run.publishes = realloc(run.publishes, run.publish_capacity * sizeof *run.publishes);
        assert_non_null(run.publishes);
    }
    size_t index = run.publish_count++;
    run.publishes[index] = (struct publish){
        .open = true, .reactor = reactor, .first_item = run.next_item, .count = count};
    run.next_item += count;
    run.unanswered++;
    struct origin origin = {.request_id = index};
    struct publish_outcome outcome;
    if (core_publish(&run.cores[reactor], fanout_at(reactor), body, &list, HEADROOM, 0, &origin,
                     &outcome)) {
        assert_true(outcome.err != FELIX_OK); /* the log decides on the others */
        answered(index, &outcome);
    }
}

static void step_subscribe(void) {
    struct consumer *c = &run.consumers[below(SUBS)];
    unsigned reactor = (unsigned)below(run.count);
    struct core *core = &run.cores[reactor];
    if (c->used)
        return;
    *c = (struct consumer){
        .used = true,
        .reactor = reactor,
        .start = (enum start_kind)below(4),
        .offset = below(3) == 0 ? run.log.end + below(3) : below(run.log.end + 1),
        .end_before = run.answered_end,
    };
    subscription_init(&c->sub, core_next_handle(core), QUEUE_DROP_NEW, QUEUE_BATCHES, 4096);
    c->sub.user = c;
    c->sub.end_on_loss = true;
    core_subscribe(core, fanout_at(reactor), &c->sub, c->start, c->offset);
}

static void pop(struct consumer *c) {
    struct queued_batch entry;
    if (!subscription_pop(&c->sub, &entry))
        return;
    const struct batch *batch = batch_of(entry.block);
    struct payload_cursor cursor = payload_walk(&batch->list);
    struct slice payload;
    for (uint32_t i = 0; payload_next(&cursor, &payload); i++) {
        if (i < entry.first_item)
            continue;
        assert_int_equal(batch->base_seq + i, c->next_seq);
        assert_int_equal(be32_load(payload.data), run.log.items[c->next_seq]);
        assert_int_equal(batch_time_us(batch, i), batch->timestamps != NULL ? c->next_seq : 1);
        c->next_seq++;
        run.items_seen++;
    }
    core_popped(&run.cores[c->reactor], &c->sub, &entry);
    buf_unref(entry.block);
}

static void leave(struct consumer *c) {
    if (!c->used)
        return;
    if (c->stopped && subscription_is_empty(&c->sub))
        assert_true(c->resume_from >= c->next_seq);
    core_unsubscribe(&run.cores[c->reactor], &c->sub);
    subscription_deinit(&c->sub);
    c->used = false;
}

static void tick(unsigned reactor) {
    core_tick(&run.cores[reactor]);
    const struct subscription *sub;
    while ((sub = core_next_ready(&run.cores[reactor])) != NULL)
        assert_true(sub->history.count <= REPLAY_ITEMS + 4);
}

static void settle(void) {
    step_recover();
    for (bool any = true; any;) {
        for (unsigned r = 0; r < run.count; r++)
            tick(r);
        any = run.log.head != NULL || run.log.reads != NULL;
        step_commit();
        step_read();
        for (unsigned r = 0; r < run.count; r++) {
            for (unsigned from = 0; from <= REACTORS_MAX; from++)
                any = deliver_mail(r, from) || any;
        }
        for (unsigned i = 0; i < SUBS; i++) {
            struct consumer *c = &run.consumers[i];
            while (c->used && !subscription_is_empty(&c->sub)) {
                pop(c);
                any = true;
            }
        }
    }
}

/* At rest: everyone who was not stopped or refused has all there is. */
static void check_all(void) {
    settle();
    assert_int_equal(run.unanswered, 0);
    assert_int_equal(run.log.pages_out, 0);
    for (unsigned i = 0; i < SUBS; i++) {
        const struct consumer *c = &run.consumers[i];
        if (c->used)
            assert_true(c->answered);
        if (c->used && !c->refused && !c->stopped)
            assert_int_equal(c->next_seq, run.log.end);
    }
}

/* Most queues are empty: a few looks find one that is not. */
static void step_deliver(void) {
    for (unsigned looks = 0; looks < 6; looks++) {
        if (deliver_mail((unsigned)below(run.count), (unsigned)below(REACTORS_MAX + 1)))
            return;
    }
}

static void step(void) {
    uint64_t what = below(1000);
    struct consumer *c = &run.consumers[below(SUBS)];
    if (what < 250)
        step_publish();
    else if (what < 600)
        step_deliver();
    else if (what < 680)
        step_commit();
    else if (what < 760)
        step_read();
    else if (what < 900 && c->used && below(1 + (uint64_t)(c - run.consumers)) == 0)
        pop(c); /* the higher its number, the slower */
    else if (what < 950)
        tick((unsigned)below(run.count));
    else if (what < 980)
        step_subscribe();
    else if (what < 986)
        leave(c);
    else if (what < 988)
        step_fail();
    else if (what < 994)
        step_recover();
    else if (what == 994)
        step_forget();
    else if (what == 995 && below(20) == 0)
        check_all();
    if (c->used && (c->refused || c->stopped) && below(4) == 0)
        leave(c);
}

/* ---- a run ---- */

static void begin(unsigned reactors) {
    struct core_settings settings = {
        .topic = {.replay_items_max = REPLAY_ITEMS,
                  .replay_bytes_max = (size_t)1 << 20,
                  .frame = {.items_max = 4, .payload_bytes_max = 200}},
        .replay_total_bytes_max = (size_t)1 << 20,
        .queue_policy = QUEUE_DROP_NEW,
        .deliver_bytes_max = 1500,
        .cache_max_bytes = 1,
    };
    memset(&run, 0, sizeof run);
    run.count = reactors;
    run.random = seed + reactors;
    run.log.references = reactors;
    for (unsigned r = 0; r < reactors; r++) {
        core_init(&run.cores[r], r, reactors, &settings, &host, NULL);
        core_add_stream(&run.cores[r], key(), 7, &(struct stream_start){.log = the_log()});
    }
}

static void end(void) {
    check_all();
    for (unsigned i = 0; i < SUBS; i++)
        leave(&run.consumers[i]);
    settle();
    for (unsigned r = 0; r < run.count; r++) {
        const struct fanout *fanout = fanout_at(r);
        for (unsigned at = 0; at < REACTORS_MAX; at++)
            assert_int_equal(fanout->remote_subs[at], 0);
        assert_int_equal(fanout->uncommitted.wait_count, 0);
        assert_int_equal(fanout->uncommitted.block_count, 0);
        core_deinit(&run.cores[r]);
    }
    assert_int_equal(run.log.references, 0);
    free(run.publishes);
    free(run.log.items);
    buf_thread_trim();
}

static void history_joins_live_without_gap_or_repeat(void **state) {
    (void)state;
    for (unsigned reactors = 1; reactors <= REACTORS_MAX; reactors++) {
        size_t bytes_before = buf_live_bytes();
        begin(reactors);
        for (unsigned i = 0; i < steps; i++)
            step();
        /* A run in which nothing happened would show nothing. */
        print_message(
            "%u reactors: %llu items seen, %llu pages, %llu stops, %llu refusals, %llu too old\n",
            reactors, (unsigned long long)run.items_seen, (unsigned long long)run.pages,
            (unsigned long long)run.stops, (unsigned long long)run.refusals,
            (unsigned long long)run.too_old);
        assert_true(run.items_seen > steps / 20 && run.pages > steps / 1000 && run.stops > 0);
        assert_true(run.refusals > 0 && run.failures > 0 && run.too_old > 0);
        end();
        assert_int_equal(buf_live_bytes(), bytes_before);
    }
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
        cmocka_unit_test(history_joins_live_without_gap_or_repeat),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
