#include "cli/token_view.h"

#include "cli/out.h"
#include "wire/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

/* Calls `each` for every member of a JSON object with the raw text of its value. */
typedef void (*member_fn)(void *context, struct slice name, struct slice value);

static void each_member(const char *object, member_fn each, void *context) {
    struct json j = json_open(slice_str(object));
    struct json_string name;
    bool first = true;
    if (!json_object_begin(&j))
        return;
    while (json_member(&j, &first, &name)) {
        (void)json_peek(&j); /* moves over the space before the value */
        const uint8_t *start = j.at;
        if (!json_skip(&j))
            return;
        each(context, name.raw, slice_of(start, (size_t)(j.at - start)));
    }
}

/* ---- one claim ---- */

struct wanted {
    const char *name;
    struct slice value;
};

static void find(void *context, struct slice name, struct slice value) {
    struct wanted *wanted = context;
    if (slice_is(name, wanted->name))
        wanted->value = value;
}

struct slice token_claim(const char *claims, const char *name) {
    struct wanted wanted = {.name = name};
    each_member(claims, find, &wanted);
    struct slice value = wanted.value;
    if (value.len < 2 || value.data[0] != '"')
        return slice_of(NULL, 0);
    return slice_of(value.data + 1, value.len - 2);
}

static bool time_claim(const char *claims, const char *name, int64_t *ret_s) {
    struct wanted wanted = {.name = name};
    each_member(claims, find, &wanted);
    struct json j = json_open(wanted.value);
    return wanted.value.len > 0 && json_take_i64(&j, ret_s);
}

/* ---- times ---- */

struct utc_text {
    char text[40];
};

static struct utc_text utc(int64_t seconds) {
    struct utc_text t = {"a time that no calendar knows"};
    time_t when = (time_t)seconds;
    struct tm tm;
    if (gmtime_r(&when, &tm) != NULL)
        (void)strftime(t.text, sizeof t.text, "%Y-%m-%d %H:%M:%S UTC", &tm);
    return t;
}

static uint64_t distance(int64_t a, int64_t b) {
    return a > b ? (uint64_t)a - (uint64_t)b : (uint64_t)b - (uint64_t)a;
}

struct token_validity token_validity(const char *claims, int64_t now_s) {
    struct token_validity validity = {.now = false};
    int64_t exp_s, nbf_s;
    char *words = validity.words;
    size_t size = sizeof validity.words;
    if (!time_claim(claims, "exp", &exp_s)) {
        (void)snprintf(words, size, "never valid: it has no time of expiry");
    } else if (exp_s <= now_s) {
        (void)snprintf(words, size, "expired %s ago, at %s", out_span(distance(now_s, exp_s)).text,
                       utc(exp_s).text);
    } else if (time_claim(claims, "nbf", &nbf_s) && nbf_s > now_s) {
        (void)snprintf(words, size, "not valid before %s, in %s", utc(nbf_s).text,
                       out_span(distance(nbf_s, now_s)).text);
    } else {
        validity.now = true;
        (void)snprintf(words, size, "valid for %s, until %s", out_span(distance(exp_s, now_s)).text,
                       utc(exp_s).text);
    }
    return validity;
}

/* ---- all of them ---- */

static void print_list(struct text *out, struct json *j) {
    bool first = true, any = false;
    (void)json_array_begin(j);
    while (json_element(j, &first)) {
        (void)json_peek(j);
        const uint8_t *start = j->at;
        if (!json_skip(j))
            break;
        if (any)
            text_add(out, "           ");
        out_printable(out, slice_of(start, (size_t)(j->at - start)));
        text_char(out, '\n');
        any = true;
    }
    if (!any)
        text_add(out, "[]\n");
}

static void print_member(void *context, struct slice name, struct slice value) {
    struct text *out = context;
    struct json j = json_open(value);
    int64_t seconds;
    text_add(out, "  ");
    out_printable(out, name);
    text_printf(out, "%*s ", name.len < 8 ? (int)(8 - name.len) : 0, "");
    bool is_time = slice_is(name, "exp") || slice_is(name, "nbf") || slice_is(name, "iat");
    if (is_time && json_take_i64(&j, &seconds)) {
        text_printf(out, "%" PRId64 "  (%s)\n", seconds, utc(seconds).text);
    } else if (json_peek(&j) == JSON_ARRAY) {
        print_list(out, &j);
    } else {
        out_printable(out, value);
        text_char(out, '\n');
    }
}

void token_members(const char *object, struct text *out) {
    each_member(object, print_member, out);
}
