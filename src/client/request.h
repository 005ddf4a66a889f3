/*
 * One extension request and its answer, on a stream of its own. For the felix command: no call of
 * felix.h leads here.
 */
#ifndef CLIENT_REQUEST_H
#define CLIENT_REQUEST_H

#include "base/text.h"
#include "client/client.h"

struct extension_request {
    const char *name;      /* of the extension */
    struct slice body;     /* valid JSON; borrowed */
    uint32_t own_features; /* bits of which the broker must have agreed on all */
    uint32_t timeout_ms;
};

/**
 * Ask and wait; appends the answer's body to *ret. Not from a callback. Sets the thread's last
 * error.
 *
 *   FELIX_UNSUPPORTED     the broker does not know the extension
 *   FELIX_NOT_CONNECTED, FELIX_TIMED_OUT
 *   FELIX_NOT_FOUND, FELIX_FORBIDDEN, FELIX_INVALID_ARGUMENT ...   as the broker answered
 */
enum felix_err client_request(struct felix_client *client, const struct extension_request *request,
                              struct text *ret);

/* ---- from calls.c ---- */

/** Fail those that are overdue; returns when the next one is. */
uint64_t requests_expire(struct felix_client *client, uint64_t now_ns);
/** Answer all with FELIX_CLOSED. */
void requests_shut(struct felix_client *client);

#endif
