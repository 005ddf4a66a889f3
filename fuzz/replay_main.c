/*
 * Runs a fuzz target over files, without a fuzzer: each argument is a file or a folder of files.
 * This is how the committed corpora are replayed in every test run, with any compiler.
 *
 * Inputs are copied to a block of their exact size, so that AddressSanitizer sees a read one byte
 * beyond. No input at all is a failure: a corpus that went missing must not look like success.
 */
#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv) __attribute__((weak));

static bool replay_file(const char *path, long bytes) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        (void)fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return false;
    }
    size_t size = (size_t)bytes;
    uint8_t *data = malloc(size != 0 ? size : 1);
    bool read_all = data != NULL && fread(data, 1, size, file) == size;
    (void)fclose(file);
    if (read_all) {
        /* Printed before the run: after a crash the last line names the culprit. */
        (void)printf("%s\n", path);
        (void)fflush(stdout);
        (void)LLVMFuzzerTestOneInput(data, size);
    } else {
        (void)fprintf(stderr, "%s: cannot be read\n", path);
    }
    free(data);
    return read_all;
}

/* Replays a file, or all files below a folder; adds their number to `count`. */
static bool replay(const char *path, unsigned *count) {
    struct stat info;
    if (stat(path, &info) != 0) {
        (void)fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return false;
    }
    if (!S_ISDIR(info.st_mode)) {
        *count += 1;
        return replay_file(path, info.st_size);
    }
    struct dirent **entries = NULL;
    int entry_count = scandir(path, &entries, NULL, alphasort);
    bool ok = entry_count >= 0;
    for (int i = 0; i < entry_count; i++) {
        char child[4096];
        int length = snprintf(child, sizeof child, "%s/%s", path, entries[i]->d_name);
        if (entries[i]->d_name[0] != '.')
            ok = length > 0 && (size_t)length < sizeof child && replay(child, count) && ok;
        free(entries[i]);
    }
    free(entries);
    return ok;
}

int main(int argc, char **argv) {
    if (LLVMFuzzerInitialize != NULL)
        (void)LLVMFuzzerInitialize(&argc, &argv);
    unsigned count = 0;
    bool ok = true;
    for (int i = 1; i < argc; i++)
        ok = replay(argv[i], &count) && ok;
    (void)printf("%u inputs replayed\n", count);
    return ok && count != 0 ? 0 : 1;
}
