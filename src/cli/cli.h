/*
 * What every command of `felix` shares: the global options, its help, and the way to a client.
 *
 * A command is one function in its own file. It describes itself (struct command_help), lists its
 * options on its stack, calls cli_parse and then does its work. One thread; callbacks of the
 * client library run on another one and touch only what is atomic or theirs.
 */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include "cli/args.h"
#include "cli/out.h"

#include <felix/felix.h>

#include <signal.h>
#include <stdatomic.h>

/* The global options: accepted before and after the command. */
struct cli {
    const char *server;
    const char *ca_file;
    const char *token_file;
    const char *tenant;
    const char *space; /* the namespace */
    uint64_t timeout_ns;
    bool timeout_given;
    bool json;
    bool quiet;
    bool help;
    bool event_timestamps; /* the command wants them; set before cli_connect */
    int argc;              /* the arguments without the words of the command */
    char **argv;
    felix_options *options; /* made by cli_connect */
};

struct command_help {
    const char *name;    /* "felix pub" */
    const char *summary; /* "publish messages to a stream" */
    const char *usage;   /* "STREAM [PAYLOAD]" */
    const char *text;    /* paragraphs; may be NULL */
    const char *examples;
};

/* The last lines of every help text. */
extern const char cli_exit_codes[];

/* What cli_parse returns when the command should go on. */
#define CLI_GO_ON (-1)

/**
 * Parse the command's own and the global options. Returns CLI_GO_ON, or the exit code when help
 * was asked for and printed, or the arguments were wrong (at least `min`, at most `max` operands).
 */
int cli_parse(struct cli *cli, struct args *args, const struct command_help *help, size_t min,
              size_t max);

/** Fill `ret` with the table of global options; it points into `cli`. */
#define CLI_GLOBALS 10
void cli_globals(struct cli *cli, struct arg_option ret[CLI_GLOBALS]);

/** Returns owned in *ret a connected client (felix_close), or the exit code after saying why. */
int cli_connect(struct cli *cli, felix_client **ret);

/** Say that `what` failed and `why` (NULL or empty: the library's last error); returns the exit
 * code. */
int cli_failed(const char *what, enum felix_err err, const char *why);

/** The longest wait for an answer, for the library. */
uint32_t cli_timeout_ms(const struct cli *cli);

/** Set by SIGINT and SIGTERM once cli_catch_signals was called. */
extern volatile sig_atomic_t cli_interrupted;
void cli_catch_signals(void);

/** Sleep until `due_ns` of clock_now_ns, or until a signal was caught. */
void cli_sleep_until(uint64_t due_ns);

/** Append a whole file, or standard input for "-", to *ret, which stays the caller's. */
enum felix_err cli_read_file(const char *path, struct text *ret, struct felix_error *reterr);

/** The commands; each returns an exit code. */
int cmd_pub(struct cli *cli);
int cmd_sub(struct cli *cli);
int cmd_cache_put(struct cli *cli);
int cmd_cache_get(struct cli *cli);
int cmd_cache_del(struct cli *cli);
int cmd_ping(struct cli *cli);
int cmd_stream_create(struct cli *cli);
int cmd_stream_list(struct cli *cli);
int cmd_stream_show(struct cli *cli);
int cmd_stream_delete(struct cli *cli);
int cmd_bench_pub(struct cli *cli);
int cmd_bench_sub(struct cli *cli);
int cmd_bench_cache(struct cli *cli);
int cmd_bench_latency(struct cli *cli);
int cmd_log_inspect(struct cli *cli);
int cmd_log_dump(struct cli *cli);
int cmd_log_verify(struct cli *cli);
int cmd_log_repair(struct cli *cli);
int cmd_log_backup(struct cli *cli);
int cmd_log_restore(struct cli *cli);
int cmd_log_write(struct cli *cli);
int cmd_log_bench(struct cli *cli);
int cmd_token_mint(struct cli *cli);
int cmd_token_inspect(struct cli *cli);
int cmd_token_keygen(struct cli *cli);
int cmd_version(struct cli *cli);

#endif
