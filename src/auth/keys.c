/*
 * From JSON to a flat, sorted table of keys.
 *
 * The JSON is walked once. Each usable key becomes a row (tenant, kid, x); each tenant adds one
 * row without a key, so that a tenant whose keys are all unusable is noticed. Rows are sorted by
 * tenant, stable within it; then one pass counts and refuses, and the rows without a key go away.
 * What remains is immutable: a tenant's keys are a run that a binary search finds. Keys that serve
 * every tenant have the tenant "" and are therefore the first run.
 *
 * All text lies in one block as large as the JSON was: no string is longer decoded than written.
 *
 * Keys are kept as their 32 bytes and become a GnuTLS object for each verification. That costs
 * under 1 us of about 80, and threads share nothing but immutable bytes.
 */
#include "auth/keys.h"

#include <gnutls/abstract.h>
#include <gnutls/gnutls.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "auth/file.h"
#include "auth/grant.h"
#include "base/check.h"
#include "wire/json.h"

struct key_row {
    struct slice tenant; /* empty: every tenant */
    struct slice kid;    /* empty: none */
    uint32_t order;      /* as in the JSON */
    uint32_t origin;     /* which object listed it: a tenant has one */
    bool usable;
    uint8_t x[ED25519_KEY_BYTES];
};

struct auth_keyset {
    _Atomic uint32_t refs;
    uint64_t generation;
    size_t tenants;
    size_t skipped;
    size_t rows_count;
    struct key_row *rows; /* usable ones, by tenant, then order */
    uint8_t *text;
};

/* A keyset in the making. */
struct key_builder {
    struct auth_keyset *set;
    size_t rows_capacity;
    uint8_t *text_at;
    uint32_t origins;
};

static struct slice builder_text(struct key_builder *b, const struct json_string *s) {
    struct slice text = slice_of(b->text_at, s->decoded_bytes);
    json_string_decode(s, b->text_at);
    b->text_at += s->decoded_bytes;
    return text;
}

static void builder_add(struct key_builder *b, struct key_row row) {
    struct auth_keyset *set = b->set;
    if (set->rows_count == b->rows_capacity) {
        b->rows_capacity = b->rows_capacity != 0 ? 2 * b->rows_capacity : 16;
        set->rows = xrealloc(set->rows, b->rows_capacity * sizeof *set->rows);
    }
    row.order = (uint32_t)set->rows_count;
    set->rows[set->rows_count++] = row;
}

enum {
    SEEN_KTY = 1 << 0,
    SEEN_CRV = 1 << 1,
    SEEN_X = 1 << 2,
    SEEN_KID = 1 << 3,
    SEEN_ALG = 1 << 4,
    SEEN_USE = 1 << 5,
    SEEN_TID = 1 << 6,
};

struct key_reading {
    struct key_row row;
    unsigned seen;
    bool unusable;
};

static unsigned key_member(const struct json_string *name) {
    static const struct {
        const char *name;
        unsigned bit;
    } members[] = {
        {"kty", SEEN_KTY}, {"crv", SEEN_CRV}, {"x", SEEN_X},     {"kid", SEEN_KID},
        {"alg", SEEN_ALG}, {"use", SEEN_USE}, {"tid", SEEN_TID},
    };
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
        if (json_string_is(name, members[i].name))
            return members[i].bit;
    }
    return 0;
}

static bool key_read_x(const struct json_string *text, uint8_t x[ED25519_KEY_BYTES]) {
    size_t bytes = 0;
    return !text->escaped && base64url_decoded_bytes(text->raw, &bytes) == FELIX_OK &&
           bytes == ED25519_KEY_BYTES && base64url_decode(text->raw, x) == FELIX_OK;
}

static void key_read_member(struct key_builder *b, struct key_reading *key, unsigned member,
                            const struct json_string *text) {
    if ((key->seen & member) != 0)
        key->unusable = true; /* which of the two counts would be a guess */
    key->seen |= member;

    bool good = true;
    if (member == SEEN_KTY)
        good = json_string_is(text, "OKP");
    else if (member == SEEN_CRV)
        good = json_string_is(text, "Ed25519");
    else if (member == SEEN_ALG)
        good = json_string_is(text, "EdDSA");
    else if (member == SEEN_USE)
        good = json_string_is(text, "sig");
    else if (member == SEEN_X)
        good = key_read_x(text, key->row.x);
    else if (member == SEEN_KID)
        key->row.kid = builder_text(b, text);
    else if (member == SEEN_TID)
        key->row.tenant = builder_text(b, text);
    if (!good)
        key->unusable = true;
}

/* Reads one JWK; what is wrong with it makes it unusable, what is wrong with the JSON fails. */
static bool key_read(struct json *j, struct key_builder *b, struct key_reading *ret) {
    if (json_peek(j) != JSON_OBJECT) {
        ret->unusable = true;
        return json_skip(j);
    }

    bool first = true;
    struct json_string name;
    if (!json_object_begin(j))
        return false;
    while (json_member(j, &first, &name)) {
        unsigned member = key_member(&name);
        if (member == 0 || json_peek(j) != JSON_STRING) {
            if (member != 0)
                ret->unusable = true;
            if (!json_skip(j))
                return false;
            continue;
        }
        struct json_string text;
        if (!json_take_string(j, &text))
            return false;
        key_read_member(b, ret, member, &text);
    }

    const unsigned needed = SEEN_KTY | SEEN_CRV | SEEN_X;
    if ((ret->seen & needed) != needed)
        ret->unusable = true;
    return !j->failed;
}

/* Reads the array of a "keys" member. `tenant` is empty in a plain JWKS. */
static bool keys_read(struct json *j, struct key_builder *b, struct slice tenant, uint32_t origin) {
    bool first = true;
    if (!json_array_begin(j))
        return false;
    while (json_element(j, &first)) {
        struct key_reading key = {0};
        if (!key_read(j, b, &key))
            return false;

        bool named = (key.seen & SEEN_TID) != 0;
        if (tenant.len != 0) {
            if (named && !slice_equal(key.row.tenant, tenant))
                key.unusable = true; /* somebody put it into the wrong place */
            key.row.tenant = tenant;
        } else if (named && key.row.tenant.len != 0) {
            builder_add(b, (struct key_row){.tenant = key.row.tenant, .origin = origin});
        } else if (named) {
            key.unusable = true; /* "" must not come to mean every tenant */
        }

        key.row.origin = origin;
        key.row.usable = !key.unusable;
        if (key.row.usable)
            builder_add(b, key.row);
        else
            b->set->skipped++;
    }
    return !j->failed;
}

/* Reads the object of one tenant below "tenants". */
static bool tenant_read(struct json *j, struct key_builder *b, struct slice tenant) {
    bool first = true;
    bool listed = false;
    struct json_string name;
    uint32_t origin = ++b->origins;

    builder_add(b, (struct key_row){.tenant = tenant, .origin = origin});
    if (!json_object_begin(j))
        return false;
    while (json_member(j, &first, &name)) {
        if (!json_string_is(&name, "keys")) {
            if (!json_skip(j))
                return false;
            continue;
        }
        if (listed || !keys_read(j, b, tenant, origin))
            return false;
        listed = true;
    }
    return !j->failed;
}

static bool tenants_read(struct json *j, struct key_builder *b) {
    bool first = true;
    struct json_string name;
    if (!json_object_begin(j))
        return false;
    while (json_member(j, &first, &name)) {
        struct slice tenant = builder_text(b, &name);
        if (tenant.len == 0 || !tenant_read(j, b, tenant))
            return false;
    }
    return !j->failed;
}

static bool keyset_read(struct slice text, struct key_builder *b) {
    struct json j = json_open(text);
    bool first = true;
    bool plain = false;
    bool tenants = false;
    struct json_string name;

    if (!json_object_begin(&j))
        return false;
    while (json_member(&j, &first, &name)) {
        bool read = false;
        if (!plain && json_string_is(&name, "keys")) {
            plain = true;
            read = keys_read(&j, b, (struct slice){0}, 0);
        } else if (!tenants && json_string_is(&name, "tenants")) {
            tenants = true;
            read = tenants_read(&j, b);
        } else if (!json_string_is(&name, "keys") && !json_string_is(&name, "tenants")) {
            read = json_skip(&j);
        }
        if (!read)
            return false;
    }
    return json_finish(&j) && (plain || tenants);
}

static int slice_compare(struct slice a, struct slice b) {
    size_t len = a.len < b.len ? a.len : b.len;
    int order = len != 0 ? memcmp(a.data, b.data, len) : 0;
    if (order != 0)
        return order;
    return (a.len > b.len) - (a.len < b.len);
}

static int row_compare(const void *left, const void *right) {
    const struct key_row *a = left;
    const struct key_row *b = right;
    int order = slice_compare(a->tenant, b->tenant);
    if (order != 0)
        return order;
    return (a->order > b->order) - (a->order < b->order);
}

/* Judges the run of rows of one tenant. */
static enum felix_err run_check(const struct key_row *rows, size_t count,
                                struct felix_error *reterr) {
    struct slice tenant = rows[0].tenant;
    int shown = (int)(tenant.len < 64 ? tenant.len : 64);
    const char *name = tenant.len != 0 ? (const char *)tenant.data : "";

    if (tenant.len != 0 && !name_valid(tenant))
        return error_set(reterr, FELIX_INVALID_ARGUMENT, 0,
                         "keys: '%.*s' is not a tenant id: 1 to %u bytes without / : * and control "
                         "characters",
                         shown, name, NAME_VALID_BYTES_MAX);
    size_t usable = 0;
    for (size_t i = 0; i < count; i++) {
        if (rows[i].origin != rows[0].origin)
            return error_set(reterr, FELIX_BAD_JSON, 0, "keys: tenant '%.*s' stands there twice",
                             shown, name);
        usable += rows[i].usable;
    }
    if (usable == 0)
        return error_set(reterr, FELIX_NOT_FOUND, 0,
                         "keys: tenant '%.*s' has no usable key (kty OKP, crv Ed25519, x of 32 "
                         "bytes)",
                         shown, name);
    if (usable > AUTH_KEYS_PER_TENANT_MAX)
        return error_set(reterr, FELIX_LIMIT, 0, "keys: tenant '%.*s' has %zu keys, %u are allowed",
                         shown, name, usable, AUTH_KEYS_PER_TENANT_MAX);
    return FELIX_OK;
}

static enum felix_err keyset_finish(struct auth_keyset *set, struct felix_error *reterr) {
    if (set->rows_count != 0)
        qsort(set->rows, set->rows_count, sizeof *set->rows, row_compare);

    for (size_t run = 0; run < set->rows_count;) {
        size_t end = run + 1;
        while (end < set->rows_count && slice_equal(set->rows[end].tenant, set->rows[run].tenant))
            end++;
        enum felix_err err = run_check(&set->rows[run], end - run, reterr);
        if (err != FELIX_OK)
            return err;
        set->tenants += set->rows[run].tenant.len != 0;
        run = end;
    }
    if (set->tenants > AUTH_TENANTS_MAX)
        return error_set(reterr, FELIX_LIMIT, 0, "keys: %zu tenants, %u are allowed", set->tenants,
                         AUTH_TENANTS_MAX);

    size_t kept = 0;
    for (size_t i = 0; i < set->rows_count; i++) {
        if (set->rows[i].usable)
            set->rows[kept++] = set->rows[i];
    }
    set->rows_count = kept;
    if (kept == 0)
        return error_set(reterr, FELIX_NOT_FOUND, 0, "keys: there is no usable key");
    return FELIX_OK;
}

static void keyset_free(struct auth_keyset *set) {
    free(set->rows);
    free(set->text);
    free(set);
}

enum felix_err auth_keyset_parse_jwks(struct slice json, struct auth_keyset **ret,
                                      struct felix_error *reterr) {
    /* Relaxed: only uniqueness matters. */
    static _Atomic uint64_t generations;

    if (json.len > AUTH_KEYSET_BYTES_MAX)
        return error_set(reterr, FELIX_LIMIT, 0, "keys: more than %zu bytes",
                         AUTH_KEYSET_BYTES_MAX);

    struct auth_keyset *set = xcalloc(1, sizeof *set);
    set->text = xmalloc(json.len);
    atomic_init(&set->refs, 1);
    set->generation = 1 + atomic_fetch_add_explicit(&generations, 1, memory_order_relaxed);

    struct key_builder builder = {.set = set, .text_at = set->text};
    enum felix_err err = FELIX_OK;
    if (!keyset_read(json, &builder))
        err = error_set(reterr, FELIX_BAD_JSON, 0,
                        "keys: not JSON of the form {\"keys\":[...]} or "
                        "{\"tenants\":{\"t1\":{\"keys\":[...]}}}");
    else
        err = keyset_finish(set, reterr);
    if (err != FELIX_OK) {
        keyset_free(set);
        return err;
    }
    *ret = set;
    return FELIX_OK;
}

enum felix_err auth_keyset_load_file(const char *path, struct auth_keyset **ret,
                                     struct felix_error *reterr) {
    uint8_t *json = NULL;
    size_t bytes = 0;
    enum felix_err err = auth_file_read(path, AUTH_KEYSET_BYTES_MAX, &json, &bytes, reterr);
    if (err != FELIX_OK)
        return err;

    struct felix_error why = {0};
    err = auth_keyset_parse_jwks(slice_of(json, bytes), ret, &why);
    free(json);
    if (err != FELIX_OK)
        return error_set(reterr, err, 0, "%s: %s", path, why.text);
    return FELIX_OK;
}

struct auth_keyset *auth_keyset_ref(struct auth_keyset *set) {
    /* Relaxed: whoever adds a reference already holds one. */
    atomic_fetch_add_explicit(&set->refs, 1, memory_order_relaxed);
    return set;
}

void auth_keyset_unref(struct auth_keyset *set) {
    /* Acquire-release: the freeing thread must come after all reads of the other holders. */
    if (set != NULL && atomic_fetch_sub_explicit(&set->refs, 1, memory_order_acq_rel) == 1)
        keyset_free(set);
}

uint64_t auth_keyset_generation(const struct auth_keyset *set) {
    return set->generation;
}

size_t auth_keyset_keys(const struct auth_keyset *set) {
    return set->rows_count;
}

size_t auth_keyset_tenants(const struct auth_keyset *set) {
    return set->tenants;
}

size_t auth_keyset_skipped(const struct auth_keyset *set) {
    return set->skipped;
}

/* Some keys of one tenant. */
struct key_run {
    const struct key_row *rows;
    size_t count;
};

static struct key_run keyset_run(const struct auth_keyset *set, struct slice tenant) {
    size_t low = 0;
    size_t high = set->rows_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (slice_compare(set->rows[middle].tenant, tenant) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    struct key_run run = {.rows = &set->rows[low]};
    while (low + run.count < set->rows_count && slice_equal(run.rows[run.count].tenant, tenant))
        run.count++;
    return run;
}

bool auth_keyset_serves(const struct auth_keyset *set, struct slice tenant) {
    return keyset_run(set, tenant).count != 0 || keyset_run(set, (struct slice){0}).count != 0;
}

/* GnuTLS takes pointers to bytes that it does not change. */
static gnutls_datum_t datum_of(const void *data, size_t len) {
    union {
        const void *in;
        unsigned char *out;
    } bytes = {.in = data};
    return (gnutls_datum_t){.data = bytes.out, .size = (unsigned)len};
}

static bool row_verify(const struct key_row *row, const struct auth_signed *what) {
    gnutls_pubkey_t key = NULL;
    gnutls_datum_t x = datum_of(row->x, ED25519_KEY_BYTES);
    gnutls_datum_t message = datum_of(what->message.data, what->message.len);
    gnutls_datum_t signature = datum_of(what->signature, ED25519_SIGNATURE_BYTES);

    if (gnutls_pubkey_init(&key) != 0)
        return false;
    bool good =
        gnutls_pubkey_import_ecc_raw(key, GNUTLS_ECC_CURVE_ED25519, &x, NULL) == 0 &&
        gnutls_pubkey_verify_data2(key, GNUTLS_SIGN_EDDSA_ED25519, 0, &message, &signature) >= 0;
    gnutls_pubkey_deinit(key);
    return good;
}

static bool run_verify(struct key_run run, struct slice kid, bool named,
                       const struct auth_signed *what) {
    for (size_t i = 0; i < run.count; i++) {
        bool matches = kid.len != 0 && slice_equal(run.rows[i].kid, kid);
        if (matches == named && row_verify(&run.rows[i], what))
            return true;
    }
    return false;
}

bool auth_keyset_verify(const struct auth_keyset *set, struct slice tenant, struct slice kid,
                        const struct auth_signed *what) {
    struct key_run own = keyset_run(set, tenant);
    struct key_run any = keyset_run(set, (struct slice){0});
    if (tenant.len == 0)
        return false;
    return run_verify(own, kid, true, what) || run_verify(any, kid, true, what) ||
           run_verify(own, kid, false, what) || run_verify(any, kid, false, what);
}
