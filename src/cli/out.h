/*
 * What the programs print: errors, durations, payloads, JSON; for people, for pipes, for parsers.
 * Standard output carries results only; everything else goes to standard error. One thread.
 */
#ifndef CLI_OUT_H
#define CLI_OUT_H

#include "base/err.h"
#include "base/text.h"

/* Exit codes; --help and the manual pages list them. */
enum exit_code {
    EXIT_DONE = 0,
    EXIT_NOTHING = 1,       /* not found, or nothing was received */
    EXIT_USAGE = 2,         /* wrong arguments, or a file that cannot be used */
    EXIT_CONNECTION = 3,    /* no broker, TLS, or the connection was lost */
    EXIT_REFUSED = 4,       /* identity, permission, or a limit of the broker */
    EXIT_TIMEOUT = 5,       /* connected, but it took too long, or something was lost */
    EXIT_INTERRUPTED = 130, /* SIGINT or SIGTERM before everything that was asked for was done */
};

/** The exit code that stands for a library error. */
int exit_code_of(enum felix_err err);

/** Print "PROGRAM: TEXT" to standard error. The program's name is set once, by main. */
void out_program(const char *name);
const char *out_program_name(void);
void out_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

/** As out_error for usage mistakes: adds where help is, and returns EXIT_USAGE. */
int out_usage(const char *help_command, const char *text);

/** Does standard output (standard error) go to a terminal? */
bool out_is_terminal(void);
bool out_errors_are_terminal(void);

/** Write all of `text` to standard output, past stdio, and empty it. False: the disk is full or
 * nobody reads any more; the latter, which is no failure, sets `*ret_gone`. */
bool out_write(struct text *text, bool *ret_gone);

/** Has the reader of standard output gone away? Does not block. */
bool out_reader_gone(void);

struct duration_text {
    char text[32];
};

/** "417 ns", "12.3 us", "1.234 ms", "2.5 s", whatever reads best. */
struct duration_text out_duration(uint64_t ns);

/** "90 seconds", "3 hours", "12 days": one rounded unit, for prose. */
struct duration_text out_span(uint64_t seconds);

struct time_text {
    char text[40];
};

/** A time in microseconds since 1970: "2026-01-02T03:04:05.123456Z". */
struct time_text out_time(uint64_t us);

/** "1234567" as "1,234,567". */
struct duration_text out_count(uint64_t n);

/** Append `name` and a payload: as a JSON string when it is UTF-8, else as NAME_base64. */
void out_json_payload(struct text *text, const char *name, struct slice payload);

/** Append a payload for a terminal: control characters and broken UTF-8 are shown escaped, so
 * that nobody's payload can steer the terminal. */
void out_printable(struct text *text, struct slice payload);

#endif
