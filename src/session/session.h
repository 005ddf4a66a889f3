/*
 * One stream that a client opened: its state, its frame assembly, its replies.
 * Internal to the session layer; everything belongs to the reactor's thread.
 */
#ifndef SESSION_SESSION_H
#define SESSION_SESSION_H

#include "session/server.h"

/*
 *   NEW          only auth is served
 *   READY        authenticated: publish, cache, one subscribe
 *   SUBSCRIBING  the answer to a subscribe is awaited; nothing more is read
 *   ENDING       no more input; the stream is finished once the owed replies are out
 *   CLOSED       our side is finished
 */
enum session_state {
    SESSION_NEW,
    SESSION_READY,
    SESSION_SUBSCRIBING,
    SESSION_ENDING,
    SESSION_CLOSED
};

struct client_conn {
    struct server *server;
    struct quic_conn *quic;
    struct session *sessions;
    struct event_stream *events;
    uint32_t event_count; /* subscribing ones included */
    bool client_chose_ids;
    uint64_t admitted_bytes;
    uint32_t waiting_sessions; /* paused for admission */
    struct client_conn *prev, *next;

    struct event_stream *window_head, *window_tail; /* wait for the send window, oldest first */
    bool in_window_conns;
    struct client_conn *window_next;
};

/* An acknowledgement that is owed, in request order. */
struct owed_ack {
    uint64_t request_id;
    bool json;
    bool done;
    struct publish_outcome outcome;
};

enum pause_reason {
    PAUSE_NONE,
    PAUSE_ADMISSION,    /* the publish in `body` waits for budget */
    PAUSE_CACHE,        /* a cache answer is awaited: replies keep request order */
    PAUSE_EXTENSION,    /* the answer to an extension request is awaited */
    PAUSE_CACHE_FRAMES, /* as many answers to cache frames are awaited as may be */
    PAUSE_REPLIES       /* the client does not read what we answer */
};

/* A cache that the client bound on this stream. What may be done to it follows from the stream's
 * token and its name, which do not change; whether it exists is looked up again when it may have.
 */
struct cache_handle {
    bool bound;
    bool own_tenant, may_read, may_write;
    struct buf *route; /* core key; NULL when nothing may be done */
    struct cache_entry_point *point;
    uint64_t generation; /* of the core when `point` was found */
};

struct session {
    struct server *server;
    struct client_conn *conn;
    struct quic_stream *stream;
    uint64_t number;
    enum session_state state;
    bool uni;
    bool peer_fin;
    struct session *conn_prev, *conn_next;

    /* identity and what was negotiated */
    struct principal *principal;
    bool offsets;      /* events may carry offsets */
    bool timestamps;   /* and the times of their records */
    bool lagged;       /* `subscription_lagged` may end a subscription */
    bool ack_offsets;  /* acknowledgements may carry offsets */
    bool ack_levels;   /* and how safe the publish is */
    bool error_codes;  /* errors may carry codes */
    bool unsupported;  /* unknown requests are answered by `unsupported` */
    bool cache_frames; /* cache operations may come as frames of our own */
    bool admin;        /* streams may be made and deleted */

    /* frame assembly */
    uint8_t header[FRAME_HEADER_BYTES];
    unsigned header_have;
    struct frame_header frame;
    bool in_body;
    bool skip_body;   /* unknown flags: read over it */
    struct buf *body; /* SESSION_BODY_AT bytes of headroom, then the body so far */
    size_t body_have;
    enum pause_reason pause;
    uint32_t waiting_items;  /* of the unacknowledged publish that waits for admission, else 0 */
    uint64_t admitted_bytes; /* of publishes that the core has not answered */
    /* Input that came while paused: a chain of chunks, all full but the last. NULL: none. */
    struct buf *held, *held_last;
    size_t held_at;        /* bytes of the first chunk that were handled */
    size_t held_end;       /* bytes of the last chunk that are filled */
    size_t held_bytes;     /* in the chain, not handled yet */
    uint64_t memory_bytes; /* of the blocks above: its part of the receive memory */

    /* the stream published to last */
    struct buf *route_key;
    struct fanout *route;
    uint64_t route_generation;

    /* acknowledgements owed: ring of owed_capacity, a power of two */
    struct owed_ack *owed;
    uint32_t owed_capacity, owed_head, owed_count;
    uint64_t owed_first; /* number of the oldest, counted from the session's birth */

    /* cache request whose answer is awaited */
    bool cache_has_request_id;
    uint64_t cache_request_id;
    struct buf *cache_names; /* the request's message block */
    struct slice cache_tenant, cache_namespace, cache_name, cache_key;

    /* extension request whose answer is awaited */
    bool extension_has_request_id;
    uint64_t extension_request_id;

    /* cache frames */
    struct cache_handle *handles; /* handle_capacity of them */
    uint32_t handle_capacity;
    uint32_t frames_awaited;       /* requests that other reactors have to answer */
    uint64_t frames_awaited_bytes; /* their keys and values; gets with a part of what they expect */
    uint64_t value_expected_bytes; /* the largest that another reactor answered; 0: none yet */

    /* the subscribe whose answer is awaited */
    struct event_stream *subscribing;

    struct buf *out; /* small replies are appended here */
    size_t out_used;
    size_t out_bytes; /* of the next block: grows while blocks fill up */

    bool in_unauth;
    struct session *unauth_prev, *unauth_next;
    uint64_t opened_ns;
    bool in_resume;
    struct session *resume_next;
};

/* Headroom in front of a body: the event frame's prefix is written there. */
#define SESSION_BODY_AT ((size_t)32)

/* What holding a publish up costs besides its items: messages, blocks, acknowledgement. */
#define PUBLISH_CHARGE_BYTES ((uint64_t)512)

#define CACHE_VALUE_TOO_LARGE_TEXT "value exceeds the cache's byte limit"

#define OWED_NONE UINT64_MAX /* origin.request_id of publishes that want no acknowledgement */

/* ---- session.c ---- */
struct session *session_new(struct client_conn *conn, struct quic_stream *stream);
void session_free(struct session *session);
/** Bytes from the stream; consumes them in the flow-control sense when they are handled. */
void session_input(struct session *session, struct slice data, bool fin);
/** Go on after a pause. */
void session_resume(struct session *session);
void session_schedule_resume(struct session *session);
/** The same for all sessions of a connection that wait for admission. */
void sessions_wake_waiting(struct client_conn *conn);
/** Count blocks of received data that a session holds, or, negative, holds no longer. The
 * connection that exceeds what may be held is closed. */
void session_hold_memory(struct session *session, ptrdiff_t bytes);
/** No more input; finish after the owed replies. */
void session_end(struct session *session);
/** End now, replies that were written first. The stream's other half is refused. */
void session_abort(struct session *session);
/** session_abort after an error message. On a uni stream there is nothing to write to. */
void session_fail(struct session *session, enum wire_code code, const char *text);
void session_authenticated(struct session *session);
/** Say that nobody here serves such a request; the stream goes on if the client understands. */
void session_refuse_unknown(struct session *session, const struct message *message);

/* ---- reply.c ---- */
void reply_bytes(struct session *session, const uint8_t *bytes, size_t len);
/** Room for `len` bytes of a reply, to be written now and then queued with reply_commit. NULL on a
 * stream that is closed. */
uint8_t *reply_room(struct session *session, size_t len);
void reply_commit(struct session *session, const uint8_t *room, size_t len);
/** Queue bytes by reference, after all that was queued before. Takes one reference of `block`. */
void reply_block(struct session *session, struct buf *block, const uint8_t *bytes, size_t len);
/** The block that replies are appended to is not needed while the client has everything. */
void reply_all_acked(struct session *session);
void reply_message(struct session *session, const struct message *message);
void reply_error(struct session *session, enum wire_code code, const char *text);
/** The same with the code and retry class of `err`. */
void reply_refusal(struct session *session, enum felix_err err, const char *text);
/** What a client reads of an error that is not its own doing: static. */
const char *reply_text_of(enum felix_err err);
/** Error text for an object that does not exist: "stream not found: tenant=..". */
void reply_stream_not_found_text(char *out, size_t out_bytes, struct slice tenant,
                                 struct slice namespace_, struct slice stream);
/** "cache scope not found: T/N/C". */
void reply_cache_not_found_text(char *out, size_t out_bytes, struct slice tenant,
                                struct slice namespace_, struct slice cache);
/** Answer a publish, or remember that it is answered, in request order. */
void reply_publish(struct session *session, uint64_t request_id, bool json,
                   const struct publish_outcome *outcome, const char *text);
uint64_t reply_owe(struct session *session, uint64_t request_id, bool json);
void reply_owed_done(struct session *session, uint64_t number,
                     const struct publish_outcome *outcome);

/* ---- the steps: one exchange each. False: the frame must be offered again after a pause. ---- */
void auth_step(struct session *session, const struct message *message);
bool publish_step_binary(struct session *session, uint16_t flags, struct slice body);
bool publish_step_json(struct session *session, struct message *message);
void subscribe_step(struct session *session, const struct message *message);
void subscribe_step_done(struct event_stream *event, enum felix_err err, uint64_t seq);
void cache_step(struct session *session, struct message *message);
void cache_step_done(struct session *session, const struct cache_answer *answer);
void extension_step(struct session *session, const struct message *message);
void extension_step_done(struct session *session, enum felix_err err, struct slice text);
void cache_frame_step(struct session *session, struct slice body);
void cache_frame_step_done(struct session *session, const struct cache_answer *answer);
/** May it read on, as far as cache frames are concerned? */
bool cache_frames_may_go_on(const struct session *session);
void cache_handles_free(struct session *session);

/* ---- event_stream.c ---- */
struct event_stream {
    struct server *server;
    struct client_conn *conn;
    struct session *session; /* the subscribe that made it, until that is answered */
    struct quic_stream *stream;
    struct subscription sub;
    uint64_t subscription_id;
    bool offsets, timestamps, error_codes; /* as of the session that subscribed */
    bool ended;                            /* finish once the queue is empty */
    enum felix_err stop_err; /* why, unless the stream was deleted (core_host.stopped) */
    uint64_t resume_from;
    uint64_t requested_offset; /* of the start position */
    struct event_stream *conn_prev, *conn_next;
    bool in_window;
    struct event_stream *window_prev, *window_next;
};

struct event_stream *event_stream_new(struct session *session, uint64_t subscription_id);
/** Unsubscribe and free; the QUIC stream, if any, is left alone. */
void event_stream_free(struct event_stream *event);
/** Open the QUIC stream and write the hello. False: the client grants no more streams. */
bool event_stream_open(struct event_stream *event);
/** Move queued batches to the QUIC stream as far as it should hold any. */
void event_stream_pump(struct event_stream *event);
/** Pump those that wait for the connection's send window, as far as it is open. */
void event_streams_go_on(struct client_conn *conn);

/* The user of a quic_stream is one of these; the first member tells which. */
enum stream_role { ROLE_SESSION, ROLE_EVENTS };
struct stream_user {
    enum stream_role role;
    struct session *session;
    struct event_stream *event;
};

#endif
