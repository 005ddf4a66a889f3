#include <time.h>

#include "base/log.h"
#include "session/session.h"

static void answer(struct session *session, const struct message *message) {
    if (session->uni)
        return;
    struct message reply = {.type = MESSAGE_OK};
    if (message->has_client_flags) {
        reply.type = MESSAGE_AUTH_OK;
        reply.flags = session->server->settings.flags;
        reply.has_client_features = message->has_client_features;
        reply.features = message->has_client_features ? session->server->settings.features : 0;
        reply.own_features = message->own_features & OWN_FEATURES;
    }
    reply_message(session, &reply);
}

/* What both sides listed. The members of ours count only where auth_ok repeats them. */
static void negotiate(struct session *session, const struct message *message) {
    const struct server_settings *settings = &session->server->settings;
    uint16_t flags = message->has_client_flags ? message->flags & settings->flags : 0;
    uint32_t own = message->has_client_flags && !session->uni ? message->own_features : 0;
    session->offsets = (flags & FRAME_EVENT_OFFSETS) != 0;
    session->timestamps = (flags & FRAME_EVENT_TIMESTAMPS) != 0;
    session->ack_offsets = (flags & FRAME_ACK_OFFSET) != 0;
    session->lagged = (message->features & settings->features & FEATURE_SUBSCRIPTION_LAGGED) != 0;
    session->cache_frames = (own & OWN_CACHE_FRAMES) != 0;
    session->ack_levels = (own & OWN_ACK_LEVELS) != 0;
    session->admin = (own & OWN_ADMIN) != 0;
}

void auth_step(struct session *session, const struct message *message) {
    struct server *server = session->server;
    struct token_offer offer = {.tenant = message->tenant, .token = message->token};
    session->error_codes = (message->features & FEATURE_ERROR_CODES) != 0;
    session->unsupported = (message->features & FEATURE_UNSUPPORTED) != 0;
    if (server->draining) {
        session_fail(session, WIRE_CODE_DRAINING, "broker shutting down");
        return;
    }
    enum felix_err err =
        token_cache_verify(&server->tokens, server->keys, &offer, (int64_t)time(NULL),
                           TOKEN_LEEWAY_S, &session->principal);
    if (err != FELIX_OK) {
        char peer[64];
        counter_add(&server->counters.auth_failed, 1);
        LOG_RATE(session, WARN, "auth_failed",
                 F_STR("peer", quic_conn_peer_text(session->conn->quic, peer)),
                 F_SLICE("tenant", message->tenant), F_ERR(err));
        session_fail(session, WIRE_CODE_UNAUTHENTICATED, "auth failed");
        return;
    }
    negotiate(session, message);
    counter_add(&server->counters.sessions_authenticated, 1);
    session_authenticated(session);
    answer(session, message);
}
