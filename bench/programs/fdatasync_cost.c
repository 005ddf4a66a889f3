/*
 * What the disk asks for one durable append: the floor that stands beside every acknowledgement
 * that means "flushed".
 *
 *     fdatasync_cost DIRECTORY [BYTES [COUNT]]
 *
 * Appends records of BYTES (284: 256 and a header of 28) to a new file of DIRECTORY, one after the
 * other, each a pwrite and an fdatasync. First to a file that every append makes longer, as a plain
 * log does; then to one whose length was set ahead, so that a flush need not write the length. In
 * turns of a tenth of COUNT, because a disk shared with others has good and bad moments. Prints one
 * JSON object; the file is gone afterwards.
 */
#include "base/clock.h"
#include "base/hist.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TURNS 10u
#define WARMUP 20u
#define BYTES_MAX ((size_t)1 << 20)
#define AHEAD_BYTES ((off_t)1 << 20)

static void fail(const char *what) {
    (void)fprintf(stderr, "fdatasync_cost: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* A file that has no name any more. */
static int open_file(const char *directory) {
    char path[4096];
    (void)snprintf(path, sizeof path, "%s/fdatasync-cost-XXXXXX", directory);
    int fd = mkstemp(path);
    if (fd < 0)
        fail(path);
    (void)unlink(path);
    return fd;
}

struct file {
    int fd;
    bool ahead; /* set its length before it is needed */
    off_t end, length;
    struct hist cost;
};

static void append(struct file *file, const void *record, size_t bytes, bool counts) {
    if (file->ahead && file->end + (off_t)bytes > file->length) {
        file->length += AHEAD_BYTES + (off_t)bytes;
        if (ftruncate(file->fd, file->length) != 0 || fdatasync(file->fd) != 0)
            fail("ftruncate");
    }
    uint64_t start_ns = clock_now_ns();
    if (pwrite(file->fd, record, bytes, file->end) != (ssize_t)bytes)
        fail("pwrite");
    if (fdatasync(file->fd) != 0)
        fail("fdatasync");
    if (counts)
        hist_record(&file->cost, clock_now_ns() - start_ns);
    file->end += (off_t)bytes;
}

static void print_cost(const char *name, const struct hist *cost) {
    (void)printf("\"%s_p50_us\":%.3f,\"%s_p99_us\":%.3f", name,
                 (double)hist_percentile_ns(cost, 50) / 1e3, name,
                 (double)hist_percentile_ns(cost, 99) / 1e3);
}

int main(int argc, char **argv) {
    size_t bytes = argc > 2 ? strtoul(argv[2], NULL, 10) : 284;
    unsigned long count = argc > 3 ? strtoul(argv[3], NULL, 10) : 1000;
    if (argc < 2 || argc > 4 || bytes == 0 || bytes > BYTES_MAX || count < TURNS) {
        (void)fprintf(stderr, "usage: fdatasync_cost DIRECTORY [BYTES [COUNT]]\n");
        return 2;
    }
    static struct file files[2];
    static unsigned char record[BYTES_MAX];
    memset(record, 0x5a, bytes);
    for (size_t i = 0; i < 2; i++) {
        files[i].fd = open_file(argv[1]);
        files[i].ahead = i == 1;
        for (unsigned k = 0; k < WARMUP; k++)
            append(&files[i], record, bytes, false);
    }
    for (unsigned turn = 0; turn < 2 * TURNS; turn++)
        for (unsigned long k = 0; k < count / TURNS; k++)
            append(&files[turn % 2], record, bytes, true);
    (void)printf("{\"bytes\":%zu,\"count\":%lu,", bytes, count / TURNS * TURNS);
    print_cost("growing", &files[0].cost);
    (void)printf(",");
    print_cost("set_ahead", &files[1].cost);
    (void)printf("}\n");
    return 0;
}
