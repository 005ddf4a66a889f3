#include "env_args.h"

#include "base/check.h"
#include "base/options.h"
#include "cli/out.h"

#include <stdlib.h>
#include <string.h>

static const char *env_value(const char *name) {
    const char *value = getenv(name);
    return value != NULL && value[0] != '\0' ? value : NULL;
}

static enum felix_err apply(const struct arg_option *row, const char *value,
                            struct felix_error *reterr) {
    struct arg_option table[] = {*row, {.name = NULL}};
    bool truth;
    table[0].given = NULL; /* a default of the user's, not a wish of this run */
    if (row->type == ARG_FLAG || row->type == ARG_FLAG_OFF) {
        if (!option_bool_parse(value, &truth))
            return error_set(reterr, FELIX_INVALID_ARGUMENT, 0, "'%s' is neither 1 nor 0", value);
        *(bool *)row->value = truth;
        return FELIX_OK;
    }
    char *name = xstrdup(row->name);
    char *copy = xstrdup(value);
    char *words[] = {name, copy};
    int at = 0;
    enum felix_err err = args_take(table, 2, words, &at, reterr);
    /* A text option keeps pointing at its value, which has to outlive this call. */
    if (err == FELIX_OK && row->type == ARG_TEXT)
        *(const char **)row->value = value;
    free(name);
    free(copy);
    return err;
}

enum felix_err env_args_apply(const struct env_arg *vars, const struct arg_option *table,
                              struct felix_error *reterr) {
    for (; vars->env != NULL; vars++) {
        const char *value = env_value(vars->env);
        if (value == NULL || vars->option == NULL)
            continue;
        const struct arg_option *row = table;
        while (row->name != NULL && strcmp(row->name, vars->option) != 0)
            row++;
        INVARIANT(row->name != NULL);
        struct felix_error error = {0};
        enum felix_err err = apply(row, value, &error);
        if (err != FELIX_OK)
            return error_set(reterr, err, 0, "%s (as %s)", vars->env, error.text);
    }
    return FELIX_OK;
}

void env_args_warn_unused(const struct env_arg *vars) {
    struct text names = {0};
    for (; vars->env != NULL; vars++) {
        if (vars->option == NULL && env_value(vars->env) != NULL)
            text_printf(&names, "%s%s", names.len == 0 ? "" : ", ", vars->env);
    }
    if (names.len != 0)
        out_error("warning: without effect here: %s", text_str(&names));
    text_deinit(&names);
}
