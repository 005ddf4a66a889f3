#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define CASE_NAME(name, value, text)                                                               \
    case FELIX_##name:                                                                             \
        return #name;
#define CASE_TEXT(name, value, text)                                                               \
    case FELIX_##name:                                                                             \
        return text;

const char *err_name(enum felix_err err) {
    switch (err) { FELIX_ERR_MAP(CASE_NAME) }
    return "UNKNOWN";
}

const char *err_text(enum felix_err err) {
    switch (err) { FELIX_ERR_MAP(CASE_TEXT) }
    return "unknown error";
}

#undef error_set
enum felix_err error_set(struct felix_error *reterr, enum felix_err code, int sys_errno,
                         const char *format, ...) {
    if (reterr == NULL)
        return code;

    reterr->code = code;
    reterr->sys_errno = sys_errno;

    va_list args;
    va_start(args, format);
    int used = vsnprintf(reterr->text, sizeof reterr->text, format, args);
    va_end(args);

    if (sys_errno != 0 && used >= 0 && (size_t)used < sizeof reterr->text) {
        size_t rest = sizeof reterr->text - (size_t)used;
        (void)snprintf(reterr->text + used, rest, ": %s", strerror(sys_errno));
    }
    return code;
}
