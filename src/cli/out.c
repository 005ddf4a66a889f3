#include "cli/out.h"

#include "base/check.h"
#include "base/clock.h"
#include "wire/base64.h"
#include "wire/json.h"
#include "wire/utf8.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static const char *program_name = "felix";

void out_program(const char *name) {
    program_name = name;
}

const char *out_program_name(void) {
    return program_name;
}

int exit_code_of(enum felix_err err) {
    switch ((int)err) {
    case FELIX_OK:
        return EXIT_DONE;
    case FELIX_NOT_FOUND:
        return EXIT_NOTHING;
    case FELIX_INVALID_ARGUMENT:
    case FELIX_TOO_LARGE:
    case FELIX_SYSTEM:
        return EXIT_USAGE;
    case FELIX_TIMED_OUT:
    case FELIX_LAGGED:
        return EXIT_TIMEOUT;
    case FELIX_LIMIT:
    case FELIX_OVERLOADED:
    case FELIX_CURSOR_TOO_OLD:
    case FELIX_CURSOR_IN_FUTURE:
    case FELIX_UNSUPPORTED:
    case FELIX_EXISTS:
    case FELIX_STORAGE:
    case FELIX_DISK_FULL:
    case FELIX_DAMAGED:
        return EXIT_REFUSED;
    default:
        return err <= -200 && err > -300 ? EXIT_REFUSED : EXIT_CONNECTION;
    }
}

void out_error(const char *format, ...) {
    char line[1024];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(line, sizeof line, format, args);
    va_end(args);
    /* What was printed before the failure stands before it, also when both go to one file. */
    (void)fflush(stdout);
    (void)fprintf(stderr, "%s: %s\n", program_name, line);
}

int out_usage(const char *help_command, const char *text) {
    out_error("%s; see '%s --help'", text, help_command);
    return EXIT_USAGE;
}

bool out_is_terminal(void) {
    return isatty(STDOUT_FILENO) == 1;
}

bool out_errors_are_terminal(void) {
    return isatty(STDERR_FILENO) == 1;
}

bool out_reader_gone(void) {
    struct pollfd fd = {.fd = STDOUT_FILENO, .events = 0};
    return poll(&fd, 1, 0) == 1 && (fd.revents & POLLERR) != 0;
}

struct duration_text out_duration(uint64_t ns) {
    struct duration_text d;
    double value = (double)ns;
    if (ns < NS_PER_US)
        (void)snprintf(d.text, sizeof d.text, "%llu ns", (unsigned long long)ns);
    else if (ns < NS_PER_MS)
        (void)snprintf(d.text, sizeof d.text, "%.1f us", value / 1e3);
    else if (ns < NS_PER_S)
        (void)snprintf(d.text, sizeof d.text, "%.3f ms", value / 1e6);
    else
        (void)snprintf(d.text, sizeof d.text, "%.3f s", value / 1e9);
    return d;
}

struct duration_text out_span(uint64_t seconds) {
    static const struct {
        uint64_t seconds;
        const char *name;
    } units[] = {{86400, "day"}, {3600, "hour"}, {60, "minute"}, {1, "second"}};
    size_t i = 0;
    while (i < 3 && seconds < 2 * units[i].seconds)
        i++;
    uint64_t n = (seconds + units[i].seconds / 2) / units[i].seconds;
    struct duration_text d;
    (void)snprintf(d.text, sizeof d.text, "%llu %s%s", (unsigned long long)n, units[i].name,
                   n == 1 ? "" : "s");
    return d;
}

struct duration_text out_count(uint64_t n) {
    char digits[24];
    size_t len = (size_t)snprintf(digits, sizeof digits, "%llu", (unsigned long long)n);
    struct duration_text d;
    size_t at = 0;
    for (size_t i = 0; i < len; i++) {
        if (i > 0 && (len - i) % 3 == 0)
            d.text[at++] = ',';
        d.text[at++] = digits[i];
    }
    d.text[at] = '\0';
    return d;
}

struct time_text out_time(uint64_t us) {
    struct time_text t;
    struct tm tm;
    time_t seconds = (time_t)(us / 1000000);
    size_t len = 0;
    if (gmtime_r(&seconds, &tm) != NULL)
        len = strftime(t.text, sizeof t.text, "%Y-%m-%dT%H:%M:%S", &tm);
    if (len > 0)
        (void)snprintf(t.text + len, sizeof t.text - len, ".%06uZ", (unsigned)(us % 1000000));
    else /* beyond all calendars */
        (void)snprintf(t.text, sizeof t.text, "%llu", (unsigned long long)us);
    return t;
}

void out_json_payload(struct text *text, const char *name, struct slice payload) {
    if (utf8_valid(payload)) {
        text_printf(text, "\"%s\":", name);
        size_t bytes = json_quoted_bytes(payload);
        uint8_t *quoted = xmalloc(bytes);
        text_bytes(text, slice_of(quoted, json_quote(payload, quoted)));
        free(quoted);
        return;
    }
    size_t bytes = base64_encoded_bytes(payload.len);
    uint8_t *encoded = xmalloc(bytes + 1);
    base64_encode(payload, encoded);
    text_printf(text, "\"%s_base64\":\"", name);
    text_bytes(text, slice_of(encoded, bytes));
    text_char(text, '"');
    free(encoded);
}

void out_printable(struct text *text, struct slice payload) {
    const uint8_t *at = payload.data;
    const uint8_t *end = at + payload.len;
    while (at < end) {
        size_t len = utf8_char_bytes(at, end);
        /* C0 and DEL are one byte, C1 is C2 80 .. C2 9F. */
        bool control = *at < 0x20 || *at == 0x7f || (len == 2 && at[0] == 0xc2 && at[1] < 0xa0);
        if (len != 0 && (!control || *at == '\t')) {
            text_bytes(text, slice_of(at, len));
            at += len;
            continue;
        }
        text_printf(text, "\\x%02x", *at);
        at++;
    }
}

bool out_write(struct text *text, bool *ret_gone) {
    const char *at = text_str(text);
    size_t left = text->len;
    *ret_gone = false;
    while (left > 0) {
        ssize_t n = write(STDOUT_FILENO, at, left);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            *ret_gone = errno == EPIPE;
            return false;
        }
        at += n;
        left -= (size_t)n;
    }
    text_reset(text);
    return true;
}
