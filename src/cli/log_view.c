#include "cli/log_view.h"

#include <inttypes.h>
#include <stdio.h>

void log_view_damage_json(struct text *line, const struct survey *survey) {
    text_char(line, '[');
    for (size_t i = 0; i < survey->damage_count; i++) {
        const struct survey_damage *d = &survey->damage[i];
        text_printf(line,
                    "%s{\"first\":%" PRIu64 ",\"end\":%" PRIu64 ",\"segment\":%" PRIu64
                    ",\"position\":%" PRIu64 ",\"what\":",
                    i > 0 ? "," : "", d->first, d->end, d->segment, d->position);
        text_quoted(line, slice_str(d->what));
        text_char(line, '}');
    }
    text_char(line, ']');
}

struct damage_text log_view_damage(const struct survey_damage *d) {
    struct damage_text t;
    int length = snprintf(t.text, sizeof t.text, "segment %" PRIu64 ", byte %" PRIu64 ": %s; ",
                          d->segment, d->position, d->what);
    size_t at = length > 0 && (size_t)length < sizeof t.text ? (size_t)length : 0;
    if (d->end == d->first)
        (void)snprintf(t.text + at, sizeof t.text - at, "no record is known to be lost");
    else if (d->end == d->first + 1)
        (void)snprintf(t.text + at, sizeof t.text - at, "record %" PRIu64 " cannot be read",
                       d->first);
    else
        (void)snprintf(t.text + at, sizeof t.text - at,
                       "the records %" PRIu64 " to %" PRIu64 " cannot be read", d->first,
                       d->end - 1);
    return t;
}

uint64_t log_view_unfinished_bytes(const struct survey *survey) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < survey->segments_count; i++) {
        const struct survey_segment *segment = &survey->segments[i];
        if (segment->tail != SURVEY_TAIL_NONE && segment->tail != SURVEY_TAIL_ZEROS &&
            !segment->tail_damaged)
            bytes += segment->tail_bytes;
    }
    return bytes;
}
