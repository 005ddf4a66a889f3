#include "base/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Noreturn void check_failed(const char *expression, const char *file, int line) {
    (void)fprintf(stderr, "felix: invariant broken: %s (%s:%d)\n", expression, file, line);
    abort();
}

void *xmalloc(unsigned long bytes) {
    void *memory = malloc(bytes != 0 ? bytes : 1);
    INVARIANT(memory != NULL);
    return memory;
}

void *xcalloc(unsigned long count, unsigned long bytes) {
    void *memory = calloc(count != 0 ? count : 1, bytes != 0 ? bytes : 1);
    INVARIANT(memory != NULL);
    return memory;
}

void *xrealloc(void *old, unsigned long bytes) {
    void *memory = realloc(old, bytes != 0 ? bytes : 1);
    INVARIANT(memory != NULL);
    return memory;
}

char *xstrdup(const char *text) {
    char *copy = strdup(text);
    INVARIANT(copy != NULL);
    return copy;
}
