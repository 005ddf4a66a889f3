/*
 * Settings from a table: rows in, a filled struct out.
 *
 * A program lists its settings once, in a .def file of X-macro rows, and makes from it its struct
 * and its `struct option_row` table with the macros at the end of this header. From the table come
 * the parsers of the environment, the command line and single keys, the profile, the help, the
 * printed configuration and the reference page. A value from a higher source replaces one from a
 * lower: default, profile, file, environment, command line, whatever the order of the calls.
 *
 * At start-up, one thread. `struct options` borrows the table and the target, and owns the strings
 * inside the target. Every error names the setting as the user wrote it, the value, and what is
 * allowed.
 */
#ifndef BASE_OPTIONS_H
#define BASE_OPTIONS_H

#include "base/err.h"
#include "base/slice.h"
#include "base/text.h"

#include <sys/socket.h>

enum option_type {
    OPTION_U32,         /* uint32_t */
    OPTION_U64,         /* uint64_t */
    OPTION_BYTES,       /* uint64_t; accepts the suffixes KiB, MiB and GiB */
    OPTION_DURATION_MS, /* uint64_t; accepts the suffixes ms and s, plain is milliseconds */
    OPTION_BOOL,        /* bool; 1 true yes on, 0 false no off, any case */
    OPTION_STRING,      /* char *, never NULL; empty means not set */
    OPTION_PATH,        /* as OPTION_STRING */
    OPTION_ADDR,        /* struct option_addr; numeric ip:port or [v6]:port */
    OPTION_ENUM,        /* uint32_t; the position of the word in `words` */
};

enum option_source {
    OPTION_FROM_DEFAULT,
    OPTION_FROM_PROFILE,
    OPTION_FROM_FILE,
    OPTION_FROM_ENV,
    OPTION_FROM_ARGS,
};

struct option_addr {
    struct sockaddr_storage storage;
    socklen_t len;
};

struct option_row {
    const char *env;  /* names split by '|': the first one that is set counts; NULL: none */
    const char *key;  /* in the file, and the name of the field; NULL: not in the file */
    const char *flag; /* without the leading dashes; NULL: none */
    const char *help;
    const char *group;
    const char *initial; /* the default, as a user would write it; of numbers "": not set, 0 */
    const char *words;   /* OPTION_ENUM: "one|two=zwei=deux|three", other spellings after '=' */
    uint64_t min;
    uint64_t max; /* of numbers; 0 together with min 0: whatever the type holds */
    size_t offset;
    enum option_type type;
    bool spaced; /* in the environment, blanks around the value do not count, and nothing but
                    blanks is as good as not set */
};

#define OPTION_ROWS_MAX 128

struct options {
    const struct option_row *rows;
    size_t count;
    void *target;
    uint8_t sources[OPTION_ROWS_MAX]; /* enum option_source of each row */
};

/** Fills `target` with the defaults. A default that does not parse is our own bug. */
void options_init(struct options *options, const struct option_row *rows, size_t count,
                  void *target);

/** Frees the strings inside the target. Accepts a zeroed object. */
void options_deinit(struct options *options);

/**
 * Set one row from `value`. `name` is what the user wrote (variable, key or flag) and goes into
 * the error. A source below the one that the row already has leaves it alone, but the value is
 * still checked.
 *
 *   FELIX_INVALID_ARGUMENT   the value cannot be used; the target is unchanged
 */
enum felix_err options_set(struct options *options, size_t row, enum option_source source,
                           const char *name, const char *value, struct felix_error *reterr);

/** The row with this key, or `options->count`. */
size_t options_find_key(const struct options *options, const char *key);

/** The row with this name among its environment variables, or `options->count`. */
size_t options_find_env(const struct options *options, const char *name);

/** As options_set, by key. FELIX_NOT_FOUND with a hint at the nearest key when it is unknown. */
enum felix_err options_set_key(struct options *options, enum option_source source, const char *key,
                               const char *value, struct felix_error *reterr);

/** Reads all variables of the table from the environment of the process. */
enum felix_err options_load_env(struct options *options, struct felix_error *reterr);

/**
 * Try `argv[*at]` as `--flag value`, `--flag=value` or, for truth values, `--flag` alone; advance
 * `*at` over what was used.
 *
 *   FELIX_NOT_FOUND          not a flag of this table; `*at` is unchanged. reterr holds a text
 *                            with a hint at the nearest flag, for callers that know no more
 *   FELIX_INVALID_ARGUMENT   no value, or one that cannot be used
 */
enum felix_err options_take_arg(struct options *options, int argc, char *const *argv, int *at,
                                struct felix_error *reterr);

/**
 * Lay the values of a profile ("balanced" or "high_memory") under what was set explicitly. Only
 * those that the table knows, by their environment variable. Broker, client and demos share the
 * profiles. FELIX_INVALID_ARGUMENT for an unknown name.
 */
enum felix_err options_apply_profile(struct options *options, const char *profile,
                                     struct felix_error *reterr);

/** True when some profile sets this environment variable. */
bool options_env_in_profile(const char *env);

/** The word for a source: default, profile, file, environment, command line. */
const char *options_source_name(enum option_source source);

/** Appends the present value of a row as the user would write it, without quotes. */
void options_value(const struct options *options, size_t row, struct text *out);

/** Appends `ip:port` or `[v6]:port`. */
void option_addr_text(const struct option_addr *addr, struct text *out);

/** Parses a numeric address with port; host names are refused. */
enum felix_err option_addr_parse(const char *value, struct option_addr *ret,
                                 struct felix_error *reterr);

/** Parses a number of bytes as OPTION_BYTES does. False: not one, or it overflows. */
bool option_bytes_parse(const char *value, uint64_t *ret);

/** Parses a truth value as OPTION_BOOL does. */
bool option_bool_parse(const char *value, bool *ret);

/**
 * The candidate nearest to `word` by edit distance, when it is near enough to be meant; otherwise
 * NULL. `candidates` ends with NULL.
 */
const char *option_nearest(const char *word, const char *const *candidates);

/** Pages, all in the order of the table, grouped: for --help, for --print-config (a file that can
 * be read back, each value with its source), and for the reference in docs, where `key_title` heads
 * the column of keys and flags have one if there are any. */
void options_print_help(const struct options *options, struct text *out);
void options_print_yaml(const struct options *options, struct text *out);
void options_print_reference(const struct options *options, const char *key_title,
                             struct text *out);

/* A row is X(field, env, key, flag, TYPE, default, LIMITS, help, group) with one of these limits.
 */
#define OPTION_RANGE(low, high) .min = (low), .max = (high)
#define OPTION_WORDS(list) .words = list
#define OPTION_ANY .min = 0
#define OPTION_SPACED(limits) limits, .spaced = true

/* What a field of each type is in the struct. */
#define OPTION_C_U32 uint32_t
#define OPTION_C_U64 uint64_t
#define OPTION_C_BYTES uint64_t
#define OPTION_C_DURATION_MS uint64_t
#define OPTION_C_BOOL bool
#define OPTION_C_STRING char *
#define OPTION_C_PATH char *
#define OPTION_C_ADDR struct option_addr
#define OPTION_C_ENUM uint32_t

/* X for the struct: `struct mine { #include "mine/options.def" };` with X defined as this. */
#define OPTION_FIELD(field, env, key, flag, TYPE, initial, LIMITS, help, group)                    \
    OPTION_C_##TYPE field;

/* X for the table; define OPTION_TARGET as the struct type first. */
#define OPTION_ROW(field_, env_, key_, flag_, TYPE, initial_, LIMITS, help_, group_)               \
    {.env = env_,                                                                                  \
     .key = key_,                                                                                  \
     .flag = flag_,                                                                                \
     .help = help_,                                                                                \
     .group = group_,                                                                              \
     .initial = initial_,                                                                          \
     LIMITS,                                                                                       \
     .offset = offsetof(OPTION_TARGET, field_),                                                    \
     .type = OPTION_##TYPE},

#endif
