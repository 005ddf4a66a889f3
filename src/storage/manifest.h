/*
 * The manifest of a backup: which files it has, what is in them, and up to where it reaches.
 *
 * It is the last file that a backup writes, so without one, or with one whose last line is not
 * right, there is no backup. Lines of text, for people too:
 *
 *   felix-backup 1
 *   kind node                                      or "log": of one directory
 *   made 1767225600000000                          microseconds since the epoch
 *   log acme_default_orders_0-0d3aed4b998d2798     a directory of that name
 *   range 0 1200                                   the records 0 .. 1199
 *   damage 17 18                                   records that could not be read, if any
 *   file 0 0 1000 92032 5a0c31d7                   segment, its records 0 .. 999, bytes, CRC-32
 *   file 1 1000 1200 18432 12ab34cd
 *   end 3d21a0f4                                   CRC-32 of everything before this line
 *
 * Logs are sorted by name. Numbers are written in one way only (no leading zeros, eight lower-case
 * hex digits), so what decodes encodes to the same bytes. Names are those of files below the backup
 * and nothing else: a manifest from elsewhere leads nowhere. Belongs to one thread.
 */
#ifndef STORAGE_MANIFEST_H
#define STORAGE_MANIFEST_H

#include "base/err.h"
#include "base/text.h"

#define MANIFEST_FILE_NAME "felix-backup.manifest"
#define MANIFEST_LOG_NAME_BYTES_MAX 200u
/* More logs than a node can have, and a bound on what a manifest makes us allocate. */
#define MANIFEST_BYTES_MAX ((size_t)64 << 20)

/* One segment. `end` is where the next one begins; for the newest, the end of the backup. */
struct manifest_file {
    uint64_t segment;
    uint64_t first, end; /* offsets, half open */
    uint64_t bytes;
    uint32_t crc;
};

struct manifest_range {
    uint64_t first, end;
};

struct manifest_log {
    char name[MANIFEST_LOG_NAME_BYTES_MAX + 1];
    struct manifest_range range;
    struct manifest_range *damage;
    size_t damage_count;
    struct manifest_file *files;
    size_t files_count;
};

struct manifest {
    bool node; /* a root of several logs, not the directory of one */
    uint64_t made_us;
    struct manifest_log *logs;
    size_t logs_count;
};

/** May a directory of a backup carry this name? Letters, digits, '-', '_' and '.', not first. */
bool manifest_name_valid(struct slice name);

/** Append an empty log, a file, a damaged range; returned borrowed until the next is added. */
struct manifest_log *manifest_add_log(struct manifest *manifest, struct slice name);
struct manifest_file *manifest_add_file(struct manifest_log *log);
void manifest_add_damage(struct manifest_log *log, uint64_t first, uint64_t end);
/** Append the manifest as bytes. Pure. */
void manifest_encode(const struct manifest *manifest, struct text *out);

/**
 * Read a manifest. Pure; *ret is the caller's to deinit on FELIX_OK and empty otherwise.
 *   FELIX_MALFORMED   not what manifest_encode writes; reterr names the line and what is wrong
 *   FELIX_UNSUPPORTED   of a later version
 */
enum felix_err manifest_decode(struct slice bytes, struct manifest *ret,
                               struct felix_error *reterr);

void manifest_deinit(struct manifest *manifest);

#endif
