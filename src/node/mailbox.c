#include "node/mailbox.h"

void mailbox_put(struct mailbox *mailbox, struct mail *mail) {
    struct mail *head = atomic_load_explicit(&mailbox->head, memory_order_relaxed);
    do {
        mail->next = head;
        /* Sequentially consistent: it must be ordered before the look at the loop's state in
         * loop_wake, or a wake-up could be lost (base/loop.c). */
    } while (!atomic_compare_exchange_weak(&mailbox->head, &head, mail));
}

struct mail *mailbox_take(struct mailbox *mailbox) {
    struct mail *newest = atomic_exchange(&mailbox->head, NULL);
    struct mail *oldest = NULL;
    while (newest != NULL) {
        struct mail *next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    return oldest;
}
