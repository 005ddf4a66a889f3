/*
 * Go on where the last run stopped: remember the offset of the next message in a file, and start
 * there. (Within one run the library does this by itself after a lost connection.)
 *
 *     resume STREAM OFFSET_FILE [TIMEOUT_MS]   reads until nothing came for so long
 */
#include <felix/felix.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* Where to start: at the offset in the file, or at the oldest message without one. */
static void load(const char *path, struct felix_subscribe_options *how) {
    char line[32], *end = line;
    FILE *file = fopen(path, "r");
    how->start = FELIX_START_EARLIEST;
    if (file == NULL)
        return;
    if (fgets(line, sizeof line, file) != NULL)
        how->offset = strtoull(line, &end, 10);
    if (end != line)
        how->start = FELIX_START_OFFSET;
    fclose(file);
}

/* After the message was dealt with: a crash before this line shows the message again. */
static int save(const char *path, uint64_t next_offset) {
    FILE *file = fopen(path, "w");
    if (file == NULL)
        return -1;
    int printed = fprintf(file, "%" PRIu64 "\n", next_offset);
    return fclose(file) == 0 && printed > 0 ? 0 : -1;
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: resume STREAM OFFSET_FILE [TIMEOUT_MS]\n");
        return 2;
    }
    uint32_t timeout_ms = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : 1000;
    int status = 1;
    struct felix_subscribe_options how = {0};
    load(argv[2], &how);

    felix_options *options = felix_options_new();
    felix_client *client = NULL;
    felix_subscription *subscription = NULL;
    if (options == NULL || felix_connect(options, 0, &client) != FELIX_OK ||
        felix_subscribe(client, "default", argv[1], &how, &subscription) != FELIX_OK)
        goto out; /* FELIX_CURSOR_TOO_OLD: it was away for too long, and the text says since when */

    struct felix_message message;
    enum felix_err err;
    while ((err = felix_next(subscription, timeout_ms, &message)) == FELIX_OK) {
        printf("%" PRIu64 " %.*s\n", message.offset, (int)message.len, (const char *)message.data);
        if (save(argv[2], message.offset + 1) != 0) {
            perror(argv[2]);
            break;
        }
    }
    status = err == FELIX_TIMED_OUT ? 0 : 1;

out:
    if (status != 0) {
        struct felix_cursor_error cursor;
        fprintf(stderr, "resume: %s\n", felix_last_error());
        if (felix_last_cursor_error(&cursor))
            fprintf(stderr, "resume: offset %" PRIu64 " would work\n", cursor.available);
    }
    felix_unsubscribe(subscription);
    felix_close(client, 1000);
    felix_options_free(options);
    return status;
}
