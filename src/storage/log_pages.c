/*
 * Pages for subscriptions, read by threads of their own: a cold page waits for the disk, and no
 * commit waits for it. What is read and not yet sent is bounded over all readers; the first request
 * that does not fit waits, and those behind it, so that none starves.
 */
#include "storage/stream_log.h"

#include "base/log.h"

void log_read(struct log_read *read) {
    struct log_service *service = read->log->service;
    (void)stream_log_ref(read->log);
    struct log_read *newest = atomic_load_explicit(&service->new_reads, memory_order_relaxed);
    do {
        read->next = newest;
    } while (!atomic_compare_exchange_weak(&service->new_reads, &newest, read));
    log_pool_wake(&service->read_pool);
}

static struct log_read *take_new(struct log_service *service) {
    struct log_read *newest = atomic_exchange(&service->new_reads, NULL);
    struct log_read *oldest = NULL;
    while (newest != NULL) {
        struct log_read *next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    return oldest;
}

/* Take `bytes` of the bound, which a single page may exceed when there is no other. */
static bool reserve(struct log_service *service, size_t bytes) {
    uint64_t held = atomic_load(&service->pages_bytes);
    do {
        if (held > 0 && held + bytes > service->settings.read_pages_bytes_max)
            return false;
    } while (!atomic_compare_exchange_weak(&service->pages_bytes, &held, held + bytes));
    return true;
}

/* As reserve; on failure, whoever gives memory back wakes a reader. */
static bool reserve_or_starve(struct log_service *service, size_t bytes) {
    if (reserve(service, bytes))
        return true;
    atomic_store(&service->reads_starved, true);
    if (!reserve(service, bytes))
        return false; /* seen after the mark: log_page_done sees the mark */
    atomic_store(&service->reads_starved, false);
    return true;
}

void log_page_done(struct log_service *service, size_t bytes) {
    atomic_fetch_sub(&service->pages_bytes, bytes);
    if (atomic_exchange(&service->reads_starved, false))
        log_pool_wake(&service->read_pool);
}

/* As far as the flusher or the writer has come to say so: a page may reach beyond. */
static uint64_t committed_end(struct stream_log *log) {
    return log->settings.sync == LOG_SYNC_ON_COMMIT ? atomic_load(&log->durable)
                                                    : atomic_load(&log->written);
}

static void fill(struct log_service *service, struct log_read *read) {
    struct record_log *records = atomic_load(&read->log->records);
    struct felix_error error = {0};
    if (records == NULL) {
        struct stream_log_state state;
        stream_log_state(read->log, &state);
        read->err = state.err != FELIX_OK ? state.err : FELIX_STORAGE;
        return;
    }
    read->err = record_log_read(records, read->offset, read->bytes_max, &read->page,
                                &read->available, &error);
    if (read->err == FELIX_DAMAGED)
        log_tell_damage(read->log);
    if (read->err == FELIX_DAMAGED || read->err == FELIX_STORAGE || read->err == FELIX_NO_MEMORY)
        LOG_RATE(storage, WARN, "read_failed", F_STR("log", read->log->name), F_ERR(read->err),
                 F_U64("offset", read->offset), F_STR("detail", error.text));
    if (read->err != FELIX_OK)
        return;
    read->at_end = read->page.first + read->page.list.count >= committed_end(read->log);
    if (read->page.block == NULL)
        return;
    LOG_COUNT(service, pages, 1);
    LOG_COUNT(service, page_records, read->page.list.count);
    LOG_COUNT(service, page_bytes, read->page.list.payload_bytes);
}

/* The first request, when there is memory for its page. *ret_closed: it is not to be served. */
static struct log_read *take_read(struct log_service *service, bool *ret_closed) {
    (void)pthread_mutex_lock(&service->reads_lock);
    if (service->reads == NULL)
        service->reads = take_new(service);
    struct log_read *read = service->reads;
    *ret_closed = false;
    if (read != NULL && !reserve_or_starve(service, read->bytes_max)) {
        *ret_closed = atomic_load(&service->reads_closing);
        if (!*ret_closed)
            read = NULL;
    }
    if (read != NULL)
        service->reads = read->next;
    atomic_store(&service->more_reads, service->reads != NULL);
    (void)pthread_mutex_unlock(&service->reads_lock);
    return read;
}

bool log_reads_work(void *context) {
    struct log_service *service = context;
    bool closed;
    struct log_read *read = take_read(service, &closed);
    if (read == NULL)
        return false;
    if (log_reads_waiting(service))
        log_pool_wake(&service->read_pool);
    struct stream_log *log = read->log;
    read->page = (struct log_page){.first = read->offset};
    read->available = 0;
    read->at_end = false;
    if (closed) {
        read->err = FELIX_CLOSED;
    } else {
        fill(service, read);
        /* What it took instead of what it might have taken. */
        size_t taken = read->page.block != NULL ? read->page.block->capacity : 0;
        atomic_fetch_add(&service->pages_bytes, taken);
        log_page_done(service, read->bytes_max);
    }
    service->events.on_page(service->context, read);
    stream_log_unref(log);
    return true;
}

bool log_reads_waiting(void *context) {
    struct log_service *service = context;
    if (atomic_load(&service->reads_starved) && !atomic_load(&service->reads_closing))
        return false;
    return atomic_load(&service->more_reads) || atomic_load(&service->new_reads) != NULL;
}
