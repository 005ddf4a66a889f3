#include "auth/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"

/* Reads until the end of the file or until `capacity` bytes are there. */
static enum felix_err file_read_fd(int fd, uint8_t *data, size_t capacity, size_t *ret_bytes) {
    size_t used = 0;
    while (used < capacity) {
        ssize_t got = read(fd, data + used, capacity - used);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return FELIX_SYSTEM;
        if (got == 0)
            break;
        used += (size_t)got;
    }
    *ret_bytes = used;
    return FELIX_OK;
}

enum felix_err auth_file_read(const char *path, size_t bytes_max, uint8_t **ret, size_t *ret_bytes,
                              struct felix_error *reterr) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_set(reterr, FELIX_SYSTEM, errno, "cannot open %s", path);

    /* One byte beyond the limit tells a file that is too large; it is also room for the NUL. */
    uint8_t *data = xmalloc(bytes_max + 1);
    size_t bytes = 0;
    enum felix_err err = file_read_fd(fd, data, bytes_max + 1, &bytes);
    if (err != FELIX_OK)
        (void)error_set(reterr, err, errno, "cannot read %s", path);
    (void)close(fd);

    if (err == FELIX_OK && bytes > bytes_max)
        err = error_set(reterr, FELIX_LIMIT, 0, "%s has more than %zu bytes", path, bytes_max);
    if (err != FELIX_OK) {
        explicit_bzero(data, bytes_max + 1);
        free(data);
        return err;
    }
    data[bytes] = 0;
    *ret = data;
    *ret_bytes = bytes;
    return FELIX_OK;
}

static bool file_write_fd(int fd, struct slice bytes) {
    size_t done = 0;
    while (done < bytes.len) {
        ssize_t put = write(fd, bytes.data + done, bytes.len - done);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return false;
        done += (size_t)put;
    }
    return true;
}

/* A rename survives a crash only when the folder itself was synced. */
static bool file_sync_folder(const char *path) {
    const char *slash = strrchr(path, '/');
    char *folder = NULL;
    if (slash == NULL)
        folder = xstrdup(".");
    else if (slash == path)
        folder = xstrdup("/");
    else
        folder = strndup(path, (size_t)(slash - path));
    INVARIANT(folder != NULL);

    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    free(folder);
    if (fd < 0)
        return false;
    /* Some file systems cannot sync a folder and say so with EINVAL: nothing more can be done. */
    bool synced = fsync(fd) == 0 || errno == EINVAL;
    int saved = errno;
    (void)close(fd);
    errno = saved;
    return synced;
}

enum felix_err auth_file_write(const char *path, struct slice bytes, mode_t mode,
                               struct felix_error *reterr) {
    char *temporary = NULL;
    if (asprintf(&temporary, "%s.XXXXXX", path) < 0)
        return error_set(reterr, FELIX_NO_MEMORY, 0, "cannot write %s", path);

    int fd = mkostemp(temporary, O_CLOEXEC); /* mode 0600 */
    if (fd < 0) {
        int saved = errno;
        free(temporary);
        return error_set(reterr, FELIX_SYSTEM, saved, "cannot create a file beside %s", path);
    }

    bool written = file_write_fd(fd, bytes) && fchmod(fd, mode) == 0 && fsync(fd) == 0;
    int saved = errno;
    if (close(fd) != 0 && written) {
        written = false;
        saved = errno;
    }
    if (written && rename(temporary, path) != 0) {
        written = false;
        saved = errno;
    }
    if (!written)
        (void)unlink(temporary);
    free(temporary);
    if (!written)
        return error_set(reterr, FELIX_SYSTEM, saved, "cannot write %s", path);

    if (!file_sync_folder(path))
        return error_set(reterr, FELIX_SYSTEM, errno, "cannot sync the folder of %s", path);
    return FELIX_OK;
}
