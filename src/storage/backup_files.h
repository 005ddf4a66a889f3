/* Files as backup.c and restore.c handle them. */
#ifndef STORAGE_BACKUP_FILES_H
#define STORAGE_BACKUP_FILES_H

#include "storage/manifest.h"
#include "storage/survey.h"

#include <limits.h>

/** `err` is a negative errno of `call` on `path`: fills reterr and returns the code for it. */
enum felix_err backup_failed(struct felix_error *reterr, int err, const char *call,
                             const char *path);

/** Add the damaged ranges of a survey: those in which records are lost, ascending, none twice. */
void backup_describe_damage(const struct survey *survey, struct manifest_log *log);

/** "DIR/NAME". FELIX_INVALID_ARGUMENT: too long. */
enum felix_err backup_join(char out[PATH_MAX], const char *dir, const char *name,
                           struct felix_error *reterr);

struct backup_names {
    char **items; /* sorted */
    size_t count;
};

/** The names in a directory; the caller's to deinit. 0 or negative errno; then there are none. */
int backup_list(const struct disk *disk, const char *dir, struct backup_names *ret);
void backup_names_deinit(struct backup_names *names);

/** FELIX_EXISTS unless there is nothing at `path`, or an empty directory (*ret_empty_dir). */
enum felix_err backup_target_free(const struct disk *disk, const char *path, bool *ret_empty_dir,
                                  struct felix_error *reterr);

/** Copy an open file to a new one, sharing blocks where the file system can. Not synced. */
enum felix_err backup_copy(const struct disk *disk, int from, const char *from_path,
                           const char *to_path, struct felix_error *reterr);

/** Cut a file to `bytes` unless it has no more, and sync it. */
enum felix_err backup_cut_and_sync(const struct disk *disk, const char *path, uint64_t bytes,
                                   struct felix_error *reterr);

/** Length and CRC-32 of a file. */
enum felix_err backup_checksum(const struct disk *disk, const char *path, uint64_t *ret_bytes,
                               uint32_t *ret_crc, struct felix_error *reterr);

/**
 * Remove a directory of ours: segments, indexes, checkpoints, manifests, and, one level down,
 * directories of these. Anything else is left, with the directories that hold it. Best effort.
 */
void backup_remove_tree(const struct disk *disk, const char *dir);

#endif
