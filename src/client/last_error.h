/* The text of the last failure, per thread. Source: felix.h, felix_last_error. */
#ifndef CLIENT_LAST_ERROR_H
#define CLIENT_LAST_ERROR_H

#include <felix/felix.h>

#include "base/err.h"

/** This thread's record, to be handed on as `reterr`. */
struct felix_error *last_error(void);

/** Set it and return `code`. */
#define last_error_set(code, ...) error_set(last_error(), (code), 0, __VA_ARGS__)

/** What goes with a cursor error or a lag, which was or is about to be set. */
void last_error_set_cursor(struct felix_cursor_error cursor);

/** Nothing failed on this thread so far. Returns FELIX_OK. */
enum felix_err last_error_clear(void);

#endif
