#include "interrupt.h"

#include <signal.h>

atomic_bool demo_interrupted;

static void on_signal(int number) {
    atomic_store(&demo_interrupted, true);
}

void interrupt_catch(void) {
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
}
