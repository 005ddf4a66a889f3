#include "node/admin.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/cursor.h"
#include "base/log.h"
#include "node/gather.h"
#include "wire/utf8.h"

#define NAME_SHOWN_BYTES 80u

struct admin_request {
    struct mail mail; /* first; `from` is the session's reactor */
    uint64_t session;
    struct stream_request request;
};

struct admin {
    const struct config *config;
    struct objects *objects;
    struct mailbox mailbox;
    sem_t wake; /* posted once for each request */
    _Atomic bool stopping;
    pthread_t thread;
    bool started;
};

/* What is on the desk at present. */
struct work {
    struct admin *admin;
    const struct stream_request *request;
    struct scope_item item; /* the stream as the request describes it; borrows its names */
    struct stream_answer answer;
    struct felix_error error;
};

/* ---- one stream ---- */

/* The name as an error text shows it. */
static int shown(const char *name) {
    return (int)utf8_cut(slice_str(name), NAME_SHOWN_BYTES);
}

/* Paths and what the system says may be anything: an error message is UTF-8. */
static struct slice utf8_part(struct slice text) {
    size_t len = 0;
    while (len < text.len) {
        size_t bytes = utf8_char_bytes(text.data + len, text.data + text.len);
        if (bytes == 0)
            break;
        len += bytes;
    }
    return slice_of(text.data, len);
}

/* Ask the reactors about the request's stream. False: none has it. */
static bool find_in_memory(struct work *work, struct stream_facts *ret) {
    struct objects *objects = work->admin->objects;
    struct buf *key = objects_key(&work->item);
    struct gather gather = {.wanted = core_key_slice(key), .one = true};
    size_t at = 0;
    gather_ask(&gather, objects->reactors, objects->reactor_count);
    const struct stream_facts *facts = gather_next(&gather, &at);
    *ret = facts != NULL ? *facts : (struct stream_facts){0};
    ret->key = NULL;
    gather_deinit(&gather);
    buf_unref(key);
    return facts != NULL;
}

/* What differs where a log keeps the records. */
static void describe_log(const struct stream_log_state *log, struct stream_entry *ret) {
    const struct record_log_info *info = &log->info;
    ret->state = log->err != FELIX_OK      ? STREAM_STATE_FAILED
                 : info->damage_count != 0 ? STREAM_STATE_DAMAGED
                                           : STREAM_STATE_OK;
    struct slice reason = utf8_part(slice_str(log->text));
    reason.len = utf8_cut(reason, sizeof ret->reason - 1);
    if (log->err != FELIX_OK)
        memcpy(ret->reason, reason.data, reason.len);
    ret->bytes = info->bytes;
    ret->segments = info->segments;
    ret->oldest = info->oldest;
    ret->end = info->committed_end;
    ret->damage_count = info->damage_count;
    for (size_t i = 0; i < info->damage_count && i < STREAM_DAMAGE_MAX; i++)
        ret->damage[i] = (struct stream_damage){info->damage[i].first, info->damage[i].end};
}

static_assert(STREAM_DAMAGE_MAX <= LOG_DAMAGE_MAX, "what is listed is remembered");

static void describe(const struct work *work, const char *name, const struct stream_facts *facts,
                     struct stream_entry *ret) {
    const struct config *config = work->admin->config;
    struct objects *objects = work->admin->objects;
    struct stream_log_state log;
    struct scope_item item = work->item;
    item.name = (char *)(uintptr_t)name;
    struct object_facts object = objects_find(objects, &item);
    *ret = (struct stream_entry){
        .durable = object.durable,
        .origin = object.in_scope     ? STREAM_ORIGIN_SCOPE
                  : object.in_catalog ? STREAM_ORIGIN_CATALOG
                                      : STREAM_ORIGIN_USE,
        .state = STREAM_STATE_OK,
        .bytes = facts->bytes,
        .oldest = facts->oldest,
        .end = facts->end,
        .subscriptions = facts->subscriptions,
    };
    INVARIANT(strlen(name) < sizeof ret->stream);
    memcpy(ret->stream, name, strlen(name) + 1);
    if (!object.durable)
        return;
    ret->retention_bytes =
        object.retention_bytes != 0 ? object.retention_bytes : config->durable_retention_bytes;
    ret->retention_seconds = object.retention_seconds != 0 ? object.retention_seconds
                                                           : config->durable_retention_seconds;
    if (objects_log_state(objects, &item, &log))
        describe_log(&log, ret);
}

static void answer_one(struct work *work, enum stream_outcome outcome,
                       const struct stream_facts *facts) {
    work->answer.outcome = outcome;
    work->answer.entries = xcalloc(1, sizeof *work->answer.entries);
    work->answer.count = 1;
    describe(work, work->item.name, facts, work->answer.entries);
}

static enum felix_err not_found(struct work *work) {
    return error_set(&work->error, FELIX_NOT_FOUND, 0, "there is no stream '%.*s' in %.*s/%.*s",
                     shown(work->item.name), work->item.name, shown(work->item.tenant),
                     work->item.tenant, shown(work->item.space), work->item.space);
}

/* Where the scope section stands, for texts. */
static const char *scope_file(const struct work *work) {
    const char *file = work->admin->config->config;
    return file[0] != '\0' ? file : "the configuration file";
}

static enum felix_err refuse_outside_development(struct work *work, const char *what_to_do) {
    if (work->admin->config->dev)
        return FELIX_OK;
    return error_set(&work->error, FELIX_INVALID_ARGUMENT, 0,
                     "only a development broker takes this by command: %s the scope section of "
                     "%.200s, and send the broker SIGHUP",
                     what_to_do, scope_file(work));
}

/* ---- create ---- */

static enum felix_err refuse_other_kind(struct work *work, bool durable) {
    return error_set(&work->error, FELIX_EXISTS, 0,
                     "stream '%.*s' exists, %s; delete it first ('felix stream delete') to make it "
                     "anew %s",
                     shown(work->item.name), work->item.name,
                     durable ? "and is durable" : "and is kept in memory",
                     durable ? "in memory" : "as durable");
}

static enum felix_err check_room(struct work *work) {
    uint32_t max = work->admin->config->max_streams_per_namespace;
    if (objects_made(work->admin->objects) < max)
        return FELIX_OK;
    return error_set(&work->error, FELIX_LIMIT, 0,
                     "%u streams were made by command, and no more are allowed: delete some, or "
                     "raise FELIX_MAX_STREAMS_PER_NAMESPACE",
                     max);
}

static enum felix_err check_retention(struct work *work) {
    const struct stream_request *request = work->request;
    if (request->retention_bytes > RETENTION_BYTES_MAX ||
        request->retention_seconds > RETENTION_SECONDS_MAX)
        return error_set(&work->error, FELIX_INVALID_ARGUMENT, 0,
                         "retention must be at most %llu bytes and %llu seconds",
                         (unsigned long long)RETENTION_BYTES_MAX,
                         (unsigned long long)RETENTION_SECONDS_MAX);
    if (work->admin->config->durable_retention_interval_seconds == 0 &&
        (request->retention_bytes != 0 || request->retention_seconds != 0))
        return error_set(&work->error, FELIX_INVALID_ARGUMENT, 0,
                         "this broker never looks at retention: "
                         "FELIX_DURABLE_RETENTION_INTERVAL_SECONDS is 0");
    return FELIX_OK;
}

/* What the request does not name about retention stays as it is. */
static bool retention_differs(struct work *work, const struct object_facts *object) {
    if (!work->request->has_retention_bytes)
        work->item.retention_bytes = object->retention_bytes;
    if (!work->request->has_retention_seconds)
        work->item.retention_seconds = object->retention_seconds;
    return work->item.retention_bytes != object->retention_bytes ||
           work->item.retention_seconds != object->retention_seconds;
}

static enum felix_err refuse_of_scope(struct work *work, const char *what_to_do) {
    return error_set(&work->error, FELIX_INVALID_ARGUMENT, 0,
                     "stream '%.*s' stands in the scope section of %.200s: %s",
                     shown(work->item.name), work->item.name, scope_file(work), what_to_do);
}

static enum felix_err make(struct work *work) {
    enum felix_err err = check_room(work);
    return err != FELIX_OK ? err : objects_make(work->admin->objects, &work->item, &work->error);
}

static enum felix_err create(struct work *work) {
    struct objects *objects = work->admin->objects;
    struct stream_facts facts;
    enum felix_err err = refuse_outside_development(work, "add the stream to");
    if (err == FELIX_OK)
        err = check_retention(work);
    if (err != FELIX_OK)
        return err;
    struct object_facts object = objects_find(objects, &work->item);
    bool named = object.in_scope || object.in_catalog;
    bool exists = find_in_memory(work, &facts) || named;
    if (exists && object.durable != work->item.durable)
        return refuse_other_kind(work, object.durable);
    bool changes = named && retention_differs(work, &object);
    if (changes && object.in_scope)
        return refuse_of_scope(work, "change its retention there, and send the broker SIGHUP");
    if (!named)
        err = make(work);
    else if (changes)
        err = objects_set_retention(objects, &work->item, &work->error);
    if (err != FELIX_OK)
        return err;
    (void)find_in_memory(work, &facts); /* and now every reactor has it */
    answer_one(work,
               changes  ? STREAM_OUTCOME_CHANGED
               : exists ? STREAM_OUTCOME_EXISTS
                        : STREAM_OUTCOME_MADE,
               &facts);
    return FELIX_OK;
}

/* ---- show, delete ---- */

static enum felix_err show(struct work *work) {
    struct stream_facts facts;
    if (!find_in_memory(work, &facts))
        return not_found(work);
    answer_one(work, STREAM_OUTCOME_LISTED, &facts);
    return FELIX_OK;
}

static enum felix_err delete(struct work *work) {
    struct objects *objects = work->admin->objects; struct stream_facts facts, after;
    enum felix_err err = refuse_outside_development(work, "take the stream out of");
    if (err != FELIX_OK) return err;
    struct object_facts object = objects_find(objects, &work->item);
    if (object.in_scope) return refuse_of_scope(work,
                                                "take it out there, and send the broker SIGHUP");
    if (!find_in_memory(work, &facts) && !object.in_catalog) return not_found(work);
    answer_one(work, STREAM_OUTCOME_DELETED, &facts);
    err = objects_delete(objects, &work->item, work->request->purge, &work->error);
    if (err == FELIX_OK)(void)
        find_in_memory(work, &after); /* and now no reactor has that one any more */
    return err;
}

/* ---- list ---- */

struct listed {
    const struct stream_facts *facts;
    struct slice name;
};

static int compare_listed(const void *left, const void *right) {
    const struct listed *a = left, *b = right;
    size_t len = a->name.len < b->name.len ? a->name.len : b->name.len;
    int order = memcmp(a->name.data, b->name.data, len);
    if (order != 0)
        return order;
    return a->name.len < b->name.len ? -1 : a->name.len > b->name.len;
}

static struct slice name_in(const struct buf *key) {
    struct reader r = reader_of(core_key_slice(key));
    (void)reader_take(&r, reader_u16(&r));
    (void)reader_take(&r, reader_u16(&r));
    return reader_take(&r, reader_u16(&r));
}

/* Those behind `after`, in order. Returned owned; `*ret_count` of them. */
static struct listed *sort_names(const struct gather *gather, const char *after,
                                 size_t *ret_count) {
    struct listed *listed = NULL;
    size_t count = 0, capacity = 0, at = 0;
    const struct stream_facts *facts;
    struct listed start = {.name = slice_str(after)};
    while ((facts = gather_next(gather, &at)) != NULL) {
        struct listed next = {.facts = facts, .name = name_in(facts->key)};
        /* The scope section may name what no request can: longer than a name may be. */
        if (next.name.len > NAME_VALID_BYTES_MAX || !utf8_valid(next.name) ||
            compare_listed(&next, &start) <= 0)
            continue;
        if (count == capacity) {
            capacity = capacity == 0 ? 64 : capacity * 2;
            listed = xrealloc(listed, capacity * sizeof *listed);
        }
        listed[count++] = next;
    }
    if (count > 0)
        qsort(listed, count, sizeof *listed, compare_listed);
    *ret_count = count;
    return listed;
}

static enum felix_err list(struct work *work) {
    struct objects *objects = work->admin->objects;
    struct scope_item item = work->item;
    item.name = (char *)(uintptr_t)"";
    struct buf *key = objects_key(&item);
    struct slice prefix = core_key_slice(key);
    prefix.len -= 2; /* the length of the name */
    struct gather gather = {.wanted = prefix};
    gather_ask(&gather, objects->reactors, objects->reactor_count);
    size_t count;
    struct listed *listed = sort_names(&gather, work->request->after, &count);

    struct stream_answer *answer = &work->answer;
    answer->outcome = STREAM_OUTCOME_LISTED;
    answer->more = count > STREAM_ANSWER_ENTRIES_MAX;
    answer->count = answer->more ? STREAM_ANSWER_ENTRIES_MAX : count;
    answer->entries = xcalloc(answer->count + 1, sizeof *answer->entries);
    for (size_t i = 0; i < answer->count; i++) {
        char name[STREAM_NAME_BYTES];
        memcpy(name, listed[i].name.data, listed[i].name.len);
        name[listed[i].name.len] = '\0';
        describe(work, name, listed[i].facts, &answer->entries[i]);
    }
    free(listed);
    gather_deinit(&gather);
    buf_unref(key);
    return FELIX_OK;
}

/* ---- the thread ---- */

static void post_answer(struct admin *admin, const struct admin_request *to, enum felix_err err,
                        struct slice text) {
    struct node_mail *mail = node_mail_new(NODE_STREAM_ANSWER, text.len);
    mail->session = to->session;
    mail->err = err;
    if (text.len > 0)
        memcpy(mail->packet, text.data, text.len);
    reactor_post(&admin->objects->reactors[to->mail.from], &mail->mail);
}

static void log_change(const struct work *work) {
    if (work->answer.outcome != STREAM_OUTCOME_LISTED)
        LOG_INFO(node, "stream_command", F_STR("op", stream_op_name(work->request->op)),
                 F_STR("outcome", stream_outcome_name(work->answer.outcome)),
                 F_STR("tenant", work->item.tenant), F_STR("namespace", work->item.space),
                 F_STR("stream", work->item.name), F_BOOL("durable", work->item.durable),
                 F_BOOL("purge", work->request->purge));
}

static void serve(struct admin *admin, const struct admin_request *incoming) {
    static enum felix_err (*const ops[])(struct work *) = {
        [STREAM_OP_CREATE] = create,
        [STREAM_OP_LIST] = list,
        [STREAM_OP_SHOW] = show,
        [STREAM_OP_DELETE] = delete,
    };
    const struct stream_request *request = &incoming->request;
    struct work work = {
        .admin = admin,
        .request = request,
        .item = {.kind = SCOPE_STREAM,
                 .tenant = (char *)(uintptr_t)request->tenant,
                 .space = (char *)(uintptr_t)request->space,
                 .name = (char *)(uintptr_t)request->stream,
                 .durable = request->durable,
                 .retention_bytes = request->retention_bytes,
                 .retention_seconds = request->retention_seconds},
    };
    struct text text = {0};
    enum felix_err err = ops[request->op](&work);
    if (err == FELIX_OK) {
        log_change(&work);
        stream_answer_encode(&work.answer, &text);
    } else {
        text_add(&text, work.error.text);
    }
    post_answer(admin, incoming, err, utf8_part(slice_of(text_str(&text), text.len)));
    text_deinit(&text);
    stream_answer_deinit(&work.answer);
}

static void drop_requests(struct admin *admin) {
    for (struct mail *mail = mailbox_take(&admin->mailbox); mail != NULL;) {
        struct mail *next = mail->next;
        free(mail);
        mail = next;
    }
}

static void *run(void *context) {
    struct admin *admin = context;
    while (sem_wait(&admin->wake) != 0 || !atomic_load(&admin->stopping)) {
        for (struct mail *mail = mailbox_take(&admin->mailbox); mail != NULL;) {
            struct mail *next = mail->next;
            if (!atomic_load(&admin->stopping))
                serve(admin, (const struct admin_request *)mail);
            free(mail);
            mail = next;
        }
    }
    buf_thread_trim();
    return NULL;
}

struct admin *admin_new(const struct config *config, struct objects *objects) {
    struct admin *admin = xcalloc(1, sizeof *admin);
    admin->config = config;
    admin->objects = objects;
    (void)sem_init(&admin->wake, 0, 0);
    return admin;
}

enum felix_err admin_start(struct admin *admin) {
    if (pthread_create(&admin->thread, NULL, run, admin) != 0)
        return FELIX_SYSTEM;
    (void)pthread_setname_np(admin->thread, "felix-admin");
    admin->started = true;
    return FELIX_OK;
}

void admin_stop(struct admin *admin) {
    if (admin == NULL || !admin->started)
        return;
    atomic_store(&admin->stopping, true);
    (void)sem_post(&admin->wake);
    (void)pthread_join(admin->thread, NULL);
    admin->started = false;
}

void admin_free(struct admin *admin) {
    if (admin == NULL)
        return;
    drop_requests(admin);
    (void)sem_destroy(&admin->wake);
    free(admin);
}

void admin_post(struct admin *admin, unsigned reactor, uint64_t session,
                const struct stream_request *request) {
    struct admin_request *incoming = xcalloc(1, sizeof *incoming);
    incoming->mail.from = reactor;
    incoming->session = session;
    incoming->request = *request;
    mailbox_put(&admin->mailbox, &incoming->mail);
    (void)sem_post(&admin->wake);
}
