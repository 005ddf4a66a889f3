/* SIGINT and SIGTERM end a demo early but in order: what was started is taken down, and the
 * broker's directory removed. A second one ends the process at once. */
#ifndef DEMOS_INTERRUPT_H
#define DEMOS_INTERRUPT_H

#include <stdatomic.h>
#include <stdbool.h>

/* Set by the handler; any thread reads it. */
extern atomic_bool demo_interrupted;

static inline bool interrupted(void) {
    return atomic_load_explicit(&demo_interrupted, memory_order_relaxed);
}

void interrupt_catch(void);

#endif
