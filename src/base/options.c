/*
 * One function per type turns a word into a value; everything else walks the table.
 *
 * A value is parsed into a `union value` first and stored only when it is good, so that a refused
 * one never leaves a trace. The text that is allowed for a row is made from the row itself, and is
 * the same in errors, in the help and in the reference.
 */
#include "base/options.h"

#include "base/check.h"
#include "base/options_rule.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

/* X(env, balanced, high_memory): what tests and published results call a profile. */
#define PROFILE_MAP(X)                                                                             \
    X("FELIX_PUB_CONN_POOL", "4", "4")                                                             \
    X("FELIX_PUB_STREAMS_PER_CONN", "2", "2")                                                      \
    X("FELIX_EVENT_CONN_POOL", "8", "8")                                                           \
    X("FELIX_EVENT_CONN_RECV_WINDOW", "268435456", "536870912")                                    \
    X("FELIX_EVENT_STREAM_RECV_WINDOW", "67108864", "134217728")                                   \
    X("FELIX_EVENT_SEND_WINDOW", "268435456", "536870912")                                         \
    X("FELIX_EVENT_BATCH_MAX_DELAY_US", "250", "250")                                              \
    X("FELIX_PUBLISH_CHUNK_BYTES", "16384", "32768")                                               \
    X("FELIX_CACHE_CONN_POOL", "8", "8")                                                           \
    X("FELIX_CACHE_STREAMS_PER_CONN", "4", "4")                                                    \
    X("FELIX_DISABLE_TIMINGS", "0", "1")

struct profile_row {
    const char *env;
    const char *values[2];
};

#define PROFILE_ROW(env, balanced, high_memory) {env, {balanced, high_memory}},
static const struct profile_row profile_rows[] = {PROFILE_MAP(PROFILE_ROW)};
static const char *const profile_names[] = {"balanced", "high_memory"};
#define PROFILE_ROWS (sizeof profile_rows / sizeof profile_rows[0])

union value {
    uint64_t number;
    bool truth;
    struct option_addr addr;
};

static void *field_of(const struct options *options, const struct option_row *row) {
    return (char *)options->target + row->offset;
}

static bool digits_parse(const char *text, size_t len, uint64_t *ret) {
    uint64_t value = 0;
    if (len == 0)
        return false;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        if (__builtin_mul_overflow(value, 10u, &value) ||
            __builtin_add_overflow(value, (uint64_t)(text[i] - '0'), &value))
            return false;
    }
    *ret = value;
    return true;
}

struct suffix {
    const char *text;
    uint64_t factor;
};

/* Digits, then nothing, or blanks and one of the suffixes. */
static bool number_parse(const char *text, const struct suffix *suffixes, uint64_t *ret) {
    size_t digits = strspn(text, "0123456789");
    const char *rest = text + digits + strspn(text + digits, " ");
    uint64_t value;
    if (!digits_parse(text, digits, &value))
        return false;
    if (text[digits] == '\0') {
        *ret = value;
        return true;
    }
    for (; suffixes != NULL && suffixes->text != NULL; suffixes++) {
        if (strcasecmp(rest, suffixes->text) == 0)
            return !__builtin_mul_overflow(value, suffixes->factor, ret);
    }
    return false;
}

bool option_bytes_parse(const char *value, uint64_t *ret) {
    static const struct suffix suffixes[] = {
        {"B", 1}, {"KiB", 1024}, {"MiB", 1024 * 1024}, {"GiB", 1024 * 1024 * 1024}, {NULL, 0}};
    return number_parse(value, suffixes, ret);
}

static bool duration_ms_parse(const char *value, uint64_t *ret) {
    static const struct suffix suffixes[] = {{"ms", 1}, {"s", 1000}, {NULL, 0}};
    return number_parse(value, suffixes, ret);
}

bool option_bool_parse(const char *value, bool *ret) {
    static const char *const words[] = {"0", "1", "false", "true", "no", "yes", "off", "on"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strcasecmp(value, words[i]) != 0)
            continue;
        *ret = i % 2 == 1;
        return true;
    }
    return false;
}

static bool enum_parse(const char *words, const char *value, uint64_t *ret) {
    size_t value_len = strlen(value);
    uint64_t number = 0;
    for (const char *at = words;; at++) {
        size_t len = strcspn(at, "|=");
        if (len == value_len && strncasecmp(at, value, len) == 0) {
            *ret = number;
            return true;
        }
        at += len;
        if (*at == '\0')
            return false;
        number += *at == '|'; /* behind '=' stands another spelling of the same */
    }
}

static bool addr_parse(const char *value, struct option_addr *ret) {
    char host[INET6_ADDRSTRLEN + 2];
    const char *colon = strrchr(value, ':');
    uint64_t port;
    if (colon == NULL || (size_t)(colon - value) >= sizeof host)
        return false;
    if (!digits_parse(colon + 1, strlen(colon + 1), &port) || port > UINT16_MAX)
        return false;

    size_t host_len = (size_t)(colon - value);
    bool bracketed = host_len >= 2 && value[0] == '[' && value[host_len - 1] == ']';
    if (bracketed) {
        value++;
        host_len -= 2;
    }
    memcpy(host, value, host_len);
    host[host_len] = '\0';

    struct option_addr addr = {0};
    if (bracketed) {
        struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
        if (inet_pton(AF_INET6, host, &in6.sin6_addr) != 1)
            return false;
        memcpy(&addr.storage, &in6, sizeof in6);
        addr.len = sizeof in6;
    } else {
        struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
        if (inet_pton(AF_INET, host, &in.sin_addr) != 1)
            return false;
        memcpy(&addr.storage, &in, sizeof in);
        addr.len = sizeof in;
    }
    *ret = addr;
    return true;
}

enum felix_err option_addr_parse(const char *value, struct option_addr *ret,
                                 struct felix_error *reterr) {
    if (addr_parse(value, ret))
        return FELIX_OK;
    return error_set(reterr, FELIX_INVALID_ARGUMENT, 0,
                     "\"%.100s\": must be a numeric address with port: 127.0.0.1:5000 or "
                     "[::1]:5000",
                     value);
}

void option_addr_text(const struct option_addr *addr, struct text *out) {
    char host[INET6_ADDRSTRLEN] = "";
    if (addr->storage.ss_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, &addr->storage, sizeof in6);
        (void)inet_ntop(AF_INET6, &in6.sin6_addr, host, sizeof host);
        text_printf(out, "[%s]:%u", host, ntohs(in6.sin6_port));
        return;
    }
    struct sockaddr_in in;
    memcpy(&in, &addr->storage, sizeof in);
    (void)inet_ntop(AF_INET, &in.sin_addr, host, sizeof host);
    text_printf(out, "%s:%u", host, ntohs(in.sin_port));
}

uint64_t option_row_max(const struct option_row *row) {
    if (row->max != 0)
        return row->max;
    return row->type == OPTION_U32 ? UINT32_MAX : UINT64_MAX;
}

/* The value of `text` for this row; false: not usable. Strings need no parsing. */
static bool value_parse(const struct option_row *row, const char *text, union value *ret) {
    bool good = false;
    switch (row->type) {
    case OPTION_U32:
    case OPTION_U64:
        good = number_parse(text, NULL, &ret->number);
        break;
    case OPTION_BYTES:
        good = option_bytes_parse(text, &ret->number);
        break;
    case OPTION_DURATION_MS:
        good = duration_ms_parse(text, &ret->number);
        break;
    case OPTION_BOOL:
        return option_bool_parse(text, &ret->truth);
    case OPTION_ENUM:
        return enum_parse(row->words, text, &ret->number);
    case OPTION_ADDR:
        return addr_parse(text, &ret->addr);
    case OPTION_STRING:
    case OPTION_PATH:
        return true;
    }
    return good && ret->number >= row->min && ret->number <= option_row_max(row);
}

/* A number that is not set has no value that would have to be in its range. */
static bool starts_unset(const struct option_row *row) {
    return row->initial[0] == '\0' &&
           (row->type == OPTION_U32 || row->type == OPTION_U64 || row->type == OPTION_BYTES ||
            row->type == OPTION_DURATION_MS);
}

static void value_store(const struct options *options, const struct option_row *row,
                        const char *text, const union value *value) {
    void *field = field_of(options, row);
    switch (row->type) {
    case OPTION_U32:
    case OPTION_ENUM:
        *(uint32_t *)field = (uint32_t)value->number;
        break;
    case OPTION_U64:
    case OPTION_BYTES:
    case OPTION_DURATION_MS:
        *(uint64_t *)field = value->number;
        break;
    case OPTION_BOOL:
        *(bool *)field = value->truth;
        break;
    case OPTION_STRING:
    case OPTION_PATH: {
        char *copy = xstrdup(text);
        free(*(char **)field);
        *(char **)field = copy;
        break;
    }
    case OPTION_ADDR:
        *(struct option_addr *)field = value->addr;
        break;
    }
}

void options_init(struct options *options, const struct option_row *rows, size_t count,
                  void *target) {
    INVARIANT(count <= OPTION_ROWS_MAX);
    *options = (struct options){.rows = rows, .count = count, .target = target};
    for (size_t i = 0; i < count; i++) {
        union value value = {0};
        INVARIANT(starts_unset(&rows[i]) || value_parse(&rows[i], rows[i].initial, &value));
        if (rows[i].type == OPTION_STRING || rows[i].type == OPTION_PATH)
            *(char **)field_of(options, &rows[i]) = NULL;
        value_store(options, &rows[i], rows[i].initial, &value);
    }
}

void options_deinit(struct options *options) {
    for (size_t i = 0; i < options->count; i++) {
        const struct option_row *row = &options->rows[i];
        if (row->type != OPTION_STRING && row->type != OPTION_PATH)
            continue;
        char **field = field_of(options, row);
        free(*field);
        *field = NULL;
    }
    *options = (struct options){0};
}

enum felix_err options_set(struct options *options, size_t row, enum option_source source,
                           const char *name, const char *value, struct felix_error *reterr) {
    INVARIANT(row < options->count);
    union value parsed = {0};
    if (!value_parse(&options->rows[row], value, &parsed)) {
        struct text shown = {0};
        struct text rule = {0};
        text_quoted(&shown, slice_of(value, strnlen(value, 60)));
        option_row_rule(&options->rows[row], &rule);
        enum felix_err err = error_set(reterr, FELIX_INVALID_ARGUMENT, 0, "%s=%s: must be %s", name,
                                       text_str(&shown), text_str(&rule));
        text_deinit(&shown);
        text_deinit(&rule);
        return err;
    }
    if (source < options->sources[row])
        return FELIX_OK;
    value_store(options, &options->rows[row], value, &parsed);
    options->sources[row] = (uint8_t)source;
    return FELIX_OK;
}

size_t options_find_key(const struct options *options, const char *key) {
    size_t row = 0;
    while (row < options->count &&
           (options->rows[row].key == NULL || strcmp(options->rows[row].key, key) != 0))
        row++;
    return row;
}

/* Copies the first of the '|'-separated names to `name` and returns what follows, or NULL. */
static const char *next_name(const char *names, char name[64]) {
    size_t len = strcspn(names, "|");
    INVARIANT(len < 64);
    memcpy(name, names, len);
    name[len] = '\0';
    return names[len] == '|' ? names + len + 1 : NULL;
}

size_t options_find_env(const struct options *options, const char *name) {
    char own[64];
    for (size_t row = 0; row < options->count; row++) {
        for (const char *names = options->rows[row].env; names != NULL;) {
            names = next_name(names, own);
            if (strcmp(own, name) == 0)
                return row;
        }
    }
    return options->count;
}

static size_t edit_distance(const char *a, const char *b) {
    size_t previous[64];
    size_t b_len = strlen(b);
    if (strlen(a) >= 64 || b_len >= 64)
        return SIZE_MAX;
    for (size_t j = 0; j <= b_len; j++)
        previous[j] = j;
    for (size_t i = 0; a[i] != '\0'; i++) {
        size_t diagonal = previous[0];
        previous[0] = i + 1;
        for (size_t j = 0; j < b_len; j++) {
            size_t change = diagonal + (a[i] != b[j]);
            size_t insert = previous[j] + 1;
            size_t remove = previous[j + 1] + 1;
            diagonal = previous[j + 1];
            previous[j + 1] = change < insert ? change : insert;
            if (remove < previous[j + 1])
                previous[j + 1] = remove;
        }
    }
    return previous[b_len];
}

const char *option_nearest(const char *word, const char *const *candidates) {
    const char *best = NULL;
    size_t best_distance = strlen(word) / 3 + 2; /* further away is another word */
    for (; *candidates != NULL; candidates++) {
        size_t distance = edit_distance(word, *candidates);
        if (distance >= best_distance)
            continue;
        best = *candidates;
        best_distance = distance;
    }
    return best;
}

enum felix_err options_set_key(struct options *options, enum option_source source, const char *key,
                               const char *value, struct felix_error *reterr) {
    size_t row = options_find_key(options, key);
    if (row < options->count)
        return options_set(options, row, source, key, value, reterr);

    const char *keys[OPTION_ROWS_MAX + 1];
    size_t used = 0;
    for (size_t i = 0; i < options->count; i++) {
        if (options->rows[i].key != NULL)
            keys[used++] = options->rows[i].key;
    }
    keys[used] = NULL;
    const char *nearest = option_nearest(key, keys);
    if (nearest != NULL)
        return error_set(reterr, FELIX_NOT_FOUND, 0, "unknown key \"%.64s\": did you mean \"%s\"?",
                         key, nearest);
    return error_set(reterr, FELIX_NOT_FOUND, 0, "unknown key \"%.64s\"", key);
}

/* The variable of a row; `spaced` ones without the blanks around them, which `room` then holds.
 * NULL: not set. */
static const char *env_value(const struct option_row *row, const char *name, char room[4096]) {
    const char *value = getenv(name);
    if (value == NULL || !row->spaced)
        return value;
    value += strspn(value, " \t\r\n");
    size_t len = strlen(value);
    while (len > 0 && strchr(" \t\r\n", value[len - 1]) != NULL)
        len--;
    if (len == 0)
        return NULL;
    if (len >= 4096)
        return value;
    memcpy(room, value, len);
    room[len] = '\0';
    return room;
}

enum felix_err options_load_env(struct options *options, struct felix_error *reterr) {
    char name[64], room[4096];
    for (size_t row = 0; row < options->count; row++) {
        for (const char *names = options->rows[row].env; names != NULL;) {
            names = next_name(names, name);
            const char *value = env_value(&options->rows[row], name, room);
            if (value == NULL)
                continue;
            enum felix_err err = options_set(options, row, OPTION_FROM_ENV, name, value, reterr);
            if (err != FELIX_OK)
                return err;
            break;
        }
    }
    return FELIX_OK;
}

static enum felix_err unknown_flag(const struct options *options, const char *name, size_t name_len,
                                   struct felix_error *reterr) {
    const char *flags[OPTION_ROWS_MAX + 1];
    char word[64];
    size_t used = 0;
    for (size_t i = 0; i < options->count; i++) {
        if (options->rows[i].flag != NULL)
            flags[used++] = options->rows[i].flag;
    }
    flags[used] = NULL;
    (void)snprintf(word, sizeof word, "%.*s", (int)(name_len < 63 ? name_len : 63), name);
    const char *nearest = option_nearest(word, flags);
    if (nearest != NULL)
        return error_set(reterr, FELIX_NOT_FOUND, 0, "unknown flag --%s: did you mean --%s?", word,
                         nearest);
    return error_set(reterr, FELIX_NOT_FOUND, 0, "unknown flag --%s: see --help", word);
}

enum felix_err options_take_arg(struct options *options, int argc, char *const *argv, int *at,
                                struct felix_error *reterr) {
    const char *arg = argv[*at];
    if (strncmp(arg, "--", 2) != 0 || arg[2] == '\0')
        return error_set(reterr, FELIX_NOT_FOUND, 0, "unknown argument \"%.64s\": see --help", arg);

    const char *name = arg + 2;
    size_t name_len = strcspn(name, "=");
    size_t row = 0;
    for (; row < options->count; row++) {
        const char *flag = options->rows[row].flag;
        if (flag != NULL && strlen(flag) == name_len && memcmp(flag, name, name_len) == 0)
            break;
    }
    if (row == options->count)
        return unknown_flag(options, name, name_len, reterr);

    const char *value = NULL;
    int used = 1;
    if (name[name_len] == '=') {
        value = name + name_len + 1;
    } else if (options->rows[row].type == OPTION_BOOL) {
        value = "true";
    } else if (*at + 1 < argc && strncmp(argv[*at + 1], "--", 2) != 0) {
        value = argv[*at + 1];
        used = 2;
    } else {
        return error_set(reterr, FELIX_INVALID_ARGUMENT, 0, "--%s needs a value",
                         options->rows[row].flag);
    }

    char shown[64];
    (void)snprintf(shown, sizeof shown, "--%s", options->rows[row].flag);
    enum felix_err err = options_set(options, row, OPTION_FROM_ARGS, shown, value, reterr);
    if (err == FELIX_OK)
        *at += used;
    return err;
}

bool options_env_in_profile(const char *env) {
    for (size_t i = 0; i < PROFILE_ROWS; i++) {
        if (strcmp(profile_rows[i].env, env) == 0)
            return true;
    }
    return false;
}

enum felix_err options_apply_profile(struct options *options, const char *profile,
                                     struct felix_error *reterr) {
    size_t number = 0;
    while (number < 2 && strcasecmp(profile_names[number], profile) != 0)
        number++;
    if (number == 2)
        return error_set(reterr, FELIX_INVALID_ARGUMENT, 0,
                         "profile \"%.64s\": must be balanced or high_memory", profile);

    for (size_t i = 0; i < PROFILE_ROWS; i++) {
        size_t row = options_find_env(options, profile_rows[i].env);
        if (row == options->count)
            continue;
        enum felix_err err = options_set(options, row, OPTION_FROM_PROFILE, profile_rows[i].env,
                                         profile_rows[i].values[number], reterr);
        INVARIANT(err == FELIX_OK);
    }
    return FELIX_OK;
}

const char *options_source_name(enum option_source source) {
    static const char *const names[] = {"default", "profile", "file", "environment",
                                        "command line"};
    return names[source];
}
