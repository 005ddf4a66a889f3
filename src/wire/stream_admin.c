/*
 * One table for each record names its members, their kinds and where they lie; decoding and
 * encoding both walk it, so neither knows a member that the other does not.
 */
#include "wire/stream_admin.h"

#include <assert.h>
#include <stdlib.h>

#include "base/check.h"
#include "wire/json.h"
#include "wire/utf8.h"

enum field_kind {
    FIELD_NAME, /* char[STREAM_NAME_BYTES]: a valid name, or empty when absent */
    FIELD_TEXT, /* char[STREAM_REASON_BYTES] */
    FIELD_BOOL,
    FIELD_U64,
    FIELD_WORD, /* an enum: position in `words` */
};

enum field_presence {
    FIELD_REQUIRED,
    FIELD_OPTIONAL, /* left out when zero, false or empty; then with a flag: when it is not set */
};

struct field {
    const char *name;
    enum field_kind kind;
    enum field_presence presence;
    size_t at;                /* offset in the record */
    size_t flag_at;           /* FIELD_U64: offset of the bool that it is given; 0: none */
    const char *const *words; /* NULL at the end */
};

#define WORD(name, text) text,
static const char *const op_words[] = {STREAM_OP_MAP(WORD) NULL};
static const char *const origin_words[] = {STREAM_ORIGIN_MAP(WORD) NULL};
static const char *const state_words[] = {STREAM_STATE_MAP(WORD) NULL};
static const char *const outcome_words[] = {STREAM_OUTCOME_MAP(WORD) NULL};
#undef WORD

static_assert(sizeof(enum stream_op) == sizeof(unsigned) &&
                  sizeof(enum stream_origin) == sizeof(unsigned) &&
                  sizeof(enum stream_state) == sizeof(unsigned) &&
                  sizeof(enum stream_outcome) == sizeof(unsigned),
              "FIELD_WORD copies an unsigned");

#define REQUEST(member) offsetof(struct stream_request, member)
static const struct field request_fields[] = {
    {"op", FIELD_WORD, FIELD_REQUIRED, REQUEST(op), 0, op_words},
    {"tenant", FIELD_NAME, FIELD_REQUIRED, REQUEST(tenant), 0, NULL},
    {"namespace", FIELD_NAME, FIELD_REQUIRED, REQUEST(space), 0, NULL},
    {"stream", FIELD_NAME, FIELD_OPTIONAL, REQUEST(stream), 0, NULL},
    {"after", FIELD_NAME, FIELD_OPTIONAL, REQUEST(after), 0, NULL},
    {"durable", FIELD_BOOL, FIELD_OPTIONAL, REQUEST(durable), 0, NULL},
    {"purge", FIELD_BOOL, FIELD_OPTIONAL, REQUEST(purge), 0, NULL},
    {"retention_bytes", FIELD_U64, FIELD_OPTIONAL, REQUEST(retention_bytes),
     REQUEST(has_retention_bytes), NULL},
    {"retention_seconds", FIELD_U64, FIELD_OPTIONAL, REQUEST(retention_seconds),
     REQUEST(has_retention_seconds), NULL},
};
#define REQUEST_FIELDS (sizeof request_fields / sizeof request_fields[0])

#define ENTRY(member) offsetof(struct stream_entry, member)
static const struct field entry_fields[] = {
    {"stream", FIELD_NAME, FIELD_REQUIRED, ENTRY(stream), 0, NULL},
    {"durable", FIELD_BOOL, FIELD_REQUIRED, ENTRY(durable), 0, NULL},
    {"origin", FIELD_WORD, FIELD_REQUIRED, ENTRY(origin), 0, origin_words},
    {"state", FIELD_WORD, FIELD_REQUIRED, ENTRY(state), 0, state_words},
    {"reason", FIELD_TEXT, FIELD_OPTIONAL, ENTRY(reason), 0, NULL},
    {"bytes", FIELD_U64, FIELD_REQUIRED, ENTRY(bytes), 0, NULL},
    {"segments", FIELD_U64, FIELD_REQUIRED, ENTRY(segments), 0, NULL},
    {"oldest", FIELD_U64, FIELD_REQUIRED, ENTRY(oldest), 0, NULL},
    {"end", FIELD_U64, FIELD_REQUIRED, ENTRY(end), 0, NULL},
    {"subscriptions", FIELD_U64, FIELD_REQUIRED, ENTRY(subscriptions), 0, NULL},
    {"retention_bytes", FIELD_U64, FIELD_REQUIRED, ENTRY(retention_bytes), 0, NULL},
    {"retention_seconds", FIELD_U64, FIELD_REQUIRED, ENTRY(retention_seconds), 0, NULL},
    {"damaged_ranges", FIELD_U64, FIELD_REQUIRED, ENTRY(damage_count), 0, NULL},
};
#define ENTRY_FIELDS (sizeof entry_fields / sizeof entry_fields[0])

static const struct field damage_fields[] = {
    {"first", FIELD_U64, FIELD_REQUIRED, offsetof(struct stream_damage, first), 0, NULL},
    {"end", FIELD_U64, FIELD_REQUIRED, offsetof(struct stream_damage, end), 0, NULL},
};
#define DAMAGE_FIELDS (sizeof damage_fields / sizeof damage_fields[0])

const char *stream_op_name(enum stream_op op) {
    return op_words[op];
}

const char *stream_origin_name(enum stream_origin origin) {
    return origin_words[origin];
}

const char *stream_state_name(enum stream_state state) {
    return state_words[state];
}

const char *stream_outcome_name(enum stream_outcome outcome) {
    return outcome_words[outcome];
}

/* ---- decoding ---- */

static bool take_word(struct json *json, const char *const *words, void *ret) {
    struct json_string text;
    if (!json_take_string(json, &text))
        return false;
    for (unsigned i = 0; words[i] != NULL; i++) {
        if (!json_string_is(&text, words[i]))
            continue;
        memcpy(ret, &i, sizeof i);
        return true;
    }
    return false;
}

static bool take_name(struct json *json, char *out) {
    return json_take_text(json, out, STREAM_NAME_BYTES) && name_valid(slice_str(out));
}

static bool take_field(struct json *json, const struct field *field, void *record) {
    char *at = (char *)record + field->at;
    if (field->flag_at != 0)
        *(bool *)((char *)record + field->flag_at) = true;
    switch (field->kind) {
    case FIELD_NAME:
        return take_name(json, at);
    case FIELD_TEXT:
        return json_take_text(json, at, STREAM_REASON_BYTES);
    case FIELD_BOOL:
        return json_take_bool(json, (bool *)at);
    case FIELD_U64:
        return json_take_u64(json, (uint64_t *)(void *)at);
    case FIELD_WORD:
        return take_word(json, field->words, at);
    }
    UNREACHED();
}

static size_t find_field(const struct field *fields, size_t count, const struct json_string *name) {
    size_t i = 0;
    while (i < count && !json_string_is(name, fields[i].name))
        i++;
    return i;
}

/* The first required field that was not seen, or NULL. */
static const struct field *missing_field(const struct field *fields, size_t count, uint32_t seen) {
    for (size_t i = 0; i < count; i++)
        if (fields[i].presence == FIELD_REQUIRED && (seen >> i & 1u) == 0)
            return &fields[i];
    return NULL;
}

static const char *kind_words(const struct field *field) {
    switch (field->kind) {
    case FIELD_NAME:
        return "a name of 1 to 255 bytes without '/', ':', '*' and control characters";
    case FIELD_TEXT:
        return "a short text";
    case FIELD_BOOL:
        return "true or false";
    case FIELD_U64:
        return "a whole number";
    case FIELD_WORD:
        return "one of create, list, show, delete";
    }
    UNREACHED();
}

static enum felix_err wrong_together(const struct stream_request *request,
                                     struct felix_error *reterr) {
    bool retention = request->has_retention_bytes || request->has_retention_seconds;
    const char *wrong = NULL;
    if (request->op != STREAM_OP_LIST && request->stream[0] == '\0')
        wrong = "stream is missing";
    else if (request->op == STREAM_OP_LIST && request->stream[0] != '\0')
        wrong = "stream has no meaning for list";
    else if (request->op != STREAM_OP_LIST && request->after[0] != '\0')
        wrong = "after is for list only";
    else if (request->op != STREAM_OP_CREATE && (request->durable || retention))
        wrong = "durable and retention are for create only";
    else if (request->op != STREAM_OP_DELETE && request->purge)
        wrong = "purge is for delete only";
    else if (retention && !request->durable)
        wrong = "only a durable stream has retention";
    return wrong == NULL ? FELIX_OK
                         : error_set(reterr, FELIX_INVALID_ARGUMENT, 0, "felix.streams: %s", wrong);
}

enum felix_err stream_request_decode(struct slice body, struct stream_request *ret,
                                     struct felix_error *reterr) {
    struct json json = json_open(body);
    struct json_string name;
    uint32_t seen = 0;
    bool first = true;
    *ret = (struct stream_request){0};
    if (body.len == 0 || !json_object_begin(&json))
        return error_set(reterr, FELIX_INVALID_ARGUMENT, 0, "felix.streams: no object as body");
    while (json_member(&json, &first, &name)) {
        size_t i = find_field(request_fields, REQUEST_FIELDS, &name);
        if (i == REQUEST_FIELDS)
            return error_set(reterr, FELIX_INVALID_ARGUMENT, 0,
                             "felix.streams: this broker does not know '%.*s'",
                             (int)utf8_cut(name.raw, 40), (const char *)name.raw.data);
        if ((seen >> i & 1u) != 0)
            return error_set(reterr, FELIX_INVALID_ARGUMENT, 0, "felix.streams: %s stands twice",
                             request_fields[i].name);
        seen |= 1u << i;
        if (!take_field(&json, &request_fields[i], ret))
            return error_set(reterr, FELIX_INVALID_ARGUMENT, 0, "felix.streams: %s must be %s",
                             request_fields[i].name, kind_words(&request_fields[i]));
    }
    if (!json_finish(&json))
        return error_set(reterr, FELIX_INVALID_ARGUMENT, 0, "felix.streams: the body is no JSON");
    const struct field *missing = missing_field(request_fields, REQUEST_FIELDS, seen);
    if (missing != NULL)
        return error_set(reterr, FELIX_INVALID_ARGUMENT, 0, "felix.streams: %s is missing",
                         missing->name);
    return wrong_together(ret, reterr);
}

/* A record whose unknown members are skipped; `other` takes those that are in no table. */
static bool take_record(struct json *json, const struct field *fields, size_t count, void *record,
                        bool (*other)(struct json *json, const struct json_string *name,
                                      void *record)) {
    struct json_string name;
    uint32_t seen = 0;
    if (!json_object_begin(json))
        return false;
    for (bool first = true; json_member(json, &first, &name);) {
        size_t i = find_field(fields, count, &name);
        if (i == count) {
            if (other != NULL ? !other(json, &name, record) : !json_skip(json))
                return false;
            continue;
        }
        if ((seen >> i & 1u) != 0 || !take_field(json, &fields[i], record))
            return false;
        seen |= 1u << i;
    }
    return !json->failed && missing_field(fields, count, seen) == NULL;
}

static bool take_damage(struct json *json, const struct json_string *name, void *record) {
    struct stream_entry *entry = record;
    if (!json_string_is(name, "damage"))
        return json_skip(json);
    size_t count = 0;
    if (!json_array_begin(json))
        return false;
    for (bool first = true; json_element(json, &first); count++) {
        if (count == STREAM_DAMAGE_MAX ||
            !take_record(json, damage_fields, DAMAGE_FIELDS, &entry->damage[count], NULL))
            return false;
    }
    return !json->failed;
}

/* What is listed is not more than what is counted, and nothing that is listed is left out. */
static bool damage_adds_up(const struct stream_entry *entry) {
    for (size_t i = 0; i < STREAM_DAMAGE_MAX; i++) {
        const struct stream_damage *range = &entry->damage[i];
        if (i < entry->damage_count ? range->end <= range->first : range->end != 0)
            return false;
    }
    return true;
}

static bool take_entries(struct json *json, struct stream_answer *answer) {
    if (answer->entries != NULL || !json_array_begin(json))
        return false;
    answer->entries = xcalloc(STREAM_ANSWER_ENTRIES_MAX, sizeof *answer->entries);
    for (bool first = true; json_element(json, &first); answer->count++) {
        if (answer->count == STREAM_ANSWER_ENTRIES_MAX)
            return false;
        struct stream_entry *entry = &answer->entries[answer->count];
        if (!take_record(json, entry_fields, ENTRY_FIELDS, entry, take_damage) ||
            !damage_adds_up(entry))
            return false;
    }
    return !json->failed;
}

enum felix_err stream_answer_decode(struct slice body, struct stream_answer *ret) {
    struct json json = json_open(body);
    struct json_string name;
    struct stream_answer answer = {0};
    bool ok = body.len > 0 && json_object_begin(&json);
    bool first = true, has_outcome = false;
    while (ok && json_member(&json, &first, &name)) {
        if (json_string_is(&name, "outcome"))
            ok = has_outcome = take_word(&json, outcome_words, &answer.outcome);
        else if (json_string_is(&name, "streams"))
            ok = take_entries(&json, &answer);
        else if (json_string_is(&name, "more"))
            ok = json_take_bool(&json, &answer.more);
        else
            ok = json_skip(&json);
    }
    if (!ok || !json_finish(&json) || !has_outcome || answer.entries == NULL) {
        stream_answer_deinit(&answer);
        return FELIX_MALFORMED;
    }
    *ret = answer;
    return FELIX_OK;
}

void stream_answer_deinit(struct stream_answer *answer) {
    free(answer->entries);
    *answer = (struct stream_answer){0};
}

/* ---- encoding ---- */

static bool is_left_out(const struct field *field, const void *record) {
    const char *at = (const char *)record + field->at;
    if (field->presence == FIELD_REQUIRED)
        return false;
    if (field->flag_at != 0)
        return !*(const bool *)((const char *)record + field->flag_at);
    return *at == 0; /* a text or a bool: no optional number is without a flag */
}

static void put_field(const struct field *field, const void *record, struct text *out) {
    const char *at = (const char *)record + field->at;
    unsigned word;
    uint64_t number;
    switch (field->kind) {
    case FIELD_NAME:
    case FIELD_TEXT:
        text_quoted(out, slice_str(at));
        break;
    case FIELD_BOOL:
        text_add(out, *(const bool *)at ? "true" : "false");
        break;
    case FIELD_U64:
        memcpy(&number, at, sizeof number);
        text_printf(out, "%llu", (unsigned long long)number);
        break;
    case FIELD_WORD:
        memcpy(&word, at, sizeof word);
        text_quoted(out, slice_str(field->words[word]));
        break;
    }
}

/* The members without the braces. */
static void put_record(const struct field *fields, size_t count, const void *record,
                       struct text *out) {
    bool first = true;
    for (size_t i = 0; i < count; i++) {
        if (is_left_out(&fields[i], record))
            continue;
        text_printf(out, "%s\"%s\":", first ? "" : ",", fields[i].name);
        put_field(&fields[i], record, out);
        first = false;
    }
}

void stream_request_encode(const struct stream_request *request, struct text *out) {
    text_char(out, '{');
    put_record(request_fields, REQUEST_FIELDS, request, out);
    text_char(out, '}');
}

void stream_entry_encode(const struct stream_entry *entry, struct text *out) {
    size_t listed =
        entry->damage_count < STREAM_DAMAGE_MAX ? entry->damage_count : STREAM_DAMAGE_MAX;
    text_char(out, '{');
    put_record(entry_fields, ENTRY_FIELDS, entry, out);
    for (size_t i = 0; i < listed; i++) {
        text_add(out, i == 0 ? ",\"damage\":[{" : ",{");
        put_record(damage_fields, DAMAGE_FIELDS, &entry->damage[i], out);
        text_char(out, '}');
    }
    text_add(out, listed > 0 ? "]}" : "}");
}

void stream_answer_encode(const struct stream_answer *answer, struct text *out) {
    text_printf(out, "{\"outcome\":\"%s\",\"streams\":[", outcome_words[answer->outcome]);
    for (size_t i = 0; i < answer->count; i++) {
        text_add(out, i == 0 ? "" : ",");
        stream_entry_encode(&answer->entries[i], out);
    }
    text_printf(out, "]%s}", answer->more ? ",\"more\":true" : "");
}
