#include "support/world.h"

#include <stdlib.h>
#include <time.h>

#include "auth/mint.h"
#include "base/check.h"
#include "base/cursor.h"
#include "base/log.h"

#define NAMESPACE "n"
#define CACHE "k"
#define TTL_S ((int64_t)24 * 3600)

static const char *const stream_names[WORLD_STREAMS] = {"a", "b", "c"};
static const char *const tenant_names[] = {"t1", "t2"};
static struct auth_keyset *keys;
static char *tokens[WORLD_PEOPLE];
/* Kept from one world to the next: a signature is verified once in the life of the process. */
static struct token_cache verified[WORLD_REACTORS_MAX];

static const char *tenant_of(enum world_person person) {
    return person == WORLD_OTHER ? "t2" : "t1";
}

static void mint(enum world_person person, const struct mint_key *key) {
    static const char *const all[] = {"stream.publish:stream:t1/*", "stream.subscribe:stream:t1/*",
                                      "stream.manage:stream:t1/*", "cache.read:cache:t1/*",
                                      "cache.write:cache:t1/*"};
    static const char *const some[] = {"stream.publish:stream:t1/n/a",
                                       "stream.subscribe:stream:t1/n/a",
                                       "stream.manage:stream:t1/n/a"};
    static const char *const other[] = {"stream.publish:stream:t2/*",
                                        "stream.subscribe:stream:t2/*", "cache.read:cache:t2/*",
                                        "cache.write:cache:t2/*"};
    static const char *const *const perms[] = {all, some, other};
    static const size_t counts[] = {5, 3, 4};
    struct mint_claims claims = {
        .tenant = tenant_of(person),
        .subject = "p:test",
        .ttl_s = TTL_S,
        .perms = perms[person],
        .perms_count = counts[person],
    };
    INVARIANT(token_mint(key, &claims, (int64_t)time(NULL), &tokens[person], NULL) == FELIX_OK);
}

static void make_keys(void) {
    uint8_t seed[ED25519_SEED_BYTES];
    struct mint_key key;
    char *jwks = NULL;
    memset(seed, 0x15, sizeof seed);
    map_hash_fix((const uint64_t[2]){1, 2});
    INVARIANT(log_configure("off", LOG_UNKNOWN_REFUSED, NULL) == FELIX_OK);
    INVARIANT(mint_key_from_seed(seed, "k1", &key, NULL) == FELIX_OK);
    INVARIANT(mint_key_jwks(&key, NULL, &jwks, NULL) == FELIX_OK);
    INVARIANT(auth_keyset_parse_jwks(slice_str(jwks), &keys, NULL) == FELIX_OK);
    free(jwks);
    for (unsigned p = 0; p < WORLD_PEOPLE; p++)
        mint((enum world_person)p, &key);
    for (unsigned r = 0; r < WORLD_REACTORS_MAX; r++)
        token_cache_init(&verified[r]);
}

struct slice world_token(enum world_person person) {
    return slice_str(tokens[person]);
}

struct slice world_tenant(enum world_person person) {
    return slice_str(tenant_of(person));
}

struct world_options world_options(void) {
    return (struct world_options){
        .reactors = 1,
        .server =
            {
                .max_frame_bytes = FRAME_MAX_BYTES_DEFAULT,
                .flags = SERVER_FLAGS,
                .features = SERVER_FEATURES,
                .max_subscriptions_per_conn = 16,
                .conn_inflight_bytes = 1u << 20,
                .total_inflight_bytes = 4u << 20,
                .recv_memory_bytes = 16u << 20,
                .send_window_bytes = 4u << 20,
                .auth_timeout_ns = 5 * NS_PER_S,
                .cache_sweep_ns = NS_PER_S,
                .event_items_max = 64,
                .event_payload_bytes_max = 1u << 16,
            },
        .core =
            {
                .topic = {.replay_items_max = 64,
                          .replay_bytes_max = 1u << 20,
                          .frame = {.items_max = 64, .payload_bytes_max = 1u << 16}},
                .replay_total_bytes_max = 4u << 20,
                .queue_policy = QUEUE_DROP_NEW,
                .queue_batches_max = 64,
                .queue_bytes_max = 1u << 20,
                .deliver_bytes_max = 16u << 20,
                .cache_max_bytes = 1u << 20,
            },
    };
}

static struct slice key_of(const char *tenant, const char *name, uint8_t out[64]) {
    struct slice t = slice_str(tenant), n = slice_str(NAMESPACE), s = slice_str(name);
    INVARIANT(core_key_bytes(t, n, s) <= 64);
    core_key_write(out, t, n, s);
    return slice_of(out, core_key_bytes(t, n, s));
}

void world_add_stream(struct world *world, const char *tenant, const char *name) {
    uint8_t key[64];
    world->incarnation++;
    for (unsigned r = 0; r < world->count; r++)
        core_add_stream(&world->reactors[r].server.core, key_of(tenant, name, key),
                        world->incarnation, NULL);
}

void world_add_durable(struct world *world, const char *tenant, const char *name) {
    uint8_t bytes[64];
    struct slice key = key_of(tenant, name, bytes);
    INVARIANT(world->log == NULL);
    world->log = xcalloc(1, sizeof *world->log);
    *world->log = (struct world_log){.world = world,
                                     .key = core_key_new(key),
                                     .incarnation = ++world->incarnation,
                                     .references = world->count};
    for (unsigned r = 0; r < world->count; r++) {
        struct stream_start start = {.log = (struct stream_log *)(void *)world->log};
        struct core *core = &world->reactors[r].server.core;
        core_add_stream(core, key, world->incarnation, &start);
        world->log->owner = core_find_stream(core, key)->owner;
    }
}

void world_remove_stream(struct world *world, const char *tenant, const char *name) {
    uint8_t key[64];
    for (unsigned r = 0; r < world->count; r++)
        (void)core_remove_stream(&world->reactors[r].server.core, key_of(tenant, name, key));
}

static void post(struct server *server, unsigned reactor, struct mail *mail) {
    struct world *world = server->node;
    struct mail **queue = &world->reactors[reactor].mail[mail->from];
    mail->next = *queue;
    *queue = mail;
}

struct world *world_new(const struct world_options *options) {
    struct world *world = xcalloc(1, sizeof *world);
    if (keys == NULL)
        make_keys();
    world->count = options->reactors;
    world->now_ns = NS_PER_S;
    for (unsigned r = 0; r < world->count; r++) {
        struct world_reactor *reactor = &world->reactors[r];
        struct server *server = &reactor->server;
        server_init(server, r, world->count, &options->server, &options->core);
        token_cache_deinit(&server->tokens);
        server->tokens = verified[r];
        server->keys = auth_keyset_ref(keys);
        server->node = world;
        server->logs = &world_logs;
        server->logs_context = world;
        server->post = post;
        server->now_ns = world->now_ns;
        reactor->endpoint.handler = &server_quic_handler;
        reactor->endpoint.user = server;
        for (unsigned t = 0; t < 2; t++) {
            uint8_t key[64];
            core_add_cache(&server->core, key_of(tenant_names[t], CACHE, key), 0);
        }
    }
    for (unsigned t = 0; t < 2; t++) {
        for (unsigned s = 0; s < WORLD_STREAMS; s++)
            world_add_stream(world, tenant_names[t], stream_names[s]);
    }
    return world;
}

/* ---- clients ---- */

struct peer *world_connect(struct world *world, unsigned reactor) {
    struct world_reactor *at = &world->reactors[reactor];
    struct peer *peer = peer_new(&at->endpoint);
    peer->next = at->peers;
    at->peers = peer;
    return peer;
}

/* ---- time ---- */

bool world_mail(struct world *world, unsigned reactor, unsigned from) {
    struct world_reactor *to = &world->reactors[reactor];
    struct mail *oldest = NULL;
    for (struct mail *mail = to->mail[from], *next; mail != NULL; mail = next) {
        next = mail->next;
        mail->next = oldest;
        oldest = mail;
    }
    to->mail[from] = NULL;
    bool any = oldest != NULL;
    while (oldest != NULL) {
        struct mail *next = oldest->next;
        core_receive(&to->server.core, oldest, world->now_ns);
        oldest = next;
    }
    return any;
}

void world_turn(struct world *world, unsigned reactor) {
    struct server *server = &world->reactors[reactor].server;
    server->now_ns = world->now_ns;
    for (unsigned from = 0; from < world->count; from++)
        (void)world_mail(world, reactor, from);
    server_turn(server, world->now_ns);
}

static bool anything_moves(const struct world *world) {
    if (world->log != NULL && !world->log->held &&
        (world->log->head != NULL || world->log->reads != NULL))
        return true;
    for (unsigned r = 0; r < world->count; r++) {
        const struct world_reactor *reactor = &world->reactors[r];
        if (server_has_work(&reactor->server))
            return true;
        for (unsigned from = 0; from < world->count; from++) {
            if (reactor->mail[from] != NULL)
                return true;
        }
        for (const struct peer *peer = reactor->peers; peer != NULL; peer = peer->next) {
            if (peer->quic.unacked_bytes > 0)
                return true;
        }
    }
    return false;
}

void world_settle(struct world *world) {
    do {
        (void)world_log_turn(world->log);
        for (unsigned r = 0; r < world->count; r++) {
            world_turn(world, r);
            for (struct peer *p = world->reactors[r].peers; p != NULL; p = p->next)
                peer_flush(p);
        }
    } while (anything_moves(world));
}

void world_check_rest(const struct world *world) {
    for (unsigned r = 0; r < world->count; r++) {
        const struct server *server = &world->reactors[r].server;
        INVARIANT(server->admitted_bytes == 0 && server->waiting_sessions == 0);
        for (const struct client_conn *conn = server->conns; conn != NULL; conn = conn->next) {
            INVARIANT(conn->admitted_bytes == 0 && conn->waiting_sessions == 0);
            INVARIANT(conn->quic->rx_held_bytes == 0);
            for (const struct event_stream *e = conn->events; e != NULL; e = e->conn_next)
                INVARIANT(subscription_is_empty(&e->sub));
        }
    }
}

/* ---- the end ---- */

static void check_accounts(const struct server *server) {
    const struct core_counters *core = &server->core.counters;
    INVARIANT(server->conns == NULL && server->sessions.count == 0);
    INVARIANT(server->unauth_head == NULL && server->unauth_tail == NULL);
    INVARIANT(server->resume_head == NULL && server->resume_tail == NULL);
    INVARIANT(server->admitted_bytes == 0 && server->waiting_sessions == 0);
    INVARIANT(server->recv_held_bytes == 0 && server->unauth_held_bytes == 0);
    INVARIANT(counter_get(&server->counters.sessions_now) == 0);
    INVARIANT(counter_get(&server->counters.event_streams_now) == 0);
    INVARIANT(counter_get(&server->counters.conns_now) == 0);
    INVARIANT(server->core.subs.count == 0 && counter_get(&core->subscriptions) == 0);
    INVARIANT(counter_get(&core->pending_bytes) == 0);
    INVARIANT(counter_get(&core->enqueued_items) == counter_get(&core->dequeued_items) +
                                                        counter_get(&core->dropped_old_items) +
                                                        counter_get(&core->dropped_ended_items));
    size_t at = 0;
    const struct fanout *fanout;
    while ((fanout = map_next(&server->core.streams, &at)) != NULL) {
        INVARIANT(fanout->refs == 1 && fanout->subs == NULL && fanout->stalling_subs == 0);
        INVARIANT(fanout->stalled_reactors == 0 && fanout->pending_head == NULL);
        for (unsigned r = 0; r < server->core.reactor_count; r++)
            INVARIANT(fanout->remote_subs[r] == 0);
    }
}

void world_free(struct world *world) {
    for (unsigned r = 0; r < world->count; r++) {
        struct world_reactor *reactor = &world->reactors[r];
        while (reactor->peers != NULL) {
            struct peer *peer = reactor->peers;
            reactor->peers = peer->next;
            peer_free(peer);
        }
    }
    world_settle(world);
    for (unsigned r = 0; r < world->count; r++)
        check_accounts(&world->reactors[r].server);
    for (unsigned r = 0; r < world->count; r++) {
        struct server *server = &world->reactors[r].server;
        verified[r] = server->tokens;
        server->tokens = (struct token_cache){0};
        server_deinit(server);
    }
    world_log_free(world->log);
    free(world);
}

/* ---- talking ---- */

void world_say(struct peer_stream *stream, const struct message *message) {
    size_t bytes = 0;
    struct buf *frame = message_encode(message, &bytes);
    peer_send(stream, slice_of(frame->data, bytes), false);
    buf_unref(frame);
}

void world_say_auth(struct peer_stream *stream, enum world_person person, uint32_t features) {
    struct message auth = {
        .type = MESSAGE_AUTH,
        .tenant = world_tenant(person),
        .token = world_token(person),
        .has_client_flags = true,
        .flags = CLIENT_FLAGS,
        .has_client_features = true,
        .features = features,
        .own_features = OWN_FEATURES,
    };
    world_say(stream, &auth);
}

void world_say_publish(struct peer_stream *stream, const struct world_publish *publish) {
    uint16_t flags = publish->flags | FRAME_PUBLISH_BATCH;
    uint32_t count = publish->count != 0 ? publish->count : 1;
    uint32_t item_bytes = publish->item_bytes != 0 ? publish->item_bytes : 1;
    struct publish_head head = {
        .request_id = publish->request_id,
        .ack_mode = PUBLISH_ACK_PER_BATCH,
        .keyed = (flags & FRAME_PUBLISH_KEYED) != 0,
        .key = slice_str("key"),
        .tenant = slice_str(publish->tenant != NULL ? publish->tenant : "t1"),
        .namespace_ = slice_str(NAMESPACE),
        .stream = slice_str(publish->stream != NULL ? publish->stream : "a"),
    };
    size_t head_bytes = publish_head_bytes(flags, &head);
    size_t body_bytes = head_bytes + 4 + count * (4 + (size_t)item_bytes);
    uint8_t *frame = xmalloc(FRAME_HEADER_BYTES + body_bytes);
    uint8_t *at = frame + FRAME_HEADER_BYTES + head_bytes;
    frame_header_encode(frame, flags, (uint32_t)body_bytes);
    INVARIANT(publish_head_encode(flags, &head, frame + FRAME_HEADER_BYTES) == FELIX_OK);
    be32_store(at, count);
    at += 4;
    for (uint32_t i = 0; i < count; i++) {
        be32_store(at, item_bytes);
        memset(at + 4, (uint8_t)(publish->fill + i), item_bytes);
        at += 4 + item_bytes;
    }
    peer_send(stream, slice_of(frame, FRAME_HEADER_BYTES + body_bytes), false);
    free(frame);
}

bool world_hear(struct peer_stream *stream, struct frame_header *ret, struct slice *ret_body) {
    if (stream->read_at == stream->in_bytes)
        return false;
    struct slice in = slice_of(stream->in + stream->read_at, stream->in_bytes - stream->read_at);
    if (frame_header_decode(in, UINT32_MAX, ret) != FELIX_OK ||
        in.len - FRAME_HEADER_BYTES < ret->body_bytes)
        return false;
    *ret_body = slice_of(in.data + FRAME_HEADER_BYTES, ret->body_bytes);
    stream->read_at += FRAME_HEADER_BYTES + ret->body_bytes;
    return true;
}
