#include "node/gather.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"

void gather_ask(struct gather *gather, struct reactor *reactors, unsigned reactor_count) {
    (void)sem_init(&gather->answered, 0, 0);
    for (unsigned r = 0; r < reactor_count; r++) {
        struct node_mail *mail = node_mail_new(NODE_GATHER, 0);
        mail->gather = gather;
        reactor_post(&reactors[r], &mail->mail);
    }
    for (unsigned r = 0; r < reactor_count; r++) {
        while (sem_wait(&gather->answered) != 0)
            INVARIANT(errno == EINTR);
    }
}

void gather_deinit(struct gather *gather) {
    for (unsigned r = 0; r < CORE_REACTORS_MAX; r++) {
        for (size_t i = 0; i < gather->parts[r].count; i++)
            buf_unref(gather->parts[r].facts[i].key);
        free(gather->parts[r].facts);
    }
    (void)sem_destroy(&gather->answered);
    buf_thread_trim();
}

const struct stream_facts *gather_next(const struct gather *gather, size_t *at) {
    size_t before = 0;
    for (unsigned r = 0; r < CORE_REACTORS_MAX; r++) {
        const struct gather_part *part = &gather->parts[r];
        if (*at - before < part->count)
            return &part->facts[(*at)++ - before];
        before += part->count;
    }
    return NULL;
}

static void add(struct gather_part *part, const struct core *core, const struct fanout *fanout) {
    if (part->count == part->capacity) {
        part->capacity = part->capacity == 0 ? 1 : part->capacity * 2;
        part->facts = xrealloc(part->facts, part->capacity * sizeof *part->facts);
    }
    struct stream_facts *facts = &part->facts[part->count++];
    *facts = (struct stream_facts){
        .key = buf_ref(fanout->key),
        .oldest = topic_oldest(&fanout->topic, &core->settings.topic),
        .end = fanout->topic.next_seq,
        .bytes = fanout->topic.ring_bytes,
    };
    for (unsigned r = 0; r < core->reactor_count; r++)
        facts->subscriptions += fanout->remote_subs[r];
}

static bool begins_with(struct slice text, struct slice start) {
    return text.len >= start.len && memcmp(text.data, start.data, start.len) == 0;
}

void gather_answer(struct gather *gather, const struct core *core) {
    struct gather_part *part = &gather->parts[core->reactor];
    if (gather->one) {
        const struct fanout *fanout = core_get_stream(core, gather->wanted);
        if (fanout != NULL && fanout->owner == core->reactor)
            add(part, core, fanout);
    } else {
        for (const struct fanout *f = core->topics; f != NULL; f = f->all_next)
            if (begins_with(core_key_slice(f->key), gather->wanted))
                add(part, core, f);
    }
    (void)sem_post(&gather->answered);
}
