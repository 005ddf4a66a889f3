/*
 * The reader keeps nothing but a position, a depth and a sticky failure, so that a decoder can
 * look at each value where it stands and checks for failure once at its end.
 *
 * Strings are scanned once when taken: runs of plain ASCII sixteen bytes at a time, everything
 * else character by character. That pass proves UTF-8 and escapes and counts the decoded length,
 * so that json_string_decode needs no checks. Skipping a value keeps its own small stack of open
 * containers instead of recursing, because the depth is the peer's choice.
 */
#include "wire/json.h"

#include <math.h>
#include <stdlib.h>

#include "wire/utf8.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#define NUMBER_CHARACTERS_MAX 255u

struct json json_open(struct slice text) {
    struct json j = {.at = text.data, .end = text.data};
    if (text.len != 0)
        j.end += text.len;
    return j;
}

static bool fail(struct json *j) {
    j->failed = true;
    j->at = j->end;
    return false;
}

/* The next character that is not whitespace, not taken; 0 (never valid there) at the end. */
static uint8_t next_character(struct json *j) {
    while (j->at < j->end) {
        uint8_t c = *j->at;
        if (c != ' ' && c != '\n' && c != '\r' && c != '\t')
            return c;
        j->at++;
    }
    return 0;
}

enum json_kind json_peek(struct json *j) {
    switch (next_character(j)) {
    case '"':
        return JSON_STRING;
    case '{':
        return JSON_OBJECT;
    case '[':
        return JSON_ARRAY;
    case 'n':
        return JSON_NULL;
    case 't':
    case 'f':
        return JSON_BOOL;
    case '-':
    case '0':
    case '1':
    case '2':
    case '3':
    case '4':
    case '5':
    case '6':
    case '7':
    case '8':
    case '9':
        return JSON_NUMBER;
    default:
        fail(j);
        return JSON_INVALID;
    }
}

static bool container_begin(struct json *j, uint8_t bracket) {
    if (next_character(j) != bracket || j->depth == JSON_DEPTH_MAX)
        return fail(j);
    j->at++;
    j->depth++;
    return true;
}

bool json_object_begin(struct json *j) {
    return container_begin(j, '{');
}

bool json_array_begin(struct json *j) {
    return container_begin(j, '[');
}

/* Takes a comma or the closing bracket; true when another value must follow. */
static bool container_goes_on(struct json *j, bool *first, uint8_t bracket) {
    uint8_t c = next_character(j);
    if (c == bracket && j->depth > 0) {
        j->at++;
        j->depth--;
        return false;
    }
    if (*first) {
        *first = false;
        return c != 0 || fail(j);
    }
    if (c != ',')
        return fail(j);
    j->at++;
    return true;
}

bool json_member(struct json *j, bool *first, struct json_string *ret_name) {
    if (!container_goes_on(j, first, '}') || !json_take_string(j, ret_name))
        return false;
    if (next_character(j) != ':')
        return fail(j);
    j->at++;
    return true;
}

bool json_element(struct json *j, bool *first) {
    return container_goes_on(j, first, ']');
}

/* First byte that is not plain: a quote, a backslash, a control character or not ASCII. */
static const uint8_t *plain_end(const uint8_t *at, const uint8_t *end) {
#if defined(__SSE2__)
    const __m128i quote = _mm_set1_epi8('"');
    const __m128i backslash = _mm_set1_epi8('\\');
    const __m128i space = _mm_set1_epi8(' ');
    for (; end - at >= 16; at += 16) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)at);
        /* Signed: bytes from 0x80 on are negative and so below the space as well. */
        __m128i hits = _mm_or_si128(
            _mm_cmplt_epi8(bytes, space),
            _mm_or_si128(_mm_cmpeq_epi8(bytes, quote), _mm_cmpeq_epi8(bytes, backslash)));
        int mask = _mm_movemask_epi8(hits);
        if (mask != 0)
            return at + __builtin_ctz((unsigned)mask);
    }
#endif
    while (at < end && *at >= 0x20 && *at < 0x80 && *at != '"' && *at != '\\')
        at++;
    return at;
}

/* Value of one hexadecimal digit; 16 or more when it is none. */
static uint32_t hex_digit(uint8_t c) {
    if (c >= '0' && c <= '9')
        return (uint32_t)c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? (uint32_t)c - 'a' + 10 : 16;
}

/* Reads "\uXXXX" at `at`; UINT32_MAX when it is not there in full. */
static uint32_t unicode_escape(const uint8_t *at, const uint8_t *end) {
    if (end - at < 6 || at[0] != '\\' || at[1] != 'u')
        return UINT32_MAX;
    uint32_t unit = 0;
    for (size_t i = 2; i < 6; i++) {
        uint32_t digit = hex_digit(at[i]);
        if (digit > 15)
            return UINT32_MAX;
        unit = unit << 4 | digit;
    }
    return unit;
}

/* The character that a one-letter escape stands for; UINT32_MAX when it is none. */
static uint32_t letter_escape(uint8_t letter) {
    switch (letter) {
    case '"':
    case '\\':
    case '/':
        return letter;
    case 'b':
        return '\b';
    case 'f':
        return '\f';
    case 'n':
        return '\n';
    case 'r':
        return '\r';
    case 't':
        return '\t';
    default:
        return UINT32_MAX;
    }
}

/* Reads the escape at `at`, a backslash before `end`. Returns its length in the text and sets the
 * character; 0 when it is malformed or half of a surrogate pair. */
static size_t escape_read(const uint8_t *at, const uint8_t *end, uint32_t *ret_character) {
    if (end - at < 2)
        return 0;
    if (at[1] != 'u') {
        *ret_character = letter_escape(at[1]);
        return *ret_character == UINT32_MAX ? 0 : 2;
    }
    uint32_t unit = unicode_escape(at, end);
    if (unit < 0xD800 || (unit > 0xDFFF && unit <= 0xFFFF)) {
        *ret_character = unit;
        return 6;
    }
    if (unit > 0xDBFF)
        return 0;
    uint32_t low = unicode_escape(at + 6, end);
    if (low < 0xDC00 || low > 0xDFFF)
        return 0;
    *ret_character = 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
    return 12;
}

static size_t character_bytes(uint32_t character) {
    if (character < 0x80)
        return 1;
    if (character < 0x800)
        return 2;
    return character < 0x10000 ? 3 : 4;
}

static size_t character_write(uint32_t character, uint8_t out[4]) {
    size_t bytes = character_bytes(character);
    if (bytes == 1) {
        out[0] = (uint8_t)character;
        return 1;
    }
    for (size_t i = bytes - 1; i > 0; i--) {
        out[i] = (uint8_t)(0x80 | (character & 0x3F));
        character >>= 6;
    }
    static const uint8_t lead[] = {0, 0, 0xC0, 0xE0, 0xF0};
    out[0] = (uint8_t)(lead[bytes] | character);
    return bytes;
}

bool json_take_string(struct json *j, struct json_string *ret) {
    if (next_character(j) != '"')
        return fail(j);
    const uint8_t *start = j->at + 1;
    const uint8_t *at = start;
    size_t saved_bytes = 0; /* how much shorter the value is than its text */
    for (;;) {
        at = plain_end(at, j->end);
        if (at == j->end || *at < 0x20)
            return fail(j);
        if (*at == '"')
            break;
        if (*at == '\\') {
            uint32_t character;
            size_t bytes = escape_read(at, j->end, &character);
            if (bytes == 0)
                return fail(j);
            saved_bytes += bytes - character_bytes(character);
            at += bytes;
            continue;
        }
        size_t bytes = utf8_char_bytes(at, j->end);
        if (bytes == 0)
            return fail(j);
        at += bytes;
    }
    ret->raw = slice_of(start, (size_t)(at - start));
    ret->escaped = saved_bytes != 0;
    ret->decoded_bytes = ret->raw.len - saved_bytes;
    j->at = at + 1;
    return true;
}

static const uint8_t *digits_end(const uint8_t *at, const uint8_t *end) {
    while (at < end && *at >= '0' && *at <= '9')
        at++;
    return at;
}

/* Takes a number by the grammar of RFC 8259; `*ret_integer` is true without fraction, exponent. */
static bool take_number(struct json *j, struct slice *ret, bool *ret_integer) {
    (void)next_character(j);
    const uint8_t *start = j->at;
    const uint8_t *at = start;
    if (at < j->end && *at == '-')
        at++;
    const uint8_t *digits = at;
    at = digits_end(at, j->end);
    if (at == digits || (*digits == '0' && at - digits > 1))
        return fail(j);
    *ret_integer = true;
    if (at < j->end && *at == '.') {
        *ret_integer = false;
        digits = at + 1;
        at = digits_end(digits, j->end);
        if (at == digits)
            return fail(j);
    }
    if (at < j->end && (*at == 'e' || *at == 'E')) {
        *ret_integer = false;
        at++;
        if (at < j->end && (*at == '+' || *at == '-'))
            at++;
        digits = at;
        at = digits_end(digits, j->end);
        if (at == digits)
            return fail(j);
    }
    *ret = slice_of(start, (size_t)(at - start));
    j->at = at;
    return true;
}

static bool digits_value(struct slice digits, uint64_t *ret) {
    uint64_t value = 0;
    for (size_t i = 0; i < digits.len; i++)
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t)digits.data[i] - '0', &value))
            return false;
    *ret = value;
    return true;
}

bool json_take_u64(struct json *j, uint64_t *ret) {
    struct slice text;
    bool integer;
    if (!take_number(j, &text, &integer))
        return false;
    if (!integer || text.data[0] == '-' || !digits_value(text, ret))
        return fail(j);
    return true;
}

bool json_take_i64(struct json *j, int64_t *ret) {
    struct slice text;
    bool integer;
    if (!take_number(j, &text, &integer))
        return false;
    bool negative = text.data[0] == '-';
    if (negative)
        text = slice_of(text.data + 1, text.len - 1);
    uint64_t value;
    if (!integer || !digits_value(text, &value) || value > (uint64_t)INT64_MAX + negative)
        return fail(j);
    *ret = (int64_t)(negative ? 0 - value : value);
    return true;
}

bool json_take_double(struct json *j, double *ret) {
    struct slice text;
    bool integer;
    if (!take_number(j, &text, &integer))
        return false;
    char copy[NUMBER_CHARACTERS_MAX + 1];
    if (text.len > NUMBER_CHARACTERS_MAX)
        return fail(j);
    memcpy(copy, text.data, text.len);
    copy[text.len] = '\0';
    double value = strtod(copy, NULL);
    if (!isfinite(value))
        return fail(j);
    *ret = value;
    return true;
}

static bool take_literal(struct json *j, const char *literal, size_t len) {
    (void)next_character(j);
    if ((size_t)(j->end - j->at) < len || memcmp(j->at, literal, len) != 0)
        return fail(j);
    j->at += len;
    return true;
}

bool json_take_bool(struct json *j, bool *ret) {
    *ret = next_character(j) == 't';
    return *ret ? take_literal(j, "true", 4) : take_literal(j, "false", 5);
}

bool json_take_null(struct json *j) {
    return take_literal(j, "null", 4);
}

bool json_take_text(struct json *j, char *out, size_t capacity) {
    struct json_string string;
    if (!json_take_string(j, &string))
        return false;
    if (string.decoded_bytes >= capacity)
        return fail(j);
    json_string_decode(&string, (uint8_t *)out);
    out[string.decoded_bytes] = '\0';
    return strlen(out) == string.decoded_bytes || fail(j);
}

static bool skip_scalar(struct json *j, enum json_kind kind) {
    struct json_string string;
    struct slice number;
    bool flag;
    switch (kind) {
    case JSON_STRING:
        return json_take_string(j, &string);
    case JSON_NUMBER:
        return take_number(j, &number, &flag);
    case JSON_BOOL:
        return json_take_bool(j, &flag);
    case JSON_NULL:
        return json_take_null(j);
    case JSON_ARRAY:
    case JSON_OBJECT:
    case JSON_INVALID:
        break;
    }
    return fail(j);
}

bool json_skip(struct json *j) {
    struct {
        bool is_object;
        bool first;
    } open[JSON_DEPTH_MAX];
    size_t open_count = 0;
    struct json_string name;

    do {
        if (open_count > 0) {
            bool *first = &open[open_count - 1].first;
            bool more = open[open_count - 1].is_object ? json_member(j, first, &name)
                                                       : json_element(j, first);
            if (!more) {
                open_count--;
                continue;
            }
        }
        enum json_kind kind = json_peek(j);
        if (kind != JSON_OBJECT && kind != JSON_ARRAY) {
            if (!skip_scalar(j, kind))
                return false;
            continue;
        }
        if (!container_begin(j, kind == JSON_OBJECT ? '{' : '['))
            return false;
        open[open_count].is_object = kind == JSON_OBJECT;
        open[open_count].first = true;
        open_count++;
    } while (open_count > 0 && !j->failed);
    return !j->failed;
}

bool json_finish(struct json *j) {
    (void)next_character(j);
    if (j->failed || j->depth != 0 || j->at != j->end)
        return fail(j);
    return true;
}

bool json_string_is(const struct json_string *s, const char *text) {
    size_t len = strlen(text);
    if (s->decoded_bytes != len)
        return false;
    if (!s->escaped)
        return memcmp(s->raw.data, text, len) == 0;

    const uint8_t *at = s->raw.data;
    const uint8_t *end = at + s->raw.len;
    while (at < end) {
        uint8_t piece[4] = {*at};
        size_t piece_bytes = 1;
        size_t raw_bytes = 1;
        if (*at == '\\') {
            uint32_t character = 0;
            raw_bytes = escape_read(at, end, &character);
            piece_bytes = character_write(character, piece);
        }
        if (memcmp(piece, text, piece_bytes) != 0)
            return false;
        text += piece_bytes;
        at += raw_bytes;
    }
    return true;
}

void json_string_decode(const struct json_string *s, uint8_t *out) {
    const uint8_t *at = s->raw.data;
    const uint8_t *end = at + s->raw.len;
    while (at < end) {
        const uint8_t *backslash = s->escaped ? memchr(at, '\\', (size_t)(end - at)) : NULL;
        const uint8_t *run_end = backslash != NULL ? backslash : end;
        size_t run_bytes = (size_t)(run_end - at);
        memcpy(out, at, run_bytes);
        out += run_bytes;
        at = run_end;
        if (backslash != NULL) {
            uint32_t character = 0;
            at += escape_read(at, end, &character);
            out += character_write(character, out);
        }
    }
}

/* Letter of the two-character escape of `c`; 'u' when it needs the long form; 0 when none. */
static char quote_letter(uint8_t c) {
    switch (c) {
    case '"':
    case '\\':
        return (char)c;
    case '\b':
        return 'b';
    case '\f':
        return 'f';
    case '\n':
        return 'n';
    case '\r':
        return 'r';
    case '\t':
        return 't';
    default:
        return c < 0x20 ? 'u' : 0;
    }
}

size_t json_quoted_bytes(struct slice text) {
    size_t bytes = text.len + 2;
    if (text.len == 0)
        return bytes;
    const uint8_t *end = text.data + text.len;
    for (const uint8_t *at = plain_end(text.data, end); at < end; at = plain_end(at + 1, end)) {
        char letter = quote_letter(*at);
        if (letter != 0)
            bytes += letter == 'u' ? 5 : 1;
    }
    return bytes;
}

size_t json_quote(struct slice text, uint8_t *out) {
    static const char hex[] = "0123456789abcdef";
    uint8_t *to = out;
    *to++ = '"';
    const uint8_t *at = text.data;
    const uint8_t *end = text.len == 0 ? at : at + text.len;
    while (at < end) {
        const uint8_t *run_end = plain_end(at, end);
        size_t run_bytes = (size_t)(run_end - at);
        memcpy(to, at, run_bytes);
        to += run_bytes;
        at = run_end;
        if (at == end)
            break;
        char letter = quote_letter(*at);
        if (letter == 0) {
            *to++ = *at++;
            continue;
        }
        *to++ = '\\';
        *to++ = (uint8_t)letter;
        if (letter == 'u') {
            memcpy(to, "00", 2);
            to[2] = (uint8_t)hex[*at >> 4];
            to[3] = (uint8_t)hex[*at & 15];
            to += 4;
        }
        at++;
    }
    *to++ = '"';
    return (size_t)(to - out);
}
