/*
 * Who somebody is and what they may do.
 *
 * A principal is what a verified token said: subject, tenant, expiry and grants. A grant is an
 * action and an object pattern. There are only grants: no deny, no priority, no condition.
 * Source: control plane specification, sections 11.1 and 13.2; wire specification, section 6.2.
 * A principal belongs to the reactor that verified the token: its references are counted without
 * atomic instructions. It is immutable.
 */
#ifndef AUTH_GRANT_H
#define AUTH_GRANT_H

#include "base/err.h"
#include "base/name.h"
#include "base/slice.h"

/* X(name, text): the closed list. Source: control plane specification, section 11.1. */
#define AUTH_ACTION_MAP(X)                                                                         \
    X(RBAC_VIEW, "rbac.view")                                                                      \
    X(RBAC_POLICY_MANAGE, "rbac.policy.manage")                                                    \
    X(RBAC_ASSIGNMENT_MANAGE, "rbac.assignment.manage")                                            \
    X(TENANT_MANAGE, "tenant.manage")                                                              \
    X(NS_MANAGE, "ns.manage")                                                                      \
    X(STREAM_MANAGE, "stream.manage")                                                              \
    X(CACHE_MANAGE, "cache.manage")                                                                \
    X(STREAM_PUBLISH, "stream.publish")                                                            \
    X(STREAM_SUBSCRIBE, "stream.subscribe")                                                        \
    X(CACHE_READ, "cache.read")                                                                    \
    X(CACHE_WRITE, "cache.write")

#define AUTH_ACTION_ENUM(name, text) AUTH_##name,
enum auth_action { AUTH_ACTION_MAP(AUTH_ACTION_ENUM) };
#undef AUTH_ACTION_ENUM

/** Returns the static text of `action`, for example "stream.publish". */
const char *auth_action_name(enum auth_action action);

struct grant {
    enum auth_action action;
    struct slice object; /* a pattern such as `stream:t1/default/ord*` */
};

/**
 * Split the permission `action:object` at its first colon. The object borrows from `text` and may
 * be anything. FELIX_MALFORMED: no colon, or an action that is not on the closed list.
 */
enum felix_err grant_parse(struct slice text, struct grant *ret);

struct principal {
    uint32_t refs;
    int64_t exp_s; /* wall clock, seconds since the epoch; the leeway is not included */
    struct slice tenant;
    struct slice subject;
    size_t grants_count;
    const struct grant *grants;
};

/** Adds a reference and returns `p`. The reactor that owns `p`. */
struct principal *principal_ref(struct principal *p);

/** Drops a reference; the last one frees. Accepts NULL. The reactor that owns `p`. */
void principal_unref(struct principal *p);

/* What a request is about: a stream, or a cache, by the kind of the action. All borrowed. */
struct resource {
    struct slice tenant;
    struct slice namespace;
    struct slice name;
};

/**
 * Is there a grant of exactly `action` whose pattern matches the resource? Only the four actions
 * of the data plane and stream.manage have a resource of this form; for all others the answer is
 * no. With the name "*", which no object can have: does a grant cover every name there?
 *
 * A resource that cannot exist is never permitted: another tenant than the principal's, a name of
 * more than NAME_VALID_BYTES_MAX bytes, or a '/' in the namespace, without which the text
 * `stream:t/a/b/c` would stand for two streams (hazard H4).
 *
 * Costs at most grants x pattern x resource byte comparisons and no allocation.
 */
bool principal_allows(const struct principal *p, enum auth_action action,
                      const struct resource *resource);

/**
 * Does `pattern` match `text` as a whole, where '*' stands for any run of bytes, '/' included, and
 * every other byte for itself? At most pattern x text comparisons.
 */
bool grant_glob(struct slice pattern, struct slice text);

#endif
