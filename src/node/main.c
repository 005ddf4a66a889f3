/*
 * felix-broker: the node as a program. Settings, signals, exit codes.
 *
 * The main thread sleeps until a signal comes or a file that was loaded changes:
 *   SIGTERM, SIGINT   drain and exit 0; a second one exits at once with status 3
 *   SIGHUP            load certificate and keys again
 * Exit status: 0 normal stop; 1 start-up failed; 2 a setting or flag that cannot be used;
 * 3 stopped without draining.
 */
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <pthread.h>

#include "base/check.h"
#include "base/log.h"
#include "base/text.h"
#include "node/node.h"
#include "quic/cipher.h"
#include "quic/udp.h"

#define EXIT_STARTUP 1
#define EXIT_USAGE 2
#define EXIT_HURRIED 3
#define FD_LIMIT_WANTED 65536

struct program {
    struct config config;
    struct node *node;
    int signal_fd;
    int watch_fd;
    int argc; /* the command line, to be read again with the file */
    char **argv;
};

/* Certificate, key and key set are watched by their directories, because they are replaced by
 * renaming. */
static void watch_directory_of(int fd, const char *path) {
    char directory[4096];
    if (path == NULL || path[0] == '\0')
        return;
    (void)snprintf(directory, sizeof directory, "%s", path);
    char *slash = strrchr(directory, '/');
    if (slash == NULL)
        (void)snprintf(directory, sizeof directory, ".");
    else if (slash == directory)
        slash[1] = '\0';
    else
        *slash = '\0';
    if (inotify_add_watch(fd, directory, IN_CLOSE_WRITE | IN_MOVED_TO | IN_CREATE) < 0)
        LOG_WARN(node, "cannot_watch", F_STR("directory", directory));
}

static bool names_file(const char *path, const char *name) {
    if (path == NULL || path[0] == '\0')
        return false;
    const char *slash = strrchr(path, '/');
    return strcmp(slash != NULL ? slash + 1 : path, name) == 0;
}

/* Did one of the files that we loaded change? Symbolic link farms change the link above them. */
static bool loaded_file_changed(struct program *program) {
    _Alignas(struct inotify_event) char buffer[4096];
    const struct config *config = &program->config;
    bool changed = false;
    ssize_t len;
    while ((len = read(program->watch_fd, buffer, sizeof buffer)) > 0) {
        for (char *at = buffer; at < buffer + len;) {
            const struct inotify_event *event = (const struct inotify_event *)(const void *)at;
            if (event->len > 0 && (names_file(config->tls_cert, event->name) ||
                                   names_file(config->tls_key, event->name) ||
                                   names_file(config->auth_jwks_file, event->name) ||
                                   strcmp(event->name, "..data") == 0))
                changed = true;
            at += sizeof *event + event->len;
        }
    }
    return changed;
}

static void reload(struct program *program, const char *why) {
    struct felix_error error = {0};
    if (node_reload(program->node, &error) == FELIX_OK)
        LOG_INFO(node, "reloaded", F_STR("because", why));
    else
        LOG_WARN(node, "reload_failed", F_STR("because", why), F_STR("error", error.text),
                 F_STR("effect", "the old certificate and keys stay in use"));
}

/* The scope section of the file, as it is now. Other settings need a new start. */
static void reload_scope(struct program *program) {
    struct felix_error error = {0};
    struct node_scope_changes changes;
    struct config *fresh = xcalloc(1, sizeof *fresh);
    enum felix_err err = config_load(fresh, program->argc, program->argv, &error);
    if (err == FELIX_OK) {
        struct scope_item *items = fresh->scope;
        size_t count = fresh->scope_count;
        fresh->scope = NULL;
        fresh->scope_count = 0;
        err = node_set_scope(program->node, items, count, &changes, &error);
    }
    if (err != FELIX_OK)
        LOG_WARN(node, "scope_reload_failed", F_STR("error", error.text),
                 F_STR("effect", "the old scope stays in use"));
    else
        LOG_INFO(node, "scope_reloaded", F_U64("added", changes.added),
                 F_U64("removed", changes.removed), F_U64("need_restart", changes.altered));
    config_deinit(fresh);
    free(fresh);
}

static int drain(struct program *program, const char *signal_name) {
    uint32_t budget_ms = (uint32_t)program->config.shutdown_drain_timeout_ms;
    LOG_INFO(node, "draining", F_STR("signal", signal_name), F_U64("budget_ms", budget_ms));
    bool all = node_drain(program->node, budget_ms);
    if (all)
        LOG_INFO(node, "drain_complete");
    else
        LOG_WARN(node, "drain_incomplete", F_U64("budget_ms", budget_ms));
    return EXIT_SUCCESS;
}

/* While the main thread drains, a second signal must still be heard. */
static void *await_second_signal(void *context) {
    struct program *program = context;
    struct signalfd_siginfo info;
    while (read(program->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo != SIGHUP) {
            LOG_WARN(node, "stopped_at_once", F_STR("signal", strsignal((int)info.ssi_signo)));
            _exit(EXIT_HURRIED);
        }
    }
    return NULL;
}

static int serve(struct program *program) {
    struct epoll_event event;
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    event = (struct epoll_event){.events = EPOLLIN, .data.fd = program->signal_fd};
    (void)epoll_ctl(epoll_fd, EPOLL_CTL_ADD, program->signal_fd, &event);
    event = (struct epoll_event){.events = EPOLLIN, .data.fd = program->watch_fd};
    (void)epoll_ctl(epoll_fd, EPOLL_CTL_ADD, program->watch_fd, &event);

    for (;;) {
        if (epoll_wait(epoll_fd, &event, 1, -1) < 1)
            continue;
        if (event.data.fd == program->watch_fd) {
            if (loaded_file_changed(program))
                reload(program, "a file changed");
            continue;
        }
        struct signalfd_siginfo info;
        if (read(program->signal_fd, &info, sizeof info) != (ssize_t)sizeof info)
            continue;
        if (info.ssi_signo == SIGHUP) {
            reload(program, "SIGHUP");
            reload_scope(program);
            continue;
        }
        pthread_t thread;
        if (pthread_create(&thread, NULL, await_second_signal, program) == 0)
            (void)pthread_detach(thread);
        (void)close(epoll_fd);
        return drain(program, info.ssi_signo == SIGTERM ? "SIGTERM" : "SIGINT");
    }
}

static void block_signals(struct program *program) {
    sigset_t set;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGINT);
    (void)sigaddset(&set, SIGHUP);
    (void)pthread_sigmask(SIG_BLOCK, &set, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    program->signal_fd = signalfd(-1, &set, SFD_CLOEXEC);
    program->watch_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
}

static void raise_descriptor_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= FD_LIMIT_WANTED)
        return;
    limit.rlim_cur = limit.rlim_max < FD_LIMIT_WANTED ? limit.rlim_max : FD_LIMIT_WANTED;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
}

/* The address that was asked for, with the port that was found. */
static const char *bound_text(const struct option_addr *asked, uint16_t port, char out[64]) {
    struct sockaddr_storage address = asked->storage;
    if (address.ss_family == AF_INET6)
        ((struct sockaddr_in6 *)(void *)&address)->sin6_port = htons(port);
    else
        ((struct sockaddr_in *)(void *)&address)->sin_port = htons(port);
    return sockaddr_text(&address, out);
}

/* One line for humans and for scripts that start us and wait for it. */
static void announce(const struct program *program) {
    char quic[64], http[64];
    enum quic_cipher cipher; /* the same as when the certificate was loaded */
    (void)quic_cipher_choose((enum quic_cipher)program->config.quic_cipher, &cipher, NULL);
    (void)bound_text(&program->config.quic_bind, node_quic_port(program->node), quic);
    (void)bound_text(&program->config.metrics_bind, node_http_port(program->node), http);
    (void)printf("felix-broker ready quic=%s http=%s data-dir=%s\n", quic, http,
                 node_data_dir(program->node));
    (void)fflush(stdout);
    LOG_INFO(node, "packet_cipher", F_STR("chosen", quic_cipher_text(cipher)));
    LOG_INFO(node, "ready", F_STR("quic", quic), F_STR("http", http),
             F_STR("data_dir", node_data_dir(program->node)),
             F_U64("reactors", node_reactors(program->node)));
}

/* Returns -1 to go on, or the exit status: the command line was wrong or asked for a page. */
static int configure(struct program *program, int argc, char **argv) {
    program->argc = argc;
    program->argv = argv;
    struct felix_error error = {0};
    struct text page = {0};
    enum felix_err err = config_load(&program->config, argc, argv, &error);
    if (err != FELIX_OK) {
        (void)fprintf(stderr, "felix-broker: %s\n", error.text);
        return err == FELIX_SYSTEM ? EXIT_STARTUP : EXIT_USAGE;
    }
    if (config_answer(&program->config, argv[0], &page)) {
        (void)fputs(text_str(&page), stdout);
        text_deinit(&page);
        return EXIT_SUCCESS;
    }
    config_apply_log(&program->config);
    return -1;
}

int main(int argc, char **argv) {
    static struct program program;
    struct felix_error error = {0};
    int configured = configure(&program, argc, argv);
    if (configured >= 0) {
        config_deinit(&program.config);
        return configured;
    }
    block_signals(&program);
    raise_descriptor_limit();
    if (node_start(&program.config, &program.node, &error) != FELIX_OK) {
        (void)fprintf(stderr, "felix-broker: cannot start: %s\n", error.text);
        config_deinit(&program.config);
        return EXIT_STARTUP;
    }
    watch_directory_of(program.watch_fd, program.config.tls_cert);
    watch_directory_of(program.watch_fd, program.config.tls_key);
    watch_directory_of(program.watch_fd, program.config.auth_jwks_file);
    announce(&program);
    int status = serve(&program);
    node_stop(program.node);
    config_deinit(&program.config);
    return status;
}
