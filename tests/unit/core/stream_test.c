/* Publishing and subscribing on one to three reactors, whose messages the test delivers itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/cursor.h"
#include "core/core.h"

#define REACTORS_MAX 3u
#define HEADROOM ((size_t)16)
#define DELIVER_BYTES 4096u

struct world {
    struct core cores[REACTORS_MAX];
    unsigned count;
    struct mail *mail[REACTORS_MAX][REACTORS_MAX]; /* [to][from], newest first */
    unsigned published, published_failed, subscribed, ended;
    enum felix_err subscribed_err;
    uint64_t subscribed_seq, released_bytes;
};

static struct world *world;

static void host_post(void *context, unsigned reactor, struct mail *mail) {
    mail->next = world->mail[reactor][mail->from];
    world->mail[reactor][mail->from] = mail;
}

static void host_published(void *context, const struct origin *origin,
                           const struct publish_outcome *outcome) {
    world->published++;
    world->published_failed += outcome->err != FELIX_OK;
    world->released_bytes += origin->admitted_bytes;
}

static void host_subscribed(void *context, struct subscription *sub, enum felix_err err,
                            uint64_t seq) {
    world->subscribed++;
    world->subscribed_err = err;
    world->subscribed_seq = seq;
}

static void host_ended(void *context, struct subscription *sub) {
    world->ended++;
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

static struct slice key(void) {
    static uint8_t bytes[64];
    struct slice t = slice_str("t1"), n = slice_str("default"), s = slice_str("s");
    core_key_write(bytes, t, n, s);
    return slice_of(bytes, core_key_bytes(t, n, s));
}

static void build(unsigned reactors, enum queue_policy policy, uint32_t batches_max) {
    struct core_settings settings = {
        .topic = {.replay_items_max = 8,
                  .replay_bytes_max = (size_t)1 << 20,
                  .frame = {.items_max = 64, .payload_bytes_max = 65536}},
        .replay_total_bytes_max = (size_t)1 << 20,
        .queue_policy = policy,
        .queue_batches_max = batches_max,
        .queue_bytes_max = (size_t)1 << 20,
        .deliver_bytes_max = DELIVER_BYTES,
        .cache_max_bytes = (uint64_t)1 << 20,
    };
    world = calloc(1, sizeof *world);
    world->count = reactors;
    for (unsigned r = 0; r < reactors; r++) {
        core_init(&world->cores[r], r, reactors, &settings, &host, NULL);
        core_add_stream(&world->cores[r], key(), 1, NULL);
    }
}

/* Deliver what is under way to one reactor; messages of one sender keep their order. */
static bool deliver_to(unsigned to) {
    bool any = false;
    for (unsigned from = 0; from < world->count; from++) {
        struct mail *oldest = NULL;
        for (struct mail *m = world->mail[to][from], *next; m != NULL; m = next) {
            next = m->next;
            m->next = oldest;
            oldest = m;
        }
        world->mail[to][from] = NULL;
        while (oldest != NULL) {
            struct mail *next = oldest->next;
            core_receive(&world->cores[to], oldest, 0);
            oldest = next;
            any = true;
        }
    }
    return any;
}

/* Deliver until nothing is under way. */
static void settle(void) {
    for (bool any = true; any;) {
        any = false;
        for (unsigned r = 0; r < world->count; r++)
            core_tick(&world->cores[r]);
        for (unsigned to = 0; to < world->count; to++)
            any = deliver_to(to) || any;
    }
}

static bool publish(unsigned reactor, uint32_t count, uint8_t fill) {
    struct core *core = &world->cores[reactor];
    struct buf *body = buf_new(HEADROOM + 4 + count * 5);
    uint8_t *at = body->data + HEADROOM;
    be32_store(at, count);
    for (uint32_t i = 0; i < count; i++) {
        be32_store(at + 4 + i * 5, 1);
        at[8 + i * 5] = (uint8_t)(fill + i);
    }
    struct payload_list list = {
        .bytes = slice_of(at, 4 + count * 5), .count = count, .payload_bytes = count};
    struct origin origin = {.session = 1, .request_id = 1, .admitted_bytes = count};
    struct publish_outcome outcome;
    return core_publish(core, core_find_stream(core, key()), body, &list, HEADROOM, 0, &origin,
                        &outcome);
}

/* An item counts its length, too. */
static bool publish_empty_items(unsigned reactor, uint32_t count) {
    struct core *core = &world->cores[reactor];
    size_t bytes = 4 + (size_t)count * 4;
    struct buf *body = buf_new(HEADROOM + bytes);
    memset(body->data, 0, HEADROOM + bytes);
    be32_store(body->data + HEADROOM, count);
    struct payload_list list = {.bytes = slice_of(body->data + HEADROOM, bytes), .count = count};
    struct origin origin = {.session = 1, .request_id = 1};
    struct publish_outcome outcome;
    return core_publish(core, core_find_stream(core, key()), body, &list, HEADROOM, 0, &origin,
                        &outcome);
}

static void subscribe(unsigned reactor, struct subscription *sub, enum start_kind start,
                      uint64_t offset) {
    struct core *core = &world->cores[reactor];
    subscription_init(sub, core_next_handle(core), core->settings.queue_policy,
                      core->settings.queue_batches_max, core->settings.queue_bytes_max);
    core_subscribe(core, core_find_stream(core, key()), sub, start, offset);
}

/* From the reactor, of two, that does not own the stream; returns the one that does. */
static unsigned subscribe_elsewhere(struct subscription *sub) {
    unsigned owner = core_find_stream(&world->cores[0], key())->owner;
    subscribe(1 - owner, sub, START_NONE, 0);
    settle();
    return owner;
}

/* Everything in the queue as text; pops it. */
static const char *take(unsigned reactor, struct subscription *sub) {
    static char text[256];
    size_t len = 0;
    struct queued_batch entry;
    while (subscription_pop(sub, &entry)) {
        struct payload_cursor cursor = payload_walk(&batch_of(entry.block)->list);
        struct slice payload;
        for (uint32_t i = 0; payload_next(&cursor, &payload); i++) {
            if (i >= entry.first_item)
                text[len++] = (char)payload.data[0];
        }
        core_popped(&world->cores[reactor], sub, &entry);
        buf_unref(entry.block);
    }
    text[len] = '\0';
    return text;
}

static void leave(unsigned reactor, struct subscription *sub) {
    core_unsubscribe(&world->cores[reactor], sub);
    subscription_deinit(sub);
}

static void destroy(void) {
    settle();
    for (unsigned r = 0; r < world->count; r++) {
        while (core_next_ready(&world->cores[r]) != NULL)
            continue;
    }
    for (unsigned r = 0; r < world->count; r++)
        core_deinit(&world->cores[r]);
    settle();
    free(world);
    buf_thread_trim();
}

static void every_reactor_may_publish_and_every_subscriber_gets_it(void **) {
    for (unsigned reactors = 1; reactors <= REACTORS_MAX; reactors++) {
        struct subscription subs[REACTORS_MAX];
        build(reactors, QUEUE_DROP_NEW, 64);
        for (unsigned r = 0; r < reactors; r++)
            subscribe(r, &subs[r], START_NONE, 0);
        settle();
        assert_int_equal(world->subscribed, reactors);
        unsigned later = 0;
        for (unsigned r = 0; r < reactors; r++)
            later += !publish(r, 2, 'a');
        settle();
        assert_int_equal(later, reactors - 1); /* only the owner is done at once */
        assert_int_equal(world->published, reactors - 1);
        assert_int_equal(world->released_bytes, 2 * (reactors - 1));
        for (unsigned r = 0; r < reactors; r++)
            assert_int_equal(strlen(take(r, &subs[r])), 2 * reactors);
        for (unsigned r = 0; r < reactors; r++)
            leave(r, &subs[r]);
        destroy();
    }
}

static void history_then_live_without_gap_or_repeat(void **) {
    for (unsigned reactors = 1; reactors <= REACTORS_MAX; reactors++) {
        for (unsigned at = 0; at < reactors; at++) {
            struct subscription sub;
            build(reactors, QUEUE_DROP_NEW, 64);
            (void)publish(0, 3, 'a');
            settle();
            (void)publish(0, 2, 'd');
            subscribe(at, &sub, START_OFFSET, 1);
            (void)publish(0, 1, 'f');
            settle();
            assert_int_equal(world->subscribed_err, FELIX_OK);
            const char *got = take(at, &sub);
            assert_true(strcmp(got, "bcdef") == 0);
            leave(at, &sub);
            destroy();
        }
    }
}

static void a_refused_start_leaves_nothing_attached(void **) {
    for (unsigned reactors = 1; reactors <= 2; reactors++) {
        struct subscription sub;
        build(reactors, QUEUE_DROP_NEW, 64);
        (void)publish(0, 2, 'a');
        settle();
        subscribe(reactors - 1, &sub, START_OFFSET, 9);
        settle();
        assert_int_equal(world->subscribed_err, FELIX_CURSOR_IN_FUTURE);
        assert_int_equal(world->subscribed_seq, 2);
        leave(reactors - 1, &sub);
        (void)publish(0, 2, 'c');
        settle();
        for (unsigned r = 0; r < reactors; r++)
            assert_int_equal(counter_get(&world->cores[r].counters.enqueued_items), 0);
        destroy();
    }
}

static void drop_new_keeps_the_oldest_and_counts_items(void **) {
    struct subscription sub;
    build(1, QUEUE_DROP_NEW, 2);
    subscribe(0, &sub, START_NONE, 0);
    for (uint8_t i = 0; i < 4; i++)
        (void)publish(0, 2, (uint8_t)('a' + 2 * i));
    assert_int_equal(sub.dropped_items, 4);
    assert_int_equal(counter_get(&world->cores[0].counters.dropped_new_items), 4);
    assert_string_equal(take(0, &sub), "abcd");
    leave(0, &sub);
    destroy();
}

static void drop_old_keeps_the_newest_and_counts_items(void **) {
    struct subscription sub;
    build(1, QUEUE_DROP_OLD, 2);
    subscribe(0, &sub, START_NONE, 0);
    for (uint8_t i = 0; i < 4; i++)
        (void)publish(0, 2, (uint8_t)('a' + 2 * i));
    assert_int_equal(sub.dropped_items, 4);
    assert_int_equal(counter_get(&world->cores[0].counters.dropped_old_items), 4);
    assert_string_equal(take(0, &sub), "efgh");
    leave(0, &sub);
    destroy();
}

static void empty_items_take_room_and_give_it_back(void **) {
    struct subscription sub;
    build(1, QUEUE_DROP_NEW, 64);
    subscribe(0, &sub, START_NONE, 0);
    sub.bytes_max = 2 * (4 + 100 * 4);
    for (unsigned i = 0; i < 3; i++)
        assert_true(publish_empty_items(0, 100));
    assert_int_equal(sub.dropped_items, 100);
    assert_int_equal(sub.live_bytes, sub.bytes_max);
    struct queued_batch entry;
    while (subscription_pop(&sub, &entry))
        buf_unref(entry.block);
    assert_int_equal(sub.live_bytes, 0);
    leave(0, &sub);
    destroy();
}

static void history_takes_no_room_from_what_is_live(void **) {
    const enum queue_policy policies[] = {QUEUE_BLOCK, QUEUE_DROP_NEW, QUEUE_DROP_OLD};
    for (unsigned i = 0; i < sizeof policies / sizeof policies[0]; i++) {
        struct subscription sub;
        build(1, policies[i], 2);
        for (uint8_t p = 0; p < 3; p++)
            (void)publish(0, 2, (uint8_t)('a' + 2 * p));
        subscribe(0, &sub, START_EARLIEST, 0);
        assert_true(publish(0, 2, 'g'));
        assert_true(publish(0, 2, 'i'));
        assert_int_equal(sub.dropped_items, 0);
        assert_string_equal(take(0, &sub), "abcdefghij");
        leave(0, &sub);
        destroy();
    }
}

static void block_holds_publishes_until_there_is_room_and_loses_nothing(void **) {
    for (unsigned reactors = 1; reactors <= REACTORS_MAX; reactors++) {
        struct subscription sub;
        unsigned at = reactors - 1;
        char all[64] = "";
        build(reactors, QUEUE_BLOCK, 2);
        subscribe(at, &sub, START_NONE, 0);
        settle();
        unsigned done = 0;
        for (uint8_t i = 0; i < 8; i++) {
            done += publish(0, 2, (uint8_t)('a' + 2 * i));
            settle();
        }
        assert_int_equal(sub.dropped_items, 0);
        assert_true(done + world->published < 8);
        for (unsigned turn = 0; turn < 8; turn++) {
            (void)strcat(all, take(at, &sub));
            settle();
        }
        assert_string_equal(all, "abcdefghijklmnop");
        assert_int_equal(done + world->published, 8);
        leave(at, &sub);
        destroy();
    }
}

static void a_reactor_that_does_not_keep_up_holds_publishers_back(void **) {
    struct subscription sub;
    build(2, QUEUE_BLOCK, 2000);
    unsigned owner = subscribe_elsewhere(&sub);
    uint32_t done = 0;
    while (done < 1000 && publish(owner, 1, 'a')) {
        done++;
        core_tick(&world->cores[owner]); /* leaves as a delivery that nobody takes */
    }
    assert_in_range(done, 10, DELIVER_BYTES / sizeof(struct mail_deliver) + 1);
    assert_int_equal(world->published, 0);
    settle();
    assert_int_equal(world->published, 1);
    assert_int_equal(sub.queued_items, done + 1);
    assert_int_equal(sub.dropped_items, 0);
    leave(1 - owner, &sub);
    destroy();
}

static void drops_for_a_reactor_that_does_not_keep_up_are_counted(void **) {
    struct subscription subs[2];
    build(2, QUEUE_DROP_NEW, 2000);
    unsigned owner = subscribe_elsewhere(&subs[0]);
    (void)subscribe_elsewhere(&subs[1]);
    for (unsigned i = 0; i < 500; i++) {
        assert_true(publish(owner, 1, 'a'));
        core_tick(&world->cores[owner]);
    }
    settle();
    assert_in_range(subs[0].queued_items, 10, DELIVER_BYTES / sizeof(struct mail_deliver) + 1);
    assert_int_equal(counter_get(&world->cores[owner].counters.dropped_new_items),
                     2 * (500 - subs[0].queued_items));
    assert_true(publish(owner, 1, 'z'));
    settle();
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(strchr(take(1 - owner, &subs[i]), 'z') != NULL, 1);
        leave(1 - owner, &subs[i]);
    }
    destroy();
}

static void removing_a_stream_ends_its_subscriptions_and_answers_what_waited(void **) {
    for (unsigned reactors = 1; reactors <= 2; reactors++) {
        struct subscription sub;
        build(reactors, QUEUE_BLOCK, 1);
        subscribe(reactors - 1, &sub, START_NONE, 0);
        settle();
        unsigned done = 0;
        for (unsigned i = 0; i < 4; i++) {
            done += publish(0, 2, 'a');
            settle();
        }
        for (unsigned r = 0; r < reactors; r++)
            assert_true(core_remove_stream(&world->cores[r], key()));
        settle();
        assert_int_equal(world->ended, 1);
        assert_int_equal(done + world->published, 4);
        assert_true(world->published_failed > 0);
        assert_null(core_find_stream(&world->cores[0], key()));
        leave(reactors - 1, &sub);
        destroy();
    }
}

static void leaving_before_the_answer_leaves_nothing_behind(void **) {
    struct subscription sub;
    build(2, QUEUE_DROP_NEW, 8);
    for (unsigned r = 0; r < 2; r++) {
        subscribe(r, &sub, START_EARLIEST, 0);
        leave(r, &sub);
        settle();
    }
    (void)publish(0, 2, 'a');
    settle();
    for (unsigned r = 0; r < 2; r++) {
        struct fanout *fanout = core_find_stream(&world->cores[r], key());
        for (unsigned q = 0; q < 2; q++)
            assert_int_equal(fanout->remote_subs[q], 0);
    }
    destroy();
}

/* Remove the stream everywhere and add another one of its name, while messages are under way. */
static void replace_stream(void) {
    for (unsigned r = 0; r < world->count; r++) {
        assert_true(core_remove_stream(&world->cores[r], key()));
        core_add_stream(&world->cores[r], key(), 2, NULL);
    }
}

static void a_new_stream_does_not_count_a_subscription_of_the_old_one(void **) {
    struct subscription subs[2];
    build(2, QUEUE_DROP_NEW, 8);
    for (unsigned r = 0; r < 2; r++)
        subscribe(r, &subs[r], START_NONE, 0);
    replace_stream();
    settle();
    for (unsigned r = 0; r < 2; r++) {
        struct fanout *fanout = core_find_stream(&world->cores[r], key());
        for (unsigned q = 0; q < 2; q++)
            assert_int_equal(fanout->remote_subs[q], 0);
        leave(r, &subs[r]);
    }
    destroy();
}

static void a_new_stream_is_not_held_up_by_a_queue_of_the_old_one(void **) {
    struct subscription sub;
    build(2, QUEUE_BLOCK, 1);
    unsigned owner = subscribe_elsewhere(&sub);
    (void)publish(owner, 2, 'a');
    (void)deliver_to(1 - owner); /* the queue is full, and the owner has yet to hear it */
    replace_stream();
    settle();
    assert_true(publish(owner, 2, 'c'));
    leave(1 - owner, &sub);
    destroy();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_reactor_may_publish_and_every_subscriber_gets_it),
        cmocka_unit_test(history_then_live_without_gap_or_repeat),
        cmocka_unit_test(a_refused_start_leaves_nothing_attached),
        cmocka_unit_test(drop_new_keeps_the_oldest_and_counts_items),
        cmocka_unit_test(drop_old_keeps_the_newest_and_counts_items),
        cmocka_unit_test(empty_items_take_room_and_give_it_back),
        cmocka_unit_test(history_takes_no_room_from_what_is_live),
        cmocka_unit_test(block_holds_publishes_until_there_is_room_and_loses_nothing),
        cmocka_unit_test(a_reactor_that_does_not_keep_up_holds_publishers_back),
        cmocka_unit_test(drops_for_a_reactor_that_does_not_keep_up_are_counted),
        cmocka_unit_test(removing_a_stream_ends_its_subscriptions_and_answers_what_waited),
        cmocka_unit_test(leaving_before_the_answer_leaves_nothing_behind),
        cmocka_unit_test(a_new_stream_does_not_count_a_subscription_of_the_old_one),
        cmocka_unit_test(a_new_stream_is_not_held_up_by_a_queue_of_the_old_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
