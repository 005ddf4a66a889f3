/*
 * How streams are shown: a table or lines for people, fields split by tabs for pipes, JSON for
 * programs. One thread.
 */
#ifndef CLI_STREAM_VIEW_H
#define CLI_STREAM_VIEW_H

#include "cli/cli.h"
#include "wire/stream_admin.h"

struct stream_view_cell {
    char text[32];
};

/** "17 B", "1.5 GiB". */
struct stream_view_cell stream_view_bytes(uint64_t bytes);

/** A name, or another text of the broker's, without what could steer a terminal. Returned owned. */
char *stream_view_name(const char *text);

/** Print streams, one a line; on a terminal below a heading. */
void stream_view_list(const struct cli *cli, const struct stream_entry *entries, size_t count);

/** Print all about one stream, for people. */
void stream_view_details(const struct stream_entry *entry);

/** Print what became of the one stream of the answer; into a pipe only with --json. */
void stream_view_outcome(const struct cli *cli, const struct stream_answer *answer);

#endif
