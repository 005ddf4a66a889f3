/* Names and texts of felix_err, and the record that carries what a user will read. Any thread. */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include "felix/errors.h"

/** Returns the static name of `err`, for example "BAD_MAGIC"; "UNKNOWN" for a foreign value. */
const char *err_name(enum felix_err err);

/** Returns the static text of `err`, for example "not a Felix frame". */
const char *err_text(enum felix_err err);

/* A failure as a user reads it: what was tried, with which value, and what to do.
 * Start-up, configuration, command line and client only; never on the data path. */
struct felix_error {
    enum felix_err code;
    int sys_errno; /* 0 when the operating system had no part in it */
    char text[512];
};

/**
 * Fill `reterr` (may be NULL) and return `code`, so that a failing function can write
 * `return error_set(reterr, FELIX_SYSTEM, errno, "cannot open %s", path);`.
 */
enum felix_err error_set(struct felix_error *reterr, enum felix_err code, int sys_errno,
                         const char *format, ...) __attribute__((format(printf, 4, 5)));

/* A lint tool sees one file at a time: this tells it that the code that goes in comes out. */
#ifdef __clang_analyzer__
#define error_set(reterr, code, ...) ((void)error_set(reterr, code, __VA_ARGS__), (code))
#endif

#endif
