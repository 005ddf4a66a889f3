/*
 * Matching a grant against a request.
 *
 * The resource text `stream:{tenant}/{namespace}/{name}` is never built: it is a rope of six
 * pieces, and the matcher walks it with a position of two numbers. A star remembers where it
 * stood; on a mismatch the last star takes one byte more. Earlier stars need not be tried again,
 * because whatever they could still give, the last one can take. This bounds the work by the
 * product of both lengths, whatever the pattern. A pattern with more literal bytes than the text
 * has is refused by counting first; so a long pattern does not cost more than a long name.
 */
#include "auth/grant.h"

#include <stdlib.h>

#include "base/check.h"

#define ROPE_PIECES 6

/* The bytes of several slices, one after the other. */
struct rope {
    struct slice pieces[ROPE_PIECES];
    size_t count;
};

struct rope_at {
    size_t piece;
    size_t offset;
};

#define ACTION_NAME(name, text) [AUTH_##name] = (text),
static const char *const action_names[] = {AUTH_ACTION_MAP(ACTION_NAME)};
#undef ACTION_NAME

const char *auth_action_name(enum auth_action action) {
    return action_names[action];
}

enum felix_err grant_parse(struct slice text, struct grant *ret) {
    if (text.len == 0)
        return FELIX_MALFORMED;

    const uint8_t *colon = memchr(text.data, ':', text.len);
    if (colon == NULL)
        return FELIX_MALFORMED;

    struct slice action = slice_of(text.data, (size_t)(colon - text.data));
    for (size_t i = 0; i < sizeof action_names / sizeof action_names[0]; i++) {
        if (!slice_is(action, action_names[i]))
            continue;
        ret->action = (enum auth_action)i;
        ret->object = slice_of(colon + 1, text.len - action.len - 1);
        return FELIX_OK;
    }
    return FELIX_MALFORMED;
}

struct principal *principal_ref(struct principal *p) {
    p->refs++;
    return p;
}

void principal_unref(struct principal *p) {
    if (p == NULL)
        return;

    INVARIANT(p->refs > 0);
    p->refs--;
    if (p->refs == 0)
        free(p);
}

/* Steps over exhausted and empty pieces; false at the end of the text. */
static bool rope_has_byte(const struct rope *rope, struct rope_at *at) {
    while (at->piece < rope->count && at->offset == rope->pieces[at->piece].len) {
        at->piece++;
        at->offset = 0;
    }
    return at->piece < rope->count;
}

static size_t rope_len(const struct rope *rope) {
    size_t len = 0;
    for (size_t i = 0; i < rope->count; i++)
        len += rope->pieces[i].len;
    return len;
}

static bool glob_can_fit(struct slice pattern, size_t text_len) {
    size_t literals = 0;
    for (size_t i = 0; i < pattern.len; i++)
        literals += pattern.data[i] != '*';
    return literals <= text_len;
}

static bool glob_matches(struct slice pattern, const struct rope *text) {
    if (!glob_can_fit(pattern, rope_len(text)))
        return false;

    struct rope_at at = {0};
    size_t p = 0;
    bool starred = false;
    size_t after_star = 0;             /* where the pattern goes on after the last star */
    struct rope_at star_reaches = {0}; /* where the text goes on after what that star took */

    while (rope_has_byte(text, &at)) {
        if (p < pattern.len && pattern.data[p] == '*') {
            starred = true;
            after_star = ++p;
            star_reaches = at;
        } else if (p < pattern.len && pattern.data[p] == text->pieces[at.piece].data[at.offset]) {
            p++;
            at.offset++;
        } else if (starred) {
            (void)rope_has_byte(text, &star_reaches);
            star_reaches.offset++;
            at = star_reaches;
            p = after_star;
        } else {
            return false;
        }
    }
    while (p < pattern.len && pattern.data[p] == '*')
        p++;
    return p == pattern.len;
}

bool grant_glob(struct slice pattern, struct slice text) {
    struct rope rope = {.pieces = {text}, .count = 1};
    return glob_matches(pattern, &rope);
}

/* What the resource of an action starts with; NULL for actions that only a control plane asks
 * for. */
static const char *action_kind(enum auth_action action) {
    switch (action) {
    case AUTH_STREAM_PUBLISH:
    case AUTH_STREAM_SUBSCRIBE:
    case AUTH_STREAM_MANAGE:
        return "stream:";
    case AUTH_CACHE_READ:
    case AUTH_CACHE_WRITE:
        return "cache:";
    case AUTH_RBAC_VIEW:
    case AUTH_RBAC_POLICY_MANAGE:
    case AUTH_RBAC_ASSIGNMENT_MANAGE:
    case AUTH_TENANT_MANAGE:
    case AUTH_NS_MANAGE:
    case AUTH_CACHE_MANAGE:
        return NULL;
    }
    return NULL;
}

static bool resource_can_exist(const struct resource *r) {
    if (r->tenant.len > NAME_VALID_BYTES_MAX || r->namespace.len > NAME_VALID_BYTES_MAX ||
        r->name.len > NAME_VALID_BYTES_MAX)
        return false;
    return r->namespace.len == 0 || memchr(r->namespace.data, '/', r->namespace.len) == NULL;
}

bool principal_allows(const struct principal *p, enum auth_action action,
                      const struct resource *resource) {
    const char *kind = action_kind(action);
    if (kind == NULL || !slice_equal(resource->tenant, p->tenant) || !resource_can_exist(resource))
        return false;

    struct slice slash = slice_str("/");
    struct rope text = {
        .pieces = {slice_str(kind), resource->tenant, slash, resource->namespace, slash,
                   resource->name},
        .count = ROPE_PIECES,
    };
    for (size_t i = 0; i < p->grants_count; i++) {
        if (p->grants[i].action == action && glob_matches(p->grants[i].object, &text))
            return true;
    }
    return false;
}
