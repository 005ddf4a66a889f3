/*
 * A line is built in a buffer on the stack and written at once, so no lock is needed.
 *
 * Everything that may come from outside is escaped, so that a line stays a line and a terminal
 * never sees a control sequence: logfmt puts a value into quotes unless it is plain printable
 * ASCII, writes control characters as \n, \r, \t or \xNN, and bytes that are not UTF-8 as \xNN.
 * JSON has no form for such bytes, they become U+FFFD there. A field that does not fit any more is
 * taken back as a whole, and the line says so.
 */
#include "base/log.h"

#include "base/clock.h"
#include "base/map.h"
#include "base/text.h"

#include <errno.h>
#include <stdio.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#define LEVEL_INIT(name) [LOG_MODULE_##name] = LOG_LEVEL_INFO,
_Atomic uint8_t log_levels[LOG_MODULE_COUNT] = {LOG_MODULE_MAP(LEVEL_INIT)};

#define MODULE_NAME(name) [LOG_MODULE_##name] = #name,
static const char *const module_names[LOG_MODULE_COUNT] = {LOG_MODULE_MAP(MODULE_NAME)};

static const char *const level_names[] = {"off", "error", "warn", "info", "debug", "trace"};
#define LEVEL_COUNT (sizeof level_names / sizeof level_names[0])

static enum log_format line_format = LOG_FORMAT_LOGFMT;
static int line_fd = STDERR_FILENO;
static _Atomic uint64_t lost_lines;

/* A value longer than this is cut, so that one field cannot push out all others. */
#define VALUE_BYTES_MAX 1024u
/* Kept free for the end of the line: the mark of truncation, a brace and the newline. */
#define TAIL_BYTES 24u

struct line {
    char bytes[LOG_LINE_BYTES_MAX];
    size_t len;
    bool full;
};

static void line_put(struct line *line, const char *bytes, size_t len) {
    if (line->full || len > sizeof line->bytes - TAIL_BYTES - line->len) {
        line->full = true;
        return;
    }
    memcpy(line->bytes + line->len, bytes, len);
    line->len += len;
}

static void line_str(struct line *line, const char *text) {
    line_put(line, text, strlen(text));
}

static void put_escaped_char(struct line *line, uint32_t code) {
    char text[12];
    if (code == '"' || code == '\\')
        (void)snprintf(text, sizeof text, "\\%c", (char)code);
    else if (code == '\n')
        (void)snprintf(text, sizeof text, "\\n");
    else if (code == '\r')
        (void)snprintf(text, sizeof text, "\\r");
    else if (code == '\t')
        (void)snprintf(text, sizeof text, "\\t");
    else if (line_format == LOG_FORMAT_JSON)
        (void)snprintf(text, sizeof text, "\\u%04x", code);
    else
        (void)snprintf(text, sizeof text, "\\x%02x", code);
    line_str(line, text);
}

static void put_bad_byte(struct line *line, uint8_t byte) {
    char text[8];
    if (line_format == LOG_FORMAT_JSON)
        (void)snprintf(text, sizeof text, "\\ufffd");
    else
        (void)snprintf(text, sizeof text, "\\x%02x", byte);
    line_str(line, text);
}

/* C0, DEL and C1 control characters, and the two that the quoted form needs for itself. */
static bool needs_escape(uint32_t code) {
    return code < 0x20 || (code >= 0x7f && code < 0xa0) || code == '"' || code == '\\';
}

static void put_quoted(struct line *line, struct slice value) {
    line_str(line, "\"");
    while (value.len > 0) {
        uint32_t code = 0;
        size_t len = text_utf8_char(value, &code);
        if (len == 0) {
            put_bad_byte(line, value.data[0]);
            len = 1;
        } else if (needs_escape(code)) {
            put_escaped_char(line, code);
        } else {
            line_put(line, (const char *)value.data, len);
        }
        value.data += len;
        value.len -= len;
    }
    line_str(line, "\"");
}

static bool is_plain(struct slice value) {
    for (size_t i = 0; i < value.len; i++) {
        uint8_t c = value.data[i];
        if (c <= ' ' || c >= 0x7f || c == '"' || c == '\\' || c == '=')
            return false;
    }
    return value.len > 0;
}

static void put_value(struct line *line, struct slice value) {
    if (line_format == LOG_FORMAT_JSON || !is_plain(value))
        put_quoted(line, value);
    else
        line_put(line, (const char *)value.data, value.len);
}

static void put_name(struct line *line, const char *name) {
    if (line_format == LOG_FORMAT_JSON) {
        line_str(line, line->len == 0 ? "{\"" : ",\"");
        line_str(line, name);
        line_str(line, "\":");
        return;
    }
    if (line->len != 0)
        line_str(line, " ");
    line_str(line, name);
    line_str(line, "=");
}

static void put_str_field(struct line *line, const char *name, const char *value) {
    put_name(line, name);
    put_value(line, slice_str(value));
}

static void put_number(struct line *line, const char *format, uint64_t value) {
    char text[32];
    int len = snprintf(text, sizeof text, "%s%llu", format, (unsigned long long)value);
    line_put(line, text, (size_t)len);
}

static void put_hex(struct line *line, struct slice value) {
    char text[2 * 64];
    size_t used = 0;
    for (size_t i = 0; i < value.len && used + 2 <= sizeof text; i++) {
        text[used++] = "0123456789abcdef"[value.data[i] >> 4];
        text[used++] = "0123456789abcdef"[value.data[i] & 15];
    }
    put_value(line, slice_of(text, used));
}

static void put_secret(struct line *line, struct slice value) {
    char text[32];
    (void)snprintf(text, sizeof text, "secret:%08x", (uint32_t)(map_hash(value) >> 32));
    put_value(line, slice_str(text));
}

static void put_field(struct line *line, const struct log_field *field) {
    put_name(line, field->name);
    switch (field->type) {
    case LOG_FIELD_BYTES: {
        struct slice value = field->bytes;
        if (value.len > VALUE_BYTES_MAX) {
            value.len = VALUE_BYTES_MAX;
            while (value.len > VALUE_BYTES_MAX - 3 && (value.data[value.len] & 0xc0) == 0x80)
                value.len--; /* do not cut a character in two */
        }
        put_value(line, value);
        break;
    }
    case LOG_FIELD_U64:
        put_number(line, "", field->u64);
        break;
    case LOG_FIELD_I64:
        if (field->i64 < 0)
            put_number(line, "-", -(uint64_t)field->i64);
        else
            put_number(line, "", (uint64_t)field->i64);
        break;
    case LOG_FIELD_BOOL:
        line_str(line, field->truth ? "true" : "false");
        break;
    case LOG_FIELD_HEX:
        put_hex(line, field->bytes);
        break;
    case LOG_FIELD_SECRET:
        put_secret(line, field->bytes);
        break;
    case LOG_FIELD_END:
        break;
    }
}

static void put_timestamp(struct line *line) {
    uint64_t now_ns = clock_wall_ns();
    time_t seconds = (time_t)(now_ns / NS_PER_S);
    struct tm tm;
    char text[40];

    (void)gmtime_r(&seconds, &tm);
    size_t len = strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm);
    (void)snprintf(text + len, sizeof text - len, ".%06uZ",
                   (unsigned)(now_ns % NS_PER_S / NS_PER_US));
    put_str_field(line, "ts", text);
}

static void line_send(const struct line *line) {
    size_t sent = 0;
    while (sent < line->len) {
        ssize_t n = write(line_fd, line->bytes + sent, line->len - sent);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            atomic_fetch_add_explicit(&lost_lines, 1, memory_order_relaxed);
            return;
        }
        sent += (size_t)n;
    }
}

void log_write(enum log_module module, enum log_level level, const char *event, uint64_t suppressed,
               const struct log_field *fields) {
    int saved_errno = errno;
    struct line line;
    line.len = 0;
    line.full = false;

    put_timestamp(&line);
    put_str_field(&line, "level", level_names[level]);
    put_str_field(&line, "module", module_names[module]);
    put_str_field(&line, "event", event);
    if (suppressed != 0) {
        put_name(&line, "suppressed");
        put_number(&line, "", suppressed);
    }
    for (; fields->type != LOG_FIELD_END; fields++) {
        size_t before = line.len;
        put_field(&line, fields);
        if (line.full) {
            line.len = before;
            break;
        }
    }

    const char *end = line_format == LOG_FORMAT_JSON ? "}\n" : "\n";
    if (line.full)
        end = line_format == LOG_FORMAT_JSON ? ",\"truncated\":true}\n" : " truncated=true\n";
    memcpy(line.bytes + line.len, end, strlen(end));
    line.len += strlen(end);
    line_send(&line);
    errno = saved_errno;
}

struct log_field log_field_errno(int sys_errno) {
    return log_field_str("errno", strerror(sys_errno));
}

/* The bucket is kept as one number: the time at which it will be full again. A token moves it
 * by one interval; there is none left when that time is a whole bucket ahead. */
bool log_rate_pass(struct log_rate *rate, uint64_t now_ns, uint64_t *ret_suppressed) {
    const uint64_t interval_ns = NS_PER_S / LOG_RATE_LINES;
    uint64_t full_at_ns = atomic_load_explicit(&rate->full_at_ns, memory_order_relaxed);

    for (;;) {
        uint64_t from_ns = full_at_ns > now_ns ? full_at_ns : now_ns;
        if (from_ns + interval_ns > now_ns + NS_PER_S) {
            atomic_fetch_add_explicit(&rate->suppressed, 1, memory_order_relaxed);
            return false;
        }
        if (atomic_compare_exchange_weak_explicit(&rate->full_at_ns, &full_at_ns,
                                                  from_ns + interval_ns, memory_order_relaxed,
                                                  memory_order_relaxed))
            break;
    }
    *ret_suppressed = atomic_exchange_explicit(&rate->suppressed, 0, memory_order_relaxed);
    return true;
}

bool log_rate_pass_now(struct log_rate *rate, uint64_t *ret_suppressed) {
    return log_rate_pass(rate, clock_now_ns(), ret_suppressed);
}

static struct slice trim(struct slice s) {
    while (s.len > 0 && (s.data[0] == ' ' || s.data[0] == '\t')) {
        s.data++;
        s.len--;
    }
    while (s.len > 0 && (s.data[s.len - 1] == ' ' || s.data[s.len - 1] == '\t'))
        s.len--;
    return s;
}

static bool word_is(struct slice s, const char *word) {
    return s.len == strlen(word) && strncasecmp((const char *)s.data, word, s.len) == 0;
}

/* One directive of the filter into `levels`. */
static enum felix_err apply_directive(struct slice directive, enum log_unknown unknown,
                                      uint8_t levels[LOG_MODULE_COUNT],
                                      struct felix_error *reterr) {
    struct slice module = {0};
    struct slice level = directive;
    const uint8_t *equals = memchr(directive.data, '=', directive.len);
    if (equals != NULL) {
        module = trim(slice_of(directive.data, (size_t)(equals - directive.data)));
        level = trim(slice_of(equals + 1, directive.len - (size_t)(equals - directive.data) - 1));
    }

    size_t number = 0;
    while (number < LEVEL_COUNT && !word_is(level, level_names[number]))
        number++;
    if (number == LEVEL_COUNT)
        return error_set(reterr, FELIX_INVALID_ARGUMENT, 0,
                         "\"%.*s\" in the log filter: the level must be one of off, error, warn, "
                         "info, debug, trace",
                         (int)(directive.len < 64 ? directive.len : 64), directive.data);

    bool found = equals == NULL;
    for (size_t i = 0; i < LOG_MODULE_COUNT; i++) {
        if (equals != NULL && !word_is(module, module_names[i]))
            continue;
        levels[i] = (uint8_t)number;
        found = true;
    }
    if (!found && unknown == LOG_UNKNOWN_REFUSED)
        return error_set(reterr, FELIX_INVALID_ARGUMENT, 0,
                         "\"%.*s\" in the log filter: the module must be one of base, quic, "
                         "session, core, cache, auth, http, node, client, config",
                         (int)(directive.len < 64 ? directive.len : 64), directive.data);
    return FELIX_OK;
}

static enum felix_err filter_parse(const char *filter, enum log_unknown unknown,
                                   uint8_t levels[LOG_MODULE_COUNT], struct felix_error *reterr) {
    memset(levels, LOG_LEVEL_INFO, LOG_MODULE_COUNT);
    /* What is said of one module stands above what is said of all, wherever it stands. */
    for (int pass = 0; pass < 2; pass++) {
        for (const char *at = filter; *at != '\0';) {
            size_t len = strcspn(at, ",");
            struct slice directive = trim(slice_of(at, len));
            at += at[len] == ',' ? len + 1 : len;
            bool names_module = memchr(directive.data, '=', directive.len) != NULL;
            if (directive.len == 0 || names_module != (pass == 1))
                continue;
            enum felix_err err = apply_directive(directive, unknown, levels, reterr);
            if (err != FELIX_OK)
                return err;
        }
    }
    return FELIX_OK;
}

enum felix_err log_check(const char *filter, enum log_unknown unknown, struct felix_error *reterr) {
    uint8_t levels[LOG_MODULE_COUNT];
    return filter_parse(filter, unknown, levels, reterr);
}

enum felix_err log_configure(const char *filter, enum log_unknown unknown,
                             struct felix_error *reterr) {
    uint8_t levels[LOG_MODULE_COUNT];
    enum felix_err err = filter_parse(filter, unknown, levels, reterr);
    if (err != FELIX_OK)
        return err;
    for (size_t i = 0; i < LOG_MODULE_COUNT; i++)
        atomic_store_explicit(&log_levels[i], levels[i], memory_order_relaxed);
    return FELIX_OK;
}

void log_set_format(enum log_format format) {
    line_format = format;
}

void log_set_fd(int fd) {
    line_fd = fd;
}

uint64_t log_lost_lines(void) {
    return atomic_load_explicit(&lost_lines, memory_order_relaxed);
}
