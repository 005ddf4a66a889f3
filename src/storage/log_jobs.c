/* The queue of the disk threads: put in without a lock, taken out under one. */
#include "storage/stream_log.h"

void log_job_push(struct log_service *service, struct log_job *job) {
    struct log_job *newest = atomic_load_explicit(&service->new_jobs, memory_order_relaxed);
    do {
        job->next = newest;
    } while (!atomic_compare_exchange_weak(&service->new_jobs, &newest, job));
    log_pool_wake(&service->commit_pool);
}

static struct log_job *take_new(struct log_service *service) {
    struct log_job *newest = atomic_exchange(&service->new_jobs, NULL);
    struct log_job *oldest = NULL;
    while (newest != NULL) {
        struct log_job *next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    return oldest;
}

bool log_jobs_work(void *context) {
    struct log_service *service = context;
    (void)pthread_mutex_lock(&service->jobs_lock);
    if (service->jobs == NULL)
        service->jobs = take_new(service);
    struct log_job *job = service->jobs;
    if (job != NULL)
        service->jobs = job->next;
    atomic_store(&service->more_jobs, service->jobs != NULL);
    (void)pthread_mutex_unlock(&service->jobs_lock);
    if (job == NULL)
        return false;
    /* Whoever queued these woke one thread each, but that one may be late or have found others. */
    if (log_jobs_waiting(service))
        log_pool_wake(&service->commit_pool);
    job->run(job->log);
    return true;
}

bool log_jobs_waiting(void *context) {
    struct log_service *service = context;
    return atomic_load(&service->more_jobs) || atomic_load(&service->new_jobs) != NULL;
}
