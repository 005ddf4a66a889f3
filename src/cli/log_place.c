#include "cli/log_place.h"

#include "base/check.h"
#include "storage/record_log.h"
#include "storage/survey.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define DEV_TENANT "t1"
#define DEV_LOGS "streams"

static const char *set_or(const char *variable, const char *otherwise) {
    const char *value = getenv(variable);
    return value != NULL && value[0] != '\0' ? value : otherwise;
}

/* The directory of the logs of a broker for development, or of the one whose settings these are. */
static bool find_root(char ret[PATH_MAX]) {
    const char *root = set_or("FELIX_DURABLE_STORAGE_DIR", NULL);
    const char *data = set_or("FELIX_DATA_DIR", NULL);
    const char *state = set_or("XDG_STATE_HOME", NULL);
    int bytes;
    if (root != NULL)
        bytes = snprintf(ret, PATH_MAX, "%s", root);
    else if (data != NULL)
        bytes = snprintf(ret, PATH_MAX, "%s/" DEV_LOGS, data);
    else if (state != NULL)
        bytes = snprintf(ret, PATH_MAX, "%s/felix/dev/" DEV_LOGS, state);
    else
        bytes = snprintf(ret, PATH_MAX, "%s/.local/state/felix/dev/" DEV_LOGS, set_or("HOME", "."));
    return bytes > 0 && bytes < PATH_MAX;
}

static void ignore_name(void *user, const char *name) {
}

static bool is_dir(const char *path) {
    return disk_posix.ops->list(disk_posix.context, path, ignore_name, NULL) == 0;
}

/* Is `named` meant as a path? */
static bool names_path(const char *named) {
    return strchr(named, '/') != NULL || strcmp(named, ".") == 0 || strcmp(named, "..") == 0 ||
           is_dir(named);
}

static bool stream_path(const struct cli *cli, const char *stream, char ret[PATH_MAX]) {
    char root[PATH_MAX], name[LOG_DIR_NAME_BYTES];
    if (!find_root(root))
        return false;
    record_log_dir_name(slice_str(cli->tenant != NULL ? cli->tenant : DEV_TENANT),
                        slice_str(cli->space), slice_str(stream), 0, name);
    int bytes = snprintf(ret, PATH_MAX, "%s/%s", root, name);
    return bytes > 0 && bytes < PATH_MAX;
}

int log_place_find(const struct cli *cli, const char *help_command, const char *named,
                   enum log_place_kind kind, struct log_place *ret) {
    *ret = (struct log_place){.node = false};
    bool stream = named != NULL && !names_path(named) && kind != LOG_PLACE_NEW;
    bool fits;
    if (named == NULL && kind != LOG_PLACE_ANY)
        return out_usage(help_command, "which log? Name a directory or a stream");
    if (named == NULL)
        fits = find_root(ret->path);
    else if (stream)
        fits = stream_path(cli, named, ret->path);
    else
        fits = snprintf(ret->path, PATH_MAX, "%s", named) < PATH_MAX;
    if (!fits)
        return out_usage(help_command, "the path is too long");
    if (kind == LOG_PLACE_NEW || survey_is_log(&disk_posix, ret->path))
        return CLI_GO_ON;
    if (!is_dir(ret->path)) {
        if (stream)
            out_error("there is no log of the stream %s: no directory %s", named, ret->path);
        else
            out_error("there is no directory %s", ret->path);
        return EXIT_NOTHING;
    }
    if (kind == LOG_PLACE_ONE) {
        out_error("%s holds no segment of a log", ret->path);
        return EXIT_NOTHING;
    }
    ret->node = true;
    return CLI_GO_ON;
}

/* ---- several ---- */

struct names {
    char **items;
    size_t count;
};

static void on_name(void *user, const char *name) {
    struct names *names = user;
    /* Names with a dot are of directories on their way in or out. */
    if (strchr(name, '.') != NULL)
        return;
    names->items = xrealloc(names->items, (names->count + 1) * sizeof *names->items);
    names->items[names->count++] = xstrdup(name);
}

static int by_text(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static const char *last_part(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash != NULL && slash[1] != '\0' ? slash + 1 : path;
}

int log_place_each(const struct log_place *place,
                   int (*each)(void *context, const char *dir, const char *name), void *context) {
    if (!place->node)
        return each(context, place->path, last_part(place->path));
    struct names names = {.items = NULL};
    int status = EXIT_DONE;
    size_t logs = 0;
    int failed = disk_posix.ops->list(disk_posix.context, place->path, on_name, &names);
    if (failed == 0 && names.count > 0)
        qsort(names.items, names.count, sizeof *names.items, by_text);
    for (size_t i = 0; i < names.count; i++) {
        char dir[PATH_MAX];
        int bytes = snprintf(dir, sizeof dir, "%s/%s", place->path, names.items[i]);
        if (bytes > 0 && bytes < PATH_MAX && survey_is_log(&disk_posix, dir)) {
            logs++;
            int one = each(context, dir, names.items[i]);
            status = one > status ? one : status;
        }
        free(names.items[i]);
    }
    free(names.items);
    if (logs > 0)
        return status;
    out_error("%s holds no log", place->path);
    return EXIT_NOTHING;
}

int log_place_failed(enum felix_err err, const struct felix_error *error) {
    out_error("%s", error->text[0] != '\0' ? error->text : err_text(err));
    return exit_code_of(err);
}
