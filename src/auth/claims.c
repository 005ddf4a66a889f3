/*
 * Claims to principal, in two passes without a tree.
 *
 * The first pass walks the JSON, checks that every claim is there once and of its kind, and adds
 * up the permissions. Then issuer, audience, tenant and times are judged. Only then is memory
 * taken, one block for all of it, and the second pass decodes the permissions into that block.
 */
#include "auth/claims.h"

#include <stdlib.h>

#include "base/check.h"
#include "wire/json.h"

enum {
    CLAIM_ISS = 1 << 0,
    CLAIM_AUD = 1 << 1,
    CLAIM_SUB = 1 << 2,
    CLAIM_TID = 1 << 3,
    CLAIM_IAT = 1 << 4,
    CLAIM_EXP = 1 << 5,
    CLAIM_NBF = 1 << 6,
    CLAIM_PERMS = 1 << 7,
};
#define CLAIMS_REQUIRED                                                                            \
    (CLAIM_ISS | CLAIM_AUD | CLAIM_SUB | CLAIM_TID | CLAIM_IAT | CLAIM_EXP | CLAIM_PERMS)

struct claims {
    unsigned seen;
    struct json_string iss;
    struct json_string aud;
    struct json_string sub;
    struct json_string tid;
    int64_t iat;
    int64_t exp;
    int64_t nbf;
    struct json perms; /* stands before the array */
    size_t perms_count;
    size_t perms_bytes; /* of all permissions, decoded */
};

static unsigned claim_of(const struct json_string *name) {
    static const struct {
        const char *name;
        unsigned bit;
    } claims[] = {
        {"iss", CLAIM_ISS}, {"aud", CLAIM_AUD}, {"sub", CLAIM_SUB}, {"tid", CLAIM_TID},
        {"iat", CLAIM_IAT}, {"exp", CLAIM_EXP}, {"nbf", CLAIM_NBF}, {"perms", CLAIM_PERMS},
    };
    for (size_t i = 0; i < sizeof claims / sizeof claims[0]; i++) {
        if (json_string_is(name, claims[i].name))
            return claims[i].bit;
    }
    return 0;
}

static bool claims_read_perms(struct json *j, struct claims *c) {
    bool first = true;
    struct json_string perm;

    c->perms = *j;
    if (!json_array_begin(j))
        return false;
    while (json_element(j, &first)) {
        if (!json_take_string(j, &perm))
            return false;
        c->perms_count++;
        c->perms_bytes += perm.decoded_bytes;
    }
    return !j->failed;
}

static bool claims_read_one(struct json *j, unsigned claim, struct claims *c) {
    switch (claim) {
    case CLAIM_ISS:
        return json_take_string(j, &c->iss);
    case CLAIM_AUD:
        return json_take_string(j, &c->aud);
    case CLAIM_SUB:
        return json_take_string(j, &c->sub);
    case CLAIM_TID:
        return json_take_string(j, &c->tid);
    case CLAIM_IAT:
        return json_take_i64(j, &c->iat);
    case CLAIM_EXP:
        return json_take_i64(j, &c->exp);
    case CLAIM_NBF:
        return json_take_i64(j, &c->nbf);
    case CLAIM_PERMS:
        return claims_read_perms(j, c);
    default:
        return json_skip(j);
    }
}

static bool claims_read(struct slice json, struct claims *c) {
    struct json j = json_open(json);
    bool first = true;
    struct json_string name;

    if (!json_object_begin(&j))
        return false;
    while (json_member(&j, &first, &name)) {
        unsigned claim = claim_of(&name);
        if ((c->seen & claim) != 0)
            return false; /* which of the two counts would be a guess */
        c->seen |= claim;
        if (!claims_read_one(&j, claim, c))
            return false;
    }
    return json_finish(&j) && (c->seen & CLAIMS_REQUIRED) == CLAIMS_REQUIRED;
}

static bool string_is_slice(const struct json_string *s, struct slice text) {
    if (s->decoded_bytes != text.len)
        return false;
    if (!s->escaped)
        return slice_equal(s->raw, text);

    uint8_t *value = xmalloc(s->decoded_bytes);
    json_string_decode(s, value);
    bool equal = slice_equal(slice_of(value, s->decoded_bytes), text);
    free(value);
    return equal;
}

static enum felix_err claims_judge(const struct claims *c, const struct claims_expected *expected) {
    if (!json_string_is(&c->iss, TOKEN_ISSUER) || !json_string_is(&c->aud, TOKEN_AUDIENCE))
        return FELIX_UNAUTHENTICATED;
    if (!string_is_slice(&c->tid, expected->tenant))
        return FELIX_WRONG_TENANT;
    if (c->exp < expected->now_s - (int64_t)expected->leeway_s)
        return FELIX_EXPIRED;
    if ((c->seen & CLAIM_NBF) != 0 && c->nbf > expected->now_s + (int64_t)expected->leeway_s)
        return FELIX_NOT_YET_VALID;
    return FELIX_OK;
}

static struct slice text_take(uint8_t **at, const struct json_string *s) {
    struct slice text = slice_of(*at, s->decoded_bytes);
    json_string_decode(s, *at);
    *at += s->decoded_bytes;
    return text;
}

/* The principal, its grants and all their text are one block. */
static enum felix_err claims_principal(const struct claims *c, struct principal **ret) {
    size_t grants_bytes = c->perms_count * sizeof(struct grant);
    size_t text_bytes = c->tid.decoded_bytes + c->sub.decoded_bytes + c->perms_bytes;
    struct principal *p = xmalloc(sizeof *p + grants_bytes + text_bytes);
    struct grant *grants = (struct grant *)(p + 1);
    uint8_t *text = (uint8_t *)(grants + c->perms_count);

    *p = (struct principal){
        .refs = 1, .exp_s = c->exp, .grants_count = c->perms_count, .grants = grants};
    p->tenant = text_take(&text, &c->tid);
    p->subject = text_take(&text, &c->sub);

    struct json j = c->perms;
    struct json_string perm;
    bool first = true;
    size_t count = 0;
    (void)json_array_begin(&j);
    while (json_element(&j, &first) && json_take_string(&j, &perm)) {
        INVARIANT(count < c->perms_count);
        if (grant_parse(text_take(&text, &perm), &grants[count++]) != FELIX_OK) {
            principal_unref(p);
            return FELIX_UNAUTHENTICATED;
        }
    }
    INVARIANT(count == c->perms_count);
    *ret = p;
    return FELIX_OK;
}

enum felix_err claims_accept(struct slice json, const struct claims_expected *expected,
                             struct principal **ret) {
    struct claims claims = {0};
    if (!claims_read(json, &claims))
        return FELIX_UNAUTHENTICATED;

    enum felix_err err = claims_judge(&claims, expected);
    if (err != FELIX_OK)
        return err;
    return claims_principal(&claims, ret);
}
