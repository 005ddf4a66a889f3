/* What options.c and options_page.c share: the words for what a row allows. */
#ifndef BASE_OPTIONS_RULE_H
#define BASE_OPTIONS_RULE_H

#include "base/options.h"

/** The largest number that the row takes. */
uint64_t option_row_max(const struct option_row *row);

/** Appends what is allowed, to follow "must be": "a number 1 .. 65535", "one of a, b". */
void option_row_rule(const struct option_row *row, struct text *out);

#endif
