/*
 * Size classes are powers of two from 64 bytes on. Each thread keeps at most
 * THREAD_KEEP_BYTES per class, so that a burst does not stay with us for ever. Live bytes are
 * counted per thread in a relaxed counter that the thread alone writes; readers sum.
 */
#include "base/buf.h"

#include <stdlib.h>

#include "base/check.h"

#define CLASS_SHIFT_MIN 6
#define CLASS_COUNT 14 /* 64 B .. 512 KiB */
#define BUF_CLASS_NONE 0xff
#define THREAD_KEEP_BYTES ((size_t)8 << 20)

#ifndef FELIX_POOLS
#define FELIX_POOLS 1
#endif

static _Atomic size_t live_bytes;

struct free_list {
    struct buf *head;
    size_t count;
};

static _Thread_local struct free_list free_lists[CLASS_COUNT];

/* The live counter is updated in steps, so that the shared line is touched rarely. */
#define LIVE_STEP ((ptrdiff_t)256 << 10)
static _Thread_local ptrdiff_t live_delta;

static void live_add(ptrdiff_t bytes) {
    live_delta += bytes;
    if (live_delta >= LIVE_STEP || live_delta <= -LIVE_STEP) {
        atomic_fetch_add_explicit(&live_bytes, (size_t)live_delta, memory_order_relaxed);
        live_delta = 0;
    }
}

static unsigned class_of(size_t capacity) {
    if (capacity <= ((size_t)1 << CLASS_SHIFT_MIN))
        return 0;
    return (unsigned)(64 - __builtin_clzl(capacity - 1)) - CLASS_SHIFT_MIN;
}

struct buf *buf_new(size_t capacity) {
    struct buf *b = NULL;
    unsigned size_class = BUF_CLASS_NONE;

    if (capacity <= BUF_POOLED_BYTES_MAX) {
        size_class = class_of(capacity);
        capacity = (size_t)1 << (size_class + CLASS_SHIFT_MIN);
        struct free_list *list = &free_lists[size_class];
        if (FELIX_POOLS && list->head != NULL) {
            b = list->head;
            list->head = b->next;
            list->count--;
        }
    }
    if (b == NULL)
        b = xmalloc(sizeof *b + capacity);

    atomic_init(&b->refs, 1);
    b->shared = false;
    b->size_class = (uint8_t)size_class;
    b->capacity = capacity;
    b->next = NULL;
    b->companion = NULL;
    live_add((ptrdiff_t)capacity);
    return b;
}

void buf_release(struct buf *b) {
    live_add(-(ptrdiff_t)b->capacity);
    if (b->companion != NULL)
        buf_unref(b->companion);
    if (FELIX_POOLS && b->size_class != BUF_CLASS_NONE) {
        struct free_list *list = &free_lists[b->size_class];
        if ((list->count + 1) * b->capacity <= THREAD_KEEP_BYTES) {
            b->next = list->head;
            list->head = b;
            list->count++;
            return;
        }
    }
    free(b);
}

void buf_thread_trim(void) {
    for (unsigned i = 0; i < CLASS_COUNT; i++) {
        struct free_list *list = &free_lists[i];
        while (list->head != NULL) {
            struct buf *b = list->head;
            list->head = b->next;
            free(b);
        }
        list->count = 0;
    }
    atomic_fetch_add_explicit(&live_bytes, (size_t)live_delta, memory_order_relaxed);
    live_delta = 0;
}

size_t buf_live_bytes(void) {
    size_t bytes = atomic_load_explicit(&live_bytes, memory_order_relaxed);
    return bytes > ((size_t)1 << 62) ? 0 : bytes; /* steps of other threads may lag below zero */
}
