#include "core/mail.h"

#include <stdlib.h>

void mail_free(struct mail *mail) {
    buf_unref(mail->key);
    switch (mail->kind) {
    case MAIL_PUBLISH:
        buf_unref(((struct mail_publish *)mail)->body);
        break;
    case MAIL_SUBSCRIBED: {
        struct mail_subscribed *subscribed = (struct mail_subscribed *)mail;
        for (uint32_t i = 0; i < subscribed->block_count; i++)
            buf_unref(subscribed->blocks[i]);
        break;
    }
    case MAIL_LOG_PAGE: {
        struct log_read *read = ((struct mail_log_page *)mail)->read;
        if (read != NULL)
            buf_unref(read->page.block);
        free(read);
        break;
    }
    case MAIL_DELIVER:
        buf_unref(((struct mail_deliver *)mail)->block);
        break;
    case MAIL_CACHE:
        buf_unref(((struct mail_cache *)mail)->memory);
        break;
    case MAIL_CACHE_DONE:
        buf_unref(((struct mail_cache_done *)mail)->value_block);
        break;
    case MAIL_PUBLISHED:
    case MAIL_SUBSCRIBE:
    case MAIL_UNSUBSCRIBE:
    case MAIL_DELIVERED:
    case MAIL_STALL:
    case MAIL_REWIND:
    case MAIL_GAP:
    case MAIL_LOGGED:
    case MAIL_REMOVE:
    case MAIL_ADD:
    case MAIL_NODE:
        break;
    }
    free(mail);
}
