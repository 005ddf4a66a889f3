/*
 * felix pub: payloads from the command line, a file, or the lines of standard input.
 *
 * Messages are collected into batches and published without waiting for the answer; the answers
 * are counted on the client's thread. A batch leaves when it is full, and also when standard input
 * has nothing more to give at the moment, so that a line typed by hand is on its way at once. At
 * the end everything is flushed, and the first refusal decides the exit code.
 */
#include "cli/cli.h"

#include "base/check.h"
#include "base/clock.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PUB_BATCH_MAX 65536u
#define PUB_BATCH_BYTES_MAX ((size_t)8 << 20)

/* How often a wait for input looks at signals and at what the broker answered. */
#define PUB_LOOK_MS 100

/* First refusal, and what was acknowledged; written by the client's thread, read after the flush.
 */
struct pub_outcome {
    _Atomic int err; /* enum felix_err */
    char text[512];
    bool has_offset;
    uint64_t offset; /* the lowest: of the first message */
    bool answered;
    enum felix_level level; /* the weakest of all answers */
};

struct pub {
    struct cli *cli;
    felix_client *client;
    const char *stream;
    const char *file;
    const char *key;
    uint64_t count;
    uint64_t batch;
    double rate;
    uint32_t ack; /* enum felix_ack */
    bool count_given;

    struct text bytes; /* payloads of the batch that is being filled */
    size_t *lens;      /* and their lengths */
    size_t collected;
    struct felix_bytes *payloads;
    uint64_t published;
    uint64_t published_bytes;
    uint64_t start_ns;
    struct pub_outcome outcome;
};

static void note_stored(struct pub_outcome *outcome, const struct felix_publish_result *result) {
    if (result->has_offset && (!outcome->has_offset || result->offset < outcome->offset))
        outcome->offset = result->offset;
    if (!outcome->answered || result->level < outcome->level)
        outcome->level = result->level;
    outcome->has_offset = outcome->has_offset || result->has_offset;
    outcome->answered = true;
}

static void on_published(void *context, const struct felix_publish_result *result) {
    struct pub_outcome *outcome = context;
    if (result->err == FELIX_OK)
        note_stored(outcome, result);
    if (result->err == FELIX_OK ||
        atomic_load_explicit(&outcome->err, memory_order_relaxed) != FELIX_OK)
        return;
    (void)snprintf(outcome->text, sizeof outcome->text, "%s", result->error_text);
    atomic_store_explicit(&outcome->err, (int)result->err, memory_order_release);
}

static enum felix_err pub_outcome_err(const struct pub *pub) {
    return (enum felix_err)atomic_load_explicit(&pub->outcome.err, memory_order_acquire);
}

/* With a rate, waits until message number `published` is due. */
static void wait_until_due(const struct pub *pub) {
    if (pub->rate > 0)
        cli_sleep_until(pub->start_ns + (uint64_t)((double)pub->published / pub->rate * 1e9));
}

static enum felix_err send_batch(struct pub *pub) {
    if (pub->collected == 0)
        return FELIX_OK;
    const char *at = text_str(&pub->bytes);
    for (size_t i = 0; i < pub->collected; i++) {
        pub->payloads[i] = (struct felix_bytes){.data = at, .len = pub->lens[i]};
        at += pub->lens[i];
    }
    wait_until_due(pub);
    enum felix_ack ack = (enum felix_ack)pub->ack;
    felix_publish_done done = ack == FELIX_ACK_NONE ? NULL : on_published;
    enum felix_err err;
    if (pub->key != NULL)
        err = felix_publish_keyed(pub->client, pub->cli->space, pub->stream,
                                  (struct felix_bytes){pub->key, strlen(pub->key)},
                                  pub->payloads[0], ack, done, &pub->outcome);
    else
        err = felix_publish(pub->client, pub->cli->space, pub->stream, pub->payloads,
                            pub->collected, ack, done, &pub->outcome);
    if (err == FELIX_OK) {
        pub->published += pub->collected;
        pub->published_bytes += pub->bytes.len;
    }
    text_reset(&pub->bytes);
    pub->collected = 0;
    return err != FELIX_OK ? err : pub_outcome_err(pub);
}

static enum felix_err add_message(struct pub *pub, struct slice payload) {
    if (pub->collected > 0 && pub->bytes.len + payload.len > PUB_BATCH_BYTES_MAX) {
        enum felix_err err = send_batch(pub);
        if (err != FELIX_OK)
            return err;
    }
    text_bytes(&pub->bytes, payload);
    pub->lens[pub->collected++] = payload.len;
    return pub->collected < pub->batch ? FELIX_OK : send_batch(pub);
}

static enum felix_err publish_repeated(struct pub *pub, struct slice payload) {
    enum felix_err err = FELIX_OK;
    for (uint64_t i = 0; err == FELIX_OK && i < pub->count && !cli_interrupted; i++)
        err = add_message(pub, payload);
    return err == FELIX_OK ? send_batch(pub) : err;
}

/* Waits until standard input has something, its end included. What was collected leaves as soon as
 * there is nothing at the moment; a refusal and a signal end the wait. */
static enum felix_err await_input(struct pub *pub) {
    struct pollfd fd = {.fd = STDIN_FILENO, .events = POLLIN};
    enum felix_err err = FELIX_OK;
    int ready = poll(&fd, 1, 0);
    if (ready == 0)
        err = send_batch(pub);
    while (ready <= 0 && err == FELIX_OK && !cli_interrupted) {
        ready = poll(&fd, 1, PUB_LOOK_MS);
        err = pub_outcome_err(pub);
    }
    return err;
}

/* Publishes the complete lines of `input` from `*start` on; moves `*start` behind them. */
static enum felix_err publish_complete_lines(struct pub *pub, struct slice input, size_t *start,
                                             uint64_t *left) {
    enum felix_err err = FELIX_OK;
    while (err == FELIX_OK && *left > 0 && !cli_interrupted) {
        const uint8_t *line = input.data + *start;
        const uint8_t *end = memchr(line, '\n', input.len - *start);
        if (end == NULL)
            break;
        err = add_message(pub, slice_of(line, (size_t)(end - line)));
        *start += (size_t)(end - line) + 1;
        --*left;
    }
    return err;
}

static enum felix_err publish_lines(struct pub *pub) {
    size_t capacity = 65536;
    uint8_t *input = xmalloc(capacity);
    size_t len = 0;
    uint64_t left = pub->count_given ? pub->count : UINT64_MAX;
    enum felix_err err = FELIX_OK;
    while (err == FELIX_OK && left > 0 && !cli_interrupted) {
        if (len == capacity)
            input = xrealloc(input, capacity *= 2);
        err = await_input(pub);
        if (err != FELIX_OK || cli_interrupted)
            break;
        ssize_t n = read(STDIN_FILENO, input + len, capacity - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            /* The last line may lack its newline. */
            if (n == 0 && len > 0)
                err = add_message(pub, slice_of(input, len));
            break;
        }
        len += (size_t)n;
        size_t start = 0;
        err = publish_complete_lines(pub, slice_of(input, len), &start, &left);
        memmove(input, input + start, len - start);
        len -= start;
    }
    free(input);
    return err == FELIX_OK ? send_batch(pub) : err;
}

static void report_json(const struct pub *pub, uint64_t elapsed_ns) {
    static const char *const acks[] = {"none", "message", "batch"};
    const struct pub_outcome *outcome = &pub->outcome;
    struct text line = {0};
    text_add(&line, "{\"namespace\":");
    text_quoted(&line, slice_str(pub->cli->space));
    text_add(&line, ",\"stream\":");
    text_quoted(&line, slice_str(pub->stream));
    text_printf(&line, ",\"messages\":%llu,\"bytes\":%llu,\"ack\":\"%s\"",
                (unsigned long long)pub->published, (unsigned long long)pub->published_bytes,
                acks[pub->ack]);
    if (outcome->has_offset)
        text_printf(&line, ",\"offset\":%llu", (unsigned long long)outcome->offset);
    if (outcome->level != FELIX_LEVEL_UNKNOWN)
        text_printf(&line, ",\"level\":\"%s\"", felix_level_name(outcome->level));
    text_printf(&line, ",\"elapsed_us\":%.1f}", (double)elapsed_ns / 1e3);
    (void)puts(text_str(&line));
    text_deinit(&line);
}

/* ", stored at offset 42 (flushed)": only a durable stream has offsets to tell. */
static void report_terminal(const struct pub *pub, uint64_t elapsed_ns) {
    const struct pub_outcome *outcome = &pub->outcome;
    bool one = pub->published == 1;
    (void)printf(
        "published %s message%s (%s bytes) to %s/%s in %s%s", out_count(pub->published).text,
        one ? "" : "s", out_count(pub->published_bytes).text, pub->cli->space, pub->stream,
        out_duration(elapsed_ns).text, pub->ack == FELIX_ACK_NONE ? ", not acknowledged" : "");
    if (outcome->has_offset)
        (void)printf(", stored %s offset %llu", one ? "at" : "from",
                     (unsigned long long)outcome->offset);
    if (outcome->has_offset && outcome->level != FELIX_LEVEL_UNKNOWN)
        (void)printf(" (%s)", felix_level_name(outcome->level));
    (void)putchar('\n');
}

static void report(const struct pub *pub, uint64_t elapsed_ns) {
    const struct pub_outcome *outcome = &pub->outcome;
    if (pub->cli->quiet)
        return;
    if (pub->cli->json) {
        report_json(pub, elapsed_ns);
        return;
    }
    if (out_is_terminal()) {
        report_terminal(pub, elapsed_ns);
        return;
    }
    (void)printf("published\t%llu\t%llu", (unsigned long long)pub->published,
                 (unsigned long long)pub->published_bytes);
    if (outcome->has_offset)
        (void)printf("\t%llu\t%s", (unsigned long long)outcome->offset,
                     felix_level_name(outcome->level));
    (void)putchar('\n');
}

static int pub_run(struct pub *pub, const char *payload) {
    struct felix_error error;
    struct text content = {0};
    if (pub->file != NULL && cli_read_file(pub->file, &content, &error) != FELIX_OK) {
        out_error("nothing was published: %s", error.text);
        text_deinit(&content);
        return EXIT_USAGE;
    }
    int status = cli_connect(pub->cli, &pub->client);
    if (status != CLI_GO_ON) {
        text_deinit(&content);
        return status;
    }
    cli_catch_signals();
    pub->lens = xcalloc(pub->batch, sizeof *pub->lens);
    pub->payloads = xcalloc(pub->batch, sizeof *pub->payloads);
    pub->start_ns = clock_now_ns();
    enum felix_err err;
    if (pub->file == NULL && payload == NULL && !pub->cli->quiet && isatty(STDIN_FILENO) == 1)
        (void)fprintf(stderr, "each line is a message, Ctrl-D ends\n");
    if (pub->file != NULL)
        err = publish_repeated(pub, slice_of(text_str(&content), content.len));
    else if (payload != NULL)
        err = publish_repeated(pub, slice_str(payload));
    else
        err = publish_lines(pub);
    if (err == FELIX_OK)
        err = felix_flush(pub->client, cli_timeout_ms(pub->cli));
    uint64_t elapsed_ns = clock_now_ns() - pub->start_ns;
    if (pub_outcome_err(pub) != FELIX_OK)
        err = pub_outcome_err(pub);
    if (err == FELIX_OK) {
        report(pub, elapsed_ns);
        status = cli_interrupted ? EXIT_INTERRUPTED : EXIT_DONE;
    } else {
        char what[400];
        (void)snprintf(what, sizeof what, "cannot publish to stream '%s'", pub->stream);
        status = cli_failed(what, err, pub->outcome.text);
    }
    /* Proves that the broker has read what nobody acknowledges; pointless when it failed before. */
    felix_close(pub->client, err == FELIX_OK ? cli_timeout_ms(pub->cli) : 0);
    text_deinit(&content);
    text_deinit(&pub->bytes);
    free(pub->lens);
    free(pub->payloads);
    return status;
}

int cmd_pub(struct cli *cli) {
    struct pub pub = {.cli = cli, .count = 1, .batch = 1, .ack = FELIX_ACK_PER_MESSAGE};
    const struct arg_option options[] = {
        {.name = "--file",
         .type = ARG_TEXT,
         .value = &pub.file,
         .meta = "FILE",
         .help = "publish the whole file as one message; - is standard input"},
        {.name = "--count",
         .type = ARG_U64,
         .value = &pub.count,
         .given = &pub.count_given,
         .min = 1,
         .meta = "N",
         .help = "publish it N times; of standard input, at most N lines"},
        {.name = "--rate",
         .type = ARG_RATE,
         .value = &pub.rate,
         .meta = "N",
         .help = "at most N messages per second"},
        {.name = "--batch",
         .type = ARG_U64,
         .value = &pub.batch,
         .min = 1,
         .max = PUB_BATCH_MAX,
         .meta = "N",
         .help = "put up to N messages into one frame (1)"},
        {.name = "--ack",
         .type = ARG_CHOICE,
         .value = &pub.ack,
         .words = "none|message|batch",
         .help = "what the broker confirms (message)"},
        {.name = "--key",
         .type = ARG_TEXT,
         .value = &pub.key,
         .meta = "KEY",
         .help = "routing key of every message"},
        {.name = NULL},
    };
    const struct command_help help = {
        .name = "felix pub",
        .summary = "publish messages to a stream",
        .usage = "STREAM [PAYLOAD]",
        .text =
            "Without PAYLOAD and --file, every line of standard input is one message. Ends when\n"
            "the broker has confirmed everything, with --ack none when it was sent. Of a durable\n"
            "stream it then tells the offset of the first message, and how safe all of them are:\n"
            "written (the broker may die) or flushed (the machine may).",
        .examples = "  felix pub orders 'hello'\n"
                    "  seq 1000 | felix pub orders --batch 64\n"
                    "  felix pub orders --file picture.png --ack none",
    };
    struct args args = {.options = options};
    int status = cli_parse(cli, &args, &help, 1, 2);
    if (status != CLI_GO_ON)
        return status;
    pub.stream = args.operands[0];
    const char *payload = args.operands_count == 2 ? args.operands[1] : NULL;
    if (payload != NULL && pub.file != NULL)
        return out_usage(help.name, "PAYLOAD and --file exclude each other");
    if (pub.key != NULL && pub.batch > 1)
        return out_usage(help.name, "--key and --batch exclude each other: a key belongs to one "
                                    "message");
    return pub_run(&pub, payload);
}
