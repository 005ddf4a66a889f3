/*
 * buf: a reference-counted block of bytes.
 *
 * Written by the one who made it, immutable once a second reference exists. References are
 * counted without atomic instructions while the block stays on one thread; buf_share() before
 * a block crosses to another thread switches it to atomic counting for the rest of its life.
 * Blocks up to BUF_POOLED_BYTES_MAX come from per-thread free lists by size class; a block freed
 * on another thread joins that thread's lists. Build with -Dpools=false to turn the lists off so
 * that AddressSanitizer sees every use after free.
 */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BUF_POOLED_BYTES_MAX ((size_t)1 << 19)

struct buf {
    _Atomic uint32_t refs;
    bool shared;           /* references are counted atomically */
    uint8_t size_class;    /* index of the free list, or BUF_CLASS_NONE */
    size_t capacity;       /* usable bytes in data */
    struct buf *next;      /* link of the free list, or for the holder of the only reference */
    struct buf *companion; /* one reference, dropped together with this block; may be NULL */
    _Alignas(16) uint8_t data[];
};

/** Returns a block with one reference, owned by the caller. Contents are undefined. */
struct buf *buf_new(size_t capacity);

/** Must be called by the thread that holds all references, before one crosses to another. */
static inline void buf_share(struct buf *b) {
    b->shared = true;
}

/** Adds a reference and returns `b`. */
static inline struct buf *buf_ref(struct buf *b) {
    if (b->shared) {
        /* Relaxed: whoever adds a reference already holds one. */
        atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
    } else {
        uint32_t refs = atomic_load_explicit(&b->refs, memory_order_relaxed);
        atomic_store_explicit(&b->refs, refs + 1, memory_order_relaxed);
    }
    return b;
}

/** Frees the block; called by buf_unref only. */
void buf_release(struct buf *b);

/** Drops a reference; the last one frees. Accepts NULL. */
static inline void buf_unref(struct buf *b) {
    if (b == NULL)
        return;
    if (b->shared) {
        /* Acquire-release: the freeing thread must see all writes of the other holders. */
        if (atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel) == 1)
            buf_release(b);
        return;
    }
    uint32_t refs = atomic_load_explicit(&b->refs, memory_order_relaxed);
    atomic_store_explicit(&b->refs, refs - 1, memory_order_relaxed);
    if (refs == 1)
        buf_release(b);
}

/** Returns the blocks kept by this thread's free lists to the allocator. At thread end. */
void buf_thread_trim(void);

/** Bytes in blocks that are alive in the whole process, free lists not counted. Any thread. */
size_t buf_live_bytes(void);

#endif
