/* How what a survey found is said. */
#ifndef CLI_LOG_VIEW_H
#define CLI_LOG_VIEW_H

#include "base/text.h"
#include "storage/survey.h"

/** Append a list of JSON objects. */
void log_view_damage_json(struct text *line, const struct survey *survey);

struct damage_text {
    char text[224];
};
/** "segment 1, byte 236: checksum; the records 13 to 13 cannot be read" */
struct damage_text log_view_damage(const struct survey_damage *damage);

/** Bytes of unfinished writes that opening would cut off, without those that are only zeros. */
uint64_t log_view_unfinished_bytes(const struct survey *survey);

#endif
