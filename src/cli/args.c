/*
 * One pass over the arguments. An option is looked up in the command's table, then among the
 * global ones, by exact name. What is left are operands. The first mistake ends the parse with a
 * text that a user can act on.
 */
#include "cli/args.h"

#include "base/clock.h"
#include "base/options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ARG_NAMES_MAX 96

bool arg_u64_parse(const char *text, uint64_t *ret) {
    if (*text < '0' || *text > '9')
        return false;
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || *end != '\0')
        return false;
    *ret = value;
    return true;
}

size_t arg_u64_list_parse(const char *text, uint64_t *ret, size_t max) {
    size_t count = 0;
    for (;;) {
        size_t len = strcspn(text, ",");
        char item[24];
        if (len == 0 || len >= sizeof item || count == max)
            return 0;
        memcpy(item, text, len);
        item[len] = '\0';
        if (!arg_u64_parse(item, &ret[count++]))
            return 0;
        if (text[len] == '\0')
            return count;
        text += len + 1;
    }
}

bool arg_duration_parse(const char *text, uint64_t bare_unit_ns, uint64_t *ret_ns) {
    static const struct {
        const char *suffix;
        uint64_t ns;
    } units[] = {
        {"ns", 1},
        {"us", NS_PER_US},
        {"ms", NS_PER_MS},
        {"s", NS_PER_S},
        {"m", 60 * NS_PER_S},
        {"h", 3600 * NS_PER_S},
        {"d", 86400 * NS_PER_S},
    };
    if (*text < '0' || *text > '9')
        return false;
    char *end;
    errno = 0;
    double number = strtod(text, &end);
    size_t digits = strspn(text, "0123456789.");
    if (errno != 0 || (size_t)(end - text) != digits)
        return false;
    uint64_t unit = *end == '\0' ? bare_unit_ns : 0;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++)
        if (strcmp(end, units[i].suffix) == 0)
            unit = units[i].ns;
    double ns = number * (double)unit;
    if (unit == 0 || ns > (double)INT64_MAX)
        return false;
    *ret_ns = (uint64_t)(ns + 0.5);
    return true;
}

/* Does `argument` spell this option, alone or with "=value"? Points *ret_value behind the '='. */
static bool option_matches(const struct arg_option *option, const char *argument,
                           const char **ret_value) {
    const char *names[] = {option->name, option->alias};
    for (size_t i = 0; i < 2; i++) {
        if (names[i] == NULL)
            continue;
        size_t len = strlen(names[i]);
        if (strncmp(argument, names[i], len) != 0)
            continue;
        if (argument[len] == '\0') {
            *ret_value = NULL;
            return true;
        }
        if (argument[len] == '=') {
            *ret_value = argument + len + 1;
            return true;
        }
    }
    return false;
}

static enum felix_err set_number(const struct arg_option *option, const char *value,
                                 struct felix_error *reterr) {
    uint64_t number;
    bool good = arg_u64_parse(value, &number) && number >= option->min &&
                (option->max == 0 || number <= option->max);
    if (good) {
        *(uint64_t *)option->value = number;
        return FELIX_OK;
    }
    if (option->max != 0)
        return error_set(reterr, FELIX_INVALID_ARGUMENT, 0,
                         "%s: '%s' is not a number from %llu to %llu", option->name, value,
                         (unsigned long long)option->min, (unsigned long long)option->max);
    return error_set(reterr, FELIX_INVALID_ARGUMENT, 0, "%s: '%s' is not a number from %llu on",
                     option->name, value, (unsigned long long)option->min);
}

static enum felix_err set_duration(const struct arg_option *option, const char *value,
                                   struct felix_error *reterr) {
    uint64_t ns;
    if (!arg_duration_parse(value, NS_PER_S, &ns) || ns < option->min ||
        (option->max != 0 && ns > option->max))
        return error_set(reterr, FELIX_INVALID_ARGUMENT, 0,
                         "%s: '%s' is not a duration such as 500ms, 5s or 1h%s", option->name,
                         value, option->min > 0 ? " above zero" : "");
    *(uint64_t *)option->value = ns;
    return FELIX_OK;
}

static enum felix_err set_rate(const struct arg_option *option, const char *value,
                               struct felix_error *reterr) {
    char *end;
    errno = 0;
    double number = strtod(value, &end);
    if (errno != 0 || end == value || *end != '\0' || !(number > 0) || number > 1e9)
        return error_set(reterr, FELIX_INVALID_ARGUMENT, 0,
                         "%s: '%s' is not a rate per second above zero", option->name, value);
    *(double *)option->value = number;
    return FELIX_OK;
}

static enum felix_err set_choice(const struct arg_option *option, const char *value,
                                 struct felix_error *reterr) {
    uint32_t index = 0;
    for (const char *word = option->words;; index++) {
        size_t len = strcspn(word, "|");
        if (strlen(value) == len && memcmp(word, value, len) == 0) {
            *(uint32_t *)option->value = index;
            return FELIX_OK;
        }
        if (word[len] == '\0')
            return error_set(reterr, FELIX_INVALID_ARGUMENT, 0, "%s: '%s' is none of %s",
                             option->name, value, option->words);
        word += len + 1;
    }
}

static enum felix_err set_list(const struct arg_option *option, const char *value,
                               struct felix_error *reterr) {
    struct arg_list *list = option->value;
    if (list->count == ARG_LIST_MAX)
        return error_set(reterr, FELIX_INVALID_ARGUMENT, 0, "%s: given more than %u times",
                         option->name, ARG_LIST_MAX);
    list->items[list->count++] = value;
    return FELIX_OK;
}

static enum felix_err option_set(const struct arg_option *option, const char *value,
                                 struct felix_error *reterr) {
    switch (option->type) {
    case ARG_FLAG:
    case ARG_FLAG_OFF:
        *(bool *)option->value = option->type == ARG_FLAG;
        return FELIX_OK;
    case ARG_TEXT:
        *(const char **)option->value = value;
        return FELIX_OK;
    case ARG_LIST:
        return set_list(option, value, reterr);
    case ARG_U64:
        return set_number(option, value, reterr);
    case ARG_RATE:
        return set_rate(option, value, reterr);
    case ARG_DURATION:
        return set_duration(option, value, reterr);
    case ARG_CHOICE:
        return set_choice(option, value, reterr);
    }
    return FELIX_OK;
}

enum felix_err args_take(const struct arg_option *table, int argc, char *const *argv, int *at,
                         struct felix_error *reterr) {
    const struct arg_option *option = table;
    const char *value = NULL;
    while (option != NULL && option->name != NULL && !option_matches(option, argv[*at], &value))
        option++;
    if (option == NULL || option->name == NULL)
        return FELIX_NOT_FOUND;

    bool takes_none = option->type == ARG_FLAG || option->type == ARG_FLAG_OFF;
    if (takes_none && value != NULL)
        return error_set(reterr, FELIX_INVALID_ARGUMENT, 0, "%s takes no value", option->name);
    int used = 1;
    if (!takes_none && value == NULL) {
        if (*at + 1 >= argc)
            return error_set(reterr, FELIX_INVALID_ARGUMENT, 0, "%s needs a value (%s)",
                             option->name, option->meta != NULL ? option->meta : "...");
        value = argv[*at + 1];
        used = 2;
    }
    enum felix_err err = option_set(option, value, reterr);
    if (err != FELIX_OK)
        return err;
    if (option->given != NULL)
        *option->given = true;
    *at += used;
    return FELIX_OK;
}

static size_t add_names(const struct arg_option *table, const char **names, size_t count) {
    for (; table != NULL && table->name != NULL && count < ARG_NAMES_MAX; table++)
        names[count++] = table->name;
    return count;
}

enum felix_err args_unknown(const char *option, const struct arg_option *table,
                            const struct arg_option *globals, struct felix_error *reterr) {
    const char *names[ARG_NAMES_MAX + 1];
    names[add_names(globals, names, add_names(table, names, 0))] = NULL;
    char word[64];
    size_t len = strcspn(option, "=");
    (void)snprintf(word, sizeof word, "%.*s", (int)(len < 63 ? len : 63), option);
    const char *nearest = option_nearest(word, names);
    return error_set(reterr, FELIX_INVALID_ARGUMENT, 0, "unknown option %s%s%s%s", word,
                     nearest != NULL ? "; did you mean " : "", nearest != NULL ? nearest : "",
                     nearest != NULL ? "?" : "");
}

enum felix_err args_parse(struct args *args, int argc, char *const *argv,
                          struct felix_error *reterr) {
    bool options_ended = false;
    int at = 0;
    while (at < argc) {
        const char *argument = argv[at];
        if (!options_ended && argument[0] == '-' && argument[1] != '\0') {
            if (strcmp(argument, "--") == 0) {
                options_ended = true;
                at++;
                continue;
            }
            enum felix_err err = args_take(args->options, argc, argv, &at, reterr);
            if (err == FELIX_NOT_FOUND)
                err = args_take(args->globals, argc, argv, &at, reterr);
            if (err == FELIX_NOT_FOUND)
                err = args_unknown(argument, args->options, args->globals, reterr);
            if (err != FELIX_OK)
                return err;
            continue;
        }
        if (args->operands_count == ARG_OPERANDS_MAX)
            return error_set(reterr, FELIX_INVALID_ARGUMENT, 0, "too many arguments, from '%s' on",
                             argument);
        args->operands[args->operands_count++] = argument;
        at++;
    }
    return FELIX_OK;
}

void args_print_options(const struct arg_option *table, FILE *out) {
    for (; table != NULL && table->name != NULL; table++) {
        if (table->help == NULL)
            continue;
        char left[64];
        const char *meta = table->words != NULL ? table->words : table->meta;
        (void)snprintf(left, sizeof left, "%s%s%s%s%s", table->alias != NULL ? table->alias : "",
                       table->alias != NULL ? ", " : "", table->name, meta != NULL ? " " : "",
                       meta != NULL ? meta : "");
        if (strlen(left) > 26)
            (void)fprintf(out, "  %s\n  %-26s  %s\n", left, "", table->help);
        else
            (void)fprintf(out, "  %-26s  %s\n", left, table->help);
    }
}
