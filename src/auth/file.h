/* Whole small files, for keys and certificates. Blocks: at start-up and on the command line. */
#ifndef AUTH_FILE_H
#define AUTH_FILE_H

#include <sys/types.h>

#include "base/err.h"
#include "base/slice.h"

/**
 * Returns owned in `*ret` (free) the bytes of the file, followed by a NUL that is not counted.
 * FELIX_LIMIT: more than `bytes_max`. FELIX_SYSTEM: it cannot be read.
 */
enum felix_err auth_file_read(const char *path, size_t bytes_max, uint8_t **ret, size_t *ret_bytes,
                              struct felix_error *reterr);

/**
 * Make `path` hold exactly `bytes`, with the permissions `mode` whatever the umask. Readers see
 * the old file or the new one, never a part, and it was never readable under another mode: the
 * bytes go to a temporary file beside it, which is synced and renamed. FELIX_SYSTEM: the old file
 * is untouched, or the new one is there but its folder could not be synced.
 */
enum felix_err auth_file_write(const char *path, struct slice bytes, mode_t mode,
                               struct felix_error *reterr);

#endif
