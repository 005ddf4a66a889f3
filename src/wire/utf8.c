/*
 * Nearly all names and texts are ASCII, so validation looks at eight bytes at a time for a high
 * bit and only then at single characters. The ranges of the second byte are those of table 3-7
 * of the Unicode standard: they exclude overlong forms, surrogates and what lies beyond U+10FFFF.
 */
#include "wire/utf8.h"

#define HIGH_BITS 0x8080808080808080ull

static bool is_continuation(uint8_t byte) {
    return (byte & 0xC0) == 0x80;
}

size_t utf8_char_bytes(const uint8_t *at, const uint8_t *end) {
    size_t left = (size_t)(end - at);
    uint8_t lead = at[0];
    if (lead < 0x80)
        return 1;
    if (lead < 0xC2 || lead > 0xF4 || left < 2)
        return 0;

    uint8_t low = 0x80;
    uint8_t high = 0xBF;
    if (lead == 0xE0)
        low = 0xA0;
    else if (lead == 0xED)
        high = 0x9F;
    else if (lead == 0xF0)
        low = 0x90;
    else if (lead == 0xF4)
        high = 0x8F;
    if (at[1] < low || at[1] > high)
        return 0;
    if (lead < 0xE0)
        return 2;
    if (left < 3 || !is_continuation(at[2]))
        return 0;
    if (lead < 0xF0)
        return 3;
    return left >= 4 && is_continuation(at[3]) ? 4 : 0;
}

/* Short and long alike without a loop over bytes: what is left over is looked at in a word that
 * overlaps the one before. */
static bool is_ascii(struct slice text) {
    uint64_t first = 0, last = 0;
    if (text.len < sizeof first) {
        uint32_t half = 0, other = 0;
        if (text.len >= sizeof half) {
            memcpy(&half, text.data, sizeof half);
            memcpy(&other, text.data + text.len - sizeof other, sizeof other);
        } else {
            for (size_t i = 0; i < text.len; i++)
                half |= text.data[i];
        }
        return ((half | other) & (uint32_t)HIGH_BITS) == 0;
    }
    for (size_t at = 0; at + sizeof first <= text.len; at += sizeof first) {
        memcpy(&first, text.data + at, sizeof first);
        if ((first & HIGH_BITS) != 0)
            return false;
    }
    memcpy(&last, text.data + text.len - sizeof last, sizeof last);
    return (last & HIGH_BITS) == 0;
}

bool utf8_valid(struct slice text) {
    if (text.len == 0 || is_ascii(text))
        return true;
    const uint8_t *at = text.data;
    const uint8_t *end = text.data + text.len;
    while (at < end) {
        if (end - at >= 8) {
            uint64_t word;
            memcpy(&word, at, sizeof word);
            if ((word & HIGH_BITS) == 0) {
                at += sizeof word;
                continue;
            }
        }
        if (*at < 0x80) {
            at++;
            continue;
        }
        size_t bytes = utf8_char_bytes(at, end);
        if (bytes == 0)
            return false;
        at += bytes;
    }
    return true;
}

size_t utf8_cut(struct slice text, size_t max_bytes) {
    if (text.len <= max_bytes)
        return text.len;
    size_t len = max_bytes;
    while (len > 0 && is_continuation(text.data[len]))
        len--;
    return len;
}
