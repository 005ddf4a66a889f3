/*
 * Tokens as their owner reads them: claims, and whether it is valid by its times. Nothing is
 * verified here. Pure functions over the JSON that token_inspect gives.
 */
#ifndef CLI_TOKEN_VIEW_H
#define CLI_TOKEN_VIEW_H

#include "base/text.h"

struct token_validity {
    bool now;        /* valid by its times */
    char words[200]; /* "expired 3 hours ago, at 2026-01-31 12:00:00 UTC" */
};

/** Judge the times in a token's claims; `now_s` is the wall clock, seconds since the epoch. */
struct token_validity token_validity(const char *claims, int64_t now_s);

/** The text of a string claim, without its quotes and with its escapes; empty when it is missing.
 * Borrowed from `claims`. */
struct slice token_claim(const char *claims, const char *name);

/** Append the members of a JSON object, one a line, times in words, for a terminal. */
void token_members(const char *object, struct text *out);

#endif
