/* What the parts of the client driver share. */
#ifndef CLIENT_DRIVER_H
#define CLIENT_DRIVER_H

#include <felix/felix.h>

#include <pthread.h>

#define NAMESPACE "default"
#define SUBSCRIPTIONS_MAX 64

/* A subscription and what its callbacks need. */
struct reader {
    unsigned id;
    felix_subscription *subscription;
    char echo_to[256]; /* stream that its callback publishes to; "" when it does not */
    bool misuse;       /* its callback calls what must not be called there */
};

#define TALLY_MAX 16

/* How often each code came, as answer or as refusal of an asynchronous call. */
struct tally {
    unsigned long pending;
    struct {
        enum felix_err err;
        unsigned long count;
    } codes[TALLY_MAX];
};

struct driver {
    felix_options *options;
    felix_client *client;
    struct reader readers[SUBSCRIPTIONS_MAX];
    pthread_mutex_t lock; /* around tally */
    pthread_cond_t settled;
    struct tally tally;
};
extern struct driver driver;

/** "ok", or "error CODE text" of this thread's last failure. */
void say_result(enum felix_err err);
/** "WHAT ID OFFSET LENGTH TEXT"; OFFSET is "-" without one, and "@TIMESTAMP" follows it with one.
 */
void say_message(const char *what, unsigned id, const struct felix_message *message);
unsigned long number(const char *word);

/** PREFIX and `index`, padded or cut to `size` bytes. Returned owned. */
char *make_payload(const char *prefix, unsigned long index, size_t size);

/** One more asynchronous call is out; its answer is counted by tally_answer. */
void tally_start(void);
void tally_answer(enum felix_err err);

/* Commands: publish and batch and pipeline: STREAM ACK COUNT SIZE PREFIX; keyed: STREAM ACK KEY
 * SIZE PREFIX; confirm: STREAM KEY COUNT SIZE PREFIX (KEY - is none): OFFSET LEVEL; cursor:
 * REQUESTED AVAILABLE of the last failure; cache_pipeline: CACHE COUNT SIZE PREFIX; settle:
 * TIMEOUT_MS; publish_threads: STREAM THREADS COUNT SIZE; mixed_threads: NAME THREADS COUNT;
 * subscribe: STREAM START MODE TARGET QUEUE_MAX POLICY; next: ID TIMEOUT_MS; take: ID COUNT
 * TIMEOUT_MS; dropped, lagged, unsubscribe: ID; callback_threads: STREAM COUNT;
 * close_under_readers: STREAM THREADS; unsubscribe_at_the_end: STREAM inside|outside. */
void run_publish(char **words);
void run_batch(char **words);
void run_keyed(char **words);
void run_confirm(char **words);
void run_pipeline(char **words);
void run_cache_pipeline(char **words);
void run_settle(char **words);
void run_publish_threads(char **words);
void run_mixed_threads(char **words);
void run_subscribe(char **words);
void run_next(char **words);
void run_take(char **words);
void run_dropped(char **words);
void run_lagged(char **words);
void run_unsubscribe(char **words);
void run_callback_threads(char **words);
void run_close_under_readers(char **words);
void run_unsubscribe_at_the_end(char **words);

#endif
