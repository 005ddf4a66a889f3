/*
 * Invariants of our own. A peer's input never reaches one of these: malformed input is an error
 * code. A broken invariant ends the process, in release builds too, because going on would
 * corrupt what other clients rely on.
 */
#ifndef BASE_CHECK_H
#define BASE_CHECK_H

/** Prints the broken invariant with its place to standard error and aborts. */
_Noreturn void check_failed(const char *expression, const char *file, int line);

#define INVARIANT(expression)                                                                      \
    ((expression) ? (void)0 : check_failed(#expression, __FILE__, __LINE__))

#define UNREACHED() check_failed("unreached", __FILE__, __LINE__)

/* For objects that travel through a library's `void *`: the first member is `uint32_t magic`. */
#define OBJ_CHECK(object, expected) INVARIANT((object) != NULL && (object)->magic == (expected))

/** malloc, calloc and realloc that end the process instead of returning NULL: every allocation
 * that a peer can provoke is bounded by a setting, so running out is a broken host. */
void *xmalloc(unsigned long bytes);
void *xcalloc(unsigned long count, unsigned long bytes);
void *xrealloc(void *old, unsigned long bytes);
char *xstrdup(const char *text);

#endif
