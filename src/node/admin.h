/*
 * The thread that makes, lists and deletes streams for clients (wire/stream_admin.h).
 *
 * Requests come from reactors and are served one at a time, because what they need may block: the
 * disk, and an answer of every reactor. The answer goes back to the reactor of the session as
 * mail. What waits is bounded: a session has at most one request.
 */
#ifndef NODE_ADMIN_H
#define NODE_ADMIN_H

#include "node/objects.h"
#include "wire/stream_admin.h"

struct admin;

/** Returned owned. No thread yet: requests wait. Borrows both. */
struct admin *admin_new(const struct config *config, struct objects *objects);

/** Start the thread, once the reactors run. */
enum felix_err admin_start(struct admin *admin);

/** Finish the request in progress and end the thread; the reactors must still run. No effect when
 * it does not run. */
void admin_stop(struct admin *admin);

/** Once the reactors have ended: what they asked meanwhile is dropped. Accepts NULL. */
void admin_free(struct admin *admin);

/** Hand over a request of a session on a reactor. Any thread, never blocks. */
void admin_post(struct admin *admin, unsigned reactor, uint64_t session,
                const struct stream_request *request);

#endif
