#include "broker_process.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define WORDS_MAX 16u
#define OPEN_DIRECTORIES 8

enum felix_err broker_process_init(struct broker_process *broker, const char *argv0,
                                   struct felix_error *reterr) {
    *broker = (struct broker_process){0};
    const char *slash = strrchr(argv0, '/');
    const char *parent = getenv("TMPDIR");
    if (parent == NULL || parent[0] == '\0')
        parent = "/tmp";
    if (slash != NULL)
        (void)snprintf(broker->programs, sizeof broker->programs, "%.*s", (int)(slash - argv0 + 1),
                       argv0);
    (void)snprintf(broker->directory, sizeof broker->directory, "%s/felix-demo-XXXXXX", parent);
    if (mkdtemp(broker->directory) == NULL) {
        broker->directory[0] = '\0';
        return error_set(reterr, FELIX_SYSTEM, errno, "cannot make a directory below %s: %s",
                         parent, strerror(errno));
    }
    return FELIX_OK;
}

/* In the child: this program becomes another one, which ends when the demo does. */
_Noreturn static void become(const struct broker_process *broker, const char *name,
                             char *const *words) {
    char path[sizeof broker->programs + 32];
    (void)snprintf(path, sizeof path, "%s%s", broker->programs, name);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)execvp(path, words);
    (void)fprintf(stderr, "cannot run %s: %s\n", path, strerror(errno));
    _exit(127);
}

static void redirect_log(const struct broker_process *broker) {
    char path[sizeof broker->directory + 8];
    (void)snprintf(path, sizeof path, "%s/log", broker->directory);
    int log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log >= 0)
        (void)dup2(log, STDERR_FILENO);
}

/* The line that a broker prints when it is ready. */
static bool read_address(FILE *output, char address[64]) {
    char line[8192];
    while (fgets(line, sizeof line, output) != NULL) {
        const char *at = strstr(line, " quic=");
        if (at != NULL)
            return sscanf(at, " quic=%63s", address) == 1;
    }
    return false;
}

enum felix_err broker_process_start(struct broker_process *broker, struct felix_error *reterr) {
    char directory[sizeof broker->directory], bind[sizeof broker->address];
    int ends[2];
    (void)snprintf(directory, sizeof directory, "%s", broker->directory);
    (void)snprintf(bind, sizeof bind, "%s",
                   broker->address[0] != '\0' ? broker->address : "127.0.0.1:0");
    char *words[] = {"felix-broker", "--dev",          "--data-dir",  directory, "--quic-bind",
                     bind,           "--metrics-bind", "127.0.0.1:0", NULL};
    if (pipe2(ends, O_CLOEXEC) != 0)
        return error_set(reterr, FELIX_SYSTEM, errno, "pipe: %s", strerror(errno));
    broker->pid = fork();
    if (broker->pid == 0) {
        (void)dup2(ends[1], STDOUT_FILENO);
        redirect_log(broker);
        become(broker, "felix-broker", words);
    }
    (void)close(ends[1]);
    FILE *output = fdopen(ends[0], "r");
    bool ready = broker->pid > 0 && output != NULL && read_address(output, broker->address);
    if (output != NULL)
        (void)fclose(output);
    if (!ready)
        return error_set(reterr, FELIX_SYSTEM, 0, "felix-broker did not start; see %s/log",
                         broker->directory);
    return FELIX_OK;
}

static int end_status(struct broker_process *broker, int number) {
    int status = 0;
    if (broker->pid <= 0)
        return 0;
    (void)kill(broker->pid, number);
    while (waitpid(broker->pid, &status, 0) < 0 && errno == EINTR)
        continue;
    broker->pid = 0;
    return status;
}

void broker_process_kill(struct broker_process *broker) {
    (void)end_status(broker, SIGKILL);
}

enum felix_err broker_process_stop(struct broker_process *broker, struct felix_error *reterr) {
    int status = end_status(broker, SIGTERM);
    if (status != 0)
        return error_set(reterr, FELIX_SYSTEM, 0, "felix-broker did not end in order (status %d)",
                         status);
    return FELIX_OK;
}

enum felix_err broker_process_felix(struct broker_process *broker, const char *const *words,
                                    struct felix_error *reterr) {
    char *copies[WORDS_MAX] = {"felix"};
    int status = 0;
    size_t count = 1;
    for (; words[count - 1] != NULL && count + 1 < WORDS_MAX; count++)
        copies[count] = (char *)(uintptr_t)words[count - 1];
    pid_t pid = fork();
    if (pid == 0) {
        (void)setenv("FELIX_SERVER", broker->address, 1);
        (void)setenv("FELIX_DATA_DIR", broker->directory, 1);
        become(broker, "felix", copies);
    }
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    if (pid < 0 || status != 0)
        return error_set(reterr, FELIX_SYSTEM, 0, "felix %s failed (status %d)", words[0], status);
    return FELIX_OK;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw) {
    (void)remove(path);
    return 0;
}

void broker_process_deinit(struct broker_process *broker) {
    broker_process_kill(broker);
    if (broker->directory[0] != '\0')
        (void)nftw(broker->directory, remove_entry, OPEN_DIRECTORIES, FTW_DEPTH | FTW_PHYS);
    broker->directory[0] = '\0';
}
