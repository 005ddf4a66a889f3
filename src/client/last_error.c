#include "client/last_error.h"

static _Thread_local struct felix_error record;
static _Thread_local struct felix_cursor_error record_cursor;

struct felix_error *last_error(void) {
    return &record;
}

enum felix_err last_error_clear(void) {
    record.code = FELIX_OK;
    record.text[0] = '\0';
    return FELIX_OK;
}

void last_error_set_cursor(struct felix_cursor_error cursor) {
    record_cursor = cursor;
}

bool felix_last_cursor_error(struct felix_cursor_error *ret) {
    if (ret == NULL || (record.code != FELIX_CURSOR_TOO_OLD &&
                        record.code != FELIX_CURSOR_IN_FUTURE && record.code != FELIX_LAGGED))
        return false;
    *ret = record_cursor;
    return true;
}

const char *felix_last_error(void) {
    return record.text;
}

const char *felix_err_name(enum felix_err err) {
    return err_name(err);
}

const char *felix_err_text(enum felix_err err) {
    return err_text(err);
}
