/* Ranges of records that cannot be read: found once, remembered, told to whoever asks. */
#include "storage/log_state.h"

#include <stdlib.h>
#include <string.h>

static bool grow(struct record_log *log) {
    if (log->damage_count < log->damage_capacity)
        return true;
    uint32_t capacity = log->damage_capacity != 0 ? log->damage_capacity * 2 : 4;
    struct log_damage *damage = realloc(log->damage, capacity * sizeof(struct log_damage));
    if (damage == NULL)
        return false;
    log->damage = damage;
    log->damage_capacity = capacity;
    return true;
}

/* An empty range is one place: a bad segment header. */
static bool overlaps(const struct log_damage *a, const struct log_damage *b) {
    if (a->first == a->end || b->first == b->end)
        return a->first == b->first && a->end == b->end && a->segment == b->segment;
    return a->first < b->end && b->first < a->end;
}

void log_note_damage(struct record_log *log, const struct log_damage *damage) {
    (void)pthread_mutex_lock(&log->mutex);
    uint32_t at = 0;
    bool known = false;
    for (uint32_t i = 0; i < log->damage_count; i++) {
        if (overlaps(&log->damage[i], damage)) {
            if (damage->end > log->damage[i].end)
                log->damage[i].end = damage->end;
            known = true;
        }
        if (log->damage[i].first <= damage->first)
            at = i + 1;
    }
    /* Without memory, and beyond what is remembered, readers find it anew each time. */
    if (!known && log->damage_count < LOG_DAMAGE_REMEMBERED && grow(log)) {
        memmove(&log->damage[at + 1], &log->damage[at],
                (log->damage_count - at) * sizeof log->damage[0]);
        log->damage[at] = *damage;
        log->damage_count++;
    }
    (void)pthread_mutex_unlock(&log->mutex);
}
