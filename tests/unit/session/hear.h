/* What the tests of the session layer expect a client to hear; fails the test otherwise. */
#ifndef TESTS_SESSION_HEAR_H
#define TESTS_SESSION_HEAR_H

#include "support/world.h"
#include "wire/ack.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/** A world, and its end: every account is back at zero, and no block is left that was not there
 * before (a test that failed leaves its own behind). */
struct world *world_begin(const struct world_options *options);
void world_end(struct world *world);

/** The next frame is a message of this type; `ret` (may be NULL) needs message_deinit. */
void hear_message(struct peer_stream *stream, enum message_type type, struct message *ret);
/** The next frame is an error with this code (WIRE_CODE_NONE for who did not negotiate codes). */
void hear_error(struct peer_stream *stream, enum wire_code code);
/** The next frame is a binary acknowledgement, whatever modifiers it has. */
void hear_ack(struct peer_stream *stream, uint64_t request_id, bool ok);
/** The same of a success; returns the flags. */
uint16_t hear_stored(struct peer_stream *stream, struct publish_ack *ret);
/** Nothing more was said; the server's side goes on, or is finished. */
void hear_silence(struct peer_stream *stream);
void hear_end(struct peer_stream *stream);

/** The event stream's hello and then all items so far, their first bytes as text. Static. */
const char *hear_events(struct peer_stream *events);

/* What a client says of itself. */
struct client_words {
    uint16_t flags;
    uint32_t features, own_features;
};
/** A bidirectional stream on which WORLD_ALL is authenticated, with these words. */
struct peer_stream *open_with_words(struct peer *peer, const struct client_words *words);

/** A bidirectional stream on which `person` is authenticated, with the features of our client. */
struct peer_stream *open_ready(struct world *world, struct peer *peer, enum world_person person);

/** A stream of t1 that this reactor owns, or that it does not. */
const char *stream_owned(struct world *world, unsigned reactor, bool owned);

/** The fields of a request to t1/n. */
struct message request(enum message_type type);

#endif
