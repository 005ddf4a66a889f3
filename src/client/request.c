#include "client/request.h"

#include "base/clock.h"
#include "client/last_error.h"

/* A request under way: lies on the caller's stack. */
struct client_request {
    struct client_call call; /* first: client_call_of gives the request */
    struct client_request *next;
    const struct extension_request *what;
    struct text *ret; /* the driver's until the call is answered */
    struct lane *lane;
    uint64_t due_ns;
};

static void answer(struct felix_client *client, struct client_request *request, enum felix_err err,
                   const char *text) {
    struct client_request **at = &client->requests;
    while (*at != request)
        at = &(*at)->next;
    *at = request->next;
    client_call_answer(&request->call, err, text);
}

static void on_ready(struct lane *lane) {
    struct client_request *request = lane->owner;
    const struct extension_request *what = request->what;
    if ((lane->own_features & what->own_features) != what->own_features) {
        struct felix_client *client = lane->client;
        lane_abandon(lane);
        answer(client, request, FELIX_UNSUPPORTED, "this broker does not take such commands");
        return;
    }
    struct message message = {
        .type = MESSAGE_EXTENSION,
        .extension = slice_str(what->name),
        .has_request_id = true,
        .request_id = 1,
        .body = what->body,
    };
    lane_write_message(lane, &message);
    lane_finish(lane);
}

static bool on_frame(struct lane *lane, struct frame *frame) {
    struct client_request *request = lane->owner;
    struct felix_client *client = lane->client;
    struct message message;
    char text[sizeof request->call.text];
    if (frame->header.flags != 0 || message_decode(frame->body, &message) != FELIX_OK) {
        lane_fail(lane, FELIX_BAD_JSON, "the broker sent an unreadable answer");
        return false;
    }
    lane_abandon(lane);
    if (message.type == MESSAGE_EXTENSION_RESULT) {
        text_bytes(request->ret, message.body);
        answer(client, request, FELIX_OK, "");
    } else if (message.type == MESSAGE_ERROR) {
        answer(client, request, refusal_err(message.code, message.retry, message.text),
               text_of_slice(message.text, text, sizeof text));
    } else if (message.type == MESSAGE_UNSUPPORTED) {
        answer(client, request, FELIX_UNSUPPORTED, "this broker does not know the request");
    } else {
        answer(client, request, FELIX_PROTOCOL, "unexpected answer to a request");
    }
    message_deinit(&message);
    return false;
}

static void on_over(struct lane *lane, enum felix_err err, const char *text) {
    answer(lane->client, lane->owner, err, text);
}

static const struct lane_ops lane_ops = {
    .ready = on_ready,
    .frame = on_frame,
    .over = on_over,
};

static void run_request(struct felix_client *client, struct io_command *command) {
    struct client_request *request = (struct client_request *)client_call_of(command);
    struct link *link = &client->links[POOL_PUBLISH][0];
    if (client->closing) {
        client_call_answer(&request->call, FELIX_CLOSED, "the client is closed");
        return;
    }
    if (link->state != LINK_OPEN) {
        client_call_answer(&request->call, FELIX_NOT_CONNECTED,
                           "the connection is lost at present");
        return;
    }
    request->lane = lane_open(link, &lane_ops, request);
    if (request->lane == NULL) {
        client_call_answer(&request->call, FELIX_LIMIT, "the broker grants no more streams");
        return;
    }
    request->next = client->requests;
    client->requests = request;
    io_timer_at(client, request->due_ns);
}

enum felix_err client_request(struct felix_client *client, const struct extension_request *request,
                              struct text *ret) {
    if (driver_is_thread(client))
        return last_error_set(FELIX_INVALID_ARGUMENT, "a request from a callback");
    struct client_request call = {
        .call.command.run = run_request,
        .what = request,
        .ret = ret,
        .due_ns = clock_now_ns() + request->timeout_ms * NS_PER_MS,
    };
    client_call_begin(client, &call.call);
    io_post(client, &call.call.command);
    return client_call_wait(client, &call.call);
}

uint64_t requests_expire(struct felix_client *client, uint64_t now_ns) {
    uint64_t next_ns = UINT64_MAX;
    struct client_request *next = NULL;
    for (struct client_request *request = client->requests; request != NULL; request = next) {
        next = request->next;
        if (request->due_ns <= now_ns) {
            lane_abandon(request->lane);
            answer(client, request, FELIX_TIMED_OUT, "the broker did not answer in time");
        } else if (request->due_ns < next_ns) {
            next_ns = request->due_ns;
        }
    }
    return next_ns;
}

void requests_shut(struct felix_client *client) {
    while (client->requests != NULL) {
        struct client_request *request = client->requests;
        lane_abandon(request->lane);
        answer(client, request, FELIX_CLOSED, "the client was closed");
    }
}
