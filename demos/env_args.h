/* Environment variables that stand for options: read through the option's own row, so that a bad
 * value is the same error. One thread, at start. */
#ifndef DEMOS_ENV_ARGS_H
#define DEMOS_ENV_ARGS_H

#include "cli/args.h"

struct env_arg {
    const char *env;
    const char *option; /* of the table; NULL: known, but without a meaning here */
};

/**
 * Apply those of `vars` (ended by a NULL env) that are set, in order, so that the last one counts.
 * An option whose type is a flag takes a truth value. FELIX_INVALID_ARGUMENT names the variable.
 */
enum felix_err env_args_apply(const struct env_arg *vars, const struct arg_option *table,
                              struct felix_error *reterr);

/** Say once on standard error which of the set variables have no meaning here. */
void env_args_warn_unused(const struct env_arg *vars);

#endif
