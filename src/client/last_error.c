#include "client/last_error.h"

#include <felix/felix.h>

static _Thread_local struct felix_error record;

struct felix_error *last_error(void) {
    return &record;
}

enum felix_err last_error_clear(void) {
    record.code = FELIX_OK;
    record.text[0] = '\0';
    return FELIX_OK;
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
